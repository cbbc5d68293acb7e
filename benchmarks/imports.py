"""How long an import takes, in a process of its own, beside torch's and another version's.

    python benchmarks/imports.py
    python benchmarks/imports.py --other DIR

"augloader" is the package alone, "a name" the sampler and the dataset with all that they load, as
in a spawned worker; "torch" is what they cannot do without. DIR is a checkout of another version.
All take turns in every round; medians, and the smallest and largest ratio to the other version.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Spread, environment, machine, progress, save

PROGRAM = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
IMPORTS = {
    "torch": "import torch",
    "augloader": "import augloader",
    "a name": "from augloader import CoresetSampler, WeightedAugmentedDataset",
}
ROUNDS = 9
ROOT = Path(__file__).parents[1]


def seconds(statement: str, root: Path) -> float:
    """Run a statement in a new process that sees a checkout; return its seconds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement)],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure(roots: dict[str, Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every import in every checkout, round by round."""
    found: dict[str, dict[str, list[float]]] = {
        name: {version: [] for version in roots} for name in IMPORTS
    }
    for root in roots.values():
        seconds(IMPORTS["a name"], root)  # byte code is written
    for _ in progress(range(rounds)):
        for name, statement in IMPORTS.items():
            for version, root in roots.items():
                found[name][version].append(seconds(statement, root))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--other", type=Path, help="checkout of another version")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    roots = {"this": ROOT} | ({"other": options.other.resolve()} if options.other else {})
    found = measure(roots, options.rounds)
    rows: list[dict[str, Any]] = []
    for name, versions in found.items():
        row: dict[str, Any] = {"import": IMPORTS[name]}
        row |= {version: asdict(Spread.of(values)) for version, values in versions.items()}
        line = "   ".join(f"{version} {row[version]['median']:.3f} s" for version in versions)
        if "other" in versions:
            pairs = zip(versions["other"], versions["this"], strict=True)
            row["ratio"] = asdict(Spread.of(other / this for other, this in pairs))
            line += f"   {row['ratio']['median']:.1f}x"
        print(f"{name:10} {line}")
        rows.append(row)
    about = environment(os.cpu_count() or 1, ("augloader", "torch", "torchvision", "numba"))
    summary = {"benchmark": "imports", "machine": machine()}
    summary["augloader_s"] = rows[1]["this"]["median"]
    save(options.output, "imports", "cpu", {"environment": about, "summary": summary, "rows": rows})
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
