"""What lies on images, such as masks and boxes: found in nested fields by type, size or name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torchvision import tv_tensors

FOLLOWING = (tv_tensors.Mask, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)
_WRAPPERS = {
    tv_tensors.Mask: ("mask", "masks", "segmentation", "polygons"),
    tv_tensors.BoundingBoxes: ("box", "boxes", "bbox", "bboxes"),
    tv_tensors.KeyPoints: ("keypoint", "keypoints", "key_points", "landmarks"),
}
_KINDS = {name: kind.__name__ for kind, names in _WRAPPERS.items() for name in names}
_PIL = ("PIL.Image", "Image")  # by name: Pillow is torchvision's requirement, not ours


class Place(NamedTuple):
    """Where a part of a field is.

    Attributes:
        name: keys and positions from the field on, as "target.boxes"; not those of images.
        kind: the tv_tensor that a key on the way names, as "BoundingBoxes"; or none.
        listed: whether it is in a list or tuple below that key.
        row: the image that it is of; None: of all of them.
    """

    name: str
    kind: str = ""
    listed: bool = False
    row: int | None = None

    def key(self, key: object) -> Place:
        """Return the place of a mapping's or named tuple's part."""
        kind = self.kind or _KINDS.get(str(key).lower(), "")
        return self._replace(
            name=f"{self.name}.{key}", kind=kind, listed=self.listed and bool(self.kind)
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
        return self._replace(name=name, listed=True)


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
        images: how many there are; a list of as many entries has one an image.
        untouched: keys and names of what is returned as it is.

    Raises:
        ValueError: a list of another length that holds what follows images.
    """

    def part(value: Any, place: Place, *names: object) -> Any:
        if untouched and not {place.name, *names}.isdisjoint(untouched):
            return value
        return walked(change, value, place, images, untouched)

    if place.name in untouched:
        return value
    if isinstance(value, Mapping):
        return {key: part(item, place.key(key), key) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        named = zip(value._fields, value, strict=True)
        return type(value)(*(part(item, place.key(key), key) for key, item in named))
    if isinstance(value, tuple):
        return tuple(part(item, place.at(i)) for i, item in enumerate(value))
    if not isinstance(value, list):
        return change(value, place)
    each = place.row is None and len(value) == images
    if each:  # with the list's own name, but for those who give an entry's
        rows = [place._replace(row=i, listed=True) for i in range(images)]
        return [part(item, rows[i], place.at(i).name) for i, item in enumerate(value)]
    if place.row is None and any(isinstance(leaf, FOLLOWING) for leaf in _leaves(value)):
        raise ValueError(
            f"{place.name} must be a list of {images} entries, one an image, got {len(value)}. "
            "Give one entry an image, or a mapping."
        )
    return [part(item, place.at(i)) for i, item in enumerate(value)]


def lying(value: Any, place: Place, images: int, size: tuple[int, ...]) -> str:
    """Describe what lies on images of this height and width and is no tv_tensor that follows.

    Returns:
        The description: of another image, of a tensor or array of the images' size, and of numbers
        whose key names boxes, points or masks. "" for anything else, as labels and names.
    """
    if any((base.__module__, base.__name__) == _PIL for base in type(value).__mro__):
        return f"a PIL image of {value.size[::-1]}"
    if isinstance(value, tv_tensors.Image | tv_tensors.Video):
        return f"another {type(value).__name__} of shape {tuple(value.shape)}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the plain number {value}" if place.kind and place.listed else ""
    if not isinstance(value, Tensor | np.ndarray) or isinstance(value, FOLLOWING):
        return ""
    shape = tuple(value.shape)
    of_one = place.row is not None or shape[:1] != (images,)
    ends = [end for end in (len(shape), len(shape) - 1) if shape[:end][-2:] == size]
    sized = any(end > 2 or of_one for end in ends)
    named = bool(place.kind) and (place.listed or len(shape) > 1 or (len(shape) > 0 and of_one))
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
        known = type(leaf).__name__ if isinstance(leaf, FOLLOWING) else ""
        got = known or lying(leaf, place, images, size)
        if got:
            raise ValueError(
                f"{place.name} must not lie on the images, which are moved without it, got {got}. "
                f'{advice} Or name it in untouched=("{place.hint}",) to keep it as it is.'
            )

    walked(refuse, value, Place(name), images, untouched)


def names_of(untouched: object) -> tuple[str, ...]:
    """Return the names that an ``untouched=`` holds, or raise TypeError."""
    given = (untouched,) if isinstance(untouched, str) else untouched
    if not isinstance(given, Collection) or not all(isinstance(name, str) for name in given):
        raise TypeError(
            f"untouched must be names of what stays in place, got {untouched!r}. Give keys, or "
            'paths from the field on, as ("heat_map", "extra.1").'
        )
    return tuple(given)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what mappings, tuples and lists hold."""
    if isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        yield value
