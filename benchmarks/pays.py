"""Whether augloader.cost tells the seconds of an epoch: parts measured alone, then whole epochs.

    python benchmarks/pays.py --quick

JPEG files of smooth noise, quality 90, 256 on the short side and up to 341 on the long one, are
read as an ImageFolder. Weak: a random resized crop to 224 and a flip; strong: torchvision's
RandAugment and RandomErasing beside it, in the dataset. Batches are of 16, torch has one thread.
Devices:

    cpu         a network is trained on the CPU, on cores that it shares with the workers;
    its own     a device that takes no core, as a GPU: a step is a wait of fixed length.

Steps are short, so that loading limits an epoch, or long, or on the CPU about as long as loading.
In every round each place's parts come first: loops over plain and over strong draws that do nothing
else, a loop that trains on plain draws, whose steps are timed, the start of the workers, a sweep, a
selection. augloader.cost predicts the epochs from them; then an epoch of every setting is measured,
in random order. A ratio is measured over predicted, round by round.

A step's seconds are the core's on the CPU, and elapsed ones on a device of its own; taking a batch
over from a worker counts as a part of it, in seconds of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
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
    Cost,
    Every,
    Evidence,
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
TIMES = 3  # that a loop over the data and the start of the workers are repeated
GOAL = 0.1  # how far a median ratio may be from 1
CORES = os.cpu_count() or 1  # that workers and training share

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
        skip: the network takes every skip-th row and column.
        wait: seconds a row that a device of its own takes.
    """

    name: str
    workers: int
    width: int = 0
    skip: int = 1
    wait: float = 0.0


PLACES = (
    Place("cpu, no workers", 0, width=16),
    Place("cpu, short step, 2 workers", 2, width=8, skip=2),
    Place("cpu, long step, 2 workers", 2, width=48),
    Place("its own, short step, 2 workers", 2, wait=0.5e-3),
    Place("its own, long step, 2 workers", 2, wait=5e-3),
    Place("cpu, step as long as loading, 2 workers", 2, width=16),
)


class Network(nn.Sequential):
    """A small convolutional network on uint8 images."""

    def __init__(self, width: int, skip: int = 1) -> None:
        self.skip = skip
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
        x = images[..., :: self.skip, :: self.skip].float() / 255 - 0.5
        for layer in self:
            x = layer(x)
        return x


