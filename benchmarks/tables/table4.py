"""Full data and strong copies of a subset: the share of full augmentation's gain."""

from __future__ import annotations

from recipe import Problem

from tables.methods import CLEAN, FULL, STRATEGIES, TAIL, WEAK, augmented
from tables.table import Row, Table

FRACTIONS = (0.05, 0.1, 0.3)
Shares = dict[str, tuple[str, ...]]
PAPER: Shares = {  # shares of the gain
    "random": ("21.8 %", "39.9 %", "65.6 %"),
    "max-loss": ("32.9 %", "47.8 %", "73.5 %"),
    "coreset": ("34.9 %", "51.5 %", "75.0 %"),
}
PAPER_TAIL: Shares = {
    "random": ("25.9 %", "45.2 %", "74.6 %"),
    "max-loss": ("31.3 %", "39.6 %", "74.6 %"),
    "coreset": ("37.4 %", "49.4 %", "74.8 %"),
}


def rows(problem: Problem, none: str, full: str, shares: Shares) -> tuple[Row, ...]:
    """Return the rows of one problem."""
    subsets = [
        Row(
            f"{kind}, {fraction:.0%}",
            problem,
            augmented(kind, fraction),
            "" if kind == "random" else f"random, {fraction:.0%}",
            shares[kind][i],
        )
        for i, fraction in enumerate(FRACTIONS)
        for kind in STRATEGIES
    ]
    return (Row("none", problem, WEAK, "", none), Row("all", problem, FULL, "none", full), *subsets)


TABLE = Table(
    "All data, and strong copies of a subset",
    "Liu & Mirzasoleiman (2022), Table 4, CIFAR-10 / ResNet-20, R = 20.",
    rows(CLEAN, "89.46", "93.50", PAPER),
    none="none",
    full="all",
)
TABLE_TAIL = Table(
    "The same with a long tail",
    "Liu & Mirzasoleiman (2022), Table 4, CIFAR-10-imbalanced / ResNet-32, R = 20. The paper does "
    "not say how imbalanced; here the largest class has 10 times the images of the smallest.",
    rows(TAIL, "87.08", "92.48", PAPER_TAIL),
    none="none",
    full="all",
)
