"""Spectra of covariances, against numpy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from augloader import LastLayerGradient, sweep
from augloader.diagnostics import feature_spectrum


@pytest.mark.parametrize(("n", "d"), [(40, 6), (9, 30)])
def test_it_is_the_decomposition_of_the_covariances(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, d, generator=generator)
    labels = torch.tensor([7, 0, 3]).repeat(n)[:n]
    found = feature_spectrum(h, labels)
    x, y = h.double().numpy(), labels.numpy()
    assert found.classes.tolist() == [0, 3, 7]
    assert found.counts.tolist() == [int((y == c).sum()) for c in (0, 3, 7)]
    whole = np.linalg.svd(np.cov(x.T, bias=True), compute_uv=False)
    assert found.all.numpy() == pytest.approx(whole, abs=1e-12)
    within = np.zeros((d, d))
    for i, c in enumerate((0, 3, 7)):
        own = np.cov(x[y == c].T, bias=True)
        within += (y == c).mean() * own
        values = np.linalg.svd(own, compute_uv=False)
        assert found.of_class[i].numpy() == pytest.approx(values, abs=1e-12)
    assert found.within.numpy() == pytest.approx(np.linalg.svd(within, compute_uv=False), abs=1e-12)


def test_by_hand() -> None:
    # Two classes 2 a apart along the first axis, spread by b along the second.
    a, b = 3.0, 0.5
    h = torch.tensor([[a, b], [a, -b], [-a, b], [-a, -b]])
    found = feature_spectrum(h, torch.tensor([0, 0, 1, 1]))
    assert found.all.tolist() == pytest.approx([a**2, b**2])
    assert found.within.tolist() == pytest.approx([b**2, 0])
    for values in found.of_class:
        assert values.tolist() == pytest.approx([b**2, 0])
    expected = "FeatureSpectrum(4 samples, 2 classes, 2 features; 2.7 % of the variance within"
    assert repr(found).startswith(expected)
    single = feature_spectrum(h[:1], torch.tensor([5]))
    assert single.all.tolist() == [0, 0]
    assert "none of the variance" in repr(single)


@given(seed=st.integers(0, 99), n=st.integers(2, 30), d=st.integers(1, 8), c=st.integers(1, 4))
def test_variance_is_that_within_the_classes_and_that_of_their_means(
    seed: int, n: int, d: int, c: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, d, generator=generator)
    labels = torch.randint(c, (n,), generator=generator)
    found = feature_spectrum(h, labels)
    means = torch.stack([h[labels == y].double().mean(0) for y in labels])
    between = (means - h.double().mean(0)).square().sum() / n
    assert float(found.all.sum()) == pytest.approx(float(found.within.sum() + between))
    shares = found.counts.double() / n
    assert float(found.within.sum()) == pytest.approx(float((shares @ found.of_class).sum()))
    for values in (found.all, found.within, *found.of_class):
        assert (values.diff() <= 0).all()
        assert values.min() >= 0
    # Turning the features and permuting the samples changes nothing.
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(n, generator=generator)
    again = feature_spectrum((h.double() @ turn)[order], labels[order])
    assert torch.allclose(again.all, found.all, atol=1e-9)
    assert torch.allclose(again.within, found.within, atol=1e-9)


def test_features_come_from_a_sweep() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, labels = torch.randn(10, 3), torch.arange(10) % 2
    evidence = sweep(model, list(zip(x, labels.tolist(), strict=True)), LastLayerGradient())
    assert evidence.features is not None
    assert evidence.labels is not None
    found = feature_spectrum(evidence.features, evidence.labels)
    h = torch.relu(model[0](x)).detach().double().numpy()
    values = np.linalg.eigvalsh(np.cov(h.T, bias=True))[::-1]
    assert found.all.numpy() == pytest.approx(values, abs=1e-6)


def test_what_it_refuses() -> None:
    h, labels = torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"features must be \(n, d >= 1\) floating"):
        feature_spectrum(h.long(), labels)
    with pytest.raises(ValueError, match="must be finite"):
        feature_spectrum(h * torch.nan, labels)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), got \(3,\)"):
        feature_spectrum(h, labels[:3])
    with pytest.raises(TypeError, match="labels must be integer class labels"):
        feature_spectrum(h, labels.float())
    with pytest.raises(ValueError, match="features must be of at least one sample, got none"):
        feature_spectrum(h[:0], labels[:0])
