"""Losses and proxies from reported logits and labels, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.core.checks import require_labels
from augloader.core.proxies import residual

_VALUES = 2**20  # logits at a time


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (n,) float32 cross-entropy of (n, C) logits and (n,) labels in [0, C).

    Example:
        >>> losses_of(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.6931])
    """
    labels = require_labels("labels", labels, len(logits), logits.shape[1])
    found = logits.new_empty(len(logits), dtype=torch.float32)
    for rows in _blocks(logits):
        found[rows] = F.cross_entropy(logits[rows].float(), labels[rows], reduction="none")
    return found


def proxies_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the (n, C) float32 residuals p - y of (n, C) logits and (n,) labels in [0, C).

    Cost: O(n C); beyond the result a block of rows.

    Example:
        >>> proxies_of(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[ 0.5000, -0.5000]])
    """
    found = torch.empty_like(logits, dtype=torch.float32)
    for rows in _blocks(logits):
        found[rows] = residual(logits[rows], labels[rows])
    return found


def _blocks(logits: Tensor) -> Iterator[slice]:
    size = max(1, _VALUES // max(1, logits.shape[1]))
    return (slice(start, start + size) for start in range(0, len(logits), size))
