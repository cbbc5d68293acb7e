"""Nearest medoids and nearest neighbours against brute force and the greedy's own."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from augloader import Proxies
from augloader.selection import greedy_medoids, nearest
from augloader.selection.greedy import search
from augloader.selection.greedy.neighbors import NeighborGraph, neighbor_graph
from tests.selection.greedy.test_medoids import proxies, rounding


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_equals_brute_force(form: str) -> None:
    points, medoids = proxies(form, 3000, 1), proxies(form, 100, 2)
    found, distance = nearest(points, medoids)
    matrix = points.distances(medoids)
    torch.testing.assert_close(distance, matrix.min(1).values, rtol=1e-4, atol=1e-6)
    # Up to ties: what was found is as near as the nearest.
    mine = matrix.gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(mine, matrix.min(1).values, rtol=1e-4, atol=1e-6)
    assert (found == matrix.argmin(1)).float().mean() > 0.99


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_agrees_with_the_greedy_up_to_ties(form: str) -> None:
    points = proxies(form, 800)
    medoids = greedy_medoids(points.distances(), 80)
    found, distance = nearest(points, points[medoids.indices])
    torch.testing.assert_close(distance, medoids.distances, rtol=1e-4, atol=1e-5)
    differ = found != medoids.nearest
    sizes = torch.bincount(found, minlength=80)
    assert differ.float().mean() < 0.01
    assert (sizes - medoids.sizes).abs().sum() <= 2 * differ.sum()


@pytest.mark.parametrize(("dtype", "origin"), [(torch.float32, 1e3), (torch.float64, 1e6)])
def test_far_from_the_origin(dtype: torch.dtype, origin: float) -> None:
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    points = Proxies(x + origin)
    chosen = torch.arange(0, 500, 10)
    found, _ = nearest(points, points[chosen])
    matrix = points.distances(points[chosen])
    mine = matrix.gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(mine, matrix.min(1).values, rtol=1e-4, atol=1e-4)


def test_other_widths_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="same widths"):
        nearest(Proxies(torch.zeros(3, 2)), Proxies(torch.zeros(1, 3)))
    with pytest.raises(ValueError, match="same dtype and device"):
        nearest(Proxies(torch.zeros(3, 2)), Proxies(torch.zeros(1, 2).double()))


# The graph ----------------------------------------------------------------------------------------


def assert_graph(graph: NeighborGraph, points: Proxies, k: int, rows: int = 500) -> float:
    """Every list: distinct, with the point itself, ascending, exact. Returns some rows' recall."""
    n = len(points)
    assert graph.ids.shape == graph.distances.shape == (n, k)
    chosen = np.linspace(0, n - 1, min(n, rows)).astype(int)
    ids, listed = graph.ids[chosen], graph.distances[chosen]
    known = np.isfinite(listed)
    assert all(len(set(row[ok])) == ok.sum() for row, ok in zip(ids, known, strict=True))
    assert ((ids == chosen[:, None]) & (listed == 0)).any(1).all()
    assert (np.diff(np.where(known, listed, 1e30), axis=1) >= 0).all()
    matrix = points[torch.from_numpy(chosen)].distances(points).numpy()
    scale = rounding(points)
    exact = np.take_along_axis(matrix, ids.astype(np.int64), 1)
    np.testing.assert_allclose(listed[known], exact[known], rtol=1e-4, atol=scale)
    np.testing.assert_array_equal(graph.radius[chosen], np.where(known, listed, 0).max(1))
    farthest = np.partition(matrix, k - 1, axis=1)[:, k - 1 : k]
    return float((listed <= farthest * (1 + 1e-4) + scale).mean())


@pytest.mark.parametrize("form", ["vector", "outer"])
@pytest.mark.parametrize(("n", "k"), [(1, 5), (2, 1), (20, 32), (64, 32), (700, 33)])
def test_lists_are_valid_at_every_size(form: str, n: int, k: int) -> None:
    points = proxies(form, n)
    graph = neighbor_graph(points, k)
    recall = assert_graph(graph, points, min(n, k))
    assert graph.exact == (form == "vector")
    assert recall == 1 or (form == "outer" and n > 2 * k)


@pytest.mark.parametrize("kind", ["residuals", "far", "clusters"])
def test_vectors_are_compared_with_all_up_to_8192(kind: str) -> None:
    x = proxies("vector", 8192).gradient[:4000]
    if kind == "far":
        x = x + 1000
    elif kind == "clusters":  # whose spread is far below their distance
        x = x * 1e-3 + torch.arange(4000)[:, None] % 2
    graph = neighbor_graph(Proxies(x), 32)
    assert graph.exact
    assert assert_graph(graph, Proxies(x), 32) >= 0.9999
    oracle = NearestNeighbors(n_neighbors=32).fit(x.double().numpy())
    expected = oracle.kneighbors(x.double().numpy())[0]
    np.testing.assert_allclose(graph.distances, expected, rtol=2e-3, atol=rounding(Proxies(x)))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("kind", "least"), [("residuals", 0.99), ("gaussian", 0.9)])
