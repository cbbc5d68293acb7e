"""What a greedy knows while it runs, and its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import as_tensor, require_int, require_number
from augloader.core.compiled import Doubles, Floats, Ints, Longs
from augloader.selection.greedy import kernels
from augloader.selection.greedy.kernels import Moves


@dataclass(frozen=True, eq=False)
class Medoids:
    """The outcome of the greedy, in the order in which the medoids were taken.

    Attributes:
        indices: (k,) int64, the medoids.
        nearest: (n,) int64, for every point the position in ``indices`` of its nearest medoid; a
            medoid is its own.
        distances: (n,) float32, the distance to it.
        gains: (k,) float64, marginal gains; non-increasing after the ``seeds``.
        moves: (m, 3) int64, the history of the clusters: (to, donor, count) says that ``count``
            points went over to medoid ``to`` from medoid ``donor``, -1 for those that had none.
        rest: at most k float64, the largest marginal gains that were left, in descending order.
        constant: c1, at least the largest distance.
        slack: what candidates could gain beyond ``rest`` from points whose neighbours are not
            all known.
        seeds: number of first medoids that were not taken as the best of all candidates.
        covered: share of points whose medoid is among the neighbours that the engine knows.
        proven: whether the bound is a theorem; False after an approximate neighbour search.
        engine: which one found them.
        reason: why that one, and how it went.
    """

    indices: Tensor
    nearest: Tensor
    distances: Tensor
    gains: Tensor
    moves: Tensor
    rest: Tensor
    constant: float
    slack: float = 0.0
    seeds: int = 0
    covered: float = 1.0
    proven: bool = True
    engine: str = "dense"
    reason: str = ""

    def packed(self) -> Medoids:
        """Return a copy, made where the memory of the selection is free again.

        What is kept of many groups would else lie between what each of them used, and hold it.
        """
        parts = vars(self).items()
        copies: dict[str, Any] = {k: x.clone() for k, x in parts if isinstance(x, Tensor)}
        return replace(self, **copies)

    @property
    def sizes(self) -> Tensor:
        """(k,) int64, the number of points in each medoid's cluster, at least 1."""
        return torch.bincount(self.nearest, minlength=len(self.indices))

    @property
    def coverage(self) -> float:
        """f(S) = sum_i (c1 - m_i); f of nothing is 0."""
        return self.constant * len(self.distances) - float(self.distances.sum(dtype=torch.float64))

    def sizes_of(self, k: int) -> Tensor:
        """Return the (k,) int64 sizes of the clusters when there were k medoids only.

        They are the exact clusters of the first k where all distances were compared; else a point
        counts for the nearest of them among those that the engine knew to be near.
        """
        to, donor, count = self.moves[self.moves[:, 0] < k].T
        sizes = torch.zeros(k, dtype=torch.int64, device="cpu").index_add(0, to, count)
        given = (donor >= 0) & (donor < k)
        return sizes.index_add(0, donor[given], -count[given])

    def coverage_of(self, k: int) -> float:
        """Return the coverage of the first k; at least this where not all was compared."""
        whole = k == len(self.indices)
        return self.coverage if whole else float(self.gains[:k].sum())

    def bound(self, k: int) -> float:
        """Return what the coverage of no k medoids exceeds, for k up to the number taken.

        By submodularity f(any k) <= f(S) + the sum of the k largest marginal gains at S, for every
        S that the greedy passed: the final one, and each S_t, with k times its next gain.

        Source: Nemhauser, Wolsey & Fisher (1978); Leskovec et al. (2007), section 3.2.
        """
        bounds = [self.coverage + float(self.rest[:k].sum()) + self.slack]
        if self.slack == 0 and self.proven:
            before = torch.cat([self.gains.new_zeros(1), self.gains.cumsum(0)[:-1]])
            bounds += (before + k * self.gains)[self.seeds :].tolist()
        most = min(*bounds, self.constant * len(self.distances))
        return max(most, self.coverage_of(k))  # but for rounding it is that at least


def check_budget(n: int, budget: int, xi: float | None) -> tuple[int, float | None]:
    """Return both, or raise unless a group of n can have so many medoids."""
    budget = require_int("budget", budget, 1, "Choose at least one medoid.")
    if not n:
        raise ValueError("proxies must be of 1 sample or more, got none. Leave empty groups out.")
    if budget > n:
        raise ValueError(f"budget must be at most {n}, got {budget}. Ask for fewer medoids.")
    return budget, check_xi(xi)


def check_xi(xi: float | None) -> float | None:
    """Return an error to stop at, or raise unless it is None, or 0 or more."""
    return None if xi is None else require_number("xi", xi, "[0, inf]", "It is a distance.")


def check_start(start: Tensor | None, n: int, budget: int) -> Longs:
    """Return the medoids to begin with, or raise unless they are distinct and within the budget."""
    if start is None:
        return np.empty(0, np.int64)
    given = as_tensor("start", start, "Give positions within the group.").cpu().numpy()
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"start must be integers, got {given.dtype}. Give positions in the group.")
    given = given.astype(np.int64)
    fits = given.ndim == 1 and len(given) <= budget and len(np.unique(given)) == len(given)
    if not fits or (len(given) and not (given.min() >= 0 and given.max() < n)):
        raise ValueError(
            f"start must be at most {budget} distinct positions in [0, {n}), got {start}. "
            "Give the positions of the first medoids within the group."
        )
    return given