@dataclass(frozen=True)
class Parts:
    """The arguments of ``augloader.cost``, each measured by itself."""

    step: float
    load: float
    strong: float
    sweep: float
    select: float
    start: float
    step_cores: float

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
        trained = [place for place in places if place.width]
        self.models = {place: Network(place.width, place.skip) for place in trained}
        self.optimizers = {
            place: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            for place, model in self.models.items()
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
            sleep(place.wait * len(batch.target))
            return
        logits = self.models[place](batch.input)
        loss = F.cross_entropy(logits, batch.target, reduction="none")
        (loss * batch.weight).mean().backward()
        self.optimizers[place].step()
        self.optimizers[place].zero_grad()

    def swept(self, place: Place) -> Evidence:
        """Sweep with a place's network, or with the first where its steps are waits."""
        model = self.models.get(place) or next(iter(self.models.values()))
        return sweep(model, self.data, Residual(), batch_size=BATCH)

    def parts(self, place: Place) -> Parts:
        """Measure each part by itself."""
        start, at_once = self.start(place.workers), max(min(place.workers, CORES), 1)
        plain, strong = (
            max(self.loop(setting, place.workers) - start, 0.0) / self.n * at_once
            for setting in ("nothing strong", "all in place")
        )
        step, used = self.steps(place)
        begun = perf_counter()
        evidence = self.swept(place)
        swept = perf_counter() - begun
        select = seconds(partial(self.sampler(CORESET).refresh, evidence))
        more = max(strong - plain, 0.0)
        return Parts(step, plain, more, swept / self.n, select, start, used / step)

    def start(self, workers: int) -> float:
        """Return the seconds until workers that start have the first batch ready."""
        if not workers:
            return 0.0
        taken = []
        for _ in range(TIMES):
            begun = perf_counter()
            batches = iter(self.loader(self.sampler("nothing strong"), workers))
            next(batches)
            taken.append(perf_counter() - begun)
        return median(taken)

    def loop(self, setting: str, workers: int) -> float:
        """Return the seconds of a loop that only loads."""
        return median(
            seconds(partial(exhaust, self.loader(self.sampler(setting), workers)))
            for _ in range(TIMES)
        )

    def steps(self, place: Place) -> tuple[float, float]:
        """Return the seconds of a row's step, and those of a core in it, in a loop that trains."""
        elapsed = used = taken = 0.0
        batches = iter(self.loader(self.sampler("nothing strong"), place.workers))
        while True:
            begun = process_time()
            batch = next(batches, None)
            if batch is None:
                break
            taken += process_time() - begun
            begun = process_time()
            elapsed += seconds(partial(self.step, place, batch))
            used += process_time() - begun
        taken *= place.workers > 0  # without workers it is loading
        step = used if place.width else elapsed
        return (step + taken) / self.n, (used + taken) / self.n

    def epoch(self, place: Place, setting: str) -> float:
        """Return the seconds of an epoch, of the coreset's the mean of a refresh period's."""
        sampler = self.sampler(setting)
        epochs = REFRESH if setting == CORESET else 1
        start = perf_counter()
        for epoch in range(epochs):
            sampler.begin(epoch, partial(self.swept, place))
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


def predict(sampler: CoresetSampler, place: Place, parts: Parts) -> Cost:
    """Return what augloader.cost says of an epoch."""
    swept = isinstance(sampler.strategy, FacilityLocation)
    return cost(
        sampler,
        step=parts.step,
        load=parts.load,
        strong=parts.strong,
        sweep=parts.sweep if swept else 0.0,
        select=parts.select if swept else 0.0,
        start=parts.start,
        workers=place.workers,
        cores=CORES if place.workers else None,
        step_cores=parts.step_cores if place.workers else None,
        epochs=REFRESH if swept else 1,
    )


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


def measure(
    bench: Bench, settings: Sequence[str], rounds: int
) -> tuple[list[Row], dict[Place, list[Parts]]]:
    """Measure parts and epochs in every round; return the rows and the parts."""
    parts: dict[Place, list[Parts]] = {place: [] for place in bench.places}
    found: dict[tuple[Place, str], list[tuple[Cost, float]]] = {}
    for place in bench.places:  # warm-up: compilers, files, memory
        bench.epoch(place, settings[0])
    bench.parts(bench.places[0])
    steps = [
        (i, p)
        for i in range(rounds)
        for p in random.Random(i).sample(bench.places, len(bench.places))
    ]
    for i, place in progress(steps):
        parts[place].append(bench.parts(place))
        for setting in random.Random(i).sample(settings, len(settings)):
            said = predict(bench.sampler(setting), place, parts[place][-1])
            found.setdefault((place, setting), []).append((said, bench.epoch(place, setting)))
    rows = []
    for place in bench.places:
        for setting in settings:
            said = predict(bench.sampler(setting), place, Parts.middle(parts[place]))
            predicted, measured = zip(*found[place, setting], strict=True)
            seconds_said = [each.epoch for each in predicted]
            rows.append(Row(place, setting, said.limit, said.draws, seconds_said, [*measured]))
    return rows, parts


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
    add("--images", type=int, help="(512; 128 if quick)")
    add("--rounds", type=int, help="(5; 1 if quick)")
    add("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = ("all in place", "30 % in place", CORESET) if options.quick else tuple(SETTINGS)
    rounds = options.rounds or (1 if options.quick else 5)
    with image_folder(options.images or (128 if options.quick else 512)) as images:
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
            | {name: asdict(Spread.of(asdict(each)[name] for each in of)) for name in asdict(of[0])}
            for place, of in parts.items()
        ],
        "rows": [row.record() for row in rows],
    }
    save(options.output, "pays-quick" if options.quick else "pays", "cpu", record)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
