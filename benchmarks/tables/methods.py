"""Problems and methods that several tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipe import Method, Problem

from augloader import FacilityLocation, Loss, Rank, Strategy, Uniform
from tables.table import Row

CLEAN = Problem("clean")
NOISY = Problem("noise", noise=0.5)
TAIL = Problem("tail", imbalance=10.0)

STRATEGIES: dict[str, Strategy] = {
    "random": Uniform(),
    "max-loss": Rank(Loss()),
    "coreset": FacilityLocation(),
}

WEAK = Method("weak")
FULL = Method("full", Uniform(), 1.0)  # a strong copy of every image, beside it
IN_PLACE = Method("in-place", Uniform(), 1.0, base="none")  # every image, strongly augmented


def augmented(kind: str, fraction: float, suffix: str = "", **changes: Any) -> Method:
    """Return the full data with strong copies of a fraction."""
    name = f"{kind}-{100 * fraction:g}{suffix}"
    return Method(name, **{"strategy": STRATEGIES[kind], "fraction": fraction, **changes})


def grid(
    problem: Problem,
    methods: Mapping[str, Mapping[str, Method]],
    papers: Mapping[str, Sequence[str]],
) -> tuple[Row, ...]:
    """Return a row for each line and strategy, compared with the line's random subset.

    Args:
        problem: of all rows.
        methods: of each line, by strategy.
        papers: of each line, what the paper says, in the order of ``STRATEGIES``.
    """
    return tuple(
        Row(
            line,
            problem,
            methods[line][kind],
            "" if kind == "random" else f"random, {line}",
            published,
            column=kind,
        )
        for line, numbers in papers.items()
        for kind, published in zip(STRATEGIES, numbers, strict=True)
    )


def subsets(
    fractions: Sequence[float], suffix: str = "", **changes: Any
) -> dict[str, dict[str, Method]]:
    """Return ``augmented`` of each fraction, a line, and strategy."""
    return {
        f"{fraction:.0%}": {
            kind: augmented(kind, fraction, suffix, **changes) for kind in STRATEGIES
        }
        for fraction in fractions
    }
