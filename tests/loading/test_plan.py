"""The plan: epochs composed without a sampler, and as schedules change them."""

import copy
import pickle
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from augloader import (
    Constant,
    CoresetSampler,
    Cosine,
    Draw,
    Every,
    Linear,
    StableInfluence,
    SwitchOff,
    Uniform,
    WarmUp,
    WeightedAugmentedDataset,
)
from augloader.core import Selection
from augloader.loading import Base
from augloader.loading.layout import Layout
from augloader.loading.plan import EpochPlan
from tests.loading.test_sampler import N, chosen, ready, trained

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

BASES: tuple[Base, ...] = ("full", "random", "selected", "none")

# Composed without a sampler -----------------------------------------------------------------------

CHOSEN = Selection(torch.tensor([3, 0]), torch.tensor([4.0, 1.0]))  # of 5


def composed(epoch: int = 0, selection: Selection | None = CHOSEN, **options: Any) -> Layout:
    plan = EpochPlan.of(5, **{"count": 2} | options)
    return plan.compose(epoch, selection, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))


def rows_of(draws: Any) -> list[tuple[Any, ...]]:
    """The draws as tuples."""
    return list(zip(*(column.tolist() for column in draws.columns), strict=True))


def at_mean_1(weights: list[float]) -> list[float]:
    return [weight * len(weights) / sum(weights) for weight in weights]


def test_a_full_base_and_its_copies() -> None:
    """Copies weigh gamma_j k / (n r), here 4 * 2 / (5 * 2) and 1 * 2 / (5 * 2)."""
    draws = composed(copies=2)
    assert draws.index.tolist() == [0, 1, 2, 3, 4, 3, 0, 3, 0]
    assert draws.copy.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(draws.strength, [0] * 5 + [0.4, 0.1] * 2, rtol=1e-6)
    np.testing.assert_allclose(draws.weight, at_mean_1([1.0] * 5 + [0.8, 0.2] * 2), rtol=1e-6)
    assert draws.weak.all()
    dtypes = [str(column.dtype) for column in draws.columns]
    assert dtypes == ["int64", "int64", "float32", "float32", "bool"]


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("uniform", [1, 1, 1, 1, 1, 1, 1]),
        ("population", [1, 1, 1, 1, 1, 4, 1]),
        ("downweight", [0.5, 1, 1, 0.5, 1, 0.5, 0.5]),
        ("cluster", [1, 1, 1, 1, 1, 1.6, 0.4]),
    ],
)
def test_weightings_by_hand(weighting: Any, expected: list[float]) -> None:
    draws = composed(weighting=weighting)
    np.testing.assert_allclose(draws.weight, at_mean_1(expected), rtol=1e-6)


def test_in_place_alone_and_without_a_base() -> None:
    in_place = composed(copies=0)
    assert in_place.index.tolist() == [0, 1, 2, 3, 4]
    assert (in_place.strength > 0).tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(in_place.weight, at_mean_1([0.4, 1, 1, 1.6, 1]), rtol=1e-6)
    assert composed(base="none").index.tolist() == [3, 0]
    assert composed(base="selected").index.tolist() == [3, 0, 3, 0]
    assert composed(base="none", selection=None).index.tolist() == [0, 1, 2, 3, 4]
    assert not composed(base="none", selection=None).strength.any()


@for_all(
    st.sampled_from(BASES),
    st.integers(0, 3),
    st.sampled_from(["cluster", "uniform", "population", "downweight"]),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 9),
)
def test_laws_of_what_is_composed(
    base: Base, copies: int, weighting: Any, probability: float, kept: bool, epoch: int
) -> None:
    plan = EpochPlan.of(
        30,
        fraction=0.3,
        base=base,
        copies=copies,
        weighting=weighting,
        probability=probability,
        keep_unaugmented_copies=kept or base == "none",
        weak_probability=0.5,
        seed=3,
    )
    random = np.random.default_rng(epoch)
    chosen = torch.from_numpy(random.choice(30, plan.budget(epoch), replace=False))
    sizes = torch.from_numpy(random.dirichlet(np.ones(len(chosen))) * 30 + 0.01).float()
    selection = Selection(chosen, sizes)
    strengths = torch.from_numpy(random.random(30, dtype=np.float32))
    draws = plan.compose(epoch, selection, strengths)
    again = plan.compose(epoch, selection, strengths)
    for mine, theirs in zip(draws.columns, again.columns, strict=True):
        np.testing.assert_array_equal(mine, theirs)  # a pure function
    assert draws.weight.mean() == pytest.approx(1, rel=1e-5)
    assert (draws.weight > 0).all()
    assert len({row[:2] for row in rows_of(draws)}) == len(draws)  # each draw once
    own = strengths.numpy()[draws.index]
    assert ((draws.strength == 0) | (draws.strength == own)).all()
    strong = draws.index[draws.strength > 0]
    assert np.isin(strong, chosen.numpy()).all()
    whole = len(draws)
    shuffled = plan.order(epoch, draws).at(np.arange(2 * whole))
    assert sorted(rows_of(shuffled.rows(np.arange(whole)))) == sorted(rows_of(draws))
    assert not shuffled.weight[whole:].any()
    np.testing.assert_array_equal(shuffled.index[whole:], shuffled.index[:whole])


