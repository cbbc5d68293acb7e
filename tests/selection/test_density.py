"""Local density: exact nearest neighbours against brute force, at any place and scale."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from augloader import Clusters, Evidence, LocalDensity, Proportional, Rank
from augloader.selection import density, neighbor_distances
from augloader.selection.greedy.search import compared, index
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def by_brute_force(vectors: Tensor, k: int) -> Tensor:
    """All distances by differences in float64, without the diagonal, sorted."""
    x = vectors.double()
    far = (x[:, None] - x[None]).square().sum(2).sqrt()
    return far.fill_diagonal_(torch.inf).sort(1).values[:, :k]


def score(vectors: Tensor, k: int = 5) -> Tensor:
    return LocalDensity(k)(Evidence(len(vectors), features=vectors))


def assert_exact(vectors: Tensor, k: int, rtol: float = 1e-9, atol: float = 0.0) -> None:
    found = neighbor_distances(vectors, k)
    assert (found.dtype, found.shape) == (torch.float64, (len(vectors), k))
    torch.testing.assert_close(found, by_brute_force(vectors, k), rtol=rtol, atol=atol)


@pytest.fixture
def compared_again(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were compared in float64, each time it was done."""
    rows: list[int] = []

    def noted(queries: Tensor, points: Tensor, k: int) -> Tensor:
        rows.append(len(queries))
        return compared(queries, points, k)

    monkeypatch.setattr(density, "compared", noted)
    return rows


# Against brute force ------------------------------------------------------------------------------


@given(
    st.integers(2, 90), st.integers(1, 6), st.integers(0, 10**6), st.integers(1, 4), st.booleans()
)
def test_equals_brute_force(n: int, d: int, seed: int, values: int, few: bool) -> None:
    """Of few values most rows are duplicates."""
    generator = np.random.default_rng(seed)
    x = generator.integers(0, values, (n, d)) if few else generator.standard_normal((n, d))
    k = int(generator.integers(1, n))
    vectors = torch.from_numpy(x.astype(np.float64))
    assert_exact(vectors, k, atol=1e-12)
    expected = by_brute_force(vectors, k).mean(1).float()
    torch.testing.assert_close(score(vectors, k), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 64])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_equals_scikit_learn(d: int, k: int) -> None:
    x = normal(6000, d)  # more than one batch of queries
    search = NearestNeighbors(n_neighbors=k, algorithm="brute" if d > 9 else "kd_tree")
    far = search.fit(x.double().numpy()).kneighbors()[0]  # without the rows themselves
    torch.testing.assert_close(neighbor_distances(x, k), torch.from_numpy(far), rtol=1e-6, atol=0)
    torch.testing.assert_close(score(x, k), torch.from_numpy(far.mean(1)).float())


def test_groups_far_apart_lose_no_neighbours(compared_again: list[int]) -> None:
    """In float32 the squares within a group are rounded away, and the search alone would fail."""
    group = torch.arange(600) % 4
    x = normal(600, 8).double() * 1e-4 + normal(4, 8, 1).double()[group]
    assert_exact(x, 5, rtol=1e-6)
    assert sum(compared_again) > 500
    expected = torch.empty(600)
    for one in range(4):  # the groups do not know of each other
        expected[group == one] = score(x[group == one])
    torch.testing.assert_close(score(x), expected)


def test_what_float32_tells_apart_is_compared_once(compared_again: list[int]) -> None:
    assert_exact(normal(600, 64), 5)
    assert not compared_again


def test_candidates_may_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(vectors: Tensor, flat: bool) -> tuple[Callable[[Tensor, int], Tensor], bool]:
        search, all_pairs = index(vectors, flat)
        return lambda queries, k: search(queries, k).flip(1), all_pairs

    x = normal(200, 3)
    expected = neighbor_distances(x, 4)
    monkeypatch.setattr(density, "index", backwards)
    assert torch.equal(neighbor_distances(x, 4), expected)


# The sample itself, and its duplicates ------------------------------------------------------------


@pytest.mark.parametrize("copies", [2, 5, 60, 300])
def test_the_sample_itself_is_left_out_and_its_duplicates_are_not(copies: int) -> None:
    x = normal(10, 4).repeat(copies, 1)
    far = neighbor_distances(x, 8)
    zeros = min(8, copies - 1)
    assert (far[:, :zeros] == 0).all()
    assert (far[:, zeros:] > 0).all()
    torch.testing.assert_close(far, by_brute_force(x, 8), rtol=1e-9, atol=0)
    assert (score(x, 8) == 0).all() == (copies > 8)


def test_features_that_are_all_alike_are_equally_dense() -> None:
    for value in (0.0, 1.0, 0.1, 1e30):
        assert score(torch.full((100, 3), value), 4).tolist() == [0.0] * 100
    with pytest.raises(ValueError, match=r"must not all be zero.*LocalDensity\(k=4\)"):
        Rank(LocalDensity(4)).select(
            Evidence(100, features=torch.ones(100, 3)), 5, generator=np.random.default_rng(0)
        )


@pytest.mark.parametrize("n", [2, 3, 50])
def test_all_others_may_be_neighbours(n: int) -> None:
    x = normal(n, 3)
    assert_exact(x, n - 1)
    torch.testing.assert_close(score(x, n - 1), by_brute_force(x, n - 1).mean(1).float())


# Laws ---------------------------------------------------------------------------------------------


