"""One kind of reported value: of each sample the one of its weakest view in a refresh period."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Weakest:
    """One value a sample, and the strength of the view it was taken from.

    Attributes:
        values: (n, ...) floating.
        strength: (n,) float32 in [0, 1], infinity where there is no value.

    Example:
        >>> losses = Weakest.none(2, (), torch.float32)
        >>> for loss, strength in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.0)):
        ...     one = torch.tensor([loss]), torch.tensor([strength])
        ...     losses.take(torch.tensor([1]), *one)
        >>> losses.values, losses.strength
        (tensor([0., 3.]), tensor([inf, 0.]))
    """

    values: Tensor
    strength: Tensor

    @classmethod
    def none(cls, n: int, width: tuple[int, ...], dtype: torch.dtype) -> Weakest:
        """Return what is known of n samples before any report."""
        return cls(torch.zeros(n, *width, dtype=dtype), torch.full((n,), torch.inf))

    @property
    def width(self) -> tuple[int, ...]:
        """The shape of one sample's value."""
        return tuple(self.values.shape[1:])

    def take(self, index: Tensor, values: Tensor, strength: Tensor) -> None:
        """Record the values of distinct samples where no weaker view is known."""
        weaker = strength <= self.strength[index]
        self.values[index[weaker]] = values[weaker]
        self.strength[index[weaker]] = strength[weaker]

    def each(self, change: Callable[[Tensor], Tensor]) -> Weakest:
        """Return this with both tensors changed, as copied or some rows of them."""
        return Weakest(change(self.values), change(self.strength))

    def merged(self, other: Weakest) -> Weakest:
        """Return the values of the weaker views of two tables, the mean of equally weak ones."""
        shape = (-1,) + (1,) * (self.values.ndim - 1)
        keep = (self.strength <= other.strength).float().view(shape)
        take = (other.strength <= self.strength).float().view(shape)
        total = keep * self.values.float() + take * other.values.float()
        values = (total / (keep + take)).to(self.values.dtype)
        return Weakest(values, torch.minimum(self.strength, other.strength))
