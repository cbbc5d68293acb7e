"""What lies on images, such as masks and boxes: found in nested fields by type, size or name.

PIL images and torchvision's tensors are known without importing either package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

_NAMES = {
    "Mask": ("mask", "masks", "segmentation", "polygons"),
    "BoundingBoxes": ("box", "boxes", "bbox", "bboxes"),
    "KeyPoints": ("keypoint", "keypoints", "key_points", "landmarks"),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names}
_SIMPLE = (Tensor, int, float, str, np.ndarray)


def is_picture(value: Any) -> bool:
    """Whether a value is a PIL image."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)


def tensor_kinds() -> Any:
    """Return torchvision.tv_tensors, or None where nobody has imported it: there are none then."""
    return sys.modules.get("torchvision.tv_tensors")


def follows(value: Any) -> bool:
    """Whether a value is a tv_tensor that follows its image: Mask, BoundingBoxes or KeyPoints."""
    kinds = tensor_kinds()
    known = kinds and (kinds.Mask, kinds.BoundingBoxes, getattr(kinds, "KeyPoints", kinds.Mask))
    return bool(known) and isinstance(value, known)


def leaves(value: Any) -> Iterator[Any]:
    """Yield what mappings, tuples and lists hold."""
    if type(value) in _SIMPLE:  # the most frequent ones
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(part)
    else:
        yield value


class Place(NamedTuple):
    """Where a part of a field is.

    Attributes:
        name: keys and positions from the field on, as "target.boxes"; not those of images.
        kind: the tv_tensor that a key on the way names, as "BoundingBoxes"; or none.
        listed: whether it is in a list or tuple below that key.
        row: the image that it is of; None: of all of them.
        fields: whether it holds an item's fields, which are not one an image.
    """

    name: str
    kind: str = ""
    listed: bool = False
    row: int | None = None
    fields: bool = False

    def key(self, key: object) -> Place:
        """Return the place of a mapping's or named tuple's part."""
        kind = self.kind or _KINDS.get(str(key).lower(), "")
        return self._replace(
            name=f"{self.name}.{key}",
            kind=kind,
            listed=self.listed and bool(self.kind),
            fields=False,
        )

    @property
    def hint(self) -> str:
        """How to name it in ``untouched``: by its name, or below a position by its key alone."""
        *way, last = self.name.split(".")
        below = any(step.isdigit() for step in way) and not last.isdigit()
        return last if below else self.name

    def at(self, position: int) -> Place:
        """Return the place of a tuple's or list's part; a key that says what it is names it."""
        name = self.name if self.kind else f"{self.name}.{position}"
        return self._replace(name=name, listed=True, fields=False)


def start(name: str, row: int | None = None) -> Place:
    """Return the place of a field, or of a Sample's ``extra``, which holds several."""
    return Place(name, row=row, fields=name == "extra")


def walked(
    change: Callable[[Any, Place], Any],
    value: Any,
    place: Place,
    images: int,
    untouched: Collection[str] = (),
) -> Any:
    """Return what mappings, tuples and lists hold, changed, in the same structure.

    Args:
        change: from a value and its place to the new value.
        value: of a field.
        place: of the value.
        images: how many there are; a list of as many entries has one an image, and so has a tuple
            of as many mappings.
        untouched: keys and names of what is returned as it is.

    Raises:
        ValueError: a list of another length that holds what follows images; a list, or a tuple of
            entries alike, of masks that may be of one image each or of all of them.
    """

    def part(value: Any, place: Place, *names: object) -> Any:
        if untouched and not {place.name, *names}.isdisjoint(untouched):
            return value
        return walked(change, value, place, images, untouched)

    if place.name in untouched:
        return value
    if isinstance(value, Mapping):
        return {key: part(item, place.key(key), key) for key, item in value.items()}
    if not isinstance(value, tuple | list):
        return change(value, place)
    if hasattr(value, "_fields"):
        named = zip(value._fields, value, strict=True)
        return type(value)(*(part(item, place.key(key), key) for key, item in named))
    kind = tuple if isinstance(value, tuple) else list
    many = place.row is None and not place.fields
    if many and _an_image_each(value, place, images):
        rows = [place._replace(row=i, listed=True) for i in range(images)]
        # With its own name, but for those who give an entry's.
        return kind(part(item, rows[i], place.at(i).name) for i, item in enumerate(value))
    if many and kind is list and any(map(follows, leaves(value))):
        raise ValueError(
            f"{place.name} must be a list of {images} entries, one an image, got {len(value)}. "
            "Give one entry an image, or a mapping."
        )
    return kind(part(item, place.at(i)) for i, item in enumerate(value))


