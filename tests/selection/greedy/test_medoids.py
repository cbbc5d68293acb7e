"""Greedy medoids against brute force and a naive reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader import Proxies
from augloader.selection import greedy_medoids
from augloader.selection.greedy.batched import Batch
from augloader.selection.greedy.dense import batched_medoids
from augloader.selection.greedy.medoids import Medoids
from tests.reference import best_coverage, coverage, naive_greedy


def proxies(form: str, n: int, seed: int = 0) -> Proxies:
    """Residuals of one class of a trained network: most of them tiny, a few large."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 10, generator=generator) * 3
    logits[:, 0] += 6
    g = logits.softmax(1)
    g[:, 0] -= 1
    features = torch.randn(n, 20, generator=generator).relu() if form == "outer" else None
    return Proxies(g, features)


def rounding(points: Proxies) -> float:
    """More than float32, and the difference of two norms, leave undecided of a distance."""
    norms = points.gradient.norm(dim=1)
    if points.features is not None:
        norms = norms * points.features.norm(dim=1)
    return float(norms.max()) * 1e-6


def by_batch(distances: Tensor, budget: int, xi: float | None = None) -> Medoids:
    """The code that runs on a GPU, here on the CPU."""
    none = torch.empty(0, dtype=torch.int64)
    batch = Batch(distances[None], [len(distances)], [budget], [none], xi)
    return batched_medoids([batch])[0][0]


Engine = Callable[..., Medoids]
ENGINES: list[Engine] = [greedy_medoids, by_batch]


@pytest.mark.parametrize("form", ["vector", "outer"])
@pytest.mark.parametrize("budget", [1, 30, 150, 300])
def test_equals_the_naive_greedy(form: str, budget: int) -> None:
    distances = proxies(form, 300).distances()
    taken, gains = naive_greedy(distances.numpy(), budget)
    for engine in ENGINES:
        found = engine(distances, budget)
        assert found.indices.tolist() == taken
        np.testing.assert_allclose(found.gains.numpy(), gains, rtol=1e-9, atol=1e-9)
        chosen = distances[:, found.indices]
        assert torch.equal(found.distances, chosen.min(1).values)
        assert torch.equal(chosen.gather(1, found.nearest[:, None])[:, 0], found.distances)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("budget", [1, 2, 4])
def test_reaches_the_guarantee_of_the_brute_force_optimum(seed: int, budget: int) -> None:
    distances = proxies("outer", 9, seed).distances()
    found = greedy_medoids(distances, budget)
    matrix = distances.numpy()
    reached = coverage(matrix, found.indices.tolist())
    assert reached >= (1 - np.exp(-1)) * best_coverage(matrix, budget)
    np.testing.assert_allclose(found.gains.sum(), reached, rtol=1e-9)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    distances = proxies("vector", 1000).distances()
    here = greedy_medoids(distances, 300)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        there = greedy_medoids(distances, 300)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(here.indices, there.indices)
    assert torch.equal(here.gains, there.gains)


def test_the_order_is_nested() -> None:
    distances = proxies("vector", 200).distances()
    whole = greedy_medoids(distances, 200)
    for budget in (1, 7, 60):
        assert greedy_medoids(distances, budget).indices.tolist() == whole.indices[:budget].tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", ["vector", "outer"])
