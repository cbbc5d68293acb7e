"""The compiled loops against a few lines of numpy."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from augloader.core.compiled import Bools, Doubles, Floats, Ints, Longs, roots
from augloader.selection.greedy import kernels
from augloader.selection.greedy.kernels import Moves
from tests.reference import naive_greedy


def points(n: int, d: int = 3, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def distances(n: int, seed: int = 0) -> Floats:
    x = points(n, seed=seed)
    matrix: Floats = cdist(x, x).astype(np.float32)
    return matrix


class Run(NamedTuple):
    """The arrays that the greedy loops fill in."""

    best: Floats
    nearest: Longs
    taken: Longs
    gains: Doubles


def begin(n: int, budget: int, constant: float) -> Run:
    best, nearest = np.full(n, constant, np.float32), np.full(n, -1)
    return Run(best, nearest, np.full(budget, -1), np.zeros(budget))


def balls(d: Floats, limits: Floats) -> tuple[Longs, Ints, Floats]:
    """Every point's candidates that are nearer than its limit: (starts, ids, values)."""
    inside = d < limits[:, None]
    starts = np.concatenate([[0], inside.sum(1).cumsum()])
    return starts, inside.nonzero()[1].astype(np.int32), d[inside]


def replay(moves: Moves, k: int) -> Longs:
    """Cluster sizes when the medoids up to k have been taken, move after move."""
    sizes = np.zeros(k, np.int64)
    for to, donor, count in moves:
        if to < k:
            sizes[to] += count
            if donor >= 0:
                sizes[donor] -= count
    return sizes


def assert_history(moves: Moves, d: Floats, taken: Longs) -> None:
    """The moves up to every size give the sizes of its clusters, ties to the first medoid."""
    for k in range(1, len(taken) + 1):
        own = d[:, taken[:k]].copy()
        own[taken[:k], np.arange(k)] = -1
        sizes = np.bincount(own.argmin(1), minlength=k)
        assert replay(moves, k).tolist() == sizes.tolist()


def test_row_gains() -> None:
    d, best = distances(90), points(90, 1)[:, 0] + 1
    out = np.empty(40)
    kernels.row_gains(d[:40], best, out)
    expected = np.maximum(best.astype(np.float64) - d[:40], 0).sum(1)
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("known", [True, False])
def test_first_steps_is_the_naive_greedy_in_one_go_or_two(known: bool) -> None:
    d = distances(120)
    taken, gains = naive_greedy(d, 30)
    run = begin(120, 30, d.max())
    bounds = 120 * float(d.max()) - d.sum(1, dtype=np.float64) if known else np.full(120, 1e9)
    histories = []
    for steps in (11, 30):
        count, moves = kernels.first_steps(d, steps, -1.0, run.best, run.nearest, bounds, *run[2:])
        assert count == steps
        histories.append(moves)
    assert run.taken.tolist() == taken
    np.testing.assert_allclose(run.gains, gains, rtol=1e-12)
    np.testing.assert_array_equal(run.best, d[:, taken].min(1))
    np.testing.assert_array_equal(run.nearest, d[:, taken].argmin(1))
    assert_history(np.concatenate(histories), d, run.taken)


def test_first_steps_stops_at_the_first_size_within_xi() -> None:
    d = distances(60)
    taken, _ = naive_greedy(d, 60)
    errors = [float(d[:, taken[:k]].min(1).sum(dtype=np.float64)) for k in range(1, 61)]
    for k in (1, 2, 40):
        run, bounds = begin(60, 60, d.max()), np.full(60, 1e9)
        xi = errors[k - 1] * (1 + 1e-9)
        step, _ = kernels.first_steps(d, 60, xi, run.best, run.nearest, bounds, *run[2:])
        assert step == k
        assert (run.taken[k:] == -1).all()


