"""Facility location on proxies: which engine, and the engines that hold no n x n distances.

All end in the same greedy over balls, the candidates nearer to a point than its medoid. They differ
in how the balls are found: *dense* from the matrix of distances after a few exact steps,
*matrix-free* block by block after a few medoids that were chosen on a sample, *graph* from each
point's nearest neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, isqrt, log
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from augloader import kernels
from augloader.checks import require_fraction, require_int, require_one_of
from augloader.kernels import Doubles, Floats, Ints, Longs, threads
from augloader.medoids import (
    Medoids,
    Progress,
    batched_medoids,
    check_budget,
    check_start,
    enough,
    greedy_medoids,
    offsets,
    scanned,
)
from augloader.neighbors import Factors, nearest, neighbor_graph
from augloader.progress import progress
from augloader.proxies import Proxies

Engine = Literal["auto", "dense", "matrix-free", "graph"]
ENGINES = ("auto", "dense", "matrix-free", "graph")

_DENSE = 16_384  # auto: the largest group whose distances are held
_WORK = 5e11  # auto: the largest n^2 (d + 32) compared pair by pair, about 10 s on two cores
_SAMPLE = 8_192  # points that the first medoids are chosen on
_SEEDS = 16  # medoids chosen on the sample, at least
_BALL = 512  # entries a ball may have on average before there are more seeds
_BLOCK = 4 * 2**20  # entries of a block of distances
_ENTRY = 20  # bytes that an entry of a ball takes at the peak
_ANCHORS = 32, 512  # of the graph: medoids chosen on the sample, at first and if that is poor
_POOR = 0.01  # share of points beyond their neighbours' reach that counts as poor coverage


def facility_location(
    proxies: Proxies,
    budget: int,
    *,
    engine: Engine = "auto",
    memory_limit: int | None = None,
    xi: float | None = None,
    stochastic: float | None = None,
    start: Tensor | None = None,
    seed: int = 0,
) -> Medoids:
    """Take the medoids of one group of proxies greedily, whatever its size.

    - ``"dense"`` holds all distances, 4 n^2 bytes and up to half as much for the balls; exact.
    - ``"matrix-free"`` chooses at least 16 medoids on a sample of 8,192 points and goes on exactly,
      comparing all pairs twice in blocks; it holds the balls only, 20 bytes an entry.
    - ``"graph"`` takes all but at most 32 medoids by the greedy on the graph of each point's 32 to
      128 nearest neighbours, and assigns points that no neighbour covers by a search. Where more
      than 1 % are not covered it runs again from up to 512 medoids of the sample, counting the full
      distances to them, and keeps the better result. Budgets too small for the neighbours of all
      medoids to be half of the points are chosen on a sample.
    - ``"auto"`` takes the first of them that fits: dense up to 16,384 points, matrix-free while
      n^2 (d + 32) is at most 5e11, both within the memory limit; else graph.

    Args:
        proxies: of n samples, of either form; on a GPU the dense engine and FAISS's searches run
            there, all else on the CPU.
        budget: number of medoids, 1 to n.
        engine: as above.
        memory_limit: bytes; None takes a quarter of the free memory.
        xi: stop as soon as ||G_S||_F <= xi (Eq. 9), in units of proxy distance.
        stochastic: epsilon in (0, 1); compare only (n / k) ln(1 / epsilon) random candidates in
            each step, which reaches (1 - 1/e - epsilon) of the optimum in expectation. For
            comparisons: the exact engines are faster. None compares all.
        start: (s,) int64 medoids to begin with, as those of an earlier selection.
        seed: of samples, projections and random candidates.

    Returns:
        Medoids, on the CPU, with ``engine`` and ``reason``.

    Raises:
        TypeError, ValueError: options outside their range; a memory limit that no engine, or not
            the chosen one, fits (the message names the least it needs).

    Cost: dense and matrix-free O(n^2 d); graph about O(n^1.5 d).

    Example:
        >>> found = facility_location(Proxies(torch.tensor([[0.0], [1.0], [2.0], [9.0]])), 2)
        >>> found.indices.tolist(), found.sizes.tolist(), found.engine
        ([1, 3], [3, 1], 'dense')

    Source: Liu & Mirzasoleiman (2022), Alg. 1; stochastic greedy of Mirzasoleiman et al. (2015).
    """
    n = len(proxies)
    check_budget(n, budget, xi)
    check_options(engine, memory_limit, stochastic)
    given = check_start(start, n, budget)
    limit = free_memory(torch.device("cpu")) // 4 if memory_limit is None else memory_limit
    xi2 = -1.0 if xi is None else xi**2

    def run(name: str) -> Medoids:
        rng = np.random.default_rng(seed)
        if stochastic is not None:
            return _stochastic(proxies, budget, xi2, stochastic, given, name == "dense", rng)
        if name == "dense":
            first = torch.from_numpy(given) if len(given) else None
            distances = proxies.distances() if first is None else proxies.distances().cpu()
            return greedy_medoids(distances, budget, xi=xi, start=first)
        if name == "matrix-free":
            return _matrix_free(proxies, budget, xi2, given, limit, rng)
        return _graph(proxies, budget, xi2, given, limit, seed, rng)

    name, reason = _choose(proxies, budget, engine, limit)
    try:
        found = run(name)
    except _NoRoom:
        if engine != "auto":
            raise
        name, _ = _choose(proxies, budget, "graph", limit)
        reason = f"n = {n:,}: the balls of all pairs do not fit"
        found = run(name)
    more = f"; {found.reason}" if found.reason else ""
    return replace(found, engine=name, reason=reason + more)


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be selected of one group.

    Attributes:
        members: (n,) int64, the indices of its samples in the data set.
        share: number of medoids.
        start: (s,) int64, positions among the members of medoids to begin with.
        seed: of samples and projections.
    """

    members: Tensor
    share: int
    start: Tensor
    seed: int


