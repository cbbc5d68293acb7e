"""Losses and proxies from reported logits and labels, some rows at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.core.blocks import row_blocks
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
    for rows in row_blocks(len(logits), logits.shape[1], _VALUES):
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
    for rows in row_blocks(len(logits), logits.shape[1], _VALUES):
        found[rows] = residual(logits[rows], labels[rows])
    return found
