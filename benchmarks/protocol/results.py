"""What a run of ``strategies.py`` found: means and intervals, the table, and the record."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import guard, machine, save
from scipy import stats

from protocol.choices import Accuracies
from protocol.problems import Array

# What a record is of, beside the names in its file's name.
DESCRIBED = "data", "quick", "rounds", "points", "epochs", "seed", "C", "network", "retrained"
ADVICE = "Give another --output, or name the data set: --dataset."
COMPARED = (50, 100, 250)  # numbers of augmented points with a column in the table

Record = dict[str, Any]


def interval(values: Array) -> dict[str, float]:
    """Return the mean and half the width of its 95 % t interval."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    return {"mean": float(values.mean()), "half": float(half)}


def curve(rounds: Sequence[Accuracies], count: int) -> dict[str, Array]:
    """Return each round's accuracies, and their mean over 0 to ``count`` points as "auc"."""
    points = sorted(set.intersection(*map(set, rounds)))
    found = {str(k): np.array([reached[k] for reached in rounds]) for k in points}
    if {0, count} <= set(points):
        found["auc"] = np.trapezoid(list(found.values()), points, axis=0) / count
    return found


def compare(own: dict[str, Array], uniform: dict[str, Array], count: int) -> dict[str, Any]:
    """Return what a strategy reached, and by how much it beat uniform, round by round."""
    return {
        "mean": {key: interval(x) for key, x in own.items()},
        "gain": {key: interval(x - uniform[key]) for key, x in own.items() if key in uniform},
        "auc_in_points": count * float(own["auc"].mean()) if "auc" in own else None,
    }


@dataclass(frozen=True)
class Results:
    """What a run found.

    Attributes:
        record: by transformation, each round's accuracy with no and all points augmented; each
            round's rank correlation, and its p-value, of the scores by the models of those two; the
            first round's scores by both; where C was chosen, the C of both; and of every strategy
            what it reached and by how much that beats uniform.
        pictures: PNG files in base64 of the first round's training images of highest and lowest
            score without augmentation, by their place in the round.
    """

    name: str
    record: dict[str, dict[str, Any]]
    pictures: dict[int, str]


def summary(results: Results) -> dict[str, Any]:
    auc: dict[str, Any] = {key: defaultdict(dict) for key in results.record}
    bounds: dict[str, dict[str, float]] = {"none": {}, "full": {}}
    for key, found in results.record.items():
        for row in found["strategies"]:
            if "auc" in row["mean"]:
                auc[key][row["score"]][row["strategy"]] = round(row["mean"]["auc"]["mean"], 5)
        for bound, values in bounds.items():
            values[key] = round(float(np.mean(found[bound])), 5)
    return {"benchmark": "strategies", "data": results.name, "auc": auc, **bounds}


def table(results: Results) -> str:
    """Return areas under the curve and, in percentage points, how strategies beat uniform."""
    columns = ("auc", *map(str, COMPARED))
    lines = []
    for name, found in results.record.items():
        rhos = (f"{key} {np.mean(x, 0)[0]:.2f}" for key, x in found["spearman"].items())
        lines += [
            f"\n{name}: {np.mean(found['none']):.2%} without augmentation, "
            f"{np.mean(found['full']):.2%} with all; rank correlation of the scores before and "
            f"after: {', '.join(rhos)}",
            f"{'':46}{'AUC':>7}" + "".join(f"{'+ ' + key:>16}" for key in columns),
        ]
        for row in found["strategies"]:
            cells = [f"{100 * row['mean']['auc']['mean']:.2f}%" if "auc" in row["mean"] else ""]
            for gain in map(row["gain"].get, columns):
                cells.append(
                    f"{100 * gain['mean']:+.2f} ± {100 * gain['half']:.2f}" if gain else ""
                )
            if row["strategy"] == "support vectors":  # as many as there are
                size, reached = np.mean([*(pair for x in row["rounds"] for pair in x.items())], 0)
                cells[1] = f"{reached:.2%} with {size:.0f}"
            lines.append(
                f"{row['score']:10}{row['strategy']:36}{cells[0]:>7}"
                + "".join(f"{cell:>16}" for cell in cells[1:]).rstrip()
            )
    return "\n".join(lines)


def tidy(value: Any, scores: bool = False) -> Any:
    """Return a record with six decimals, and four digits of scores, which may be tiny."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if scores else round(value, 6)
    if isinstance(value, Mapping):
        return {key: tidy(part, scores or key == "scores") for key, part in value.items()}
    return [tidy(part, scores) for part in value] if isinstance(value, list) else value


def path_of(folder: Path, script: str) -> Path:
    return folder / f"{script}--{machine()}--cpu.json"


def write(folder: Path, script: str, record: Record) -> tuple[Path, Record]:
    """Write a record where there is none of others; return its path and what was written."""
    described = {name: record[name] for name in DESCRIBED if name in record}
    guard(path_of(folder, script), described, ADVICE)
    record = tidy(json.loads(json.dumps(record)))
    return save(folder, script, "cpu", record), record