def facility_locations(
    tasks: Sequence[Task],
    proxies_of: Callable[[Task], Proxies],
    device: torch.device,
    *,
    engine: Engine,
    memory_limit: int | None,
    xi: float | None,
    stochastic: float | None,
) -> list[Medoids]:
    """Take the medoids of many groups: one after the other, or on a GPU all that fit at once.

    Groups that run at once are padded to the largest of them, which is less than twice the
    smallest.

    Args:
        tasks: what to select of each group.
        proxies_of: returns a group's proxies; called once a group.
        device: where the proxies are.
        engine: see ``facility_location``, as for the other options.
        memory_limit: bytes that one group, or what runs at once, may take; None: a quarter of what
            is free.
        xi: stop a group at this error.
        stochastic: epsilon, or None.

    Returns:
        Medoids of each group.

    Cost: as ``facility_location`` and ``batched_greedy``.
    """
    found: dict[int, Medoids] = {}
    if device.type == "cuda" and stochastic is None and engine in ("auto", "dense"):
        limit = free_memory(device) // 4 if memory_limit is None else memory_limit
        found = _at_once(tasks, proxies_of, device, limit, xi)
    for t, task in enumerate(progress(tasks, "selection")):
        if t not in found:
            found[t] = facility_location(
                proxies_of(task),
                task.share,
                engine=engine,
                memory_limit=memory_limit,
                xi=xi,
                stochastic=stochastic,
                start=task.start,
                seed=task.seed,
            )
    return [found[t] for t in range(len(tasks))]


def _at_once(
    tasks: Sequence[Task],
    proxies_of: Callable[[Task], Proxies],
    device: torch.device,
    limit: int,
    xi: float | None,
) -> dict[int, Medoids]:
    """Take the medoids of all groups that fit, by their numbers, many groups at a time."""
    found: dict[int, Medoids] = {}
    for bucket in _buckets(tasks, limit):
        sizes = [len(tasks[t].members) for t in bucket]
        distances = torch.zeros(len(bucket), sizes[0], sizes[0], device=device)
        for place, t in enumerate(bucket):
            distances[place, : sizes[place], : sizes[place]] = proxies_of(tasks[t]).distances()
        medoids = batched_medoids(distances, sizes, [tasks[t].share for t in bucket], xi)
        reason = f"{len(bucket):,} groups of up to {sizes[0]:,} at once on {device.type}"
        found |= {t: replace(m, reason=reason) for t, m in zip(bucket, medoids, strict=True)}
    return found


def _buckets(tasks: Sequence[Task], limit: int) -> list[list[int]]:
    """Return which groups run at once: of like sizes, the largest first, within the limit."""
    order = sorted(range(len(tasks)), key=lambda t: -len(tasks[t].members))
    buckets: list[list[int]] = []
    for t in order:
        n = len(tasks[t].members)
        if 4 * n**2 > limit or len(tasks[t].start):
            continue
        widest = len(tasks[buckets[-1][0]].members) if buckets else 0
        if not buckets or 2 * n <= widest or 4 * widest**2 * (len(buckets[-1]) + 1) > limit:
            buckets.append([])
        buckets[-1].append(t)
    return buckets


