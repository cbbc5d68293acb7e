"""Draw what augloader does in a training: every picture of ``augloader.plot``.

    python examples/pictures.py --output DIR                  scikit-learn's digits, in a minute
    python examples/pictures.py --output DIR --data DIR       an image folder with train/ and test/
    python examples/pictures.py --output DIR --log DIR        and logs for TensorBoard

Trains the quickstart's small network on 30 % of the images, selected as a coreset and augmented by
TrivialAugment, each as strongly as its influence is steady (SADA). Keeps every selection, and every
epoch's strengths and losses, prints the last summary, and writes a picture of each kind.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from adaptive_strength import as_uint8
from quickstart import Problem, digits, folder, network
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    Selection,
    StableInfluence,
    WeightedAugmentedDataset,
    plot,
    summary,
    sweep,
)


@dataclass
class Kept:
    """What the pictures are drawn from."""

    selections: dict[int, Selection] = field(default_factory=dict)  # by the epoch of the refresh
    strengths: list[Tensor] = field(default_factory=list)  # (n,) an epoch
    losses: list[Tensor | None] = field(default_factory=list)  # (n,) an epoch


def train(
    problem: Problem,
    strong: AdaptiveStrengthTransform,
    epochs: int,
    refresh: int,
    writer: Any = None,
) -> tuple[CoresetSampler, Kept]:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(0)
    to_float = v2.ToDtype(torch.float32, scale=True)
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak, final=to_float)
    sampler = CoresetSampler(
        data,
        FacilityLocation(),
        fraction=0.3,
        refresh=Every(refresh),
        strength=StableInfluence(),
        weighting="uniform",
        epochs=epochs,
        seed=0,
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    kept = Kept()
    for epoch in tqdm(range(epochs), unit="epoch"):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            kept.selections[epoch] = sampler.refresh(sweep(model, data, LastLayerGradient()))
        kept.strengths.append(sampler.strengths)
        if writer is not None:
            summary.log(writer, sampler, epoch)
        for batch in loader:
            logits = model(strong(batch).input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, logits=logits)
        kept.losses.append(sampler.table.evidence(frozenset({"losses"})).losses)
        scheduler.step()
    return sampler, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=600, help="training images to use")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--refresh", type=int, default=3, help="epochs between two selections")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="folder to write to")
    parser.add_argument("--log", type=Path, help="write logs for TensorBoard to this folder")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    found = folder(args.data, args.images, 32) if args.data else digits(args.images)
    problem = as_uint8(found, 32)  # TrivialAugment shifts by up to 32 pixels
    images, labels = problem.train.tensors
    strong = AdaptiveStrengthTransform("trivial", seed=0, dtype=torch.float32)
    writer: Any = None
    if args.log:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SystemExit("--log needs tensorboard: pip install tensorboard") from None
        writer = SummaryWriter(args.log)
    sampler, kept = train(problem, strong, args.epochs, args.refresh, writer)
    if writer is not None:
        writer.close()
    last = list(kept.selections.values())[-1]
    print(summary.of_sampler(sampler), end="\n\n")
    print(summary.of_selection(last, labels), end="\n\n")
    figures = {
        "medoids": plot.medoids(last, images, labels, names=problem.classes),
        "coverage": plot.coverage(last),
        "strengths": plot.strengths(kept.strengths),
        "ladder": plot.strength_ladder(strong, images[int(last.indices[0])]),
        "evolution": plot.evolution(
            kept.strengths, labels, names=problem.classes, samples=last.indices[:5], images=images
        ),
        "extremes": plot.extremes(kept.losses[-1], images),
        "scores": plot.scores({"first loss": kept.losses[0], "last loss": kept.losses[-1]}),
        "drift": plot.drift(kept.losses[0], kept.losses[-1], log=True),
    }
    if len(kept.selections) > 1:
        figures["turnover"] = plot.turnover([*kept.selections.values()], [*kept.selections])
    args.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = args.output / f"{name}.png"
        figure.savefig(path, dpi=120)
        print(f"picture: {path}")


if __name__ == "__main__":
    main()
