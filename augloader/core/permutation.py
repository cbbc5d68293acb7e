"""Permutations of a range of any length, whose values are computed where they are asked for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from augloader.core.keyed import mix

Array = npt.NDArray[Any]
_SMALL = 2**16  # up to here it is drawn whole, from all permutations alike
_ROUNDS = 6


class Permutation:
    """A permutation of 0, ..., n - 1 that a seed tells.

    Up to 65,536 numbers it is numpy's. Above it is a Feistel network on the two halves of b bits,
    the fewest that hold n: a round changes one half by a hash of the other, so that every round,
    and hence the whole, is a bijection of 2^b numbers, whatever the hash. What leaves the range is
    permuted again until it is back (cycle walking), less than twice on average.

    Args:
        n: length, 0 or more.
        seed: of numpy, for example ``np.random.SeedSequence(3)``.

    Memory: O(1) above 65,536.

    Example:
        >>> order = Permutation(1_000_000, np.random.SeedSequence(0))
        >>> places = np.array([5, 999_999])
        >>> bool((order.where(order.at(places)) == places).all())
        True

    Source: Luby & Rackoff (1988); Black & Rogaway (2002), "Ciphers with arbitrary finite domains".
    """

    def __init__(self, n: int, seed: np.random.SeedSequence) -> None:
        self.n, self._seed = n, seed
        bits = max(n - 1, 1).bit_length()
        self._low = np.uint64(bits // 2)
        self._masks = [np.uint64(2**part - 1) for part in (bits // 2, bits - bits // 2)]

    def __len__(self) -> int:
        """Return n."""
        return self.n

    def at(self, places: Array) -> Array:
        """Return the numbers at places, (m,) int64 in [0, n) both.

        Cost: O(m).
        """
        return self._whole[places] if self.n <= _SMALL else self._walked(places, range(_ROUNDS))

    def where(self, numbers: Array) -> Array:
        """Return the places of numbers, (m,) int64 in [0, n) both.

        Cost: O(m).
        """
        if self.n > _SMALL:
            return self._walked(numbers, range(_ROUNDS)[::-1])
        return self._inverse[numbers]

    @cached_property
    def _whole(self) -> Array:
        return np.random.default_rng(self._seed).permutation(self.n)

    @cached_property
    def _inverse(self) -> Array:
        return self._whole.argsort()

    @cached_property
    def _keys(self) -> Array:
        return self._seed.generate_state(_ROUNDS, np.uint64)

    def _walked(self, numbers: Array, rounds: range) -> Array:
        found = self._permuted(np.asarray(numbers).astype(np.uint64), rounds)
        out = np.flatnonzero(found >= self.n)
        while len(out):
            found[out] = self._permuted(found[out], rounds)
            out = out[found[out] >= self.n]
        return found.astype(np.int64)

    def _permuted(self, numbers: Array, rounds: range) -> Array:
        """Return the network's values of numbers below 2^b."""
        low, high = numbers & self._masks[0], numbers >> self._low
        for i in rounds:
            if i % 2:
                low ^= mix(high + self._keys[i]) & self._masks[0]
            else:
                high ^= mix(low + self._keys[i]) & self._masks[1]
        return high << self._low | low
