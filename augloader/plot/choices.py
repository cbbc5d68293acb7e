"""Pictures of selections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from augloader.core.checks import require_dataset, require_int, require_labels
from augloader.core.evidence import Selection
from augloader.plot.pixels import aspect, pick, show
from augloader.plot.places import ascending, of_refreshes
from augloader.selection.facility import Coreset
from augloader.summary import called, number

_INCH = 1.1  # the longest side of the heaviest medoid's picture: the unit of the montage
_LEAST, _GAP, _TEXT, _LEFT, _TOP = 0.27, 0.08, 0.2, 1.1, 0.4  # in units


def medoids(
    selection: Selection,
    images: Any,
    labels: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    rows: int = 10,
    columns: int = 12,
) -> Figure:
    """Draw the heaviest medoids, each picture's area in proportion to its weight.

    Args:
        selection: of these images.
        images: (n, C, H, W) tensor of 1 or 3 channels, uint8 or floating in [0, 1]; or a map-style
            dataset of such images or of PIL's, alone or as the first field of its items. A
            WeightedAugmentedDataset is shown before any transform.
        labels: (n,) integer, 0 or more: a row for each class; None fills the rows in turn.
        names: of the classes; None takes their numbers.
        rows: how many rows at most; classes beyond them are left out.
        columns: how many pictures a row has at most, the heaviest first.

    Returns:
        A figure with one axes; the weight, the number of samples stood for, below each picture.

    Raises:
        TypeError: images or labels of a wrong type.
        ValueError: values or shapes other than these; fewer images, labels or names than the
            selection needs.

    Cost: reads and draws at most rows x columns images.

    Example:
        >>> images = torch.rand(5, 1, 8, 8)
        >>> selection = Selection(torch.tensor([4, 0]), torch.tensor([4.0, 1.0]))
        >>> figure = medoids(selection, images)
        >>> [part.get_extent()[1] - part.get_extent()[0] for part in figure.axes[0].images]
        [1.0, 0.5]
    """
    n = require_dataset(images)
    require_int("rows", rows, 1, "Draw at least one row.")
    require_int("columns", columns, 1, "Draw at least one picture a row.")
    last = int(selection.indices.max())
    if last >= n:
        raise ValueError(
            f"images must be those that were selected from, at least {last + 1}, got {n}. Pass the "
            "whole dataset."
        )
    groups = _rows(selection, labels, n, names, columns)
    shown = groups[:rows]
    weights, indices = selection.weights.tolist(), selection.indices.tolist()
    pictures = {p: pick(images, indices[p]) for _, places in shown for p in places}
    scale = max((weights[p] * aspect(x) ** sign) for p, x in pictures.items() for sign in (1, -1))
    sides = {  # width and height: their product is in proportion to the weight
        p: tuple((weights[p] * aspect(x) ** sign / scale) ** 0.5 for sign in (1, -1))
        for p, x in pictures.items()
    }
    figure = Figure()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    y, width = _TOP, 6.0
    for name, places in shown:
        height, x = (
            max([_LEAST, *(sides[p][1] for p in places)]),
            _LEFT if labels is not None else _GAP,
        )
        axes.text(_GAP, y + height / 2, name, va="center", fontsize=8)
        for p in places:
            w, h = sides[p]
            cell = max(w, _LEAST)
            left, bottom = x + (cell - w) / 2, y + height
            show(axes, pictures[p], extent=(left, left + w, bottom, bottom - h))
            axes.text(
                x + cell / 2, bottom + 0.03, number(weights[p]), ha="center", va="top", fontsize=7
            )
            x += cell + _GAP
        y, width = y + height + _TEXT + _GAP, max(width, x)
    axes.text(_GAP, _TOP / 2, _title(selection, shown, groups, labels), va="center", fontsize=9)
    axes.set(xlim=(0, width), ylim=(y, 0))
    axes.set_axis_off()
    figure.set_size_inches(width * _INCH, y * _INCH)
    return figure


def coverage(selection: Selection, *, points: int = 30) -> Figure:
    """Draw coverage against the budget, with what no other selection of its shape can exceed.

    Every point is a selection of its own, ``selection.first(budget)``, with its own certificate:
    above its coverage and its bound, both as shares of the whole selection's bound, and below
    their ratio, the share of the best possible that is reached for certain. The bound is for
    selections of as many samples of each class, where classes were selected one by one.

    Args:
        selection: of FacilityLocation, with its certificate.
        points: number of budgets at most, from one a class to the selection's own.

    Returns:
        A figure with two axes.

    Raises:
        ValueError: a selection without certificate or nested order, fewer than 1 point.

    Cost: O(n) a point.

    Example:
        >>> from augloader import Evidence, FacilityLocation, Proxies
        >>> evidence = Evidence(4, proxies=Proxies(torch.tensor([[0.0], [1.0], [2.0], [9.0]])))
        >>> strategy = FacilityLocation(per_class=False)
        >>> selection = strategy.select(evidence, 3, generator=np.random.default_rng(0))
        >>> figure = coverage(selection)
        >>> figure.axes[0].lines[0].get_xdata().tolist()
        [1, 2, 3]
    """
    require_int("points", points, 1, "30 make a smooth curve.")
    if selection.certificate is None:
        raise ValueError(
            "selection must have a certificate, got none. Select with FacilityLocation; a loaded "
            "sampler has one after its next refresh."
        )
    steps = {len(part): part.certificate for part in _smaller(selection, points)}
    known = [certificate for certificate in steps.values() if certificate is not None]
    budgets, whole = np.array(sorted(steps)), selection.certificate
    top = whole.bound if whole.bound > 0 else 1.0  # all samples alike: nothing to cover
    n = round(float(selection.weights.sum(dtype=torch.float64)))
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    reached = np.array([certificate.coverage / top for certificate in known])
    bounds = np.array([certificate.bound / top for certificate in known])
    bound = "bound" if whole.proven else "bound for the neighbours found"
    shape = "" if _groups(selection) == 1 else " of as many a class"
    above.plot(budgets, reached, marker=".", color="C0", label="coverage of the first medoids")
    above.plot(
        budgets, bounds, linestyle="--", color="C1", label=f"{bound}: no choice{shape} covers more"
    )
    above.fill_between(budgets, reached, bounds, color="C1", alpha=0.2, linewidth=0)
    above.set(ylabel="share of the whole budget's bound")
    above.legend(loc="lower right")
    below.plot(budgets, [certificate.ratio for certificate in known], marker=".", color="C2")
    below.set(xlabel=f"budget: medoids of {n:,} samples", ylabel="at least, of the best")
    share = above.secondary_xaxis("top", functions=(lambda k: k / n, lambda part: part * n))
    for axis in (above.yaxis, below.yaxis, share.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"{len(selection):,} medoids cover at least {100 * whole.ratio:.1f} % of the best possible",
        fontsize=10,
    )
    return figure


def turnover(selections: Sequence[Selection], epochs: Sequence[int] | None = None) -> Figure:
    """Draw how much of each selection was selected before.

    Args:
        selections: two or more, one a refresh in order, of the same dataset.
        epochs: at which epoch each was made, ascending; None counts the refreshes from 0.

    Returns:
        A figure with one axes: the share of each selection's samples that the one before it held,
        that the first held, and that a random choice would share with the one before.

    Raises:
        ValueError: fewer than two selections, not as many epochs, epochs not ascending.

    Cost: O(k log k) a selection.

    Example:
        >>> weights = torch.tensor([2.0, 2.0])
        >>> made = [Selection(torch.tensor(i), weights) for i in ([0, 1], [1, 2], [2, 1])]
        >>> figure = turnover(made)
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]]
        [[0.5, 1.0], [0.5, 0.5]]
    """
    if len(selections) < 2:
        raise ValueError(
            f"selections must be two or more, got {len(selections)}. Keep what each "
            "sampler.refresh returns."
        )
    count = len(selections)
    at = list(range(count)) if epochs is None else [int(epoch) for epoch in epochs]
    at = ascending("epochs", at, count, "Keep the epoch of each refresh.", ", one a selection")
    pairs = list(pairwise(selections))
    before = np.array([_shared(new, old) for old, new in pairs])
    first = np.array([_shared(new, selections[0]) for new in selections[1:]])
    n = [float(old.weights.sum(dtype=torch.float64)) for old, _ in pairs]
    chance = np.array([len(old) / of for (old, _), of in zip(pairs, n, strict=True)])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(at[1:], before, marker="o", color="C0", label="in the selection before")
    axes.plot(at[1:], first, marker="s", color="C1", label="in the first selection")
    axes.plot(at[1:], chance, linestyle=":", color="0.4", label="by chance, in the one before")
    of_refreshes(axes, "How much of each selection was selected before", epochs is None)
    return figure


def _rows(
    selection: Selection,
    labels: Tensor | None,
    n: int,
    names: Sequence[str] | None,
    columns: int,
) -> list[tuple[str, list[int]]]:
    """Return each row's name and the positions in the selection of its pictures."""
    order = selection.weights.argsort(descending=True, stable=True)
    if labels is None:
        return [("", part.tolist()) for part in order.split(columns)]
    require_labels("labels", labels, n)
    own = labels.cpu()[selection.indices]
    found, present = [], own.unique().tolist()
    for label, name in zip(present, called(present, names, "class", 16), strict=True):
        members = order[own[order] == label]
        stood = number(float(selection.weights[members].sum()))
        found.append((f"{name}\n{len(members):,} for {stood}", members[:columns].tolist()))
    return found


def _title(
    selection: Selection,
    shown: list[tuple[str, list[int]]],
    groups: list[tuple[str, list[int]]],
    labels: Tensor | None,
) -> str:
    count, k = sum(len(places) for _, places in shown), len(selection)
    if count == k:
        text = f"{k:,} medoids"
    elif labels is None:
        text = f"The heaviest {count:,} of {k:,} medoids"
    else:
        text = f"{count:,} of {k:,} medoids, the heaviest of each class"
        if len(shown) < len(groups):
            text = f"{text} ({len(shown):,} of {len(groups):,} classes)"
    return f"{text}; area: number of samples stood for"


def _smaller(selection: Selection, points: int) -> Iterator[Selection]:
    """Yield the selections of some budgets up to its own, which is the last."""
    for budget in np.unique(
        np.linspace(_groups(selection), len(selection), points).round().astype(int)
    )[:-1]:
        yield selection.first(int(budget))
    yield selection


def _groups(selection: Selection) -> int:
    """Return how many groups were selected one by one; a budget is at least one a group."""
    nested = selection.nested
    return len(nested.members) if isinstance(nested, Coreset) else 1


def _shared(new: Selection, old: Selection) -> float:
    return float(torch.isin(new.indices, old.indices).double().mean())