def check_options(engine: str, memory_limit: int | None, stochastic: float | None) -> None:
    """Raise unless the options are within their range."""
    require_one_of("engine", engine, ENGINES)
    if memory_limit is not None:
        require_int("memory_limit", memory_limit, 1, "Give the limit in bytes.")
    if stochastic is not None and require_fraction("stochastic", stochastic) == 1:
        raise ValueError("stochastic must be in (0, 1), got 1. Give epsilon, as 0.1.")


def _choose(proxies: Proxies, budget: int, engine: Engine, limit: int) -> tuple[str, str]:
    """Return the engine for a group of proxies, and why.

    Raises:
        ValueError: the memory limit is too small; the message names the least.
    """
    n, d = len(proxies), sum(proxies.widths)
    needs = {
        "dense": _dense_bytes(n),
        "matrix-free": _free_bytes(n, d),
        "graph": _graph_bytes(n, d, budget),
    }
    if engine != "auto":
        if needs[engine] > limit:
            raise ValueError(_too_small(n, limit, f"{engine} needs {needs[engine]:,}"))
        return engine, f"{engine} as asked for"
    fits = [name for name in needs if needs[name] <= limit]
    quick = n**2 * (d + 32) <= _WORK
    if "dense" in fits and n <= _DENSE:
        return "dense", f"n = {n:,}: all distances are held"
    if "matrix-free" in fits and (quick or "graph" not in fits):
        return "matrix-free", f"n = {n:,}, d = {d}: all pairs are compared, none are held"
    if "graph" in fits:
        return "graph", f"n = {n:,}, d = {d}: too many pairs to compare"
    least = min(needs, key=lambda name: needs[name])
    raise ValueError(_too_small(n, limit, f"the least, {least}, needs {needs[least]:,}"))


def _too_small(n: int, limit: int, need: str) -> str:
    return (
        f"memory_limit must hold what the engine needs for {n:,} samples, got {limit:,} bytes: "
        f"{need}. Raise the limit, or split the samples into more labels."
    )


def _dense_bytes(n: int) -> int:
    """Return what the dense engine takes: the distances and balls of an eighth as many entries."""
    return 4 * n**2 + _ENTRY * n**2 // 8


def _free_bytes(n: int, d: int) -> int:
    """Return the least of the matrix-free engine: layout, blocks, and balls of 16 a point."""
    return n * (8 * d + 64) + 12 * max(_BLOCK, 16 * n) + 16 * _ENTRY * n


def _graph_bytes(n: int, d: int, budget: int) -> int:
    """Return what the graph engine takes: layout, index, neighbours and their transpose."""
    return n * (12 * d + 64 + 16 * _neighbors(n, budget))


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device, within the limits of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    found = re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text()) if meminfo.exists() else None
    free = int(found[1]) * 1024 if found else 16 * 2**30
    most = group / "memory.max"
    if most.exists() and most.read_text().strip() != "max":
        used = int((group / "memory.current").read_text())
        free = min(free, max(int(most.read_text()) - used, 0))
    return free


# Matrix-free --------------------------------------------------------------------------------------


class _NoRoom(ValueError):
    """The balls do not fit, which is known only after the sample."""


def _matrix_free(
    proxies: Proxies, budget: int, xi2: float, given: Longs, limit: int, rng: np.random.Generator
) -> Medoids:
    seeds = _enough_seeds(proxies, budget, given, limit, rng)
    run = _seeded(proxies, budget, seeds, xi2)
    if run.step < len(seeds) or run.step == budget:
        gain = _gains(proxies, run)
    else:
        parts = [(ids, values, counts) for _, counts, ids, values in _balls(proxies, run.best)]
        ids, values, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
        del parts
        gain = run.finish(offsets(counts), ids, values, xi2)
    return run.medoids(gain, f"{run.seeds} of {run.step} medoids chosen on a sample")


