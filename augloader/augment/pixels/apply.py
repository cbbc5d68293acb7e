"""Applying a policy's parameters to images: grouped on a CPU, fused on CUDA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augloader.augment.images import empty_like
from augloader.augment.pixels import kernels
from augloader.augment.pixels.colour import recolour
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.geometry import Interpolation, warp_
from augloader.augment.pixels.ops import IDENTITY
from augloader.augment.pixels.rows import beside, bits, copied, over_rows, put_, take
from augloader.augment.policies import Params


@dataclass(frozen=True)
class Output:
    """What becomes of the augmented images.

    Attributes:
        dtype: floating, the images scaled to [0, 1]; None leaves them as they are.
        mean: one a channel or one for all; the output is (x - mean) / std, x in [0, 1].
        std: one a channel or one for all.
    """

    dtype: torch.dtype | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def normalised(self) -> bool:
        """Whether mean and std change anything."""
        return {*self.mean, 0.0} != {0.0} or {*self.std, 1.0} != {1.0}

    def of(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W) images in the output's dtype, scaled and normalised.

        Where a dtype is given they are new, or written into ``out``.
        """
        if self.dtype is None:
            return images
        exact = torch.promote_types(self.dtype, torch.float32)
        scale = 1 / 255 if images.dtype == torch.uint8 else 1.0
        mean, std = (beside(values, exact, images) for values in (self.mean, self.std))
        slope, shift = (scale / std, mean / std) if self.normalised else (scale, 0.0)
        if out is None:
            out = torch.empty(images.shape, dtype=self.dtype, device=images.device)
        # In place where it can be: what one pass wrote is in the cache for the next.
        values = out if self.dtype == exact else torch.empty_like(images, dtype=exact)
        values.copy_(images).mul_(slope)
        if self.normalised:
            values.sub_(shift)
        return out if values is out else out.copy_(values)


@torch.no_grad()
def apply_params(
    images: Tensor,
    params: Params,
    output: Output,
    *,
    interpolation: Interpolation = "nearest",
    fill: tuple[float, ...] = (0.0,),
) -> Tensor:
    """Return new images, augmented as the parameters say.

    Args:
        images: (B, C, H, W) uint8, or floating in [0, 1], on any device; not modified.
        params: of a policy, for this shape.
        output: dtype, scale and normalisation.
        interpolation: "nearest" or "bilinear".
        fill: value outside the moved image and in cut-outs, in the images' own units.

    Returns:
        (B, C, H, W) in the output's dtype, beside the images.

    Cost: see ``recolour``, ``warp_``, ``apply_dense`` and ``fused.apply_fused``.
    """
    chained = params.op.shape[2] > 0
    if chained and params.mix is None and _fusible(images) and output.dtype != torch.float64:
        made = kernels.apply_fused(
            images,
            *_on_device(params, 0, images),
            interpolation=interpolation,
            fill=fill,
            mean=_each(output.mean, images) if output.normalised else None,
            std=_each(output.std, images) if output.normalised else None,
            dtype=output.dtype or torch.uint8,
        )
        if made is not None:
            return made
    if images.device.type != "cpu":
        return output.of(_augmented(images, params, interpolation, fill))
    out = empty_like(images, output.dtype or images.dtype)

    def augment(rows: slice) -> None:
        there = out[rows]
        into = there if output.dtype is None and there.is_contiguous() else None
        some = _augmented(images[rows], params.select(rows), interpolation, fill, into)
        if output.dtype is not None:
            output.of(some, there)
        elif into is None:
            there.copy_(some)

    over_rows(images, augment)
    return out


def _augmented(
    images: Tensor,
    params: Params,
    interpolation: Interpolation,
    fill: tuple[float, ...],
    out: Tensor | None = None,
) -> Tensor:
    """Return augmented images in their own dtype: new ones, or written into ``out``."""
    if params.mix is not None:
        out = _mixed(images, params, interpolation, fill, out)
    else:
        out = _chain(images, params, 0, interpolation, fill, out)
    if params.boxes is not None:
        _cut_(out, params.boxes, fill)
    return out


