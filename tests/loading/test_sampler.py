"""The sampler: what an epoch is made of, when it is renewed, what it refuses."""

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from augloader import (
    Constant,
    CoresetSampler,
    Cosine,
    DistributedCoresetSampler,
    Draw,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    Linear,
    Loss,
    Proportional,
    Proxies,
    Rank,
    Sample,
    Selection,
    StableInfluence,
    SwitchOff,
    Uniform,
    WarmUp,
    WeightedAugmentedDataset,
)
from augloader.augment import translations
from augloader.feedback import StrengthRule
from augloader.loading import Base
from tests.reference import random_state

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
        ({"target": torch.zeros(4, 2)}, {"logits": torch.zeros(4, 2)}, TypeError, "target must be"),
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


# Ranks, without processes -------------------------------------------------------------------------


def ranked(world: int, n: int = N, **options: Any) -> list[DistributedCoresetSampler]:
    samplers = [
        DistributedCoresetSampler(
            range(n), Uniform(), num_replicas=world, rank=rank, **({"fraction": 0.25} | options)
        )
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.refresh()
    return samplers


@for_all(st.integers(1, 6), st.integers(1, 30), st.integers(0, 3), st.integers(0, 9))
def test_ranks_cover_each_draw_once_at_equal_lengths(
    world: int, n: int, copies: int, seed: int
) -> None:
    options: dict[str, Any] = {"count": max(1, n // 3), "copies": copies, "seed": seed}
    whole = CoresetSampler(range(n), Uniform(), **options)
    whole.refresh()
    samplers = ranked(world, n, **options, fraction=None)
    dealt = [list(sampler) for sampler in samplers]
    length = -(-len(whole) // world)
    for sampler, mine in zip(samplers, dealt, strict=True):
        assert len(mine) == len(sampler) == sampler.num_samples == length
        assert sampler.total_size == length * world
        assert len({(draw.index, draw.copy) for draw in mine}) == length
    in_turn = list(chain(*zip(*dealt, strict=True)))
    epoch = list(whole)
    assert in_turn[: len(epoch)] == epoch
    repeated = [draw._replace(weight=0.0) for draw in epoch] * world
    assert in_turn[len(epoch) :] == repeated[: len(in_turn) - len(epoch)]
    assert np.mean([draw.weight for draw in epoch]) == pytest.approx(1, abs=1e-5)


@for_all(st.integers(1, 5), st.integers(1, 5), st.data())
def test_a_run_resumes_with_another_number_of_ranks(before: int, after: int, data: Any) -> None:
    first = ranked(before)
    cut = data.draw(st.integers(0, len(first[0])))
    made = [list(sampler)[:cut] for sampler in first]
    for sampler in first:
        sampler.skip(cut)
        assert len(list(sampler)) == len(sampler) == len(ranked(before)[0]) - cut
    second = ranked(after)
    for sampler in second:
        sampler.load_state_dict(first[0].state_dict())
    rest = [list(sampler) for sampler in second]
    assert {len(mine) for mine in rest} == {len(second[0])}
    real = [draw for draw in chain(*made, *rest) if draw.weight > 0]
    whole = CoresetSampler(range(N), Uniform(), fraction=0.25)
    whole.refresh()
    assert sorted(real) == sorted(whole)
    whole.load_state_dict(first[0].state_dict())
    in_turn = [draw for draw in chain(*zip_longest(*rest)) if draw is not None and draw.weight > 0]
    assert in_turn == list(whole)


def test_it_is_a_distributed_sampler_for_a_loader() -> None:
    data = WeightedAugmentedDataset([(float(i), i % 2) for i in range(N)])
    samplers = [
        DistributedCoresetSampler(
            data, FacilityLocation(), fraction=0.25, num_replicas=3, rank=rank, seed=4
        )
        for rank in range(3)
    ]
    seen: Counter[tuple[int, int]] = Counter()
    for rank, sampler in enumerate(samplers):
        assert isinstance(sampler, DistributedSampler)
        assert sampler.dataset is data
        assert (sampler.num_replicas, sampler.rank, sampler.epoch) == (3, rank, 0)
        assert (sampler.drop_last, sampler.shuffle, sampler.seed) == (False, True, 4)
        sampler.refresh(evidence())
        for given in DataLoader(data, batch_size=8, sampler=sampler):
            real = given.weight > 0
            pairs = zip(given.index[real].tolist(), given.copy[real].tolist(), strict=True)
            seen.update(pairs)
            sampler.report(given, loss=given.index.float())
        copy.deepcopy(sampler)
        sampler.set_epoch(1)
    assert len(seen) == N + 10
    assert set(seen.values()) == {1}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"data": ready()}, TypeError, "data must be the dataset, got the sampler CoresetSampler"),
        ({"rank": None}, ValueError, "num_replicas and rank must be known, got 2 and None. Call"),
        ({"num_replicas": None}, ValueError, "got None and 0. Call torch.distributed.init_process"),
        ({"rank": 2}, ValueError, "rank must be below num_replicas=2, got 2"),
        ({"rank": -1}, ValueError, "rank must be at least 0"),
        ({"rank": 0.5}, TypeError, "rank must be an integer"),
        ({"num_replicas": 0}, ValueError, "num_replicas must be at least 1"),
        (
            {"strength": StableInfluence()},
            ValueError,
            "strength and strategy must learn from no reports where there is no.*group.WORLD",
        ),
        ({"group": 7}, TypeError, "group must be a process group that this rank is in, got 7"),
        ({"fraction": 2}, ValueError, r"fraction must be in \(0, 1\]"),
    ],
)
def test_bad_ranks(options: dict[str, Any], error: type[Exception], words: str) -> None:
    given: dict[str, Any] = {
        "data": range(N),
        "strategy": Uniform(),
        "fraction": 0.5,
        "num_replicas": 2,
        "rank": 0,
    }
    with pytest.raises(error, match=words):
        DistributedCoresetSampler(**(given | options))


