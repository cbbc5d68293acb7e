"""Mixing: with which row each row of a batch is mixed, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augloader.core.batch import take
from augloader.core.checks import count_and_first

_DTYPES = {"partner": torch.int64, "lam": torch.float32, "box": torch.int64}  # of Mixing
_WHOLE = (torch.bool, torch.uint8, torch.int32, torch.int64)
_PASTED = (*_WHOLE, torch.float16, torch.float32, torch.float64)  # by numpy


@dataclass(frozen=True, eq=False)
class Mixing:
    """With which row each row of a batch is mixed, and which share of itself it keeps.

    Args:
        partner: (b,) int64 on the CPU, in [0, b).
        lam: (b,) float32 on the CPU, in [0, 1]; a row with 1 stays as it is.
        box: (b, 4) int64 on the CPU, of CutMix: top, left, bottom and right of what the partner
            covers; its share of the pixels is 1 - lam. None otherwise.

    Raises:
        TypeError: another dtype.
        ValueError: another device, shapes that differ, values out of range.

    Example:
        >>> Mixing(torch.tensor([1, 0]), torch.tensor([0.75, 1.0])).mixed
        tensor([ True, False])
    """

    partner: Tensor
    lam: Tensor
    box: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the contract above."""
        for name, dtype in _DTYPES.items():
            value = getattr(self, name)
            if name == "box" and value is None:
                continue
            if not isinstance(value, Tensor) or value.dtype != dtype:
                raise TypeError(
                    f"{name} must be a {dtype} tensor, got {described(value)}. Convert it."
                )
            if value.device.type != "cpu":
                raise ValueError(
                    f"{name} must be on the CPU, got {value.device}. Give {name}.cpu()."
                )
        if self.partner.ndim != 1 or self.partner.shape != self.lam.shape:
            raise ValueError(
                f"partner and lam must have one entry a row, got shapes "
                f"{tuple(self.partner.shape)} and {tuple(self.lam.shape)}. Give (b,) and (b,)."
            )
        bad = ~((self.lam >= 0) & (self.lam <= 1))
        if bad.any():
            raise ValueError(
                f"lam must be in [0, 1], got {count_and_first(bad, 'values outside')}. It is the "
                "share of a row's own input."
            )
        bad = (self.partner < 0) | (self.partner >= len(self.partner))
        if bad.any():
            raise ValueError(
                f"partner must be in [0, {len(bad)}), got {count_and_first(bad, 'values outside')}."
                " Partners are rows of the same batch."
            )
        if self.box is not None and self.box.shape != (len(bad), 4):
            raise ValueError(
                f"box must have shape ({len(bad)}, 4), got {tuple(self.box.shape)}. Give each row "
                "top, left, bottom and right."
            )

    @property
    def mixed(self) -> Tensor:
        """(b,) bool: whether a row changes."""
        return self.lam < 1

    def blend(self, x: Tensor) -> Tensor:
        """Return lam_i x_i + (1 - lam_i) x_partner(i), (b, ...), of any floating tensor.

        Rows with lam 1 are kept bit for bit; where all are, x itself is returned. Device, dtype,
        memory format and gradients are kept.

        Raises:
            ValueError: another number of rows.
        """
        # Kornia's RandomMixUpV2 can be handed a lambda a row, but takes (B, C, H, W) alone, and
        # hidden states must be mixed by the same arithmetic; torchvision's MixUp has one lambda a
        # batch. Both are oracles in the tests.
        other = self._partners(x)
        if other is None:
            return x
        out = other.lerp_(x, beside(self.lam, x))
        kept = (self.lam == 1).nonzero().flatten().to(x.device, non_blocking=True)
        # Even of infinite values; torch.where takes several times as long.
        return out.index_copy_(0, kept, x.index_select(0, kept)) if len(kept) else out

    def paste(self, x: Tensor) -> Tensor:
        """Return x_i with the box taken from x_partner(i), (b, ..., H, W), of any dtype.

        Raises:
            ValueError: without boxes, or with boxes of images of another size; another number of
                rows.
        """
        # Kornia's RandomCutMixV2 has boxes a row, but draws them without strength or probability
        # of a row and waits for the device; torchvision's CutMix has one box a batch.
        if self.box is None:
            raise ValueError("box must be given to paste, got None. Draw it by CutMix.sample.")
        height, width = x.shape[-2:]
        top, left, bottom, right = self.box.unbind(1)
        inside = (top >= 0) & (top <= bottom) & (bottom <= height)
        inside &= (left >= 0) & (left <= right) & (right <= width)
        area = ((bottom - top) * (right - left)).double() / (height * width)
        bad = ~inside | ((1 - area - self.lam).abs() > 1e-6)
        if bad.any():
            raise ValueError(
                f"box must lie in images of {height} x {width} pixels and hold 1 - lam of them, "
                f"got {count_and_first(bad, 'others')}. Draw it for images of this size."
            )
        if x.device.type == "cpu" and x.dtype in _PASTED and not x.requires_grad:
            return self._pasted(x, self.box) if self._changes(x) else x
        other = self._partners(x)
        if other is None:
            return x
        box = self.box.to(x.device, non_blocking=True)
        top, left, bottom, right = box[:, :, None].unbind(1)
        down, across = (torch.arange(side, device=x.device) for side in (height, width))
        within = ((down >= top) & (down < bottom))[:, :, None]
        within = within & ((across >= left) & (across < right))[:, None, :]
        return torch.where(within.view(len(box), *[1] * (x.ndim - 3), height, width), other, x)

    def _pasted(self, x: Tensor, box: Tensor) -> Tensor:
        """Return a copy of x with the boxes alone assigned."""
        plain = x.as_subclass(Tensor)
        out = plain.clone()
        source, target = plain.numpy(), out.numpy()
        rows = self.mixed.nonzero().flatten()
        edges = zip(rows.tolist(), self.partner[rows].tolist(), box[rows].tolist(), strict=True)
        for row, other, (top, left, bottom, right) in edges:
            target[row, ..., top:bottom, left:right] = source[other, ..., top:bottom, left:right]
        return out

    def _partners(self, x: Tensor) -> Tensor | None:
        """Return every row's partner; None where no row changes."""
        if not self._changes(x):
            return None
        return take(x, self.partner)  # type: ignore[no-any-return]

    def _changes(self, x: Tensor) -> bool:
        """Return whether any row changes; raise for another number of rows."""
        if x.shape[:1] != self.lam.shape:
            raise ValueError(
                f"what is mixed must have {len(self.lam)} rows, got shape {tuple(x.shape)}. Mix "
                "the batch that the partners were drawn for."
            )
        return bool(self.mixed.any())


def beside(rows: Tensor, x: Tensor) -> Tensor:
    """Return one number a row in x's dtype, on its device and of its dimensions."""
    # Without waiting towards a device alone: on the CPU what has not arrived is anything.
    moved = rows.to(x.device, x.dtype, non_blocking=x.device.type != "cpu")
    return moved.view(-1, *[1] * (x.ndim - 1))


def described(value: object) -> str:
    """Return the shape and dtype of a tensor, the class of anything else."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.dtype}"
    return type(value).__name__
