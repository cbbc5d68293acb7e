"""Problems and methods that several tables share."""

from __future__ import annotations

from typing import Any

from recipe import Method, Problem

from augloader import FacilityLocation, Loss, Rank, Strategy, Uniform

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
