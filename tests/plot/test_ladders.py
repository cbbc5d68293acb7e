"""Pictures of strengths: over epochs, and of one image."""

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from PIL import Image

from augloader import (
    AdaptiveStrengthTransform,
)
from augloader.plot import strength_ladder, strengths
from tests.plot.test_choices import across, along, drawn

# Strengths


@pytest.mark.parametrize("stacked", [False, True])
def test_strengths_are_median_middle_half_and_middle_90_percent(stacked: bool) -> None:
    history = torch.rand(4, 101, generator=torch.Generator().manual_seed(0))
    axes = drawn(strengths(history if stacked else list(history))).axes[0]
    (median,) = axes.lines
    assert across(median) == [0, 1, 2, 3]
    assert np.array(along(median)) == pytest.approx(history.median(1).values.numpy())
    for band, (low, high) in zip(axes.collections, ((5, 95), (25, 75)), strict=True):
        corners = np.asarray(band.get_paths()[0].vertices)
        for epoch, values in enumerate(history.sort(1).values):
            at = corners[np.isclose(corners[:, 0], epoch), 1]
            assert (at.min(), at.max()) == pytest.approx((float(values[low]), float(values[high])))
    assert axes.get_title() == "Strengths of 101 samples"


def test_strengths_of_one_epoch_and_one_sample() -> None:
    assert drawn(strengths([torch.rand(5)])).axes[0].lines[0].get_marker() == "."
    axes = drawn(strengths([torch.tensor([0.25])] * 2)).axes[0]
    assert along(axes.lines[0]) == [0.25, 0.25]


def test_strengths_refuses_other_values() -> None:
    good = torch.rand(3)
    with pytest.raises(ValueError, match=r"history must be .* at least one epoch, got none"):
        strengths([])
    with pytest.raises(ValueError, match=r"history\[0\] must have shape \(1,\), got \(0,\)"):
        strengths([torch.rand(0)])
    with pytest.raises(ValueError, match=r"history\[1\] must have shape \(3,\), got \(2,\)"):
        strengths([good, good[:2]])
    with pytest.raises(
        ValueError, match=r"history\[1\] must be in \[0, 1\], got values from 0 to 2"
    ):
        strengths([good, torch.tensor([0.0, 1.0, 2.0])])
    with pytest.raises(ValueError, match=r"history\[0\] must be finite"):
        strengths([good * torch.nan])
    with pytest.raises(TypeError, match=r"history\[0\] must be a floating tensor, got torch.int64"):
        strengths([torch.zeros(3, dtype=torch.int64)])
    with pytest.raises(TypeError, match="must be a floating tensor, got list"):
        strengths([[0.5]])  # type: ignore[list-item]


# What one image looks like


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("policy", ["trivial", "rand", "augmix", "cutout"])
def test_a_ladder_goes_from_the_image_to_the_full_augmentation(
    policy: str, dtype: torch.dtype
) -> None:
    image = torch.randint(256, (3, 12, 10), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8) if dtype == torch.uint8 else image / 255
    transform = AdaptiveStrengthTransform(policy, seed=2)
    keys = torch.tensor([[4, 17, 1], [4, 3, 1]])
    figure = drawn(strength_ladder(transform, image, steps=4, keys=keys))
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert [axes.get_title() for axes in figure.axes] == ["0", "0.333", "0.667", "1", *[""] * 4]
    batch = image.expand(2, -1, -1, -1)
    for column, strength in enumerate(torch.linspace(0, 1, 4).tolist()):
        out = transform(batch, strength, keys=keys)  # as a whole batch is augmented
        for row in range(2):
            expected = out[row].permute(1, 2, 0).numpy()
            assert shown[4 * row + column] == pytest.approx(expected)
    for row in range(2):
        assert np.array_equal(shown[4 * row], image.permute(1, 2, 0).numpy())


def test_a_ladder_names_the_operations() -> None:
    keys = torch.arange(12)[:, None]
    transform = AdaptiveStrengthTransform("trivial", seed=0)
    figure = strength_ladder(transform, torch.rand(3, 8, 8), steps=2, keys=keys)
    names = [axes.get_ylabel() for axes in figure.axes[::2]]
    assert len(set(names)) > 3
    assert {"Rotate", "ShearX", "Posterize", "Identity"} & set(names)
    chain = strength_ladder(
        AdaptiveStrengthTransform("rand", seed=0), torch.rand(3, 8, 8), steps=2, keys=keys
    )
    assert any("\n" in axes.get_ylabel() for axes in chain.axes)
    cut = strength_ladder(AdaptiveStrengthTransform("cutout"), torch.rand(3, 8, 8), steps=2)
    assert {axes.get_ylabel() for axes in cut.axes} == {""}


def test_a_ladder_of_kornia_operations_has_the_same_numbers_along_a_row() -> None:
    turn = AdaptiveStrengthTransform(K.RandomRotation(90.0, p=1.0), seed=0)
    image = torch.rand(1, 15, 15, generator=torch.Generator().manual_seed(0))
    figure = drawn(strength_ladder(turn, image, steps=3, draws=2))
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert shown[0] == pytest.approx(image[0].numpy())
    key = torch.tensor([0, 0, 1])  # the second row's
    for strength, pixels in zip((0.0, 0.5, 1.0), shown[3:], strict=True):
        assert pixels == pytest.approx(turn(image, strength, keys=key)[0].clamp(0, 1).numpy())
    assert np.abs(shown[2] - shown[5]).max() > 0.1


def test_a_ladder_shows_images_before_normalisation() -> None:
    image = torch.rand(3, 8, 8)
    plain = AdaptiveStrengthTransform("trivial", seed=0)
    normal = AdaptiveStrengthTransform("trivial", seed=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    for one, other in zip(
        strength_ladder(plain, image).axes, strength_ladder(normal, image).axes, strict=True
    ):
        pixels = (np.asarray(axes.images[0].get_array()) for axes in (one, other))
        assert next(pixels) == pytest.approx(next(pixels), abs=1e-5)


def test_a_ladder_touches_no_random_state() -> None:
    transform, other = (AdaptiveStrengthTransform("trivial", seed=5) for _ in range(2))
    image = torch.rand(3, 8, 8)
    before = torch.get_rng_state()
    strength_ladder(transform, image, steps=2, draws=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(transform(image, 1.0), other(image, 1.0))


def test_a_ladder_refuses_what_has_no_strength() -> None:
    transform, image = AdaptiveStrengthTransform("trivial"), torch.rand(3, 8, 8)
    with pytest.raises(TypeError, match="transform must be an AdaptiveStrengthTransform, got <"):
        strength_ladder(lambda x: x, image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image must be .* got shape \(2, 3, 8, 8\)"):
        strength_ladder(transform, image.expand(2, -1, -1, -1))
    with pytest.raises(TypeError, match=r"image must be a uint8 or floating tensor .* got list"):
        strength_ladder(transform, [[0.5]])
    with pytest.raises(ValueError, match=r"keys must be a \(rows, k\) tensor, got tensor"):
        strength_ladder(transform, image, keys=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        strength_ladder(transform, image, steps=1)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        strength_ladder(transform, image, draws=0)


@pytest.mark.parametrize(("mode", "shape"), [("L", (5, 7)), ("RGB", (5, 7, 3))])
def test_a_ladder_of_a_pil_image(mode: str, shape: tuple[int, ...]) -> None:
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).convert(mode)
    figure = drawn(strength_ladder(AdaptiveStrengthTransform("trivial"), image))
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == shape
    assert np.array_equal(shown, np.asarray(image))
