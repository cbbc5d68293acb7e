"""HardestOf: the candidates of a brute-force evaluation, weights, an untouched model, errors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import kornia.augmentation as K
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    HardestOf,
    Mixup,
    Sample,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.augment.pixels import kernels
from tests.pretend_cuda import pretend_cuda
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")

C = 4
WORDING = r"(?s)^\S.* must .+, got .+\. \S"  # <name> must be <rule>, got <value>. <what to do>
MIXED = [0.0, 1.0, 0.5, 0.0, 0.3, 1.0]
seeds = st.integers(0, 2**32 - 1)
portions = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)


def strong(seed: int = 0, **options: Any) -> AdaptiveStrengthTransform:
    return AdaptiveStrengthTransform("trivial", seed=seed, dtype=torch.float32, **options)


def rows(strength: list[float], *, seed: int = 0, epoch: int = 0) -> Sample:
    """A uint8 batch; strong rows are copies 1, 2 or 3, the others samples."""
    random, b = torch.Generator().manual_seed(seed), len(strength)
    given_ = torch.tensor(strength)
    copy = torch.randint(1, 4, (b,), generator=random) * (given_ > 0)
    return Sample(
        torch.randint(256, (b, 3, 8, 8), generator=random, dtype=torch.uint8),
        torch.randint(C, (b,), generator=random),
        torch.randperm(1000, generator=random)[:b],
        torch.rand(b, generator=random) * 3,
        given_,
        copy,
        torch.full((b,), epoch),
        {"name": [f"image {i}" for i in range(b)], "code": torch.rand(b, 4, generator=random)},
    )


class Net(nn.Module):
    """Batch norm, dropout and two linear layers; notes how many rows it is given."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(192, 16), nn.Linear(16, C)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.norm.running_mean = torch.randn(16)
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        out: Tensor = self.last(self.drop(self.norm(self.first(x.flatten(1))).relu()))
        return out


def never(*_: Tensor) -> Tensor:
    raise AssertionError("was called")


