"""Policies: from a row's random numbers and its strength to operations with magnitudes.

Every operation's magnitude moves from the one that changes nothing to the published one:
m = m0 + s (m1 - m0), so strength 0 is the identity and strength 1 the published policy. Operations
without a magnitude are applied with probability s. A row at a higher strength, from the same random
numbers, never has a smaller magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from augloader.augment.pairs import PAIRS
from augloader.augment.pixels import ops
from augloader.augment.pixels.geometry import compose, moved_rows
from augloader.core.checks import require_fraction, require_int, require_number, require_one_of

Array = npt.NDArray[Any]
_FACTORS = (ops.BRIGHTNESS, ops.CONTRAST, ops.COLOR, ops.SHARPNESS)


@dataclass(frozen=True, eq=False)
class Params:
    """What to do to every row of a batch; tensors on the CPU, picklable, never changed in place.

    Attributes:
        shape: (B, C, H, W) of the images they are for.
        op: (B, M, K) int64, M chains of K operations of ``pixels.ops``.
        magnitude: (B, M, K) float32.
        boxes: (B, 4) int64, top, left, bottom and right of what is cut out; or None.
        mix: (B, 1 + M) float32, shares of the image and of its M chains; None for one chain alone.
    """

    shape: tuple[int, int, int, int]
    op: Tensor
    magnitude: Tensor
    boxes: Tensor | None = None
    mix: Tensor | None = None

    @cached_property
    def matrices(self) -> Tensor:
        """(B, M, 3, 3) float64: what each chain's geometry is, as ``compose`` returns it."""
        whole = compose(self.op.flatten(0, 1), self.magnitude.flatten(0, 1), *self.shape[2:])
        return whole.view(*self.op.shape[:2], 3, 3)

    @cached_property
    def moved(self) -> list[Tensor]:
        """Of each of the M chains the (m,) int64 rows that its geometry changes."""
        return [moved_rows(self.op[:, m], self.magnitude[:, m]) for m in range(self.op.shape[1])]

    @property
    def geometric(self) -> bool:
        """Whether chains of operations move pixels, in any row; cut-outs do not."""
        return self.op.shape[2] > 0

    def select(self, rows: Tensor | slice) -> Params:
        """Return the parameters of some rows, (m,) int64 or a slice."""
        op = self.op[rows]
        some = Params(
            (len(op), *self.shape[1:]),
            op,
            self.magnitude[rows],
            None if self.boxes is None else self.boxes[rows],
            None if self.mix is None else self.mix[rows],
        )
        vars(some)["matrices"] = self.matrices[rows]  # computed once
        return some

    def row(self, i: int) -> Params:
        """Return the parameters of one row."""
        return self.select(torch.tensor([i], device="cpu"))


