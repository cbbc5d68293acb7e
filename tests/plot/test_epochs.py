"""Pictures of samples over epochs: data are read back from the figures' artists."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import Collection

from augloader import CoresetSampler, StableInfluence, Uniform
from augloader.plot import evolution
from tests.plot.test_choices import across, along, drawn

NAN = float("nan")


def ends(band: Collection, epoch: float) -> tuple[float, float]:
    corners = np.asarray(band.get_paths()[0].vertices)
    at = corners[np.isclose(corners[:, 0], epoch), 1]
    return float(at.min()), float(at.max())


@pytest.mark.parametrize("stacked", [False, True])
def test_groups_have_their_mean_and_standard_deviation(stacked: bool) -> None:
    history = torch.rand(5, 60, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    given_ = history if stacked else list(history)
    figure = drawn(evolution(given_, labels, names=["cat", "dog", "owl"], epochs=[0, 2, 4, 8, 9]))
    (axes,) = figure.axes
    for group, (line, band) in enumerate(zip(axes.lines, axes.collections, strict=True)):
        own = history[:, labels == group].double()
        mean, spread = own.mean(1).numpy(), own.std(1, correction=0).numpy()
        assert across(line) == [0, 2, 4, 8, 9]
        assert np.array(along(line)) == pytest.approx(mean)
        for place, epoch in enumerate((0, 2, 4, 8, 9)):
            low, high = mean[place] - spread[place], mean[place] + spread[place]
            assert ends(band, epoch) == pytest.approx((low, high))
    assert [line.get_label() for line in axes.lines] == [
        f"{name}, 20 samples" for name in ("cat", "dog", "owl")
    ]
    assert axes.get_title() == "Strength of 60 samples: mean and standard deviation"
    assert axes.get_ylabel() == "strength"


def test_quarters_are_by_the_first_value() -> None:
    first = torch.randperm(40, generator=torch.Generator().manual_seed(0)).float()
    axes = drawn(evolution([first, first * 2], what="difficulty")).axes[0]
    assert [along(line) for line in axes.lines] == [
        [4.5, 9.0],
        [14.5, 29.0],
        [24.5, 49.0],
        [34.5, 69.0],
    ]
    assert axes.lines[0].get_label() == "10 samples, 0 to 9 at first"
    assert axes.get_ylabel() == "difficulty"


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30),
    st.integers(1, 6),
)
def test_parts_divide_the_samples_and_keep_equal_values_together(
    values: list[int], count: int
) -> None:
    history = [torch.tensor(values, dtype=torch.float64)]
    labels = [str(line.get_label()) for line in evolution(history, count).axes[0].lines]
    sizes = [int(label.split()[0]) for label in labels]
    assert sum(sizes) == len(values)
    assert len(sizes) <= count
    start = 0
    for size in sizes:  # each part begins where the one before ended, and no value is in both
        part = sorted(values)[start : start + size]
        assert start + size == len(values) or part[-1] < sorted(values)[start + size]
        start += size


def test_values_that_are_not_known_are_left_out() -> None:
    history = [[NAN, 1.0, NAN, 4.0], [2.0, 3.0, NAN, NAN], [4.0, NAN, NAN, NAN]]
    axes = drawn(evolution(history, 1)).axes[0]
    assert along(axes.lines[0]) == [2.5, 2.5, 4.0]
    assert ends(axes.collections[0], 1) == pytest.approx((2.0, 3.0))
    assert axes.lines[0].get_label() == "3 samples, 1 to 4 at first"
    title = "Strength of 4 samples, 1 never seen: mean and standard deviation"
    assert axes.get_title() == title
    gap = drawn(evolution([[1.0, NAN], [NAN, 2.0]], torch.tensor([0, 1]))).axes[0]
    assert np.array_equal(along(gap.lines[0]), [1.0, NAN], equal_nan=True)


def test_chosen_samples_have_lines_and_images() -> None:
    history = torch.rand(3, 12)
    images = torch.rand(12, 1, 4, 4)
    figure = drawn(evolution(history, samples=torch.tensor([7, 2]), images=images))
    groups, lines, *pictures = figure.axes
    assert groups.get_xlim() == lines.get_xlim()
    for line, picture, i in zip(lines.lines, pictures, (7, 2), strict=True):
        assert np.array(along(line)) == pytest.approx(history[:, i].numpy())
        assert np.array_equal(np.asarray(picture.images[0].get_array()), images[i, 0].numpy())
        assert picture.get_title() == line.get_label() == f"sample {i}"
        assert picture.title.get_color() == line.get_color()
    assert len(drawn(evolution(history, samples=[1])).axes) == 2
    assert len(drawn(evolution(history, images=images)).axes) == 1


def test_many_groups_are_said_to_be_left_out() -> None:
    axes = drawn(evolution([torch.rand(36)], torch.arange(36) // 3)).axes[0]
    assert len(axes.lines) == 10
    assert axes.get_title().endswith("; 10 of 12 groups")


def test_strengths_are_kept_as_the_docstring_says() -> None:
    sampler = CoresetSampler(
        range(30), Uniform(), fraction=0.5, strength=StableInfluence(), epochs=3, seed=0
    )
    history = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        sampler.refresh()
        history.append(sampler.strengths)
        every = torch.arange(30)
        sampler.table.report(every, loss=torch.rand(30), target=every % 2, epoch=epoch)
    losses = sampler.table.evidence(frozenset({"losses"})).losses
    assert losses is not None
    figure = drawn(evolution(history, 2))
    mean = np.array(along(figure.axes[0].lines[0]))
    parts = history[0].sort().indices[:15]
    assert mean == pytest.approx(torch.stack(history)[:, parts].mean(1).double().numpy())
    assert len(drawn(evolution([losses], what="loss")).axes[0].lines) == 4


def test_evolution_refuses_what_does_not_fit() -> None:
    good = torch.rand(4)
    with pytest.raises(ValueError, match=r"history must be .* at least one epoch, got none"):
        evolution([])
    with pytest.raises(ValueError, match=r"history\[0\] must have shape \(1,\), got \(0,\)"):
        evolution([torch.rand(0)])
    with pytest.raises(ValueError, match=r"history\[1\] must have shape \(4,\), got \(2,\)"):
        evolution([good, good[:2]])
    with pytest.raises(ValueError, match=r"history\[0\] must not be infinite, got 4 values"):
        evolution([good / 0])
    with pytest.raises(ValueError, match="history must have at least one value that is known"):
        evolution([good * NAN])
    with pytest.raises(TypeError, match=r"history\[0\] must be a tensor or an array of numbers"):
        evolution(["a"])
    with pytest.raises(ValueError, match=r"epochs must be 1 ascending ones, .* got \[0, 1\]"):
        evolution([good], epochs=[0, 1])
    with pytest.raises(ValueError, match="groups must be at least 1, got 0"):
        evolution([good], 0)
    with pytest.raises(ValueError, match=r"groups must have shape \(4,\), got \(3,\)"):
        evolution([good], torch.arange(3))
    with pytest.raises(ValueError, match="names must be at least 4, one a group, got 1"):
        evolution([good], torch.arange(4), names=["a"])
    with pytest.raises(ValueError, match=r"names must be of groups that are given, got \['a'\]"):
        evolution([good], names=["a"])
    with pytest.raises(ValueError, match=r"samples must be at most 10 different .* got \[4\]"):
        evolution([good], samples=[4])
    with pytest.raises(ValueError, match=r"samples must be .* got \[1, 1\]"):
        evolution([good], samples=[1, 1])
    with pytest.raises(ValueError, match="samples must be at least 0, got -1"):
        evolution([good], samples=[-1])
    with pytest.raises(ValueError, match="images must be of all 4 samples, got 3"):
        evolution([good], samples=[0], images=torch.rand(3, 1, 4, 4))
