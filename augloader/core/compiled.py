"""Numba: how loops are compiled, the threads that run them, and square roots."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from os.path import expanduser, isabs
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


def _guard(kept: Any) -> None:
    """Let a loop's machine code on disk be compiled anew where it cannot be read or written."""
    load, save = kept.load_overload, kept.save_overload

    def loaded(*given: Any) -> Any:
        try:
            return load(*given)
        except Exception as error:  # whatever a damaged file unpickles to
            with suppress(OSError):
                kept.flush()  # so that what is compiled now can be kept
            _tell(kept.cache_path, "read", type(error).__name__)
        return None

    def saved(*given: Any) -> None:
        try:
            save(*given)
        except OSError as error:
            _tell(kept.cache_path, "written", error.strerror or type(error).__name__)

    kept.load_overload, kept.save_overload = loaded, saved


@cache
def _tell(folder: str, done: str, why: str) -> None:
    warnings.warn(
        f"Machine code in {folder} could not be {done} ({why}): loops are compiled anew, a few "
        "seconds a process. Make room there, or set NUMBA_CACHE_DIR to another folder.",
        stacklevel=2,
    )


def jit(loop: _Loop, **options: Any) -> _Loop:
    """Compile a loop that releases the interpreter's lock; its machine code is kept on disk."""
    compiled: Any = njit(nogil=True, **options)(loop)
    # Of a user without a home Numba would write into the working directory.
    if isabs(expanduser("~")) or "NUMBA_CACHE_DIR" in os.environ:
        with suppress(RuntimeError):  # no place to keep it, as in a read-only container
            compiled.enable_caching()
            _guard(compiled._cache)
    return cast(_Loop, compiled)


@jit
def roots(squares: Doubles, out: Floats) -> None:
    """Write the square roots in float32, of what rounding has left below 0 as 0."""
    for r in range(len(squares)):
        for c in range(squares.shape[1]):
            out[r, c] = np.sqrt(np.float32(max(squares[r, c], 0.0)))
