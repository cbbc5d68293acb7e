"""The search for nearest vectors: PyTorch's against FAISS's, and FAISS on a GPU, pretended."""

from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from augloader import Proxies
from augloader.selection import nearest
from augloader.selection.greedy import search
from augloader.selection.greedy.neighbors import neighbor_graph
from augloader.selection.greedy.search import compared, index
from tests.selection.greedy.test_medoids import proxies


def vectors(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("block", "columns"), [(2**22, 2**16), (100, 7), (1, 64), (10**4, 1)])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_all_pairs_in_any_blocks(
    block: int, columns: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BLOCK", block)
    monkeypatch.setattr(search, "_COLUMNS", columns)
    points, queries = vectors(60), vectors(23, 1)
    order = torch.cdist(queries.double(), points.double()).argsort(1)[:, :k]
    assert torch.equal(compared(queries, points, k), order)
    assert compared(queries[:0], points, k).shape == (0, k)


def test_equals_faiss_where_all_pairs_are_compared() -> None:
    points = vectors(300)
    found, all_pairs = index(points, flat=True)
    assert all_pairs
    assert torch.equal(found(points[:50], 9), compared(points[:50], points, 9))


@pytest.mark.parametrize("form", ["vector", "outer"])
def test_a_gpu_without_faiss_finds_what_the_cpu_finds(form: str, gpu: Any) -> None:
    points = proxies(form, 400)
    features = None if points.features is None else points.features.cuda()
    there = Proxies(points.gradient.cuda(), features)
    here, found = neighbor_graph(points, 20), neighbor_graph(there, 20)
    assert np.array_equal(found.distances, here.distances)
    assert (found.ids == here.ids).mean() > 0.99  # but for ties
    assert found.exact == here.exact == (form == "vector")
    chosen = torch.arange(0, 400, 13)
    near, far = nearest(there, there[chosen])
    assert near.is_cuda
    assert far.is_cuda
    torch.testing.assert_close(far.cpu(), nearest(points, points[chosen])[1])


class OnGpu:
    """An index on a GPU: takes and returns its tensors, as faiss.contrib.torch_utils has it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def train(self, x: Tensor) -> None:
        assert x.is_cuda
        assert x.is_contiguous()
        self.inner.train(x.cpu().numpy())

    def add(self, x: Tensor) -> None:
        assert x.is_cuda
        self.inner.add(x.cpu().numpy())

    def search(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        assert x.is_cuda
        assert x.is_contiguous()
        far, ids = self.inner.search(x.cpu().numpy(), k)
        return torch.from_numpy(far).cuda(), torch.from_numpy(ids).cuda()


def test_faiss_on_a_gpu_gets_tensors_and_one_set_of_resources(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, placed = [], []

    class Resources:
        def __init__(self) -> None:
            made.append(self)

        def setTempMemory(self, size: int) -> None:
            assert size == 2**28

    def to_gpu(resources: Any, place: int, inner: Any) -> OnGpu:
        placed.append((resources, place))
        return OnGpu(inner)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    monkeypatch.setattr("importlib.import_module", lambda name: None)
    search._resources.cache_clear()
    try:
        for n in (400, 9000):
            points = vectors(n)
            there = Proxies(points.cuda())
            here, found = neighbor_graph(Proxies(points), 10), neighbor_graph(there, 10)
            same = here.ids == found.ids
            assert same.all() if n == 400 else same.mean() > 0.99  # but for ties
            assert here.exact == found.exact == (n == 400)
        assert nearest(there, there[torch.tensor([0, 2])])[0].is_cuda
    finally:
        search._resources.cache_clear()
    assert len(made) == 1
    assert placed == [(made[0], 0)] * 3
