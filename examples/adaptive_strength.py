"""Let every image's strength follow from how it behaves in training.

    python examples/adaptive_strength.py               scikit-learn's digits, nothing to download
    python examples/adaptive_strength.py --data DIR    an image folder with train/ and test/

Trains the same network on TrivialAugment five ways at the same cost, every image augmented once
an epoch: at fixed strength 1 and 1/2, and with each image's own strength by SADA (stability of its
influence), by the entropy of the model's output and by the rank of its loss. Prints accuracies on
clean and on transformed test images over several seeds, and draws how the strengths spread over the
epochs, with the images at both ends.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from quickstart import Problem, about, accuracy, digits, folder, network, transformed_views
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    Constant,
    CoresetSampler,
    Entropy,
    LossRank,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.feedback import StrengthRule

RULES: dict[str, StrengthRule] = {
    "fixed 1": Constant(1.0),
    "fixed 1/2": Constant(0.5),
    "SADA": StableInfluence(),
    "entropy": Entropy(),
    "loss rank": LossRank(),
}


@dataclass
class Run:
    """One training run: accuracies, seconds, and every epoch's strengths (n,)."""

    clean: float = 0.0
    transformed: float = 0.0
    seconds: float = 0.0
    strengths: list[Tensor] = field(default_factory=list)


def train(problem: Problem, rule: StrengthRule, epochs: int, seed: int, bar: tqdm[None]) -> Run:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    sampler = CoresetSampler(data, Uniform(), fraction=1.0, base="none", strength=rule, seed=seed)
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    strong = AdaptiveStrengthTransform("trivial", seed=seed, dtype=torch.float32)

    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    run, started = Run(), time.perf_counter()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        run.strengths.append(sampler.strengths)
        for batch in loader:
            logits = model(strong(batch).input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, logits=logits)
        scheduler.step()
        bar.update()
    run.seconds = time.perf_counter() - started
    images, labels = problem.test.tensors
    run.clean = accuracy(model, images / 255, labels)
    views = transformed_views(images[:500] / 255)
    run.transformed = mean(accuracy(model, view, labels[:500]) for view in views)
    return run


def as_uint8(problem: Problem, size: int) -> Problem:
    """Return the problem with uint8 images of at least this size."""
    for name in ("train", "test"):
        images, labels = getattr(problem, name).tensors
        if images.shape[-1] < size:
            images = F.interpolate(images, (size, size), mode="bilinear")
        setattr(problem, name, TensorDataset((images * 255).round().to(torch.uint8), labels))
    return problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=600, help="training images to use")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("adaptive_strength.png"))
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    found = folder(args.data, args.images, 32) if args.data else digits(args.images)
    problem = as_uint8(found, 32)  # TrivialAugment shifts by up to 32 pixels
    runs: dict[str, list[Run]] = {name: [] for name in RULES}
    with tqdm(total=len(RULES) * args.seeds * args.epochs, unit="epoch") as bar:
        for seed in range(args.seeds):
            for name, rule in RULES.items():
                bar.set_description(f"{name}, seed {seed}")
                runs[name].append(train(problem, rule, args.epochs, seed, bar))
    print(f"{'':11}{'clean':>16}{'transformed':>16}{'seconds':>9}{'mean strength':>15}")
    for name, of in runs.items():
        scores = "".join(spread([getattr(run, k) for run in of]) for k in ("clean", "transformed"))
        strength = mean(float(values.mean()) for run in of for values in run.strengths)
        print(f"{name:11}{scores}{mean(run.seconds for run in of):9.1f}{strength:15.2f}")
    picture(problem, runs).savefig(args.output, dpi=120)
    print(f"picture: {args.output}")
    if args.json:
        args.json.write_text(record(runs) + "\n")


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation over the seeds."""
    return f"{mean(values):9.3f} ± {stdev(values) if len(values) > 1 else 0.0:.3f}"


def conclude(
    title: str, heads: dict[str, str], runs: dict[str, list[Any]], output: Path | None
) -> None:
    """Print mean ± deviation of some fields of each method's runs, and write all runs as JSON."""
    width = 1 + max(map(len, (title, *runs)))
    print(
        f"{title:{width}}" + "".join(f"{head:>16}" for head in heads.values()) + f"{'seconds':>9}"
    )
    for name, of in runs.items():
        scores = "".join(spread([getattr(run, field) for run in of]) for field in heads)
        print(f"{name:{width}}{scores}{mean(run.seconds for run in of):9.1f}")
    if output:
        figures = {name: [asdict(run) for run in of] for name, of in runs.items()}
        output.write_text(json.dumps({"about": about(), "runs": figures}, indent=1) + "\n")


def record(runs: dict[str, list[Run]]) -> str:
    """Return every run's figures and each epoch's mean strength as JSON."""
    figures = {
        name: [
            {
                "clean": run.clean,
                "transformed": run.transformed,
                "seconds": run.seconds,
                "mean_strength": [round(float(values.mean()), 4) for values in run.strengths],
            }
            for run in of
        ]
        for name, of in runs.items()
    }
    return json.dumps({"about": about(), "runs": figures}, indent=1)


def picture(problem: Problem, runs: dict[str, list[Run]]) -> Figure:
    """Draw the strengths' distribution over the epochs, and the images at both ends."""
    adaptive = [name for name in RULES if not name.startswith("fixed")]
    figure = Figure(figsize=(13, 2.6 * len(adaptive)), layout="constrained")
    rows = figure.add_gridspec(len(adaptive), 2, width_ratios=(1, 1.6))
    images, labels = problem.train.tensors
    for at, name in enumerate(adaptive):
        over = torch.stack(runs[name][0].strengths)
        axes = figure.add_subplot(rows[at, 0])
        for low, high, shade in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4)):
            ends = (over.quantile(low, 1).tolist(), over.quantile(high, 1).tolist())
            axes.fill_between(range(len(over)), *ends, color="C0", alpha=shade, linewidth=0)
        axes.plot(over.median(1).values.tolist(), color="C0")
        axes.set(ylim=(-0.03, 1.03), xlabel="epoch", ylabel=f"{name}: strength")
        order = over[-1].argsort(stable=True)
        strip = rows[at, 1].subgridspec(2, 10)
        for line, (end, chosen) in enumerate((("weakest", order[:10]), ("strongest", order[-10:]))):
            for column, i in enumerate(chosen.tolist()):
                cell = figure.add_subplot(strip[line, column])
                shown = images[i].permute(1, 2, 0).squeeze(-1).numpy()
                cell.imshow(shown, cmap="gray_r", vmin=0, vmax=255)
                cell.set(xticks=[], yticks=[])
                cell.set_title(problem.classes[int(labels[i])], fontsize=8, pad=2)
                if column == 0:
                    cell.set_ylabel(end)
    figure.suptitle(
        "Median, middle half and middle 90 % of the strengths; images that end at both extremes",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return figure


if __name__ == "__main__":
    main()
