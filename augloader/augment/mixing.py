"""Mixing: rows of a batch are blended with each other, and so are their targets and weights.

Why both rows of a pair have one lambda: mixed weights lam_i w_i + (1 - lam_i) w_partner(i) keep
their sum for all weights w exactly where lam is constant along the cycles of the permutation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.augment.blend import Mixing, beside, described
from augloader.core.batch import Sample
from augloader.core.checks import (
    count_and_first,
    require_int,
    require_labels,
    require_number,
    require_seed,
    require_strengths,
)
from augloader.core.deprecated import formerly, renamed
from augloader.core.keyed import uniforms
from augloader.core.lying import names_of, require_none_lying
from augloader.core.schedule import Course, Schedule

Array = np.ndarray[Any, Any]
_ADVICE = "Augment with AdaptiveStrengthTransform(..., dtype=torch.float32)."
_DENSE = "Mix masks as the images, by Mixing.paste or Mixing.blend of what sample(batch) returns."
_ALONE = f"Take it out of the batch. {_DENSE}"


class Mixer:
    """What the kinds of mixing share: the draw of partners and lambdas, targets and weights."""

    @renamed(classes="num_classes", gamma="alpha")
    def __init__(
        self,
        num_classes: int | None = None,
        alpha: float = 1.0,
        *,
        probability: Schedule | float = 1.0,
        schedule: Schedule | float = 1.0,
        epochs: int | None = None,
        seed: int = 0,
        untouched: Sequence[str] = (),
    ) -> None:
        if num_classes is not None:
            require_int("num_classes", num_classes, 2, "Count the model's outputs.")
        self.num_classes = num_classes
        require_number("alpha", alpha, "[0, inf)", "1 is uniform, 0 mixes nothing.")
        self.alpha = float(alpha)
        if epochs is not None:
            require_int("epochs", epochs, 1, "Plan at least one epoch.")
        self._probability = Course.of("probability", probability, epochs)
        self._schedule = Course.of("schedule", schedule, epochs)
        self.seed = require_seed(seed)
        self._untouched = names_of(untouched)

    classes = formerly("classes", "num_classes")
    gamma = formerly("gamma", "alpha")

    def sample(self, batch: Sample, generator: torch.Generator | None = None) -> Mixing:
        """Draw partners and lambdas; a pure function of the seed and the batch's keys.

        Args:
            batch: b rows of one epoch, with strength and keys.
            generator: CPU generator to draw from instead.

        Raises:
            TypeError: not a Sample batch, not a generator, or one that is not on the CPU.
            ValueError: strengths outside [0, 1], an epoch not planned.

        Cost: O(b) on the CPU.
        """
        return self._sample(batch, *drawing(self.seed, batch, generator))

    def _sample(
        self, batch: Sample, epoch: int, strength: Array, rng: np.random.Generator
    ) -> Mixing:
        partner, share, _ = self._pairs(epoch, strength, rng)
        return Mixing(torch.from_numpy(partner), torch.from_numpy(1 - share).float())

    def _pairs(
        self, epoch: int, strength: Array, rng: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Return each row's partner, the share it takes, 1 - lam, and the number of its pair."""
        alpha = self.alpha * self._schedule.at(epoch)
        chance = self._probability.at(epoch)
        b = len(strength)
        partner, share, pair = np.arange(b), np.zeros(b), np.zeros(b, np.int64)
        rows = rng.permutation(np.flatnonzero(strength > 0))
        if alpha == 0 or chance == 0 or not len(rows):
            return partner, share, pair
        if len(rows) > 1:  # a lone one, as in a last batch, stays as it is
            of = np.minimum(np.arange(len(rows)) // 2, len(rows) // 2 - 1)  # 0 0 1 1 ... or 1 1 1
            ends = np.append(of[1:] != of[:-1], True)
            weaker = np.minimum.reduceat(strength[rows], np.arange(0, 2 * of[-1] + 1, 2))
            drawn = weaker * self._drawn(rng, alpha, len(weaker))
            drawn[rng.random(len(weaker)) >= chance] = 0
            partner[rows] = rows[np.where(ends, 2 * of, np.arange(len(rows)) + 1)]
            share[rows], pair[rows] = drawn[of], of
        return partner, share, pair

    def _drawn(self, rng: np.random.Generator, alpha: float, count: int) -> Array:
        """Return the shares of partners at strength 1."""
        drawn = rng.beta(alpha, alpha, count)
        return np.minimum(drawn, 1 - drawn)

    def _mix(self, batch: Sample, mixing: Mixing, images: Any) -> Sample:
        """Return the batch with these images, and with targets and weights mixed."""
        if isinstance(batch.input, Tensor) and batch.input.ndim > 3:
            require_none_lying(_ALONE, "extra", batch.extra, batch.input.shape, self._untouched)
        target = _soft(batch.target, self.num_classes, len(mixing.lam))
        weight = require_floating("weight", batch.weight, "Give one a row.")
        whole = mixing.blend(weight)
        if mixing.mixed.any():
            # Each sample's part of the row's weight, so that w L = lam w_i L_i + (1 - lam) w_j L_j.
            lam = beside(mixing.lam, weight)
            own = torch.where(whole > 0, lam * weight / whole, lam).clamp(max=1)
            partner = mixing.partner.to(target.device, non_blocking=True)
            target = torch.lerp(target[partner], target, beside(own, target))
        mixed = torch.as_tensor(batch.mixed, device="cpu") | mixing.mixed
        return batch._replace(input=images, target=target, weight=whole, mixed=mixed)


class Mixup(Mixer):
    """Mix inputs, targets and weights of random pairs: x = lam x_i + (1 - lam) x_j.

        lam = 1 - s min(lam_0, 1 - lam_0),    lam_0 ~ Beta(alpha, alpha)
        w = lam w_i + (1 - lam) w_j,    y = (lam w_i y_i + (1 - lam) w_j y_j) / w

    for every pair of rows, s the smaller of their strengths: rows with strength 0 are never mixed,
    nor are they partners, so that a coreset's copies are mixed with each other, and refinement ends
    mixing with the rest. Both rows of a pair have the same lam; that the larger share is a row's
    own changes their order alone, and lets them fade. Weight x cross-entropy is then
    lam w_i L(y_i) + (1 - lam) w_j L(y_j): weights keep their sum, every sample its weight, and with
    equal weights y = lam y_i + (1 - lam) y_j. Where their number is odd three rows form a ring, and
    a row that is the only one with strength above 0, or alone in its batch, stays unmixed.

    Random numbers come from the seed and the batch's first row, so that a resumed epoch goes on
    with the same ones, or from an explicit generator.

    Rows that were mixed are marked in ``Sample.mixed`` and left out by ``sampler.report``, so what
    is known of a sample is known of it alone. So that there is a clean row of every sample, take
    base="full"; with base="none" and all rows mixed nothing is reported.

    Args:
        num_classes: C, for targets that are class indices; they become (b, C) float32
            probabilities. Others, as smoothed or multi-label ones, are (b, C) already, floating in
            [0, 1] or bool: rows of them are mixed alike.
        alpha: of the Beta distribution, 0 or more; 0 mixes nothing.
        probability: of a pair to be mixed, a number in [0, 1] or a schedule.
        schedule: factor of alpha, a number in [0, 1] or a schedule, as ``Linear()``.
        epochs: how many epochs are planned, for schedules; the epoch is the batch's.
        seed: 0 or more.
        untouched: keys, or paths as "extra.mask", of what may stay as it is though it lies on the
            images: extra fields are not mixed.

    Raises:
        TypeError: wrong types; when called, also inputs that are not floating.
        ValueError: values out of range; when called, also targets of another shape or range, masks,
            boxes, points or images in extra fields, an epoch that is not planned.

    Cost: a pass over the batch, on its device, without waiting for it. Ranges of targets are
    checked on the CPU alone.

    Example:
        >>> from augloader import Sample
        >>> weight = torch.tensor([3.0, 1.0, 1.0, 1.0])
        >>> batch = Sample(torch.eye(4), torch.arange(4), torch.arange(4), weight,
        ...                torch.tensor([1.0, 1.0, 1.0, 0.0]))
        >>> mixed = Mixup(num_classes=4)(batch)
        >>> mixed.mixed
        tensor([ True,  True,  True, False])
        >>> torch.allclose(mixed.weight @ mixed.target, weight)  # of every class
        True

    Source: Zhang et al. (2018), as in He et al. (2019), Eq. 1, whose gamma is alpha;
    faded to 0: section 4.1.
    """

    def __call__(self, batch: Sample, generator: torch.Generator | None = None) -> Sample:
        """Return ``apply(batch, sample(batch, generator))``."""
        return self.apply(batch, self.sample(batch, generator))

    def apply(self, batch: Sample, mixing: Mixing) -> Sample:
        """Mix a batch as drawn: input, target, weight and ``mixed`` change, the rest is kept.

        Args:
            batch: input (b, ...) floating, target, weight (b,), on any device.
            mixing: what ``sample`` returned, or one of your own.
        """
        return self._mix(
            batch, mixing, mixing.blend(require_floating("input", batch.input, _ADVICE))
        )


class CutMix(Mixer):
    """Paste a box of the partner's image into a row: x = M x_i + (1 - M) x_j.

    The box has sides sqrt(1 - lam) of the image's, rounded down to even numbers of pixels, its
    centre is uniformly random, and what lies outside the image is cut off; then 1 - lam is set to
    the share of pixels pasted. Both rows of a pair have the same box. All else is as in ``Mixup``:
    pairs, targets, weights, marks and random numbers; but lam = 1 - s (1 - lam_0) before the cut,
    as boxes may cover more than half. To fade, schedule the probability, as the paper does.

    Args:
        num_classes: as for Mixup.
        alpha: as for Mixup; the paper's is 1.
        probability: as for Mixup; He et al. take 0.5 on CIFAR.
        schedule: as for Mixup.
        epochs: as for Mixup.
        seed: as for Mixup.
        untouched: as for Mixup.

    Raises:
        TypeError, ValueError: as Mixup, but inputs may have any dtype; inputs without height and
            width.

    Cost: a pass over the batch, on its device.

    Example:
        >>> from augloader import Sample
        >>> images = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
        >>> batch = Sample(images, torch.tensor([0, 1]), torch.arange(2), torch.ones(2),
        ...                torch.ones(2))
        >>> mixed = CutMix(num_classes=2)(batch)
        >>> bool(mixed.input[0].mean() == mixed.target[0, 1])
        True

    Source: Yun et al. (2019), as in He et al. (2019), Eq. 2.
    """

    def __call__(self, batch: Sample, generator: torch.Generator | None = None) -> Sample:
        """Return ``apply(batch, sample(batch, generator))``."""
        return self.apply(batch, self.sample(batch, generator))

    def apply(self, batch: Sample, mixing: Mixing) -> Sample:
        """Mix a batch as drawn: input, target, weight and ``mixed`` change, the rest is kept.

        Args:
            batch: input (b, ..., H, W), target, weight (b,), on any device.
            mixing: what ``sample`` returned for images of this size.
        """
        return self._mix(batch, mixing, mixing.paste(batch.input))

    def _drawn(self, rng: np.random.Generator, alpha: float, count: int) -> Array:
        """Return the shares of partners at strength 1; boxes may cover more than half an image."""
        return rng.beta(alpha, alpha, count)

    def _sample(
        self, batch: Sample, epoch: int, strength: Array, rng: np.random.Generator
    ) -> Mixing:
        if not isinstance(batch.input, Tensor) or batch.input.ndim < 3:
            raise ValueError(
                f"input must be (b, ..., H, W) images, got {described(batch.input)}. Mixup takes "
                "other inputs."
            )
        partner, share, pair = self._pairs(epoch, strength, rng)
        sides = np.array(batch.input.shape[-2:])
        centre = (rng.random((pair.max() + 1, 2)) * sides).astype(np.int64)[pair]
        half = (0.5 * np.sqrt(share)[:, None] * sides).astype(np.int64)
        low, high = (np.clip(centre + end, 0, sides) for end in (-half, half))
        share = (high - low).prod(1) / sides.prod()
        return Mixing(
            torch.from_numpy(partner),
            torch.from_numpy(1 - share).float(),
            torch.from_numpy(np.concatenate([low, high], 1)),
        )


def drawing(
    seed: int, batch: Sample, generator: torch.Generator | None
) -> tuple[int, Array, np.random.Generator]:
    """Return epoch, the rows' strengths, and random numbers, which the first row names.

    Not by its copy, which HardestOf chooses by score.
    """
    if not isinstance(batch, Sample):
        raise TypeError(
            f"batch must be a Sample batch of the loader, got {type(batch).__name__}. Of your own "
            "tensors build Sample(input, target, index, weight, strength, epoch=epoch), with the "
            "samples' positions as index."
        )
    keys = batch.keys
    if keys.ndim != 2 or not len(keys):
        raise ValueError(
            f"batch must have rows, got index of shape {tuple(torch.as_tensor(batch.index).shape)}."
            " Pass what the loader collated."
        )
    given = torch.as_tensor(batch.strength, dtype=torch.float32, device="cpu")
    strength = require_strengths(given, (len(keys),)).numpy().astype(np.float64)
    first = keys[:1].cpu().numpy()
    epoch = int(first[0, 0])
    if generator is None:
        first[0, 2] = strength[0] > 0
        named = int(uniforms(seed, first, 1)[0, 0] * 2**53)
        return epoch, strength, np.random.default_rng(named)
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise TypeError(
            f"generator must be a torch.Generator on the CPU, got {generator!r}. "
            "Pass for example torch.Generator().manual_seed(0)."
        )
    drawn = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    return epoch, strength, np.random.default_rng(drawn)


def _soft(target: Any, num_classes: int | None, b: int) -> Tensor:
    """Return (b, C) floating targets, one-hot ones for class indices."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a tensor, got {type(target).__name__}. Stack the labels.")
    if target.ndim > 2:
        raise ValueError(
            f"target must be (b,) class indices or (b, C) probabilities, got {described(target)}. "
            f"{_DENSE}"
        )
    if target.dtype == torch.bool and target.ndim == 2:
        target = target.float()  # several labels a row
    assert isinstance(target, Tensor)
    if target.is_floating_point():
        if target.ndim != 2 or len(target) != b or num_classes not in (None, target.shape[1]):
            wanted = "C" if num_classes is None else num_classes
            raise ValueError(
                f"target must be ({b}, {wanted}) probabilities, or ({b},) integer class indices, "
                f"got {described(target)}. Give one row a sample: of a single binary output "
                "target.unsqueeze(1)."
            )
        if target.device.type == "cpu":
            bad = ~((target >= 0) & (target <= 1)).all(1)
            if bad.any():
                raise ValueError(
                    f"target must be in [0, 1], got {count_and_first(bad, 'rows outside')}. Give "
                    "probabilities."
                )
        return target
    if target.ndim != 1 or target.dtype == torch.bool:
        raise ValueError(
            f"target must be ({b},) class indices or ({b}, C) floating, got {described(target)}. "
            "Pass labels of 0 and 1, several a row, as target.float(); one a row with unsqueeze(1)."
        )
    if num_classes is None:
        raise ValueError(
            "num_classes must be given for targets that are class indices, got None. Pass the "
            "number of the model's outputs, as num_classes=10."
        )
    if target.shape != (b,) or target.device.type == "cpu":  # on a GPU one_hot asserts the range
        require_labels("target", target, b, num_classes)
    return F.one_hot(target.long(), num_classes).float()


def require_floating(name: str, x: Any, advice: str) -> Tensor:
    """Return ``x`` if it is a floating tensor, or raise TypeError."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor, got {described(x)}. {advice}")
    return x
