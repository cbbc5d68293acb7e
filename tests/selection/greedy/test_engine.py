"""The engines of facility location against each other, against brute force, within their limits."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from math import e as euler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import Tensor

from augloader import Proxies
from augloader.selection import greedy_medoids
from augloader.selection.greedy import engine as engine_module
from augloader.selection.greedy import graph, matrix_free, memory, stochastic
from augloader.selection.greedy.engine import Engine, Task, facility_location, facility_locations
from augloader.selection.greedy.medoids import Medoids
from augloader.selection.greedy.neighbors import NeighborGraph
from tests.reference import best_coverage, naive_greedy, objective
from tests.selection.greedy.test_medoids import proxies, rounding

N = 3000
ENGINES: list[Engine] = ["dense", "matrix-free", "graph"]
FORMS = ["vector", "outer"]
# Options of every way to select; the names of pytest.
WAYS = [{"engine": engine} for engine in ENGINES] + [{"engine": "dense", "stochastic": 0.1}]


@contextmanager
def constants(**values: Any) -> Iterator[None]:
    """Change the engines' constants, so that small data goes the ways of large data."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (engine_module, graph, matrix_free, memory, stochastic):
            for name, value in values.items():
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


def tiny() -> Any:
    """Three neighbours a point, two seeds, chosen on a sample of six."""
    return constants(
        SAMPLE=6, _SEEDS=2, _BALL=3, _ANCHORS=(2, 3), neighbors_for=lambda n, budget: 3
    )


@cache
def residuals(form: str, n: int = N) -> tuple[Proxies, Tensor]:
    points = proxies(form, n)
    return points, points.distances()