class Policy(Protocol):
    """How a row's random numbers and strength become operations."""

    @property
    def uniforms(self) -> int:
        """Random numbers that a row takes."""

    @property
    def coloured(self) -> bool:
        """Whether it has colour operations, which need 1 or 3 channels."""

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return what to do, from u (B, uniforms) in [0, 1) and strength (B,) in [0, 1]."""


class _Space(NamedTuple):
    """The published magnitudes, (operations, bins) float64, and the operations drawn from."""

    magnitudes: Array
    ops: Array


@lru_cache(maxsize=64)
def _space(
    bins: int,
    shear: float,
    shift: tuple[float, float],
    rotate: float,
    factor: float,
    bits: tuple[int, int],
) -> _Space:
    """Tabulate a family's magnitudes as torchvision does, to the last bit.

    Args:
        bins: number of magnitudes.
        shear: largest tangent.
        shift: largest translation along x and y, in pixels.
        rotate: largest angle, in degrees.
        factor: largest offset of brightness, contrast, color and sharpness.
        bits: of posterize in the first and the last bin.
    """
    top = dict.fromkeys(_FACTORS, factor) | dict.fromkeys((ops.SHEAR_X, ops.SHEAR_Y), shear)
    top |= {ops.TRANSLATE_X: shift[0], ops.TRANSLATE_Y: shift[1], ops.ROTATE: rotate}
    table = np.zeros((len(ops.OPS), bins))
    for op, largest in top.items():
        table[op] = _steps(0, largest, bins)
    table[ops.POSTERIZE] = np.round(np.linspace(*bits, bins))
    table[ops.SOLARIZE] = _steps(1, 0, bins)
    drawn = [op for op in range(len(ops.OPS)) if op not in (ops.INVERT, ops.FLIP)]
    return _Space(table, np.array(drawn))


def _steps(first: float, last: float, bins: int) -> Array:
    return torch.linspace(first, last, bins, dtype=torch.float32, device="cpu").numpy()


def _wide(shape: tuple[int, ...], bins: int) -> _Space:
    return _space(bins, 0.99, (32.0, 32.0), 135.0, 0.99, (8, 2))


def _narrow(shape: tuple[int, ...], bins: int) -> _Space:
    shift = (150 / 331 * shape[3], 150 / 331 * shape[2])
    return _space(bins, 0.3, shift, 30.0, 0.9, (8, 4))


_ROW_NEUTRAL = np.array([ops.NEUTRAL.get(op, 0.0) for op in range(len(ops.OPS))])
_ROW_SIGNED = np.isin(np.arange(len(ops.OPS)), ops.SIGNED)
_ROW_GATED = np.isin(np.arange(len(ops.OPS)), ops.GATED)


_TINY = np.finfo(np.float64).tiny  # keeps shares that are all 0 apart from 0 / 0


def _scaled(
    op: Array, published: Array, sign: Array, gate: Array, strength: Array
) -> tuple[Tensor, Tensor]:
    """Return operations and magnitudes at a strength; all arrays (B, M, K), strength (B,)."""
    s = strength[:, None, None]
    neutral = _ROW_NEUTRAL[op]
    magnitude = neutral + s * (published - neutral)
    magnitude = np.where(_ROW_SIGNED[op] & (sign <= 0.5), -magnitude, magnitude)
    moved = (op == ops.TRANSLATE_X) | (op == ops.TRANSLATE_Y)
    magnitude = np.where(moved, np.trunc(magnitude), magnitude)
    magnitude = np.where(op == ops.POSTERIZE, np.round(magnitude), magnitude)
    op = np.where((s <= 0) | (_ROW_GATED[op] & (gate >= s)), ops.IDENTITY, op)
    return torch.from_numpy(op), torch.from_numpy(magnitude.astype(np.float32))


def _pick(u: Array, count: int) -> Array:
    """Return uniform integers in [0, count) from uniform numbers in [0, 1)."""
    return (u * count).astype(np.int64)


@dataclass(frozen=True)
class Trivial:
    """TrivialAugment (wide): one operation a row, of any magnitude.

    Source: Müller & Hutter (2021); ranges of torchvision's TrivialAugmentWide.
    """

    num_magnitude_bins: int = 31
    uniforms = 4
    coloured = True

    def __post_init__(self) -> None:
        """Check the range."""
        require_int("num_magnitude_bins", self.num_magnitude_bins, 2, "Published: 31.")

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return one operation a row."""
        space = _wide(shape, self.num_magnitude_bins)
        u = u[:, None, None]
        op = space.ops[_pick(u[..., 0], len(space.ops))]
        published = space.magnitudes[op, _pick(u[..., 1], self.num_magnitude_bins)]
        return Params(shape, *_scaled(op, published, u[..., 2], u[..., 3], strength))


@dataclass(frozen=True)
class Rand:
    """RandAugment: ``num_ops`` operations a row, all of one magnitude.

    Source: Cubuk et al. (2020); ranges of torchvision's RandAugment.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    coloured = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_int("num_ops", self.num_ops, 1, "Published: 2.")
        require_int("num_magnitude_bins", self.num_magnitude_bins, 2, "Published: 31.")
        if require_int("magnitude", self.magnitude, 0, "Published: 9.") >= self.num_magnitude_bins:
            raise ValueError(
                f"magnitude must be below num_magnitude_bins={self.num_magnitude_bins}, got "
                f"{self.magnitude}. Give more bins or a smaller magnitude."
            )

    @property
    def uniforms(self) -> int:
        """Random numbers that a row takes."""
        return 3 * self.num_ops

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return ``num_ops`` operations a row, drawn with replacement."""
        space = _narrow(shape, self.num_magnitude_bins)
        u = u.reshape(len(u), 1, self.num_ops, 3)
        op = space.ops[_pick(u[..., 0], len(space.ops))]
        published = space.magnitudes[op, self.magnitude]
        return Params(shape, *_scaled(op, published, u[..., 1], u[..., 2], strength))


