"""The CIFAR ResNets of He et al. (2016), section 4.2, image folders in memory, and a divergence."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from tqdm import tqdm

from augloader.labels import long_tail

DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet56": 9}  # blocks a stage


class Block(nn.Module):
    """Two 3x3 convolutions and the parameter-free shortcut, option A of the paper."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.new = width - width_in
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, 2 if self.new else 1, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.new:  # subsample by a pool that keeps channels last, pad on both sides
            x = F.pad(F.avg_pool2d(x, 1, 2), (0, 0, 0, 0, self.new // 2, self.new // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """The CIFAR ResNet of 6 n + 2 layers; takes uint8 images and normalises them itself."""

    def __init__(self, n: int, classes: int, mean: Tensor, std: Tensor, width: int = 16) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean.view(3, 1, 1)), nn.Buffer(std.view(3, 1, 1))
        stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        widths = [width] * (n + 1) + [2 * width] * n + [4 * width] * n
        blocks = [Block(a, b) for a, b in itertools.pairwise(widths)]
        self.body, self.head = nn.Sequential(*stem, *blocks), nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = (images / 255 - self.mean) / self.std
        x = self.body(x.contiguous(memory_format=torch.channels_last))
        return self.head(F.avg_pool2d(x, x.shape[2:]).flatten(1))  # type: ignore[no-any-return]


class Images(Dataset[tuple[Tensor, int]]):
    """Images in memory: (n, 3, H, W) uint8, and (n,) int64 labels."""

    def __init__(self, images: Tensor, labels: Tensor, classes: list[str]) -> None:
        self.images, self.labels, self.classes = images, labels, classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return list(zip(self.images[indices], self.labels[indices].tolist(), strict=True))


def read(
    root: Path,
    rng: np.random.Generator,
    size: int = 32,
    limit: int | None = None,
    imbalance: float = 1.0,
) -> Images:
    """Decode a folder with a folder a class into memory, in random order, resized to ``size``."""
    image = v2.Compose([v2.PILToTensor(), v2.Resize((size, size), antialias=True)])
    folder = ImageFolder(root, transform=image)
    order = rng.permutation(len(folder))[:limit]
    labels = torch.tensor(folder.targets)[torch.from_numpy(order)]
    order = order[long_tail(labels, imbalance).numpy()]
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(folder.__getitem__, order)
        images, targets = zip(*tqdm(decoded, root.name, len(order), disable=None), strict=True)
    return Images(torch.stack(images), torch.tensor(targets), folder.classes)


def mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return both of every channel of uint8 images, in [0, 1], without a float copy of them."""
    counts = torch.stack([x.flatten().bincount(minlength=256) for x in images.unbind(1)]).double()
    share, level = counts / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
    mean = share @ level
    return mean.float(), (share @ level**2 - mean**2).sqrt().float()


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Return (k,) divergences of several (k, C) outputs from their mean."""
    logs = torch.stack([part.log_softmax(1) for part in logits])
    middle = logs.logsumexp(0) - math.log(len(logs))
    return (logs.exp() * (logs - middle)).sum(2).mean(0)
