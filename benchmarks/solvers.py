"""Who solves a problem of facility location: our engines, the peers, and who assigns medoids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from facility import Problem
from torch import Tensor

from augloader import Evidence, FacilityLocation, Proxies, Selection
from augloader.selection import nearest
from augloader.selection.greedy.engine import Engine

Solve = Callable[[], Tensor]

PEERS = {
    "submodlib": ("submodlib-py", "as the coreset paper's code calls it: exp(-distance / d)"),
    "apricot": ("apricot-select", "lazy greedy on max - distance"),
    "kmedoids": ("kmedoids", "FasterPAM from random medoids: local search, not greedy"),
    "triton": ("triton-submodular", "naive greedy on max - distance, one class after the other"),
}
_MODULES = {"triton": "triton_submodular"}


def ours(problem: Problem, engine: Engine = "auto", **more: Any) -> Solve:
    strategy = FacilityLocation(engine=engine, per_class=problem.classes > 1, **more)
    evidence = Evidence(len(problem.proxies), problem.labels, problem.proxies)
    return lambda: selected(strategy, evidence, problem).indices


def selected(strategy: FacilityLocation, evidence: Evidence, problem: Problem) -> Selection:
    generator = np.random.default_rng(problem.seed)
    return strategy.select(evidence, problem.k, generator=generator)


def refreshed(problem: Problem, warm: float) -> Solve:
    """Select again after the proxies have moved by a tenth of their spread."""
    x, labels = problem.proxies.gradient, problem.labels
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(problem.seed))
    moved = Evidence(len(x), labels, Proxies(x + 0.1 * x.std() * noise))
    strategy = FacilityLocation(engine="matrix-free", per_class=problem.classes > 1)
    before = selected(strategy, moved, problem).indices
    evidence = Evidence(len(x), labels, problem.proxies, previous=before)
    return lambda: selected(replace(strategy, warm_start=warm), evidence, problem).indices


def gpu(problem: Problem) -> Solve:
    problem = replace(problem, proxies=Proxies(problem.proxies.gradient.cuda()))
    return ours(problem)


def each_class(problem: Problem, select: Callable[[Tensor, int], Tensor]) -> Solve:
    """Let a peer that knows no classes select an equal share of each, one after the other."""

    def solve() -> Tensor:
        x, share = problem.proxies.gradient, problem.k // problem.classes
        return torch.cat([rows[select(x[rows], share).cpu()] for rows in problem.members()])

    return solve


def by_submodlib(x: Tensor, k: int) -> Tensor:
    module = import_module("submodlib.functions.facilityLocation")
    function = module.FacilityLocationFunction(
        n=len(x), data=x.numpy(), metric="euclidean", mode="dense"
    )
    greedy = function.maximize(
        budget=k,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        verbose=False,
        show_progress=False,
    )
    return torch.tensor([index for index, _ in greedy])


def by_apricot(x: Tensor, k: int) -> Tensor:
    distances = torch.cdist(x.double(), x.double()).numpy()
    selection = import_module("apricot").FacilityLocationSelection(
        k, metric="precomputed", optimizer="lazy"
    )
    return torch.from_numpy(selection.fit(distances.max() - distances).ranking.astype(np.int64))


def by_kmedoids(x: Tensor, k: int) -> Tensor:
    found = import_module("kmedoids").fasterpam(
        torch.cdist(x, x).numpy(), k, init="random", random_state=0
    )
    return torch.from_numpy(found.medoids.astype(np.int64))


def by_triton(x: Tensor, k: int) -> Tensor:
    module = import_module("triton_submodular.functions")
    indices: Tensor = module.FacilityLocation(x).maximize(k, "LazyGreedyTriton")[0]
    return indices


def by_chance(x: Tensor, k: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).permutation(len(x))[:k])


def assigned(problem: Problem, assign: Callable[[Proxies, Proxies], Tensor]) -> Solve:
    """Find the nearest of the first k points, which are as random as any k."""
    first = problem.proxies[torch.arange(problem.k)]
    return lambda: assign(problem.proxies, first)


def assigned_by_class(problem: Problem) -> Solve:
    """Find the nearest of the first k points of one's own class."""

    def solve() -> Tensor:
        medoid = torch.empty(len(problem.proxies), dtype=torch.int64)
        for rows in problem.members():
            chosen = rows[rows < problem.k]
            medoid[rows] = chosen[nearest(problem.proxies[rows], problem.proxies[chosen])[0]]
        return medoid

    return solve


def by_cdist(points: Proxies, medoids: Proxies) -> Tensor:
    x, m = points.gradient, medoids.gradient
    return torch.cat([torch.cdist(block, m).argmin(1) for block in x.split(2048)])


SOLVERS: dict[str, Callable[[Problem], Solve]] = {
    "ours": ours,
    "dense": lambda problem: ours(problem, "dense", memory_limit=16 * 2**30),
    "matrix-free": lambda problem: ours(problem, "matrix-free"),
    "graph": lambda problem: ours(problem, "graph"),
    "stochastic": lambda problem: ours(problem, stochastic=0.1),
    "cold": lambda problem: refreshed(problem, 0.0),
    "warm": lambda problem: refreshed(problem, 0.5),
    "submodlib": lambda problem: each_class(problem, by_submodlib),
    "apricot": lambda problem: each_class(problem, by_apricot),
    "kmedoids": lambda problem: each_class(problem, by_kmedoids),
    "random": lambda problem: each_class(problem, by_chance),
    "gpu": gpu,
    "triton": lambda problem: each_class(
        replace(problem, proxies=Proxies(problem.proxies.gradient.cuda())), by_triton
    ),
    "by class": assigned_by_class,
    "nearest": lambda problem: assigned(problem, lambda x, m: nearest(x, m)[0]),
    "cdist": lambda problem: assigned(problem, by_cdist),
}


def installed() -> list[str]:
    """Return the peers that are there."""
    return [name for name in PEERS if find_spec(_MODULES.get(name, name))]
