"""What feedback costs: a report and an epoch's strengths against ResNet-20 training steps.

n = 50,000 samples of 10 classes, batches of 128 images of 3 x 32 x 32. Every training step, in
float32, is followed by a report to a sampler of every rule; the device is waited for before and
after each reading. Loops without that waiting, with and without reports, show what is lost when a
report waits for the device.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from common import Spread, in_turn, progress, timed
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
    Uniform,
)
from augloader.feedback import StrengthRule

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
STEPS = 20  # ten times as many on a GPU


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
                    sampler.table.report(index, loss=losses, logits=logits, target=labels)
        shape = (8, size.batch, 3, size.side, size.side)
        images = torch.randint(256, shape, generator=random, dtype=torch.uint8).to(device)
        draws = list(self.samplers["constant"])
        parts = [draws[i : i + size.batch] for i in range(0, len(draws), size.batch)]
        whole = [part for part in parts if len(part) == size.batch]
        self.batches = [self._batch(images[i % len(images)], part) for i, part in enumerate(whole)]
        self._next = 0

    def _batch(self, images: Tensor, draws: list[Any]) -> Sample:
        columns = [torch.tensor(column) for column in zip(*draws, strict=True)]
        index, copied, weight, strength, *_ = columns
        target = index % CLASSES
        batch = Sample(images, target, index, weight.float(), strength.float(), copied)
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

    def round(self, steps: int, looped: int) -> Round:
        """Measure everything once, the rules in turn after every step."""
        seconds: list[float] = []
        reports: dict[str, list[float]] = {name: [] for name in self.samplers}
        for i in range(steps):
            batch = self.batch()
            took, (loss, logits) = timed(partial(self.step, batch), self.device)
            seconds.append(took)
            for name in in_turn(self.samplers, i):  # the first one finds cold caches
                report = partial(self.samplers[name].report, batch, loss=loss, logits=logits)
                reports[name].append(timed(report, self.device)[0])
        epochs = {
            name: timed(partial(begin, sampler), self.device)[0]
            for name, sampler in self.samplers.items()
        }
        return Round(
            median(seconds),
            {name: median(of) for name, of in reports.items()},
            epochs,
            timed(partial(self.loop, looped, None), self.device)[0] / looped,
            timed(partial(self.loop, looped, self.samplers[LOOPED]), self.device)[0] / looped,
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


def begin(sampler: CoresetSampler) -> None:
    """Begin the next epoch; that the one before was cut is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ draws")
        sampler.set_epoch(sampler.epoch + 1)


def measure_feedback(count: int, device: torch.device) -> tuple[dict[str, Any], Any]:
    """Measure and print what reports and strengths cost; return a summary and the record."""
    steps = STEPS * (10 if device.type == "cuda" else 1)
    bench = Bench(Size(), device)
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
        "report_share": max(row.report_share.median for row in rows),
        "set_epoch_share": max(row.set_epoch_share.median for row in rows),
        "loop_overhead": waiting.median,
    }
    record = {
        "size": asdict(bench.size),
        "steps": steps,
        "step": asdict(step),
        "loop_overhead": asdict(waiting),
        "rows": [asdict(row) for row in rows],
        "rounds": [asdict(r) for r in rounds],
    }
    return summary, record
