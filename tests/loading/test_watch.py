"""What becomes of planned epochs is told once, where it is not what was planned."""

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    Constant,
    CoresetSampler,
    Every,
    Evidence,
    Loss,
    LossRank,
    Rank,
    Uniform,
    WarmUp,
    WeightedAugmentedDataset,
)

N, BATCH = 48, 8
COLUMNS = TensorDataset(torch.rand(N, 2), torch.arange(N) % 3)
DATA = WeightedAugmentedDataset(COLUMNS)


def planned(data: Any = DATA, **options: Any) -> CoresetSampler:
    return CoresetSampler(data, Uniform(), **{"fraction": 0.5, "refresh": Every(1, 1), **options})


def trained(sampler: CoresetSampler, epoch: int, batches: int | None = None, **loader: Any) -> int:
    """Train an epoch, or some batches of it, and return how many rows were."""
    sampler.begin(epoch)
    rows = 0
    for step, batch in enumerate(DataLoader(DATA, BATCH, sampler=sampler, **loader)):
        if step == batches:
            break
        sampler.report(batch, loss=torch.rand(len(batch.index)))
        rows += len(batch.index)
    return rows


def told(words: str, steps: Iterable[Callable[[], Any]]) -> int:
    """Take some steps and return how many warnings they gave, all with these words."""
    with pytest.warns(UserWarning, match=words) as found:
        _ = [step() for step in steps]
    assert all(re.search(words, str(one.message)) for one in found)
    return len(found)


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Epochs that are cut ------------------------------------------------------------------------------


def test_a_cut_epoch_is_told_once_with_its_numbers() -> None:
    sampler, words = planned(), "48 of 72 draws of epoch 1 were reported.*constant_length"
    assert told(words, [partial(trained, sampler, epoch, N // BATCH) for epoch in range(4)]) == 1


def test_a_cut_epoch_is_told_without_reports_too() -> None:
    sampler = planned()
    sampler.begin(0)
    next(iter(DataLoader(DATA, BATCH, sampler=sampler)))
    assert told("8 of 48 draws of epoch 0 were made", [partial(sampler.begin, 1)]) == 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"num_workers": 1}])
def test_whole_epochs_say_nothing(options: dict[str, Any]) -> None:
    sampler = planned(fraction=0.3)
    for epoch in range(3):
        trained(sampler, epoch, **options)


@pytest.mark.usefixtures("quiet")
def test_an_epoch_of_constant_length_is_whole_for_a_trainer_that_asks_once() -> None:
    sampler = planned(epochs=4, constant_length=True, fraction=0.4)
    steps = len(DataLoader(DATA, BATCH, sampler=sampler))
    for epoch in range(4):
        trained(sampler, epoch, steps)
    assert len(set(sampler.planned_draws())) == 1


@pytest.mark.usefixtures("quiet")
def test_an_epoch_that_nobody_draws_says_nothing() -> None:
    sampler = planned()
    for epoch in range(4):
        sampler.begin(epoch)


# Epochs that are left -----------------------------------------------------------------------------


def test_a_loaded_epoch_left_for_an_earlier_one_is_told() -> None:
    sampler = planned()
    sampler.begin(0)
    sampler.begin(1)
    state, other = sampler.state_dict(consumed=16), planned()
    other.load_state_dict(state)
    with pytest.warns(
        UserWarning, match=r"epoch 1 was loaded, 16 of its draws made, and is left for epoch 0"
    ):
        other.set_epoch(0)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_loaded_epoch_that_goes_on_or_is_followed_is_not(epoch: int) -> None:
    sampler = planned()
    sampler.begin(0)
    sampler.begin(1)
    other = planned()
    other.load_state_dict(sampler.state_dict(consumed=16))
    other.set_epoch(epoch)


@pytest.mark.usefixtures("quiet")
def test_an_epoch_that_was_begun_goes_on_until_the_next_begin() -> None:
    sampler = planned(epochs=4)
    for epoch in range(2, 4):
        sampler.begin(epoch)
        for other in (0, epoch, epoch + 1):
            sampler.set_epoch(other)
            assert sampler.epoch == epoch
        trained_rows = [draw.epoch for draw in sampler]
        assert set(trained_rows) == {epoch}
        sampler.set_epoch(1)
        assert sampler.epoch == epoch
    with pytest.raises(TypeError, match="epoch must be an integer"):
        sampler.set_epoch("1")  # type: ignore[arg-type]


