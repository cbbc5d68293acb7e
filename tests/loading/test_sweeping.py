"""The sweep: right evidence, and a model that is left as it was."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from augloader import (
    LastLayerGradient,
    Residual,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
    wrap,
)
from augloader.core import residual
from augloader.loading import gradient_norms
from augloader.loading.sweeping import _sweep
from tests.pretend_cuda import pretend_cuda
from tests.reference import random_state


class Net(nn.Module):
    """Batch norm and dropout, so that train mode would show."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.body = nn.Sequential(nn.Linear(5, 8), self.norm, nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def data(n: int = 70) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=generator)
    return TensorDataset(torch.randn(n, 5, generator=generator), labels)


def flip_sign(x: Tensor) -> Tensor:
    return -x


@pytest.mark.parametrize("workers", [0, 2])
def test_evidence_is_that_of_a_plain_forward_pass(workers: int) -> None:
    model, given = Net(), data()
    x, y = given.tensors
    evidence = sweep(model, given, LastLayerGradient(), batch_size=32, num_workers=workers)
    model.eval()
    with torch.no_grad():
        h = model.body(x)
        logits = model.head(h)
    assert evidence.proxies is not None
    assert evidence.losses is not None
    assert evidence.labels is not None
    assert torch.equal(evidence.labels, y)
    torch.testing.assert_close(evidence.losses, F.cross_entropy(logits, y, reduction="none"))
    torch.testing.assert_close(evidence.proxies.gradient, residual(logits, y))
    assert evidence.proxies.features is not None
    torch.testing.assert_close(evidence.proxies.features, torch.cat([h, torch.ones(70, 1)], 1))


def test_other_proxies() -> None:
    model = Net(bias=False)
    with_gradient = sweep(model, data(), LastLayerGradient(head="head")).proxies
    assert with_gradient is not None
    assert with_gradient.features is not None
    assert with_gradient.features.shape == (70, 8)
    plain = sweep(model, data(), Residual()).proxies
    assert plain is not None
    assert plain.features is None
    assert torch.equal(plain.gradient, with_gradient.gradient)
    assert sweep(model, data(), None).proxies is None


