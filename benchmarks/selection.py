"""Facility location against its peers, medoid assignment, and how both grow with n.

    python benchmarks/selection.py --quick

Every reading comes from a process of its own, after a small warm-up in it. The solvers of a case
take turns, round by round, and each round draws new data. The seconds of a selection are those of
its distances and its greedy together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Reading, Spread, environment, machine, measure, progress, run_child, save
from torch import Tensor

from augloader import Evidence, FacilityLocation, Proxies, Selection
from augloader.core import residual
from augloader.selection import nearest
from augloader.selection.greedy.engine import Engine

FRACTIONS = (0.01, 0.1, 0.3)
PACKAGES = ("augloader", "numpy", "numba", "torch", "faiss-gpu", "faiss-cpu")
PEERS = {
    "submodlib": ("submodlib-py", "as the coreset paper's code calls it: exp(-distance / d)"),
    "apricot": ("apricot-select", "lazy greedy on max - distance"),
    "kmedoids": ("kmedoids", "FasterPAM from random medoids: local search, not greedy"),
    "triton": ("triton-submodular", "naive greedy on max - distance, one class after the other"),
}
_MODULES = {"triton": "triton_submodular"}
_EVALUATED = 2e12  # of n k d: beyond it, costs are those of random points, the same for all


def mixture(rng: np.random.Generator, n: int, d: int, modes: int = 20) -> Tensor:
    """Draw n points of a Gaussian mixture in d dimensions, float32."""
    means, widths = rng.normal(size=(modes, d)), rng.uniform(0.3, 1, modes)
    points = np.empty((n, d), np.float32)
    for part in np.array_split(points, -(-n // 65_536)):
        mode = rng.integers(modes, size=len(part))
        part[:] = means[mode] + widths[mode, None] * rng.normal(size=part.shape)
    return torch.from_numpy(points)


def residuals(rng: np.random.Generator, n: int) -> Tensor:
    """Draw the residuals of n samples of class 0 of 10, which the logits favour more or less."""
    means = rng.normal(0, 1.5, (6, 10))
    means[:, 0] += rng.uniform(0.5, 5, 6)
    logits = means[rng.integers(6, size=n)] + rng.normal(size=(n, 10))
    return residual(torch.from_numpy(logits), torch.zeros(n, dtype=torch.int64))


def make(data: str, n: int, seed: int) -> Proxies:
    """Make proxies: residuals (10 wide), mixture or mixture-512 (64 or 512 wide), or outer."""
    rng = np.random.default_rng(seed)
    if data.startswith("mixture"):
        return Proxies(mixture(rng, n, 512 if data == "mixture-512" else 64))
    g = residuals(rng, n)
    return Proxies(g, mixture(rng, n, 64).relu() if data == "outer" else None)


def vectors(proxies: Proxies) -> Tensor:
    """Return the proxies as vectors in float64, outer products written out."""
    g = proxies.gradient.double()
    if proxies.features is None:
        return g
    return torch.einsum("ic,id->icd", g, proxies.features.double()).flatten(1)


def total_distance(points: Proxies, medoids: Proxies) -> float:
    """Return sum_i ||x_i - m_i|| in float64, m_i the medoid of point i."""
    parts = torch.arange(len(points)).split(65_536)
    return sum(
        float((vectors(points[rows]) - vectors(medoids[rows])).norm(dim=1).sum()) for rows in parts
    )


def objective(proxies: Proxies, chosen: Tensor) -> float:
    """Return sum_i min_j ||x_i - x_j|| over the chosen j, from random points if there are many.

    The nearest is found by ``nearest``, which its tests hold against brute force.
    """
    n, work = len(proxies), len(proxies) * len(chosen) * sum(proxies.widths)
    points = proxies
    if work > _EVALUATED:
        rows = np.random.default_rng(5).permutation(n)[: int(n * _EVALUATED / work)]
        points = proxies[torch.from_numpy(rows)]
    found = nearest(points, proxies[chosen])[0]
    return total_distance(points, proxies[chosen[found]]) * n / len(points)


@dataclass(frozen=True)
class Problem:
    """What a solver gets: proxies, how many to select, and classes numbered i mod ``classes``."""

    proxies: Proxies
    k: int
    classes: int = 1
    seed: int = 0

    @property
    def labels(self) -> Tensor:
        return torch.arange(len(self.proxies)) % self.classes

    def members(self) -> list[Tensor]:
        return [torch.arange(c, len(self.proxies), self.classes) for c in range(self.classes)]

    def cost(self, chosen: Tensor) -> float:
        own = chosen % self.classes
        return sum(
            objective(self.proxies[rows], chosen[own == c] // self.classes)
            for c, rows in enumerate(self.members())
        )


Solve = Callable[[], Tensor]


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
_ASSIGN = ("by class", "nearest", "cdist")
_DRAWN = ("dense", "matrix-free", "graph", "submodlib", "apricot", "kmedoids")


def child(solver: str, data: str, n: int, k: int, classes: int, seed: int) -> Reading:
    """Solve one problem in this process and say what it took and what the answer costs."""
    small = 50 * classes if classes > 20 else max(1_000, 50 * classes)
    warm_up = Problem(make(data, small, seed), max(small // 10, 2 * classes), classes, seed)
    SOLVERS[solver](warm_up)()  # libraries, threads, compiled loops
    problem = Problem(make(data, n, seed), k, classes, seed)
    solve = SOLVERS[solver](problem)
    answer, reading = measure(solve)
    assign = solver in _ASSIGN
    x = problem.proxies
    cost = total_distance(x, x[answer]) if assign else problem.cost(answer)
    return {**reading, "cost": cost}


@dataclass(frozen=True)
class Case:
    """A problem and who solves it; costs and seconds are compared with the first."""

    data: str
    n: int
    k: int
    solvers: tuple[str, ...]
    classes: int = 1
    rounds: int = 1


@dataclass(frozen=True)
class Row:
    """What a case took: of every solver, a reading a round."""

    case: Case
    readings: dict[str, list[Reading]] = field(default_factory=dict)

    def spread(self, solver: str, name: str) -> Spread:
        return Spread.of(reading[name] for reading in self.readings[solver])

    def added(self, solver: str) -> float:
        """Memory on top of what the process held before."""
        return max(r["peak_mb"] - r["base_mb"] for r in self.readings[solver])

    def _against(self, solver: str, name: str) -> list[float]:
        first = self.readings[self.case.solvers[0]]
        pairs = zip(self.readings[solver], first, strict=True)
        return [theirs[name] / mine[name] for theirs, mine in pairs]

    def ratio(self, solver: str) -> Spread:
        """A solver's seconds over the first one's, round by round."""
        return Spread.of(self._against(solver, "seconds"))

    def error(self, solver: str) -> Spread:
        """The first solver's cost relative to this one's, less 1: negative where it is better."""
        return Spread.of(1 / cost - 1 for cost in self._against(solver, "cost"))

    def record(self) -> dict[str, Any]:
        solved = {
            solver: {
                "seconds": asdict(self.spread(solver, "seconds")),
                "ratio": asdict(self.ratio(solver)),
                "error": asdict(self.error(solver)),
                "peak_mb": self.spread(solver, "peak_mb").max,
                "added_mb": self.added(solver),
                "readings": readings,
            }
            for solver, readings in self.readings.items()
        }
        return {**asdict(self.case), "solved": solved}

    def lines(self) -> Iterable[str]:
        case = self.case
        shape = f" in {case.classes:,}" if case.classes > 1 else ""
        yield f"{case.data}, n = {case.n:,}{shape}, k = {case.k:,}, {case.rounds} rounds"
        for i, solver in enumerate(self.readings):
            seconds, ratio, error = (
                self.spread(solver, "seconds"),
                self.ratio(solver),
                self.error(solver),
            )
            line = f"  {solver:12}{seconds.median:9.3f} s  +{self.added(solver):6,.0f} MB"
            if i:
                line += f"  {ratio.median:7.1f}x [{ratio.min:.1f}, {ratio.max:.1f}]"
                line += f"  cost of {case.solvers[0]} {error.median:+.1e}"
                line += f" [{error.min:+.0e}, {error.max:+.0e}]"
            yield line


def installed() -> list[str]:
    """Return the peers that are there."""
    return [name for name in PEERS if find_spec(_MODULES.get(name, name))]


def main_cases(peers: list[str], rounds: int) -> list[Case]:
    """One class of 5,000, 10 wide: exact, and against the peers."""
    solvers = ("ours", *(peer for peer in ("submodlib", "apricot") if peer in peers))
    return [Case("residuals", 5_000, round(5_000 * f), solvers, rounds=rounds) for f in FRACTIONS]


def more_cases(peers: list[str]) -> list[Case]:
    """What only a full run has: wider proxies, all engines, other peers, large sizes."""
    greedy = tuple(peer for peer in ("submodlib", "apricot", "kmedoids") if peer in peers)
    engines = ("dense", "matrix-free", "graph")
    wide = ("mixture", "mixture-512")
    cases = [
        Case(data, 5_000, round(5_000 * f), ("ours", "matrix-free", "graph", *greedy))
        for data in wide
        for f in FRACTIONS
    ]
    cases += [
        Case(data, 5_000, 500, (*engines, "stochastic", "random", *more))
        for data, more in (("residuals", greedy[2:]), ("outer", ()))
    ]
    cases += [
        Case(data, 20_000, round(20_000 * f), (*engines, "random"))
        for data in ("residuals", "mixture")
        for f in FRACTIONS
    ]
    cases += [Case(data, 20_000, 2_000, (*engines, "random")) for data in ("mixture-512", "outer")]
    cases += [Case("residuals", 20_000, 2_000, ("ours", "apricot"))] if "apricot" in peers else []
    cases += [
        Case(data, 50_000, round(50_000 * f), ("matrix-free", "graph", "random"), rounds=rounds)
        for data in ("residuals", "mixture")
        for f, rounds in zip(FRACTIONS, (1, 3, 1), strict=True)
    ]
    return [
        *cases,
        Case("mixture-512", 50_000, 5_000, ("matrix-free", "graph", "random")),
        Case("residuals", 50_000, 5_000, ("cold", "warm"), rounds=3),
        Case("residuals", 50_000, 15_000, ("ours", *greedy[:2]), classes=10),
        Case("mixture", 200_000, 20_000, ("graph", "random")),
        Case("mixture", 1_000_000, 100_000, ("graph", "random")),
        Case("mixture", 1_281_000, 384_300, ("ours", "random"), classes=1_000),
    ]


def gpu_cases(peers: list[str]) -> list[Case]:
    """The shapes of CIFAR-10 and ImageNet with the proxies on the device."""
    solvers = ("gpu", *(("triton",) if "triton" in peers else ()))
    return [
        Case("residuals", 50_000, 15_000, solvers, classes=10, rounds=5),
        Case("mixture", 1_281_000, 384_300, solvers, classes=1_000, rounds=3),
    ]


def single_cases(rounds: int) -> list[Case]:
    """Medoid assignment by class, over all classes, and by torch; the greedy of outer products."""
    return [
        Case("residuals", 50_000, 15_000, ("nearest", "by class", "cdist"), 10, rounds),
        Case("mixture", 50_000, 15_000, ("nearest", "by class"), 10, rounds),
        Case("outer", 5_000, 500, ("ours",), rounds=rounds),
    ]


def run(cases: list[Case], threads: int) -> list[Row]:
    """Measure the cases in turn, round by round."""
    rows = [Row(case, {solver: [] for solver in case.solvers}) for case in cases]
    most = max(case.rounds for case in cases)
    for seed, row in progress(
        [(s, row) for s in range(most) for row in rows if s < row.case.rounds]
    ):
        case = row.case
        for solver in case.solvers:
            job = {"solver": solver, "data": case.data, "n": case.n, "k": case.k}
            job |= {"classes": case.classes, "seed": seed}
            row.readings[solver].append(run_child(__file__, job, threads))
    return rows


def summarise(main: list[Row], single: list[Row]) -> dict[str, Any]:
    """Make the final line: the worst of the main cases, and the others."""
    found = {f"speedup_{peer}": slowest(main, peer) for peer in ("submodlib", "apricot")}
    exact = "apricot" if "apricot" in main[0].readings else None
    errors = [row.error(exact) for row in main] if exact else []
    return {
        "benchmark": "selection",
        **found,
        # Against the exact greedy of the same objective: of any round of any budget.
        "objective_error": max((max(abs(e.min), abs(e.max)) for e in errors), default=None),
        "peak_mb": max(row.spread("ours", "peak_mb").max for row in main),
        "added_mb": max(row.added("ours") for row in main),
        "n": main[0].case.n,
        "d": 10,
        "speedup_by_class": [1 / row.ratio("by class").median for row in single[:2]],
        "speedup_cdist": single[0].ratio("cdist").median,
        "outer_seconds": single[2].spread("ours", "seconds").median,
    }


def slowest(rows: list[Row], peer: str) -> float | None:
    """Return the smallest over the cases of the median ratio."""
    there = [row.ratio(peer).median for row in rows if peer in row.readings]
    return min(there, default=None)


def picture(rows: list[Row], path: Path) -> None:
    """Draw the seconds of each solver against n, at 10 % of one class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, data in zip(
        figure.subplots(1, 2, sharey=True), ("residuals", "mixture"), strict=True
    ):
        mine = [r for r in rows if (r.case.data, r.case.classes) == (data, 1)]
        tenth = [row for row in mine if row.case.k * 10 == row.case.n]
        lines: dict[str, dict[int, float]] = {}
        for row in tenth:
            for solver in row.readings:
                name = "dense" if solver == "ours" else solver
                seconds = row.spread(solver, "seconds").median
                lines.setdefault(name, {}).setdefault(row.case.n, seconds)
        for i, name in enumerate(_DRAWN):
            if name in lines:
                points = zip(*sorted(lines[name].items()), strict=True)
                axes.loglog(*points, marker="o", color=f"C{i}", label=name)
        axes.set(title=f"{data}, 10 %, two threads", xlabel="n in one class")
        axes.grid(True, which="both", alpha=0.2)
        if lines:
            axes.legend()
    figure.supylabel("seconds")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="n = 5,000 only, five rounds")
    parser.add_argument("--gpu", action="store_true", help="the cases with proxies on the GPU")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(**options.child)))
        return
    peers = installed()
    about = environment(options.threads, [*PACKAGES, *(PEERS[name][0] for name in peers)])
    notes = [
        *(f"{name}: {PEERS[name][1]}" for name in peers),
        "Cost: sum of distances to the nearest medoid, in float64, of random points where there "
        "are many. Its difference is (first - solver) / solver: negative if the first is better.",
    ]
    summary: dict[str, Any]
    if options.gpu:
        rows = run(gpu_cases(peers), options.threads)
        summary = {"benchmark": "selection", "device": torch.cuda.get_device_name()}
        seconds = [row.spread("gpu", "seconds").median for row in rows]
        summary |= dict(zip(("cifar10_seconds", "imagenet_seconds"), seconds, strict=True))
    else:
        main_rows = run(main_cases(peers, 5), options.threads)
        single = run(single_cases(1 if options.quick else 3), options.threads)
        more = [] if options.quick else run(more_cases(peers), options.threads)
        rows, summary = [*main_rows, *single, *more], summarise(main_rows, single)
    for row in rows:
        print(*row.lines(), sep="\n")
    others = Spread.of(r["others"] for row in rows for each in row.readings.values() for r in each)
    notes.append(f"Cores kept busy by others: median {others.median:.2f}, most {others.max:.2f}.")
    print("\nNotes:", *notes, sep="\n- ")
    record = {
        "quick": options.quick,
        "environment": about,
        "notes": notes,
        "summary": summary,
        "rows": [row.record() for row in rows],
    }
    name = "selection-quick" if options.quick else "selection"
    path = save(options.output, name, "cuda" if options.gpu else "cpu", record)
    if not options.quick and not options.gpu:
        picture(rows, path.with_suffix(".png"))
    print(json.dumps({**summary, "machine": machine()}))


if __name__ == "__main__":
    main()
