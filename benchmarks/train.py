"""What an epoch costs: strong augmentation of everything, of a coreset, and of nothing.

    python benchmarks/train.py --quick
    python benchmarks/train.py --data DIR

ResNet-20 is trained by examples/train.py's recipe, in batches of 128 draws, on --data (train/ with
one folder a class, as CIFAR-10) or on noise. Every image is cropped and flipped at random; kinds of
strong augmentation:

    a   one copy appended, by TrivialAugment;
    b   in place: AugMix's two versions beside the image, and 12 x the Jensen-Shannon divergence of
        the three outputs in the sample's loss (Hendrycks et al. 2020, section 3);
    c   the 4 hardest of 8 TrivialAugment versions appended, HardestOf(8, 4).

Every round times an epoch of every case, in random order. An epoch of a coreset bears a 20th of a
sweep and a selection, for it is selected every 20 epochs (Liu & Mirzasoleiman 2022). The speed-up
is over the same kind at 100 %, round by round; the ideal one follows from counting the passes: an
image costs 1 forward, 2 backward and nothing else. As a check of that unit, both are measured each
round, and the ideal is given for the measured cost of a backward pass as well, and with the sweep.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Spread, device_name, environment, machine, progress, save, timed
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import DEPTHS, Images, ResNet, jensen_shannon, mean_and_std, read

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    FacilityLocation,
    HardestOf,
    Residual,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)

PACKAGES = ("augloader", "numpy", "torch", "torchvision", "kornia", "numba", "triton")
REFRESH = 20  # epochs between selections, the paper's
FRACTIONS = (0.1, 0.3, 0.5)
HEADLINE = 0.3
# Of a chosen sample, beside its own row: rows forwarded without gradient, and rows trained on.
KINDS = {"a": (0, 1), "b": (0, 2), "c": (8, 4)}
CLASSES, BATCH, SIDE = 10, 128, 32
UNIT_ROWS = 16 * BATCH  # of which the cost of the passes is measured
GOAL_SHARE, GOAL_SPEEDUP = 0.9, {"c": 3.43}


@dataclass(frozen=True)
class Case:
    """A kind of strong augmentation, and the share of the images that get it."""

    kind: str
    fraction: float

    @property
    def selects(self) -> bool:
        """Whether it is of a coreset."""
        return 0 < self.fraction < 1

    def __str__(self) -> str:
        return f"{self.kind} {self.fraction:4.0%}" if self.kind in KINDS else self.kind


def cases(fractions: Sequence[float]) -> list[Case]:
    """Return weak alone, and each kind in full and for the fractions."""
    return [
        Case("weak", 0.0),
        *(Case(kind, share) for kind in KINDS for share in (1.0, *fractions)),
    ]


def count(kind: str, fraction: float, backward: float = 2.0) -> float:
    """Return what an epoch costs for each image, in forward passes, without selection.

    Args:
        kind: of ``KINDS``.
        fraction: share of the images that are strongly augmented.
        backward: cost of a backward pass in forward passes.
    """
    scored, trained = KINDS[kind]
    step = 1 + backward
    return step + fraction * (scored + trained * step)


def ideal(kind: str, fraction: float, backward: float = 2.0, swept: bool = False) -> float:
    """Return the speed-up over the full epoch that the counts allow, with its share of a sweep."""
    sweeps = 1 / REFRESH if swept else 0.0
    return count(kind, 1.0, backward) / (count(kind, fraction, backward) + sweeps)


def noise(n: int, side: int = SIDE) -> Images:
    """Return images of noise whose mean depends on their class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % CLASSES
    mean = 60.0 + 15 * labels.view(-1, 1, 1, 1)
    images = mean + 40 * torch.randn(n, 3, side, side, generator=generator)
    names = [str(c) for c in range(CLASSES)]
    return Images(images.clamp(0, 255).to(torch.uint8), labels, names)


@dataclass(frozen=True)
class Unit:
    """Images a second through the network: forward without gradient, and forward and backward."""

    forward: float
    both: float

    @property
    def backward(self) -> float:
        """Cost of a backward pass in forward passes."""
        return self.forward / self.both - 1


@dataclass(frozen=True)
class Reading:
    """Seconds of a case in a round; without selection both parts of it are 0."""

    train: float
    sweep: float = 0.0
    select: float = 0.0

    @property
    def epoch(self) -> float:
        """What an epoch takes, with its share of a selection."""
        return self.train + (self.sweep + self.select) / REFRESH