class Never(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return never(x)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def losses_of(model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """In eval mode, one row at a time; a model of its own is given."""
    model.eval()
    with torch.no_grad():
        rows_of = zip(images.split(1), target.split(1), strict=True)
        return torch.stack([F.cross_entropy(model(x), y) for x, y in rows_of])


class Exact(nn.Module):
    """Whole numbers below 2^24, which no order of summation and no batch changes."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = (x * 255).round().double().flatten(1)
        return pixels @ torch.arange(192 * C).remainder(7).view(192, C).double()


def picked(logits: Tensor, target: Tensor) -> Tensor:
    return logits.gather(1, target[:, None])[:, 0]


class Version(NamedTuple):
    row: int
    copy: int
    image: Tensor
    loss: float


def versions(
    batch: Sample, transform: AdaptiveStrengthTransform, many: int, keep: int
) -> list[Version]:
    """What HardestOf must return, made and scored one candidate at a time."""
    found = []
    for i, strength in enumerate(batch.strength.tolist()):
        epoch, index, copy = batch.keys[i].tolist()
        numbers = range(many if strength else 1)
        made = []
        for number in numbers:
            key = torch.tensor([epoch, index, copy * many + number])
            image = transform(batch.input[i], strength, keys=key)
            loss = picked(Exact()(image[None]), batch.target[i : i + 1])
            made.append(Version(i, int(key[2]) if strength else copy, image, float(loss)))
        hardest = sorted(made, key=lambda version: -version.loss)  # stable: ties to the first
        found += (hardest if keep < many else made)[:keep]
    return found


# Plain augmentation -----------------------------------------------------------------------------


@given(st.lists(portions, min_size=1, max_size=9), seeds)
def test_one_of_one_is_plain_augmentation(strength: list[float], seed: int) -> None:
    batch, transform = rows(strength, seed=seed, epoch=3), strong(seed)
    out = HardestOf(transform, candidates=1)(batch, Never())
    images = transform(batch.input, batch.strength, keys=batch.keys)
    assert same(out, batch._replace(input=images))


def test_one_of_one_is_plain_augmentation_with_normalisation() -> None:
    transform = AdaptiveStrengthTransform(
        "rand", seed=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), dtype=torch.float16
    )
    batch = rows(MIXED)
    out = HardestOf(transform, candidates=1)(batch, Never())
    images = transform(batch.input, batch.strength, keys=batch.keys)
    assert images.dtype == torch.float16
    assert same(out, batch._replace(input=images))


@pytest.mark.parametrize("strength", [[1.0] * 5, MIXED])
def test_one_of_one_is_plain_augmentation_by_kornia(strength: list[float]) -> None:
    batch = rows(strength)
    batch = batch._replace(input=batch.input / 255)
    mine, other = (AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0)) for _ in range(2))
    out = HardestOf(mine, candidates=1)(batch, Never())
    assert same(out, batch._replace(input=other(batch.input, batch.strength)))


def test_the_given_batch_is_not_modified() -> None:
    batch, before = rows(MIXED), rows(MIXED)
    HardestOf(strong(), candidates=4, keep=2)(batch, Net())
    assert same(batch, before)


# Brute force ------------------------------------------------------------------------------------


@given(st.lists(portions, min_size=1, max_size=8), st.integers(1, 6), st.data(), seeds)
def test_the_chosen_are_those_of_a_brute_force_evaluation(
    strength: list[float], many: int, data: st.DataObject, seed: int
) -> None:
    keep = data.draw(st.integers(1, many))
    batch, transform = rows(strength, seed=seed, epoch=2), strong(seed)
    out = HardestOf(transform, candidates=many, keep=keep, loss=picked)(batch, Exact())
    expected = versions(batch, transform, many, keep)
    at = torch.tensor([version.row for version in expected])
    assert len(at) == len(strength) + (keep - 1) * sum(s > 0 for s in strength)
    for name in ("target", "index", "strength", "epoch"):
        assert getattr(out, name).equal(getattr(batch, name)[at])
    assert out.extra["name"] == [f"image {i}" for i in at.tolist()]
    assert out.extra["code"].equal(batch.extra["code"][at])
    assert out.input.equal(torch.stack([version.image for version in expected]))
    copies = torch.tensor([version.copy for version in expected])
    strong_rows = out.strength > 0
    assert out.copy[strong_rows].equal(copies[strong_rows])


def test_the_chosen_have_the_highest_cross_entropy_in_eval_mode() -> None:
    batch, transform = rows([1.0] * 12), strong(2)
    everything = HardestOf(transform, candidates=8, keep=8)(batch, Never())
    losses = losses_of(Net(), everything.input, everything.target).view(12, 8)
    losses, order = losses.sort(descending=True)
    out = HardestOf(transform, candidates=8, keep=3)(batch, Net().train())
    found = losses_of(Net(), out.input, out.target).view(12, 3)
    torch.testing.assert_close(found, losses[:, :3])
    clear = (losses[:, :3] - losses[:, 1:4] > 1e-4).all(1)  # rounding may swap the others
    assert clear.any()
    copies = everything.copy.view(12, 8).gather(1, order)[:, :3]
    assert out.copy.view(12, 3)[clear].equal(copies[clear])


def test_keys_name_the_pixels() -> None:
    batch, transform = rows(MIXED, epoch=5), strong(1)
    out = HardestOf(transform, candidates=5, keep=2)(batch, Net())
    at = torch.tensor([(batch.index == index).nonzero().item() for index in out.index])
    again = transform(batch.input[at], out.strength, keys=out.keys)
    assert again.equal(out.input)


def test_ties_go_to_the_first_candidates() -> None:
    def flat(logits: Tensor, target: Tensor) -> Tensor:
        return torch.zeros(len(target))

    batch = rows([1.0, 0.0, 0.5])._replace(copy=torch.tensor([1, 0, 2]))
    out = HardestOf(strong(), candidates=40, keep=3, loss=flat)(batch, Net())
    assert out.copy.tolist() == [40, 41, 42, 0, 80, 81, 82]


def test_no_two_rows_are_the_same_draw() -> None:
    """A copy that the sampler's probability left plain lies beside strong ones."""
    batch = rows([1.0, 0.0, 0.0])
    batch = batch._replace(index=torch.tensor([5, 5, 5]), copy=torch.tensor([1, 2, 0]))
    out = HardestOf(strong(), candidates=2, keep=2)(batch, Never())
    assert len(out.keys.unique(dim=0)) == len(out.keys) == 4
    sampler = CoresetSampler(range(10), Uniform(), count=5, copies=2)
    sampler.report(out, loss=torch.rand(4))
    assert sampler.table.visits[5] == 1


def test_seed_and_keys_decide_alone() -> None:
    batch = rows(MIXED)
    out = HardestOf(strong(), candidates=4)(batch, Net())
    again = HardestOf(strong(), candidates=4)(batch, Net())
    assert same(out, again)
    later = batch._replace(epoch=batch.epoch + 1)
    assert not out.input.equal(HardestOf(strong(), candidates=4)(later, Net()).input)
    back = torch.arange(len(MIXED)).flip(0)
    parts = {name: getattr(batch, name)[back] for name in ("input", "target", "index", "weight")}
    parts |= {name: getattr(batch, name)[back] for name in ("strength", "copy", "epoch")}
    turned = HardestOf(strong(), candidates=4)(batch._replace(**parts), Net())
    assert turned.input[back].equal(out.input)
    assert turned.copy[back].equal(out.copy)


def test_the_hardest_are_harder_than_plain_augmentation() -> None:
    batch = rows([1.0] * 30)
    mean = [
        float(losses_of(Net(), out.input, out.target).mean())
        for out in (HardestOf(strong(), candidates=k)(batch, Net()) for k in (1, 4, 16))
    ]
    assert mean[0] < mean[1] < mean[2]


# Weights ----------------------------------------------------------------------------------------


@given(st.lists(portions, min_size=1, max_size=9), st.integers(1, 5), seeds)
def test_weights_make_the_mean_over_draws_of_the_mean_over_versions(
    strength: list[float], keep: int, seed: int
) -> None:
    batch = rows(strength, seed=seed)
    out = HardestOf(strong(), candidates=keep, keep=keep)(batch, Never())
    losses = torch.rand(len(out.weight), generator=torch.Generator().manual_seed(seed)).double()
    mine = (losses * out.weight).mean()
    draws = [
        float(w) * losses[out.index == index].mean()
        for index, w in zip(batch.index, batch.weight, strict=True)
    ]
    torch.testing.assert_close(mine, torch.stack(draws).mean(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(out.weight.mean(), batch.weight.mean())
    assert out.weight.dtype == batch.weight.dtype


def test_keeping_all_scores_nothing() -> None:
    batch = rows(MIXED)
    hardest = HardestOf(strong(), candidates=3, keep=3, loss=never)
    assert len(hardest(batch, Never()).index) == 2 + 3 * 4


def test_without_strong_rows_the_model_is_not_called() -> None:
    batch = rows([0.0] * 4)
    out = HardestOf(strong(), candidates=5, keep=2, loss=never)(batch, Never())
    assert same(out, batch._replace(input=strong()(batch.input, 0.0)))


# The model --------------------------------------------------------------------------------------


def state_of(model: Net) -> tuple[Any, ...]:
    """Modes, what requires gradients, parameters and buffers, gradients."""
    grads = (None if p.grad is None else p.grad.clone() for p in model.parameters())
    return (
        tuple(module.training for module in model.modules()),
        tuple(parameter.requires_grad for parameter in model.parameters()),
        {name: value.clone() for name, value in model.state_dict().items()},
        tuple(grads),
    )


def broken(*_: Any) -> Tensor:
    raise ZeroDivisionError


@pytest.mark.parametrize("fails", ["nothing", "the loss", "the model", "the check"])
@pytest.mark.parametrize("mode", ["train", "eval", "both"])
def test_the_model_is_left_as_it_was(mode: str, fails: str) -> None:
    model, batch = Net().train(mode != "eval"), rows(MIXED)
    if mode == "both":
        model.norm.eval()
    model.first.bias.requires_grad_(False)
    model.last.weight.grad = torch.rand(C, 16)
    before, random = state_of(model), random_state()
    if fails == "nothing":
        HardestOf(strong(), candidates=3)(batch, model)
    elif fails == "the check":
        with pytest.raises(ValueError, match="one value a row"):
            HardestOf(strong(), candidates=3, loss=F.cross_entropy)(batch, model)
    else:
        hook = model.last.register_forward_hook(broken) if fails == "the model" else None
        loss = F.cross_entropy if hook else broken
        with pytest.raises(ZeroDivisionError):
            HardestOf(strong(), candidates=3, loss=loss)(batch, model)
        if hook is not None:
            hook.remove()
    assert same(state_of(model), before)
    assert random_state() == random
    assert torch.is_grad_enabled()


def test_the_result_has_no_graph() -> None:
    out = HardestOf(strong(), candidates=3)(rows(MIXED), Net())
    assert not out.input.requires_grad
    assert not out.weight.requires_grad


def gradients(model: Net, batch: Sample) -> list[Tensor]:
    model.drop.eval()
    losses = F.cross_entropy(model(batch.input).float(), batch.target, reduction="none")
    return list(torch.autograd.grad((losses * batch.weight).mean(), list(model.parameters())))


def test_training_goes_on_in_the_same_autocast_block() -> None:
    batch, model = rows(MIXED), Net()
    with torch.autocast("cpu", torch.bfloat16):
        out = HardestOf(strong(), candidates=3)(batch, model)
        found = gradients(model, out)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(Net(), out)
    for mine, other in zip(found, expected, strict=True):
        assert mine.any()
        assert mine.equal(other)


def test_scores_under_autocast_are_the_models() -> None:
    seen: list[torch.dtype] = []

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits.float(), target, reduction="none")

    with torch.autocast("cpu", torch.bfloat16):
        HardestOf(strong(), candidates=3, loss=loss)(rows(MIXED), Net())
    assert set(seen) == {torch.bfloat16}


@pytest.mark.usefixtures("bfloat16_cpu")
def test_the_precision_of_the_models_passes() -> None:
    seen: list[torch.dtype] = []

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(logits.dtype)
        return F.cross_entropy(logits.float(), target, reduction="none")

    batch = rows(MIXED)
    for autocast, wanted in ((True, torch.bfloat16), (torch.float16, torch.float16)):
        HardestOf(strong(), candidates=3, loss=loss, autocast=autocast)(batch, Net())
        assert seen.pop() == wanted
    with torch.autocast("cpu", torch.bfloat16):
        HardestOf(strong(), candidates=3, loss=loss, autocast=False)(batch, Net())
    assert seen.pop() == torch.float32
    with pytest.raises(ValueError, match="autocast must be None, True, False"):
        HardestOf(strong(), candidates=3, autocast="bf16")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["uint8", "float", "probabilities", "all kept"])
def test_a_gpu_is_waited_for_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda: False)
    batch = rows(MIXED)
    if kind == "float":
        batch = batch._replace(input=batch.input / 255)
    if kind == "probabilities":
        batch = batch._replace(target=torch.eye(C)[batch.target])
    hardest = HardestOf(strong(), candidates=3, keep=3 if kind == "all kept" else 2)
    expected = hardest(batch, Net())
    with pretend_cuda() as gpu:
        there, model = batch.to("cuda"), Net().to("cuda")
        hardest(there, model)
        gpu.clear()
        out = hardest(there, model)
        assert gpu.waits.total() <= (kind != "all kept"), gpu.report()
        assert torch.equal(out.index, expected.index)
        torch.testing.assert_close(out.weight.cpu(), expected.weight)


def test_what_is_wrong_on_a_gpu_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "usable", lambda: False)
    batch, hardest = rows(MIXED), HardestOf(strong(), candidates=2)
    with pretend_cuda():
        there, model = batch.to("cuda"), Net().to("cuda")
        several = torch.ones(len(MIXED), C).to("cuda")
        with pytest.raises(ValueError, match="rows that sum to 1"):
            hardest(there._replace(target=several), model)
        with pytest.raises(ValueError, match=r"images must be in \[0, 1\]"):
            hardest(there._replace(input=there.input.float()), model)
        broken = Net().to("cuda")
        with torch.no_grad():
            next(broken.parameters()).fill_(torch.nan)
        with pytest.raises(ValueError, match="losses of candidates must be finite"):
            hardest(there, broken)


