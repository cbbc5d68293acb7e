"""Facility location on proxies: which engine, and the engines that hold no n x n distances.

All end in the same greedy over balls, the candidates nearer to a point than its medoid. They differ
in how the balls are found: *dense* from the matrix of distances after a few exact steps,
*matrix-free* block by block after a few medoids that were chosen on a sample, *graph* from each
point's nearest neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    require_int,
    require_number,
    require_one_of,
    require_seed,
    unchecked,
)
from augloader.core.progress import progress
from augloader.core.proxies import Proxies, Workspace
from augloader.selection.greedy.batched import Batch
from augloader.selection.greedy.dense import batched_medoids, dense_medoids
from augloader.selection.greedy.graph import graph_medoids
from augloader.selection.greedy.matrix_free import matrix_free_medoids
from augloader.selection.greedy.medoids import Medoids, check_budget, check_start
from augloader.selection.greedy.memory import (
    DENSE,
    NoRoom,
    dense_bytes,
    free_memory,
    graph_bytes,
    matrix_free_bytes,
    too_small,
)
from augloader.selection.greedy.stochastic import stochastic_medoids

Engine = Literal["auto", "dense", "matrix-free", "graph"]
ENGINES = ("auto", "dense", "matrix-free", "graph")
_WORK = 5e11  # auto: the largest n^2 (d + 32) compared pair by pair, about 10 s on two cores


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
      60 nearest neighbours, and assigns points that no neighbour covers by a search. Where more
      than 1 % are not covered it runs again from up to 512 medoids of the sample, counting the full
      distances to them, and keeps the better result. Budgets below one medoid in 256 points are
      chosen on a sample.
    - ``"auto"`` takes the first of them that fits: dense up to 16,384 points, matrix-free while
      n^2 (d + 32) is at most 5e11, both within the memory limit; else graph.

    Args:
        proxies: of n samples, of either form, or (n, d) floating values; on a GPU the dense engine,
            the other engines' products of all pairs and searches run there, and what is listed
            is made exact and gone on with on the CPU.
        budget: number of medoids, 1 to n.
        engine: as above.
        memory_limit: bytes; None takes a quarter of the free memory: of the proxies' device for the
            dense engine, of the CPU for the others.
        xi: stop as soon as sum_i m_i <= xi, m_i the distance of sample i to its medoid, in units
            of proxy distance; it bounds the error of the coreset's gradient (Eq. 8).
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
    proxies, seed = Proxies.of(proxies), require_seed(seed)
    budget, xi = check_budget(len(proxies), budget, xi)
    memory_limit, stochastic = check_options(engine, memory_limit, stochastic)
    given = torch.from_numpy(check_start(start, len(proxies), budget))
    task = Task(torch.arange(len(proxies), device="cpu"), budget, given, seed)
    return facility_locations(
        [task],
        lambda task: proxies,
        proxies.device,
        engine=engine,
        memory_limit=memory_limit,
        xi=xi,
        stochastic=stochastic,
    )[0]


def _medoids(
    task: Task,
    proxies: Proxies,
    engine: Engine,
    limits: Mapping[str, int],
    xi: float | None,
    stochastic: float | None,
    workspace: Workspace,
) -> Medoids:
    """Return ``facility_location`` of arguments that were checked before."""
    n, budget, seed, given = len(proxies), task.share, task.seed, task.start.cpu().numpy()
    stop = -1.0 if xi is None else xi

    def run(name: str) -> Medoids:
        rng = np.random.default_rng(seed)
        if stochastic is not None:
            return stochastic_medoids(
                proxies, budget, stop, stochastic, given, name == "dense", rng
            )
        if name == "dense":
            return dense_medoids(proxies.distances(None, workspace), budget, xi, given)
        if name == "matrix-free":
            return matrix_free_medoids(proxies, budget, stop, given, limits[name], rng)
        return graph_medoids(proxies, budget, stop, given, limits[name], seed, rng)

    name, reason = _choose(proxies, budget, engine, limits)
    try:
        found = run(name)
    except NoRoom:
        if engine != "auto":
            raise
        name, _ = _choose(proxies, budget, "graph", limits)
        reason = f"n = {n:,}: the balls of all pairs do not fit"
        found = run(name)
    more = f"; {found.reason}" if found.reason else ""
    return replace(found, engine=name, reason=reason + more)


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
    limits = _limits(memory_limit, device, stochastic)  # read once, not for each group
    room = True
    if device.type == "cuda" and stochastic is None and engine in ("auto", "dense"):
        try:
            for wave in _waves(tasks, limits["dense"]):
                found |= _at_once(tasks, wave, proxies_of, device, xi)
        except RuntimeError as error:
            room = _to_the_cpu(error)
    several, workspace = (None if len(tasks) > 1 else False), Workspace()
    for t, task in enumerate(progress(tasks, "selection", several)):
        if t in found:
            continue
        proxies = proxies_of(task)
        if room:
            try:
                found[t] = _medoids(
                    task, proxies, engine, limits, xi, stochastic, workspace
                ).packed()
                continue
            except RuntimeError as error:
                if proxies.device.type == "cpu":
                    raise
                room = _to_the_cpu(error)
        limits = _limits(memory_limit, torch.device("cpu"), stochastic)
        found[t] = _medoids(task, _on_cpu(proxies), engine, limits, xi, stochastic, workspace)
    return [found[t] for t in range(len(tasks))]


def _limits(given: int | None, device: torch.device, stochastic: float | None) -> dict[str, int]:
    """Return how many bytes each engine may take: dense where the proxies are, all else here."""
    here, there = (
        free_memory(place) // 4 if given is None else given
        for place in (torch.device("cpu"), device)
    )
    dense = there if stochastic is None else min(here, there)  # which is copied to the CPU
    return {"dense": dense, "matrix-free": here, "graph": here}


def _to_the_cpu(error: RuntimeError) -> bool:
    """Warn that the device's memory ended; return False, that there is no more room on it."""
    if "out of memory" not in str(error).lower():  # FAISS has no class of its own for it
        raise error
    warnings.warn(
        "The selection ran out of the GPU's memory and goes on on the CPU. Give a memory_limit in "
        "bytes that leaves room for what else is on the GPU.",
        stacklevel=5,
    )
    return False


