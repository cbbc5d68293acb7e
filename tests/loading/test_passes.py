"""Draws are handed out as long as they are what was planned."""

import warnings
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    CoresetSampler,
    Every,
    Evidence,
    Given,
    Rank,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.loading.passes import Pass, Progress

N = 24
DATA = WeightedAugmentedDataset(TensorDataset(torch.rand(N, 2), torch.arange(N) % 3))


def planned(**options: Any) -> CoresetSampler:
    sampler = CoresetSampler(DATA, Rank(Given()), **{"fraction": 0.5, **options})
    sampler.refresh(Evidence(N, scores=torch.rand(N)))
    return sampler


# One pass -----------------------------------------------------------------------------------------


def test_a_pass_counts_what_it_hands_out() -> None:
    part = Pass(5)
    assert (part.count, part.handed_out) == (5, 0)
    assert list(part.part([5, 6])) == [5, 6]
    index = part.part([7, 8, 9])
    assert part.handed_out == 2
    assert next(index) == 7
    assert part.handed_out == 3
    part.end("over")
    assert list(index) == []
    assert (part.over, part.handed_out) == ("over", 3)


def test_a_pass_that_is_done_is_not_ended() -> None:
    part = Pass(1)
    assert list(part.part([5])) == [5]
    part.end("over")
    assert part.over is None


def test_of_nothing_nothing_was_made_twice() -> None:
    progress = Progress(0)
    for _ in range(3):
        progress.begun(0)


@pytest.mark.parametrize(
    ("made", "reported", "batches", "words"),
    [
        (30, 0, (), None),
        (29, 0, (), "29 of 30 draws of epoch 4 were made"),
        (30, 30, (10, 10, 10), None),
        (30, 30, (10, 10, 9), None),  # a last batch that was dropped may lack so many
        (30, 30, (10, 10), "20 of 30 draws of epoch 4 were reported, though all were made"),
        (30, 15, (5, 5), "10 of 15 draws of epoch 4 were reported"),
        (20, 0, (10, 10), "20 of 30 draws of epoch 4 were made"),
    ],
)
def test_what_a_cut_epoch_says(
    made: int, reported: int, batches: tuple[int, ...], words: str | None
) -> None:
    progress = Progress(4)
    index = progress.begun(30).part(list(range(30)))
    _ = [next(index) for _ in range(made)]
    for rows in batches:
        progress.record(rows).make()
    said = progress.cut(reported)
    assert said is None if words is None else str(said).startswith(words)


# What a loader is told ----------------------------------------------------------------------------


def begin(sampler: CoresetSampler, how: str) -> None:
    if how == "set_epoch":
        sampler.set_epoch(1)
    elif how == "begin":
        sampler.begin(1, Evidence(N, scores=torch.rand(N)))
    elif how == "refresh":
        sampler.refresh(Evidence(N, scores=torch.rand(N)))
    else:
        sampler.load_state_dict(planned().state_dict())


ENDED = {
    "set_epoch": "draws of epoch 0 were asked for when epoch 1 had begun",
    "begin": "draws of epoch 0 were asked for when epoch 1 had begun",
    "refresh": "draws of epoch 0 were asked for after it was refreshed",
    "load": "draws of epoch 0 were asked for after a state was loaded",
}


@pytest.mark.filterwarnings("ignore:.* draws of epoch 0 were made:UserWarning")
@pytest.mark.parametrize("how", ENDED)
@pytest.mark.parametrize("workers", [0, 1])
def test_draws_left_of_an_epoch_that_is_over_raise(how: str, workers: int) -> None:
    sampler = planned()
    batches = iter(DataLoader(DATA, 4, sampler=sampler, num_workers=workers))
    next(batches)
    begin(sampler, how)
    with pytest.raises(RuntimeError, match=ENDED[how]):
        list(batches)
    later = list(DataLoader(DATA, 4, sampler=sampler))
    assert sum(len(batch.index) for batch in later) == len(sampler)
    assert {int(epoch) for batch in later for epoch in batch.epoch} == {sampler.epoch}


@pytest.mark.parametrize("how", ENDED)
def test_after_the_last_draw_anything_may_begin(how: str) -> None:
    sampler = planned()
    draws = iter(sampler)
    assert len([next(draws) for _ in range(len(sampler))]) == len(sampler)
    begin(sampler, how)
    assert next(draws, None) is None


def test_a_look_at_some_draws_is_no_pass() -> None:
    sampler = planned()
    for _ in range(3):
        next(iter(sampler))
    assert len(list(sampler)) == len(sampler)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_pass_of_an_epoch_is_told_once(workers: int) -> None:
    sampler = planned(epochs=4, refresh=Every(None))
    loader = DataLoader(DATA, 5, sampler=sampler, num_workers=workers)
    list(loader)
    with pytest.warns(UserWarning, match=r"All draws of epoch 0 were made twice.*set_epoch"):
        list(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader)
        for epoch in range(1, 4):
            sampler.set_epoch(epoch)
            list(loader)


def test_a_state_saved_within_an_epoch_goes_on_without_a_word() -> None:
    sampler = planned()
    draws = iter(sampler)
    first = [next(draws) for _ in range(10)]
    other = planned()
    other.load_state_dict(sampler.state_dict(consumed=10))
    sampler = planned()
    sampler.load_state_dict(other.state_dict())
    assert len(first) + len(list(sampler)) == N + N // 2
    assert CoresetSampler(DATA, Uniform(), fraction=0.5).epoch == 0
