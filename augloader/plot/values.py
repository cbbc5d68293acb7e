"""Pictures of scores: how they are distributed, how they drift, and the images at their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    require_bool,
    require_dataset,
    require_int,
    require_labels,
    require_number,
)
from augloader.plot.pixels import Array, aspect, pick, show
from augloader.summary import called, number

_PICTURE = 0.75  # inches, the side of a picture
_SHADES = (0.2, 0.4, 0.6)  # of the quantiles' lines, in turn


def extremes(
    scores: Any,
    images: Any,
    labels: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    count: int = 10,
    classes: int = 10,
) -> Figure:
    """Draw the images of highest and of lowest score, each with its score below.

    Args:
        scores: (n,) numbers, or a mapping of names to them. NaN is a sample that was never seen: it
            is not drawn.
        images: (n, C, H, W) tensor of 1 or 3 channels, uint8 or floating in [0, 1]; or a map-style
            dataset of such images or of PIL's, alone or as the first field of its items. A
            WeightedAugmentedDataset is shown before any transform.
        labels: (n,) integer, 0 or more: rows for each class; None draws of all samples at once.
        names: of the classes; None takes their numbers.
        count: how many images a row has at most; of fewer than twice as many samples some are in
            both rows.
        classes: how many classes at most; those beyond them are left out.

    Returns:
        A figure with an axes for each image: by class the rows of highest score, a row for each
        name, and then those of lowest, the end of the scale first in each.

    Raises:
        TypeError: scores, images or labels of a wrong type.
        ValueError: infinite scores, no score that is known, another number of images or
            labels than of scores; fewer names than classes.

    Cost: O(n log n); reads and draws at most 2 x count images for each class and name.

    Example:
        >>> import torch
        >>> figure = extremes([0.5, 2.0, float("nan"), 0.1], torch.rand(4, 1, 8, 8), count=2)
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['2', '0.5', '0.1', '0.5']

    Source: Kuchnik & Smith (2019), Figs. 5 and 11 to 13.
    """
    found, n = _named(scores), require_dataset(images)
    require_int("count", count, 1, "Draw at least one image of each end.")
    require_int("classes", classes, 1, "Draw at least one class.")
    for name, values in found.items():
        if len(values) != n:
            raise ValueError(
                f"images must be those that {name or 'scores'} are of, {len(values)}, got {n}. "
                "Pass the whole dataset."
            )
    groups = _classes(labels, n, names)
    rows = []  # of a label, the samples, and their scores
    for group, members in groups[:classes]:
        for end, sign in (("highest", -1), ("lowest", 1)):
            for name, values in found.items():
                known = members[~np.isnan(values[members])]
                order = known[np.argsort(sign * values[known], kind="stable")][:count]
                title = " ".join(word for word in (end, name) if word)
                rows.append((f"{group}\n{title}" if group else title, order, values))
    columns = max(len(order) for _, order, _ in rows)
    if not columns:
        raise ValueError(
            "scores must be known of at least one sample, got NaN for all. Report losses first."
        )
    pictures = {int(i): pick(images, int(i)) for _, order, _ in rows for i in order}
    tall = _PICTURE * float(np.median([1 / aspect(pixels) for pixels in pictures.values()])) + 0.3
    figure = Figure(
        figsize=(columns * _PICTURE + 1.2, len(rows) * tall + 0.5), layout="constrained"
    )
    grid = figure.add_gridspec(len(rows), columns)
    for row, (title, order, values) in enumerate(rows):
        for column, i in enumerate(order.tolist()):
            axes = figure.add_subplot(grid[row, column])
            show(axes, pictures[i])
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(number(float(values[i]) + 0.0), fontsize=7, labelpad=1)  # no -0
            if column == 0:
                axes.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=7)
    some = "" if len(groups) <= classes else f" ({classes:,} of {len(groups):,} classes)"
    figure.suptitle(f"Highest and lowest scores of {_count(found)}{some}", fontsize=10)
    return figure


def scores(
    scores: Any,
    *,
    log: bool = False,
    bins: int = 60,
    quantiles: Sequence[float] = (0.5, 0.9, 0.99),
) -> Figure:
    """Draw how scores are distributed: histograms on common bins, with quantiles.

    Args:
        scores: (n,) numbers, or a mapping of names to them, each of a number of samples of its own.
            NaN is a sample that was never seen: the title counts it.
        log: draw their logarithms to base 10. Scores of 0 have none: the title counts them.
        bins: how many.
        quantiles: in [0, 1], each a vertical line.

    Returns:
        A figure with an axes for each name, one below the other; counts on a logarithmic axis, so
        that few large scores are seen beside many small ones.

    Raises:
        TypeError: scores that are not numbers, options of a wrong type.
        ValueError: infinite scores, none that can be drawn, below 0 where ``log``; no bin;
            quantiles outside [0, 1].

    Cost: O(n log n).

    Example:
        >>> losses = {"first": [0.1, 0.2, 0.4, 2.0], "last": [0.1, 0.1, 0.2, float("nan")]}
        >>> figure = scores(losses, bins=2)
        >>> [[int(bar.get_height()) for bar in axes.patches] for axes in figure.axes]
        [[3, 1], [3, 0]]
        >>> figure.axes[1].get_title()
        'last: 3 samples, 1 never seen'

    Source: Kuchnik & Smith (2019), Figs. 1, 6 and 7.
    """
    require_bool("log", log, "True draws logarithms.")
    require_int("bins", bins, 1, "60 show the shape.")
    for share in quantiles:
        require_number("quantiles", share, "[0, 1]", "Give shares, as (0.5, 0.9).")
    found = {name: _drawn(name, values, log) for name, values in _named(scores).items()}
    edges = _edges(np.concatenate([values for values, _ in found.values()]), bins)
    figure = Figure(figsize=(7, 1.2 + 1.8 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for place, (axes, (name, (values, left_out))) in enumerate(
        zip(grid, found.items(), strict=True)
    ):
        axes.hist(values, edges, color=f"C{place % 10}", alpha=0.7, log=True)
        for turn, share in enumerate(quantiles):
            at = float(np.quantile(values, share))
            shown = number(10**at if log else at)
            shade = str(_SHADES[turn % len(_SHADES)])
            label = f"{number(100 * share)} % at {shown}"
            axes.axvline(at, color=shade, linestyle=("-", "--", ":")[turn % 3], label=label)
        if len(quantiles):
            axes.legend(fontsize=7)
        axes.set_title(": ".join(part for part in (name, left_out) if part), fontsize=10)
        axes.set_ylabel("samples")
    grid[-1].set_xlabel("logarithm of the score, base 10" if log else "score")
    return figure


def drift(before: Any, after: Any, *, log: bool = False) -> Figure:
    """Draw scores of the same samples at two times against each other, with their rank correlation.

    Spearman's: the correlation of the ranks, where equal scores share the mean of theirs.

    Args:
        before: (n,) numbers, or a mapping of names to them. NaN is a sample that was never seen: it
            is not drawn, and the title counts it.
        after: of the same samples, and of the same names.
        log: draw logarithms to base 10. Samples with a score of 0 have none: the title counts them,
            and the correlation leaves them out.

    Returns:
        A figure with an axes for each name, side by side, and the line of no change.

    Raises:
        TypeError: scores that are not numbers.
        ValueError: infinite scores, other names or numbers of samples after than before, none that
            can be drawn, below 0 where ``log``.

    Cost: O(n log n).

    Example:
        >>> figure = drift([0.1, 0.5, 2.0, 3.0], [0.2, 0.4, float("nan"), 0.3])
        >>> figure.axes[0].get_title()
        '3 samples, 1 never seen\\nrank correlation 0.50'

    Source: Kuchnik & Smith (2019), Figs. 2 and 8.
    """
    require_bool("log", log, "True draws logarithms.")
    old, new = _named(before), _named(after)
    if list(old) != list(new) or any(len(old[name]) != len(new[name]) for name in old):
        one, other = ({name: len(values) for name, values in part.items()} for part in (old, new))
        raise ValueError(
            f"after must have the names and numbers of samples of before, {one}, got {other}. Keep "
            "the scores of all samples at both times."
        )
    figure = Figure(figsize=(0.5 + 3.5 * len(old), 4.2), layout="constrained")
    grid = figure.subplots(1, len(old), squeeze=False)[0]
    for axes, name in zip(grid, old, strict=True):
        pairs, left_out = _drawn(name, np.stack([old[name], new[name]], 1), log)
        axes.scatter(*pairs.T, s=6, alpha=0.4, color="C0", linewidth=0)
        ends = [float(pairs.min()), float(pairs.max())]
        axes.plot(ends, ends, color="0.4", linestyle=":", linewidth=1)
        what = "logarithm of the score" if log else "score"
        axes.set(xlabel=f"{what} before", ylabel=f"{what} after")
        rho = rank_correlation(*pairs.T)
        shown = "not defined: all alike" if rho is None else f"{rho:.2f}"
        title = ": ".join(part for part in (name, left_out) if part)
        axes.set_title(f"{title}\nrank correlation {shown}", fontsize=10)
        axes.grid(alpha=0.3)
    return figure


def rank_correlation(one: Array, other: Array) -> float | None:
    """Return Spearman's rank correlation of (n,) values, or None where either are all alike."""
    ranks = []
    for values in (one, other):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return None
        ranks.append((counts.cumsum() - (counts - 1) / 2)[inverse])
    a, b = (rank - rank.mean() for rank in ranks)
    return float((a @ b) / np.sqrt((a @ a) * (b @ b)))


