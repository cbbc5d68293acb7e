"""Augment 30 % of the images and do nearly as well as augmenting all of them.

    python examples/quickstart.py               scikit-learn's digits, nothing to download
    python examples/quickstart.py --data DIR    any image folder with train/ and test/

Trains a small convolutional network five ways: weak augmentation only, every image strongly
augmented, and 30 % of them chosen uniformly, by largest loss, or as a coreset. Compares accuracies
on clean test images and on transformed ones (every test image rotated, shifted and cropped over a
fixed grid: the protocol of Kuchnik & Smith, ICLR 2019), over several seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev

import kornia.augmentation as K
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
    FacilityLocation,
    LastLayerGradient,
    Loss,
    Rank,
    Selection,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)

METHODS: dict[str, tuple[Strategy, float] | None] = {
    "weak only": None,
    "full": (Uniform(), 1.0),
    "uniform 30 %": (Uniform(), 0.3),
    "max-loss 30 %": (Rank(Loss()), 0.3),
    "coreset 30 %": (FacilityLocation(), 0.3),
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
    """What one training run measured: accuracies, seconds, and the last selection."""

    clean: float = 0.0
    transformed: float = 0.0
    training: float = 0.0
    selecting: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)
    selection: Selection | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=600, help="training images to use")
    parser.add_argument("--size", type=int, default=32, help="side of the folder's images")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--refresh", type=int, default=5, help="epochs between two selections")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"))
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    problem = folder(args.data, args.images, args.size) if args.data else digits(args.images)
    views = transformed_views(problem.test.tensors[0])
    print(
        f"{len(problem.train)} training images, {len(problem.test)} clean and "
        f"{len(views) * len(problem.test)} transformed test images"
    )
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    with tqdm(total=len(METHODS) * args.seeds * args.epochs, unit="epoch") as bar:
        for seed in range(args.seeds):
            for name in METHODS:
                bar.set_description(f"{name}, seed {seed}")
                runs[name].append(train(problem, views, name, args.epochs, args.refresh, seed, bar))
    report(runs)
    picture(problem, runs).savefig(args.output, dpi=120)
    print(f"picture: {args.output}")
    if args.json:
        args.json.write_text(record(runs) + "\n")


def train(
    problem: Problem,
    views: list[Tensor],
    method: str,
    epochs: int,
    refresh: int,
    seed: int,
    bar: tqdm[None],
) -> Run:
    """Train one network with one method. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    strategy, fraction = METHODS[method] or (Uniform(), 1.0)
    warmup = epochs if METHODS[method] is None else 0  # weak only: never select
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    sampler = CoresetSampler(
        data,
        strategy,
        fraction=fraction,
        refresh=Every(refresh, warmup),
        weighting="uniform",  # of few small images one would else stand for a third of a class
        seed=seed,
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    strong = AdaptiveStrengthTransform(problem.strong, seed=seed)

    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    run = Run()
    for epoch in range(epochs):
        started = time.perf_counter()
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            evidence = sweep(model, data, LastLayerGradient()) if strategy.needs else None
            run.selection = sampler.refresh(evidence)
        selected = time.perf_counter()
        for batch in loader:
            logits = model(strong(batch.input, batch.strength))
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
        scheduler.step()
        run.selecting += selected - started
        run.training += time.perf_counter() - selected
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            labels = problem.test.tensors[1]
            run.clean = accuracy(model, problem.test.tensors[0], labels)
            run.transformed = mean(accuracy(model, view, labels) for view in views)
            run.curve.append((run.selecting + run.training, run.transformed))
        bar.update()
    return run


def digits(n: int) -> Problem:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, n of them for training."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(bunch.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = (TensorDataset(images[part], labels[part]) for part in (order[:n], order[n:]))
    strong = K.RandomAffine(30.0, (0.15, 0.15), (0.85, 1.15), 10.0, p=1.0)
    return Problem(train, test, v2.ColorJitter(0.2), strong, [str(i) for i in range(10)])


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
    """Print the table, and which differences are larger than the spread over seeds."""
    found = {name: [run.transformed for run in of] for name, of in runs.items()}
    centre = {name: mean(values) for name, values in found.items()}
    spread = {name: stdev(values) if len(values) > 1 else 0.0 for name, values in found.items()}
    low, high = centre["weak only"], centre["full"]
    seeds = len(found["full"])
    print(f"\n{'':15}{'clean':>7}{'transformed':>16}{'training':>11}{'selection':>11}{'gain':>7}")
    for name, of in runs.items():
        print(
            f"{name:15}{mean(run.clean for run in of):7.3f}{centre[name]:8.3f} ± {spread[name]:.3f}"
            f"{mean(run.training for run in of):9.1f} s{mean(run.selecting for run in of):9.2f} s"
            + (f"{(centre[name] - low) / (high - low):7.0%}" if high > low else f"{'–':>7}")
        )
    print(
        f"\nAccuracies are means over {seeds} seeds ± standard deviation. "
        "gain: share of what full\nstrong augmentation adds on transformed images. A difference "
        "within the larger of the two\ndeviations is a tie."
    )
    for other in ("uniform 30 %", "max-loss 30 %", "full"):
        lead = centre["coreset 30 %"] - centre[other]
        tie = abs(lead) <= max(spread["coreset 30 %"], spread[other])
        verdict = "one seed: no verdict" if seeds == 1 else "a tie" if tie else "beyond the spread"
        print(f"coreset 30 % against {other:13} {lead:+.3f} ({verdict})")


def about() -> dict[str, object]:
    """Return the date, the machine and the versions that figures were measured with."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
        "versions": {name: version(name) for name in ("augloader", "torch", "kornia", "numpy")},
    }


def record(runs: dict[str, list[Run]]) -> str:
    """Return every run's accuracies and seconds as JSON, with the machine and the versions."""
    of = {name: [asdict(replace(run, selection=None)) for run in of] for name, of in runs.items()}
    return json.dumps({"about": about(), "runs": of}, indent=1)


def picture(problem: Problem, runs: dict[str, list[Run]]) -> Figure:
    """Draw the heaviest medoids beside images not selected, and accuracy against time."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
    selection = runs["coreset 30 %"][0].selection
    assert selection is not None
    images, labels = problem.train.tensors
    chosen = torch.zeros(len(labels), dtype=torch.int64)
    chosen[selection.indices] = selection.weights.to(torch.int64)
    grid = halves[0, 0].subgridspec(5, 9)
    for row in range(min(5, len(problem.classes))):
        weight = torch.where(labels == row, chosen, -1)
        medoids = weight.argsort(descending=True, stable=True)[:5].tolist()
        others = (weight == 0).nonzero().flatten()[:4].tolist()
        for column, i in enumerate(medoids + others):
            cell = figure.add_subplot(grid[row, column])
            cell.imshow(
                images[i].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1
            )
            cell.set(xticks=[], yticks=[])
            cell.set_title(f"{weight[i]}" if column < 5 else "–", fontsize=9, pad=2)
            if column == 0:
                cell.set_ylabel(problem.classes[row])
    axes = figure.add_subplot(halves[0, 1])
    for name, of in runs.items():
        curves = torch.tensor([run.curve for run in of]).mean(0)
        axes.plot(*curves.T.tolist(), marker=".", label=name)
    axes.set(
        xlabel="seconds of training and selection", ylabel="accuracy on transformed test images"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle(
        "Last coreset: heaviest medoids of five classes with the images each stands for, and "
        "images not selected (–)",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    main()
