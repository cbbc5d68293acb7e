"""Nearest neighbours: which medoid a point belongs to, and which points are near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augloader.core.compiled import Doubles, Floats, Ints, Longs
from augloader.core.proxies import Proxies
from augloader.selection.greedy import kernels
from augloader.selection.greedy.search import index
from augloader.selection.greedy.transfer import sent

_BLOCK = 1024  # rows of a distance matrix held at a time
_QUERIES = 16384  # points whose neighbours are searched at a time
_FLAT = 8192  # up to here every pair is compared
_SKETCH = 256  # width of the vectors that stand for outer products in a search


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
        known = np.isfinite(self.distances)
        radius: Floats = np.where(known, self.distances, 0).max(1)
        return radius


@dataclass(frozen=True, eq=False)
class Factors:
    """Proxies laid out for the compiled loops; vectors are centred, which keeps float32 exact.

    Attributes:
        g: (n, C) float32, contiguous.
        h: (n, d) float32, or (n, 0) for vectors.
        norms: (n,) float64, the squared norms.
    """

    g: Floats
    h: Floats
    norms: Doubles

    @classmethod
    def of(cls, proxies: Proxies) -> Factors:
        """Lay out proxies on the CPU, which does it to the last bit alike for all devices."""
        g = proxies.gradient.cpu().double()
        if proxies.features is None:
            left, right = (g - g.mean(0)).float(), g.new_empty(len(g), 0).float()
            norms = left.double().square().sum(1)
        else:
            left, right = g.float(), proxies.features.cpu().float()
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
        vectors, found = sent(torch.from_numpy(factors.g), proxies.device), k
    else:
        vectors, found = proxies.project(_SKETCH, seed).gradient, min(2 * k, n)
    vectors = (vectors - vectors.mean(0)).contiguous()
    search, all_pairs = index(vectors, n <= _FLAT)
    ids, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start in range(0, n, _QUERIES):
        block = search(vectors[start : start + _QUERIES], found).cpu().numpy()
        own = np.arange(start, start + len(block))
        absent = ~(block == own[:, None]).any(1)  # among more than k duplicates
        block[absent, -1] = own[absent]
        near, far = _rank(factors, start, block, k)
        ids[start : start + len(block)], distances[start : start + len(block)] = near, far
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
    centre = medoids.mean(0)  # FAISS expands the square: small norms keep it exact
    search, _ = index((medoids - centre).float(), flat=True)
    found = search((points - centre).float(), 1)[:, 0]
    return found, (points - medoids[found]).float().norm(dim=1)
