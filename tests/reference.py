"""Slow and obvious implementations that the fast ones are held against."""

import random
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from augloader.augment.pixels.ops import OPS, SOLARIZE

Matrix = NDArray[np.floating]


def naive_greedy(distances: Matrix, budget: int) -> tuple[list[int], list[float]]:
    """Facility location by the definition: every gain computed anew in every step."""
    d = distances.astype(np.float64)
    best = np.full(len(d), d.max())
    taken: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        gain = np.maximum(best[:, None] - d, 0).sum(0)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        gains.append(float(gain[taken[-1]]))
        best = np.minimum(best, d[taken[-1]])
    return taken, gains


def tie_margin(distances: Matrix, budget: int) -> float:
    """How clearly the greedy's choices won: the smallest lead over the second best candidate."""
    d = distances.astype(np.float64)
    best, lead = np.full(len(d), d.max()), np.inf
    for medoid in naive_greedy(distances, budget)[0]:
        gains = np.sort(np.maximum(best[:, None] - d, 0).sum(0))
        lead, best = min(lead, gains[-1] - gains[-2]), np.minimum(best, d[medoid])
    return float(lead)


def coverage(distances: Matrix, chosen: list[int], constant: float | None = None) -> float:
    """f(S) = sum_i (c1 - min_{j in S} d_ij); c1 is the largest distance unless it is given.

    f of nothing is 0.
    """
    d = distances.astype(np.float64)
    top = d.max() if constant is None else constant
    return float((top - d[:, chosen].min(1)).sum()) if chosen else 0.0


def best_coverages(distances: Matrix, constant: float | None = None) -> list[float]:
    """The optimum of every size from 0 to n, over all 2^n subsets."""
    n, best = len(distances), [0.0] * (len(distances) + 1)
    for subset in range(1, 2**n):
        chosen = [j for j in range(n) if subset >> j & 1]
        best[len(chosen)] = max(best[len(chosen)], coverage(distances, chosen, constant))
    return best


def best_coverage(distances: Matrix, budget: int, constant: float | None = None) -> float:
    """The optimum over all subsets of a size."""
    subsets = combinations(range(len(distances)), budget)
    return max(coverage(distances, list(subset), constant) for subset in subsets)


def objective(distances: Tensor, chosen: Tensor) -> float:
    """F(S) = sum_i min_{j in S} d_ij."""
    return float(distances[:, chosen].min(1).values.sum(dtype=torch.float64))


def random_state() -> tuple[bytes, bytes, object]:
    """The global random states of torch, numpy and Python."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that must not change
    assert isinstance(legacy, dict)
    state = legacy["state"]["key"].tobytes() + bytes([legacy["state"]["pos"] % 256])
    return torch.get_rng_state().numpy().tobytes(), state, random.getstate()


_TORCHVISION = v2.TrivialAugmentWide()


def torchvision_operation(
    image: Tensor,
    op: int,
    magnitude: float,
    interpolation: str = "nearest",
    fill: float | tuple[float, ...] | None = None,
) -> Tensor:
    """One operation on one (C, H, W) image, or what follows it, by torchvision's own kernel."""
    if op == SOLARIZE and magnitude > 1:  # beyond white, which torchvision refuses
        return image
    result: Tensor = _TORCHVISION._apply_image_or_video_transform(
        image,
        OPS[op],
        magnitude,
        interpolation=v2.InterpolationMode(interpolation),
        fill={Tensor: fill, type(image): fill},
    )
    return result


def naive_warp(
    image: Matrix, matrix: Matrix, interpolation: str = "bilinear", fill: float = 0.0
) -> Matrix:
    """One (H, W) plane resampled pixel by pixel in float64; matrix from output to input."""
    height, width = image.shape

    def at(row: int, column: int) -> float:
        inside = 0 <= row < height and 0 <= column < width
        return float(image[row, column]) if inside else fill

    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            x, y = (matrix @ [j + 0.5 - width / 2, i + 0.5 - height / 2, 1])[:2]
            x, y = x + width / 2 - 0.5, y + height / 2 - 0.5
            if interpolation == "nearest":
                out[i, j] = at(round(y), round(x))
            else:
                left, top = int(np.floor(x)), int(np.floor(y))
                right, low = x - left, y - top
                above = (1 - right) * at(top, left) + right * at(top, left + 1)
                below = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
                out[i, j] = (1 - low) * above + low * below
    return out


