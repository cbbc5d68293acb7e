"""Problems of facility location: random proxies, and what a selection of them costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augloader import Proxies
from augloader.core import residual
from augloader.selection import nearest

_EVALUATED = 2e12  # of n k d: beyond it, costs are those of random points, the same for all


def mixture(rng: np.random.Generator, n: int, d: int, modes: int = 20) -> Tensor:
    """Draw n points of a Gaussian mixture in d dimensions, float32."""
    means, widths = rng.normal(size=(modes, d)), rng.uniform(0.3, 1, modes)
    points = np.empty((n, d), np.float32)
    for part in np.array_split(points, -(-n // 65_536)):
        mode = rng.integers(modes, size=len(part))
        part[:] = means[mode] + widths[mode, None] * rng.normal(size=part.shape)
    return torch.from_numpy(points)


def residuals(rng: np.random.Generator, n: int) -> Tensor:
    """Draw the residuals of n samples of class 0 of 10, which the logits favour more or less."""
    means = rng.normal(0, 1.5, (6, 10))
    means[:, 0] += rng.uniform(0.5, 5, 6)
    logits = means[rng.integers(6, size=n)] + rng.normal(size=(n, 10))
    return residual(torch.from_numpy(logits), torch.zeros(n, dtype=torch.int64))


def make(data: str, n: int, seed: int) -> Proxies:
    """Make proxies: residuals (10 wide), mixture or mixture-512 (64 or so wide), or outer."""
    rng = np.random.default_rng(seed)
    kind, _, width = data.partition("-")
    if kind == "mixture":
        return Proxies(mixture(rng, n, int(width or 64)))
    g = residuals(rng, n)
    return Proxies(g, mixture(rng, n, 64).relu() if data == "outer" else None)


def vectors(proxies: Proxies) -> Tensor:
    """Return the proxies as vectors in float64, outer products written out."""
    g = proxies.gradient.double()
    if proxies.features is None:
        return g
    return torch.einsum("ic,id->icd", g, proxies.features.double()).flatten(1)


def total_distance(points: Proxies, medoids: Proxies) -> float:
    """Return sum_i ||x_i - m_i|| in float64, m_i the medoid of point i."""
    parts = torch.arange(len(points)).split(65_536)
    return sum(
        float((vectors(points[rows]) - vectors(medoids[rows])).norm(dim=1).sum()) for rows in parts
    )


def objective(proxies: Proxies, chosen: Tensor) -> float:
    """Return sum_i min_j ||x_i - x_j|| over the chosen j, from random points if there are many.

    The nearest is found by ``nearest``, which its tests hold against brute force.
    """
    n, work = len(proxies), len(proxies) * len(chosen) * sum(proxies.widths)
    points = proxies
    if work > _EVALUATED:
        rows = np.random.default_rng(5).permutation(n)[: int(n * _EVALUATED / work)]
        points = proxies[torch.from_numpy(rows)]
    found = nearest(points, proxies[chosen])[0]
    return total_distance(points, proxies[chosen[found]]) * n / len(points)


@dataclass(frozen=True)
class Problem:
    """What a solver gets: proxies, how many to select, and classes numbered i mod ``classes``."""

    proxies: Proxies
    k: int
    classes: int = 1
    seed: int = 0

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.proxies)) % self.classes

    def members(self) -> list[Tensor]:
        return [torch.arange(c, len(self.proxies), self.classes) for c in range(self.classes)]

    def cost(self, chosen: Tensor) -> float:
        own = chosen % self.classes
        return sum(
            objective(self.proxies[rows], chosen[own == c] // self.classes)
            for c, rows in enumerate(self.members())
        )
