"""How time and memory grow with the number of samples, from 10^5 to 10^7, and small steps' costs.

    python benchmarks/scale.py --quick        about two minutes; ends in one line of JSON
    python benchmarks/scale.py                every size, three rounds, and a figure on log axes
    python benchmarks/scale.py --large        10^7 samples in one class, about half an hour

Every reading comes from a process of its own, with one thread (--large: all). Memory is the peak
above what the process held before the call. What each part measures stands in parts.py.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from math import isnan, log
from pathlib import Path
from statistics import median
from typing import Any

from common import Reading, Spread, environment, machine, progress, run_child, save
from parts import PARTS

PACKAGES = ("augloader", "numpy", "numba", "torch", "torchvision", "faiss-gpu", "faiss-cpu")
SIZES = (10**5, 10**6, 10**7)
LARGEST = 10**7
LARGE: list[dict[str, Any]] = [{"part": "mapped", "n": LARGEST}]
QUICK: list[dict[str, Any]] = [
    {"part": "first draw", "n": LARGEST},
    {"part": "epoch", "n": 10**6},
    {"part": "report", "n": LARGEST},
    {"part": "selection", "n": 10**5, "share": 0.1},
    {"part": "selection", "n": 10**5, "share": 0.01},
    {"part": "classes", "n": 10**6},
    {"part": "pass", "n": 4000},
    {"part": "erasing", "n": 224},
    {"part": "import", "n": 0},
]


def jobs(size: str) -> list[dict[str, Any]]:
    if size:
        return {"quick": QUICK, "large": LARGE}[size]
    made: list[dict[str, Any]] = [
        {"part": part, "n": n}
        for part in ("first draw", "epoch", "rank", "report", "refresh")
        for n in SIZES
    ]
    made += [{"part": "first draw", "n": 10**8}]
    made += [
        {"part": "selection", "n": n, "share": share}
        for n in (10**4, 10**5, 3 * 10**5)
        for share in (0.01, 0.1)
    ]
    made += [{"part": "classes", "n": n} for n in (10**5, 10**6)]
    made += [{"part": part, "n": 2 * 10**5} for part in ("influence", "k-DPP", "sweep")]
    made += [{"part": "pass", "n": 4000}]
    made += [{"part": "erasing", "n": side} for side in (32, 96, 224, 512)]
    made += [{"part": part, "n": n} for part in ("policies", "mixing") for n in (32, 224)]
    return [*made, {"part": "threads", "n": 256}, {"part": "candidates", "n": 224}, *QUICK[-1:]]


def slope(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """Return the exponents of growth from one size to the next."""
    points = sorted((row["job"]["n"], median(r[name] for r in row["readings"])) for row in rows)
    return [
        round(log(max(b, 1e-9) / max(a, 1e-9)) / log(m / n), 2)
        for (n, a), (m, b) in pairwise(points)
    ]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the line of JSON: what was measured."""

    def found(part: str, n: int | None, name: str, **more: Any) -> float:
        values = [
            median(reading[name] for reading in row["readings"])
            for row in rows
            if row["job"]["part"] == part
            and n in (None, row["job"]["n"])
            and more.items() <= row["job"].items()
        ]
        return values[-1] if values else float("nan")

    first = [found("first draw", LARGEST, name) for name in ("seconds", "peak_mb", "base_mb")]
    small, large_budget = (found("selection", 10**5, "cpu_seconds", share=s) for s in (0.01, 0.1))
    large = [found("mapped", LARGEST, name) for name in ("seconds", "peak_mb", "base_mb")]
    known = {
        "first_draw_ms_1e7": round(1e3 * first[0], 3),
        "first_draw_mb_1e7": round(first[1] - first[2], 2),
        "draws_ratio": round(found("epoch", None, "ratio"), 3),
        "report_ms_1e7": round(1e3 * found("report", LARGEST, "seconds"), 3),
        "sweep_time_ratio": round(found("pass", None, "ratio"), 3),
        "select_small_budget_ratio": round(small / large_budget, 3),
        "select_memory_ratio": round(found("classes", 10**6, "peak_over"), 3),
        "erasing_ratio_224": round(found("erasing", 224, "ratio"), 3),
        "import_ratio": round(found("import", None, "ratio"), 3),
        "select_seconds_1e7": round(large[0], 1),
        "select_mb_1e7": round(large[1] - large[2], 1),
    }
    measured = {name: value for name, value in known.items() if not isnan(value)}
    return {"benchmark": "scale", "machine": machine(), **measured}


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory over the number of samples, on log axes."""
    from matplotlib.figure import Figure

    drawn = Figure((9, 4), layout="constrained")
    panels: dict[str, Any] = dict(zip(("seconds", "MB"), drawn.subplots(1, 2), strict=True))
    for label, part, share in (
        ("first draw", "first draw", None),
        ("report of 256", "report", None),
        ("free refresh", "refresh", None),
        ("selection, 1 %", "selection", 0.01),
        ("selection, 10 %", "selection", 0.1),
    ):
        chosen = [r for r in rows if r["job"]["part"] == part and r["job"].get("share") == share]
        at = [row["job"]["n"] for row in chosen]
        if len(at) < 2:
            continue
        seconds = [median(r["seconds"] for r in row["readings"]) for row in chosen]
        panels["seconds"].plot(at, seconds, "o-", label=label)
        if all("peak_mb" in row["readings"][0] for row in chosen):
            more = [
                max(0.1, median(r["peak_mb"] - r["base_mb"] for r in row["readings"]))
                for row in chosen
            ]
            panels["MB"].plot(at, more, "o-", label=label)
    for name, axes in panels.items():
        axes.set(xscale="log", yscale="log", xlabel="samples", ylabel=name)
        axes.legend()
    drawn.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    size: dict[str, Any] = {"dest": "size", "action": "store_const", "default": ""}
    parser.add_argument("--quick", const="quick", help="about two minutes", **size)
    parser.add_argument("--large", const="large", help="half an hour, 12 GB", **size)
    parser.add_argument("--rounds", type=int, help="(3; 1 if quick or large)")
    parser.add_argument("--only", nargs="+", choices=[*PARTS], help="these parts")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        job = dict(options.child)
        print(json.dumps(PARTS[job.pop("part")](**job)))
        return
    threads = (os.cpu_count() or 1) if options.size == "large" else 1
    wanted = [job for job in jobs(options.size) if job["part"] in (options.only or PARTS)]
    readings: dict[str, list[Reading]] = {json.dumps(job): [] for job in wanted}
    for _ in range(options.rounds or (1 if options.size else 3)):
        for job in progress(wanted):
            readings[json.dumps(job)].append(run_child(__file__, job, threads))
    rows = [{"job": json.loads(job), "readings": found} for job, found in readings.items()]
    for row in rows:
        spreads = {
            name: asdict(Spread.of(reading[name] for reading in row["readings"]))
            for name in row["readings"][0]
        }
        row["spread"] = spreads
        line = "  ".join(f"{name} {value['median']:.4g}" for name, value in spreads.items())
        print(f"{row['job']}: {line}")
    record = {
        "size": options.size,
        "environment": environment(threads, PACKAGES),
        "summary": summary(rows),
        "slopes": {
            part: slope([row for row in rows if row["job"]["part"] == part], "seconds")
            for part in ("first draw", "report", "refresh")
        },
        "rows": rows,
    }
    if not options.only:
        name = f"scale-{options.size}" if options.size else "scale"
        path = save(options.output, name, "cpu", record)
        if not options.size:
            figure(rows, path.with_suffix(".png"))
    print(json.dumps(record["summary"]))


if __name__ == "__main__":
    main()