class Reusing(Net):
    """Writes its logits where those of the batch before were."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.empty(70, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory[: len(x)].copy_(super().forward(x))


@pytest.mark.parametrize("at_once", [1, 50, 2**18])
@pytest.mark.parametrize("proxy", [None, Residual(), LastLayerGradient(project=4)])
def test_evidence_does_not_depend_on_how_much_is_computed_at_once(
    at_once: int, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Reusing()
    whole = sweep(model, data(), proxy, batch_size=70)
    monkeypatch.setattr("augloader.loading.sweeping._AT_ONCE", at_once)
    parts = sweep(model, data(), proxy, batch_size=7)
    pairs = [(whole.losses, parts.losses), (whole.labels, parts.labels)]
    if proxy is not None:
        assert whole.proxies is not None
        assert parts.proxies is not None
        pairs.append((whole.proxies.gradient, parts.proxies.gradient))
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_the_view_is_not_augmented_but_finished() -> None:
    model, given = Net(), data()
    wrapped = WeightedAugmentedDataset(given, weak=flip_sign, strong=flip_sign, final=torch.exp)
    found = sweep(model, wrapped, None).losses
    x, y = given.tensors
    expected = sweep(model, TensorDataset(x.exp(), y), None).losses
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_modes_and_hooks_are_restored_even_after_an_exception() -> None:
    model = Net()
    model.train()
    model.norm.eval()  # a frozen batch norm
    assert model.norm.running_mean is not None
    before, running = modes(model), model.norm.running_mean.clone()
    sweep(model, data(), LastLayerGradient())
    assert modes(model) == before
    assert hooks(model) == 0
    assert torch.equal(model.norm.running_mean, running)
    for bad in (TensorDataset(torch.zeros(4, 9), torch.zeros(4, dtype=torch.int64)),):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            sweep(model, bad, LastLayerGradient())
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\)"):
        sweep(model, TensorDataset(torch.zeros(4, 5), torch.tensor([0, 1, 2, 3])), Residual())
    assert modes(model) == before
    assert hooks(model) == 0


def test_no_global_random_state_is_used() -> None:
    model = Net()
    torch.manual_seed(5)
    before = random_state()
    sweep(model, data(), LastLayerGradient(), num_workers=1)
    assert random_state() == before


def test_a_model_without_a_linear_head() -> None:
    model = nn.Sequential(nn.Conv1d(1, 3, 5), nn.Flatten())
    given = TensorDataset(torch.randn(4, 1, 5), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match=r"model must have an nn.Linear head.*Residual\(\)"):
        sweep(model, given, LastLayerGradient())
    assert sweep(model, given, Residual()).n == 4


class Other(nn.Module):
    """A model that returns whatever it is told to."""

    def __init__(self, returns: Any) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(x)


@pytest.mark.parametrize(
    ("returns", "error", "words"),
    [
        (lambda x: {"logits": x}, TypeError, r"must return \(n, C\) logits, got dict"),
        (lambda x: x[:, 0], ValueError, r"got \(70,\)"),
        (lambda x: x[:, None], ValueError, r"got \(70, 1, 5\)"),
        (lambda x: x[:3], ValueError, r"for n=70, C >= 2, got \(3, 5\)"),
        (lambda x: x[:, :1], ValueError, r"got \(70, 1\)"),
        (lambda x: x * float("nan"), ValueError, "70 non-finite rows"),
    ],
)
def test_outputs_that_are_not_logits(returns: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sweep(Other(returns), data(), Residual())


class Scaled(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.later = nn.Linear(8, 3)


def test_a_diverged_model_is_not_blamed_on_its_head() -> None:
    model = Net()
    model.head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="70 non-finite rows"):
        sweep(model, data(), LastLayerGradient())


def test_a_head_that_is_not_the_head() -> None:
    with pytest.raises(ValueError, match=r"head 'head' must return the model's logits"):
        sweep(Scaled(), data(), LastLayerGradient())
    with pytest.raises(ValueError, match=r"must return the model's logits \(70, 3\)"):
        sweep(Net(), data(), LastLayerGradient(head="body.0"))
    with pytest.raises(ValueError, match=r"head must be a module of the model, got 'fc'.*head"):
        sweep(Net(), data(), LastLayerGradient(head="fc"))
    with pytest.raises(RuntimeError, match="head 'later' must be called"):
        sweep(Unused(), data(), LastLayerGradient())
    assert sweep(Unused(), data(), LastLayerGradient(head="head")).n == 70


def test_targets_that_are_not_labels() -> None:
    x = torch.zeros(4, 5)
    with pytest.raises(TypeError, match="integer class labels"):
        sweep(Net(), TensorDataset(x, torch.zeros(4, 3)), Residual())
    with pytest.raises(TypeError, match="collate to a tensor of class labels, got tuple"):
        sweep(Net(), [(row, "cat") for row in x], Residual())


def test_messages_name_samples() -> None:
    x, y = torch.zeros(70, 5), torch.zeros(70, dtype=torch.int64)
    y[47], x[40, 1] = 9, torch.nan
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\).*\(first samples 47\)"):
        sweep(Net(), TensorDataset(x, y), Residual(), batch_size=16)
    options: tuple[Any, ...] = (16, 0, None, None, False, None)
    with pytest.raises(ValueError, match=r"losses must be finite, got 1 .*\(first samples 40\)"):
        _sweep(Net(), TensorDataset(x, y * 0), Residual(), (1, 3), *options)


class Endless:
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(5), 0


def test_a_dataset_without_a_length() -> None:
    with pytest.raises(TypeError, match="Endless without __len__"):
        sweep(Net(), Endless(), Residual())


def test_the_evidence_holds_no_graph() -> None:
    evidence = sweep(Net(), data(), LastLayerGradient())
    assert evidence.losses is not None
    assert evidence.losses.dtype == torch.float32
    assert not evidence.losses.requires_grad
    assert evidence.proxies is not None
    assert not evidence.proxies.gradient.requires_grad


@pytest.mark.usefixtures("bfloat16_cpu")
def test_autocast_on_request_gives_nearly_the_same() -> None:
    model = Net()
    exact, mixed = (sweep(model, data(), Residual(), autocast=on).proxies for on in (False, True))
    assert exact is not None
    assert mixed is not None
    assert mixed.gradient.dtype == torch.float32
    assert not torch.equal(exact.gradient, mixed.gradient)
    torch.testing.assert_close(exact.gradient, mixed.gradient, atol=0.02, rtol=0.1)


@pytest.mark.usefixtures("bfloat16_cpu")
def test_autocast_is_the_one_around_the_call() -> None:
    model, given = Net(), data()

    def swept(autocast: bool | torch.dtype | None = None) -> Tensor:
        proxies = sweep(model, given, LastLayerGradient(), autocast=autocast).proxies
        assert proxies is not None
        return torch.cat([proxies.gradient, proxies.distances()], 1)

    plain, half = swept(), swept(torch.bfloat16)
    assert not torch.equal(plain, half)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(swept(), half)
        assert torch.equal(swept(False), plain)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(swept(), swept(torch.float16))
        assert torch.equal(swept(True), half)
    with pytest.raises(ValueError, match=r"autocast must be .* got torch.float64"):
        swept(torch.float64)


@pytest.mark.usefixtures("bfloat16_cpu")
def test_gradient_norms_follow_the_autocast_around_the_call() -> None:
    model, given = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), data(9)
    plain, half = gradient_norms(model, given), gradient_norms(model, given, autocast=True)
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    torch.testing.assert_close(plain, half, atol=0.02, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient_norms(model, given), half)
        assert torch.equal(gradient_norms(model, given, autocast=False), plain)


def test_training_goes_on_in_the_autocast_block_of_a_sweep() -> None:
    model = Net()
    with torch.autocast("cpu", torch.bfloat16):
        sweep(model, data(), None)
        loss = model(torch.ones(2, 5)).float().square().sum()
    loss.backward()
    assert model.head.weight.grad is not None


FORWARDS: dict[str, Any] = {
    "none": (None, LastLayerGradient()),
    "own": (lambda model, batch: (model(batch[0]), batch[1]), LastLayerGradient()),
    "losses": (None, None),
}


@pytest.mark.parametrize("kind", FORWARDS)
def test_a_sweep_waits_for_a_gpu_once(kind: str) -> None:
    forward, proxy = FORWARDS[kind]
    model, given = Net(), data()
    here = sweep(model, given, proxy, forward=forward)
    with pretend_cuda() as gpu:
        model.to("cuda")
        gpu.clear()
        there = sweep(model, given, proxy, forward=forward, batch_size=16)
        assert gpu.waits.total() <= 1, gpu.report()
        assert there.losses is not None
        assert there.losses.is_cuda
        torch.testing.assert_close(there.losses.cpu(), here.losses)
        if there.proxies is not None and here.proxies is not None:
            torch.testing.assert_close(there.proxies.gradient.cpu(), here.proxies.gradient)
        gpu.clear()
        norms = gradient_norms(model, given, batch_size=16)
        assert gpu.waits.total() <= 1, gpu.report()
        assert torch.isfinite(norms.cpu()).all()


def test_what_is_wrong_on_a_gpu_raises_after_the_last_batch() -> None:
    x, y = data().tensors
    wrong, broken = y.clone(), x.clone()
    wrong[41], broken[17, 2] = 3, torch.nan
    with pretend_cuda():
        model = Net().to("cuda")
        for forward, labels in ((None, wrong), (FORWARDS["own"][0], wrong)):
            with pytest.raises(ValueError, match=r"target must be in \[0, 3\).*samples 41\)"):
                sweep(model, TensorDataset(x, labels), Residual(), forward=forward, batch_size=16)
        with pytest.raises(ValueError, match=r"losses must be finite, got 1 .*indices 17\)"):
            sweep(model, TensorDataset(broken, y), LastLayerGradient(), batch_size=16)
        other = nn.Sequential(Net(), nn.Hardtanh(-0.01, 0.01)).to("cuda")
        with pytest.raises(ValueError, match=r"head '0\.head' must return the model's logits"):
            sweep(other, TensorDataset(x, y), LastLayerGradient())


def test_progress_shows_a_bar_and_needs_tqdm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(Net(), data(), None)
    assert capsys.readouterr().err == ""
    sweep(Net(), data(), None, progress=True)
    assert "sweep" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        sweep(Net(), data(), None, progress=True)


@pytest.mark.gpu
def test_a_model_on_the_gpu() -> None:
    model = Net()
    here = sweep(model, data(), LastLayerGradient())
    there = sweep(model.cuda(), data(), LastLayerGradient(), autocast=False)
    assert here.proxies is not None
    assert there.proxies is not None
    assert there.proxies.gradient.is_cuda
    torch.testing.assert_close(
        there.proxies.gradient.cpu(), here.proxies.gradient, atol=1e-3, rtol=1e-3
    )


def norm_by_autograd(model: nn.Module, image: Tensor, label: Tensor) -> float:
    model.zero_grad()
    F.cross_entropy(model(image[None]), label[None]).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(torch.cat(gradients).square().sum().sqrt())


@pytest.mark.parametrize("batch_size", [1, 32, 70])
def test_gradient_norms_are_those_of_single_backward_passes(batch_size: int) -> None:
    model = Net()
    model.train()
    before = modes(model)
    state, found = random_state(), gradient_norms(model, data(), batch_size=batch_size)
    assert found.dtype == torch.float32
    assert modes(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert random_state() == state
    model.eval()
    expected = [norm_by_autograd(model, *pair) for pair in zip(*data().tensors, strict=True)]
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-4)


def test_gradient_norms_count_what_is_trained() -> None:
    torch.manual_seed(0)
    model = Net()
    whole = gradient_norms(model, data())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.head.requires_grad_(True)
    last = sweep(model, data(), LastLayerGradient()).proxies
    assert last is not None
    assert last.features is not None
    product = last.gradient.norm(dim=1) * last.features.norm(dim=1)
    part = gradient_norms(model, data())
    assert torch.allclose(part, product, rtol=1e-4)
    assert (whole > part).all()


def test_gradient_norms_refuse_what_a_sweep_refuses() -> None:
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\)"):
        gradient_norms(Net(), TensorDataset(data().tensors[0], torch.full((70,), 3)))
    with pytest.raises(TypeError, match="map-style dataset"):
        gradient_norms(Net(), Endless())
    broken = Net()
    nn.init.constant_(broken.head.weight, torch.nan)
    with pytest.raises(ValueError, match=r"gradient norms must be finite, got 70 non-finite rows"):
        gradient_norms(broken, data())


def test_evidence_has_the_features_of_the_head() -> None:
    for bias in (True, False):
        found = sweep(Net(bias=bias), data(), LastLayerGradient())
        assert found.features is not None
        assert found.proxies is not None
        assert found.proxies.features is not None
        assert torch.equal(found.features, found.proxies.features[:, :8])
    assert sweep(Net(), data(), Residual()).features is None


def test_gradient_norms_want_parameters() -> None:
    with pytest.raises(ValueError, match="model must have parameters that require gradients"):
        gradient_norms(Net().requires_grad_(False), data())


# Other batches, other data ------------------------------------------------------------------------


class Outputs:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Reader(nn.Module):
    """Takes padded words and their mask, and returns an object, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6, padding_idx=0)
        self.classifier = nn.Linear(6, 3)

    def forward(self, words: Tensor, mask: Tensor) -> Outputs:
        found = (self.words(words) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return Outputs(self.classifier(found))


TEXTS = [{"words": list(range(1, 2 + i % 5)), "label": i % 3} for i in range(10)]


def padded(rows: list[Any]) -> dict[str, Any]:
    longest = max(len(row["words"]) for row in rows)
    words = torch.tensor([row["words"] + [0] * (longest - len(row["words"])) for row in rows])
    labels = torch.tensor([row["label"] for row in rows])
    return {"words": words, "mask": (words > 0).float(), "labels": labels}


def read(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return model(batch["words"], batch["mask"]).logits, batch["labels"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_forward_of_ones_own(workers: int, wrapped: bool) -> None:
    model = Reader()
    data: Any = TEXTS
    if wrapped:
        plain: Any = DataLoader(TEXTS, 4, collate_fn=padded)  # type: ignore[arg-type]
        data = wrap(plain, Uniform(), fraction=0.5)[0].dataset
    evidence = sweep(
        model,
        data,
        LastLayerGradient(),
        batch_size=4,
        num_workers=workers,
        collate_fn=padded,
        forward=read,
    )
    logits, labels = read(model, padded(TEXTS))
    assert evidence.labels is not None
    assert evidence.losses is not None
    assert evidence.features is not None
    assert torch.equal(evidence.labels, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(evidence.losses, losses.detach())
    assert evidence.features.shape == (10, 6)


def test_a_forward_is_given_samples_of_our_dataset() -> None:
    model, given = Net(), data()
    view = WeightedAugmentedDataset(given, strong=flip_sign)
    halved = sweep(model, view, None, forward=lambda m, b: (m(b.input / 2), b.target)).losses
    x, y = given.tensors
    wanted = sweep(model, TensorDataset(x / 2, y), None).losses
    assert halved is not None
    assert wanted is not None
    assert torch.equal(halved, wanted)
    pairs = sweep(model, given, None, forward=lambda m, b: (m(b[0] / 2), b[1])).losses
    assert pairs is not None
    assert torch.equal(pairs, wanted)


def test_forwards_and_batches_that_are_something_else() -> None:
    with pytest.raises(TypeError, match=r"forward must return logits and targets, got Tensor"):
        sweep(Net(), data(), None, forward=lambda m, b: m(b[0]))
    with pytest.raises(TypeError, match=r"collate_fn must return a Sample batch, got list.*forwar"):
        sweep(Net(), data(), None, collate_fn=list)
    with pytest.raises(TypeError, match=r"got Outputs\. Pass forward=, as"):
        sweep(Other(Outputs), data(), None)


def test_samples_are_named_where_they_are_in_the_data() -> None:
    x, y = torch.zeros(300, 5), torch.zeros(300, dtype=torch.int64)
    y[[150, 277]] = torch.tensor([-1, 9])
    for first, words in ((150, r"in \[0, 3\).*\(first samples 150\)"), (277, "samples 277")):
        y[150] = 0 if first == 277 else -1
        for run in (lambda d: sweep(Net(), d, None), lambda d: gradient_norms(Net(), d)):
            with pytest.raises(ValueError, match=words):
                run(TensorDataset(x, y))


def test_a_loader_and_a_stream_are_no_data() -> None:
    for run in (lambda d: sweep(Net(), d, None), lambda d: gradient_norms(Net(), d)):
        with pytest.raises(TypeError, match=r"got a DataLoader. Pass its dataset: loader.dataset"):
            run(DataLoader(data()))


def test_a_subset_of_our_dataset_is_swept_clean() -> None:
    model, given = Net(), data()
    view = WeightedAugmentedDataset(given, weak=flip_sign, strong=flip_sign)
    rows = [50, 3, 8]
    whole = sweep(model, given, Residual())
    part: Any = Subset(view, rows)
    for found in (sweep(model, part, Residual()), sweep(model, ConcatDataset([part]), Residual())):
        assert found.losses is not None
        assert whole.losses is not None
        torch.testing.assert_close(found.losses, whole.losses[rows])
    torch.testing.assert_close(gradient_norms(model, part), gradient_norms(model, view)[rows])


class Jittered(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, y = (part[index] for part in self.tensors)
        return x + torch.rand(5), y


def test_random_data_are_swept_the_same_twice() -> None:
    model, given = Net(), Jittered(*data().tensors)
    plain: Any = DataLoader(given, 8)
    loader, _ = wrap(plain, Uniform(), fraction=0.5)
    torch.manual_seed(5)
    before = random_state()
    runs: list[Any] = [lambda d: sweep(model, d, None).losses, lambda d: gradient_norms(model, d)]
    for run in runs:
        with pytest.warns(UserWarning, match="drew random numbers") as told:
            one = run(loader.dataset)
        with pytest.warns(UserWarning, match="drew random numbers"):
            two = run(given)
        assert len(told) == 1
        assert torch.equal(one, two)
    assert random_state() == before


class Noisy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand_like(x))


def test_a_model_that_draws_leaves_no_trace() -> None:
    model, before = Noisy(), random_state()
    one, two = (sweep(model, data(), None).losses for _ in range(2))
    assert one is not None
    assert two is not None
    assert torch.equal(one, two)
    assert random_state() == before


def test_other_defaults_of_torch_change_no_sweep() -> None:
    model, given = Net(), data()
    pairs = [(x, int(y)) for x, y in zip(*given.tensors, strict=True)]
    wanted = sweep(model, given, LastLayerGradient())
    norms = gradient_norms(model, given)
    for dtype, device in ((torch.float64, None), (torch.float32, "meta")):
        try:
            torch.set_default_dtype(dtype)
            torch.set_default_device(device)
            for same in (given, pairs):
                found = sweep(model, same, LastLayerGradient())
                again = gradient_norms(model, same)
                for name in ("losses", "labels", "features"):
                    one, two = getattr(found, name).numpy(), getattr(wanted, name).numpy()
                    assert one.dtype == two.dtype
                    assert (one == two).all()
                assert (again.numpy() == norms.numpy()).all()
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)


def test_last_layer_gradients_are_projected_batch_by_batch() -> None:
    model, data = nn.Linear(6, 4), [(torch.randn(6), i % 4) for i in range(30)]
    whole = sweep(model, data, LastLayerGradient()).proxies
    found = sweep(model, data, LastLayerGradient(project=4096, seed=3), batch_size=7)
    assert whole is not None
    assert found.proxies is not None
    assert found.features is None
    assert found.proxies.gradient.shape == (30, 4096)
    assert found.proxies.features is None
    exact, near = whole.distances(), found.proxies.distances()
    off = ~torch.eye(30, dtype=torch.bool)
    assert ((near - exact).abs()[off] / exact[off]).max() < 0.15
    again = sweep(model, data, LastLayerGradient(project=4096, seed=3), batch_size=30)
    assert again.proxies is not None
    torch.testing.assert_close(again.proxies.gradient, found.proxies.gradient)


@pytest.mark.parametrize(
    ("options", "error"),
    [({"project": 0}, ValueError), ({"project": 1.5}, TypeError), ({"seed": -1}, ValueError)],
)
def test_bad_projections(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be"):
        LastLayerGradient(**options)
