"""Strength rules: what training reported about every sample in, its augmentation strength out.

A rule is any object with ``needs``, ``view`` and three pure functions; nothing is inherited. What
it remembers of every sample, a few columns of n rows, belongs to the sample table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.core.checks import plain_options, require_names, require_number, require_one_of
from augloader.feedback.learners import REPORTED, Columns, Learner, View


@runtime_checkable
class StrengthRule(Learner, Protocol):
    """What the sampler and its table ask of a rule; ``needs``, ``view`` and three pure functions.

    Attributes:
        needs: names of what every report must hold, among "losses", "logits", "labels" and
            "influences".
        view: "any": every report counts; "clean": only those of views with strength 0.
    """

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        """Return (n,) float32 strengths in [0, 1]."""


@dataclass(frozen=True)
class Constant:
    """The same strength for every sample.

    Args:
        value: in [0, 1].

    Raises:
        TypeError: not a number.
        ValueError: outside [0, 1].

    Memory: none.

    Example:
        >>> columns = {"visits": torch.zeros(3)}
        >>> Constant(0.5).strengths(columns, np.random.default_rng(0))
        tensor([0.5000, 0.5000, 0.5000])
    """

    value: float = 1.0

    needs: ClassVar[frozenset[str]] = frozenset()
    view: ClassVar[View] = "any"

    def __post_init__(self) -> None:
        """Check the value."""
        plain_options(self)
        require_number("value", self.value, "[0, 1]", "1 is the full augmentation.")

    def start(self, n: int, classes: int) -> Columns:
        """Return no columns."""
        return {}

    def update(self, rows: Columns, **_: Tensor | None) -> Columns:
        """Return no rows."""
        return {}

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        """Return the value n times, as a read-only view of one number. Cost: O(1)."""
        return torch.tensor(float(self.value), dtype=torch.float32, device="cpu").expand(
            len(columns["visits"])
        )


@dataclass(frozen=True)
class _LastReport:
    """What rules share whose strength depends on a sample's last report alone."""

    view: View = "any"

    def __post_init__(self) -> None:
        """Check the view."""
        require_one_of("view", self.view, ("any", "clean"))

    def start(self, n: int, classes: int) -> Columns:
        """Return the strengths of the last reports, 0."""
        return {"strength": torch.zeros(n, dtype=torch.float32, device="cpu")}

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        """Return (n,) float32 in [0, 1]; the generator draws n numbers. Cost: O(n)."""
        seen = columns["visits"] > 0
        return with_random(seen, columns["strength"][seen].numpy(), generator)


