"""Compiled loops."""

import errno
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

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


def double(x: int) -> int:
    return 2 * x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machine code is kept in a test."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled._tell.cache_clear()
    return tmp_path


def hits(loop: Any) -> int:
    return sum(loop.stats.cache_hits.values())


def test_machine_code_is_kept_on_disk(folder: Path) -> None:
    first, second = compiled.jit(double), compiled.jit(double)
    assert first(4) == second(4) == 8
    assert (hits(first), hits(second)) == (0, 1)
    assert {path.suffix for path in folder.rglob("*.nb*")} == {".nbi", ".nbc"}


def test_where_machine_code_cannot_be_kept_it_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(loop: Any) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(Dispatcher, "enable_caching", refused)
    loop: Any = compiled.jit(double)
    assert [loop(4), loop(4)] == [8, 8]


def test_a_user_without_a_home_gets_no_files_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "expanduser", lambda path: path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(Dispatcher, "enable_caching", lambda loop: pytest.fail("it would be kept"))
    assert compiled.jit(double)(4) == 8


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x05.", None])
def test_damaged_machine_code_is_compiled_anew_and_mended(
    content: bytes | None, suffix: str, folder: Path
) -> None:
    assert compiled.jit(double)(4) == 8
    (path,) = folder.rglob(f"*{suffix}")
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    loop: Any = compiled.jit(double)
    with pytest.warns(UserWarning, match=f"Machine code in {folder}.* could not be read"):
        assert loop(4) == 8
    loop = compiled.jit(double)
    assert loop(4) == 8
    assert hits(loop) == 1


def test_a_full_disk_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    first, second = compiled.jit(double), compiled.jit(double)
    with pytest.warns(UserWarning, match=r"be written \(No space left on device\)") as told:
        assert first(4) == second(4) == 8
    assert len(told) == 1
