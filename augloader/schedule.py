"""Schedules: when the selection is renewed."""

from __future__ import annotations

from dataclasses import dataclass

from augloader.checks import require_int


@dataclass(frozen=True)
class Every:
    """Select again every R epochs, for the first time after a warm-up of whole epochs.

    Selections are due at epochs warmup, warmup + R, warmup + 2 R, ... (epochs count from 0).

    Args:
        interval: R, the refresh interval in epochs, at least 1; None selects once and keeps that
            selection (scores are never updated).
        warmup: epochs before the first selection, trained without augmented copies; at least 0.

    Raises:
        TypeError: not integers.
        ValueError: out of range.

    Example:
        >>> [Every(2, warmup=1).period(epoch) for epoch in range(6)]
        [None, 0, 0, 1, 1, 2]
        >>> [Every(None, warmup=1).period(epoch) for epoch in range(6)]
        [None, 0, 0, 0, 0, 0]

    Source: R of Liu & Mirzasoleiman (2022), section 6.
    """

    interval: int | None
    warmup: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.interval is not None:
            require_int("interval", self.interval, 1, "Every(1) selects before every epoch.")
        require_int("warmup", self.warmup, 0, "Every(5, warmup=0) selects before the first epoch.")

    def period(self, epoch: int) -> int | None:
        """Return which refresh period an epoch lies in, counted from 0; None in the warm-up."""
        if epoch < self.warmup:
            return None
        return 0 if self.interval is None else (epoch - self.warmup) // self.interval