def _named(scores: Any) -> dict[str, Array]:
    """Return (n,) float64 by name, "" for the only one, or raise what is wrong."""
    if isinstance(scores, Mapping):
        if not scores:
            raise ValueError("scores must have at least one name, got none. Name one: {'loss': x}.")
        return {str(name): _values(f"scores[{name!r}]", values) for name, values in scores.items()}
    return {"": _values("scores", scores)}


def _values(name: str, values: Any) -> Array:
    """Return (n,) numbers as float64; NaN is allowed, infinity is not."""
    found = as_tensor(name, values, "Give one score a sample.").cpu().double()
    if found.ndim != 1 or not len(found):
        raise ValueError(
            f"{name} must be (n,) of at least one sample, got shape {tuple(found.shape)}. Give one "
            "score a sample."
        )
    if found.isinf().any():
        raise ValueError(
            f"{name} must not be infinite, got {count_and_first(found.isinf())}. Scores that are "
            "not known are NaN."
        )
    array: Array = found.numpy()
    return array


def _drawn(name: str, values: Array, log: bool) -> tuple[Array, str]:
    """Return the rows that can be drawn, and how many samples are and are not."""
    rows = values.reshape(len(values), -1)
    known = ~np.isnan(rows).any(1)
    parts = [f"{int((~known).sum()):,} never seen"] if not known.all() else []
    if log:
        least = float(rows[known].min()) if known.any() else 0.0
        if least < 0:
            raise ValueError(
                f"scores must be 0 or more for logarithms, got {least:g}"
                f"{f' of {name}' if name else ''}. Pass log=False."
            )
        above = known & (rows > 0).all(1)
        parts += [f"{int((known & ~above).sum()):,} of 0"] if (known & ~above).any() else []
        known = above
    if not known.any():
        raise ValueError(
            f"scores must be known of at least one sample, got {', '.join(parts)}"
            f"{f' of {name}' if name else ''}. Report losses first."
        )
    kept = values[known]
    samples = f"{len(kept):,} sample{'s' * (len(kept) > 1)}"
    return np.log10(kept) if log else kept, ", ".join([samples, *parts])


def _edges(values: Array, bins: int) -> Array:
    """Return bins + 1 ascending edges around all values, also where these are alike."""
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high, bins + 1)
    if (np.diff(edges) > 0).all():
        return edges
    half = max(abs(low), abs(high), 1.0) / 2
    return np.linspace(low - half, high + half, bins + 1)


def _classes(labels: Tensor | None, n: int, names: Sequence[str] | None) -> list[tuple[str, Array]]:
    """Return each class's name and samples; of no labels one without a name."""
    if labels is None:
        return [("", np.arange(n))]
    own = require_labels("labels", labels, n).cpu().numpy()
    found = np.unique(own).tolist()
    labels_of = zip(found, called(found, names, "class", 16), strict=True)
    return [(name, np.flatnonzero(own == label)) for label, name in labels_of]


def _count(found: Mapping[str, Array]) -> str:
    """Say how many samples there are, and of how many a score was never seen."""
    n = len(next(iter(found.values())))
    unseen = int(np.isnan(np.stack([*found.values()])).any(0).sum())
    return f"{n:,} samples" + (f", {unseen:,} never seen" if unseen else "")
