"""Changes are made together, or not at all."""

from typing import Any

import pytest
import torch

from augloader.core import changes as module
from augloader.core.changes import Changes
from tests.tracing import interrupted


class Holder:
    def __init__(self) -> None:
        self.rows = torch.arange(6.0)
        self.name = "before"
        self.made = list[str]()


def changes_of(holder: Holder) -> Changes:
    found, other = Changes(), Changes()
    found.rows(holder.rows, torch.tensor([4, 1]), torch.tensor([40.0, 10.0]))
    other.attribute(holder, "name", "after")
    found.also(other)
    found.step(lambda: holder.made.append("made"), holder.made.clear)
    found.rows(holder.rows, torch.tensor([4]), torch.tensor([400.0]))
    return found


def values(holder: Holder) -> tuple[Any, ...]:
    return holder.rows.tolist(), holder.name, tuple(holder.made)


BEFORE = ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "before", ())
AFTER = ([0.0, 10.0, 2.0, 3.0, 400.0, 5.0], "after", ("made",))


def test_nothing_changes_before_they_are_made() -> None:
    holder = Holder()
    found = changes_of(holder)
    assert values(holder) == BEFORE
    found.make()
    assert values(holder) == AFTER


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.bool])
def test_rows_of_any_dtype_are_taken_back(dtype: torch.dtype) -> None:
    before = torch.arange(6).reshape(3, 2).to(dtype)
    rows, found = before.clone(), Changes()
    found.rows(rows, torch.tensor([2, 0]), torch.tensor([[7, 0], [1, 0]]).to(dtype))
    found.rows(rows, torch.tensor([1]), 0)
    found.step(lambda: seen.append(rows.clone()), lambda: None)
    found.step(lambda: 1 / 0, lambda: None)
    seen: list[torch.Tensor] = []
    with pytest.raises(ZeroDivisionError):
        found.make()
    assert torch.equal(seen[0], torch.tensor([[1, 0], [0, 0], [7, 0]]).to(dtype))
    assert torch.equal(rows, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_what_was_begun_is_taken_back(error: type[BaseException]) -> None:
    holder = Holder()
    found = changes_of(holder)

    def fail() -> None:
        raise error

    found.step(fail, lambda: None)
    with pytest.raises(error):
        found.make()
    assert values(holder) == BEFORE


def test_an_interrupt_at_any_instruction_leaves_all_or_nothing() -> None:
    seen, at = set(), 0
    while True:
        at += 1
        holder = Holder()
        count = interrupted(changes_of(holder).make, at, module.__file__, "opcode")
        seen.add(str(values(holder)))
        assert values(holder) in (BEFORE, AFTER), at
        if count < at:
            break
    assert at > 20
    assert seen == {str(BEFORE), str(AFTER)}
