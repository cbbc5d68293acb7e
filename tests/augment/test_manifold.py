"""Manifold Mixup: layers, hooks, compiled and distributed models, feedback and errors."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from augloader import (
    CoresetSampler,
    ManifoldMixup,
    Mixup,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
)
from tests.augment.mixed import (
    C,
    assert_as_on_the_cpu,
    assert_worded,
    blended,
    gammas,
    hooks,
    loss_of,
    net,
    portions,
    rows,
    same,
    seeds,
    soft_rows,
    targets,
    without_waiting,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen(nn.Module):
    """Returns its input and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.input = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.input = x
        return x


@given(st.integers(2, 9), gammas, portions, seeds)
def test_at_the_input_it_is_mixup_bit_for_bit(
    b: int, gamma: float, strength: float, seed: int
) -> None:
    batch, model = rows(b, strength=strength, seed=seed), Seen()
    with ManifoldMixup(model, [""], C, gamma, seed=seed)(batch) as mixed:
        model(batch.input)
    expected = Mixup(C, gamma, seed=seed)(batch)
    assert same(mixed._replace(input=model.input), expected)
    assert mixed.input is batch.input


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_at_a_hidden_layer_it_is_the_hand_computed_forward_and_backward(at: int) -> None:
    batch, model = rows(7, strength=[1, 1, 0, 0.5, 1, 0, 1]), net()
    batch = batch._replace(input=batch.input.requires_grad_())
    manifold = ManifoldMixup(model, [str(at)], C, seed=3)
    with manifold(batch) as mixed:
        logits = model(batch.input)
    leaves = (batch.input, *model.parameters())
    found = torch.autograd.grad(loss_of(logits, mixed), leaves)
    mixing = manifold.sample(batch)
    by_hand = model[at + 1 :](mixing.blend(model[: at + 1](batch.input)))
    assert logits.equal(by_hand)
    hidden = model[: at + 1](batch.input).detach()
    plainly = blended(mixing, hidden).float()
    torch.testing.assert_close(logits, model[at + 1 :](plainly))
    expected = torch.autograd.grad(loss_of(by_hand, mixed), leaves)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_layer_is_uniform_and_of_the_keys() -> None:
    model, layers = nn.Sequential(nn.Identity(), nn.Identity()), ["", "0", "1"]
    manifold = ManifoldMixup(model, layers, C)

    def drawn(index: int) -> int:
        batch = rows(2, (1,))._replace(index=torch.tensor([index, index + 1]))
        with manifold(batch):
            counts = [hooks(model) - hooks(model[0]) - hooks(model[1]), *map(hooks, model)]
            model(batch.input)
        assert sum(counts) == 1
        return counts.index(1)

    found = [drawn(index) for index in range(600)]
    assert stats.chisquare(np.bincount(found, minlength=3)).pvalue > 0.001
    assert found[:20] == [drawn(index) for index in range(20)]


def test_hooks_are_gone_after_the_block_also_when_it_raises() -> None:
    batch, model = rows(), net()
    for layer in ("", "1"):
        manifold = ManifoldMixup(model, [layer], C)
        with manifold(batch):
            assert hooks(model) == 1
            model(batch.input)
        assert hooks(model) == 0
        with pytest.raises(ZeroDivisionError), manifold(batch):
            raise ZeroDivisionError
        assert hooks(model) == 0
        with pytest.raises(RuntimeError, match="mat1 and mat2"), manifold(batch):
            model(torch.rand(8, 5))
        assert hooks(model) == 0


def test_where_nothing_is_mixed_there_is_no_hook() -> None:
    batch, model = rows(strength=0.0), net()
    with ManifoldMixup(model, ["1"], C)(batch) as mixed:
        assert hooks(model) == 0
        logits = model(batch.input)
    assert logits.equal(model(batch.input))
    assert not mixed.mixed.any()


