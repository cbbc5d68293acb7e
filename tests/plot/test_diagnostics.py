"""Lines of the diagnostics' pictures are what was measured."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import nn

from augloader import Selection, diagnostics
from augloader.diagnostics import (
    Alignment,
    Overlap,
    Risk,
    RiskGap,
    feature_spectrum,
    jacobian_spectrum,
)
from augloader.plot import alignment, features, jacobian, overlap, risks


def drawn(figure: Figure) -> Figure:
    """Return a figure that can be saved; warnings, as of lacking glyphs, are errors."""
    figure.savefig(io.BytesIO(), dpi=30)
    return figure


def across(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def along(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def named(figure: Figure, panel: int = 0) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[panel].lines}


# The Jacobian


def test_jacobian_draws_values_changes_and_angles_of_each_range() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    clean = torch.randn(4, 4)
    near, far = (jacobian_spectrum(model, clean, clean + d, bins=3) for d in (0.1, 1.0))
    figure = drawn(jacobian(near))
    values, change, angle = figure.axes
    assert along(values.lines[0]) == pytest.approx(near.clean.tolist())
    assert along(values.lines[1]) == pytest.approx(near.augmented.tolist())
    assert across(values.lines[0]) == list(range(1, 9))
    assert along(change.lines[0]) == pytest.approx(near.changes().tolist())
    assert near.edges.tolist() == [0, 3, 5, 8]
    assert across(change.lines[0]) == [2, 4.5, 7]  # the middles of 1-3, 4-5 and 6-8
    expected = [near.angles(side).rad2deg().tolist() for side in ("left", "right")]
    assert [along(line) for line in angle.lines] == [pytest.approx(part) for part in expected]
    (shares, _) = drawn(jacobian(near, relative=True)).axes[1].lines
    assert along(shares) == pytest.approx(near.changes(relative=True).tolist())
    several = drawn(jacobian({"0.1": near, "1": far}))
    labels = named(several, 2)
    assert list(labels) == ["0.1: left", "0.1: right", "1: left", "1: right"]
    assert along(labels["1: right"]) == pytest.approx(far.angles("right").rad2deg().tolist())
    with pytest.raises(TypeError, match=r"spectra must be of JacobianSpectrum, got Tensor"):
        jacobian(near.clean)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="spectra must hold at least one, got none"):
        jacobian({})


# Alignment


def some_alignments() -> list[Alignment]:
    g = torch.tensor([[0.0], [1.0], [3.0]])
    chosen = [Selection(torch.tensor([1]), torch.tensor([3.0]))]
    chosen += [Selection(torch.tensor([1, 2]), torch.tensor([2.0, 1.0]))]
    return [diagnostics.alignment(g, selection, g + 1) for selection in chosen]


def test_alignment_draws_errors_bounds_and_norms() -> None:
    made = some_alignments()
    lines = named(drawn(alignment(made)))
    assert len(lines) == 6
    assert along(lines["clean: error of the selection"]) == [1, 1]
    assert along(lines["clean: bound of the error"]) == [3, 1]
    assert along(lines["clean: norm of the whole gradient"]) == [4, 4]
    assert along(lines["augmented: error of the selection"]) == [1, 1]
    assert along(lines["augmented: bound of the error"]) == [9, 7]
    assert along(lines["augmented: norm of the whole gradient"]) == [7, 7]
    assert across(lines["clean: error of the selection"]) == [1, 2]
    later = alignment(made, at=[3, 9]).axes[0]
    assert across(later.lines[0]) == [3, 9]
    assert later.get_xlabel() == "epoch of the refresh"
    assert later.get_yscale() == "log"


def test_alignment_draws_classes() -> None:
    g, labels = torch.tensor([[0.0], [1.0], [5.0], [7.0]]), torch.tensor([0, 0, 2, 2])
    selection = Selection(torch.tensor([0, 3]), torch.tensor([2.0, 2.0]))
    made = diagnostics.alignment(g, selection, labels=labels)
    axes = drawn(alignment(made)).axes[0]
    assert [across(line) for line in axes.lines] == [[0, 2]] * 3
    assert [along(line) for line in axes.lines] == [[1, 2], [1, 2], [1, 12]]
    assert axes.get_xlabel() == "class"


def test_alignment_without_an_error_and_what_it_refuses() -> None:
    g = torch.tensor([[1.0], [1.0]])
    exact = diagnostics.alignment(g, Selection(torch.tensor([0]), torch.tensor([2.0])))
    assert drawn(alignment([exact])).axes[0].get_yscale() == "linear"
    with pytest.raises(ValueError, match="found must be several alignments, or one of several"):
        alignment(exact)
    with pytest.raises(ValueError, match="numbers selected must be 2 ascending ones"):
        alignment([exact, exact])
    with pytest.raises(ValueError, match="at must be 2 ascending ones, got"):
        alignment([exact, exact], at=[1])
    with pytest.raises(ValueError, match="found must hold at least one, got none"):
        alignment([])


# Risks


def test_risks_draws_the_views_that_all_have() -> None:
    history = [
        RiskGap(2, Risk(1.0, 0.5), Risk(1.5, 0.25), Risk(2.0, 0.125)),
        RiskGap(5, Risk(0.5, 0.75), Risk(0.75, 0.5), None),
    ]
    figure = drawn(risks(history))
    losses, accuracies = (named(figure, panel) for panel in (0, 1))
    assert list(losses) == list(accuracies) == ["clean data", "weak data"]
    assert across(losses["clean data"]) == [2, 5]
    assert along(losses["clean data"]) == [1, 0.5]
    assert along(losses["weak data"]) == [1.5, 0.75]
    assert along(accuracies["clean data"]) == [0.5, 0.75]
    assert along(named(risks(history[:1]))["strong data"]) == [2]
    with pytest.raises(ValueError, match=r"history must be 2 ascending ones, got \[5, 2\]"):
        risks(history[::-1])
    with pytest.raises(TypeError, match=r"history must be a list, got RiskGap"):
        risks(history[0])  # type: ignore[arg-type]


# Features


def test_features_draws_all_classes_and_one_or_their_mean() -> None:
    h = torch.tensor([[3.0, 0.5], [3.0, -0.5], [-3.0, 2.0], [-3.0, -2.0]])
    found = feature_spectrum(h, torch.tensor([4, 4, 7, 7]))
    figure = drawn(features(found))
    assert along(figure.axes[0].lines[0]) == pytest.approx([9, (4 + 0.25) / 2])
    assert along(figure.axes[1].lines[0])[0] == pytest.approx((4 + 0.25) / 2)
    assert np.isnan(along(figure.axes[1].lines[0])[1])
    assert across(figure.axes[0].lines[0]) == [1, 2]
    one = drawn(features({"with": found, "without": found}, label=4))
    assert list(named(one)) == ["with", "without"]
    assert along(one.axes[1].lines[1])[0] == pytest.approx(0.25)
    assert one.axes[1].get_title() == "class 4"
    with pytest.raises(ValueError, match=r"label must be of a class that occurs, from 4 to 7"):
        features(found, label=5)
    with pytest.raises(TypeError, match="spectra must be of FeatureSpectrum, got Tensor"):
        features(h)  # type: ignore[arg-type]
    drawn(features(feature_spectrum(torch.zeros(3, 2), torch.tensor([0, 0, 1]))))  # nothing there


# Overlap


def test_overlap_draws_the_share_and_that_by_chance() -> None:
    shares, chance = torch.tensor([[0.25, 0.75], [0.25, 0.5]])
    axes = drawn(overlap(Overlap(shares, chance))).axes[0]
    assert [along(line) for line in axes.lines] == [[0.25, 0.75], [0.25, 0.5]]
    assert [across(line) for line in axes.lines] == [[0, 1]] * 2
    assert axes.get_xlabel() == "refresh"
    later = overlap(Overlap(shares, chance), epochs=[0, 20]).axes[0]
    assert across(later.lines[0]) == [0, 20]
    with pytest.raises(ValueError, match="epochs must be 2 ascending ones, got"):
        overlap(Overlap(shares, chance), epochs=[1])
    with pytest.raises(TypeError, match="found must be of Overlap, got Tensor"):
        overlap(shares)
