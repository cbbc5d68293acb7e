"""Transforms of any library, called in their own way with one image."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augloader.core.batch import Draw

Transform = Callable[..., Any]


@dataclass(frozen=True)
class Adapted:
    """A transform of any library, called in its own way with one image."""

    transform: Transform
    albumentations: bool = False
    asks: frozenset[str] = frozenset()  # which of strength and keys it takes

    def __call__(self, image: Any, draw: Draw) -> Any:
        """Return the image, transformed for a draw."""
        if self.albumentations:
            return _with_arrays(self.transform, image)
        given: dict[str, Any] = {}
        if "strength" in self.asks:
            given["strength"] = draw.strength
        if "keys" in self.asks:
            given["keys"] = torch.tensor([draw.epoch, draw.index, draw.copy])
        out = self.transform(image, **given)
        if isinstance(out, Tensor) and isinstance(image, Tensor) and out.ndim == image.ndim + 1:
            out = out.squeeze(0)  # Kornia returns a batch of one
        return out


def adapt(name: str, transform: Transform | Adapted | None) -> Adapted | None:
    """Return a transform that is called with an image and its draw, or raise TypeError."""
    if transform is None or isinstance(transform, Adapted):
        return transform
    if not callable(transform):
        raise TypeError(
            f"{name} must be a callable on one image, got {transform!r}. "
            "Pass the transform itself, or None."
        )
    try:
        called = transform.forward if isinstance(transform, nn.Module) else transform
        parameters = inspect.signature(called).parameters
    except ValueError:  # some built-ins have no signature
        return Adapted(transform)
    image = parameters.get("image")
    if "force_apply" in parameters or (image and image.kind is inspect.Parameter.KEYWORD_ONLY):
        return Adapted(transform, albumentations=True)
    return Adapted(transform, asks=frozenset({"strength", "keys"} & parameters.keys()))


def _with_arrays(transform: Transform, image: Any) -> Any:
    """Call an Albumentations-style transform; PIL stays PIL, a (C, H, W) tensor stays one."""
    if isinstance(image, Tensor):
        out = transform(image=image.permute(1, 2, 0).numpy())["image"]
        channels_first = isinstance(out, np.ndarray)
        return torch.from_numpy(out.transpose(2, 0, 1).copy()) if channels_first else out
    out = transform(image=np.asarray(image))["image"]
    plain = isinstance(image, np.ndarray) or not isinstance(out, np.ndarray)
    if plain:
        return out
    from torchvision.transforms.functional import to_pil_image  # brings Triton with it

    return to_pil_image(out)
