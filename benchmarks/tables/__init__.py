"""The papers' tables, a module each."""

from tables import (
    ablations,
    combination,
    frontier,
    refinement,
    sada,
    table1,
    table4,
    table5,
    table6,
)
from tables.table import Row, Table

TABLES: dict[str, Table] = {
    "table1": table1.TABLE,
    "table4": table4.TABLE,
    "table4-tail": table4.TABLE_TAIL,
    "table5": table5.TABLE,
    "table6": table6.TABLE,
    "refinement": refinement.TABLE,
    "sada": sada.TABLE,
    "combination": combination.TABLE,
    "ablations": ablations.TABLE,
    "weights": ablations.TABLE_WEIGHTS,
    **frontier.FRONTIER,
}

__all__ = ["TABLES", "Row", "Table"]
