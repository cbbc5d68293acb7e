"""AugMix with its consistency loss: a loss of your own over samples and their copies.

    python examples/augmix.py               scikit-learn's digits, nothing to download
    python examples/augmix.py --data DIR    an image folder with train/ and test/

Cross-entropy looks at one row at a time. AugMix also asks that a sample and two augmented copies of
it be classified alike (Hendrycks et al. 2020, section 3):

    L = -log p_y + 12 JS(p; p_1; p_2),    JS = (KL(p || m) + KL(p_1 || m) + KL(p_2 || m)) / 3,
    m = (p + p_1 + p_2) / 3

so all three must be in the same batch. ``copies=0`` keeps one draw of every sample, and those with
strength above 0, here a coreset of 30 %, get their copies on the device, named by their keys.
Prints accuracies on clean and on transformed test images: without AugMix, with it on every image,
on a random 30 % and on the coreset.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from adaptive_strength import as_uint8, conclude
from cifar import jensen_shannon
from quickstart import Problem, accuracy, digits, folder, network, transformed_views
from torch.utils.data import DataLoader
from tqdm import tqdm

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    FacilityLocation,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
)

METHODS: dict[str, tuple[Strategy, float, float]] = {  # strategy, fraction, strength factor
    "without": (Uniform(), 1.0, 0.0),
    "full": (Uniform(), 1.0, 1.0),
    "uniform 30 %": (Uniform(), 0.3, 1.0),
    "coreset 30 %": (FacilityLocation(), 0.3, 1.0),
}


@dataclass
class Run:
    """One training run: accuracies and seconds."""

    clean: float
    transformed: float
    seconds: float


def train(problem: Problem, method: str, epochs: int, seed: int, bar: tqdm[None]) -> Run:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    strategy, fraction, factor = METHODS[method]
    data = WeightedAugmentedDataset(problem.train, weak=problem.weak)
    sampler = CoresetSampler(
        data,
        strategy,
        fraction=fraction,
        copies=0,
        refresh=Every(5, warmup=1 if strategy.needs else 0),
        strength_schedule=factor,
        weighting="uniform",  # of few small images one would else stand for a third of a class
        seed=seed,
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    augmix = AdaptiveStrengthTransform("augmix", seed=seed, dtype=torch.float32)
    model = network(problem.train.tensors[0].shape[1], len(problem.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    started = time.perf_counter()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()  # from what was reported: no forward pass
        for batch in loader:
            chosen = (batch.strength > 0).nonzero().flatten()
            rows = [batch.input / 255]
            for copy in (1, 2):
                keys = batch.keys[chosen] + torch.tensor([0, 0, copy])
                rows.append(augmix(batch.input[chosen], batch.strength[chosen], keys=keys))
            own, *copies = model(torch.cat(rows)).split([len(part) for part in rows])
            entropy = F.cross_entropy(own, batch.target, reduction="none")
            loss = entropy.index_add(0, chosen, 12 * jensen_shannon(own[chosen], *copies))
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            # What is reported are the samples' own rows, not augmented ones: strength 0.
            clean = batch._replace(strength=torch.zeros_like(batch.strength))
            sampler.report(clean, loss=entropy, logits=own)
        scheduler.step()
        bar.update()
    seconds = time.perf_counter() - started
    images, labels = problem.test.tensors
    views = [accuracy(model, v, labels[:500]) for v in transformed_views(images[:500] / 255)]
    return Run(accuracy(model, images / 255, labels), mean(views), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=600, help="training images to use")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the images are small: more threads only get in each other's way
    found = folder(args.data, args.images, 32) if args.data else digits(args.images)
    problem = as_uint8(found, 32)
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    with tqdm(total=len(METHODS) * args.seeds * args.epochs, unit="epoch") as bar:
        for seed in range(args.seeds):
            for name in METHODS:
                bar.set_description(f"{name}, seed {seed}")
                runs[name].append(train(problem, name, args.epochs, seed, bar))
    conclude("AugMix", {"clean": "clean", "transformed": "transformed"}, runs, args.json)


if __name__ == "__main__":
    main()