@pytest.mark.parametrize("strength", [[1.0], MIXED, [1.0] * 7])
@pytest.mark.parametrize("many", [2, 7])
def test_no_forward_pass_has_more_rows_than_the_batch(strength: list[float], many: int) -> None:
    model = Net()
    HardestOf(strong(), candidates=many)(rows(strength), model)
    assert max(model.calls) <= len(strength)
    assert sum(model.calls) == many * sum(s > 0 for s in strength)


# Losses and targets -----------------------------------------------------------------------------


def test_a_loss_of_ones_own() -> None:
    def easiest(logits: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(logits, target, reduction="none")

    batch, transform = rows([1.0, 0.5]), strong()
    out = HardestOf(transform, candidates=5, loss=easiest)(batch, Net())
    everything = HardestOf(transform, candidates=5, keep=5)(batch, Never())
    losses = losses_of(Net(), everything.input, everything.target).view(2, 5)
    best = everything.copy.view(2, 5).gather(1, losses.argmin(1, keepdim=True))
    assert out.copy.equal(best.flatten())


def test_soft_targets() -> None:
    batch = rows(MIXED)
    soft = batch._replace(target=F.one_hot(batch.target, C).float())
    out, plain = (HardestOf(strong(), candidates=4, keep=2)(b, Net()) for b in (soft, batch))
    assert same(out, plain._replace(target=F.one_hot(plain.target, C).float()))
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool):
        other = soft._replace(target=soft.target.to(dtype))
        assert same(HardestOf(strong(), candidates=4, keep=2)(other, Net()).index, plain.index)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_several_labels_a_row_need_a_loss_of_their_own(dtype: torch.dtype) -> None:
    labels = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]] * 2)
    batch = rows(MIXED)._replace(target=labels.to(dtype))
    with pytest.raises(ValueError, match=r"rows that sum to 1, .* got \d other rows .* pass loss="):
        HardestOf(strong(), candidates=4)(batch, Net())

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").mean(1)

    out = HardestOf(strong(), candidates=4, loss=loss)(batch, Net())
    assert same(out.target, batch.target)


