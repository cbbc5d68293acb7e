"""Greedy facility location over one group's matrix of distances: the dense engine.

Minimise F(S) = sum_i min_{j in S} d_ij. The marginal gain of s is sum_i max(0, m_i - d_is), where
m_i is the smallest distance of i to a medoid so far, and a constant c1 before the first
(Liu & Mirzasoleiman 2022, Alg. 1 and Eq. 9). Its first steps are taken by lazy evaluation. After
them few candidates are nearer to a point than its medoid, and only these *balls* are gone on with:
the gains of all candidates are kept exact by touching, at every new medoid, the balls of those
points that go over to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import as_tensor
from augloader.core.compiled import Doubles, Floats, Longs, threads
from augloader.selection.greedy import kernels
from augloader.selection.greedy.batched import Batch, Found, run
from augloader.selection.greedy.medoids import (
    Medoids,
    Progress,
    check_budget,
    check_start,
    enough,
    largest,
    offsets,
)

_ROWS = 64  # rows a thread works on at a time: they stay in the processor's cache
_FIRST = 8  # steps before the balls are taken


def greedy_medoids(
    distances: Tensor, budget: int, *, xi: float | None = None, start: Tensor | None = None
) -> Medoids:
    """Take medoids greedily until a budget or an error bound is reached.

    The gains are sums in float64. Ties go to the lowest index; a candidate that gains nothing
    (a duplicate) still fills the budget. The order is nested: the first k medoids are the answer to
    a budget of k.

    Args:
        distances: (n, n) float32, symmetric, finite, with a zero diagonal; on the CPU, or on a
            GPU, where the greedy runs then.
        budget: number of medoids, 1 to n.
        xi: stop as soon as sum_i m_i <= xi, m_i the distance of i to its medoid, in their unit.
        start: (s,) int64, distinct medoids to begin with, at most ``budget``.

    Returns:
        Medoids, on the CPU.

    Raises:
        TypeError: distances not float32.
        ValueError: distances not square, symmetric or finite, below 0 or not 0 on the diagonal
            (as similarities are), budget outside [1, n], xi below 0, a start
            that is longer than the budget or not distinct in [0, n).

    Cost: about 2 n^2 operations for the first steps and 2 to 4 a ball entry after them; memory at
    most n^2 bytes beside the distances' 4 n^2.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> m = greedy_medoids(torch.cdist(x, x), 2)
        >>> m.indices.tolist(), m.sizes.tolist()
        ([1, 3], [3, 1])

    Source: Liu & Mirzasoleiman (2022), Alg. 1; lazy evaluation of Minoux (1978).
    """
    distances = as_tensor("distances", distances, "Give the distances among one group of points.")
    if distances.dtype != torch.float32:
        raise TypeError(
            f"distances must be float32, got {distances.dtype}. Convert them with .float()."
        )
    n = len(distances) if distances.ndim else 0
    if distances.shape != (n, n) or not n:
        raise ValueError(
            f"distances must be square and not empty, got {tuple(distances.shape)}. "
            "Give the distances among one group of points."
        )
    most, rows = float(distances.max()), distances[:64]
    if not most < float("inf"):  # NaN is not
        raise ValueError(f"distances must be finite, got {most}. Check what they come from.")
    likeness = float(distances.diagonal().max()) > 0.01 * most  # but for rounding it is 0
    if float(distances.min()) < 0 or likeness:
        raise ValueError(
            "distances must be 0 or more, and 0 on the diagonal, got others. Give distances, not "
            "similarities."
        )
    if not torch.allclose(rows, distances[:, :64].T, atol=0.01 * most):
        raise ValueError(
            "distances must be symmetric, got others. Give those among one group of points."
        )
    budget, xi = check_budget(n, budget, xi)
    given = check_start(start, n, budget)
    return dense_medoids(distances, budget, xi, given)


def dense_medoids(distances: Tensor, budget: int, xi: float | None, given: Longs) -> Medoids:
    """Return ``greedy_medoids`` of arguments that were checked before."""
    if distances.device.type == "cpu":
        return _dense(distances.contiguous().numpy(), budget, -1.0 if xi is None else xi, given)
    batch = Batch(distances[None], [len(distances)], [budget], [torch.from_numpy(given)], xi)
    return batched_medoids([batch])[0][0]


def batched_medoids(batches: Sequence[Batch]) -> list[list[Medoids]]:
    """Take the medoids of many groups at once on the distances' device; see ``batched_greedy``."""
    return [[_medoids(found) for found in groups] for groups in run(batches)]


def _medoids(found: Found) -> Medoids:
    return Medoids(
        found.taken,
        found.nearest,
        found.distances,
        found.gains,
        found.moves,
        torch.from_numpy(largest(found.remaining.numpy(), len(found.taken))),
        found.constant,
        seeds=found.seeds,
    )


def _dense(matrix: Floats, budget: int, xi: float, given: Longs) -> Medoids:
    n = len(matrix)
    with threads() as pool:
        blocks = [matrix[start : start + _ROWS] for start in range(0, n, _ROWS)]
        sums = np.empty(n)
        parts = np.split(sums, range(_ROWS, n, _ROWS))
        top = float(np.max(list(pool.map(kernels.row_sums, blocks, parts))))
        run = Progress.of(n, budget, top)

        def gains_now() -> Doubles:
            out = run.masked
            gains = np.split(out, range(_ROWS, n, _ROWS))
            list(pool.map(kernels.row_gains, blocks, repeat(run.best), gains))
            out[run.taken[: run.step]] = -np.inf
            return out

        def first(steps: int, bounds: Doubles) -> None:
            run.step, moves = kernels.first_steps(
                matrix, min(steps, budget), xi, run.best, run.nearest, bounds, run.taken, run.gains
            )
            run.moves.append(moves)

        if len(given):
            met = matrix[:, given]
            errors = np.minimum.accumulate(met, 1).sum(0, dtype=np.float64)
            given = enough(given, errors, xi)
            run.seeded(given, [run.meet(met[:, : len(given)].copy(), 0, given)])
        else:
            first(1, n * top - sums)
        limits = np.split(run.best, range(_ROWS, n, _ROWS))  # views
        steps, bounds = _FIRST, gains_now()
        first(steps, bounds)
        sizes = list(pool.map(kernels.below, blocks, limits))
        while run.step == min(steps, budget) < budget and sum(sizes) > matrix.size // 8:
            steps *= 2
            first(steps, bounds)
            sizes = list(pool.map(kernels.below, blocks, limits))
        if run.step < min(steps, budget) or run.step == budget:
            return run.medoids(gains_now())
        ids, values = np.empty(sum(sizes), np.int32), np.empty(sum(sizes), np.float32)
        counts, ends = np.empty(n, np.int64), np.cumsum(sizes)[:-1]
        found = [np.split(ids, ends), np.split(values, ends)]
        found.append(np.split(counts, range(_ROWS, n, _ROWS)))
        list(pool.map(kernels.scan, blocks, limits, *found))
    return run.medoids(run.finish(offsets(counts), ids, values, xi))
