"""The paper's figures, drawn from a record alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from augloader import plot
from protocol.results import Record, interval

Row = Mapping[str, Any]

_REFINED = ("", " downweight", " update", " update downweight")
# By panel, the labels of each of its rows of axes: "<strategy> <score>".
PANELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "curves": tuple(  # Figs. 3 and 10
        (
            "uniform",
            *(
                f"{way}{kind} {score}"
                for score in ("loss", "influence")
                for way in ("", "inverse ")
            ),
            "support vectors",
        )
        for kind in ("proportional", "rank")
    ),
    "refined": tuple(  # Figs. 4, 9 and 10
        ("uniform", *(f"{kind}{way} {score}" for way in _REFINED), "uniform downweight")
        for kind in ("proportional", "rank")
        for score in ("loss", "influence")
    ),
    "margin": (  # Fig. 14
        (
            "uniform",
            "proportional influence",
            "proportional margin",
            "inverse proportional margin",
        ),
    ),
    "clusters": (  # Fig. 15
        (
            "uniform",
            "uniform clustered",
            "proportional influence",
            "proportional clustered influence",
            "proportional clustered loss",
        ),
    ),
    "kdpp": tuple(  # Fig. 16
        (
            "uniform",
            "proportional influence",
            *(f"k-DPP {kernel}{score}" for score in ("", " influence", " loss")),
        )
        for kernel in ("linear", "gaussian")
    ),
    "others": (  # not in the paper
        (
            "uniform",
            "proportional influence",
            "softmax influence",
            "softmax loss",
            "facility location",
        ),
    ),
}


def label_of(row: Row) -> str:
    return f"{row['strategy']} {row['score']}".removesuffix(" none")


def draw(record: Record, stem: Path, dpi: int = 80) -> list[Path]:
    """Draw all that a record has to ``<stem>-<panel>.png``; return these files."""
    written = []
    for name, figure in figures(record):
        path = stem.with_name(f"{stem.name}-{name}.png")
        figure.savefig(path, dpi=dpi)
        written.append(path)
    return written


def figures(record: Record) -> Iterator[tuple[str, Figure]]:
    """Yield each panel's name and figure; panels of which a record has nothing are left out."""
    found = record["transformations"]
    for name in PANELS:
        figure = curves(found, name)
        if figure is not None:
            yield name, figure
    for other, part in record.get("other_C", {}).items():
        figure = curves(part, "curves")
        if figure is not None:
            figure.suptitle(f"C = {other}", fontsize=10)
            yield f"curves-C{other}", figure
    scores = {name: part["scores"] for name, part in found.items() if "scores" in part}
    if not scores:  # a record of before they were kept
        return
    first = next(iter(scores.values()))
    before = {score: np.array(pair["before"]) for score, pair in reversed(first.items())}
    yield "scores", plot.scores(before, log=True)  # Figs. 1, 6 and 7
    for score in before:  # Figs. 2 and 8
        old, new = (
            {name: np.array(part[score][end]) for name, part in scores.items()}
            for end in ("before", "after")
        )
        yield f"drift-{score}", plot.drift(old, new, log=True)
    if "pictures" in record:  # Figs. 5 and 11 to 13
        yield "images", plot.extremes(before, Pictures(record["pictures"], len(before["loss"])))


def curves(found: Mapping[str, Any], panel: str) -> Figure | None:
    """Draw a panel's strategies, a column for each transformation; None where there are none."""
    present = {label_of(row) for part in found.values() for row in part["strategies"]}
    rows = [labels for labels in PANELS[panel] if len(present & {*labels} - {"uniform"}) > 0]
    if not rows or (panel != "curves" and not present & own_labels(panel)):
        return None
    figure = Figure(figsize=(4.4 * len(found), 3.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(found), squeeze=False)
    for line, labels in zip(grid, rows, strict=True):
        for axes, (name, part) in zip(line, found.items(), strict=True):
            by_label = {label_of(row): row for row in part["strategies"]}
            drawn = [by_label[label] for label in labels if label in by_label]
            for label in labels:
                if label in by_label:
                    add(axes, by_label[label], label, labels.index(label))
            for bound, colour in (("none", "tab:red"), ("full", "tab:green")):
                axes.axhline(100 * np.mean(part[bound]), color=colour, linestyle=":")
            if panel == "kdpp":  # where these are
                ends = [max(reached(row)[0]) for row in drawn if "k-DPP" in row["strategy"]]
                axes.set_xlim(-5, 1.05 * max(ends, default=1000))
            axes.set(title=name, xlabel="augmented points", ylabel="accuracy, %")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)
    return figure


def own_labels(panel: str) -> set[str]:
    """Return the labels that no panel before this one draws."""
    before = [name for name in PANELS if list(PANELS).index(name) < list(PANELS).index(panel)]
    earlier = {label for name in before for labels in PANELS[name] for label in labels}
    return {label for labels in PANELS[panel] for label in labels} - earlier


def add(axes: Axes, row: Row, label: str, place: int) -> None:
    """Draw a strategy's mean accuracies with their 95 % intervals, as a point where it is one."""
    colour = "tab:red" if label == "uniform" else f"C{(place - 1) % 10 + (place > 3)}"
    x, mean, half = reached(row)
    if len(x) == 1:
        axes.errorbar(x, mean, half, marker="*", markersize=9, color=colour, label=label)
        return
    style = ".--" if "inverse" in label else ".-"
    axes.plot(x, mean, style, color=colour, label=label)
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.1, linewidth=0)


def reached(row: Row) -> tuple[Any, Any, Any]:
    """Return the numbers of points, and the mean and half interval of the accuracy, in percent."""
    points = [key for key in row["mean"] if key != "auc"]
    if points:
        mean, half = 100 * np.array([[*row["mean"][key].values()] for key in points]).T
        return [*map(int, points)], mean, half
    # Another number in each round, as of support vectors: one point, at the mean number.
    pairs = [(int(k), 100 * accuracy) for walk in row["rounds"] for k, accuracy in walk.items()]
    size, accuracy = np.array(pairs, dtype=float).T
    one = interval(accuracy)
    return [float(size.mean())], np.array([one["mean"]]), np.array([one["half"]])


@dataclass(frozen=True)
class Pictures:
    """A round's training images, of which only those of extreme score are there."""

    encoded: Mapping[str, str]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        return Image.open(BytesIO(base64.b64decode(self.encoded[str(index)]))).convert("RGB")


def pictures(images: Tensor, scores: Mapping[str, Any], count: int = 10) -> dict[int, str]:
    """Return PNG files in base64 of the images of highest and lowest scores."""
    places: set[int] = set()
    for values in scores.values():
        order = np.argsort(values, kind="stable").tolist()
        places |= {*order[:count], *np.argsort(-values, kind="stable").tolist()[:count]}
    return {i: encoded(images[i]) for i in sorted(places)}


def encoded(image: Tensor) -> str:
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