@dataclass(eq=False)
class Progress:
    """What a greedy knows while it runs; the engines hand it on to one another's loops."""

    best: Floats
    nearest: Longs
    taken: Longs
    gains: Doubles
    constant: float
    moves: list[Moves] = field(default_factory=list)
    step: int = 0
    seeds: int = 0

    @classmethod
    def of(cls, n: int, budget: int, constant: float) -> Progress:
        """Begin with no medoid: m_i = c1."""
        if not constant <= np.finfo(np.float32).max:  # NaN is not
            raise ValueError(
                f"distances must be finite in float32, got {constant:.3g}. Check the proxies they "
                "come from."
            )
        best, nearest = np.full(n, constant, np.float32), np.full(n, -1, np.int64)
        return cls(best, nearest, np.full(budget, -1, np.int64), np.zeros(budget), constant)

    @property
    def masked(self) -> Doubles:
        """Zeros for candidates and -inf for medoids: where running gains begin."""
        gain = np.zeros(len(self.best))
        gain[self.taken[: self.step]] = -np.inf
        return gain

    def meet(self, distances: Floats, first: int, given: Longs) -> Longs:
        """Assign a block of points to given medoids one by one; return their changes."""
        return kernels.follow(distances, first, given, self.best, self.nearest, self.gains)

    def seeded(self, given: Longs, changes: Iterable[Longs]) -> None:
        """Record the medoids to begin with, as blocks of points are assigned to them."""
        self.step = self.seeds = len(given)
        self.taken[: self.step] = given
        self.moves.append(_merged([_counted(block) for block in changes]))

    def moved(self, changes: Longs) -> None:
        """Record changes of points, (m, 2) of medoid and donor, in the history."""
        self.moves.append(_counted(changes))

    @property
    def error(self) -> float:
        """sum_i m_i, which bounds the error of the coreset's gradient (Eq. 8)."""
        return float(self.best.sum(dtype=np.float64))

    def take(self, medoid: int, row: Floats, gain: float) -> None:
        """Take one medoid, whose distances to all points are given."""
        changed = (row < self.best) | (self.step == 0)
        changed[medoid] = True
        donors, counts = np.unique(self.nearest[changed], return_counts=True)
        self.moves.append(np.stack([np.full(len(donors), self.step), donors, counts], 1))
        self.best[changed], self.nearest[changed] = row[changed], self.step
        self.best[medoid] = 0
        self.taken[self.step], self.gains[self.step] = medoid, gain
        self.step += 1

    def finish(
        self,
        starts: Longs,
        ids: Ints,
        values: Floats,
        xi: float,
        limits: Floats | None = None,
    ) -> Doubles:
        """Fill the budget by the greedy over the balls; return the gains that are left.

        Args:
            starts: (n + 1,) where the ball of each point begins in ``ids`` and ``values``.
            ids: candidates.
            values: their distances.
            xi: stop at this sum of distances.
            limits: (n,) gains count from min(m_i, limit); None means m_i.
        """
        places, points = kernels.columns(starts, ids)
        gain = self.masked
        best = self.best if limits is None else np.minimum(self.best, limits)
        self.step, moves = kernels.greedy(
            starts,
            ids,
            values,
            places,
            points,
            self.step,
            xi,
            best,
            self.best,
            self.nearest,
            self.taken,
            self.gains,
            gain,
        )
        self.moves.append(moves)
        return gain

    def medoids(
        self,
        gain: Doubles,
        reason: str = "",
        slack: float = 0.0,
        covered: float = 1.0,
        proven: bool = True,
    ) -> Medoids:
        """Wrap up, with the candidates' final gains; see ``Medoids``."""
        k = self.step
        return Medoids(
            torch.from_numpy(self.taken[:k]),
            torch.from_numpy(self.nearest),
            torch.from_numpy(self.best),
            torch.from_numpy(self.gains[:k]),
            torch.from_numpy(np.concatenate(self.moves)),
            torch.from_numpy(largest(gain, k)),
            self.constant,
            slack,
            self.seeds,
            covered,
            proven,
            reason=reason,
        )


def _counted(changes: Longs) -> Moves:
    """Return (to, donor, count) of changes, (m, 2) of medoid and donor."""
    return _merged([np.concatenate([changes, np.ones((len(changes), 1), np.int64)], 1)])


def _merged(tables: Sequence[Moves]) -> Moves:
    """Return tables of (to, donor, count) as one, with each pair once."""
    to, donor, count = np.concatenate(tables).T
    base = donor.max(initial=-1) + 2
    pairs, places = np.unique(to * base + donor + 1, return_inverse=True)
    counts = np.bincount(places, count, len(pairs)).astype(np.int64)
    return np.stack([pairs // base, pairs % base - 1, counts], 1)


def largest(gain: Doubles, k: int) -> Doubles:
    """Return the k largest marginal gains, or all there are, in descending order."""
    left = gain[gain > -np.inf]
    top = np.partition(left, len(left) - k)[len(left) - k :] if k < len(left) else left
    return np.sort(top)[::-1].clip(0).copy()


def enough(given: Longs, errors: Doubles, xi: float) -> Longs:
    """Return so many of the given medoids as xi asks for; errors: sum_i m_i after each."""
    within = np.flatnonzero(errors <= xi)
    return given[: within[0] + 1] if len(within) else given


def offsets(counts: Longs) -> Longs:
    """Return where each ball begins, and the end of the last: (n + 1,)."""
    return np.concatenate([np.zeros(1, np.int64), counts.cumsum()])


def scanned(rows: Floats, limits: Floats) -> tuple[Ints, Floats, Longs]:
    """Return the columns and values of the entries below each row's limit, and how many."""
    ids, values = np.empty(rows.size, np.int32), np.empty(rows.size, np.float32)
    counts = np.empty(len(rows), np.int64)
    kept = kernels.scan(rows, limits, ids, values, counts)
    return ids[:kept].copy(), values[:kept].copy(), counts
