"""PIL images and torchvision's tensors in an item, known without importing either package."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

_SIMPLE = (Tensor, int, float, str, np.ndarray)
_PLAIN = ("L", "RGB")  # modes whose values are shades, which is what strong transforms change


def is_picture(value: Any) -> bool:
    """Whether a value is a PIL image."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)


def tensor_kinds() -> Any:
    """Return torchvision.tv_tensors, or None where nobody has imported it: there are none then."""
    return sys.modules.get("torchvision.tv_tensors")


def size_of(image: Any) -> tuple[int, ...] | None:
    """Return an image's height and width, or None for what is no image."""
    if is_picture(image):
        return image.height, image.width
    if isinstance(image, Tensor) and image.ndim in (2, 3):
        return tuple(image.shape[-2:])
    return tuple(image.shape[:2]) if isinstance(image, np.ndarray) and image.ndim > 1 else None


def leaves(value: Any) -> Iterator[Any]:
    """Yield what mappings, tuples and lists hold."""
    if type(value) in _SIMPLE:  # the most frequent ones
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(part)
    else:
        yield value


def require_plain(value: Any) -> None:
    """Raise TypeError if a PIL image in what a strong transform is given is not in shades.

    Of the others, transforms take palette indices, hues, inks or alpha for shades, or convert the
    image on the way, as some libraries' operations do and others do not.
    """
    if type(value) in _SIMPLE:
        return
    for image in leaves(value):
        if is_picture(image) and image.mode not in _PLAIN:
            raise TypeError(
                "PIL images must be of mode L or RGB for a strong transform, got "
                f"{image.mode!r}. Convert them in the dataset, for plain and strong copies alike: "
                'image.convert("RGB"); give depth and other maps as tensors, and masks as '
                "tv_tensors.Mask."
            )


def require_kept(name: str, before: Any, after: Any) -> None:
    """Raise TypeError if a transform made a PIL image of another mode of one."""
    if is_picture(before) and is_picture(after) and before.mode != after.mode:
        raise TypeError(
            f"{name} must return PIL images of the mode it was given, {before.mode!r}, got "
            f"{after.mode!r}. Convert all images in the dataset, or in final."
        )


def picture(array: Any, like: Any, name: str) -> Any:
    """Return the PIL image of an array in another image's mode; the palette is the other's too."""
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    made = sys.modules["PIL.Image"].fromarray(array)
    if like.mode == "P" and made.mode == "L":
        made.putpalette(like.getpalette())
    require_kept(name, like, made)
    return made


def require_none_left(parts: Any) -> None:
    """Raise TypeError if an item's other fields hold what must move with its image."""
    kinds = tensor_kinds()
    if kinds is None:
        return
    for part in leaves(parts):
        if isinstance(part, kinds.TVTensor):
            raise TypeError(
                "weak and strong must move what lies on the image too, got a "
                f"{type(part).__name__} beside it, which they are not given. Pass joint=True, for "
                "transforms that take the whole item, as torchvision's v2 do; or make it a plain "
                "tensor if it is to stay."
            )
