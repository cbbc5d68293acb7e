"""Pruned bases: epochs that draw what a rule or a strategy keeps, and at what weight."""

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    CoresetSampler,
    Draw,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    Given,
    InfoBatch,
    Loss,
    Mixup,
    Proportional,
    RandomPruning,
    Rank,
    Sample,
    Selection,
    SeTa,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
    collate,
)
from augloader.loading.plan import PRUNE, EpochPlan

N, BATCH = 60, 8
IN_PLACE: dict[str, Any] = {"fraction": 1.0, "copies": 0, "refresh": Every(None)}


def losses_of(index: Tensor, epoch: int, strength: Tensor | float = 0.0) -> Tensor:
    return (index * 0.37 + epoch).sin().abs() + 3 * torch.as_tensor(strength)


def sampler_of(base: Any, **options: Any) -> CoresetSampler:
    return CoresetSampler(range(N), Uniform(), **({"base": base, "epochs": 8} | IN_PLACE | options))


def batch_of(draws: list[Draw]) -> Sample:
    index, copy, weight, strength, epoch, _ = (torch.tensor(c) for c in zip(*draws, strict=True))
    return Sample(None, None, index, weight, strength, copy, epoch)


def train(sampler: CoresetSampler, epoch: int, stop: int | None = None) -> list[Draw]:
    """Begin an epoch where it is not begun, and report its draws; return them."""
    sampler.set_epoch(epoch)
    if sampler.refresh_due:
        sampler.refresh()
    draws = []
    for draw in sampler:
        draws.append(draw)
        if len(draws) == stop:
            break
    report(sampler, epoch, draws)
    return draws


def report(sampler: CoresetSampler, epoch: int, draws: list[Draw]) -> None:
    for start in range(0, len(draws), BATCH):
        batch = batch_of(draws[start : start + BATCH])
        sampler.report(batch, loss=losses_of(batch.index, epoch, batch.strength))


def kept_of(draws: list[Draw]) -> list[int]:
    return sorted({draw.index for draw in draws})


# What an epoch draws ------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [0, 1, 2])
@pytest.mark.parametrize("base", [InfoBatch(0.5), SeTa(0.2, groups=4), RandomPruning(0.3)])
def test_every_epoch_draws_what_the_rule_keeps(base: Any, copies: int) -> None:
    """By the last known losses of the weakest views, those of samples that were left out too."""
    sampler = sampler_of(base, copies=copies, fraction=0.5, refresh=Every(2), seed=3)
    last, sizes = torch.full((N,), torch.nan), []
    for epoch in range(8):
        draws = train(sampler, epoch)
        wanted = base.keep(
            last, epoch=epoch, epochs=8, generator=sampler.plan.generator(PRUNE, epoch)
        )
        assert kept_of(draws) == wanted.indices.tolist()
        assert sampler.kept is not None
        assert sampler.kept.weights.tolist() == wanted.weights.tolist()
        assert sampler.selection is not None
        strong = {draw.index for draw in draws if draw.strength > 0}
        assert strong == set(sampler.selection.indices.tolist()) & set(kept_of(draws))
        assert len(draws) == len(sampler) == len(wanted) + copies * len(strong)
        seen = wanted.indices
        chosen = torch.tensor([int(i) in strong for i in seen]) if copies == 0 else 0.0
        last[seen] = losses_of(seen, epoch, torch.as_tensor(chosen, dtype=torch.float32))
        sizes.append(len(wanted))
    assert min(sizes) < N


