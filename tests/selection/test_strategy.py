"""Strategies and the sharing of the budget."""

from collections.abc import Callable
from dataclasses import replace
from math import e
from typing import Any

import numpy as np
import pytest
import torch

from augloader import (
    KDPP,
    Clusters,
    CoresetSampler,
    Evidence,
    FacilityLocation,
    Influence,
    Loss,
    Margin,
    Proxies,
    Rank,
    Selection,
    Softmax,
    Strategy,
    SupportVectors,
    Uniform,
)
from augloader.selection import greedy_medoids
from augloader.selection.budget import allocate
from tests.reference import random_state


def evidence(n: int = 120, classes: int = 4, seed: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    proxies = Proxies(torch.randn(n, classes, generator=generator))
    return Evidence(n, labels, proxies, torch.rand(n, generator=generator))


def select(strategy: Strategy, budget: int, given: Evidence, seed: int = 0) -> Selection:
    return strategy.select(given, budget, generator=np.random.default_rng(seed))


@pytest.mark.parametrize("strategy", [FacilityLocation(), Rank(Loss()), Uniform()])
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
        select(Rank(Loss()), 1, Evidence(3))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="allocation must be one of 'proportional', 'equal'"):
        FacilityLocation(allocation="even")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"xi must be in \[0, inf\], got nan"):
        FacilityLocation(xi=float("nan"))
    with pytest.raises(ValueError, match="memory_limit must be at least 1"):
        FacilityLocation(memory_limit=0)


ENGINES: list[dict[str, Any]] = [
    {"engine": "dense"},
    {"engine": "matrix-free"},
    {"engine": "graph"},
    {"stochastic": 0.2},
    {"engine": "graph", "stochastic": 0.5},
    {"engine": "matrix-free", "warm_start": 0.5},
]


@pytest.mark.parametrize("options", ENGINES)
@pytest.mark.parametrize("per_class", [True, False])
def test_the_selection_follows_the_generator_alone(
    options: dict[str, Any], per_class: bool
) -> None:
    given, strategy = evidence(), FacilityLocation(per_class=per_class, **options)
    torch.manual_seed(1)
    before = random_state()
    first = select(strategy, 30, given)
    assert random_state() == before
    torch.manual_seed(2)
    again = select(strategy, 30, given)
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.weights, again.weights)
    other = select(strategy, 30, given, seed=1)
    if "stochastic" in options:
        assert not torch.equal(first.indices, other.indices)
    for selection in (first, other, first.first(11)):
        assert len(selection.indices.unique()) == len(selection)
        assert selection.weights.sum() == 120
        assert selection.certificate is not None
        assert 0 < selection.certificate.ratio <= 1
        assert selection.certificate.kept is None


def test_the_certificate_says_what_was_reached() -> None:
    given = evidence()
    assert given.labels is not None
    assert given.proxies is not None
    certificate = select(FacilityLocation(), 36, given).certificate
    assert certificate is not None
    coverage = bound = 0.0
    for c in range(4):
        distances = given.proxies[given.labels == c].distances()
        share = allocate(given.labels.bincount().tolist(), 36, "proportional")[c]
        medoids = greedy_medoids(distances, share)
        best = distances[:, medoids.indices].min(1).values.double()
        coverage += float((distances.max() - best).sum())
        bound += medoids.bound(share)
    assert certificate.coverage == pytest.approx(coverage)
    assert certificate.bound == pytest.approx(bound)
    assert certificate.ratio >= 1 - 1 / e
    assert certificate.covered == 1
    assert certificate.proven
    assert certificate.reason.startswith("dense for 4 of 4 groups (n = ")


@pytest.mark.parametrize("engine", ["auto", "dense", "matrix-free", "graph"])
@pytest.mark.parametrize("warm", [0.5, 1.0, 0.01])
def test_a_warm_start_keeps_the_first_medoids_of_each_class(engine: Any, warm: float) -> None:
    given, changed = evidence(400), evidence(400, seed=1)
    assert given.labels is not None
    strategy = FacilityLocation(engine=engine, warm_start=warm)
    cold = select(strategy, 80, given)
    again = select(strategy, 80, replace(changed, labels=given.labels, previous=cold.indices))
    for c in range(4):
        old = cold.indices[given.labels[cold.indices] == c]
        new = again.indices[given.labels[again.indices] == c]
        assert len(old) == len(new)
        kept = int(warm * len(old))
        assert new[:kept].tolist() == old[:kept].tolist()
    assert again.certificate is not None
    assert again.certificate.kept == len(set(again.indices.tolist()) & set(cold.indices.tolist()))
    assert again.certificate.kept >= sum(
        int(warm * int((given.labels[cold.indices] == c).sum())) for c in range(4)
    )
    if warm == 1:
        assert torch.equal(again.indices, cold.indices)


