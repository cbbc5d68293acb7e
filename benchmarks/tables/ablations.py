"""What of a coreset matters: one thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from method import Method

from augloader import FacilityLocation
from augloader.loading import Weighting
from tables import table1
from tables.methods import CLEAN, TAIL, augmented, slug
from tables.table import Row, Table

SHARE = 0.1
DEFAULT = augmented("coreset", SHARE)
ALONE = table1.METHODS["10 a class"]
Changes = dict[str, dict[str, Any]]
CHANGES: Changes = {
    "R = 5": {"refresh": 5},
    "R = 20": {"refresh": 20},
    "last-layer proxies": {"proxy": "last layer"},
    "graph engine": {"strategy": FacilityLocation(engine="graph")},
    "stochastic greedy, 0.1": {"strategy": FacilityLocation(stochastic=0.1)},
}
BESIDE_CHANGES: Changes = {
    "selected by what training reported": {"free": True},
    "in place, not appended": {"copies": 0},
    "R = 1": {"refresh": 1},
    **CHANGES,
}
ALONE_CHANGES: Changes = {
    **CHANGES,
    "R = 100": {"refresh": 100},
    "cropped and flipped only": {"policy": None},
    "stochastic greedy, 0.5": {"strategy": FacilityLocation(stochastic=0.5)},
}
WEIGHTS: tuple[tuple[str, str, Weighting], ...] = (
    ("all 1", "", "uniform"),
    ("cluster sizes", "weighted", "cluster"),
    ("Eq. 10 as it reads", "population", "population"),
)
EQUAL = augmented("coreset", SHARE, "equal", strategy=FacilityLocation(allocation="equal"))


def changed(method: Method, changes: Changes, against: str, prefix: str = "") -> tuple[Row, ...]:
    """Return a row for each change of a method, compared with the method itself."""
    return tuple(
        Row(
            f"{prefix}{label}",
            CLEAN,
            replace(method, name=f"{method.name}-{slug(label)}", **change),
            against,
        )
        for label, change in changes.items()
    )


TABLE = Table(
    "What of a coreset matters",
    "Ours: the 10 % coreset of Table 4 with one thing changed at a time, and then the one of Table "
    "1 that is trained on alone, 10 images a class, selected anew every R = 1 epochs.",
    (
        Row("coreset", CLEAN, DEFAULT),
        Row("random", CLEAN, augmented("random", SHARE), "coreset"),
        *changed(DEFAULT, BESIDE_CHANGES, "coreset"),
        Row("long tail, budgets in proportion", TAIL, DEFAULT),
        Row("long tail, equal budgets", TAIL, EQUAL, "long tail, budgets in proportion"),
        Row("alone: coreset", CLEAN, ALONE["coreset"]),
        Row("alone: random", CLEAN, ALONE["random"], "alone: coreset"),
        *changed(ALONE["coreset"], ALONE_CHANGES, "alone: coreset", "alone: "),
    ),
)
TABLE_WEIGHTS = Table(
    "Weights on and off",
    "Ours: the coresets of Table 4. Their copies weigh 1, as the base; or the size of their "
    "cluster, 1 on average; or as in Eq. 10, the copies together as much as all the base.",
    tuple(
        Row(
            f"{fraction:.0%}",
            CLEAN,
            augmented("coreset", fraction, suffix, weighting=weighting),
            f"all 1, {fraction:.0%}" if suffix else "",
            column=column,
        )
        for fraction in (0.05, 0.1, 0.3)
        for column, suffix, weighting in WEIGHTS
    ),
)
