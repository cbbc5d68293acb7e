"""Tasks beyond classification: segmentation, regression, data without labels or images."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as image_ops

from augloader import (
    EL2N,
    KDPP,
    AdaptiveStrengthTransform,
    Clusters,
    Confidence,
    CoresetSampler,
    CutMix,
    DistributedCoresetSampler,
    Draw,
    Entropy,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    GraNd,
    Influence,
    LastLayerGradient,
    Loss,
    LossRank,
    Margin,
    Mixup,
    Proportional,
    Proxies,
    Rank,
    Residual,
    Sample,
    StableInfluence,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.augment.pixels.geometry import compose
from augloader.augment.pixels.ops import GEOMETRY, ROTATE
from augloader.augment.policies import Params
from augloader.feedback import StrengthRule
from augloader.selection import Score
from tests.reference import require_nearest, torchvision_operation

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning"),  # looked at
]
N = 36


def numbers(n: int = N) -> WeightedAugmentedDataset:
    """Regression: inputs of 5 numbers, a float target and, beside them, groups of 9, 12 and 15."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(3).repeat_interleave(torch.tensor([9, 12, n - 21]))
    x, y = torch.randn(n, 5, generator=generator), torch.randn(n, generator=generator)
    order = torch.randperm(n, generator=generator)
    return WeightedAugmentedDataset(TensorDataset(x, y, groups[order]))


def proxies_of(index: Tensor, width: int = 4) -> Tensor:
    """What the tests report: a row for each sample, the same at every visit."""
    whole = torch.randn(N, width, generator=torch.Generator().manual_seed(1))
    return whole[index]


def trained(
    strategy: Strategy,
    found: Callable[[Sample], dict[str, Tensor]],
    epochs: int = 1,
    **options: Any,
) -> CoresetSampler:
    """A sampler after some epochs over the numbers, whose every batch was reported."""
    data = numbers()
    given: dict[str, Any] = {"fraction": 1 / 3, "refresh": Every(1, warmup=1), **options}
    sampler = CoresetSampler(data, strategy, **given)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        for batch in loader:
            sampler.report(batch, **found(batch))
    sampler.set_epoch(epochs)
    return sampler


def grouped(batch: Sample) -> dict[str, Tensor]:
    (groups,) = batch.extra
    return {"proxy": proxies_of(batch.index), "target": groups}


