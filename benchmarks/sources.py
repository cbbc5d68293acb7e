"""The papers' data sets by name, or any image folder: square uint8 images and their labels.

folder: DIR/train and DIR/test (or val), a folder a class
cifar10, cifar100, svhn, mnist: torchvision's, of files under DIR
digits: scikit-learn's, 8 x 8 pixels; of an order of seed 0 the first 1,000 are trained on
norb: the six small NORB files (*.mat) in DIR; the left one of each pair of images, shrunk to half
tinyimagenet, imagenet: DIR/train and DIR/val as they are unpacked
caltech256: DIR with a folder a class; the first 60 of each, in an order of seed 0, are trained on

What fits is held in memory, the rest is read from its files again for every draw.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import datasets as readers
from torchvision.transforms import v2
from tqdm import tqdm

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from cifar import Images
from schedules import Problem

from augloader.labels import long_tail, mislabelled

END = 4096  # bytes of a file that tell it from others, at each end
MEMORY = 0.25  # share of the machine's that a data set may take
Read = Callable[[int], Image.Image | np.ndarray]


@dataclass(frozen=True)
class Part:
    """Training or test images as they lie on disk.

    Attributes:
        labels: (n,) int64.
        classes: their names.
        read: returns an image of a place, PIL's or an array (H, W) or (H, W, 3).
        state: returns what tells its images from others' without decoding them.
    """

    labels: np.ndarray
    classes: Sequence[str]
    read: Read
    state: Callable[[], bytes]


@dataclass(frozen=True)
class Source:
    """Where a data set lies.

    Attributes:
        name: of it, and of the folder of its results.
        kind: "folder" or one of the known ones.
        root: where its files lie.
        size: pixels a side that images are resized to; a larger side is cut in the middle.
        download: whether torchvision may fetch what is missing.
        memory: bytes that the images of a part may take, to be held; None takes a quarter of the
            machine's.
    """

    name: str
    kind: str
    root: Path
    size: int = 32
    download: bool = False
    memory: int | None = None

    def parts(self) -> tuple[Part, Part]:
        """Return what there is to train and to test on."""
        if self.kind not in KINDS:
            raise ValueError(
                f"dataset must be one of {', '.join(KINDS)}, got {self.kind!r}. Any other is a "
                "folder with train/ and test/."
            )
        train, test = KINDS[self.kind](self)
        if list(train.classes) != list(test.classes):
            raise SystemExit("train/ and test/ must hold folders of the same names")
        return train, test

    @property
    def limit(self) -> int:
        """Bytes that may be held."""
        if self.memory is not None:
            return self.memory
        return int(MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


class Files(Dataset[tuple[Tensor, int]]):
    """Images that are read for every draw: (3, size, size) uint8, and (n,) int64 labels."""

    def __init__(self, part: Part, places: np.ndarray, size: int) -> None:
        self.part, self.places, self.size, self.classes = part, places, size, list(part.classes)
        self.labels = torch.from_numpy(part.labels[places]).long()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.image(index), int(self.labels[index])

    def image(self, index: int) -> Tensor:
        """Return an image, its shorter side resized and the longer one cut; gray in 3 channels."""
        found = self.part.read(int(self.places[index]))
        pixels = v2.functional.pil_to_tensor(Image.fromarray(np.asarray(found)).convert("RGB"))
        if pixels.shape[1:] != (self.size, self.size):
            pixels = v2.functional.resize(pixels, [self.size], antialias=True)
            pixels = v2.functional.center_crop(pixels, [self.size, self.size])
        return pixels  # type: ignore[no-any-return]

    @cached_property
    def checksum(self) -> int:
        """What tells its images from others'."""
        return zlib.crc32(self.places.tobytes(), zlib.crc32(self.part.state()))

    def held(self) -> Images:
        """Return all images in memory."""
        with ThreadPoolExecutor() as pool:
            decoded = tqdm(pool.map(self.image, range(len(self))), "read", len(self), disable=None)
            return Images(torch.stack(list(decoded)), self.labels, self.classes)


