"""Coresets: the medoids of all groups put together, for the budget asked for and every smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from augloader.checks import require_budget
from augloader.medoids import Medoids
from augloader.types import Certificate, Selection

Allocation = Literal["proportional", "equal"]


def allocate(sizes: Sequence[int], budget: int, allocation: Allocation) -> list[int]:
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
        >>> from augloader.engines import facility_location
        >>> from augloader.proxies import Proxies
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
        require_budget(budget, sum(self.shares))
        counts = self._available(allocate(sizes, budget, self.allocation))
        parts = list(zip(self.members, self.medoids, counts, strict=True))
        indices = torch.cat([group[found.indices[:k]] for group, found, k in parts])
        whole = len(indices) == most
        certificate = Certificate(
            coverage=sum(found.coverage_of(k) for _, found, k in parts),
            bound=sum(found.bound(k) for _, found, k in parts),
            gains=torch.cat([found.gains[:k] for _, found, k in parts]),
            covered=sum(found.covered * len(group) for group, found, _ in parts) / sum(sizes),
            proven=all(found.proven for found in self.medoids),
            reason=_reason(self.medoids) + ("" if whole else f"; first {budget:,} of {most:,}"),
            kept=None if self.previous is None else int(torch.isin(indices, self.previous).sum()),
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