def test_without_warmth_the_previous_selection_is_counted_only() -> None:
    given = evidence()
    cold = select(FacilityLocation(), 30, given)
    previous = torch.arange(0, 120, 2)
    again = select(FacilityLocation(), 30, replace(given, previous=previous))
    assert torch.equal(again.indices, cold.indices)
    assert again.certificate is not None
    assert again.certificate.kept == int((again.indices % 2 == 0).sum())
    none = select(FacilityLocation(), 30, replace(given, previous=previous[:0]))
    assert none.certificate is not None
    assert none.certificate.kept == 0


def test_a_warm_start_from_a_selection_of_another_shape() -> None:
    """More of a class than its budget, or none at all."""
    given = evidence()
    assert given.labels is not None
    previous = (given.labels == 2).nonzero().flatten()
    found = select(FacilityLocation(warm_start=0.5), 20, replace(given, previous=previous))
    cold = select(FacilityLocation(), 20, given)
    for c in range(4):
        mine, others = (s.indices[given.labels[s.indices] == c] for s in (found, cold))
        assert len(mine) == len(others)
        if c == 2:
            assert mine[: len(mine) // 2].tolist() == previous[: len(mine) // 2].tolist()
        else:
            assert mine.tolist() == others.tolist()


def test_a_refresh_gives_the_strategy_the_selection_before() -> None:
    given = evidence()
    seen: list[Any] = []

    class Spy(FacilityLocation):
        """Writes down what it is given."""

        def select(self, evidence: Evidence, *args: Any, **options: Any) -> Selection:
            seen.append(evidence.previous)
            return super().select(evidence, *args, **options)

    sampler = CoresetSampler(range(120), Spy(warm_start=0.5), count=30)
    first = sampler.refresh(given)
    other = replace(evidence(seed=1), labels=given.labels)
    second = sampler.refresh(other)
    assert seen[0] is None
    assert torch.equal(seen[1], first.indices)
    assert given.labels is not None
    for c in range(4):
        old, new = (s.indices[given.labels[s.indices] == c] for s in (first, second))
        assert new[: len(old) // 2].tolist() == old[: len(old) // 2].tolist()
    assert second.certificate is not None
    assert second.certificate.kept == len(
        set(first.indices.tolist()) & set(second.indices.tolist())
    )


@pytest.mark.parametrize("options", [{}, *ENGINES])
def test_classes_of_duplicates(options: dict[str, Any]) -> None:
    """Of one point each, of two, and one that is not: every budget is filled."""
    labels = torch.arange(3).repeat_interleave(60)
    g = torch.randn(180, 4, generator=torch.Generator().manual_seed(0))
    g[:60] = g[0].clone()
    g[60:120] = g[60:62].repeat(30, 1)
    given = Evidence(180, labels, Proxies(g))
    for budget in (3, 6, 90, 180):
        chosen = select(FacilityLocation(**options), budget, given)
        assert len(chosen) == budget
        assert chosen.weights.sum() == 180
        assert (chosen.weights >= 1).all()
        assert chosen.certificate is not None
        assert 0 < chosen.certificate.ratio <= 1


@pytest.mark.parametrize("options", [{}, *ENGINES])
def test_the_ratio_is_at_most_1(options: dict[str, Any]) -> None:
    """Where nothing is left, coverage and bound are sums of the same terms in another order."""
    strategy = FacilityLocation(per_class=False, **options)
    for seed in range(40):
        random = np.random.default_rng(seed)
        g, h = (random.normal(size=(10, 2))[random.integers(0, 3, 10)] for _ in range(2))
        proxies = Proxies(torch.tensor(g).float(), torch.tensor(h).float())
        whole = select(strategy, 10, Evidence(10, proxies=proxies))
        for k in range(1, 11):
            certificate = whole.first(k).certificate
            assert certificate is not None
            assert 0 < certificate.ratio <= 1
    alike = select(strategy, 3, Evidence(10, proxies=Proxies(torch.zeros(10, 3)))).certificate
    assert alike is not None
    assert alike.ratio == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"engine": "fast"}, ValueError, "engine must be one of 'auto', 'dense', 'matrix-free'"),
        ({"memory_limit": 1.5}, TypeError, "memory_limit must be an integer"),
        ({"memory_limit": -1}, ValueError, "memory_limit must be at least 1"),
        ({"stochastic": 0}, ValueError, "stochastic must be in"),
        ({"stochastic": 1}, ValueError, r"stochastic must be in \(0, 1\), got 1"),
        ({"stochastic": "0.1"}, TypeError, "stochastic must be a number"),
        ({"warm_start": -0.1}, ValueError, "warm_start must be in"),
        ({"warm_start": 1.1}, ValueError, "warm_start must be in"),
        ({"warm_start": float("nan")}, ValueError, "warm_start must be in"),
    ],
)
def test_engine_options_are_checked_at_construction(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        FacilityLocation(**options)


def test_max_loss_takes_the_largest_ties_to_the_lowest_index() -> None:
    given = Evidence(6, losses=torch.tensor([1.0, 5.0, 2.0, 5.0, 2.0, 0.0]))
    assert select(Rank(Loss()), 3, given).indices.tolist() == [1, 3, 2]


def test_uniform_follows_its_generator_and_is_uniform() -> None:
    first, second = (select(Uniform(), 5, Evidence(20), seed).indices for seed in (1, 2))
    assert first.tolist() != second.tolist()
    assert first.tolist() == select(Uniform(), 5, Evidence(20), 1).indices.tolist()
    counts = np.zeros(20)
    for seed in range(2000):
        counts[select(Uniform(), 5, Evidence(20), seed).indices.numpy()] += 1
    # Each count is binomial(2000, 1/4): five standard deviations are 97.
    assert np.abs(counts - 500).max() < 97


@pytest.mark.gpu
def test_gpu_proxies_give_the_same_selection() -> None:
    given = evidence()
    assert given.proxies is not None
    there = Evidence(120, given.labels, Proxies(given.proxies.gradient.cuda()))
    here = select(FacilityLocation(), 36, given)
    assert select(FacilityLocation(), 36, there).indices.tolist() == here.indices.tolist()


@pytest.mark.parametrize(
    "strategy",
    [FacilityLocation(), Uniform(), Rank(Loss()), SupportVectors(1.0), KDPP(kernel="gaussian")],
)
def test_what_is_given_wrongly_is_named_by_every_strategy(strategy: Any) -> None:
    given = replace(evidence(), features=torch.randn(120, 3))
    for other, got in ((0, "0"), (None, "None"), (torch.Generator(), "Generator")):
        with pytest.raises(
            TypeError, match=rf"generator must be a numpy.random.Generator, got {got}"
        ):
            strategy.select(given, 5, generator=other)
    for budget in (np.int64(5), np.array(5), torch.tensor(5)):
        chosen = strategy.select(given, budget, generator=np.random.default_rng(0))
        assert torch.equal(chosen.indices, select(strategy, 5, given).indices)
    for rows in (given.proxies, torch.rand(120, 4), None):
        with pytest.raises(
            TypeError, match=r"evidence must be an Evidence, got .*Evidence\(n, prox"
        ):
            strategy.select(rows, 5, generator=np.random.default_rng(0))
    wrong: Any
    for wrong in (True, 5.0, "5"):
        with pytest.raises(TypeError, match="budget must be an integer"):
            select(strategy, wrong, given)


@pytest.mark.parametrize(
    ("plain", "numpys"),
    [
        (lambda: FacilityLocation(xi=0.5), lambda: FacilityLocation(xi=np.float64(0.5))),
        (
            lambda: FacilityLocation(memory_limit=10**6, warm_start=0.5),
            lambda: FacilityLocation(memory_limit=np.int64(10**6), warm_start=np.array(0.5)),  # type: ignore[arg-type]
        ),
        (
            lambda: FacilityLocation(stochastic=0.25, per_class=False),
            lambda: FacilityLocation(stochastic=np.float16(0.25), per_class=np.False_),  # type: ignore[arg-type]
        ),
        (lambda: Clusters(3), lambda: Clusters(np.uint8(3))),  # type: ignore[arg-type]
        (lambda: Influence(0.5), lambda: Influence(np.float32(0.5))),  # type: ignore[arg-type]
        (lambda: Margin((0.1, 1.0)), lambda: Margin(np.array([0.1, 1.0]))),  # type: ignore[arg-type]
        (lambda: SupportVectors(0.5), lambda: SupportVectors(np.float32(0.5))),  # type: ignore[arg-type]
        (lambda: Softmax(Loss(), temperature=2), lambda: Softmax(Loss(), temperature=np.int8(2))),  # type: ignore[arg-type]
        (
            lambda: KDPP(width=8, bandwidth=0.5),
            lambda: KDPP(width=np.int64(8), bandwidth=torch.tensor(0.5)),  # type: ignore[arg-type]
        ),
    ],
)
def test_options_of_numpy_are_those_of_python(
    plain: Callable[[], Any], numpys: Callable[[], Any]
) -> None:
    assert repr(numpys()) == repr(plain())
    for name, value in vars(numpys()).items():
        assert type(value) is type(getattr(plain(), name))


def test_needs_are_a_set() -> None:
    class Listed:
        needs = ("losses",)

        def select(self, *_: Any, **__: Any) -> None: ...

    with pytest.raises(
        TypeError, match=r"strategy.needs must be a set of names, got \('losses',\)"
    ):
        CoresetSampler(range(9), Listed(), count=3)  # type: ignore[arg-type]


def test_a_truth_value_is_one() -> None:
    for other in ("yes", 1, None):
        with pytest.raises(TypeError, match="per_class must be True or False, got"):
            FacilityLocation(per_class=other)  # type: ignore[arg-type]
