"""The papers' networks by name; all take uint8 images and normalise them themselves.

resnet8, -20, -32, -56: He et al. (2016), section 4.2, for small images
preactresnet18: He et al. (2016), Identity mappings, as the papers on CIFAR have it, 64 wide
wrn-28-10: Zagoruyko & Komodakis (2016); wrn-28-10-dropout: with their dropout of 0.3
lenet: LeNet-5 of LeCun et al. (1998), with ReLU; mlp: two hidden layers of 100
any other name: torchvision's, such as resnet18 or resnet50
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import DEPTHS, ResNet

OWN = (*DEPTHS, "preactresnet18", "wrn-28-10", "wrn-28-10-dropout", "lenet", "mlp")


class PreAct(nn.Module):
    """Normalise, rectify, convolve, twice; beside it a 1x1 convolution where widths change."""

    def __init__(self, width_in: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(width_in), nn.BatchNorm2d(width)
        self.one = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.two = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.drop = nn.Dropout(dropout)
        changed = width_in != width or stride > 1
        self.across = nn.Conv2d(width_in, width, 1, stride, bias=False) if changed else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        beside = x if self.across is None else self.across(y)
        return beside + self.two(self.drop(F.relu(self.second(self.one(y)))))  # type: ignore[no-any-return]


class PreActResNet(nn.Module):
    """Stages of such blocks, each half as wide and high as the one before and twice as deep."""

    def __init__(
        self, stem: int, widths: tuple[int, ...], blocks: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        stages = []
        for i, (a, b) in enumerate(itertools.pairwise((stem, *widths))):
            first = PreAct(a, b, 1 + (i > 0), dropout)
            stages.append(
                nn.Sequential(first, *(PreAct(b, b, 1, dropout) for _ in range(blocks - 1)))
            )
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.stages = nn.Sequential(*stages)
        self.norm, self.head = nn.BatchNorm2d(widths[-1]), nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stages(self.stem(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class LeNet(nn.Module):
    """LeNet-5 with ReLU (LeCun et al. 1998); takes uint8 images."""

    def __init__(self, side: int, classes: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        left = (side // 2 - 4) // 2
        if left < 1:
            raise ValueError(f"images must be of 12 pixels or more, got {side}. Take resnet8.")
        self.mean, self.std = nn.Buffer(mean.view(3, 1, 1)), nn.Buffer(std.view(3, 1, 1))
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(16 * left * left, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        )
        self.head: nn.Module = nn.Linear(84, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body((images / 255 - self.mean) / self.std)
        return self.head(features)  # type: ignore[no-any-return]


class Normalised(nn.Module):
    """A network that takes uint8 images."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = nn.Buffer(mean.view(3, 1, 1)), nn.Buffer(std.view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images / 255 - self.mean) / self.std)  # type: ignore[no-any-return]


def network(
    name: str, classes: int, mean: Tensor, std: Tensor, size: int, weights: Path | None = None
) -> nn.Module:
    """Return a network of a name, for square images of a size.

    Args:
        name: see above.
        classes: C, of its outputs.
        mean: (3,) of the channels, in [0, 1].
        std: (3,), the same.
        size: pixels a side; lenet and mlp have layers of it.
        weights: a file of torchvision's weights, a state dict; a last layer of other classes is
            left as it was drawn. None draws all of them.

    Raises:
        ValueError: a name that neither we nor torchvision know; weights of another network.
    """
    if name in DEPTHS:
        made: nn.Module = ResNet(DEPTHS[name], classes, mean, std)
    elif name == "preactresnet18":
        made = Normalised(PreActResNet(64, (64, 128, 256, 512), 2, 0.0, classes), mean, std)
    elif name in ("wrn-28-10", "wrn-28-10-dropout"):
        dropout = 0.3 if name.endswith("dropout") else 0.0
        made = Normalised(PreActResNet(16, (160, 320, 640), 4, dropout, classes), mean, std)
    elif name == "lenet":
        made = LeNet(size, classes, mean, std)
    elif name == "mlp":
        layers = [nn.Flatten(), nn.Linear(3 * size**2, 100), nn.ReLU()]
        layers += [nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, classes)]
        made = Normalised(nn.Sequential(*layers), mean, std)
    elif name in models.list_models(module=models):
        made = Normalised(models.get_model(name, weights=None, num_classes=classes), mean, std)
    else:
        known = ", ".join(OWN)
        raise ValueError(
            f"network must be {known} or one of torchvision's, got {name!r}. See "
            "torchvision.models.list_models()."
        )
    if weights is not None:
        load(made, weights)
    return made


def load(model: nn.Module, file: Path) -> None:
    """Load a file's weights; the last layer's only where they are of as many classes."""
    inner = model.network if isinstance(model, Normalised) else model
    own, found = inner.state_dict(), torch.load(file, map_location="cpu", weights_only=True)
    *_, last = (name for name, module in inner.named_modules() if isinstance(module, nn.Linear))
    head = {name for name in own if name.startswith(f"{last}.")}
    other = {
        name
        for name in own.keys() | found.keys()
        if name not in own or name not in found or own[name].shape != found[name].shape
    }
    if other - head:
        raise ValueError(
            f"weights must be of this network, got {file} with other {sorted(other - head)[:4]}. "
            "Give the file of the network that is named."
        )
    inner.load_state_dict(own | {name: found[name] for name in own.keys() - other})


def mixable(model: nn.Module) -> list[str]:
    """Return the layers whose inputs Manifold Mixup mixes: the input, and two stages of blocks.

    Raises:
        ValueError: a network without stages.
    """
    if isinstance(model, ResNet):
        blocks = [f"body.{i}" for i in range(3, len(model.body))]
        return ["", *blocks[: 2 * len(blocks) // 3]]
    inner = model.network if isinstance(model, Normalised) else model
    prefix = "network." if isinstance(model, Normalised) else ""
    names = {name for name, _ in inner.named_modules()}
    for first, second in (("stages.0", "stages.1"), ("layer1", "layer2")):
        if {first, second} <= names:
            return ["", prefix + first, prefix + second]
    raise ValueError("mix='manifold' must be of a network with stages, got one without. Take mixup")
