"""Colour operations with one operation and one magnitude a row, without a loop over rows.

The rows of a batch are sorted by operation, and each family of operations is one vectorised call
over the rows that drew it. Values equal torchvision's tensor kernels: exactly, but for one level on
single values where a sum is rounded in another order. Like torchvision's ``add_`` with ``alpha``,
``addcmul_`` rounds x + y z once; twice would be a level too low on many sums that are whole levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from augloader.augment.pixels import ops
from augloader.augment.pixels.rows import copied, parts

Array = npt.NDArray[Any]
_GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision and Pillow round it


def recolour(images: Tensor, op: Tensor, magnitude: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the images after each row's own chain of colour operations.

    Args:
        images: (B, C, H, W) uint8, float32 or float64 in [0, 1]; C is 1 or 3, or anything where no
            operation is one of colour. On any device; not modified.
        op: (B, K) int64 on the CPU, numbers of ``pixels.ops``; others than colour do nothing.
        magnitude: (B, K) float32 on the CPU.
        out: of the images' shape and dtype, to write into.

    Returns:
        ``out``, or a new contiguous tensor; rows without a colour operation are copied bit for bit.

    Cost: a copy of the batch, and a few passes over the rows that have a colour operation; waits
    for no device.

    Example:
        >>> images = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)
        >>> op = torch.tensor([[ops.IDENTITY], [ops.INVERT]])
        >>> recolour(images, op, torch.zeros(2, 1))[:, 0, 0, 0]
        tensor([255,   0], dtype=torch.uint8)
    """
    out = copied(images, out)
    for numbers, sizes in zip(op.numpy().T, magnitude.numpy().astype(np.float64).T, strict=True):
        order = np.argsort(numbers, kind="stable")  # each family's rows side by side
        numbers, sizes = numbers[order], sizes[order]
        ends = np.cumsum(np.bincount(numbers, minlength=len(ops.OPS)))
        for first, last, family_ in _FAMILIES:
            some = slice(ends[first - 1], ends[last])
            for part, at in parts(out, order[some]):
                family_(part, numbers[some][at], sizes[some][at])
    return out


def _store_(images: Tensor, values: Tensor) -> None:
    """Write clamped float values into the images; fractions of a level are cut off."""
    if values is images:
        values.clamp_(0, 1)
    else:
        images.copy_(values.clamp_(0, 255).to(torch.int16))


def _floats(images: Tensor) -> Tensor:
    """Return floating images themselves, uint8 ones as float32."""
    return images if images.is_floating_point() else images.float()


def _white(images: Tensor) -> int:
    return 1 if images.is_floating_point() else 255


def _column(numbers: Array, values: Tensor) -> Tensor:
    """Return one number a row, to broadcast against float values (n, C, H, W)."""
    column = torch.from_numpy(numbers).to(values.device, values.dtype, non_blocking=True)
    return column.view(-1, 1, 1, 1)


