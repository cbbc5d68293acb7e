"""The papers' tables on disk: a file for each problem and method, with a line for each seed.

results/papers/<data set>/<schedule>/<problem>--<method>.json

Names are not trusted: a file holds all that the result depends on, and the checksums of the images
and labels, trained on and tested on, which are compared before anything is trained, read or
written.
"""

from __future__ import annotations

import fcntl
import json
import math
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from method import Method
from recipe import PHASES, VERSION, Outcome
from schedules import Problem, Schedule
from scipy.stats import t as student

# Fields that older records lack: they are left out where they have their default.
_LATER = {
    Method: ("rate", "rows", "hardest", "keep", "off", "longer", "fade", "bare"),
    Schedule: ("drops", "factor", "refining", "median", "size", "weights"),
}
SEEDS = 3  # of which differences are judged
RESULTS = Path(__file__).parent / "results" / "papers"


@dataclass(frozen=True)
class Run:
    """One seed: its outcome, and where, when and from which commit it came."""

    seed: int
    outcome: Outcome
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        found = self.outcome
        seconds = found.seconds.values()
        if set(found.seconds) != set(PHASES) or not all(map(math.isfinite, seconds)):
            raise ValueError(f"seconds must be of {PHASES}, got {found.seconds}. Run it again.")
        if not 0 <= found.accuracy <= 1 or not math.isfinite(found.loss):
            raise ValueError(f"outcome must be finite, got {found}. Run it again.")
        missing = {"machine", "device", "clock", "commit", "date", "versions"} - set(
            self.environment
        )
        if missing:
            raise ValueError(f"environment must have {sorted(missing)}. Run it again.")


@dataclass(frozen=True)
class Mean:
    """Mean and spread, the standard deviation, over n seeds; 0 of one seed."""

    mean: float
    spread: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        values = list(values)
        return cls(mean(values), stdev(values) if len(values) > 1 else 0.0, len(values))

    def above(self, other: Mean) -> Mean:
        """Return the difference and its spread, and the smaller number of seeds."""
        spread = math.hypot(self.spread, other.spread)
        return Mean(self.mean - other.mean, spread, min(self.n, other.n))

    @property
    def tie(self) -> bool:
        """Whether a difference lies inside its spread, or is of too few seeds to tell."""
        return self.n < SEEDS or abs(self.mean) <= self.spread


@dataclass(frozen=True)
class Record:
    """What was run, fully described, and the runs, by seed."""

    described: dict[str, Any]
    runs: tuple[Run, ...] = ()

    @property
    def accuracy(self) -> Mean:
        return Mean.of(run.outcome.accuracy for run in self.runs)

    def seconds(self, *phases: str) -> Mean:
        """Return the seconds of some phases, together."""
        return Mean.of(sum(run.outcome.seconds[name] for name in phases) for run in self.runs)

    def beyond(self, other: Record) -> Mean | None:
        """Return the mean difference on common seeds, and half its 95 % interval as spread."""
        theirs = {run.seed: run.outcome.accuracy for run in other.runs}
        pairs = [
            (run.outcome.accuracy, theirs[run.seed]) for run in self.runs if run.seed in theirs
        ]
        if not pairs:
            return None
        found = Mean.of(own - its for own, its in pairs)
        if found.n == 1:
            return found
        wide = float(student.ppf(0.975, found.n - 1)) * found.spread / math.sqrt(found.n)
        return Mean(found.mean, wide, found.n)

    @property
    def rows(self) -> float:
        return mean(run.outcome.rows for run in self.runs)

    def plus(self, run: Run) -> Record:
        """Return the record with a seed's run added, or replaced."""
        others = [other for other in self.runs if other.seed != run.seed]
        return Record(self.described, tuple(sorted([*others, run], key=lambda run: run.seed)))

    def write(self, path: Path) -> None:
        """Write a file; it is always a whole one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        summary: dict[str, Any] = {"accuracy": asdict(self.accuracy), "rows": self.rows}
        summary["seconds"] = {name: asdict(self.seconds(name)) for name in PHASES}
        head = json.dumps({**self.described, "summary": summary}, indent=1)[:-2]
        lines = ",\n  ".join(json.dumps(asdict(run)) for run in self.runs)
        part = path.with_suffix(".part")
        part.write_text(f'{head},\n "runs": [\n  {lines}\n ]\n}}\n')
        part.replace(path)


def describe(problem: Problem, schedule: Schedule, method: Method) -> dict[str, Any]:
    """Return all that the result depends on but the seed; strategies and rules as their repr."""
    parts: dict[str, Any] = {"recipe": VERSION, "problem": asdict(problem)}
    parts |= {"schedule": said(schedule), "method": said(method)}
    if schedule.weights:
        parts["schedule"]["weights"] = schedule.origin
    described: dict[str, Any] = json.loads(json.dumps(parts))  # tuples become lists, as when read
    return described


def said(part: Schedule | Method) -> dict[str, Any]:
    """Return a part's fields; what is not plain as its repr."""
    plain = (str, int, float, bool, tuple, type(None))
    found = {
        f.name: getattr(part, f.name)
        for f in fields(part)
        if f.name not in _LATER[type(part)] or getattr(part, f.name) != f.default
    }
    return {name: v if isinstance(v, plain) else repr(v) for name, v in found.items()}


