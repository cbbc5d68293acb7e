"""Transforms called by keyword: every part goes in as an array and comes out as it was."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from augloader import CoresetSampler, Draw, Uniform, WeightedAugmentedDataset
from augloader.loading.keywords import Targets, call, pair
from tests.reference import random_state

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
CLASSES = np.arange(48, dtype=np.uint8).reshape(6, 8) % 5
BOXES = [[0.0, 0.0, 2.0, 3.0]]


class Mirror:
    """Mirrors what it is given by its names, and keeps all others."""

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        assert not args
        out = dict(data)
        for key in {"image", "mask"} & data.keys():
            assert isinstance(data[key], np.ndarray)
            out[key] = data[key][:, ::-1]
        if "masks" in data:
            out["masks"] = [mask[:, ::-1] for mask in data["masks"]]
        if "bboxes" in data:
            boxes = np.array(data["bboxes"]).reshape(-1, 4)
            out["bboxes"] = [[8 - x1, y0, 8 - x0, y1] for x0, y0, x1, y1 in boxes.tolist()]
        return out


class Shifted:
    """Adds a number of its own random numbers, as Albumentations' transforms draw them."""

    seed: int | None = None

    def __init__(self) -> None:
        self.random_generator = np.random.default_rng(0)
        self.py_random = random.Random(0)

    def set_random_state(self, generator: np.random.Generator, python: random.Random) -> None:
        self.random_generator, self.py_random = generator, python

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        amount = self.random_generator.integers(2**40) + self.py_random.randrange(2**40)
        return {**data, "image": data["image"] + amount}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (PIXELS, CLASSES),
        (torch.from_numpy(PIXELS).permute(2, 0, 1), torch.from_numpy(CLASSES)),
        (torch.from_numpy(PIXELS).permute(2, 0, 1), torch.from_numpy(CLASSES)[None]),
        (Image.fromarray(PIXELS), Image.fromarray(CLASSES)),
        (Image.fromarray(PIXELS), Image.fromarray(CLASSES).convert("P")),
        (torch.from_numpy(PIXELS).permute(2, 0, 1), tv_tensors.Mask(torch.from_numpy(CLASSES))),
    ],
)
def test_image_and_mask_move_alike(image: Any, mask: Any) -> None:
    items: list[Any] = [((image, mask), 1), ({"image": image, "mask": mask}, 1)]
    whole = {"image": image, "mask": mask, "name": "a", "label": 1}
    data = WeightedAugmentedDataset(items, strong=Mirror())
    joint = WeightedAugmentedDataset(
        [whole], strong=Mirror(), joint=True, fields=("image", "label")
    )
    one, two, three = data[Draw(0)].input, data[Draw(1)].input, joint[Draw(0)]
    assert type(one) is tuple
    assert (three.target, three.extra["name"]) == (1, "a")
    for shown, moved in (one, (two["image"], two["mask"]), (three.input, three.extra["mask"])):
        assert type(shown) is type(image)
        assert type(moved) is type(mask)
        if isinstance(mask, Image.Image):
            assert moved.mode == mask.mode
        as_array = shown.permute(1, 2, 0) if isinstance(shown, torch.Tensor) else shown
        assert np.array_equal(np.asarray(as_array), PIXELS[:, ::-1])
        assert np.array_equal(np.asarray(moved).squeeze(), CLASSES[:, ::-1])
    assert joint[Draw(0, strength=0.0)].input is image


