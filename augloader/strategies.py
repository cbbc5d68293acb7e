"""Strategies: evidence and a budget in, a selection out.

A strategy is any object with ``needs`` and a pure ``select``; nothing is inherited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from augloader.checks import require_int, require_one_of
from augloader.medoids import greedy_medoids
from augloader.types import Evidence, Selection

EVIDENCE = ("labels", "proxies", "losses")  # what ``needs`` may name
Allocation = Literal["proportional", "equal"]


@runtime_checkable
class Strategy(Protocol):
    """What the sampler asks of a strategy.

    Attributes:
        needs: names of the evidence it looks at, among "labels", "proxies" and "losses".
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at."""

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return at most ``budget`` samples whose weights sum to ``evidence.n``."""


@dataclass(frozen=True)
class FacilityLocation:
    """The coreset of Liu & Mirzasoleiman: medoids in gradient space, weighted by cluster size.

    For every class c, greedily minimise sum_{i in c} min_{j in S} ||g_i - g_j||; the weight of j
    is the number of samples it is the nearest medoid of.

    Args:
        per_class: select within each class; False takes all samples as one group.
        allocation: how the budget is shared among classes: "proportional" to their sizes by
            largest remainder, or "equal", the shortfall of small classes going to the others.
            Every class gets at least one medoid.
        xi: stop a class early, once ||G_S||_F <= xi (Eq. 9), in units of proxy distance.
        memory_limit: bytes that one group's distances, 4 n^2, may take. The default, 4 GiB, holds
            32,768 samples.

    Raises:
        ValueError: unknown allocation, xi below 0 or not a number, memory limit below 1.

    Example:
        >>> from augloader.proxies import Proxies
        >>> g = torch.tensor([[0.0], [1.0], [2.0], [9.0], [9.5], [9.5]])
        >>> evidence = Evidence(6, torch.tensor([0, 0, 0, 1, 1, 1]), Proxies(g))
        >>> s = FacilityLocation().select(evidence, 2, generator=np.random.default_rng(0))
        >>> s.indices.tolist(), s.weights.tolist()
        ([1, 4], [3.0, 3.0])

    Source: Liu & Mirzasoleiman (2022), Alg. 1, Eq. 8-9.
    """

    per_class: bool = True
    allocation: Allocation = "proportional"
    xi: float | None = None
    memory_limit: int = 4 * 2**30

    def __post_init__(self) -> None:
        """Check the options."""
        require_one_of("allocation", self.allocation, ("proportional", "equal"))
        require_int("memory_limit", self.memory_limit, 1, "Give the limit in bytes.")
        if self.xi is not None and not self.xi >= 0:
            raise ValueError(
                f"xi must be 0 or more, got {self.xi}. It is a distance between proxies."
            )

    @property
    def needs(self) -> frozenset[str]:
        """Proxies, and labels when it selects per class."""
        return frozenset({"proxies", "labels"} if self.per_class else {"proxies"})

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return the medoids, class by class in greedy order, with their cluster sizes.

        Args:
            evidence: with proxies, and with labels when selecting per class.
            budget: number of medoids over all classes, at least one a class, at most n.
            generator: not used; the greedy is deterministic.

        Returns:
            Selection of ``budget`` samples, fewer where ``xi`` stops early; weights sum to n.

        Raises:
            ValueError: evidence missing, budget out of range, a class with one sample, a class
                whose distances exceed the memory limit.

        Cost: O(sum_c n_c^2 (C + d)) time; memory 4 max_c n_c^2 bytes: one class at a time.
        """
        _require(evidence, self.needs, budget)
        assert evidence.proxies is not None
        groups = self._groups(evidence)
        sizes = [len(group) for group in groups]
        largest = max(sizes)
        if 4 * largest**2 > self.memory_limit:
            raise ValueError(
                f"memory_limit must hold the distances of the largest group ({largest:,} samples, "
                f"{4 * largest**2:,} bytes), got {self.memory_limit:,} bytes. Raise the limit, or "
                "split the samples into more labels."
            )
        indices, weights = [], []
        for group, share in zip(groups, allocate(sizes, budget, self.allocation), strict=True):
            medoids = greedy_medoids(evidence.proxies[group].distances(), share, xi=self.xi)
            indices.append(group[medoids.indices])
            weights.append(medoids.sizes.float())
        return Selection(torch.cat(indices), torch.cat(weights))

    def _groups(self, evidence: Evidence) -> list[Tensor]:
        if not self.per_class:
            return [torch.arange(evidence.n)]
        assert evidence.labels is not None
        labels = evidence.labels.cpu()
        classes, sizes = labels.unique(return_counts=True)
        if (sizes == 1).any():
            lone = int(classes[sizes == 1][0])
            raise ValueError(
                f"labels must give every class at least 2 samples, got 1 in class {lone} (index "
                f"{int((labels == lone).nonzero())}). Leave that sample out or merge its class, "
                "or select over all samples with FacilityLocation(per_class=False)."
            )
        return list(labels.argsort(stable=True).split(sizes.tolist()))


@dataclass(frozen=True)
class MaxLoss:
    """The samples with the largest losses over the whole data set; the paper's first baseline.

    Every chosen sample weighs n / k. Ties go to the lowest index.

    Example:
        >>> evidence = Evidence(4, losses=torch.tensor([0.1, 3.0, 0.2, 2.0]))
        >>> s = MaxLoss().select(evidence, 2, generator=np.random.default_rng(0))
        >>> s.indices.tolist(), s.weights.tolist()
        ([1, 3], [2.0, 2.0])

    Source: Kuchnik & Smith (2019), re-selected as in Liu & Mirzasoleiman (2022), section 6.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return the ``budget`` largest losses, largest first.

        Args:
            evidence: with losses.
            budget: 1 to n.
            generator: not used.

        Raises:
            ValueError: no losses, budget out of range.

        Cost: O(n log n).
        """
        _require(evidence, self.needs, budget)
        assert evidence.losses is not None
        order = evidence.losses.cpu().argsort(descending=True, stable=True)
        return _alike(order[:budget], evidence.n)


@dataclass(frozen=True)
class Uniform:
    """A uniformly random subset without replacement; the baseline that is often as good.

    Every chosen sample weighs n / k.

    Example:
        >>> s = Uniform().select(Evidence(9), 3, generator=np.random.default_rng(0))
        >>> len(s), s.weights.tolist()
        (3, [3.0, 3.0, 3.0])

    Source: Liu & Mirzasoleiman (2022), section 6.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return ``budget`` of the n samples.

        Args:
            evidence: only ``n`` is read.
            budget: 1 to n.
            generator: the source of randomness.

        Raises:
            ValueError: budget out of range.

        Cost: O(n).
        """
        _require(evidence, self.needs, budget)
        chosen = generator.choice(evidence.n, budget, replace=False)
        return _alike(torch.from_numpy(chosen), evidence.n)


def allocate(sizes: list[int], budget: int, allocation: Allocation) -> list[int]:
    """Share a budget among groups, at least 1 and at most its size to each.

    Args:
        sizes: number of samples of each group, 1 or more.
        budget: between the number of groups and the sum of sizes.
        allocation: "proportional" aims at budget * size / n, "equal" at the same number for all;
            what a group cannot take or must be given is balanced by the others. Shares are rounded
            by largest remainder, ties to the first group.

    Returns:
        One share a group; they sum to ``budget``.

    Raises:
        ValueError: budget below the number of groups or above the sum of sizes.

    Cost: O(groups^2) at worst.

    Example:
        >>> allocate([50, 30, 2], 10, "proportional"), allocate([50, 30, 2], 10, "equal")
        ([6, 3, 1], [4, 4, 2])
    """
    room = np.array(sizes)
    if not len(sizes) <= budget <= room.sum():
        raise ValueError(
            f"budget must be between {len(sizes)}, one a class, and {room.sum()}, all samples, "
            f"got {budget}. Change it, or select over all samples with "
            "FacilityLocation(per_class=False)."
        )
    pull = room.astype(float) if allocation == "proportional" else np.ones(len(room))
    share = np.zeros(len(room))
    free = np.ones(len(room), bool)  # not yet held at a bound
    while True:
        share[free] = (budget - share[~free].sum()) * pull[free] / pull[free].sum()
        held = free & ((share < 1) | (share > room))
        if not held.any():
            break
        share[held] = share[held].clip(1, room[held])
        free &= ~held
    whole = np.floor(share + 1e-9).astype(int)
    rest = np.argsort(whole - share, kind="stable")[: budget - whole.sum()]
    whole[rest] += 1
    return [int(part) for part in whole]


def _require(evidence: Evidence, needs: frozenset[str], budget: int) -> None:
    for name in sorted(needs):
        if getattr(evidence, name) is None:
            raise ValueError(
                f"evidence.{name} must be given for this strategy, got None. Take the evidence "
                "from augloader.sweep, or report it in every step."
            )
    require_int("budget", budget, 1, "Choose at least one sample.")
    if budget > evidence.n:
        raise ValueError(
            f"budget must be at most the number of samples, {evidence.n}, got {budget}. "
            "Ask for fewer samples."
        )


def _alike(indices: Tensor, n: int) -> Selection:
    return Selection(indices, torch.full((len(indices),), n / len(indices)))
