"""Train on labels of which some are wrong, at one cost, with and without choosing the samples.

    python examples/quickstart.py               scikit-learn's digits, nothing to download
    python examples/quickstart.py --data DIR    any image folder with train/ and test/

A share of the training labels is made wrong, as in data collected from the web. A small
convolutional network is trained five ways in as many rows, images that go through a training step:
weakly augmented; with a strong copy of every image beside it; every image strongly augmented in
place, the best way to augment everything; the same with a random part of the images in each epoch;
and with the part of each class that has the smallest losses. Accuracies are of clean test images
and of transformed ones (every test image rotated, shifted and cropped over a fixed grid: the
protocol of Kuchnik & Smith, ICLR 2019), over several seeds. ``--wrong 0`` is the same without wrong
labels, where nothing is gained by choosing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as image_ops
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    Loss,
    Rank,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.labels import mislabelled

PART = 0.6  # of the images, which the last two methods draw in an epoch
WHOLE = 0.2  # of the training, in which they draw all


def share(epoch: int, epochs: int) -> float:
    """Draw all images in the first fifth of the training, to learn from all what is usual."""
    return 1.0 if epoch < WHOLE * epochs else PART


SMALL = Rank(Loss(), inverse=True, groups="labels")  # in each class the smallest losses
DRAWN = WHOLE + (1 - WHOLE) * PART  # rows of an epoch per image, on average

# What CoresetSampler is asked for, and how many rows an image has in an epoch.
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "weak only": ({"refresh": Every(None, warmup=10**6)}, 1),
    "copies appended": ({}, 2),
    "in place": ({"copies": 0}, 1),
    "random 60 %": ({"copies": 0, "base": Uniform(), "base_fraction": share}, DRAWN),
    "small losses 60 %": ({"copies": 0, "base": SMALL, "base_fraction": share}, DRAWN),
}


@dataclass
class Problem:
    """Images (n, C, H, W) in [0, 1] and labels (n,), and how the images may be augmented."""

    train: TensorDataset
    test: TensorDataset
    weak: v2.Transform
    strong: K.AugmentationBase2D
    classes: list[str]


@dataclass
class Run:
    """What one training run measured: accuracies, rows, seconds, and what it drew last."""

    clean: float = 0.0
    transformed: float = 0.0
    rows: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    drawn: Tensor | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=600, help="training images to use")
    parser.add_argument("--size", type=int, default=32, help="side of the folder's images")
    parser.add_argument("--wrong", type=float, default=0.3, help="share of wrong training labels")
    parser.add_argument("--epochs", type=int, default=60, help="rows of each method per image")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"))
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    if args.seeds < 1 or (not args.data and not 10 <= args.images <= 1500):
        parser.error("--seeds must be at least 1, and --images of the 1,797 digits 10 to 1,500")
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    problem = folder(args.data, args.images, args.size) if args.data else digits(args.images)
    wrong = mislabel(problem, args.wrong)
    views = transformed_views(problem.test.tensors[0])
    print(
        f"{len(problem.train)} training images, {int(wrong.sum())} of them with a wrong label, "
        f"{len(problem.test)} clean and {len(views) * len(problem.test)} transformed test images"
    )
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    train(problem, views, "in place", 1, 0)  # so that no run has what is compiled once in it
    with tqdm(total=len(METHODS) * args.seeds, unit="run") as bar:
        for seed in range(args.seeds):
            for name in METHODS:
                bar.set_description(f"{name}, seed {seed}")
                runs[name].append(train(problem, views, name, args.epochs, seed))
                bar.update()
    report(runs)
    picture(problem, runs, wrong).savefig(args.output, dpi=120)
    print(f"picture: {args.output}")
    if args.json:
        args.json.write_text(record(runs, args.wrong) + "\n")


def train(problem: Problem, views: list[Tensor], method: str, cost: int, seed: int) -> Run:
    """Train one network with one method. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    asked, rows = METHODS[method]
    epochs = max(1, round(cost / rows))
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    options: dict[str, Any] = {"fraction": 1.0, "refresh": Every(None), "epochs": epochs}
    options |= {"seed": seed, **asked}
    sampler = CoresetSampler(data, Uniform(), **options)
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    strong = AdaptiveStrengthTransform(problem.strong, seed=seed)

    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    run = Run()
    for epoch in range(epochs):
        started = time.perf_counter()
        sampler.begin(epoch)
        for batch in loader:
            logits = model(strong(batch.input, batch.strength))
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, logits=logits)
        scheduler.step()
        run.seconds += time.perf_counter() - started
        run.rows += len(sampler)
        if (epoch + 1) % math.ceil(epochs / 6) == 0 or epoch + 1 == epochs:
            labels = problem.test.tensors[1]
            run.clean = accuracy(model, problem.test.tensors[0], labels)
            run.transformed = mean(accuracy(model, view, labels) for view in views)
            run.curve.append((run.rows, run.transformed))
    run.drawn = None if sampler.kept is None else sampler.kept.indices
    return run


def mislabel(problem: Problem, share: float, seed: int = 0) -> Tensor:
    """Give a share of the training images another label, and return which, (n,) bool."""
    images, labels = problem.train.tensors
    noisy = mislabelled(labels, share, len(problem.classes), np.random.default_rng(seed))
    problem.train = TensorDataset(images, noisy)
    return noisy != labels


def digits(n: int) -> Problem:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, n of them for training."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(bunch.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = (TensorDataset(images[part], labels[part]) for part in (order[:n], order[n:]))
    strong = K.RandomAffine(30.0, (0.15, 0.15), (0.85, 1.15), 10.0, p=1.0)
    names = [str(i) for i in range(10)]
    return Problem(train, test, v2.ColorJitter(0.2), strong, names)


