"""Policies: the laws of their draws, their orders, their groups."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from augloader import (
    EL2N,
    KDPP,
    Clusters,
    CoresetSampler,
    Draw,
    Every,
    Evidence,
    Forgetting,
    Given,
    Influence,
    LastLayerGradient,
    Loss,
    Margin,
    Proportional,
    Proxies,
    Rank,
    Sample,
    Selection,
    Softmax,
    Strategy,
    SupportVectors,
    Uniform,
    sweep,
)
from augloader.selection import Score
from augloader.selection.budget import Allocation
from augloader.selection.kdpp import Kernel
from augloader.selection.svm import margins
from tests.reference import random_state
from tests.selection.test_kdpp import assert_law, assert_rates

pytestmark = pytest.mark.usefixtures("one_thread")
DRAWS = 20_000
Law = dict[tuple[int, ...], float]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scored(*scores: float, **columns: Any) -> Evidence:
    return Evidence(len(scores), scores=torch.tensor(scores), **columns)


def evidence(n: int = 60, classes: int = 3, seed: int = 0) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    logits = torch.randn(n, classes, generator=generator)
    g = logits.softmax(1) - nn.functional.one_hot(labels, classes)
    h = torch.randn(n, 5, generator=generator)
    h[:, :classes] += 2 * nn.functional.one_hot(labels, classes)
    forgotten = torch.randint(-1, 4, (n,), generator=generator).float()
    forgotten[0] = 1
    return Evidence(
        n,
        labels,
        Proxies(g, h),
        torch.rand(n, generator=generator),
        features=h,
        forgetting=forgotten,
        scores=torch.rand(n, generator=generator),
    )


def sequential(weights: list[float], k: int) -> Law:
    """P(i_1, ..., i_k), each drawn in proportion to its weight among those that are left."""
    law = {}
    for order in permutations(range(len(weights)), k):
        p, left = 1.0, sum(weights)
        for i in order:
            p *= weights[i] / left
            left -= weights[i]
        law[order] = p
    return law


def drawn(strategy: Any, known: Evidence, k: int, draws: int = DRAWS) -> Counter[tuple[int, ...]]:
    generator = random(7)
    orders = (strategy.select(known, k, generator=generator).indices for _ in range(draws))
    return Counter(tuple(order.tolist()) for order in orders)


SCORES = (0.5, 3.0, 1.0, 0.1, 2.0)
LAWS: dict[str, tuple[Strategy, list[float]]] = {
    "uniform": (Uniform(), [1.0] * 5),
    "proportional": (Proportional(Given()), [*SCORES]),
    "inverse": (Proportional(Given(), inverse=True), [1 / s for s in SCORES]),
    "softmax": (Softmax(Given(), temperature=2.0), [float(np.exp(s / 2)) for s in SCORES]),
    "inverse softmax": (
        Softmax(Given(), inverse=True, temperature=0.7),
        [float(np.exp(-s / 0.7)) for s in SCORES],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", LAWS)
def test_samples_are_drawn_one_by_one_in_proportion(name: str, k: int) -> None:
    strategy, weights = LAWS[name]
    law = sequential(weights, k)
    draws = DRAWS if name == "proportional" and k == 3 else 5000
    counts = drawn(strategy, scored(*SCORES), k, draws)
    assert sum(counts.values()) == draws
    assert_law(counts, law)
    hits, rates = np.zeros(5), np.zeros(5)
    for order, p in law.items():
        hits[list(order)] += counts[order]
        rates[list(order)] += p
    assert_rates(hits, draws, rates)


def test_zeros_come_last_and_for_the_inverse_first_in_random_order() -> None:
    known = scored(0.0, 0.5, 3.0, 0.0, 1e-30)
    orders = Counter[tuple[int, ...]]()
    for seed in range(400):
        order = Proportional(Given()).order(known, generator=np.random.default_rng(seed))
        orders[tuple(order[3:].tolist())] += 1
        strategy = Proportional(Given(), inverse=True)
        order = strategy.order(known, generator=np.random.default_rng(seed))
        assert {int(order[0]), int(order[1])} == {0, 3}
    assert set(orders) == {(0, 3), (3, 0)}
    assert 150 < orders[0, 3] < 250


def test_many_zeros_do_not_drown_the_scores_above() -> None:
    known = scored(*[0.0] * 980, *[1.0] * 20)
    for strategy in (Proportional(Given()), Softmax(Given(), temperature=0.01)):
        chosen = strategy.select(known, 20, generator=np.random.default_rng(0)).indices
        assert (chosen >= 980).all()
    x = torch.randn(1000, 40, generator=torch.Generator().manual_seed(0))
    known = replace(known, features=x)
    for kernel in get_args(Kernel):
        apart = KDPP(Given(), kernel=kernel)
        chosen = apart.select(known, 15, generator=np.random.default_rng(0)).indices
        assert (chosen >= 980).all()


def test_in_groups_each_group_is_drawn_from_in_proportion() -> None:
    groups = torch.tensor([4, 0, 4, 0, 4, 4, 0])
    known = scored(0.5, 3.0, 1.0, 0.1, 2.0, 0.7, 1.0)
    members = {0: [1, 3, 6], 4: [0, 2, 4, 5]}
    assert known.scores is not None
    strategy = Proportional(Given(), groups=groups)
    counts = drawn(strategy, known, 4, 6000)  # two of each
    for group, rows in members.items():
        part: Counter[tuple[int, ...]] = Counter()
        for order, count in counts.items():
            mine = tuple(rows.index(i) for i in order if int(groups[i]) == group)
            assert len(mine) == 2
            part[mine] += count
        assert_law(part, sequential(known.scores[rows].tolist(), 2))


def test_softmax_is_proportional_to_the_exponential() -> None:
    scores = torch.randn(200, generator=torch.Generator().manual_seed(0)).double()
    for temperature in (0.5, 1.0, 3.0):
        for inverse in (False, True):
            known = Evidence(200, scores=scores)
            weights = Evidence(200, scores=(scores / temperature).exp())
            for seed in range(5):
                one = Softmax(Given(), inverse=inverse, temperature=temperature)
                other = Proportional(Given(), inverse=inverse)
                assert torch.equal(
                    one.order(known, generator=random(seed)),
                    other.order(weights, generator=random(seed)),
                )


def test_softmax_does_not_see_a_constant_nor_a_sign() -> None:
    scores = torch.randint(-50, 50, (100,), generator=torch.Generator().manual_seed(0)).float()
    orders = [
        Softmax(Given(), temperature=20.0).order(
            Evidence(100, scores=scores + more), generator=random()
        )
        for more in (0, 1024, -4096)
    ]
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])
    cold = Softmax(Given(), temperature=1e-3).order(
        Evidence(100, scores=torch.arange(100.0)), generator=random()
    )
    assert cold.tolist() == list(range(99, -1, -1))


def test_softmax_of_large_scores_does_not_overflow() -> None:
    known = scored(1e30, -1e30, 0.0, 1e30)
    for seed in range(5):
        order = Softmax(Given()).order(known, generator=random(seed)).tolist()
        assert set(order[:2]) == {0, 3}
        assert order[2:] == [2, 1]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.booleans(), st.data())
def test_rank_sorts_and_ties_go_to_the_lower_index(
    values: list[int], inverse: bool, data: st.DataObject
) -> None:
    if not any(values):
        values = [*values, 1]
    n = len(values)
    known = Evidence(n, scores=torch.tensor(values).float())
    expected = sorted(range(n), key=lambda i: (values[i] if inverse else -values[i], i))
    strategy = Rank(Given(), inverse=inverse)
    assert strategy.order(known, generator=random()).tolist() == expected
    k = data.draw(st.integers(1, n))
    assert strategy.select(known, k, generator=random()).indices.tolist() == expected[:k]


def test_rank_is_deterministic() -> None:
    known = evidence()
    orders = {tuple(Rank(Loss()).order(known, generator=random(s)).tolist()) for s in range(5)}
    assert len(orders) == 1


# Orders -------------------------------------------------------------------------------------------

Make = Callable[..., Any]
NESTED: list[Make] = [
    Uniform,
    lambda **o: Proportional(Loss(), **o),
    lambda **o: Proportional(Forgetting(), inverse=True, **o),
    lambda **o: Softmax(Given(), **o),
    lambda **o: Rank(EL2N(), **o),
    lambda **o: Rank(Given(), inverse=True, **o),
]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(NESTED),
    st.integers(2, 40),
    st.sampled_from(["none", "labels", "tensor", "clusters"]),
    st.sampled_from(["proportional", "equal"]),
    st.data(),
)
def test_a_selection_is_the_first_of_the_order_of_all(
    seed: int, make: Make, n: int, kind: str, allocation: Allocation, data: st.DataObject
) -> None:
    known = evidence(n, data.draw(st.integers(2, 5)), seed % 1000)
    labels = torch.from_numpy(random(seed).integers(0, data.draw(st.integers(1, n)), n))
    groups = {
        "none": None,
        "labels": "labels",
        "tensor": labels * 7,
        "clusters": Clusters(data.draw(st.integers(1, n))),
    }[kind]
    strategy = make(groups=groups, allocation=allocation)
    order = strategy.order(known, generator=random(seed))
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(n))
    k = data.draw(st.integers(1, n))
    selection = strategy.select(known, k, generator=random(seed))
    assert selection.indices.tolist() == order[:k].tolist()
    torch.testing.assert_close(selection.weights, torch.full((k,), n / k))
    smaller = data.draw(st.integers(1, k))
    first = selection.first(smaller)
    assert first.indices.tolist() == order[:smaller].tolist()
    torch.testing.assert_close(first.weights, torch.full((smaller,), n / smaller))
    assert first.first(1).indices.tolist() == order[:1].tolist()


def test_first_is_at_most_what_was_selected() -> None:
    selection = Uniform().select(evidence(), 10, generator=random())
    with pytest.raises(ValueError, match="budget must be at most 10, which was selected, got 11"):
        selection.first(11)
    with pytest.raises(ValueError, match="budget must be at least 1, got 0"):
        selection.first(0)
    assert torch.equal(selection.first(3).first(10).indices, selection.indices)


@pytest.mark.parametrize("groups", [None, "labels"])
def test_a_k_dpp_has_no_smaller_one_in_it(groups: Any) -> None:
    known = evidence()
    selection = KDPP(groups=groups).select(known, 4, generator=random())
    assert len(selection) == 4
    with pytest.raises(ValueError, match="must be of a strategy with a nested order"):
        selection.first(2)
    order = KDPP(groups=groups).order(known, generator=random())
    assert order.sort().values.tolist() == list(range(60))


def test_many_zeros_have_their_place_too() -> None:
    scores = torch.zeros(500)
    scores[[3, 77]] = torch.tensor([1e-6, 5.0])
    known = Evidence(500, scores=scores, features=evidence(500).features)
    for strategy in (Proportional(Given()), Proportional(Given(), inverse=True), Softmax(Given())):
        order = strategy.order(known, generator=random())
        assert order.sort().values.tolist() == list(range(500))
    assert Proportional(Given()).order(known, generator=random())[0] == 77
    assert Rank(Given()).order(known, generator=random())[:4].tolist() == [77, 3, 0, 1]
    assert len(KDPP(Given(), kernel="gaussian").select(known, 2, generator=random())) == 2


@pytest.mark.parametrize(
    "strategy",
    [
        Uniform(groups=Clusters(4)),
        Proportional(Influence()),
        Softmax(Loss()),
        Rank(Margin(C=1.0)),
        KDPP(EL2N(), kernel="gaussian"),
        KDPP(kernel="gaussian", width=8, groups="labels"),
        SupportVectors(C=1.0),
    ],
)
def test_selections_weigh_the_data_and_follow_the_generator_alone(strategy: Strategy) -> None:
    known = evidence()
    before = random_state()
    assert isinstance(strategy, Strategy)
    first = strategy.select(known, 6, generator=random(1))
    assert random_state() == before
    again = strategy.select(known, 6, generator=random(1))
    assert torch.equal(first.indices, again.indices)
    torch.testing.assert_close(first.weights, torch.full((6,), 10.0))
    assert first.weights.dtype == torch.float32


# Groups -------------------------------------------------------------------------------------------


def shares(sizes: list[int], budget: int, allocation: str) -> list[int]:
    """Webster's rule seat by seat, or turns; every group has one before another has two."""
    had = [0] * len(sizes)
    for _ in range(budget):
        free = [g for g, size in enumerate(sizes) if had[g] < size]
        new = [g for g in free if had[g] == 0]
        if new:
            winner = min(new, key=lambda g: (-sizes[g], g))
        elif allocation == "equal":
            winner = min(free, key=lambda g: (had[g], -sizes[g], g))
        else:
            winner = min(free, key=lambda g: (Fraction(2 * had[g] + 1, sizes[g]), -sizes[g], g))
        had[winner] += 1
    return had


