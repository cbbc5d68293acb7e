"""Masks, boxes and key points follow the geometry of the images they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as boxes_of

from augloader.augment.kornia import KorniaParams
from augloader.augment.pixels.geometry import warp_mask, warp_points
from augloader.augment.policies import Params

_FOLLOWING = (tv_tensors.Mask, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)
_PLAIN_BOXES = (
    tv_tensors.BoundingBoxFormat.XYXY,
    tv_tensors.BoundingBoxFormat.XYWH,
    tv_tensors.BoundingBoxFormat.CXCYWH,
)


def follow_in(field: Any, params: Params | KorniaParams) -> Any:
    """Return a field of a Sample moved as its images were.

    Unlike in ``follow``, a list in which nothing follows may have any length: the default collate
    makes a list with one entry a field.

    Raises:
        TypeError: a mask, boxes or points for Kornia operations.
        ValueError: see ``follow``.
    """
    if isinstance(field, Mapping | tuple):
        return _each(lambda part: follow_in(part, params), field)
    leaves = list(_leaves(field))
    found = next((leaf for leaf in leaves if isinstance(leaf, _FOLLOWING)), None)
    if found is None:
        for leaf in leaves:
            _require_no_mask(leaf, params.shape)
        return field
    if isinstance(params, KorniaParams):
        raise TypeError(
            f"images must have a named policy for a {type(found).__name__} to follow, got Kornia "
            "operations. Use a named policy."
        )
    return follow(field, params)


def follow(target: Any, params: Params, row: int | None = None) -> Any:
    """Return a target moved as its images were; what holds no tv_tensor is returned as it is.

    Args:
        target: a ``Mask`` of shape (B, ..., H, W), resampled by nearest with 0 outside, or
            (..., H, W) for one image; ``BoundingBoxes`` (each becomes the box around its moved
            corners, clamped to the canvas as torchvision does) and ``KeyPoints`` of one image;
            integers are rounded. A mapping or a tuple of these; a list with one entry an image for
            a batch. Colour operations leave them all alone, and cut-outs too.
        params: of a policy, for the batch, or of one row for one image.
        row: the image of the batch that the target is of; None: of all of them.

    Raises:
        ValueError: plain integers of the images' size, another size than the images', a list of
            another length, boxes or points of a whole batch in one tensor, rotated boxes, a mixture
            of several geometries (AugMix).

    Cost: O(pixels) for masks, O(1) for each box; a loop over the entries of a list.
    """
    if isinstance(target, Mapping | tuple):
        return _each(lambda part: follow(part, params, row), target)
    images = params.shape[0] if row is None else 1
    if isinstance(target, list):
        if len(target) != images:
            raise ValueError(
                f"targets must be a list of {images} entries, one an image, got {len(target)}. "
                "Give one entry an image, or a mapping."
            )
        return [follow(part, params, i if row is None else row) for i, part in enumerate(target)]
    height, width = params.shape[2:]
    if not isinstance(target, _FOLLOWING):
        _require_no_mask(target, (images, *params.shape[1:]))
        return target
    if params.mix is not None:
        raise ValueError(
            f"images must have one geometry for a {type(target).__name__} to follow, got AugMix's "
            "mixture of several. Use another policy."
        )
    canvas = tuple(target.shape[-2:]) if isinstance(target, tv_tensors.Mask) else target.canvas_size
    if tuple(canvas) != (height, width):
        raise ValueError(
            f"{type(target).__name__} must have the images' size {(height, width)}, got "
            f"{tuple(canvas)}. Resize both alike."
        )
    rows, matrices = params.moved[0], params.matrices[:, 0]
    if row is not None:
        rows, matrices = rows[rows == row] - row, matrices[row : row + 1]
    if isinstance(target, tv_tensors.Mask):
        moved = _mask(target.as_subclass(Tensor), images, rows, matrices[rows])
        return tv_tensors.wrap(moved, like=target)
    if images != 1:
        raise ValueError(
            f"{type(target).__name__} must be of one image, got {images} images. "
            "Give a list with one entry an image."
        )
    if not len(rows):
        return target
    if isinstance(target, tv_tensors.KeyPoints):
        moved = _points(target.as_subclass(Tensor), matrices[0], height, width)
        return tv_tensors.wrap(moved, like=target)
    return _boxes(target, matrices[0])


def _each(change: Callable[[Any], Any], parts: Any) -> Any:
    """Return a mapping or tuple of changed parts."""
    if isinstance(parts, Mapping):
        return {key: change(part) for key, part in parts.items()}
    changed = map(change, parts)
    return type(parts)(*changed) if hasattr(parts, "_fields") else tuple(changed)


def _leaves(target: Any) -> Iterator[Any]:
    """Yield what mappings, tuples and lists hold."""
    if isinstance(target, Mapping | tuple | list):
        for part in target.values() if isinstance(target, Mapping) else target:
            yield from _leaves(part)
    else:
        yield target


def _require_no_mask(target: Any, shape: tuple[int, ...]) -> None:
    """Raise for plain integers of the size of (B, C, H, W) images: a mask that would not move."""
    if not isinstance(target, Tensor) or target.is_floating_point():
        return
    rows, _, *size = shape
    if list(target.shape) in ([rows, *size], size) or (
        list(target.shape[-2:]) == size and target.dtype != torch.uint8
    ):
        raise ValueError(
            "masks must be tv_tensors.Mask to follow, got a plain tensor of shape "
            f"{tuple(target.shape)}, as the default collate makes of them. Wrap it: "
            "tv_tensors.Mask(masks)."
        )


def _mask(mask: Tensor, images: int, rows: Tensor, matrix: Tensor) -> Tensor:
    if images == 1 and (mask.ndim == 2 or len(mask) != 1):
        return warp_mask(mask.unsqueeze(0), rows, matrix)[0]
    if mask.ndim < 3 or len(mask) != images:
        raise ValueError(
            f"Mask must be of {images} images, got shape {tuple(mask.shape)}. "
            "Stack one mask an image."
        )
    return warp_mask(mask, rows, matrix)


def _points(points: Tensor, matrix: Tensor, height: int, width: int) -> Tensor:
    return warp_points(points.cpu(), matrix, height, width).to(points.device)


def _boxes(boxes: tv_tensors.BoundingBoxes, matrix: Tensor) -> tv_tensors.BoundingBoxes:
    if boxes.format not in _PLAIN_BOXES:
        raise ValueError(
            f"boxes must be XYXY, XYWH or CXCYWH, got {boxes.format.value}. Convert them first."
        )
    corners = boxes_of.convert_bounding_box_format(
        boxes.as_subclass(Tensor).double(), boxes.format, tv_tensors.BoundingBoxFormat.XYXY
    )
    corners = corners[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    moved = _points(corners, matrix, *boxes.canvas_size).view(-1, 4, 2)
    around = torch.cat([moved.amin(1), moved.amax(1)], 1)
    plain = boxes_of.convert_bounding_box_format(
        around, tv_tensors.BoundingBoxFormat.XYXY, boxes.format
    )
    clamped = boxes_of.clamp_bounding_boxes(tv_tensors.wrap(plain, like=boxes))
    whole = clamped if boxes.is_floating_point() else clamped.round()
    return tv_tensors.wrap(whole.as_subclass(Tensor).to(boxes.dtype), like=boxes)
