"""Label noise and long tails: what a training set is made worse by, on purpose, to compare methods.

Both are pure functions of labels; which samples they take, and what they make of them, depends on
the generator alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    require_generator,
    require_int,
    require_labels,
    require_number,
)


def mislabelled(
    labels: Tensor, share: float, classes: int, generator: np.random.Generator
) -> Tensor:
    """Return labels of which a share was replaced by another class, uniformly at random.

    Exactly round(share n) labels change; symmetric noise that keeps no label by chance.

    Args:
        labels: (n,) integer, in [0, classes). An array or a list is taken too.
        share: of the labels, in [0, 1].
        classes: C, at least 2.
        generator: of the samples, and of what they become.

    Returns:
        (n,) of the labels' dtype, on their device; the labels given are not changed.

    Raises:
        TypeError, ValueError: a share or labels out of range, another generator.

    Cost: O(n).

    Example:
        >>> labels = torch.arange(3).repeat(4)
        >>> noisy = mislabelled(labels, 0.25, 3, np.random.default_rng(0))
        >>> int((noisy != labels).sum()), bool((noisy < 3).all())
        (3, True)
    """
    labels = _flat(labels)
    classes = require_int("classes", classes, 2, "Of one class no label is wrong.")
    share = require_number("share", share, "[0, 1]", "0.3 makes 30 % of them wrong.")
    whole = require_labels("labels", labels, labels.numel(), classes).cpu()
    generator = require_generator(generator)
    wrong = torch.from_numpy(generator.choice(len(whole), round(share * len(whole)), replace=False))
    shift = torch.from_numpy(generator.integers(1, classes, len(wrong)))
    noisy = whole.index_copy(0, wrong, (whole[wrong] + shift) % classes)
    return noisy.to(labels.device, labels.dtype)


def long_tail(
    labels: Tensor,
    imbalance: float,
    generator: np.random.Generator | None = None,
    *,
    most: int | None = None,
) -> Tensor:
    """Return the samples of a long-tailed subset, class c having n imbalance^(-c / (C - 1)).

    n is the size of the largest class, or ``most`` where that is less, and sizes are rounded down.
    A class that has fewer samples keeps all of them.

    Args:
        labels: (N,) integer, 0 or more; C is the number of classes that occur, c their position in
            ascending order. An array or a list is taken too.
        imbalance: how many times the first class is as large as the last, at least 1.
        generator: draws the samples of each class; None takes its first ones, as of data in a
            random order.
        most: samples of the first class, at least 1; None: as many as the largest class has.

    Returns:
        (m,) int64 positions, ascending, on the CPU: ``torch.utils.data.Subset`` takes their list.

    Raises:
        TypeError, ValueError: an imbalance below 1 or that leaves nothing of a class, labels that
            are none, another generator.

    Cost: O(N C).

    Example:
        >>> labels = torch.arange(3).repeat_interleave(100)
        >>> labels[long_tail(labels, 100.0)].bincount()
        tensor([100,  10,   1])

    Source: Cui et al. (2019), CIFAR-LT.
    """
    labels = _flat(labels)
    found = require_labels("labels", labels, labels.numel()).cpu().numpy()
    ratio = require_number("imbalance", imbalance, "[1, inf)", "1 keeps all samples.")
    most = len(found) if most is None else require_int("most", most, 1, "None keeps all.")
    if generator is not None:
        require_generator(generator)
    classes, sizes = np.unique(found, return_counts=True)
    if not len(classes):
        raise ValueError("labels must be of 1 sample or more, got none. Give the whole data set's.")
    share = ratio ** -(np.arange(len(classes)) / max(1, len(classes) - 1))
    wanted = (min(sizes.max(), most) * share + 1e-9).astype(int)
    if not wanted.all():
        most = min(int(sizes.max()), most)
        raise ValueError(
            f"imbalance must leave a sample of each class, got {imbalance}, which leaves none of "
            f"{int((wanted == 0).sum())} of {len(classes)} classes. Take at most {most}, the size "
            "of the first, or more samples."
        )
    kept = []
    for c, n in zip(classes, wanted, strict=True):
        members = np.flatnonzero(found == c)
        kept.append((members if generator is None else generator.permutation(members))[:n])
    return torch.from_numpy(np.sort(np.concatenate(kept)))


def _flat(labels: Tensor) -> Tensor:
    labels = as_tensor("labels", labels, "Give one class a sample.")
    if labels.ndim != 1:
        raise ValueError(
            f"labels must have shape (n,), got {tuple(labels.shape)}. Give one class a sample."
        )
    return labels
