"""Where values are drawn: at ascending epochs, as shares of a selection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

N = TypeVar("N", int, float)


def ascending(name: str, given: Sequence[N], count: int, advice: str, each: str = "") -> list[N]:
    """Return as many ascending places as there are values, or raise.

    Args:
        name: the argument's.
        given: places, as epochs.
        count: how many values there are.
        advice: what to do about others, a sentence.
        each: what each is of, as ", one a selection".

    Raises:
        ValueError: another number, or not ascending.
    """
    places = list(given)
    if len(places) != count or any(b <= a for a, b in pairwise(places)):
        raise ValueError(f"{name} must be {count} ascending ones{each}, got {places}. {advice}")
    return places


def of_refreshes(axes: Axes, title: str, counted: bool) -> None:
    """Dress an axes of shares of each refresh's selection, which are counted or have epochs."""
    what = "refresh" if counted else "epoch of the refresh"
    axes.set(ylim=(-0.03, 1.03), xlabel=what, ylabel="share of the samples selected")
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(alpha=0.3)
    axes.legend()
