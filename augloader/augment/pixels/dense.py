"""Chains of operations on a batch, the same work for every row: no branch depends on the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.augment.pixels import ops
from augloader.augment.pixels.colour import equalize_table, luma
from augloader.augment.pixels.geometry import Interpolation
from augloader.core.checks import require_one_of


def apply_dense(
    images: Tensor,
    op: Tensor,
    magnitude: Tensor,
    theta: Tensor,
    *,
    interpolation: Interpolation = "nearest",
    fill: Sequence[float] = (0.0,),
) -> Tensor:
    """Apply to every image its own chain of colour operations, then its own affine map.

    A colour operation that depends on one value alone is a table of 256 levels per row and
    channel; Color mixes a pixel with its grey, Sharpness with the mean of its 3×3 neighbourhood.
    Each stage does all of this for all rows and keeps what the row asked for. An output pixel at
    centred coordinates p = (x − (W−1)/2, y − (H−1)/2) shows the input at theta·(p, 1).

    Nothing depends on the values: no shape, no index, no synchronisation. The function compiles
    with ``torch.compile(fullgraph=True)`` and can be captured in a CUDA graph.

    Args:
        images: (B, C, H, W) uint8 with C = 1 or 3; not modified. Color leaves one channel alone.
        op: (B, K) int64, numbers of ``pixels.ops``, applied in order. Geometric operations are
            passed over: they are in ``theta``.
        magnitude: (B, K) float32, as ``pixels.ops`` defines it; not read where the operation
            has none.
        theta: (B, 2, 3) float32, output to input, in centred pixels.
        interpolation: "nearest" or "bilinear".
        fill: value of the pixels from outside the image in [0, 255], for each channel or for all.

    Returns:
        (B, C, H, W) uint8. The levels are torchvision's for uint8 tensors on the CPU, as it rounds
        its sums once; so are the pixels that "nearest" takes. "bilinear" may differ by one level,
        and blends with ``fill`` at the edges what torchvision darkens there.

    Raises:
        TypeError: an argument of another dtype.
        ValueError: an argument of another shape or value. Operations, magnitudes and maps are not
            looked into.

    Cost:
        O(B C H W K) and 8-byte indices and sums of that size for one stage: for reference, for
        compilers and for devices without ``augloader.augment.pixels.fused``.

    Example:
        >>> images = torch.tensor([[[[0, 100, 200]]], [[[0, 100, 200]]]], dtype=torch.uint8)
        >>> op = torch.tensor([[ops.INVERT], [ops.BRIGHTNESS]])
        >>> magnitude = torch.tensor([[0.0], [0.25]])
        >>> left = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> apply_dense(images, op, magnitude, left.repeat(2, 1, 1)).flatten(1)
        tensor([[155,  55,   0],
                [125, 250,   0]], dtype=torch.uint8)

    Source: torchvision.transforms.v2.functional, its kernels for uint8 tensors.
    """
    check_chains(images, op, magnitude, theta, interpolation, fill)
    for number, amount in zip(op.unbind(1), magnitude.unbind(1), strict=True):
        images = _colour(images, number[:, None, None, None], amount[:, None, None, None])
    return _warp(images, theta, interpolation, fill)


def check_chains(
    images: Tensor,
    op: Tensor,
    magnitude: Tensor,
    theta: Tensor,
    interpolation: str,
    fill: Sequence[float],
) -> None:
    """Raise unless dtypes, shapes and options are those of ``apply_dense``; reads no value."""
    dtypes = {"images": torch.uint8, "op": torch.int64}
    given = {"images": images, "op": op, "magnitude": magnitude, "theta": theta}
    for name, value in given.items():
        dtype = dtypes.get(name, torch.float32)
        if value.dtype != dtype:
            raise TypeError(f"{name} must be a {dtype} tensor, got {value.dtype}. Convert it.")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images must be (B, 1, H, W) or (B, 3, H, W), got shape {tuple(images.shape)}. "
            "Apply the chains to grey or RGB batches."
        )
    rows, channels = images.shape[:2]
    if op.ndim != 2 or len(op) != rows:
        raise ValueError(
            f"op must be ({rows}, K), got shape {tuple(op.shape)}. Give one chain an image."
        )
    for name, value, shape in (("magnitude", magnitude, op.shape), ("theta", theta, (rows, 2, 3))):
        if value.shape != shape:
            raise ValueError(
                f"{name} must be {tuple(shape)}, got shape {tuple(value.shape)}. "
                "Give one an operation, and one map an image."
            )
    require_one_of("interpolation", interpolation, ("nearest", "bilinear"))
    if len(fill) not in (1, channels) or not all(0 <= value <= 255 for value in fill):
        raise ValueError(
            f"fill must be 1 or {channels} values in [0, 255], got {tuple(fill)}. "
            "Give it in the levels of the images."
        )


def _colour(images: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """Apply one stage; op and magnitude are (B, 1, 1, 1)."""
    levels, grey = images.flatten(2).to(torch.int64), luma(images.float(), images)
    table = _table(levels, grey, op[..., 0], magnitude[..., 0])
    out = table.gather(2, levels).view_as(images)
    if images.shape[1] == 3:
        out = torch.where(op == ops.COLOR, _mix(images, grey, magnitude), out)
    if min(images.shape[2:]) > 2:
        out = torch.where(op == ops.SHARPNESS, _sharpen(images, magnitude), out)
    return out


def _table(levels: Tensor, grey: Tensor, op: Tensor, magnitude: Tensor) -> Tensor:
    """Return (B, C, 256) uint8: what each level becomes; the level itself for other operations."""
    pixels = levels.shape[2]
    level = torch.arange(256, device=levels.device)
    counts = levels.new_zeros((*levels.shape[:2], 256))
    counts = counts.scatter_add(2, levels, levels.new_ones(()).expand_as(levels))
    up_to = counts.cumsum(2)  # number of pixels of this level or below

    low = (up_to == 0).sum(2, keepdim=True)
    high = (up_to < pixels).sum(2, keepdim=True)
    stretched = (level - low).float() / ((high - low).float() * (1 / 255))
    stretched = torch.where(high > low, stretched, level)

    mean = (grey.sum((2, 3), keepdim=True, dtype=torch.float64) / pixels).float()[..., 0]
    bits = magnitude.clamp(0, 8).to(torch.int64)
    threshold = torch.where(op == ops.INVERT, 0, 255 * magnitude)
    inverted = torch.where(level >= threshold, 255 - level, level)

    table = level.to(torch.uint8).expand_as(counts)
    for number, values in (
        (ops.BRIGHTNESS, level * (1 + magnitude)),
        (ops.CONTRAST, _mix(level, mean, magnitude)),
        (ops.AUTO_CONTRAST, stretched),
        (ops.SOLARIZE, inverted),
        (ops.INVERT, inverted),
        (ops.POSTERIZE, level & (256 - (1 << (8 - bits)))),
        (ops.EQUALIZE, equalize_table(counts)),
    ):
        table = torch.where(op == number, values.clamp(0, 255).to(torch.uint8), table)
    return table


def _mix(x: Tensor, y: Tensor, offset: Tensor) -> Tensor:
    """Return x·(1 + offset) − y·offset as uint8."""
    return _plus(x * (1 + offset), y, -offset)


def _sharpen(images: Tensor, offset: Tensor) -> Tensor:
    """Move every pixel but those of the border away from, or to, its smoothed value; uint8."""
    x = images.float()
    inner = x[..., 1:-1, 1:-1]
    total = F.avg_pool2d(x, 3, 1, divisor_override=1) + 4 * inner
    smooth = (total / 13).round()  # never halfway between levels: any rounding of /13 will do
    out = images.clone()
    out[..., 1:-1, 1:-1] = _plus(inner, smooth - inner, -offset)
    return out


def _plus(x: Tensor, y: Tensor, factor: Tensor) -> Tensor:
    """Return x + y·factor as uint8, rounded to float32 once, as torchvision's fused sums are.

    Policies of whole steps put many results on a whole level, or a rounding error below it.
    """
    sums = (x.double() + y.double() * factor.double()).float()
    return sums.clamp(0, 255).to(torch.uint8)


def _warp(
    images: Tensor, theta: Tensor, interpolation: Interpolation, fill: Sequence[float]
) -> Tensor:
    """Sample every image at theta·(p, 1) for each of its pixels p; torchvision's grid."""
    height, width = images.shape[2:]
    # Made of scalars on the device: a copy from the host could not be captured in a graph.
    half = _column((width / 2, height / 2), images.device)
    outside = _column(fill, images.device)[:, None]
    x = torch.arange(width, dtype=torch.float32, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=images.device)[:, None] - (height - 1) / 2
    a, b, c = (theta / half)[..., None, None].unbind(2)  # (B, 2, 1, 1) each
    grid = ((a * x + b * y) + c).permute(0, 2, 3, 1)
    out = F.grid_sample(images - outside, grid, interpolation, "zeros", align_corners=False)
    return (out + outside).round().to(torch.uint8)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    columns = [torch.full((1,), v, dtype=torch.float32, device=device) for v in values]
    return torch.stack(columns)
