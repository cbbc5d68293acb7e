"""Pictures show what they say: data are read back from the figures' artists."""

import io
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from augloader import (
    CoresetSampler,
    Evidence,
    FacilityLocation,
    Proxies,
    Selection,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.plot import coverage, medoids, turnover


def drawn(figure: Figure) -> Figure:
    """Return a figure that can be saved; warnings, as of lacking glyphs, are errors."""
    figure.savefig(io.BytesIO(), dpi=30)
    return figure


def select(points: Tensor, k: int, labels: Tensor | None = None, **options: float) -> Selection:
    evidence = Evidence(len(points), labels, Proxies(points))
    strategy = FacilityLocation(per_class=labels is not None, **options)  # type: ignore[arg-type]
    return strategy.select(evidence, k, generator=np.random.default_rng(0))


def chosen(indices: list[int], weights: list[float]) -> Selection:
    return Selection(torch.tensor(indices), torch.tensor(weights))


def boxes(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Return left, right, bottom and top of each picture."""
    return [part.get_extent() for part in axes.images]


def sides(axes: Axes) -> list[tuple[float, float]]:
    return [(right - left, bottom - top) for left, right, bottom, top in boxes(axes)]


def across(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def along(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


# Medoids


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_medoids_are_the_images_from_heaviest_to_lightest(
    channels: int, dtype: torch.dtype
) -> None:
    images = torch.randint(256, (9, channels, 6, 6), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8) if dtype == torch.uint8 else (images / 255).to(dtype)
    axes = drawn(medoids(chosen([2, 7, 5], [1.0, 4.0, 2.25]), images)).axes[0]
    for part, index in zip(axes.images, (7, 5, 2), strict=True):
        shown = np.asarray(part.get_array())
        expected = images[index].permute(1, 2, 0).float().numpy()
        assert np.array_equal(shown.astype(np.float32), expected.squeeze())
        assert part.get_clim() == (0, 255 if dtype == torch.uint8 else 1)
    assert np.array(sides(axes)) == pytest.approx(np.array([[1, 1], [0.75, 0.75], [0.5, 0.5]]))
    assert [text for text in texts(axes) if text] == [
        "4",
        "2.25",
        "1",
        "3 medoids; area: number of samples stood for",
    ]


def test_area_is_in_proportion_to_weight_whatever_the_shape() -> None:
    images = [torch.rand(1, 4, 16), torch.rand(1, 16, 4), torch.rand(1, 8, 8)]
    weights = [2.0, 8.0, 5.0]
    axes = drawn(medoids(chosen([0, 1, 2], weights), images)).axes[0]
    found = sides(axes)
    areas = np.array([width * height for width, height in found])
    assert areas / areas[0] == pytest.approx(np.array([8, 5, 2]) / 8)
    assert [width / height for width, height in found] == pytest.approx([1 / 4, 1, 4])
    assert max(map(max, found)) == pytest.approx(1)


def test_a_row_for_each_class() -> None:
    labels = torch.tensor([2, 0, 0, 2, 2, 0, 1])
    selection = chosen([3, 1, 0, 5], [1.0, 3.0, 2.0, 1.5])
    images = torch.rand(7, 3, 5, 5)
    axes = drawn(medoids(selection, images, labels, names=["cat", "dog", "owl"])).axes[0]
    shown = [np.asarray(part.get_array()) for part in axes.images]
    for pixels, index in zip(shown, (1, 5, 0, 3), strict=True):
        assert np.array_equal(pixels, images[index].permute(1, 2, 0).numpy())
    bottoms = [round(bottom, 6) for _, _, bottom, _ in boxes(axes)]
    assert bottoms[0] == bottoms[1] < bottoms[2] == bottoms[3]
    assert [text for text in texts(axes) if "for" in text][:2] == ["cat\n2 for 4.5", "owl\n2 for 3"]
    numbered = medoids(selection, images, labels).axes[0]
    assert any(text.startswith("2\n") for text in texts(numbered))


def test_pictures_lie_apart_and_inside_the_axes() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = (torch.rand(60, generator=generator) * 200 + 1).tolist()
    labels = torch.arange(80) % 4
    selection = chosen(torch.randperm(80, generator=generator)[:60].tolist(), weights)
    for given in (None, labels):
        axes = medoids(selection, torch.rand(80, 1, 4, 4), given, columns=15).axes[0]
        (_, right_end), (bottom_end, _) = axes.get_xlim(), axes.get_ylim()
        assert len(axes.images) >= 4 * 13 - 4
        for one, other in combinations(boxes(axes), 2):
            beside = one[1] <= other[0] or other[1] <= one[0]
            assert beside or one[2] <= other[3] or other[2] <= one[3]
        assert all(0 <= b[0] < b[1] <= right_end for b in boxes(axes))
        assert all(0 <= b[3] < b[2] <= bottom_end for b in boxes(axes))


def test_the_heaviest_are_shown_where_there_are_too_many() -> None:
    selection = chosen(list(range(20)), [float(i + 1) for i in range(20)])
    images, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % 5
    axes = drawn(medoids(selection, images, rows=2, columns=3)).axes[0]
    assert [text for text in texts(axes) if text][:6] == ["20", "19", "18", "17", "16", "15"]
    assert texts(axes)[-1].startswith("The heaviest 6 of 20 medoids; area")
    axes = drawn(medoids(selection, images, labels, rows=2, columns=3)).axes[0]
    assert texts(axes)[-1].startswith(
        "6 of 20 medoids, the heaviest of each class (2 of 5 classes); area"
    )
    assert texts(axes)[1:4] == ["16", "11", "6"]  # labels 0: weights 1, 6, 11, 16


@pytest.mark.parametrize("labels", [None, torch.zeros(3, dtype=torch.int64)])
def test_one_medoid_and_equal_weights(labels: Tensor | None) -> None:
    images = torch.rand(3, 3, 4, 4)
    assert sides(drawn(medoids(chosen([1], [3.0]), images, labels)).axes[0]) == [
        pytest.approx((1, 1))
    ]
    equal = sides(drawn(medoids(chosen([1, 2], [1.5, 1.5]), images, labels)).axes[0])
    assert equal == [pytest.approx((1, 1))] * 2


def test_images_come_from_datasets_before_any_transform() -> None:
    images, targets = torch.rand(4, 3, 5, 5), torch.arange(4)
    plain = TensorDataset(images, targets)
    wrapped = WeightedAugmentedDataset(plain, weak=lambda x: -x, final=lambda x: 9 * x)
    named = WeightedAugmentedDataset(
        [{"picture": x, "label": 0} for x in images], fields=("picture", "label")
    )
    for data in (plain, wrapped, named, list(images)):
        (part,) = medoids(chosen([2], [4.0]), data).axes[0].images
        assert np.array_equal(np.asarray(part.get_array()), images[2].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("mode", "shape"), [("L", (5, 7)), ("RGB", (5, 7, 3)), ("P", (5, 7, 3))])
def test_pil_images(mode: str, shape: tuple[int, ...]) -> None:
    grey = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))
    (part,) = drawn(medoids(chosen([0], [1.0]), [(grey.convert(mode), 3)])).axes[0].images
    shown = np.asarray(part.get_array())
    assert shown.shape == shape
    assert np.array_equal(shown if mode == "L" else shown[..., 1], np.asarray(grey))


def test_medoids_refuses_what_it_cannot_show() -> None:
    one, images = chosen([1], [1.0]), torch.rand(2, 3, 4, 4)
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"images must be those .* at least 6, got 2\. Pass the"):
        medoids(chosen([5], [1.0]), images)
    with pytest.raises(ValueError, match=r"images\[1\] must be in \[0, 1\] .* to 3"):
        medoids(one, images.clamp(3, 3))
    with pytest.raises(ValueError, match=r"images\[1\] must be .* got values from nan"):
        medoids(one, images * torch.nan)
    with pytest.raises(ValueError, match=r"must be \(1, H, W\) or \(3, H, W\), got shape \(2, 4"):
        medoids(one, torch.rand(2, 2, 4, 4))
    with pytest.raises(TypeError, match=r"got torch.int64\. Wrap other items"):
        medoids(one, torch.zeros(2, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"got dict\. Wrap other items"):
        medoids(one, [{"image": x} for x in images])
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(1,\)"):
        medoids(one, images, labels[:1])
    with pytest.raises(ValueError, match=r"names must be at least 2, one a class, got 1"):
        medoids(one, images, labels, names=["a"])
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        medoids(one, images, rows=0)
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        medoids(one, images, columns=0)


# Coverage


def test_coverage_falls_short_of_the_best_by_no_more_than_the_bound_says() -> None:
    points = torch.randn(9, 2, generator=torch.Generator().manual_seed(3))
    selection = select(points, 5)
    distances = torch.cdist(points.double(), points.double())

    def cost(medoid: tuple[int, ...]) -> float:
        return float(distances[:, list(medoid)].amin(1).sum())

    figure = drawn(coverage(selection))
    above, below = figure.axes
    reached, bound = above.lines
    assert across(reached) == [1, 2, 3, 4, 5]
    assert selection.certificate is not None
    unit = selection.certificate.bound  # both are shares of it
    order = selection.indices.tolist()
    covered = np.array(along(reached)) * unit
    bounds = np.array(along(bound)) * unit
    costs = [cost(tuple(order[:k])) for k in range(1, 6)]
    # Coverage is a constant less the cost.
    assert covered + np.array(costs) == pytest.approx([covered[0] + costs[0]] * 5, rel=1e-5)
    for k in range(1, 6):
        best = min(cost(some) for some in combinations(range(9), k))
        assert costs[k - 1] - best <= bounds[k - 1] - covered[k - 1] + 1e-5
    (ratios,) = below.lines
    assert np.array(along(ratios)) == pytest.approx(covered / bounds)
    assert across(ratios) == [1, 2, 3, 4, 5]
    assert bound.get_label() == "bound: no choice covers more"
    assert f"at least {100 * covered[-1] / bounds[-1]:.1f} %" in figure.get_suptitle()


def test_coverage_by_class_begins_with_one_medoid_a_class() -> None:
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(120, 3, generator=generator), torch.arange(120) % 4
    selection = select(points, 60, labels)
    above, below = drawn(coverage(selection, points=7)).axes
    budgets = across(above.lines[0])
    assert (len(budgets), budgets[0], budgets[-1]) == (7, 4, 60)
    certificates = [selection.first(int(k)).certificate for k in budgets]
    expected = [part.ratio for part in certificates if part is not None]
    assert np.array(along(below.lines[0])) == pytest.approx(expected)
    assert above.lines[1].get_label() == "bound: no choice of as many a class covers more"
    assert below.get_xlabel() == "budget: medoids of 120 samples"
    # The axis above is the share of the data.
    (share,) = above.child_axes
    assert share.get_xlim() == pytest.approx([end / 120 for end in above.get_xlim()])


def test_coverage_of_the_smallest_selections() -> None:
    alone = select(torch.rand(5, 2), 1)
    assert across(drawn(coverage(alone)).axes[0].lines[0]) == [1]
    same = select(torch.zeros(5, 2), 3)  # nothing to cover
    ratios = along(drawn(coverage(same)).axes[1].lines[0])
    assert ratios == [1.0] * len(ratios)
    assert len(across(coverage(select(torch.rand(9, 2), 9), points=1).axes[0].lines[0])) == 1


def test_coverage_of_a_first_part_and_of_one_that_stopped_early() -> None:
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    part = select(points, 20).first(8)
    assert across(drawn(coverage(part)).axes[0].lines[0])[-1] == 8
    early = select(points, 30, torch.arange(40) % 2, xi=4.0)
    assert len(early) < 30
    budgets = across(drawn(coverage(early)).axes[0].lines[0])
    assert budgets[-1] == len(early)
    assert (np.diff(budgets) > 0).all()


def test_an_unproven_bound_is_called_so() -> None:
    selection = select(torch.rand(8, 2), 3)
    assert selection.certificate is not None
    approximate = replace(selection, certificate=replace(selection.certificate, proven=False))
    label = str(coverage(approximate).axes[0].lines[1].get_label())
    assert label.startswith("bound for the neighbours found")


def test_coverage_refuses_selections_without_certificate_or_order() -> None:
    with pytest.raises(ValueError, match=r"selection must have a certificate, got none\. Select"):
        coverage(chosen([0], [1.0]))
    with pytest.raises(ValueError, match="nested order, got one without"):
        coverage(replace(select(torch.rand(6, 2), 3), nested=None))
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        coverage(select(torch.rand(6, 2), 3), points=0)


# Turnover


def test_turnover_counts_what_was_selected_before() -> None:
    made = [
        chosen([0, 1, 2, 3], [5.0] * 4),
        chosen([3, 2, 1, 9], [5.0] * 4),
        chosen([9, 8], [10.0] * 2),
        chosen([0, 1, 8, 9], [5.0] * 4),
    ]
    axes = drawn(turnover(made, epochs=[1, 3, 5, 9])).axes[0]
    before, first, chance = axes.lines
    assert [across(line) for line in axes.lines] == [[3, 5, 9]] * 3
    assert along(before) == [3 / 4, 1 / 2, 2 / 4]
    assert along(first) == [3 / 4, 0, 2 / 4]
    assert along(chance) == [4 / 20, 4 / 20, 2 / 20]
    assert axes.get_xlabel() == "epoch of the refresh"
    counted = turnover(made).axes[0]
    assert across(counted.lines[0]) == [1, 2, 3]
    assert counted.get_xlabel() == "refresh"


def test_turnover_agrees_with_the_certificates() -> None:
    generator = torch.Generator().manual_seed(0)
    sampler = CoresetSampler(range(50), FacilityLocation(per_class=False), count=12)
    made = [
        sampler.refresh(Evidence(50, proxies=Proxies(torch.randn(50, 2, generator=generator))))
        for _ in range(3)
    ]
    kept = [part.certificate.kept for part in made if part.certificate is not None]
    assert kept[0] is None
    shares = along(turnover(made).axes[0].lines[0])
    assert shares == [count / 12 for count in kept[1:] if count is not None]


def test_by_chance_is_what_random_selections_share() -> None:
    sampler = CoresetSampler(range(400), Uniform(), fraction=0.3, seed=1)
    made = []
    for epoch in range(12):
        sampler.set_epoch(epoch)
        made.append(sampler.refresh())
    before, _, chance = (np.array(along(line)) for line in turnover(made).axes[0].lines)
    assert chance == pytest.approx(0.3)
    assert before.mean() == pytest.approx(0.3, abs=0.03)


def test_turnover_refuses_fewer_than_two() -> None:
    one = chosen([0], [1.0])
    with pytest.raises(ValueError, match=r"selections must be two or more, got 1\. Keep what"):
        turnover([one])
    with pytest.raises(ValueError, match=r"epochs must be 2 ascending ones, .* got \[3\]"):
        turnover([one, one], epochs=[3])
    with pytest.raises(ValueError, match=r"epochs must be 2 ascending ones, .* got \[3, 3\]"):
        turnover([one, one], epochs=[3, 3])


# matplotlib


@pytest.mark.slow
def test_matplotlib_is_optional_and_pyplot_never_imported() -> None:
    program = (
        "import io, sys\n"
        "sys.modules['matplotlib'] = None\n"
        "import augloader, torch\n"
        "try:\n"
        "    import augloader.plot\n"
        "except ImportError as error:\n"
        "    assert 'pip install matplotlib' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('imported')\n"
        "del sys.modules['matplotlib']\n"
        "from augloader import plot\n"
        "plot.strengths([torch.rand(3)]).savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
