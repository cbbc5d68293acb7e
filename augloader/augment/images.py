"""What images a transform takes: their dtypes, shapes, ranges, channels and memory format."""

from __future__ import annotations

import torch
from torch import Tensor

from augloader.core.checks import kind

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SLACK = 1e-5  # by which interpolation of images in [0, 1] may leave it


def require_images(images: Tensor) -> None:
    """Raise unless images are a batch or an image of a supported type."""
    if not isinstance(images, Tensor) or images.dtype not in DTYPES:
        raise TypeError(
            f"images must be a uint8 or floating tensor, got {kind(images)}. Convert them first."
        )
    if images.ndim not in (3, 4):
        raise ValueError(
            f"images must be (B, C, H, W) or (C, H, W), got shape {tuple(images.shape)}. "
            "Add or remove dimensions."
        )


def require_range(images: Tensor) -> None:
    """Raise unless floating images lie in [0, 1]; waits for their device."""
    if images.dtype == torch.uint8 or not images.numel():
        return
    low, high = float(images.detach().amin()), float(images.detach().amax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(
            f"images must be in [0, 1] where they are floating, got values from {low:g} to "
            f"{high:g}. Augment before normalising, or pass uint8; what resizing or noise made "
            "overshoot, cut off by images.clamp(0, 1)."
        )


def require_channels(name: str, values: tuple[float, ...], channels: int) -> None:
    """Raise unless there is one value, or one a channel."""
    if len(values) not in (1, channels):
        raise ValueError(
            f"{name} must be one number or one for each of {channels} channels, got "
            f"{len(values)} numbers. Give one a channel."
        )


def require_fill(fill: tuple[float, ...], images: Tensor) -> None:
    """Raise unless the fill is in the range of the images' dtype."""
    white = 255 if images.dtype == torch.uint8 else 1
    if not all(0 <= value <= white for value in fill):
        raise ValueError(
            f"fill must be in [0, {white}] for {images.dtype} images, got {fill}. "
            "Give it in the images' own units."
        )


def laid_out_as(images: Tensor, out: Tensor) -> Tensor:
    """Return (B, C, H, W) values in channels-last memory format where the images are in it."""
    last = torch.channels_last
    if images.is_contiguous() or not images.is_contiguous(memory_format=last):
        return out
    return out.contiguous(memory_format=last)
