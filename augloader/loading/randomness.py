"""The global random states of torch, NumPy and Python, fixed for a while."""

from __future__ import annotations

import random
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
        torch.default_generator.manual_seed(self.seed)  # torch.manual_seed seeds the devices too
        np.random.seed(self.seed % 2**32)  # noqa: NPY002 - the one that datasets draw from
        random.seed(self.seed)
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


def _states() -> tuple[torch.Tensor, Any, Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return torch.default_generator.get_state(), numpy_state, random.getstate()
