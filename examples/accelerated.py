"""Train on coresets with Hugging Face accelerate, on one process or several.

    accelerate launch --multi_gpu --num_processes 2 examples/accelerated.py
    torchrun --nproc-per-node 2 examples/accelerated.py     on CPUs

accelerate deals the batches of any sampler to the ranks, so it gets the plain CoresetSampler, with
the ranks' ``group`` to sweep and select together. ``pad_to_multiple_of`` fills the epoch up to
whole batches on every rank at weight 0, where accelerate would train on some draws twice. Epochs
begin with the loader's ``set_epoch``: the loader calls the sampler's again when it is iterated.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    WeightedAugmentedDataset,
    sweep,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coresets with accelerate.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--accumulate", type=int, default=1, help="batches for each step")
    options = parser.parse_args()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(), gradient_accumulation_steps=options.accumulate
    )
    ranks, group = accelerator.num_processes, dist.group.WORLD  # None on one process

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    data = WeightedAugmentedDataset(
        TensorDataset(images[: options.images], labels[: options.images])
    )
    batch_size = max(1, 64 // ranks)
    sampler = CoresetSampler(
        data, FacilityLocation(), fraction=0.3, refresh=Every(2), weighting="uniform", seed=0,
        group=group, pad_to_multiple_of=batch_size * ranks,
    )  # fmt: skip
    strong = AdaptiveStrengthTransform("trivial", interpolation="bilinear", seed=0)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(data, batch_size=batch_size, sampler=sampler)
    model, optimizer, loader = accelerator.prepare(network, optimizer, loader)

    for epoch in range(options.epochs):
        loader.set_epoch(epoch)  # of accelerate's loader, which tells the sampler
        if sampler.refresh_due:
            sampler.refresh(sweep(model, data, LastLayerGradient(), group=group))
        for batch in loader:
            with accelerator.accumulate(model):
                logits = model(strong(batch).input)
                loss = F.cross_entropy(logits, batch.target, reduction="none")
                accelerator.backward((loss * batch.weight).mean())
                optimizer.step()
                optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)

    model.eval()
    with torch.no_grad():
        found = accelerator.unwrap_model(model)(images[1500:].to(accelerator.device))
    right = (found.argmax(1).cpu() == labels[1500:]).float()
    accelerator.print(f"{ranks} ranks: {right.mean():.3f} of {len(right)} other digits right")
    accelerator.end_training()


if __name__ == "__main__":
    main()