def test_lengths_are_filled_up() -> None:
    for count, multiple, length in ((7, 1, 7), (7, 4, 8), (8, 4, 8), (1, 9, 9)):
        plan = EpochPlan.of(5, count=1, pad_to_multiple_of=multiple)
        draws = composed(selection=None).rows(np.zeros(count, np.int64))
        assert plan.length(draws) == length


@for_all(
    st.integers(1, 4) | st.none(),
    st.integers(0, 3),
    st.integers(1, 9) | st.none(),
    st.lists(st.sampled_from([0.0, 1.0]), min_size=9, max_size=9),
    st.sampled_from(BASES),
)
def test_refreshes_are_due_where_what_is_chosen_matters(
    interval: int | None, warmup: int, epochs: int | None, factors: list[float], base: Base
) -> None:
    """Against the definition: in a period that has not been refreshed, unless nothing is strong."""
    plan = EpochPlan.of(
        9,
        count=2,
        refresh=Every(interval, warmup=warmup),
        epochs=epochs,
        base=base,
        strength_schedule=1.0 if epochs is None else lambda epoch, of: factors[epoch],
    )

    def period(epoch: int) -> int | None:
        if epoch < warmup:
            return None
        return 0 if interval is None else (epoch - warmup) // interval

    def matters(epoch: int) -> bool:
        return base in ("selected", "none") or epochs is None or factors[epoch] > 0

    last = 9 if epochs is None else epochs
    due = set()
    for epoch in range(last):
        rest = [e for e in range(epoch, last) if period(e) == period(epoch)]
        for refreshed in [None, *range(epoch + 1)]:
            want = period(epoch) is not None and any(map(matters, rest))
            want = want and (refreshed is None or period(refreshed) != period(epoch))
            assert plan.refresh_due(epoch, refreshed) == want
        if plan.refresh_due(epoch, None) and (epoch == 0 or period(epoch) != period(epoch - 1)):
            due.add(epoch)
    if epochs is not None:
        found = {plan.next_refresh(epoch) for epoch in range(last)}
        assert found - {None} <= set(range(last))
        assert due - {0, warmup} <= found


# Schedules ----------------------------------------------------------------------------------------


def epoch_of(sampler: CoresetSampler, epoch: int) -> list[Draw]:
    sampler.set_epoch(epoch)
    return list(sampler)


def places(draws: list[Draw]) -> list[tuple[int, int]]:
    return [(draw.index, draw.copy) for draw in draws]


def slower(epoch: int, epochs: int) -> float:
    """A user's schedule: a plain function."""
    return 1 - epoch / epochs


@pytest.mark.parametrize("schedule", [SwitchOff(2), Cosine(), WarmUp(3) * 0.5, slower, 0.25])
@pytest.mark.parametrize("copies", [0, 2])
def test_a_schedule_multiplies_the_strengths_and_nothing_else(schedule: Any, copies: int) -> None:
    plain = ready(copies=copies, strength=Constant(0.7))
    sampler = ready(copies=copies, strength=Constant(0.7), epochs=6, strength_schedule=schedule)
    for epoch in range(6):
        factor = schedule(epoch, 6) if callable(schedule) else schedule
        expected, draws = epoch_of(plain, epoch), epoch_of(sampler, epoch)
        assert [draw._replace(strength=0) for draw in draws] == [
            draw._replace(strength=0) for draw in expected
        ]
        assert [draw.strength for draw in draws] == pytest.approx(
            [draw.strength * factor for draw in expected], rel=1e-6, abs=0
        )
        assert sampler.strengths.tolist() == pytest.approx([0.7 * factor] * N, rel=1e-6, abs=0)