def _enough_seeds(
    proxies: Proxies, budget: int, given: Longs, limit: int, rng: np.random.Generator
) -> Longs:
    """Choose so many medoids on a sample that the average ball has room; as few as possible.

    Those given come first; 16 or more of them are taken as they are.
    """
    n, seeds = len(proxies), given
    least = _free_bytes(n, sum(proxies.widths))  # with balls of 16
    room = min(_BALL, 16 + (limit - least) // (_ENTRY * n))
    if len(given) < _SEEDS:
        size = min(_SAMPLE, isqrt(limit // 8))
        seeds = _on_sample(proxies, min(budget, size, 1024), given, size, limit, rng)
    probe = torch.from_numpy(rng.choice(n, min(n, 64), replace=False))
    rows = proxies[probe].distances(proxies).cpu()
    nearest_so_far = rows[:, torch.from_numpy(seeds)].cummin(1).values.numpy()
    count = min(max(_SEEDS, len(given)), len(seeds))
    while True:
        ball = kernels.below(rows.numpy(), nearest_so_far[:, count - 1].copy()) / len(probe)
        if ball <= room or count == len(seeds):
            break
        count = min(2 * count, len(seeds))
    least += int((ball - 16) * _ENTRY * n)
    if count < budget and least > limit:
        raise _NoRoom(_too_small(n, limit, f"matrix-free needs about {least:,}"))
    return seeds[:count]


def _on_sample(
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
    if len(sample) <= _DENSE:
        first = torch.from_numpy(start) if len(start) else None
        found = greedy_medoids(points.distances().cpu(), budget, start=first)
    else:
        found = _matrix_free(points, budget, -1.0, start, limit, rng)
    order: Longs = sample[found.indices.numpy()]
    return order


def _seeded(proxies: Proxies, budget: int, seeds: Longs, xi2: float) -> Progress:
    """Begin with given medoids, as many of them as xi asks for.

    c1 is twice the largest distance to the first: no distance is larger, by the triangle.
    """
    n = len(proxies)
    chosen = proxies[torch.from_numpy(seeds)]
    rows = max(1, min(4096, _BLOCK // len(seeds)))

    def blocks() -> Iterator[tuple[int, Tensor]]:
        for first in range(0, n, rows):
            part = torch.arange(first, min(first + rows, n))
            yield first, proxies[part].distances(chosen).cpu()

    if xi2 >= 0:
        squares = sum(block.cummin(1).values.double().square().sum(0) for _, block in blocks())
        seeds = enough(seeds, torch.as_tensor(squares).numpy(), xi2)
        chosen = proxies[torch.from_numpy(seeds)]
    centre = proxies[torch.from_numpy(seeds[:1])]
    run = Progress.of(n, budget, 2 * float(proxies.distances(centre).max()))
    run.seeded(seeds, [run.meet(block.numpy(), first, seeds) for first, block in blocks()])
    return run


def _balls(proxies: Proxies, radii: Floats) -> Iterator[tuple[int, Longs, Ints, Floats]]:
    """Yield, block by block, (first row, sizes, candidates, distances) of the points' balls.

    Squared distances come from float32 products, less a bound on their rounding error, so that no
    candidate is lost; those that are found are then made exact.
    """
    factors = Factors.of(proxies)
    n, wide = len(factors), factors.h.shape[1]
    g, h = torch.from_numpy(factors.g), torch.from_numpy(factors.h)
    error = (g.shape[1] + wide + 16) * 2.0**-23  # of the sum of two squared norms
    lower = factors.norms * (1 - error)
    limits = (radii.astype(np.float64) ** 2 - lower).astype(np.float32)
    bias = torch.from_numpy(lower.astype(np.float32))
    rows = max(16, min(1024, _BLOCK // n))
    left, right = -2 * g, g.T.contiguous()
    if not wide:  # the bias as one more column: all the work is the product's
        left = torch.cat([left, torch.ones(n, 1)], 1)
        right = torch.cat([right, bias[None]])
    products = torch.empty(rows, n)

    def ball(block: Floats, first: int, lines: slice) -> tuple[int, Longs, Ints, Floats]:
        part = block[lines]
        first += lines.start
        here = slice(first, first + len(part))
        ids, values, counts = scanned(part, limits[here])
        kept = factors.refine(first, radii[here], ids, values, counts)
        return first, counts, ids[:kept], values[:kept]

    with threads() as pool:
        share = -(-rows // torch.get_num_threads())
        lines = [slice(start, start + share) for start in range(0, rows, share)]
        for first in range(0, n, rows):
            block = torch.mm(left[first : first + rows], right, out=products[: n - first])
            if wide:
                block.mul_(h[first : first + rows] @ h.T).add_(bias)
            yield from pool.map(partial(ball, block.numpy(), first), lines)


def _gains(proxies: Proxies, run: Progress) -> Doubles:
    """Return every candidate's marginal gain, -inf for medoids, without holding the balls."""
    gain = run.masked
    for first, counts, ids, values in _balls(proxies, run.best):
        own = np.repeat(run.best[first : first + len(counts)], counts).astype(np.float64)
        np.add.at(gain, ids, own - values)
    return gain


# Graph --------------------------------------------------------------------------------------------


def _graph(
    proxies: Proxies,
    budget: int,
    xi2: float,
    given: Longs,
    limit: int,
    seed: int,
    rng: np.random.Generator,
) -> Medoids:
    n, k = len(proxies), _neighbors(len(proxies), budget)
    if 2 * k * budget < n:  # the neighbours of all medoids are less than half of the points
        seeds = _on_sample(proxies, budget, given, max(_SAMPLE, 64 * budget), limit, rng)
        run = _seeded(proxies, budget, seeds, xi2)
        slack = float(run.best.sum(dtype=np.float64))
        return run.medoids(run.masked, "all medoids chosen on a sample", slack=slack)
    graph = neighbor_graph(proxies, k, seed=seed)
    few, many = (max(1, min(most, budget // 8)) for most in _ANCHORS)
    anchors = given if len(given) else _on_sample(proxies, many, given, _SAMPLE, limit, rng)
    radius, starts = graph.radius, np.arange(n + 1) * graph.ids.shape[1]
    ids, values = graph.ids.reshape(-1), graph.distances.reshape(-1)

    def run_from(seeds: Longs, limits: Floats | None) -> tuple[Progress, float]:
        run = _seeded(proxies, budget, seeds, xi2)
        if run.step == len(seeds):
            run.finish(starts, ids, values, xi2, limits)
        far = torch.from_numpy(run.best > radius).nonzero().flatten()
        if len(far):
            _assign(proxies, run, far)
        return run, len(far) / n

    run, uncovered = run_from(given if len(given) else anchors[:few], radius)
    if uncovered > _POOR:
        again, still = run_from(anchors, None)
        if again.best.sum(dtype=np.float64) < run.best.sum(dtype=np.float64):
            run, uncovered = again, still
    gain = run.masked
    for first in range(0, n, _BLOCK // graph.ids.shape[1]):
        here = slice(first, first + _BLOCK // graph.ids.shape[1])
        lost = (run.best[here, None].astype(np.float64) - graph.distances[here]).clip(0)
        np.add.at(gain, graph.ids[here], lost)
    slack = float((run.best - radius).clip(0).sum(dtype=np.float64))
    run.seeds = run.step  # the best of what the graph shows need not be the best of all
    how = f"{1 - uncovered:.1%} of the points covered by their neighbours"
    return run.medoids(gain, how, slack=slack, covered=1 - uncovered, proven=graph.exact)


def _neighbors(n: int, budget: int) -> int:
    """Return how many neighbours the graph holds: about six times what a medoid stands for."""
    return min(max(32, 6 * n // budget), 128)


def _assign(proxies: Proxies, run: Progress, far: Tensor) -> None:
    """Move points that no neighbour covers to their nearest medoid."""
    medoids = proxies[torch.from_numpy(run.taken[: run.step])]
    found, distance = (part.cpu().numpy() for part in nearest(proxies[far], medoids))
    better = distance < run.best[far.numpy()]
    where, to = far.numpy()[better], found[better]
    run.moved(np.stack([to, run.nearest[where]], 1))
    run.best[where], run.nearest[where] = distance[better], to


# Stochastic ---------------------------------------------------------------------------------------


def _stochastic(
    proxies: Proxies,
    budget: int,
    xi2: float,
    epsilon: float,
    given: Longs,
    held: bool,
    rng: np.random.Generator,
) -> Medoids:
    """Take the best of a few random candidates in each step (Mirzasoleiman et al. 2015, Alg. 1)."""
    n = len(proxies)
    matrix = proxies.distances().cpu() if held else None

    def rows(candidates: Longs) -> Floats:
        chosen = torch.from_numpy(candidates)
        found = proxies[chosen].distances(proxies).cpu() if matrix is None else matrix[chosen]
        return found.numpy()

    run = Progress.of(n, budget, 2 * float(rows(np.zeros(1, np.int64)).max()))
    if len(given):
        run = _seeded(proxies, budget, given, xi2)
    free = np.setdiff1d(np.arange(n), given)
    size = ceil(n / budget * log(1 / epsilon))
    while run.step < budget and not (run.step and run.squares <= xi2):
        drawn = np.sort(rng.choice(len(free), min(size, len(free)), replace=False))
        block, gain = rows(free[drawn]), np.empty(len(drawn))
        kernels.row_gains(block, run.best, gain)
        best = int(gain.argmax())
        run.take(int(free[drawn[best]]), block[best], gain[best])
        free = np.delete(free, drawn[best])
    run.seeds = run.step  # none was the best of all
    return run.medoids(_gains(proxies, run), f"stochastic, epsilon {epsilon}")