@dataclass(frozen=True)
class Entropy(_LastReport):
    """EntAugment: the surer the model is of its output, the stronger the augmentation.

        strength = 1 - H(p) / ln C,        H(p) = -sum_c p(c) ln p(c)

    with the softmax output p of a sample's last report. Samples without one get uniformly random
    strengths. Nothing says that the model is right.

    Args:
        view: "any", every report counts, or "clean", only those of views with strength 0.

    Raises:
        ValueError: an unknown view.

    Memory: 8 bytes a sample: the strength in float32, and visits.

    Example:
        >>> sure_and_unsure = torch.tensor([[50.0, 0.0], [1.0, 1.0]])
        >>> Entropy().update({}, logits=sure_and_unsure)["strength"]
        tensor([1., 0.])

    Source: EntAugment (Yang et al. 2024), which draws all strengths at random for ten epochs.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})

    def update(self, rows: Columns, *, logits: Tensor | None = None, **_: Tensor | None) -> Columns:
        """Return the strengths of b samples.

        Args:
            rows: not read.
            logits: (b, C) floating, C at least 2.

        Raises:
            ValueError: fewer than 2 classes.

        Cost: O(b C).
        """
        assert logits is not None
        log_p = log_probabilities(logits)
        entropy = -(log_p.exp() * log_p).sum(1)
        return {"strength": (1 - entropy / math.log(logits.shape[1])).clamp(0, 1).float()}


@dataclass(frozen=True)
class LossRank:
    """SapAugment: the easier a sample by the rank of its loss, the stronger its augmentation.

        strength = 1 - I_{s (1 - a), s a}(r)

    with I the regularised incomplete beta function and r in [0, 1] the rank of the sample's last
    loss among the m reported ones, over m - 1: 0 is the easiest, ties share their average, and r of
    a single sample is 1/2. Samples without a report get uniformly random strengths.

    Args:
        a: in (0, 1); the larger, the more samples are augmented weakly.
        s: in (0, 1000]; 2 with a = 1/2 is the straight line 1 - r, larger ones approach a step.
        view: "any", every report counts, or "clean", only those of views with strength 0: losses
            of different strengths are not comparable.

    Raises:
        TypeError: a or s not a number.
        ValueError: a or s out of range, an unknown view.

    Memory: 8 bytes a sample: the loss in float32, and visits.

    Example:
        >>> columns = {"loss": torch.tensor([0.1, 7.0, 0.5]), "visits": torch.ones(3)}
        >>> LossRank().strengths(columns, np.random.default_rng(0))
        tensor([1.0000, 0.0000, 0.5000])

    Source: SapAugment (Hu et al. 2021); it learns a and s, which here are given. The default is
    ours.
    """

    a: float = 0.5
    s: float = 2.0
    view: View = "any"

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_number("a", self.a, "(0, 1)", "0.5 treats easy and hard alike.")
        require_number("s", self.s, "(0, 1000]", "2 with a=0.5 is a straight line.")
        require_one_of("view", self.view, ("any", "clean"))

    def start(self, n: int, classes: int) -> Columns:
        """Return the last losses, 0."""
        return {"loss": torch.zeros(n, dtype=torch.float32, device="cpu")}

    def update(self, rows: Columns, *, losses: Tensor | None = None, **_: Tensor | None) -> Columns:
        """Return the losses of b samples: (b,) floating. The rest is not read."""
        assert losses is not None
        return {"loss": losses.float()}

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        """Return (n,) float32 in [0, 1]; the generator draws n numbers. Cost: O(n log n)."""
        from scipy.special import betainc  # a tenth of a second to import

        seen = columns["visits"] > 0
        rank = average_ranks(columns["loss"][seen].numpy())
        values = 1 - betainc(self.s * (1 - self.a), self.s * self.a, rank)
        return with_random(seen, values, generator)


@dataclass(frozen=True)
class Confidence(_LastReport):
    """Sample-aware RandAugment: the surer the model is of the label, the stronger.

        strength = cos(p, y)^(2 / ln C) = (p_y / ||p||_2)^(2 / ln C)

    with the softmax output p of a sample's last report and its label y. Samples without a report
    get uniformly random strengths.

    Args:
        view: "any", every report counts, or "clean", only those of views with strength 0.

    Raises:
        ValueError: an unknown view.

    Memory: 8 bytes a sample: the strength in float32, and visits.

    Example:
        >>> logits, labels = torch.tensor([[50.0, 0.0], [50.0, 0.0]]), torch.tensor([0, 1])
        >>> Confidence().update({}, logits=logits, labels=labels)["strength"].round(decimals=3)
        tensor([1., 0.])

    Source: Sample-aware RandAugment.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})

    def update(
        self,
        rows: Columns,
        *,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Tensor | None,
    ) -> Columns:
        """Return the strengths of b samples.

        Args:
            rows: not read.
            logits: (b, C) floating, C at least 2.
            labels: (b,) integer, in [0, C).

        Raises:
            ValueError: fewer than 2 classes.

        Cost: O(b C).
        """
        assert logits is not None
        assert labels is not None
        log_p = log_probabilities(logits)
        log_cosine = log_p.gather(1, labels.long()[:, None])[:, 0] - (2 * log_p).logsumexp(1) / 2
        power = 2 / math.log(logits.shape[1])
        return {"strength": (power * log_cosine).exp().clamp(0, 1).float()}


def average_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rank of every value over m - 1: 0 the smallest, 1 the largest, ties in between.

    scipy.stats.rankdata does the same, but takes a second to import.

    Args:
        values: (m,) numbers. Equal ones share their average rank; a single one has rank 1/2.

    Returns:
        (m,) float64 in [0, 1].

    Cost: O(m log m).

    Example:
        >>> average_ranks(np.array([3.0, 1.0, 1.0]))
        array([1.  , 0.25, 0.25])
    """
    if len(values) == 1:
        return np.array([0.5])
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts + 1) / 2
    return np.asarray(ranks[where] / (len(values) - 1))


def require_rule(name: str, rule: Any) -> StrengthRule:
    """Return ``rule`` if it is one, or raise TypeError or ValueError."""
    if isinstance(rule, type) or not isinstance(rule, StrengthRule):
        raise TypeError(
            f"{name} must be an object with needs, view, start, update and strengths, got "
            f"{rule!r}. Pass an instance, as Constant(0.5)."
        )
    if type(rule).__repr__ is object.__repr__:
        raise TypeError(
            f"{name} must have a repr that names its options, got {rule!r}. "
            "Make it a frozen dataclass: saved states are compared by it."
        )
    require_names(f"{name}.needs", rule.needs, REPORTED, "Name what training reports.")
    require_one_of(f"{name}.view", rule.view, ("any", "clean"))
    return rule


def with_random(
    known: Tensor, values: NDArray[np.floating[Any]], generator: np.random.Generator
) -> Tensor:
    """Return n random strengths with those of the known samples put in."""
    strengths = generator.random(len(known), dtype=np.float32)  # n, however many are known
    strengths[known.numpy()] = values
    return torch.from_numpy(strengths)


def log_probabilities(logits: Tensor) -> Tensor:
    """Return float64 log-probabilities, or raise ValueError for fewer than 2 classes."""
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have 2 classes or more, got {logits.shape[1]}. A model with one output "
            "has no softmax: report the logits (0, z), or use a rule of the losses."
        )
    return logits.double().log_softmax(1)