@dataclass(frozen=True)
class Auto:
    """AutoAugment: one of the 25 pairs of operations that were found for a data set.

    Source: Cubuk et al. (2019), appendix; ranges of torchvision's AutoAugment.
    """

    dataset: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    uniforms = 7
    coloured = True

    def __post_init__(self) -> None:
        """Check the name."""
        require_one_of("dataset", self.dataset, tuple(PAIRS))

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return a pair a row, each operation with its own probability."""
        numbers, chances, bins = _pairs(self.dataset)
        pair = _pick(u[:, 0], len(numbers))[:, None]
        u = u[:, 1:].reshape(len(u), 1, 2, 3)
        op = np.where(u[..., 0] < chances[pair], numbers[pair], ops.IDENTITY)
        published = _narrow(shape, 10).magnitudes[op, bins[pair]]
        return Params(shape, *_scaled(op, published, u[..., 1], u[..., 2], strength))


@dataclass(frozen=True)
class AugMix:
    """AugMix: the image mixed with several short chains of operations.

    (1 - b) x + b sum_i w_i chain_i(x), w from Dirichlet(1, ..., 1) and b uniform. The strength acts
    on the chains' operations. Mixtures are rounded to whole levels; torchvision cuts them off.

    Source: Hendrycks et al. (2020); ranges of torchvision's AugMix.
    """

    severity: int = 3
    mixture_width: int = 3
    chain_depth: int = -1
    all_ops: bool = True
    coloured = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if require_int("severity", self.severity, 1, "Published: 3.") > 10:
            raise ValueError(f"severity must be at most 10, got {self.severity}. Published: 3.")
        require_int("mixture_width", self.mixture_width, 1, "Published: 3.")
        require_int("chain_depth", self.chain_depth, -1, "-1 draws 1 to 3 for every chain.")
        if self.chain_depth == 0:
            raise ValueError("chain_depth must be above 0, or -1 for 1 to 3, got 0. Pass -1.")
        if not isinstance(self.all_ops, bool):
            raise TypeError(
                f"all_ops must be True or False, got {self.all_ops!r}. Published: True."
            )

    @property
    def _depth(self) -> int:
        return 3 if self.chain_depth < 0 else self.chain_depth

    @property
    def uniforms(self) -> int:
        """Random numbers that a row takes."""
        return 1 + self.mixture_width * (2 + 4 * self._depth)

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return ``mixture_width`` chains a row and how they are mixed."""
        shift = (shape[3] / 3, shape[2] / 3)
        space = _space(10, 0.3, shift, 30.0, 0.9, (4, 0))
        names = space.ops[1:]  # without the identity
        if not self.all_ops:
            names = names[~np.isin(names, _FACTORS)]
        blend = u[:, :1]
        u = u[:, 1:].reshape(len(u), self.mixture_width, 2 + 4 * self._depth)
        share = _TINY - np.log1p(-u[..., 0])  # exponential: normalised, Dirichlet(1, ..., 1)
        mix = np.concatenate([1 - blend, blend * share / share.sum(1, keepdims=True)], 1)
        depth = 1 + _pick(u[..., 1:2], 3) if self.chain_depth < 0 else self._depth
        u = u[..., 2:].reshape(*u.shape[:2], self._depth, 4)
        op = names[_pick(u[..., 0], len(names))]
        published = space.magnitudes[op, _pick(u[..., 1], self.severity)]
        op = np.where(np.arange(self._depth) < depth, op, ops.IDENTITY)
        scaled = _scaled(op, published, u[..., 2], u[..., 3], strength)
        return Params(shape, *scaled, mix=torch.from_numpy(mix.astype(np.float32)))


@dataclass(frozen=True)
class Cutout:
    """Cutout: one square a row is cut out, its centre anywhere in the image.

    Its side is s ``size`` min(H, W), rounded; it is cut off at the border, and black.

    Source: DeVries & Taylor (2017).
    """

    size: float = 0.5
    uniforms = 2
    coloured = False

    def __post_init__(self) -> None:
        """Check the range."""
        require_fraction("size", self.size)

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return one square a row."""
        extent = np.array(shape[2:])
        side = np.round(strength * self.size * extent.min()).astype(np.int64)[:, None]
        start = _pick(u, extent) - side // 2  # type: ignore[arg-type]
        return _cut(shape, start.clip(0, extent), (start + side).clip(0, extent))


@dataclass(frozen=True)
class Erasing:
    """Random erasing: one rectangle a row, wholly inside the image, is cut out.

    At strength 1 its area is a uniform share ``scale`` of the image's and the logarithm of height
    by width uniform in that of ``ratio``, as far as it fits; both sides shrink with s.

    Source: Zhong et al. (2020); torchvision's RandomErasing, which redraws what does not fit.
    """

    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    uniforms = 4
    coloured = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        _require_pair("scale", self.scale)
        _require_pair("ratio", self.ratio)
        if not 0 < self.scale[0] <= self.scale[1] < 1:
            raise ValueError(
                f"scale must be two shares of the area, 0 < low <= high < 1, got {self.scale}. "
                "Pass for example (0.02, 0.33)."
            )
        if not 0 < self.ratio[0] <= self.ratio[1] < np.inf:
            raise ValueError(
                f"ratio must be two ratios of height by width, 0 < low <= high, got {self.ratio}. "
                "Pass for example (0.3, 3.3)."
            )

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return one rectangle a row."""
        h, w = shape[2:]
        area = h * w * (self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0]))
        low = np.log(np.maximum(self.ratio[0], area / w**2))
        high = np.log(np.minimum(self.ratio[1], h**2 / area))
        ratio = np.exp(low + u[:, 1] * np.maximum(high - low, 0))
        sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1)
        sides = np.round(strength[:, None] * sides).astype(np.int64).clip(0, (h, w))
        start = (u[:, 2:] * (np.array([h, w]) - sides + 1)).astype(np.int64)
        return _cut(shape, start, start + sides)


