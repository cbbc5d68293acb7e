"""The compiled loops of facility location: one thread each, no Python object in them.

They release the interpreter's lock, so that callers run them side by side in Python threads, and
the order of every sum is fixed: the number of threads changes nothing. Numba compiles them at
their first call, a few seconds, and keeps the machine code on disk.

Words: ``best`` is m_i, the smallest distance of point i to a medoid so far; the *ball* of a point
holds the candidates that are nearer to it than its medoid. Only they can ever gain from it.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from augloader.core.compiled import Doubles, Floats, Ints, Longs, jit

Moves = NDArray[np.int64]  # (m, 3): count points went over to medoid `to` from medoid `donor`
_CHUNK = 64  # entries compared at a time, in one vector loop


def _gain(row: Floats, best: Floats) -> float:
    total = 0.0
    for i in range(len(row)):
        total += max(np.float64(best[i]) - np.float64(row[i]), 0.0)
    return total


_gain = jit(_gain, fastmath={"reassoc", "nsz"})  # a vector of partial sums


def _sum(row: Floats) -> float:
    total = 0.0
    for i in range(len(row)):
        total += np.float64(row[i])
    return total


def _top(row: Floats) -> float:
    top: float = row[0]
    for i in range(len(row)):
        top = max(top, row[i])
    return top


def _square(left: Floats, right: Floats) -> float:
    total = 0.0
    for f in range(len(left)):
        total += (np.float64(left[f]) - np.float64(right[f])) ** 2
    return total


def _product(left: Floats, right: Floats) -> float:
    total = 0.0
    for f in range(len(left)):
        total += np.float64(left[f]) * np.float64(right[f])
    return total


_sum = jit(_sum, fastmath={"reassoc", "nsz"})
_square = jit(_square, fastmath={"reassoc", "nsz"})
_product = jit(_product, fastmath={"reassoc", "nsz"})
_top = jit(_top, fastmath={"reassoc", "nsz", "nnan"})


@jit
def row_sums(rows: Floats, out: Doubles) -> float:
    """Write every row's sum; return the largest entry, or what is not finite."""
    largest: float = -np.inf
    for s in range(len(rows)):
        out[s] = _sum(rows[s])
        if not np.isfinite(out[s]):
            return float(out[s])
        largest = max(largest, _top(rows[s]))
    return largest


@jit
def row_gains(rows: Floats, best: Floats, out: Doubles) -> None:
    """Write every row's marginal gain, out_s = sum_i max(0, m_i - d_si)."""
    for s in range(len(rows)):
        out[s] = _gain(rows[s], best)


@jit
def first_steps(
    matrix: Floats,
    steps: int,
    xi: float,
    best: Floats,
    nearest: Longs,
    bounds: Doubles,
    taken: Longs,
    gains: Doubles,
) -> tuple[int, Moves]:
    """Take medoids by lazy evaluation until ``steps`` are taken or sum_i m_i <= xi.

    ``bounds`` are upper bounds on the gains, as submodularity leaves them; a candidate is taken
    when its fresh gain beats all other bounds (Minoux 1978). Ties go to the lowest index. Medoids
    that were taken before count as steps; ``bounds`` of theirs must be -inf.
    """
    n, moves = len(matrix), [(0, 0, 0) for _ in range(0)]
    heap = [(-bounds[j], j) for j in range(n) if bounds[j] > -np.inf]
    heapq.heapify(heap)
    moved = np.zeros(max(steps, 1) + 1, np.int64)
    step = 0
    while step < len(taken) and taken[step] >= 0:
        step += 1
    while step < steps and (step == 0 or _summed(best) > xi):
        item = heapq.heappop(heap)
        while True:
            j = item[1]
            item = (-_gain(matrix[j], best), j)
            if len(heap) == 0 or item <= heap[0]:
                break
            item = heapq.heappushpop(heap, item)
        taken[step], gains[step], bounds[j] = j, -item[0], -np.inf
        row = matrix[j]
        for i in range(n):
            if row[i] < best[i] or i == j or step == 0:
                moved[nearest[i]] += 1
                best[i], nearest[i] = row[i], step
        for donor in range(-1, step):
            if moved[donor]:
                moves.append((step, donor, moved[donor]))
                moved[donor] = 0
        step += 1
    return step, _table(moves)


