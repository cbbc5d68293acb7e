"""Full data and strong copies of a subset, of a data set of 200 classes."""

from __future__ import annotations

from tables.methods import CLEAN, grid, subsets
from tables.table import Table

PAPER = {
    "20%": ("50.97", "51.30", "51.99"),
    "30%": ("52.00", "52.34", "54.30"),
    "50%": ("54.92", "53.37", "55.16"),
}

TABLE = Table(
    "All data, and strong copies of a subset, of 200 classes",
    "Liu & Mirzasoleiman (2022), Table 3, TinyImageNet / ResNet-50, R = 15: --dataset tinyimagenet "
    "--network resnet50 --refresh 15.",
    grid(CLEAN, subsets((0.2, 0.3, 0.5)), PAPER),
    data="tinyimagenet",
    networks=("resnet50",),
    alone=True,
)
