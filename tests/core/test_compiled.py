"""Compiled loops."""

from typing import Any

import numba
import numpy as np
import pytest
import torch

from augloader.core import compiled


def test_roots_are_those_of_what_is_not_negative() -> None:
    squares = np.array([[4.0, -1e-9, 0.0], [2.0, 1e300, 1e-300]])
    out = np.empty((2, 3), np.float32)
    compiled.roots(squares, out)
    assert out[0].tolist() == [2, 0, 0]
    assert out[1].tolist() == [np.sqrt(np.float32(2)), np.inf, 0]


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_threads_as_torch_may_use(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    with compiled.threads() as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
        assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]
        assert getattr(pool, "_max_workers", 1) == count


def test_where_machine_code_cannot_be_kept_it_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original: Any = numba.njit
    asked: list[bool] = []

    def njit(**options: Any) -> Any:
        asked.append(options.get("cache", False))
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    monkeypatch.setattr(compiled, "njit", njit)

    @compiled.jit
    def twice(x: int) -> int:
        return 2 * x

    assert twice(4) == 8
    assert asked == [True, False]