def luma(values: Tensor, images: Tensor) -> Tensor:
    """Return the (n, 1, H, W) luma of float values, floored for uint8 images."""
    if values.shape[1] == 1:
        grey = values.clone()
    else:
        red, green, blue = values.split(1, 1)
        grey = red.mul(_GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
    return grey if images.is_floating_point() else grey.floor_()


def _brightness_contrast_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Make x (1 + m) for brightness; plus the mean grey times -m for contrast."""
    values = _floats(images)
    start = int((op == ops.BRIGHTNESS).sum())  # sorted by operation
    contrast, factor = values[start:], 1 + magnitude
    if start < len(values):
        grey = luma(contrast, images)
        grey.copy_(grey.mean((1, 2, 3), keepdim=True))  # a plane: addcmul_ is slow with scalars
    values.mul_(_column(factor, values))
    if start < len(values):
        contrast.addcmul_(grey, _column(1 - factor[start:], values))
    _store_(images, values)


def _auto_contrast_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Stretch each channel to the whole range; a flat channel stays."""
    values = _floats(images)
    low = images.amin((2, 3), keepdim=True).to(values.dtype)
    span = images.amax((2, 3), keepdim=True).to(values.dtype).sub_(low)
    flat = span == 0
    values.sub_(low.masked_fill_(flat, 0)).div_(span.mul_(1 / _white(images)).masked_fill_(flat, 1))
    _store_(images, values)


def _solarize_invert_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Invert the values at or above the threshold m; for Invert, all of them."""
    threshold = np.where(op == ops.INVERT, 0, magnitude)
    if images.is_floating_point():
        # As numbers: torch.where takes ten times as long. Shares 0 and 1 give either one exactly.
        reached = torch.ge(images, _column(threshold, images), out=torch.empty_like(images))
        torch.lerp(images, 1 - images, reached, out=images)
        return
    levels = np.ceil((255 * threshold).astype(np.float32))  # x >= t for whole x: x >= ceil(t)
    lowest = torch.from_numpy(levels.clip(0, 255).astype(np.uint8)).view(-1, 1, 1, 1)
    turn = torch.from_numpy(np.where(levels <= 255, 255, 0).astype(np.uint8)).view(-1, 1, 1, 1)
    # As uint8 and by xor: torch's boolean results and torch.where are ten times slower here.
    lowest, turn = (part.to(images.device, non_blocking=True) for part in (lowest, turn))
    images.bitwise_xor_(torch.ge(images, lowest, out=torch.empty_like(images)).mul_(turn))


def _posterize_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Keep the m highest bits."""
    bits = magnitude.astype(np.int64)
    if images.is_floating_point():
        levels = _column(1 << bits, images)
        torch.minimum(images.mul_(levels).floor_(), levels - 1, out=images).div_(levels)
    else:
        mask = torch.from_numpy((256 - (1 << (8 - bits))).astype(np.uint8)).view(-1, 1, 1, 1)
        images.bitwise_and_(mask.to(images.device, non_blocking=True))


def _equalize_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Map each channel's levels so that its histogram is flat (PIL's rule)."""
    if images.is_floating_point():
        levels = images.mul(256 - 1e-3).to(torch.uint8)  # torchvision's conversion, and its inverse
        _equalize_(levels, op, magnitude)
        images.copy_(levels).div_(255)
        return
    n, c = images.shape[:2]
    index = images.flatten(2).to(torch.int32)  # int64 would be four times as slow to look up
    index += torch.arange(0, n * c * 256, 256, dtype=torch.int32, device=index.device).view(n, c, 1)
    table = equalize_table(_counts(index.view(-1), n * c * 256).view(n * c, 256)).view(-1)
    torch.index_select(table, 0, index.view(-1), out=images.view(-1))


def _counts(index: Tensor, size: int) -> Tensor:
    """Return how often each number below ``size`` occurs."""
    if index.device.type == "cpu":
        return torch.bincount(index, minlength=size)
    # bincount would wait for the device, to see how many numbers there are.
    ones = index.new_ones(()).expand_as(index)
    return index.new_zeros(size).scatter_add_(0, index.long(), ones)


def equalize_table(histogram: Tensor) -> Tensor:
    """Return the (..., 256) uint8 tables that equalize histograms of counts, by PIL's rule.

    table[v] = (step // 2 + sum of the counts below v) // step, where step = (pixels that are not
    of the brightest level present) // 255; step 0 keeps the levels.
    """
    counts = histogram.to(torch.int32)
    below = counts.cumsum(-1, dtype=torch.int32).sub_(counts)
    step = (below * (counts > 0)).amax(-1, keepdim=True).div_(255, rounding_mode="floor")
    table = below.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    levels = torch.arange(256, dtype=torch.int32, device=table.device)
    return torch.where(step > 0, table, levels).to(torch.uint8)


def _saturate_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Move every pixel away from its grey by 1 + m; a grey image stays."""
    if images.shape[1] == 1:
        return
    values, factor = _floats(images), 1 + magnitude
    grey = luma(values, images)
    values.mul_(_column(factor, values)).addcmul_(grey, _column(1 - factor, values))
    _store_(images, values)


def _sharpen_(images: Tensor, op: Array, magnitude: Array) -> None:
    """Move every inner pixel away from its 3 x 3 blur (centre 5/13, others 1/13) by 1 + m."""
    if min(images.shape[2:]) <= 2:
        return
    blur = _box(images)
    values = _floats(images)
    centre = values[..., 1:-1, 1:-1]
    blur = blur.to(values.dtype).add_(centre, alpha=4).mul_(1 / 13)
    if not images.is_floating_point():
        blur.round_()
    centre.addcmul_(blur.sub_(centre), _column(1 - (1 + magnitude), values))
    _store_(images, values)


def _box(images: Tensor) -> Tensor:
    """Return the (n, c, H-2, W-2) sums over 3 x 3, of uint8 in int16."""
    n, c, h, w = images.shape
    planes = images if images.is_floating_point() else images.to(torch.int16)
    planes = planes.flatten(2)
    # Whole planes are faster than rows; sums that wrap around a row's end are cut off below.
    across = torch.zeros_like(planes)
    torch.add(planes[..., :-2], planes[..., 1:-1], out=across[..., :-2])
    across[..., :-2] += planes[..., 2:]
    down = across[..., : -2 * w] + across[..., w:-w]
    down += across[..., 2 * w :]
    return down.view(n, c, h - 2, w)[..., :-2]


_FAMILIES: tuple[tuple[int, int, Callable[[Tensor, Array, Array], None]], ...] = (
    (ops.BRIGHTNESS, ops.CONTRAST, _brightness_contrast_),
    (ops.AUTO_CONTRAST, ops.AUTO_CONTRAST, _auto_contrast_),
    (ops.SOLARIZE, ops.INVERT, _solarize_invert_),
    (ops.POSTERIZE, ops.POSTERIZE, _posterize_),
    (ops.EQUALIZE, ops.EQUALIZE, _equalize_),
    (ops.COLOR, ops.COLOR, _saturate_),
    (ops.SHARPNESS, ops.SHARPNESS, _sharpen_),
)
