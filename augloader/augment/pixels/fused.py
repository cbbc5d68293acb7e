"""Chains of operations in Triton kernels: one pass for statistics, one for pixels, for each stage.

A stage is one colour operation of every row. Its statistics (the mean grey for Contrast, the
histogram for AutoContrast and Equalize) are read only for rows that need them, and become a table
of 256 levels per row and channel. Then the pixels are made: position, levels there, table, Color or
Sharpness, interpolation, normalisation, cast. Only rows with several colour operations write images
between stages. Which row does what is decided in the kernels, so the host waits for nothing.
"""

# Triton's language has no types that mypy could check.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="import-untyped, import-not-found"

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.augment.pixels import ops
from augloader.augment.pixels.dense import check_chains
from augloader.augment.pixels.geometry import Interpolation

try:
    import triton.language as tl
    from triton import cdiv, jit, next_power_of_2
    from triton.language import constexpr
except ImportError:  # no Triton for this system: the kernels below stay plain functions
    tl = None
    constexpr = int

    def jit(kernel):
        """Return the kernel."""
        return kernel


_DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
_BLOCK = 4096  # pixels that a program of _tables reads at a time, at most
_LANES = 128  # pixels that it reads at a time, at least: fewer lanes than threads count some twice
_TILE = (16, 32)  # rows and columns of the output that a program of _render makes

_FIRST_COLOUR, _LAST_COLOUR = constexpr(ops.COLOUR[0]), constexpr(ops.COLOUR[-1])
_IDENTITY = constexpr(ops.IDENTITY)
_BRIGHTNESS = constexpr(ops.BRIGHTNESS)
_CONTRAST = constexpr(ops.CONTRAST)
_AUTO_CONTRAST = constexpr(ops.AUTO_CONTRAST)
_SOLARIZE = constexpr(ops.SOLARIZE)
_INVERT = constexpr(ops.INVERT)
_POSTERIZE = constexpr(ops.POSTERIZE)
_COLOR = constexpr(ops.COLOR)
_SHARPNESS = constexpr(ops.SHARPNESS)
_EQUALIZE = constexpr(ops.EQUALIZE)
_ROUNDER = constexpr(1.5 * 2**23)  # adding it leaves no bits for fractions: rounds half to even


def available() -> bool:
    """Return whether Triton is installed; ``apply_fused`` then runs on CUDA tensors."""
    return tl is not None


