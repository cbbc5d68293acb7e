"""Greedy facility location: the medoids of one group of samples.

Minimise F(S) = sum_i min_{j in S} d_ij. The marginal gain of s is sum_i max(0, m_i - d_is), where
m_i is the smallest distance of i to a medoid so far, and a constant c1 before the first
(Liu & Mirzasoleiman 2022, Alg. 1 and Eq. 9). The gains of all candidates are kept up to date: a new
medoid changes m_i only for the points that it is now the nearest of, and only those rows are
touched ("decremental" gains). A point changes its medoid O(log k) times, so that the whole run
costs 3 to 6 n^2 updates whatever the budget.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.checks import require_int

Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
_ROWS = 64  # rows updated at a time: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Medoids:
    """The outcome of the greedy, in the order in which the medoids were taken.

    Attributes:
        indices: (k,) int64, the medoids.
        nearest: (n,) int64, for every point the position in ``indices`` of its nearest medoid; a
            medoid is its own.
        distances: (n,) float32, the distance to it.
        gains: (k,) float64, marginal gains, non-increasing; c1 is the largest distance.
    """

    indices: Tensor
    nearest: Tensor
    distances: Tensor
    gains: Tensor

    @property
    def sizes(self) -> Tensor:
        """(k,) int64, the number of points in each medoid's cluster, at least 1."""
        return torch.bincount(self.nearest, minlength=len(self.indices))


def greedy_medoids(distances: Tensor, budget: int, *, xi: float | None = None) -> Medoids:
    """Take medoids greedily until a budget or an error bound is reached.

    The gains are sums in float64. Ties go to the lowest index; a candidate that gains nothing
    (a duplicate) still fills the budget. The order is nested: the first k medoids are the answer to
    a budget of k.

    Args:
        distances: (n, n) float32, symmetric, finite, with a zero diagonal. On the CPU the loop
            runs in numpy, elsewhere in torch on the tensor's device.
        budget: number of medoids, 1 to n.
        xi: stop as soon as ||G_S||_F = sqrt(sum_i m_i^2) <= xi (Eq. 9), in units of distance.

    Returns:
        Medoids, on the CPU.

    Raises:
        TypeError: distances not float32.
        ValueError: distances not square or not finite, budget outside [1, n], xi below 0.

    Cost: 3 to 6 n^2 updates; on the CPU about n^2 / 8 bytes beside the distances' 4 n^2, on the
    GPU 4096 rows of them.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> m = greedy_medoids(torch.cdist(x, x), 2)
        >>> m.indices.tolist(), m.sizes.tolist()
        ([1, 3], [3, 1])

    Source: Liu & Mirzasoleiman (2022), Alg. 1.
    """
    n = len(distances)
    if distances.dtype != torch.float32:
        raise TypeError(
            f"distances must be float32, got {distances.dtype}. Convert them with .float()."
        )
    if distances.shape != (n, n) or not n:
        raise ValueError(
            f"distances must be square and not empty, got {tuple(distances.shape)}. "
            "Give the distances among one group of points."
        )
    if require_int("budget", budget, 1, "Choose at least one medoid.") > n:
        raise ValueError(f"budget must be at most {n}, got {budget}. Ask for fewer medoids.")
    if xi is not None and not xi >= 0:
        raise ValueError(f"xi must be 0 or more, got {xi}. It is a distance.")
    run = _greedy_numpy if distances.device.type == "cpu" else _greedy_torch
    return run(distances, budget, xi)


def _greedy_numpy(distances: Tensor, budget: int, xi: float | None) -> Medoids:
    matrix = distances.numpy()
    n = len(matrix)
    nearest = np.zeros(n, np.int64)
    taken: list[int] = []
    gains: list[float] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        blocks = [matrix[start : start + _ROWS] for start in range(0, n, _ROWS)]
        sums, tops = zip(*pool.map(_sums_and_top, blocks), strict=True)
        largest = _finite(float(np.max(tops)))
        best = np.full(n, largest, np.float32)  # m_i, at first c1
        gain = n * largest - np.concatenate(sums)
        while len(taken) < budget:
            if xi is not None and taken and np.linalg.norm(best.astype(np.float64)) <= xi:
                break
            medoid = int(gain.argmax())
            row = matrix[medoid]
            changed = np.flatnonzero(row < best)
            gains.append(gain[medoid])
            parts = [changed[start : start + _ROWS] for start in range(0, len(changed), _ROWS)]
            spread = pool.map if len(parts) > 1 else map
            for loss in spread(partial(_loss, matrix, best, row), parts):
                gain -= loss  # in the order of the points, whatever the number of threads
            best[changed] = row[changed]
            nearest[changed] = len(taken)
            nearest[medoid] = len(taken)
            taken.append(medoid)
            gain[medoid] = -np.inf
    found = (np.array(taken), nearest, best, np.array(gains))
    return Medoids(*(torch.from_numpy(part) for part in found))


def _sums_and_top(rows: Floats) -> tuple[Floats, float]:
    """Return the sum of every row, and the largest entry, in one pass through the memory."""
    return rows.sum(1, dtype=np.float64), float(rows.max())


def _finite(largest: float) -> float:
    if not largest < float("inf"):  # NaN is not
        raise ValueError(
            f"distances must be finite, got {largest}. Check the proxies they come from."
        )
    return largest


def _loss(matrix: Floats, best: Floats, row: Floats, points: Indices) -> Floats:
    """Return what every candidate's gain loses as some points go over to a new medoid.

    max(0, old - d) - max(0, new - d) = old - min(max(d, new), old), summed over the points.
    """
    old, new = best[points], row[points]
    rows = matrix[points]
    np.clip(rows, new[:, None], old[:, None], out=rows)
    lost: Floats = old.sum(dtype=np.float64) - rows.sum(0, dtype=np.float64)
    return lost


def _greedy_torch(distances: Tensor, budget: int, xi: float | None) -> Medoids:
    n = len(distances)
    largest = _finite(float(distances.max()))
    best = torch.full((n,), largest, device=distances.device)
    gain = n * best[0].double() - distances.sum(1, dtype=torch.float64)
    nearest = torch.zeros(n, dtype=torch.int64, device=distances.device)
    taken = torch.empty(budget, dtype=torch.int64, device=distances.device)
    gains = torch.empty(budget, dtype=torch.float64, device=distances.device)
    k = 0
    while k < budget:
        if xi is not None and k and best.double().norm() <= xi:
            break
        medoid = gain.argmax()
        row = distances[medoid]
        changed = (row < best).nonzero().flatten()
        gains[k] = gain[medoid]
        for points in changed.split(4096):
            old, new = best[points, None], row[points, None]
            rows = distances[points].clamp_(new, old)
            gain -= old.sum(dtype=torch.float64) - rows.sum(0, dtype=torch.float64)
        best[changed] = row[changed]
        nearest[changed] = k
        nearest[medoid] = k
        taken[k] = medoid
        gain[medoid] = -torch.inf
        k += 1
    return Medoids(taken[:k].cpu(), nearest.cpu(), best.cpu(), gains[:k].cpu())
