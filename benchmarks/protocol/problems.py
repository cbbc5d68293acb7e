"""The data sets of Kuchnik & Smith (2019) as problems of two classes; nothing is downloaded."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sources import Files, Source
from torch import Tensor, nn

from augloader.augment import crops, rotations, translations
from protocol.networks import Move, Networks, checksum

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from cifar import Images

Array = np.ndarray[Any, Any]
Seconds = defaultdict[str, float]

_SMALL, _WIDE = (-5.0, -2.5, 2.5, 5.0), tuple(np.linspace(-30, 30, 15).tolist())


@contextmanager
def timed(seconds: Seconds, name: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[name] += perf_counter() - start


@dataclass(frozen=True)
class Kind:
    """What the paper does with a data set: the images' side, the two classes, how it moves them."""

    side: int
    classes: tuple[str, str]
    translate: int
    angles: tuple[float, ...]
    crops: tuple[int, ...]

    @property
    def moves(self) -> dict[str, list[Move]]:
        return {
            "translate": [*translations(self.translate)],
            "rotate": [*rotations(self.angles)],
            "crop": [*crops(self.crops)],
        }


KINDS = {  # App. B
    "cifar10": Kind(32, ("airplane", "automobile"), 3, _SMALL, (2,)),
    "mnist": Kind(28, ("3", "8"), 2, _WIDE, (1, 2, 3, 4, 5, 6)),
    "norb": Kind(96, ("animal", "human"), 6, _SMALL, (2,)),
}
DIGITS = Kind(8, ("even", "odd"), 1, _WIDE, (1, 2))


@dataclass(frozen=True)
class Problem:
    """Images of two classes, what transforms them, and the network that makes features of them.

    Attributes:
        images: (n, 3, H, W) uint8.
        labels: (n,), 0 or 1.
        targets: (n,) int64, what a network learns that is trained on a round's images.
        count: training images of a round, half of each class.
        test: indices of the test images; None takes all that a round does not train on.
        moves: the transformations, each several maps of images to images.
        network: returns the network to use, given the indices of a round's training images.
        learn: trains one on images and targets, with its head or ``headless``.
    """

    name: str
    images: Tensor
    labels: Array
    targets: Tensor
    count: int
    test: Array | None
    moves: Mapping[str, Sequence[Move]]
    network: Callable[[Array], nn.Module]
    learn: Callable[..., nn.Module]

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the indices of a round's training and test images."""
        everything = np.arange(len(self.labels))
        free = everything if self.test is None else np.setdiff1d(everything, self.test)
        train = [
            rng.choice(free[self.labels[free] == label], self.count // 2, replace=False)
            for label in (0, 1)
        ]
        chosen = rng.permutation(np.concatenate(train))
        return chosen, np.setdiff1d(everything, chosen) if self.test is None else self.test

    def only(self, names: Sequence[str]) -> Problem:
        """Return the problem with these transformations."""
        return replace(self, moves={name: self.moves[name] for name in names})

    @property
    def checksum(self) -> str:
        """Of the images that may be trained on, and their labels."""
        free = np.setdiff1d(np.arange(len(self.labels)), [] if self.test is None else self.test)
        rows = torch.from_numpy(free)
        return checksum(self.images[rows], torch.from_numpy(self.labels[free]))

    def features(self, network: nn.Module, name: str) -> Array:
        """Return (n, m + 1, d), of images and their m versions under a transformation."""
        every = [lambda images: images, *self.moves[name]]
        return np.stack([outputs(network, self.images, move) for move in every], 1)

    def relearnt(self, train: Array, chosen: Array, name: str, whole: bool = False) -> nn.Module:
        """Train a network on a round's images and the moved versions of the chosen ones of them.

        It makes features; a ``whole`` one returns outputs for the two classes.
        """
        rows = torch.from_numpy(train)
        more, own = rows[torch.from_numpy(chosen)], self.targets
        if whole:
            own = torch.from_numpy(self.labels)
        images = [self.images[rows], *(move(self.images[more]) for move in self.moves[name])]
        targets = [own[rows], own[more].repeat(len(self.moves[name]))]
        return self.learn(torch.cat(images), torch.cat(targets), headless=not whole)


@torch.inference_mode()
def outputs(network: nn.Module, images: Tensor, move: Move) -> Array:
    return torch.cat([network(move(part)) for part in images.split(500)]).double().numpy()


def parts(
    data: Path, dataset: str, side: int, limit: int | None, rng: np.random.Generator
) -> tuple[Images, Images]:
    """Read the training and test images of a folder, or of the data set's own files."""
    kind = "folder" if (data / "train").is_dir() else dataset
    try:
        found = Source(dataset, kind, data).parts()
    except (ValueError, RuntimeError) as error:  # torchvision's is a RuntimeError
        raise SystemExit(str(error)) from None
    train, test = (
        Files(part, rng.permutation(len(part.labels))[:most], side).held()
        for part, most in zip(found, (limit, None), strict=True)
    )
    return train, test


def files(
    data: Path,
    dataset: str,
    classes: Sequence[str] | None,
    limit: int | None,
    seed: int,
    networks: Networks,
    seconds: Seconds,
    own: bool = False,
    count: int = 1000,
) -> Problem:
    """Keep the images of two classes of a data set in files.

    The network is trained once, on all classes; with ``own`` anew on each round's images of two.
    """
    kind = KINDS.get(dataset, KINDS["cifar10"])
    wanted = tuple(classes or kind.classes)
    with timed(seconds, "read"):
        train, test = parts(data, dataset, kind.side, limit, np.random.default_rng(seed))
    if missing := {*wanted} - {*train.classes}:
        raise ValueError(
            f"classes must be two of {train.classes}, got {sorted(missing)}. Name them: --classes."
        )
    places = torch.tensor([train.classes.index(name) for name in wanted])
    kept = [torch.isin(part.labels, places) for part in (train, test)]
    labels = torch.cat([train.labels[kept[0]], test.labels[kept[1]]]) == places[1]
    images = torch.cat([train.images[kept[0]], test.images[kept[1]]])
    targets = labels.long()

    def network(rows: Array) -> nn.Module:
        with timed(seconds, "network"):
            return networks.get(images[rows], targets[rows])

    if not own:
        with timed(seconds, "network"):
            once = networks.get(train.images, train.labels)
    return Problem(
        dataset if wanted == kind.classes else "-".join((dataset, *wanted)),
        images,
        targets.numpy(),
        targets,
        count,
        np.arange(int(kept[0].sum()), len(labels)),
        kind.moves,
        network if own else lambda _: once,
        networks.recipe.train,
    )


def digits(count: int, networks: Networks, seconds: Seconds) -> Problem:
    """Even against odd digits; the network learns all ten of them, on a round's images alone."""
    bunch = load_digits()
    images = torch.tensor(bunch.images / 16 * 255).round().byte()[:, None].expand(-1, 3, -1, -1)
    labels = torch.tensor(bunch.target)

    def network(rows: Array) -> nn.Module:
        with timed(seconds, "network"):
            return networks.get(images[rows], labels[rows])

    return Problem(
        "digits",
        images,
        bunch.target % 2,
        labels,
        count,
        None,
        DIGITS.moves,
        network,
        networks.recipe.train,
    )