def counted(strategy: Any, groups: Tensor, known: Evidence, budget: int) -> list[int]:
    chosen = strategy.select(known, budget, generator=random(budget)).indices
    counts: list[int] = groups[chosen].bincount(minlength=int(groups.max()) + 1).tolist()
    return counts


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.sampled_from(["proportional", "equal"]),
    st.integers(0, 2**32 - 1),
)
def test_groups_share_the_budget_by_websters_rule_or_in_turn(
    sizes: list[int], allocation: Allocation, seed: int
) -> None:
    n = sum(sizes)
    groups = torch.from_numpy(random(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    known = Evidence(n, groups, scores=torch.arange(1.0, n + 1))
    before = [0] * len(sizes)
    for budget in sorted({1, min(2, n), *random(seed).integers(1, n + 1, 6).tolist(), n}):
        expected = shares(sizes, budget, allocation)
        for given_groups in ("labels", groups):
            for strategy in (
                Rank(Given(), groups=given_groups, allocation=allocation),
                Uniform(groups=given_groups, allocation=allocation),
            ):
                assert counted(strategy, groups, known, budget) == expected
        assert all(a <= b for a, b in zip(before, expected, strict=True))  # house monotone
        if budget >= len(sizes):
            assert min(expected) >= 1
        before = expected


@pytest.mark.parametrize(
    ("sizes", "budget", "allocation", "expected"),
    [
        ([60, 30, 10], 10, "proportional", [6, 3, 1]),
        ([97, 1, 1, 1], 10, "proportional", [7, 1, 1, 1]),
        ([97, 1, 1, 1], 3, "proportional", [1, 1, 1, 0]),
        ([50, 50, 2], 30, "equal", [14, 14, 2]),
        ([3, 4, 5], 4, "equal", [1, 1, 2]),
        ([3, 4, 5], 12, "equal", [3, 4, 5]),
    ],
)
def test_shares_by_hand(
    sizes: list[int], budget: int, allocation: Allocation, expected: list[int]
) -> None:
    groups = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    strategy = Uniform(groups=groups, allocation=allocation)
    assert counted(strategy, groups, Evidence(sum(sizes)), budget) == expected
    assert shares(sizes, budget, allocation) == expected


def test_equal_shares_take_turns() -> None:
    groups = torch.tensor([0] * 9 + [1] * 3 + [2] * 6)
    order = Uniform(groups=groups, allocation="equal").order(Evidence(18), generator=random())
    assert groups[order].tolist() == [0, 2, 1] * 3 + [0, 2] * 3 + [0] * 3


def test_in_groups_the_best_of_each_are_chosen() -> None:
    known = evidence()
    assert known.labels is not None
    assert known.losses is not None
    chosen = Rank(Loss(), groups="labels").select(known, 12, generator=random()).indices
    for c in range(3):
        members = (known.labels == c).nonzero().flatten()
        best = members[known.losses[members].argsort(descending=True)[:4]]
        assert chosen[known.labels[chosen] == c].tolist() == best.tolist()


def test_one_group_a_sample_and_one_for_all() -> None:
    known = evidence(9)
    alone = Proportional(Loss(), groups=torch.arange(9)).order(known, generator=random())
    assert alone.tolist() == list(range(9))  # of groups of one the first comes first
    together = Proportional(Loss(), groups=torch.full((9,), 5)).order(known, generator=random())
    assert together.tolist() == Proportional(Loss()).order(known, generator=random()).tolist()


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
@pytest.mark.parametrize("allocation", ["proportional", "equal"])
def test_a_k_dpp_in_groups_draws_the_share_of_each(kernel: Any, allocation: Allocation) -> None:
    groups = torch.tensor([3] * 30 + [0] * 20 + [1] * 10)
    known = evidence()
    for budget in (1, 2, 5, 11):
        strategy = KDPP(Loss(), kernel=kernel, groups=groups, allocation=allocation)
        expected = shares([20, 10, 30], budget, allocation)
        found = counted(strategy, groups, known, budget)
        assert [found[0], found[1], found[3]] == expected
        assert len(strategy.select(known, budget, generator=random())) == budget


def test_a_k_dpp_in_groups_draws_apart_within_each() -> None:
    """Two copies of three directions in each of two classes: never both."""
    x = torch.eye(3).repeat(4, 1)
    known = Evidence(12, torch.arange(12) // 6, features=x)
    for seed in range(20):
        chosen = KDPP(groups="labels").select(known, 6, generator=random(seed)).indices
        assert sorted((chosen // 6 * 3 + chosen % 3).tolist()) == list(range(6))
    with pytest.raises(ValueError, match="at most the rank of the kernel, 3, for a k-DPP, got 4"):
        KDPP(groups="labels").select(known, 7, generator=random())


# k-DPPs -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_k_dpp_weighs_quality_against_likeness() -> None:
    """P(S) of pairs: q_i^2 q_j^2 (1 - cos^2)."""
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, -2.0]])
    q = (1.0, 0.5, 2.0, 1.0)
    y = nn.functional.normalize(x)
    law = {
        (i, j): (q[i] * q[j]) ** 2 * (1 - float(y[i] @ y[j]) ** 2)
        for i in range(4)
        for j in range(i + 1, 4)
    }
    strategy, generator = KDPP(Given()), random(3)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(3000):
        chosen = strategy.select(scored(*q, features=x), 2, generator=generator).indices
        counts[tuple(sorted(chosen.tolist()))] += 1
    assert_law(counts, law)


def test_an_order_begins_with_a_k_dpp_of_the_whole_rank() -> None:
    x = torch.eye(4).repeat(5, 1)
    for seed in range(10):
        order = KDPP().order(Evidence(20, features=x), generator=random(seed))
        assert sorted((order[:4] % 4).tolist()) == [0, 1, 2, 3]
        assert order.sort().values.tolist() == list(range(20))


def test_a_k_dpp_of_features_of_zeros_or_more_than_their_rank() -> None:
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="at most the rank of the kernel, 2, for a k-DPP, got 3"):
        KDPP().select(Evidence(9, features=x), 3, generator=random())
    assert len(KDPP(kernel="gaussian").select(Evidence(9, features=x), 3, generator=random())) == 3
    x[4] = 0
    with pytest.raises(ValueError, match="features must not be rows of zeros"):
        KDPP().select(Evidence(9, features=x), 2, generator=random())
    with pytest.raises(ValueError, match=r"evidence.features must be given"):
        KDPP().select(Evidence(9), 2, generator=random())


# Support vectors ----------------------------------------------------------------------------------


def test_support_vectors_are_the_samples_with_a_margin_below_1() -> None:
    known = evidence()
    assert known.features is not None
    assert known.labels is not None
    values = margins(known.features, known.labels, 1.0)
    inside = int((values < 1).sum())
    assert 3 < inside < 60
    strategy = SupportVectors(C=1.0)
    for budget in (1, 3, inside, inside + 1, 60):
        found = strategy.select(known, budget, generator=random())
        count = min(budget, inside)
        assert len(found) == count
        assert (values[found.indices] < 1).all()
        assert found.indices.tolist() == values.argsort(stable=True)[:count].tolist()
        torch.testing.assert_close(found.weights, torch.full((count,), 60 / count))
    assert set(found.indices.tolist()) == set((values < 1).nonzero().flatten().tolist())
    assert found.first(2).indices.tolist() == found.indices[:2].tolist()
    order = strategy.order(known, generator=random())
    assert order[:inside].tolist() == found.indices.tolist()
    assert order.sort().values.tolist() == list(range(60))


def test_support_vectors_fill_a_sampler_less() -> None:
    known = evidence()
    sampler = CoresetSampler(range(60), SupportVectors(C=1.0), count=59)
    count = len(sampler.refresh(known))
    assert count < 59
    assert len(sampler) == 60 + count


# Bad input ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Returns:
    """A user's score that returns whatever it was given."""

    value: Any
    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, evidence: Evidence) -> Any:
        return self.value


