"""The nearest of some vectors: by FAISS, or by PyTorch on a GPU that FAISS was not built for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import faiss
import torch
from faiss.contrib import big_batch_search
from torch import Tensor

from augloader.core.compiled import Floats, Longs
from augloader.selection.greedy.memory import BLOCK

Search = Callable[[Tensor, int], Tensor]  # (queries, k) -> (q, k) int64, nearest first
_MANY = 100_000  # points from which twice as many lists are searched
_COLUMNS = 2**16  # points compared at a time
_SCRATCH = 2**28  # bytes of a GPU that FAISS keeps; by itself it takes six times as many


def index(vectors: Tensor, flat: bool) -> tuple[Search, bool]:
    """Index float32 vectors on their device, for queries on the same.

    Args:
        vectors: (n, d) float32.
        flat: compare all pairs; else search an inverted file.

    Returns:
        The search, which says -1 where it finds too few, and leaves the order of ties open; and
        whether it compares all pairs, as PyTorch always does.

    Cost: q n d of a search that compares all pairs. FAISS gets tensors of a GPU as they are, and
    on each GPU keeps 256 MB.
    """
    device, (n, d) = vectors.device, vectors.shape
    on_gpu = device.type == "cuda"
    if on_gpu and not faiss.get_num_gpus():
        return lambda queries, k: compared(queries, vectors, k), True
    found: Any = faiss.IndexFlatL2(d)
    if not flat:
        found = faiss.IndexIVFFlat(found, d, min(int(4 * n**0.5), n // 512))
        found.cp.niter, found.cp.max_points_per_centroid = 6, 64
        found.cp.min_points_per_centroid = 1
        found.nprobe = 8 if n < _MANY else 16
    if on_gpu:
        place = device.index or 0
        found = faiss.index_cpu_to_gpu(_resources(place), place, found)

    def given(x: Tensor) -> Any:
        return x.contiguous() if on_gpu else x.numpy()

    found.train(given(vectors))
    found.add(given(vectors))

    def search(queries: Tensor, k: int) -> Tensor:
        if not flat and not on_gpu:
            return torch.from_numpy(_by_lists(found, given(queries), k))
        return torch.as_tensor(found.search(given(queries), k)[1], device=device)

    return search, flat


def _by_lists(inverted: Any, queries: Floats, k: int) -> Longs:
    """Return what the inverted file's search returns, one list after the other for all queries.

    A list is then one product of matrices, which takes a third of the time that a query after the
    other takes.
    """
    batch: Any = big_batch_search
    search = batch.BigBatchSearcher(inverted, queries, k)
    pairs = batch.BlockComputer(inverted, method="pairwise_distances")
    search.decode_func, search.by_residual = pairs.decode_func, pairs.by_residual
    search.coarse_quantization()
    search.reorder_assign()
    for number in range(inverted.nlist):
        here, some, ids, points = search.prepare_bucket(number)
        centre = inverted.quantizer.reconstruct(number)  # small norms keep the product exact
        distances, _ = pairs.block_search(some - centre, points - centre, ids, k)
        search.add_results_to_heap(here, distances, ids, None)
    search.rh.finalize()
    found: Longs = search.rh.I
    return found


def compared(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Return the k <= n nearest points of every query, (q, k) int64, nearest first.

    All pairs are compared in float64, block by block, on the tensors' device.

    Cost: O(q n d); memory beside the results about 100 MB.
    """
    points = points.double()
    norms, columns = points.square().sum(1), max(_COLUMNS, k)
    found = []
    for some in queries.double().split(max(1, BLOCK // min(len(points), columns))):
        far, ids = some.new_empty(len(some), 0), norms.new_empty(len(some), 0, dtype=torch.int64)
        for first, part in zip(range(0, len(points), columns), points.split(columns), strict=True):
            # but for the query's own norm, which changes no order
            more = norms[first : first + columns] - 2 * (some @ part.T)
            numbers = torch.arange(first, first + len(part), device=ids.device)
            far = torch.cat([far, more], 1)
            ids = torch.cat([ids, numbers.expand(len(some), -1)], 1)
            far, order = far.topk(min(k, far.shape[1]), largest=False)
            ids = ids.gather(1, order)
        found.append(ids)
    return torch.cat(found)


@cache
def _resources(place: int) -> Any:
    """Return FAISS's streams and memory on a GPU, made once; from then on it takes tensors."""
    importlib.import_module("faiss.contrib.torch_utils")
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH)
    return resources
