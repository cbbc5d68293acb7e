"""How long scores and strategies take, beside NumPy, torch and DPPy; how good approximations are.

    python benchmarks/scores.py --quick

Every reading runs in a process of its own. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Reading, Spread, environment, measure, progress, run_child, save
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from augloader import KDPP, Evidence, Given, Proportional, Proxies
from augloader.core import residual
from augloader.selection import influence
from augloader.selection.leave_one_out import HESSIANS

PACKAGES = ("augloader", "dppy", "numpy", "scikit-learn", "scipy", "torch")
DAMPING = 0.1

# What is measured: a job is a case, its size, and who does it.


def proportional(who: str, n: int, k: int) -> Callable[[], object]:
    """Return the draw of k of n samples without replacement, in proportion to scores."""
    rng = np.random.default_rng(0)
    scores = rng.exponential(size=n)
    if who == "numpy":
        return lambda: rng.choice(n, k, replace=False, p=scores / scores.sum())
    weights = torch.from_numpy(scores)
    if who == "torch":
        return lambda: torch.multinomial(weights, k, replacement=False)
    evidence = Evidence(n, scores=weights.float())
    return lambda: Proportional(Given()).select(evidence, k, generator=rng)


def kdpp(who: str, n: int, d: int, k: int) -> Callable[[], object]:
    """Return the draw from a k-DPP of n unit vectors; "gaussian" is ours, of higher rank."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    if who == "dppy":
        from dppy.finite_dpps import FiniteDPP

        factor = (x / x.square().sum(1, keepdim=True).sqrt()).double().numpy().T

        def draw() -> object:
            with contextlib.redirect_stdout(io.StringIO()):
                dpp = FiniteDPP("likelihood", L_gram_factor=factor)
                return dpp.sample_exact_k_dpp(size=k, random_state=0)

        return draw
    strategy = KDPP(kernel="gaussian" if who == "gaussian" else "linear")
    evidence = Evidence(n, features=x)
    return lambda: strategy.select(evidence, k, generator=np.random.default_rng(0))


def leave_one_out(who: str, n: int, d: int, classes: int) -> Callable[[], object]:
    """Return the influences of n samples with d features and a bias."""
    generator = torch.Generator().manual_seed(0)
    h = torch.cat([torch.randn(n, d, generator=generator).relu(), torch.ones(n, 1)], 1)
    logits = h @ torch.randn(d + 1, classes, generator=generator) / 10
    labels = (logits + torch.randn(n, classes, generator=generator)).argmax(1)
    proxies = Proxies(residual(logits, labels), h)
    return lambda: influence(proxies, DAMPING, next(name for name in HESSIANS if name == who))


CASES: dict[str, Callable[..., Callable[[], object]]] = {
    "proportional": proportional,
    "kdpp": kdpp,
    "influence": leave_one_out,
}


def jobs(quick: bool) -> list[dict[str, Any]]:
    """Return what is measured; ours comes first in each size."""
    found = []
    for n in (50_000, 1_000_000):
        whos = ["augloader", "numpy", "torch"]
        found += [{"case": "proportional", "size": [n, n // 10], "who": who} for who in whos]
    for n in (1_000, 5_000, 50_000):
        whos = ["augloader", "dppy"] if find_spec("dppy") else ["augloader"]
        found += [{"case": "kdpp", "size": [n, 128, 100], "who": who} for who in whos]
    if not quick:
        found += [{"case": "kdpp", "size": [50_000, 128, 1_000], "who": "gaussian"}]
    n, d = (5_000, 128) if quick else (50_000, 512)
    found += [{"case": "influence", "size": [n, d, 10], "who": who} for who in HESSIANS]
    return found


def correlations() -> dict[str, float]:
    """Return Spearman's rank correlation with the exact influences, on fitted digits."""
    bunch = load_digits()
    x = np.hstack([bunch.data / 16, np.ones((len(bunch.target), 1))])
    fitted = LogisticRegression(C=1 / DAMPING, fit_intercept=False, max_iter=2_000)
    logits = torch.from_numpy(fitted.fit(x, bunch.target).decision_function(x))
    proxies = Proxies(residual(logits, torch.from_numpy(bunch.target)), torch.from_numpy(x).float())
    found = {name: influence(proxies, DAMPING, name).numpy() for name in HESSIANS}
    return {name: float(spearmanr(found["exact"], values)[0]) for name, values in found.items()}


def summarise(readings: list[tuple[dict[str, Any], list[Reading]]]) -> list[dict[str, Any]]:
    """Return one row a job: seconds, added memory, and the ratio of a peer's time to ours."""
    rows: list[dict[str, Any]] = []
    ours: list[Reading] = []
    for job, parts in readings:
        peer = job["who"] in ("numpy", "torch", "dppy")
        ours = ours if peer else parts
        row = {
            **job,
            "seconds": Spread.of(part["seconds"] for part in parts).__dict__,
            "added_mb": Spread.of(part["peak_mb"] - part["base_mb"] for part in parts).__dict__,
        }
        if peer:
            pairs = zip(parts, ours, strict=True)
            row["ratio"] = Spread.of(a["seconds"] / b["seconds"] for a, b in pairs).__dict__
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller influences, three rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        job = options.child
        case, (n, *rest) = CASES[job["case"]], job["size"]
        case(job["who"], min(n, 1_000), *[min(part, 100) for part in rest])()  # libraries, threads
        print(json.dumps(measure(case(job["who"], n, *rest))[1]))
        return
    rounds = options.rounds or (3 if options.quick else 5)
    plan = jobs(options.quick)
    readings: list[tuple[dict[str, Any], list[Reading]]] = [(job, []) for job in plan]
    for _ in progress(range(rounds)):
        for job, parts in readings:
            parts.append(run_child(__file__, job, options.threads))
    rows = summarise(readings)
    for row in rows:
        ratio = f"{row['ratio']['median']:8.1f}x" if "ratio" in row else ""
        size = " x ".join(f"{number:,}" for number in row["size"])
        print(
            f"{row['case']:14}{size:24}{row['who']:12}{row['seconds']['median']:9.3f} s"
            f"{row['added_mb']['median']:9.0f} MB{ratio}"
        )
    near = correlations()
    print("rank correlation with the exact influences, digits:", near)
    ratios = {
        f"{row['case']}_{row['who']}_{row['size'][0]}": round(row["ratio"]["median"], 2)
        for row in rows
        if "ratio" in row
    }
    summary = {"benchmark": "scores", "ratios": ratios, "spearman": near}
    record = {
        "quick": options.quick,
        "rounds": rounds,
        "environment": environment(options.threads, PACKAGES),
        "summary": summary,
        "rows": rows,
    }
    save(options.output, "scores-quick" if options.quick else "scores", "cpu", record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
