"""Coresets: smaller budgets read off a larger one, and what their certificates add up to."""

from collections.abc import Sequence
from math import e
from typing import Any

import pytest
import torch

from augloader import Evidence, FacilityLocation, Proxies
from augloader.selection.budget import Allocation, allocate
from augloader.selection.facility import Coreset
from augloader.selection.greedy.engine import Engine, facility_location
from tests.selection.greedy.test_engine import error_of
from tests.selection.test_strategy import evidence, select

SIZES = (40, 23, 9)


def coreset(
    shares: Sequence[int],
    sizes: Sequence[int] = SIZES,
    allocation: Allocation = "proportional",
    xi: float | None = None,
    engines: Sequence[Engine] = ("dense", "dense", "dense"),
    previous: torch.Tensor | None = None,
    repeated: bool = False,
) -> Coreset:
    """Groups of points in a plane, their members interleaved; ``repeated``: each point thrice."""
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
    members = [part.sort().values for part in order.split(list(sizes))]
    x = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(1))
    if repeated:
        x = (x * 4).round()
    points = [Proxies(x[group]) for group in members]
    found = [
        facility_location(p, share, engine=engine, xi=xi)
        for p, share, engine in zip(points, shares, engines, strict=True)
    ]
    return Coreset(members, found, list(shares), allocation, previous)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("allocation", ["proportional", "equal"])
@pytest.mark.parametrize("xi", [None, 3.0])
def test_a_smaller_budget_is_what_a_run_of_its_own_selects(
    allocation: Allocation, xi: float | None, repeated: bool
) -> None:
    shares = allocate(SIZES, 60, allocation)
    whole = coreset(shares, allocation=allocation, xi=xi, repeated=repeated)
    rounded = 0
    for budget in range(3, 61):
        mine = whole.first(budget)
        asked = allocate(SIZES, budget, allocation)
        if any(share > most for share, most in zip(asked, shares, strict=True)):
            rounded += 1
            continue
        alone = coreset(asked, allocation=allocation, xi=xi, repeated=repeated).first(budget)
        assert torch.equal(mine.indices, alone.indices)
        assert torch.equal(mine.weights, alone.weights)
        assert mine.weights.sum() == sum(SIZES)
        assert mine.certificate is not None
        assert alone.certificate is not None
        assert mine.certificate.coverage == pytest.approx(alone.certificate.coverage)
        # A run of its own knows all gains that are left at its end; both bounds hold.
        assert mine.certificate.bound >= alone.certificate.coverage * (1 - 1e-9)
        assert mine.certificate.ratio >= 1 - 1 / e
        torch.testing.assert_close(mine.certificate.gains, alone.certificate.gains)
    assert rounded <= 5


@pytest.mark.parametrize("allocation", ["proportional", "equal"])
def test_a_selection_answers_smaller_budgets_of_any_strategy(allocation: Allocation) -> None:
    given, strategy = evidence(), FacilityLocation(allocation=allocation)
    whole = select(strategy, 60, given)
    for budget in (4, 17, 32, 60):
        alone, mine = select(strategy, budget, given), whole.first(budget)
        assert torch.equal(mine.indices, alone.indices)
        assert torch.equal(mine.weights, alone.weights)
        assert torch.equal(mine.first(4).indices, whole.first(4).indices)
    assert torch.equal(whole.first(60).indices, whole.indices)


def test_what_rounding_asks_of_an_exhausted_group_goes_to_another() -> None:
    """Largest remainder may give a group one more of 10 than of 11: the Alabama paradox."""
    sizes = (60, 60, 20)
    assert allocate(sizes, 11, "proportional") == [5, 5, 1]
    assert allocate(sizes, 10, "proportional") == [4, 4, 2]
    whole = coreset([5, 5, 1], sizes)
    ten = whole.first(10)
    assert len(ten) == 10
    assert ten.weights.sum() == 140
    counts = [int(torch.isin(ten.indices, group).sum()) for group in whole.members]
    assert counts == [5, 4, 1]


def test_a_group_that_xi_stopped_hands_nothing_on() -> None:
    whole = coreset([20, 20, 5], xi=10.0)
    stopped = [len(found.indices) for found in whole.medoids]
    assert stopped[0] < 20
    assert stopped[1] < 20
    assert len(whole.first(45)) == sum(stopped)
    for group, found in zip(whole.members, whole.medoids, strict=True):
        distances = Proxies(torch.zeros(len(group), 1)).distances()
        assert error_of(distances, found.indices) == 0
        assert float(found.distances.double().sum()) <= 10


def test_the_certificate_adds_up_the_groups() -> None:
    whole = coreset([12, 8, 3], engines=("dense", "matrix-free", "graph"))
    found = whole.first(23)
    certificate = found.certificate
    assert certificate is not None
    assert certificate.coverage == pytest.approx(sum(m.coverage for m in whole.medoids))
    assert certificate.bound == pytest.approx(
        sum(m.bound(k) for m, k in zip(whole.medoids, (12, 8, 3), strict=True))
    )
    assert 0 < certificate.ratio <= 1
    assert len(certificate.gains) == len(found) == 23
    covered = sum(m.covered * n for m, n in zip(whole.medoids, SIZES, strict=True)) / sum(SIZES)
    assert certificate.covered == pytest.approx(covered)
    assert certificate.kept is None


