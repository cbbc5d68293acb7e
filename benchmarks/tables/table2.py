"""Training on augmented subsets alone, selected anew every fifth epoch, by augmentation."""

from __future__ import annotations

from tables.methods import CLEAN, alone
from tables.table import Row, Table

KINDS = ("random", "coreset")
PAPER = {  # random and ours, of 30, 40 and 50 %
    "cutout": (("43.32", "62.84", "76.21"), ("55.53", "66.10", "76.91")),
    "augmix": (("40.77", "61.81", "72.17"), ("52.72", "64.91", "73.01")),
    "perturb": (("48.51", "66.20", "75.34"), ("58.29", "67.47", "76.50")),
}
SHARES = (0.3, 0.4, 0.5)


def rows(policy: str) -> tuple[Row, ...]:
    """Return the rows of an augmentation, compared with the random subset of as many."""
    made = []
    for kind, numbers in zip(KINDS, PAPER[policy], strict=True):
        for share, number in zip(SHARES, numbers, strict=True):
            method = alone(kind, f"{policy} {share:.0%}", fraction=share, refresh=5, policy=policy)
            line = f"{policy}, {share:.0%}"
            against = "" if kind == "random" else f"random, {line}"
            made.append(Row(line, CLEAN, method, against, number, kind))
    return tuple(made)


TABLE = Table(
    "Only an augmented subset, by augmentation",
    "Liu & Mirzasoleiman (2022), Table 2, Caltech-256 / ResNet-18, R = 5: --dataset caltech256 "
    "--network resnet18.",
    tuple(row for policy in PAPER for row in rows(policy)),
    data="caltech256",
    networks=("resnet18",),
    alone=True,
)
