"""Train on coresets with PyTorch Lightning, on one device or several.

    python examples/lightning_module.py --devices 2

The module weights its loss and returns what is to be reported; the callback does the rest. The
sampler is built in ``setup`` of the data module, when Lightning has set the process group up.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    DistributedCoresetSampler,
    Every,
    FacilityLocation,
    Sample,
    WeightedAugmentedDataset,
)
from augloader.integrations.lightning import CoresetCallback


class Digits(LightningDataModule):
    def __init__(self, images: int, epochs: int) -> None:
        super().__init__()
        digits = load_digits()
        x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        y = torch.tensor(digits.target)
        self.data = WeightedAugmentedDataset(TensorDataset(x[:images], y[:images]))
        self.test, self.epochs = TensorDataset(x[1500:], y[1500:]), epochs

    def setup(self, stage: str) -> None:
        if stage != "fit" or self.trainer is None:
            return
        self.sampler = DistributedCoresetSampler(
            self.data, FacilityLocation(), fraction=0.3, refresh=Every(2), weighting="uniform",
            epochs=self.epochs, num_replicas=self.trainer.world_size,
            rank=self.trainer.global_rank, group=dist.group.WORLD,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.data, batch_size=32, sampler=self.sampler)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test, batch_size=100)


class Network(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.strong = AdaptiveStrengthTransform("trivial", interpolation="bilinear", seed=0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(512, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        logits = self(self.strong(batch).input)
        losses = F.cross_entropy(logits, batch.target, reduction="none")
        return {"loss": (losses * batch.weight).mean(), "losses": losses, "logits": logits}

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        right = self(images).argmax(1) == labels
        self.log("accuracy", right.float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coresets in PyTorch Lightning.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--devices", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(0)
    data, network = Digits(options.images, options.epochs), Network()
    trainer = Trainer(
        max_epochs=options.epochs, accelerator="cpu", devices=options.devices,
        strategy="ddp" if options.devices > 1 else "auto",
        callbacks=[CoresetCallback(lambda: data.sampler, data.data)],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    found = trainer.test(network, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        print(f"{options.devices} devices: {found[0]['accuracy']:.3f} of other digits right")
    if dist.is_initialized():  # Lightning leaves the group to the end of the process
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
