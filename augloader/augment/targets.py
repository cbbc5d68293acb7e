"""Masks, boxes and key points follow the geometry of the images they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as boxes_of

from augloader.augment.pixels.geometry import compose, moved_rows, warp_mask, warp_points
from augloader.augment.policies import Params

_PLAIN_BOXES = (
    tv_tensors.BoundingBoxFormat.XYXY,
    tv_tensors.BoundingBoxFormat.XYWH,
    tv_tensors.BoundingBoxFormat.CXCYWH,
)


def follow(target: Any, params: Params) -> Any:
    """Return a target moved as its images were; what holds no tv_tensor is returned as it is.

    Args:
        target: a ``Mask`` of shape (B, ..., H, W), resampled by nearest with 0 outside, or
            (..., H, W) for one image; ``BoundingBoxes`` (each becomes the box around its moved
            corners, clamped to the canvas as torchvision does) and ``KeyPoints`` of one image;
            integers are rounded. A mapping or a tuple of these; a list with one entry an image for
            a batch. Colour operations leave them all alone, and cut-outs too.
        params: of a policy, for the batch, or of one row for one image.

    Raises:
        ValueError: plain integers of the images' size, another size than the images', a list of
            another length, boxes or points of a whole batch in one tensor, rotated boxes, a mixture
            of several geometries (AugMix).

    Cost: O(pixels) for masks, O(1) for each box; a loop over the entries of a list.
    """
    if isinstance(target, Mapping):
        return {key: follow(part, params) for key, part in target.items()}
    if isinstance(target, tuple):
        parts = (follow(part, params) for part in target)
        return type(target)(*parts) if hasattr(target, "_fields") else tuple(parts)
    if isinstance(target, list):
        rows = params.shape[0]
        if len(target) != rows:
            raise ValueError(
                f"targets must be a list of {rows} entries, one an image, got {len(target)}. "
                "Give one entry an image, or a mapping."
            )
        return [follow(part, params.row(i)) for i, part in enumerate(target)]
    if not isinstance(target, tv_tensors.Mask | tv_tensors.BoundingBoxes | tv_tensors.KeyPoints):
        _require_no_mask(target, params)
        return target
    if params.mix is not None:
        raise ValueError(
            f"images must have one geometry for a {type(target).__name__} to follow, got AugMix's "
            "mixture of several. Use another policy."
        )
    height, width = params.shape[2:]
    canvas = tuple(target.shape[-2:]) if isinstance(target, tv_tensors.Mask) else target.canvas_size
    if tuple(canvas) != (height, width):
        raise ValueError(
            f"{type(target).__name__} must have the images' size {(height, width)}, got "
            f"{tuple(canvas)}. Resize both alike."
        )
    if isinstance(target, tv_tensors.Mask):
        return tv_tensors.wrap(_mask(target.as_subclass(Tensor), params), like=target)
    if params.shape[0] != 1:
        raise ValueError(
            f"{type(target).__name__} must be of one image, got {params.shape[0]} images. "
            "Give a list with one entry an image."
        )
    if not len(moved_rows(params.op[:, 0], params.magnitude[:, 0])):
        return target
    if isinstance(target, tv_tensors.KeyPoints):
        return tv_tensors.wrap(_points(target.as_subclass(Tensor), params), like=target)
    return _boxes(target, params)


def _require_no_mask(target: Any, params: Params) -> None:
    """Raise for plain integers of the images' size: a mask that would stay where it is."""
    rows, _, *size = params.shape
    if not isinstance(target, Tensor) or target.is_floating_point():
        return
    if list(target.shape) in ([rows, *size], size) or (
        list(target.shape[-2:]) == size and target.dtype != torch.uint8
    ):
        raise ValueError(
            "masks must be tv_tensors.Mask to follow, got a plain tensor of shape "
            f"{tuple(target.shape)}, as the default collate makes of them. Wrap it: "
            "tv_tensors.Mask(masks)."
        )


def _mask(mask: Tensor, params: Params) -> Tensor:
    op, magnitude = params.op[:, 0], params.magnitude[:, 0]
    rows = moved_rows(op, magnitude)
    matrix = compose(op[rows], magnitude[rows], *params.shape[2:])
    if len(op) == 1 and (mask.ndim == 2 or len(mask) != 1):
        return warp_mask(mask.unsqueeze(0), rows, matrix)[0]
    if mask.ndim < 3 or len(mask) != len(op):
        raise ValueError(
            f"Mask must be of {len(op)} images, got shape {tuple(mask.shape)}. "
            "Stack one mask an image."
        )
    return warp_mask(mask, rows, matrix)


def _points(points: Tensor, params: Params) -> Tensor:
    matrix = compose(params.op[:, 0], params.magnitude[:, 0], *params.shape[2:])
    return warp_points(points.cpu(), matrix[0], *params.shape[2:]).to(points.device)


def _boxes(boxes: tv_tensors.BoundingBoxes, params: Params) -> tv_tensors.BoundingBoxes:
    if boxes.format not in _PLAIN_BOXES:
        raise ValueError(
            f"boxes must be XYXY, XYWH or CXCYWH, got {boxes.format.value}. Convert them first."
        )
    corners = boxes_of.convert_bounding_box_format(
        boxes.as_subclass(Tensor).double(), boxes.format, tv_tensors.BoundingBoxFormat.XYXY
    )
    moved = _points(corners[:, [0, 1, 2, 1, 2, 3, 0, 3]], params).view(-1, 4, 2)
    around = torch.cat([moved.amin(1), moved.amax(1)], 1)
    plain = boxes_of.convert_bounding_box_format(
        around, tv_tensors.BoundingBoxFormat.XYXY, boxes.format
    )
    clamped = boxes_of.clamp_bounding_boxes(tv_tensors.wrap(plain, like=boxes))
    whole = clamped if boxes.is_floating_point() else clamped.round()
    return tv_tensors.wrap(whole.as_subclass(Tensor).to(boxes.dtype), like=boxes)
