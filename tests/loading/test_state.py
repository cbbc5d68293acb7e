"""A sampler's state: saved, restored, and what it was restored over."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch

from augloader.core import Selection
from augloader.core.fields import signed
from augloader.loading.plan import EpochPlan
from augloader.loading.state import State

PLAN = EpochPlan.of(6, count=2, epochs=5)
CHOSEN = Selection(torch.tensor([4, 1]), torch.tensor([2.0, 4.0]))


def state(epoch: int, selection: Selection | None = CHOSEN) -> State:
    strengths = torch.linspace(0, 1, 6)
    return State(epoch, strengths, PLAN.compose(epoch, selection, strengths), selection, 1, start=3)


def saved(epoch: int, /, used: int = 0, **changes: Any) -> dict[str, Any]:
    return signed(state(epoch).saved(PLAN.arguments(), used) | changes)


def test_a_state_is_restored_as_it_was_saved() -> None:
    found = state(0, None).restored(PLAN, PLAN.arguments(), saved(2, used=4))
    assert (found.epoch, found.refreshed, found.start, found.resumed) == (2, 1, 7, True)
    assert found.selection is not None
    assert torch.equal(found.selection.indices, CHOSEN.indices)
    for mine, theirs in zip(found.draws.columns, state(2).draws.columns, strict=True):
        assert (mine == theirs).all()


def test_it_remembers_the_later_epoch_that_it_is_loaded_over() -> None:
    later, earlier = state(3), state(1)
    assert later.restored(PLAN, PLAN.arguments(), saved(2)).overtaken is later
    assert earlier.restored(PLAN, PLAN.arguments(), saved(2)).overtaken is None


def test_it_is_swapped_whole() -> None:
    with pytest.raises(FrozenInstanceError):
        state(0).epoch = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 5}, "version 4, got 5"),
        ({"epoch": 5}, r"epoch must be in \[0, 5\)"),
        ({"selection": (torch.tensor([1, 1]), torch.ones(2))}, "distinct"),
        ({"selection": None}, "selection of the state must be 2 values"),
        ({"start": 9}, "start of the state must be a whole number, at least 0 and at most 8"),
        ({"refreshed": 3}, "refreshed of the state must be .* at most 2, got 3"),
        ({"arguments": None}, "must be of a sampler with n=6"),
        ({"arguments": {}}, "must be of a sampler with n=6, seed=0, .*, got n=None"),
        ({"arguments": PLAN.arguments() | {"seed": 7}}, "with seed=0, got seed=7"),
    ],
)
def test_what_was_not_saved_by_this_plan(changes: dict[str, Any], words: str) -> None:
    before = replace(state(0))
    with pytest.raises(ValueError, match=words):
        before.restored(PLAN, PLAN.arguments(), saved(2, **changes))
