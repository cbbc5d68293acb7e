"""Gradients of chosen layers against backward passes of single samples."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from augloader import (
    CoresetSampler,
    FacilityLocation,
    LastLayerGradient,
    LayerGradient,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.loading import layer_gradients
from augloader.loading.layer_gradients import LayerGradients
from tests.reference import random_state


class Network(nn.Module):
    """A convolution in groups, a batch norm, dropout, and two linear layers that share a weight."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
            self.norm = nn.BatchNorm2d(4)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.Tanh(), nn.Dropout(0.5))
            self.twin, self.again, self.head = nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 3)
            self.again.weight = self.twin.weight
            nn.init.normal_(self.norm.weight)
            self.norm.running_mean = torch.randn(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.norm(self.conv(x)))
        out: Tensor = self.head(self.again(self.twin(x).relu()))
        return out


def data(n: int = 30, seed: int = 0) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=random)
    return TensorDataset(torch.randn(n, 2, 6, 6, generator=random), labels)


def by_autograd(model: nn.Module, given: TensorDataset, chosen: list[Tensor]) -> Tensor:
    """One backward pass a sample, in eval mode."""
    model.eval()
    rows = []
    for x, y in zip(*given.tensors, strict=True):
        loss = F.cross_entropy(model(x[None]), y[None])
        found = torch.autograd.grad(loss, chosen)
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows)


def parameters_in(model: nn.Module, layers: tuple[str, ...]) -> list[Tensor]:
    known = dict(model.named_parameters())
    return [known[k] for of in layers for k in known if k == of or k.startswith(f"{of}.")]