def apply_fused(
    images: Tensor,
    op: Tensor,
    magnitude: Tensor,
    theta: Tensor,
    *,
    interpolation: Interpolation = "nearest",
    fill: Sequence[float] = (0.0,),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype = torch.uint8,
) -> Tensor:
    """Do what ``apply_dense`` does, and normalise and cast, in 2 K kernels.

    With a floating dtype a level v becomes (v / 255 − mean) / std, v / 255 without mean and std.

    Args:
        images: (B, C, H, W) uint8 on a CUDA device, C = 1 or 3; not modified.
        op: (B, K) int64 on that device, as the next ones; see ``apply_dense``.
        magnitude: (B, K) float32.
        theta: (B, 2, 3) float32, output to input, in centred pixels.
        interpolation: "nearest" or "bilinear".
        fill: value of the pixels from outside the image in [0, 255], for each channel or for all.
        mean: of each channel or all, in [0, 1]; with ``std`` and a floating dtype only.
        std: of each channel or all, above 0.
        dtype: uint8, float32, float16 or bfloat16.

    Returns:
        (B, C, H, W) in ``dtype``, in channels-last memory format where the images are: the levels
        of ``apply_dense`` on the CPU, bit for bit with "nearest"; with "bilinear" a few may differ
        by one. v / 255 is rounded once; a normalised value differs from torch's three rounded steps
        in the last bits.

    Raises:
        RuntimeError: Triton is not installed, or the images are not on a CUDA device.
        TypeError: an argument of another dtype.
        ValueError: an argument of another shape or value. Operations, magnitudes and maps are not
            looked into.

    Cost:
        For K = 1 every image is read once, twice where a row needs statistics, and written once in
        ``dtype``. Each further colour operation of a row reads and writes its image again.
        256·B·C bytes of memory for the tables, and min(K − 1, 2) batches between stages.

    Example:
        >>> if torch.cuda.is_available():
        ...     images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device="cuda")
        ...     op = torch.full((2, 1), ops.INVERT, device="cuda")
        ...     theta = torch.eye(2, 3, device="cuda").repeat(2, 1, 1)
        ...     assert apply_fused(images, op, op.float(), theta, dtype=torch.float16).mean() == 1

    Source: torchvision.transforms.v2.functional, its kernels for uint8 tensors.
    """
    check_chains(images, op, magnitude, theta, interpolation, fill)
    mean, std = _check_output(images.shape[1], mean, std, dtype)
    if not available():
        raise RuntimeError("Triton must be installed, got none. Use apply_dense.")
    if not (images.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        raise RuntimeError(f"images must be on CUDA, got {images.device}. Use apply_dense.")

    given = images
    images, op, magnitude, theta = (x.contiguous() for x in (images, op, magnitude, theta))
    rows, channels, height, width = images.shape
    length = op.shape[1]
    last = not given.is_contiguous() and given.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    out = torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)
    if not out.numel():
        return out
    tables = images.new_empty((rows, channels, 256))
    between = images.new_empty((min(max(length - 1, 0), 2), *images.shape))
    block = min(_BLOCK, max(_LANES, next_power_of_2(height * width)))
    tiles = rows * cdiv(height, _TILE[0]) * cdiv(width, _TILE[1])
    fills, means, stds = (_each(values, channels) for values in (fill, mean, std))
    scale = 1 / (255 * stds)
    coarse = scale.astype(np.float32).astype(np.float64)  # with the rest, more exact than float32
    # As single numbers in the call, not compiled into the kernels: new ones are no new kernels.
    constants = (fills, coarse, scale - coarse, -means / stds)
    numbers = [float(values[c % channels]) for values in constants for c in range(3)]
    with torch.cuda.device_of(images):
        # Stages are counted from the last, whose pixels go through theta to the output.
        for behind in range(max(length, 1) - 1, -1, -1):
            before = between[behind % 2] if behind + 1 < length else images
            after = between[(behind - 1) % 2] if behind else out
            chain = (images, before, op, magnitude, tables, height, width)
            shape = {"C": channels, "K": length, "BEHIND": behind, "enable_fp_fusion": False}
            _tables[(rows * channels,)](*chain, **shape, BLOCK=block)
            _render[(tiles,)](
                *chain,
                theta,
                after,
                *numbers,
                **shape,
                LAST=last and not behind,
                BILINEAR=interpolation == "bilinear",
                TILE_Y=_TILE[0],
                TILE_X=_TILE[1],
            )
    return out


def _each(values: Sequence[float], channels: int) -> NDArray[np.float64]:
    return np.broadcast_to(np.asarray(values, dtype=np.float64), channels)


