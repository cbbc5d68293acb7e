"""Draws by their place are those of a whole epoch made at once."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st

from augloader import RandomPruning
from augloader.core import Selection
from augloader.core import permutation as module
from augloader.core.permutation import Permutation
from augloader.loading.layout import Chance, Draws, Everyone, Layout, Listed, Random
from augloader.loading.plan import EpochPlan, Weighting

N = 30
Rows = list[tuple[int, int, float, float]]


def at_once(
    plan: EpochPlan,
    base: np.ndarray[Any, Any],
    selection: Selection | None,
    strengths: torch.Tensor,
    kept: Selection | None,
) -> Rows:
    """An epoch as lists: the base, then copy after copy; probability 0 or 1."""
    worth = dict.fromkeys(range(plan.n), 1.0)
    if kept is not None:
        worth |= dict(zip(kept.indices.tolist(), kept.weights.tolist(), strict=True))
    population = plan.weighting == "population"
    each = plan.n / sum(worth[i] for i in base) if population else 1.0
    drawn = [(int(i), 0, each * worth[int(i)], False) for i in base]
    if selection is not None:
        k = len(selection)
        scale = 1.0 if population else k / plan.n
        chosen = [
            (i, weight * scale * worth[i])
            for i, weight in zip(
                selection.indices.tolist(), selection.weights.tolist(), strict=True
            )
            if kept is None or i in set(base.tolist())
        ]
        if plan.base == "selected":
            drawn = [(i, 0, weight, False) for i, weight in chosen]
        if plan.base == "none":
            drawn = []
        if plan.copies == 0:
            strong = {i for i, _ in chosen}
            drawn = [row for row in drawn if row[0] not in strong]
        copies = range(1, plan.copies + 1) if plan.copies else (0,)
        drawn += [(i, c, w / len(copies), True) for c in copies for i, w in chosen]
    happens = plan.probability.at(0) == 1
    rows = []
    for i, copy, weight, strong_one in drawn:
        strength = float(strengths[i]) if strong_one and happens else 0.0
        own = weight
        if not plan.keep_unaugmented_copies and strong_one and strength == 0:
            if copy:
                continue
            if plan.base in ("full", "random"):
                own = each * worth[i]
        rows.append((i, copy, own, strength))
    if plan.weighting == "uniform":
        rows = [(i, c, 1.0, s) for i, c, _, s in rows]
    if plan.weighting in ("downweight", "unbiased"):
        count = np.bincount([row[0] for row in rows], minlength=plan.n)
        rows = [(i, c, worth[i] / count[i], s) for i, c, _, s in rows]
    if plan.weighting != "unbiased" and rows:
        mean = float(np.mean([row[2] for row in rows]))
        rows = [(i, c, w / mean, s) for i, c, w, s in rows]
    return sorted(rows)


def rows_of(draws: Any) -> Rows:
    index, copy, weight, strength, _ = (column.tolist() for column in draws.columns)
    return sorted(zip(index, copy, weight, strength, strict=True))


@for_all(
    st.sampled_from(["full", "random", "selected", "none", "pruned"]),
    st.integers(0, 3),
    st.sampled_from(get_args(Weighting)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_they_are_those_made_at_once(
    base: Any, copies: int, weighting: Any, happens: bool, keep: bool, selected: bool, seed: int
) -> None:
    if weighting == "unbiased" and base not in ("full", "pruned"):
        weighting = "downweight"
    plan = EpochPlan.of(
        N,
        fraction=0.3,
        base=RandomPruning(0.4) if base == "pruned" else base,
        copies=copies,
        weighting=weighting,
        probability=float(happens),
        keep_unaugmented_copies=keep or base == "none",
        seed=seed,
    )
    random = np.random.default_rng(seed)
    chosen = torch.from_numpy(random.choice(N, 9, replace=False))
    weights = torch.from_numpy(random.dirichlet(np.ones(9)) * N + 0.01).float()
    selection = Selection(chosen, weights) if selected else None
    strengths = torch.from_numpy(random.random(N, dtype=np.float32))
    strengths[torch.from_numpy(random.random(N) < 0.3)] = 0
    kept = None
    if base == "pruned":
        indices = torch.from_numpy(random.choice(N, 18, replace=False))
        kept = Selection(indices, torch.from_numpy(random.random(18) + 0.5).float())
    layout = plan.compose(0, selection, strengths, kept)
    members = layout.base.at(np.arange(len(layout.base)))
    if base in ("selected", "none") or base == "full":
        members = np.arange(N)
    found, expected = rows_of(layout), at_once(plan, members, selection, strengths, kept)
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose(
        np.array(found, float).reshape(-1, 4), np.array(expected).reshape(-1, 4), rtol=2e-6
    )
    if len(layout):
        places = random.integers(0, len(layout), 50)
        some, whole = layout.at(places), layout.whole.rows(places)
        for mine, theirs in zip(some.columns, whole.columns, strict=True):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        if kept is not None:
            assert 0 < layout.least <= layout.weight.min() * 1.000001
        assert (
            layout.graded == bool(((layout.strength > 0) & (layout.strength < 1)).any()) or not keep
        )  # copies that are left out may be


def test_columns_have_the_types_of_a_draw() -> None:
    layout = EpochPlan.of(4, count=1).compose(0, None, torch.ones(4))
    types = [str(column.dtype) for column in layout.columns]
    assert types == ["int64", "int64", "float32", "float32", "bool"]
    assert isinstance(layout.whole, Draws)
    assert layout.rows(np.array([True, False, False, True])).index.tolist() == [0, 3]


@pytest.mark.parametrize("large", [False, True])
def test_bases_know_their_samples_and_places(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 0 if large else 2**16)
    listed = Listed(np.array([7, 2, 9]), np.array([1.0, 2.0, 3.0]))
    for base in (Everyone(11), Random(Permutation(11, np.random.SeedSequence(0)), 4), listed):
        places = np.arange(len(base))
        samples = base.at(places)
        assert (base.places(samples) == places).all()
        assert np.flatnonzero(base.holds(np.arange(11))).tolist() == sorted(samples)
        assert base.worth(places).sum() == pytest.approx(base.total)
    assert listed.worth(np.array([1])) == 2


def test_chances_depend_on_the_place_and_the_seed_alone() -> None:
    places = np.arange(20_000)
    one = Chance(0.3, 5)
    happens = one.at(places)
    assert abs(happens.mean() - 0.3) < 0.015
    assert (one.at(places[::-3]) == happens[::-3]).all()
    assert abs((Chance(0.3, 6).at(places) & happens).mean() - 0.09) < 0.01
    assert not Chance(0.0, 5).at(places).any()
    assert Chance(1.0, 5).at(places).all()


def test_a_random_base_is_as_likely_of_each_sample() -> None:
    counts = np.zeros(N)
    for seed in range(400):
        plan = EpochPlan.of(N, count=3, base="random", base_fraction=0.2, seed=seed)
        counts[plan.compose(0, None, torch.ones(N)).index] += 1
    assert abs(counts - 80).max() < 4 * (400 * 0.2 * 0.8) ** 0.5


def test_its_memory_is_that_of_what_is_chosen() -> None:
    n = 10**12  # as columns they would be 25 terabytes
    chosen = Listed(np.array([5, n - 1]), np.ones(2))
    ones = torch.ones(1).expand(n)
    chance = Chance(1.0, 0)
    layout = Layout(n, Everyone(n), chosen, np.ones(2), 2, 1, ones, chance, chance)
    assert len(layout) == n + 4
    draws = layout.at(np.array([0, n - 1, n, n + 1, n + 3]))
    assert draws.index.tolist() == [0, n - 1, 5, n - 1, n - 1]
    assert draws.copy.tolist() == [0, 0, 1, 1, 2]
    assert draws.strength.tolist() == [0, 0, 1, 1, 1]