@pytest.mark.parametrize(
    "layers", [("conv",), ("head", "conv"), ("norm", "body"), ("body.1.weight", "head.bias")]
)
def test_gradients_are_those_of_single_backward_passes(layers: tuple[str, ...]) -> None:
    model, given = Network(), data()
    proxies = sweep(model, given, LayerGradient(layers), batch_size=8).proxies
    assert proxies is not None
    assert proxies.features is None
    expected = by_autograd(model, given, parameters_in(model, layers))
    torch.testing.assert_close(proxies.gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_parameter_of_two_names_counts_once() -> None:
    model, given = Network(), data()
    for layers in (("twin", "again"), ("again", "twin")):
        proxies = sweep(model, given, LayerGradient(layers)).proxies
        assert proxies is not None
        names = [f"{layers[0]}.weight", f"{layers[0]}.bias", f"{layers[1]}.bias"]
        every = {**dict(model.named_parameters()), "again.weight": model.twin.weight}
        expected = by_autograd(model, given, [every[name] for name in names])
        torch.testing.assert_close(proxies.gradient, expected, rtol=1e-4, atol=1e-6)


def test_of_the_head_it_is_the_last_layers_gradient() -> None:
    model, given = Network(), data()
    mine = sweep(model, given, LayerGradient(["head"])).proxies
    usual = sweep(model, given, LastLayerGradient()).proxies
    assert mine is not None
    assert usual is not None
    assert mine.widths == (24,)
    torch.testing.assert_close(mine.distances(), usual.distances(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("project", [None, 5])
def test_batches_and_blocks_change_nothing(
    project: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given, proxy = Network(), data(), LayerGradient(["conv", "body"], project)
    whole = sweep(model, given, proxy, batch_size=30).proxies
    monkeypatch.setattr(layer_gradients, "_ENTRIES", 1000)
    parts = sweep(model, given, proxy, batch_size=7).proxies
    assert whole is not None
    assert parts is not None
    torch.testing.assert_close(parts.gradient, whole.gradient, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_a_projection_of_all_numbers_keeps_every_distance(more: int, seed: int) -> None:
    model, given, layers = Network(), data(6), ("head",)
    plain = sweep(model, given, LayerGradient(layers)).proxies
    wide = sweep(model, given, LayerGradient(layers, 23 + more, seed)).proxies
    assert plain is not None
    assert wide is not None
    assert wide.widths == (23 + more,)
    torch.testing.assert_close(wide.distances(), plain.distances(), rtol=1e-4, atol=1e-5)


def test_a_projection_keeps_inner_products_in_the_mean() -> None:
    model, (x, y) = Network().eval(), data(4).tensors
    plain = LayerGradients(model, LayerGradient(["conv", "norm", "body"]))(x, y).double()
    inner = plain @ plain.T
    found = []
    for seed in range(400):
        some = LayerGradients(model, LayerGradient(["conv", "norm", "body"], 16, seed))(
            x, y
        ).double()
        assert some.shape == (4, 16)
        found.append(some @ some.T)
    every = torch.stack(found)
    size = inner.diagonal().sqrt()
    scale = size[:, None] * size
    assert ((every.mean(0) - inner).abs() < 4.5 * (2 / 16 / 400) ** 0.5 * scale).all()
    assert (every.std(0) < 1.2 * (2 / 16) ** 0.5 * scale).all()


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    model, given = Network().train(), data()
    state, weights = random_state(), [p.clone() for p in model.parameters()]

    def swept(seed: int) -> Tensor:
        proxies = sweep(model, given, LayerGradient(["conv", "head"], 8, seed)).proxies
        assert proxies is not None
        return proxies.gradient

    assert torch.equal(swept(1), swept(1))
    assert not torch.equal(swept(1), swept(2))
    assert not swept(0).requires_grad
    assert random_state() == state
    assert model.training
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert model.again.weight is model.twin.weight


def test_a_coreset_by_deeper_gradients() -> None:
    wrapped = WeightedAugmentedDataset(data())
    sampler = CoresetSampler(wrapped, FacilityLocation(), fraction=0.3, seed=0)
    chosen = sampler.refresh(sweep(Network(), wrapped, LayerGradient(("conv", "body"), project=32)))
    assert chosen is not None
    assert chosen.weights.sum() == 30


class Awkward(nn.Module):
    """What vmap refuses: a memory format, a value that is asked for, a buffer that is counted."""

    calls: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if not bool(x.isfinite().all()):
            raise ValueError("no")
        out: Tensor = self.inner(x.contiguous(memory_format=torch.channels_last))
        return out


@pytest.mark.parametrize("project", [None, 7])
def test_models_that_vmap_refuses(project: int | None) -> None:
    model, given = Network(), data(10)
    expected = sweep(model, given, LayerGradient(["conv", "head"], project)).proxies
    other = Awkward(model)
    found = sweep(other, given, LayerGradient(["inner.conv", "inner.head"], project)).proxies
    parallel = sweep(nn.DataParallel(model), given, LayerGradient(["conv", "head"], project))
    assert expected is not None
    assert found is not None
    assert parallel.proxies is not None
    torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parallel.proxies.gradient, expected.gradient, rtol=1e-4, atol=1e-6)
    assert other.calls == 1  # of the sweep's own pass: the copy counts by itself
    assert all(p.grad is None for p in model.parameters())


def test_autocast_of_batch_norm_on_the_cpu() -> None:
    model, given = Network(), data(10)
    exact = sweep(model, given, LayerGradient(["head"])).proxies
    rough = sweep(model, given, LayerGradient(["head"]), autocast=torch.bfloat16).proxies
    assert exact is not None
    assert rough is not None
    torch.testing.assert_close(rough.gradient, exact.gradient, rtol=0.1, atol=0.05)


def test_statistics_of_a_batch_are_refused() -> None:
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(ValueError, match="must return the same outputs for a sample whatever its"):
        sweep(model, data(), LayerGradient(["2"]))


def test_what_is_no_layer() -> None:
    with pytest.raises(ValueError, match=r"layers must name modules .*, got 'fc'\. .* head\."):
        sweep(Network(), data(), LayerGradient(["fc"]))
    with pytest.raises(ValueError, match=r"got 'body\.0'"):  # which has no parameters
        sweep(Network(), data(), LayerGradient(["body.0"]))
    with pytest.raises(ValueError, match="forward must be None beside LayerGradient"):
        sweep(Network(), data(), LayerGradient(["conv"]), forward=lambda m, b: (m(b[0]), b[1]))


BAD: list[tuple[Any, type[Exception], str]] = [
    (("fc",), TypeError, "layers must be a sequence of names, got 'fc'"),
    (([],), ValueError, "layers must be one name or more"),
    (([""],), ValueError, "layers must be one name or more"),
    ((["fc", "fc"],), ValueError, "layers must be apart from each other"),
    ((["a.b", "a"],), ValueError, "layers must be apart from each other"),
    ((["fc"], 0), ValueError, "project must be at least 1, got 0"),
    ((["fc"], 2.5), TypeError, "project must be an integer"),
    ((["fc"], 8, -1), ValueError, "seed must be"),
]


@pytest.mark.parametrize(("options", "error", "words"), BAD)
def test_bad_options(options: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LayerGradient(*options)


def test_options_of_numpy_are_those_of_python() -> None:
    given: Any = np.int64(4)
    assert repr(LayerGradient(["fc"], given, given)) == repr(LayerGradient(("fc",), 4, 4))
