"""Set-valued augmentations: every image of a fixed grid of translations, rotations or crops.

f_T(z) = {z_1, ..., z_m}: lists of transforms of one image, for ``WeightedAugmentedDataset(strong=
...)``, where copy j is the j-th. The identity is not among them (at a small strength a move of less
than half a pixel is). Space that comes into view repeats the nearest edge pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from augloader.core.checks import require_int, require_number

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Translation:
    """Move an image by whole pixels to the right and down; times the strength, rounded."""

    right: int
    down: int

    def __call__(self, image: Any, strength: float = 1.0) -> Any:
        """Return a PIL image or (..., C, H, W) tensor of the same kind and size."""
        x, y = round(self.right * strength), round(self.down * strength)
        height, width = F.get_size(image)
        padded = F.pad(image, [max(x, 0), max(y, 0), max(-x, 0), max(-y, 0)], padding_mode="edge")
        return F.crop(padded, max(-y, 0), max(-x, 0), height, width)


@dataclass(frozen=True)
class Rotation:
    """Rotate an image counter-clockwise by degrees, bilinearly; times the strength."""

    degrees: float

    def __call__(self, image: Any, strength: float = 1.0) -> Any:
        """Return a PIL image or (..., C, H, W) tensor of the same kind and size."""
        height, width = F.get_size(image)
        margin = math.ceil((math.hypot(height, width) - min(height, width)) / 2) + 1
        turned = F.rotate(
            F.pad(image, [margin], padding_mode="edge"),
            self.degrees * strength,
            interpolation=InterpolationMode.BILINEAR,
        )
        return F.crop(turned, margin, margin, height, width)


@dataclass(frozen=True)
class Crop:
    """Leave out the outer pixels on every side and rescale; times the strength, rounded."""

    pixels: int

    def __call__(self, image: Any, strength: float = 1.0) -> Any:
        """Return a PIL image or (..., C, H, W) tensor of the same kind and size."""
        height, width = F.get_size(image)
        cut = round(self.pixels * strength)
        if 2 * cut >= min(height, width):
            raise ValueError(
                f"pixels must be less than half of the image's {height} x {width}, got {cut}. "
                "Crop less."
            )
        inner = height - 2 * cut, width - 2 * cut
        return F.resized_crop(image, cut, cut, *inner, [height, width], antialias=True)


def translations(pixels: int | Iterable[int], diagonal: bool = False) -> list[Translation]:
    """Return the moves by some pixels up, down, left and right.

    Args:
        pixels: 1 or more; of several, four moves each.
        diagonal: also the four diagonal moves.

    Returns:
        4 transforms for each number of pixels, or 8.

    Raises:
        TypeError, ValueError: pixels that are not integers, or below 1.

    Example:
        >>> import torch
        >>> left = translations(1)[0]
        >>> left, left(torch.tensor([[[1, 2, 3]]]))
        (Translation(right=-1, down=0), tensor([[[2, 3, 3]]]))

    Source: Kuchnik & Smith (2019), App. B: 2 pixels on MNIST, 3 on CIFAR-10.
    """
    steps = _several(pixels)
    for step in steps:
        require_int("pixels", step, 1, "Moves by 0 change nothing.")
    return [
        Translation(x * step, y * step)
        for step in steps
        for x in (-1, 0, 1)
        for y in (-1, 0, 1)
        if (x, y) != (0, 0) and (diagonal or 0 in (x, y))
    ]


def rotations(degrees: float | Iterable[float]) -> list[Rotation]:
    """Return the rotations by these angles, without 0.

    Args:
        degrees: finite; counter-clockwise.

    Raises:
        TypeError, ValueError: angles that are not numbers, or not finite.

    Example:
        >>> rotations((-5, 0, 5))
        [Rotation(degrees=-5.0), Rotation(degrees=5.0)]

    Source: Kuchnik & Smith (2019), App. B: 15 angles in [-30, 30] on MNIST, 5 in [-5, 5] on
    CIFAR-10, the identity among them left out.
    """
    angles = _several(degrees)
    for angle in angles:
        require_number("degrees", angle, "(-inf, inf)", "Give angles, as (-5, 5).")
    return [Rotation(float(angle)) for angle in angles if abs(angle) > 1e-9]


def crops(pixels: int | Iterable[int]) -> list[Crop]:
    """Return the crops that cut this many pixels off every side, without 0.

    Args:
        pixels: 0 or more, less than half of the image's side.

    Raises:
        TypeError, ValueError: pixels that are not integers, or below 0.

    Example:
        >>> crops(range(3))
        [Crop(pixels=1), Crop(pixels=2)]

    Source: Kuchnik & Smith (2019), App. B: 1 to 6 pixels on MNIST, 2 on CIFAR-10.
    """
    cuts = [
        require_int("pixels", cut, 0, "Give pixels a side, as (1, 2).") for cut in _several(pixels)
    ]
    return [Crop(cut) for cut in cuts if cut]


def _several(values: T | Iterable[T]) -> list[T]:
    return list(values) if isinstance(values, Iterable) else [values]