@pytest.mark.filterwarnings("ignore:epoch 0 begins after epoch 5:UserWarning")
def test_a_schedule_multiplies_what_a_rule_has_learnt() -> None:
    rule = StableInfluence("loss", window=2)
    plain = trained(rule)
    assert len(plain.strengths.unique()) > N / 2
    sampler = ready(strength=rule, epochs=10, strength_schedule=Linear(8))
    sampler.table.load_state_dict(plain.table.state_dict())
    for epoch in range(10):
        plain.set_epoch(epoch)
        sampler.set_epoch(epoch)
        factor = min(1, (9 - epoch) / 8)
        torch.testing.assert_close(sampler.strengths, plain.strengths * factor)
        assert sampler.strengths.dtype == torch.float32


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("schedule", ["strength_schedule", "probability"])
def test_refinement_is_as_long_and_without_any_strength(base: Base, schedule: str) -> None:
    sampler = ready(base=base, copies=2, epochs=7, **{schedule: SwitchOff(3)})
    draws = [epoch_of(sampler, epoch) for epoch in range(7)]
    assert len({len(epoch) for epoch in draws}) == 1
    assert [sum(draw.strength > 0 for draw in epoch) for epoch in draws] == [20] * 4 + [0] * 3
    assert all(draw.weak for draw in chain(*draws))


@pytest.mark.parametrize("weighting", ["cluster", "uniform"])
@pytest.mark.parametrize("base", ["full", "random", "selected"])
def test_plain_copies_can_be_left_out(base: Base, weighting: str) -> None:
    options: dict[str, Any] = {"base": base, "copies": 3, "weighting": weighting}
    options |= {"epochs": 9, "probability": Linear(4)}
    kept, fewer = ready(**options), ready(**options, keep_unaugmented_copies=False)
    for epoch in range(9):
        whole, rest = epoch_of(kept, epoch), epoch_of(fewer, epoch)
        left_out = Counter(draw[:2] for draw in whole if draw.copy and draw.strength == 0)
        assert Counter(draw[:2] for draw in rest) == Counter(draw[:2] for draw in whole) - left_out
        assert len(fewer) == len(rest) == len(whole) - left_out.total()
        assert np.mean([draw.weight for draw in rest]) == pytest.approx(1, abs=1e-6)
        before = {draw[:2]: draw for draw in whole}
        ratios = [draw.weight / before[draw[:2]].weight for draw in rest]
        assert ratios == pytest.approx([ratios[0]] * len(rest), rel=1e-5)
        assert all(draw.strength == before[draw[:2]].strength for draw in rest)
        assert bool(left_out) == (epoch >= 5)
    assert sorted({draw.copy for draw in rest}) == [0]


def test_a_strength_of_0_is_plain_whatever_made_it_so() -> None:
    rule = StableInfluence("loss", window=2)
    plain = trained(rule)
    zero = set((plain.strengths == 0).nonzero().flatten().tolist())
    assert zero
    every = {"fraction": 1.0, "base": "full", "strength": rule}
    sampler = ready(**every, keep_unaugmented_copies=False)
    sampler.table.load_state_dict(plain.table.state_dict())
    draws = epoch_of(sampler, 5)
    assert {draw.index for draw in draws if draw.copy} == set(range(N)) - zero
    for options in ({"strength_schedule": 0}, {"probability": 0}, {"strength": Constant(0)}):
        alone = list(ready(keep_unaugmented_copies=False, **options))
        assert sorted(places(alone)) == [(i, 0) for i in range(N)]
        assert {draw.weight for draw in alone} == {1.0}


def test_augmented_in_place_nothing_is_left_out() -> None:
    sampler = ready(copies=0, keep_unaugmented_copies=False, epochs=4, probability=slower)
    for epoch in range(4):
        assert sorted(places(epoch_of(sampler, epoch))) == [(i, 0) for i in range(N)]
    assert sum(draw.strength > 0 for draw in sampler) < 10


