"""The global random states of torch, NumPy and Python, fixed for a while."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import torch


class Fixed:
    """Begin the global random states, on the CPU, at a seed in a block; then restore them.

    Attributes:
        moved: after the block, whether anything in it drew from them.

    Example:
        >>> fixed = Fixed(0)
        >>> with fixed:
        ...     _ = random.random()
        >>> fixed.moved
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.moved = seed, False

    def __enter__(self) -> Fixed:
        """Save the states and seed them."""
        self._before = _states()
        seed_all(self.seed)
        self._begun = _states()
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the states."""
        torch_state, numpy_state, python_state = _states()
        self.moved = (
            not torch.equal(torch_state, self._begun[0])
            or numpy_state[2:] != self._begun[1][2:]
            or not np.array_equal(numpy_state[1], self._begun[1][1])
            or python_state != self._begun[2]
        )
        torch_state, numpy_state, python_state = self._before
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def seed_all(seed: int) -> None:
    """Begin the global random states, on the CPU, at a seed: torch.manual_seed seeds GPUs too."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the one that datasets draw from
    random.seed(seed)


def drawn_since() -> bool:
    """Whether random numbers were drawn since ``seed_all(0)``; it draws some itself.

    Cost: a tenth of what saving and restoring the states costs.
    """
    return _next() != _first()


@cache
def _first() -> tuple[Any, ...]:
    with Fixed(0):
        return _next()


def _next() -> tuple[Any, ...]:
    state = torch.default_generator.get_state().numpy().tobytes()
    return random.random(), np.random.random_sample(), state  # noqa: NPY002


def _states() -> tuple[torch.Tensor, Any, Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return torch.default_generator.get_state(), numpy_state, random.getstate()
