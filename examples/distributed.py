"""Train on several ranks, which sweep, select and report together.

    torchrun --nproc-per-node 2 examples/distributed.py

Every rank sweeps its share of scikit-learn's digits and selects its share of the classes; all get
the selection of a single process. Each trains on its part of the epoch's draws.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    DistributedCoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    WeightedAugmentedDataset,
    sweep,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coresets under DistributedDataParallel.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1500)
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    data = WeightedAugmentedDataset(
        TensorDataset(images[: options.images], labels[: options.images])
    )
    sampler = DistributedCoresetSampler(
        data, FacilityLocation(), fraction=0.3, refresh=Every(4), weighting="uniform", seed=0
    )
    loader = DataLoader(data, batch_size=max(1, 64 // world), sampler=sampler)
    strong = AdaptiveStrengthTransform("trivial", interpolation="bilinear", seed=0)

    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(512, 10),
        ).to(device)
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            evidence = sweep(model, data, LastLayerGradient(), group=dist.group.WORLD)
            selection = sampler.refresh(evidence)
            certificate = selection.certificate
            if rank == 0 and certificate is not None:
                print(
                    f"epoch {epoch}: {len(selection)} medoids, at least {certificate.ratio:.1%} of "
                    f"the best coverage, {certificate.kept or 0} kept; {certificate.reason}"
                )
        for batch in loader:
            batch = batch.to(device)
            logits = model(strong(batch).input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)

    model.eval()
    with torch.no_grad():
        right = model.module(images[1500:].to(device)).argmax(1).cpu() == labels[1500:]
    if rank == 0:
        print(f"{world} ranks: {right.float().mean():.3f} of {len(right)} other digits right")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
