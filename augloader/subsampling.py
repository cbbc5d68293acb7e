"""Policies: a score decides which samples are augmented; at random, in proportion, by rank, apart.

Each is a strategy. Its order of all samples is complete, and ``select`` takes the first of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.checks import (
    count_and_first,
    require_budget,
    require_int,
    require_labels,
    require_number,
    require_one_of,
)
from augloader.coreset import Allocation
from augloader.kdpp import gaussian_kernel, linear_kernel, sample
from augloader.neighbors import kmeans
from augloader.scores import Score
from augloader.strategies import require_evidence, require_needs
from augloader.svm import GRID, check_C, margins
from augloader.types import Evidence, Selection

Kernel = Literal["linear", "gaussian"]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """Group samples by k-means of their features.

    Args:
        count: number of clusters, 1 to n; the paper takes as many as samples are selected.

    Raises:
        TypeError, ValueError: a count that is no integer, or below 1.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> found = Clusters(2).of(Evidence(4, features=x), np.random.default_rng(0))
        >>> found[0] == found[1] != found[2] == found[3]
        tensor(True)

    Source: Kuchnik & Smith (2019), App. G.
    """

    count: int

    def __post_init__(self) -> None:
        """Check the count."""
        require_int("count", self.count, 1, "The paper takes as many as samples are selected.")

    def of(self, evidence: Evidence, generator: np.random.Generator) -> Tensor:
        """Return each sample's cluster, (n,) int64.

        Raises:
            ValueError: no features in the evidence, fewer samples than clusters.

        Cost: that of ``augloader.neighbors.kmeans``.
        """
        return kmeans(evidence.require("features"), self.count, int(generator.integers(2**31)))


Groups = Literal["labels"] | Clusters | Tensor | None


@dataclass(frozen=True, eq=False)
class _Ordered:
    """A selection whose first samples are the selections of smaller budgets."""

    indices: Tensor
    n: int

    def first(self, budget: int) -> Selection:
        require_budget(budget, len(self.indices))
        weights = torch.full((budget,), self.n / budget, dtype=torch.float32)
        return Selection(self.indices[:budget], weights, nested=self)


@dataclass(frozen=True, kw_only=True, eq=False)  # groups may be a tensor, which has no single ==
class _Policy(ABC):
    """What the policies share: groups, the order of all samples, and its first as selection."""

    groups: Groups = None
    allocation: Allocation = "proportional"

    nested: ClassVar[bool] = True  # whether the order does not depend on the budget

    def __post_init__(self) -> None:
        """Check the options."""
        groups = self.groups
        labels = isinstance(groups, str) and groups == "labels"
        if not (groups is None or labels or isinstance(groups, Clusters | Tensor)):
            raise TypeError(
                f'groups must be None, "labels", Clusters(...) or an (n,) tensor, got {groups!r}. '
                'Give "labels" to choose in each class.'
            )
        require_one_of("allocation", self.allocation, ("proportional", "equal"))
        score = self._score
        if score is not None and (isinstance(score, type) or not isinstance(score, Score)):
            raise TypeError(
                f"score must be a callable with needs, got {score!r}. Pass an instance, as Loss()."
            )
        require_needs("score.needs", self.needs)

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
        require_evidence(evidence, self.needs, budget)
        chosen = self._first(evidence, budget, generator)
        whole = _Ordered(chosen, evidence.n).first(budget)
        return whole if self.nested else Selection(whole.indices, whole.weights)

    def order(self, evidence: Evidence, *, generator: np.random.Generator) -> Tensor:
        """Return all samples, (n,) int64, in the order in which they are chosen.

        Args, errors and cost are those of ``select``, with k = n.
        """
        require_evidence(evidence, self.needs, evidence.n)
        return self._first(evidence, None, generator)

    @property
    def _score(self) -> Score | None:
        return None

    @abstractmethod
    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        """Return m keys: the larger, the earlier a sample comes; k of them will be chosen."""

    def _first(
        self, evidence: Evidence, budget: int | None, generator: np.random.Generator
    ) -> Tensor:
        """Return the first samples in order, all for a budget of None."""
        n = evidence.n
        scores = np.ones(n) if self._score is None else self._checked(self._score(evidence), n)
        features = evidence.features
        if self.groups is None:
            keys = self._keys(scores, features, budget, generator)
            return torch.from_numpy(_largest(keys, n if budget is None else budget))
        groups = self._groups(evidence, generator)
        members = _members(groups)
        turns = _interleave([len(rows) for rows in members], self.allocation)
        order = np.empty(n, np.int64)
        for rows, places in zip(members, _members(turns), strict=True):
            some = None if features is None else features[torch.from_numpy(rows)]
            k = None if budget is None else int((places < budget).sum())
            keys = self._keys(scores[rows], some, k, generator)
            order[places] = rows[_largest(keys, len(rows))]
        return torch.from_numpy(order[:budget])

    def _checked(self, scores: Any, n: int) -> Values:
        """Return the scores in float64, or raise where they cannot order anything."""
        if not isinstance(scores, Tensor) or scores.shape != (n,):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"scores must be an ({n},) tensor, got {got}. Mend {self._score!r}.")
        scores = scores.detach().cpu().double()
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
            require_labels("groups", groups, evidence.n)
            found = groups
        else:
            found = evidence.require("labels")
        return np.unique(found.cpu().numpy(), return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class _Scored(_Policy):
    """A policy of a score, or of its inverse."""

    score: Score
    inverse: bool = False

    @property
    def _score(self) -> Score:
        return self.score


@dataclass(frozen=True, eq=False)
class Uniform(_Policy):
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

    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        return generator.random(len(scores))


@dataclass(frozen=True, eq=False)
class Proportional(_Scored):
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
        >>> from augloader.scores import Loss
        >>> strategy = Proportional(Loss())
        >>> strategy.select(evidence, 2, generator=np.random.default_rng(0)).indices
        tensor([3, 1])

    Source: Kuchnik & Smith (2019), section 4 and Table 2; Yellott (1977), Efraimidis & Spirakis
    (2006) for the draw.
    """

    def _checked(self, scores: Any, n: int) -> Values:
        return _positive(super()._checked(scores, n), self)

    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        logs = np.log(scores)
        return generator.gumbel(size=len(scores)) + (-logs if self.inverse else logs)