class Bench:
    """One network, which trains on, and the draws of every case."""

    def __init__(self, images: Images, wanted: Sequence[Case], device: torch.device) -> None:
        self.images, self.device = images, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            statistics = mean_and_std(images.images)
            self.model = ResNet(DEPTHS["resnet20"], len(images.classes), *statistics)
        self.model.to(device).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        side = images.images.shape[-1]
        weak = v2.Compose([v2.RandomCrop(side, padding=4), v2.RandomHorizontalFlip()])
        self.data = WeightedAugmentedDataset(images, weak=weak)
        self.trivial = AdaptiveStrengthTransform("trivial", seed=0)
        self.augmix = AdaptiveStrengthTransform("augmix", seed=0)
        self.hardest = HardestOf(self.trivial, candidates=8, keep=4)
        self.samplers = {case: self._sampler(case) for case in wanted}

    def _sampler(self, case: Case) -> CoresetSampler:
        sampler = CoresetSampler(
            self.data,
            FacilityLocation() if case.selects else Uniform(),
            fraction=case.fraction or 1.0,
            base="full",
            copies=0 if case.kind == "b" else 1,
            refresh=Every(REFRESH, warmup=0 if case.fraction else 10**9),
            seed=0,
        )
        if case.fraction == 1:
            sampler.refresh()
        return sampler

    def loss(self, kind: str, batch: Sample) -> Tensor:
        """Augment a batch on its device and return its loss."""
        if kind == "b":
            return self.consistency(batch)
        if kind == "a":
            images = self.trivial(batch.input, batch.strength, keys=batch.keys)
            batch = batch._replace(input=images)
        elif kind == "c":
            batch = self.hardest(batch, self.model)
        loss = F.cross_entropy(self.model(batch.input), batch.target, reduction="none")
        mean: Tensor = (loss * batch.weight).mean()
        return mean

    def consistency(self, batch: Sample) -> Tensor:
        """Return AugMix's loss, where samples without strength have their cross-entropy alone."""
        chosen = batch.strength.nonzero().flatten()
        rows, strength, keys = chosen.to(self.device), batch.strength[chosen], batch.keys[chosen]
        versions = [
            self.augmix(batch.input[rows], strength, keys=keys + torch.tensor([0, 0, c]))
            for c in (1, 2)
        ]
        logits = self.model(torch.cat([batch.input, *versions]))
        clean, first, second = logits.split([len(batch.target), *map(len, versions)])
        loss = F.cross_entropy(clean, batch.target, reduction="none")
        loss = loss.index_add(0, rows, 12 * jensen_shannon(clean[rows], first, second))
        mean: Tensor = (loss * batch.weight).mean()
        return mean

    def step(self, kind: str, batch: Sample) -> Tensor:
        """Train on a batch; return its loss."""
        loss = self.loss(kind, batch.to(self.device))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def train(self, case: Case, epoch: int, batches: int | None = None) -> None:
        """Train for an epoch, or its first batches."""
        sampler = self.samplers[case]
        sampler.set_epoch(epoch)
        total = torch.zeros((), device=self.device)
        loader = DataLoader(
            self.data, BATCH, sampler=sampler, pin_memory=self.device.type == "cuda"
        )
        for i, batch in enumerate(loader, 1):
            total += self.step(case.kind, batch)
            if i == batches:
                break
        if not math.isfinite(total.item()):
            raise RuntimeError(f"{case}: the loss is {total.item()}. Training has diverged.")

    def warm_up(self) -> None:
        """Do everything once: libraries, compilers, clocks."""
        evidence = sweep(self.model, self.data, Residual(), batch_size=BATCH)
        for case, sampler in self.samplers.items():
            if case.selects:
                sampler.refresh(evidence)
            self.train(case, 0, batches=1)
            sampler.set_epoch(0)  # anew: it was not meant to be whole
        self.unit(BATCH)

    def read(self, case: Case, epoch: int) -> Reading:
        """Time an epoch of a case, and the selection before it."""
        selected = {}
        if case.selects:
            selected["sweep"], evidence = timed(
                partial(sweep, self.model, self.data, Residual(), batch_size=BATCH), self.device
            )
            selected["select"], _ = timed(
                partial(self.samplers[case].refresh, evidence), self.device
            )
        return Reading(timed(partial(self.train, case, epoch), self.device)[0], **selected)

    def unit(self, rows: int = UNIT_ROWS) -> Unit:
        """Measure what a pass costs, on images that are on the device."""
        images = self.images.images[:rows].to(self.device)
        labels = self.images.labels[:rows].to(self.device)
        parts = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))

        def forward() -> None:
            with torch.no_grad():
                for part, _ in parts:
                    self.model(part)

        def both() -> None:
            for part, target in parts:
                F.cross_entropy(self.model(part), target).backward()
                self.optimizer.zero_grad()

        self.model.eval()
        alone, _ = timed(forward, self.device)
        self.model.train()
        together, _ = timed(both, self.device)
        return Unit(len(images) / alone, len(images) / together)