@dataclass(frozen=True)
class Perturb:
    """Crop, flip, colour jitter and blur: every row by random amounts of each.

    At strength 1 a row is shifted by whole pixels, uniform within ``crop`` of its sides, as a crop
    of the padded image is; mirrored with probability ``flip``; its brightness, contrast and
    saturation, in random order, get factors uniform in 1 +- ``jitter``; and ``blur`` times it moves
    toward its 3 x 3 smoothing (centre 5/13, others 1/13: a deviation of 0.68 pixels) by a uniform
    share, the same each time. Shifts and factors shrink with s, and the flip's probability too.

    Source: Liu & Mirzasoleiman (2022), Table 2, whose ranges are not public: these are ours.
    """

    crop: float = 0.125
    flip: float = 0.5
    jitter: float = 0.4
    blur: int = 2
    uniforms = 8
    coloured = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_number("crop", self.crop, "[0, 1]", "0.125 is 4 pixels of 32.")
        require_number("flip", self.flip, "[0, 1]", "0.5 mirrors every other row.")
        require_number("jitter", self.jitter, "[0, 1]", "0.4 is the usual one.")
        require_int("blur", self.blur, 0, "2 smooths twice.")

    def draw(self, u: Array, strength: Array, shape: tuple[int, int, int, int]) -> Params:
        """Return a shift, a flip, three factors and the smoothings of every row."""
        rows, most = len(u), np.floor(self.crop * np.array([shape[3], shape[2]]))
        shift = np.floor(u[:, :2] * (2 * most + 1)) - most
        gate = u[:, 2] / self.flip if self.flip else np.full(rows, np.inf)
        order = _ORDERS[_pick(u[:, 3], len(_ORDERS))]
        jitter = self.jitter * np.take_along_axis(2 * u[:, 4:7] - 1, order, 1)
        blur = np.repeat(-u[:, 7:], self.blur, 1)
        ones = np.ones((rows, 1))
        moves = np.array([ops.TRANSLATE_X, ops.TRANSLATE_Y, ops.FLIP])
        parts = [np.tile(moves, (rows, 1)), _JITTERED[order], np.full(blur.shape, ops.SHARPNESS)]
        op, signed = np.concatenate(parts, 1), np.concatenate([shift, ones, jitter, blur], 1)
        sign = (signed > 0).astype(float)
        op, published, sign = (part[:, None] for part in (op, np.abs(signed), sign))
        return Params(shape, *_scaled(op, published, sign, gate[:, None, None], strength))


_JITTERED = np.array([ops.BRIGHTNESS, ops.CONTRAST, ops.COLOR])
_ORDERS = np.array(list(permutations(range(len(_JITTERED)))))


def _require_pair(name: str, value: object) -> None:
    pair = isinstance(value, tuple | list) and len(value) == 2
    if not pair or not all(isinstance(v, int | float) for v in value):  # type: ignore[attr-defined]
        raise TypeError(f"{name} must be two numbers, got {value!r}. Pass low and high.")


def _cut(shape: tuple[int, int, int, int], start: Array, stop: Array) -> Params:
    none = torch.zeros(len(start), 1, 0, dtype=torch.int64, device="cpu")
    boxes = torch.from_numpy(np.concatenate([start, stop], 1))
    return Params(shape, none, none.float(), boxes=boxes)


PolicyName = Literal["trivial", "rand", "auto", "augmix", "cutout", "erasing", "perturb"]
POLICIES: dict[str, type[Trivial | Rand | Auto | AugMix | Cutout | Erasing | Perturb]] = {
    "trivial": Trivial,
    "rand": Rand,
    "auto": Auto,
    "augmix": AugMix,
    "cutout": Cutout,
    "erasing": Erasing,
    "perturb": Perturb,
}


@lru_cache
def _pairs(dataset: str) -> tuple[Array, Array, Array]:
    """Return the operations, probabilities and magnitude bins of a data set's pairs, (25, 2)."""
    halves = [half.split() for pair in PAIRS[dataset].split(";") for half in pair.split("+")]
    numbers = np.array([ops.OPS.index(half[0]) for half in halves])
    chances = np.array([float(half[1]) for half in halves])
    bins = np.array([int(half[2]) if len(half) > 2 else 0 for half in halves])
    return numbers.reshape(-1, 2), chances.reshape(-1, 2), bins.reshape(-1, 2)
