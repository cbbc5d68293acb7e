"""Facility location against its peers, medoid assignment, and how both grow with n.

    python benchmarks/selection.py --quick

Every reading comes from a process of its own, after a small warm-up in it. The solvers of a case
take turns, round by round, and each round draws new data. The seconds of a selection are those of
its distances and its greedy together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import Reading, Spread, environment, machine, measure, progress, run_child, save
from facility import Problem, make, total_distance
from solvers import PEERS, SOLVERS, installed

FRACTIONS = (0.01, 0.1, 0.3)
PACKAGES = ("augloader", "numpy", "numba", "torch", "faiss-gpu", "faiss-cpu")
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


def shape_cases() -> list[Case]:
    """30 % of Caltech-256 and of TinyImageNet, as wide as their residuals."""
    return [
        Case("mixture-257", 60 * 257, 18 * 257, ("ours", "random"), classes=257, rounds=3),
        Case("mixture-200", 500 * 200, 150 * 200, ("ours", "random"), classes=200, rounds=3),
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
    parser.add_argument("--shapes", action="store_true", help="other data sets' shapes only")
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
    elif options.shapes:
        rows = run(shape_cases(), options.threads)
        seconds = [row.spread("ours", "seconds").median for row in rows]
        names = "caltech256_seconds", "tinyimagenet_seconds"
        summary = {"benchmark": "selection", **dict(zip(names, seconds, strict=True))}
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
    name = "selection" + "-shapes" * options.shapes + "-quick" * options.quick
    path = save(options.output, name, "cuda" if options.gpu else "cpu", record)
    if not (options.quick or options.gpu or options.shapes):
        picture(rows, path.with_suffix(".png"))
    print(json.dumps({**summary, "machine": machine()}))


if __name__ == "__main__":
    main()