@given(
    st.integers(0, 3),
    st.sampled_from([1.0, 0.4]),
    st.sampled_from([True, False]),
    st.floats(0, 1),
    st.sampled_from([RandomPruning(0.5), InfoBatch(0.7, 0), "full"]),
    st.integers(0, 5),
)
def test_unbiased_draws_share_their_samples_weight(
    copies: int, fraction: float, stay: bool, chance: float, base: Any, seed: int
) -> None:
    """The weights of a sample's draws sum to its weight in the base, whatever else is asked."""
    plan = EpochPlan.of(
        N,
        fraction=fraction,
        base=base,
        copies=copies,
        weighting="unbiased",
        probability=chance,
        keep_unaugmented_copies=stay,
        seed=seed,
    )
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(N)[: plan.budget(0)].copy())
    selection = Selection(chosen, torch.rand(len(chosen)) + 0.1)
    kept = None
    if plan.pruning is not None:
        losses = losses_of(torch.arange(N), seed)
        kept = plan.pruning.keep(  # type: ignore[union-attr]
            losses, epoch=0, epochs=None, generator=plan.generator(PRUNE, 0)
        )
    draws = plan.compose(0, selection, torch.ones(N), kept)
    total = np.bincount(draws.index, draws.weight, N)
    expected = np.ones(N)
    if kept is not None:
        expected[:] = 0
        expected[kept.indices.numpy()] = kept.weights.numpy()
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_the_expected_weighted_gradient_is_the_full_one() -> None:
    """By sampling, through the sampler: of a linear model's gradient summed over an epoch."""
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(N) % 2
    model = torch.nn.Linear(3, 2).double()

    def gradient(index: Tensor, weight: Tensor) -> Tensor:
        model.zero_grad()
        losses = torch.nn.functional.cross_entropy(model(x[index]), y[index], reduction="none")
        (losses * weight).sum().backward()
        assert model.weight.grad is not None
        return model.weight.grad.clone()

    whole, runs = gradient(torch.arange(N), torch.ones(N)), []
    for seed in range(300):
        sampler = sampler_of(InfoBatch(0.5, 0), weighting="unbiased", seed=seed)
        train(sampler, 0)
        draws = train(sampler, 1)
        index, weight = (torch.tensor([d[i] for d in draws]) for i in (0, 2))
        assert len(draws) < N
        runs.append(gradient(index, weight))
    found = torch.stack(runs)
    error = found.std(0) / len(runs) ** 0.5
    assert ((found.mean(0) - whole).abs() <= 5 * error + 1e-9).all()


def test_other_weightings_are_scaled_and_uniform_ones_have_no_weights() -> None:
    kept = Selection(torch.tensor([0, 2, 3]), torch.tensor([1.0, 4.0, 1.0]))
    chosen = Selection(torch.tensor([2, 1]), torch.tensor([3.0, 1.0]))  # 1 is not kept
    found = {}
    for weighting in ("cluster", "uniform", "population", "downweight", "unbiased"):
        plan = EpochPlan.of(4, count=2, base=RandomPruning(0.2), weighting=weighting)
        draws = plan.compose(0, chosen, torch.ones(4), kept)
        assert draws.index.tolist() == [0, 2, 3, 2]
        assert draws.strength.tolist() == [0, 0, 0, 1]
        found[weighting] = draws.weight.tolist()
    cluster, population, down = [1, 4, 1, 6], [4 / 6, 16 / 6, 4 / 6, 12], [1, 2, 1, 2]
    for weighting, by_hand in (("cluster", cluster), ("population", population)):
        assert found[weighting] == pytest.approx([4 * w / sum(by_hand) for w in by_hand])
    assert found["uniform"] == [1, 1, 1, 1]
    assert found["downweight"] == pytest.approx([4 * w / sum(down) for w in down])
    assert found["unbiased"] == pytest.approx(down)