def test_memory_format_is_kept() -> None:
    batch, last = rows(MIXED), torch.channels_last
    there = batch._replace(input=batch.input.contiguous(memory_format=last))
    out, plain = (HardestOf(strong(), candidates=3, keep=2)(b, Net()) for b in (there, batch))
    assert out.input.is_contiguous(memory_format=last)
    assert same(out, plain)


def test_what_lies_on_images_may_be_kept_by_name_or_where_nothing_moves() -> None:
    batch = rows(MIXED)
    batch = batch._replace(extra={"depth": torch.rand(6, 8, 8)})
    with pytest.raises(
        ValueError, match=r"^extra.depth must not lie on .* Candidates have no masks"
    ):
        HardestOf(strong(), candidates=2)(batch, Net())
    for transform in (
        strong(untouched=("depth",)),
        AdaptiveStrengthTransform("cutout", dtype=torch.float32),
    ):
        out = HardestOf(transform, candidates=2)(batch, Net())
        assert same(out.extra["depth"], batch.extra["depth"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_of_other_dtypes(dtype: torch.dtype) -> None:
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return torch.arange(len(target)).to(dtype)

    batch = rows([1.0, 1.0, 1.0])._replace(copy=torch.zeros(3).long())
    out = HardestOf(strong(), candidates=3, loss=loss)(batch, Net())
    assert out.copy.tolist() == [2, 2, 2]


# With the rest ----------------------------------------------------------------------------------


@contextmanager
def epoch(copies: int, **options: Any) -> Iterator[tuple[CoresetSampler, list[Sample]]]:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 3, 8, 8), generator=random, dtype=torch.uint8)
    data = WeightedAugmentedDataset([(image, i % C, f"{i}") for i, image in enumerate(images)])
    sampler = CoresetSampler(data, Uniform(), count=6, copies=copies, seed=0, **options)
    sampler.refresh()
    yield sampler, list(DataLoader(data, batch_size=18, sampler=sampler))


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_reports_of_several_rows_a_sample(copies: int) -> None:
    with epoch(copies, strength=StableInfluence(view="clean")) as (sampler, batches):
        for batch in batches:
            out = HardestOf(strong(), candidates=4, keep=2)(batch, Net())
            logits = Net()(out.input)
            losses = F.cross_entropy(logits, out.target, reduction="none")
            sampler.report(out, loss=losses, logits=logits)
            assert out.extra[0] == tuple(str(int(index)) for index in out.index)
        assert (sampler.table.visits > 0).all()


