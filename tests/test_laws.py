"""Laws that hold for every input (DESIGN: selection, sampler, weights, dataset, table)."""

from contextlib import nullcontext
from math import e
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, Subset

from augloader import (
    Confidence,
    Constant,
    CoresetSampler,
    Draw,
    Entropy,
    Every,
    Evidence,
    FacilityLocation,
    Loss,
    LossRank,
    Proxies,
    Rank,
    StableInfluence,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.feedback import SampleTable, StrengthRule
from augloader.selection import greedy_medoids
from augloader.selection.budget import allocate
from augloader.selection.facility import Coreset
from augloader.selection.greedy.engine import Engine, facility_location
from tests.reference import best_coverage, best_coverages, coverage, naive_greedy, tie_margin
from tests.selection.greedy.test_engine import assert_medoids, tiny
from tests.selection.greedy.test_medoids import rounding

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

seeds = st.integers(0, 2**32 - 1)
strategies = st.sampled_from(
    [
        FacilityLocation(),
        FacilityLocation(allocation="equal"),
        FacilityLocation(per_class=False),
        FacilityLocation(engine="matrix-free"),
        FacilityLocation(engine="graph"),
        FacilityLocation(stochastic=0.2),
        Rank(Loss()),
        Uniform(),
    ]
)
engines = st.sampled_from(get_args(Engine))
views = st.sampled_from(["any", "clean"])
rules = st.one_of(
    st.builds(Constant, st.floats(0, 1)),
    st.builds(
        StableInfluence,
        st.sampled_from(["kl", "loss"]),
        st.integers(2, 4),
        st.floats(0.1, 1),
        st.sampled_from(["minmax", "rank", "quantile"]),
        views,
    ),
    st.builds(Entropy, views),
    st.builds(LossRank, st.floats(0.1, 0.9), st.floats(0.1, 10), views),
    st.builds(Confidence, views),
)


@st.composite
def evidences(draw: Any, least: int = 4) -> Evidence:
    """Two to four classes of at least two; proxies of either form, often with duplicates."""
    rng = np.random.default_rng(draw(seeds))
    sizes = draw(st.lists(st.integers(2, 12), min_size=2, max_size=4))
    n = sum(sizes)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    g = rng.normal(size=(n, 3)) * 10.0 ** draw(st.integers(-4, 2))
    if draw(st.booleans()):
        g = g[rng.integers(0, max(2, n // 3), n)]
    h = torch.tensor(rng.normal(size=(n, 4)).astype(np.float32)) if draw(st.booleans()) else None
    proxies = Proxies(torch.tensor(g.astype(np.float32)), h)
    losses = torch.tensor(rng.exponential(size=n).astype(np.float32))
    return Evidence(n, torch.tensor(labels), proxies, losses)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Selection --------------------------------------------------------------------------------------


@given(evidences(), strategies, st.floats(0, 1), seeds)
def test_selection_is_distinct_in_range_and_weighs_the_data(
    evidence: Evidence, strategy: Strategy, share: float, seed: int
) -> None:
    assert evidence.labels is not None
    least = len(set(evidence.labels.tolist()))
    budget = least + round(share * (evidence.n - least))
    selection = strategy.select(evidence, budget, generator=generator(seed))
    assert len(set(selection.indices.tolist())) == len(selection) == budget
    assert selection.indices.min() >= 0
    assert selection.indices.max() < evidence.n
    assert (selection.weights > 0).all()
    assert abs(float(selection.weights.double().sum()) - evidence.n) < 1e-3


@given(evidences())
def test_gains_never_increase_and_the_naive_objective_is_reached(evidence: Evidence) -> None:
    assert evidence.proxies is not None
    distances = evidence.proxies.distances()
    found = greedy_medoids(distances, evidence.n)
    scale = float(distances.max()) * evidence.n
    assert (found.gains.diff() <= 1e-12 * scale).all()
    for budget in (1, evidence.n // 2, evidence.n):
        taken, _ = naive_greedy(distances.numpy(), budget)
        mine = coverage(distances.numpy(), found.indices[:budget].tolist())
        np.testing.assert_allclose(mine, coverage(distances.numpy(), taken), rtol=1e-6)


@given(seeds, st.integers(2, 9), st.integers(1, 4))
def test_the_greedy_keeps_its_guarantee(seed: int, n: int, budget: int) -> None:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    distances = Proxies(x).distances()
    found = greedy_medoids(distances, min(budget, n))
    best = best_coverage(distances.numpy(), min(budget, n))
    assert coverage(distances.numpy(), found.indices.tolist()) >= (1 - 1 / np.e) * best - 1e-6


@st.composite
def points(draw: Any) -> Proxies:
    """One to nine of either form, often with duplicates, of any size, some far from the origin."""
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.integers(1, 9))
    g, h = rng.normal(size=(n, draw(st.integers(1, 3)))), rng.normal(size=(n, 2))
    if draw(st.booleans()):
        g = g[rng.integers(0, max(1, n // 3), n)]
    if draw(st.booleans()):
        h = h[rng.integers(0, max(1, n // 3), n)]
    g = (g + draw(st.sampled_from([0, 0, 30]))) * 10.0 ** draw(st.integers(-9, 9))
    features = torch.tensor(h).float() if draw(st.booleans()) else None
    return Proxies(torch.tensor(g).float(), features)


@settings(max_examples=250)
@given(points(), st.data(), engines, st.none() | st.floats(0.05, 0.9), st.booleans(), st.booleans())
def test_no_selection_exceeds_the_certificate(
    proxies: Proxies,
    data: st.DataObject,
    engine: Engine,
    stochastic: float | None,
    warm: bool,
    small: bool,
) -> None:
    """Of every engine and every smaller budget, also where few neighbours are known."""
    n, distances = len(proxies), proxies.distances()
    budget, seed = data.draw(st.integers(1, n)), data.draw(seeds)
    start = torch.tensor(np.random.default_rng(seed).permutation(n)[: budget // 2 if warm else 0])
    with tiny() if small else nullcontext():
        found = facility_location(
            proxies, budget, engine=engine, stochastic=stochastic, start=start, seed=seed
        )
    assert_medoids(found, proxies, nearest=engine != "graph")
    assert found.indices[: len(start)].tolist() == start.tolist()
    best = best_coverages(distances.numpy(), found.constant)
    error = n * rounding(proxies)
    for k in range(1, budget + 1):
        reached = coverage(distances.numpy(), found.indices[:k].tolist(), found.constant)
        assert found.coverage_of(k) <= reached + error
        assert found.coverage_of(k) <= found.bound(k) * (1 + 1e-12)
        if found.proven:
            assert best[k] <= found.bound(k) * (1 + 1e-9) + error
        if engine in ("auto", "dense") and not warm and stochastic is None:
            assert found.coverage_of(k) >= (1 - 1 / e) * found.bound(k) - error


@given(evidences(), st.sampled_from(get_args(Engine)), st.floats(0, 1), seeds)
def test_no_selection_of_the_same_shape_exceeds_the_sum_of_the_classes_bounds(
    evidence: Evidence, engine: Engine, share: float, seed: int
) -> None:
    assert evidence.proxies is not None
    assert evidence.labels is not None
    classes = evidence.labels.unique()
    budget = len(classes) + round(share * (evidence.n - len(classes)))
    strategy = FacilityLocation(engine=engine)
    whole = strategy.select(evidence, budget, generator=generator(seed))
    assert isinstance(whole.nested, Coreset)
    groups = [evidence.proxies[evidence.labels == c].distances().numpy() for c in classes]
    bests = [
        best_coverages(d, m.constant) for d, m in zip(groups, whole.nested.medoids, strict=True)
    ]
    error = evidence.n * rounding(evidence.proxies)
    for k in range(len(classes), budget + 1):
        selection = whole.first(k)
        assert len(selection) == k
        assert abs(float(selection.weights.double().sum()) - evidence.n) < 1e-3
        assert selection.certificate is not None
        counts = [int((evidence.labels[selection.indices] == c).sum()) for c in classes]
        best = sum(best[count] for best, count in zip(bests, counts, strict=True))
        assert selection.certificate.coverage <= best + error
        assert best <= selection.certificate.bound * (1 + 1e-9) + error


@given(
    seeds, st.sampled_from([FacilityLocation(), FacilityLocation(per_class=False), Rank(Loss())])
)
def test_permuting_the_samples_permutes_the_selection(seed: int, strategy: Strategy) -> None:
    random = torch.Generator().manual_seed(seed)
    n, labels = 30, torch.arange(30) % 3
    proxies, losses = torch.randn(n, 3, generator=random), torch.rand(n, generator=random)
    order = torch.randperm(n, generator=random)
    # Two points that only cover each other gain the same: leave such ties out.
    for group in (*((labels == c).nonzero().flatten() for c in range(3)), torch.arange(n)):
        assume(tie_margin(Proxies(proxies[group]).distances().numpy(), 2) > 1e-3)
    budget = 6 if strategy == FacilityLocation() else 2
    first = strategy.select(
        Evidence(n, labels, Proxies(proxies), losses), budget, generator=generator()
    )
    second = strategy.select(
        Evidence(n, labels[order], Proxies(proxies[order]), losses[order]),
        budget,
        generator=generator(),
    )
    assert dict(zip(first.indices.tolist(), first.weights.tolist(), strict=True)) == dict(
        zip(order[second.indices].tolist(), second.weights.tolist(), strict=True)
    )


@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.floats(0, 1), st.data())
def test_allocation_uses_the_budget_within_the_classes(
    sizes: list[int], share: float, data: st.DataObject
) -> None:
    budget = len(sizes) + round(share * (sum(sizes) - len(sizes)))
    equal = allocate(sizes, budget, "equal")
    proportional = allocate(sizes, budget, "proportional")
    for shares in (equal, proportional):
        assert sum(shares) == budget
        assert all(1 <= part <= size for part, size in zip(shares, sizes, strict=True))
    # Equal: nobody below the largest share by more than one, unless its class is exhausted.
    for part, size in zip(equal, sizes, strict=True):
        assert part == size or part >= max(equal) - 1
    # Proportional: within one of the exact quota, for classes whose quota is at least 1 anyway.
    quota = [budget * size / sum(sizes) for size in sizes]
    if min(quota) >= 1:
        assert all(abs(part - q) < 1 for part, q in zip(proportional, quota, strict=True))


# Sampler ----------------------------------------------------------------------------------------


@st.composite
def samplers(draw: Any) -> CoresetSampler:
    n = draw(st.integers(1, 60))
    sampler = CoresetSampler(
        range(n),
        Uniform(),
        count=draw(st.integers(1, n)),
        base=draw(st.sampled_from(["full", "random", "selected", "none"])),
        copies=draw(st.integers(0, 3)),
        refresh=Every(draw(st.integers(1, 3)), warmup=draw(st.integers(0, 2))),
        weighting=draw(st.sampled_from(["cluster", "uniform"])),
        strength=draw(rules),
        seed=draw(seeds),
    )
    rng = np.random.default_rng(draw(seeds))
    for epoch in range(draw(st.integers(1, 5))):
        if epoch:
            learn(sampler.table, rng)
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
    return sampler


def learn(table: SampleTable, rng: np.random.Generator) -> None:
    """Report most of the samples, three times."""
    for _ in range(3):
        index = torch.tensor(rng.permutation(table.n)[: max(1, 4 * table.n // 5)])
        logits = torch.tensor(rng.normal(0, 3, (len(index), 3)).astype(np.float32))
        strength = torch.tensor(rng.choice([0.0, 0.5, 1.0], len(index)))
        losses = torch.tensor(rng.exponential(1, len(index)).astype(np.float32))
        table.report(index, loss=losses, logits=logits, target=index % 3, strength=strength)


@given(samplers())
def test_length_and_draws_are_a_pure_function(sampler: CoresetSampler) -> None:
    draws = list(sampler)
    assert len(sampler) == len(draws) > 0
    assert list(sampler) == draws
    assert len({(draw.index, draw.copy) for draw in draws}) == len(draws)
    assert all(0 <= draw.index < sampler.n and draw.weight > 0 for draw in draws)
    assert all(draw.epoch == sampler.epoch for draw in draws)


@given(samplers(), seeds)
def test_strengths_are_the_samples_and_hold_for_the_epoch(
    sampler: CoresetSampler, seed: int
) -> None:
    assert sampler.strengths.shape == (sampler.n,)
    assert sampler.strengths.dtype == torch.float32
    assert ((sampler.strengths >= 0) & (sampler.strengths <= 1)).all()
    strengths, draws = sampler.strengths.tolist(), list(sampler)
    chosen = set() if sampler.selection is None else set(sampler.selection.indices.tolist())
    for draw in draws:
        augmented = draw.copy > 0 if sampler.copies else draw.index in chosen
        assert draw.strength == (strengths[draw.index] if augmented else 0)
    learn(sampler.table, np.random.default_rng(seed))
    assert list(sampler) == draws
    if sampler.selection is not None:
        sampler.refresh()
    assert sampler.strengths.tolist() == strengths


@given(samplers())
def test_weights_have_mean_one(sampler: CoresetSampler) -> None:
    assert abs(np.mean([draw.weight for draw in sampler]) - 1) < 1e-5


@given(samplers(), st.integers(1, 4), st.integers(1, 7))
def test_ranks_that_shard_batches_cover_each_draw_once(
    sampler: CoresetSampler, world: int, size: int
) -> None:
    """Frameworks that shard any sampler deal its batches to the ranks in turn."""
    batches: list[Any] = list(BatchSampler(sampler, size, drop_last=False))  # type: ignore[arg-type]
    shares = [[draw for dealt in batches[rank::world] for draw in dealt] for rank in range(world)]
    union = sorted(draw for share in shares for draw in share)
    assert union == sorted(sampler)


def rebuilt(sampler: CoresetSampler) -> CoresetSampler:
    """A new sampler of the same arguments, as a resumed program builds it."""
    return CoresetSampler(
        range(sampler.n),
        Uniform(),
        count=sampler.budget,
        base=sampler.plan.base,
        copies=sampler.copies,
        refresh=sampler.plan.every,
        weighting=sampler.plan.weighting,
        strength=sampler.table.rule,
        seed=sampler.seed,
    )


@given(samplers(), st.floats(0, 1), seeds)
def test_resuming_at_every_cut_gives_the_tail(
    sampler: CoresetSampler, share: float, seed: int
) -> None:
    draws = list(sampler)
    cut = round(share * len(draws))
    learn(sampler.table, np.random.default_rng(seed))  # the columns are no longer the epoch's
    first = rebuilt(sampler)
    first.load_state_dict(sampler.state_dict())
    first.skip(cut)
    second = rebuilt(sampler)
    second.load_state_dict(first.state_dict())
    second.table.load_state_dict(sampler.table.state_dict())
    for each in (first, second):
        assert list(each) == draws[cut:]
        assert len(each) == len(draws) - cut
    assert second.refresh_due == sampler.refresh_due
    for each in (second, sampler):
        each.set_epoch(sampler.epoch + 1)
        if each.refresh_due:
            each.refresh()
    assert list(second) == list(sampler)


# Dataset ----------------------------------------------------------------------------------------


@given(samplers(), st.booleans())
def test_a_batch_equals_its_items(sampler: CoresetSampler, batched: bool) -> None:
    items = [(i * 10, i % 3, str(i)) for i in range(sampler.n)]
    wrapped: Any = Subset(items, range(sampler.n)) if batched else items  # type: ignore[arg-type]
    data = WeightedAugmentedDataset(wrapped, weak=lambda x: x + 1, strong=lambda x: -x)
    draws = list(sampler)
    assert data.__getitems__(draws) == [data[draw] for draw in draws]
    for draw, sample in zip(draws, data.__getitems__(draws), strict=True):
        sign = -1 if draw.strength else 1
        assert sample.input == sign * (draw.index * 10 + 1)
        assert (sample.index, sample.copy, sample.extra) == (
            draw.index,
            draw.copy,
            (str(draw.index),),
        )


@given(st.integers(1, 9), st.integers(0, 8))
def test_a_plain_index_is_a_full_draw(n: int, index: int) -> None:
    data = WeightedAugmentedDataset([(i, 0) for i in range(n)])
    if index < n:
        assert data[index] == data[Draw(index, epoch=-1)]


# Table ------------------------------------------------------------------------------------------


@st.composite
def tables(draw: Any, rule: StrengthRule) -> SampleTable:
    n, rng = 7, np.random.default_rng(draw(seeds))
    table = SampleTable(n, rule=rule)
    for _ in range(draw(st.integers(0, 9))):
        b = int(rng.integers(1, n + 1))
        index = torch.tensor(rng.permutation(n)[:b])
        strength = torch.tensor(rng.choice([0.0, 0.5, 1.0], b))
        values = torch.tensor(rng.normal(size=(b, 3)).astype(np.float32))
        given: dict[str, Any] = {"loss": values[:, 0]}
        logits: dict[str, Any] = {"logits": values, "target": index % 3}
        if rng.random() < 0.3:
            table.restart()
        if rule.needs or rng.random() < 0.5:
            given = given | logits if rule.needs else logits
        table.report(index, **given, strength=strength)
    return table


def state(table: SampleTable) -> dict[str, Any]:
    """The state in comparable form; values that no view stands behind do not count."""
    kept = table.state_dict()
    columns = {}
    for name, (values, strength) in kept["columns"].items():
        shape = (-1,) + (1,) * (values.ndim - 1)
        seen = torch.where(strength.isfinite().view(shape), values, 0)
        columns[name] = (seen.tolist(), strength.tolist())
    return {
        "visits": kept["visits"].tolist(),
        "labels": kept["labels"].tolist(),
        "memory": {name: values.tolist() for name, values in kept["memory"].items()},
        "strengths": table.strengths(generator()).tolist(),
    } | columns


def copied(table: SampleTable) -> SampleTable:
    other = SampleTable(table.n, dtype=table.dtype, rule=table.rule)
    other.load_state_dict(table.state_dict())
    return other


@given(rules, st.data())
def test_merging_is_commutative(rule: StrengthRule, data: st.DataObject) -> None:
    a, b = data.draw(tables(rule)), data.draw(tables(rule))
    left, right = copied(a), copied(b)
    left.merge(b)
    right.merge(a)
    assert state(left) == state(right)


@given(rules, st.data())
def test_a_merged_sample_remembers_the_longer_history(
    rule: StrengthRule, data: st.DataObject
) -> None:
    a, b = data.draw(tables(rule)), data.draw(tables(rule))
    merged = copied(a)
    merged.merge(b)
    ours, theirs, found = (table.state_dict()["memory"] for table in (a, b, merged))
    visits = [part["visits"] if part else torch.zeros(7) for part in (ours, theirs)]
    for name, values in found.items():
        for more, less, kept in ((*visits, ours), (*reversed(visits), theirs)):
            longer = more > less
            if longer.any():
                assert torch.equal(values[longer], kept[name][longer])


@given(rules, st.data())
def test_merging_with_an_empty_table_or_itself_changes_no_memory(
    rule: StrengthRule, data: st.DataObject
) -> None:
    table = data.draw(tables(rule))
    merged, empty, twice = copied(table), SampleTable(table.n, rule=rule), copied(table)
    merged.merge(empty)
    empty.merge(table)
    assert state(merged) == state(table) == state(empty)
    twice.merge(table)
    assert state(twice)["memory"] == state(table)["memory"]


@given(rules, st.data())
def test_state_round_trips(rule: StrengthRule, data: st.DataObject) -> None:
    table = data.draw(tables(rule))
    again = copied(table)
    assert state(again) == state(table)
    for each in (again, table):
        learn(each, generator(3))
    assert state(again) == state(table)
