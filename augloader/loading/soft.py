"""What soft targets are: labels, smoothed labels, mixed labels, or several labels at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_soft(target: Any) -> bool:
    """Whether targets are rows of class probabilities."""
    return (
        isinstance(target, Tensor)
        and target.ndim == 2
        and target.is_floating_point()
        and target.shape[1] > 1
        and len(target) > 0
        and bool((target >= 0).all())
        and bool(((target.float().sum(1) - 1).abs() < 1e-2).all())
    )


def mixed_rows(target: Tensor) -> Tensor:
    """Return which rows of class probabilities mix classes, (b,) bool.

    One-hot rows do not, nor do smoothed ones, with one class above the rest and the rest equal. Of
    two classes no row tells smoothing from mixing: all that are not one-hot count as mixed, but
    where eight or more are soft alike. Mixing would leave some that have one class alone.
    """
    ordered = target.detach().float().sort(1, descending=True).values
    rest = ordered[:, 1:]
    even = (rest[:, 0] - rest[:, -1] < 1e-6) & (ordered[:, 0] > rest[:, 0])
    if target.shape[1] > 2:
        return ~even
    soft = rest[:, 0] > 0
    alike = bool((rest[:, 0] - rest[0, 0] < 1e-6).all() & (rest[0, 0] - rest[:, 0] < 1e-6).all())
    return soft & ~even if len(target) >= 8 and alike else soft


def is_mixed(target: Any) -> bool:
    """Whether some rows of targets mix classes; then images of all rows may be mixed."""
    return is_soft(target) and bool(mixed_rows(target).any())


def class_labels(target: Tensor) -> Tensor:
    """Return the class labels that one-hot or smoothed rows are of; labels as they are.

    Raises:
        ValueError: rows that mix classes, or that hold several labels.
    """
    if target.ndim != 2 or target.shape[1] < 2:
        return target
    if not is_soft(target if target.is_floating_point() else target.to(torch.float32)):
        raise ValueError(
            "target must be class labels where logits are given, got rows of shape "
            f"{tuple(target.shape)} that are no class probabilities. Of several labels a sample "
            "report a proxy of your own, as sigmoid(logits) - target, in place of logits: "
            "report(batch, loss=loss, proxy=proxy); a loss alone needs no target."
        )
    if mixed_rows(target).any():
        raise ValueError(
            "target must be class labels, or one-hot or smoothed rows, where batch.mixed is False, "
            "got rows that mix classes. If images were mixed outside of augloader, as by v2.MixUp, "
            "say so: report(batch, ..., mixed=True), or a (b,) bool tensor of the mixed rows. Of "
            "labels that were smoothed, report the labels: report(batch, ..., target=labels)."
        )
    return target.argmax(1)
