"""The matrix-free engine: a few medoids from a sample, then all pairs block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from augloader.core.compiled import Doubles, Floats, Ints, Longs, threads
from augloader.core.proxies import Proxies
from augloader.selection.greedy import kernels
from augloader.selection.greedy.dense import dense_medoids
from augloader.selection.greedy.medoids import Medoids, Progress, enough, offsets, scanned
from augloader.selection.greedy.memory import (
    BLOCK,
    DENSE,
    ENTRY,
    NoRoom,
    matrix_free_bytes,
    too_small,
)
from augloader.selection.greedy.neighbors import Factors
from augloader.selection.greedy.transfer import fetched, sent

Listed = tuple[Ints, Floats, Longs]  # candidates, their distances, how many a row

SAMPLE = 8_192  # points that the first medoids are chosen on
_SEEDS = 16  # medoids chosen on the sample, at least
_BALL = 512  # entries a ball may have on average before there are more seeds


def matrix_free_medoids(
    proxies: Proxies, budget: int, xi: float, given: Longs, limit: int, rng: np.random.Generator
) -> Medoids:
    """Take the medoids without holding the distances; see ``facility_location``."""
    seeds = _enough_seeds(proxies, budget, given, limit, rng)
    run = begin_from(proxies, budget, seeds, xi)
    if run.step < len(seeds) or run.step == budget:
        gain = final_gains(proxies, run)
    else:
        parts = [(ids, values, counts) for _, counts, ids, values in _balls(proxies, run.best)]
        ids, values, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        del parts
        gain = run.finish(offsets(counts), ids, values, xi)
    return run.medoids(gain, f"{run.seeds} of {run.step} medoids chosen on a sample")


def _enough_seeds(
    proxies: Proxies, budget: int, given: Longs, limit: int, rng: np.random.Generator
) -> Longs:
    """Choose so many medoids on a sample that the average ball has room; as few as possible.

    Those given come first; 16 or more of them are taken as they are.
    """
    n, seeds = len(proxies), given
    least = matrix_free_bytes(n, sum(proxies.widths))  # with balls of 16
    room = min(_BALL, 16 + (limit - least) // (ENTRY * n))
    if len(given) < _SEEDS:
        size = min(SAMPLE, isqrt(limit // 8))
        seeds = on_sample(proxies, min(budget, size, 1024), given, size, limit, rng)
    probe = torch.from_numpy(rng.choice(n, min(n, 64), replace=False))
    rows = proxies[probe].distances(proxies).cpu()
    nearest_so_far = rows[:, torch.from_numpy(seeds)].cummin(1).values.numpy()
    count = min(max(_SEEDS, len(given)), len(seeds))
    while True:
        ball = kernels.below(rows.numpy(), nearest_so_far[:, count - 1].copy()) / len(probe)
        if ball <= room or count == len(seeds):
            break
        count = min(2 * count, len(seeds))
    least += int((ball - 16) * ENTRY * n)
    if count < budget and least > limit:
        raise NoRoom(too_small(n, limit, f"matrix-free needs about {least:,}"))
    return seeds[:count]


def on_sample(
    proxies: Proxies,
    budget: int,
    given: Longs,
    size: int,
    limit: int,
    rng: np.random.Generator,
) -> Longs:
    """Choose medoids among a random sample, by the exact greedy on it, beginning with the given."""
    n = len(proxies)
    drawn = rng.choice(n, min(max(size, budget), n), replace=False)
    sample = np.union1d(drawn, given)
    start = np.searchsorted(sample, given)
    points = proxies[torch.from_numpy(sample)]
    if len(sample) <= DENSE:
        found = dense_medoids(points.distances(), budget, None, start)
    else:
        found = matrix_free_medoids(points, budget, -1.0, start, limit, rng)
    order: Longs = sample[found.indices.numpy()]
    return order


def begin_from(proxies: Proxies, budget: int, seeds: Longs, xi: float) -> Progress:
    """Begin with given medoids, as many of them as xi asks for.

    c1 is twice the largest distance to the first: no distance is larger, by the triangle.
    """
    n = len(proxies)
    chosen = proxies[torch.from_numpy(seeds)]
    rows = max(1, min(4096, BLOCK // len(seeds)))

    def blocks() -> Iterator[tuple[int, Tensor]]:
        for first in range(0, n, rows):
            part = torch.arange(first, min(first + rows, n), device="cpu")
            yield first, proxies[part].distances(chosen).cpu()

    if xi >= 0:
        errors = sum(block.cummin(1).values.double().sum(0) for _, block in blocks())
        seeds = enough(seeds, torch.as_tensor(errors, device="cpu").numpy(), xi)
        chosen = proxies[torch.from_numpy(seeds)]
    centre = proxies[torch.from_numpy(seeds[:1])]
    parts = torch.arange(n, device="cpu").split(BLOCK // 16)
    farthest = max(float(proxies[part].distances(centre).max()) for part in parts)
    run = Progress.of(n, budget, 2 * farthest)
    run.seeded(seeds, (run.meet(block.numpy(), first, seeds) for first, block in blocks()))
    return run


def _balls(proxies: Proxies, radii: Floats) -> Iterator[tuple[int, Longs, Ints, Floats]]:
    """Yield, block by block, (first row, sizes, candidates, distances) of the points' balls.

    Squared distances come from float32 products, on a GPU float64, less a bound on their rounding
    error, so that no candidate is lost; those that are found are then made exact on the CPU.
    """
    factors, device = Factors.of(proxies), proxies.device
    n, wide, here = len(factors), factors.h.shape[1], device.type == "cpu"
    norms, left, right = factors.norms, *map(torch.from_numpy, (factors.g, factors.h))
    if not wide:  # small norms keep the products exact
        exact = left.double()
        left = (exact - exact.mean(0)).float()
        norms = left.double().square().sum(1).numpy()
    g, h = sent(left, device), sent(right, device)
    if not here:  # whose products of float32 may be rounded to TF32
        g, h = g.double(), h.double()
    # Of the sum of two squared norms; centring has rounded by at most half a float32's unit each.
    error = (g.shape[1] + wide + 16) * torch.finfo(g.dtype).eps + 4 * torch.finfo(torch.float).eps
    lower = norms * (1 - error)
    limits = torch.from_numpy(radii.astype(np.float64) ** 2 - lower).to(g.dtype)
    bias = sent(torch.from_numpy(lower).to(g.dtype), device)
    rows = max(16, min(1024, BLOCK // n))
    left, right = -2 * g, g.T.contiguous()
    if not wide:  # the bias as one more column: all the work is the product's
        left = torch.cat([left, left.new_ones(n, 1)], 1)
        right = torch.cat([right, bias[None]])
    products, limits = left.new_empty(rows, n), sent(limits, device)

    def ball(first: int, listed: Callable[[], Listed]) -> tuple[int, Longs, Ints, Floats]:
        ids, values, counts = listed()
        kept = factors.refine(first, radii[first : first + len(counts)], ids, values, counts)
        return first, counts, ids[:kept], values[:kept]

    with threads() as pool:
        share = -(-rows // torch.get_num_threads())
        for first in range(0, n, rows):
            block = torch.mm(left[first : first + rows], right, out=products[: n - first])
            if wide:
                block.mul_(h[first : first + rows] @ h.T).add_(bias)
            most = limits[first : first + rows]
            parts = list(zip(block.split(share), most.split(share), strict=True))
            listed: Sequence[Callable[[], Listed]] = (
                [partial(scanned, *(x.numpy() for x in part)) for part in parts]
                if here
                else _listed(parts)
            )
            yield from pool.map(ball, range(first, first + len(block), share), listed)


def _listed(parts: Sequence[tuple[Tensor, Tensor]]) -> list[Callable[[], Listed]]:
    """Return what ``scanned`` returns of rows on a device, but for the values."""
    found = []
    for rows, limits in parts:
        below = rows < limits[:, None]
        found += [below.nonzero()[:, 1].int(), below.sum(1)]
    arrays = [x.numpy() for x in fetched(found)]
    pairs = zip(arrays[::2], arrays[1::2], strict=True)
    return [partial(_with_room, ids, counts) for ids, counts in pairs]


def _with_room(ids: Ints, counts: Longs) -> Listed:
    return ids, np.empty(len(ids), np.float32), counts


def final_gains(proxies: Proxies, run: Progress) -> Doubles:
    """Return every candidate's marginal gain, -inf for medoids, without holding the balls."""
    gain = run.masked
    for first, counts, ids, values in _balls(proxies, run.best):
        own = np.repeat(run.best[first : first + len(counts)], counts).astype(np.float64)
        np.add.at(gain, ids, own - values)
    return gain
