"""Geometry of a chain: one matrix and one resampling a row; masks, boxes and points follow it.

Matrices map output to input positions, in pixels from the image's centre: (x - w/2, y - h/2) where
pixel i covers [i, i + 1). Applying operation 0 first means out(p) = in(M_0 M_1 ... p).

Products and sums are elementwise and in one order: the order, and the number of roundings, of a
library's matrix product depend on the CPU, and so would the pixels that "nearest" takes where a
position lies on the border between two.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.augment.pixels.ops import (
    FLIP,
    GEOMETRY,
    ROTATE,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
)
from augloader.augment.pixels.rows import beside, over_rows, parts, put_, take, to_levels

Interpolation = Literal["nearest", "bilinear"]


def compose(op: Tensor, magnitude: Tensor, height: int, width: int) -> Tensor:
    """Return each row's geometry as one matrix; operations that are no geometry are skipped.

    Args:
        op: (B, K) int64 on the CPU, numbers of ``pixels.ops``.
        magnitude: (B, K) float32 on the CPU.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        (B, 3, 3) float64, output to input.

    Cost: O(B K).

    Example:
        >>> from augloader.augment.pixels.ops import TRANSLATE_X
        >>> compose(torch.tensor([[TRANSLATE_X]]), torch.tensor([[3.0]]), 8, 8)[0, 0].tolist()
        [1.0, 0.0, -3.0]

    Source: torchvision.transforms.v2's affine and rotate.
    """
    numbers, sizes = op.numpy(), magnitude.numpy().astype(np.float64)
    parts = np.zeros((*op.shape, 3, 3))
    parts[..., 0, 0] = parts[..., 1, 1] = parts[..., 2, 2] = 1
    sheared, turned, moved = numbers == SHEAR_X, numbers == ROTATE, numbers == TRANSLATE_X
    parts[sheared, 0, 1] = sizes[sheared]
    parts[sheared, 0, 2] = sizes[sheared] * (height / 2)
    parts[moved, 0, 2] = -sizes[moved]
    sheared, moved = numbers == SHEAR_Y, numbers == TRANSLATE_Y
    parts[sheared, 1, 0] = sizes[sheared]
    parts[sheared, 1, 2] = sizes[sheared] * (width / 2)
    parts[moved, 1, 2] = -sizes[moved]
    parts[(numbers == FLIP) & (sizes != 0), 0, 0] = -1
    angle = np.radians(sizes[turned] % 360)
    parts[turned, 0, 0] = parts[turned, 1, 1] = np.cos(angle)
    parts[turned, 0, 1], parts[turned, 1, 0] = -np.sin(angle), np.sin(angle)
    whole = np.tile(np.eye(3), (len(op), 1, 1))
    for k in range(op.shape[1]):
        terms = [whole[:, :, j, None] * parts[:, k, j, None] for j in range(3)]
        whole = terms[0] + terms[1] + terms[2]
    return torch.from_numpy(whole)


def moved_rows(op: Tensor, magnitude: Tensor) -> Tensor:
    """Return the (m,) int64 rows whose chain, (B, K), has geometry that is not the identity."""
    numbers = op.numpy()
    moves = (numbers >= GEOMETRY.start) & (numbers < GEOMETRY.stop) | (numbers == FLIP)
    return torch.from_numpy((moves & (magnitude.numpy() != 0)).any(1).nonzero()[0])


def warp_(
    images: Tensor,
    rows: Tensor,
    matrix: Tensor,
    interpolation: Interpolation = "nearest",
    fill: tuple[float, ...] = (0.0,),
) -> Tensor:
    """Resample some rows of a batch, in place.

    Args:
        images: (B, C, H, W) uint8 or floating, on any device.
        rows: (m,) int64 on the CPU.
        matrix: (m, 3, 3) float64 on the CPU, output to input, as ``compose`` returns it.
        interpolation: "nearest" or "bilinear".
        fill: one value a channel, or one for all, outside the image, in the images' own units.

    Returns:
        ``images``.

    Cost: O(m C H W), and float32 temporaries of that size, or of one large image on a CPU.
    """
    for part, at in parts(images, rows.numpy()):
        part.copy_(_warp(part, matrix[at], interpolation, fill))
    return images


def _warp(
    images: Tensor, matrix: Tensor, interpolation: Interpolation, fill: tuple[float, ...]
) -> Tensor:
    values = images.to(torch.promote_types(images.dtype, torch.float32))
    exact = values.dtype if interpolation == "bilinear" else torch.float32
    theta = matrix[:, :2].to(exact).to(values.device, non_blocking=True)
    grid = _grid(theta, *images.shape[-2:])
    if grid.dtype != values.dtype:
        grid = _centres(grid, *images.shape[-2:])
    filled = any(fill)
    if filled:  # one more channel tells how much of a pixel comes from inside
        values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
    sampled = F.grid_sample(
        values, grid, mode=interpolation, padding_mode="zeros", align_corners=False
    )
    if filled:
        outside = beside(fill, values.dtype, values)
        sampled = sampled[:, :-1].addcmul(1 - sampled[:, -1:], outside)
    if images.dtype == torch.uint8 and (interpolation == "bilinear" or filled):
        sampled.round_()
    return to_levels(sampled, images)


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Return the (n, H, W, 2) sampling grid: (a x + b y) + c, every step rounded.

    torchvision's ``_affine_grid`` leaves the sum to a matrix product (``bmm``). MKL's rounds as
    here on CPUs up to AVX2, bit for bit; with AVX-512 it adds b y to a x without rounding b y
    first. Up to a third of the positions then differ in the last place, and "nearest" takes another
    pixel where a position is that close to the border between two. ``F.grid_sample`` takes the same
    pixels for the same grid on any CPU: (g + 1) W/2 - 0.5, fused or not, stays on its side of a
    border (but for 2^-24 pixels at the one between the first two).
    """
    xs, ys, half = _axes(height, width, theta.dtype, theta.device)
    a, b, c = theta.div(half)[..., None, None].unbind(2)
    planes: Tensor = (a * xs + b * ys).add_(c)
    return planes.permute(0, 2, 3, 1)  # planes, not pairs: contiguous writes