def test_copies_in_place_have_one_version_a_sample() -> None:
    with epoch(0) as (_, (batch,)):
        out = HardestOf(strong(), candidates=4)(batch, Net())
        assert out.index.equal(batch.index)
        assert (out.copy < 4).all()
        assert (out.copy[out.strength == 0] == 0).all()
        everyone = strong()(batch.input, batch.strength, keys=out.keys)
        assert out.input.equal(everyone)


def test_the_hardest_are_mixed_and_clean_rows_reported() -> None:
    with epoch(1) as (sampler, (batch,)):
        out = HardestOf(strong(), candidates=4, keep=2)(batch, Net())
        mixed = Mixup(C)(out)
        assert mixed.mixed.equal(out.strength > 0)
        torch.testing.assert_close(mixed.weight.sum(), out.weight.sum())
        clean = mixed.input[out.strength == 0]
        assert clean.equal(strong()(batch.input[batch.strength == 0], 0.0))
        logits = Net().eval()(mixed.input)
        sampler.report(mixed, logits=logits)
        known = sampler.table.evidence(frozenset({"losses", "labels"}))
        expected = torch.empty(12)
        index = batch.index[batch.strength == 0]
        expected[index] = losses_of(Net(), clean, batch.target[batch.strength == 0])
        assert known.losses is not None
        torch.testing.assert_close(known.losses, expected)


