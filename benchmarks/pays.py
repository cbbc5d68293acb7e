"""Whether augloader.cost tells the seconds of an epoch: parts measured alone, then whole epochs.

    python benchmarks/pays.py --quick

JPEG files of smooth noise, quality 90, 256 on the short side and up to 341 on the long one, are read
as an ImageFolder. Weak: a random resized crop to 224 and a flip; strong: torchvision's RandAugment
and RandomErasing beside it, in the dataset. Batches are of 16, torch has one thread. Devices:

    cpu        a network is trained on the CPU, on cores that it shares with the workers;
    of its own a device that takes no core, as a GPU: a step is a wait of fixed length.

Each with a short step, so that loading limits an epoch, and with a long one. In every round the
parts come first, each by itself: plain rows, strong rows and steps on a batch that is there in this
process, a sweep, a selection, and the start of the workers until the first batch is there. augloader.cost predicts the epochs from them; then an epoch of every
setting is measured, in random order. A ratio is measured over predicted, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Spread, environment, machine, progress, save
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from augloader import (
    CoresetSampler,
    Every,
    FacilityLocation,
    Residual,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    collate,
    cost,
    sweep,
)

PACKAGES = ("augloader", "numpy", "pillow", "torch", "torchvision", "numba")
CLASSES, BATCH, SIDE, SHORT = 10, 16, 224, 256
REFRESH = 2  # epochs between selections of the coreset
STEPS = 12  # of which a step is the median
STARTS = 3  # of which the start of the workers is the median
GOAL = 0.1  # how far a median ratio may be from 1
CORES = 2  # that workers and training share: see ``main``

SETTINGS: dict[str, dict[str, Any]] = {
    "nothing strong": {"fraction": 1.0, "copies": 0, "probability": 0.0},
    "all in place": {"fraction": 1.0, "copies": 0},
    "half in place": {"fraction": 0.5, "copies": 0},
    "30 % in place": {"fraction": 0.3, "copies": 0},
    "all appended": {"fraction": 1.0},
    "30 % appended": {"fraction": 0.3},
    "30 % appended to half": {"fraction": 0.3, "base": "random", "base_fraction": 0.5},
    "30 % alone": {"fraction": 0.3, "base": "none"},
    "30 % coreset in place": {"fraction": 0.3, "copies": 0, "refresh": Every(REFRESH)},
}
CORESET = "30 % coreset in place"


@dataclass(frozen=True)
class Place:
    """Where training runs, how long its steps are, and how many workers load.

    Attributes:
        width: channels of the network that the CPU trains; 0 for a device of its own.
        wait: seconds a row that a device of its own takes.
    """

    name: str
    workers: int
    width: int = 0
    wait: float = 0.0

    @property
    def step_cores(self) -> float:
        return float(self.width > 0)


PLACES = (
    Place("cpu, short step, no workers", 0, width=16),
    Place("cpu, short step, 2 workers", 2, width=16),
    Place("cpu, long step, 2 workers", 2, width=96),
    Place("device of its own, short step, 2 workers", 2, wait=1e-3),
    Place("device of its own, long step, 2 workers", 2, wait=10e-3),
)


class Network(nn.Sequential):
    """A small convolutional network on uint8 images."""

    def __init__(self, width: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, width, 7, stride=4, padding=3),
                nn.ReLU(),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4 * width, CLASSES),
            )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images.float() / 255 - 0.5)
        return logits


@dataclass(frozen=True)
class Parts:
    """Seconds of each part by itself: of a row, but of a whole selection and an epoch's start."""

    step: float
    load: float
    strong: float
    sweep: float
    select: float
    start: float

    @classmethod
    def middle(cls, parts: Sequence[Parts]) -> Parts:
        """Return the median of each."""
        return cls(*map(median, zip(*(asdict(of).values() for of in parts), strict=True)))


@dataclass(frozen=True)
class Row:
    """A setting at a place: seconds of an epoch, predicted and measured, round by round."""

    place: Place
    setting: str
    limit: str
    draws: float
    predicted: list[float]
    measured: list[float]

    @property
    def ratio(self) -> Spread:
        """Measured over predicted, round by round."""
        pairs = zip(self.measured, self.predicted, strict=True)
        return Spread.of(measured / predicted for measured, predicted in pairs)

    def record(self) -> dict[str, Any]:
        rates = Spread.of(self.draws / seconds for seconds in self.measured)
        return asdict(self) | {"ratio": asdict(self.ratio), "images_per_second": asdict(rates)}

    def __str__(self) -> str:
        ratio = self.ratio
        return (
            f"{self.setting:24}{self.limit:8}{median(self.predicted):8.2f} s"
            f"{median(self.measured):8.2f} s{ratio.median:7.3f} [{ratio.min:.3f}, {ratio.max:.3f}]"
            f"{self.draws / median(self.measured):8.0f} images/s"
        )


