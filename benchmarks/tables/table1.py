"""Training on small augmented subsets alone, selected anew before every epoch."""

from __future__ import annotations

from recipe import Method

from tables.methods import CLEAN, STRATEGIES
from tables.table import Row, Table

PAPER = {  # images a class: random, max-loss, coreset
    5: ("33.5", "< 15", "37.8"),
    10: ("42.7", "< 15", "45.1"),
    25: ("58.7", "< 15", "63.9"),
    50: ("74.4", "< 15", "74.7"),
}

TABLE = Table(
    "Only an augmented subset",
    "Liu & Mirzasoleiman (2022), Table 1, CIFAR-10 / ResNet-20, R = 1. The same number of images a "
    "class; the reduced schedule chooses them from 500 a class, not 5,000.",
    tuple(
        Row(
            f"{kind}, {size} a class",
            CLEAN,
            Method(
                f"only-{kind}-{size}", STRATEGIES[kind], per_class=size, base="selected", refresh=1
            ),
            "" if kind == "random" else f"random, {size} a class",
            published,
        )
        for size, numbers in PAPER.items()
        for kind, published in zip(STRATEGIES, numbers, strict=True)
    ),
)
