"""Medoid assignment against brute force and the greedy's own."""

import pytest
import torch

from augloader import Proxies, greedy_medoids, nearest
from tests.test_medoids import proxies


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_equals_brute_force(form: str) -> None:
    points, medoids = proxies(form, 3000, 1), proxies(form, 100, 2)
    found, distance = nearest(points, medoids)
    matrix = points.distances(medoids)
    torch.testing.assert_close(distance, matrix.min(1).values, rtol=1e-4, atol=1e-6)
    # Up to ties: what was found is as near as the nearest.
    mine = matrix.gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(mine, matrix.min(1).values, rtol=1e-4, atol=1e-6)
    assert (found == matrix.argmin(1)).float().mean() > 0.99


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_agrees_with_the_greedy_up_to_ties(form: str) -> None:
    points = proxies(form, 800)
    medoids = greedy_medoids(points.distances(), 80)
    found, distance = nearest(points, points[medoids.indices])
    torch.testing.assert_close(distance, medoids.distances, rtol=1e-4, atol=1e-5)
    differ = found != medoids.nearest
    sizes = torch.bincount(found, minlength=80)
    assert differ.float().mean() < 0.01
    assert (sizes - medoids.sizes).abs().sum() <= 2 * differ.sum()


def test_far_from_the_origin() -> None:
    points = Proxies(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) + 1000)
    chosen = torch.arange(0, 500, 10)
    found, _ = nearest(points, points[chosen])
    matrix = points.distances(points[chosen])
    mine = matrix.gather(1, found[:, None])[:, 0]
    torch.testing.assert_close(mine, matrix.min(1).values, rtol=1e-4, atol=1e-4)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="same widths"):
        nearest(Proxies(torch.zeros(3, 2)), Proxies(torch.zeros(1, 3)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", ["vector", "outer"])
def test_gpu_index_agrees_with_the_cpu(form: str) -> None:
    points = proxies(form, 5000, 1)
    chosen = torch.arange(0, 5000, 50)
    features = points.features
    there = Proxies(points.gradient.cuda(), None if features is None else features.cuda())
    _, here_distance = nearest(points, points[chosen])
    found, distance = nearest(there, there[chosen])
    assert found.is_cuda
    torch.testing.assert_close(distance.cpu(), here_distance, rtol=1e-4, atol=1e-5)
