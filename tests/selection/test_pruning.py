"""Pruning rules: what they keep, at what weight, and that unbiased ones are."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from augloader.core import Selection
from augloader.selection import InfoBatch, Pruning, RandomPruning, SeTa
from tests.reference import random_state

RULES: list[Any] = [
    RandomPruning(0.3),
    InfoBatch(0.5, anneal=0),
    InfoBatch(0.75, anneal=0.25),
    SeTa(0.2, groups=4, anneal=0.25),
]
LOSSES = st.lists(st.one_of(st.floats(0, 50, width=32), st.just(float("nan"))), min_size=2)


def kept(rule: Pruning, losses: Any, epoch: int = 1, seed: int = 0, epochs: int = 8) -> Selection:
    given = torch.as_tensor(losses, dtype=torch.float32)
    return rule.keep(given, epoch=epoch, epochs=epochs, generator=np.random.default_rng(seed))


@given(LOSSES, st.sampled_from(RULES), st.integers(0, 7), st.integers(0, 9))
def test_what_every_rule_keeps(losses: list[float], rule: Any, epoch: int, seed: int) -> None:
    before, state = torch.tensor(losses), random_state()
    found = kept(rule, losses, epoch, seed)
    assert random_state() == state
    order = found.indices.tolist()
    assert order == sorted(set(order))
    assert set(order) <= set(range(len(losses)))
    if rule.needs:
        assert set(before.isnan().nonzero().flatten().tolist()) <= set(order)
    again = kept(rule, losses, epoch, seed)
    assert again.indices.tolist() == order
    assert again.weights.tolist() == found.weights.tolist()


@pytest.mark.parametrize("rule", [RandomPruning(0.3), InfoBatch(0.5, 0), InfoBatch(0.9, 0)])
def test_the_expected_weighted_sum_is_that_of_all_samples(rule: Any) -> None:
    """By sampling: E[sum of w_i g_i over the kept] = sum of g_i, sample by sample."""
    losses = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.4, 9.0, 8.0, torch.nan, 0.2, 0.1])
    generator, runs = np.random.default_rng(3), 20_000
    total, squares = torch.zeros(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64)
    for _ in range(runs):
        found = rule.keep(losses, epoch=0, epochs=None, generator=generator)
        weights = torch.zeros(10, dtype=torch.float64)
        weights[found.indices] = found.weights.double()
        total, squares = total + weights, squares + weights.square()
    mean = total / runs
    error = ((squares / runs - mean.square()).clamp(min=0) / runs).sqrt()
    assert ((mean - 1).abs() <= 5 * error + 1e-6).all()


class Turns:
    """A generator whose one uniform number is given, and whose choices are all taken in turn."""

    def __init__(self, uniform: float, subset: list[int]) -> None:
        self.uniform, self.subset = uniform, subset

    def random(self) -> float:
        return self.uniform

    def choice(self, samples: Any, count: int, **_: Any) -> Any:
        return np.asarray(samples)[self.subset[:count]]


def test_the_expectation_by_enumeration() -> None:
    """All that InfoBatch may draw of 5 low losses, each equally likely: every weight is 1."""
    from itertools import combinations

    losses = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, 9.0])
    rule, mean = InfoBatch(0.5, anneal=0), torch.zeros(6, dtype=torch.float64)
    for uniform, chance in ((0.25, 0.5), (0.75, 0.5)):  # 2.5 is rounded down or up to 2 or 3
        subsets = list(combinations(range(5), int(2.5 + uniform)))
        for subset in subsets:
            turns: Any = Turns(uniform, list(subset))
            found = rule.keep(losses, epoch=0, epochs=None, generator=turns)
            mean[found.indices] += found.weights.double() * chance / len(subsets)
    torch.testing.assert_close(mean, torch.ones(6, dtype=torch.float64))


def packaged(scores: Tensor, ratio: float, drawn: Any) -> tuple[set[int], dict[int, float]]:
    """The rule of the authors' package: kept samples and their weights, of given choices."""
    keep_ratio = min(1.0, max(0.1, 1.0 - ratio))
    low = (scores < scores.mean()).nonzero().flatten().tolist()
    rest = (scores >= scores.mean()).nonzero().flatten().tolist()
    taken = drawn(low, int(keep_ratio * len(low)))
    weights = dict.fromkeys(rest, 1.0) | dict.fromkeys(taken, 1 / keep_ratio)
    return set(weights), weights


