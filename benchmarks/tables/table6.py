"""A random subset, and strong copies of a selected one of the same size."""

from __future__ import annotations

from tables.methods import CLEAN, STRATEGIES, augmented
from tables.table import Row, Table

PAPER = {  # TinyImageNet
    0.1: ("28.64", "27.64", "30.90"),
    0.2: ("38.97", "41.40", "40.88"),
    0.3: ("44.10", "45.75", "46.42"),
}

TABLE = Table(
    "A random subset, and strong copies of another",
    "The shape of Liu & Mirzasoleiman (2022), Table 6: theirs is TinyImageNet / ResNet-50, R = 15. "
    "The random subset has the selection's size and is drawn anew with it.",
    tuple(
        Row(
            f"{kind}, {fraction:.0%}",
            CLEAN,
            augmented(kind, fraction, "-on-random", base="random"),
            "" if kind == "random" else f"random, {fraction:.0%}",
            published,
        )
        for fraction, numbers in PAPER.items()
        for kind, published in zip(STRATEGIES, numbers, strict=True)
    ),
)
