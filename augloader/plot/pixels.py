"""Images as matplotlib shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from augloader.loading.dataset import WeightedAugmentedDataset

Array = np.ndarray[Any, Any]
Pixels = Array


def to_pixels(image: Any, name: str) -> Pixels:
    """Return (H, W) or (H, W, 3) uint8, or float32 in [0, 1]."""
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL
        return np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, Tensor) or not (
        image.dtype == torch.uint8 or image.is_floating_point()
    ):
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"{name} must be a uint8 or floating tensor or a PIL image, got {got}. Wrap other "
            'items: WeightedAugmentedDataset(data, fields=("image", "label")).'
        )
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(
            f"{name} must be (1, H, W) or (3, H, W), got shape {tuple(image.shape)}. Pick the "
            "channels to show."
        )
    shown = image.detach().cpu()
    if image.dtype != torch.uint8:
        shown = shown.float()
        low, high = float(shown.min()), float(shown.max())
        if not -1e-3 <= low <= high <= 1.001:
            raise ValueError(
                f"{name} must be in [0, 1] where it is floating, got values from {low:g} to "
                f"{high:g}. Pass it as it was before normalisation."
            )
        shown = shown.clamp(0, 1)
    pixels: Pixels = shown.permute(1, 2, 0).numpy()
    return pixels[..., 0] if image.shape[0] == 1 else pixels


def pick(images: Any, index: int) -> Pixels:
    """Return one image of a tensor or a dataset, of a WeightedAugmentedDataset untransformed."""
    if isinstance(images, WeightedAugmentedDataset):
        plain = WeightedAugmentedDataset(images.data, fields=images.fields)
        return to_pixels(plain[index].input, f"images[{index}]")
    item = images[index]
    return to_pixels(item[0] if isinstance(item, tuple | list) else item, f"images[{index}]")


def aspect(pixels: Pixels) -> float:
    """Return width by height."""
    return float(pixels.shape[1] / pixels.shape[0])


def show(
    axes: Axes, pixels: Pixels, extent: tuple[float, float, float, float] | None = None
) -> None:
    """Put a picture into an axes, grey ones from black to white."""
    white = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=white, extent=extent, interpolation="nearest")
