"""Coreset, strengths of SADA and refinement together, at full augmentation's epochs and time."""

from __future__ import annotations

from dataclasses import replace

from augloader import StableInfluence
from tables.methods import CLEAN, FULL, IN_PLACE, WEAK, augmented
from tables.table import Row, Table

ALL = "all, appended"
TOGETHER = augmented(
    "coreset", 0.3, "sada-refined", strength=StableInfluence(view="clean"), refined=True
)
HALF = replace(
    TOGETHER,
    name="coreset-30-on-half-sada-refined",
    base="random",
    base_fraction=0.5,
    epochs=0.9,
)

TABLE = Table(
    "Together: full augmentation's accuracy in a third of its time?",
    "Ours. All: a strong copy of every image beside it. Time is counted in images trained on: a "
    "third of all's is a third of its epochs, two thirds where each image is seen once an epoch, "
    "and 8 of 15 of the combination's.",
    (
        Row("none", CLEAN, WEAK, ALL),
        Row(ALL, CLEAN, FULL),
        Row("all, in place", CLEAN, IN_PLACE, ALL),
        Row("coreset, 30%", CLEAN, augmented("coreset", 0.3), ALL),
        Row("coreset × SADA × refinement", CLEAN, TOGETHER, ALL),
        Row(
            "the same, in all's time",
            CLEAN,
            replace(TOGETHER, name=f"{TOGETHER.name}-longer", epochs=1.6),
            ALL,
        ),
        Row(
            "a third: coreset × SADA × refinement",
            CLEAN,
            replace(TOGETHER, name=f"{TOGETHER.name}-third", epochs=8 / 15),
            ALL,
        ),
        Row("a third: the same beside half of the images", CLEAN, HALF, ALL),
        Row("a third: all, appended", CLEAN, replace(FULL, name="full-third", epochs=1 / 3), ALL),
        Row(
            "a third: all, in place",
            CLEAN,
            replace(IN_PLACE, name="in-place-third", epochs=2 / 3),
            ALL,
        ),
        Row("a third: none", CLEAN, replace(WEAK, name="weak-third", epochs=2 / 3), ALL),
    ),
)
