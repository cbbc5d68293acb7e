"""Train on strongly augmented data, then refine without: the training of He et al. (2019).

    python examples/refine.py               scikit-learn's digits, nothing to download
    python examples/refine.py --data DIR    an image folder with train/ and test/

Trains a small network on AutoAugment and Mixup to the end, and once more with both switched off for
the last epochs; weak augmentation and the last learning rate are kept. Prints the losses on clean
and on augmented training data and the test accuracy of both, over several seeds, and draws the loss
curves with the switch marked (the paper's Figure 1).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from adaptive_strength import as_uint8, spread
from matplotlib.figure import Figure
from quickstart import Problem, about, digits, folder, network
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    Mixup,
    Sample,
    SwitchOff,
    Uniform,
    WeightedAugmentedDataset,
)

CURVES = {
    "objective": "training objective",
    "augmented": "augmented training data",
    "clean": "clean training data",
    "test": "test data",
}
Views = dict[str, tuple[Tensor, Tensor]]


@dataclass
class Run:
    """One training run: after every epoch four losses and the test accuracy."""

    objective: list[float] = field(default_factory=list)
    augmented: list[float] = field(default_factory=list)
    clean: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train(
    problem: Problem, strong_epochs: int, last_epochs: int, refine: bool, seed: int, bar: tqdm[None]
) -> Run:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    epochs = strong_epochs + last_epochs
    classes = len(problem.classes)
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    sampler = CoresetSampler(
        data,
        Uniform(),  # of all samples: each is strongly augmented once an epoch
        fraction=1.0,
        base="none",
        refresh=Every(None),
        epochs=epochs,
        strength_schedule=SwitchOff(last=last_epochs if refine else 0),
        seed=seed,
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler, drop_last=True)
    strong = AdaptiveStrengthTransform("auto", dataset="cifar10", seed=seed, dtype=torch.float32)
    mix = Mixup(classes, alpha=1.0, seed=seed)  # follows the strength: off where that is 0

    model = network(problem.train.tensors[0].shape[1], classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = [2 * strong_epochs // 3]  # the last rate is kept to the end
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps)
    views = fixed_views(problem, strong, mix)
    run, started = Run(), time.perf_counter()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        losses = []
        for batch in loader:
            batch = mix(strong(batch))
            rows = F.cross_entropy(model(batch.input), batch.target, reduction="none")
            optimizer.zero_grad()
            (rows * batch.weight).mean().backward()
            optimizer.step()
            losses.append(float(rows.detach().mean()))
        scheduler.step()
        run.objective.append(mean(losses))
        run.augmented.append(evaluate(model, *views["augmented"])[0])
        run.clean.append(evaluate(model, *views["clean"])[0])
        loss, accuracy = evaluate(model, *views["test"])
        run.test.append(loss)
        run.accuracy.append(accuracy)
        bar.update()
    run.seconds = time.perf_counter() - started
    return run


def fixed_views(problem: Problem, strong: AdaptiveStrengthTransform, mix: Mixup) -> Views:
    """Return inputs and targets to evaluate on: augmented as in training, clean, and the test's."""
    images, labels = problem.train.tensors
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], labels[order]
    batch = Sample(images, labels, order, torch.ones(len(order)), torch.ones(len(order)))
    augmented = mix(batch._replace(input=strong(images, 1.0, keys=batch.keys)))
    test = problem.test.tensors
    return {
        "augmented": (augmented.input, augmented.target),
        "clean": (images / 255, labels),
        "test": (test[0] / 255, test[1]),
    }


@torch.inference_mode()
def evaluate(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return loss and accuracy, the model in eval mode."""
    model.eval()
    logits = torch.cat([model(part) for part in images.split(250)])
    model.train()
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return float(F.cross_entropy(logits, targets)), float(
        (logits.argmax(1) == labels).float().mean()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, help="training images (600 digits, 10,000 others)")
    parser.add_argument("--epochs", type=int, default=45, help="T1, strongly augmented")
    parser.add_argument("--refined", type=int, default=15, help="T2, refined")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("refine.png"))
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    found = (
        folder(args.data, args.images or 10_000, 32) if args.data else digits(args.images or 600)
    )
    problem = as_uint8(found, 16)
    epochs = args.epochs + args.refined
    runs: dict[str, list[Run]] = {"augmented to the end": [], "refined": []}
    with tqdm(total=2 * args.seeds * epochs, unit="epoch") as bar:
        for seed in range(args.seeds):
            for name in runs:
                bar.set_description(f"{name}, seed {seed}")
                refine = name == "refined"
                runs[name].append(train(problem, args.epochs, args.refined, refine, seed, bar))
    columns = {"clean": "clean loss", "augmented": "augmented loss", "test": "test loss"}
    columns["accuracy"] = "accuracy"
    heads = [*(f"{head:>15}" for head in columns.values()), f"{'time':>9}"]
    print(f"{'after ' + str(epochs) + ' epochs':22}", *heads)
    for name, of in runs.items():
        ends = (spread([getattr(run, key)[-1] for run in of]) for key in columns)
        print(f"{name:22}", *ends, f"{mean(run.seconds for run in of):7.1f} s")
    picture(runs, args.epochs).savefig(args.output, dpi=120)
    print(f"picture: {args.output}")
    if args.json:
        figures = {name: [asdict(run) for run in of] for name, of in runs.items()}
        args.json.write_text(json.dumps({"about": about(), "runs": figures}, indent=1) + "\n")


def picture(runs: dict[str, list[Run]], switch: int) -> Figure:
    """Draw the losses of both trainings over the epochs, means over the seeds."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (name, of) in zip(figure.subplots(1, 2, sharey=True), runs.items(), strict=True):
        for key, label in CURVES.items():
            curves = torch.tensor([getattr(run, key) for run in of])
            axes.plot(curves.mean(0).tolist(), label=label)
        if name == "refined":
            axes.axvline(switch - 0.5, color="black", linestyle=":", label="strong off")
        axes.set(title=name, xlabel="epoch", ylabel="cross-entropy", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


if __name__ == "__main__":
    main()