class Bench:
    """The data, the networks and the samplers of all settings."""

    def __init__(self, images: Any, places: Sequence[Place]) -> None:
        self.n, self.places = len(images), places
        weak = v2.Compose([v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip()])
        strong = v2.Compose([v2.RandAugment(), v2.PILToTensor(), v2.RandomErasing(p=0.5)])
        clean = v2.Compose([v2.Resize(SHORT), v2.CenterCrop(SIDE)])
        self.data = WeightedAugmentedDataset(
            images, weak=weak, strong=strong, clean=clean, final=v2.ToImage()
        )
        self.models = {width: Network(width) for width in {place.width for place in places} - {0}}
        self.optimizers = {
            width: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            for width, model in self.models.items()
        }

    def sampler(self, setting: str) -> CoresetSampler:
        """Return a setting's sampler, selected already but for the coreset, which is timed."""
        options = {"refresh": Every(None)} | SETTINGS[setting]
        strategy = FacilityLocation() if setting == CORESET else Uniform()
        sampler = CoresetSampler(self.data, strategy, **options)
        if setting != CORESET:
            sampler.refresh()
        return sampler

    def loader(self, sampler: CoresetSampler, workers: int) -> DataLoader[Any]:
        return DataLoader(
            self.data,
            BATCH,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            multiprocessing_context="fork" if workers else None,
            generator=torch.Generator(),
        )

    def step(self, place: Place, batch: Sample) -> None:
        """Train on a batch, or wait as long as a device of its own would take."""
        if not place.width:
            time.sleep(place.wait * len(batch.target))
            return
        logits = self.models[place.width](batch.input)
        loss = F.cross_entropy(logits, batch.target, reduction="none")
        (loss * batch.weight).mean().backward()
        self.optimizers[place.width].step()
        self.optimizers[place.width].zero_grad()

    def first(self, workers: int) -> None:
        """Load the first batch of an epoch, by workers that start for it."""
        next(iter(self.loader(self.sampler("nothing strong"), workers)))

    def swept(self, width: int) -> Any:
        return sweep(self.models[width], self.data, Residual(), batch_size=BATCH)

    def width(self, place: Place) -> int:
        """Return the network of a place's sweeps: its own, or the smallest."""
        return place.width or min(self.models)

    def parts(self) -> dict[Place, Parts]:
        """Measure each part by itself, in this process."""
        found, rows = {}, {}
        for setting in ("nothing strong", "all in place"):
            loader = self.loader(self.sampler(setting), 0)
            rows[setting] = seconds(partial(exhaust, loader)) / self.n
        batch = next(iter(self.loader(self.sampler("nothing strong"), 0)))
        starts = {0: 0.0} | {
            count: median(seconds(partial(self.first, count)) for _ in range(STARTS))
            for count in {place.workers for place in self.places} - {0}
        }
        sweeps, selections = {}, {}
        for width in self.models:
            start = perf_counter()
            evidence = self.swept(width)
            sweeps[width] = (perf_counter() - start) / self.n
            selections[width] = seconds(partial(self.sampler(CORESET).refresh, evidence))
        plain = rows["nothing strong"]
        for place in self.places:
            steps = [seconds(partial(self.step, place, batch)) for _ in range(STEPS)]
            found[place] = Parts(
                median(steps) / len(batch.target),
                plain,
                max(rows["all in place"] - plain, 0.0),
                sweeps[self.width(place)],
                selections[self.width(place)],
                starts[place.workers],
            )
        return found

    def epoch(self, place: Place, setting: str) -> float:
        """Return the seconds of an epoch, of the coreset's the mean of a refresh period's."""
        sampler = self.sampler(setting)
        epochs = REFRESH if setting == CORESET else 1
        start = perf_counter()
        for epoch in range(epochs):
            sampler.begin(epoch, partial(self.swept, self.width(place)))
            for batch in self.loader(sampler, place.workers):
                self.step(place, batch)
        return (perf_counter() - start) / epochs