def images(source: Source, problem: Problem, per_class: int | None) -> tuple[Any, Any]:
    """Return a problem's training and test images, the same ones for every method and seed."""
    rng = np.random.default_rng(0)
    parts = source.parts()
    found = []
    for part, most, imbalance in zip(parts, (per_class, None), (problem.imbalance, 1), strict=True):
        order = rng.permutation(len(part.labels))
        order = order[long_tail(torch.from_numpy(part.labels[order]), imbalance, most=most).numpy()]
        files = Files(part, order, source.size)
        held = 3 * source.size**2 * len(files) <= source.limit
        found.append(files.held() if held else files)
    train, test = found
    if problem.noise:
        train.labels = mislabelled(train.labels, problem.noise, len(train.classes), rng)
    return train, test


def checksum(data: Images | Files) -> int:
    """Return what tells training images and labels from others."""
    labels = data.labels.numpy().data
    if isinstance(data, Files):
        return zlib.crc32(labels, data.checksum)
    return zlib.crc32(labels, zlib.crc32(data.images.numpy().data))


# How each is read ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """Images in files; it goes to workers as its paths."""

    paths: Sequence[str]

    def __call__(self, place: int) -> Image.Image:
        with Image.open(self.paths[place]) as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class Held:
    """Images in an array, or some of another's."""

    pixels: Any

    def __call__(self, place: int) -> np.ndarray:
        return self.pixels[place]  # type: ignore[no-any-return]


def ends(paths: Sequence[str], root: Path) -> bytes:
    """Return the names and sizes of files, and the checksum of the first and last bytes of each."""

    def of(path: str) -> str:
        with open(path, "rb") as file:
            size, crc = os.path.getsize(path), zlib.crc32(file.read(END))
            file.seek(max(0, size - END))
            return f"{os.path.relpath(path, root)} {size} {zlib.crc32(file.read(), crc)}"

    with ThreadPoolExecutor() as pool:
        return "\n".join(pool.map(of, paths)).encode()


def of_folder(root: Path) -> Part:
    found = readers.ImageFolder(str(root))
    paths = [path for path, _ in found.samples]
    labels = np.array(found.targets, dtype=np.int64)
    return Part(labels, found.classes, Opened(paths), partial(ends, paths, root))


def folder(source: Source) -> tuple[Part, Part]:
    names = [name for name in ("test", "val") if (source.root / name).is_dir()]
    if not (source.root / "train").is_dir() or not names:
        raise SystemExit(f"{source.root} must hold train/ and test/ (or val/), a folder a class")
    return of_folder(source.root / "train"), of_folder(source.root / names[0])


def levels(pixels: np.ndarray) -> bytes:
    """Return the checksum of an array."""
    return zlib.crc32(np.ascontiguousarray(pixels).data).to_bytes(4, "little")


def of_arrays(pixels: np.ndarray, labels: Any, classes: Sequence[str]) -> Part:
    return Part(
        np.asarray(labels, dtype=np.int64),
        classes,
        Held(pixels),
        partial(levels, pixels),
    )


def torchvisions(source: Source) -> tuple[Part, Part]:
    given = {"root": str(source.root), "download": source.download}
    kind = {
        "cifar10": readers.CIFAR10,
        "cifar100": readers.CIFAR100,
        "mnist": readers.MNIST,
        "svhn": readers.SVHN,
    }[source.kind]
    svhn = source.kind == "svhn"
    wanted = (
        [{"split": s} for s in ("train", "test")] if svhn else [{"train": True}, {"train": False}]
    )
    try:
        both = [kind(**given, **part) for part in wanted]
    except RuntimeError:
        raise SystemExit(
            f"{source.root} must hold {source.kind}'s files as torchvision unpacks them, got none "
            "or damaged ones. Give --download."
        ) from None
    if svhn:
        parts = [(part.data.transpose(0, 2, 3, 1), part.labels) for part in both]
    else:
        parts = [(np.asarray(part.data), part.targets) for part in both]
    classes = getattr(both[0], "classes", None)
    if classes is None or source.kind == "mnist":  # whose files' names are "3 - three"
        classes = [str(c) for c in range(1 + int(np.asarray(parts[0][1]).max()))]
    train, test = (of_arrays(pixels, labels, classes) for pixels, labels in parts)
    return train, test