def _an_image_each(value: Any, place: Place, images: int) -> bool:
    """Whether a tuple or list has one entry an image, or raise ValueError where none can tell."""
    if len(value) != images:
        return False
    records = [isinstance(item, Mapping) or hasattr(item, "_fields") for item in value]
    if any(records) and all(known or value[i] is None for i, known in enumerate(records)):
        return True
    listed = isinstance(value, list)
    either = [_of_all(item, images) or _an_entry_each(item, images) for item in value]
    if images > 1 and (_of_all(value, images) if listed else all(either)):
        raise ValueError(
            f"{place.name} must tell what is of one image from what is of all, got a "
            f"{type(value).__name__} of {images}, as many as the images, which may be either."
            ' Give mappings: one an image, as [{"masks": masks}, ...], or a single one of stacked '
            'masks, as {"first": masks, "second": masks}.'
        )
    return listed


def _of_all(entry: Any, images: int) -> bool:
    """Whether an entry holds masks outside of mappings that may be of several images."""
    kinds, parts = tensor_kinds(), [*_bare(entry)]
    if kinds is None:
        return False
    arrays = [part for part in parts if isinstance(part, Tensor | np.ndarray)]
    masks = any(isinstance(part, kinds.Mask) and part.ndim > 2 for part in arrays)
    return masks and all(
        part.shape[:1] == (images,) and (isinstance(part, kinds.Mask) or not follows(part))
        for part in arrays
    )


def _an_entry_each(value: Any, images: int) -> bool:
    """Whether a value is a list of an entry an image that holds what follows images."""
    alike = isinstance(value, list) and len(value) == images
    return alike and any(map(follows, leaves(value)))


def _bare(value: Any) -> Iterator[Any]:
    """Yield what tuples and lists hold outside of mappings and named tuples."""
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        for part in value:
            yield from _bare(part)
    elif not isinstance(value, Mapping | tuple):
        yield value


def lying(value: Any, place: Place, images: int, size: tuple[int, ...]) -> str:
    """Describe what lies on images of this height and width and is no tv_tensor that follows.

    Returns:
        The description: of another image, of a tensor or array of the images' size, and of numbers
        whose key names boxes, points or masks. "" for anything else, as labels and names.
    """
    if is_picture(value):
        return f"a PIL image of {value.size[::-1]}"
    kinds = tensor_kinds()
    if kinds and isinstance(value, kinds.TVTensor) and not follows(value):
        return f"another {type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the plain number {value}" if place.kind and place.listed else ""
    if not isinstance(value, Tensor | np.ndarray) or follows(value):
        return ""
    shape = tuple(value.shape)
    of_one = place.row is not None or shape[:1] != (images,)
    ends = [end for end in (len(shape), len(shape) - 1) if shape[:end][-2:] == size]
    sized = any(end > 2 or of_one for end in ends)
    axes = len(shape) + (place.row is not None)  # with that of the images; (b, T) is padding
    named = bool(place.kind) and (place.listed or axes > 1 or (len(shape) > 0 and of_one))
    named = named and (place.kind != "Mask" or place.listed or axes > 2)
    plain = "a plain tensor" if isinstance(value, Tensor) else "a plain array"
    return f"{plain} of shape {shape}" if sized or named else ""


def require_none_lying(
    advice: str, name: str, value: Any, shape: tuple[int, ...], untouched: Collection[str] = ()
) -> None:
    """Raise ValueError if a field holds what lies on images (B, ..., H, W), which stays in place.

    Args:
        advice: what to do.
        name: of the field.
        value: of the field.
        shape: of the images.
        untouched: keys and names of what may stay in place.
    """
    images, size = shape[0], shape[-2:]

    def refuse(leaf: Any, place: Place) -> None:
        known = type(leaf).__name__ if follows(leaf) else ""
        got = known or lying(leaf, place, images, size)
        if got:
            raise ValueError(
                f"{place.name} must not lie on the images, which are moved without it, got {got}. "
                f'{advice} Or name it in untouched=("{place.hint}",) to keep it as it is.'
            )

    walked(refuse, value, start(name), images, untouched)


def names_of(untouched: object) -> tuple[str, ...]:
    """Return the names that an ``untouched=`` holds, or raise TypeError."""
    given = (untouched,) if isinstance(untouched, str) else untouched
    if not isinstance(given, Collection) or not all(isinstance(name, str) for name in given):
        raise TypeError(
            f"untouched must be names of what stays in place, got {untouched!r}. Give keys, or "
            'paths from the field on, as ("heat_map", "extra.1").'
        )
    return tuple(given)