def test_kornia_operations() -> None:
    batch, model = rows(MIXED), Net()
    batch = batch._replace(input=batch.input / 255)
    transform = AdaptiveStrengthTransform(K.RandomAffine(30.0, p=1.0), K.RandomGamma(p=1.0))
    before = random_state()
    out = HardestOf(transform, candidates=4, keep=2)(batch, model)
    assert random_state() == before
    assert out.index.equal(batch.index.repeat_interleave(torch.tensor([1, 2, 2, 1, 2, 2])))
    plain = out.strength == 0
    assert out.input[plain].equal(batch.input[batch.strength == 0])
    losses = losses_of(Net(), out.input[~plain], out.target[~plain]).view(-1, 2)
    assert (losses[:, 0] >= losses[:, 1]).all()


@pytest.mark.parametrize("kind", ["dict", "tuple", "list", "nested"])
def test_extra_fields_follow_their_rows(kind: str) -> None:
    names, codes = ["a", "b", "c"], torch.arange(6).view(3, 2)
    extra: Any = {
        "dict": {"name": names, "code": codes},
        "tuple": (tuple(names), codes),
        "list": [names, codes],
        "nested": {"meta": {"code": codes}, "both": (codes, names)},
    }[kind]
    expected_names, expected = ["a", "a", "b", "c", "c"], codes[[0, 0, 1, 2, 2]]
    wanted: Any = {
        "dict": {"name": expected_names, "code": expected},
        "tuple": (tuple(expected_names), expected),
        "list": [expected_names, expected],
        "nested": {"meta": {"code": expected}, "both": (expected, expected_names)},
    }[kind]
    batch = rows([1.0, 0.0, 1.0])._replace(extra=extra)
    out = HardestOf(strong(), candidates=2, keep=2)(batch, Never())
    assert type(out.extra) is type(extra)
    found = out.extra
    assert same(tuple(found), tuple(wanted)) if kind == "list" else same(found, wanted)