@jit
def _summed(best: Floats) -> float:
    total = 0.0
    for i in range(len(best)):
        total += np.float64(best[i])
    return total


@jit
def _table(moves: list[tuple[int, int, int]]) -> Moves:
    table = np.empty((len(moves), 3), np.int64)
    for i, (to, donor, count) in enumerate(moves):
        table[i, 0], table[i, 1], table[i, 2] = to, donor, count
    return table


@jit
def follow(
    distances: Floats, first: int, given: Longs, best: Floats, nearest: Longs, gains: Doubles
) -> Longs:
    """Let points meet given medoids in their order; row r is point first + r, one column a medoid.

    Adds each medoid's marginal gain and returns every change as (medoid, donor), shape (m, 2).
    """
    pairs = [(0, 0) for _ in range(0)]
    for r in range(len(distances)):
        i = first + r
        for t in range(len(given)):
            d = np.float32(0) if given[t] == i else distances[r, t]
            if d < best[i] or nearest[i] < 0 or given[t] == i:
                gains[t] += np.float64(best[i]) - np.float64(d)
                pairs.append((t, nearest[i]))
                best[i], nearest[i] = d, t
    table = np.empty((len(pairs), 2), np.int64)
    for p, (to, donor) in enumerate(pairs):
        table[p, 0], table[p, 1] = to, donor
    return table


@jit
def below(rows: Floats, limits: Floats) -> int:
    """Count the entries of each row that lie below its limit."""
    total = 0
    for r in range(len(rows)):
        row, limit = rows[r], limits[r]
        for c in range(len(row)):
            total += row[c] < limit
    return total


@jit
def scan(rows: Floats, limits: Floats, ids: Ints, values: Floats, counts: Longs) -> int:
    """Keep the entries of each row that lie below its limit; return how many there are."""
    kept, n = 0, rows.shape[1]
    for r in range(len(rows)):
        row, limit, before = rows[r], limits[r], kept
        for start in range(0, n, _CHUNK):
            part = row[start : start + _CHUNK]
            below = 0
            for c in range(len(part)):
                below += part[c] < limit
            if below:
                for c in range(len(part)):
                    if part[c] < limit:
                        ids[kept], values[kept] = start + c, part[c]
                        kept += 1
        counts[r] = kept - before
    return kept


@jit
def refine(
    g: Floats,
    h: Floats,
    norms: Doubles,
    first: int,
    limits: Floats,
    ids: Ints,
    values: Floats,
    counts: Longs,
) -> int:
    """Replace approximate values by exact distances; keep those below the limits.

    Vectors (h of no columns): the root of the summed squared differences. Outer products:
    d^2 = q_i + q_j - 2 <g_i, g_j> <h_i, h_j>. All in float64.
    """
    read = kept = 0
    for r in range(len(counts)):
        i, limit, before, end = first + r, limits[r], kept, read + counts[r]
        for q in range(read, end):
            j = ids[q]
            total = 0.0
            if h.shape[1] == 0:
                total = _square(g[i], g[j])
            elif i != j:
                product = _product(g[i], g[j]) * _product(h[i], h[j])
                total = max(norms[i] + norms[j] - 2 * product, 0.0)
            d = np.float32(np.sqrt(total))
            if d < limit:
                ids[kept], values[kept] = j, d
                kept += 1
        counts[r], read = kept - before, end
    return kept


