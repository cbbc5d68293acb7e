"""Rows of a batch: take some, write them back, a cache's worth at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

_CHUNK_BYTES = 2 << 20  # of float32 intermediates at a time and CPU thread, to stay in its cache


def chunk(images: Tensor) -> int:
    """Return how many images to work on at a time: all of them, but on a CPU as its cache holds."""
    if images.device.type != "cpu" or not images.numel():
        return max(1, len(images))
    return max(1, _CHUNK_BYTES * torch.get_num_threads() // (4 * images[0].numel()))


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Return copies of some rows, (m,) int64 on the CPU."""
    return images.index_select(0, rows.to(images.device, non_blocking=True))


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
