"""A permutation of any range: a bijection, its inverse, and as random as a shuffle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from augloader.core import permutation as module
from augloader.core.permutation import Permutation

SMALL = 2**16


def seed(i: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(i)


@given(st.integers(0, 700), st.integers(0, 99), st.booleans())
def test_each_number_has_one_place(n: int, i: int, large: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALL", 0 if large and n > 1 else SMALL)
        order, places = Permutation(n, seed(i)), np.arange(n)
        numbers = order.at(places)
        assert numbers.dtype == np.int64
        assert sorted(numbers.tolist()) == list(range(n)) == places.tolist()
        assert (order.where(numbers) == places).all()
        assert len(order) == n
        assert (Permutation(n, seed(i)).at(places[::-2]) == numbers[::-2]).all()


def test_small_ones_are_numpys() -> None:
    for n in (1, 5, SMALL):
        expected = np.random.default_rng(seed(3)).permutation(n)
        assert (Permutation(n, seed(3)).at(np.arange(n)) == expected).all()


@pytest.mark.parametrize("n", [SMALL + 1, 2**17, 10**8, 2**40 + 7])
def test_large_ones_are_made_where_they_are_asked_for(n: int) -> None:
    order = Permutation(n, seed(1))
    places = np.unique(np.random.default_rng(0).integers(0, n, 5000))
    numbers = order.at(places)
    assert len(np.unique(numbers)) == len(places)
    assert 0 <= numbers.min() <= numbers.max() < n
    assert (order.where(numbers) == places).all()
    assert (Permutation(n, seed(2)).at(places) == numbers).mean() < 0.01
    assert abs(numbers.mean() / n - 0.5) < 0.03
    assert abs(np.corrcoef(places, numbers)[0, 1]) < 0.06
    steps = np.diff(order.at(np.arange(5000)))
    assert len(np.unique(steps)) > 4500  # neighbours do not stay neighbours


@pytest.mark.parametrize("n", [257, 1000])
def test_places_and_numbers_are_independent(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By chi-squared tests over seeds: of single places, of pairs, and of the order of two."""
    monkeypatch.setattr(module, "_SMALL", 0)
    drawn = np.stack([Permutation(n, seed(i)).at(np.arange(n)) for i in range(3000)])
    tested = []
    for place in (0, 1, n // 2, n - 1):
        tested.append(stats.chisquare(np.bincount(drawn[:, place] * 16 // n, minlength=16)).pvalue)
    for first, second in ((0, 1), (5, 5 + n // 2), (2, n - 1)):
        pairs = drawn[:, first] * 6 // n * 6 + drawn[:, second] * 6 // n
        tested.append(stats.chisquare(np.bincount(pairs, minlength=36)).pvalue)
        above = int((drawn[:, first] > drawn[:, second]).sum())
        tested.append(stats.binomtest(above, len(drawn)).pvalue)
    assert min(tested) > 1e-4
    fixed = (drawn == np.arange(n)).sum(1)  # close to a Poisson variable of mean 1
    assert abs(fixed.mean() - 1) < 0.1
    assert abs(fixed.var() - 1) < 0.2
