"""Changes that are made together, or not at all: also where Ctrl-C comes between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from augloader.core.batch import as_array

Step = Callable[[], object]


class Changes:
    """Steps to make at once, each with what takes it back.

    Whatever is raised between them, an error, a failed allocation or KeyboardInterrupt, takes back
    those that were begun; a second interrupt within that is not guarded against.

    Example:
        >>> import torch
        >>> losses, changes = torch.zeros(3), Changes()
        >>> changes.rows(losses, torch.tensor([2]), torch.tensor([0.5]))
        >>> changes.step(lambda: 1 / 0, lambda: None)
        >>> changes.make()
        Traceback (most recent call last):
        ...
        ZeroDivisionError: division by zero
        >>> losses
        tensor([0., 0., 0.])
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Step, Step]] = []

    def step(self, make: Step, undo: Step) -> None:
        """Add a step.

        Args:
            make: makes it.
            undo: leaves all as it was before, whether or not it was made.
        """
        self._steps.append((make, undo))

    def rows(self, into: Tensor, index: Tensor, values: Tensor | int) -> None:
        """Add the change of some rows.

        Args:
            into: (n, ...), which nothing else changes until then.
            index: (b,) int64, distinct.
            values: (b, ...), or one number for all.
        """
        held: Any = as_array(into)
        at: Any = index
        new: Any = values
        if held is None:
            held = into
        else:
            at, new = (x.numpy() if isinstance(x, Tensor) else x for x in (index, values))
        before, write = held[at], held.__setitem__
        self.step(partial(write, at, new), partial(write, at, before))

    def attribute(self, holder: Any, name: str, value: Any) -> None:
        """Add the change of an attribute, past a descriptor's ``__get__``."""
        before = vars(holder)[name]
        self.step(partial(setattr, holder, name, value), partial(setattr, holder, name, before))

    def also(self, other: Changes) -> None:
        """Add all steps of others."""
        self._steps += other._steps

    def make(self) -> None:
        """Make the steps in order."""
        begun = 0
        try:
            for make, _ in self._steps:
                begun += 1
                make()
        except BaseException:
            for _, undo in self._steps[:begun][::-1]:
                undo()
            raise
