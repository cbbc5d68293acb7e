"""Numba: how loops are compiled, the threads that run them, and square roots."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]
_Loop = TypeVar("_Loop", bound=Callable[..., Any])


class _Alone:
    """The one thread that there is, where a pool's would only add memory of their own."""

    map = map

    def __enter__(self) -> _Alone:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to be done."""


def threads() -> Any:
    """Return as many Python threads for these loops as torch may use, as a pool with ``map``."""
    count = torch.get_num_threads()
    return ThreadPoolExecutor(count) if count > 1 else _Alone()


def jit(loop: _Loop, **options: Any) -> _Loop:
    """Compile a loop that releases the interpreter's lock; its machine code is kept on disk."""
    try:
        return cast(_Loop, njit(nogil=True, cache=True, **options)(loop))
    except RuntimeError:  # no place to keep machine code, as in a read-only container
        return cast(_Loop, njit(nogil=True, **options)(loop))


@jit
def roots(squares: Doubles, out: Floats) -> None:
    """Write the square roots in float32, of what rounding has left below 0 as 0."""
    for r in range(len(squares)):
        for c in range(squares.shape[1]):
            out[r, c] = np.sqrt(np.float32(max(squares[r, c], 0.0)))