def add(run: Run, folder: Path, problem: Problem, schedule: Schedule, method: Method) -> None:
    """Add a run to its file, which several processes may do at once.

    Raises:
        ValueError: results of the problem are of other images; nothing is written.
    """
    path = path_of(folder, problem, schedule, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        require_data(folder, problem, schedule, run.outcome.data, run.outcome.tested)
        read(folder, problem, schedule, method).plus(run).write(path)


def require_data(
    folder: Path, problem: Problem, schedule: Schedule, data: int, tested: int
) -> None:
    """Raise unless all results of a problem are of the images and labels of these checksums.

    A checksum of 0 is not known.

    Raises:
        ValueError: some are of others.
    """
    for path in sorted((folder / schedule.name).glob(f"{problem.name}--*.json")):
        outcomes = [run.outcome for run in load(path).runs]
        for kind, own, found in (
            ("training", data, {outcome.data for outcome in outcomes}),
            ("test", tested, {outcome.tested for outcome in outcomes} - {0}),
        ):
            if own and found - {own}:
                raise ValueError(
                    f"{kind} images and labels must be those of {path}, checksum {max(found)}, got "
                    f"{own}. Give this data set another --name."
                )


def path_of(folder: Path, problem: Problem, schedule: Schedule, method: Method) -> Path:
    return folder / schedule.name / f"{problem.name}--{method.name}.json"


def read(folder: Path, problem: Problem, schedule: Schedule, method: Method) -> Record:
    """Read what there is of a problem and method.

    Raises:
        ValueError: the file is of another problem, schedule or method, or not as it should be.
    """
    path, described = (
        path_of(folder, problem, schedule, method),
        describe(problem, schedule, method),
    )
    if not path.exists():
        return Record(described)
    record = load(path)
    if record.described != described:
        raise ValueError(
            f"{path.name} must be of {described}, got {record.described}. Name the method anew, or "
            "delete the file."
        )
    return record


def load(path: Path) -> Record:
    """Read a file.

    Raises:
        ValueError: it is no record.
    """
    try:
        return parse(json.loads(path.read_text()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a record, got {error!r}. Delete it.") from error


def parse(stored: dict[str, Any]) -> Record:
    """Return a file's record; raise unless it has what a record must have, and nothing else."""
    described = {name: stored[name] for name in ("recipe", "problem", "schedule", "method")}
    if set(stored) != {*described, "summary", "runs"}:
        raise ValueError(f"a record must have no other fields, got {sorted(stored)}. Delete it.")
    runs = tuple(
        Run(run["seed"], Outcome(**run["outcome"]), run["environment"]) for run in stored["runs"]
    )
    if len({run.seed for run in runs}) < len(runs):
        raise ValueError("seeds must differ. Delete the file.")
    tested = {run.outcome.tested for run in runs} - {0}
    if len({run.outcome.data for run in runs}) > 1 or len(tested) > 1:
        raise ValueError("runs must be of the same images and labels. Delete the file.")
    return Record(described, runs)


def commit() -> str:
    """Return the commit that is checked out, with a + where files but results differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