def test_the_reason_names_every_engine_and_the_budget() -> None:
    whole = coreset([12, 8, 3], engines=("dense", "matrix-free", "graph"))
    certificate = whole.first(10).certificate
    assert certificate is not None
    for words in ("dense for 1 of 3 groups (dense as asked for)", "graph for 1 of 3 groups ("):
        assert words in certificate.reason
    assert "matrix-free for 1 of 3 groups (matrix-free as asked for; " in certificate.reason
    assert certificate.reason.endswith("; first 10 of 23")
    one = coreset([5], [30], engines=["dense"]).first(5).certificate
    assert one is not None
    assert one.reason == "dense (dense as asked for)"


def test_proven_means_proven_in_every_group() -> None:
    whole = coreset([12, 8, 3])
    assert whole.first(10).certificate.proven  # type: ignore[union-attr]
    object.__setattr__(whole.medoids[1], "proven", False)
    assert not whole.first(10).certificate.proven  # type: ignore[union-attr]


def test_samples_that_were_selected_before_are_counted() -> None:
    first = coreset([12, 8, 3]).first(23)
    others = set(range(72)) - set(first.indices.tolist())
    previous = torch.tensor([*first.indices[::2].tolist(), *others])
    again = coreset([12, 8, 3], previous=previous)
    for budget in (23, 7):
        found = again.first(budget)
        assert found.certificate is not None
        expected = len(set(found.indices.tolist()) & set(previous.tolist()))
        assert found.certificate.kept == expected
    none = coreset([12, 8, 3], previous=torch.empty(0, dtype=torch.int64)).first(9)
    assert none.certificate is not None
    assert none.certificate.kept == 0


@pytest.mark.parametrize(
    ("budget", "error", "words"),
    [
        (24, ValueError, "budget must be at most 23, which was selected, got 24"),
        (2, ValueError, "budget must be between 3, one a class, and 72"),
        (0, ValueError, "budget must be at least 1"),
        (5.0, TypeError, "budget must be an integer"),
    ],
)
def test_budgets_out_of_range(budget: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        coreset([12, 8, 3]).first(budget)


LONG_TAIL = (25, 1, 6, 1, 1, 14)  # samples of each class
OPTIONS: list[dict[str, Any]] = [
    {"engine": "dense"},
    {"engine": "matrix-free"},
    {"engine": "graph"},
    {"stochastic": 0.2},
    {"stochastic": 0.2, "engine": "graph"},
    {"allocation": "equal"},
    {"warm_start": 1.0},
    {"xi": 3.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("outer", [False, True])
def test_a_class_of_one_sample_is_its_own_medoid(options: dict[str, Any], outer: bool) -> None:
    n, random = sum(LONG_TAIL), torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat_interleave(torch.tensor(LONG_TAIL))
    h = torch.randn(n, 3, generator=random) if outer else None
    proxies = Proxies(torch.randn(n, 4, generator=random), h)
    given = Evidence(n, labels, proxies, previous=torch.tensor([25, 32, 3, 26]))
    for budget in (6, 15, n):
        whole = select(FacilityLocation(**options), budget, given)
        for chosen in (whole, whole.first(6)):
            weights = dict(zip(chosen.indices.tolist(), chosen.weights.tolist(), strict=True))
            assert [weights[lone] for lone in (25, 32, 33)] == [1, 1, 1]
            assert chosen.weights.sum() == n
            assert chosen.certificate is not None
            assert 0 < chosen.certificate.ratio <= 1
    with pytest.raises(ValueError, match="between 6, one a class, and 48, all samples, got 5"):
        select(FacilityLocation(**options), 5, given)


def test_nothing_but_classes_of_one_sample() -> None:
    alone = Evidence(4, torch.tensor([9, 3, 0, 7]), Proxies(torch.randn(4, 2)))
    chosen = select(FacilityLocation(), 4, alone)
    assert chosen.indices.tolist() == [2, 1, 3, 0]
    assert chosen.certificate is not None
    assert (chosen.certificate.coverage, chosen.certificate.ratio) == (0, 1)


@pytest.mark.parametrize("warm_start", [0.0, 0.5])
def test_a_selection_on_the_gpu_waits_three_times(warm_start: float, gpu: Any) -> None:
    """Whatever the number of classes: for the capture, for the look at the end, for the results."""
    strategy = FacilityLocation(warm_start=warm_start)
    for classes in (2, 7):
        x = torch.randn(101, 4, generator=torch.Generator().manual_seed(0))
        labels = (torch.arange(101) ** 2 // 1500) % classes  # classes of unlike sizes
        previous = torch.arange(0, 101, 4)
        here = select(strategy, 20, Evidence(101, labels, Proxies(x), previous=previous))
        given = Evidence(101, labels, Proxies(x.cuda()), previous=previous)
        gpu.clear()
        gpu.where = lambda name: "augloader/selection" in name
        found = select(strategy, 20, given)
        waits = sorted((what, line.split()[-1]) for what, line in gpu.waits.elements())
        assert waits == [
            ("copy to CPU", "fetched"),  # batched.py, _unfinished: whether all are finished
            ("copy to CPU", "fetched"),  # batched.py, run: the results of all groups
            ("synchronize", "_begun"),  # batched.py: torch.cuda.graph does it before a capture
        ]
        assert found.indices.tolist() == here.indices.tolist()
        assert found.weights.tolist() == here.weights.tolist()
        assert here.certificate is not None
        assert found.certificate is not None
        gains = found.certificate.gains, here.certificate.gains
        torch.testing.assert_close(*gains, rtol=1e-6, atol=1e-6)
        for k in (classes, 13):
            assert torch.equal(found.first(k).weights, here.first(k).weights)
