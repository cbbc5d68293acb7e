"""The graph engine: the greedy on each point's nearest neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from augloader.core.compiled import Floats, Longs
from augloader.core.proxies import Proxies
from augloader.selection.greedy.matrix_free import SAMPLE, begin_from, on_sample
from augloader.selection.greedy.medoids import Medoids, Progress
from augloader.selection.greedy.memory import BLOCK, neighbors_for
from augloader.selection.greedy.neighbors import nearest, neighbor_graph

_ANCHORS = 32, 512  # of the graph: medoids chosen on the sample, at first and if that is poor
_FEW = 256  # points a medoid from which all medoids are chosen on a sample
_POOR = 0.01  # share of points beyond their neighbours' reach that counts as poor coverage


def graph_medoids(
    proxies: Proxies,
    budget: int,
    xi: float,
    given: Longs,
    limit: int,
    seed: int,
    rng: np.random.Generator,
) -> Medoids:
    """Take the medoids on the graph of nearest neighbours; see ``facility_location``."""
    n, k = len(proxies), neighbors_for(len(proxies), budget)
    if _FEW * budget < n:  # the neighbours of all medoids are a small part of the points
        seeds = on_sample(proxies, budget, given, max(SAMPLE, 64 * budget), limit, rng)
        run = begin_from(proxies, budget, seeds, xi)
        slack = float(run.best.sum(dtype=np.float64))
        return run.medoids(run.masked, "all medoids chosen on a sample", slack=slack)
    graph = neighbor_graph(proxies, k, seed=seed)
    few, many = (max(1, min(most, budget // 8)) for most in _ANCHORS)
    anchors = given if len(given) else on_sample(proxies, many, given, SAMPLE, limit, rng)
    radius, starts = graph.radius, np.arange(n + 1) * graph.ids.shape[1]
    ids, values = graph.ids.reshape(-1), graph.distances.reshape(-1)

    def run_from(seeds: Longs, limits: Floats | None) -> tuple[Progress, float]:
        run = begin_from(proxies, budget, seeds, xi)
        if run.step == len(seeds):
            run.finish(starts, ids, values, xi, limits)
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
    for first in range(0, n, BLOCK // graph.ids.shape[1]):
        here = slice(first, first + BLOCK // graph.ids.shape[1])
        lost = (run.best[here, None].astype(np.float64) - graph.distances[here]).clip(0)
        np.add.at(gain, graph.ids[here], lost)
    slack = float((run.best - radius).clip(0).sum(dtype=np.float64))
    run.seeds = run.step  # the best of what the graph shows need not be the best of all
    how = f"{1 - uncovered:.1%} of the points covered by their neighbours"
    return run.medoids(gain, how, slack=slack, covered=1 - uncovered, proven=graph.exact)


def _assign(proxies: Proxies, run: Progress, far: Tensor) -> None:
    """Move points that no neighbour covers to their nearest medoid."""
    medoids = proxies[torch.from_numpy(run.taken[: run.step])]
    found, distance = (part.cpu().numpy() for part in nearest(proxies[far], medoids))
    better = distance < run.best[far.numpy()]
    where, to = far.numpy()[better], found[better]
    run.moved(np.stack([to, run.nearest[where]], 1))
    run.best[where], run.nearest[where] = distance[better], to