def _on_cpu(proxies: Proxies) -> Proxies:
    features = None if proxies.features is None else proxies.features.cpu()
    return unchecked(Proxies, gradient=proxies.gradient.cpu(), features=features)


def _at_once(
    tasks: Sequence[Task],
    wave: Sequence[Sequence[int]],
    proxies_of: Callable[[Task], Proxies],
    device: torch.device,
    xi: float | None,
) -> dict[int, Medoids]:
    """Take the medoids of a wave of groups, by their numbers."""
    batches = []
    for bucket in wave:
        mine = [tasks[t] for t in bucket]
        sizes = [len(task.members) for task in mine]
        shape = len(bucket), sizes[0], sizes[0]
        distances = torch.zeros(shape, dtype=torch.float32, device=device)
        for matrix, n, task in zip(distances, sizes, mine, strict=True):
            matrix[:n, :n] = proxies_of(task).distances()
        shares, starts = [task.share for task in mine], [task.start for task in mine]
        batches.append(Batch(distances, sizes, shares, starts, xi))
    found: dict[int, Medoids] = {}
    for bucket, batch, medoids in zip(wave, batches, batched_medoids(batches), strict=True):
        groups = f"{len(bucket):,} groups of up to" if len(bucket) > 1 else "n ="
        reason = f"{groups} {batch.sizes[0]:,} at once on {device.type}"
        found |= {t: replace(m, reason=reason) for t, m in zip(bucket, medoids, strict=True)}
    return found


def _waves(tasks: Sequence[Task], limit: int) -> list[list[list[int]]]:
    """Return which groups run at once, the largest first: all of a wave are within the limit.

    A wave has buckets of like sizes, which are padded to the largest of them.
    """
    waves: list[list[list[int]]] = []
    left = 0
    for t in sorted(range(len(tasks)), key=lambda t: -len(tasks[t].members)):
        n = len(tasks[t].members)
        if 4 * n**2 > limit:
            continue
        widest = len(tasks[waves[-1][-1][0]].members) if waves else 0
        alike = 2 * n > widest
        size = 4 * (widest if waves and alike else n) ** 2
        if not waves or size > left:
            waves.append([[t]])
            size, left = 4 * n**2, limit
        elif alike:
            waves[-1][-1].append(t)
        else:
            waves[-1].append([t])
        left -= size
    return waves


def check_options(
    engine: str, memory_limit: int | None, stochastic: float | None
) -> tuple[int | None, float | None]:
    """Return the memory limit and epsilon, or raise unless all are within their range."""
    require_one_of("engine", engine, ENGINES)
    if memory_limit is not None:
        memory_limit = require_int("memory_limit", memory_limit, 1, "Give the limit in bytes.")
    if stochastic is not None:
        stochastic = require_number("stochastic", stochastic, "(0, 1)", "Give epsilon, as 0.1.")
    return memory_limit, stochastic


def _choose(
    proxies: Proxies, budget: int, engine: Engine, limits: Mapping[str, int]
) -> tuple[str, str]:
    """Return the engine for a group of proxies, and why.

    Raises:
        ValueError: the memory limit is too small; the message names the least.
    """
    n, d = len(proxies), sum(proxies.widths)
    needs = {
        "dense": dense_bytes(n),
        "matrix-free": matrix_free_bytes(n, d),
        "graph": graph_bytes(n, proxies.widths, budget),
    }
    if engine != "auto":
        if needs[engine] > limits[engine]:
            raise ValueError(too_small(n, limits[engine], f"{engine} needs {needs[engine]:,}"))
        return engine, f"{engine} as asked for"
    fits = [name for name in needs if needs[name] <= limits[name]]
    quick = n**2 * (d + 32) <= _WORK
    if "dense" in fits and n <= DENSE:
        return "dense", f"n = {n:,}: all distances are held"
    if "matrix-free" in fits and (quick or "graph" not in fits):
        return "matrix-free", f"n = {n:,}, d = {d}: all pairs are compared, none are held"
    if "graph" in fits:
        return "graph", f"n = {n:,}, d = {d}: too many pairs to compare"
    least = min(needs, key=lambda name: needs[name])
    raise ValueError(too_small(n, limits[least], f"the least, {least}, needs {needs[least]:,}"))