def test_other_hooks_of_the_layer_are_kept() -> None:
    batch, model, seen = rows(), net(), []
    own = model[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with ManifoldMixup(model, ["1"], C)(batch):
        model(batch.input)
    assert hooks(model) == len(seen) == 1
    own.remove()


def test_the_last_layer_mixes_logits_and_blocks_can_nest() -> None:
    batch, model = rows(), net()
    outer, inner = (ManifoldMixup(model, [layer], C, seed=i) for i, layer in enumerate("13"))
    with outer(batch) as once, inner(once) as twice:
        logits = model(batch.input)
    first, second = outer.sample(batch), inner.sample(batch)
    assert logits.equal(second.blend(model[2:](first.blend(model[:2](batch.input)))))
    expected = targets(first, batch.weight, F.one_hot(batch.target, C))
    expected = targets(second, once.weight, expected)
    torch.testing.assert_close(twice.target.double(), expected, rtol=1e-5, atol=1e-5)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.idle, self.pair = nn.Linear(5, 5), nn.Linear(5, 5), Pair()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shared(self.shared(self.pair(x)[0]))
        return out


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("idle", RuntimeError, "layer 'idle' must be called in the block, got no call"),
        ("shared", RuntimeError, "layer 'shared' must be called once in the block, got a second"),
        ("pair", TypeError, "what layer 'pair' returns must be a floating tensor, got tuple"),
    ],
)
def test_layers_that_cannot_be_mixed(layer: str, error: type[Exception], words: str) -> None:
    batch, model = rows(4, (5,)), Twice()
    with pytest.raises(error, match=words) as raised, ManifoldMixup(model, [layer], C)(batch):
        model(batch.input)
    assert_worded(raised)
    assert hooks(model) == 0


def test_a_layer_with_other_rows_raises() -> None:
    batch = rows(4, (5,))
    model = nn.Sequential(nn.Unflatten(0, (2, 2)), nn.Flatten())
    with (
        pytest.raises(ValueError, match="4 rows, got shape"),
        ManifoldMixup(model, ["0"], C)(batch),
    ):
        model(batch.input)


def compiled(model: nn.Module) -> Any:
    torch.compiler.reset()
    return torch.compile(model, backend="eager")


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("layer", ["", "1", "3"])
def test_layers_of_compiled_models_are_named_as_without(layer: str) -> None:
    batch, model, plain = rows(), compiled(net()), net()
    manifold, expected = (ManifoldMixup(m, [layer], C) for m in (model, plain))
    with expected(batch) as wanted:
        logits = plain(batch.input)
    for _ in range(2):
        with manifold(batch) as mixed:
            found = model(batch.input)
        torch.testing.assert_close(found, logits)
        assert same(mixed, wanted)
    torch.testing.assert_close(model(batch.input), plain(batch.input))
    with pytest.raises(ValueError, match="layers must be modules of the model, got '_orig_mod"):
        ManifoldMixup(model, ["_orig_mod.1"], C)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_model_that_was_compiled_without_the_hook_is_not_left_unmixed() -> None:
    batch, model = rows(), compiled(net())
    model(batch.input)
    with pytest.raises(RuntimeError, match="layer '1' must be called in the block, got no call"):
        step(model, ["1"], batch)
    assert hooks(model) == 0


def part(batch: Sample, rank: int) -> Sample:
    """Every other row, on rank 0 or 1."""
    return Sample(*(v[rank::2] if isinstance(v, Tensor) else v for v in batch))


def step(model: nn.Module, layers: list[str] | None, batch: Sample) -> None:
    """Forward and backward with Mixup, or with Manifold Mixup at some layers."""
    if layers is None:
        mixed = Mixup(C, seed=1)(batch)
        loss_of(model(mixed.input), mixed).backward()
    else:
        with ManifoldMixup(model, layers, C, seed=1)(batch) as mixed:
            logits = model(batch.input)
        loss_of(logits, mixed).backward()


STEPS: list[list[str] | None] = [None, ["1"], ["", "0", "1", "2"]]
WRAPS: list[Callable[[nn.Module], Any]] = [
    DistributedDataParallel,
    lambda model: compiled(DistributedDataParallel(model)),
]


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=limit)
    found = []
    for layers in STEPS:
        for wrap in WRAPS:
            model = net()
            step(wrap(model), layers, part(rows(10), rank))
            found.append([parameter.grad for parameter in model.parameters()])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.slow
