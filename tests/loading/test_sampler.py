"""The sampler: what an epoch is made of, when it is renewed, what it refuses."""

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from augloader import (
    Constant,
    CoresetSampler,
    Draw,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    Loss,
    Proportional,
    Proxies,
    Rank,
    Sample,
    Selection,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.augment import translations
from augloader.feedback import StrengthRule
from augloader.loading import Base
from tests.reference import random_state

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

N = 40
COURSES = ("strength_schedule", "probability", "weak_probability", "fraction")


def evidence(n: int = N) -> Evidence:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    return Evidence(
        n,
        labels,
        Proxies(torch.randn(n, 2, generator=generator)),
        torch.rand(n, generator=generator),
    )


def ready(**options: Any) -> CoresetSampler:
    sampler = CoresetSampler(range(N), FacilityLocation(), **({"fraction": 0.25} | options))
    sampler.refresh(evidence())
    return sampler


def chosen(sampler: CoresetSampler) -> set[int]:
    assert sampler.selection is not None
    return set(sampler.selection.indices.tolist())


@pytest.mark.parametrize("copies", [1, 3])
def test_full_base_and_appended_copies(copies: int) -> None:
    sampler = ready(copies=copies)
    draws = list(sampler)
    base = [draw for draw in draws if draw.strength == 0]
    assert sorted(draw.index for draw in base) == list(range(N))
    assert {draw.copy for draw in base} == {0}
    strong = Counter((draw.index, draw.copy) for draw in draws if draw.strength == 1)
    assert strong == Counter((i, c) for i in chosen(sampler) for c in range(1, copies + 1))
    assert len(sampler) == N + 10 * copies


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("base", ["full", "random", "none", "selected"])
@pytest.mark.parametrize("weighting", ["cluster", "population"])
def test_weights_are_cluster_sizes_over_copies_at_mean_one(
    weighting: str, base: Base, copies: int
) -> None:
    sampler = ready(base=base, copies=copies, weighting=weighting)
    assert sampler.selection is not None
    gamma = dict(
        zip(sampler.selection.indices.tolist(), sampler.selection.weights.tolist(), strict=True)
    )
    draws = list(sampler)
    size = {"full": N, "random": 10, "none": 0, "selected": 10}[base]
    # The mass of the base and that of the copies: as many as draws, or the population each.
    base_mass, copy_mass = (size, 10) if weighting == "cluster" else (N * (size > 0), N)
    scale = (size + 10 * copies) / (base_mass + copy_mass)
    for draw in draws:
        cluster = gamma.get(draw.index, 0.0) * copy_mass / N
        if draw.strength == 1:
            raw = cluster / copies
        else:
            raw = cluster if base == "selected" else base_mass / size
        assert draw.weight == pytest.approx(raw * scale, rel=1e-6)
    assert np.mean([draw.weight for draw in draws]) == pytest.approx(1, abs=1e-6)


def test_uniform_weighting() -> None:
    assert {draw.weight for draw in ready(weighting="uniform")} == {1.0}


def test_in_place() -> None:
    sampler = ready(copies=0)
    draws = list(sampler)
    assert sorted(draw.index for draw in draws) == list(range(N))
    assert {draw.index for draw in draws if draw.strength == 1} == chosen(sampler)
    assert {draw.copy for draw in draws} == {0}
    for base in ("none", "selected"):
        only = list(ready(copies=0, base=base))
        assert {(draw.index, draw.strength) for draw in only} == {(i, 1) for i in chosen(sampler)}


def test_random_base_is_drawn_again_with_each_period() -> None:
    sampler = CoresetSampler(
        range(N),
        FacilityLocation(),
        count=10,
        base="random",
        base_fraction=0.5,
        refresh=Every(2, warmup=1),
    )
    subsets = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(evidence())
        base = [draw.index for draw in sampler if draw.strength == 0]
        assert len(base) == len(set(base)) == 20
        subsets.append(set(base))
    assert subsets[1] == subsets[2]
    assert subsets[3] == subsets[4]
    assert subsets[0] != subsets[1] != subsets[3]


@pytest.mark.parametrize("base", ["full", "random", "none", "selected"])
def test_warm_up_is_the_base_alone(base: Base) -> None:
    sampler = CoresetSampler(
        range(N), FacilityLocation(), fraction=0.25, base=base, refresh=Every(1, warmup=2)
    )
    size = 10 if base == "random" else N
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert not sampler.refresh_due
        assert len(sampler) == size
        assert {(draw.weight, draw.strength) for draw in sampler} == {(1.0, 0.0)}
    sampler.set_epoch(2)
    assert sampler.refresh_due


def test_refresh_is_due_once_a_period_and_stays_due_when_missed() -> None:
    sampler = CoresetSampler(range(N), Uniform(), fraction=0.5, refresh=Every(3, warmup=1))
    due = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        due.append(sampler.refresh_due)
        if sampler.refresh_due and epoch != 4:
            sampler.refresh()
            assert not sampler.refresh_due
    # Epoch 4 was missed; 5 asks again and fills the period up to epoch 6.
    assert due == [False, True, False, False, True, True, False, True]


def test_iterating_without_the_first_selection_is_an_error() -> None:
    sampler = CoresetSampler(range(N), Uniform(), fraction=0.5)
    with pytest.raises(RuntimeError, match=r"selection from epoch 0 on.*sampler.refresh"):
        list(sampler)
    with pytest.raises(RuntimeError, match="must have a selection"):
        len(sampler)
    sampler.refresh()
    assert len(sampler) == 60


def test_epochs_and_seeds_are_hashed_not_added() -> None:
    def order(seed: int, epoch: int) -> list[Draw]:
        sampler = ready(seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(orders[a] != orders[b] for a in range(9) for b in range(a))
    assert order(2, 1) == orders[7]


def test_no_global_random_state_is_used() -> None:
    before = random_state()
    list(ready(base="random"))
    assert random_state() == before


def test_uniform_changes_with_every_refresh_and_repeats_with_the_seed() -> None:
    def run() -> list[list[int]]:
        sampler = CoresetSampler(range(N), Uniform(), count=10, seed=3)
        picks = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            picks.append(sampler.refresh().indices.tolist())
        return picks

    assert run() == run()
    assert len({tuple(pick) for pick in run()}) == 3


def batch(draws: list[Draw], labels: Tensor | None = None) -> Sample:
    index = torch.tensor([draw.index for draw in draws])
    target = index % 2 if labels is None else labels
    weight, strength, copied, epoch = (
        torch.tensor([getattr(draw, name) for draw in draws])
        for name in ("weight", "strength", "copy", "epoch")
    )
    return Sample(torch.zeros(len(draws)), target, index, weight, strength, copied, epoch)


def logits_of(index: Tensor, strength: Tensor) -> Tensor:
    """Fixed logits a sample, shifted for strong views, so that a mix-up would show."""
    return (
        torch.stack([index.sin(), index.cos()], 1)
        + 5 * strength[:, None] * (index % 3 - 1)[:, None]
    )


def test_free_refresh_equals_one_from_a_forward_pass() -> None:
    sampler = CoresetSampler(range(N), FacilityLocation(), count=10, refresh=Every(1, warmup=1))
    every = torch.arange(N)
    clean = logits_of(every, torch.zeros(N))
    proxies = Proxies(clean.softmax(1) - torch.nn.functional.one_hot(every % 2, 2))
    expected = FacilityLocation().select(
        Evidence(N, every % 2, proxies), 10, generator=np.random.default_rng(0)
    )
    for epoch in range(4):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            assert sampler.refresh().indices.tolist() == expected.indices.tolist()
        draws = list(sampler)
        # Batches hold a sample and its copy at once: only the base view may count.
        for start in range(0, len(draws), 16):
            given = batch(draws[start : start + 16])
            sampler.report(given, logits=logits_of(given.index, given.strength))
    assert sampler.table.visits.sum() > 4 * N


def test_free_refresh_with_reported_losses() -> None:
    sampler = CoresetSampler(range(N), Rank(Loss()), count=5, refresh=Every(1, warmup=1))
    draws = list(sampler)
    for start in range(0, N, 7):
        given = batch(draws[start : start + 7])
        sampler.report(given, loss=given.index.float())
    sampler.set_epoch(1)
    assert sampler.refresh().indices.tolist() == [39, 38, 37, 36, 35]


def test_a_refresh_without_evidence_says_what_is_missing_and_changes_nothing() -> None:
    sampler = ready()
    before, draws = sampler.selection, list(sampler)
    given = batch([Draw(i, 0, 1.0, 0.0) for i in range(30)])
    sampler.report(given, logits=logits_of(given.index, given.strength))
    words = r"labels must be known for every sample, got 10 samples \(first indices 30, 31, 32"
    with pytest.raises(ValueError, match=words):
        sampler.refresh()
    with pytest.raises(ValueError, match="of the sampler's 40 samples, got 41"):
        sampler.refresh(evidence(41))
    assert sampler.selection is before
    assert list(sampler) == draws


@pytest.mark.parametrize(
    ("change", "given", "error", "words"),
    [
        (
            {},
            {"loss": torch.zeros(3)},
            ValueError,
            r"loss must have 4 rows, as the batch, got shape \(3,\)",
        ),
        ({}, {"loss": torch.tensor(0.5)}, ValueError, "loss must have 4 rows"),
        ({}, {"loss": torch.full((4,), torch.nan)}, ValueError, "loss must be finite"),
        ({}, {"logits": torch.zeros(5, 2)}, ValueError, "logits must have 4 rows"),
        ({}, {}, ValueError, "must be given loss, logits"),
        ({"index": torch.tensor([0, 1, 2, N])}, {"loss": torch.zeros(4)}, ValueError, r"\[0, 40\)"),
        ({"index": torch.tensor([0, 1, 2, -1])}, {"loss": torch.zeros(4)}, ValueError, r"\[0, 40"),
        ({"index": torch.tensor([0, 1, 1, 2])}, {"loss": torch.zeros(4)}, ValueError, "repeated"),
        (
            {"target": torch.zeros(4, 2)},
            {"logits": torch.zeros(4, 2)},
            ValueError,
            "target must be",
        ),
        ({"target": torch.full((4,), 2)}, {"logits": torch.zeros(4, 2)}, ValueError, r"\[0, 2\)"),
    ],
)
def test_a_bad_report_changes_nothing(
    change: dict[str, Any], given: dict[str, Any], error: type[Exception], words: str
) -> None:
    sampler = ready()
    good = batch([Draw(i, 0, 1.0, 0.0) for i in range(4)])
    sampler.report(good, logits=torch.zeros(4, 2))
    before = copy.deepcopy(sampler.table.state_dict())
    with pytest.raises(error, match=words):
        sampler.report(good._replace(**change), **given)
    after = sampler.table.state_dict()
    assert torch.equal(before["visits"], after["visits"])
    assert torch.equal(before["columns"]["logits"][1], after["columns"]["logits"][1])
    assert before["columns"].keys() == after["columns"].keys()


def test_a_report_of_another_batch_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Sample batch of the loader, got tuple.*table.report"):
        ready().report((torch.zeros(2), torch.zeros(2)), loss=torch.zeros(2))  # type: ignore[arg-type]


class Endless(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


class Needy:
    needs = frozenset({"horoscope"})

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        raise NotImplementedError


class Greedy(Needy):
    needs = frozenset()

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        return Selection(torch.arange(budget) + 31, torch.ones(budget))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fraction": 0.0}, ValueError, r"fraction must be in \(0, 1\], got 0.0"),
        ({"fraction": 1.5}, ValueError, r"fraction must be in \(0, 1\], got 1.5"),
        ({"fraction": -0.1}, ValueError, "fraction must be in"),
        ({"fraction": float("nan")}, ValueError, "fraction must be in"),
        ({"fraction": "30%"}, TypeError, "fraction must be a number"),
        ({"fraction": None}, ValueError, "exactly one of fraction and count"),
        ({"fraction": 0.5, "count": 3}, ValueError, "exactly one of fraction and count"),
        ({"fraction": None, "count": 41}, ValueError, "at most the 40 samples .* got 41"),
        ({"fraction": None, "count": 0}, ValueError, "count must be at least 1"),
        ({"fraction": None, "count": 3.0}, TypeError, "count must be an integer"),
        ({"base": "all"}, ValueError, "base must be one of 'full', 'random', 'selected', 'none'"),
        ({"base_fraction": 0.5}, ValueError, 'base_fraction must come with base="random"'),
        ({"base": "random", "base_fraction": 2}, ValueError, r"in \(0, 1\], got 2"),
        ({"copies": -1}, ValueError, "copies must be at least 0"),
        ({"refresh": 5}, TypeError, r"refresh must be an Every, got 5. Pass Every\(20\)"),
        ({"weighting": "none"}, ValueError, "weighting must be one of 'cluster', 'uniform'"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"strategy": FacilityLocation}, TypeError, "Pass an instance"),
        ({"strategy": "coreset"}, TypeError, "object with needs and select, got 'coreset'"),
        ({"strategy": Needy()}, ValueError, "must be among labels, .*, scores, got horoscope"),
        ({"data": Endless()}, TypeError, "Endless without __len__"),
        ({"data": []}, ValueError, "got 0 samples"),
        ({"table_dtype": torch.int64}, ValueError, "dtype must be"),
        ({"strength": 0.5}, TypeError, r"strength must be an object with needs, view.* got 0.5"),
        ({"strength": Constant}, TypeError, r"Pass an instance, as Constant\(0.5\)"),
        ({"strength": None}, TypeError, "strength must be an object with needs"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], words: str) -> None:
    arguments: dict[str, Any] = {"data": range(N), "strategy": Uniform(), "fraction": 0.5} | options
    with pytest.raises(error, match=words):
        CoresetSampler(arguments.pop("data"), arguments.pop("strategy"), **arguments)


def test_a_strategy_that_breaks_the_contract_is_caught() -> None:
    sampler = CoresetSampler(range(N), Greedy(), count=10)
    with pytest.raises(ValueError, match="at most 10 of 40 samples, got 10 with indices up to 40"):
        sampler.refresh()
    assert sampler.selection is None


def test_bad_epochs_positions_and_states() -> None:
    sampler = ready()
    with pytest.raises(ValueError, match="epoch must be at least 0"):
        sampler.set_epoch(-1)
    with pytest.raises(ValueError, match="draws must be at most 50"):
        sampler.skip(51)
    for other in ({"seed": 1}, {"copies": 2}, {"base": "none"}, {"weighting": "uniform"}):
        named = ", ".join(f"{name}={value}" for name, value in other.items())
        with pytest.raises(ValueError, match=f"state must be of .* got {named}. Build"):
            sampler.load_state_dict(ready(**other).state_dict())
    with pytest.raises(
        ValueError, match=r"strength=Constant\(value=1.0\), got strength=Constant\(v"
    ):
        sampler.load_state_dict(ready(strength=Constant(0.5)).state_dict())


def test_state_is_small_and_does_not_change_under_the_feet() -> None:
    sampler = ready()
    state = sampler.state_dict()
    kept = state["selection"][0].clone()
    sampler.set_epoch(5)
    sampler.refresh(Evidence(N, torch.arange(N) % 2, Proxies(torch.randn(N, 2))))
    assert state["epoch"] == 0
    assert torch.equal(state["selection"][0], kept)


# Strengths ---------------------------------------------------------------------------------------


def trained(rule: StrengthRule, epochs: int = 5, **options: Any) -> CoresetSampler:
    """A sampler after some epochs whose every batch was reported."""
    sampler = ready(strength=rule, **options)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        train(sampler, list(sampler))
    sampler.set_epoch(epochs)
    return sampler


def train(sampler: CoresetSampler, draws: list[Draw]) -> None:
    for start in range(0, len(draws), 16):
        given = batch(draws[start : start + 16])
        loss = ((given.index + 1) * (given.epoch + 2 * given.strength)).sin() + given.index / 9
        sampler.report(given, loss=loss, logits=logits_of(given.index, loss))


def test_a_constant_strength_is_the_old_plan() -> None:
    full, half = ready(), ready(strength=Constant(0.5))
    assert {draw.strength for draw in full} == {0.0, 1.0}
    assert [draw._replace(strength=draw.strength / 2) for draw in full] == list(half)
    assert ready(strength=Constant(0.0)).strengths.tolist() == [0.0] * N


def test_draws_carry_their_epoch() -> None:
    sampler = ready()
    sampler.set_epoch(3)
    assert {draw.epoch for draw in sampler} == {3}
    assert all(type(part) in (int, float, bool) for draw in sampler for part in draw)


@pytest.mark.parametrize("copies", [0, 2])
def test_a_draw_has_its_samples_strength(copies: int) -> None:
    sampler = trained(StableInfluence("loss", window=2), copies=copies)
    strengths = sampler.strengths.tolist()
    augmented = [draw for draw in sampler if draw.index in chosen(sampler) and copies == draw.copy]
    assert {draw.index: draw.strength for draw in augmented} == {
        i: strengths[i] for i in chosen(sampler)
    }
    assert len(set(strengths)) > N / 2
    assert all(draw.strength == 0 for draw in sampler if draw.index not in chosen(sampler))


def test_strengths_are_renewed_by_set_epoch_alone() -> None:
    sampler = trained(StableInfluence("loss", window=2))
    strengths, kept, draws = sampler.strengths, sampler.strengths.clone(), list(sampler)
    train(sampler, draws)
    assert list(sampler) == draws
    sampler.refresh(evidence())
    assert list(sampler) == draws
    assert sampler.strengths is strengths
    sampler.set_epoch(6)
    assert not torch.equal(sampler.strengths, kept)
    assert torch.equal(strengths, kept)


def test_random_strengths_depend_on_seed_and_epoch() -> None:
    def strengths(seed: int, epoch: int) -> tuple[float, ...]:
        sampler = ready(strength=StableInfluence(), seed=seed)
        sampler.set_epoch(epoch)
        return tuple(sampler.strengths.tolist())

    assert len({strengths(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9
    assert strengths(1, 2) == strengths(1, 2)


def test_a_run_resumed_inside_an_epoch_goes_on_as_it_began() -> None:
    """The epoch's strengths are saved: since it began, reports have changed what the rule finds."""
    rule = StableInfluence("loss", window=2)
    whole = trained(rule)
    draws = list(whole)
    for cut in range(0, len(draws), 16):
        first = trained(rule)
        train(first, draws[:cut])
        first.skip(cut)
        sampler, table = copy.deepcopy((first.state_dict(), first.table.state_dict()))
        second = CoresetSampler(range(N), FacilityLocation(), fraction=0.25, strength=rule)
        second.load_state_dict(sampler)
        second.table.load_state_dict(table)
        assert list(second) == draws[cut:]
        train(second, list(second))
        second.set_epoch(6)
        if cut == 0:
            train(whole, draws)
            whole.set_epoch(6)
        assert list(second) == list(whole)
        again = trained(rule)
        train(again, draws[:cut])
        again.set_epoch(5)
        assert cut == 0 or list(again) != draws


def test_the_clean_view_counts_what_is_reported_of_it() -> None:
    items = [(float(i), i % 2) for i in range(N)]
    data = WeightedAugmentedDataset(items)
    rule = StableInfluence("loss", window=2, view="clean")
    sampler = CoresetSampler(data, Uniform(), fraction=0.5, base="none", strength=rule)
    sampler.refresh()
    train(sampler, list(sampler))
    for _ in range(3):
        given = batch(
            [
                Draw(s.index, s.copy, 1.0, float(s.strength))
                for s in map(data.clean().__getitem__, range(N))
            ]
        )
        sampler.report(given, loss=given.index * 1.0)
    assert (sampler.table.state_dict()["memory"]["visits"] == 3).all()


# Down-weighting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [0, 1, 3])
@pytest.mark.parametrize("base", ["full", "random", "selected", "none"])
def test_down_weighted_samples_share_the_weight_of_one(base: Base, copies: int) -> None:
    sampler = ready(base=base, copies=copies, weighting="downweight")
    draws = list(sampler)
    totals: dict[int, float] = {}
    counts = Counter(draw.index for draw in draws)
    for draw in draws:
        totals[draw.index] = totals.get(draw.index, 0.0) + draw.weight
    one = len(draws) / len(totals)  # of mean 1 over the draws
    assert list(totals.values()) == pytest.approx([one] * len(totals), rel=1e-6)
    for draw in draws:
        assert draw.weight == pytest.approx(one / counts[draw.index], rel=1e-6)
    assert np.mean([draw.weight for draw in draws]) == pytest.approx(1, abs=1e-6)
    assert set(totals) >= chosen(sampler)
    if base == "full":
        assert set(totals) == set(range(N))
        assert {counts[i] for i in chosen(sampler)} == {1 + copies}
    elif base == "none":
        assert set(totals) == chosen(sampler)


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_down_weighting_conserves_the_ratio_of_classes(copies: int) -> None:
    """All selected are of one class; their weight stays the class's share of the data."""
    losses = torch.arange(float(N)) * (torch.arange(N) % 4 == 0)
    sampler = CoresetSampler(range(N), Rank(Loss()), count=8, copies=copies, weighting="downweight")
    sampler.refresh(Evidence(N, losses=losses))
    assert {i % 4 for i in chosen(sampler)} == {0}
    weights = [0.0] * 4
    for draw in sampler:
        weights[draw.index % 4] += draw.weight
    assert np.array(weights) / sum(weights) == pytest.approx([0.25] * 4, rel=1e-6)


def test_down_weighting_does_not_see_cluster_sizes_and_warms_up_at_1() -> None:
    sampler = CoresetSampler(
        range(N), FacilityLocation(), count=10, weighting="downweight", refresh=Every(1, warmup=1)
    )
    assert {draw.weight for draw in sampler} == {1.0}
    sampler.set_epoch(1)
    sampler.refresh(evidence())
    weights = {(draw.index in chosen(sampler), draw.weight) for draw in sampler}
    assert len(weights) == 2
    state = sampler.state_dict()
    with pytest.raises(ValueError, match="got weighting=downweight"):
        CoresetSampler(
            range(N), FacilityLocation(), count=10, refresh=Every(1, warmup=1)
        ).load_state_dict(state)


def test_a_selection_made_once_is_never_due_again() -> None:
    sampler = CoresetSampler(range(N), Uniform(), count=10, refresh=Every(None, warmup=1))
    assert not sampler.refresh_due
    sampler.set_epoch(1)
    assert sampler.refresh_due
    kept = sampler.refresh()
    for epoch in range(1, 60):
        sampler.set_epoch(epoch)
        assert not sampler.refresh_due
        assert {draw.index for draw in sampler if draw.strength} == set(kept.indices.tolist())
    again = CoresetSampler(range(N), Uniform(), count=10, refresh=Every(None, warmup=1))
    again.load_state_dict(sampler.state_dict())
    assert not again.refresh_due
    assert list(again) == list(sampler)


def test_a_list_of_transforms_wants_as_many_copies() -> None:
    data = WeightedAugmentedDataset([(torch.zeros(1, 4, 4), 0)] * 5, strong=translations(1))
    assert data.required_copies == 4
    assert data.clean().required_copies is None
    assert CoresetSampler(data, Uniform(), count=2, copies=4).copies == 4
    for copies in (0, 1, 5):
        with pytest.raises(ValueError, match=f"copies must be 4, .* got {copies}"):
            CoresetSampler(data, Uniform(), count=2, copies=copies)


@pytest.mark.parametrize("options", [{"base": "none"}, {"base": "random"}, {"copies": 0}])
def test_forgetting_wants_a_clean_view_of_every_sample(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'base must be "full" and copies 1 or more'):
        CoresetSampler(range(9), Proportional(Forgetting()), count=2, **options)


def test_skipped_draws_stay_skipped_where_a_framework_sets_the_epoch_again() -> None:
    sampler = ready()
    sampler.set_epoch(1)
    whole = list(sampler)
    sampler.skip(7)
    sampler.set_epoch(1)
    assert list(sampler) == whole[7:]
    sampler.set_epoch(2)
    assert len(sampler) == len(whole)
