"""Train on coresets with Ray Train, which brings the ranks up on one machine or many.

    python examples/ray_train.py --workers 2

Ray sets the process group up, and the rest is as under torchrun (examples/distributed.py).
``prepare_data_loader`` would leave the sampler alone, but makes plain tuples of the batches when it
moves them: the loader stays as it is.
"""

from __future__ import annotations

import argparse
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ray.train import Checkpoint
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from sklearn.datasets import load_digits
from torch import nn
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


def train(options: dict[str, Any]) -> None:
    """Run on every worker."""
    torch.set_num_threads(1)
    group, device = dist.group.WORLD, get_device()
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels, count = torch.tensor(digits.target), options["images"]
    data = WeightedAugmentedDataset(TensorDataset(images[:count], labels[:count]))
    sampler = DistributedCoresetSampler(
        data, FacilityLocation(), fraction=0.3, refresh=Every(2), weighting="uniform", seed=0
    )
    loader = DataLoader(data, batch_size=max(1, 64 // dist.get_world_size()), sampler=sampler)
    strong = AdaptiveStrengthTransform("trivial", interpolation="bilinear", seed=0)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 10),
    )  # fmt: skip
    model = prepare_model(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(options["epochs"]):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(sweep(model, data, LastLayerGradient(), group=group))
        for batch in loader:
            batch = batch.to(device)
            logits = model(strong(batch).input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)
    with torch.no_grad():
        right = network.eval()(images[1500:].to(device)).argmax(1).cpu() == labels[1500:]
    with TemporaryDirectory() as folder:
        torch.save(network.state_dict(), f"{folder}/network.pt")
        kept = Checkpoint.from_directory(folder) if dist.get_rank() == 0 else None
        ray.train.report({"accuracy": float(right.float().mean())}, checkpoint=kept)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coresets with Ray Train.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    ray.init(num_cpus=options.workers, include_dashboard=False)  # or address="auto": a cluster
    with TemporaryDirectory() as folder:
        result = TorchTrainer(
            train,
            train_loop_config={"epochs": options.epochs, "images": options.images},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=options.workers),
            run_config=ray.train.RunConfig(storage_path=folder),
        ).fit()
    ray.shutdown()
    metrics = result.metrics or {}
    print(f"{options.workers} ranks: {metrics['accuracy']:.3f} of other digits right")


if __name__ == "__main__":
    main()
