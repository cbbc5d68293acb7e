"""The papers' tables, a module each."""

from tables import (
    ablations,
    combination,
    frontier,
    refinement,
    refining,
    sada,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
)
from tables.table import Row, Table

TABLES: dict[str, Table] = {
    "table1": table1.TABLE,
    "table1-caltech": table1.TABLE_CALTECH,
    "table2": table2.TABLE,
    "table3": table3.TABLE,
    "table4": table4.TABLE,
    "table4-tail": table4.TABLE_TAIL,
    "table4-svhn": table4.TABLE_SVHN,
    "table5": table5.TABLE,
    "table6": table6.TABLE,
    "table6-imagenet": table6.TABLE_IMAGENET,
    "refinement": refinement.TABLE,
    "switch-off": refining.TABLE_OFF,
    "fade": refining.TABLE_FADE,
    "longer": refining.TABLE_LONGER,
    "sada": sada.TABLE,
    "sada-window": sada.TABLE_WINDOW,
    "combination": combination.TABLE,
    "ablations": ablations.TABLE,
    "weights": ablations.TABLE_WEIGHTS,
    **frontier.FRONTIER,
}

__all__ = ["TABLES", "Row", "Table"]
