"""Pictures of what augmentation and selection do to a model; see ``augloader.diagnostics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from augloader.diagnostics.alignments import Alignment
from augloader.diagnostics.features import FeatureSpectrum
from augloader.diagnostics.jacobian import JacobianSpectrum
from augloader.diagnostics.overlaps import Overlap
from augloader.diagnostics.risks import RiskGap
from augloader.plot.places import ascending, of_refreshes

T = TypeVar("T")
_ORDER = "Give one for each, in order."
_LEAST = 1e-12  # of the largest variance: what is below is rounding


def jacobian(
    spectra: JacobianSpectrum | Mapping[str, JacobianSpectrum], *, relative: bool = False
) -> Figure:
    """Draw how augmentation moves the singular values and subspaces of a network's Jacobian.

    Args:
        spectra: what ``jacobian_spectrum`` returned; or several by name, as of two strengths.
        relative: whether changes are shares of the clean singular values.

    Returns:
        A figure with three axes: the singular values; the mean change of each range's; and the mean
        of its principal angles in degrees, of left and right singular vectors.

    Raises:
        TypeError: no spectra.
        ValueError: none.

    Cost: O(n C).

    Example:
        >>> import torch
        >>> from augloader.diagnostics import jacobian_spectrum
        >>> model, clean = torch.nn.Linear(2, 1, bias=False), torch.eye(2)
        >>> figure = jacobian(jacobian_spectrum(model, clean, 3 * clean, bins=1))
        >>> figure.axes[1].lines[0].get_ydata().round(4).tolist()
        [2.0]

    Source: Liu & Mirzasoleiman (2022), Fig. 1.
    """
    named = _named("spectra", spectra, JacobianSpectrum)
    figure = Figure(figsize=(12, 4), layout="constrained")
    values, change, angle = figure.subplots(1, 3)
    for i, (name, found) in enumerate(named.items()):
        colour, prefix = f"C{i}", f"{name}: " if name else ""
        edges = found.edges.numpy()
        centres = (edges[:-1] + edges[1:] + 1) / 2  # of the numbers from 1 that a range holds
        order = np.arange(1, edges[-1] + 1)
        for part, style, what in ((found.clean, ":", "clean"), (found.augmented, "-", "augmented")):
            values.plot(
                order, part[: edges[-1]].numpy(), color=colour, linestyle=style, label=prefix + what
            )
        moved = found.changes(relative).numpy()
        change.plot(centres, moved, color=colour, marker="o", label=name)
        for side, style in (("left", "-"), ("right", "--")):
            angle.plot(
                centres,
                np.degrees(found.angles(side).numpy()),
                color=colour,
                linestyle=style,
                marker="o",
                label=prefix + side,
            )
    values.set(yscale="log", ylabel="singular value")
    change.set(ylabel="change by augmentation, mean of a range")
    if relative:
        change.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    change.axhline(0, color="0.4", linewidth=0.8)
    angle.set(ylabel="angle of the subspaces, mean of a range", ylim=(-2, 92))
    angle.yaxis.set_major_formatter("{x:.0f}°")
    for axes in (values, change, angle):
        axes.set(xlabel="index of the singular value")
        axes.grid(alpha=0.3)
    values.legend()
    angle.legend()
    if "" not in named:
        change.legend()
    figure.suptitle("The network's Jacobian, clean and augmented", fontsize=10)
    return figure


def alignment(found: Alignment | Sequence[Alignment], at: Sequence[float] | None = None) -> Figure:
    """Draw how far selections are from the gradient of all samples, beside what bounds it.

    Args:
        found: several of ``alignment``, as of several budgets or refreshes; or one that was made
            class by class, whose classes are drawn.
        at: where each of several is drawn, ascending, as epochs; None takes the numbers selected.

    Returns:
        A figure with one axes: the error, the bound, and the norm of the whole gradient; where all
        have them also those of the augmented samples.

    Raises:
        TypeError: no alignments.
        ValueError: none; one without classes; not as many places, or not ascending.

    Cost: O(1) for each.

    Example:
        >>> import torch
        >>> from augloader import Selection
        >>> from augloader import diagnostics
        >>> g, weights = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([2.0, 1.0])
        >>> chosen = [Selection(torch.tensor([1]), torch.tensor([3.0]))]
        >>> chosen += [Selection(torch.tensor([1, 2]), weights)]
        >>> figure = alignment([diagnostics.alignment(g, selection) for selection in chosen])
        >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]
        [[1.0, 1.0], [3.0, 1.0], [4.0, 4.0]]

    Source: Liu & Mirzasoleiman (2022), Eq. 8 and Lemma 5.1.
    """
    several, places, what = _alignments(found, at)
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    kinds = [("", "clean", "C0"), ("augmented_", "augmented", "C1")]
    lowest = np.inf
    for prefix, name, colour in kinds:
        if any(getattr(one, f"{prefix}error") is None for one in several):
            continue
        for part, style, text in (
            ("error", "-", "error of the selection"),
            ("bound", "--", "bound of the error"),
            ("norm", ":", "norm of the whole gradient"),
        ):
            values = np.array([float(getattr(one, prefix + part)) for one in several])
            lowest = min(lowest, values.min())
            axes.plot(
                places,
                values,
                color=colour,
                linestyle="" if isinstance(found, Alignment) else style,
                marker={"-": "o", "--": "_", ":": "x"}[style],
                label=f"{name}: {text}",
            )
    axes.set(xlabel=what, ylabel="norm, in units of the proxies")
    axes.set_yscale("log" if lowest > 0 else "linear")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("How well the selection stands for the gradient of all samples", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def risks(history: Sequence[RiskGap]) -> Figure:
    """Draw loss and accuracy on clean and augmented data over the epochs.

    Args:
        history: one or more of ``risk_gap``, of ascending epochs.

    Returns:
        A figure with two axes, loss and accuracy: a line for the clean, the weak and the strong
        view, of those that all have.

    Raises:
        TypeError: no risks.
        ValueError: none, or epochs that do not ascend.

    Cost: O(1) an epoch.

    Example:
        >>> from augloader.diagnostics import Risk, RiskGap
        >>> history = [RiskGap(e, Risk(1 / (1 + e), 0.5), None, Risk(1.0, 0.5)) for e in (0, 1)]
        >>> [line.get_ydata().tolist() for line in risks(history).axes[0].lines]
        [[1.0, 0.5], [1.0, 1.0]]

    Source: He et al. (2019), Fig. 1.
    """
    several = _several("history", history, RiskGap)
    epochs = ascending("history", [one.epoch for one in several], len(several), _ORDER)
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    views = (("clean", "-", "C0"), ("weak", "--", "C2"), ("strong", "-", "C1"))
    for view, style, colour in views:
        of = [getattr(one, view) for one in several]
        if any(risk is None for risk in of):
            continue
        for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
            axes.plot(
                epochs,
                np.array([getattr(risk, name) for risk in of]),
                color=colour,
                linestyle=style,
                marker=".",
                label=f"{view} data",
            )
    loss.set(ylabel="mean cross-entropy")
    accuracy.set(ylabel="accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    for axes in (loss, accuracy):
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    loss.legend()
    figure.suptitle("The gap between clean and augmented data", fontsize=10)
    return figure


def features(
    spectra: FeatureSpectrum | Mapping[str, FeatureSpectrum], label: int | None = None
) -> Figure:
    """Draw the singular values of the features' covariance, of all classes and within classes.

    Args:
        spectra: what ``feature_spectrum`` returned; or several by name, as of trainings with
            different augmentation.
        label: of the class that is drawn, as the paper draws class 0; None draws the mean of the
            classes' covariances.

    Returns:
        A figure with two axes. Values below 1e-12 of the largest, which are rounding, are left out.

    Raises:
        TypeError: no spectra.
        ValueError: none, or a class that does not occur.

    Cost: O(d).

    Example:
        >>> import torch
        >>> from augloader.diagnostics import feature_spectrum
        >>> h = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 0.0]])
        >>> figure = features(feature_spectrum(h, torch.tensor([0, 0, 1])), label=0)
        >>> figure.axes[1].lines[0].get_ydata().round(4).tolist()
        [1.0, nan]

    Source: He et al. (2019), Fig. 3.
    """
    named = _named("spectra", spectra, FeatureSpectrum)
    figure = Figure(figsize=(10, 4), layout="constrained")
    whole, inner = figure.subplots(1, 2)
    for name, found in named.items():
        _variances(whole, found.all.cpu().numpy(), name)
        _variances(inner, _inner(found, label).cpu().numpy(), name)
    whole.set(title="all classes")
    inner.set(title="within classes" if label is None else f"class {label}")
    for axes in (whole, inner):
        axes.title.set_fontsize(10)
        axes.set(xlabel="index, from the largest", ylabel="singular value of the covariance")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if "" not in named:
        whole.legend()
    return figure


def overlap(found: Overlap, epochs: Sequence[int] | None = None) -> Figure:
    """Draw how much of each selection lies among the samples of largest loss.

    Args:
        found: what ``overlap`` of ``augloader.diagnostics`` returned.
        epochs: at which epoch each selection was made, ascending; None counts them from 0.

    Returns:
        A figure with one axes: the share, and that of a random selection.

    Raises:
        TypeError: no overlap.
        ValueError: not as many epochs, or not ascending.

    Cost: O(1) a selection.

    Example:
        >>> import torch
        >>> from augloader.diagnostics import Overlap
        >>> shares, chance = torch.tensor([[0.25, 0.75], [0.25, 0.25]])
        >>> [line.get_ydata().tolist() for line in overlap(Overlap(shares, chance)).axes[0].lines]
        [[0.25, 0.75], [0.25, 0.25]]

    Source: Liu & Mirzasoleiman (2022), section 5.1 and App. D.11.
    """
    (one,) = _several("found", [found], Overlap)
    count = len(one.shares)
    at = list(range(count)) if epochs is None else ascending("epochs", epochs, count, _ORDER)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(at, one.shares.numpy(), marker="o", color="C0", label="among the largest losses")
    axes.plot(at, one.chance.numpy(), linestyle=":", color="0.4", label="by chance")
    of_refreshes(axes, "How much of each selection has the largest losses", epochs is None)
    return figure


def _alignments(
    found: Alignment | Sequence[Alignment], at: Sequence[float] | None
) -> tuple[list[Alignment], list[float], str]:
    """Return what is drawn, where, and what the places are."""
    if isinstance(found, Alignment):
        if not found.classes or at is not None:
            raise ValueError(
                "found must be several alignments, or one of several classes alone, got one. Pass "
                "a list, as of several budgets."
            )
        return list(found.classes.values()), [float(key) for key in found.classes], "class"
    several = _several("found", found, Alignment)
    if at is not None:
        return several, ascending("at", at, len(several), _ORDER), "epoch of the refresh"
    counts: list[float] = [one.selected for one in several]
    return several, ascending("numbers selected", counts, len(several), _ORDER), "samples selected"


def _inner(found: FeatureSpectrum, label: int | None) -> Any:
    if label is None:
        return found.within
    known = found.classes.tolist()
    if label not in known:
        raise ValueError(
            f"label must be of a class that occurs, from {known[0]} to {known[-1]}, got {label!r}. "
            "None draws the mean of all."
        )
    return found.of_class[known.index(label)]


def _variances(axes: Axes, values: np.ndarray[Any, Any], name: str) -> None:
    shown = np.where(values > _LEAST * values.max(), values, np.nan)
    axes.plot(np.arange(1, len(values) + 1), shown, label=name, marker=".", markersize=3)


def _named(name: str, given: T | Mapping[str, T], kind: type[T]) -> dict[str, T]:
    """Return values by name; one alone has none."""
    named = dict(given) if isinstance(given, Mapping) else {"": given}
    _several(name, list(named.values()), kind)
    return {str(key): value for key, value in named.items()}


def _several(name: str, given: Any, kind: type[T]) -> list[T]:
    """Return a list of values of a kind, or raise."""
    advice = "Pass what augloader.diagnostics returned."
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name} must be a list, got {type(given).__name__}. {advice}")
    if not given:
        raise ValueError(f"{name} must hold at least one, got none. {advice}")
    for value in given:
        if not isinstance(value, kind):
            raise TypeError(
                f"{name} must be of {kind.__name__}, got {type(value).__name__}. {advice}"
            )
    return list(given)