@dataclass(frozen=True)
class Row:
    """The readings of a case, those of its kind in full, and the units, round by round."""

    case: Case
    readings: tuple[Reading, ...]
    full: tuple[Reading, ...]
    units: tuple[Unit, ...]

    def speedups(self) -> list[float]:
        pairs = zip(self.full, self.readings, strict=True)
        return [full.epoch / own.epoch for full, own in pairs]

    def record(self) -> dict[str, Any]:
        took = Spread.of(reading.epoch for reading in self.readings)
        record = {**asdict(self.case), "epoch_s": asdict(took)}
        record["readings"] = [asdict(reading) for reading in self.readings]
        kind, fraction = self.case.kind, self.case.fraction
        if not self.case.selects:
            return record
        speedups, best = self.speedups(), ideal(kind, fraction)
        measured = [ideal(kind, fraction, unit.backward) for unit in self.units]
        pairs = list(zip(speedups, measured, strict=True))
        return record | {
            "speedup": asdict(Spread.of(speedups)),
            "ideal": best,
            "share_of_ideal": asdict(Spread.of(speedup / best for speedup in speedups)),
            "ideal_swept": ideal(kind, fraction, swept=True),
            "ideal_measured_unit": asdict(Spread.of(measured)),
            "share_of_measured_unit": asdict(Spread.of(speedup / own for speedup, own in pairs)),
        }

    def __str__(self) -> str:
        said, selection = self.record(), [read.sweep + read.select for read in self.readings]
        line = f"{self.case!s:8}{show(said['epoch_s'], '.2f'):26}"
        if not self.case.selects:
            return line
        return (
            f"{line}{Spread.of(selection).median:11.2f}   {show(said['speedup'], '.2f'):20}"
            f"{said['ideal']:7.2f}   {show(said['share_of_ideal'], '.1%'):25}"
            f"{said['ideal_swept']:7.2f}{said['ideal_measured_unit']['median']:15.2f}"
        )


def show(spread: dict[str, float], form: str) -> str:
    """Write a spread's record as median [min, max]."""
    median, least, most = (format(spread[name], form) for name in ("median", "min", "max"))
    return f"{median:>7} [{least}, {most}]"


def measure(bench: Bench, rounds: int) -> list[Row]:
    """Time every case in every round; return a row of each."""
    wanted = list(bench.samplers)
    readings: dict[Case, list[Reading]] = {case: [] for case in wanted}
    units: list[Unit] = []
    steps = [
        (i, case) for i in range(rounds) for case in random.Random(i).sample(wanted, len(wanted))
    ]
    for i, case in progress(steps):
        if len(units) == i:
            units.append(bench.unit())
        readings[case].append(bench.read(case, i))
    return [
        Row(case, tuple(own), tuple(readings.get(Case(case.kind, 1.0), own)), tuple(units))
        for case, own in readings.items()
    ]


def final(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the final line."""
    found = {row.case.kind: row.record() for row in rows if row.case.fraction == HEADLINE}
    return {
        "benchmark": "train",
        "machine": machine(),
        "share_of_ideal_30": {k: row["share_of_ideal"]["median"] for k, row in found.items()},
        "speedup_30": {k: row["speedup"]["median"] for k, row in found.items()},
    }


def report(rows: Sequence[Row], line: dict[str, Any]) -> None:
    print(f"{'case':8}{'s an epoch [min, max]':26}{'s selecting':>11}   {'speed-up':20}", end="")
    print(f"{'ideal':>7}   {'share of the ideal':25}{'swept':>7}{'measured unit':>15}")
    print(*rows, sep="\n")
    unit = Spread.of(unit.backward for unit in rows[0].units)
    print(f"A backward pass takes {unit.median:.2f} [{unit.min:.2f}, {unit.max:.2f}] forward ones.")
    print("The ideal counts passes alone: augmenting and loading may take the share above 100 %.")
    for kind, share in line["share_of_ideal_30"].items():
        judged = "met" if share >= GOAL_SHARE else "MISSED"
        print(f"{kind} at 30 %: {share:.1%} of the ideal, goal {GOAL_SHARE:.0%}: {judged}")
    for kind, goal in GOAL_SPEEDUP.items():
        speedup, best = line["speedup_30"][kind], ideal(kind, HEADLINE)
        judged = "met" if speedup >= goal else f"MISSED, the counts allow {best:.2f}x"
        print(f"{kind} at 30 %: {speedup:.2f}x, goal {goal}x: {judged}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--quick", action="store_true", help="three rounds of weak, full and 30 %% alone")
    add("--data", type=Path, help="folder with train/, a folder a class; noise without it")
    add("--images", type=int, help="training images (5,000; 50,000 on a GPU; 1,280 if quick)")
    add("--rounds", type=int, help="(5; 3 if quick)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    usual = 50_000 if device.type == "cuda" else 5_000
    wanted = options.images or (1_280 if options.quick else usual)
    rounds = options.rounds or (3 if options.quick else 5)
    about = environment(torch.get_num_threads(), PACKAGES) | {"device": device_name(device)}
    about["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "default")
    if options.data is None:
        images, name = noise(wanted), "noise"
    else:
        images = read(options.data / "train", np.random.default_rng(0), SIDE, wanted)
        name = options.data.resolve().name
    bench = Bench(images, cases((HEADLINE,) if options.quick else FRACTIONS), device)
    bench.warm_up()
    rows = measure(bench, rounds)
    line = final(rows)
    report(rows, line)
    record = {
        "quick": options.quick,
        "data": name,
        "n": len(images),
        "rounds": rounds,
        "refresh": REFRESH,
        "environment": about,
        "summary": line,
        "units": [asdict(unit) | {"backward": unit.backward} for unit in rows[0].units],
        "rows": [row.record() for row in rows],
    }
    save(options.output, "train-quick" if options.quick else "train", about["device"], record)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