def test_sparse_is_large() -> None:
    x = torch.cat([normal(50, 3) * 0.1, normal(50, 3) + 9, torch.full((1, 3), 99.0)])
    found = score(x)
    assert int(found.argmax()) == 100
    assert found[:50].max() < found[50:].min()


def test_the_order_of_the_samples_does_not_matter() -> None:
    x, order = normal(300, 5), torch.randperm(300, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(score(x[order]), score(x)[order])


@pytest.mark.parametrize("offset", [1.0, -300.0, 1e6])
def test_translations_change_nothing(offset: float) -> None:
    x = normal(300, 5).double()
    torch.testing.assert_close(score(x + offset), score(x), rtol=1e-5, atol=0)
    turned = x @ torch.linalg.qr(normal(5, 5, 2).double()).Q
    torch.testing.assert_close(score(turned), score(x))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7.0, 1e30])
def test_scores_are_in_units_of_the_features(scale: float) -> None:
    x = normal(300, 5).double()
    torch.testing.assert_close(score(x * scale) / scale, score(x), rtol=1e-5, atol=0)
    assert torch.equal(score(x * scale).argsort(stable=True), score(x).argsort(stable=True))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_no_square_overflows(scale: float) -> None:
    x = normal(50, 5).double()
    torch.testing.assert_close(neighbor_distances(x * scale, 3) / scale, neighbor_distances(x, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype(dtype: torch.dtype) -> None:
    x = (normal(200, 16) * 100).to(dtype)
    assert_exact(x, 6)
    assert score(x).dtype == torch.float32
    assert torch.equal(score(x), score(x.double()))


def test_more_neighbours_are_farther() -> None:
    x = normal(200, 5)
    found = torch.stack([score(x, k) for k in range(1, 30)])
    assert (found.diff(dim=0) >= 0).all()


def test_nothing_is_changed_and_nothing_is_drawn() -> None:
    x = normal(200, 5)
    kept, before = x.clone(), random_state()
    assert torch.equal(score(x), score(x.clone().requires_grad_()))
    assert torch.equal(score(x), score(x.T.contiguous().T))
    assert torch.equal(score(x), score(x.numpy()))  # type: ignore[arg-type]
    assert torch.equal(x, kept)
    assert random_state() == before


# In strategies ------------------------------------------------------------------------------------


def test_rank_takes_the_sparsest_of_each_group() -> None:
    x, labels = normal(90, 4), torch.arange(90) % 3
    known, values = Evidence(90, labels, features=x), score(x)
    strategy = Rank(LocalDensity(5), groups="labels")
    assert strategy.needs == {"features", "labels"}
    chosen = strategy.select(known, 30, generator=np.random.default_rng(0)).indices
    for one in range(3):
        members = (labels == one).nonzero()[:, 0]
        best = members[values[members].argsort(descending=True)[:10]]
        assert set(chosen[labels[chosen] == one].tolist()) == set(best.tolist())
    in_clusters = Proportional(LocalDensity(5), groups=Clusters(4))
    assert in_clusters.needs == {"features"}
    assert len(in_clusters.select(known, 30, generator=np.random.default_rng(0))) == 30


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 5), (5, 10)])
def test_as_many_neighbours_as_samples_are_refused(n: int, k: int) -> None:
    words = f"k must be below the number of samples, {n}, got {k} neighbours"
    with pytest.raises(ValueError, match=words):
        score(torch.zeros(n, 2), k)
    with pytest.raises(ValueError, match=words):
        neighbor_distances(torch.zeros(n, 2), k)


@pytest.mark.parametrize(
    ("k", "error", "words"),
    [
        (0, ValueError, "k must be at least 1, got 0"),
        (-3, ValueError, "k must be at least 1, got -3"),
        (2.0, TypeError, "k must be an integer, got 2.0"),
        (True, TypeError, "k must be an integer, got True"),
        (None, TypeError, "k must be an integer, got None"),
    ],
)
def test_k_is_checked_at_construction(k: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LocalDensity(k)
    with pytest.raises(error, match=words):
        neighbor_distances(torch.zeros(9, 2), k)


def test_what_is_no_vector_is_refused() -> None:
    x = normal(9, 3)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (x[:, 0], TypeError, r"vectors must be \(n, d >= 1\) floating, got \(9,\)"),
        (x[:, :0], TypeError, r"vectors must be \(n, d >= 1\) floating, got \(9, 0\)"),
        (x.long(), TypeError, "floating, got .*int64"),
        (x * torch.nan, ValueError, "vectors must be finite"),
        ("x", TypeError, "vectors must be a tensor or an array"),
    ]
    for vectors, error, words in wrong:
        with pytest.raises(error, match=words):
            neighbor_distances(vectors, 2)
    with pytest.raises(TypeError, match=r"got \(9, 0\).*Flatten"):
        score(x[:, :0])
    with pytest.raises(ValueError, match=r"evidence\.features must be given, got None"):
        LocalDensity()(Evidence(9))


def test_numbers_of_numpy_are_pythons() -> None:
    assert repr(LocalDensity(np.int64(3))) == "LocalDensity(k=3)"  # type: ignore[arg-type]
    assert LocalDensity(3) == LocalDensity(np.int64(3))  # type: ignore[arg-type]
    assert LocalDensity() == LocalDensity(10)


@pytest.mark.gpu
def test_features_of_a_gpu_are_searched_there() -> None:
    x = normal(500, 8)
    found = score(x.cuda())
    assert found.device.type == "cpu"
    assert torch.equal(found, score(x))
