"""Random numbers that depend on a seed and a row's keys, and on nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # the odd integer nearest to 2^64 / golden ratio


def uniforms(seed: int, keys: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    """Return ``count`` uniform numbers in [0, 1) for each row of integer keys.

    h_0 = mix(seed), h_j = mix(h_{j-1} + gamma + key_j), u_i = mix(h_k + (i + 1) gamma) / 2^64 to 53
    bits, with SplitMix64's finalizer. A row's numbers depend on the seed and its own keys alone.

    Args:
        seed: below 2^64, at least 0.
        keys: (B, k) integer, such as (epoch, index, copy).
        count: numbers a row.

    Returns:
        (B, count) float64.

    Cost: O(B (k + count)).

    Example:
        >>> pair = uniforms(0, np.array([[0, 7], [0, 8]]), 2)
        >>> bool((uniforms(0, np.array([[0, 8]]), 2) == pair[1]).all())
        True

    Source: Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators".
    """
    state = mix(np.full(len(keys), seed, np.uint64))
    for column in keys.astype(np.uint64).T:
        state = mix(state + _GAMMA + column)
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GAMMA
    return (mix(state[:, None] + steps) >> np.uint64(11)) * np.float64(2.0**-53)


def mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a hash of 64 bits of each number; a bijection, SplitMix64's finalizer."""
    z = z ^ (z >> np.uint64(30))
    z *= np.uint64(0xBF58476D1CE4E5B9)  # in place: memory is what large arrays wait for
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