def _check_output(
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std, 0 and 1 where there are none; raise unless they fit the dtype."""
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be one of {_DTYPES}, got {dtype}. Cast the output.")
    if mean is None and std is None:
        return (0.0,), (1.0,)
    if mean is None or std is None or dtype == torch.uint8:
        raise ValueError(
            f"mean and std must be given together, with a floating dtype, got mean={mean}, "
            f"std={std} and {dtype}. Give both, and for example dtype=torch.float32."
        )
    if len(mean) != len(std) or len(mean) not in (1, channels) or min(std) <= 0:
        raise ValueError(
            f"mean and std must be 1 or {channels} values each, std above 0, got mean={mean} and "
            f"std={std}. Give those of the images in [0, 1]."
        )
    return mean, std


@jit
def _stage(op, magnitude, images, before, row, K: tl.constexpr, BEHIND: tl.constexpr):
    """Return a row's colour operation with BEHIND others behind it, its magnitude, its images.

    These are the input's for the first colour operation, else those that the last stage left.
    """
    number = 0
    amount = 0.0
    seen = 0
    for k in tl.static_range(K):
        at = row * K + (K - 1 - k)
        candidate = tl.load(op + at).to(tl.int32)
        colour = (candidate >= _FIRST_COLOUR) & (candidate <= _LAST_COLOUR)
        here = colour & (seen == BEHIND)
        number = tl.where(here, candidate, number)
        amount = tl.where(here, tl.load(magnitude + at), amount)
        seen += colour.to(tl.int32)
    return number, amount, tl.where(seen > BEHIND + 1, before, images)


@jit
def _level(value):
    """Return the whole level that a value in float32 is cast to."""
    return tl.floor(tl.clamp(value, 0.0, 255.0))


@jit
def _grey(image, at, size, mask, C: tl.constexpr):
    """Return the whole grey levels of the pixels of an image, as float32."""
    red = tl.load(image + at, mask=mask, other=0).to(tl.float32)
    if C == 1:
        return red
    green = tl.load(image + size + at, mask=mask, other=0).to(tl.float32)
    blue = tl.load(image + 2 * size + at, mask=mask, other=0).to(tl.float32)
    return tl.floor(tl.fma(blue, 0.114, tl.fma(green, 0.587, red * 0.2989)))


@jit
def _tables(
    images,
    before,
    op,
    magnitude,
    tables,
    H,
    W,
    C: tl.constexpr,
    K: tl.constexpr,
    BEHIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Make the table of one row and channel, where its operation depends on one value alone."""
    row = (tl.program_id(0) // C).to(tl.int64)
    channel = tl.program_id(0) % C
    number, amount, image = _stage(op, magnitude, images, before, row, K, BEHIND)
    if (number == _IDENTITY) | (number == _COLOR) | (number == _SHARPNESS):
        return
    size = tl.cast(H, tl.int64) * W
    image += row * C * size
    level = tl.arange(0, 256)
    value = level.to(tl.float32)
    if number == _BRIGHTNESS:
        value *= 1 + amount
    elif number == _CONTRAST:
        total = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, H * W, BLOCK):
            at = start + tl.arange(0, BLOCK)
            total += _grey(image, at, size, at < H * W, C).to(tl.int32)
        mean = (tl.sum(total.to(tl.int64), 0).to(tl.float64) / size).to(tl.float32)
        value = tl.fma(-amount, mean, value * (1 + amount))
    elif number == _SOLARIZE:
        value = tl.where(value >= 255 * amount, 255 - value, value)
    elif number == _INVERT:
        value = 255 - value
    elif number == _POSTERIZE:
        bits = tl.clamp(amount, 0.0, 8.0).to(tl.int32)
        value = (level & (256 - (1 << (8 - bits)))).to(tl.float32)
    else:
        counts = tl.zeros((256,), tl.int32)
        for start in range(0, H * W, BLOCK):
            at = start + tl.arange(0, BLOCK)
            found = tl.load(image + channel * size + at, mask=at < H * W, other=0)
            counts += tl.histogram(found.to(tl.int32), 256, mask=at < H * W)
        up_to = tl.cumsum(counts, 0)
        if number == _AUTO_CONTRAST:
            low = tl.sum((up_to == 0).to(tl.int32), 0)
            high = tl.sum((up_to < H * W).to(tl.int32), 0)
            if high > low:
                value = tl.div_rn(value - low, (high - low) * (1 / 255))
        elif number == _EQUALIZE:
            step = tl.max(tl.where(up_to < H * W, up_to, 0), 0) // 255
            if step > 0:
                value = ((up_to - counts + step // 2) // step).to(tl.float32)
    tl.store(tables + (row * C + channel) * 256 + level, _level(value).to(tl.uint8))


@jit
def _render(
    images,
    before,
    op,
    magnitude,
    tables,
    H,
    W,
    theta,
    out,
    fill_0,
    fill_1,
    fill_2,
    scale_0,
    scale_1,
    scale_2,
    rest_0,
    rest_1,
    rest_2,
    shift_0,
    shift_1,
    shift_2,
    C: tl.constexpr,
    K: tl.constexpr,
    BEHIND: tl.constexpr,
    LAST: tl.constexpr,
    BILINEAR: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
):
    """Make one tile of a row's pixels; those of the last stage are sampled through theta."""
    across = tl.cdiv(W, TILE_X)
    tiles = across * tl.cdiv(H, TILE_Y)
    row = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    number, amount, image = _stage(op, magnitude, images, before, row, K, BEHIND)
    if (BEHIND > 0) & (number == _IDENTITY):
        return
    y = tile // across * TILE_Y + tl.arange(0, TILE_Y)[:, None]
    x = tile % across * TILE_X + tl.arange(0, TILE_X)[None, :]
    shown = (y < H) & (x < W)
    size = tl.cast(H, tl.int64) * W
    stage = (number, amount, image + row * C * size, tables + row * C * 256)
    fills, scales = (fill_0, fill_1, fill_2), (scale_0, scale_1, scale_2)
    rests, shifts = (rest_0, rest_1, rest_2), (shift_0, shift_1, shift_2)
    step = 1 if LAST else size  # from a channel to the next
    out += row * C * size + (y * W + x) * (C if LAST else 1)
    if BEHIND > 0:
        for c in tl.static_range(C):
            value = _value(stage, c, y, x, shown, H, W, C)
            tl.store(out + c * step, value.to(tl.uint8), mask=shown)
    else:
        at_y = _position(theta + row * 6 + 3, y, x, H, H, W)
        at_x = _position(theta + row * 6, y, x, W, H, W)
        for c in tl.static_range(C):
            if BILINEAR:
                value = tl.zeros((TILE_Y, TILE_X), tl.float32)
                for tap in range(4):
                    y0 = tl.floor(at_y) + tap // 2
                    x0 = tl.floor(at_x) + tap % 2
                    weight = (1 - tl.abs(at_y - y0)) * (1 - tl.abs(at_x - x0))
                    value += weight * _sample(stage, c, y0, x0, shown, fills[c], H, W, C)
            else:
                value = _sample(stage, c, _round(at_y), _round(at_x), shown, fills[c], H, W, C)
            value = _round(value + fills[c])
            if out.dtype.element_ty != tl.uint8:
                value = tl.fma(value, scales[c], tl.fma(value, rests[c], shifts[c]))
            tl.store(out + c * step, value.to(out.dtype.element_ty), mask=shown)


@jit
def _round(value):
    """Return the nearest whole number, the even one of two; beyond 2²², a number beyond it."""
    return (value + _ROUNDER) - _ROUNDER


@jit
def _position(theta, y, x, size, H, W):
    """Return a coordinate of the input pixels that output pixels show, rounded as on the CPU."""
    half = tl.cast(size, tl.float32) * 0.5
    a = tl.div_rn(tl.load(theta), half)
    b = tl.div_rn(tl.load(theta + 1), half)
    c = tl.div_rn(tl.load(theta + 2), half)
    grid = (a * (x - (W - 1) * 0.5) + b * (y - (H - 1) * 0.5)) + c
    return (grid + 1) * half - 0.5


@jit
def _sample(stage, c, y, x, shown, fill, H, W, C: tl.constexpr):
    """Return the value at a whole position less the fill; outside the image, however far, 0."""
    inside = shown & (y >= 0) & (y <= H - 1) & (x >= 0) & (x <= W - 1)
    y = tl.where(inside, y, 0).to(tl.int32)
    x = tl.where(inside, x, 0).to(tl.int32)
    return tl.where(inside, _value(stage, c, y, x, inside, H, W, C) - fill, 0)


@jit
def _value(stage, c, y, x, mask, H, W, C: tl.constexpr):
    """Return the float32 level of channel c at pixels of the image after the stage's operation."""
    number, amount, image, table = stage
    size = tl.cast(H, tl.int64) * W
    at = y * W + x
    plane = image + c * size
    level = tl.load(plane + at, mask=mask, other=0)
    value = level.to(tl.float32)
    if number == _COLOR:
        if C == 3:
            grey = _grey(image, at, size, mask, C)
            value = _level(tl.fma(-amount, grey, value * (1 + amount)))
    elif number == _SHARPNESS:
        inner = mask & (y > 0) & (y < H - 1) & (x > 0) & (x < W - 1)
        total = 4 * value
        for k in tl.static_range(9):
            near = at + (k // 3 - 1) * W + (k % 3 - 1)
            total += tl.load(plane + near, mask=inner, other=0).to(tl.float32)
        smooth = tl.floor(total * (1 / 13) + 0.5)
        value = tl.where(inner, _level(tl.fma(-amount, smooth - value, value)), value)
    elif number != _IDENTITY:
        value = tl.load(table + c * 256 + level.to(tl.int32), mask=mask, other=0).to(tl.float32)
    return value
