"""Gradient proxies against autograd and materialised outer products."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from augloader import Proxies
from augloader.core import residual
from augloader.core.proxies import Workspace
from augloader.selection import nearest
from tests.reference import random_state


def outer(g: Tensor, h: Tensor) -> Tensor:
    return (g.double()[:, :, None] * h.double()[:, None, :]).flatten(1)


def test_residual_is_the_gradient_of_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 5, requires_grad=True)
    labels = torch.randint(0, 5, (7,))
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)
    torch.testing.assert_close(residual(logits.detach(), labels), grad)


def test_outer_product_is_the_gradient_of_the_last_layer() -> None:
    torch.manual_seed(0)
    h, labels = torch.randn(4, 6), torch.tensor([0, 2, 1, 2])
    layer = torch.nn.Linear(6, 3)
    g = residual(layer(h).detach(), labels)
    with_bias = outer(g, torch.cat([h, torch.ones(4, 1)], 1)).view(4, 3, 7)
    for i in range(4):
        loss = F.cross_entropy(layer(h[i : i + 1]), labels[i : i + 1])
        weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
        torch.testing.assert_close(with_bias[i, :, :6].float(), weight)
        torch.testing.assert_close(with_bias[i, :, 6].float(), bias)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 300.0])
def test_distances_equal_those_of_materialised_outer_products(scale: float) -> None:
    torch.manual_seed(1)
    n = 700  # more than two blocks of rows
    g, h = torch.randn(n, 10) * scale, torch.randn(n, 33).relu() + 2
    # Near neighbours, where the expanded square cancels: relative distance about 1e-3.
    g[1::2], h[1::2] = g[::2] * 1.001, h[::2] * 0.9995
    exact = torch.cdist(outer(g, h), outer(g, h), compute_mode="donot_use_mm_for_euclid_dist")
    found = Proxies(g, h).distances()
    error = (found.double() - exact).abs() / exact.clamp(min=1e-300)
    error.fill_diagonal_(0)
    assert error.max() <= 1e-4
    assert found.diagonal().eq(0).all()


def test_vector_distances_equal_cdist_and_are_symmetric() -> None:
    torch.manual_seed(2)
    x, y = torch.randn(300, 7), torch.randn(41, 7)
    exact = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(Proxies(x).distances(Proxies(y)), exact.float())
    among = Proxies(x).distances()
    torch.testing.assert_close(among, among.T)


def test_rows_are_taken_from_both_factors() -> None:
    p = Proxies(torch.arange(6.0).view(3, 2), torch.arange(3.0).view(3, 1))[torch.tensor([2, 0])]
    assert p.gradient.tolist() == [[4, 5], [0, 1]]
    assert p.features is not None
    assert p.features.tolist() == [[2], [0]]


def test_non_finite_proxies_are_counted_and_located() -> None:
    g = torch.zeros(30, 2)
    g[[4, 17], 0], g[20, 1] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"got 3 non-finite rows \(first indices 4, 17, 20\)"):
        Proxies(g)
    with pytest.raises(ValueError, match=r"proxies.features must be finite"):
        Proxies(torch.zeros(30, 2), g)


@pytest.mark.parametrize(
    ("gradient", "features", "error", "words"),
    [
        (torch.zeros(3), None, ValueError, r"shape \(n, d\)"),
        (torch.zeros(3, 2, dtype=torch.int64), None, TypeError, "must be floating"),
        (torch.zeros(3, 2), torch.zeros(4, 2), ValueError, "match the gradient in length"),
    ],
)
def test_bad_proxies(
    gradient: Tensor, features: Tensor | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Proxies(gradient, features)


def test_proxies_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same widths, got \(2,\) and \(2, 1\)"):
        Proxies(torch.zeros(3, 2)).distances(Proxies(torch.zeros(3, 2), torch.zeros(3, 1)))


@pytest.mark.parametrize("changed", [{"dtype": torch.float64}, {"device": "meta"}], ids=str)
def test_another_dtype_or_device_is_refused(
    changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device without storage stands for a GPU; only its values cannot be checked."""
    monkeypatch.setattr("augloader.core.proxies.require_finite", lambda *args: None)
    here, there = torch.zeros(3, 2), torch.zeros(3, 2, **changed)
    words = "got .*(float64|meta).* and .*float32.*cpu"
    with pytest.raises(ValueError, match=f"features must match the gradient .*{words}"):
        Proxies(here, there)
    match = "must have the same dtype and device, got .*float32.*cpu.* and .*(float64|meta)"
    with pytest.raises(ValueError, match=match):
        Proxies(here).distances(Proxies(there))
    with pytest.raises(ValueError, match=match):
        Proxies(here, here).distances(Proxies(there, there))
    with pytest.raises(ValueError, match=match):
        nearest(Proxies(here), Proxies(there))


