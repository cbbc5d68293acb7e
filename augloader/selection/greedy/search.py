"""The nearest of some vectors: by FAISS, or by PyTorch on a GPU that FAISS was not built for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from augloader.core.blocks import row_blocks
from augloader.core.compiled import Floats, Longs
from augloader.selection.budget import allocate
from augloader.selection.greedy.memory import BLOCK

Search = Callable[[Tensor, int], Tensor]  # (queries, k) -> (q, k) int64, nearest first
_MANY = 100_000  # points from which twice as many lists are searched
_LISTS = 1000  # from which on they are found by an inverted file of their centres
_COLUMNS = 2**16  # points compared at a time
_NUMBERS = 2**24  # of vectors that are converted at a time
_TRAINING, _ROUNDS = 64, 6  # of k-means: vectors a list, iterations
_SCRATCH = 2**28  # bytes of a GPU that FAISS keeps; by itself it takes six times as many


def index(vectors: Tensor, flat: bool) -> tuple[Search, bool]:
    """Index vectors on their device, for queries on the same.

    FAISS gets them centred, which keeps the digits of near neighbours in float32, and a block at a
    time: a memory-mapped array is never held whole.

    Args:
        vectors: (n, d) floating.
        flat: compare all pairs; else search an inverted file.

    Returns:
        The search, which says -1 where it finds too few, and leaves the order of ties open; and
        whether it compares all pairs, as PyTorch always does.

    Cost: q n d of a search that compares all pairs; 4 n d bytes; on a GPU FAISS keeps 256 MB more.
    """
    device, (n, d) = vectors.device, vectors.shape
    on_gpu = device.type == "cuda"
    if on_gpu and not faiss.get_num_gpus():
        return lambda queries, k: compared(queries, vectors, k), True
    blocks = list(row_blocks(n, d, _NUMBERS))
    centre = torch.stack([vectors[rows].double().sum(0) for rows in blocks]).sum(0) / n

    def given(x: Tensor) -> Any:
        centred = (x.double() - centre).float()
        return centred if on_gpu else centred.numpy()

    found: Any = faiss.IndexFlatL2(d)
    if not flat:
        lists, probes = min(int(4 * n**0.5), n // 512), 8 if n < _MANY else 16
        some = np.random.default_rng(0).permutation(n)[: _TRAINING * lists]
        sample = given(vectors[torch.from_numpy(some).to(device)])
        if not on_gpu:
            inverted = _Inverted(vectors, given, _centres(sample, lists), probes)
            return lambda queries, k: torch.from_numpy(inverted.search(given(queries), k)), False
        found = faiss.IndexIVFFlat(found, d, lists)
        found.cp.niter, found.cp.max_points_per_centroid = _ROUNDS, _TRAINING
        found.cp.min_points_per_centroid, found.nprobe = 1, probes
    if on_gpu:
        place = device.index or 0
        found = faiss.index_cpu_to_gpu(_resources(place), place, found)
    if not flat:
        found.train(sample)
    for rows in blocks:
        found.add(given(vectors[rows]))

    def search(queries: Tensor, k: int) -> Tensor:
        return torch.as_tensor(found.search(given(queries), k)[1], device=device)

    return search, flat


class _Inverted:
    """An inverted file, searched list by list for many queries at once.

    A list is then one product of matrices, where FAISS's own search compares one query after the
    other.

    Args:
        vectors: (n, d), on the CPU.
        given: returns some of them centred, float32.
        centres: FAISS's index of the centres of the lists.
        probes: number of lists that are searched for a query.
    """

    def __init__(
        self, vectors: Tensor, given: Callable[[Tensor], Floats], centres: Any, probes: int
    ) -> None:
        self._centres, self._probes = centres, min(probes, centres.ntotal)
        blocks = list(row_blocks(len(vectors), vectors.shape[1], _NUMBERS))
        own = np.concatenate([self._lists(given(vectors[rows]), 1)[:, 0] for rows in blocks])
        self._ids = own.argsort(kind="stable")
        self._starts = np.searchsorted(own[self._ids], np.arange(centres.ntotal + 1))
        self._points = np.empty(vectors.shape, np.float32)
        for rows in blocks:
            self._points[rows] = given(vectors[torch.from_numpy(self._ids[rows])])

    def _lists(self, points: Floats, count: int) -> Longs:
        """Return the nearest lists, -1 where too few are found."""
        found: Longs = self._centres.search(points, count)[1]
        return found

    def search(self, queries: Floats, k: int) -> Longs:
        """Return each query's k nearest in its lists, nearest first, -1 where these have fewer."""
        lists = self._lists(queries, self._probes)
        order = lists.reshape(-1).argsort(kind="stable")
        ends = np.searchsorted(lists.reshape(-1)[order], np.arange(len(self._starts)))
        heaps: Any = faiss.ResultHeap(len(queries), k)
        for number, (first, last) in enumerate(pairwise(ends)):
            own = slice(*self._starts[number : number + 2])
            if own.start == own.stop:
                continue
            centre = self._centres.reconstruct(number)  # small norms keep the product exact
            points, rows = self._points[own] - centre, max(1, BLOCK // (own.stop - own.start))
            for start in range(first, last, rows):
                some = order[start : min(start + rows, last)] // self._probes
                squares = _squares(queries[some] - centre, points)
                heaps.add_result_subset(some, squares, self._ids[own])
        heaps.finalize()
        found: Longs = heaps.I
        return found


def _centres(sample: Floats, lists: int) -> Any:
    """Index the centres of lists; many are k-means of k-means, in an inverted file of their own."""
    if lists < _LISTS:
        return _flat(_kmeans(sample, lists))
    outer = _flat(_kmeans(sample, int(4 * lists**0.5)))
    groups = outer.assign(sample, 1)[:, 0]
    present, sizes = np.unique(groups, return_counts=True)
    shares = allocate(sizes.tolist(), lists, "proportional")
    found: Any = faiss.IndexIVFFlat(outer, outer.d, outer.ntotal)
    found.nprobe, found.is_trained = 8, True
    for group, share in zip(present, shares, strict=True):
        found.add(_kmeans(sample[groups == group], share))
    found.make_direct_map()  # a list's centre is read from it
    return found


def _kmeans(x: Floats, count: int) -> Floats:
    """Return at most ``count`` means: those that a vector is nearest to.

    Of duplicates there would be many alike, and of those a search looks at a few.
    """
    options = {"min_points_per_centroid": 1, "max_points_per_centroid": len(x)}
    means: Any = faiss.Kmeans(x.shape[1], count, niter=_ROUNDS, **options)
    means.train(x)
    found: Floats = means.centroids[np.unique(means.assign(x)[1])]
    return found


def _flat(points: Floats) -> Any:
    index: Any = faiss.IndexFlatL2(points.shape[1])
    index.add(points)
    return index


def _squares(left: Floats, right: Floats) -> Floats:
    """Return squared distances as one product of matrices; FAISS's own takes five times as long.

    ||x - y||^2 = [x, ||x||^2, 1] . [-2 y, 1, ||y||^2]
    """
    x, y = torch.from_numpy(left), torch.from_numpy(right)
    ones = x.new_ones(max(len(x), len(y)), 1)
    norms = x.square().sum(1, keepdim=True), y.square().sum(1, keepdim=True)
    squares: Floats = (
        torch.cat([x, norms[0], ones[: len(x)]], 1)
        .mm(torch.cat([-2 * y, ones[: len(y)], norms[1]], 1).T)
        .numpy()
    )
    return squares


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