class Named(Returns):
    """A user's score whose needs are no set."""

    needs = ["losses"]  # type: ignore[assignment]  # noqa: RUF012


def pick(strategy: Any, known: Evidence | None = None, budget: int = 2) -> Selection:
    chosen = strategy.select(known or evidence(4, 2), budget, generator=random())
    assert isinstance(chosen, Selection)
    return chosen


@pytest.mark.parametrize("make", [Proportional, Softmax, Rank, KDPP])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            torch.tensor([1.0, torch.nan, 2.0, torch.inf]),
            r"finite, got 2 others \(first ind.* 1, 3",
        ),
        (torch.zeros(4), r"must not all be zero, got 4 zeros from .*Returns.*Uniform\(\)"),
        (torch.ones(3), r"must be an \(4,\) tensor, got \(3,\) .*Fix .*Returns"),
        (torch.ones(4, 1), r"must be an \(4,\) tensor, got \(4, 1\)"),
        (torch.tensor(1.0), r"must be an \(4,\) tensor, got \(\)"),
        ([1.0, 2.0, 3.0], r"must be an \(4,\) tensor, got \(3,\)"),
        (torch.ones(4) * 1j, r"must be an \(4,\) tensor, got \(4,\) torch.complex64"),
    ],
)
def test_bad_scores(make: Any, value: Any, words: str) -> None:
    strategy = make(Returns(value))
    with pytest.raises(ValueError, match="scores " + words if "must" in words else words):
        pick(strategy)
    with pytest.raises(ValueError, match=words):
        strategy.order(evidence(4, 2), generator=random())