def test_half_of_the_rows_the_hard_ones_strong() -> None:
    sampler = CoresetSampler(
        range(N), Rank(Loss()), fraction=0.5, copies=0, base=RandomPruning(0.25), seed=1,
        refresh=Every(1, warmup=1), weighting="unbiased",
    )  # fmt: skip
    sampler.set_epoch(1)
    sampler.refresh(Evidence(N, losses=losses_of(torch.arange(N), 0)))
    report(sampler, 1, list(sampler))
    for epoch in range(2, 20):  # until every sample was drawn
        sampler.set_epoch(epoch)
        report(sampler, epoch, list(sampler))
    before = sampler.table.evidence(frozenset({"losses"})).losses
    assert before is not None
    hardest = set(before.topk(N // 2).indices.tolist())
    draws = train(sampler, 20)
    assert sampler.selection is not None
    assert set(sampler.selection.indices.tolist()) == hardest
    assert {draw.index for draw in draws if draw.strength} == hardest & set(kept_of(draws))


# Strategies as bases ------------------------------------------------------------------------------


def test_a_strategy_keeps_its_share() -> None:
    sampler = sampler_of(Rank(Loss()), base_fraction=0.25)
    assert len(train(sampler, 0)) == N  # nothing is known yet
    for epoch in (1, 2):
        before = sampler.table.evidence(frozenset({"losses"})).losses
        assert before is not None
        largest = sorted(before.topk(N // 4).indices.tolist())
        assert kept_of(train(sampler, epoch)) == largest


def test_a_strategy_draws_classes_alike() -> None:
    labels = torch.tensor([0] * 45 + [1] * 10 + [2] * 5)
    balanced = Uniform(groups=labels, allocation="equal")
    sampler = sampler_of(balanced, base_fraction=0.25, weighting="uniform", seed=2)
    found = [kept_of(train(sampler, epoch)) for epoch in range(4)]
    assert [np.bincount(labels[some]).tolist() for some in found] == [[5, 5, 5]] * 4
    assert len({tuple(some) for some in found}) == 4
    assert sampler.planned_draws() == [15] * 8


def test_a_strategy_by_reported_labels_and_proxies() -> None:
    rows, classes = torch.randn(N, 3, generator=torch.Generator().manual_seed(0)), 3
    sampler = sampler_of(FacilityLocation(), base_fraction=0.2, epochs=4)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        batch = batch_of(list(sampler))
        assert len(batch.index) == (12 if epoch else N)
        target = batch.index % classes
        sampler.report(batch, logits=rows[batch.index], target=target)
    assert sampler.kept is not None
    gammas = {d.index: d.weight for d in sampler}
    weights = dict(zip(sampler.kept.indices.tolist(), sampler.kept.weights.tolist(), strict=True))
    mean = sum(weights.values()) / len(weights)
    assert gammas == pytest.approx({i: w / mean for i, w in weights.items()})


def test_the_share_may_oscillate() -> None:
    shares = [1.0, 0.5, 0.25, 0.5, 1.0, 0.5]

    def wave(epoch: int, epochs: int) -> float:
        return shares[epoch % 6]

    sampler = sampler_of(Uniform(), base_fraction=wave, epochs=6)
    assert [len(train(sampler, epoch)) for epoch in range(6)] == [60, 30, 15, 30, 60, 30]
    assert sampler.planned_draws() == [60, 30, 15, 30, 60, 30]
    both = sampler_of(Uniform(), base_fraction=wave, epochs=6, fraction=lambda e, _: shares[e],
                      copies=1, refresh=Every(1))  # fmt: skip
    assert all(len(train(both, epoch)) <= both.planned_draws()[epoch] for epoch in range(6))


def test_a_random_base_may_have_a_schedule_too() -> None:
    sampler = sampler_of(
        "random", base_fraction=lambda e, _: 0.5 if e < 4 else 0.25, fraction=0.1, copies=1,
        refresh=Every(2),
    )  # fmt: skip
    assert [len(train(sampler, epoch)) for epoch in range(8)] == [36] * 4 + [21] * 4


# Lengths, resuming, pickling ----------------------------------------------------------------------


def test_lengths() -> None:
    sampler = sampler_of(InfoBatch(0.5), pad_to_multiple_of=16)
    longest = sampler.planned_draws()
    assert longest == [64] * 8
    for epoch in range(8):
        assert len(train(sampler, epoch)) == len(sampler) <= longest[epoch]
        assert sampler.base_size == (N if sampler.kept is None else len(sampler.kept))
        assert len(sampler) % 16 == 0
    constant = sampler_of(InfoBatch(0.5), constant_length=True)
    for epoch in range(8):
        draws = train(constant, epoch)
        assert len(draws) == N
        assert constant.kept is not None
        assert sum(draw.weight > 0 for draw in draws) == len(constant.kept)


@pytest.mark.parametrize(
    ("base", "more"),
    [
        (InfoBatch(0.5), {}),
        (SeTa(groups=4), {}),
        (Proportional(Loss()), {"base_fraction": 0.4}),
    ],
)
@pytest.mark.parametrize("stop", [0, 8, 24])
def test_a_resumed_epoch_has_the_same_draws_left(base: Any, more: Any, stop: int) -> None:
    options = {"strength": StableInfluence(window=2), "weighting": "unbiased", "seed": 4, **more}
    through = sampler_of(base, **options)
    expected = [train(through, epoch) for epoch in range(6)]
    first = sampler_of(base, **options)
    for epoch in range(3):
        train(first, epoch)
    assert train(first, 3, stop=stop or None)[:stop] == expected[3][:stop]
    if not stop:
        first = sampler_of(base, **options)
        for epoch in range(3):
            train(first, epoch)
        first.set_epoch(3)
    state = pickle.loads(pickle.dumps((first.state_dict(stop), first.table.state_dict())))
    again = sampler_of(base, **options)
    again.load_state_dict(state[0])
    again.table.load_state_dict(state[1])
    assert [train(again, epoch) for epoch in range(3, 6)] == [expected[3][stop:], *expected[4:]]


def test_a_state_of_another_base_is_refused() -> None:
    state = sampler_of(InfoBatch(0.5)).state_dict()
    for base in ("full", InfoBatch(0.6), RandomPruning(0.5)):
        with pytest.raises(ValueError, match=r"must be of a sampler with base=.*, got base=Info"):
            sampler_of(base).load_state_dict(state)


def test_copies_of_a_sampler_go_on_alike() -> None:
    sampler = sampler_of(InfoBatch(0.5))
    train(sampler, 0)
    twin = copy.deepcopy(sampler)
    assert train(sampler, 1) == train(twin, 1)


def test_through_a_loader_with_mixing() -> None:
    x, y = torch.rand(N, 3, 8, 8), torch.arange(N) % 4
    data = WeightedAugmentedDataset(TensorDataset(x, y))
    sampler = CoresetSampler(
        data,
        Uniform(),
        base=InfoBatch(0.5),
        weighting="unbiased",
        epochs=5,
        probability=0.5,
        **IN_PLACE,
    )
    loader = DataLoader(data, BATCH, sampler=sampler, collate_fn=collate)
    mixup, sizes = Mixup(4, seed=0), []
    for epoch in range(5):
        sampler.begin(epoch)
        rows = 0
        for batch in loader:
            mixed = mixup(batch)
            sampler.report(mixed, loss=losses_of(batch.index, epoch))
            rows += len(batch.index)
        assert rows == len(sampler)
        sizes.append(rows)
    assert sizes[0] == N > sizes[3]


# What is told, and refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "more"), [(InfoBatch(0.5), {}), (Rank(Loss()), {"base_fraction": 0.5})]
)
def test_an_epoch_without_reports_is_told_of_once(base: Any, more: Any) -> None:
    sampler = sampler_of(base, **more)
    sampler.set_epoch(0)
    sampler.refresh()
    assert len(list(sampler)) == N
    with pytest.warns(UserWarning, match=r"epoch 1 draws all .* base=.* needs .*which were not"):
        sampler.set_epoch(1)
    assert len(list(sampler)) == N
    sampler.set_epoch(2)  # once
    assert len(list(sampler)) == N


def test_nothing_is_told_where_no_draw_was_made() -> None:
    sampler = sampler_of(InfoBatch(0.5))
    for epoch in range(3):
        sampler.set_epoch(epoch)


@dataclass
class Rule:
    """A pruning rule of a user, which cannot be hashed."""

    found: Any = field(
        default_factory=lambda: Selection(torch.tensor([1]), torch.tensor([1.0])), repr=False
    )
    needs: ClassVar[frozenset[str]] = frozenset()

    def keep(self, losses: Tensor, *, epoch: int, epochs: int | None, generator: Any) -> Any:
        found = self.found
        return found() if callable(found) else found


def test_a_rule_of_your_own() -> None:
    sampler = sampler_of(Rule())
    assert kept_of(train(sampler, 0)) == [1]
    assert isinstance(sampler.base, Rule)


@dataclass
class Nameless:
    """A score of a user whose repr is its address."""

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __repr__(self) -> str:
        return object.__repr__(self)

    def __call__(self, evidence: Evidence) -> Tensor:
        losses: Tensor = evidence.require("losses")
        return losses


class Bare:
    """A pruning rule of a user whose repr is its address."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def keep(self, losses: Tensor, *, epoch: int, epochs: int | None, generator: Any) -> Any:
        return Selection(torch.tensor([1]), torch.tensor([1.0]))


def test_what_a_state_could_not_be_compared_by_is_refused() -> None:
    for base, more in ((Rank(Nameless()), {"base_fraction": 0.5}), (Bare(), {})):
        with pytest.raises(TypeError, match=r"base must have a repr .* got .* at 0x"):
            sampler_of(base, **more)


def test_groups_that_a_repr_abbreviates_are_compared() -> None:
    groups = torch.arange(1001) % 3
    other = groups.clone()
    other[500] = 2 - other[500]
    assert repr(groups) == repr(other)
    states = []
    for some in (groups, other, groups.clone()):
        sampler = CoresetSampler(
            range(1001), Uniform(), fraction=0.5, base=Uniform(groups=some), base_fraction=0.5
        )
        sampler.set_epoch(0)
        states.append(sampler.state_dict())
    sampler.load_state_dict(states[0])
    with pytest.raises(ValueError, match="state must be of a sampler with base="):
        sampler.load_state_dict(states[1])


def test_what_is_missing_is_named() -> None:
    sampler = sampler_of(Rank(Loss(), groups="labels"), base_fraction=0.5)
    train(sampler, 0)  # reports losses alone
    words = r"needs \['labels', 'losses'\].*loss=losses, target=batch.target\)"
    with pytest.warns(UserWarning, match=words):
        sampler.set_epoch(1)


def _pick(indices: list[int], weights: list[float]) -> Any:
    return lambda: Selection(torch.tensor(indices), torch.tensor(weights))


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        ([0, 1], TypeError, "base must keep a Selection, got list of Rule.*Fix its keep method"),
        (_pick([60], [1.0]), ValueError, "base must keep at most 60 of 60 samples, got 1 with ind"),
        (lambda: Selection(torch.zeros(0, dtype=torch.int64), torch.zeros(0)), ValueError,
         "selection must be k >= 1"),
        (_pick([0, 1], [1.0, float("inf")]), ValueError, "weights must be finite and above 0"),
        (_pick([0, 1], [1e-30, 3e38]), ValueError, "weights of a base must be of one magnitude"),
    ],
)  # fmt: skip
def test_bad_rules(found: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sampler_of(Rule(found))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"base": InfoBatch}, TypeError, "base must be one of 'full'.*a pruning rule or a strat"),
        ({"base": 0.5}, TypeError, r"a strategy, got 0.5. Pass an instance, as InfoBatch\(0.5\)"),
        ({"base": "pruned"}, ValueError, "base must be one of"),
        ({"base": Uniform()}, ValueError, "base_fraction must be given with base=Uniform"),
        ({"base": Uniform(), "base_fraction": 0}, ValueError, r"base_fraction must be in \(0, 1\]"),
        ({"base": Uniform(), "base_fraction": lambda e, n: e % 2}, ValueError, "got 0 at 0"),
        ({"base": InfoBatch(), "base_fraction": 0.5}, ValueError, 'must come with base="random"'),
        ({"base": InfoBatch(), "epochs": None}, ValueError, "epochs must be given where anneal"),
        ({"base": Rank(Given()), "base_fraction": 0.5}, ValueError, "base must need nothing but"),
        ({"base": Rank(Forgetting()), "base_fraction": 0.5}, ValueError, "which needs forgetting"),
        ({"base": RandomPruning(0.99)}, ValueError, "ratio must leave at least 1 of 60"),
        ({"base": "random", "weighting": "unbiased"}, ValueError, 'another than "unbiased"'),
        ({"base": "selected", "weighting": "unbiased"}, ValueError, 'another than "unbiased"'),
        ({"base": "none", "weighting": "unbiased"}, ValueError, 'another than "unbiased"'),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sampler_of(options.pop("base"), **options)


def test_forgetting_wants_all_samples() -> None:
    with pytest.raises(ValueError, match='base must be "full" and copies 1 or more to count'):
        CoresetSampler(range(N), Proportional(Forgetting()), count=9, base=RandomPruning(0.5))
