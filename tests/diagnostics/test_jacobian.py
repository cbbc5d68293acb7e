"""The Jacobian's spectrum is that of the matrix, written out, and the model stays as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from torch import Tensor, nn
from torch.func import functional_call

from augloader.diagnostics import JacobianSpectrum, jacobian_spectrum

pytestmark = pytest.mark.usefixtures("one_thread")
Array = np.ndarray[Any, Any]


def mlp(seed: int = 0, *, inputs: int = 4, outputs: int = 3) -> nn.Module:
    model = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def pictures(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return clean, clean + 0.3 * torch.randn(n, 4, generator=generator, dtype=torch.float64)


def written_out(model: nn.Module, x: Tensor) -> Array:
    """Return the Jacobian by one backward pass for each sample and output."""
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for sample in x:
        for value in model(sample.unsqueeze(0))[0]:
            parts = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            whole = [
                torch.zeros_like(p) if part is None else part
                for p, part in zip(trained, parts, strict=True)
            ]
            rows.append(torch.cat([part.flatten() for part in whole]))
    return torch.stack(rows).double().numpy()


def by_differences(model: nn.Module, x: Tensor, step: float = 1e-6) -> Array:
    """Return the Jacobian by central differences of every parameter."""
    names = dict(model.named_parameters())
    columns = []
    for name, p in names.items():
        for i in range(p.numel()):
            ends = []
            for sign in (1, -1):
                moved = p.detach().clone()
                moved.view(-1)[i] += sign * step
                with torch.no_grad():
                    ends.append(functional_call(model, {**names, name: moved}, (x,)))
            columns.append(((ends[0] - ends[1]) / (2 * step)).flatten())
    return torch.stack(columns, 1).numpy()


def expected_angles(a: Array, b: Array, edges: Tensor) -> Array:
    found = []
    for start, end in zip(edges.tolist(), edges.tolist()[1:], strict=False):
        found.append(np.sort(subspace_angles(a[:, start:end], b[:, start:end])))
    return np.concatenate(found)


def require_same(found: JacobianSpectrum, one: Array, other: Array, tolerance: float) -> None:
    u, s, v = np.linalg.svd(one, full_matrices=False)
    u2, s2, v2 = np.linalg.svd(other, full_matrices=False)
    assert found.clean.numpy() == pytest.approx(s, rel=tolerance, abs=tolerance * s[0])
    assert found.augmented.numpy() == pytest.approx(s2, rel=tolerance, abs=tolerance * s[0])
    assert found.change.numpy() == pytest.approx(s2 - s, abs=2 * tolerance * s[0])
    assert found.perturbation == pytest.approx(np.linalg.norm(other - one, 2), rel=tolerance)
    rank = int(found.edges[-1])
    cut = max(tolerance**0.5, 1e-6)
    left, right = (expected_angles(a, b, found.edges) for a, b in ((u, u2), (v.T, v2.T)))
    assert found.left.numpy() == pytest.approx(left[:rank], abs=cut)
    assert found.right.numpy() == pytest.approx(right[:rank], abs=cut)


@pytest.mark.parametrize("bins", [1, 3, 4, 100])
def test_it_is_the_decomposition_of_the_matrix_written_out(bins: int) -> None:
    model, (clean, augmented) = mlp(), pictures()
    found = jacobian_spectrum(model, clean, augmented, bins=bins)
    one, other = written_out(model, clean), written_out(model, augmented)
    assert one.shape == (15, 51)
    assert len(found.edges) == min(bins, 15) + 1
    assert found.edges[-1] == 15
    require_same(found, one, other, 1e-9)


def test_derivatives_agree_with_finite_differences() -> None:
    model, (clean, augmented) = mlp(), pictures()
    found = jacobian_spectrum(model, clean, augmented, bins=3)
    require_same(found, by_differences(model, clean), by_differences(model, augmented), 1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_blocks_of_rows_change_nothing(batch_size: int) -> None:
    model, (clean, augmented) = mlp(), pictures()
    whole = jacobian_spectrum(model, clean, augmented)
    row = 4 * 3 * 51 * 8  # bytes of a sample's rows
    gram = 4 * 8 * 30**2
    for samples in (1, 2, 3, 7, 10):
        some = jacobian_spectrum(
            model, clean, augmented, memory_limit=gram + samples * row, batch_size=batch_size
        )
        for name in ("clean", "augmented", "left", "right"):
            mine, theirs = getattr(some, name), getattr(whole, name)
            assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-6)
    with pytest.raises(ValueError, match=rf"memory_limit must be at least {gram + row:,} bytes"):
        jacobian_spectrum(model, clean, augmented, memory_limit=gram + row - 1)


class Tied(nn.Module):
    """A convolutional network with batch norm, dropout and a layer that has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.first, self.head = nn.Linear(12, 12), nn.Linear(12, 2)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).flatten(1)
        h = torch.dropout(torch.tanh(self.first(h)), 0.5, self.training)
        out: Tensor = self.head(torch.tanh(self.again(h)))
        return out