def test_down_weighting_goes_by_the_draws_that_are_there() -> None:
    sampler = ready(
        keep_unaugmented_copies=False, probability=0.5, copies=3, weighting="downweight"
    )
    draws = list(sampler)
    counts = Counter(draw.index for draw in draws)
    assert 0 < len(draws) - N < 30
    totals = {draw.index: draw.weight * counts[draw.index] for draw in draws}
    assert list(totals.values()) == pytest.approx([len(draws) / N] * N, rel=1e-6)


def many(**options: Any) -> CoresetSampler:
    """With 5,000 base draws and as many copies."""
    sampler = CoresetSampler(range(5000), Uniform(), **({"fraction": 1.0} | options))
    sampler.refresh()
    return sampler


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_draws_are_strong_with_the_probability(chance: float) -> None:
    sampler, plain = many(probability=chance), many()
    spread = 4 * (chance * (1 - chance) / 5000) ** 0.5
    strong = []
    for epoch in range(3):
        draws, expected = epoch_of(sampler, epoch), epoch_of(plain, epoch)
        assert places(draws) == places(expected)
        assert [draw.weight for draw in draws] == [draw.weight for draw in expected]
        assert {draw.strength for draw in draws} == {0.0, 1.0}
        assert all(draw.copy == 1 for draw in draws if draw.strength)
        strong.append({draw.index for draw in draws if draw.strength})
        assert abs(len(strong[-1]) / 5000 - chance) < spread
    assert strong[0] != strong[1] != strong[2]
    assert abs(len(strong[0] & strong[1]) / 5000 - chance**2) < 2 * spread
    assert {draw.index for draw in epoch_of(sampler, 0) if draw.strength} == strong[0]
    assert epoch_of(many(probability=chance), 1) == epoch_of(sampler, 1)
    assert epoch_of(many(probability=chance, seed=1), 1) != epoch_of(sampler, 1)


def test_probabilities_of_0_and_1_are_exact() -> None:
    sampler = many(epochs=4, probability=SwitchOff(2), weak_probability=WarmUp(1))
    for epoch in range(4):
        draws = epoch_of(sampler, epoch)
        assert {draw.strength for draw in draws if draw.copy} == {float(epoch < 2)}
        assert {draw.weak for draw in draws} == {epoch > 0}
    assert list(many(probability=1, weak_probability=1.0)) == list(many())


def test_probability_and_weak_are_drawn_apart() -> None:
    for epoch in range(2):
        draws = epoch_of(many(probability=0.5, weak_probability=0.5, base="none"), epoch)
        for strong in (0, 1):
            for weak in (False, True):
                found = sum(draw.strength == strong and draw.weak is weak for draw in draws)
                assert abs(found / 5000 - 1 / 4) < 0.03


def test_weak_draws_are_drawn_of_all_and_change_nothing_else() -> None:
    sampler, plain = many(weak_probability=0.3), many()
    draws = list(sampler)
    assert [draw._replace(weak=True) for draw in draws] == list(plain)
    for copied in (0, 1):
        weak = [draw.weak for draw in draws if draw.copy == copied]
        assert abs(np.mean(weak) - 0.3) < 0.03
    assert all(type(draw.weak) is bool for draw in draws)


def plus_1000(x: Tensor) -> Tensor:
    return x + 1000