def test_the_history_gives_the_clusters_of_every_size(engine: Engine, form: str) -> None:
    distances = proxies(form, 150).distances()
    whole = engine(distances, 150)
    for k in (*range(1, 21), 35, 70, 149, 150):
        alone = engine(distances, k)
        assert whole.sizes_of(k).tolist() == alone.sizes.tolist() == alone.sizes_of(k).tolist()
        assert whole.coverage_of(k) == pytest.approx(alone.coverage, rel=1e-9)
    # Each of the steps beyond the first takes its points from medoids before it.
    to, donor, count = whole.moves.T
    assert (donor < to).all()
    assert (count > 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("budget", [1, 7, 60, 150])
def test_the_gains_that_are_left_are_those_of_the_definition(engine: Engine, budget: int) -> None:
    distances = proxies("vector", 150).distances()
    found = engine(distances, budget)
    gains = (found.distances.double()[:, None] - distances).clamp(min=0).sum(0)
    gains[found.indices] = -1
    left = gains.sort(descending=True).values[: min(budget, 150 - budget)]
    torch.testing.assert_close(found.rest, left, rtol=1e-9, atol=1e-9)
    # Nemhauser, Wolsey & Fisher (1978), with the greedy's gains in the place of the optimum's.
    bounds = found.gains.cumsum(0) - found.gains + budget * found.gains
    assert found.bound(budget) <= float(bounds.min()) * (1 + 1e-12)
    assert found.coverage >= (1 - (1 - 1 / budget) ** budget) * found.bound(budget) * (1 - 1e-9)


def test_start_comes_first_and_the_greedy_goes_on() -> None:
    distances = proxies("outer", 200).distances()
    for start in ([5], [9, 2, 77], list(range(30))):
        found = greedy_medoids(distances, 40, start=torch.tensor(start))
        assert found.indices[: len(start)].tolist() == start
        assert found.seeds == len(start)
        best = distances[:, start].min(1).values.double()
        for medoid, gain in zip(
            found.indices[len(start) :], found.gains[len(start) :], strict=True
        ):
            gains = (best[:, None] - distances).clamp(min=0).sum(0)
            gains[start] = -1
            assert int(medoid) == int(gains.argmax())
            assert float(gain) == pytest.approx(float(gains.max()), rel=1e-9)
            best = best.minimum(distances[:, medoid])
    assert greedy_medoids(distances, 3, start=torch.tensor([4, 5, 6])).indices.tolist() == [4, 5, 6]
    whole = greedy_medoids(distances, 40)
    again = greedy_medoids(distances, 40, start=whole.indices[:20])
    assert torch.equal(whole.indices, again.indices)
    torch.testing.assert_close(whole.gains, again.gains)


@pytest.mark.parametrize("engine", ENGINES)
def test_duplicates_fill_the_budget_lowest_index_first(engine: Engine) -> None:
    x = torch.tensor([[0.0], [5.0], [5.0], [0.0], [5.0]])
    found = engine(torch.cdist(x, x), 5)
    assert found.indices.tolist() == [1, 0, 2, 3, 4]
    assert found.sizes.tolist() == [1] * 5
    two = engine(torch.cdist(x, x), 2)
    assert two.sizes.tolist() == [3, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_all_alike(engine: Engine) -> None:
    found = engine(torch.zeros(4, 4), 3)
    assert found.indices.tolist() == [0, 1, 2]
    assert found.gains.tolist() == [0, 0, 0]
    assert found.sizes.sum() == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_stops_at_the_first_size_within_xi(engine: Engine) -> None:
    distances = proxies("vector", 200).distances()
    errors = [
        float(distances[:, greedy_medoids(distances, k).indices].min(1).values.double().sum())
        for k in range(1, 60)
    ]
    for k in (1, 20, 50):
        assert len(engine(distances, 200, xi=errors[k - 1] * (1 + 1e-9)).indices) == k
    assert len(engine(distances, 10, xi=0.0).indices) == 10
    assert len(engine(distances, 200, xi=float("inf")).indices) == 1


@pytest.mark.parametrize(
    ("distances", "budget", "xi", "error", "words"),
    [
        (torch.zeros(3, 3).double(), 1, None, TypeError, "float32"),
        (torch.zeros(3, 2), 1, None, ValueError, "square"),
        (torch.zeros(0, 0), 1, None, ValueError, "not empty"),
        (torch.zeros(3, 3), 4, None, ValueError, "at most 3, got 4"),
        (torch.zeros(3, 3), 0, None, ValueError, "at least 1, got 0"),
        (torch.zeros(3, 3), 1.5, None, TypeError, "integer"),
        (torch.zeros(3, 3), 1, -1.0, ValueError, r"xi must be in \[0, inf\]"),
        (torch.zeros(3, 3), 1, float("nan"), ValueError, r"xi must be in \[0, inf\]"),
        (torch.full((3, 3), torch.nan), 1, None, ValueError, "finite, got nan"),
        (torch.ones(200, 200).fill_diagonal_(torch.inf), 1, None, ValueError, "finite, got inf"),
    ],
)
def test_bad_input(
    distances: Tensor, budget: int, xi: float | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        greedy_medoids(distances, budget, xi=xi)


@pytest.mark.gpu
def test_gpu_equals_the_cpu() -> None:
    distances = proxies("outer", 2000).distances()
    here, there = greedy_medoids(distances, 600), greedy_medoids(distances.cuda(), 600)
    assert here.indices.tolist() == there.indices.tolist()
    assert here.sizes.tolist() == there.sizes.tolist()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.eye(5), "0 or more, and 0 on the diagonal, got others. Give distances, not similar"),
        (-torch.ones(5, 5).fill_diagonal_(0), "distances must be 0 or more"),
        (torch.ones(5, 5).triu(1), "distances must be symmetric, got others"),
        (torch.full((5, 5), torch.nan), "distances must be finite, got nan"),
        (torch.full((5, 5), torch.inf).fill_diagonal_(0), "distances must be finite, got inf"),
        (torch.tensor(1.0), r"distances must be square and not empty, got \(\)"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(wrong: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        greedy_medoids(wrong, 2)


def test_arrays_of_any_layout_are_taken() -> None:
    distances = proxies("plain", 30).distances()
    expected = greedy_medoids(distances, 4, start=torch.tensor([3])).indices
    others: list[Any] = [
        distances.numpy(),
        distances.tolist(),
        distances.T,
        distances.repeat_interleave(2, 0)[::2],
        distances.clone().requires_grad_(),
    ]
    for other in others:
        for start in ([3], np.array([3], np.int8), torch.tensor([3], dtype=torch.int32)):
            assert torch.equal(greedy_medoids(other, np.int64(4), start=start).indices, expected)  # type: ignore[arg-type]
    wrong: list[Any] = [[0.5], torch.tensor([True]), "a", 3]
    for begin in wrong:
        with pytest.raises(TypeError, match="start must be"):
            greedy_medoids(distances, 4, start=begin)


def test_packed_medoids_are_a_copy() -> None:
    points = torch.arange(6.0)[:, None]
    found = greedy_medoids(torch.cdist(points, points), 3)
    packed = found.packed()
    for name, value in vars(found).items():
        other = getattr(packed, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other)
            assert value.data_ptr() != other.data_ptr()
        else:
            assert value == other