@jit
def columns(starts: Longs, ids: Ints) -> tuple[Longs, Ints]:
    """Transpose the balls: for every candidate, the points whose ball it is in."""
    n = len(starts) - 1
    places = np.zeros(n + 1, np.int64)
    for q in range(len(ids)):
        places[ids[q] + 1] += 1
    for j in range(n):
        places[j + 1] += places[j]
    points, free = np.empty(len(ids), np.int32), places[:-1].copy()
    for i in range(n):
        for q in range(starts[i], starts[i + 1]):
            j = ids[q]
            points[free[j]] = i
            free[j] += 1
    return places, points


@jit
def greedy(
    starts: Longs,
    ids: Ints,
    values: Floats,
    places: Longs,
    points: Ints,
    step: int,
    xi: float,
    best: Floats,
    actual: Floats,
    nearest: Longs,
    taken: Longs,
    gains: Doubles,
    gain: Doubles,
) -> tuple[int, Moves]:
    """Fill ``taken`` from ``step`` on by the greedy over the balls, with exact running gains.

    A new medoid e touches the points whose ball it is in; such a point gives up what the candidates
    of its ball beyond e would have gained from it, and its ball shrinks to those nearer than e.
    The balls, (ids, values) from starts[i] to starts[i + 1], are reordered.

    ``best`` is what gains are counted from, ``actual`` the true distance to the medoid, which is
    larger where the neighbours of a point are known up to a radius only. ``gains`` are true ones.
    ``gain`` must be -inf for medoids; it returns the final marginal gains of all candidates.
    """
    n, moves = len(best), [(0, 0, 0) for _ in range(0)]
    ends = starts[1:].copy()
    for i in range(n):
        for q in range(starts[i], starts[i + 1]):
            if values[q] < best[i] and gain[ids[q]] > -np.inf:
                gain[ids[q]] += np.float64(best[i]) - np.float64(values[q])
    heap = [(-gain[j], j) for j in range(n) if gain[j] > -np.inf]
    heapq.heapify(heap)
    moved, donors = np.zeros(len(taken) + 1, np.int64), np.empty(len(taken) + 1, np.int64)
    error = _summed(actual)
    rounding = 1e-9 * error  # of the running sum
    while step < len(taken):
        if step and error <= xi * (1 + 1e-6) + rounding:
            error = _summed(actual)
            rounding = 1e-9 * error
            if error <= xi:
                break
        key, e = heapq.heappop(heap)
        while -key > gain[e]:
            key, e = heapq.heappushpop(heap, (-gain[e], e))
        total, distinct = 0.0, 0
        for place in range(places[e], places[e + 1]):
            i = points[place]
            low, end = starts[i], ends[i]
            q = low
            while q < end and not (ids[q] == e and values[q] < best[i]):
                q += 1
            if q == end:
                continue
            old, new = best[i], values[q]
            kept = low
            for q in range(low, end):
                d, j = values[q], ids[q]
                if d < old:
                    gain[j] -= np.float64(old) - np.float64(max(d, new))
                if d < new:
                    ids[q], values[q] = ids[kept], values[kept]
                    ids[kept], values[kept] = j, d
                    kept += 1
            ends[i] = kept
            total += np.float64(actual[i]) - np.float64(new)
            error -= np.float64(actual[i]) - np.float64(new)
            best[i] = actual[i] = new
            if not moved[nearest[i]]:
                donors[distinct] = nearest[i]
                distinct += 1
            moved[nearest[i]] += 1
            nearest[i] = step
        if nearest[e] != step:  # at distance 0 of another medoid, or not in its own ball
            total += np.float64(actual[e])
            error -= np.float64(actual[e])
            best[e] = actual[e] = 0
            if not moved[nearest[e]]:
                donors[distinct] = nearest[e]
                distinct += 1
            moved[nearest[e]] += 1
            nearest[e] = step
        for donor in donors[:distinct]:
            moves.append((step, donor, moved[donor]))
            moved[donor] = 0
        taken[step], gains[step], gain[e] = e, total, -np.inf
        step += 1
    return step, _table(moves)