def tinyimagenet(source: Source) -> tuple[Part, Part]:
    train, root = of_folder(source.root / "train"), source.root / "val"
    lines = [line.split("\t") for line in (root / "val_annotations.txt").read_text().splitlines()]
    number = {name: i for i, name in enumerate(train.classes)}
    labels = np.array([number[line[1]] for line in lines], dtype=np.int64)
    paths = [str(root / "images" / line[0]) for line in lines]
    return train, Part(labels, train.classes, Opened(paths), partial(ends, paths, root))


def caltech256(source: Source) -> tuple[Part, Part]:
    whole = of_folder(source.root)
    paths = whole.read.paths  # type: ignore[attr-defined]
    order = np.random.default_rng(0).permutation(len(whole.labels))
    trained = np.zeros(len(order), dtype=bool)
    for c in range(len(whole.classes)):
        trained[order[whole.labels[order] == c][:60]] = True

    def part(places: np.ndarray) -> Part:
        own = [paths[i] for i in places]
        state = partial(ends, own, source.root)
        return Part(whole.labels[places], whole.classes, Opened(own), state)

    return part(np.flatnonzero(trained)), part(np.flatnonzero(~trained))


def digits(source: Source) -> tuple[Part, Part]:
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    pixels = np.round(found.images[order] * (255 / 16)).astype(np.uint8)
    labels, classes = found.target[order], [str(c) for c in range(10)]
    train, test = (
        of_arrays(pixels[part], labels[part], classes) for part in (slice(1000), slice(1000, None))
    )
    return train, test


def matrix(file: Path) -> np.ndarray:
    """Read a file of NORB: a magic number of the type, the sizes, and the values."""
    types = {0x1E3D4C55: np.uint8, 0x1E3D4C54: np.int32}
    raw = file.read_bytes()
    magic, ndim = np.frombuffer(raw, "<i4", 2)
    if int(magic) not in types:
        raise ValueError(f"{file.name} must be one of NORB's files, got another. Unpack the .gz.")
    sizes = np.frombuffer(raw, "<i4", max(3, ndim), 8)[:ndim]
    return np.frombuffer(raw, types[int(magic)], offset=8 + 4 * max(3, int(ndim))).reshape(sizes)


def norb(source: Source) -> tuple[Part, Part]:
    classes, parts = ("animal", "human", "plane", "truck", "car"), []
    for kind in ("training", "testing"):
        files = [sorted(source.root.glob(f"*{kind}*-{what}.mat")) for what in ("dat", "cat")]
        if [len(found) for found in files] != [1, 1]:
            raise SystemExit(f"{source.root} must hold NORB's *{kind}*-dat.mat and -cat.mat")
        pixels, labels = (matrix(found[0]) for found in files)
        parts.append(of_arrays(pixels[:, 0], labels, classes))
    return parts[0], parts[1]


KINDS: dict[str, Callable[[Source], tuple[Part, Part]]] = {
    "folder": folder,
    **dict.fromkeys(("cifar10", "cifar100", "svhn", "mnist"), torchvisions),
    "digits": digits,
    "norb": norb,
    "tinyimagenet": tinyimagenet,
    "caltech256": caltech256,
    "imagenet": folder,
}
SIZES = {"norb": 48, "tinyimagenet": 64, "caltech256": 224, "imagenet": 224}
