"""Train on coresets with PyTorch Ignite, on one process or several.

    torchrun --nproc-per-node 2 examples/ignite_loop.py

Handlers do what lines of a loop of your own do elsewhere. The first epoch is begun before ``run``,
which asks for the loader's length. Ignite keeps that length for all epochs: where a warm-up or a
schedule changes it, pass ``constant_length=True`` and ``epochs`` to the sampler.
"""

from __future__ import annotations

import argparse
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ignite.engine import Engine, Events
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    DistributedCoresetSampler,
    Every,
    FacilityLocation,
    LastLayerGradient,
    Sample,
    WeightedAugmentedDataset,
    sweep,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coresets with PyTorch Ignite.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1500)
    options = parser.parse_args()
    if dist.is_torchelastic_launched():
        idist.initialize("nccl" if torch.cuda.is_available() else "gloo")
    rank, world, device = idist.get_rank(), idist.get_world_size(), idist.device()
    group = dist.group.WORLD  # None on one process

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    data = WeightedAugmentedDataset(
        TensorDataset(images[: options.images], labels[: options.images])
    )
    sampler = DistributedCoresetSampler(
        data, FacilityLocation(), fraction=0.3, refresh=Every(2), weighting="uniform", seed=0,
        num_replicas=world, rank=rank, group=group,
    )  # fmt: skip
    loader = DataLoader(data, batch_size=max(1, 64 // world), sampler=sampler)
    strong = AdaptiveStrengthTransform("trivial", interpolation="bilinear", seed=0)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 10),
    )  # fmt: skip
    model = idist.auto_model(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(engine: Engine, batch: Sample) -> dict[str, Tensor]:
        batch = batch.to(device)
        logits = model(strong(batch).input)
        loss = F.cross_entropy(logits, batch.target, reduction="none")
        (loss * batch.weight).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss, "logits": logits}

    def begin(epoch: int) -> None:
        sampler.begin(epoch, lambda: sweep(model, data, LastLayerGradient(), group=group))

    def report(engine: Engine) -> None:
        state: Any = engine.state
        sampler.report(state.batch, **state.output)

    engine = Engine(step)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: begin(engine.state.epoch - 1))
    engine.add_event_handler(Events.ITERATION_COMPLETED, report)
    begin(0)
    engine.run(loader, max_epochs=options.epochs)

    with torch.no_grad():
        right = network.eval()(images[1500:].to(device)).argmax(1).cpu() == labels[1500:]
    if rank == 0:
        print(f"{world} ranks: {right.float().mean():.3f} of {len(right)} other digits right")
    idist.finalize()


if __name__ == "__main__":
    main()
