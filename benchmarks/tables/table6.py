"""A random subset, and strong copies of a selected one of the same size."""

from __future__ import annotations

from tables.methods import CLEAN, grid, subsets
from tables.table import Table

PAPER = {  # TinyImageNet
    "10%": ("28.64", "27.64", "30.90"),
    "20%": ("38.97", "41.40", "40.88"),
    "30%": ("44.10", "45.75", "46.42"),
}
PAPER_IMAGENET = {
    "10%": ("63.67", "65.43", "68.53"),
    "30%": ("70.39", "71.55", "71.99"),
    "50%": ("72.35", "72.77", "73.28"),
}

TABLE = Table(
    "A random subset, and strong copies of another",
    "The shape of Liu & Mirzasoleiman (2022), Table 6: theirs is TinyImageNet / ResNet-50, R = 15. "
    "The random subset has the selection's size and is drawn anew with it.",
    grid(CLEAN, subsets((0.1, 0.2, 0.3), "on-random", base="random"), PAPER),
    data="tinyimagenet",
    networks=("resnet50",),
)
TABLE_IMAGENET = Table(
    "The same of ImageNet",
    "Liu & Mirzasoleiman (2022), Table 6, ImageNet / ResNet-50, 90 epochs, R = 15.",
    grid(CLEAN, subsets((0.1, 0.3, 0.5), "on-random", base="random"), PAPER_IMAGENET),
    data="imagenet",
    networks=("resnet50",),
    alone=True,
)
