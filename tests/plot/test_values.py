"""Pictures of scores: data are read back from the figures' artists."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy import stats
from torch.utils.data import TensorDataset

from augloader import WeightedAugmentedDataset
from augloader.plot import drift, extremes, scores
from augloader.plot.values import rank_correlation
from tests.plot.test_choices import across, along, drawn

NAN = float("nan")
IMAGES = torch.rand(40, 3, 5, 7, generator=torch.Generator().manual_seed(0))


# Extremes


def test_the_ends_are_those_of_a_sorted_list() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(1))
    figure = drawn(extremes(values, IMAGES, count=6))
    order = values.argsort().tolist()
    assert len(figure.axes) == 12
    for axes, i in zip(figure.axes, [*order[::-1][:6], *order[:6]], strict=True):
        shown = np.asarray(axes.images[0].get_array())
        assert np.array_equal(shown, IMAGES[i].permute(1, 2, 0).numpy())
        assert float(axes.get_xlabel()) == pytest.approx(float(values[i]), rel=1e-2)
    assert [axes.get_ylabel() for axes in figure.axes[::6]] == ["highest", "lowest"]
    assert figure.get_suptitle() == "Highest and lowest scores of 40 samples"


def test_extremes_by_class_and_of_several_scores() -> None:
    labels = torch.arange(40) % 3
    found = {"loss": torch.arange(40.0), "influence": -torch.arange(40.0)}
    names = ["cat", "dog", "owl"]
    figure = drawn(extremes(found, IMAGES, labels, names=names, count=2, classes=2))
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
        f"{name}\n{end} {score}"
        for name in ("cat", "dog")
        for end in ("highest", "lowest")
        for score in ("loss", "influence")
    ]
    assert [axes.get_xlabel() for axes in figure.axes[:8]] == [
        *("39", "36", "0", "-3", "0", "3", "-39", "-36")  # samples 0, 3, ..., 39
    ]
    assert figure.get_suptitle().endswith("(2 of 3 classes)")


@pytest.mark.parametrize("wrapped", [False, True])
def test_extremes_of_a_dataset_read_only_what_is_drawn(wrapped: bool) -> None:
    class Watched(TensorDataset):
        read: list[int] = []  # noqa: RUF012

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            self.read.append(int(index))
            return tuple(part[index] for part in self.tensors)

    Watched.read = []
    data = Watched(IMAGES, torch.zeros(40, dtype=torch.int64))
    dataset = WeightedAugmentedDataset(data, weak=lambda x: 1 - x) if wrapped else data
    figure = extremes(np.arange(40), dataset, count=3)
    assert sorted(set(Watched.read)) == [0, 1, 2, 37, 38, 39]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal(shown, IMAGES[39].permute(1, 2, 0).numpy())


def test_samples_never_seen_are_counted_and_not_drawn() -> None:
    figure = drawn(extremes([NAN, 1.0, NAN, 3.0], IMAGES[:4], torch.tensor([0, 0, 1, 1])))
    assert [axes.get_xlabel() for axes in figure.axes] == ["1", "1", "3", "3"]
    assert figure.get_suptitle() == "Highest and lowest scores of 4 samples, 2 never seen"
    # A class without one that is known has rows without images.
    some = extremes([1.0, NAN], IMAGES[:2], torch.tensor([0, 1]))
    assert len(some.axes) == 2


def test_extremes_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"images must be those that scores are of, 3, got 40\."):
        extremes([1.0, 2.0, 3.0], IMAGES)
    with pytest.raises(ValueError, match=r"scores must be known of at least one sample, got NaN"):
        extremes([NAN] * 40, IMAGES)
    with pytest.raises(ValueError, match=r"scores must not be infinite, got 1 values \(first ind"):
        extremes([1.0, float("inf")], IMAGES[:2])
    with pytest.raises(ValueError, match=r"scores\['loss'\] must be \(n,\) of at least one"):
        extremes({"loss": torch.rand(2, 2)}, IMAGES[:2])
    with pytest.raises(ValueError, match="scores must have at least one name, got none"):
        extremes({}, IMAGES)
    with pytest.raises(TypeError, match="scores must be a tensor or an array of numbers, got str"):
        extremes("loss", IMAGES)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        extremes(torch.rand(40), IMAGES, count=0)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        extremes(torch.rand(40), IMAGES, classes=0)
    with pytest.raises(ValueError, match="names must be at least 3, one a class, got 2"):
        extremes(torch.rand(40), IMAGES, torch.arange(40) % 3, names=["a", "b"])
    with pytest.raises(ValueError, match=r"labels must have shape \(40,\), got \(3,\)"):
        extremes(torch.rand(40), IMAGES, torch.arange(3))


# Scores


def bars_of(axes: Axes) -> list[Rectangle]:
    return [part for part in axes.patches if isinstance(part, Rectangle)]


@pytest.mark.parametrize("log", [False, True])
def test_histograms_are_numpys_on_common_bins(log: bool) -> None:
    rng = np.random.default_rng(0)
    found = {"loss": rng.lognormal(size=500), "influence": rng.lognormal(2, size=200)}
    figure = drawn(scores(found, log=log, bins=17, quantiles=(0.25, 0.9)))
    values = {name: np.log10(x) if log else x for name, x in found.items()}
    every = np.concatenate([*values.values()])
    edges = np.histogram_bin_edges(every, 17)
    for axes, (name, x) in zip(figure.axes, values.items(), strict=True):
        bars = bars_of(axes)
        assert [bar.get_height() for bar in bars] == np.histogram(x, edges)[0].tolist()
        assert [bar.get_x() for bar in bars] == pytest.approx(edges[:-1].tolist())
        assert [across(line)[0] for line in axes.lines] == pytest.approx(
            np.quantile(x, (0.25, 0.9)).tolist()
        )
        assert axes.get_title() == f"{name}: {len(x)} samples"
        assert axes.get_yscale() == "log"
    label = str(figure.axes[0].lines[1].get_label())
    share, at = label.split(" % at ")
    assert share == "90"
    assert float(at) == pytest.approx(np.quantile(found["loss"], 0.9), rel=2e-2)


def test_what_has_no_logarithm_or_was_never_seen_is_counted() -> None:
    axes = drawn(scores([0.0, 1.0, NAN, 10.0, 0.0], log=True, bins=1)).axes[0]
    assert axes.get_title() == "2 samples, 1 never seen, 2 of 0"
    assert [bar.get_height() for bar in bars_of(axes)] == [2]
    assert drawn(scores(torch.tensor([2.0]), bins=3)).axes[0].get_title() == "1 sample"


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-300, 1e12])
def test_scores_that_are_all_alike(value: float) -> None:
    figure = drawn(scores(np.full(9, value), bins=5))
    assert sum(bar.get_height() for bar in bars_of(figure.axes[0])) == 9


def test_scores_refuses_other_values() -> None:
    with pytest.raises(ValueError, match=r"scores must be 0 or more for logarithms, got -2 of a\."):
        scores({"a": [1.0, -2.0]}, log=True)
    with pytest.raises(ValueError, match="known of at least one sample, got 2 of 0"):
        scores([0.0, 0.0], log=True)
    with pytest.raises(ValueError, match="known of at least one sample, got 1 never seen of b"):
        scores({"a": [1.0], "b": [NAN]})
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        scores([1.0], bins=0)
    with pytest.raises(ValueError, match=r"quantiles must be in \[0, 1\], got 90"):
        scores([1.0], quantiles=(90,))
    with pytest.raises(TypeError, match="log must be True or False, got 10"):
        scores([1.0], log=10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scores must not be infinite"):
        scores([1.0, -float("inf")])


# Drift


def test_drift_draws_the_pairs_and_says_how_ranks_agree() -> None:
    rng = np.random.default_rng(0)
    before = {"loss": rng.random(80), "influence": rng.random(80)}
    after = {name: x + 0.3 * rng.random(80) for name, x in before.items()}
    after["loss"][[4, 5]] = NAN
    before["loss"][[5, 6]] = NAN
    figure = drawn(drift(before, after))
    for axes, name in zip(figure.axes, before, strict=True):
        pairs = np.stack([before[name], after[name]], 1)
        pairs = pairs[~np.isnan(pairs).any(1)]
        offsets = np.asarray(axes.collections[0].get_offsets())
        assert offsets == pytest.approx(pairs)
        rho = stats.spearmanr(*pairs.T).statistic
        unseen = ", 3 never seen" if name == "loss" else ""
        assert axes.get_title() == (
            f"{name}: {len(pairs)} samples{unseen}\nrank correlation {rho:.2f}"
        )
        (same,) = axes.lines
        assert across(same) == along(same) == [pairs.min(), pairs.max()]


def test_drift_of_logarithms_leaves_zeros_out() -> None:
    axes = drawn(drift([1.0, 10.0, 0.0, 100.0], [10.0, 1.0, 5.0, 1000.0], log=True)).axes[0]
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[0, 1], [1, 0], [2, 3]]
    assert axes.get_title() == "3 samples, 1 of 0\nrank correlation 0.50"


def test_where_no_rank_differs_there_is_no_correlation() -> None:
    title = drawn(drift([1.0, 1.0], [2.0, 3.0])).axes[0].get_title()
    assert title.endswith("rank correlation not defined: all alike")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_rank_correlations_with_ties_are_scipys(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        expected = stats.spearmanr(one, other).statistic
    assert rank_correlation(one, other) == (
        None if np.isnan(expected) else pytest.approx(expected, abs=1e-12)
    )


def test_drift_refuses_what_are_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"after must have the names .* got \{'': 3\}\. Keep"):
        drift([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"of before, \{'a': 1\}, got \{'b': 1\}"):
        drift({"a": [1.0]}, {"b": [1.0]})
    with pytest.raises(ValueError, match="known of at least one sample, got 2 never seen"):
        drift([1.0, NAN], [NAN, 1.0])
