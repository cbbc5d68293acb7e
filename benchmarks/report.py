"""Make the papers' tables out of the results: in short, with all figures, and the picture.

    python benchmarks/report.py             print what goes into benchmarks/README.md
    python benchmarks/report.py --write     write it there, and the rest beside the results
    python benchmarks/report.py --name svhn --schedule paper --curves curves.png
                                            of another setting of papers.py, printed, and drawn

Accuracies are means after the last epoch ± the spread, the standard deviation over the seeds. A
difference is a tie where it is inside its spread, the root of both spreads' squares, and of fewer
than three seeds nothing is said. Of three seeds of two equal methods one pair in six would differ.
On the front differences are paired by seed, and in brackets stands their 95 % interval; they are to
the best of what augments everything, which is found in the same runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from records import RESULTS, SEEDS, Mean, Record, read
from schedules import FRONTIER, PAPER, REDUCED, SCHEDULES, SHORT
from setting import Setting, add_options, planned
from tables import TABLES, Row, Table
from tables.index import ENTRIES, Entry

README = Path(__file__).with_name("README.md")
DRAWN = {"table1", "table4", "table4-tail", "table5", "table6", "combination"}
CURVES = ("accuracy", "clean loss", "augmented loss")
BEGIN, END = "<!-- benchmarks/report.py writes from here -->", "<!-- to here -->"


class Report:
    """The tables of a setting, from what there is of their rows on disk."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.schedule = setting, setting.schedule

    @property
    def seconds(self) -> str:
        """Name of the unit of time."""
        runs = [r for t in self.tables.values() for row in t.rows if (r := self.record(row))]
        clocks = {run.environment["clock"] for record in runs for run in record.runs}
        return "GPU s" if clocks == {"wall"} else "CPU s"

    def record(self, row: Row) -> Record | None:
        """Return a row's record; None where it was not run."""
        record = read(self.setting.folder, row.problem, self.schedule, row.method)
        return record if record.runs else None

    def found(self, name: str) -> bool:
        """Return whether a table was run, at least half of it: rows of others are in it, too.

        Under another augmentation only rows count that have it.
        """
        table = self.setting.table(name)
        rows = table.rows
        if table.alone and table.data != self.setting.data:
            return False
        if self.setting.policy != "trivial":
            usual = {row.method.name for row in TABLES[name].rows}
            rows = tuple(row for row in rows if row.method.name not in usual)
        return bool(rows) and 2 * sum(self.record(row) is not None for row in rows) >= len(rows)

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that were run, by name."""
        return {name: self.setting.table(name) for name in TABLES if self.found(name)}

    def against(self, table: Table, row: Row) -> Row | None:
        """Return the row that a row is compared with, if any.

        In a paired table: of its column's rows that augment everything the most accurate one.
        """
        if not table.paired:
            return table.row(row.against) if row.against else None
        others = [other for other in table.rows if other.everything and other.column == row.column]
        found = [(r.accuracy.mean, i) for i, o in enumerate(others) if (r := self.record(o))]
        best = others[max(found)[1]] if found else row
        return None if best == row else best

    def difference(self, table: Table, row: Row) -> Mean | None:
        """Return how far a row lies above the one it is compared with."""
        other = self.against(table, row)
        own, its = self.record(row), self.record(other) if other else None
        if not (own and its):
            return None
        return own.beyond(its) if table.paired else own.accuracy.above(its.accuracy)

    def gain(self, table: Table, row: Row) -> str:
        """Return what share of full augmentation's gain a row has; "" where there is none."""
        if not table.none or row.label in (table.none, table.full):
            return ""
        none, full = (self.record(table.row(label)) for label in (table.none, table.full))
        own = self.record(row)
        if not (own and none and full):
            return ""
        whole, part = full.accuracy.above(none.accuracy), own.accuracy.above(none.accuracy)
        if whole.mean <= whole.spread or whole.n < SEEDS:
            return ""
        share, spread = 100 * part.mean / whole.mean, 100 * part.spread / whole.mean
        return f"{share:.0f} ± {spread:.0f} %".replace("-", "−")

    def cell(self, table: Table, row: Row) -> str:
        """Return a row's accuracy, marked by how it compares; its gain, and the paper's number."""
        record, compared = self.record(row), self.difference(table, row)
        if record is None:
            return f"not run [{row.paper}]" if row.paper else "not run"
        text, gain = percent(record.accuracy), self.gain(table, row)
        if compared is not None and not compared.tie:
            text = f"**{text}**" if compared.mean > 0 else f"_{text}_"
        text += f", {gain}" if gain else ""
        return f"{text} [{row.paper}]" if row.paper else text

    def short(self, table: Table) -> str:
        """Return a table as benchmarks/README.md has it: lines and columns of cells, or a list."""
        if not table.columns or table.paired:
            return self.listed(table)
        cells = {(row.line, row.column): self.cell(table, row) for row in table.rows}
        body = [[line, *(cells.get((line, c), "") for c in table.columns)] for line in table.lines]
        ends = [f"{row.line}: {self.cell(table, row)}" for row in table.rows if not row.column]
        text = markdown(["", *table.columns], body)
        return f"{text}\n\n{'; '.join(ends)}" if ends else text

    def listed(self, table: Table) -> str:
        """Return a table without columns: accuracy, difference, and what it costs."""
        heads = ["", "accuracy", "difference", "images trained", self.seconds, "of them selecting"]
        body = []
        for row in table.rows:
            record, compared = self.record(row), self.difference(table, row)
            if record is None:
                body.append([row.label, "not run", *[""] * (len(heads) - 2)])
                continue
            other = self.against(table, row)
            said = verdict(compared, table.paired) if compared else ""
            said += f" to {other.line}" if other and compared else ""
            selecting, whole = record.seconds("sweep", "select"), spent(record)
            body.append(
                [
                    row.label,
                    percent(record.accuracy),
                    said,
                    f"{record.rows:,.0f}",
                    f"{whole.mean:.0f}",
                    f"{selecting.mean:.1f}",
                ]
            )
        return markdown(heads, body)

    def long(self, table: Table) -> str:
        """Return every row of a table with all that was measured."""
        heads = [
            "",
            "accuracy",
            "seeds",
            "against",
            "difference",
            "gain",
            "paper",
            "images trained",
        ]
        heads += [
            "loading s",
            "augmenting s",
            "training s",
            "sweeping s",
            "selecting s",
            "strength",
        ]
        body = []
        for row in table.rows:
            record = self.record(row)
            if record is None:
                body.append([row.label, "not run", *[""] * (len(heads) - 2)])
                continue
            compared, gain = self.difference(table, row), self.gain(table, row)
            other = self.against(table, row)
            phases = ("load", "augment", "train", "sweep", "select")
            body.append(
                [
                    row.label,
                    percent(record.accuracy),
                    str(record.accuracy.n),
                    other.label if other else "",
                    verdict(compared, table.paired) if compared else "",
                    gain,
                    row.paper,
                    f"{record.rows:,.0f}",
                    *(f"{record.seconds(name).mean:.1f}" for name in phases),
                    f"{Mean.of(run.outcome.strength for run in record.runs).mean:.2f}",
                ]
            )
        return markdown(heads, body)

    def whole(self, full: bool) -> str:
        """Return all tables that were run, in short or in full."""
        made = self.long if full else self.short
        parts = [
            f"{'##' if full else '####'} {table.title}\n\n{table.source}\n\n{made(table)}\n"
            for table in self.tables.values()
        ]
        return "\n".join(parts)

    def picture(self) -> Figure:
        """Draw accuracy over the size of the subset, and over the images trained on."""
        tables = [table for name, table in self.tables.items() if name in DRAWN]
        columns = max(1, min(3, len(tables)))
        rows = max(1, -(-len(tables) // columns))
        figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for at in axes[len(tables) :]:
            at.remove()
        for at, table in zip(axes, tables, strict=False):
            draw = self.points if table.title == TABLES["combination"].title else self.lines
            draw(at, table)
            at.set_ylabel("accuracy, %")
            at.title.set_fontsize(10)
            at.grid(alpha=0.3)
        return figure

    def lines(self, at: Axes, table: Table) -> None:
        """Draw a line for each column of a table, side by side, and its other rows across."""
        sizes = table.lines
        for i, column in enumerate(table.columns):
            rows = [row for row in table.rows if row.column == column]
            found = [(sizes.index(row.line), r.accuracy) for row in rows if (r := self.record(row))]
            if not found:
                continue
            aside = 0.06 * (i - (len(table.columns) - 1) / 2)
            means, bars = [100 * m.mean for _, m in found], [100 * m.spread for _, m in found]
            at.errorbar([x + aside for x, _ in found], means, bars, capsize=3, label=column)
        for row in table.rows:
            record = self.record(row)
            if not row.column and record:
                height = 100 * record.accuracy.mean
                at.axhline(height, color="gray", linestyle=":")
                at.annotate(row.line, (-0.3, height), fontsize=8, va="bottom")
        at.set_xticks(range(len(sizes)), sizes)
        at.set_xlim(-0.35, len(sizes) - 0.65)
        at.set_title(table.title)
        at.legend(fontsize=8)

    def curves(self) -> Figure:
        """Draw every epoch's accuracy and losses of the runs that were watched, a panel a table."""
        watched = {}
        for name, table in self.tables.items():
            records = {row.label: self.record(row) for row in table.rows}
            found = {
                label: [run.outcome.curve for run in record.runs if run.outcome.watched]
                for label, record in records.items()
                if record
            }
            watched[name] = {label: curves for label, curves in found.items() if curves}
        watched = {name: found for name, found in watched.items() if found}
        if not watched:
            raise SystemExit("no run was watched: train with papers.py --watch")
        figure = Figure(figsize=(15, 4 * len(watched)), layout="constrained")
        panels = figure.subplots(len(watched), len(CURVES), squeeze=False)
        for line, (name, found) in zip(panels, watched.items(), strict=True):
            for at, kind in zip(line, CURVES, strict=True):
                for label, curves in found.items():
                    at.plot(np.mean([curve[kind] for curve in curves], 0), label=label)
                at.set(title=f"{name}: {kind}", xlabel="epoch")
                at.grid(alpha=0.3)
            line[-1].legend(fontsize=7)
        return figure

    def points(self, at: Axes, table: Table) -> None:
        """Draw each row of a table at the images that it trained on."""
        for row, marker in zip(table.rows, "os^vD*XP<>h", strict=False):
            record = self.record(row)
            if record:
                place = (record.rows / 1000, 100 * record.accuracy.mean)
                spread = 100 * record.accuracy.spread
                at.errorbar(*place, spread, fmt=marker, capsize=3, label=row.line)
        at.set_xlabel("thousand images trained on")
        at.set_title("Together")
        at.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def spent(record: Record) -> Mean:
    """Return a run's seconds without the evaluation."""
    return record.seconds("load", "augment", "train", "sweep", "select")


def percent(found: Mean) -> str:
    """Write an accuracy in percent, with the number of seeds where it is not the usual one."""
    text = f"{100 * found.mean:.1f}"
    text += f" ± {100 * found.spread:.1f}" if found.n > 1 else ""
    return text if found.n == SEEDS else f"{text} ({found.n} seed{'s' * (found.n > 1)})"


def verdict(difference: Mean, paired: bool = False) -> str:
    """Write a difference in points, of pairs with its interval, and whether it is a tie."""
    text = f"{100 * difference.mean:+.1f}"
    if paired and difference.n > 1:
        ends = (difference.mean - difference.spread, difference.mean + difference.spread)
        text += " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in ends))
    return text.replace("-", "−") + " (tie)" * (difference.tie and difference.n >= SEEDS)


def markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings(folder: Path = RESULTS) -> dict[str, Setting]:
    """Return what benchmarks/README.md shows."""
    reduced = Setting("cifar10", REDUCED, output=folder)
    return {
        "On a CPU, by the reduced schedule": reduced,
        "The same with the 4 hardest of 8 versions": replace(reduced, policy="highest-loss"),
        "The same with AugMix": replace(reduced, policy="augmix"),
        "The front: the best accuracy at each cost": replace(reduced, schedule=FRONTIER),
        "By the papers' schedule": replace(reduced, schedule=PAPER),
    }


def index(folder: Path = RESULTS) -> str:
    """Return what runs each table and figure of the papers, and what came out."""
    reduced = settings(folder)["On a CPU, by the reduced schedule"]

    def ours(entry: Entry) -> str:
        if entry.shown is None:
            return f"not run: {entry.without}"
        place, what = entry.shown
        if not isinstance(what, str):
            file = folder.parent / place
            found = what(json.loads(file.read_text())) if file.exists() else "not run yet"
            return f"{entry.size}: {found}"
        schedule = SCHEDULES.get(TABLES[place].schedule, reduced.schedule)
        report = Report(replace(reduced, policy=entry.policy, schedule=schedule))
        table = report.setting.table(place)
        row = table.row(what)
        cell = report.cell(table, replace(row, paper="")).strip("*_")
        return f"{entry.size}: {what}: {cell}" if report.record(row) else "not run yet"

    heads = ["paper", "table or figure", "command", "here", "the paper"]
    body = [[e.paper, e.place, e.command, ours(e), e.paper_says] for e in ENTRIES]
    return markdown(heads, body)


def section(folder: Path = RESULTS) -> str:
    """Return what goes into benchmarks/README.md: the tables that were run."""
    parts = [f"### Every table and figure of the papers\n\n{index(folder)}\n"]
    for title, setting in settings(folder).items():
        report = Report(setting)
        if report.tables:
            parts.append(f"### {title}\n\n{report.whole(full=False)}")
    return "\n".join(parts)


def written(text: str, new: str) -> str:
    """Return a text with what lies between the marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(
            f"benchmarks/README.md must have the lines {BEGIN!r} and {END!r}. Add them."
        )
    return f"{before}{BEGIN}\n\n{new}\n{END}{after}"


PNG = "curves.png"
ADVICE = "Give --name and the other options of a setting as they were given to papers.py."


def _nothing(setting: Setting) -> str:
    """Return what to do where a setting has no results."""
    place = setting.folder / setting.schedule.name
    found = sorted({str(path.parent) for path in setting.output.glob("*/*/*.json")})
    there = ", ".join(found) or "none"
    return (
        f"no tables of which half is run under --policy {setting.policy} in {place}. Results are "
        f"in {there}. {ADVICE}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--write", action="store_true", help="into benchmarks/README.md and beside the results"
    )
    parser.add_argument("--curves", type=Path, help="file of a picture of every epoch's accuracy")
    add_options(parser)
    options = parser.parse_args(argv)
    usual = planned(SCHEDULES[options.schedule or "reduced"], options)
    named = options.name or (None if options.dataset == "folder" else options.dataset)
    one = usual.name != "reduced" or options.policy != "trivial" or options.curves
    if named or options.schedule or one:
        if options.write:
            parser.error("argument --write: of all settings, not with options of one")
        known = Figure().canvas.get_supported_filetypes()
        if options.curves and options.curves.suffix[1:] not in known:
            parser.error(f"argument --curves: must end with a picture's format, as {PNG}")
        setting = Setting(named or "cifar10", usual, options.policy, options.output)
        report = Report(setting)
        if not report.tables:
            raise SystemExit(_nothing(setting))
        print(report.whole(full=True))
        if options.curves:
            report.curves().savefig(options.curves, dpi=100)
        return
    text = section(options.output)
    print(text)
    if not options.write:
        return
    shown = settings(options.output)
    reduced = shown["On a CPU, by the reduced schedule"]
    others = replace(reduced, schedule=SHORT), replace(reduced, data="digits")
    for setting in (*shown.values(), *others):
        report = Report(setting)
        if report.tables and setting.policy == "trivial":
            place = setting.folder / setting.schedule.name
            if DRAWN & report.tables.keys():
                report.picture().savefig(place / "tables.png", dpi=100)
            (place / "README.md").write_text(f"# All figures\n\n{report.whole(full=True)}")
    README.write_text(written(README.read_text(), text))


if __name__ == "__main__":
    main()
