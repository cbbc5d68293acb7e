"""Transforms called by keyword, as Albumentations' are: arrays in, and the given kinds out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.lying import Place, is_picture, lying, tensor_kinds
from augloader.loading.pictures import picture, size_of

_IMAGES = ("image", "mask", "volume", "mask3d")
_MANY = ("images", "masks", "volumes", "masks3d")
_POINTS = ("bboxes", "keypoints")
_MASKS = ("mask", "masks", "mask3d", "masks3d")


@dataclass(frozen=True)
class Targets:
    """What a transform makes of the names that it is given.

    Attributes:
        names: of the parts that move with the image.
        kinds: of additional ones, the name that they are treated as.
        labels: names of what belongs to boxes and points, in their order.
    """

    names: frozenset[str] = frozenset((*_IMAGES, *_MANY, *_POINTS))
    kinds: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()

    @classmethod
    def of(cls, transform: Any) -> Targets:
        """Return what a transform declares, as Albumentations' do, beside the usual names."""
        kinds = dict(getattr(transform, "additional_targets", None) or {})
        labels: set[str] = set()
        for processor in dict(getattr(transform, "processors", None) or {}).values():
            labels |= set(getattr(processor.params, "label_fields", None) or ())
        known = getattr(transform, "available_keys", None) or ()
        return cls(cls.names | set(known) | kinds.keys() | labels, kinds, frozenset(labels))


def call(
    transform: Callable[..., Any],
    parts: Mapping[str, Any],
    name: str,
    targets: Targets | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Return what a transform makes of some named parts, under the same names and of their kinds.

    Args:
        transform: called with ``image=``, ``mask=``, ``bboxes=`` ...; returns a mapping of these.
        parts: images and masks are PIL images, (H, W) or (C, H, W) tensors or (H, W, C) arrays,
            or, in "images" and "masks", a list or stack of them; labels of boxes and points are
            (N,) tensors, arrays or lists; what has another name is given as it is. An image may
            come back as a tensor.
        name: of the transform, for errors.
        targets: what it makes of the names.
        **given: further arguments.

    Raises:
        TypeError: boxes or points as tv_tensors; an image that comes back in another PIL mode; a
            part that does not come back.
    """
    targets = targets or Targets()
    kinds = {
        key: "labels" if key in targets.labels else targets.kinds.get(key, key) for key in parts
    }
    out = transform(**{key: _array(kinds[key], part) for key, part in parts.items()}, **given)
    lost = [key for key in parts if not isinstance(out, Mapping) or key not in out]
    if lost:
        raise TypeError(
            f"{name} must return a mapping with the keys it was given, got {type(out).__name__} "
            f"without {', '.join(lost)}. Return all of them."
        )
    return {key: _back(kinds[key], part, out[key], name) for key, part in parts.items()}


def require_taken(parts: Mapping[str, Any], taken: Any, name: str) -> None:
    """Raise TypeError if parts lie on the image that a transform does not take, and so not move.

    Args:
        parts: by name.
        taken: names of those that move.
        name: of the transform.
    """
    size = size_of(parts.get("image"))
    kinds = tensor_kinds()
    for key, part in parts.items():
        if key in taken or size is None:
            continue
        place = Place("", row=0).key(key)
        moving = kinds is not None and isinstance(part, kinds.TVTensor)
        picture = is_picture(part) and size_of(part) != size
        got = type(part).__name__ if moving else "" if picture else lying(part, place, 1, size)
        if got:
            like = {"BoundingBoxes": "bboxes", "KeyPoints": "keypoints"}.get(place.kind, "mask")
            raise TypeError(
                f"{name} must take all that lies on the image, got {got} under {key!r}, which it "
                f"does not take. Rename the key, or declare it, as by A.Compose(..., "
                f'additional_targets={{"{key}": "{like}"}}); or name it in untouched=("{key}",) if '
                "it is to stay."
            )


def pair(value: Any) -> dict[str, Any] | None:
    """Return the named parts of an input that is (image, mask) or a mapping; None for one image."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, tuple | list):
        return None
    if len(value) == 2 and size_of(value[0]) and size_of(value[0]) == size_of(value[1]):
        return {"image": value[0], "mask": value[1]}
    raise TypeError(
        "input must be an image, or (image, mask) of one size, for transforms called by keyword as "
        f"Albumentations', got a {type(value).__name__} of {len(value)}. Return a mapping, as "
        '{"image": image, "bboxes": boxes}.'
    )


def seeded(transform: Any, seed: int) -> Any:
    """Return a transform whose own random numbers, as Albumentations' ones have, begin anew."""
    if hasattr(transform, "set_random_state"):
        transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    elif hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
    return transform


def _array(key: str, value: Any) -> Any:
    """Return what Albumentations takes in place of a part."""
    if key in _MANY and isinstance(value, list | tuple):
        return [_array("image", part) for part in value]
    if is_picture(value) and key in _IMAGES:
        return np.asarray(value)
    kinds = tensor_kinds()
    if kinds and isinstance(value, kinds.BoundingBoxes | kinds.KeyPoints):
        raise TypeError(
            f"{key} must be plain arrays for transforms called by keyword, got tv_tensors."
            f"{type(value).__name__}, whose format they do not know. Pass value.numpy()."
        )
    if key == "labels" and isinstance(value, Tensor):
        return value.tolist()
    if not isinstance(value, Tensor) or key not in (*_IMAGES, *_MANY, *_POINTS):
        return value
    array = value.as_subclass(Tensor).numpy()
    first = {"image": 3, "mask": 3, "images": 4, "masks": 4}.get(key)
    return np.moveaxis(array, -3, -1) if array.ndim == first else array


def _back(key: str, before: Any, after: Any, name: str) -> Any:
    """Return a part that came out, of the kind that went in."""
    if key in _MANY and isinstance(before, list | tuple):
        one = "mask" if key in _MASKS else "image"
        return type(before)(_back(one, a, b, name) for a, b in zip(before, after, strict=True))
    if is_picture(before) and isinstance(after, np.ndarray):
        if before.mode == "P" and key not in _MASKS:
            raise TypeError(
                f"{name} must be given PIL images without a palette, got mode 'P'. Convert them in "
                'the dataset: image.convert("RGB").'
            )
        return picture(after, before, name)
    if not isinstance(before, Tensor) or isinstance(after, Tensor):
        return after
    if key == "labels":
        rows = np.asarray(after).reshape(-1, *before.shape[1:])
        return torch.from_numpy(rows).to(before.dtype)
    if key in _POINTS:
        rows = np.asarray(after, np.float64).reshape(-1, *before.shape[1:])
        return torch.from_numpy(rows).to(before.dtype)
    if key not in (*_IMAGES, *_MANY):
        return after
    array = np.asarray(after)
    channels = {"image": 3, "mask": 3, "images": 4, "masks": 4}.get(key)
    if before.ndim == channels:
        array = array[..., None] if array.ndim < before.ndim else array  # a channel that was lost
        array = np.moveaxis(array, -1, -3)
    made = torch.from_numpy(array.copy())
    kinds = tensor_kinds()
    return kinds.wrap(made, like=before) if kinds and isinstance(before, kinds.TVTensor) else made
