"""The weakest view of every sample."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from augloader.feedback.views import Weakest

STRENGTHS = st.sampled_from([0.0, 0.25, 1.0])
Said = list[tuple[int, float, float]]  # sample, value and strength of a report
REPORTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9).map(float), STRENGTHS))


def told(reports: Said) -> Weakest:
    known = Weakest.none(4, (2,), torch.float32)
    for i, value, strength in reports:
        known.take(torch.tensor([i]), torch.full((1, 2), value), torch.tensor([strength]))
    return known


def same(a: Weakest, b: Weakest) -> bool:
    return torch.equal(a.values, b.values) and torch.equal(a.strength, b.strength)


@given(REPORTS)
def test_the_last_of_the_weakest_views_is_known(reports: Said) -> None:
    known = told(reports)
    for i in range(4):
        own = [(strength, value) for j, value, strength in reports if j == i]
        weakest = min((strength for strength, _ in own), default=torch.inf)
        last = [value for strength, value in own if strength == weakest][-1:] or [0.0]
        assert known.strength[i] == weakest
        assert known.values[i].tolist() == last * 2


@given(REPORTS, REPORTS)
def test_merging_commutes_and_keeps_the_weaker_view(mine: Said, theirs: Said) -> None:
    a, b = told(mine), told(theirs)
    merged = a.merged(b)
    assert same(merged, b.merged(a))
    assert same(a, told(mine))
    assert torch.equal(merged.strength, a.strength.minimum(b.strength))
    mean = (a.values + b.values) / 2
    weaker = torch.where((a.strength < b.strength)[:, None], a.values, b.values)
    expected = torch.where((a.strength == b.strength)[:, None], mean, weaker)
    assert torch.equal(merged.values, expected)


def test_what_each_makes_is_not_shared() -> None:
    known = told([(1, 3.0, 0.25)])
    copied, rows = known.each(torch.clone), known.each(lambda part: part[[1, 0]])
    index: Tensor = torch.tensor([1])
    known.take(index, torch.zeros(1, 2), torch.zeros(1))
    assert copied.strength[1] == rows.strength[0] == 0.25
    assert copied.width == rows.width == known.width == (2,)