def _sums_round_once() -> bool:
    term = torch.full((256,), 1 + 2.0**-12)
    rounded = -(term * term)  # the exact square ends in 2^-24
    return bool((rounded.add(term, alpha=1 + 2.0**-12) != 0).all())


# Whether torch rounds x + a y once here, as a fused multiply-add does: on CPUs that have one, in
# vectors. The levels of Contrast, Color and Sharpness that fall on a whole number depend on it.
SUMS_ROUND_ONCE = _sums_round_once()


def require_nearest(
    out: Tensor,
    like: Tensor,
    images: Tensor,
    matrix: Tensor,
    fill: float | tuple[float, ...] = 0.0,
    tolerance: float = 0.0,
) -> Tensor:
    """Raise unless ``out`` are images resampled by nearest, and ``like`` but at borders of pixels.

    Where a position is too close to the border between two pixels for float32 to tell, the value is
    that of a pixel beside the border; what rounds how there depends on the CPU.

    Args:
        out: (n, C, H, W), what is tested.
        like: (n, C, H, W), what is expected, as torchvision makes it.
        images: (n, C, H, W), what both were made of.
        matrix: (n, 3, 3) float64, output to input, as ``compose`` returns it.
        fill: the value outside, or one a channel.
        tolerance: largest difference of a value from the one that is expected.

    Returns:
        (n, H, W) bool, where positions are that close.
    """
    height, width = images.shape[-2:]
    y, x = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in (height, width))
    homogeneous = torch.stack([*torch.meshgrid(x, y, indexing="xy"), torch.ones(height, width)])
    terms = matrix[:, :2, :, None, None] * homogeneous.double()  # (n, 2, 3, H, W)
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64).view(2, 1, 1)
    at = terms.sum(2) + half - 0.5
    # A grid is g = (a x + b y) + c; a, b and c are rounded to float32, divided by half the side,
    # multiplied and added twice: at most 5 roundings of a term. (g + 1) half - 0.5 are 3 more, of
    # sums up to |a x| + |b y| + |c| + half. A rounding is off by 2^-24 of its result at most
    # (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., lemma 3.1).
    epsilon = 2.0**-24 * (8 * terms.abs().sum(2) + 3 * half)
    near = ((at - at.floor() - 0.5).abs() <= epsilon).any(1)
    wrong = (out.double() - like.double()).abs() > tolerance
    assert not (wrong & ~near[:, None]).any()

    fills = torch.tensor(fill, dtype=torch.float64).reshape(-1, 1)
    fills = (fills if images.is_floating_point() else fills.round()).to(images.dtype).double()
    possible = torch.zeros_like(near)
    for side in (-1, 1), (-1, -1), (1, -1), (1, 1):
        column, row = (at + torch.tensor(side).view(2, 1, 1) * epsilon).round().unbind(1)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = torch.where(inside, row * width + column, 0).long().flatten(1)[:, None]
        taken = images.double().flatten(2).gather(2, index.expand(-1, images.shape[1], -1))
        taken = torch.where(inside.flatten(1)[:, None], taken, fills).view(images.shape)
        possible |= ((out.double() - taken).abs() <= tolerance).all(1)  # one pixel, all channels
    assert (possible | ~near).all()
    return near


def sample_images(
    kind: str, rows: int, channels: int, height: int, width: int, seed: int = 0
) -> Tensor:
    """Float images in [0, 1]: smooth, noise, flat, few (levels) or extreme (0 and 1 alone)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, channels, height, width)
    if kind == "smooth":
        coarse = torch.rand(rows, channels, 6, 6, generator=generator)
        images = F.interpolate(coarse, (height, width), mode="bicubic")
        return (images * torch.rand(rows, 1, 1, 1, generator=generator)).clamp(0, 1)
    if kind == "flat":
        return torch.rand(rows, channels, 1, 1, generator=generator).expand(shape).clone()
    noise = torch.rand(shape, generator=generator)
    if kind == "few":
        return (noise * 3).round() / 5
    return noise.round() if kind == "extreme" else noise


def as_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Float images in another dtype, as 0 to 255 in uint8."""
    return (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)