def test_boxes_lists_of_masks_and_labels() -> None:
    tensor = torch.tensor(BOXES)
    item = {"image": PIXELS, "masks": [CLASSES], "bboxes": tensor, "labels": [3]}
    data = WeightedAugmentedDataset([item], strong=Mirror(), joint=True, fields=("image", "labels"))
    found = data[Draw(0)]
    assert torch.equal(found.extra["bboxes"], torch.tensor([[6.0, 0.0, 8.0, 3.0]]))
    assert np.array_equal(found.extra["masks"][0], CLASSES[:, ::-1])
    assert found.target == [3]
    none = call(Mirror(), {"image": PIXELS, "bboxes": torch.zeros(0, 4)}, "strong")
    assert none["bboxes"].shape == (0, 4)
    boxes = tv_tensors.BoundingBoxes(tensor, format="XYXY", canvas_size=(6, 8))
    with pytest.raises(TypeError, match=r"bboxes must be plain arrays .* got tv_tensors.Bounding"):
        call(Mirror(), {"image": PIXELS, "bboxes": boxes}, "strong")


def test_what_is_no_image_with_its_mask() -> None:
    assert pair(PIXELS) is None
    for value in ((PIXELS, CLASSES[:3]), (PIXELS, BOXES), (PIXELS, CLASSES, 1), [3, 4]):
        with pytest.raises(TypeError, match=r"must be an image, or \(image, mask\) of one size"):
            pair(value)
    joint: Any = {"strong": Mirror(), "joint": True}
    with pytest.raises(TypeError, match="items must be mappings with the keys image, mask"):
        WeightedAugmentedDataset([(PIXELS, CLASSES)], **joint)[Draw(0)]
    unnamed = [{"x": PIXELS, "y": 1}]
    with pytest.raises(TypeError, match=r"items must have the key image .* got x, y"):
        WeightedAugmentedDataset(unnamed, fields=("x", "y"), **joint)[Draw(0)]

    def lost(*, image: Any, mask: Any) -> dict[str, Any]:
        return {"image": image}

    with pytest.raises(TypeError, match=r"strong must return .* without mask"):
        WeightedAugmentedDataset([((PIXELS, CLASSES), 1)], strong=lost)[Draw(0)]


def test_only_the_names_that_a_transform_takes_are_given() -> None:
    def inverted(*, image: Any, strength: float) -> dict[str, Any]:
        return {"image": image * strength}

    data = WeightedAugmentedDataset(
        [{"image": PIXELS, "label": 1}], strong=inverted, joint=True, fields=("image", "label")
    )
    assert data.takes_strength
    assert np.array_equal(data[Draw(0, strength=0.5)].input, PIXELS * 0.5)


def test_random_numbers_depend_on_the_draw_alone() -> None:
    own = Shifted()
    items = [(np.zeros((2, 2, 1), np.int64), i) for i in range(8)]
    data = WeightedAugmentedDataset(items, strong=own, weak=Shifted())
    before = random_state()
    draws = [Draw(i, c, epoch=e) for e in (0, 1) for i in (0, 3) for c in (1, 2)]
    seen = [int(data[draw].input[0, 0, 0]) for draw in draws]
    again = [int(data[draw].input[0, 0, 0]) for draw in reversed(draws)]
    assert seen == again[::-1]
    assert len(set(seen)) == len(draws)
    assert random_state() == before
    assert own.random_generator.integers(9) == np.random.default_rng(0).integers(9)  # a copy's
    own.seed = 5
    other = WeightedAugmentedDataset(items, strong=own, weak=Shifted())
    assert int(other[draws[0]].input[0, 0, 0]) != seen[0]
    plain = WeightedAugmentedDataset(items, weak=Shifted())
    assert plain[0].input[0, 0, 0] != plain[0].input[0, 0, 0]  # of no epoch: it goes on


def test_workers_draw_the_same() -> None:
    items = [(np.zeros((2, 2, 1), np.int64), i) for i in range(8)]
    data = WeightedAugmentedDataset(items, strong=Shifted())
    batches = []
    for workers in (0, 2):
        sampler = CoresetSampler(data, Uniform(), fraction=1.0, base="none")
        sampler.refresh()
        (batch,) = DataLoader(data, 8, sampler=sampler, num_workers=workers)
        batches.append(batch.input)
    assert torch.equal(*batches)