def _each(values: tuple[float, ...], images: Tensor) -> tuple[float, ...]:
    """Return one value a channel, from one or from one a channel."""
    return values * (images.shape[1] // len(values))


def _fusible(images: Tensor) -> bool:
    return images.is_cuda and images.dtype == torch.uint8 and kernels.usable()


def _chain(
    images: Tensor,
    params: Params,
    m: int,
    interpolation: Interpolation,
    fill: tuple[float, ...],
    out: Tensor | None = None,
) -> Tensor:
    """Return a copy of the images after their m-th chain; in ``out``."""
    fusible = _fusible(images)
    if params.op.shape[2] and (fusible or (images.is_cuda and images.dtype == torch.uint8)):
        chain = _on_device(params, m, images)
        made = None
        if fusible:
            made = kernels.apply_fused(images, *chain, interpolation=interpolation, fill=fill)
        if made is None:
            made = apply_dense(images, *chain, interpolation=interpolation, fill=fill)
        return made
    # Half precision is computed in float32, and rounded once.
    exact = _exact(images)
    there = out if exact == images.dtype else None
    made = recolour(images.to(exact), params.op[:, m], params.magnitude[:, m], there)
    rows = params.moved[m]
    if len(rows):
        warp_(made, rows, params.matrices[:, m].index_select(0, rows), interpolation, fill)
    if out is None or made is out:
        return made.to(images.dtype)
    return out.copy_(made)


def _mixed(
    images: Tensor,
    params: Params,
    interpolation: Interpolation,
    fill: tuple[float, ...],
    out: Tensor | None,
) -> Tensor:
    """Return the mixtures of the images and their chains; untouched rows are copies."""
    rows = (params.op != IDENTITY).flatten(1).any(1).nonzero().flatten()
    chosen, part = take(images, rows).to(_exact(images)), params.select(rows)
    assert part.mix is not None
    shares = part.mix.to(images.device, non_blocking=True).unbind(1)
    total = chosen * shares[0].view(-1, 1, 1, 1)
    for m, share in enumerate(shares[1:]):
        chain = _chain(chosen, part, m, interpolation, fill)
        total.addcmul_(chain, share.view(-1, 1, 1, 1))
    if images.dtype == torch.uint8:
        total.round_()
    out = copied(images, out)
    put_(out, rows, total.to(images.dtype))
    return out


def _cut_(images: Tensor, boxes: Tensor, fill: tuple[float, ...]) -> None:
    """Fill one box a row, (top, left, bottom, right), in place."""
    whole = images.dtype == torch.uint8
    value = beside([round(level) if whole else level for level in fill], images.dtype, images)
    if images.device.type == "cpu":  # the boxes alone; numpy takes a third of torch's time for each
        pixels, level = bits(images), bits(value)
        for row, (top, left, bottom, right) in zip(pixels, boxes.tolist(), strict=True):
            row[:, top:bottom, left:right] = level
        return
    edges = boxes.to(images.device, non_blocking=True)
    top, left, bottom, right = edges.view(-1, 4, 1, 1, 1).unbind(1)
    y, x = (torch.arange(size, device=images.device) for size in images.shape[2:])
    inside = (y >= top).mT & (y < bottom).mT & (x >= left) & (x < right)
    torch.where(inside, value, images, out=images)


def _exact(images: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32 for half precision, else the images' own."""
    return torch.float32 if images.dtype in (torch.float16, torch.bfloat16) else images.dtype


def _on_device(params: Params, m: int, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the m-th chains' operations, magnitudes and (B, 2, 3) matrices beside the images."""
    chains = params.op[:, m], params.magnitude[:, m], params.matrices[:, m, :2].float()
    op, magnitude, theta = (part.to(images.device, non_blocking=True) for part in chains)
    return op, magnitude, theta