def test_follow_meets_the_medoids_one_by_one() -> None:
    d = distances(50)
    d[7] = d[:, 7] = d[3]  # a duplicate of a medoid, and a medoid itself
    d[3, 7] = d[7, 3] = 0
    given = np.array([3, 20, 7, 41])
    run = begin(50, 4, d.max())
    pairs = [
        kernels.follow(d[start : start + 20, given], start, given, run.best, run.nearest, run.gains)
        for start in (0, 20, 40)
    ]
    gains, best = [], np.full(50, float(d.max()))
    for medoid in given:
        gains.append(np.maximum(best - d[:, medoid], 0).sum())
        best = np.minimum(best, d[:, medoid])
    np.testing.assert_allclose(run.gains, gains, rtol=1e-9)
    np.testing.assert_array_equal(run.best, best)
    changes = np.concatenate(pairs)
    assert_history(np.insert(changes, 2, 1, 1), d, given)
    assert run.nearest[given].tolist() == [0, 1, 2, 3]


def test_below_and_scan_find_the_entries_under_the_limits() -> None:
    rows, limits = points(33, 150), points(33, 1, 1)[:, 0]
    limits[:3] = -9, 9, rows[2, 5]  # none, all, and not the limit itself
    inside = rows < limits[:, None]
    assert kernels.below(rows, limits) == inside.sum()
    ids, values = np.empty(rows.size, np.int32), np.empty(rows.size, np.float32)
    counts = np.empty(33, np.int64)
    kept = kernels.scan(rows, limits, ids, values, counts)
    assert kept == inside.sum()
    assert counts.tolist() == inside.sum(1).tolist()
    np.testing.assert_array_equal(ids[:kept], inside.nonzero()[1])
    np.testing.assert_array_equal(values[:kept], rows[inside])


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_refine_makes_distances_exact_and_drops_those_beyond_the_limits(form: str) -> None:
    g, first = points(70), 30
    h = points(70, 4, 1) if form == "outer" else np.empty((70, 0), np.float32)
    x = g if form == "vector" else (g[:, :, None].astype(float) * h[:, None, :]).reshape(70, -1)
    exact = cdist(x, x)
    norms = (x.astype(np.float64) ** 2).sum(1)
    listed = [np.sort(np.random.default_rng(i).permutation(70)[: i % 9]) for i in range(20)]
    limits = np.quantile(exact, 0.4, axis=1).astype(np.float32)
    counts = np.array([len(part) for part in listed])
    ids = np.concatenate(listed).astype(np.int32)
    values = np.full(len(ids), 77, np.float32)
    kept = kernels.refine(g, h, norms, first, limits[first:], ids, values, counts)
    near = [part[exact[first + r, part] < limits[first + r]] for r, part in enumerate(listed)]
    assert counts.tolist() == [len(part) for part in near]
    assert ids[:kept].tolist() == np.concatenate(near).tolist()
    rows = np.repeat(np.arange(first, first + 20), counts)
    np.testing.assert_allclose(values[:kept], exact[rows, ids[:kept]], rtol=1e-6, atol=1e-6)
    assert (values[:kept][rows == ids[:kept]] == 0).all()


def test_columns_transposes_the_balls() -> None:
    d = distances(40)
    starts, ids, _ = balls(d, np.quantile(d, 0.3, axis=1).astype(np.float32))
    places, members = kernels.columns(starts, ids)
    rows = np.repeat(np.arange(40), np.diff(starts))
    for j in range(40):
        mine = members[places[j] : places[j + 1]]
        assert sorted(mine.tolist()) == rows[ids == j].tolist()


