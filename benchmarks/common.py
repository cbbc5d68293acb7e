"""What the benchmarks share: a process of its own for every reading, medians, and the record.

Linux only: memory and the load of other processes are read from /proc.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, TypeVar

import torch
from tqdm import tqdm

T = TypeVar("T")
Reading = dict[str, float]

_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMBA")


@dataclass(frozen=True)
class Spread:
    """The median of some readings and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = sorted(values)
        return cls(median(values), values[0], values[-1])


def measure(call: Callable[[], T]) -> tuple[T, Reading]:
    """Call once; return the answer, its seconds, and the memory before and at most.

    ``cpu_seconds`` count every thread and, unlike ``seconds``, hardly the wait for busy cores.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    base = _memory_mb("VmRSS")
    start, cpu_start = perf_counter(), process_time()
    answer = call()
    seconds, cpu_seconds = perf_counter() - start, process_time() - cpu_start
    memory = {"base_mb": base, "peak_mb": _memory_mb("VmHWM")}
    return answer, {"seconds": seconds, "cpu_seconds": cpu_seconds, **memory}


def timed(call: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return the seconds of a call, all of the device's work in it, and its answer."""
    _wait(device)
    start = perf_counter()
    answer = call()
    _wait(device)
    return perf_counter() - start, answer


def in_turn(names: Iterable[str], i: int) -> list[str]:
    """Return the names in their order, the i-th first: each comes first in one of the rounds."""
    names = list(names)
    first = i % len(names)
    return names[first:] + names[:first]


def run_child(script: str, job: dict[str, Any], threads: int, spin: bool = False) -> Reading:
    """Run ``script --child JOB`` in a process of its own; its last line of output is a reading.

    Idle threads sleep, or spin, as is their default; then busy cores stall them. Adds ``others``,
    the number of cores that other processes kept busy meanwhile.
    """
    limits = {f"{name}_NUM_THREADS": str(threads) for name in _THREADS}
    others = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    limits |= {} if spin else {"OMP_WAIT_POLICY": "passive"}
    busy, start = _others_seconds(), perf_counter()
    done = subprocess.run(
        [sys.executable, script, "--child", json.dumps(job)],
        env={**others, **limits},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{job} ended with status {done.returncode}:\n{done.stderr}")
    reading: Reading = json.loads(done.stdout.splitlines()[-1])
    load = (_others_seconds() - busy) / (perf_counter() - start)
    return {**reading, "others": max(load, 0.0)}


def progress(steps: Iterable[T]) -> Iterator[T]:
    """Yield the steps, with a bar where a terminal is attached."""
    yield from tqdm(steps, disable=None)


def environment(threads: int, packages: Iterable[str], spin: bool = False) -> dict[str, Any]:
    """Describe the machine, the date and the versions of those packages that are installed."""
    installed = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "machine": machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "omp_wait_policy": "default" if spin else "passive",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **installed},
    }


def machine() -> str:
    """Return a short name of this machine, such as amd-epyc-2c."""
    return slug(_cpu_model(), os.cpu_count() or 1)


def device_name(device: torch.device) -> str:
    """Return cpu, or the GPU's name as a file name may have it."""
    if device.type != "cuda":
        return device.type
    return torch.cuda.get_device_name(device).lower().replace(" ", "-")


def slug(model: str, cores: int) -> str:
    """Make a short name of a processor's model name and a number of cores."""
    words = re.sub(r"\(\w+\)|@.*|\d+-core|\bcpu\b|\bprocessor\b", " ", model.lower())
    return "-".join([*re.findall(r"[a-z0-9]+", words), f"{cores}c"])


def save(folder: Path, script: str, device: str, record: dict[str, Any]) -> Path:
    """Write a record to ``folder/<script>--<machine>--<device>.json`` and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{script}--{machine()}--{device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def guard(
    path: Path, described: Mapping[str, Any], advice: str, usual: Mapping[str, Any] | None = None
) -> None:
    """Raise unless a path is free, or holds a record of the same images and options.

    Args:
        path: of a JSON file.
        described: what the record to be written is of.
        advice: what to do where the one that is there is of something else.
        usual: what older records are of that do not say it.

    Raises:
        ValueError: it is of something else.
    """
    if not path.exists():
        return
    stored = {**(usual or {}), **json.loads(path.read_text())}
    for name, wanted in json.loads(json.dumps(described)).items():
        got = stored.get(name, "none: it is an old one")
        if got != wanted:
            raise ValueError(f"{name} must be that of {path}, {got}, got {wanted}. {advice}")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_mb(field: str) -> float:
    """Read this process's memory; unlike ru_maxrss, VmHWM does not count the parent's."""
    found = re.search(
        rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    if not found:
        raise RuntimeError(f"/proc/self/status has no {field}. These benchmarks need Linux.")
    return int(found[1]) / 1024


def _others_seconds() -> float:
    """Return the processor time used so far by all but this process and its children."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, *interrupts = map(int, fields[1:9])
    own = os.times()
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return busy - own.user - own.system - own.children_user - own.children_system