def _centres(grid: Tensor, height: int, width: int) -> Tensor:
    """Return a float64 grid of the centres of the pixels that "nearest" takes in float32.

    Images of float64 so take the pixels that their masks take.
    """
    half = _axes(height, width, grid.dtype, grid.device)[2].flatten()
    pixels = (grid + 1).mul_(half).sub_(0.5).round_()  # F.grid_sample's steps
    return (pixels.double() + 0.5) / half - 1


@lru_cache(maxsize=8)
def _axes(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels' x (W,) and y (H, 1) from the image's centre, and half the sides (2, 1).

    All are multiples of a half, so exact.
    """
    xs = torch.linspace((1 - width) / 2, (width - 1) / 2, width, dtype=dtype, device=device)
    ys = torch.linspace((1 - height) / 2, (height - 1) / 2, height, dtype=dtype, device=device)
    half = torch.tensor([[width / 2], [height / 2]], dtype=dtype, device="cpu")
    half = half.to(device, non_blocking=True)
    return xs, ys[:, None], half


@torch.no_grad()
def warp_mask(masks: Tensor, rows: Tensor, matrix: Tensor, outside: float = 0) -> Tensor:
    """Return masks (B, ..., H, W) of any dtype, some rows resampled by nearest.

    Outside the image they get ``outside``, a value that their dtype can hold.

    Values are exact, and pixels those that an image of any dtype takes: what float32 cannot hold is
    carried in pieces of 16 bits.
    """
    out = torch.empty_like(masks)

    def move(some: slice) -> None:
        out[some] = masks[some]
        here = (rows >= some.start) & (rows < some.stop)
        if here.any():
            at = rows[here]
            put_(out, at, _warp_mask(take(masks, at), matrix[here], outside))

    over_rows(masks, move)
    return out


def _warp_mask(masks: Tensor, matrix: Tensor, outside: float) -> Tensor:
    """Return masks (m, ..., H, W), all resampled."""
    height, width = masks.shape[-2:]
    chosen = masks.reshape(len(masks), -1, height, width)
    pieces = chosen.element_size() // 2 if chosen.dtype in _LARGE else 1
    if pieces > 1:
        parts = chosen.contiguous().view(torch.int16).unflatten(-1, (width, pieces))
        chosen = parts.movedim(-1, 2).flatten(1, 2)
    shown = [torch.ones_like(chosen[:, :1])] * bool(outside)  # one more plane: what is inside
    planes = _warp(torch.cat([*shown, chosen], 1).to(torch.float32), matrix, "nearest", (0.0,))
    moved = planes[:, len(shown) :].to(chosen.dtype)
    if pieces > 1:
        parts = moved.unflatten(1, (-1, pieces)).movedim(2, -1).contiguous()
        moved = parts.flatten(-2).view(masks.dtype)
    if shown:
        moved = moved.masked_fill(planes[:, :1] == 0, outside)
    return moved.reshape(masks.shape)


_LARGE = (torch.int32, torch.int64, torch.float64)


def warp_points(points: Tensor, matrix: Tensor, height: int, width: int) -> Tensor:
    """Return points moved the way an image of this size is moved by a matrix.

    Args:
        points: (..., 2), x and y in pixels from the top left corner; integers are rounded.
        matrix: (3, 3) float64, output to input, its last row (0, 0, 1).
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    # The inverse of p -> A p + c is q -> A^-1 (q - c); of 2 x 2, by Cramer's rule.
    (a, b, across), (c, d, down) = matrix[:2].tolist()
    determinant = a * d - b * c
    x, y = points.reshape(-1, 2).double().unbind(1)
    x, y = x - (width / 2 + across), y - (height / 2 + down)
    moved = torch.stack(
        [
            (x * d - y * b) / determinant + width / 2,
            (y * a - x * c) / determinant + height / 2,
        ],
        1,
    )
    whole = moved if points.is_floating_point() else moved.round()
    return whole.to(points.dtype).view(points.shape)
