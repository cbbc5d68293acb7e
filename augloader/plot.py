"""Pictures of selections, strengths and augmentations; needs matplotlib.

Every function returns a ``matplotlib.figure.Figure``, to be shown by a notebook or saved:
``figure.savefig("medoids.png")``. Nothing here touches pyplot or any global state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.checks import require_dataset, require_finite, require_int, require_labels
from augloader.coreset import Coreset
from augloader.dataset import WeightedAugmentedDataset
from augloader.ops import IDENTITY, OPS
from augloader.policies import Params
from augloader.summary import number, short
from augloader.transform import AdaptiveStrengthTransform
from augloader.types import Selection

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ImportError as error:
    raise ImportError("augloader.plot needs matplotlib: pip install matplotlib") from error

Pixels = np.ndarray[Any, Any]
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
    pictures = {p: _image(images, indices[p]) for _, places in shown for p in places}
    scale = max((weights[p] * _aspect(x) ** sign) for p, x in pictures.items() for sign in (1, -1))
    sides = {  # width and height: their product is in proportion to the weight
        p: tuple((weights[p] * _aspect(x) ** sign / scale) ** 0.5 for sign in (1, -1))
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
            _show(axes, pictures[p], extent=(left, left + w, bottom, bottom - h))
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


def strengths(history: Sequence[Tensor] | Tensor) -> Figure:
    """Draw how the samples' strengths spread over the epochs.

    Args:
        history: for every epoch the (n,) floating strengths in [0, 1]: ``sampler.strengths``, kept
            after each ``set_epoch``.

    Returns:
        A figure with one axes: median, middle half and middle 90 % of the samples.

    Raises:
        TypeError: strengths that are not floating.
        ValueError: no epoch, no sample, epochs of different length, values outside [0, 1].

    Cost: O(n) an epoch.

    Example:
        >>> figure = strengths([torch.tensor([0.0, 0.5, 0.6]), torch.tensor([0.2, 0.8, 1.0])])
        >>> figure.axes[0].lines[0].get_ydata().round(2).tolist()
        [0.5, 0.8]
    """
    if not len(history):
        raise ValueError(
            "history must be the strengths of at least one epoch, got none. Keep sampler.strengths "
            "after each set_epoch."
        )
    found = [_strengths(epoch, values, len(history[0])) for epoch, values in enumerate(history)]
    over = np.stack([np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)) for values in found], 1)
    epochs = range(len(found))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for low, high, shade, what in ((0, 4, 0.2, "middle 90 %"), (1, 3, 0.4, "middle half")):
        axes.fill_between(
            epochs, over[low], over[high], color="C0", alpha=shade, linewidth=0, label=what
        )
    axes.plot(epochs, over[2], color="C0", marker=".", label="median")
    axes.set(ylim=(-0.03, 1.03), xlabel="epoch", ylabel="strength")
    axes.set_title(f"Strengths of {len(found[0]):,} samples", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
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
    at = list(range(len(selections))) if epochs is None else [int(epoch) for epoch in epochs]
    if len(at) != len(selections) or any(b <= a for a, b in pairwise(at)):
        raise ValueError(
            f"epochs must be {len(selections)} ascending ones, one a selection, got {at}. Keep "
            "the epoch of each refresh."
        )
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
    what = "refresh" if epochs is None else "epoch of the refresh"
    axes.set(ylim=(-0.03, 1.03), xlabel=what, ylabel="share of the samples selected")
    axes.set_title("How much of each selection was selected before", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def strength_ladder(
    transform: AdaptiveStrengthTransform,
    image: Any,
    *,
    steps: int = 7,
    draws: int = 3,
    keys: Tensor | None = None,
) -> Figure:
    """Draw one image at strengths from 0 to 1, with the same random numbers along each row.

    Args:
        transform: any policy, Kornia operations too; its own random state is not touched. Images
            that it normalises are shown as they were before that.
        image: (C, H, W) of 1 or 3 channels, uint8 or floating in [0, 1]; or one of PIL's.
        steps: number of strengths, at least 2.
        draws: number of rows, each with random numbers of its own.
        keys: (rows, k) integer, whose random numbers, as ``batch.keys[:3]``: just what these draws
            are given at each strength. None makes some, for ``draws`` rows.

    Returns:
        A figure with an axes for each image; the operations at strength 1 on the left, where the
        policy is a single chain of named ones.

    Raises:
        TypeError: an image or keys of a wrong type, a transform that is none.
        ValueError: values or shapes other than these.

    Cost: steps x draws augmentations of one image.

    Example:
        >>> from augloader import AdaptiveStrengthTransform
        >>> image = torch.rand(3, 16, 16)
        >>> figure = strength_ladder(AdaptiveStrengthTransform("trivial"), image, steps=3, draws=2)
        >>> [axes.get_title() for axes in figure.axes]
        ['0', '0.5', '1', '', '', '']
        >>> shown = figure.axes[0].images[0].get_array()
        >>> bool(np.allclose(shown, image.permute(1, 2, 0)))
        True
    """
    require_int("steps", steps, 2, "7 shows what lies between 0 and 1.")
    require_int("draws", draws, 1, "Draw at least one row.")
    if not isinstance(transform, AdaptiveStrengthTransform):
        raise TypeError(
            f"transform must be an AdaptiveStrengthTransform, got {transform!r}. Others know no "
            "strength."
        )
    pixels = _pixels(image, "image")
    if not isinstance(image, Tensor):
        image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()
    if keys is None:
        keys = torch.stack([torch.zeros(draws, dtype=torch.int64)] * 2 + [torch.arange(draws)], 1)
    if not isinstance(keys, Tensor) or keys.ndim != 2 or not len(keys):
        raise ValueError(
            f"keys must be a (rows, k) tensor, got {keys}. Pass for example batch.keys[:3]."
        )
    picked = torch.linspace(0, 1, steps).tolist()
    high, wide = image.shape[-2:]
    inches = 1.2 / max(high, wide)  # a pixel
    size = max(4.0, (steps + 0.9) * wide * inches), len(keys) * high * inches + 0.7
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(keys), steps, squeeze=False)
    for row, key in enumerate(keys):
        for column, strength in enumerate(picked):
            axes = grid[row, column]
            out = _unnormalised(transform, transform(image, strength, keys=key))
            _show(axes, _pixels(out, "the transform's output"))
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(number(strength), fontsize=9)
        params = transform.sample(image.shape, 1.0, keys=key)
        grid[row, 0].set_ylabel(_operations(params), fontsize=7)
    figure.suptitle("One image at strengths from 0 to 1, a row for each draw", fontsize=10)
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
    found = []
    for label in own.unique().tolist():
        if names is not None and label >= len(names):
            raise ValueError(
                f"names must be of all classes, at least {label + 1}, got {len(names)}. Give one "
                "a class."
            )
        members = order[own[order] == label]
        stood = number(float(selection.weights[members].sum()))
        name = str(label) if names is None else names[label]
        found.append(
            (f"{short(name, 16)}\n{len(members):,} for {stood}", members[:columns].tolist())
        )
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


def _strengths(epoch: int, values: Tensor, n: int) -> np.ndarray[Any, Any]:
    """Return an epoch's strengths, or raise what is wrong with them."""
    name = f"history[{epoch}]"
    if not isinstance(values, Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating tensor, got {got}. Keep sampler.strengths.")
    if values.shape != (n,) or not n:
        raise ValueError(
            f"{name} must have shape ({max(n, 1)},), got {tuple(values.shape)}. Keep the strengths "
            "of all samples for every epoch."
        )
    require_finite(name, values, "Keep sampler.strengths.")
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"{name} must be in [0, 1], got values from {low:g} to {high:g}. Keep "
            "sampler.strengths."
        )
    return values.detach().cpu().double().numpy()