@pytest.mark.parametrize("value", [None, "scores", {0: 1.0}])
def test_scores_that_are_no_numbers(value: Any) -> None:
    words = r"scores must be a tensor or an array of numbers, got .* Fix .*Returns"
    with pytest.raises(TypeError, match=words):
        pick(Rank(Returns(value)))


@pytest.mark.parametrize("value", [[1.0, 4.0, 2.0, 3.0], np.array([1, 4, 2, 3]), [1, 4, 2, 3]])
def test_scores_may_be_arrays(value: Any) -> None:
    assert pick(Rank(Returns(value)), budget=3).indices.tolist() == [1, 3, 2]


def test_scores_beyond_the_temperature_are_refused() -> None:
    known = Evidence(4, scores=torch.tensor([1.0, 2.0, 3.0, 4.0]).double() * 1e300)
    with pytest.raises(
        ValueError, match=r"temperature must be in units of the score, got 1e-20 of"
    ):
        pick(Softmax(Given(), temperature=1e-20), known=known)


@pytest.mark.parametrize("groups", [[0, 1, 0, 1], np.array([0, 1, 0, 1], np.int8)])
def test_groups_may_be_arrays(groups: Any) -> None:
    known = Evidence(4, scores=torch.tensor([4.0, 1.0, 3.0, 2.0]))
    assert pick(Rank(Given(), groups=groups), known, 3).indices.tolist() == [0, 3, 2]