def ungrouped(batch: Sample) -> dict[str, Tensor]:
    return {"proxy": proxies_of(batch.index)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_refresh_without_labels_selects_by_the_reported_proxies(
    dtype: torch.dtype, stored: torch.dtype
) -> None:
    strategy = FacilityLocation(per_class=False)
    sampler = trained(
        strategy, lambda batch: {"proxy": proxies_of(batch.index).to(dtype)}, table_dtype=stored
    )
    selection = sampler.refresh()
    kept = proxies_of(torch.arange(N)).to(dtype).to(stored).float()
    direct = strategy.select(
        Evidence(N, proxies=Proxies(kept)), 12, generator=np.random.default_rng(0)
    )
    assert torch.equal(selection.indices, direct.indices)
    assert torch.equal(selection.weights, direct.weights)
    assert sampler.table.evidence().labels is None


@pytest.mark.parametrize(
    ("allocation", "shares"), [("proportional", [3, 4, 5]), ("equal", [4, 4, 4])]
)
def test_reported_groups_stand_where_classes_would(allocation: Any, shares: list[int]) -> None:
    strategy = FacilityLocation(allocation=allocation)
    sampler = trained(strategy, grouped)
    selection = sampler.refresh()
    groups = numbers().data.tensors[2]
    evidence = Evidence(N, groups, Proxies(proxies_of(torch.arange(N))))
    direct = strategy.select(evidence, 12, generator=np.random.default_rng(0))
    assert torch.equal(selection.indices, direct.indices)
    assert torch.equal(selection.weights, direct.weights)
    assert groups[selection.indices].bincount().tolist() == shares
    sizes = torch.zeros(3).index_add(0, groups[selection.indices], selection.weights)
    assert sizes.tolist() == [9, 12, 15]  # each sample's medoid is of its own group
    draws = list(sampler)
    assert sum(draw.strength > 0 for draw in draws) == 12
    assert len(draws) == N + 12


def test_embeddings_that_change_are_selected_by_anew() -> None:
    sampler = trained(FacilityLocation(per_class=False), ungrouped)
    first = sampler.refresh()
    for batch in DataLoader(numbers(), batch_size=9, sampler=sampler):
        sampler.report(batch, proxy=-3 * proxies_of((batch.index + 7) % N))
    second = sampler.refresh()
    assert first.certificate is not None
    assert second.certificate is not None
    gains = second.certificate.gains, 3 * first.certificate.gains
    torch.testing.assert_close(*gains, rtol=1e-5, atol=0)
    assert (second.indices[0] + 7) % N == first.indices[0]  # others tie with their only neighbour


def test_groups_may_come_with_the_losses_alone() -> None:
    def found(batch: Sample) -> dict[str, Tensor]:
        return {"loss": batch.index.float(), "target": batch.extra[0]}

    selection = trained(Rank(Loss(), groups="labels"), found).refresh()
    groups = numbers().data.tensors[2]
    for group, share in enumerate((3, 4, 5)):
        members = (groups == group).nonzero().flatten()
        chosen = selection.indices[groups[selection.indices] == group]
        assert sorted(chosen.tolist()) == sorted(members[-share:].tolist())  # of the largest losses


@pytest.mark.parametrize("strategy", [FacilityLocation(), Rank(Loss(), groups="labels")])
def test_selecting_in_classes_where_there_are_none_says_what_to_do(strategy: Strategy) -> None:
    def found(batch: Sample) -> dict[str, Tensor]:
        return {**ungrouped(batch), "loss": batch.target.square()}

    sampler = trained(strategy, found)
    with pytest.raises(
        ValueError,
        match=r"labels must be known for every sample, got 36 samples .* Where there are no "
        r"classes report groups as target=, .* FacilityLocation\(per_class=False\)",
    ):
        sampler.refresh()
    assert sampler.selection is None


@pytest.mark.filterwarnings("ignore:rows of no epoch were reported:UserWarning")
def test_samples_that_lack_a_group_are_named() -> None:
    sampler = trained(FacilityLocation(), ungrouped)
    batch = next(iter(DataLoader(numbers(), batch_size=N - 2)))
    sampler.report(batch, **grouped(batch))
    with pytest.raises(ValueError, match=r"labels must .*got 2 samples \(first indices 34, 35\)"):
        sampler.refresh()


def test_a_group_of_one_sample_is_its_own_medoid() -> None:
    def found(batch: Sample) -> dict[str, Tensor]:
        return {"proxy": proxies_of(batch.index), "target": (batch.index == 3).long()}

    sampler = trained(FacilityLocation(), found)
    sampler.refresh()
    assert sampler.selection is not None
    weights = zip(sampler.selection.indices.tolist(), sampler.selection.weights, strict=True)
    assert dict(weights)[3] == 1


@pytest.mark.parametrize("found", [{}, {"target": torch.arange(8) % 2}])
def test_a_report_of_no_values(found: dict[str, Tensor]) -> None:
    batch = next(iter(DataLoader(numbers(), batch_size=8)))
    with pytest.raises(ValueError, match="must be given loss, logits or proxy, got none"):
        CoresetSampler(numbers(), Uniform(), count=3).report(batch, **found)


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        ({"proxy": torch.zeros(8, 5)}, ValueError, r"keep the width \(4,\).*got \(5,\)"),
        ({"proxy": torch.zeros(8, 2, 4)}, ValueError, r"proxy must have shape.*pool or flatten"),
        ({"proxy": torch.zeros(8)}, ValueError, r"proxy must have shape \(8, width\)"),
        ({"proxy": torch.zeros(7, 4)}, ValueError, "proxy must have 8 rows, as the batch"),
        ({"proxy": torch.zeros(8, 4).int()}, TypeError, "proxy must be floating"),
        ({"proxy": torch.full((8, 4), torch.nan)}, ValueError, "proxy must be finite"),
        ({"loss": torch.zeros(8, 3, 3)}, ValueError, r"loss must have shape.*pixels .* mean"),
        ({"logits": torch.zeros(8, 3, 5, 5)}, ValueError, "logits must have.*loss and proxy"),
        ({"target": torch.zeros(8)}, TypeError, r"target must be integer.*target=torch\.bucketize"),
        ({"target": torch.full((8,), -1)}, ValueError, "target must be 0 or more"),
        ({"target": torch.zeros(8, 5, 5).long()}, ValueError, r"target must have shape \(8,\)"),
        ({"target": torch.zeros(3).long()}, ValueError, "target must have 8 rows, as the batch"),
    ],
)
def test_what_is_reported_wrongly_changes_nothing(
    found: dict[str, Tensor], error: type[Exception], words: str
) -> None:
    sampler = trained(FacilityLocation(), grouped)
    batch = next(iter(DataLoader(numbers(), batch_size=8)))
    with pytest.raises(error, match=words):
        sampler.report(batch, **({"loss": torch.ones(8), "proxy": torch.ones(8, 4)} | found))
    assert sampler.table.visits.eq(1).all()
    assert len(sampler.table.missing("losses")) == N
    kept = sampler.table.evidence(frozenset({"proxies", "labels"}))
    assert kept.proxies is not None
    assert torch.equal(kept.proxies.gradient, proxies_of(torch.arange(N)))


