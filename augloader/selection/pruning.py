"""Pruned bases: which samples an epoch draws at all, and with what weight.

A pruning rule is any object with ``needs`` and a pure ``keep``; nothing is inherited. A sampler
asks it where every epoch begins: ``CoresetSampler(..., base=InfoBatch(0.5))``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.core.checks import plain_options, require_number
from augloader.core.evidence import Selection

Indices = NDArray[np.int64]
RATIO = "0.5 leaves out half."
ANNEAL = "0.125 keeps all in the last eighth of the epochs."


@runtime_checkable
class Pruning(Protocol):
    """What the sampler asks of a pruning rule. Its repr must name all options.

    Attributes:
        needs: ``{"losses"}``, as reports tell them, also by logits and labels; or nothing.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of what it looks at."""

    def keep(
        self, losses: Tensor, *, epoch: int, epochs: int | None, generator: np.random.Generator
    ) -> Selection:
        """Return the samples of an epoch, and their weights.

        Args:
            losses: (n,) float32, of each sample the last that was reported; NaN where none was.
            epoch: counted from 0.
            epochs: how many are planned, or None.
            generator: the source of randomness, of this epoch alone.
        """


@dataclass(frozen=True)
class RandomPruning:
    """Leave out a share of the samples at random, others in every epoch.

    (1 - ratio) n samples are kept, rounded up or down at random so that it is right on average, and
    each weighs 1 / (1 - ratio).

    Args:
        ratio: share that is left out, in [0, 1).

    Raises:
        TypeError, ValueError: a ratio out of range.

    Raises when called:
        ValueError: a ratio that leaves less than one sample.

    Cost: O(n).

    Example:
        >>> rule, none = RandomPruning(0.75), torch.full((8,), torch.nan)
        >>> kept = rule.keep(none, epoch=0, epochs=None, generator=np.random.default_rng(0))
        >>> len(kept), kept.weights.tolist()
        (2, [4.0, 4.0])
    """

    ratio: float

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        """Check the ratio."""
        plain_options(self)
        require_number("ratio", self.ratio, "[0, 1)", RATIO)

    def keep(
        self, losses: Tensor, *, epoch: int, epochs: int | None, generator: np.random.Generator
    ) -> Selection:
        """Return the samples of an epoch; see ``Pruning``."""
        n = len(losses)
        require_some(self.ratio, n)
        return weighed(thinned(np.arange(n), self.ratio, generator), 1 / (1 - self.ratio), n)


@dataclass(frozen=True)
class InfoBatch:
    """Leave out a share of the samples that are learnt: those whose loss is below the mean.

    Of the samples whose last loss is below the mean of all last losses a share 1 - ratio is kept,
    drawn anew in every epoch, at weight 1 / (1 - ratio); all others are kept at weight 1, those too
    that were never reported. The expected weighted gradient of an epoch is that of all samples,
    which ``weighting="unbiased"`` keeps. In the last epochs nothing is left out.

    Args:
        ratio: share of the low losses that is left out, in [0, 1).
        anneal: share of the epochs, the last ones, in which all are kept, in [0, 1]; above 0 the
            sampler must know ``epochs``.

    Raises:
        TypeError, ValueError: options out of range.

    Raises when called:
        ValueError: no planned epochs where anneal is above 0.

    Cost: O(n).

    Example:
        >>> losses = torch.tensor([0.1, 0.2, 4.0, 0.3, 0.2, torch.nan])
        >>> rule, generator = InfoBatch(0.5), np.random.default_rng(0)
        >>> kept = rule.keep(losses, epoch=1, epochs=8, generator=generator)
        >>> kept.indices.tolist(), kept.weights.tolist()
        ([1, 2, 4, 5], [2.0, 1.0, 2.0, 1.0])
        >>> len(rule.keep(losses, epoch=7, epochs=8, generator=generator))
        6

    Source: Qin et al., InfoBatch (ICLR 2024), section 2.3 and Eq. 4; its code rounds (1 - ratio) m
    down, which leaves the expectation a little short, and begins with losses of 3.
    """

    ratio: float = 0.5
    anneal: float = 0.125

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_number("ratio", self.ratio, "[0, 1)", RATIO)
        require_number("anneal", self.anneal, "[0, 1]", ANNEAL)

    def keep(
        self, losses: Tensor, *, epoch: int, epochs: int | None, generator: np.random.Generator
    ) -> Selection:
        """Return the samples of an epoch; see ``Pruning``."""
        values = losses.double().numpy()
        known = values[~np.isnan(values)]
        if annealed(self.anneal, epoch, epochs) or not len(known):
            return everything(len(values))
        # Of equal losses the mean may be rounded to more than any of them.
        low = np.flatnonzero(values < min(known.mean(), known.max()))
        others = np.setdiff1d(np.arange(len(values)), low)
        kept = thinned(low, self.ratio, generator)
        return weighed(kept, 1 / (1 - self.ratio), len(values), others)


def everything(n: int) -> Selection:
    """Return all n samples, each at weight 1."""
    return weighed(np.arange(n), 1.0, n)


def annealed(share: float, epoch: int, epochs: int | None) -> bool:
    """Return whether an epoch is one of the last, a share of those planned.

    Raises:
        ValueError: no epochs planned where the share is above 0.
    """
    if share == 0:
        return False
    if epochs is None:
        raise ValueError(
            f"epochs must be given where anneal is above 0, got anneal={share} and no epochs. Pass "
            "the number of epochs that you will train, or anneal=0."
        )
    return epoch + 1 > epochs * (1 - share) + 1e-9


def require_some(ratio: float, n: int) -> None:
    """Raise ValueError where less than one of n samples is kept on average."""
    if (1 - ratio) * n < 1 - 1e-9:  # of 10 samples 0.9 leave 1
        raise ValueError(
            f"ratio must leave at least 1 of {n} samples, got {ratio}. Leave out fewer."
        )


def thinned(samples: Indices, ratio: float, generator: np.random.Generator) -> Indices:
    """Return some of m samples, each with probability 1 - ratio; their number varies by 1."""
    count = int((1 - ratio) * len(samples) + 1e-9 + generator.random())
    return generator.choice(samples, min(count, len(samples)), replace=False, shuffle=False)


def weighed(some: Indices, weight: float, n: int, others: Indices | None = None) -> Selection:
    """Return samples at a weight, and others at weight 1, in the order of the data set."""
    weights = np.zeros(n, np.float32)
    weights[some] = weight
    if others is not None:
        weights[others] = 1
    kept = np.flatnonzero(weights)
    return Selection(torch.from_numpy(kept), torch.from_numpy(weights[kept]))
