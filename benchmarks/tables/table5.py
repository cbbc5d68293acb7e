"""Full data with half of the labels wrong, and strong copies of a subset."""

from __future__ import annotations

from tables.methods import FULL, NOISY, WEAK, grid, subsets
from tables.table import Row, Table

PAPER = {
    "10%": ("72.32 ± 0.14", "71.83 ± 0.13", "73.02 ± 1.06"),
    "30%": ("74.46 ± 0.27", "72.45 ± 0.48", "74.67 ± 0.15"),
    "50%": ("75.36 ± 0.05", "73.23 ± 0.72", "76.20 ± 0.75"),
}

TABLE = Table(
    "Half of the labels wrong",
    "Liu & Mirzasoleiman (2022), Table 5, CIFAR-10 / ResNet-20, R = 20. Half of the labels are "
    "replaced by a random other one.",
    (
        Row("none", NOISY, WEAK, "", "70.72 ± 0.20"),
        Row("all", NOISY, FULL, "none", "75.87 ± 0.77"),
        *grid(NOISY, subsets((0.1, 0.3, 0.5)), PAPER),
    ),
    none="none",
    full="all",
)
