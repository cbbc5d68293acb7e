"""How many samples are selected, and how many a base has: numbers, shares and their courses."""

from __future__ import annotations

from augloader.core.checks import require_fraction, require_int
from augloader.core.schedule import Course, Schedule
from augloader.selection.pruning import Pruning


def selected_share(
    n: int, fraction: Schedule | float | None, count: int | None, epochs: int | None
) -> Course | int:
    """Return how many samples to select: a number, or a course of the fraction."""
    if (fraction is None) == (count is None):
        raise ValueError(
            f"exactly one of fraction and count must be given, got fraction={fraction} and "
            f"count={count}. Pass fraction=0.3 or a number of samples."
        )
    if fraction is not None:
        advice = "To augment nothing schedule the strength or the probability."
        return _shares("fraction", fraction, epochs, advice)
    if require_int("count", count, 1, "Select at least one sample.") > n:
        raise ValueError(
            f"count must be at most the {n} samples of the dataset, got {count}. "
            "Select fewer, or all with fraction=1.0."
        )
    assert count is not None
    return int(count)


def base_share(
    n: int, base: object, fraction: Schedule | float | None, epochs: int | None
) -> Course | int | None:
    """Return the size of a base that has one: a number, or a course of its share."""
    chosen = not isinstance(base, str | Pruning)
    if fraction is None:
        if chosen:
            raise ValueError(
                f"base_fraction must be given with base={base!r}, got None. Pass the share of the "
                "data that an epoch draws, as 0.5, or a schedule of it."
            )
        return None
    if base != "random" and not chosen:
        raise ValueError(
            f'base_fraction must come with base="random" or a strategy, got base={base!r}. Leave '
            "it out."
        )
    course = _shares("base_fraction", fraction, epochs, "An epoch must draw some samples.")
    return course if callable(fraction) else size_of(n, course.at(0))


def _shares(name: str, fraction: Schedule | float, epochs: int | None, advice: str) -> Course:
    """Return the course of a share that is never 0."""
    if not callable(fraction):
        require_fraction(name, fraction)
    course = Course.of(name, fraction, epochs)
    if min(course.values) == 0:
        raise ValueError(
            f"{name} must be in (0, 1] at every epoch, got 0 at {course.values.index(0)}. {advice}"
        )
    return course


def size_of(n: int, fraction: float) -> int:
    """Return the number of samples that a share of the data is, at least 1."""
    return max(1, round(require_fraction("fraction", fraction) * n))
