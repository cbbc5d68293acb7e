"""PIL images keep their modes, and what lies on an image is never left behind."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from augloader import Draw, Uniform, WeightedAugmentedDataset, wrap
from augloader.core.lying import leaves
from augloader.loading.pictures import picture, places, size_of

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


SHOWN = torch.zeros(3, 8, 10)
HIDDEN: dict[str, tuple[Any, Any]] = {
    "(H, W)": (SHOWN, torch.zeros(8, 10)),
    "(1, H, W)": (SHOWN, torch.zeros(1, 8, 10, dtype=torch.int64)),
    "array": (SHOWN, np.zeros((8, 10))),
    "(H, W, C)": (np.zeros((8, 10, 3)), np.zeros((8, 10, 2))),
    "PIL": (Image.new("RGB", (10, 8)), Image.new("L", (10, 8))),
    "PIL beside a tensor": (SHOWN, Image.new("P", (10, 8))),
    "beside a PIL image": (Image.new("L", (10, 8)), torch.zeros(8, 10)),
    "video": (torch.zeros(4, 3, 8, 10), torch.zeros(4, 8, 10)),
    "input with its mask": ((SHOWN, SHOWN[0]), SHOWN[:1]),
    "below": (SHOWN, {"size": 3, "depth": [torch.zeros(8, 10)]}),
    "boxes": (SHOWN, {"boxes": torch.zeros(2, 4)}),
    "numbers": (SHOWN, {"bbox": [1, 2, 3, 4]}),
    "points": (SHOWN, {"keypoints": torch.zeros(5, 3)}),
}


@pytest.mark.parametrize("case", HIDDEN)
@pytest.mark.parametrize("stage", ["weak", "strong", "clean"])
def test_what_is_no_tv_tensor_is_not_left_behind(case: str, stage: str) -> None:
    shown, lying = HIDDEN[case]
    same: Any = {stage: lambda image: image}
    items: list[tuple[Any, Any]] = [
        ((shown, lying), "target"),
        ((shown, 0, 7, lying), "extra.1"),
        ({"image": shown, "label": 0, "other": lying}, "extra.other"),
        (Record(shown, lying), "target"),
    ]
    for item, name in items:
        names: Any = {dict: ("image", "label"), Record: ("image", "other")}.get(type(item), (0, 1))

        def view(untouched: Any = (), item: Any = item, names: Any = names) -> Any:
            data = WeightedAugmentedDataset([item], **same, fields=names, untouched=untouched)
            return data.clean() if stage == "clean" else data

        with pytest.raises(
            TypeError, match=rf"as {name}[.\w]*, .*joint=True.*untouched=\("
        ) as error:
            _ = view()[0]
        hint = str(error.value).split('untouched=("')[1].split('"')[0]
        for untouched in (hint, name):
            assert view((untouched,))[0].input is shown


@dataclass
class Record:
    image: Any
    other: Any


QUIET: list[tuple[Any, ...]] = [
    (SHOWN, 3, torch.ones(10), torch.rand(5), np.ones(3), "a", None, (8, 10)),
    (SHOWN, torch.zeros(4, 5), Image.new("L", (5, 4)), torch.zeros(3, 4, 5)),  # of another size
    (SHOWN, {"mask": torch.ones(10), "boxes": None, "keypoints": 17, "masks": "a.png"}),
    (torch.rand(7), torch.rand(7), {"mask": torch.ones(7), "boxes": torch.zeros(2, 4)}),
    ("words", torch.zeros(8, 10)),
]


@pytest.mark.parametrize("item", QUIET, ids=range(len(QUIET)))
def test_what_lies_on_no_image_stays_in_silence(item: tuple[Any, ...]) -> None:
    same: Any = lambda image: image  # noqa: E731
    found = WeightedAugmentedDataset([item], weak=same, strong=same)[Draw(0)]
    assert found.input is item[0]
    assert found.target is item[1]
    WeightedAugmentedDataset([HIDDEN["(H, W)"]], final=same)[Draw(0)]  # nor where it is last


def test_a_wrapped_loader_refuses_plain_masks_too() -> None:
    items: Any = [HIDDEN["(H, W)"]] * 4
    plain: DataLoader[Any] = DataLoader(items, 2)
    for untouched in ((), ("target",)):
        loader, sampler = wrap(
            plain, Uniform(), fraction=0.5, strong=lambda x: x + 1, untouched=untouched
        )
        sampler.begin(0)
        if untouched:
            assert sum(float(batch[0].sum()) for batch in loader) == 2 * SHOWN.numel()
        else:
            with pytest.raises(TypeError, match=r"got a plain tensor of .* as target"):
                next(iter(loader))
    with pytest.raises(TypeError, match="untouched must be names"):
        WeightedAugmentedDataset([(SHOWN, 0)], untouched=[1])  # type: ignore[list-item]


class Turned(v2.Transform):  # type: ignore[misc]
    """A transform of one's own that torchvision applies to each part of an item."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.rotate, inpt, angle=30.0)


