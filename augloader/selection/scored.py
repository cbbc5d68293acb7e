"""Strategies that choose by a score: uniform, in proportion to it, by its rank.

Kuchnik & Smith (2019) call them policies, a word that here means those of augmentation.
Their order of all samples is complete, and ``select`` takes the first of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    plain_options,
    require_bool,
    require_labels,
    require_number,
    require_one_of,
)
from augloader.core.evidence import Evidence, Selection
from augloader.selection.budget import Allocation, interleave
from augloader.selection.clusters import Clusters
from augloader.selection.scores import Score, require_score
from augloader.selection.strategy import Ordered, require_evidence

Values = NDArray[np.float64]
Groups = Literal["labels"] | Clusters | Tensor | None


class Members(NamedTuple):
    """The samples of one group, and what orders them.

    Attributes:
        indices: (m,) their numbers in the data set, ascending; None: it is all of it.
        scores: (m,) of them, 1 where there is no score.
        features: (m, d) of them, or None.
    """

    indices: NDArray[np.int64] | None
    scores: Values
    features: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)  # groups may be a tensor, which has no single ==
class OrderedStrategy(ABC):
    """What these strategies share: groups, the order of all samples, and its first as selection."""

    groups: Groups = None
    allocation: Allocation = "proportional"

    nested: ClassVar[bool] = True  # whether the order does not depend on the budget

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        if isinstance(self.groups, list | tuple | np.ndarray):
            groups = as_tensor("groups", self.groups, "Give one group a sample.")
            object.__setattr__(self, "groups", groups)
        groups = self.groups
        labels = isinstance(groups, str) and groups == "labels"
        if not (groups is None or labels or isinstance(groups, Clusters | Tensor)):
            raise TypeError(
                f'groups must be None, "labels", Clusters(...) or an (n,) tensor, got {groups!r}. '
                'Give "labels" to choose in each class.'
            )
        require_one_of("allocation", self.allocation, ("proportional", "equal"))
        if self._score is not None:
            require_score("score", self._score)

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at: the score's, and the groups'."""
        own = frozenset[str]() if self._score is None else self._score.needs
        if isinstance(self.groups, Clusters):
            return own | {"features"}
        return own | {"labels"} if isinstance(self.groups, str) else own

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return the first ``budget`` samples of the order; each weighs n / budget.

        Args:
            evidence: with what the score and the groups need.
            budget: 1 to n.
            generator: the source of randomness.

        Raises:
            ValueError: evidence missing, budget out of range, scores that are NaN or all zero, or
                below 0 where they are proportions.

        Cost: the score's, and O(n + k log k); with groups O(n log n).
        """
        budget = require_evidence(evidence, self.needs, budget, generator)
        chosen = self._first(evidence, budget, generator)
        whole = Ordered(chosen, evidence.n).first(budget)
        return whole if self.nested else Selection(whole.indices, whole.weights)

    def order(self, evidence: Evidence, *, generator: np.random.Generator) -> Tensor:
        """Return all samples, (n,) int64, in the order in which they are chosen.

        Args, errors and cost are those of ``select``, with k = n.
        """
        require_evidence(evidence, self.needs, 1, generator)
        return self._first(evidence, None, generator)

    @property
    def _score(self) -> Score | None:
        return None

    @abstractmethod
    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        """Return m keys: the larger, the earlier a sample comes; k of them will be chosen."""

    def _first(
        self, evidence: Evidence, budget: int | None, generator: np.random.Generator
    ) -> Tensor:
        """Return the first samples in order, all for a budget of None."""
        n = evidence.n
        scores = np.ones(n) if self._score is None else self._checked(self._score(evidence), n)
        features = evidence.features
        if self.groups is None:
            everyone = Members(None, scores, features)
            keys = self._keys(everyone, budget, generator)
            return torch.from_numpy(_largest(keys, n if budget is None else budget))
        groups = self._groups(evidence, generator)
        members = _members(groups)
        turns = interleave([len(rows) for rows in members], self.allocation)
        order = np.empty(n, np.int64)
        for rows, places in zip(members, _members(turns), strict=True):
            here = torch.from_numpy(rows)
            some = None if features is None else features[here.to(features.device)]
            k = None if budget is None else int((places < budget).sum())
            keys = self._keys(Members(rows, scores[rows], some), k, generator)
            order[places] = rows[_largest(keys, len(rows))]
        return torch.from_numpy(order[:budget])

    def _checked(self, scores: Any, n: int) -> Values:
        """Return the scores in float64, or raise where they cannot order anything."""
        advice = f"Fix {self._score!r}."
        scores = as_tensor("scores", scores, advice).cpu()
        if scores.shape != (n,) or scores.is_complex():
            got = f"{tuple(scores.shape)} {scores.dtype}"
            raise ValueError(f"scores must be an ({n},) tensor, got {got}. {advice}")
        scores = scores.double()
        bad = ~scores.isfinite()
        if bad.any():
            raise ValueError(
                f"scores must be finite, got {count_and_first(bad, 'others')} from "
                f"{self._score!r}. Check the model: has training diverged?"
            )
        if not scores.any():
            raise ValueError(
                f"scores must not all be zero, got {n} zeros from {self._score!r}. Take another "
                "score, or Uniform()."
            )
        return np.asarray(scores.numpy())

    def _groups(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return each sample's group, numbered without gaps."""
        groups = self.groups
        if isinstance(groups, Clusters):
            found = groups.of(evidence, generator)
        elif isinstance(groups, Tensor):
            found = require_labels("groups", groups, evidence.n)
        else:
            found = evidence.require("labels")
        return np.unique(found.cpu().numpy(), return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class _ByScore(OrderedStrategy):
    """A strategy of a score, or of its inverse."""

    score: Score
    inverse: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        require_bool("inverse", self.inverse, "True prefers small scores.")

    @property
    def _score(self) -> Score:
        return self.score


@dataclass(frozen=True, eq=False)
class Uniform(OrderedStrategy):
    """Samples uniformly at random without replacement; the baseline that is often as good.

    Args:
        groups: None, "labels", ``Clusters(count)`` or (n,) integers: the groups that are chosen
            from in turn.
        allocation: how groups share the budget: "proportional" to their sizes (each has one before
            another has two), or "equal", round-robin.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: O(n).

    Example:
        >>> s = Uniform().select(Evidence(9), 3, generator=np.random.default_rng(0))
        >>> len(s), s.weights.tolist()
        (3, [3.0, 3.0, 3.0])

    Source: Kuchnik & Smith (2019), Table 2, baseline, and App. G, baseline clustered.
    """

    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        return generator.random(len(members.scores))


@dataclass(frozen=True, eq=False)
class Proportional(_ByScore):
    """Samples at random without replacement, each drawn in proportion to its score.

    P(next = i) = s_i / sum of s_j over those left, by Gumbel top-k: the largest log s_i + G_i.
    A score of 0 counts as the smallest number above 0: such samples come last, in random order.

    Args:
        score: ``Loss()``, ``Influence()``, ... ; 0 or more.
        inverse: in proportion to 1 / s_i; samples with a score of 0 come first.
        groups: see ``Uniform``; ``Clusters`` with allocation "equal" is the paper's round-robin.
        allocation: see ``Uniform``.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's and O(n).

    Example:
        >>> evidence = Evidence(4, losses=torch.tensor([0.0, 5.0, 0.1, 5.0]))
        >>> from augloader import Loss
        >>> strategy = Proportional(Loss())
        >>> strategy.select(evidence, 2, generator=np.random.default_rng(0)).indices
        tensor([3, 1])

    Source: Kuchnik & Smith (2019), section 4 and Table 2; Yellott (1977), Efraimidis & Spirakis
    (2006) for the draw.
    """

    def _checked(self, scores: Any, n: int) -> Values:
        return positive(super()._checked(scores, n), self)

    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        logs = np.log(members.scores)
        return generator.gumbel(size=len(logs)) + (-logs if self.inverse else logs)


@dataclass(frozen=True, eq=False)
class Softmax(_ByScore):
    """Samples at random without replacement, each drawn in proportion to exp(s_i / temperature).

    Scores may be negative; adding a constant changes nothing.

    Args:
        score: ``Loss()``, ``Influence()``, ...
        inverse: in proportion to exp(-s_i / temperature).
        temperature: above 0, in units of the score; the smaller, the nearer to ``Rank``.
        groups, allocation: see ``Uniform``.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's and O(n).

    Example:
        >>> from augloader import Loss
        >>> evidence = Evidence(3, losses=torch.tensor([0.0, 9.0, 0.1]))
        >>> Softmax(Loss(), temperature=0.5).order(evidence, generator=np.random.default_rng(0))[0]
        tensor(1)

    Source: Gumbel top-k of Kool, van Hoof & Welling (2019).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        require_number("temperature", self.temperature, "(0, inf)", "Its unit is s.")
        super().__post_init__()

    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        sign = -1 if self.inverse else 1
        with np.errstate(over="ignore"):
            scaled = sign * members.scores / self.temperature
        if not np.isfinite(scaled).all():
            raise ValueError(
                f"temperature must be in units of the score, got {self.temperature} of scores to "
                f"{np.abs(members.scores).max():.3g}. Raise it, or take Rank."
            )
        return scaled + generator.gumbel(size=len(scaled))


@dataclass(frozen=True, eq=False)
class Rank(_ByScore):
    """The samples with the largest scores, without randomness; ties by index.

    ``Rank(Loss())`` is the coreset paper's max-loss baseline.

    Args:
        score: ``Loss()``, ``Influence()``, ...
        inverse: those with the smallest scores.
        groups, allocation: see ``Uniform``.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's and O(n + k log k).

    Example:
        >>> from augloader import Loss
        >>> evidence = Evidence(4, losses=torch.tensor([0.1, 3.0, 0.2, 2.0]))
        >>> s = Rank(Loss()).select(evidence, 3, generator=np.random.default_rng(0))
        >>> s.indices.tolist(), s.first(2).indices.tolist(), s.first(2).weights.tolist()
        ([1, 3, 2], [1, 3], [2.0, 2.0])

    Source: Kuchnik & Smith (2019), Table 2, deterministic; Liu & Mirzasoleiman (2022), section 6.
    """

    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        return -members.scores if self.inverse else members.scores


def positive(scores: Values, strategy: OrderedStrategy) -> Values:
    """Return scores with the smallest number in place of 0, or raise for negative ones."""
    if (scores < 0).any():
        bad = count_and_first(torch.from_numpy(scores < 0), "negative ones")
        raise ValueError(
            f"scores must be 0 or more to be proportions, got {bad} in {type(strategy).__name__}. "
            "Take Softmax or Rank."
        )
    return np.where(scores > 0, scores, np.finfo(np.float64).tiny)


def _largest(keys: Values, k: int) -> NDArray[np.int64]:
    """Return where the k largest are, in order, ties by index. Cost: O(n + k log k)."""
    if k < len(keys):
        bound = np.partition(keys, len(keys) - k)[len(keys) - k]
        above = (keys > bound).nonzero()[0]
        ties = (keys == bound).nonzero()[0][: k - len(above)]
        chosen = np.sort(np.concatenate([above, ties]))
    else:
        chosen = np.arange(len(keys))
    return np.asarray(chosen[np.argsort(-keys[chosen], kind="stable")])


def _members(groups: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return where each group is, ascending."""
    return np.split(groups.argsort(kind="stable"), np.bincount(groups).cumsum()[:-1])