@pytest.mark.parametrize("form", ["vector", "outer"])
@pytest.mark.parametrize("width", [32, 256])
def test_projection_keeps_distances_in_the_mean(form: str, width: int) -> None:
    """A squared distance has the relative standard deviation sqrt(2 / w), of products up to twice.

    The mean over 25 seeds lies within four of its own.
    """
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(40, 30, generator=generator)
    points = Proxies(g, torch.randn(40, 50, generator=generator) if form == "outer" else None)
    above = torch.ones(40, 40).triu(1).bool()
    exact = points.distances()[above].double()
    shares = torch.stack(
        [
            (points.project(width, seed).distances()[above].double() / exact).square()
            for seed in range(25)
        ]
    )
    deviation = (2 / width) ** 0.5 * (1 if form == "vector" else 2)
    assert shares.std(0).mean() <= 1.1 * deviation
    assert ((shares.mean(0) - 1).abs() < 4 * deviation / 5).float().mean() > 0.99
    assert abs(shares.mean() - 1) < 0.5 * deviation / 5


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_projection_follows_its_seed_alone(form: str) -> None:
    g = torch.randn(20, 6, dtype=torch.float64)
    points = Proxies(g, g if form == "outer" else None)
    state = random_state()
    first = points.project(8, seed=3)
    assert random_state() == state
    assert first.gradient.shape == (20, 8)
    assert first.gradient.dtype == torch.float32
    assert first.features is None
    assert torch.equal(first.gradient, points.project(8, seed=3).gradient)
    assert not torch.equal(first.gradient, points.project(8, seed=4).gradient)
    # Every row by itself: the signs are those of the widths, not of the points.
    part = points[torch.arange(5)].project(8, seed=3).gradient
    torch.testing.assert_close(part, first.gradient[:5])
    with pytest.raises(ValueError, match=r"width must be at least 1, got 0\. 64 is"):
        points.project(0)


@pytest.mark.parametrize("labels", [[0, 3], [0, -1]])
def test_labels_out_of_range(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 3\), got 1 labels outside \(first indices 1\)"):
        residual(torch.zeros(2, 3), torch.tensor(labels))


def test_labels_of_the_wrong_length_or_kind() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        residual(torch.zeros(2, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"integer class labels.*proxies of your own"):
        residual(torch.zeros(2, 3), torch.zeros(2, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("factored", [False, True])
def test_gpu_distances_equal_the_cpu(factored: bool) -> None:
    torch.manual_seed(0)
    g, h = torch.randn(600, 10), torch.randn(600, 20) if factored else None
    there = Proxies(g.cuda(), None if h is None else h.cuda()).distances()
    torch.testing.assert_close(there.cpu(), Proxies(g, h).distances())


def test_some_rows_are_not_checked_for_finiteness_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Proxies(torch.rand(5, 2), torch.rand(5, 3))
    monkeypatch.setattr(Proxies, "__post_init__", lambda _: pytest.fail("checked again"))
    some = whole[torch.tensor([4, 1])]
    assert torch.equal(some.gradient, whole.gradient[[4, 1]])
    assert some.features is not None
    assert some.widths == whole.widths == (2, 3)
    assert len(whole[torch.tensor([True, False, False, True, True])][torch.tensor([2])]) == 1
    with pytest.raises(ValueError, match=r"proxies.gradient must have shape \(n, d\), got \(2,\)"):
        whole[torch.tensor(3)]


def test_a_workspace_is_used_again_and_grows() -> None:
    space, cpu = Workspace(), torch.device("cpu")
    first = space.empty("a", (3, 4), torch.float32, cpu)
    again = space.empty("a", (2, 2), torch.float32, cpu)
    assert again.data_ptr() == first.data_ptr()
    assert space.empty("b", (2, 2), torch.float32, cpu).data_ptr() != first.data_ptr()
    assert space.empty("a", (9, 9), torch.float64, cpu).dtype == torch.float64
    points = Proxies(torch.randn(20, 5))
    rest = Proxies(points.gradient[:7])
    expected = points.distances(), rest.distances(), points.distances(rest)
    space = Workspace()
    found = points.distances(workspace=space)
    assert torch.equal(found, expected[0])
    assert torch.equal(rest.distances(workspace=space), expected[1])
    assert torch.equal(points.distances(rest, space), expected[2])
