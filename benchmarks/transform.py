"""Strong augmentation of a batch against torchvision v2, Kornia's own policies and Albumentations.

    python benchmarks/transform.py --quick

TrivialAugment (wide), RandAugment(2, 9) and AutoAugment (ImageNet) of uint8 images, with float32 in
[0, 1] as the result for everybody. torchvision and Albumentations are called for every image, on
tensors, PIL images or arrays that are in memory already, and their results are stacked and
converted. Kornia gets a float batch, converted inside the timed part, and draws one sequence of
operations for all of it; ours draws one for every image.

Every size and number of threads has a process of its own, in which ours and the peers take turns,
round by round. A reading is the mean of several calls. Where CUDA and Triton are available, Kornia
and ours are measured there as well, against the time that the memory alone would take.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from augmenters import (
    ALBUMENTATIONS,
    COPIED_BYTES,
    COPY,
    FLOOR,
    FLOOR_BYTES,
    KORNIA,
    OURS,
    PIL,
    POLICIES,
    TENSOR,
    Call,
    cpu_calls,
    cuda_calls,
    kernels_name,
    make_images,
    whole_name,
)
from common import Reading, Spread, environment, in_turn, machine, progress, run_child, save

from augloader.augment.pixels import fused

PACKAGES = (
    "augloader",
    "numpy",
    "torch",
    "torchvision",
    "kornia",
    "pillow",
    "albumentations",
    "albumentationsx",
    "opencv-python-headless",
    "triton",
)
PEERS = (TENSOR, PIL, KORNIA, ALBUMENTATIONS)
KORNIA_CALLS = (200, 100)  # small and large images: its cost depends on the sequence drawn
GOALS = {
    "speedup_torchvision_32": 6.0,
    "speedup_kornia_32": 2.0,
    "speedup_torchvision_224": 1.2,
    "speedup_kornia_224": 4.0,
    "ratio_pil_224": None,
    "speedup_kornia_gpu_224": 20.0,
}
KEYS = {
    "speedup_torchvision_32": (32, TENSOR),
    "speedup_kornia_32": (32, KORNIA),
    "speedup_torchvision_224": (224, TENSOR),
    "speedup_kornia_224": (224, KORNIA),
    "ratio_pil_224": (224, PIL),
}


@dataclass(frozen=True)
class Config:
    """What one process measures."""

    batch: int
    side: int
    threads: int
    device: str = "cpu"

    def __str__(self) -> str:
        size = f"{self.batch} x 3 x {self.side} x {self.side}"
        return f"{size}, {self.device}, {self.threads} thread{'s' * (self.threads > 1)}"


def seconds_each(call: Call, count: int, device: torch.device) -> float:
    """Return the mean seconds of calls in a row; on CUDA between events, gaps included."""
    if device.type != "cuda":
        start = perf_counter()
        for _ in range(count):
            call()
        return (perf_counter() - start) / count
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    first.record()
    for _ in range(count):
        call()
    last.record()
    torch.cuda.synchronize(device)
    took: float = first.elapsed_time(last)
    return took / 1e3 / count


def calls_needed(name: str, side: int, took: float, seconds: float) -> int:
    """Return how many calls make a reading of some seconds."""
    least = KORNIA_CALLS[side > 64] if name == KORNIA else 3
    return max(least, min(500, math.ceil(seconds / took)))


def measure(config: Config, rounds: int, seconds: float) -> Reading:
    """Return the seconds of a call by ``policy/name/round``; everybody takes turns.

    Args:
        config: size and device; the caller sets the threads.
        rounds: readings of everybody.
        seconds: least length of a reading, which is of three calls or more.
    """
    device = torch.device(config.device)
    images = make_images(config.batch, config.side).to(device)
    make = cuda_calls if device.type == "cuda" else cpu_calls
    calls = {policy: make(policy, images) for policy in POLICIES}
    counts: dict[tuple[str, str], int] = {}
    for policy, names in calls.items():
        for name, call in names.items():
            warm = [seconds_each(call, 1, device) for _ in range(5)]
            counts[policy, name] = calls_needed(name, config.side, median(warm[1:]), seconds)
    reading: Reading = {}
    for i in range(rounds):
        for policy, named in calls.items():
            for name in in_turn(named, i):  # not always behind the same one
                took = seconds_each(named[name], counts[policy, name], device)
                reading[f"{policy}/{name}/{i}"] = took
    return reading


def child(config: Mapping[str, Any], rounds: int, seconds: float) -> Reading:
    """Measure one configuration in this process."""
    made = Config(**config)
    torch.set_num_threads(made.threads)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - peers may draw from it
    return measure(made, rounds, seconds)


@dataclass(frozen=True)
class Row:
    """What one of those measured took for a policy, and ours in the same rounds."""

    config: Config
    policy: str
    name: str
    seconds: tuple[float, ...]
    ours: tuple[float, ...]

    def ratio(self) -> Spread:
        """Its seconds over ours: above 1 where ours is faster."""
        return Spread.of(a / b for a, b in zip(self.seconds, self.ours, strict=True))

    def images_per_second(self) -> float:
        return self.config.batch / Spread.of(self.seconds).median

    def record(self) -> dict[str, Any]:
        return {
            **asdict(self.config),
            "policy": self.policy,
            "name": self.name,
            "seconds": asdict(Spread.of(self.seconds)),
            "images_per_second": self.images_per_second(),
            "ratio": asdict(self.ratio()),
            "readings": self.seconds,
        }

    def __str__(self) -> str:
        took, ratio = Spread.of(self.seconds), self.ratio()
        span = f"[{took.min * 1e3:.2f}, {took.max * 1e3:.2f}]"
        line = (
            f"{self.policy:8} {self.name:24}{took.median * 1e3:9.2f} ms {span:18}"
            f"{self.images_per_second():12,.0f}"
        )
        if self.name == OURS:
            return line
        line += f"{ratio.median:9.2f}x [{ratio.min:.2f}, {ratio.max:.2f}]"
        return line + "  ours is slower" * (self.name in PEERS and ratio.median < 1)


def rows_of(config: Config, reading: Reading) -> list[Row]:
    """Make a row of everybody from a child's reading."""
    taken: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for key, value in reading.items():
        if key.count("/") == 2:
            policy, name, i = key.split("/")
            taken.setdefault((policy, name), []).append((int(i), value))
    seconds = {who: tuple(value for _, value in sorted(found)) for who, found in taken.items()}
    return [
        Row(config, policy, name, values, seconds[policy, OURS])
        for (policy, name), values in seconds.items()
    ]


