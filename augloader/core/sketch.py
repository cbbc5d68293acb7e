"""Outer products as a few numbers each, without forming them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class TensorSketch:
    """A random projection of outer products g (x) h to w numbers, TensorSketch.

    Entry g_i h_j is added, with sign s(i) t(j), to number (a(i) + b(j)) mod w, where a, b, s and t
    are random. That is the circular convolution of the count sketches of g and h, and so a product
    of their Fourier transforms. It is linear in the outer product; inner products have the right
    mean, and a squared distance a relative standard deviation of at most sqrt(8 / w).

    Args:
        classes: C, length of g.
        width: d, length of h.
        numbers: w.
        seed: the same seed and lengths give the same projection everywhere.

    Example:
        >>> sketch = TensorSketch(10, 512, 1024)
        >>> g, h = torch.randn(4, 10), torch.randn(4, 512)
        >>> sketch(g, h).shape
        torch.Size([4, 1024])

    Source: Pham & Pagh (2013), "Fast and scalable polynomial kernels via explicit feature maps";
    the variance: Avron, Nguyen & Woodruff (2014).
    """

    def __init__(self, classes: int, width: int, numbers: int, seed: int = 0) -> None:
        self.numbers = numbers
        rng = np.random.default_rng([seed, classes, width, numbers])
        self._places = [
            torch.from_numpy(rng.integers(numbers, size=size)) for size in (classes, width)
        ]
        self._signs = [
            torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), size))
            for size in (classes, width)
        ]

    def __call__(self, g: Tensor, h: Tensor) -> Tensor:
        """Return (b, w) float32 of (b, C) and (b, d) floating factors, on their device.

        Cost: O(b (C + d + w log w)).
        """
        for parts in (self._places, self._signs):
            parts[:] = [part.to(g.device) for part in parts]
        transformed = [
            torch.fft.rfft(self._counted(factor.float(), place, sign))
            for factor, place, sign in zip((g, h), self._places, self._signs, strict=True)
        ]
        sketch: Tensor = torch.fft.irfft(transformed[0] * transformed[1], n=self.numbers)
        return sketch

    def _counted(self, factor: Tensor, place: Tensor, sign: Tensor) -> Tensor:
        zeros = factor.new_zeros(len(factor), self.numbers)
        return zeros.index_add_(1, place, factor * sign)