def _shared(new: Selection, old: Selection) -> float:
    return float(torch.isin(new.indices, old.indices).double().mean())


def _operations(params: Any) -> str:
    """Name the operations of a single chain, one a line."""
    if not isinstance(params, Params) or params.boxes is not None or params.op.shape[1] != 1:
        return ""
    names = [OPS[op] for op in params.op[0, 0].tolist() if op != IDENTITY]
    return "\n".join(names) or "Identity"


def _unnormalised(transform: AdaptiveStrengthTransform, image: Tensor) -> Tensor:
    """Return the transform's output before normalisation."""
    output = transform._output
    if not output.normalised:
        return image
    mean, std = (
        torch.tensor(part).view(-1, 1, 1).to(image.device) for part in (output.mean, output.std)
    )
    return (image.float() * std + mean).clamp(0, 1)


def _image(images: Any, index: int) -> Pixels:
    """Return one image of a tensor or a dataset."""
    if isinstance(images, WeightedAugmentedDataset):
        plain = WeightedAugmentedDataset(images.data, fields=images.fields)
        return _pixels(plain[index].input, f"images[{index}]")
    item = images[index]
    return _pixels(item[0] if isinstance(item, tuple | list) else item, f"images[{index}]")


def _pixels(image: Any, name: str) -> Pixels:
    """Return (H, W) or (H, W, 3) uint8, or float32 in [0, 1]."""
    if hasattr(image, "convert") and hasattr(image, "mode"):  # PIL
        return np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, Tensor) or not (
        image.dtype == torch.uint8 or image.is_floating_point()
    ):
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(
            f"{name} must be a uint8 or floating tensor or a PIL image, got {got}. Wrap other "
            'items: WeightedAugmentedDataset(data, fields=("image", "label")).'
        )
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(
            f"{name} must be (1, H, W) or (3, H, W), got shape {tuple(image.shape)}. Pick the "
            "channels to show."
        )
    shown = image.detach().cpu()
    if image.dtype != torch.uint8:
        shown = shown.float()
        low, high = float(shown.min()), float(shown.max())
        if not -1e-3 <= low <= high <= 1.001:
            raise ValueError(
                f"{name} must be in [0, 1] where it is floating, got values from {low:g} to "
                f"{high:g}. Pass it as it was before normalisation."
            )
        shown = shown.clamp(0, 1)
    pixels: Pixels = shown.permute(1, 2, 0).numpy()
    return pixels[..., 0] if image.shape[0] == 1 else pixels


def _aspect(pixels: Pixels) -> float:
    return float(pixels.shape[1] / pixels.shape[0])


def _show(
    axes: Axes, pixels: Pixels, extent: tuple[float, float, float, float] | None = None
) -> None:
    """Put a picture into an axes, grey ones from black to white."""
    white = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=white, extent=extent, interpolation="nearest")
