"""PIL images keep their modes, and what lies on an image is never left behind."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from augloader import Draw, WeightedAugmentedDataset
from augloader.core.lying import leaves
from augloader.loading.pictures import picture, size_of

MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"),
    *("CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "I;16L", "F"),
)
SHADES = ("L", "RGB")


def image_of(mode: str) -> Any:
    generator = np.random.default_rng(0)
    if mode == "RGBa":
        return image_of("RGBA").convert("RGBa")
    if mode == "La":
        return image_of("LA").convert("La")
    image = Image.new(mode, (12, 10))
    image.frombytes(generator.integers(1, 120, len(image.tobytes()), np.uint8).tobytes())
    if mode in ("P", "PA"):
        image.putpalette(generator.integers(0, 256, 768, np.uint8).tobytes())
    return image


class Inverted:
    """Called by keyword, as Albumentations' transforms are."""

    def __call__(self, *, image: Any) -> dict[str, Any]:
        return {"image": image[:, ::-1]}


TRANSFORMS: dict[str, Any] = {
    "colours": v2.ColorJitter(0.5, 0.5, 0.5, 0.5),
    "equalised": v2.RandomEqualize(1.0),
    "turned": v2.RandomRotation((10.0, 20.0)),
    "by keyword": Inverted(),
}


@pytest.mark.parametrize("strong", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("mode", MODES)
def test_a_strong_copy_has_the_plain_ones_mode_or_is_refused(mode: str, strong: Any) -> None:
    image = image_of(mode)
    before = image.tobytes()
    data = WeightedAugmentedDataset([(image, 0)], strong=strong)
    plain = data[Draw(0, strength=0.0)].input
    assert plain.mode == mode
    assert plain.tobytes() == before
    if mode in SHADES:
        copy = data[Draw(0, 1, strength=0.5)].input
        assert copy.mode == mode
        assert copy.size == image.size
    else:
        with pytest.raises(TypeError, match=rf"mode L or RGB .*got '{mode}'.*convert\(\"RGB\"\)"):
            data[Draw(0, 1, strength=0.5)]
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", MODES[:-3] + MODES[-1:])  # arrays do not tell I;16 from I;16L
def test_a_weak_transform_by_keyword_keeps_the_mode_or_says_so(mode: str) -> None:
    image = image_of(mode)
    data = WeightedAugmentedDataset([(image, 0)], weak=Inverted())
    if mode in (*SHADES, "1", "LA", "RGBA", "I", "I;16", "F"):
        found = data[0].input
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert found.mode == mode
        assert np.array_equal(np.asarray(found), np.asarray(mirrored))
    else:
        with pytest.raises(TypeError, match="mode"):
            _ = data[0]


def test_a_strong_transform_that_changes_the_mode() -> None:
    data = WeightedAugmentedDataset([(image_of("RGB"), 0)], strong=v2.Grayscale(1))
    with pytest.raises(TypeError, match=r"strong must return PIL images of the mode .*'RGB'.*'L'"):
        data[Draw(0)]


def test_a_masks_palette_is_kept() -> None:
    mask = image_of("P")
    again = picture(np.asarray(mask), mask, "strong")
    assert again.mode == "P"
    assert again.getpalette() == mask.getpalette()
    assert again.tobytes() == mask.tobytes()


LYING: list[Tensor] = [
    tv_tensors.Mask(torch.zeros(8, 8)),
    tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(8, 8)),
    tv_tensors.KeyPoints([[1, 2]], canvas_size=(8, 8)),
    tv_tensors.Video(torch.zeros(2, 3, 8, 8)),
]


@pytest.mark.parametrize("lying", LYING, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("stage", ["weak", "strong", "clean"])
def test_what_lies_on_the_image_is_not_left_behind(lying: Tensor, stage: str) -> None:
    flip: Any = v2.RandomHorizontalFlip(1.0)
    shown = torch.zeros(3, 8, 8)
    for item in ((shown, lying), (shown, {"deep": [lying]}), (shown, 0, lying)):
        given: dict[str, Any] = {stage: flip}
        data = WeightedAugmentedDataset([item], **given)
        view = data.clean() if stage == "clean" else data
        with pytest.raises(TypeError, match=rf"got a {type(lying).__name__} beside .*joint=True"):
            _ = view[0]
        WeightedAugmentedDataset([item], **given, joint=True)[Draw(0)]
        assert WeightedAugmentedDataset([item], final=flip)[Draw(0)].input is not None


def test_helpers() -> None:
    assert list(leaves({"a": [1, (2,)], "b": 3})) == [1, 2, 3]
    assert size_of(image_of("L")) == size_of(torch.zeros(3, 10, 12)) == (10, 12)
    assert size_of(np.zeros((10, 12, 3))) == (10, 12)
    assert size_of(3) is size_of(torch.zeros(3)) is None
