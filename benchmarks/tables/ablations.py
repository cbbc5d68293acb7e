"""What of a coreset matters: one thing changed at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from augloader import FacilityLocation
from augloader.sampler import Weighting
from tables import table1
from tables.methods import CLEAN, TAIL, augmented, slug
from tables.table import Row, Table

SHARE = 0.1
DEFAULT = augmented("coreset", SHARE)
CHANGES = {
    "last-layer proxies": augmented("coreset", SHARE, "last-layer", proxy="last layer"),
    "selected by what training reported": augmented("coreset", SHARE, "free", free=True),
    "R = 1": augmented("coreset", SHARE, "every-1", refresh=1),
    "R = 5": augmented("coreset", SHARE, "every-5", refresh=5),
    "R = 20": augmented("coreset", SHARE, "every-20", refresh=20),
    "in place, not appended": augmented("coreset", SHARE, "replacing", copies=0),
    "graph engine": augmented("coreset", SHARE, "graph", strategy=FacilityLocation(engine="graph")),
    "stochastic greedy, 0.1": augmented(
        "coreset", SHARE, "stochastic", strategy=FacilityLocation(stochastic=0.1)
    ),
}
ALONE = table1.METHODS["10 a class"]
ALONE_CHANGES: dict[str, dict[str, Any]] = {
    "last-layer proxies": {"proxy": "last layer"},
    "R = 5": {"refresh": 5},
    "R = 20": {"refresh": 20},
    "R = 100": {"refresh": 100},
    "graph engine": {"strategy": FacilityLocation(engine="graph")},
    "stochastic greedy, 0.1": {"strategy": FacilityLocation(stochastic=0.1)},
    "stochastic greedy, 0.5": {"strategy": FacilityLocation(stochastic=0.5)},
}
WEIGHTS: tuple[tuple[str, str, Weighting], ...] = (
    ("all 1", "", "uniform"),
    ("cluster sizes", "weighted", "cluster"),
    ("Eq. 10 as it reads", "population", "population"),
)
EQUAL = augmented("coreset", SHARE, "equal", strategy=FacilityLocation(allocation="equal"))

TABLE = Table(
    "What of a coreset matters",
    "Ours: the 10 % coreset of Table 4 with one thing changed at a time, and then the one of Table "
    "1 that is trained on alone, 10 images a class, selected anew every R = 1 epochs.",
    (
        Row("coreset", CLEAN, DEFAULT),
        Row("random", CLEAN, augmented("random", SHARE), "coreset"),
        *(Row(label, CLEAN, method, "coreset") for label, method in CHANGES.items()),
        Row("long tail, budgets in proportion", TAIL, DEFAULT),
        Row("long tail, equal budgets", TAIL, EQUAL, "long tail, budgets in proportion"),
        Row("alone: coreset", CLEAN, ALONE["coreset"]),
        Row("alone: random", CLEAN, ALONE["random"], "alone: coreset"),
        *(
            Row(
                f"alone: {label}",
                CLEAN,
                replace(ALONE["coreset"], name=slug(f"only coreset 10 {label}"), **change),
                "alone: coreset",
            )
            for label, change in ALONE_CHANGES.items()
        ),
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
