"""Nearest neighbours: which medoid a point belongs to, and which points are near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augloader.core.compiled import Doubles, Floats, Ints, Longs
from augloader.core.proxies import Proxies
from augloader.selection.greedy import kernels
from augloader.selection.greedy.memory import SKETCH
from augloader.selection.greedy.search import index

_BLOCK = 1024  # rows of a distance matrix held at a time
_RANKED = 16_384  # points whose neighbours are ranked at a time, and searched at least
_SEARCHED = 2**19  # points whose neighbours are searched at a time, at most
_FLAT = 8192  # up to here every pair is compared


def nearest(points: Proxies, medoids: Proxies) -> tuple[Tensor, Tensor]:
    """Find the nearest medoid of every point.

    Vectors are searched in a flat FAISS index, on the GPU where the points are there; by PyTorch if
    FAISS was not built for it. Outer products g (x) h would need vectors of C * d numbers, so their
    exact distances are compared block by block, from Gram matrices.

    Args:
        points: n proxies; any points, not only those that the medoids were chosen from.
        medoids: k proxies of the same form.

    Returns:
        (n,) int64 positions among the medoids and (n,) float32 distances, on the points' device.
        Equally near medoids may come in any order.

    Raises:
        ValueError: the two differ in form, width, dtype or device.

    Cost: O(n k d) time for vectors of width d, O(n k (C + d)) for outer products.

    Example:
        >>> points = Proxies(torch.tensor([[0.0], [4.0], [5.0]]))
        >>> nearest(points, points[torch.tensor([0, 2])])[0]
        tensor([0, 1, 1])

    Source: cluster sizes of Liu & Mirzasoleiman (2022), Alg. 1 line 8.
    """
    points, medoids = Proxies.of(points), Proxies.of(medoids)
    points.require_same_form(medoids)
    if not len(medoids):
        raise ValueError("medoids must be at least 1, got none. Select some first.")
    if points.features is None:
        return _search(points.gradient, medoids.gradient)
    parts = []
    for start in range(0, max(len(points), 1), _BLOCK):
        rows = torch.arange(start, min(start + _BLOCK, len(points)), device=points.device)
        parts.append(points[rows].distances(medoids).min(1))
    return torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])


@dataclass(frozen=True, eq=False)
class NeighborGraph:
    """The k nearest neighbours of every point, itself among them.

    Attributes:
        ids: (n, k) int32.
        distances: (n, k) float32, exact for the pair; infinite where fewer were found.
        exact: whether every pair was compared; else neighbours may be missing.
    """

    ids: Ints
    distances: Floats
    exact: bool

    @property
    def radius(self) -> Floats:
        """(n,) float32, the distance of the farthest neighbour known."""
        radius = np.empty(len(self.ids), np.float32)
        for first in range(0, len(radius), _RANKED):
            part = self.distances[first : first + _RANKED]
            radius[first : first + _RANKED] = part.max(1, where=np.isfinite(part), initial=0)
        return radius


@dataclass(frozen=True, eq=False)
class Factors:
    """Proxies laid out for the compiled loops: float32 of the CPU as it is, all else copied.

    Vectors of float64 are centred first, so that float32 keeps the digits of their differences.

    Attributes:
        g: (n, C) float32, contiguous.
        h: (n, d) float32, or (n, 0) for vectors.
        norms: (n,) float64, the squared norms of outer products; (0,) for vectors.
    """

    g: Floats
    h: Floats
    norms: Doubles

    @classmethod
    def of(cls, proxies: Proxies) -> Factors:
        """Lay out proxies on the CPU, which does it to the last bit alike for all devices."""
        g, h = proxies.gradient.cpu(), proxies.features
        if h is None:
            left = (g - g.mean(0) if g.dtype == torch.float64 else g).float()
            right, norms = left.new_empty(len(left), 0), left.new_empty(0).double()
        else:
            left, right = g.float(), h.cpu().float()
            norms = left.double().square().sum(1) * right.double().square().sum(1)
        parts = (part.contiguous().numpy() for part in (left, right, norms))
        return cls(*parts)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.g)

    def refine(self, first: int, limits: Floats, ids: Ints, values: Floats, counts: Longs) -> int:
        """Make the listed neighbours' distances exact in place; see ``kernels.refine``."""
        return kernels.refine(self.g, self.h, self.norms, first, limits, ids, values, counts)


def neighbor_graph(proxies: Proxies, k: int, *, seed: int = 0) -> NeighborGraph:
    """Find every point's k nearest neighbours, the point itself among them.

    Up to 8,192 points every pair is compared; more are searched in an inverted-file index of FAISS,
    8 lists a point (16 from 100,000 points on). Where the points are on a GPU they are searched
    there; if FAISS was not built for it, PyTorch compares all pairs. Outer products are searched as
    256-wide projections, twice as many neighbours as asked for, and re-ranked. Distances are always
    exact, in float64 and rounded.

    Args:
        proxies: n proxies.
        k: number of neighbours; no more than n are returned.
        seed: of the projection.

    Returns:
        NeighborGraph.

    Cost: about O(n^1.5 d) for the search; memory 8 n k bytes, and the index's copy of the vectors.

    Example:
        >>> points = Proxies(torch.tensor([[0.0], [4.0], [5.0]]))
        >>> neighbor_graph(points, 2).ids.tolist()
        [[0, 1], [1, 2], [2, 1]]

    Source: Johnson, Douze & Jegou (2019).
    """
    n, factors = len(proxies), Factors.of(proxies)
    k = min(k, n)
    if proxies.features is None:
        vectors, found = proxies.gradient, k
    else:
        vectors, found = proxies.project(SKETCH, seed).gradient, min(2 * k, n)
    search, all_pairs = index(vectors, n <= _FLAT)
    ids, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    rows = min(max(_RANKED, n // 8), _SEARCHED)  # many, so that a list is searched for many
    for start in range(0, n, rows):
        block = search(vectors[start : start + rows], found).cpu().numpy()
        for first in range(0, len(block), _RANKED):
            part = block[first : first + _RANKED]
            here = slice(start + first, start + first + len(part))
            own = np.arange(here.start, here.stop)
            absent = ~(part == own[:, None]).any(1)  # among more than k duplicates
            part[absent, -1] = own[absent]
            ids[here], distances[here] = _rank(factors, here.start, part, k)
    return NeighborGraph(ids, distances, all_pairs and proxies.features is None)


def _rank(factors: Factors, first: int, block: Longs, k: int) -> tuple[Ints, Floats]:
    """Return the k nearest of each row's listed points by exact distance, nearest first."""
    missing = block < 0
    own = np.arange(first, first + len(block))[:, None]
    ids = np.where(missing, own, block).astype(np.int32)
    values = np.empty(ids.shape, np.float32)
    counts = np.full(len(ids), ids.shape[1])
    limits = np.full(len(ids), np.inf, np.float32)
    factors.refine(first, limits, ids.reshape(-1), values.reshape(-1), counts)
    values[missing] = np.inf
    itself = (ids == own) & ~missing
    values[itself] = -1  # before its duplicates
    order = values.argsort(1, kind="stable")[:, :k]
    values[itself] = 0
    return np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)


def _search(points: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    search, _ = index(medoids, flat=True)
    parts = []
    for some in points.split(_RANKED):
        found = search(some, 1)[:, 0]
        parts.append((found, (some - medoids[found]).float().norm(dim=1)))
    found, distances = (torch.cat(part) for part in zip(*parts, strict=True))
    return found, distances
