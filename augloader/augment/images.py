"""What images a transform takes: their dtypes, shapes, ranges, channels and memory format."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from augloader.augment.pixels.rows import over_rows
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


class RangeCheck:
    """Raise unless floating images lie in [0, 1]: at once, but on a GPU without waiting for it.

    There the smallest and the largest value are copied to the host while it goes on. Where they
    are outside, the first call that finds them arrived raises. Nothing is checked while a CUDA
    graph is captured.
    """

    def __init__(self) -> None:
        self._under_way: deque[tuple[torch.cuda.Event, Tensor]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy without what is under way."""
        return type(self), ()

    def __call__(self, images: Tensor) -> None:
        """Check images, and what has arrived of earlier ones."""
        self.arrived()
        if images.dtype == torch.uint8 or not images.numel():
            return
        images = images.detach()
        if not images.is_cuda:
            found: list[Tensor] = []
            over_rows(images, lambda rows: found.extend(images[rows].aminmax()))
            both = torch.stack(found)
            _require_range(float(both.amin()), float(both.amax()))
        elif not torch.cuda.is_current_stream_capturing():
            ends = torch.stack(images.aminmax()).to("cpu", torch.float32, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(images.device))
            self._under_way.append((event, ends))

    def arrived(self) -> None:
        """Raise for what has arrived of earlier images; waits for nothing."""
        while self._under_way and self._under_way[0][0].query():
            low, high = self._under_way.popleft()[1].tolist()
            _require_range(low, high, " of an earlier batch")


def _require_range(low: float, high: float, when: str = "") -> None:
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(
            f"images must be in [0, 1] where they are floating, got values{when} from {low:g} "
            f"to {high:g}. Augment before normalising, or pass uint8; what resizing or noise made "
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


def empty_like(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return uninitialised (B, C, H, W) values in the memory format that the images are in."""
    return torch.empty(
        images.shape, dtype=dtype, device=images.device, memory_format=_format(images)
    )


def laid_out_as(images: Tensor, out: Tensor) -> Tensor:
    """Return (B, C, H, W) values in channels-last memory format where the images are in it."""
    return out.contiguous(memory_format=_format(images)) if out.ndim == 4 else out


def _format(images: Tensor) -> torch.memory_format:
    last = not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
