"""Training on small augmented subsets alone, selected anew before every epoch."""

from __future__ import annotations

from method import Method

from tables.methods import CLEAN, STRATEGIES, chosen, grid, slug
from tables.table import Table

SIZES = (5, 10, 25, 50)
PAPER = {
    "5 a class": ("33.5", "< 15", "37.8"),
    "10 a class": ("42.7", "< 15", "45.1"),
    "25 a class": ("58.7", "< 15", "63.9"),
    "50 a class": ("74.4", "< 15", "74.7"),
}
METHODS = {
    f"{size} a class": {
        kind: Method(
            slug(f"only {kind} {size}"), **chosen(kind), per_class=size, base="selected", refresh=1
        )
        for kind in STRATEGIES
    }
    for size in SIZES
}

TABLE = Table(
    "Only an augmented subset",
    "Liu & Mirzasoleiman (2022), Table 1, CIFAR-10 / ResNet-20, R = 1. As many images a class, "
    "which the paper chooses from 5,000: --per-class 5000. There 5 a class are 0.1 %, a single "
    "step an epoch, 200 in all.",
    grid(CLEAN, METHODS, PAPER),
)