# Ranks ------------------------------------------------------------------------------------------


def compiled(model: nn.Module) -> Any:
    torch.compiler.reset()
    return torch.compile(model, backend="eager")


WRAPS: dict[str, Callable[[nn.Module], Any]] = {
    "ddp": DistributedDataParallel,
    "compiled ddp": lambda model: compiled(DistributedDataParallel(model)),
    "ddp of compiled": lambda model: DistributedDataParallel(compiled(model)),
}


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(rank: int, folder: str, wrap: str) -> None:
    """One rank has no strong rows, and the other must not wait for it, nor talk to it."""
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=limit)
    group: Any = dist.group.WORLD
    found = []
    for busy in range(2):
        inner = Net()
        model = WRAPS[wrap](inner)
        model.train() if rank == busy else model.eval()
        batch = rows(MIXED if rank == busy else [0.0] * 6, seed=rank)
        done = Path(folder, f"done {busy}")
        if rank != busy:
            wait_for(done)
        before = group._get_sequence_number_for_group()
        out = HardestOf(strong(), candidates=3, keep=2)(batch, model)
        spoken = group._get_sequence_number_for_group() - before
        done.touch()
        modes, calls = {module.training for module in inner.modules()}, list(inner.calls)
        model.train()
        F.cross_entropy(model(out.input), out.target).backward()
        found.append((tuple(out), modes, calls, spoken, inner.first.weight.grad))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("wrap", WRAPS)
def test_a_rank_without_strong_rows_does_not_hang(tmp_path: Path, wrap: str) -> None:
    context = spawn(run, args=(str(tmp_path), wrap), nprocs=2, join=False)
    assert context is not None
    end = time.monotonic() + 60
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < end, "hangs"
    finally:
        for process in context.processes:
            process.kill()
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for busy in range(2):
        for rank in range(2):
            out, modes, calls, spoken, _ = ranks[rank][busy]
            batch = rows(MIXED if rank == busy else [0.0] * 6, seed=rank)
            assert same(Sample(*out), HardestOf(strong(), candidates=3, keep=2)(batch, Net()))
            assert modes == {rank == busy}
            assert calls == ([6, 6] if rank == busy else [])
            assert spoken == 0
        assert ranks[0][busy][4].equal(ranks[1][busy][4])  # training has gone on in step


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("warm", [False, True])
def test_a_compiled_model_scores_as_without(warm: bool) -> None:
    inner, batch = Net(), rows(MIXED)
    model = compiled(inner)
    if warm:
        model(torch.rand(6, 3, 8, 8))
    expected_model = Net()
    expected_model.load_state_dict(inner.state_dict())
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    out = HardestOf(strong(), candidates=4, keep=2)(batch, model)
    assert same(out, HardestOf(strong(), candidates=4, keep=2)(batch, expected_model))
    assert same(dict(inner.state_dict()), before)
    assert all(module.training for module in model.modules())


# What it raises ---------------------------------------------------------------------------------


def hardest(**options: Any) -> HardestOf:
    return HardestOf(strong(), **{"candidates": 3, **options})


