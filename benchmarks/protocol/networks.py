"""Networks that make features of images: how they are trained, and a file that keeps them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import progress
from networks import LeNet
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from cifar import ResNet, mean_and_std

Move = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, on a batch's own random numbers.

    Attributes:
        epochs: how many.
        seed: of weights, order and augmentation.
        kind: "resnet8", by SGD in batches of 128, or "lenet", by Adam in batches of 512.
        width: channels of the ResNet's first stage; it makes four times as many features.
        moves: what training images are augmented by, each by one of them or by none; the paper's
            networks for NORB saw random rotations, shifts and flips. () is no augmentation.
    """

    epochs: int
    seed: int = 0
    kind: str = "resnet8"
    width: int = 16
    moves: tuple[Move, ...] = ()

    def build(self, images: Tensor, labels: Tensor) -> nn.Module:
        classes, moments = int(labels.max()) + 1, mean_and_std(images)
        if self.kind == "lenet":
            return LeNet(images.shape[-1], classes, *moments)
        network: nn.Module = ResNet(1, classes, *moments, self.width)
        return network

    def train(self, images: Tensor, labels: Tensor, headless: bool = True) -> nn.Module:
        """Return a network in eval mode that returns what its head is given, or the outputs."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.build(images, labels)
            batch = 512 if self.kind == "lenet" else 128
            steps = self.epochs * -(-len(labels) // batch)
            optimizer: torch.optim.Optimizer
            schedule: Any = None
            if self.kind == "lenet":
                optimizer = torch.optim.Adam(network.parameters())
            else:
                optimizer = torch.optim.SGD(
                    network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4
                )
                schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps)
            epochs = range(self.epochs)
            for _ in progress(epochs) if len(labels) > 5000 else epochs:
                for rows in torch.randperm(len(labels)).split(batch):
                    given = moved(images[rows], self.moves)
                    F.cross_entropy(network(given), labels[rows]).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    if schedule is not None:
                        schedule.step()
        if headless:
            network.head = nn.Identity()
        return network.eval()

    def describe(self) -> str:
        return repr((self.epochs, self.seed, self.kind, self.width, self.moves))


def moved(images: Tensor, moves: Sequence[Move]) -> Tensor:
    """Return each image moved by one of these, or not at all, all of them equally likely."""
    if not moves:
        return images
    which, out = torch.randint(len(moves) + 1, (len(images),)), images.clone()
    for i, move in enumerate(moves):
        rows = which == i
        if rows.any():
            out[rows] = move(images[rows])
    return out


def checksum(*parts: Tensor) -> str:
    """Return 16 hexadecimal digits that depend on every value, type and shape."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr((part.dtype, tuple(part.shape))).encode())
        found.update(part.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@dataclass
class Networks:
    """Networks by what they were trained on and how; with a path they are kept in a file.

    A file may hold those of several data sets and recipes: each is found by a checksum of its
    images, labels and recipe, so that none is taken for another.
    """

    recipe: Recipe
    path: Path | None = None
    loaded: int = 0
    trained: int = 0
    _states: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            states = torch.load(self.path, weights_only=True)
            if not isinstance(states, dict) or any(len(str(key)) != 16 for key in states):
                raise ValueError(
                    f"{self.path} must be a file that --network wrote, got another. Name a new one."
                )
            self._states = states

    def get(self, images: Tensor, labels: Tensor) -> nn.Module:
        """Return the network of these images and labels, loaded or trained now and saved."""
        told = torch.frombuffer(bytearray(self.recipe.describe().encode()), dtype=torch.uint8)
        key = checksum(images, labels, told)
        if key in self._states:
            with torch.random.fork_rng(devices=[]):
                network = self.recipe.build(images, labels)
            network.head = nn.Identity()
            network.load_state_dict(self._states[key])
            self.loaded += 1
            return network.eval()
        network = self.recipe.train(images, labels)
        self.trained += 1
        if self.path is not None:
            self._states[key] = network.state_dict()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            torch.save(self._states, part)
            part.replace(self.path)
        return network