@given(st.lists(st.floats(0, 20, width=32), min_size=3, max_size=40), st.sampled_from([0.3, 0.5]))
def test_infobatch_is_the_packages_rule(losses: list[float], ratio: float) -> None:
    """On recorded losses: the same samples at the same weights, where the same ones are drawn."""
    scores = torch.tensor(losses, dtype=torch.float64)
    low = int((scores < min(float(scores.mean()), float(scores.max()))).sum())
    turns: Any = Turns(0.0, list(range(low)))  # rounded down, as in the package
    found = InfoBatch(ratio, anneal=0).keep(scores.float(), epoch=0, epochs=1, generator=turns)
    expected, weights = packaged(scores, ratio, lambda some, count: some[:count])
    if len({*losses}) > 1:
        assert set(found.indices.tolist()) == expected
        got = dict(zip(found.indices.tolist(), found.weights.tolist(), strict=True))
        assert got == pytest.approx(weights)


@pytest.mark.parametrize(("anneal", "epochs"), [(0.125, 200), (0.1, 30), (0.25, 8), (1, 5), (0, 5)])
def test_all_are_kept_in_the_last_epochs(anneal: float, epochs: int) -> None:
    """The package prunes in its passes 1, 2, ... up to (1 - anneal) epochs."""
    losses = torch.linspace(0, 1, 50)
    rule = InfoBatch(0.5, anneal)
    for epoch in range(epochs):
        whole = len(kept(rule, losses, epoch, epochs=epochs)) == 50
        assert whole == (epoch + 1 > round((1 - anneal) * epochs, 9))


def test_equal_losses_are_all_kept() -> None:
    """Their mean in float64 may be above them by a rounding."""
    for value in (0.1, 0.7, 1 / 3):
        assert len(kept(InfoBatch(0.9, 0), [value] * 7)) == 7
        assert len(kept(InfoBatch(0.9, 0), [value] * 1_000)) == 1_000


def test_without_losses_all_are_kept() -> None:
    found = kept(InfoBatch(0.5), [float("nan")] * 9)
    assert found.weights.tolist() == [1] * 9


def test_the_number_that_is_kept() -> None:
    none = torch.full((1_000,), torch.nan)
    sizes = {len(kept(RandomPruning(0.3335), none, seed=seed)) for seed in range(40)}
    assert sizes == {666, 667}
    assert len(kept(RandomPruning(0.0), none)) == 1_000


@pytest.mark.parametrize(
    ("rule", "options", "error", "words"),
    [
        (InfoBatch, {"ratio": 1}, ValueError, r"ratio must be in \[0, 1\), got 1"),
        (InfoBatch, {"ratio": -0.1}, ValueError, r"ratio must be in \[0, 1\), got -0.1"),
        (InfoBatch, {"ratio": float("nan")}, ValueError, r"ratio must be in \[0, 1\), got nan"),
        (InfoBatch, {"ratio": "half"}, TypeError, "ratio must be a number"),
        (InfoBatch, {"anneal": 2}, ValueError, r"anneal must be in \[0, 1\], got 2"),
        (RandomPruning, {"ratio": 1.0}, ValueError, r"ratio must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options(rule: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rule(**options)


def test_what_a_rule_refuses() -> None:
    for rule, n in ((RandomPruning(0.9), 10), (RandomPruning(0.8), 5)):  # 1, but for rounding
        generator = np.random.default_rng(0)
        unknown = torch.full((n,), torch.nan)
        assert len(rule.keep(unknown, epoch=0, epochs=None, generator=generator)) == 1
    with pytest.raises(ValueError, match=r"ratio must leave at least 1 of 5 samples, got 0.9\."):
        kept(RandomPruning(0.9), [0.0] * 5)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="epochs must be given where anneal is above 0"):
        InfoBatch().keep(torch.rand(5), epoch=0, epochs=None, generator=generator)