@dataclass(frozen=True, eq=False)
class Softmax(_Scored):
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
        >>> from augloader.scores import Loss
        >>> evidence = Evidence(3, losses=torch.tensor([0.0, 9.0, 0.1]))
        >>> Softmax(Loss(), temperature=0.5).order(evidence, generator=np.random.default_rng(0))[0]
        tensor(1)

    Source: Gumbel top-k of Kool, van Hoof & Welling (2019).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        require_number("temperature", self.temperature, "(", 0, math.inf, ")", "Its unit is s.")
        super().__post_init__()

    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        sign = -1 if self.inverse else 1
        return sign * scores / self.temperature + generator.gumbel(size=len(scores))


@dataclass(frozen=True, eq=False)
class Rank(_Scored):
    """The samples with the largest scores, the paper's deterministic policies; ties by index.

    ``Rank(Loss())`` is the coreset paper's max-loss baseline.

    Args:
        score: ``Loss()``, ``Influence()``, ...
        inverse: those with the smallest scores.
        groups, allocation: see ``Uniform``.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's and O(n + k log k).

    Example:
        >>> from augloader.scores import Loss
        >>> evidence = Evidence(4, losses=torch.tensor([0.1, 3.0, 0.2, 2.0]))
        >>> s = Rank(Loss()).select(evidence, 3, generator=np.random.default_rng(0))
        >>> s.indices.tolist(), s.first(2).indices.tolist(), s.first(2).weights.tolist()
        ([1, 3, 2], [1, 3], [2.0, 2.0])

    Source: Kuchnik & Smith (2019), Table 2, deterministic; Liu & Mirzasoleiman (2022), section 6.
    """

    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        return -scores if self.inverse else scores