def test_a_row_of_zeros_in_a_group_is_named_by_its_sample() -> None:
    x = torch.ones(6, 3)
    x[4] = 0
    strategy = KDPP(groups=torch.tensor([0, 0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"got 1 such rows \(first samples 4\)"):
        strategy.select(Evidence(6, features=x), 2, generator=random())


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_linear_k_dpp_knows_no_scale(scale: float) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double()
    one, other = (
        KDPP().select(Evidence(8, features=rows), 3, generator=random()) for rows in (x, x * scale)
    )
    assert torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("make", [Proportional, KDPP])
def test_proportions_are_not_negative(make: Any) -> None:
    words = (
        rf"must be 0 or more to be proportions, got 1 negative ones \(first indices 2\) in "
        rf"{make.__name__}. Take Softmax or Rank"
    )
    with pytest.raises(ValueError, match=words):
        pick(make(Given()), scored(1.0, 0.0, -1.0, features=torch.eye(3)))
    with pytest.raises(ValueError, match="or more to be proportions, got 3 negative"):
        pick(make(Given()), scored(-1.0, -2.0, -1.0, features=torch.eye(3)))
    for other in (Softmax(Given()), Rank(Given())):
        assert len(pick(other, scored(-1.0, -2.0, -1.0))) == 2


def test_scores_that_are_not_finite_are_refused_by_the_evidence() -> None:
    with pytest.raises(ValueError, match="scores must be finite"):
        scored(1.0, float("nan"))
    with pytest.raises(ValueError, match="losses must be finite"):
        Evidence(2, losses=torch.tensor([1.0, torch.inf]))


@pytest.mark.parametrize(
    "value", [torch.arange(1, 5), torch.arange(1.0, 5).half(), torch.ones(4, requires_grad=True)]
)
def test_scores_of_any_dtype_will_do(value: Tensor) -> None:
    for make in (Proportional, Softmax, Rank):
        assert len(pick(make(Returns(value)))) == 2


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Proportional(Loss), TypeError, r"score must be a callable with needs.* as Loss\(\)"),  # type: ignore[arg-type]
    (lambda: Rank("loss"), TypeError, "score must be a callable with needs, got 'loss'"),  # type: ignore[arg-type]
    (lambda: Softmax(lambda known: known), TypeError, "score must be a callable with needs"),  # type: ignore[arg-type]
    (lambda: KDPP(EL2N), TypeError, "Pass an instance"),  # type: ignore[arg-type]
    (lambda: Rank(Loss(), inverse="no"), TypeError, "inverse must be True or False, got 'no'"),  # type: ignore[arg-type]
    (lambda: Rank(Named(None)), TypeError, r"score.needs must be a set of names, got \['losses'\]"),  # type: ignore[arg-type]
    (lambda: Uniform(groups="classes"), TypeError, r"groups must be None, .*got 'classes'"),  # type: ignore[arg-type]
    (lambda: Uniform(groups=4), TypeError, "groups must be None, .* got 4"),  # type: ignore[arg-type]
    (lambda: Uniform(groups=["a", "b"]), TypeError, "groups must be a tensor or an array of numb"),  # type: ignore[arg-type]
    (lambda: Uniform(groups=Clusters), TypeError, "groups must be None, "),  # type: ignore[arg-type]
    (lambda: Uniform(allocation="even"), ValueError, "allocation must be one of 'proportional', "),  # type: ignore[arg-type]
    (lambda: Softmax(Loss(), temperature=0), ValueError, r"temperature must be in \(0, inf\)"),
    (lambda: Softmax(Loss(), temperature=-1), ValueError, "temperature must be in"),
    (lambda: Softmax(Loss(), temperature=float("nan")), ValueError, "temperature must be in"),
    (lambda: Softmax(Loss(), temperature="1"), TypeError, "temperature must be a number"),  # type: ignore[arg-type]
    (lambda: KDPP(kernel="rbf"), ValueError, "kernel must be one of 'linear', 'gaussian'"),  # type: ignore[arg-type]
    (lambda: KDPP(width=7), ValueError, "width must be even, got 7"),
    (lambda: KDPP(width=0), ValueError, "width must be at least 2, got 0"),
    (lambda: KDPP(width=2.0), TypeError, "width must be an integer"),  # type: ignore[arg-type]
    (lambda: KDPP(bandwidth=0), ValueError, r"bandwidth must be in \(0, inf\), got 0"),
    (lambda: KDPP(groups="class"), TypeError, "groups must be None"),  # type: ignore[arg-type]
    (lambda: Clusters(0), ValueError, "count must be at least 1, got 0"),
    (lambda: Clusters(2.5), TypeError, "count must be an integer"),  # type: ignore[arg-type]
    (lambda: SupportVectors(C=0), ValueError, r"C must be in \(0, inf\), got 0"),
    (lambda: SupportVectors(C="1"), TypeError, "C must be a number"),  # type: ignore[arg-type]
    (lambda: SupportVectors(C=()), TypeError, "C must be a number"),
    (
        lambda: pick(Uniform(groups=torch.arange(5))),
        ValueError,
        r"groups must have shape \(4,\), got \(5,\)",
    ),
    (
        lambda: pick(Uniform(groups=torch.zeros(4, 1).long())),
        ValueError,
        r"groups must have shape \(4,\), got \(4, 1\)",
    ),
    (lambda: pick(Uniform(groups=torch.rand(4))), TypeError, "groups must be integer"),
    (lambda: pick(Uniform(groups=torch.arange(4) - 1)), ValueError, "groups must be 0 or more"),
    (lambda: pick(Uniform(groups="labels"), Evidence(4)), ValueError, "evidence.labels must be"),
    (lambda: pick(Proportional(Loss()), Evidence(4)), ValueError, "evidence.losses must be given"),
    (lambda: pick(Rank(Influence()), Evidence(4)), ValueError, "evidence.proxies must be given"),
    (lambda: pick(Rank(Given()), Evidence(4)), ValueError, "evidence.scores must be given"),
    (
        lambda: pick(SupportVectors(), replace(evidence(4), labels=torch.ones(4).long())),
        ValueError,
        "labels must hold at least 2 classes for an SVM, got only class 1",
    ),
    (lambda: pick(SupportVectors(), Evidence(4)), ValueError, "evidence.features must be given"),
]


