"""What a table is: rows with the paper's numbers beside, and which row is compared with which."""

from __future__ import annotations

from dataclasses import dataclass

from method import Method
from schedules import Problem


@dataclass(frozen=True)
class Row:
    """A result of a table.

    Attributes:
        line: what the reader sees at its left.
        against: label of the row, of the same problem, that it is compared with; or "".
        paper: what the paper's table says of it, in its own unit; or "".
        column: what the reader sees above it, where a line has several results; or "".
        everything: whether it augments everything: of a paired table's column, the best of these is
            what the others are compared with.
    """

    line: str
    problem: Problem
    method: Method
    against: str = ""
    paper: str = ""
    column: str = ""
    everything: bool = False

    @property
    def label(self) -> str:
        return f"{self.column}, {self.line}" if self.column else self.line


@dataclass(frozen=True)
class Table:
    """A table of a paper, or of our own.

    Attributes:
        source: which table of which paper, and how ours differs.
        none: label of the row without strong augmentation, where gains are of interest; or "".
        full: label of the row in which everything is strongly augmented.
        schedule: name of the only schedule that it is trained by; "": any of the papers' tables.
        paired: whether differences are of the same seeds, with their 95 % interval as spread.
        data: name of the data set that the paper's numbers are of.
        policy: strong augmentation that they are of.
        networks: that they are of; a smaller one of our own stands for them, another of the paper's
            does not.
        alone: whether it is reported of this data set only: another table has its rows of others.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    none: str = ""
    full: str = ""
    schedule: str = ""
    paired: bool = False
    data: str = "cifar10"
    policy: str = "trivial"
    networks: tuple[str, ...] = ("resnet20", "resnet32")
    alone: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns, in their order."""
        return list(dict.fromkeys(row.column for row in self.rows if row.column))

    @property
    def lines(self) -> list[str]:
        """The lines that have columns, in their order."""
        return list(dict.fromkeys(row.line for row in self.rows if row.column))

    def row(self, label: str) -> Row:
        """Return the row of a label."""
        return next(row for row in self.rows if row.label == label)
