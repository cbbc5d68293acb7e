"""PIL images, and what lies on an image, in an item."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from augloader.core.lying import Place, is_picture, leaves, lying, tensor_kinds, walked

_UNMISTAKEN = ("RGB", "P", "1")  # of a second image, which torchvision moves as what it is
_PLAIN = ("L", "RGB")  # modes whose values are shades, which is what strong transforms change


def size_of(image: Any) -> tuple[int, ...] | None:
    """Return an image's height and width, or None for what is no image."""
    if is_picture(image):
        return image.height, image.width
    if isinstance(image, Tensor) and image.ndim > 1:
        return tuple(image.shape[-2:])
    return tuple(image.shape[:2]) if isinstance(image, np.ndarray) and image.ndim > 1 else None


def require_plain(value: Any) -> None:
    """Raise TypeError if a PIL image in what a strong transform is given is not in shades.

    Of the others, transforms take palette indices, hues, inks or alpha for shades, or convert the
    image on the way, as some libraries' operations do and others do not.
    """
    if type(value) is Tensor:
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


def places(parts: Any, fields: tuple[int | str, int | str]) -> dict[int | str, Place]:
    """Return the places of an item's fields, but of its input: "target", "extra.0", ....

    Args:
        parts: a dict, a tuple or a list.
        fields: positions or keys of the input and the target.
    """
    named = isinstance(parts, dict)
    keys = list(parts) if named else list(range(len(parts)))
    rest = [key for key in keys if key not in fields]
    names = {key: f"extra.{key if named else i}" for i, key in enumerate(rest)}
    names |= {key: "target" for key in keys if key == fields[1]}
    return {key: Place("", row=0).key(key)._replace(name=name) for key, name in names.items()}


def require_none_left(
    image: Any,
    beside: Iterable[tuple[Place, Any]],
    untouched: Collection[str] = (),
    joint: bool = False,
) -> None:
    """Raise TypeError if an item's other fields hold what must move with its image, and would not.

    That are tv_tensors; and where the image has a size, PIL images, tensors and arrays of the same,
    and numbers whose key names boxes, points or masks.

    Args:
        image: of the item, or what holds it.
        beside: the other fields and their places.
        untouched: keys and names of what may stay.
        joint: whether torchvision's transforms are given the whole item. They move tv_tensors, and
            PIL images too, but those of mode L as images, with interpolated and changed colours.
    """
    size = next((found for part in leaves(image) if (found := size_of(part))), None)
    kinds = tensor_kinds()

    def refuse(part: Any, place: Place) -> None:
        if kinds is not None and isinstance(part, kinds.TVTensor):
            got = "" if joint else f"a {type(part).__name__}"
        elif size is None:
            got = ""
        elif is_picture(part):
            mistaken = joint and part.mode not in _UNMISTAKEN
            sized = not joint and size_of(part) == size
            got = f"a PIL image of mode {part.mode}" if mistaken or sized else ""
        else:
            got = lying(part, place, 1, size)
        if not got:
            return
        kind = place.kind or "Mask"
        stay = f'or name it in untouched=("{place.hint}",) if it is to stay'
        if joint:
            raise TypeError(
                f"{place.name} must be a tv_tensors.{kind} for torchvision's transforms to move it "
                f"with its image, got {got}. Wrap it: tv_tensors.{kind}(...), tv_tensors.Image for "
                f"another image; {stay}."
            )
        raise TypeError(
            f"weak and strong must move what lies on the image too, got {got} beside it, as "
            f"{place.name}, which they are not given. Pass joint=True, for transforms that take "
            f"the whole item, as torchvision's v2 do, and wrap it as tv_tensors.{kind}; {stay}."
        )

    for place, field in beside:
        if type(field) not in (int, str):
            walked(refuse, field, place, 1, untouched)
