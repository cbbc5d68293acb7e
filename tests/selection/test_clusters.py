"""Clusters by k-means, and the strategies that choose from them in turn."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from augloader import (
    Clusters,
    Evidence,
    Uniform,
)
from augloader.selection import clusters
from augloader.selection.clusters import kmeans
from tests.reference import random_state
from tests.selection.test_scored import random


def blobs(n: int, centres: int, width: int, apart: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(centres, width, generator=generator) * apart
    return means[torch.arange(n) % centres] + torch.randn(n, width, generator=generator)


def inertia(x: torch.Tensor, found: torch.Tensor) -> float:
    """Squared distances to the means of the clusters."""
    parts = (x[found == c] for c in found.unique())
    return sum(float((part - part.mean(0)).square().sum()) for part in parts)


@pytest.mark.parametrize(
    ("centres", "width", "apart"), [(8, 4, 0.5), (10, 8, 1.0), (4, 3, 9.0), (10, 8, 3.0)]
)
def test_clusters_are_about_as_tight_as_sklearns(centres: int, width: int, apart: float) -> None:
    x = blobs(2000, centres, width, apart)
    best = KMeans(centres, n_init=5, random_state=0).fit(x.numpy()).inertia_
    ratios = []
    for seed in range(5):
        found = kmeans(x, centres, seed)
        assert found.dtype == torch.int64
        assert found.shape == (2000,)
        assert found.min() >= 0
        assert found.max() < centres
        ratios.append(inertia(x, found) / best)
    assert np.median(ratios) < 1.05  # of single starts, against the best of five
    assert max(ratios) < 1.4


def test_centres_of_a_sample_are_about_as_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs(4000, 10, 8, 3.0)
    whole = inertia(x, kmeans(x, 10))
    monkeypatch.setattr(clusters, "_LEAST", 640)
    found = kmeans(x, 10)
    assert found.shape == (4000,)
    assert torch.equal(found, kmeans(x, 10))
    assert inertia(x, found) < 1.1 * whole


def test_clusters_follow_their_seed_and_no_global_state() -> None:
    x = blobs(500, 9, 5, 1.0)
    torch.manual_seed(1)
    before = random_state()
    first = kmeans(x, 9, 3)
    assert random_state() == before
    torch.manual_seed(2)
    assert torch.equal(first, kmeans(x, 9, 3))
    assert torch.equal(first, kmeans(x.double(), 9, 3))
    assert torch.equal(first, kmeans(x.clone().requires_grad_(), 9, 3))
    assert torch.equal(first, kmeans(x.T.contiguous().T, 9, 3))
    assert not torch.equal(first, kmeans(x, 9, 4))


def test_as_many_clusters_as_vectors_and_no_more(capfd: pytest.CaptureFixture[str]) -> None:
    x = blobs(30, 3, 4, 5.0)
    assert sorted(kmeans(x, 30).tolist()) == list(range(30))
    assert kmeans(x, 1).tolist() == [0] * 30
    assert kmeans(x[:1], 1).tolist() == [0]
    alike = kmeans(torch.ones(30, 4), 5)
    assert len(alike.unique()) == 1
    with pytest.raises(ValueError, match="at most the number of samples, 30, got 31 clusters"):
        kmeans(x, 31)
    assert "WARNING" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("scale", "offset"), [(1e30, 0.0), (1e-30, 0.0), (1.0, 1e5)])
def test_clusters_are_the_same_at_any_scale_and_place(scale: float, offset: float) -> None:
    x = blobs(300, 5, 4, 9.0).double()
    assert torch.equal(kmeans(x * scale + offset, 5), kmeans(x, 5))


BLOBS = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) * 0.1 + 9 * (
    torch.arange(40) % 4
).float().view(-1, 1)


def test_clusters_are_chosen_from_in_turn() -> None:
    known = Evidence(40, features=BLOBS)
    strategy = Uniform(groups=Clusters(4), allocation="equal")
    for seed in range(10):
        found = Clusters(4).of(known, random(seed))
        assert found.dtype == torch.int64
        assert found.shape == (40,)
        order = found[strategy.order(known, generator=random(seed))].tolist()
        sizes, had = found.bincount(minlength=4).tolist(), [0] * 4
        for c in order:  # nobody is ahead of one who has samples left
            assert all(
                had[c] <= have or have == most for have, most in zip(had, sizes, strict=True)
            )
            had[c] += 1


def test_clusters_want_features_and_at_most_as_many_as_samples() -> None:
    with pytest.raises(ValueError, match="count must be at most the number of samples, 40, got 41"):
        Uniform(groups=Clusters(41)).select(Evidence(40, features=BLOBS), 3, generator=random())
    strategy = Uniform(groups=Clusters(2))
    assert strategy.needs == {"features"}
    with pytest.raises(ValueError, match=r"evidence.features must be given.*LastLayerGradient"):
        strategy.select(Evidence(40), 3, generator=random())
    assert (
        len(
            Uniform(groups=Clusters(40)).select(
                Evidence(40, features=BLOBS), 40, generator=random()
            )
        )
        == 40
    )


def test_what_kmeans_takes_and_refuses() -> None:
    expected = kmeans(BLOBS, 3)
    for rows in (BLOBS.numpy(), BLOBS.tolist(), BLOBS.clone().requires_grad_()):
        assert torch.equal(kmeans(rows, np.int64(3)), expected)  # type: ignore[arg-type]
    wrong: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((BLOBS[:, 0], 3), TypeError, r"vectors must be \(n, d >= 1\) floating"),
        ((BLOBS[:, :0], 3), TypeError, r"vectors must be \(n, d >= 1\) floating"),
        ((BLOBS.long(), 3), TypeError, "floating, got .*int64"),
        ((BLOBS * torch.nan, 3), ValueError, "vectors must be finite"),
        ((BLOBS, 0), ValueError, "count must be at least 1"),
        ((BLOBS, 2.0), TypeError, "count must be an integer"),
        ((BLOBS, 3, None), TypeError, "seed must be an int"),
    ]
    for arguments, error, words in wrong:
        with pytest.raises(error, match=words):
            kmeans(*arguments)
    with pytest.raises(TypeError, match="generator must be a numpy"):
        Clusters(3).of(Evidence(len(BLOBS), features=BLOBS), 0)  # type: ignore[arg-type]
