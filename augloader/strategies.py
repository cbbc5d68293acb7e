"""Strategies: evidence and a budget in, a selection out.

A strategy is any object with ``needs`` and a pure ``select``; nothing is inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from augloader.checks import require_fraction, require_int, require_one_of
from augloader.coreset import Allocation, Coreset, allocate
from augloader.engines import Engine, Task, check_options, facility_locations
from augloader.medoids import Medoids
from augloader.proxies import Proxies
from augloader.types import EVIDENCE, Evidence, Selection


@runtime_checkable
class Strategy(Protocol):
    """What the sampler asks of a strategy.

    Attributes:
        needs: names of the fields of Evidence it looks at.
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
    is the number of samples it is the nearest medoid of. The selection carries a certificate, and
    answers every smaller budget (``selection.first``).

    Args:
        per_class: select within each class; False takes all samples as one group.
        allocation: how the budget is shared among classes: "proportional" to their sizes by
            largest remainder, or "equal", the shortfall of small classes going to the others.
            Every class gets at least one medoid.
        xi: stop a class early, once ||G_S||_F <= xi (Eq. 9), in units of proxy distance.
        engine: "auto", "dense", "matrix-free" or "graph"; see ``facility_location``.
        memory_limit: bytes that one class's selection may take; None takes a quarter of what is
            free.
        stochastic: epsilon in (0, 1): compare a few random candidates in each step; None all.
        warm: share, in [0, 1], of each class's budget that a refresh takes over from the previous
            selection, its first medoids; the rest is selected anew.

    Raises:
        TypeError, ValueError: options outside their range.

    Example:
        >>> from augloader.proxies import Proxies
        >>> g = torch.tensor([[0.0], [1.0], [2.0], [9.0], [9.5], [9.5]])
        >>> evidence = Evidence(6, torch.tensor([0, 0, 0, 1, 1, 1]), Proxies(g))
        >>> s = FacilityLocation().select(evidence, 2, generator=np.random.default_rng(0))
        >>> s.indices.tolist(), s.weights.tolist()
        ([1, 4], [3.0, 3.0])
        >>> s.certificate.ratio, s.certificate.reason
        (1.0, 'dense for 2 of 2 groups (n = 3: all distances are held)')

    Source: Liu & Mirzasoleiman (2022), Alg. 1, Eq. 8-9.
    """

    per_class: bool = True
    allocation: Allocation = "proportional"
    xi: float | None = None
    engine: Engine = "auto"
    memory_limit: int | None = None
    stochastic: float | None = None
    warm: float = 0.0

    def __post_init__(self) -> None:
        """Check the options."""
        require_one_of("allocation", self.allocation, ("proportional", "equal"))
        check_options(self.engine, self.memory_limit, self.stochastic)
        if self.xi is not None and not self.xi >= 0:
            raise ValueError(f"xi must be 0 or more, got {self.xi}. It is a distance.")
        if self.warm != 0:
            require_fraction("warm", self.warm)

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at: proxies, and labels when selecting per class."""
        return frozenset({"proxies", "labels"} if self.per_class else {"proxies"})

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return the medoids, class by class in greedy order, with their cluster sizes.

        Args:
            evidence: with proxies, and with labels when selecting per class.
            budget: number of medoids over all classes, at least one a class, at most n.
            generator: of the samples that large classes are seeded on.

        Returns:
            Selection of ``budget`` samples, fewer where ``xi`` stops early; weights sum to n.

        Raises:
            ValueError: evidence missing, budget out of range, a class with one sample, a memory
                limit that is too small.

        Cost: the engine's, one class after the other; on a GPU all that fit at once.
        """
        require_evidence(evidence, self.needs, budget)
        assert evidence.proxies is not None
        proxies = evidence.proxies
        previous = evidence.previous
        tasks = self.plan(evidence.n, evidence.labels, previous, budget, generator)
        found = self.solve(tasks, lambda task: proxies[task.members], proxies.device)
        return self.join(tasks, found, previous)

    def groups(self, n: int, labels: Tensor | None) -> list[Tensor]:
        """Return the indices of each group, ascending.

        Raises:
            ValueError: a class with one sample.
        """
        if not self.per_class:
            return [torch.arange(n)]
        assert labels is not None
        labels = labels.cpu()
        classes, sizes = labels.unique(return_counts=True)
        if (sizes == 1).any():
            lone = int(classes[sizes == 1][0])
            raise ValueError(
                f"labels must give every class at least 2 samples, got 1 in class {lone} (index "
                f"{int((labels == lone).nonzero())}). Leave that sample out or merge its class, "
                "or select over all samples with FacilityLocation(per_class=False)."
            )
        return list(labels.argsort(stable=True).split(sizes.tolist()))

    def plan(
        self,
        n: int,
        labels: Tensor | None,
        previous: Tensor | None,
        budget: int,
        generator: np.random.Generator,
    ) -> list[Task]:
        """Return what is to be selected of each group; it depends on the arguments alone."""
        groups = self.groups(n, labels)
        shares = allocate([len(members) for members in groups], budget, self.allocation)
        seeds = generator.integers(2**32, size=len(groups)).tolist()
        starts = [torch.empty(0, dtype=torch.int64)] * len(groups)
        if previous is not None and self.warm:
            group, place = torch.empty(2, n, dtype=torch.int64)
            for g, members in enumerate(groups):
                group[members], place[members] = g, torch.arange(len(members))
            order = group[previous].argsort(stable=True)
            counts = group[previous].bincount(minlength=len(groups)).tolist()
            starts = [
                positions[: round(self.warm * share)]
                for positions, share in zip(
                    place[previous[order]].split(counts), shares, strict=True
                )
            ]
        return [Task(*part) for part in zip(groups, shares, starts, seeds, strict=True)]

    def solve(
        self, tasks: Sequence[Task], proxies_of: Callable[[Task], Proxies], device: torch.device
    ) -> list[Medoids]:
        """Return the medoids of each group."""
        return facility_locations(
            tasks,
            proxies_of,
            device,
            engine=self.engine,
            memory_limit=self.memory_limit,
            xi=self.xi,
            stochastic=self.stochastic,
        )

    def join(
        self, tasks: Sequence[Task], found: Sequence[Medoids], previous: Tensor | None
    ) -> Selection:
        """Put the groups' medoids together."""
        members, shares = [task.members for task in tasks], [task.share for task in tasks]
        return Coreset(members, found, shares, self.allocation, previous).first(sum(shares))


def require_needs(name: str, needs: frozenset[str]) -> None:
    """Raise ValueError unless all needs are fields of Evidence."""
    unknown = sorted(needs - set(EVIDENCE))
    if unknown:
        raise ValueError(
            f"{name} must be among {', '.join(EVIDENCE)}, got {', '.join(unknown)}. "
            "Name the fields of Evidence."
        )


def require_evidence(evidence: Evidence, needs: frozenset[str], budget: int) -> None:
    """Raise unless the evidence has what a strategy needs, and the budget fits it."""
    evidence.require_whole()
    for name in sorted(needs):
        evidence.require(name)
    require_int("budget", budget, 1, "Choose at least one sample.")
    if budget > evidence.n:
        raise ValueError(
            f"budget must be at most the number of samples, {evidence.n}, got {budget}. "
            "Ask for fewer samples."
        )