def smallest(rows: Iterable[Row], name: str) -> float:
    """Return the smallest over the policies of the median ratio."""
    return min(row.ratio().median for row in rows if row.name == name)


def summarise(rows: list[Row], sides: tuple[int, int] = (32, 224)) -> dict[str, float]:
    """Return the headline ratios of one number of threads, for a small and a large side."""
    measured = {32: sides[0], 224: sides[1]}
    return {
        key: smallest((row for row in rows if row.config.side == measured[side]), name)
        for key, (side, name) in KEYS.items()
    }


def shares(rows: list[Row], name: Callable[[torch.dtype], str]) -> dict[str, Spread]:
    """Return the share of the time that the memory alone takes, by policy and dtype."""
    found = {(row.policy, row.name): row for row in rows}
    answer = {}
    for (policy, called), row in found.items():
        for dtype, moved in FLOOR_BYTES.items():
            if called == name(dtype):
                values = row.config.batch * 3 * row.config.side**2
                copies = found[policy, COPY].seconds
                floors = (moved * values * copy / (2 * COPIED_BYTES) for copy in copies)
                pairs = zip(floors, row.seconds, strict=True)
                answer[f"{policy}, {called}"] = Spread.of(floor / took for floor, took in pairs)
    return answer


def summarise_cuda(rows: list[Row]) -> dict[str, float]:
    """Return the headline of a device: the worst policy, and for the shares the worst dtype."""
    whole, kernels = (
        min(share.median for share in shares(rows, name).values())
        for name in (whole_name, kernels_name)
    )
    copies = [row.seconds for row in rows if row.name == COPY]
    return {
        "speedup_kornia_gpu_224": smallest(rows, KORNIA),
        "share_of_bandwidth_floor": whole,
        "share_of_bandwidth_floor_kernels": kernels,
        "copy_gb_per_second": 2 * COPIED_BYTES / median(sum(copies, ())) / 1e9,
    }


def final(*summaries: Mapping[str, float]) -> dict[str, Any]:
    """Return the final line."""
    line: dict[str, Any] = {"benchmark": "transform", "machine": machine()}
    for summary in summaries:
        line |= summary
    return line


def report(rows: list[Row]) -> None:
    config = None
    for row in rows:
        if row.config != config:
            config = row.config
            print(f"\n{config}")
            print(f"{'policy':8} {'who':24}{'ms a batch [min, max]':>30}{'images/s':>13}", end="")
            print("   time / ours [min, max]")
        print(row)