def test_distributed_data_parallel_averages_the_ranks(tmp_path: Path) -> None:
    spawn(run, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for i, layers in enumerate(STEPS):
        models = [net(), net()]
        for rank, model in enumerate(models):
            step(model, layers, part(rows(10), rank))
        for j, (a, b) in enumerate(zip(*(m.parameters() for m in models), strict=True)):
            assert a.grad is not None
            assert b.grad is not None
            for grads in (grads for found in ranks for grads in found[2 * i : 2 * i + 2]):
                torch.testing.assert_close(grads[j], (a.grad + b.grad) / 2)


def test_under_autocast() -> None:
    batch, model, mixup = rows(), net(), Mixup(C, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert same(mixup(batch), Mixup(C, seed=2)(batch))
        manifold = ManifoldMixup(model, ["1"], C, seed=2)
        with manifold(batch) as mixed:
            logits = model(batch.input)
        hidden = model[:2](batch.input)
        assert logits.equal(model[2:](manifold.sample(batch).blend(hidden)))
    assert hidden.dtype == logits.dtype == torch.bfloat16
    loss_of(logits.float(), mixed).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert same(mixup(batch)._replace(input=mixed.input), mixed)


def test_the_table_leaves_out_what_manifold_mixup_mixed() -> None:
    data = WeightedAugmentedDataset([(torch.rand(90), i % C) for i in range(20)])
    sampler = CoresetSampler(data, Uniform(), count=10, seed=0)
    sampler.refresh()
    model = net()
    manifold, mixed_rows = ManifoldMixup(model, ["", "1", "2"], C), 0
    for batch in DataLoader(data, batch_size=10, sampler=sampler):
        with manifold(batch) as mixed:
            logits = model(batch.input)
        assert mixed.mixed.equal(manifold.sample(batch).mixed)
        visits = sampler.table.visits.clone()
        losses = F.cross_entropy(logits, mixed.target, reduction="none")
        sampler.report(mixed, loss=losses, logits=logits)
        seen = (sampler.table.visits > visits).nonzero().flatten()
        assert seen.equal(batch.index[~mixed.mixed].unique())
        mixed_rows += int(mixed.mixed.sum())
    assert mixed_rows > 4
    assert (sampler.table.visits == 1).all()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("layer", ["", "1"])
def test_manifold_mixup_does_not_wait_for_the_gpu(layer: str) -> None:
    batch, model = soft_rows(), net().cuda()
    there, manifold = batch.to("cuda"), ManifoldMixup(model, [layer], C)
    with manifold(there):
        model(there.input)
    with without_waiting(), manifold(there) as mixed:
        logits = model(there.input)
    own = net()
    with ManifoldMixup(own, [layer], C)(batch) as here:
        expected = own(batch.input)
    assert_as_on_the_cpu(mixed, here)
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)


def entered(manager: AbstractContextManager[Sample]) -> None:
    with manager:
        pass


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "unknown layer": (
        lambda: ManifoldMixup(net(), ["1", "layer9"], C),
        ValueError,
        "layers must be modules of the model, got 'layer9'.*'0', '1'",
    ),
    "no layers": (lambda: ManifoldMixup(net(), [], C), ValueError, "layers must be at least one"),
    "a str": (lambda: ManifoldMixup(net(), "1", C), ValueError, "layers must be .* got '1'"),
    "no model": (lambda: ManifoldMixup(len, ["1"], C), TypeError, "model must be an nn.Module"),  # type: ignore[arg-type]
    "soft target nan": (
        lambda: entered(
            ManifoldMixup(net(), ["1"])(rows(2)._replace(target=torch.tensor([[0, torch.nan]] * 2)))
        ),
        ValueError,
        r"target must be in \[0, 1\], got 2 rows outside \(first indices 0, 1\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as raised:
        call()
    assert_worded(raised)


@pytest.mark.parametrize("layer", ["", "1"])
def test_a_single_row_stays_unmixed(layer: str) -> None:
    model, batch = net(), rows(1)
    with ManifoldMixup(model, [layer], C)(batch) as mixed:
        out = model(batch.input)
    assert not mixed.mixed.any()
    assert mixed.weight.equal(batch.weight)
    assert out.equal(model(batch.input))
