"""Transforms of other libraries, called in their own way."""

from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from augloader import (
    AdaptiveStrengthTransform,
    Draw,
    WeightedAugmentedDataset,
)
from tests.loading.test_dataset import (
    IMAGE,
    PIL_IMAGE,
    Keyed,
    keyed,
    keyed_and_scaled,
    keyword_only,
    scaled,
    tensors,
    with_force_apply,
)


@pytest.mark.parametrize("transform", [with_force_apply, keyword_only])
def test_albumentations_style_keeps_the_kind_of_image(transform: Callable[..., Any]) -> None:
    images = [PIL_IMAGE, IMAGE, np.asarray(PIL_IMAGE)]
    for image in images:
        data = WeightedAugmentedDataset([(image, 0)], strong=transform)
        out = data[Draw(0)].input
        assert type(out) is type(image)
        plain = out.permute(1, 2, 0).numpy() if isinstance(out, Tensor) else np.asarray(out)
        np.testing.assert_array_equal(plain, 255 - np.asarray(PIL_IMAGE))


def to_tensor_at_the_end(*, image: Any) -> dict[str, Any]:
    return {"image": torch.from_numpy(image.copy()).permute(2, 0, 1)}


def test_albumentations_that_ends_in_a_tensor() -> None:
    data = WeightedAugmentedDataset([(PIL_IMAGE, 0), (IMAGE, 0)], strong=to_tensor_at_the_end)
    assert torch.equal(data[Draw(0)].input, IMAGE)
    assert torch.equal(data[Draw(1)].input, IMAGE)


@pytest.mark.parametrize("image", [PIL_IMAGE, IMAGE])
def test_torchvision_and_pil(image: Any) -> None:
    strong = v2.Compose([v2.TrivialAugmentWide(), v2.RandomHorizontalFlip(1.0)])
    final = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    data = WeightedAugmentedDataset([(image, 0)], strong=strong, final=final)
    plain = data[Draw(0, strength=0.0)].input
    torch.testing.assert_close(plain.as_subclass(Tensor), IMAGE / 255)
    strong_copy = data[Draw(0)].input
    assert strong_copy.shape == (3, 8, 8)
    assert not strong_copy.allclose(plain)


def test_kornia_on_one_image_gives_one_image() -> None:
    data = WeightedAugmentedDataset([(IMAGE / 255, 0)], strong=K.RandomHorizontalFlip(p=1.0))
    assert torch.equal(data[Draw(0)].input, (IMAGE / 255).flip(-1))


def test_a_transform_with_a_strength_is_given_the_draws() -> None:
    data = WeightedAugmentedDataset(tensors(), strong=scaled)
    assert data[Draw(4, strength=0.25)].input == 1


def test_a_transform_with_keys_is_given_epoch_index_and_copy() -> None:
    draw = Draw(4, 2, strength=0.25, epoch=3)
    assert WeightedAugmentedDataset(tensors(), strong=keyed)[draw].input == 30_406
    for transform in (keyed_and_scaled, Keyed()):
        assert WeightedAugmentedDataset(tensors(), strong=transform)[draw].input == 30_403
    data = WeightedAugmentedDataset(tensors(), weak=keyed, final=keyed)
    assert data[draw].input == 2 * 30_406 - 4
    assert WeightedAugmentedDataset(tensors(), weak=keyed)[4].input == 404


@pytest.mark.parametrize("stage", ["weak", "final", "clean"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_draws_strength_is_that_of_the_strong_transform_alone(stage: str, share: float) -> None:
    def shifted(x: Tensor, strength: float = 0.5) -> Tensor:
        return x + strength

    class Shifted:
        def __call__(self, x: Tensor, *, strength: float) -> Tensor:
            return x + strength

    def found(transform: Any) -> float:
        given: dict[str, Any] = {stage: transform}
        data = WeightedAugmentedDataset(tensors(), **given)
        view = data.clean() if stage == "clean" else data
        return float(view[Draw(4, strength=share)].input)

    assert found(shifted) == 4.5
    assert found(Shifted()) == found(lambda x, strength=None: x + strength) == 5


def test_a_weak_transform_of_ours_is_applied_in_full() -> None:
    strong = AdaptiveStrengthTransform("cutout", seed=3)
    data = WeightedAugmentedDataset([(IMAGE, 0)], weak=strong)
    draw = Draw(0, strength=0.0, epoch=2)
    expected = strong(IMAGE, 1.0, keys=torch.tensor([2, 0, 0]))
    assert torch.equal(data[draw].input, expected)
    assert not torch.equal(expected, IMAGE)