def test_the_weakest_view_of_a_sample_gives_its_proxy() -> None:
    strategy = FacilityLocation(per_class=False)

    def found(batch: Sample) -> dict[str, Tensor]:
        return {"proxy": proxies_of(batch.index) + 100 * batch.strength[:, None]}

    sampler = trained(strategy, found, epochs=2)  # the second epoch has strong copies
    kept = sampler.table.evidence(frozenset({"proxies"})).proxies
    assert kept is not None
    assert torch.equal(kept.gradient, proxies_of(torch.arange(N)))


def test_rows_of_weight_0_are_left_out() -> None:
    data = numbers()
    sampler = CoresetSampler(
        data, FacilityLocation(), fraction=1 / 3, refresh=Every(1, warmup=1), pad_to_multiple_of=16
    )
    padded = 0
    for batch in DataLoader(data, batch_size=16, sampler=sampler):
        proxy = proxies_of(batch.index)
        proxy[batch.weight == 0] = torch.nan  # not even looked at
        sampler.report(batch, proxy=proxy, target=batch.extra[0])
        padded += int((batch.weight == 0).sum())
    assert padded == 12
    assert sampler.table.visits.eq(1).all()
    sampler.set_epoch(1)
    assert len(sampler.refresh()) == 12


def select_together(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=limit)
    data, found = numbers(), {}
    for name, strategy in STRATEGIES.items():
        report = grouped if strategy.per_class else ungrouped
        every = Every(1, warmup=1)
        sampler = DistributedCoresetSampler(data, strategy, fraction=1 / 3, refresh=every)
        for batch in DataLoader(data, batch_size=8, sampler=sampler):
            sampler.report(batch, **report(batch))
        sampler.set_epoch(1)
        selection = sampler.refresh()
        found[name] = selection.indices, selection.weights
    sampler = DistributedCoresetSampler(data, FacilityLocation(), count=12, refresh=every)
    for batch in DataLoader(data, batch_size=8, sampler=sampler):
        sampler.report(batch, **ungrouped(batch))
    with pytest.raises(ValueError, match=r"got 36 samples .* FacilityLocation\(per_class=False\)"):
        sampler.refresh()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


STRATEGIES = {"groups": FacilityLocation(), "all": FacilityLocation(per_class=False)}


@pytest.mark.distributed
@pytest.mark.slow
def test_ranks_select_together_by_reported_proxies(tmp_path: Path) -> None:
    spawn(select_together, args=(str(tmp_path),), nprocs=2)
    for name, strategy in STRATEGIES.items():
        alone = trained(strategy, grouped if strategy.per_class else ungrouped).refresh()
        for rank in range(2):
            indices, weights = torch.load(tmp_path / f"{rank}.pt")[name]
            assert torch.equal(indices, alone.indices)
            assert torch.equal(weights, alone.weights)


