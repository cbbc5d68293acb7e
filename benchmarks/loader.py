"""What the feedback costs: a report and an epoch's strengths against ResNet-20 training steps.

    python benchmarks/loader.py --quick

n = 50,000 samples of 10 classes, batches of 128 images of 3 x 32 x 32, as CIFAR-10. Every training
step, in float32, is followed by a report to a sampler of every rule; the device is waited for
before and after each reading. Loops without that waiting, with and without reports, show what is
lost when a report waits for the device.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from common import Spread, environment, progress, save
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import DEPTHS, ResNet

from augloader import (
    Confidence,
    Constant,
    CoresetSampler,
    Entropy,
    LossRank,
    Sample,
    StableInfluence,
    StrengthRule,
    Uniform,
)

PACKAGES = ("augloader", "numpy", "torch")
RULES: dict[str, StrengthRule] = {
    "constant": Constant(),
    "influence kl": StableInfluence("kl"),
    "influence loss": StableInfluence("loss"),
    "entropy": Entropy(),
    "loss rank": LossRank(),
    "confidence": Confidence(),
}
CLASSES = 10
LOOPED = "influence kl"  # the rule of the loops without waiting


@dataclass(frozen=True)
class Size:
    """How large the problem is."""

    n: int = 50_000
    batch: int = 128
    side: int = 32

    @property
    def steps(self) -> int:
        """Steps of an epoch over the data alone."""
        return -(-self.n // self.batch)


@dataclass(frozen=True)
class Round:
    """One round's median seconds of a step and of each rule's report and epoch, and of loops."""

    step: float
    report: dict[str, float]
    set_epoch: dict[str, float]
    loop: float
    loop_reporting: float


class Bench:
    """A network, samplers of every rule whose tables are full, and the batches of an epoch."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device = size, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ResNet(DEPTHS["resnet20"], CLASSES, torch.full((3,), 0.5), torch.ones(3))
        self.model.to(device).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.samplers = {
            name: CoresetSampler(range(size.n), Uniform(), fraction=0.3, strength=rule)
            for name, rule in RULES.items()
        }
        random = torch.Generator().manual_seed(0)
        for sampler in self.samplers.values():
            sampler.refresh()
            for _ in range(7):  # so that every window is full
                for index in torch.arange(size.n).split(4096):
                    logits = torch.randn(len(index), CLASSES, generator=random)
                    labels = index % CLASSES
                    losses = F.cross_entropy(logits, labels, reduction="none")
                    sampler.table.report(index, losses=losses, logits=logits, labels=labels)
        shape = (8, size.batch, 3, size.side, size.side)
        images = torch.randint(256, shape, generator=random, dtype=torch.uint8).to(device)
        draws = list(self.samplers["constant"])
        parts = [draws[i : i + size.batch] for i in range(0, len(draws), size.batch)]
        whole = [part for part in parts if len(part) == size.batch]
        self.batches = [self._batch(images[i % len(images)], part) for i, part in enumerate(whole)]
        self._next = 0

    def _batch(self, images: Tensor, draws: list[Any]) -> Sample:
        columns = [torch.tensor(column) for column in zip(*draws, strict=True)]
        index, copied, weight, strength, epoch, _ = columns
        target = index % CLASSES
        batch = Sample(images, target, index, weight.float(), strength.float(), copied, epoch)
        return batch.to(self.device)

    def batch(self) -> Sample:
        """Return the next batch of the epoch, which begins again when it is over."""
        self._next += 1
        return self.batches[self._next % len(self.batches)]

    def step(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Train on a batch as ``examples/train.py`` does; return losses and logits."""
        logits = self.model(batch.input)
        loss = F.cross_entropy(logits, batch.target, reduction="none")
        (loss * batch.weight).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, logits

    def loop(self, steps: int, sampler: CoresetSampler | None) -> None:
        """Train for some steps, with or without reports."""
        for _ in range(steps):
            batch = self.batch()
            loss, logits = self.step(batch)
            if sampler is not None:
                sampler.report(batch, loss=loss, logits=logits)

    def timed(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds of a call, all of the device's work in it, and its answer."""
        self.wait()
        start = perf_counter()
        answer = call()
        self.wait()
        return perf_counter() - start, answer

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def round(self, steps: int, looped: int) -> Round:
        """Measure everything once, the rules in turn after every step."""
        seconds: list[float] = []
        reports: dict[str, list[float]] = {name: [] for name in self.samplers}
        names = list(self.samplers)
        for i in range(steps):
            batch = self.batch()
            took, (loss, logits) = self.timed(partial(self.step, batch))
            seconds.append(took)
            first = i % len(names)  # the first one finds cold caches: take turns
            for name in names[first:] + names[:first]:
                report = partial(self.samplers[name].report, batch, loss=loss, logits=logits)
                reports[name].append(self.timed(report)[0])
        epochs = {
            name: self.timed(partial(sampler.set_epoch, sampler.epoch + 1))[0]
            for name, sampler in self.samplers.items()
        }
        return Round(
            median(seconds),
            {name: median(of) for name, of in reports.items()},
            epochs,
            self.timed(partial(self.loop, looped, None))[0] / looped,
            self.timed(partial(self.loop, looped, self.samplers[LOOPED]))[0] / looped,
        )

    def state_bytes(self, name: str) -> int:
        """Return the bytes of the rule's columns."""
        memory = self.samplers[name].table.state_dict()["memory"]
        return sum(values.nbytes for values in memory.values())


@dataclass(frozen=True)
class Row:
    """What a rule costs: seconds, and shares of a step and of an epoch, over the rounds."""

    rule: str
    state_bytes: int
    report: Spread
    report_share: Spread
    set_epoch: Spread
    set_epoch_share: Spread

    def __str__(self) -> str:
        share, epoch = self.report_share, self.set_epoch_share
        return (
            f"{self.rule:16}{self.report.median * 1e6:8.0f} us"
            f"{share.median:10.3%} [{share.min:.3%}, {share.max:.3%}]"
            f"{self.set_epoch.median * 1e3:9.2f} ms{epoch.median:10.4%}"
            f"{self.state_bytes / 2**20:9.2f} MiB"
        )


def summarise(bench: Bench, rounds: list[Round]) -> list[Row]:
    """Make a row of every rule; the shares are taken round by round."""
    steps = bench.size.steps
    return [
        Row(
            name,
            bench.state_bytes(name),
            Spread.of(r.report[name] for r in rounds),
            Spread.of(r.report[name] / r.step for r in rounds),
            Spread.of(r.set_epoch[name] for r in rounds),
            Spread.of(r.set_epoch[name] / (r.step * steps) for r in rounds),
        )
        for name in bench.samplers
    ]


def device_name(device: torch.device) -> str:
    """Return cpu, or the GPU's name as a file name may have it."""
    if device.type != "cuda":
        return device.type
    return torch.cuda.get_device_name(device).lower().replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="five short rounds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    count, steps = (5, 8) if options.quick else (7, 20)
    if device.type == "cuda":
        steps *= 10
    about = environment(options.threads, PACKAGES) | {"device": device_name(device)}
    about["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "default")
    size = Size()
    bench = Bench(size, device)
    bench.round(2, 2)  # warm-up: libraries, threads, clocks
    rounds = [bench.round(steps, max(2, steps // 2)) for _ in progress(range(count))]
    rows = summarise(bench, rounds)
    step = Spread.of(r.step for r in rounds)
    waiting = Spread.of(r.loop_reporting / r.loop - 1 for r in rounds)
    span = f"[{step.min * 1e3:.2f}, {step.max * 1e3:.2f}]"
    print(f"A step takes {step.median * 1e3:.2f} ms {span}.")
    print(
        f"{'rule':16}{'report':>11}{'share of a step':>28}{'set_epoch':>12}{'of epoch':>10}  state"
    )
    print(*rows, sep="\n")
    span = f"[{waiting.min:+.2%}, {waiting.max:+.2%}]"
    print(f"Loops that report ({LOOPED}) take {waiting.median:+.2%} {span} longer.")
    summary = {
        "benchmark": "loader",
        "device": about["device"],
        "report_share": max(row.report_share.median for row in rows),
        "set_epoch_share": max(row.set_epoch_share.median for row in rows),
        "loop_overhead": waiting.median,
    }
    record = {
        "quick": options.quick,
        "size": asdict(size),
        "steps": steps,
        "environment": about,
        "summary": summary,
        "step": asdict(step),
        "loop_overhead": asdict(waiting),
        "rows": [asdict(row) for row in rows],
        "rounds": [asdict(r) for r in rounds],
    }
    save(options.output, "loader", about["device"], record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
