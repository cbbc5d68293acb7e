"""Greedy facility location against submodlib, and medoid assignment against torch.cdist.

    python benchmarks/selection.py --quick

Every reading comes from a process of its own, after a small warm-up in it. Ours and the peer take
turns, round by round, and each round draws new data. The seconds of a selection are those of its
distances and its greedy together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Reading, Spread, environment, measure, progress, run_child, save
from torch import Tensor

from augloader import Proxies, greedy_medoids, nearest, residual

FRACTIONS = (0.01, 0.1, 0.3)
SIZES = (1_000, 2_000, 10_000)
PACKAGES = ("augloader", "numpy", "torch", "faiss-gpu", "faiss-cpu")
PEERS = {
    "submodlib": (
        "submodlib-py",
        "called as the coreset paper's code does. Its similarity is exp(-distance / d), so its "
        "objective differs slightly from the sum of distances reported here.",
    ),
    "apricot": (
        "apricot-select",
        "lazy greedy on max - distance, because submodlib could NOT be imported.",
    ),
}


def mixture(rng: np.random.Generator, n: int, d: int, modes: int = 20) -> Tensor:
    """Draw n points of a Gaussian mixture in d dimensions, float32."""
    means, widths = rng.normal(size=(modes, d)), rng.uniform(0.3, 1, modes)
    mode = rng.integers(modes, size=n)
    points = means[mode] + widths[mode, None] * rng.normal(size=(n, d))
    return torch.from_numpy(points.astype(np.float32))


def residuals(rng: np.random.Generator, n: int) -> Tensor:
    """Draw the residuals of n samples of class 0 of 10, which the logits favour more or less."""
    means = rng.normal(0, 1.5, (6, 10))
    means[:, 0] += rng.uniform(0.5, 5, 6)
    logits = means[rng.integers(6, size=n)] + rng.normal(size=(n, 10))
    return residual(torch.from_numpy(logits), torch.zeros(n, dtype=torch.int64))


def make(data: str, n: int, seed: int) -> Proxies:
    """Make the proxies of one class: residuals, mixture or outer."""
    rng = np.random.default_rng(seed)
    if data == "mixture":
        return Proxies(mixture(rng, n, 64))
    g = residuals(rng, n)
    return Proxies(g, mixture(rng, n, 64).relu() if data == "outer" else None)


def vectors(proxies: Proxies) -> Tensor:
    """Return the proxies as vectors in float64, outer products written out."""
    g = proxies.gradient.double()
    if proxies.features is None:
        return g
    return torch.einsum("ic,id->icd", g, proxies.features.double()).flatten(1)


def objective(proxies: Proxies, chosen: Tensor) -> float:
    """Return sum_i min_j ||x_i - x_j|| over the chosen j: float64, differences, no Gram matrix."""
    x = vectors(proxies)
    distances = torch.cdist(x, x[chosen], compute_mode="donot_use_mm_for_euclid_dist")
    return float(distances.min(1).values.sum())


def total_distance(proxies: Proxies, medoid: Tensor) -> float:
    """Return sum_i ||x_i - x_medoid(i)|| in float64."""
    x = vectors(proxies)
    return float((x - x[medoid]).norm(dim=1).sum())


def select_ours(proxies: Proxies, k: int) -> Tensor:
    return greedy_medoids(proxies.distances(), k).indices


def select_submodlib(proxies: Proxies, k: int) -> Tensor:
    module = import_module("submodlib.functions.facilityLocation")
    x = proxies.gradient.numpy()
    function = module.FacilityLocationFunction(n=len(x), data=x, metric="euclidean", mode="dense")
    greedy = function.maximize(
        budget=k,
        optimizer="LazyGreedy",
        stopIfZeroGain=False,
        stopIfNegativeGain=False,
        verbose=False,
        show_progress=False,
    )
    return torch.tensor([index for index, _ in greedy])


def select_apricot(proxies: Proxies, k: int) -> Tensor:
    x = proxies.gradient.double()
    distances = torch.cdist(x, x).numpy()
    selection = import_module("apricot").FacilityLocationSelection(
        k, metric="precomputed", optimizer="lazy"
    )
    return torch.from_numpy(selection.fit(distances.max() - distances).ranking.astype(np.int64))


def assign_ours(proxies: Proxies, k: int) -> Tensor:
    """Find the nearest of the first k points, which are as random as any k."""
    return nearest(proxies, proxies[torch.arange(k)])[0]


def assign_cdist(proxies: Proxies, k: int) -> Tensor:
    x = proxies.gradient
    return torch.cat([torch.cdist(block, x[:k]).argmin(1) for block in x.split(2048)])


Solver = Callable[[Proxies, int], Tensor]
Cost = Callable[[Proxies, Tensor], float]
SOLVERS: dict[str, tuple[Solver, Cost]] = {
    "ours": (select_ours, objective),
    "submodlib": (select_submodlib, objective),
    "apricot": (select_apricot, objective),
    "nearest": (assign_ours, total_distance),
    "cdist": (assign_cdist, total_distance),
}


def child(solver: str, data: str, n: int, k: int, seed: int) -> Reading:
    """Solve one problem in this process and say what it took and what the answer costs."""
    solve, cost = SOLVERS[solver]
    solve(make(data, 1_000, seed), 100)  # warm-up: libraries, threads
    proxies = make(data, n, seed)
    answer, reading = measure(lambda: solve(proxies, k))
    return {**reading, "cost": cost(proxies, answer)}


@dataclass(frozen=True)
class Case:
    """A problem and who solves it; the peer, if any, comes second."""

    data: str
    n: int
    k: int
    solvers: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """What a case took: per round, the readings of its solvers."""

    case: Case
    rounds: list[list[Reading]]

    def spread(self, solver: int, field: str) -> Spread:
        return Spread.of(readings[solver][field] for readings in self.rounds)

    def peak(self, solver: int) -> float:
        return self.spread(solver, "peak_mb").max

    def added(self, solver: int) -> float:
        """Memory on top of what the process held before."""
        return max(r[solver]["peak_mb"] - r[solver]["base_mb"] for r in self.rounds)

    def ratio(self) -> Spread:
        """The peer's seconds over ours."""
        return Spread.of(peer["seconds"] / ours["seconds"] for ours, peer in self.rounds)

    def error(self) -> Spread:
        """Our cost relative to the peer's, less 1: negative where ours is better."""
        return Spread.of(ours["cost"] / peer["cost"] - 1 for ours, peer in self.rounds)

    def record(self) -> dict[str, Any]:
        solved = {
            solver: {
                "seconds": asdict(self.spread(i, "seconds")),
                "peak_mb": self.peak(i),
                "added_mb": self.added(i),
                "readings": [readings[i] for readings in self.rounds],
            }
            for i, solver in enumerate(self.case.solvers)
        }
        if not self.compared:
            return {**asdict(self.case), "solved": solved}
        versus = {"ratio": asdict(self.ratio()), "error": asdict(self.error())}
        return {**asdict(self.case), **versus, "solved": solved}

    @property
    def compared(self) -> bool:
        return len(self.case.solvers) == 2

    def __str__(self) -> str:
        case = self.case
        line = f"{case.data:10}{case.n:7,}{case.k:7,}  " + " ".join(
            f"{solver:>9} {self.spread(i, 'seconds').median:7.3f} s"
            f" {self.peak(i):6.0f} MB (+{self.added(i):5.0f})"
            for i, solver in enumerate(case.solvers)
        )
        if not self.compared:
            return line
        ratio, error = self.ratio(), self.error()
        spread = f"[{ratio.min:.1f}, {ratio.max:.1f}]"
        return f"{line}  {ratio.median:6.1f}x {spread:14} [{error.min:+.0e}, {error.max:+.0e}]"


