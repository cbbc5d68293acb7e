"""Rows of a batch: take some, write them back, work on some at a time, in threads on a CPU.

Torch splits every operation on more than 32,768 values among its threads. Augmentation is many
short operations, and where other processes keep a core busy each of them waits for it. So rows are
split among threads instead, each of which has one torch thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock, Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LARGE = 1 << 15  # values that torch splits among threads
_PIECE = 1 << 20  # values that a CPU's cache holds, and that are worth a thread


def over_rows(images: Tensor, work: Callable[[slice], object]) -> None:
    """Call ``work``, without gradients, with slices of rows that cover a batch.

    On a CPU that is in several threads: each call gets what a cache holds, and torch splits none of
    its operations. Torch's number of threads is kept. On other devices one call gets all rows.
    """
    count, values = len(images), images.numel()
    on_cpu = images.device.type == "cpu"
    step = max(1, _PIECE * count // max(1, values)) if on_cpu else max(1, count)
    pieces = [slice(start, start + step) for start in range(0, count, step)]
    left, inference = iter(pieces), torch.is_inference_mode_enabled()

    @torch.no_grad()
    def share() -> None:
        for rows in left:  # whoever is free takes the next
            work(rows)

    threads = torch.get_num_threads() if on_cpu and values > _LARGE else 1
    if threads == 1:
        share()
    else:
        pool, alike = _pool(os.getpid()), torch.inference_mode(inference)(share)
        for done in [pool.submit(alike) for _ in pieces[:threads]]:
            done.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return this process's threads; one that was forked has none of its parent's.

    Each has one torch thread. All have begun when this returns: what they set is for a moment the
    process's, and must not meet what the caller sets next.
    """
    count, turn = os.cpu_count() or 1, Lock()
    here = Barrier(count)

    def begin() -> None:
        with turn:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            # That is also kept for threads that have not begun. Another one puts theirs back.
            other = Thread(target=torch.set_num_threads, args=(threads,))
            other.start()
            other.join()

    pool = ThreadPoolExecutor(count, "augloader", begin)
    for begun in [pool.submit(here.wait, 60) for _ in range(count)]:
        begun.result()
    return pool


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Return copies of some rows, (m,) int64 on the CPU."""
    return images.index_select(0, rows.to(images.device, non_blocking=True))


def parts(images: Tensor, rows: npt.NDArray[np.int64]) -> Iterator[tuple[Tensor, slice]]:
    """Yield parts of some rows, to be changed in place, and which of the (m,) rows they are.

    On a CPU large images are views and come one by one, small ones are copies and put back.
    """
    if images.device.type == "cpu" and images[:1].numel() > _LARGE:
        for i, row in enumerate(rows.tolist()):
            yield images[row : row + 1], slice(i, i + 1)
    elif len(rows):
        index = torch.from_numpy(rows)
        part = take(images, index)
        yield part, slice(None)
        put_(images, index, part)


def copied(images: Tensor, out: Tensor | None) -> Tensor:
    """Return a copy of the images: a new contiguous one, or written into ``out``."""
    if out is None:
        return images.clone(memory_format=torch.contiguous_format)
    return out.copy_(images)


def beside(values: Sequence[float], dtype: torch.dtype, images: Tensor) -> Tensor:
    """Return numbers, one a channel or one for all, as (C, 1, 1) on the images' device."""
    column = torch.tensor(values, dtype=dtype, device="cpu").view(-1, 1, 1)
    return column.to(images.device, non_blocking=True)


def bits(images: Tensor) -> npt.NDArray[Any]:
    """Return values on the CPU as an array that shares their memory; bfloat16 as its bits."""
    # numpy has no bfloat16.
    return (images.view(torch.int16) if images.dtype == torch.bfloat16 else images).numpy()


def put_(images: Tensor, rows: Tensor, values: Tensor) -> None:
    """Replace some rows, (m,) int64 on the CPU, by values in the images' dtype."""
    if images.device.type == "cpu":
        bits(images)[rows.numpy()] = bits(values)  # torch's index_copy_ is 20 times as slow
    else:
        images.index_copy_(0, rows.to(images.device, non_blocking=True), values)


def to_levels(values: Tensor, like: Tensor) -> Tensor:
    """Return float values, of uint8 images truncated to whole levels, in the dtype of ``like``."""
    if like.dtype == torch.uint8:
        return values.to(torch.int16).to(torch.uint8)  # three times as fast as a direct cast
    return values.to(like.dtype)