@pytest.mark.parametrize("mixing", [Mixup, CutMix])
def test_mixed_rows_are_left_out(mixing: type[Mixup | CutMix]) -> None:
    images = torch.rand(N, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    data = WeightedAugmentedDataset(TensorDataset(images, torch.arange(N) % 3))
    sampler = CoresetSampler(data, Uniform(), count=12)
    sampler.refresh()
    mix = mixing(num_classes=3, seed=0)
    mixed = 0
    for batch in DataLoader(data, batch_size=16, sampler=sampler):
        blended = mix(batch)
        proxy, groups = proxies_of(blended.index), blended.index % 3
        proxy[blended.mixed], mixed = torch.nan, mixed + int(blended.mixed.sum())
        sampler.report(blended, proxy=proxy, target=groups)
    assert mixed >= 8
    kept = sampler.table.evidence(frozenset({"proxies", "labels"}))
    assert kept.proxies is not None
    assert torch.equal(kept.proxies.gradient, proxies_of(torch.arange(N)))
    assert kept.labels is not None
    assert torch.equal(kept.labels, torch.arange(N) % 3)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_masks_follow_each_images_own_geometry(policy: str, strength: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 24, 40), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 5, (64, 24, 40), generator=generator)
    options: dict[str, Any] = {"num_ops": 1} if policy == "rand" else {}
    strong = AdaptiveStrengthTransform(policy, seed=3, **options)
    keys = torch.stack([torch.tensor([2, i, 1]) for i in range(64)])
    strengths = torch.full((64,), strength)
    strengths[::5] = 0
    params = strong.sample(images.shape, strengths, keys=keys)
    full = strong.sample(images.shape, 1.0, keys=keys)
    assert isinstance(params, Params)
    assert isinstance(full, Params)
    moved, followed = strong((images, tv_tensors.Mask(masks)), strengths, keys=keys)
    assert isinstance(followed, tv_tensors.Mask)
    assert (followed.shape, followed.dtype) == (masks.shape, masks.dtype)
    turned, between = 0, 0.0
    for i in range(64):
        mask = followed[i].as_subclass(Tensor)
        if strengths[i] == 0:
            assert torch.equal(mask, masks[i])
            assert torch.equal(moved[i], images[i])
            continue
        op, magnitude = int(params.op[i, 0, 0]), float(params.magnitude[i, 0, 0])
        image = torchvision_operation(images[i], op, magnitude)
        if op not in GEOMETRY:
            assert torch.equal(mask, masks[i])
            assert torch.equal(moved[i], image)
            continue
        matrix = compose(params.op[i], params.magnitude[i], 24, 40)
        near = require_nearest(moved[i : i + 1], image[None], images[i : i + 1], matrix)
        between += float(near.float().mean())
        plane, found = tv_tensors.Mask(masks[i : i + 1]), mask[None, None]
        like = torchvision_operation(plane, op, magnitude).as_subclass(Tensor)
        require_nearest(found, like[None], masks[i][None, None], matrix)
        if int(full.op[i, 0, 0]) == ROTATE:
            angle = strength * float(full.magnitude[i, 0, 0])
            assert magnitude == pytest.approx(angle, rel=1e-6)
            turn = image_ops.rotate(plane, magnitude).as_subclass(Tensor)
            require_nearest(found, turn[None], masks[i][None, None], matrix)
            turned += 1
    assert turned >= (1 if strength else 0)
    assert between / 64 < 0.01