def report_summary(title: str, summary: Mapping[str, float]) -> None:
    print(f"\n{title}")
    for key, value in summary.items():
        goal = GOALS.get(key)
        judged = "" if goal is None else f"  goal {goal:g}x: {'met' if value >= goal else 'MISSED'}"
        lost = "  ours is slower" if key.startswith(("speedup", "ratio")) and value < 1 else ""
        print(f"{key:34}{value:10.2f}{judged}{lost}")


def run(configs: list[Config], rounds: int, seconds: float) -> tuple[list[Row], Spread]:
    """Measure each configuration in a process; return the rows and the cores others kept busy."""
    rows, others = [], []
    for config in progress(configs):
        job = {"config": asdict(config), "rounds": rounds, "seconds": seconds}
        reading = run_child(__file__, job, config.threads, spin=True)
        others.append(reading["others"])
        rows += rows_of(config, reading)
    return rows, Spread.of(others)


def notes(device: str, quick: bool, rounds: int, others: Spread) -> list[str]:
    common = [
        "Ours at strength 1, nearest, one operation sequence an image. time / ours is taken round "
        "by round; a headline is the smallest over the policies of its median.",
        "Kornia draws one sequence for the whole batch: at least {} calls a reading of small "
        "images and {} of large ones.".format(*KORNIA_CALLS),
        f"{rounds} rounds{', one thread alone: a quick run' if quick else ''}.",
        f"Cores kept busy by other processes: median {others.median:.2f}, most {others.max:.2f}.",
    ]
    if device == "cuda":
        return [
            *common,
            "The floor moves 2.2, 3.2 or 5.2 bytes a channel value for uint8, bfloat16 or float32 "
            "output, at the bandwidth of a copy in the same round; for two operations in a row as "
            "well, which take more. The share is the worst policy's and dtype's: of the whole, "
            "sampling and its copies included, and of the kernels alone.",
        ]
    missing = find_spec("albumentations") is None
    return [
        *common,
        "torchvision and Albumentations work on images that are decoded already. Ours and Kornia "
        f'get a stacked batch; what stacking would add is within "{FLOOR}".',
        f"Albumentations {'is NOT installed' if missing else 'has no AutoAugment'}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="five short rounds, one thread")
    parser.add_argument(
        "--device",
        action="append",
        choices=("cpu", "cuda"),
        help="may be repeated; both where CUDA is available",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(**options.child)))
        return
    usable = torch.cuda.is_available() and fused.available()
    devices = options.device or ["cpu", *["cuda"] * usable]
    if "cuda" in devices and not usable:
        sys.exit("CUDA and Triton must be available for --device cuda.")
    rounds, seconds = (5, 0.25) if options.quick else (9, 0.4)
    threads = (1,) if options.quick else (1, 2)
    summaries = []
    for device in devices:
        about = environment(max(threads), PACKAGES, spin=True) | {"device": device}
        if device == "cuda":
            about |= {"threads": 1, "gpu": torch.cuda.get_device_name()}
            configs = [Config(256, 224, 1, device)]
        else:
            configs = [Config(*size, n) for n in threads for size in ((256, 32), (32, 224))]
        rows, others = run(configs, rounds, seconds)
        report(rows)
        record: dict[str, Any] = {"quick": options.quick, "rounds": rounds, "environment": about}
        if device == "cuda":
            summary = summarise_cuda(rows)
            report_summary("On the GPU:", summary)
            floors = shares(rows, whole_name) | shares(rows, kernels_name)
            print("\nShare of the bandwidth floor [min, max]")
            for name, share in floors.items():
                print(f"{name:34}{share.median:8.3f} [{share.min:.3f}, {share.max:.3f}]")
            record["shares"] = {name: asdict(share) for name, share in floors.items()}
        else:
            each_count = {n: summarise([r for r in rows if r.config.threads == n]) for n in threads}
            for n, found in each_count.items():
                report_summary(f"{n} thread{'s' * (n > 1)}:", found)
            record["summary_by_threads"] = each_count
            summary = each_count[threads[0]]
        said = notes(device, options.quick, rounds, others)
        said += [", ".join(f"{k} {v}" for k, v in about.items() if k != "versions")]
        said += [", ".join(f"{k} {v}" for k, v in about["versions"].items())]
        print("\nNotes:", *said, sep="\n- ")
        summaries.append(summary)
        record |= {"notes": said, "others": asdict(others), "summary": final(summary)}
        save(options.output, "transform", device, record | {"rows": [r.record() for r in rows]})
    print(json.dumps(final(*summaries)))


if __name__ == "__main__":
    main()
