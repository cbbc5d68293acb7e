"""Does stable influence give wrongly labelled samples less strength than rightly labelled ones?

    python benchmarks/ordering.py --quick

Trains a small network on scikit-learn's digits with planted label noise, under both forms of
``StableInfluence`` and both views, and compares the strengths at the end. Every run trains with the
strengths that its own rule finds.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from common import Spread, environment, progress, save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import CoresetSampler, StableInfluence, Uniform, WeightedAugmentedDataset
from augloader.feedback import Form, Scaling, View
from augloader.feedback.strength import average_ranks

PACKAGES = ("augloader", "numpy", "torch", "scikit-learn")
NOISE = 0.2  # share of wrong labels
FORMS: tuple[Form, ...] = ("kl", "loss")
FRACTION = 0.3  # share of the samples with a strong copy


def noisy_digits(seed: int, limit: int | None) -> tuple[TensorDataset, Tensor]:
    """Return digits of which a share has a wrong label, and the mask of those."""
    bunch = load_digits()
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(bunch.target))[:limit]
    labels = bunch.target[kept]
    wrong = np.arange(len(kept)) < round(NOISE * len(kept))
    labels = np.where(wrong, (labels + rng.integers(1, 10, len(kept))) % 10, labels)
    images = torch.tensor(bunch.images[kept], dtype=torch.float32).unsqueeze(1) / 16
    return TensorDataset(images, torch.from_numpy(labels)), torch.from_numpy(wrong)


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for channels, width in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def strong(images: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 30 degrees and shift by up to 15 % of the side, times each strength."""
    angle, *shift = (torch.rand(3, len(images), generator=generator) * 2 - 1) * strength
    cos, sin = (angle * torch.pi / 6).cos(), (angle * torch.pi / 6).sin()
    across, down = (0.3 * part for part in shift)  # the side is 2 long
    theta = torch.stack([cos, -sin, across, sin, cos, down], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def train(rule: StableInfluence, seed: int, epochs: int, limit: int | None) -> dict[str, float]:
    """Train once; return how the strengths of the wrongly labelled differ from the others'."""
    dataset, wrong = noisy_digits(seed, limit)
    data = WeightedAugmentedDataset(dataset)
    sampler = CoresetSampler(
        data, Uniform(), fraction=FRACTION, weighting="uniform", strength=rule, seed=seed
    )
    loader = DataLoader(data, batch_size=64, sampler=sampler)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        sampler.refresh()
        for batch in loader:
            logits = model(strong(batch.input, batch.strength, generator))
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)
    columns = sampler.table.state_dict()["memory"]
    found = {}
    for scaling in get_args(Scaling):
        scaled = replace(rule, scaling=scaling)
        strengths = scaled.strengths(columns, np.random.default_rng(seed))
        found[scaling] = float(strengths[wrong].mean() - strengths[~wrong].mean())
    return {**found, "ordered": ordered(columns["variance"], wrong)}


def ordered(variance: Tensor, wrong: Tensor) -> float:
    """Return in which share of the pairs the wrongly labelled sample varies more; ties half."""
    ranks = torch.from_numpy(average_ranks(variance.numpy()) * (len(variance) - 1))
    bad = int(wrong.sum())
    return float((ranks[wrong].sum() - bad * (bad - 1) / 2) / (bad * (len(wrong) - bad)))


@dataclass(frozen=True)
class Row:
    """What one form and view gave over the seeds: wrong minus right strength, by scaling."""

    form: Form
    view: View
    runs: list[dict[str, float]]

    def spread(self, name: str) -> Spread:
        return Spread.of(run[name] for run in self.runs)

    def record(self) -> dict[str, Any]:
        names = self.runs[0]
        stats = {
            name: {
                "mean": float(np.mean([run[name] for run in self.runs])),
                "std": float(np.std([run[name] for run in self.runs], ddof=len(self.runs) > 1)),
                **asdict(self.spread(name)),
            }
            for name in names
        }
        return {"form": self.form, "view": self.view, **stats, "runs": self.runs}

    def __str__(self) -> str:
        record = self.record()
        cells = (
            f"{record[name]['mean']:+8.3f} ± {record[name]['std']:.3f}" for name in self.runs[0]
        )
        return f"{self.form:6}{self.view:6}" + "".join(cells)


def run(seeds: int, epochs: int, limit: int | None = None) -> list[Row]:
    """Train with every form and view, seed by seed."""
    rows = [Row(form, view, []) for form, view in product(FORMS, get_args(View))]
    for seed, row in progress([(seed, row) for seed in range(seeds) for row in rows]):
        rule = StableInfluence(row.form, view=row.view)
        row.runs.append(train(rule, seed, epochs, limit))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two seeds of ten epochs")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds = options.seeds or (2 if options.quick else 5)
    epochs = options.epochs or (10 if options.quick else 30)
    about = environment(options.threads, PACKAGES)
    about["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "default")
    rows = run(seeds, epochs)
    print("Mean strength of wrongly minus rightly labelled samples, mean ± standard deviation over")
    print(f"{seeds} seeds; share of pairs where the wrongly labelled one varies more (chance: 0.5)")
    print(f"{'form':6}{'view':6}" + "".join(f"{name:>16}" for name in rows[0].runs[0]))
    print(*rows, sep="\n")
    summary = {
        "benchmark": "ordering",
        **{f"{row.form}_{row.view}": row.record()["minmax"]["mean"] for row in rows},
    }
    record = {
        "quick": options.quick,
        "seeds": seeds,
        "epochs": epochs,
        "noise": NOISE,
        "fraction": FRACTION,
        "environment": about,
        "summary": summary,
        "rows": [row.record() for row in rows],
    }
    save(options.output, "ordering", "cpu", record)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
