"""What loading costs beside a plain DataLoader, and what the feedback costs beside training steps.

    python benchmarks/loader.py --quick

Loading: samples per second, and bytes that a worker sends for a batch, against a plain DataLoader
of (x, y) with torch's default collate function; in this process and with two workers, forked and
spawned. "hand" is a WeightedAugmentedDataset with a CoresetSampler (uniform, fraction 0.3, full
base, so that an epoch is 1.3 n draws) and ``augloader.collate``, "wrap" is ``augloader.wrap`` of
the plain loader. Three kinds of data: uint8 tensors in memory, shaped as CIFAR-10's; 5,000 image
files of 32 x 32, of --data or noise; 500 JPEG files of 224 x 224. Batches are of 256, and of 32
JPEG images, so that two workers have many to share. The loaders take turns in every round, and
ratios are taken round by round. --quick leaves out the last kind and the feedback, and ends with
the smallest median ratio over workers and both loaders.

Feedback: a report and an epoch's strengths against ResNet-20 training steps; n = 50,000 samples of
10 classes, batches of 128 images of 3 x 32 x 32. Every training step, in float32, is followed by a
report to a sampler of every rule; the device is waited for before and after each reading. Loops
without that waiting, with and without reports, show what is lost when a report waits for the
device.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
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
from common import Spread, device_name, environment, machine, progress, save
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

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
    WeightedAugmentedDataset,
    collate,
    wrap,
)
from augloader.feedback import StrengthRule

PACKAGES = ("augloader", "numpy", "pillow", "torch", "torchvision")
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
ROUNDS, STEPS = 7, 20  # STEPS is ten times as many on a GPU


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
            name: self.timed(partial(begin, sampler))[0] for name, sampler in self.samplers.items()
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


# Loading ------------------------------------------------------------------------------------------

BATCH, JPEG_BATCH = 256, 32
WORKERS = ("0", "2 fork", "2 spawn")
IN_MEMORY, FOLDER, JPEG = "in memory", "image folder", "jpeg 224"


@dataclass(frozen=True)
class Load:
    """Samples per second of the loaders, round by round, for one kind of data and of workers."""

    data: str
    workers: str
    rates: dict[str, list[float]]
    batch_bytes: dict[str, int]
    handles: dict[str, int]  # pieces of shared memory a batch, a file descriptor each

    def ratio(self, name: str) -> Spread:
        """Return a loader's rate over the plain one's."""
        pairs = zip(self.rates[name], self.rates["plain"], strict=True)
        return Spread.of(ours / plain for ours, plain in pairs)

    def __str__(self) -> str:
        lines = []
        for name, rates in self.rates.items():
            ratio = self.ratio(name)
            lines.append(
                f"{self.data:14}{self.workers:9}{name:7}{median(rates):12,.0f} /s"
                f"{ratio.median:8.2f} [{ratio.min:.2f}, {ratio.max:.2f}]"
                f"{self.batch_bytes[name]:14,} B{self.handles[name]:4} handles"
            )
        return "\n".join(lines)


def loaders(data: Any, workers: str, batch: int = BATCH) -> dict[str, DataLoader[Any]]:
    """Return the plain loader and ours, with persistent workers."""
    given: dict[str, Any] = {"batch_size": batch, "generator": torch.Generator()}
    if workers != "0":
        count, start = workers.split()
        given |= {"num_workers": int(count), "multiprocessing_context": start}
        given["persistent_workers"] = True
    plain: DataLoader[Any] = DataLoader(data, shuffle=True, **given)
    ours = WeightedAugmentedDataset(data)
    sampler = CoresetSampler(ours, Uniform(), fraction=0.3, base="full")
    hand: DataLoader[Any] = DataLoader(ours, sampler=sampler, collate_fn=collate, **given)
    wrapped, its_sampler = wrap(plain, Uniform(), fraction=0.3, base="full")
    for one in (sampler, its_sampler):
        one.refresh()
    return {"plain": plain, "hand": hand, "wrap": wrapped}


def begin(sampler: CoresetSampler) -> None:
    """Begin the next epoch; that the one before was cut is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ draws")
        sampler.set_epoch(sampler.epoch + 1)


def rate(loader: DataLoader[Any]) -> float:
    """Return the samples per second of an epoch; ours begins another each time."""
    if isinstance(loader.sampler, CoresetSampler):
        begin(loader.sampler)
    count, start = 0, perf_counter()
    for batch in loader:
        count += len(batch[0])
    return count / (perf_counter() - start)


