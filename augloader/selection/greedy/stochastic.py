"""The stochastic greedy: the best of a few random candidates in each step."""

from __future__ import annotations

from math import ceil, log

import numpy as np
import torch

from augloader.core.compiled import Floats, Longs
from augloader.core.proxies import Proxies
from augloader.selection.greedy import kernels
from augloader.selection.greedy.matrix_free import begin_from, final_gains
from augloader.selection.greedy.medoids import Medoids, Progress


def stochastic_medoids(
    proxies: Proxies,
    budget: int,
    xi: float,
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
        run = begin_from(proxies, budget, given, xi)
    free = np.setdiff1d(np.arange(n), given)
    size = ceil(n / budget * log(1 / epsilon))
    while run.step < budget and not (run.step and run.error <= xi):
        drawn = np.sort(rng.choice(len(free), min(size, len(free)), replace=False))
        block, gain = rows(free[drawn]), np.empty(len(drawn))
        kernels.row_gains(block, run.best, gain)
        best = int(gain.argmax())
        run.take(int(free[drawn[best]]), block[best], gain[best])
        free = np.delete(free, drawn[best])
    run.seeds = run.step  # none was the best of all
    return run.medoids(final_gains(proxies, run), f"stochastic, epsilon {epsilon}")