def test_a_loader_of_pairs_augments_image_and_mask_alike() -> None:
    """The whole way: pairs through dataset, weak transform, default collate and batch transform."""
    masks = torch.randint(0, 2, (N, 16, 16), generator=torch.Generator().manual_seed(0))
    images = (masks * 255).to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1)
    pairs = zip(map(tv_tensors.Image, images), map(tv_tensors.Mask, masks), strict=True)
    data = WeightedAugmentedDataset(
        [(pair, i % 3) for i, pair in enumerate(pairs)],
        weak=lambda pair: tuple(image_ops.horizontal_flip(part) for part in pair),
    )
    sampler = CoresetSampler(data, Uniform(), fraction=0.5)
    sampler.refresh()
    strong = AdaptiveStrengthTransform("trivial", seed=0)
    seen = set()
    for batch in DataLoader(data, batch_size=9, sampler=sampler):
        pictures, planes = batch.input
        params = strong.sample(pictures.shape, batch.strength, keys=batch.keys)
        assert isinstance(params, Params)
        pictures, planes = strong(
            (pictures, tv_tensors.Mask(planes)), batch.strength, keys=batch.keys
        )
        geometry = torch.isin(params.op[:, 0, 0], torch.tensor(GEOMETRY))  # which keeps colours
        same = (pictures[:, 0] == planes * 255).flatten(1).all(1)
        assert same[(batch.strength == 0) | geometry].all()
        plain = batch.strength == 0
        assert torch.equal(planes[plain].as_subclass(Tensor), masks[batch.index[plain]].flip(-1))
        seen |= set(params.op[batch.strength > 0, 0, 0].tolist())
    assert len(seen) > 5


def test_pooled_residuals_are_the_gradient_by_the_last_layers_bias() -> None:
    """Of a mean over pixels: what is summed over the classes is the bias's gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, 8, 8, generator=generator, requires_grad=True)
    masks = torch.randint(0, 3, (6, 8, 8), generator=generator)
    bias = torch.zeros(6, 3, requires_grad=True)
    loss = F.cross_entropy(logits + bias[:, :, None, None], masks, reduction="none").mean((1, 2))
    (gradient,) = torch.autograd.grad(loss.sum(), bias)
    truth = F.one_hot(masks, 3).movedim(-1, 1).float()
    pooled = torch.einsum("bkhw,bchw->bkc", truth, logits.softmax(1) - truth) / 64
    torch.testing.assert_close(pooled.sum(1), gradient)


FREE: list[Score] = [EL2N(), GraNd()]


@pytest.mark.parametrize("score", FREE, ids=repr)
def test_scores_of_reported_proxies_are_their_norms(score: Score) -> None:
    selection = trained(Rank(score), ungrouped).refresh()
    norms = proxies_of(torch.arange(N)).norm(dim=1)
    assert torch.equal(selection.indices.sort().values, norms.topk(12).indices.sort().values)


def test_reported_losses_are_a_score() -> None:
    selection = trained(Rank(Loss()), lambda batch: {"loss": batch.index.float()}).refresh()
    assert sorted(selection.indices.tolist()) == list(range(24, 36))


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Rank(Loss()), r"losses must be known for every sample, got 36 samples"),
        (Rank(Influence()), r"proxies must have features for the last layer's Hessian"),
        (Rank(Margin()), r"features must be given, got None.*or add your own"),
        (KDPP(EL2N()), r"features must be given, got None.*or add your own"),
        (Uniform(groups=Clusters(3)), r"features must be given, got None.*or add your own"),
    ],
    ids=repr,
)
def test_scores_that_proxies_do_not_answer(strategy: Strategy, words: str) -> None:
    sampler = trained(strategy, grouped)
    with pytest.raises(ValueError, match=words):
        sampler.refresh()


def test_proxies_that_losses_do_not_answer() -> None:
    strategy = FacilityLocation(per_class=False)
    sampler = trained(strategy, lambda batch: {"loss": batch.target.square()})
    with pytest.raises(ValueError, match=r"proxies must be known for every sample, got 36"):
        sampler.refresh()


def test_users_features_beside_reported_proxies() -> None:
    """What only a sweep finds may be added: evidence of one's own."""
    sampler = trained(FacilityLocation(per_class=False), ungrouped)
    evidence = Evidence(N, features=numbers().data.tensors[0])
    other = CoresetSampler(numbers(), Uniform(groups=Clusters(3)), count=6)
    assert len(other.refresh(evidence)) == 6
    assert sampler.selection is None