def gaussian(n: int, d: int = 3, seed: int = 0) -> Proxies:
    return Proxies(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def error_of(distances: Tensor, chosen: Tensor) -> float:
    """sum_i m_i, the bound of Eq. 8."""
    return float(distances[:, chosen].min(1).values.double().sum())


def assert_medoids(found: Medoids, points: Proxies, nearest: bool) -> None:
    """What holds of the medoids of any engine; ``nearest``: all distances were compared."""
    distances, scale = points.distances(), rounding(points)
    n, k = len(distances), len(found.indices)
    assert len(found.indices.unique()) == k
    assert found.indices.min() >= 0
    assert found.indices.max() < n
    assert found.nearest[found.indices].tolist() == list(range(k))
    own = distances.gather(1, found.indices[found.nearest][:, None])[:, 0]
    torch.testing.assert_close(found.distances, own, rtol=1e-5, atol=scale)
    assert found.constant >= float(distances.max()) * (1 - 1e-6) - scale
    reached = (found.constant - own.double()).sum().item()
    assert found.coverage == pytest.approx(reached, rel=1e-6, abs=n * scale)
    assert float(found.gains.sum()) <= reached * (1 + 1e-6) + n * scale
    assert torch.equal(found.sizes_of(k), found.sizes)
    for budget in {1, 2, k // 3, k - 1, k} & set(range(1, k + 1)):
        sizes, block = found.sizes_of(budget), distances[:, found.indices[:budget]].clone()
        assert sizes.sum() == n
        assert (sizes >= 1).all()
        if nearest:  # every cluster has the points that are clearly nearest, and no others
            least = block.min(1, keepdim=True).values
            assert found.coverage_of(budget) == pytest.approx(
                found.constant * n - float(least.sum(dtype=torch.float64)), rel=1e-6, abs=n * scale
            )
            block[found.indices[:budget], torch.arange(budget)] = -torch.inf
            within = block <= block.min(1, keepdim=True).values * (1 + 1e-5) + scale
            assert (within[within.sum(1) == 1].sum(0) <= sizes).all()
            assert (sizes <= within.sum(0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("budget", [30, 300, 900])
def test_medoids_are_valid_and_close_to_the_dense_engines(form: str, budget: int) -> None:
    """Where the sample is all of the data, the seeds are the greedy's own."""
    points, distances = residuals(form)
    dense = facility_location(points, budget, engine="dense")
    free = facility_location(points, budget, engine="matrix-free")
    graph = facility_location(points, budget, engine="graph")
    for found in (dense, free, graph):
        assert_medoids(found, points, nearest=found is not graph)
    reached = objective(distances, dense.indices)
    assert free.indices.tolist() == dense.indices.tolist()
    # Measured: at most 2.1e-3 at 1 %, 3.7e-3 above.
    error = objective(distances, graph.indices) / reached - 1
    assert error <= (1e-2 if budget == 30 else 6e-3)
    # What the graph assigns is the nearest medoid but for a few points.
    assert float(graph.distances.double().sum()) <= objective(distances, graph.indices) * 1.001


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("engine", ["matrix-free", "graph"])
@pytest.mark.parametrize(("budget", "most"), [(30, 2e-2), (300, 1e-2), (900, 1e-2)])
def test_seeds_of_a_sample_cost_little(form: str, engine: Engine, budget: int, most: float) -> None:
    """Measured with a sample of a third: up to 1.1e-2 at 1 %, 8.7e-3 above."""
    points, distances = residuals(form)
    reached = objective(distances, facility_location(points, budget, engine="dense").indices)
    with constants(SAMPLE=N // 3):
        found = facility_location(points, budget, engine=engine, seed=1)
        other = facility_location(points, budget, engine=engine, seed=2)
        again = facility_location(points, budget, engine=engine, seed=1)
    assert_medoids(found, points, nearest=engine == "matrix-free")
    assert objective(distances, found.indices) / reached - 1 <= most
    assert objective(distances, other.indices) / reached - 1 <= most
    assert torch.equal(found.indices, again.indices)
    assert torch.equal(found.gains, again.gains)
    assert not torch.equal(found.indices, other.indices)


@pytest.mark.parametrize("budget", [30, 300, 900])
def test_the_graph_of_outer_products_costs_little_against_the_exact_graph(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured: at most 1.1e-3 of the objective, 94 % of the neighbours found."""
    points, distances = residuals("outer")

    def exact(points: Proxies, k: int, *, seed: int) -> NeighborGraph:
        order = distances.argsort(dim=1, stable=True)[:, :k]
        near = distances.gather(1, order).numpy()
        return NeighborGraph(order.numpy().astype(np.int32), near, exact=True)

    found = facility_location(points, budget, engine="graph")
    monkeypatch.setattr(graph, "neighbor_graph", exact)
    better = facility_location(points, budget, engine="graph")
    error = objective(distances, found.indices) / objective(distances, better.indices) - 1
    assert abs(error) <= 5e-3
    assert better.proven
    assert not found.proven


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_threads_change_nothing(form: str, way: dict[str, Any]) -> None:
    points, before = proxies(form, 700), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with constants(SAMPLE=200):
                found.append(facility_location(points, 150, **way))
    finally:
        torch.set_num_threads(before)
    one, three = found
    for name in ("indices", "nearest", "distances", "gains", "moves", "rest"):
        assert torch.equal(getattr(one, name), getattr(three, name)), name


@pytest.mark.parametrize("way", WAYS)
def test_xi_stops_at_the_first_size_within_it(way: dict[str, Any]) -> None:
    points, n = gaussian(400, 2), 400
    distances = points.distances()
    order = facility_location(points, n, **way).indices
    # Beyond the first 32, which the graph chooses before it looks at the neighbours.
    for k in (1, 5, 60, 120, 250, n):
        xi = error_of(distances, order[:k]) * (1 + 1e-6)
        found = facility_location(points, n, xi=xi, **way)
        assert found.indices.tolist() == order[:k].tolist()
        assert_medoids(found, points, nearest=way["engine"] != "graph")
    assert len(facility_location(points, 30, xi=0.0, **way).indices) == 30
    assert len(facility_location(points, 30, xi=float("inf"), **way).indices) == 1


@pytest.mark.parametrize("way", WAYS)
@drawn(st.sampled_from(FORMS), st.integers(1, 60), st.integers(0, 999), st.floats(0, 1), st.data())
def test_where_xi_stops_it_bounds_the_error_of_the_gradient(
    way: dict[str, Any], form: str, n: int, seed: int, share: float, data: st.DataObject
) -> None:
    points, scale = proxies(form, n, seed), rounding(proxies(form, n, seed))
    first = facility_location(points, 1, **way)
    xi = share * float(first.distances.double().sum())
    start = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    start = start[: data.draw(st.integers(0, n // 4))]
    with tiny() if data.draw(st.booleans()) else nullcontext():
        found = facility_location(points, n, xi=xi, start=start, **way)
    assert len(found.indices) == n or float(found.distances.double().sum()) <= xi
    g = points.gradient.double()
    if points.features is not None:
        g = (g[:, :, None] * points.features.double()[:, None]).flatten(1)
    error = g.sum(0) - (found.sizes[:, None] * g[found.indices]).sum(0)
    assert float(error.norm()) <= xi * (1 + 1e-6) + n * scale


@pytest.mark.parametrize("way", WAYS)
def test_xi_of_0_leaves_the_duplicates(way: dict[str, Any]) -> None:
    for seed in range(4):
        base = np.random.default_rng(seed).integers(0, 100, (60, 2))
        x = np.unique(base, axis=0).repeat(5, 0)
        found = facility_location(Proxies(torch.tensor(x).float()), len(x), xi=0.0, **way)
        assert found.distances.max() == 0
        if "stochastic" not in way:
            assert len(found.indices) == len(x) // 5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["alike", "far and alike", "two", "some", "far", "farther"])
@pytest.mark.parametrize("n", [1, 2, 40, 300])  # 300: more alike than a point has neighbours
def test_duplicates_and_far_points(way: dict[str, Any], kind: str, n: int) -> None:
    x = gaussian(n, 3).gradient
    if "alike" in kind:
        x = torch.full((n, 3), 1000.3 if "far" in kind else 0.0)
    elif kind == "two":
        x = torch.tensor([[0.0], [5.0]])[torch.arange(n) % 2]
    elif kind == "some":
        x[: 2 * n // 3] = x[0].clone()
    else:
        x = x + 3000 if kind == "far" else x.double() + 1e5
    points = Proxies(x)
    distances = points.distances()
    for budget in sorted({1, -(-n // 20), -(-n // 3), n}):
        found = facility_location(points, budget, **way)
        assert len(found.indices) == budget
        assert found.sizes.sum() == n
        if kind == "alike":
            assert found.coverage == found.bound(budget) == 0
        elif kind == "two":
            assert found.distances.max() == (0 if budget > 1 or n == 1 else 5)
        if kind in ("alike", "two", "some"):
            assert_medoids(found, points, nearest=way["engine"] != "graph")
        if "far" in kind and n == 300:
            own = distances.gather(1, found.indices[found.nearest][:, None])[:, 0]
            torch.testing.assert_close(found.distances, own, rtol=1e-4, atol=1e-3)
        if kind in ("far", "farther"):
            greedy = torch.tensor(naive_greedy(distances.numpy(), budget)[0])
            share = 1.25 if "stochastic" in way else 1.02
            most = objective(distances, greedy) * (share if n == 300 else 2)
            assert objective(distances, found.indices) <= most + 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_no_candidate_is_lost_to_rounding(form: str) -> None:
    """In clusters far apart, where products in float32 cancel to noise."""
    x = gaussian(300, 3).gradient * 1e-3 + torch.arange(300)[:, None] % 2
    h = gaussian(300, 4, 1).gradient * 1e-3 + 1 if form == "outer" else None
    points = Proxies(x, h)
    distances = points.distances().numpy()
    radii = np.quantile(distances, 0.2, axis=1).astype(np.float32)
    seen, surely = np.zeros((300, 300), bool), distances < radii[:, None] * (1 - 1e-3)
    for first, counts, ids, values in matrix_free._balls(points, radii):
        rows = np.repeat(np.arange(first, first + len(counts)), counts)
        seen[rows, ids] = True
        np.testing.assert_allclose(values, distances[rows, ids], rtol=1e-3, atol=rounding(points))
        assert (values < radii[rows]).all()
    assert seen[surely].all()
    assert not seen[distances > radii[:, None] * (1 + 1e-3)].any()


@pytest.mark.parametrize(("budget", "poor"), [(8, 1.0), (8, 0.02), (40, 0.02)])
def test_a_cluster_that_is_wider_than_its_neighbours_show(budget: int, poor: float) -> None:
    """Thirty points close together, of which each knows three: their gains look small."""
    x = gaussian(40, 2).gradient * torch.tensor([1.0] * 10 + [1e-3] * 30)[:, None]
    x[10:] += 10
    points, start = Proxies(x), torch.tensor([0])
    distances = points.distances()
    with constants(neighbors_for=lambda n, budget: 3, _POOR=poor):
        found = facility_location(points, budget, engine="graph", start=start)
    assert_medoids(found, points, nearest=False)
    assert found.proven
    for k in (1, 2):
        best = best_coverage(distances.numpy(), k, found.constant)
        assert found.coverage_of(k) <= best <= found.bound(k) * (1 + 1e-6)


def test_a_tiny_budget_of_the_graph_is_chosen_on_a_sample() -> None:
    points, distances = residuals("vector")
    with constants(SAMPLE=500):
        found = facility_location(points, 8, engine="graph")
        assert_medoids(found, points, nearest=True)
        reached = objective(distances, found.indices)
        dense = facility_location(points, 8, engine="dense")
        assert reached <= objective(distances, dense.indices) * 1.1
        xi = error_of(distances, found.indices[:5]) * (1 + 1e-6)
        within = facility_location(points, 8, engine="graph", xi=xi)
    assert within.indices.tolist() == found.indices[:5].tolist()
    assert found.bound(8) == pytest.approx(found.constant * N)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("budget", "given"), [(120, 5), (120, 50), (120, 120), (2, 1), (40, 0)])
def test_start_comes_first_and_is_kept_in_order(
    form: str, way: dict[str, Any], budget: int, given: int
) -> None:
    points = proxies(form, 600)
    start = torch.randperm(600, generator=torch.Generator().manual_seed(1))[:given]
    with constants(SAMPLE=200):
        found = facility_location(points, budget, start=start, **way)
    assert len(found.indices) == budget
    assert found.indices[:given].tolist() == start.tolist()
    assert_medoids(found, points, nearest=way["engine"] != "graph")
    assert found.seeds >= given


@pytest.mark.parametrize("form", FORMS)
def test_after_its_seeds_the_matrix_free_engine_is_the_greedy(form: str) -> None:
    points = proxies(form, 400)
    distances = points.distances()
    with constants(SAMPLE=60):
        found = facility_location(points, 90, engine="matrix-free")
    seeds = found.seeds
    assert 16 <= seeds < 90
    going_on = greedy_medoids(distances, 90, start=found.indices[:seeds])
    assert found.indices.tolist() == going_on.indices.tolist()
    torch.testing.assert_close(found.gains[seeds:], going_on.gains[seeds:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.rest, going_on.rest, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_xi_counts_the_start_too(way: dict[str, Any]) -> None:
    points, start = gaussian(300), torch.arange(30)
    xi = error_of(points.distances(), start[:3]) * (1 + 1e-6)
    found = facility_location(points, 50, start=start, xi=xi, **way)
    assert found.indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "start", [[1, 1], [0, 9], [-1], [0, 1, 2, 3], [[0], [1]]], ids=lambda start: str(start)
)
def test_bad_starts(start: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"start must be at most 3 distinct positions in \[0, 9\)"):
        facility_location(gaussian(9), 3, start=torch.tensor(start))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("neighbors", [2, 6, 15])
@pytest.mark.parametrize("budget", [1, 3, 12, 40])
def test_no_pair_exceeds_the_certificate_of_a_sparse_graph(
    form: str, neighbors: int, budget: int
) -> None:
    """2 k budget < 60 is chosen on the sample alone; laws hold smaller data against brute force."""
    for seed in range(4):
        points = proxies(form, 60, seed)
        matrix = points.distances().numpy()
        with constants(neighbors_for=lambda n, budget: neighbors, SAMPLE=20, _ANCHORS=(2, 4)):
            found = facility_location(points, budget, engine="graph", seed=seed)
        assert_medoids(found, points, nearest=False)
        for k in (1, 2)[:budget]:
            best = best_coverage(matrix, k, found.constant)
            assert found.coverage_of(k) <= best * (1 + 1e-6)
            assert best <= found.bound(k) * (1 + 1e-6)
        greedy = naive_greedy(matrix, budget)[0]  # a lower bound of the optimum
        reached = found.constant * 60 - float(matrix[:, greedy].min(1).sum(dtype=np.float64))
        assert reached <= found.bound(budget) * (1 + 1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
@pytest.mark.parametrize("budget", [1, 2, 4])
@pytest.mark.parametrize("engine", ["dense", "graph"])
def test_the_stochastic_greedy_reaches_its_guarantee_in_the_mean(
    epsilon: float, budget: int, engine: Engine
) -> None:
    """Mirzasoleiman et al. (2015): (1 - 1/e - epsilon) of the optimum in expectation."""
    points = gaussian(10, 2)
    distances = points.distances().numpy()
    reached, best = [], 0.0
    for seed in range(40):
        found = facility_location(points, budget, engine=engine, stochastic=epsilon, seed=seed)
        best = best_coverage(distances, budget, found.constant)
        assert found.coverage <= best * (1 + 1e-6) <= found.bound(budget) * (1 + 1e-6)
        reached.append(found.coverage)
    assert np.mean(reached) >= (1 - 1 / euler - epsilon) * best
    assert f"stochastic, epsilon {epsilon}" in found.reason


def test_the_stochastic_greedy_is_close_to_the_greedy() -> None:
    points, distances = residuals("vector", 1000)
    found = facility_location(points, 100, stochastic=0.1)
    greedy = facility_location(points, 100)
    other = facility_location(points, 100, stochastic=0.1, seed=1)
    assert not torch.equal(found.indices, other.indices)
    # Measured: 5 to 7 % more.
    assert objective(distances, found.indices) <= 1.15 * objective(distances, greedy.indices)


# The choice ---------------------------------------------------------------------------------------

ROOM = 2**40


def every(limit: int) -> dict[str, int]:
    """The same limit for all engines."""
    return dict.fromkeys(ENGINES, limit)


def blank(n: int, d: int = 10) -> Proxies:
    return Proxies(torch.zeros(n, d))


@pytest.mark.parametrize(
    ("n", "d", "limit", "engine"),
    [
        (2, 10, ROOM, "dense"),
        (16_384, 10, ROOM, "dense"),
        (16_385, 10, ROOM, "matrix-free"),
        (50_000, 10, ROOM, "matrix-free"),
        (150_000, 10, ROOM, "graph"),
        (60_000, 200, ROOM, "graph"),
        (10_000, 10, 4 * 10**8, "matrix-free"),  # the distances alone fill it
        (150_000, 10, 15 * 10**7, "matrix-free"),  # less than the neighbours take
    ],
)
def test_auto_takes_the_first_that_fits(n: int, d: int, limit: int, engine: str) -> None:
    name, reason = engine_module._choose(blank(n, d), n // 100 or 1, "auto", every(limit))
    assert name == engine
    assert f"n = {n:,}" in reason


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("n", [2, 500, 20_000])
def test_a_limit_that_is_too_small_names_the_least(n: int, engine: Engine) -> None:
    needs = [
        memory.dense_bytes(n),
        memory.matrix_free_bytes(n, 10),
        memory.graph_bytes(n, (10,), 2),
    ]
    least = min(needs) if engine == "auto" else needs[ENGINES.index(engine)]
    pattern = rf"memory_limit must .* {n:,} samples, got {least - 1:,} bytes: .*needs {least:,}\."
    with pytest.raises(ValueError, match=pattern):
        facility_location(blank(n), 2, engine=engine, memory_limit=least - 1)
    assert engine_module._choose(blank(n), 2, engine, every(least))[0] in ENGINES


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_runs_within_the_least_it_names(engine: Engine) -> None:
    with constants(BLOCK=2**14):
        needs = {
            "dense": memory.dense_bytes(2000),
            "matrix-free": memory.matrix_free_bytes(2000, 10),
            "graph": memory.graph_bytes(2000, (10,), 200),
        }
        points = residuals("vector", 2000)[0]
        found = facility_location(points, 200, engine=engine, memory_limit=needs[engine])
    assert found.engine == engine
    assert len(found.indices) == 200


def test_auto_falls_back_to_the_graph_where_the_balls_do_not_fit() -> None:
    """The matrix-free engine knows their size only after its sample."""
    points = gaussian(N, 10)
    with constants(SAMPLE=20, BLOCK=2**12, DENSE=1000):
        limit = 4 * 10**6
        assert engine_module._choose(points, 300, "auto", every(limit))[0] == "matrix-free"
        assert engine_module._choose(points, 300, "graph", every(limit))[0] == "graph"
        with pytest.raises(ValueError, match="matrix-free needs about"):
            facility_location(points, 300, engine="matrix-free", memory_limit=limit)
        assert facility_location(points, 300, memory_limit=limit).engine == "graph"


_PEAK = """
import re, torch
from pathlib import Path
from augloader import Proxies
from augloader.selection.greedy import engine as engine_module
from augloader.selection.greedy import matrix_free, memory

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

points = Proxies(torch.randn(40_000, 10, generator=torch.Generator().manual_seed(0)))
engine_module.facility_location(points[torch.arange(300)], 50, engine="matrix-free")
before, limit = peak(), 2 * memory.matrix_free_bytes(40_000, 10)
engine_module.facility_location(points, 4000, engine="matrix-free", memory_limit=limit)
print((peak() - before) / limit)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures the peak as Linux counts it")
def test_the_matrix_free_engine_keeps_its_memory_limit() -> None:
    ran = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert float(ran.stdout) <= 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"budget": 0}, ValueError, "budget must be at least 1"),
        ({"budget": 10}, ValueError, "budget must be at most 9, got 10"),
        ({"budget": 2.0}, TypeError, "budget must be an integer"),
        ({"xi": -1.0}, ValueError, r"xi must be in \[0, inf\]"),
        ({"engine": "fast"}, ValueError, "engine must be one of 'auto', 'dense'"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be at least 1"),
        ({"memory_limit": 1e9}, TypeError, "memory_limit must be an integer"),
        ({"stochastic": 0.0}, ValueError, "stochastic must be in"),
        ({"stochastic": 1.0}, ValueError, r"stochastic must be in \(0, 1\), got 1"),
        ({"stochastic": True}, TypeError, "stochastic must be a number"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        facility_location(gaussian(9), **({"budget": 2} | options))


@pytest.mark.parametrize("way", WAYS)
def test_many_groups_are_each_a_run_of_its_own(way: dict[str, Any]) -> None:
    points, none = residuals("outer", 400)[0], torch.empty(0, dtype=torch.int64)
    members = torch.arange(400).split([250, 50, 100])
    starts = [none, torch.tensor([4, 2]), none]
    tasks = [Task(m, len(m) // 5, start, 7) for m, start in zip(members, starts, strict=True)]
    together = facility_locations(
        tasks,
        lambda task: points[task.members],
        torch.device("cpu"),
        **({"memory_limit": None, "xi": None, "stochastic": None} | way),
    )
    for task, found in zip(tasks, together, strict=True):
        alone = facility_location(points[task.members], task.share, start=task.start, seed=7, **way)
        assert torch.equal(found.indices, alone.indices)
        assert torch.equal(found.nearest, alone.nearest)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [*WAYS, {"engine": "auto"}])
@pytest.mark.parametrize("start", [[], [5, 700, 2]])
def test_proxies_on_the_gpu_in_every_engine(
    form: str, way: dict[str, Any], start: list[int]
) -> None:
    points, distances = residuals(form, 1000)
    features = None if points.features is None else points.features.cuda()
    there = Proxies(points.gradient.cuda(), features)
    given = torch.tensor(start, dtype=torch.int64)
    found = facility_location(there, 200, start=given, **way)
    assert found.indices[: len(start)].tolist() == start
    assert_medoids(found, points, nearest=way["engine"] != "graph")
    here = facility_location(points, 200, start=given, **way)
    tolerance = 1.1 if "stochastic" in way else 1.005
    assert objective(distances, found.indices) <= tolerance * objective(distances, here.indices)


def test_groups_at_once_equal_groups_one_after_the_other() -> None:
    """What runs on a GPU, here on the CPU: groups of like sizes padded to the largest of them."""
    points = gaussian(400, 3)
    sizes = [3, 120, 50, 2, 70, 61, 94]
    none = torch.empty(0, dtype=torch.int64)
    tasks = [
        Task(members, max(1, len(members) // 3), none, seed)
        for seed, members in enumerate(torch.arange(400).split(sizes))
    ]
    tasks[2] = replace(tasks[2], start=torch.tensor([40, 4]))
    options: dict[str, Any] = {"engine": "auto", "memory_limit": None, "xi": None}
    cpu, limit = torch.device("cpu"), 4 * 120**2 - 1

    def proxies_of(task: Task) -> Proxies:
        return points[task.members]

    alone = facility_locations(tasks, proxies_of, cpu, stochastic=None, **options)
    waves = engine_module._waves(tasks, limit)  # not the largest, which does not fit
    assert [[[sizes[t] for t in bucket] for bucket in wave] for wave in waves] == [
        [[94]],
        [[70, 61]],
        [[50], [3, 2]],
    ]
    together: dict[int, Medoids] = {}
    for wave in waves:
        together |= engine_module._at_once(tasks, wave, proxies_of, cpu, None)
    assert sorted(together) == [0, 2, 3, 4, 5, 6]
    for t, found in together.items():
        assert found.indices.tolist() == alone[t].indices.tolist()
        assert torch.equal(found.nearest, alone[t].nearest)
        assert torch.equal(found.distances, alone[t].distances)
        assert found.seeds == alone[t].seeds
        for k in range(1, len(found.indices) + 1):
            assert torch.equal(found.sizes_of(k), alone[t].sizes_of(k))
        torch.testing.assert_close(found.gains, alone[t].gains)
        torch.testing.assert_close(found.rest, alone[t].rest)
        assert "at once on cpu" in found.reason


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_numbers_are_vectors(engine: Engine) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    expected = facility_location(Proxies(x), 5, engine=engine)
    for rows in (x, x.numpy(), x.clone().requires_grad_(), x.tolist()):
        found = facility_location(rows, 5, engine=engine)  # type: ignore[arg-type]
        assert torch.equal(found.indices, expected.indices)
    for wrong in ("x", None, {1: 2}):
        with pytest.raises(TypeError, match=r"proxies must be a tensor .*Pass Proxies\(gradient\)"):
            facility_location(wrong, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"proxies must be of 1 sample or more, got none"):
        facility_location(x[:0], 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed must be an int, got None"):
        facility_location(Proxies(x), 5, seed=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"engine": engine} for engine in ENGINES] + [{"stochastic": 0.5}]
)
def test_distances_beyond_float32_are_refused(options: dict[str, Any]) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(ValueError, match=r"distances must be finite in float32, got (inf|nan|\d)"):
        facility_location(Proxies(x * 1e39), 5, **options)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), "FAISS"])
def test_without_room_on_the_gpu_the_cpu_goes_on(
    at_once: bool, error: Any, monkeypatch: pytest.MonkeyPatch, gpu: Any
) -> None:
    """It is said once, and what the GPU had finished is kept."""
    if error == "FAISS":
        error = RuntimeError("Error: 'err == cudaSuccess' failed: CUDA malloc error out of memory")
    points = gaussian(120)
    tasks = [
        Task(members, 6, torch.tensor([3]), seed)
        for seed, members in enumerate(torch.arange(120).split(40))
    ]
    there = Proxies(points.gradient.cuda())
    cpu, device = torch.device("cpu"), torch.device("cuda")
    options: dict[str, Any] = {"memory_limit": None, "xi": None, "stochastic": None}
    plain, plain_at_once, calls = engine_module._medoids, engine_module._at_once, []

    def full(*args: Any) -> Any:
        calls.append(args)
        raise error

    def medoids(task: Task, proxies: Proxies, *args: Any) -> Medoids:
        if proxies.device.type == "cpu":
            return plain(task, proxies, *args)
        return full() if task.seed == 1 else plain(task, proxies, *args)

    monkeypatch.setattr(engine_module, "_at_once", full if at_once else plain_at_once)
    monkeypatch.setattr(engine_module, "_medoids", medoids)
    engine: Engine = "auto" if at_once else "graph"
    with pytest.warns(UserWarning, match="ran out of the GPU's memory and goes on on the CPU") as w:
        found = facility_locations(
            tasks, lambda task: there[task.members], device, engine=engine, **options
        )
    assert len(w) == len(calls) == 1
    here = facility_locations(
        tasks, lambda task: points[task.members], cpu, engine=engine, **options
    )
    for a, b in zip(found, here, strict=True):
        assert torch.equal(a.indices, b.indices)
        assert torch.equal(a.nearest, b.nearest)


def test_other_errors_of_the_gpu_are_raised(monkeypatch: pytest.MonkeyPatch, gpu: Any) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(engine_module, "_at_once", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        facility_location(Proxies(gaussian(20).gradient.cuda()), 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "way", [{"engine": "auto"}, {"engine": "matrix-free"}, {"engine": "graph"}, {"stochastic": 0.2}]
)
@pytest.mark.parametrize("start", [[], [5, 70, 2]])
def test_a_pretended_gpu_equals_the_cpu(
    form: str, way: dict[str, Any], start: list[int], gpu: Any
) -> None:
    points, _ = residuals(form, 99)
    features = None if points.features is None else points.features.cuda()
    there = Proxies(points.gradient.cuda(), features)
    here = facility_location(points, 12, start=torch.tensor(start, dtype=torch.int64), **way)
    found = facility_location(there, 12, start=torch.tensor(start, dtype=torch.int64), **way)
    assert found.indices.tolist() == here.indices.tolist()
    assert torch.equal(found.nearest, here.nearest)
    assert found.seeds == here.seeds
    for k in range(1, 13):
        assert torch.equal(found.sizes_of(k), here.sizes_of(k))
        assert found.bound(k) == pytest.approx(here.bound(k), rel=1e-6)
    for name in ("gains", "rest", "distances"):
        torch.testing.assert_close(getattr(found, name), getattr(here, name), rtol=1e-6, atol=1e-6)


def test_large_groups_find_their_balls_on_the_gpu(gpu: Any) -> None:
    """Beyond the seeds; what is found there is made exact on the CPU, to the last bit."""
    for form in FORMS:
        points, _ = residuals(form, 300)
        features = None if points.features is None else points.features.cuda()
        there = Proxies(points.gradient.cuda(), features)
        radii = points.distances().topk(9, largest=False).values[:, -1].numpy()
        for here, found in zip(
            matrix_free._balls(points, radii), matrix_free._balls(there, radii), strict=True
        ):
            assert here[0] == found[0]
            for a, b in zip(here[1:], found[1:], strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_proxies_in_a_file_are_selected_from_as_those_in_memory(mode: Any, tmp_path: Path) -> None:
    points = gaussian(9000, 6).gradient
    np.save(tmp_path / "proxies.npy", points.numpy())
    mapped = Proxies(np.load(tmp_path / "proxies.npy", mmap_mode=mode))
    here, there = (facility_location(p, 300, engine="graph") for p in (Proxies(points), mapped))
    assert torch.equal(here.indices, there.indices)
    assert torch.equal(here.sizes, there.sizes)
