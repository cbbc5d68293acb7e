"""Rows of a batch are taken, put back and worked on in threads, whatever their layout."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader.augment.pixels import rows as module
from augloader.augment.pixels.rows import beside, over_rows, parts, put_, take, to_levels

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
SELECTED: tuple[list[int], ...] = ([], [2], [0, 1, 2, 3, 4], [4, 0, 3])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    """One batch of (5, 3, 6, 7) in several layouts, each with memory of its own."""
    images = torch.arange(5 * 3 * 6 * 7).view(5, 3, 6, 7).remainder(251).to(dtype)
    wide = torch.zeros(5, 3, 6, 20, dtype=dtype)
    wide[..., 4:11] = images
    every_other = torch.zeros(10, 3, 6, 7, dtype=dtype)
    every_other[::2] = images
    return {
        "contiguous": images.clone(),
        "channels_last": images.contiguous(memory_format=torch.channels_last),
        "permuted": images.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        "columns of a wider one": wide[..., 4:11],
        "every other row": every_other[::2],
    }


@dtypes
@pytest.mark.parametrize("selected", SELECTED, ids=str)
def test_taken_rows_are_copies(dtype: torch.dtype, selected: list[int]) -> None:
    rows, expected = torch.tensor(selected, dtype=torch.int64), layouts(dtype)["contiguous"]
    for images in layouts(dtype).values():
        part = take(images, rows)
        assert part.dtype == dtype
        assert torch.equal(part, expected[selected])
        part.zero_()
        assert torch.equal(images, expected)


@dtypes
@pytest.mark.parametrize("selected", SELECTED, ids=str)
def test_put_rows_replace_these_and_no_others(dtype: torch.dtype, selected: list[int]) -> None:
    rows = torch.tensor(selected, dtype=torch.int64)
    for images in layouts(dtype).values():
        for values in layouts(dtype).values():
            given, expected = images.clone(memory_format=torch.preserve_format), images.clone()
            some = values.flip(0)[: len(rows)]
            for row, value in zip(selected, some, strict=True):
                expected[row] = value
            put_(given, rows, some)
            assert torch.equal(given, expected)


@dtypes
def test_rows_are_put_into_the_memory_of_a_view(dtype: torch.dtype) -> None:
    whole = torch.zeros(4, 3, 6, 9, dtype=dtype)
    put_(whole[1:, ..., 2:9], torch.tensor([1]), torch.ones(1, 3, 6, 7, dtype=dtype))
    expected = torch.zeros(4, 3, 6, 9, dtype=dtype)
    expected[2, ..., 2:9] = 1
    assert torch.equal(whole, expected)


def test_what_is_put_back_leaves_the_batch_as_it_was() -> None:
    for images in layouts(torch.uint8).values():
        before = images.clone()
        for rows in map(torch.tensor, SELECTED[1:]):
            put_(images, rows, take(images, rows))
        assert torch.equal(images, before)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """A function that sets torch's number of threads, which is put back."""
    count = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(count)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 60, 60), (3, 100, 150)])
def test_work_covers_every_row_once(
    count: int,
    size: tuple[int, int, int],
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PIECE", 3 * 45000)
    images, calls = torch.zeros(22, *size), list[tuple[slice, int, bool, bool]]()
    threads(count)

    def work(some: slice) -> None:
        alone, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
        calls.append((some, alone, torch.is_grad_enabled(), inference))

    over_rows(images, work)
    with torch.inference_mode():
        over_rows(images, work)
    each = sorted(row for some, *_ in calls for row in range(22)[some])
    assert each == sorted([*range(22)] * 2)
    most = max(len(range(22)[some]) for some, *_ in calls)
    assert most == (3 if size[0] == 3 else 22)
    assert all(alone == 1 and not grad for _, alone, grad, _ in calls)
    assert [inference for *_, inference in calls].count(True) == len(calls) / 2
    with ThreadPoolExecutor() as pool:  # a thread that has not begun
        assert [torch.get_num_threads(), pool.submit(torch.get_num_threads).result()] == [count] * 2


def test_threads_that_begin_leave_all_others_theirs(threads: Callable[[int], None]) -> None:
    threads(3)
    for _ in range(40):  # threads that begin at once must not take one another's number for all's
        module._pool.cache_clear()
        over_rows(torch.zeros(22, 3, 100, 150), lambda rows: None)
        with ThreadPoolExecutor() as pool:
            found = torch.get_num_threads(), pool.submit(torch.get_num_threads).result()
        assert found == (3, 3)


def test_small_work_and_empty_batches_take_no_thread(threads: Callable[[int], None]) -> None:
    threads(2)
    found: list[Any] = []
    over_rows(torch.zeros(10, 3, 32, 32), lambda some: found.append((some, get_ident())))
    assert found == [(slice(0, 341), get_ident())]
    over_rows(torch.zeros(4, 3, 0, 7), lambda some: found.append(some.start))
    assert found[1:] == [0]
    over_rows(torch.zeros(0, 3, 32, 32), found.append)
    assert len(found) == 2
    over_rows(torch.zeros(4000, 3, 600, 700, device="meta"), found.append)
    assert found[2:] == [slice(0, 4000)]


def test_errors_of_threads_are_raised(threads: Callable[[int], None]) -> None:
    threads(2)

    def work(some: slice) -> None:
        raise ValueError(f"from {some.start}")

    with pytest.raises(ValueError, match="from 0"):
        over_rows(torch.zeros(4, 3, 512, 512), work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(threads: Callable[[int], None]) -> None:
    threads(2)
    images, done = torch.zeros(4, 3, 512, 512), list[slice]()
    over_rows(images, done.append)
    child = os.fork()
    if not child:
        signal.alarm(30)  # where it waits for its parent's threads
        try:
            over_rows(images, done.append)
        finally:
            os._exit(0 if len(done) == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("side", [32, 128])
def test_parts_are_changed_in_place(side: int) -> None:
    before, rows_ = torch.rand(9, 3, side, side), np.array([4, 0, 7])
    images, seen = before.clone(), list[int]()
    for part, at in parts(images, rows_):
        assert torch.equal(part, before[rows_[at]])
        assert (part.data_ptr() == images[int(rows_[at][0])].data_ptr()) == (side == 128)
        seen += rows_[at].tolist()
        part.mul_(2)
    assert seen == [4, 0, 7]
    expected = before.clone()
    expected[rows_] *= 2
    assert torch.equal(images, expected)
    assert not list(parts(images, rows_[:0]))


@dtypes
def test_values_become_levels_of_the_images_dtype(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 0.9, 1.0, 17.999, 254.5, 255.0])
    out = to_levels(values, torch.zeros(1, dtype=dtype))
    assert out.dtype == dtype
    exact = values.floor() if dtype == torch.uint8 else values
    assert torch.equal(out, exact.to(dtype))
    assert to_levels(values[:0], torch.zeros(1, dtype=dtype)).shape == (0,)


def test_levels_of_any_layout() -> None:
    for values in layouts(torch.float32).values():
        levels = to_levels(values + 0.7, torch.zeros(1, dtype=torch.uint8))
        assert torch.equal(levels, values.to(torch.uint8))


@dtypes
def test_numbers_beside_images(dtype: torch.dtype) -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=dtype)
    column = beside((1.0, 2.0, 3.0), dtype, images)
    assert (column.shape, column.dtype) == ((3, 1, 1), dtype)
    assert (images + column)[1, :, 2, 2].tolist() == [1, 2, 3]
    assert beside([4.0], dtype, images).flatten().tolist() == [4]