def test_batch_norm_tied_and_frozen_parameters_and_a_model_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = Tied()
    with torch.no_grad():
        for _ in range(3):
            model(2 + torch.randn(8, 1, 4, 4))
    model.conv.requires_grad_(False)
    model.train()
    model.norm.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    clean = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = jacobian_spectrum(model, clean, clean + 0.5, bins=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    one, other = written_out(model, clean), written_out(model, clean + 0.5)
    assert one.shape == (8, 6 + 156 + 26)
    require_same(found, one, other, 1e-5)


class Last(Tied):
    """In channels_last, which vmap has no rule for."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous(memory_format=torch.channels_last))


def test_a_model_that_vmap_cannot_go_through() -> None:
    torch.manual_seed(0)
    model = Last().eval()
    clean = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = jacobian_spectrum(model, clean, clean + 0.5, bins=2, batch_size=3)
    require_same(found, written_out(model, clean), written_out(model, clean + 0.5), 1e-5)


class Restless(nn.Module):
    """Draws random numbers in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.dropout(x, 0.5, True))
        return out


def test_more_rows_than_parameters() -> None:
    model = nn.Linear(1, 2).double()
    clean = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    found = jacobian_spectrum(model, clean, 2 * clean, bins=9)
    one = written_out(model, clean)
    assert one.shape == (8, 4)
    assert found.edges.tolist() == [0, 1, 2, 3, 4]
    s = np.linalg.svd(one, compute_uv=False)
    assert found.clean.numpy() == pytest.approx(s, rel=1e-9)


def test_values_lost_to_rounding_are_in_no_range() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]])  # two samples alike: rank 2
    found = jacobian_spectrum(nn.Linear(2, 1, bias=False), x, x + 1)
    assert found.clean.shape == (2,)
    same = nn.Linear(5, 1, bias=False)
    x = torch.zeros(3, 5)
    x[:, 0] = torch.tensor([1.0, 2.0, 3.0])  # rank 1 of 3
    found = jacobian_spectrum(same, x, 2 * x, bins=3)
    assert found.clean.shape == (3,)
    assert found.edges.tolist() == [0, 1]
    assert found.clean[1] < found.resolution < found.clean[0]
    assert found.left.tolist() == pytest.approx([0], abs=1e-6)


def test_unmoved_inputs_have_no_angles_and_a_turn_of_the_parameters_a_right_one() -> None:
    model, (clean, _) = mlp(), pictures()
    found = jacobian_spectrum(model, clean, clean, bins=15)
    assert found.perturbation == pytest.approx(0, abs=1e-6)
    assert found.left.abs().max() < 1e-5
    assert found.right.abs().max() < 1e-5
    # Inputs turned by 30 degrees: of a linear model J V^T, so left vectors stay and right ones turn
    turn = torch.tensor(30.0, dtype=torch.float64).deg2rad()
    matrix = torch.stack(
        [torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])]
    )
    x = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    linear = nn.Linear(2, 1, bias=False).double()
    turned = jacobian_spectrum(linear, x, x @ matrix, bins=2)
    assert turned.clean.tolist() == pytest.approx([3, 1])
    assert turned.augmented.tolist() == pytest.approx([3, 1])
    assert turned.angles().tolist() == pytest.approx([0, 0], abs=1e-6)
    assert turned.angles("right").rad2deg().tolist() == pytest.approx([30, 30])


