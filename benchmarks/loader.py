"""What loading costs beside a plain DataLoader, and what the feedback costs beside training steps.

    python benchmarks/loader.py --quick

Loading: samples per second, and bytes that a worker sends for a batch, against a plain DataLoader
of (x, y) with torch's default collate function; in this process and with two workers, forked and
spawned. "hand" is a WeightedAugmentedDataset with a CoresetSampler (uniform, fraction 0.3, full
base, so that an epoch is 1.3 n draws) and ``augloader.collate``, "wrap" is ``augloader.wrap`` of
the plain loader. Three kinds of data: uint8 tensors in memory, shaped as CIFAR-10's; 5,000 image
files of 32 x 32, of --data or noise; 2,000 JPEG files of 224 x 224. Batches are of 256, and of 32
JPEG images, so that two workers have many to share. The loaders take turns in every round, and
ratios are taken round by round. --quick leaves out the last kind and the feedback, and ends with
the smallest median ratio over workers and both loaders.

Feedback: see feedback.py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from common import Spread, device_name, environment, in_turn, machine, progress, save
from feedback import CLASSES, begin, measure_feedback
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from augloader import (
    CoresetSampler,
    Uniform,
    WeightedAugmentedDataset,
    collate,
    wrap,
)

PACKAGES = ("augloader", "numpy", "pillow", "torch", "torchvision")
ROUNDS = 7
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
    for i in range(rounds):
        for which in in_turn(by, i):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="loading alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/<image>")
    parser.add_argument("--tensors", type=int, default=50_000, help="samples in memory")
    parser.add_argument("--files", type=int, default=5_000, help="images in the folder")
    parser.add_argument("--jpegs", type=int, default=2000)
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
    found, record = measure_feedback(ROUNDS, device)
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