class Counting:
    """Collates, and returns what a worker would send for the batch."""

    def __init__(self, collate_fn: Callable[[Any], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, rows: Any) -> tuple[int, int]:
        return transported(self.collate_fn(rows))


def transported(batch: Any) -> tuple[int, int]:
    """Return the bytes that a worker sends for a batch, and how many tensors share memory."""
    shared: list[int] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> int | None:
            if not isinstance(value, Tensor):
                return None
            shared.append(value.nbytes)
            return len(shared)

    file = io.BytesIO()
    Pickler(file).dump(batch)
    return len(file.getvalue()) + sum(shared), len(shared)


def sent(loader: DataLoader[Any]) -> tuple[int, int]:
    """Return what is sent for the first batch; nothing where there are no workers."""
    if not loader.num_workers:
        return 0, 0
    counted: DataLoader[Any] = DataLoader(
        loader.dataset,
        loader.batch_size,
        sampler=loader.sampler,
        collate_fn=Counting(loader.collate_fn),
        num_workers=1,
        multiprocessing_context="fork",
        generator=torch.Generator(),
    )
    found: tuple[int, int] = next(iter(counted))
    return found


def load(data: Any, name: str, workers: str, rounds: int, batch: int = BATCH) -> Load:
    """Measure the loaders of a dataset in turn, after an epoch that starts the workers."""
    by = loaders(data, workers, batch)
    counts = {which: sent(loader) for which, loader in by.items()}
    for loader in by.values():
        rate(loader)
    rates: dict[str, list[float]] = {which: [] for which in by}
    order = list(by)
    for i in range(rounds):
        first = i % len(order)
        for which in order[first:] + order[:first]:
            rates[which].append(rate(by[which]))
    sizes, handles = ({which: pair[k] for which, pair in counts.items()} for k in (0, 1))
    return Load(name, workers, rates, sizes, handles)


def in_memory(n: int) -> TensorDataset:
    """Return random images, shaped as CIFAR-10's, and labels."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 32, 32), generator=random, dtype=torch.uint8)
    return TensorDataset(images, torch.arange(n) % CLASSES)


def write_images(folder: Path, count: int, side: int, suffix: str) -> None:
    """Write images of noise and shapes, in folders of ten classes."""
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = random.integers(256, size=(side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for shape in (draw.ellipse, draw.rectangle):
            (x, y), size = random.integers(side // 2, size=2), random.integers(4, side // 2)
            colour = tuple(random.integers(256, size=3).tolist())
            shape((int(x), int(y), int(x + size), int(y + size)), fill=colour)
        path = folder / str(i % CLASSES) / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


@contextmanager
def image_folder(data: Path | None, count: int, side: int, suffix: str) -> Iterator[Any]:
    """Yield a dataset of image files: some of a folder's, spread over the classes, or new ones."""
    with tempfile.TemporaryDirectory() as written:
        if data is None:
            write_images(Path(written), count, side, suffix)
        whole = ImageFolder(written if data is None else data / "train", v2.PILToTensor())
        step = max(1, len(whole) // count)
        yield Subset(whole, list(range(0, len(whole), step))[:count])


def load_all(options: argparse.Namespace, rounds: int) -> list[Load]:
    """Measure every kind of data with all kinds of workers."""
    found = []
    for workers in progress(WORKERS):
        found.append(load(in_memory(options.tensors), IN_MEMORY, workers, rounds))
        with image_folder(options.data, options.files, 32, "png") as data:
            found.append(load(data, FOLDER, workers, rounds))
        if not options.quick:
            with image_folder(None, options.jpegs, 224, "jpg") as data:
                found.append(load(data, JPEG, workers, rounds, JPEG_BATCH))
    return sorted(found, key=lambda of: [IN_MEMORY, FOLDER, JPEG].index(of.data))


def smallest(loads: list[Load], data: str) -> float:
    """Return the smallest median ratio of our loaders over the kinds of workers."""
    ours = [of for of in loads if of.data == data]
    return min(of.ratio(name).median for of in ours for name in ("hand", "wrap"))


def loading_summary(loads: list[Load]) -> dict[str, Any]:
    """Return the last line of --quick."""
    ratios = {"in_memory_ratio": smallest(loads, IN_MEMORY)}
    ratios["image_folder_ratio"] = smallest(loads, FOLDER)
    return {"benchmark": "loader", "machine": machine(), **ratios}


# Command line -------------------------------------------------------------------------------------


def feedback(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], Any]:
    """Measure and print what reports and strengths cost; return a summary and the record."""
    steps = STEPS * (10 if device.type == "cuda" else 1)
    bench = Bench(Size(), device)
    bench.round(2, 2)  # warm-up: libraries, threads, clocks
    rounds = [bench.round(steps, max(2, steps // 2)) for _ in progress(range(ROUNDS))]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="loading alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/<image>")
    parser.add_argument("--tensors", type=int, default=50_000, help="samples in memory")
    parser.add_argument("--files", type=int, default=5_000, help="images in the folder")
    parser.add_argument("--jpegs", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    loads = load_all(options, ROUNDS)
    print(*loads, sep="\n")
    summary = loading_summary(loads)
    if options.quick:
        print(json.dumps(summary))
        return
    about = environment(options.threads, PACKAGES) | {"device": device_name(device)}
    about["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "default")
    found, record = feedback(options, device)
    summary |= {"device": about["device"]} | found
    loading = {
        "batch": {IN_MEMORY: BATCH, FOLDER: BATCH, JPEG: JPEG_BATCH},
        "sizes": {IN_MEMORY: options.tensors, FOLDER: options.files, JPEG: options.jpegs},
        "images": "noise and shapes" if options.data is None else "files of --data",
        "rows": [
            asdict(of) | {"ratio": {name: asdict(of.ratio(name)) for name in of.rates}}
            for of in loads
        ],
    }
    record = {"environment": about, "summary": summary, "loading": loading, **record}
    save(options.output, "loader", about["device"], record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
