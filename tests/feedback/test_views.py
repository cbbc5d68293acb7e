"""The last known value of every sample."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from augloader.feedback.views import UNKNOWN, Weakest

Said = list[tuple[int, float, float, int, int]]  # sample, value, strength, period and epoch
REPORTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 9).map(float),
        st.sampled_from([0.0, 0.25, 1.0]),
        st.integers(0, 2),
        st.integers(0, 5),
    )
).map(lambda said: sorted(said, key=lambda report: report[3]))  # periods follow one another


def told(reports: Said) -> Weakest:
    known = Weakest.none(4, (2,), torch.float32)
    for i, value, strength, period, epoch in reports:
        row = torch.full((1, 2), value), torch.tensor([strength])
        known.take(torch.tensor([i]), *row, period=period, epoch=epoch).make()
    return known


def same(a: Weakest, b: Weakest) -> bool:
    return torch.equal(a.values, b.values) and all(map(torch.equal, a.origin, b.origin))


@given(REPORTS)
def test_the_last_of_the_weakest_views_of_the_last_period_is_known(reports: Said) -> None:
    known = told(reports)
    for i in range(4):
        own = [report for report in reports if report[0] == i]
        last = [report for report in own if report[3] == own[-1][3]]
        weakest = min((report[2] for report in last), default=torch.inf)
        best = [report for report in last if report[2] == weakest][-1:] or [(i, 0, weakest, 0, 0)]
        found = known.values[i, 0], *(part[i] for part in known.origin)
        assert tuple(map(float, found)) == best[0][1:]
        assert known.values[i, 0] == known.values[i, 1]


@given(REPORTS, st.integers(0, 5))
def test_the_order_is_that_of_periods_and_of_views_within_them(reports: Said, since: int) -> None:
    known = told(reports)
    order = known.order(2, since).tolist()
    strength, period, epoch = (part.tolist() for part in known.origin)
    old = [strength[i] == torch.inf or epoch[i] < since for i in range(4)]
    assert [each == UNKNOWN for each in order] == old
    for i in range(4):
        for j in range(4):
            if not old[i] and not old[j]:
                pairs = ((-period[k], strength[k]) for k in (i, j))
                assert (order[i] < order[j]) == (next(pairs) < next(pairs))


@given(REPORTS, REPORTS)
def test_merging_commutes_and_keeps_what_is_known_better(mine: Said, theirs: Said) -> None:
    a, b = told(mine), told(theirs)
    merged = a.merged(b)
    assert same(merged, b.merged(a))
    assert same(a, told(mine))
    first, second = a.order(0), b.order(0)
    assert torch.equal(merged.order(0), first.minimum(second))
    mean = (a.values + b.values) / 2
    better = torch.where((first < second)[:, None], a.values, b.values)
    assert torch.equal(merged.values, torch.where((first == second)[:, None], mean, better))
    older = torch.where(first < second, a.epoch, b.epoch)
    assert torch.equal(merged.epoch, torch.where(first == second, a.epoch.minimum(b.epoch), older))


def test_an_order_times_ranks_fits() -> None:
    known = told([(1, 3.0, 1.0, 0, 0)])
    assert int(known.order(2**31 - 1)[1]) * 2**15 < UNKNOWN


def test_what_each_makes_is_not_shared() -> None:
    known = told([(1, 3.0, 0.25, 1, 4)])
    copied, rows = known.each(torch.clone), known.each(lambda part: part[[1, 0]])
    index: Tensor = torch.tensor([1])
    known.take(index, torch.zeros(1, 2), torch.zeros(1), period=2, epoch=5).make()
    assert copied.strength[1] == rows.strength[0] == 0.25
    assert copied.epoch[1] == rows.epoch[0] == 4
    assert copied.width == rows.width == known.width == (2,)