@pytest.mark.parametrize("mode", ["L", "I", "F", "I;16", "RGBA", "LA"])
@pytest.mark.parametrize("stage", ["weak", "strong"])
def test_torchvision_takes_a_second_picture_for_an_image(mode: str, stage: str) -> None:
    flips: list[Any] = [
        v2.RandomHorizontalFlip(1.0),
        v2.Compose([v2.RandomRotation(30)]),
        nn.Sequential(v2.RandomHorizontalFlip(1.0)),
        Turned(),
    ]
    second = Image.new(mode, (12, 10))
    for flip in flips:
        for item in ((image_of("RGB"), second), (image_of("L"), {"map": second})):
            given: dict[str, Any] = {stage: flip, "joint": True}
            with pytest.raises(TypeError, match=r"Wrap it: tv_tensors.Mask.* or name it in unt"):
                _ = WeightedAugmentedDataset([item], **given)[Draw(0)]
            kept = WeightedAugmentedDataset([item], **given, untouched="target")[Draw(0)]
            assert kept.target is item[1]
        alone = WeightedAugmentedDataset([(image_of("RGB"), 3)], **given)[Draw(0)]
        assert alone.target == 3
    pair = (image_of("RGB"), image_of("RGB"))
    found = WeightedAugmentedDataset([pair], **{stage: flips[0]}, joint=True)[Draw(0)]
    assert found.input.tobytes() == found.target.tobytes() != pair[0].tobytes()


def test_torchvision_leaves_plain_boxes_in_place() -> None:
    flip: Any = v2.RandomHorizontalFlip(1.0)
    for boxes in (torch.zeros(2, 4), np.zeros((2, 4)), [[1, 2, 3, 4]]):
        data = WeightedAugmentedDataset([(SHOWN, {"boxes": boxes})], strong=flip, joint=True)
        with pytest.raises(TypeError, match=r"target.boxes must be a tv_tensors.BoundingBoxes"):
            data[Draw(0)]
    own = WeightedAugmentedDataset([(SHOWN, SHOWN[0])], strong=lambda item: item, joint=True)
    assert own[Draw(0)].target is not None  # which is trusted with the whole item


def test_helpers() -> None:
    assert list(leaves({"a": [1, (2,)], "b": 3})) == [1, 2, 3]
    assert size_of(image_of("L")) == size_of(torch.zeros(3, 10, 12)) == (10, 12)
    assert size_of(np.zeros((10, 12, 3))) == (10, 12)
    found = places({"x": 0, "boxes": 1, "y": 2}, ("x", "y"))
    assert [(key, place.name, place.kind) for key, place in found.items()] == [
        ("boxes", "extra.boxes", "BoundingBoxes"),
        ("y", "target", ""),
    ]
    assert size_of(3) is size_of(torch.zeros(3)) is None
