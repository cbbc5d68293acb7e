"""Pictures of how samples change over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    plain,
    require_dataset,
    require_int,
    require_labels,
)
from augloader.plot.pixels import Array, pick, show
from augloader.plot.places import ascending
from augloader.summary import called, number

_MOST = 10  # groups and single samples: as many as there are colours


def evolution(
    history: Sequence[Any] | Tensor,
    groups: Tensor | int = 4,
    *,
    names: Sequence[str] | None = None,
    samples: Sequence[int] | Tensor = (),
    images: Any = None,
    epochs: Sequence[int] | None = None,
    what: str = "strength",
) -> Figure:
    """Draw how strengths or difficulties of groups of samples, and of single ones, change.

    Of each group the mean m and the band of one standard deviation s about it, in every epoch:

        m - s to m + s, over the samples whose value is known in that epoch.

    Args:
        history: for every epoch the (n,) values, as
            ``history.append(sampler.strengths)`` after each ``sampler.set_epoch(epoch)``, or
            ``history.append(sampler.table.evidence(frozenset({"losses"})).losses)`` after it. NaN
            is a value that is not known.
        groups: (n,) integer, 0 or more, the group of each sample, as its label; or into how many
            parts of as many samples they are divided by their first known value. Equal values stay
            together, so that there may be fewer parts. At most 10 groups are drawn, the first ones.
        names: of the groups given; None takes their numbers.
        samples: at most 10 indices of samples, each with a line of its own.
        images: of all samples, for those of ``samples``: (n, C, H, W) tensor of 1 or 3 channels,
            uint8 or floating in [0, 1]; or a map-style dataset, as for ``medoids``. None draws
            lines alone.
        epochs: at which epoch each was kept, ascending; None counts from 0.
        what: the values' name.

    Returns:
        A figure with an axes for the groups, one for the samples where there are any, and one for
        each of their images.

    Raises:
        TypeError: values, groups, samples or images of a wrong type.
        ValueError: no epoch, no value that is known, epochs of different length, infinite values;
            groups, names, samples, images or epochs that do not fit.

    Cost: O(n) an epoch, and O(n log n) for parts.

    Example:
        >>> import torch
        >>> history = []  # and in the loop: history.append(sampler.strengths)
        >>> history.append(torch.tensor([0.0, 0.2, 0.6, 1.0]))
        >>> history.append(torch.tensor([0.4, 0.6, 0.8, 1.0]))
        >>> figure = evolution(history, 2, samples=[3])
        >>> [line.get_ydata().round(2).tolist() for line in figure.axes[0].lines]
        [[0.1, 0.5], [0.8, 0.9]]
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['2 samples, 0 to 0.2 at first', '2 samples, 0.6 to 1 at first']

    Source: Yang et al. (2025), Fig. 1, sample difficulty over epochs.
    """
    values = _history(history)
    at = _epochs(epochs, len(values))
    chosen = _samples(samples, values.shape[1])
    known = ~np.isnan(values)
    parts = _parts(values, groups, names)
    n, unseen = values.shape[1], int((~known.any(0)).sum())
    has_images = images is not None and len(chosen) > 0
    if images is not None and require_dataset(images) != n:
        raise ValueError(
            f"images must be of all {n} samples, got {len(images)}. Pass the whole dataset."
        )
    heights = [3.6, *([2.4] if chosen else []), *([1.2] if has_images else [])]
    figure = Figure(figsize=(7, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), max(1, len(chosen)), height_ratios=heights)
    axes = figure.add_subplot(grid[0, :])
    for place, (name, members) in enumerate(parts[:_MOST]):
        mean, spread = _moments(values[:, members])
        colour = f"C{place}"
        axes.fill_between(at, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        axes.plot(at, mean, color=colour, marker=".", label=name)
    some = f"; {_MOST} of {len(parts):,} groups" if len(parts) > _MOST else ""
    left_out = f", {unseen:,} never seen" if unseen else ""
    axes.set_title(
        f"{what.capitalize()} of {n:,} samples{left_out}: mean and standard deviation{some}",
        fontsize=10,
    )
    every = [axes]
    if chosen:
        below = figure.add_subplot(grid[1, :], sharex=axes)
        for place, i in enumerate(chosen):
            below.plot(at, values[:, i], color=f"C{place}", marker=".", label=f"sample {i}")
        every.append(below)
    for part in every:
        part.set_ylabel(what)
        part.grid(alpha=0.3)
        part.legend(fontsize=7)
    every[-1].set_xlabel("epoch")
    every[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if has_images:
        for place, i in enumerate(chosen):
            picture = figure.add_subplot(grid[2, place])
            show(picture, pick(images, i))
            picture.set(xticks=[], yticks=[])
            picture.set_title(f"sample {i}", fontsize=7, color=f"C{place}")
    return figure


def _history(history: Sequence[Any] | Tensor) -> Array:
    """Return (epochs, n) float64, or raise what is wrong with an epoch."""
    if not len(history):
        raise ValueError(
            "history must be the values of at least one epoch, got none. Keep sampler.strengths "
            "after each set_epoch."
        )
    rows: list[Array] = []
    for epoch, given in enumerate(history):
        name = f"history[{epoch}]"
        found = as_tensor(name, given, "Keep sampler.strengths.").cpu().double()
        n = len(rows[0]) if rows else max(1, found.numel())
        if found.shape != (n,):
            raise ValueError(
                f"{name} must have shape ({n},), got {tuple(found.shape)}. Keep the values of all "
                "samples for every epoch."
            )
        if found.isinf().any():
            raise ValueError(
                f"{name} must not be infinite, got {count_and_first(found.isinf())}. Values that "
                "are not known are NaN."
            )
        rows.append(found.numpy())
    values: Array = np.stack(rows)
    if np.isnan(values).all():
        raise ValueError(
            "history must have at least one value that is known, got NaN for all. Report losses "
            "first."
        )
    return values


def _epochs(epochs: Sequence[int] | None, count: int) -> list[int]:
    at = list(range(count)) if epochs is None else [int(epoch) for epoch in epochs]
    return ascending("epochs", at, count, "Keep the epoch too.", ", one for each of history")


def _samples(samples: Sequence[int] | Tensor, n: int) -> list[int]:
    """Return the samples that have a line of their own, or raise what is wrong with them."""
    advice = "Give indices of the dataset."
    chosen = [require_int("samples", plain(i), 0, advice) for i in samples]
    if len(chosen) > _MOST or len(set(chosen)) < len(chosen) or max(chosen, default=0) >= n:
        raise ValueError(
            f"samples must be at most {_MOST} different indices below {n}, got {chosen}. {advice}"
        )
    return chosen


def _parts(
    values: Array, groups: Tensor | int, names: Sequence[str] | None
) -> list[tuple[str, Array]]:
    """Return each group's label and its samples of which a value is known."""
    known = ~np.isnan(values)
    seen: Array = np.asarray(known.any(0))
    if isinstance(groups, Tensor):
        own = require_labels("groups", groups, len(seen)).cpu().numpy()
        found = np.unique(own[seen]).tolist()
        parts: list[Array] = [np.flatnonzero(seen & (own == group)) for group in found]
        labels = called(found, names, "group", 24)
        return [
            (f"{label}, {_number_of(members)}", members)
            for label, members in zip(labels, parts, strict=True)
        ]
    count = require_int("groups", groups, 1, "4 draws quarters; or give the group of each sample.")
    if names is not None:
        raise ValueError(
            f"names must be of groups that are given, got {list(names)} for parts by the first "
            "value. Pass groups=labels."
        )
    first = values[known.argmax(0), np.arange(len(seen))]
    # The inner edges: sample values, so that each of equal values falls on the same side.
    edges = np.quantile(first[seen], np.arange(1, count) / count, method="inverted_cdf")
    place = np.searchsorted(edges, first, side="left")
    found_parts = []
    for part in np.unique(place[seen]):
        members: Array = np.flatnonzero(seen & (place == part))
        low, high = (number(float(end(first[members]))) for end in (np.min, np.max))
        span = low if low == high else f"{low} to {high}"
        found_parts.append((f"{_number_of(members)}, {span} at first", members))
    return found_parts


def _moments(values: Array) -> tuple[Array, Array]:
    """Return (epochs,) means and standard deviations of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(1)
    counted = np.where(count, count, np.nan)
    mean = np.where(known, values, 0).sum(1) / counted
    apart = np.where(known, values - mean[:, None], 0)
    return mean, np.sqrt((apart**2).sum(1) / counted)


def _number_of(members: Array) -> str:
    return f"{len(members):,} sample{'s' * (len(members) != 1)}"