def test_an_inverted_file_finds_most_neighbours_of_more(
    kind: str, least: float, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured at n = 20,000 in 10 dimensions: 99.98 % of residuals', 93.7 % of Gaussians'."""
    monkeypatch.setattr(search, "_LISTS", 10 if nested else 1000)
    x = torch.randn(20_000, 10, generator=torch.Generator().manual_seed(0))
    points = Proxies(x) if kind == "gaussian" else proxies("vector", 20_000)
    graph = neighbor_graph(points, 32)
    assert not graph.exact
    assert assert_graph(graph, points, 32, rows=400) >= least
    again = neighbor_graph(points, 32)
    assert np.array_equal(graph.ids, again.ids)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_projection_finds_most_neighbours_of_outer_products(seed: int) -> None:
    """Measured: 92 to 95 % of 64, and 99 % of the nearest 16."""
    points = proxies("outer", 2000)
    graph = neighbor_graph(points, 64, seed=seed)
    assert not graph.exact
    assert assert_graph(graph, points, 64) >= 0.9
    nearest_16 = NeighborGraph(graph.ids[:, :16], graph.distances[:, :16], exact=False)
    assert assert_graph(nearest_16, points, 16) >= 0.975
    assert np.array_equal(graph.ids, neighbor_graph(points, 64, seed=seed).ids)
    assert not np.array_equal(graph.ids, neighbor_graph(points, 64, seed=seed + 1).ids)


@pytest.mark.parametrize("form", ["vector", "outer"])
@pytest.mark.parametrize(("n", "lists"), [(300, 1000), (9000, 1000), (9000, 10)])
def test_more_duplicates_than_neighbours(
    form: str, n: int, lists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_LISTS", lists)  # from which on they are nested
    points = proxies(form, n)[torch.arange(n) % 3]
    graph = neighbor_graph(points, 20)
    assert assert_graph(graph, points, 20) == 1
    assert graph.radius.max() <= 1e-6
    assert (graph.ids == np.arange(n)[:, None]).any(1).all()
    alike = Proxies(torch.ones(n, 2))
    assert assert_graph(neighbor_graph(alike, 20), alike, 20) == 1


def test_every_duplicate_is_found_in_a_list_that_is_searched() -> None:
    """Of 60,000 points of three places, whose k-means has 117 centres."""
    points = torch.arange(60_000)[:, None].remainder(3).repeat(1, 4).float()
    found = search.index(points, flat=False)[0](points[:600], 60)
    assert (found >= 0).all()
    assert torch.equal(points[found], points[:600, None].expand(-1, 60, -1))


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["vector", "outer"])
@pytest.mark.parametrize("n", [3000, 10_000])
def test_gpu_graph_is_as_good(form: str, n: int) -> None:
    points = proxies(form, n)
    features = None if points.features is None else points.features.cuda()
    graph = neighbor_graph(Proxies(points.gradient.cuda(), features), 32)
    assert assert_graph(graph, points, 32) >= 0.9


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["vector", "outer"])
def test_gpu_index_agrees_with_the_cpu(form: str) -> None:
    points = proxies(form, 5000, 1)
    chosen = torch.arange(0, 5000, 50)
    features = points.features
    there = Proxies(points.gradient.cuda(), None if features is None else features.cuda())
    _, here_distance = nearest(points, points[chosen])
    found, distance = nearest(there, there[chosen])
    assert found.is_cuda
    torch.testing.assert_close(distance.cpu(), here_distance, rtol=1e-4, atol=1e-5)


def test_rows_of_numbers_have_nearest_ones() -> None:
    x, h = torch.randn(9, 3), torch.rand(9, 2)
    expected = nearest(Proxies(x), Proxies(x[:4]))
    for rows in (x, x.numpy(), x.tolist()):
        found = nearest(rows, rows[:4])  # type: ignore[arg-type]
        assert torch.equal(found[0], expected[0])
    for points in (Proxies(x), Proxies(x, h)):
        none = points[torch.zeros(9, dtype=torch.bool)]
        assert [len(part) for part in nearest(none, points)] == [0, 0]
        with pytest.raises(ValueError, match="medoids must be at least 1, got none"):
            nearest(points, none)
