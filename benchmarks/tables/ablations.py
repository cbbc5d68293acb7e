"""What of a coreset matters: one thing changed at a time."""

from __future__ import annotations

from augloader import FacilityLocation
from tables.methods import CLEAN, TAIL, augmented
from tables.table import Row, Table

SHARE = 0.1
DEFAULT = augmented("coreset", SHARE)
CHANGES = {
    "last-layer proxies": augmented("coreset", SHARE, "-last-layer", proxy="last layer"),
    "selected by what training reported": augmented("coreset", SHARE, "-free", free=True),
    "R = 1": augmented("coreset", SHARE, "-every-1", refresh=1),
    "R = 20": augmented("coreset", SHARE, "-every-20", refresh=20),
    "in place, not appended": augmented("coreset", SHARE, "-replacing", copies=0),
    "graph engine": augmented(
        "coreset", SHARE, "-graph", strategy=FacilityLocation(engine="graph")
    ),
    "stochastic greedy, 0.1": augmented(
        "coreset", SHARE, "-stochastic", strategy=FacilityLocation(stochastic=0.1)
    ),
}
EQUAL = augmented("coreset", SHARE, "-equal", strategy=FacilityLocation(allocation="equal"))

TABLE = Table(
    "What of a coreset matters",
    "Ours: the coreset of 10 % of Table 4, with one thing changed at a time, and cluster weights "
    "switched off at each size.",
    (
        Row("random, 10%", CLEAN, augmented("random", SHARE), "coreset, 10%"),
        Row("coreset, 10%", CLEAN, DEFAULT),
        *(Row(label, CLEAN, method, "coreset, 10%") for label, method in CHANGES.items()),
        *(
            row
            for fraction in (0.05, 0.1, 0.3)
            for row in (
                *(
                    []
                    if fraction == SHARE
                    else [Row(f"coreset, {fraction:.0%}", CLEAN, augmented("coreset", fraction))]
                ),
                Row(
                    f"{fraction:.0%}, all weights 1",
                    CLEAN,
                    augmented("coreset", fraction, "-unweighted", weighting="uniform"),
                    f"coreset, {fraction:.0%}",
                ),
            )
        ),
        Row("long tail: budgets in proportion", TAIL, DEFAULT),
        Row("long tail: equal budgets", TAIL, EQUAL, "long tail: budgets in proportion"),
    ),
)