def test_a_rank_cannot_skip_more_than_its_share() -> None:
    sampler = ranked(3)[0]
    sampler.skip(17)
    assert list(sampler) == []
    with pytest.raises(ValueError, match=r"draws must be at most 17, this rank's share.*got 18"):
        sampler.skip(18)


def test_a_share_wants_a_group() -> None:
    part = Evidence(N, torch.arange(3) % 2, indices=torch.arange(3))
    for sampler in (ready(), ranked(2)[0], CoresetSampler(range(N), Uniform(), count=3)):
        with pytest.raises(
            ValueError, match="evidence must be of all 40 samples, got a share of 3"
        ):
            sampler.refresh(part)
    with pytest.raises(ValueError, match=r"of all 40 samples, got a share of 3\. Give the sampler"):
        Uniform().select(part, 3, generator=np.random.default_rng(0))


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


# Schedules ----------------------------------------------------------------------------------------

BASES: tuple[Base, ...] = ("full", "random", "selected", "none")


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


@for_all(st.integers(1, 5), st.sampled_from(BASES[:3]), st.integers(0, 7), st.integers(0, 9))
def test_ranks_share_a_scheduled_epoch(world: int, base: Base, epoch: int, seed: int) -> None:
    options = SCHEDULED | {"base": base, "seed": seed, "probability": 0.6, "weak_probability": 0.5}
    whole = scheduled(**options)
    samplers = ranked(world, **options)
    for sampler in (whole, *samplers):
        sampler.set_epoch(epoch)
        sampler.refresh()
    dealt = [list(sampler) for sampler in samplers]
    assert {len(mine) for mine in dealt} == {len(sampler) for sampler in samplers}
    assert {len(mine) for mine in dealt} == {-(-len(whole) // world)}
    in_turn = list(chain(*zip(*dealt, strict=True)))
    draws = list(whole)
    assert in_turn[: len(draws)] == draws
    assert {draw.weight for draw in in_turn[len(draws) :]} <= {0.0}
    assert len({draw.weak for draw in draws}) == 2
    for sampler in samplers:
        with pytest.raises(ValueError, match="the planned epochs, got 8"):
            sampler.set_epoch(8)
        assert sampler.epoch == epoch


def test_three_ranks_that_are_given_explicitly() -> None:
    whole = scheduled()
    samplers = ranked(3, **SCHEDULED)
    whole.refresh()
    for epoch in range(8):
        draws = epoch_of(whole, epoch)
        dealt = [epoch_of(sampler, epoch) for sampler in samplers]
        assert len({len(mine) for mine in dealt}) == 1
        assert sorted(draw for draw in chain(*dealt) if draw.weight) == sorted(draws)


# Reports of mixed rows ----------------------------------------------------------------------------


def known(sampler: CoresetSampler) -> dict[str, Any]:
    """Everything that was reported, in comparable form."""
    state = sampler.table.state_dict()
    columns = {
        name: (torch.where(seen.isfinite().view(-1, *[1] * (values.ndim - 1)), values, 0), seen)
        for name, (values, seen) in state["columns"].items()
    }
    parts = {"visits": state["visits"], "labels": state["labels"], **state["memory"]}
    return {name: part.tolist() for name, part in parts.items()} | {
        name: [part.tolist() for part in column] for name, column in columns.items()
    }


def rows(count: int) -> Sample:
    """A batch of plain draws and copies, with the loader's column ``mixed``."""
    given = batch([Draw(i // 2, i % 2, 1.0, float(i % 2)) for i in range(count)])
    return given._replace(mixed=torch.zeros(count, dtype=torch.bool))


def loss_and_logits(given: Sample) -> dict[str, Tensor]:
    values = logits_of(given.index, given.strength)
    return {"loss": values.sum(1).exp(), "logits": values}


LEARNER = StableInfluence("loss", window=2)


@for_all(st.lists(st.booleans(), min_size=1, max_size=12), st.booleans(), st.booleans())
def test_mixed_rows_are_left_out_of_a_report(
    mixed: list[bool], with_loss: bool, one_hot: bool
) -> None:
    rule = LEARNER if with_loss else Constant()
    left_out, without = ready(strength=rule), ready(strength=rule)
    given = rows(len(mixed))._replace(mixed=torch.tensor(mixed))
    values = loss_and_logits(given)
    if not with_loss:
        del values["loss"]
    plain = (~given.mixed).nonzero().flatten()
    if len(plain):
        few = given._replace(
            **{
                name: getattr(given, name)[plain]
                for name in ("target", "index", "weight", "strength", "copy", "mixed")
            }
        )
        without.report(few, **{name: part[plain] for name, part in values.items()})
    if one_hot:
        target = torch.nn.functional.one_hot(given.target, 2).float()
        target[given.mixed] = torch.tensor([0.4, 0.6])
        given = given._replace(target=target)
    for part in values.values():
        part[given.mixed] = torch.nan  # not even looked at
    left_out.report(given, **values)
    assert known(left_out) == known(without)


def test_a_batch_of_mixed_rows_changes_nothing() -> None:
    sampler = ready(strength=LEARNER)
    sampler.report(rows(8), **loss_and_logits(rows(8)))
    before = known(sampler)
    given = rows(12)._replace(mixed=torch.ones(12, dtype=torch.bool))
    for target in (given.target, torch.full((12, 2), 0.5)):
        values = loss_and_logits(given)
        sampler.report(given._replace(target=target), **values)
        assert known(sampler) == before


def test_of_a_samples_draws_the_weakest_that_is_not_mixed_counts() -> None:
    sampler = ready()
    given = rows(6)._replace(mixed=torch.tensor([True, False] * 3))
    sampler.report(given, loss=torch.arange(6.0))
    values, strength = sampler.table.state_dict()["columns"]["losses"]
    assert values[:3].tolist() == [1, 3, 5]
    assert strength[:3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_labels_of_one_hot_targets(dtype: torch.dtype) -> None:
    sampler = ready()
    given = rows(8)
    target = torch.nn.functional.one_hot(torch.arange(8) // 2 % 3, 3).to(dtype)
    sampler.report(given._replace(target=target), logits=torch.zeros(8, 3))
    labels = sampler.table.state_dict()["labels"]
    assert labels.tolist() == [0, 1, 2, 0] + [-1] * (N - 4)


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda t: t * 0.9 + 0.05, TypeError, "target must be integer class labels"),
        (lambda t: t * 0, TypeError, "target must be"),
        (lambda t: t * 2, TypeError, "target must be"),
        (lambda t: t * torch.nan, TypeError, "target must be"),
        (lambda t: t[:, :, None], TypeError, "target must be"),
        (lambda t: t[:5], ValueError, "target must have 8 rows, as the batch"),
        (lambda t: torch.cat([t, t], 1), TypeError, "target must be"),
        (lambda t: torch.cat([t * 0, t], 1), ValueError, r"target must be in \[0, 2\)"),
    ],
)
def test_other_targets_of_rows_that_are_not_mixed_change_nothing(
    spoil: Callable[[Tensor], Tensor], error: type[Exception], words: str
) -> None:
    sampler = ready(strength=LEARNER)
    sampler.report(rows(4), **loss_and_logits(rows(4)))
    before = known(sampler)
    given = rows(8)._replace(mixed=torch.tensor([False] * 6 + [True] * 2))
    target = spoil(torch.nn.functional.one_hot(given.target, 2).float())
    with pytest.raises(error, match=words):
        sampler.report(given._replace(target=target), **loss_and_logits(given))
    assert known(sampler) == before


def test_a_mixed_batch_is_checked_as_any_other() -> None:
    sampler = ready()
    before = known(sampler)
    given = rows(4)._replace(mixed=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="loss must have 4 rows"):
        sampler.report(given, loss=torch.zeros(3))
    with pytest.raises(ValueError, match="repeated draws"):
        sampler.report(given._replace(copy=given.copy * 0), loss=torch.zeros(4))
    assert known(sampler) == before


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_what_is_mixed_may_be_of_any_dtype(dtype: torch.dtype) -> None:
    sampler = ready()
    given = rows(8)._replace(copy=torch.zeros(8, dtype=torch.int64), index=torch.arange(8))
    mixed = torch.arange(8) % 3 == 0
    sampler.report(given._replace(mixed=mixed.to(dtype)), loss=torch.zeros(8))
    assert sampler.table.visits[:8].tolist() == [int(not each) for each in mixed]


@pytest.mark.parametrize("mixed", [torch.zeros(3, dtype=torch.bool), torch.zeros(8, 2).bool()])
def test_what_is_mixed_has_a_row_for_each_of_the_batch(mixed: Tensor) -> None:
    with pytest.raises(ValueError, match="mixed must have 8 rows, as the batch"):
        ready().report(rows(8)._replace(mixed=mixed), loss=torch.zeros(8))


def test_a_loaders_batches_are_not_mixed() -> None:
    data = WeightedAugmentedDataset([(float(i), i % 2) for i in range(N)])
    sampler = CoresetSampler(data, Uniform(), fraction=0.5)
    sampler.refresh()
    for given in DataLoader(data, batch_size=16, sampler=sampler):
        assert given.mixed.dtype == torch.bool
        assert not given.mixed.any()
        sampler.report(given, loss=given.index.float())
    assert not len(sampler.table.missing("losses"))


def test_skipped_draws_stay_skipped_where_a_framework_sets_the_epoch_again() -> None:
    sampler = ready()
    sampler.set_epoch(1)
    whole = list(sampler)
    sampler.skip(7)
    sampler.set_epoch(1)
    assert list(sampler) == whole[7:]
    sampler.set_epoch(2)
    assert len(sampler) == len(whole)
