"""Problems and methods that several tables share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from method import Method
from schedules import Problem

from augloader import FacilityLocation, Loss, Rank, Strategy, Uniform
from augloader.loading import Weighting
from tables.table import Row

CLEAN = Problem("clean")
NOISY = Problem("noise", noise=0.5)
TAIL = Problem("tail", imbalance=10.0)

STRATEGIES: dict[str, Strategy] = {
    "random": Uniform(),
    "max-loss": Rank(Loss()),
    "coreset": FacilityLocation(),
    "coreset, weighted": FacilityLocation(),
}
PLAIN = ("random", "max-loss", "coreset")  # as the papers have
WEIGHTING: dict[str, Weighting] = {"coreset": "uniform"}  # random and max-loss weigh 1 anyway

WEAK = Method("weak")
FULL = Method("full", Uniform(), 1.0)  # a strong copy of every image, beside it
IN_PLACE = Method("in-place", Uniform(), 1.0, base="none")  # every image, strongly augmented


def slug(label: str) -> str:
    """Return a label as a method's name has it: its words and numbers, joined by hyphens."""
    return "-".join(re.findall("[a-z0-9]+", label.lower()))


def chosen(kind: str) -> dict[str, Any]:
    """Return the strategy of a kind, and how its copies weigh."""
    return {"strategy": STRATEGIES[kind], "weighting": WEIGHTING.get(kind, "cluster")}


def alone(kind: str, what: str, **changes: Any) -> Method:
    """Return an augmented subset alone."""
    return Method(slug(f"only {kind} {what}"), **chosen(kind), base="selected", **changes)


def augmented(kind: str, fraction: float, suffix: str = "", **changes: Any) -> Method:
    """Return the full data with strong copies of a fraction."""
    name, _, weighted = kind.partition(", ")
    return Method(
        "-".join([name, f"{100 * fraction:g}", *filter(None, (weighted, suffix))]),
        **{**chosen(kind), "fraction": fraction, **changes},
    )


def grid(
    problem: Problem,
    methods: Mapping[str, Mapping[str, Method]],
    papers: Mapping[str, Sequence[str]],
) -> tuple[Row, ...]:
    """Return a row for each line and strategy, compared with the line's random subset.

    Args:
        problem: of all rows.
        methods: of each line, by strategy.
        papers: of each line, what the paper says of random, max-loss and its coreset.
    """
    return tuple(
        Row(
            line,
            problem,
            method,
            "" if kind == "random" else f"random, {line}",
            dict(zip(STRATEGIES, papers[line], strict=False)).get(kind, ""),
            column=kind,
        )
        for line, found in methods.items()
        for kind, method in found.items()
    )


def subsets(
    fractions: Sequence[float], suffix: str = "", kinds: Sequence[str] = (), **changes: Any
) -> dict[str, dict[str, Method]]:
    """Return ``augmented`` of each fraction, a line, and strategy, all but weighted by default."""
    return {
        f"{fraction:.0%}": {
            kind: augmented(kind, fraction, suffix, **changes) for kind in kinds or PLAIN
        }
        for fraction in fractions
    }