def test_means_of_the_ranges() -> None:
    model, (clean, augmented) = mlp(), pictures()
    found = jacobian_spectrum(model, clean, augmented, bins=4)
    ends = list(zip(found.edges.tolist(), found.edges.tolist()[1:], strict=False))
    assert ends == [(0, 4), (4, 8), (8, 11), (11, 15)]
    for i, (start, end) in enumerate(ends):
        assert found.changes()[i] == found.change[start:end].mean()
        shares = found.change[start:end] / found.clean[start:end]
        assert found.changes(relative=True)[i] == pytest.approx(float(shares.mean()))
        assert found.angles()[i] == found.left[start:end].mean()
        assert found.angles("right")[i] == found.right[start:end].mean()
        assert (found.left[start:end].diff() >= 0).all()
    assert repr(found).startswith("JacobianSpectrum(15 singular values, at most ")
    with pytest.raises(ValueError, match="side must be 'left' or 'right', got 'up'"):
        found.angles("up")


@given(seed=st.integers(0, 99), scale=st.floats(0.01, 2))
def test_no_singular_value_moves_more_than_the_perturbation(seed: int, scale: float) -> None:
    model, (clean, _) = mlp(seed), pictures(3)
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = jacobian_spectrum(model, clean, clean + scale * noise, bins=3)
    assert found.change.abs().max() <= found.perturbation * (1 + 1e-9) + 1e-7  # Weyl
    # In another order of the samples all is the same.
    order = torch.tensor([2, 0, 1])
    again = jacobian_spectrum(model, clean[order], (clean + scale * noise)[order], bins=3)
    assert torch.allclose(again.clean, found.clean, rtol=1e-6, atol=1e-6)
    assert torch.allclose(again.angles(), found.angles(), atol=1e-3)


def test_what_it_refuses() -> None:
    model, (clean, augmented) = mlp(), pictures()
    with pytest.raises(TypeError, match=r"clean must be a tensor of inputs, got list\. Stack"):
        jacobian_spectrum(model, [clean], augmented)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the same samples as clean.*got shapes \(4, 4\) and"):
        jacobian_spectrum(model, clean, augmented[:4])
    with pytest.raises(ValueError, match="at least one"):
        jacobian_spectrum(model, clean[:0], augmented[:0])
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        jacobian_spectrum(model, clean, augmented, bins=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        jacobian_spectrum(model, clean, augmented, batch_size=0)
    with pytest.raises(ValueError, match="memory_limit must be at least 1, got 0"):
        jacobian_spectrum(model, clean, augmented, memory_limit=0)
    with pytest.raises(ValueError, match=r"model must return \(b, C\) outputs for b=4, got \(4,\)"):
        jacobian_spectrum(nn.Sequential(mlp(outputs=1), nn.Flatten(0)), clean, augmented)
    with pytest.raises(TypeError, match="model must return a tensor, got tuple"):
        jacobian_spectrum(nn.LSTM(4, 2).double(), clean, augmented)
    with pytest.raises(ValueError, match=r"must be finite.*has training diverged"):
        jacobian_spectrum(model, clean * torch.nan, augmented)
    broken = augmented.clone()
    broken[2] = torch.nan
    with pytest.raises(ValueError, match=r"augmented Jacobian must be finite, got .*\b2\b"):
        jacobian_spectrum(model, clean, broken)
    with pytest.raises(ValueError, match="Jacobian must not be zero, got no singular value"):
        jacobian_spectrum(nn.Linear(4, 2, bias=False).double(), 0 * clean, augmented)
    alone = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1, track_running_stats=False))
    alone = nn.Sequential(alone, nn.Flatten(), nn.Linear(4, 2)).double()
    with pytest.raises(ValueError, match="the same outputs for a sample whatever its batch"):
        jacobian_spectrum(alone, clean, augmented)
    restless, before = Restless(), torch.get_rng_state()
    with pytest.raises(ValueError, match="the same outputs for a sample whatever its batch"):
        jacobian_spectrum(restless, clean, augmented)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="parameters that require gradients, got none"):
        jacobian_spectrum(model.requires_grad_(False), clean, augmented)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same() -> None:
    model, (clean, augmented) = mlp(), pictures()
    here = jacobian_spectrum(model, clean, augmented, bins=3)
    there = jacobian_spectrum(model.cuda(), clean, augmented.cuda(), bins=3)
    assert there.left.device.type == "cpu"
    assert torch.allclose(there.clean, here.clean)
    assert torch.allclose(there.left, here.left, atol=1e-5)
    assert torch.allclose(there.right, here.right, atol=1e-5)