@pytest.mark.parametrize(("bad", "error", "words"), BAD)
def test_bad_input(bad: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bad()


@pytest.mark.parametrize(
    "strategy",
    [Uniform(), Proportional(Loss()), Softmax(Loss()), Rank(Loss()), KDPP(), SupportVectors()],
)
@pytest.mark.parametrize("groups", [None, "labels"])
def test_budgets_out_of_range(strategy: Any, groups: Any) -> None:
    if groups and not isinstance(strategy, SupportVectors):
        strategy = replace(strategy, groups=groups)
    with pytest.raises(ValueError, match="budget must be at least 1, got 0"):
        pick(strategy, evidence(), 0)
    with pytest.raises(ValueError, match="at most the number of samples, 60, got 61"):
        pick(strategy, evidence(), 61)
    with pytest.raises(TypeError, match="budget must be an integer"):
        strategy.select(evidence(), 2.5, generator=random())


# Scores of one's own ------------------------------------------------------------------------------


class Staleness:
    """A user's score: nothing is inherited."""

    needs = frozenset({"losses", "labels"})

    def __call__(self, evidence: Evidence) -> Tensor:
        assert evidence.losses is not None
        assert evidence.labels is not None
        return evidence.losses * (1 + evidence.labels)


def entropy(evidence: Evidence) -> Tensor:
    assert evidence.proxies is not None
    return evidence.proxies.gradient.abs().sum(1)


entropy.needs = frozenset({"proxies"})  # type: ignore[attr-defined]


@pytest.mark.parametrize("score", [Staleness(), entropy])
def test_any_callable_with_needs_is_a_score(score: Any) -> None:
    assert isinstance(score, Score)
    known = evidence()
    for strategy in (Proportional(score), Softmax(score), Rank(score), KDPP(score)):
        assert score.needs <= strategy.needs
        assert len(strategy.select(known, 4, generator=random())) == 4
    best = Rank(score).order(known, generator=random())
    assert best.tolist() == score(known).argsort(descending=True, stable=True).tolist()
    assert Rank(score, groups="labels").needs == score.needs | {"labels"}
    assert KDPP(score, groups=Clusters(2)).needs == score.needs | {"features"}


# In the sampler -----------------------------------------------------------------------------------


def trained() -> tuple[nn.Module, TensorDataset]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for part in model.parameters():
            part.copy_(torch.randn(part.shape, generator=generator))
    return model, TensorDataset(x, torch.randint(3, (50,), generator=generator))


@pytest.mark.parametrize(
    "strategy",
    [
        Proportional(Influence()),
        KDPP(EL2N(), kernel="gaussian"),
        Uniform(groups=Clusters(4)),
    ],
)
def test_epochs_are_drawn_from_what_a_sweep_makes_of_the_data(strategy: Strategy) -> None:
    model, data = trained()

    def epochs(seed: int) -> list[list[Draw]]:
        sampler = CoresetSampler(data, strategy, count=8, copies=2, seed=seed)
        found = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            selection = sampler.refresh(sweep(model, data, LastLayerGradient()))
            draws = list(sampler)
            strong = Counter((draw.index, draw.copy) for draw in draws if draw.strength > 0)
            chosen = selection.indices.tolist()
            assert strong == Counter((i, c) for i in chosen for c in (1, 2))
            assert len(draws) == len(sampler) == 50 + 16
            found.append(draws)
        return found

    first = epochs(0)
    assert epochs(0) == first
    assert epochs(1) != first
    chosen = [{draw.index for draw in draws if draw.strength} for draws in first]
    assert len({frozenset(some) for some in chosen}) == 3


def reported(sampler: CoresetSampler, losses: Tensor) -> None:
    draws = [draw for draw in sampler if draw.strength == 0]
    index = torch.tensor([draw.index for draw in draws])
    none = torch.zeros(len(draws))
    sampler.report(Sample(none, index % 2, index, none + 1, none, index * 0), loss=losses[index])


@pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at
@pytest.mark.parametrize(("interval", "due"), [(1, True), (None, False)])
def test_scores_are_updated_with_each_refresh_or_never(interval: int | None, due: bool) -> None:
    sampler = CoresetSampler(range(9), Rank(Loss()), count=2, refresh=Every(interval, warmup=1))
    assert not sampler.refresh_due
    found: list[list[int]] = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            found.append(sampler.refresh().indices.tolist())
            assert not sampler.refresh_due
        chosen = {draw.index for draw in sampler if draw.strength > 0}
        assert chosen == set(found[-1] if found else [])
        reported(sampler, (torch.arange(9.0) + 3 * epoch) % 9)
    assert found == ([[8, 7], [5, 4], [2, 1]] if due else [[8, 7]])
