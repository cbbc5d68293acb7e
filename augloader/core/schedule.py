"""Schedules: how much of something an epoch has, and when the selection is renewed.

A schedule is a pure function of the epoch and the number of planned epochs with values in [0, 1].
Schedules compose by product, and a plain number is a schedule too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

from augloader.core.checks import require_int, require_number

Schedule = Callable[[int, int], float]  # (epoch, planned epochs) -> [0, 1]


class _Factor:
    """A schedule that can be multiplied by another, or by a number in [0, 1]."""

    def __mul__(self, other: Schedule | float) -> Product:
        """Return the schedule whose values are the products of both."""
        return Product(self, other)

    def __rmul__(self, other: Schedule | float) -> Product:
        """Return the schedule whose values are the products of both."""
        return Product(other, self)


@dataclass(frozen=True)
class Product(_Factor):
    """What ``first * second`` returns: the product of two schedules, of which one may be a number.

    Example:
        >>> [(WarmUp(2) * SwitchOff(1))(epoch, 4) for epoch in range(4)]
        [0.0, 0.5, 1.0, 0.0]
    """

    first: Any  # Schedule | float; mypy would take a function here for a method
    second: Any

    def __post_init__(self) -> None:
        """Check that numbers lie in [0, 1] and all else can be called."""
        for name in ("first", "second"):
            _require_schedule(name, getattr(self, name))

    def __call__(self, epoch: int, epochs: int) -> float:
        """Return the product of both values."""
        first, second = (
            part(epoch, epochs) if callable(part) else part for part in (self.first, self.second)
        )
        return float(first * second)


@dataclass(frozen=True)
class SwitchOff(_Factor):
    """Refinement: 1, and 0 for the last epochs of the training.

    With strong augmentation off for the last epochs, and weak augmentation kept, the training loss
    on clean data falls further while what augmentation taught remains. To refine on the data alone,
    without repetitions or weights of a selection, pass the sampler keep_unaugmented_copies=False.

    The learning rate stays yours. The paper's rule: with steps the refinement keeps the rate of the
    last stage, and with cosine decay it takes a small constant one.

    Args:
        last: number of epochs, 0 or more; at most as many as are planned.

    Raises:
        TypeError: not an integer.
        ValueError: below 0; when called, more than the planned epochs.

    Example:
        >>> [SwitchOff(2)(epoch, 5) for epoch in range(5)]
        [1.0, 1.0, 1.0, 0.0, 0.0]

    Source: He et al. (2019), section 3.4; the rate: section 4.1.
    """

    last: int

    def __post_init__(self) -> None:
        """Check the number."""
        require_int("last", self.last, 0, "SwitchOff(20) refines for 20 epochs.")

    def __call__(self, epoch: int, epochs: int) -> float:
        """Return 1.0 or 0.0."""
        return float(epoch < _begin(self.last, epoch, epochs))


@dataclass(frozen=True)
class _Fade(_Factor):
    """1, then over the last m epochs down to ``to``: to + (1 - to) left(t), t = 1/m, ..., 1."""

    last: int | None = None
    to: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.last is not None:
            require_int("last", self.last, 1, "20 fades over the last 20 epochs.")
        require_number("to", self.to, "[0, 1]", "0 fades out.")

    def __call__(self, epoch: int, epochs: int) -> float:
        """Return the value, in [to, 1]."""
        last = epochs if self.last is None else self.last
        over = max(0, epoch + 1 - _begin(last, epoch, epochs)) / last
        return self.to + (1 - self.to) * self._left(over)

    def _left(self, t: float) -> float:
        raise NotImplementedError


class Linear(_Fade):
    """Fade: 1, then over the last epochs down to ``to`` in equal steps.

    to + (1 - to) (1 - t) with t = 1/m, 2/m, ..., 1 in the last m epochs.

    Args:
        last: m, number of epochs, 1 or more; None fades from the first epoch on.
        to: the last epoch's value, in [0, 1].

    Raises:
        TypeError: not an integer, not a number.
        ValueError: out of range; when called, more than the planned epochs.

    Example:
        >>> [Linear(2, to=0.5)(epoch, 4) for epoch in range(4)]
        [1.0, 1.0, 0.75, 0.5]

    Source: He et al. (2019), section 4.1: as good as switching off in their experiments.
    """

    def _left(self, t: float) -> float:
        return 1 - t


class Cosine(_Fade):
    """Fade: 1, then over the last epochs down to ``to`` along half a cosine.

    to + (1 - to) (1 + cos(pi t)) / 2 with t = 1/m, 2/m, ..., 1 in the last m epochs.

    Args:
        last: m, number of epochs, 1 or more; None fades from the first epoch on.
        to: the last epoch's value, in [0, 1].

    Raises:
        TypeError: not an integer, not a number.
        ValueError: out of range; when called, more than the planned epochs.

    Example:
        >>> [round(Cosine(2)(epoch, 3), 9) for epoch in range(3)]
        [1.0, 0.5, 0.0]

    Source: the shape is that of Loshchilov & Hutter (2017), Eq. 5; fading: He et al. (2019), 4.1.
    """

    def _left(self, t: float) -> float:
        return (1 + math.cos(math.pi * t)) / 2


@dataclass(frozen=True)
class WarmUp(_Factor):
    """0 at first, then up in equal steps: epoch / m in the first m epochs, 1 from then on.

    Args:
        first: m, number of epochs, 0 or more; at most as many as are planned.

    Raises:
        TypeError: not an integer.
        ValueError: below 0; when called, more than the planned epochs.

    Example:
        >>> [WarmUp(2)(epoch, 4) for epoch in range(4)]
        [0.0, 0.5, 1.0, 1.0]

    Source: the gradual warm-up of Goyal et al. (2017), section 2.2, of augmentation for the rate.
    """

    first: int

    def __post_init__(self) -> None:
        """Check the number."""
        require_int("first", self.first, 0, "WarmUp(5) warms up for 5 epochs.")

    def __call__(self, epoch: int, epochs: int) -> float:
        """Return the value, in [0, 1]."""
        _begin(self.first, epoch, epochs)
        return 1.0 if epoch >= self.first else epoch / self.first


@dataclass(frozen=True)
class Course:
    """A schedule over planned epochs, computed and checked; ``at`` looks up.

    Attributes:
        values: one an epoch, or a single one for all.
        epochs: number of planned epochs; None: no end is planned.
    """

    values: tuple[float, ...]
    epochs: int | None

    @classmethod
    def of(cls, name: str, schedule: Schedule | float, epochs: int | None) -> Course:
        """Compute all values of a schedule, or raise what is wrong with it.

        Raises:
            TypeError: neither a number nor a function; a value that is no number.
            ValueError: values outside [0, 1], a function without planned epochs.
        """
        _require_schedule(name, schedule)
        if not callable(schedule):
            return cls((float(schedule),), epochs)
        if epochs is None:
            raise ValueError(
                f"epochs must be given with a schedule, got none for {name}={schedule!r}. Pass "
                "the number of epochs that you will train, as epochs=200."
            )
        values = [schedule(epoch, epochs) for epoch in range(epochs)]
        for epoch, value in enumerate(values):
            advice = f"That is its value at epoch {epoch} of {epochs}."
            require_number(name, value, "[0, 1]", advice)
        return cls(tuple(map(float, values)), epochs)

    def __str__(self) -> str:
        """Return the values in short, as "1.0 x 180, 0.0 x 20"; other values give another text."""
        runs = [f"{value} x {len(list(run))}" for value, run in groupby(self.values)]
        if len(runs) == 1:
            return str(self.values[0])
        text = ", ".join(runs)
        if len(text) <= 60:
            return text
        return f"{text[:60]}... ({sha256(text.encode()).hexdigest()[:12]})"

    def at(self, epoch: int) -> float:
        """Return an epoch's value.

        Raises:
            ValueError: an epoch that is not planned.
        """
        if self.epochs is not None:
            require_planned(epoch, self.epochs)
        return self.values[epoch] if len(self.values) > 1 else self.values[0]


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

    def begin(self, epoch: int) -> int:
        """Return the first epoch of an epoch's refresh period; 0 in the warm-up."""
        period = self.period(epoch)
        return 0 if period is None else self.warmup + period * (self.interval or 0)


def require_planned(epoch: int, epochs: int) -> None:
    """Raise ValueError unless the epoch is one of the planned ones."""
    if not 0 <= epoch < epochs:
        raise ValueError(
            f"epoch must be in [0, {epochs}), the planned epochs, got {epoch}. To train longer, "
            "plan more: epochs=..."
        )


def _require_schedule(name: str, schedule: object) -> None:
    if isinstance(schedule, type):
        raise TypeError(
            f"{name} must be a number or a schedule, got the class {schedule.__name__}. "
            f"Pass an instance, as {schedule.__name__}(20)."
        )
    if not callable(schedule):
        require_number(name, schedule, "[0, 1]", "Or pass a schedule, as SwitchOff(20).")


def _begin(last: int, epoch: int, epochs: int) -> int:
    """Return the first of the last epochs, once all numbers go together."""
    require_planned(epoch, epochs)
    if last > epochs:
        raise ValueError(
            f"a schedule must last at most the {epochs} planned epochs, got {last}. Plan more "
            "epochs, or fewer of them for it."
        )
    return epochs - last