@dataclass(frozen=True, eq=False)
class KDPP(_Policy):
    """A random subset of k samples that are good and unlike each other.

    P(S) is proportional to det(L_S) among the subsets of k, L_ij = q_i K(x_i, x_j) q_j, with the
    score as quality q and the kernel K of the features:

        "linear"     x_i . x_j / (||x_i|| ||x_j||), the paper's; k is at most its rank, at most d;
        "gaussian"   exp(-||x_i - x_j||^2 / (2 s^2)); for n > width by random Fourier features.

    A k-DPP is drawn for its k: the selection has no smaller one in it, and of ``order`` only as
    many samples as the kernel's rank are a k-DPP; the others follow, drawn in proportion to q.

    Args:
        score: quality, 0 or more, of which anything below 1e-5 of the largest counts as that;
            None takes 1 for all.
        kernel: "linear" or "gaussian".
        width: the gaussian kernel's largest rank, even, at least 2.
        bandwidth: s of the gaussian kernel; None takes the median distance of random pairs.
        groups, allocation: see ``Uniform``; a k-DPP in each group.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's, and with r the rank O(n r (r + k) + r^3 + k^3 log k); n r numbers.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> KDPP().select(Evidence(3, features=x), 2, generator=np.random.default_rng(0)).indices[0]
        tensor(2)

    Source: Kuchnik & Smith (2019), App. H; Kulesza & Taskar (2012).
    """

    score: Score | None = None
    kernel: Kernel = "linear"
    width: int = 2048
    bandwidth: float | None = None

    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        require_one_of("kernel", self.kernel, get_args(Kernel))
        if require_int("width", self.width, 2, "2048 allows 1,000 samples.") % 2:
            raise ValueError(f"width must be even, got {self.width}. Half of it are cosines.")
        if self.bandwidth is not None:
            require_number("bandwidth", self.bandwidth, "(", 0, math.inf, ")", "It is a distance.")
        super().__post_init__()

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at: features, the score's, and the groups'."""
        return super().needs | {"features"}

    @property
    def _score(self) -> Score | None:
        return self.score

    def _checked(self, scores: Any, n: int) -> Values:
        return _positive(super()._checked(scores, n), self)

    def _keys(
        self, scores: Values, features: Tensor | None, k: int | None, generator: np.random.Generator
    ) -> Values:
        assert features is not None
        keys = np.log(scores) + generator.gumbel(size=len(scores))
        if k != 0:
            if self.kernel == "linear":
                b = linear_kernel(scores, features)
            else:
                b = gaussian_kernel(scores, features, self.width, self.bandwidth, generator)
            chosen = sample(b, k, generator)
            keys[chosen] = keys.max() + np.arange(len(chosen), 0, -1)
        return keys


@dataclass(frozen=True)
class SupportVectors:
    """The support vectors of a linear SVM: the samples with a margin below 1, the smallest first.

    At most ``budget`` of them, and no others: where there are fewer the selection is smaller.

    Args:
        C: of the SVM, above 0; of several the best in cross-validation.

    Raises:
        TypeError, ValueError: C not above 0.

    Cost: that of the fits.

    Example:
        >>> x, y = torch.tensor([[-2.0], [-0.1], [0.1], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> evidence = Evidence(4, y, features=x)
        >>> s = SupportVectors(C=100.0).select(evidence, 4, generator=np.random.default_rng(0))
        >>> s.indices.sort().values, s.weights
        (tensor([1, 2]), tensor([2., 2.]))

    Source: Decoste & Schoelkopf (2002); Kuchnik & Smith (2019), section 5.1.
    """

    C: float | Sequence[float] = GRID

    needs: ClassVar[frozenset[str]] = frozenset({"features", "labels"})

    def __post_init__(self) -> None:
        """Check C."""
        check_C(self.C)

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return at most ``budget`` support vectors; each weighs n over their number.

        Args:
            evidence: with features and labels.
            budget: 1 to n.
            generator: not used.

        Raises:
            ValueError: evidence missing, budget out of range, one class only.
        """
        require_evidence(evidence, self.needs, budget)
        values = self._margins(evidence)
        count = min(budget, max(1, int((values < 1).sum())))
        return _Ordered(values.argsort(stable=True)[:count], evidence.n).first(count)

    def order(self, evidence: Evidence, *, generator: np.random.Generator) -> Tensor:
        """Return all samples by their margin, the smallest first: the support vectors lead."""
        require_evidence(evidence, self.needs, evidence.n)
        return self._margins(evidence).argsort(stable=True)

    def _margins(self, evidence: Evidence) -> Tensor:
        return margins(evidence.require("features"), evidence.require("labels"), self.C)


def _positive(scores: Values, policy: _Policy) -> Values:
    """Return scores with the smallest number in place of 0, or raise for negative ones."""
    if (scores < 0).any():
        bad = count_and_first(torch.from_numpy(scores < 0), "negative ones")
        raise ValueError(
            f"scores must be 0 or more to be proportions, got {bad} in {type(policy).__name__}. "
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


def _interleave(sizes: Sequence[int], allocation: Allocation) -> NDArray[np.int64]:
    """Return which group is chosen from at each of n places.

    "equal" takes turns; "proportional" too once, and then whoever (r + 1/2) / size is smallest for,
    r the number it has had (Webster's rule, whose shares never fall as the budget grows). Larger
    groups come first.
    """
    group = np.repeat(np.arange(len(sizes)), sizes)
    size = np.array(sizes)[group]
    rank = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = rank if allocation == "equal" else np.where(rank == 0, 0, (rank + 0.5) / size)
    return np.asarray(group[np.lexsort((group, -size, turn))])