def seconds(call: Callable[[], Any]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def exhaust(loader: DataLoader[Any]) -> None:
    for _ in loader:
        pass


def predict(sampler: CoresetSampler, place: Place, parts: Parts) -> Any:
    """Return what augloader.cost says of an epoch."""
    shared = {"cores": CORES, "step_cores": place.step_cores} if place.workers else {}
    swept = isinstance(sampler.strategy, FacilityLocation)
    given = asdict(parts) if swept else asdict(parts) | {"sweep": 0.0, "select": 0.0}
    epochs = REFRESH if swept else 1
    return cost(sampler, **given, workers=place.workers, epochs=epochs, **shared)


def write_images(folder: Path, count: int) -> None:
    """Write smooth noise as JPEG files, in folders of ten classes."""
    generator = np.random.default_rng(0)
    for i in range(count):
        long = int(generator.integers(SHORT, SHORT * 4 // 3 + 1))
        size = (long, SHORT) if generator.random() < 0.5 else (SHORT, long)
        coarse = generator.integers(256, size=(size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        path = folder / str(i % CLASSES) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        image.save(path, quality=90)


@contextmanager
def image_folder(count: int) -> Iterator[ImageFolder]:
    """Yield a dataset of new image files, which are deleted in the end."""
    with tempfile.TemporaryDirectory() as written:
        write_images(Path(written), count)
        yield ImageFolder(written)


def measure(bench: Bench, settings: Sequence[str], rounds: int) -> tuple[list[Row], list[Any]]:
    """Measure parts and epochs in every round; return the rows and the parts."""
    todo = [(place, setting) for place in bench.places for setting in settings]
    found: dict[Any, list[Any]] = {case: [] for case in todo}
    rounds_of_parts = []
    for case in todo[:: len(settings)]:  # warm-up: workers, compilers, files
        bench.epoch(case[0], case[1])
    bench.parts()
    steps = [(i, case) for i in range(rounds) for case in random.Random(i).sample(todo, len(todo))]
    for i, case in progress(steps):
        if len(rounds_of_parts) == i:
            rounds_of_parts.append(bench.parts())
        place, setting = case
        said = predict(bench.sampler(setting), place, rounds_of_parts[i][place])
        found[case].append((said, bench.epoch(place, setting)))
    rows = [
        Row(
            place,
            setting,
            predict(
                bench.sampler(setting),
                place,
                Parts.middle([parts[place] for parts in rounds_of_parts]),
            ).limit,
            pairs[0][0].draws,
            [said.epoch for said, _ in pairs],
            [measured for _, measured in pairs],
        )
        for (place, setting), pairs in found.items()
    ]
    return rows, rounds_of_parts


def final(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the final line."""
    ratios = [row.ratio.median for row in rows]
    return {
        "benchmark": "pays",
        "machine": machine(),
        "least_ratio": min(ratios),
        "largest_ratio": max(ratios),
        "within_goal": sum(abs(ratio - 1) <= GOAL for ratio in ratios),
        "settings": len(ratios),
    }


def report(rows: Sequence[Row], line: dict[str, Any]) -> None:
    for place in dict.fromkeys(row.place for row in rows):
        print(place.name)
        print(*(row for row in rows if row.place == place), sep="\n")
    print(f"{line['within_goal']} of {line['settings']} are within {GOAL:.0%} of the prediction.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round, three settings, 128 images")
    add("--images", type=int, help="(1,024; 128 if quick)")
    add("--rounds", type=int, help="(5; 1 if quick)")
    add("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    settings = ("all in place", "30 % in place", CORESET) if options.quick else tuple(SETTINGS)
    rounds = options.rounds or (1 if options.quick else 5)
    with image_folder(options.images or (128 if options.quick else 1024)) as images:
        bench = Bench(images, PLACES)
        rows, parts = measure(bench, settings, rounds)
    line = final(rows)
    report(rows, line)
    record = {
        "quick": options.quick,
        "n": bench.n,
        "rounds": rounds,
        "batch": BATCH,
        "refresh": REFRESH,
        "environment": environment(1, PACKAGES),
        "summary": line,
        "parts": [
            {"place": place.name}
            | {
                name: asdict(Spread.of(asdict(of[place])[name] for of in parts))
                for name in asdict(parts[0][place])
            }
            for place in PLACES
        ],
        "rows": [row.record() for row in rows],
    }
    save(options.output, "pays-quick" if options.quick else "pays", "cpu", record)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
