"""The coreset: facility location in every class, joined into one selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    plain_options,
    require_bool,
    require_budget,
    require_number,
    require_one_of,
)
from augloader.core.deprecated import formerly, renamed
from augloader.core.evidence import Certificate, Evidence, Selection
from augloader.core.proxies import Proxies
from augloader.selection.budget import Allocation, allocate
from augloader.selection.greedy.engine import Engine, Task, check_options, facility_locations
from augloader.selection.greedy.medoids import Medoids, check_xi
from augloader.selection.greedy.transfer import sent
from augloader.selection.strategy import require_evidence


@renamed(warm="warm_start")
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
            Every class gets at least one medoid; a class of one sample is its own.
        xi: stop a class early, once its sum_i min_{j in S} ||g_i - g_j|| <= xi, in units of proxy
            distance. By the triangle inequality this sum, which the greedy minimises, bounds the
            error of the class's gradient, ||sum_i g_i - sum_j gamma_j g_j|| (Eq. 8). ||G_S||_F of
            Eq. 9, the root of the sum of squares, is smaller and does not.
        engine: "auto", "dense", "matrix-free" or "graph"; see ``facility_location``.
        memory_limit: bytes that one class's selection may take; None takes a quarter of what is
            free.
        stochastic: epsilon in (0, 1): compare a few random candidates in each step; None all.
        warm_start: share, in [0, 1], of each class's budget that a refresh takes over from the
            previous selection, its first medoids; the rest is selected anew.

    Raises:
        TypeError, ValueError: options outside their range.

    Example:
        >>> from augloader import Proxies
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
    warm_start: float = 0.0

    warm = formerly("warm", "warm_start")

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_bool("per_class", self.per_class, "False takes all samples as one group.")
        require_one_of("allocation", self.allocation, ("proportional", "equal"))
        check_options(self.engine, self.memory_limit, self.stochastic)
        check_xi(self.xi)
        require_number("warm_start", self.warm_start, "[0, 1]", "0.5 takes half of them over.")

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
            ValueError: evidence missing, budget out of range or below the number of classes, a
                memory limit that is too small.

        Cost: the engine's, one class after the other; on a GPU all that fit at once, for which the
        host waits three times in all, and once more where the greedy needs another look.
        """
        budget = require_evidence(evidence, self.needs, budget, generator)
        assert evidence.proxies is not None
        proxies = evidence.proxies
        previous = evidence.previous
        tasks = self.plan(evidence.n, evidence.labels, previous, budget, generator)
        sizes = [len(task.members) for task in tasks]
        rows = sent(torch.cat([task.members for task in tasks]), proxies.device).split(sizes)
        rows_of = dict(zip(map(id, tasks), rows, strict=True))

        def proxies_of(task: Task) -> Proxies:
            return proxies if len(tasks) == 1 else proxies[rows_of[id(task)]]

        found = self.solve(tasks, proxies_of, proxies.device)
        return self.join(tasks, found, previous)

    def groups(self, n: int, labels: Tensor | None) -> list[Tensor]:
        """Return the indices of each group, ascending."""
        if not self.per_class:
            return [torch.arange(n, device="cpu")]
        assert labels is not None
        labels = labels.cpu()
        sizes = labels.unique(return_counts=True)[1]
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
        starts = [torch.empty(0, dtype=torch.int64, device="cpu")] * len(groups)
        if previous is not None and self.warm_start:
            previous = previous.cpu()
            group, place = torch.empty(2, n, dtype=torch.int64, device="cpu")
            for g, members in enumerate(groups):
                group[members], place[members] = g, torch.arange(len(members), device="cpu")
            order = group[previous].argsort(stable=True)
            counts = group[previous].bincount(minlength=len(groups)).tolist()
            starts = [
                positions[: round(self.warm_start * share)]
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


@dataclass(frozen=True, eq=False)
class Coreset:
    """The medoids of each group, in greedy order, from which smaller budgets are read off.

    Args:
        members: for every group the (n_g,) int64 indices of its samples.
        medoids: for every group what the greedy found.
        shares: for every group how many medoids were asked for.
        allocation: how a budget is shared among the groups; see ``allocate``.
        previous: (k,) int64 indices selected before, or None; to count how many stayed.

    Example:
        >>> from augloader.selection.greedy.engine import facility_location
        >>> from augloader import Proxies
        >>> found = facility_location(Proxies(torch.tensor([[0.0], [1.0], [2.0], [9.0]])), 3)
        >>> coreset = Coreset([torch.arange(4)], [found], [3], "proportional")
        >>> coreset.first(3).weights.tolist(), coreset.first(2).weights.tolist()
        ([2.0, 1.0, 1.0], [3.0, 1.0])
    """

    members: Sequence[Tensor]
    medoids: Sequence[Medoids]
    shares: Sequence[int]
    allocation: Allocation
    previous: Tensor | None = None

    def first(self, budget: int) -> Selection:
        """Return the selection for a budget up to the one that was run; see ``Selection.first``.

        Cost: O(n) at most, and O(k log k) for the certificate.
        """
        sizes = [len(group) for group in self.members]
        most = sum(len(found.indices) for found in self.medoids)
        budget = require_budget(budget, sum(self.shares))
        asked = budget == sum(self.shares)
        counts = self._available(
            list(self.shares) if asked else allocate(sizes, budget, self.allocation)
        )
        parts = list(zip(self.members, self.medoids, counts, strict=True))
        indices = torch.cat([group[found.indices[:k]] for group, found, k in parts])
        whole, previous = len(indices) == most, self.previous
        certificate = Certificate(
            coverage=sum(found.coverage_of(k) for _, found, k in parts),
            bound=sum(found.bound(k) for _, found, k in parts),
            gains=torch.cat([found.gains[:k] for _, found, k in parts]),
            covered=sum(found.covered * len(group) for group, found, _ in parts) / sum(sizes),
            proven=all(found.proven for found in self.medoids),
            reason=_reason(self.medoids) + ("" if whole else f"; first {budget:,} of {most:,}"),
            kept=None if previous is None else int(torch.isin(indices, previous.cpu()).sum()),
        )
        weights = torch.cat([found.sizes_of(k) for _, found, k in parts]).float()
        return Selection(indices, weights, certificate, self)

    def _available(self, shares: list[int]) -> list[int]:
        """Cut shares to the medoids there are; those of rounding go to other groups.

        Largest remainder may give a group one more of a smaller budget. A group that stopped early
        because of xi stops here too.
        """
        there = [len(found.indices) for found in self.medoids]
        counts = [min(share, k) for share, k in zip(shares, there, strict=True)]
        groups = zip(shares, there, self.shares, strict=True)
        lacking = sum(share - k for share, k, asked in groups if share > k == asked)
        for g, k in enumerate(there):
            more = min(lacking, k - counts[g])
            counts[g] += more
            lacking -= more
        return counts


def _reason(medoids: Sequence[Medoids]) -> str:
    """Say how many groups each engine took, and why it took the largest of them."""
    parts = []
    for engine in sorted({found.engine for found in medoids}):
        mine = [found for found in medoids if found.engine == engine]
        largest = max(mine, key=lambda found: len(found.nearest))
        groups = "" if len(medoids) == 1 else f" for {len(mine):,} of {len(medoids):,} groups"
        parts.append(f"{engine}{groups} ({largest.reason})")
    return ", ".join(parts)