def test_albumentations_are_known_by_their_module() -> None:
    def flip(self: object, **data: Any) -> dict[str, Any]:
        return Mirror()(**data)

    kind = type("Flip", (), {"__module__": "albumentations.flips", "__call__": flip})
    data = WeightedAugmentedDataset([(PIXELS, 0)], strong=kind())
    assert np.array_equal(data[Draw(0)].input, PIXELS[:, ::-1])


class Declared(Mirror):
    """Declares additional targets and labels of boxes, as a Compose of Albumentations does."""

    def __init__(self, **targets: str) -> None:
        self.additional_targets = targets
        params = SimpleNamespace(label_fields=["names", "classes"])
        self.processors = {"bboxes": SimpleNamespace(params=params)}

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        out = super().__call__(*args, force_apply=force_apply, **data)
        for key in self.additional_targets.keys() & data.keys():
            assert isinstance(data[key], np.ndarray)
            out[key] = data[key][:, ::-1]
        kept = [i for i, name in enumerate(data.get("classes", [])) if name != 5]
        for key in {"names", "classes", "bboxes"} & data.keys():
            assert isinstance(data[key], list) or key == "bboxes"
            out[key] = np.array([out[key][i] for i in kept])
        return out


LEFT: list[tuple[str, Any]] = [
    ("label", CLASSES),
    ("depth", torch.zeros(6, 8)),
    ("flow", Image.fromarray(CLASSES)),
    ("boxes", torch.tensor(BOXES)),
    ("landmarks", np.zeros((5, 2))),
    ("other", tv_tensors.Mask(torch.zeros(3, 4))),
]


@pytest.mark.parametrize(("key", "part"), LEFT, ids=[key for key, _ in LEFT])
def test_what_a_transform_does_not_know_is_not_left_behind(key: str, part: Any) -> None:
    def narrow(*, image: Any) -> dict[str, Any]:
        return {"image": image}

    item = {"image": PIXELS, key: part, "id": 3}
    for transform in (Mirror(), Declared(), narrow):
        given: dict[str, Any] = {"strong": transform, "joint": True, "fields": ("image", "id")}
        with pytest.raises(TypeError, match=rf"got .* under '{key}', .*targets={{\"{key}\": "):
            WeightedAugmentedDataset([item], **given)[Draw(0)]
        kept = WeightedAugmentedDataset([item], **given, untouched=(key,))[Draw(0)]
        assert kept.extra[key] is part
    with pytest.raises(TypeError, match=rf"under '{key}'"):  # of an input that is a mapping
        WeightedAugmentedDataset([(item, 1)], strong=Mirror())[Draw(0)]


def test_additional_targets_go_in_as_what_they_are() -> None:
    label = torch.from_numpy(CLASSES)[None]
    item = {"image": PIXELS, "label": label, "id": 3}
    data = WeightedAugmentedDataset(
        [item], strong=Declared(label="mask"), joint=True, fields=("image", "label")
    )
    assert torch.equal(data[Draw(0)].target, label.flip(-1))


def test_labels_of_boxes_may_be_tensors() -> None:
    for dtype in (torch.int64, torch.float32):
        classes, boxes = torch.tensor([5, 2, 5, 7], dtype=dtype), torch.tensor(BOXES * 4)
        item = {"image": PIXELS, "bboxes": boxes, "classes": classes, "names": list("abcd")}
        data = WeightedAugmentedDataset(
            [item], strong=Declared(), joint=True, fields=("image", "classes")
        )
        found = data[Draw(0)]
        assert found.target.dtype == dtype
        assert found.target.tolist() == [2, 7]
        assert list(found.extra["names"]) == ["b", "d"]
        assert found.extra["bboxes"].shape == (2, 4)
        none = call(
            Declared(),
            {"image": PIXELS, "bboxes": torch.zeros(0, 4), "classes": classes[:0]},
            "strong",
            Targets.of(Declared()),
        )
        assert none["classes"].shape == (0,)
        assert none["classes"].dtype == dtype