def folder(root: Path, n: int, size: int) -> Problem:
    """Return n random training images, and at most 2,000 test images, of an image folder."""
    read = v2.Compose(
        [v2.ToImage(), v2.Resize((size, size)), v2.ToDtype(torch.float32, scale=True)]
    )
    parts = []
    for name, limit in (("train", n), ("test", 2000)):
        files = ImageFolder(root / name, read)
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:limit]
        items = [files[i] for i in tqdm(order.tolist(), name, leave=False)]
        images = torch.stack([image for image, _ in items])
        parts.append(TensorDataset(images, torch.tensor([label for _, label in items])))
    weak = v2.Compose([v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()])
    strong = K.RandomAffine(30.0, (0.15, 0.15), (0.85, 1.15), 10.0, p=1.0)
    return Problem(parts[0], parts[1], weak, strong, files.classes)


def network(channels: int, classes: int) -> nn.Module:
    """Return a small convolutional network for images of any size."""
    layers: list[nn.Module] = []
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def transformed_views(images: Tensor) -> list[Tensor]:
    """Return all images under 14 rotations within 30 degrees, 8 shifts and 2 crops."""
    side = images.shape[-1]
    step = max(1, side // 10)  # pixels
    around = [(x, y) for x in (-step, 0, step) for y in (-step, 0, step) if x or y]
    moves = [(30 * k / 7, (0, 0)) for k in range(-7, 8) if k]
    moves += [(0.0, shift) for shift in around]
    views = [
        image_ops.affine(images, angle, shift, 1.0, [0.0, 0.0], v2.InterpolationMode.BILINEAR)
        for angle, shift in moves
    ]
    for edge in (step, 2 * step):
        inner = images[..., edge : side - edge, edge : side - edge]
        views.append(image_ops.resize(inner, [side, side], antialias=True))
    return views


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the model classifies right."""
    model.eval()
    guesses = torch.cat([model(part).argmax(1) for part in images.split(2000)])
    model.train()
    return float((guesses == labels).float().mean())


def report(runs: dict[str, list[Run]]) -> None:
    """Print the table, and whether choosing by loss beats the best way to augment everything."""
    seeds = len(runs["in place"])
    print(f"\n{'':18}{'clean':>7}{'transformed':>16}{'rows':>9}{'seconds':>9}")
    for name, of in runs.items():
        found = [run.transformed for run in of]
        spread = stdev(found) if seeds > 1 else 0.0
        print(
            f"{name:18}{mean(run.clean for run in of):7.3f}{mean(found):8.3f} ± {spread:.3f}"
            f"{mean(run.rows for run in of):9,.0f}{mean(run.seconds for run in of):8.1f}s"
        )
    print(f"\nMeans over {seeds} seeds ± standard deviation; training and selection together.")
    for other in ("in place", "random 60 %"):
        pairs = zip(runs["small losses 60 %"], runs[other], strict=True)
        leads = [chosen.transformed - all_.transformed for chosen, all_ in pairs]
        spread = stdev(leads) if seeds > 1 else 0.0
        tie = abs(mean(leads)) <= spread
        verdict = "one seed: no verdict" if seeds == 1 else "a tie" if tie else "beyond the spread"
        print(f"small losses 60 % against {other:12} {mean(leads):+.3f} ± {spread:.3f} ({verdict})")


def about() -> dict[str, object]:
    """Return the date, the machine and the versions that figures were measured with."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {name: version(name) for name in ("augloader", "torch", "kornia", "numpy")},
    }


def record(runs: dict[str, list[Run]], wrong: float) -> str:
    """Return every run's figures as JSON, with the machine and the versions."""
    of = {name: [asdict(replace(run, drawn=None)) for run in of] for name, of in runs.items()}
    return json.dumps({"about": about() | {"wrong": wrong}, "runs": of}, indent=1)


def picture(problem: Problem, runs: dict[str, list[Run]], wrong: Tensor) -> Figure:
    """Draw images that were left out and some that were drawn, and accuracy against rows."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
    images, labels = problem.train.tensors
    out = torch.ones(len(labels), dtype=torch.bool)
    last = runs["small losses 60 %"][0].drawn
    if last is not None:
        out[last] = False
    grid = halves[0, 0].subgridspec(5, 9)
    for row in range(min(5, len(problem.classes))):
        mine = labels == row
        left_out = (mine & out).nonzero().flatten()[:5].tolist()
        drawn = (mine & ~out).nonzero().flatten()[:4].tolist()
        for column, i in [*enumerate(left_out), *enumerate(drawn, start=5)]:
            cell = figure.add_subplot(grid[row, column])
            cell.imshow(
                images[i].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1
            )
            cell.set(xticks=[], yticks=[])
            cell.set_title("wrong" if wrong[i] else "right", fontsize=8, pad=2)
            if column == 0:
                cell.set_ylabel(f"label {problem.classes[row]}")
    axes = figure.add_subplot(halves[0, 1])
    for name, of in runs.items():
        curves = torch.tensor([run.curve for run in of]).mean(0)
        axes.plot(*curves.T.tolist(), marker=".", label=name)
    axes.set(xlabel="rows trained", ylabel="accuracy on transformed test images")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(
        f"{wrong.float().mean():.0%} of the labels are wrong. Five images of each class that the "
        "smallest losses leave out, and four that they draw; above each whether its label is right",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    main()
