"""Bring your own proxy and your own transform: regression on sounds, augmenting 30 % of them.

    python examples/own_proxy.py               synthetic, nothing to download

Every item is a second of sound, two tones with overtones and noise, and the target is the pitch of
the louder one. Nothing here is an image, and there are no classes. So three things are the user's:

    the transform     ``shift_and_noise`` takes a draw's strength and its keys, in the dataset;
    the proxy         the gradient of the squared error by the last layer's weights, residual times
                      features, (B, d), reported in every step: a refresh needs no forward pass;
    the groups        four ranges of the target stand where classes would. Without any label: the
                      embedding alone, and FacilityLocation(per_class=False).

Prints the test error (root mean square, in semitones) on sounds as recorded and on shifted and
noisier ones: without augmentation, with all sounds augmented, and with 30 % of them.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from adaptive_strength import conclude
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from augloader import (
    CoresetSampler,
    Every,
    FacilityLocation,
    Strategy,
    Uniform,
    WeightedAugmentedDataset,
)

LENGTH, OCTAVES, GROUPS = 256, 2, 4
METHODS: dict[str, tuple[Strategy, float] | None] = {
    "none": None,
    "full": (Uniform(), 1.0),
    "uniform 30 %": (Uniform(), 0.3),
    "coreset 30 %": (FacilityLocation(), 0.3),  # in each group
    "label-free 30 %": (FacilityLocation(per_class=False), 0.3),
}


@dataclass
class Run:
    """One training run: errors on sounds as recorded and on disturbed ones, and seconds."""

    clean: float
    disturbed: float
    seconds: float


def sounds(n: int, seed: int) -> TensorDataset:
    """Return n sounds, (n, LENGTH), their pitches in octaves, and the range that each is in."""
    rng = np.random.default_rng(seed)
    octave = rng.uniform(0, OCTAVES, (n, 2, 1))
    time_ = 2 * np.pi * 8 * 2**octave * np.arange(LENGTH) / LENGTH  # 8 to 32 periods
    start = rng.uniform(0, 0.5, (n, 2, 1))  # recorded with nearly the same phase
    loud = np.array([[1.0], [0.5]])
    wave = (loud * (np.sin(time_ + start) + 0.5 * np.sin(2 * time_ + start))).sum(1)
    wave += 0.2 * rng.standard_normal(wave.shape)
    target = octave[:, 0, 0]
    edges = np.quantile(target, np.arange(1, GROUPS) / GROUPS)
    columns = torch.tensor(wave, dtype=torch.float32), torch.tensor(target, dtype=torch.float32)
    return TensorDataset(*columns, torch.from_numpy(np.digitize(target, edges)))


def shift_and_noise(wave: Tensor, strength: float, keys: Tensor) -> Tensor:
    """Shift a sound in time by up to half of it, and add noise; strength 0 changes nothing.

    What is drawn depends on the keys alone, the draw's (epoch, index, copy): not on workers.
    """
    rng = np.random.default_rng(keys.tolist())
    shift = round(strength * rng.uniform(-0.5, 0.5) * len(wave))
    noise = torch.from_numpy(rng.standard_normal(len(wave))).float()
    return wave.roll(shift) + strength * rng.uniform(0, 0.5) * noise


class Network(nn.Module):
    """A small 1-D network that returns features, which end in a 1 for the bias, and a pitch."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in ((1, 16), (16, 32), (32, 32)):
            layers += [nn.Conv1d(before, width, 9, 2, 4, bias=False), nn.BatchNorm1d(width)]
            layers += [nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(4), nn.Flatten())
        self.head = nn.Linear(129, 1, bias=False)

    def forward(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(waves.unsqueeze(1))
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
        return features, self.head(features).squeeze(1)


def train(recorded: TensorDataset, method: str, epochs: int, seed: int) -> Network:
    """Train one network. This is the loop that a user of augloader writes."""
    torch.manual_seed(seed)
    strategy, fraction = METHODS[method] or (Uniform(), 1.0)
    data = WeightedAugmentedDataset(recorded, strong=shift_and_noise)
    sampler = CoresetSampler(
        data,
        strategy,
        fraction=fraction,
        refresh=Every(5, warmup=1 if METHODS[method] else epochs),
        weighting="uniform",
        seed=seed,
    )
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()  # from what was reported: no forward pass
        for batch in loader:
            features, guess = model(batch.input)
            loss = (guess - batch.target).square()
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            if method.startswith("label-free"):
                sampler.report(batch, proxy=features)
            else:
                gradient = 2 * (guess - batch.target)[:, None] * features
                (group,) = batch.extra  # what an item holds beside input and target
                sampler.report(batch, loss=loss, proxy=gradient, target=group)
        scheduler.step()
    return model


@torch.inference_mode()
def error(model: Network, waves: Tensor, target: Tensor) -> float:
    """Return the root mean square error in semitones."""
    model.eval()
    return 12 * math.sqrt((model(waves)[1] - target).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sounds", type=int, default=300, help="sounds to train on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write every run's figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the batches are small: more threads only get in each other's way
    recorded = sounds(args.sounds, seed=0)
    waves, target, _ = sounds(1000, seed=1).tensors
    keys = torch.stack([torch.tensor([10**6, i, 0]) for i in range(len(waves))])  # of no epoch
    disturbed = torch.stack([shift_and_noise(w, 1.0, k) for w, k in zip(waves, keys, strict=True)])
    runs: dict[str, list[Run]] = {name: [] for name in METHODS}
    for name, seed in tqdm([(name, seed) for seed in range(args.seeds) for name in METHODS]):
        started = time.perf_counter()
        model = train(recorded, name, args.epochs, seed)
        seconds = time.perf_counter() - started
        errors = error(model, waves, target), error(model, disturbed, target)
        runs[name].append(Run(*errors, seconds))
    conclude(
        "error, semitones", {"clean": "as recorded", "disturbed": "disturbed"}, runs, args.json
    )


if __name__ == "__main__":
    main()
