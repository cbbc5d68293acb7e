"""Masks, boxes and key points follow the geometry of the images they belong to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as boxes_of

from augloader.augment.kornia import KorniaParams
from augloader.augment.pixels.geometry import warp_mask, warp_points
from augloader.augment.policies import Params
from augloader.core.lying import Place, follows, lying, start, walked

_PLAIN_BOXES = (
    tv_tensors.BoundingBoxFormat.XYXY,
    tv_tensors.BoundingBoxFormat.XYWH,
    tv_tensors.BoundingBoxFormat.CXCYWH,
)


def image_of(parts: Any) -> Any:
    """Return which part is the image: torchvision's only Image; else "image", the first of a tuple.

    Raises:
        TypeError: a mapping without either.
    """
    named = isinstance(parts, Mapping)
    found = parts.items() if named else enumerate(parts)
    images = [k for k, part in found if isinstance(part, tv_tensors.Image)]
    if len(images) == 1:
        return images[0]
    if named and "image" not in parts:
        raise TypeError(
            f'images must have the key "image" as a mapping, or one tv_tensors.Image, got '
            f"{[*parts]}. Wrap the image as tv_tensors.Image(...)."
        )
    return "image" if named else 0


def follow(
    target: Any,
    params: Params | KorniaParams,
    row: int | None = None,
    *,
    mask_fill: float = 0,
    untouched: Collection[str] = (),
    name: str = "target",
) -> Any:
    """Return a target moved as its images were; what does not lie on them is returned as it is.

    Args:
        target: a ``Mask`` of shape (B, ..., H, W), resampled by nearest, or (..., H, W) for one
            image; ``BoundingBoxes`` (each becomes the box around its moved corners, clamped to the
            canvas as torchvision does) and ``KeyPoints`` of one image; integers are rounded. A
            mapping or a tuple of these; for a batch a list with one entry an image, or a tuple
            with one mapping an image. Colour operations leave them all alone, and cut-outs too.
        params: of a policy, for the batch, or of one row for one image.
        row: the image of the batch that the target is of; None: of all of them.
        mask_fill: value of masks outside the moved image; bool masks are False there.
        untouched: keys, or paths as "target.heat_map", of what stays in place.
        name: of the target, with which paths begin.

    Raises:
        TypeError: a mask, boxes or points for geometric Kornia operations.
        ValueError: where the policy has geometry: a plain tensor of the images' size, plain boxes,
            points or masks by their key, another image; another size than the images', a list of
            another length, or of masks that may be of one image or of all, boxes or points of a
            whole batch in one tensor, rotated boxes, a mixture
            of several geometries (AugMix), a ``mask_fill`` that the mask's dtype cannot hold.

    Cost: O(pixels) for masks, O(1) for each box; a loop over the entries of a list.

    Example:
        >>> from augloader import AdaptiveStrengthTransform
        >>> params = AdaptiveStrengthTransform("trivial").sample((2, 3, 8, 8), 1.0)
        >>> follow({"mask": tv_tensors.Mask(torch.ones(2, 8, 8))}, params)["mask"].shape
        torch.Size([2, 8, 8])
    """
    if not params.geometric:
        return target
    images, size = params.shape[0] if row is None else 1, tuple(params.shape[2:])

    def moved(leaf: Any, place: Place) -> Any:
        if follows(leaf):
            return _moved(leaf, params, place.row, mask_fill)
        got = lying(leaf, place, images, size)
        if got:
            kind = place.kind or "Mask"
            more = "" if kind == "Mask" else f", one an image, with canvas_size={size}"
            raise ValueError(
                f"{place.name} must be a tv_tensors.{kind} to follow its images, got {got}, which "
                f"would stay in place. Wrap it as tv_tensors.{kind}(...){more}, in the collate "
                "function or after it (stacking strips the type), or name it in "
                f'untouched=("{place.hint}",) to leave it in place.'
            )
        return leaf

    return walked(moved, target, start(name, row), images, untouched)


def _moved(target: Any, params: Params | KorniaParams, row: int | None, mask_fill: float) -> Any:
    """Return a tv_tensor moved as its images, or the one of a row, were."""
    kind = type(target).__name__
    if isinstance(params, KorniaParams):
        raise TypeError(
            f"images must have a named policy for a {kind} to follow, got Kornia operations. Use a "
            "named policy."
        )
    if params.mix is not None:
        raise ValueError(
            f"images must have one geometry for a {kind} to follow, got AugMix's mixture of "
            "several. Use another policy."
        )
    masks = isinstance(target, tv_tensors.Mask)
    height, width = params.shape[2:]
    canvas = tuple(target.shape[-2:]) if masks else target.canvas_size
    if tuple(canvas) != (height, width):
        raise ValueError(
            f"{kind} must have the images' size {(height, width)}, got {tuple(canvas)}. Resize "
            "both alike."
        )
    images, rows, matrices = params.shape[0], params.moved[0], params.matrices[:, 0]
    if row is not None:
        images, rows, matrices = 1, rows[rows == row] - row, matrices[row : row + 1]
    if masks:
        plain = target.as_subclass(Tensor)
        outside = _outside(mask_fill, plain.dtype)
        if images == 1 and not len(rows):
            return tv_tensors.wrap(plain.clone(), like=target)
        return tv_tensors.wrap(_mask(plain, images, rows, matrices[rows], outside), like=target)
    if images != 1:
        raise ValueError(
            f"{kind} must be of one image, got {images} images. Give a list with one entry an "
            "image."
        )
    if not len(rows):
        return target
    if isinstance(target, tv_tensors.KeyPoints):
        moved = _points(target.as_subclass(Tensor), matrices[0], height, width)
        return tv_tensors.wrap(moved, like=target)
    return _boxes(target, matrices[0])


def _outside(mask_fill: float, dtype: torch.dtype) -> float:
    """Return what a mask of this dtype holds outside the image, or raise ValueError."""
    if dtype == torch.bool:  # there is no third value for what is unknown
        return 0
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    whole = dtype.is_floating_point or float(mask_fill).is_integer()
    if not (whole and limits.min <= mask_fill <= limits.max):
        raise ValueError(
            f"mask_fill must be a value of {dtype} masks, got {mask_fill}. Convert the masks, as "
            "by .long(), or give another."
        )
    return mask_fill


def _mask(mask: Tensor, images: int, rows: Tensor, matrix: Tensor, outside: float) -> Tensor:
    if images == 1 and (mask.ndim == 2 or len(mask) != 1):
        return warp_mask(mask.unsqueeze(0), rows, matrix, outside)[0]
    if mask.ndim < 3 or len(mask) != images:
        raise ValueError(
            f"Mask must be of {images} images, got shape {tuple(mask.shape)}. "
            "Stack one mask an image."
        )
    return warp_mask(mask, rows, matrix, outside)


def _points(points: Tensor, matrix: Tensor, height: int, width: int) -> Tensor:
    if points.device.type == "mps":  # which has no float64
        return warp_points(points.cpu(), matrix, height, width).to(points.device)
    return warp_points(points, matrix, height, width)


def _boxes(boxes: tv_tensors.BoundingBoxes, matrix: Tensor) -> tv_tensors.BoundingBoxes:
    if boxes.format not in _PLAIN_BOXES:
        raise ValueError(
            f"boxes must be XYXY, XYWH or CXCYWH, got {boxes.format.value}. Convert them first."
        )
    corners = boxes_of.convert_bounding_box_format(
        boxes.as_subclass(Tensor).double(), boxes.format, tv_tensors.BoundingBoxFormat.XYXY
    )
    left, top, right, bottom = corners.unbind(1)  # by a list of numbers a GPU would be waited for
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], 1)
    moved = _points(corners, matrix, *boxes.canvas_size).view(-1, 4, 2)
    around = torch.cat([moved.amin(1), moved.amax(1)], 1)
    plain = boxes_of.convert_bounding_box_format(
        around, tv_tensors.BoundingBoxFormat.XYXY, boxes.format
    )
    clamped = boxes_of.clamp_bounding_boxes(tv_tensors.wrap(plain, like=boxes))
    whole = clamped if boxes.is_floating_point() else clamped.round()
    return tv_tensors.wrap(whole.as_subclass(Tensor).to(boxes.dtype), like=boxes)
