"""Slow and obvious implementations that the fast ones are held against."""

import random
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

Matrix = NDArray[np.floating]


def naive_greedy(distances: Matrix, budget: int) -> tuple[list[int], list[float]]:
    """Facility location by the definition: every gain computed anew in every step."""
    d = distances.astype(np.float64)
    best = np.full(len(d), d.max())
    taken: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        gain = np.maximum(best[:, None] - d, 0).sum(0)
        gain[taken] = -1
        taken.append(int(gain.argmax()))
        gains.append(float(gain[taken[-1]]))
        best = np.minimum(best, d[taken[-1]])
    return taken, gains


def tie_margin(distances: Matrix, budget: int) -> float:
    """How clearly the greedy's choices won: the smallest lead over the second best candidate."""
    d = distances.astype(np.float64)
    best, lead = np.full(len(d), d.max()), np.inf
    for medoid in naive_greedy(distances, budget)[0]:
        gains = np.sort(np.maximum(best[:, None] - d, 0).sum(0))
        lead, best = min(lead, gains[-1] - gains[-2]), np.minimum(best, d[medoid])
    return float(lead)


def coverage(distances: Matrix, chosen: list[int]) -> float:
    """f(S) = sum_i (c1 - min_{j in S} d_ij) with c1 the largest distance; f of nothing is 0."""
    d = distances.astype(np.float64)
    return float((d.max() - d[:, chosen].min(1)).sum()) if chosen else 0.0


def best_coverage(distances: Matrix, budget: int) -> float:
    """The optimum over all subsets of a size."""
    subsets = combinations(range(len(distances)), budget)
    return max(coverage(distances, list(subset)) for subset in subsets)


def random_state() -> tuple[bytes, bytes, object]:
    """The global random states of torch, numpy and Python."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that must not change
    assert isinstance(legacy, dict)
    state = legacy["state"]["key"].tobytes() + bytes([legacy["state"]["pos"] % 256])
    return torch.get_rng_state().numpy().tobytes(), state, random.getstate()
