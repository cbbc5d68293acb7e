"""Full data and strong copies of a subset: the share of full augmentation's gain."""

from __future__ import annotations

from dataclasses import replace

from method import Method
from schedules import Problem

from tables.methods import CLEAN, FULL, STRATEGIES, TAIL, WEAK, grid, subsets
from tables.table import Row, Table

FRACTIONS = (0.05, 0.1, 0.3)
METHODS = subsets(FRACTIONS)
WEIGHTED = subsets(FRACTIONS, kinds=tuple(STRATEGIES))
PLAIN = replace(FULL, name="full-plain", policy=None)
Shares = dict[str, tuple[str, str, str]]
PAPER: Shares = {  # shares of the gain
    "5%": ("21.8 %", "32.9 %", "34.9 %"),
    "10%": ("39.9 %", "47.8 %", "51.5 %"),
    "30%": ("65.6 %", "73.5 %", "75.0 %"),
}
PAPER_TAIL: Shares = {
    "5%": ("25.9 %", "31.3 %", "37.4 %"),
    "10%": ("45.2 %", "39.6 %", "49.4 %"),
    "30%": ("74.6 %", "74.6 %", "74.8 %"),
}

PAPER_SVHN: Shares = {
    "5%": ("5.8 %", "35.3 %", "31.7 %"),
    "10%": ("36.7 %", "49.7 %", "48.3 %"),
    "30%": ("64.1 %", "76.4 %", "80.0 %"),
}


def rows(
    problem: Problem, methods: dict[str, dict[str, Method]], none: str, full: str, shares: Shares
) -> tuple[Row, ...]:
    """Return the rows of one problem."""
    ends = (Row("none", problem, WEAK, "", none), Row("all", problem, FULL, "none", full))
    return (*ends, *grid(problem, methods, shares))


TABLE = Table(
    "All data, and strong copies of a subset",
    "Liu & Mirzasoleiman (2022), Table 4, CIFAR-10 / ResNet-20, R = 20. As in the paper the number "
    "of epochs is the same, so that copies are more steps, too: hence a row whose copies are only "
    "cropped and flipped. Coresets weigh 1, or the size of their cluster, 1 on average. The "
    "paper's numbers are of the hardest of several versions, --policy highest-loss.",
    (
        *rows(CLEAN, WEIGHTED, "89.46", "93.50", PAPER),
        Row("all, copies plain", CLEAN, PLAIN, "none"),
    ),
    none="none",
    full="all",
    policy="highest-loss",
)
TABLE_TAIL = Table(
    "The same with a long tail",
    "Liu & Mirzasoleiman (2022), Table 4, CIFAR-10-imbalanced / ResNet-32, R = 20. The paper does "
    "not say how imbalanced; here the largest class has 10 times the images of the smallest.",
    rows(TAIL, METHODS, "87.08", "92.48", PAPER_TAIL),
    none="none",
    full="all",
    policy="highest-loss",
)
TABLE_SVHN = Table(
    "The same of house numbers",
    "Liu & Mirzasoleiman (2022), Table 4, SVHN / ResNet-32, R = 20: --dataset svhn.",
    rows(CLEAN, METHODS, "95.68", "97.07", PAPER_SVHN),
    none="none",
    full="all",
    data="svhn",
    alone=True,
    policy="highest-loss",
)
