"""One kind of reported value: of each sample the last known one, of its weakest view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from augloader.core.changes import Changes

UNKNOWN = 2**62  # the order of what is not known
PERIOD = 2**30  # what a period counts in an order: above the bits of all strengths
_OLDEST = 2**16 - 1  # what is older in periods is as old, so that an order times ranks fits


@dataclass(frozen=True, eq=False)
class Weakest:
    """One value a sample, and where it was taken from.

    Attributes:
        values: (n, ...) floating.
        strength: (n,) float32 in [0, 1] of the view, infinity where there is no value.
        period: (n,) int32, the refresh period.
        epoch: (n,) int32.

    Example:
        >>> losses = Weakest.none(2, (), torch.float32)
        >>> for loss, strength, period in ((1.0, 0.5, 0), (2.0, 0.7, 0), (3.0, 0.9, 1)):
        ...     one = torch.tensor([loss]), torch.tensor([strength])
        ...     losses.take(torch.tensor([1]), *one, period=period, epoch=period).make()
        ...     print(losses.values.tolist())
        [0.0, 1.0]
        [0.0, 1.0]
        [0.0, 3.0]
    """

    values: Tensor
    strength: Tensor
    period: Tensor
    epoch: Tensor

    @classmethod
    def none(cls, n: int, width: tuple[int, ...], dtype: torch.dtype) -> Weakest:
        """Return what is known of n samples before any report."""
        strength = torch.full((n,), torch.inf, dtype=torch.float32, device="cpu")
        period, epoch = (torch.zeros_like(strength, dtype=torch.int32) for _ in range(2))
        return cls(strength.new_zeros(n, *width, dtype=dtype), strength, period, epoch)

    @property
    def width(self) -> tuple[int, ...]:
        """The shape of one sample's value."""
        return tuple(self.values.shape[1:])

    @property
    def origin(self) -> tuple[Tensor, Tensor, Tensor]:
        """Strength, period and epoch."""
        return self.strength, self.period, self.epoch

    def take(
        self, index: Tensor, values: Tensor, strength: Tensor, period: int, epoch: int
    ) -> Changes:
        """Return what records values of distinct samples where the period knows no weaker view."""
        at, changes = index.numpy(), Changes()
        taken = strength.numpy() <= self.strength.numpy()[at]
        taken |= self.period.numpy()[at] < period
        if not taken.all():
            some = torch.from_numpy(taken)
            index, values, strength = index[some], values[some], strength[some]
        changes.rows(self.values, index, values)
        changes.rows(self.strength, index, strength)
        changes.rows(self.period, index, period)
        changes.rows(self.epoch, index, epoch)
        return changes

    def order(self, now: int, since: int = 0) -> Tensor:
        """Return (n,) int64, lower for what is known better; ``UNKNOWN`` where nothing is.

        A later period comes first, and within a period the weaker view.

        Args:
            now: the current period.
            since: the earliest epoch that counts.
        """
        order = self.period.to(torch.int64, copy=True)  # in place: memory is what n costs
        order.neg_().add_(now).clamp_(max=_OLDEST).mul_(PERIOD)
        order += (self.strength + 0.0).view(torch.int32)  # ordered as floats not negative
        return order.masked_fill_(self.strength.isinf() | (self.epoch < since), UNKNOWN)

    def each(self, change: Callable[[Tensor], Tensor]) -> Weakest:
        """Return this with all tensors changed, as copied or some rows of them."""
        return Weakest(*map(change, (self.values, *self.origin)))

    def merged(self, other: Weakest) -> Weakest:
        """Return what is known better of two tables, the mean of what is known as well."""
        mine, theirs = self.order(0), other.order(0)
        shape = (-1,) + (1,) * (self.values.ndim - 1)
        keep, take = ((mine <= theirs).float().view(shape), (theirs <= mine).float().view(shape))
        total = keep * self.values.float() + take * other.values.float()
        values = (total / (keep + take)).to(self.values.dtype)
        chosen = (
            torch.where(mine < theirs, a, torch.where(theirs < mine, b, a.minimum(b)))
            for a, b in zip(self.origin, other.origin, strict=True)
        )
        return Weakest(values, *chosen)