@pytest.mark.parametrize("rule", [LossRank(), StableInfluence("loss", window=2)], ids=repr)
def test_strength_rules_of_losses_need_no_classes(rule: StrengthRule) -> None:
    def found(batch: Sample) -> dict[str, Tensor]:
        return {"loss": batch.index.float() * (1 + batch.epoch % 2), **ungrouped(batch)}

    sampler = trained(FacilityLocation(per_class=False), found, epochs=4, strength=rule)
    assert sampler.selection is not None
    strengths = sampler.strengths
    assert strengths.unique().numel() > 10
    if isinstance(rule, LossRank):  # the larger the loss the weaker, or the other way round
        assert (strengths.diff() <= 0).all() or (strengths.diff() >= 0).all()
    copies = [draw for draw in sampler if draw.copy]
    assert {draw.index for draw in copies} == set(sampler.selection.indices.tolist())
    assert all(draw.strength == strengths[draw.index] for draw in copies)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Entropy(), "report must be given logits for the rule"),
        (StableInfluence("kl"), "report must be given logits for the rule"),
        (Confidence(), "report must be given logits and target for the rule"),
    ],
    ids=repr,
)
def test_strength_rules_of_logits_say_so(rule: StrengthRule, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trained(Uniform(), ungrouped, strength=rule)


def test_forgetting_says_what_it_counts() -> None:
    with pytest.raises(ValueError, match="report must be given logits and target"):
        trained(Proportional(Forgetting()), grouped)


def of_pixels() -> tuple[nn.Module, Any]:
    images = torch.zeros(6, 3, 8, 8)
    return nn.Conv2d(3, 4, 1), TensorDataset(images, torch.zeros(6, 8, 8, dtype=torch.int64))


def of_one_number() -> tuple[nn.Module, Any]:
    return nn.Linear(5, 1), numbers()


def of_numbers() -> tuple[nn.Module, Any]:
    return nn.Linear(5, 3), numbers()


@pytest.mark.parametrize("proxy", [Residual(), LastLayerGradient(), None], ids=repr)
@pytest.mark.parametrize("task", [of_pixels, of_one_number, of_numbers])
def test_a_sweep_of_other_tasks_asks_for_reports(
    task: Callable[[], tuple[nn.Module, Any]], proxy: Residual | LastLayerGradient | None
) -> None:
    if task is of_pixels and isinstance(proxy, LastLayerGradient):
        pytest.skip("has no linear head")
    with pytest.raises((ValueError, TypeError), match=r"sampler\.report\(batch, .*proxy="):
        sweep(*task(), proxy)


class Masked:
    """A user's transform of tokens: the stronger, the more of them are dropped."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, list[int]]] = []

    def __call__(self, tokens: Tensor, strength: float, keys: Tensor) -> Tensor:
        self.seen.append((strength, keys.tolist()))
        rng = np.random.default_rng(keys.tolist())
        return torch.where(torch.from_numpy(rng.random(len(tokens))) < 0.8 * strength, 0, tokens)


def test_a_users_own_transform_is_given_each_draws_strength_and_keys() -> None:
    tokens = torch.arange(1, 1 + 30 * N).view(N, 30)
    own = Masked()
    data = WeightedAugmentedDataset([(row, "a text") for row in tokens], strong=own)
    strengths = StableInfluence(window=2)  # uniformly random at first
    sampler = CoresetSampler(data, Uniform(), fraction=0.5, strength=strengths, seed=1)
    sampler.refresh()
    for batch in DataLoader(data, batch_size=8, sampler=sampler):
        dropped = (batch.input == 0).float().mean(1)
        assert (dropped[batch.strength == 0] == 0).all()
        assert ((dropped - 0.8 * batch.strength).abs() < 0.45).all()
    planned = {
        (draw.strength, (draw.epoch, draw.index, draw.copy)) for draw in sampler if draw.strength
    }
    assert {(strength, tuple(keys)) for strength, keys in own.seen} == planned
    again = [data[draw].input for draw in (Draw(3, copy=1), Draw(3, copy=1), Draw(3, copy=2))]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