def negative(x: Tensor) -> Tensor:
    return -x


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_applies_the_weak_transform_to_exactly_those_draws(workers: int) -> None:
    items = [(torch.tensor(1.0 + i), i % 2) for i in range(N)]
    data = WeightedAugmentedDataset(items, weak=plus_1000, strong=negative)
    off = SwitchOff(2)
    options: dict[str, Any] = {
        "epochs": 5,
        "strength_schedule": off,
        "weak_probability": off * 0.5,
        "count": 10,
    }
    sampler = CoresetSampler(data, Uniform(), **options)
    sampler.refresh()
    loader = DataLoader(
        data, 16, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    for epoch in range(5):
        draws = epoch_of(sampler, epoch)
        seen = torch.cat([given.input for given in loader]).tolist()
        expected = [
            (1 + draw.index + 1000 * draw.weak) * (-1 if draw.strength else 1) for draw in draws
        ]
        assert seen == expected
        assert any(draw.weak for draw in draws) == any(draw.strength for draw in draws)
        assert any(draw.weak for draw in draws) == (epoch < 3)
        assert not all(draw.weak for draw in draws)


@pytest.mark.parametrize("schedule", [Linear(to=0.1), Cosine(to=0.05) * 0.8, slower])
def test_the_budget_is_read_where_a_period_begins(schedule: Any) -> None:
    every = Every(3, warmup=2)
    options: dict[str, Any] = {"fraction": schedule, "epochs": 12, "refresh": every}
    sampler = CoresetSampler(range(N), Uniform(), base="random", **options)
    subsets: dict[int | None, set[int]] = {}
    budgets = []
    for epoch in range(12):
        sampler.set_epoch(epoch)
        first = 0 if epoch < 2 else epoch - (epoch - 2) % 3
        assert sampler.budget == max(1, round(schedule(first, 12) * N))
        if sampler.refresh_due:
            assert epoch == first
            assert len(sampler.refresh()) == sampler.budget
        base = {draw.index for draw in sampler if draw.copy == 0}
        assert len(base) == sampler.base_size == sampler.budget
        assert subsets.setdefault(every.period(epoch), base) == base
        copies = [draw.index for draw in sampler if draw.copy]
        assert set(copies) == (set() if epoch < 2 else chosen(sampler))
        assert len(copies) == (0 if epoch < 2 else sampler.budget)
        budgets.append(sampler.budget)
    assert len(set(budgets)) == len(subsets) == 5


def test_a_missed_refresh_has_the_periods_budget_and_one_kept_the_first() -> None:
    options: dict[str, Any] = {"fraction": slower, "epochs": 8}
    sampler = CoresetSampler(range(N), Uniform(), refresh=Every(4), **options)
    sampler.set_epoch(6)
    assert len(sampler.refresh()) == sampler.budget == N / 2
    once = CoresetSampler(range(N), Uniform(), refresh=Every(None, warmup=2), **options)
    for epoch in range(2, 8):
        once.set_epoch(epoch)
        assert len(once.refresh()) == once.budget == 30


@pytest.mark.parametrize("epoch", [4, 5, 10**6])
def test_an_epoch_beyond_the_plan_is_refused_and_changes_nothing(epoch: int) -> None:
    sampler = ready(epochs=4, strength_schedule=slower, base="random")
    draws = epoch_of(sampler, 3)
    sampler.skip(5)
    strengths = sampler.strengths
    words = rf"epoch must be in \[0, 4\), the planned epochs, got {epoch}\. .*plan more: epochs="
    with pytest.raises(ValueError, match=words):
        sampler.set_epoch(epoch)
    assert sampler.epoch == 3
    assert len(sampler) == len(draws) - 5
    assert list(sampler) == draws[5:]
    assert sampler.strengths is strengths
    ready().set_epoch(epoch)


def test_a_plan_alone_changes_no_draw() -> None:
    plain, planned = ready(), ready(epochs=4)
    for epoch in range(4):
        assert epoch_of(plain, epoch) == epoch_of(planned, epoch)
    with pytest.raises(ValueError, match="planned epochs, got 4"):
        planned.set_epoch(4)


@pytest.mark.parametrize(
    "name", ["strength_schedule", "probability", "weak_probability", "fraction"]
)
@pytest.mark.parametrize(
    ("value", "epochs", "error", "words"),
    [
        (SwitchOff(2), None, ValueError, "epochs must be given with a schedule, got none for {}=S"),
        (slower, None, ValueError, "epochs must be given with a schedule, got none for {}=<f"),
        (SwitchOff(5), 4, ValueError, "must last at most the 4 planned epochs, got 5. Plan"),
        (SwitchOff, 4, TypeError, "{} must be a number or a schedule, got the class SwitchOff"),
        (lambda epoch, epochs: 2 * epoch, 4, ValueError, "{} must be in .*, got 2. .*epoch 1 of 4"),
        (lambda epoch, epochs: torch.nan, 4, ValueError, "{} must be in .*, got nan.*epoch 0 of 4"),
        (lambda epoch, epochs: None, 4, TypeError, "{} must be a number in .*None.*epoch 0 of 4"),
        (1.5, None, ValueError, "{} must be in .*got 1.5"),
        (-0.5, 4, ValueError, "{} must be in .*got -0.5"),
        (torch.nan, 4, ValueError, "{} must be in .*got nan"),
        (True, 4, TypeError, "{} must be a number in .*got True"),
        ("cosine", 4, TypeError, "{} must be a number in .*got 'cosine'"),
        (0.5, 0, ValueError, "epochs must be at least 1, got 0"),
        (0.5, 2.0, TypeError, "epochs must be an integer, got 2.0"),
        (0.5, True, TypeError, "epochs must be an integer, got True"),
    ],
)
def test_bad_schedules(
    name: str, value: Any, epochs: Any, error: type[Exception], words: str
) -> None:
    options = {"fraction": 0.5, name: value, "epochs": epochs}
    with pytest.raises(error, match=words.format(name)):
        CoresetSampler(range(N), Uniform(), **options)


def test_schedules_that_select_nothing_and_epochs_of_nothing() -> None:
    for schedule, epoch in ((SwitchOff(2), 4), (WarmUp(2), 0)):
        words = rf"fraction must be in \(0, 1\] at every epoch, got 0 at {epoch}\. To augment"
        with pytest.raises(ValueError, match=words):
            CoresetSampler(range(N), Uniform(), fraction=schedule, epochs=6)
    with pytest.raises(
        ValueError, match='keep_unaugmented_copies must be True with base="none", got False'
    ):
        CoresetSampler(
            range(N), Uniform(), fraction=0.5, base="none", keep_unaugmented_copies=False
        )
    with pytest.raises(ValueError, match="exactly one of fraction and count"):
        CoresetSampler(range(N), Uniform(), fraction=slower, count=3, epochs=6)


SCHEDULED: dict[str, Any] = {
    "epochs": 8,
    "strength_schedule": slower,
    "probability": SwitchOff(1) * 0.6,
    "weak_probability": Linear(to=0.2),
    "fraction": Cosine(to=0.1),
    "keep_unaugmented_copies": False,
    "copies": 2,
    "refresh": Every(2),
}


def scheduled(**options: Any) -> CoresetSampler:
    return CoresetSampler(range(N), Uniform(), **(SCHEDULED | options))


@for_all(st.integers(0, 7), st.floats(0, 1))
def test_a_scheduled_run_resumes_at_every_cut(epoch: int, share: float) -> None:
    """In another process: by functions of the same values, but not the same objects."""
    first = scheduled()
    for e in range(epoch + 1):
        first.set_epoch(e)
        if first.refresh_due:
            first.refresh()
    draws = list(first)
    cut = round(share * len(draws))
    first.skip(cut)
    state = copy.deepcopy(first.state_dict())
    assert " at 0x" not in str(state["arguments"])
    second = scheduled(strength_schedule=lambda e, epochs: slower(e, epochs))
    second.load_state_dict(state)
    assert list(second) == list(first) == draws[cut:]
    assert len(second) == len(draws) - cut
    if epoch < 7:
        for sampler in (first, second):
            sampler.set_epoch(epoch + 1)
            if sampler.refresh_due:
                sampler.refresh()
        assert list(second) == list(first)
    second = pickle.loads(pickle.dumps(first))
    assert list(second) == list(first)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength_schedule", SwitchOff(2)),
        ("probability", SwitchOff(2)),
        ("weak_probability", 0.5),
        ("fraction", Linear(to=0.1)),
        ("keep_unaugmented_copies", True),
        ("epochs", 9),
    ],
)
def test_a_state_of_another_schedule_is_refused(name: str, value: Any) -> None:
    sampler, other = scheduled(), scheduled(**{name: value})
    for each in (sampler, other):
        each.refresh()
    draws = list(sampler)
    with pytest.raises(ValueError, match=r"state must be of a sampler with .*, got .*Build"):
        sampler.load_state_dict(other.state_dict())
    assert list(sampler) == draws


@pytest.mark.parametrize("last", [(20, 30), (1, 2)])
def test_what_differs_between_long_schedules_is_said_in_short(last: tuple[int, int]) -> None:
    mine, saved = (ready(epochs=300, strength_schedule=SwitchOff(count)) for count in last)
    with pytest.raises(
        ValueError, match="state must be of a sampler with strength_schedule="
    ) as caught:
        mine.load_state_dict(saved.state_dict())
    text = str(caught.value)
    assert len(text) < 400
    ours, theirs = text.removeprefix("state must be of a sampler with ").split(", got ")
    assert ours != theirs.split(". Build")[0]