def nan(logits: Tensor, target: Tensor) -> Tensor:
    return torch.full((len(target),), torch.nan)


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "keep above": (
        lambda: hardest(keep=4),
        ValueError,
        "keep must be at most the 3 candidates, got 4",
    ),
    "keep 0": (lambda: hardest(keep=0), ValueError, "keep must be at least 1, got 0"),
    "keep float": (lambda: hardest(keep=1.0), TypeError, "keep must be an integer, got 1.0"),
    "keep bool": (lambda: hardest(keep=True), TypeError, "keep must be an integer, got True"),
    "no candidates": (lambda: hardest(candidates=0), ValueError, "candidates must be at least 1"),
    "candidates str": (
        lambda: hardest(candidates="3"),
        TypeError,
        "candidates must be an integer, got '3'",
    ),
    "transform": (
        lambda: HardestOf(nn.Identity(), candidates=2),  # type: ignore[arg-type]
        TypeError,
        "transform must be an AdaptiveStrengthTransform, got Identity",
    ),
    "nan": (
        lambda: hardest(loss=nan)(rows(MIXED), Net()),
        ValueError,
        "losses of candidates must be finite, got 12 non-finite rows",
    ),
    "masks": (
        lambda: hardest()(rows(MIXED)._replace(target=torch.zeros(len(MIXED), 8, 8).long()), Net()),
        ValueError,
        r"target must be \(b,\) or \(b, C\), got shape .*without their masks",
    ),
    "mean": (
        lambda: hardest(loss=F.cross_entropy)(rows(MIXED), Net()),
        ValueError,
        r"loss must return one value a row, \(6,\), got shape \(\).*reduction=\"none\"",
    ),
    "a loss a class": (
        lambda: hardest(loss=lambda x, y: x)(rows(MIXED), Net()),
        ValueError,
        r"loss must return one value a row, \(6,\), got shape \(6, 4\)",
    ),
    "a number": (
        lambda: hardest(loss=lambda x, y: 1.0)(rows(MIXED), Net()),
        TypeError,
        "loss must return",
    ),
    "a tuple": (
        lambda: hardest()(tuple(rows(MIXED)), Net()),  # type: ignore[arg-type]
        TypeError,
        "batch must be the Sample batch of the loader, got tuple",
    ),
    "no batch": (
        lambda: hardest()(Sample(torch.rand(3, 8, 8), 1, 2, 1.0, 1.0), Net()),
        TypeError,
        "target must be a tensor, got int",
    ),
    "model": (
        lambda: hardest()(rows(MIXED), lambda x: x),  # type: ignore[arg-type]
        TypeError,
        "model must be an nn.Module, got function",
    ),
    "a module's class": (
        lambda: hardest()(rows([0.0] * 3), Net),  # type: ignore[arg-type]
        TypeError,
        "model must be an nn.Module, got type",
    ),
    "labels": (
        lambda: hardest()(rows(MIXED)._replace(target=[0] * 6), Net()),
        TypeError,
        "target must be a tensor, got list",
    ),
    "strength": (
        lambda: hardest()(rows([0.5, 1.5]), Net()),
        ValueError,
        r"strength must be in \[0, 1\]",
    ),
    "strengths": (
        lambda: hardest()(rows(MIXED)._replace(strength=torch.ones(5)), Net()),
        ValueError,
        "strength must",
    ),
    "images": (
        lambda: hardest()(rows(MIXED)._replace(input=torch.rand(6, 3, 8, 8) * 2), Net()),
        ValueError,
        r"images must be in \[0, 1\]",
    ),
    "no images": (
        lambda: hardest()(rows(MIXED)._replace(input=None), Net()),
        TypeError,
        "input must be a tensor, got NoneType",
    ),
    "int images": (
        lambda: hardest()(rows(MIXED)._replace(input=torch.zeros(6, 3, 8, 8).long()), Net()),
        TypeError,
        "images must be a uint8 or floating tensor",
    ),
}


@pytest.mark.parametrize("strength", [MIXED, [0.0] * 6])
@pytest.mark.parametrize("name", ["input", "target", "weight", "strength"])
def test_fields_of_other_rows_or_types_are_named(name: str, strength: list[float]) -> None:
    batch = rows(strength)
    value = getattr(batch, name)
    longer = torch.cat([value, value[:1]])
    wrong: list[Any] = [value[:5], longer, value[0], value.tolist(), None, value.numpy(), 1.0]
    if name in ("weight", "strength"):
        wrong.append(value[:, None])
    for bad in wrong:
        tensor = isinstance(bad, Tensor)
        words = "have 6 rows, as the batch" if tensor else f"be a tensor, got {type(bad).__name__}"
        error = ValueError if tensor else TypeError
        with pytest.raises(error, match=f"^{name} must {words}") as raised:
            hardest()(batch._replace(**{name: bad}), Net())
        assert raised.match(WORDING)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as raised:
        call()
    assert raised.match(WORDING)


def test_the_default_is_one_kept() -> None:
    assert HardestOf(strong(), candidates=3).keep == 1