def test_going_back_is_told() -> None:
    sampler = planned(refresh=Every(2))
    sampler.set_epoch(4)
    sampler.refresh()
    assert told("epoch 0 begins after epoch 4.*new sampler", [partial(sampler.set_epoch, 0)]) == 1


@pytest.mark.usefixtures("quiet")
def test_going_back_by_drawn_epochs_of_one_selection_is_not() -> None:
    sampler = planned(refresh=Every(None))
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(Evidence(N))
        list(sampler)


def test_rows_of_a_loader_without_the_sampler_are_told() -> None:
    sampler = planned(strength=LossRank())
    batches = [next(iter(DataLoader(DATA, BATCH))) for _ in range(2)]
    reports = [partial(sampler.report, batch, loss=torch.rand(BATCH)) for batch in batches]
    assert told("rows of no epoch were reported", reports) == 1


def test_reports_that_lack_are_told_apart_from_draws_that_lack() -> None:
    sampler = planned()
    sampler.begin(0)
    for batch in list(DataLoader(DATA, BATCH, sampler=sampler))[::3]:
        sampler.report(batch, loss=torch.rand(BATCH))
    words = "16 of 48 draws of epoch 0 were reported, though all were made"
    assert told(words, [partial(sampler.begin, 1)]) == 1


@pytest.mark.usefixtures("quiet")
def test_a_pass_that_nothing_is_reported_of_is_a_look() -> None:
    sampler = planned()
    for epoch in range(3):
        trained(sampler, epoch)
        list(DataLoader(DATA, BATCH, sampler=sampler))  # the accuracy on the training data


# Strengths that mean nothing ----------------------------------------------------------------------


def graded(x: Any, strength: float) -> Any:
    return x * strength


@pytest.mark.parametrize(
    "options", [{"strength_schedule": WarmUp(3), "epochs": 4}, {"strength": Constant(0.5)}]
)
def test_a_transform_without_strength_is_told_of_strengths_between(options: dict[str, Any]) -> None:
    data = WeightedAugmentedDataset(COLUMNS, strong=torch.neg)
    sampler, words = planned(data, **options), r'named strength.*ungraded="probability"'
    assert told(words, [partial(sampler.begin, epoch) for epoch in range(3)]) == 1


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "data",
    [
        WeightedAugmentedDataset(COLUMNS, strong=graded),
        WeightedAugmentedDataset(COLUMNS, strong=torch.neg, ungraded="probability"),
        DATA,
        range(N),
    ],
)
def test_others_are_not(data: Any) -> None:
    sampler = planned(data, strength_schedule=WarmUp(3), epochs=4)
    for epoch in range(3):
        sampler.begin(epoch)


@pytest.mark.usefixtures("quiet")
def test_strengths_of_0_and_1_need_no_parameter() -> None:
    sampler = planned(WeightedAugmentedDataset(COLUMNS, strong=torch.neg), probability=0.5)
    for epoch in range(3):
        sampler.begin(epoch)


# Copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_of_a_sampler_watch_for_themselves(copied: Any) -> None:
    sampler = planned(strength=LossRank())
    trained(sampler, 0)
    other = copied(sampler)
    assert other.epoch == sampler.epoch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(other, 1)


@pytest.mark.filterwarnings("ignore:40 of 48 draws of epoch 0 were reported:UserWarning")
def test_a_batch_of_another_epoch_is_not_reported() -> None:
    sampler = CoresetSampler(DATA, Rank(Loss()), fraction=0.5, refresh=Every(1, 1))
    batches = list(DataLoader(DATA, BATCH, sampler=sampler))
    for batch in batches[:-1]:
        sampler.report(batch, loss=torch.rand(len(batch.index)))
    sampler.set_epoch(1)
    before = sampler.table.state_dict()["columns"]["losses"][0].clone()
    with pytest.raises(ValueError, match="batch must be of epoch 1, got 8 rows of epoch 0"):
        sampler.report(batches[-1], loss=torch.rand(BATCH))
    assert torch.equal(
        sampler.table.state_dict()["columns"]["losses"][0].nan_to_num(), before.nan_to_num()
    )
    sampler.refresh(Evidence(N, losses=torch.rand(N)))
