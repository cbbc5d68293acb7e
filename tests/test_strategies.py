"""Strategies and the sharing of the budget."""

import numpy as np
import pytest
import torch

from augloader import (
    Evidence,
    FacilityLocation,
    MaxLoss,
    Proxies,
    Selection,
    Strategy,
    Uniform,
    greedy_medoids,
)
from augloader.coreset import Allocation, allocate


def evidence(n: int = 120, classes: int = 4, seed: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    proxies = Proxies(torch.randn(n, classes, generator=generator))
    return Evidence(n, labels, proxies, torch.rand(n, generator=generator))


def select(strategy: Strategy, budget: int, given: Evidence, seed: int = 0) -> Selection:
    return strategy.select(given, budget, generator=np.random.default_rng(seed))


@pytest.mark.parametrize("strategy", [FacilityLocation(), MaxLoss(), Uniform()])
def test_built_in_strategies_keep_the_contract(strategy: Strategy) -> None:
    assert isinstance(strategy, Strategy)
    for budget in (4, 36, 120):
        chosen = select(strategy, budget, evidence())
        assert len(chosen) == budget
        assert chosen.indices.max() < 120
        torch.testing.assert_close(chosen.weights.sum(), torch.tensor(120.0))
    with pytest.raises(ValueError, match="at most the number of samples, 120, got 121"):
        select(strategy, 121, evidence())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        select(strategy, 0, evidence())


def test_facility_location_selects_the_medoids_of_each_class() -> None:
    given = evidence()
    assert given.labels is not None
    assert given.proxies is not None
    chosen = select(FacilityLocation(), 36, given)
    for c in range(4):
        members = (given.labels == c).nonzero().flatten()
        mine = given.labels[chosen.indices] == c
        medoids = greedy_medoids(given.proxies[members].distances(), int(mine.sum()))
        assert chosen.indices[mine].tolist() == members[medoids.indices].tolist()
        assert chosen.weights[mine].tolist() == medoids.sizes.tolist()
        assert chosen.weights[mine].sum() == len(members)


def test_facility_location_over_all_samples() -> None:
    given = evidence()
    assert given.proxies is not None
    chosen = select(FacilityLocation(per_class=False), 10, Evidence(120, proxies=given.proxies))
    medoids = greedy_medoids(given.proxies.distances(), 10)
    assert chosen.indices.tolist() == medoids.indices.tolist()


def test_xi_stops_each_class_by_itself() -> None:
    labels = torch.tensor([0] * 20 + [1] * 20)
    g = torch.cat([torch.randn(20, 3) * 0.01, torch.randn(20, 3)])
    chosen = select(FacilityLocation(xi=1.0), 40, Evidence(40, labels, Proxies(g)))
    assert (labels[chosen.indices] == 0).sum() == 1
    assert 1 < (labels[chosen.indices] == 1).sum() < 20
    assert chosen.weights.sum() == 40


def test_class_numbers_may_have_gaps() -> None:
    labels = torch.tensor([7, 2, 7, 2, 2])
    chosen = select(FacilityLocation(), 2, Evidence(5, labels, Proxies(torch.randn(5, 3))))
    assert sorted(labels[chosen.indices].tolist()) == [2, 7]
    assert chosen.weights.sum() == 5


def test_a_class_with_one_sample_is_named() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2])
    given = Evidence(5, labels, Proxies(torch.randn(5, 3)))
    with pytest.raises(ValueError, match=r"got 1 in class 1 \(index 2\).*per_class=False"):
        select(FacilityLocation(), 3, given)
    assert len(select(FacilityLocation(per_class=False), 3, given)) == 3


def test_the_memory_limit_counts_one_class_and_names_the_least() -> None:
    given = evidence()
    assert given.labels is not None
    largest = int(given.labels.bincount().max())
    need = 4 * largest**2 + 20 * largest**2 // 8
    assert len(select(FacilityLocation(memory_limit=need), 10, given)) == 10
    with pytest.raises(ValueError, match=rf"{largest} samples, got {need - 1:,} .* needs {need:,}"):
        select(FacilityLocation(memory_limit=need - 1), 10, given)


def test_missing_evidence_is_named() -> None:
    with pytest.raises(ValueError, match=r"evidence.labels must be given"):
        select(FacilityLocation(), 1, Evidence(3, proxies=Proxies(torch.zeros(3, 2))))
    with pytest.raises(ValueError, match=r"evidence.proxies must be given"):
        select(FacilityLocation(), 1, Evidence(3, labels=torch.tensor([0, 0, 0])))
    with pytest.raises(ValueError, match=r"evidence.losses must be given"):
        select(MaxLoss(), 1, Evidence(3))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="allocation must be one of 'proportional', 'equal'"):
        FacilityLocation(allocation="even")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="xi must be 0 or more, got nan"):
        FacilityLocation(xi=float("nan"))
    with pytest.raises(ValueError, match="memory_limit must be at least 1"):
        FacilityLocation(memory_limit=0)


def test_max_loss_takes_the_largest_ties_to_the_lowest_index() -> None:
    given = Evidence(6, losses=torch.tensor([1.0, 5.0, 2.0, 5.0, 2.0, 0.0]))
    assert select(MaxLoss(), 3, given).indices.tolist() == [1, 3, 2]


def test_uniform_follows_its_generator_and_is_uniform() -> None:
    first, second = (select(Uniform(), 5, Evidence(20), seed).indices for seed in (1, 2))
    assert first.tolist() != second.tolist()
    assert first.tolist() == select(Uniform(), 5, Evidence(20), 1).indices.tolist()
    counts = np.zeros(20)
    for seed in range(2000):
        counts[select(Uniform(), 5, Evidence(20), seed).indices.numpy()] += 1
    # Each count is binomial(2000, 1/4): five standard deviations are 97.
    assert np.abs(counts - 500).max() < 97


@pytest.mark.parametrize(
    ("sizes", "budget", "allocation", "shares"),
    [
        ([10, 10, 10], 10, "proportional", [4, 3, 3]),
        ([60, 30, 10], 10, "proportional", [6, 3, 1]),
        ([5000, 100, 2], 51, "proportional", [49, 1, 1]),
        ([97, 1, 1, 1], 10, "proportional", [7, 1, 1, 1]),
        ([50, 50, 2], 30, "equal", [14, 14, 2]),
        ([3, 4, 5], 12, "equal", [3, 4, 5]),
        ([3, 4, 500], 300, "equal", [3, 4, 293]),
        ([5], 5, "proportional", [5]),
    ],
)
def test_allocate(sizes: list[int], budget: int, allocation: Allocation, shares: list[int]) -> None:
    assert allocate(sizes, budget, allocation) == shares


def test_a_budget_below_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"between 4, one a class, and 120, all samples, got 3"):
        select(FacilityLocation(), 3, evidence())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_proxies_give_the_same_selection() -> None:
    given = evidence()
    assert given.proxies is not None
    there = Evidence(120, given.labels, Proxies(given.proxies.gradient.cuda()))
    here = select(FacilityLocation(), 36, given)
    assert select(FacilityLocation(), 36, there).indices.tolist() == here.indices.tolist()