def naive_over_balls(
    d: Floats, known: Bools, best: Floats, actual: Floats, taken: list[int], budget: int
) -> tuple[list[int], list[float], Doubles]:
    """The greedy that knows the distances where ``known`` only, every gain computed anew."""
    gains: list[float] = []
    best, actual = best.astype(np.float64), actual.astype(np.float64)
    taken = list(taken)
    while True:
        gain = np.where(known, np.maximum(best[:, None] - d, 0), 0).sum(0)
        gain[taken] = -np.inf
        if len(taken) == budget:
            return taken, gains, gain
        e = int(gain.argmax())
        reached = known[:, e] & (d[:, e] < best)
        reached[e] = True
        gains.append(float((actual[reached] - d[reached, e]).sum()))
        best[reached] = actual[reached] = d[reached, e]
        taken.append(e)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_greedy_is_the_naive_greedy_over_what_the_balls_show(share: float, limited: bool) -> None:
    """With all distances known and no limits that is the greedy itself."""
    n, budget, seeds = 100, 40, [5, 60, 61]
    d = distances(n, 3)
    run = begin(n, budget, d.max())
    pairs = kernels.follow(d[:, seeds], 0, np.array(seeds), run.best, run.nearest, run.gains)
    run.taken[:3] = seeds
    radius = np.quantile(d, share, axis=1).astype(np.float32)
    known = (d <= radius[:, None]) & (d < run.best[:, None])
    starts, ids = np.concatenate([[0], known.sum(1).cumsum()]), known.nonzero()[1].astype(np.int32)
    best = np.minimum(run.best, radius) if limited else run.best
    expected = naive_over_balls(d, known, best, run.best, seeds, budget)
    gain = np.zeros(n)
    gain[seeds] = -np.inf
    listed = starts, ids, d[known], *kernels.columns(starts, ids)
    step, moves = kernels.greedy(*listed, 3, -1.0, best, *run, gain)
    assert step == budget
    assert (moves[:, 2] > 0).all()
    assert len(np.unique(moves[:, :2], axis=0)) == len(moves)
    assert run.taken.tolist() == expected[0]
    np.testing.assert_allclose(run.gains[3:], expected[1], rtol=1e-6)
    np.testing.assert_allclose(gain, expected[2], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(run.best, d[np.arange(n), run.taken[run.nearest]])
    history = np.concatenate([np.insert(pairs, 2, 1, 1), moves])
    assert replay(history, budget).tolist() == np.bincount(run.nearest).tolist()
    assert all(replay(history, k).sum() == n for k in range(3, budget))
    if share == 1:
        assert_history(moves=history, d=d, taken=run.taken)


def test_greedy_stops_within_xi_also_where_the_first_norm_was_large() -> None:
    """A running sum of squares is left with rounding errors of its first value."""
    for seed in range(8):
        base = np.random.default_rng(seed).integers(0, 100, (60, 2))
        x = np.unique(base, axis=0).repeat(5, 0)
        d = cdist(x, x).astype(np.float32)
        run = begin(len(d), len(d), d.max())
        pairs = kernels.follow(d[:, :1], 0, np.array([0]), run.best, run.nearest, run.gains)
        assert len(pairs) == len(d)
        run.taken[0] = 0
        starts, ids, values = balls(d, run.best)
        gain = np.zeros(len(d))
        gain[0] = -np.inf
        known = starts, ids, values, *kernels.columns(starts, ids)
        step, _ = kernels.greedy(*known, 1, 0.0, run.best, *run, gain)
        assert step == len(x) // 5


def test_row_sums_find_what_is_not_finite() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)
    out = np.empty(7)
    assert kernels.row_sums(rows, out) == rows.max()
    np.testing.assert_allclose(out, rows.sum(1, dtype=np.float64), rtol=1e-12, atol=1e-12)
    rows[3, 5] = np.inf
    assert kernels.row_sums(rows, out) == np.inf
    rows[3, 6] = np.nan
    assert np.isnan(kernels.row_sums(rows, out))


def test_roots_take_negative_rounding_as_zero() -> None:
    squares = np.random.default_rng(0).normal(size=(5, 70))
    out = np.empty(squares.shape, np.float32)
    roots(squares, out)
    np.testing.assert_allclose(out, np.sqrt(squares.clip(0)), rtol=1e-6)
