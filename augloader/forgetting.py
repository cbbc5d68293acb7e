"""Forgetting events: samples classified rightly at one visit and wrongly at the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augloader.strength import Columns, View


@dataclass(frozen=True)
class ForgettingEvents:
    """What ``augloader.Forgetting`` scores, counted in the sample table as strength rules learn.

    Only views with strength 0 count: others would count the augmentation, not the forgetting.

    Memory: 9 bytes a sample, visits included.

    Example:
        >>> events, rows = ForgettingEvents(), ForgettingEvents().start(1, classes=2)
        >>> right, wrong, label = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), [0]
        >>> for logits in (wrong, right, wrong, wrong, right, wrong):
        ...     rows = events.update(rows, losses=None, logits=logits, labels=torch.tensor(label))
        >>> events.counts(rows)
        tensor([2.])

    Source: Toneva et al. (2019), Alg. 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    view: ClassVar[View] = "clean"

    def start(self, n: int, classes: int) -> Columns:
        """Return the columns of n samples not yet seen: events, -1 before the first right one."""
        return {
            "events": torch.full((n,), -1, dtype=torch.int32),
            "right": torch.zeros(n, dtype=torch.bool),
        }

    def update(
        self, rows: Columns, *, losses: Tensor | None, logits: Tensor | None, labels: Tensor | None
    ) -> Columns:
        """Return the new rows of b samples from their old ones and a report."""
        assert logits is not None
        assert labels is not None
        right = logits.argmax(1) == labels
        events = rows["events"] + (rows["right"] & ~right)
        return {"events": torch.where(right, events.clamp(min=0), events).int(), "right": right}

    def counts(self, columns: Columns) -> Tensor:
        """Return the (n,) float32 events, -1 for samples that were never classified rightly."""
        return columns["events"].float()
