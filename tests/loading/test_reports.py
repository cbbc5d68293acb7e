"""Which rows of a report count, and what is made of their targets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from augloader import (
    Constant,
    CoresetSampler,
    Draw,
    Sample,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from tests.loading.test_sampler import N, batch, logits_of, ready


def known(sampler: CoresetSampler) -> dict[str, Any]:
    """Everything that was reported, in comparable form."""
    state = sampler.table.state_dict()
    columns = {
        name: (torch.where(seen.isfinite().view(-1, *[1] * (values.ndim - 1)), values, 0), seen)
        for name, (values, seen) in state["columns"].items()
    }
    parts = {"visits": state["visits"], "labels": state["labels"], **state["memory"]}
    return {name: part.tolist() for name, part in parts.items()} | {
        name: [part.tolist() for part in column] for name, column in columns.items()
    }


def rows(count: int) -> Sample:
    """A batch of plain draws and copies, with the loader's column ``mixed``."""
    given = batch([Draw(i // 2, i % 2, 1.0, float(i % 2)) for i in range(count)])
    return given._replace(mixed=torch.zeros(count, dtype=torch.bool))


def loss_and_logits(given: Sample) -> dict[str, Tensor]:
    values = logits_of(given.index, given.strength)
    return {"loss": values.sum(1).exp(), "logits": values}


LEARNER = StableInfluence("loss", window=2)


@for_all(st.lists(st.booleans(), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_mixed_rows_are_left_out_of_a_report(
    mixed: list[bool], with_loss: bool, one_hot: bool
) -> None:
    rule = LEARNER if with_loss else Constant()
    left_out, without = ready(strength=rule), ready(strength=rule)
    given = rows(len(mixed))._replace(mixed=torch.tensor(mixed))
    values = loss_and_logits(given)
    if not with_loss:
        del values["loss"]
    plain = (~given.mixed).nonzero().flatten()
    if len(plain):
        few = given._replace(
            **{
                name: getattr(given, name)[plain]
                for name in ("target", "index", "weight", "strength", "copy", "mixed")
            }
        )
        without.report(few, **{name: part[plain] for name, part in values.items()})
    if one_hot:
        target = torch.nn.functional.one_hot(given.target, 2).float()
        target[given.mixed] = torch.tensor([0.4, 0.6])
        given = given._replace(target=target)
    for part in values.values():
        part[given.mixed] = torch.nan  # not even looked at
    left_out.report(given, **values)
    assert known(left_out) == known(without)


def test_a_batch_of_mixed_rows_changes_nothing() -> None:
    sampler = ready(strength=LEARNER)
    sampler.report(rows(8), **loss_and_logits(rows(8)))
    before = known(sampler)
    given = rows(12)._replace(mixed=torch.ones(12, dtype=torch.bool))
    for target in (given.target, torch.full((12, 2), 0.5)):
        values = loss_and_logits(given)
        sampler.report(given._replace(target=target), **values)
        assert known(sampler) == before


def test_of_a_samples_draws_the_weakest_that_is_not_mixed_counts() -> None:
    sampler = ready()
    given = rows(6)._replace(mixed=torch.tensor([True, False] * 3))
    sampler.report(given, loss=torch.arange(6.0))
    values, strength = sampler.table.state_dict()["columns"]["losses"]
    assert values[:3].tolist() == [1, 3, 5]
    assert strength[:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_labels_of_one_hot_targets(dtype: torch.dtype) -> None:
    sampler = ready()
    given = rows(8)
    target = torch.nn.functional.one_hot(torch.arange(8) // 2 % 3, 3).to(dtype)
    sampler.report(given._replace(target=target), logits=torch.zeros(8, 3))
    labels = sampler.table.state_dict()["labels"]
    assert labels.tolist() == [0, 1, 2, 0] + [-1] * (N - 4)


SEVERAL = "that are no class probabilities.*a proxy of your own"


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda t: t * 0.9 + 0.05, ValueError, "got rows that mix classes.*mixed=True"),
        (lambda t: t * 0, ValueError, SEVERAL),
        (lambda t: t * 2, ValueError, SEVERAL),
        (
            lambda t: t * torch.nan,
            ValueError,
            SEVERAL,
        ),
        (lambda t: t[:, :, None], TypeError, "target must be"),
        (lambda t: t[:5], ValueError, "target must have 8 rows, as the batch"),
        (
            lambda t: torch.cat([t, t], 1),
            ValueError,
            SEVERAL,
        ),
        (lambda t: torch.cat([t * 0, t], 1), ValueError, r"target must be in \[0, 2\)"),
    ],
)
def test_other_targets_of_rows_that_are_not_mixed_change_nothing(
    spoil: Callable[[Tensor], Tensor], error: type[Exception], words: str
) -> None:
    sampler = ready(strength=LEARNER)
    sampler.report(rows(4), **loss_and_logits(rows(4)))
    before = known(sampler)
    given = rows(8)._replace(mixed=torch.tensor([False] * 6 + [True] * 2))
    target = spoil(torch.nn.functional.one_hot(given.target, 2).float())
    with pytest.raises(error, match=words):
        sampler.report(given._replace(target=target), **loss_and_logits(given))
    assert known(sampler) == before


def test_a_mixed_batch_is_checked_as_any_other() -> None:
    sampler = ready()
    before = known(sampler)
    given = rows(4)._replace(mixed=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="loss must have 4 rows"):
        sampler.report(given, loss=torch.zeros(3))
    with pytest.raises(ValueError, match="repeated draws"):
        sampler.report(given._replace(copy=given.copy * 0), loss=torch.zeros(4))
    assert known(sampler) == before


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_what_is_mixed_may_be_of_any_dtype(dtype: torch.dtype) -> None:
    sampler = ready()
    given = rows(8)._replace(copy=torch.zeros(8, dtype=torch.int64), index=torch.arange(8))
    mixed = torch.arange(8) % 3 == 0
    sampler.report(given._replace(mixed=mixed.to(dtype)), loss=torch.zeros(8))
    assert sampler.table.visits[:8].tolist() == [int(not each) for each in mixed]


@pytest.mark.parametrize("mixed", [torch.zeros(3, dtype=torch.bool), torch.zeros(8, 2).bool()])
def test_what_is_mixed_has_a_row_for_each_of_the_batch(mixed: Tensor) -> None:
    with pytest.raises(ValueError, match="mixed must have 8 rows, as the batch"):
        ready().report(rows(8)._replace(mixed=mixed), loss=torch.zeros(8))


def test_a_loaders_batches_are_not_mixed() -> None:
    data = WeightedAugmentedDataset([(float(i), i % 2) for i in range(N)])
    sampler = CoresetSampler(data, Uniform(), fraction=0.5)
    sampler.refresh()
    for given in DataLoader(data, batch_size=16, sampler=sampler):
        assert given.mixed.dtype == torch.bool
        assert not given.mixed.any()
        sampler.report(given, loss=given.index.float())
    assert not len(sampler.table.missing("losses"))


def test_rows_mixed_elsewhere_are_left_out_and_marks_can_be_taken_back() -> None:
    loss, marked = torch.arange(6.0), torch.tensor([True, False] * 3)
    for mixed, expected in ((None, 3), (marked.logical_not(), 0), (True, 0), (False, 3)):
        sampler = ready()
        sampler.report(rows(6)._replace(mixed=marked), loss=loss, mixed=mixed)
        found = N - len(sampler.table.missing("losses"))
        assert found == expected
    taken = sampler.table.state_dict()["columns"]["losses"][0][:3]
    assert taken.tolist() == [0, 2, 4]  # of two equal draws the first counts