def find_peer() -> str:
    """Return the first peer that can be imported."""
    for peer in PEERS:
        try:
            import_module(peer)
        except ImportError:
            continue
        return peer
    raise SystemExit("No peer to measure against. Run: pip install submodlib-py")


def headline_cases(peer: str) -> list[Case]:
    return [Case("residuals", 5_000, round(5_000 * f), ("ours", peer)) for f in FRACTIONS]


def more_cases(peer: str) -> list[Case]:
    """The cases that only a full run has: wider vectors, and the cost against n."""
    wider = [Case("mixture", 5_000, round(5_000 * f), ("ours", peer)) for f in FRACTIONS]
    return wider + [Case("residuals", n, n // 10, ("ours", peer)) for n in SIZES]


def single_cases() -> list[Case]:
    """Medoid assignment, and the greedy of outer products."""
    return [
        Case("residuals", 50_000, 15_000, ("nearest", "cdist")),
        Case("outer", 5_000, 500, ("ours",)),
    ]


def run(cases: list[Case], rounds: int, threads: int) -> list[Row]:
    """Measure the cases in turn, round by round."""
    rows = [Row(case, []) for case in cases]
    for seed, row in progress([(seed, row) for seed in range(rounds) for row in rows]):
        case = row.case
        jobs = [
            {"solver": solver, "data": case.data, "n": case.n, "k": case.k, "seed": seed}
            for solver in case.solvers
        ]
        row.rounds.append([run_child(__file__, job, threads) for job in jobs])
    return rows


def summarise(rows: list[Row], peer: str) -> dict[str, Any]:
    """Make the final line: the worst of the headline cases, and the two others."""
    headline = rows[: len(FRACTIONS)]
    assignment, outer = rows[-2:]
    speedup = min(row.ratio().median for row in headline)
    errors = [row.error() for row in headline]
    return {
        "benchmark": "selection",
        "peer": peer,
        "speedup_submodlib": speedup if peer == "submodlib" else None,
        "speedup_apricot": speedup if peer == "apricot" else None,
        # The largest over the budgets of the median over rounds, as the speedup is the smallest.
        "objective_error": max(abs(error.median) for error in errors),
        "objective_worse": max(error.max for error in errors),  # of any round
        "objective_better": max(-error.min for error in errors),
        "peak_mb": max(row.peak(0) for row in headline),
        "peak_mb_peer": max(row.peak(1) for row in headline),
        "added_mb": max(row.added(0) for row in headline),
        "added_mb_peer": max(row.added(1) for row in headline),
        "n": headline[0].case.n,
        "d": 10,
        "speedup_assignment": assignment.ratio().median,
        "outer_seconds": outer.spread(0, "seconds").median,
    }


def report(rows: list[Row], scaling: list[Row], notes: list[str]) -> None:
    print(f"{'data':10}{'n':>7}{'k':>7}{'solver, median seconds, peak memory (added)':>53}", end="")
    print(f"{'time ratio [min, max]':>49}   cost difference")
    print(*rows, sep="\n")
    if scaling:
        print("\nCost against n: residuals, 10 %, nanoseconds for each entry of the matrix")
    for row in scaling:
        costs = (
            f"{solver:>9} {row.spread(i, 'seconds').median / row.case.n**2 * 1e9:7.1f}"
            for i, solver in enumerate(row.case.solvers)
        )
        print(f"{row.case.n:7,}", *costs)
    print("\nNotes:", *notes, sep="\n- ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="five rounds of the main cases")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(**options.child)))
        return
    peer = find_peer()
    package, how = PEERS[peer]
    about = environment(options.threads, [*PACKAGES, package])

    rounds = 5 if options.quick else 7
    cases = headline_cases(peer) + ([] if options.quick else more_cases(peer))
    rows = run(cases, rounds, options.threads)
    rows += run(single_cases(), 1 if options.quick else rounds, options.threads)
    summary = summarise(rows, peer)
    others = Spread.of(r["others"] for row in rows for r in chain(*row.rounds))
    notes = [
        f"Peer: {peer}, {how}",
        "Cost is the sum of distances to the nearest medoid, in float64. Its difference is "
        "(ours - peer) / peer, [min, max] over the rounds: negative where ours is better.",
        f"{rounds} rounds of new data each; a quick run has one of assignment and outer products.",
        f"Cores kept busy by other processes: median {others.median:.2f}, most {others.max:.2f}.",
        ", ".join(f"{key} {value}" for key, value in about.items() if key != "versions"),
        ", ".join(f"{key} {value}" for key, value in about["versions"].items()),
    ]
    same = [row for row in rows if row.case.data == "residuals" and row.case.k * 10 == row.case.n]
    scaling = [] if options.quick else sorted(same, key=lambda row: row.case.n)
    report(rows, scaling, notes)
    record = {
        "quick": options.quick,
        "rounds": rounds,
        "environment": about,
        "notes": notes,
        "summary": summary,
        "rows": [row.record() for row in rows],
    }
    save(options.output, "selection", "cpu", record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
