from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as TF
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Image, KeyPoints, Mask

from augloader import AdaptiveStrengthTransform
from augloader.augment.pixels.geometry import compose
from augloader.augment.pixels.ops import (
    COLOUR,
    GEOMETRY,
    IDENTITY,
    INVERT,
    OPS,
    ROTATE,
    SHEAR_X,
    TRANSLATE_X,
)
from augloader.augment.policies import Params
from augloader.augment.targets import follow
from augloader.core.lying import leaves
from tests.reference import require_nearest, torchvision_operation

pytestmark = pytest.mark.usefixtures("one_thread")
H, W = 40, 56
MAGNITUDES = {
    1: (0.6, -0.99),
    2: (0.3, -0.5),
    3: (7.0, -32.0),
    4: (9.0, -2.0),
    5: (33.3, -135.0, 90.0),
}
CASES = [(op, magnitude) for op in GEOMETRY for magnitude in MAGNITUDES[op]]
each = pytest.mark.parametrize(("op", "magnitude"), CASES, ids=lambda v: str(v))
FORMATS = (BoundingBoxFormat.XYXY, BoundingBoxFormat.XYWH, BoundingBoxFormat.CXCYWH)


def params_of(chains: list[list[tuple[int, float]]], size: tuple[int, int] = (H, W)) -> Params:
    """One chain a row."""
    op = torch.tensor([[[pair[0] for pair in chain]] for chain in chains])
    magnitude = torch.tensor([[[float(pair[1]) for pair in chain]] for chain in chains])
    return Params((len(chains), 3, *size), op, magnitude)


def boxes_of(
    rows: int, form: BoundingBoxFormat, dtype: torch.dtype, seed: int = 0
) -> BoundingBoxes:
    """Boxes of which some reach beyond the canvas."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(rows, 2, generator=generator) * torch.tensor([W, H]) - 5
    size = 1 + 20 * torch.rand(rows, 2, generator=generator)
    corners = torch.cat([start, start + size], 1)
    corners = corners.round() if not dtype.is_floating_point else corners
    values = TF.convert_bounding_box_format(corners, BoundingBoxFormat.XYXY, form)
    return BoundingBoxes(values.to(dtype), format=form, canvas_size=(H, W))


@each
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.value)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_are_torchvisions(
    op: int, magnitude: float, form: BoundingBoxFormat, dtype: torch.dtype
) -> None:
    boxes = boxes_of(12, form, dtype)
    before = boxes.clone()
    out = follow(boxes, params_of([[(op, magnitude)]]))
    like = torchvision_operation(boxes, op, magnitude)
    assert isinstance(out, BoundingBoxes)
    assert (out.format, out.canvas_size, out.dtype) == (form, (H, W), dtype)
    torch.testing.assert_close(plain(out), plain(like), rtol=0, atol=2e-4)
    assert torch.equal(boxes, before)


@each
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.value)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_boxes_of_integers_are_rounded(
    op: int, magnitude: float, form: BoundingBoxFormat, dtype: torch.dtype
) -> None:
    """Torchvision cuts them off: both are within one of the boxes in floating point."""
    boxes = boxes_of(12, form, dtype)
    out = follow(boxes, params_of([[(op, magnitude)]]))
    exact = BoundingBoxes(plain(boxes).double(), format=form, canvas_size=(H, W))
    like = plain(torchvision_operation(exact, op, magnitude))
    assert out.dtype == dtype
    assert (plain(out) - like).abs().max() <= 0.5 + 1e-6
    cut = plain(torchvision_operation(boxes, op, magnitude))
    assert (plain(out) - cut).abs().max() <= 1


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_key_points_are_torchvisions(op: int, magnitude: float, dtype: torch.dtype) -> None:
    values = 50 * torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)) - 3
    points = KeyPoints(values.to(dtype), canvas_size=(H, W))
    out = follow(points, params_of([[(op, magnitude)]]))
    assert isinstance(out, KeyPoints)
    assert (out.shape, out.dtype, out.canvas_size) == (points.shape, dtype, (H, W))
    exact = KeyPoints(plain(points).double(), canvas_size=(H, W))
    like = plain(torchvision_operation(exact, op, magnitude))
    tolerance = 2e-4 if dtype.is_floating_point else 0.5 + 1e-6
    assert (plain(out) - like).abs().max() <= tolerance


@each
@pytest.mark.parametrize("shape", [(H, W), (1, H, W), (5, H, W), (1, 2, H, W)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_are_torchvisions(
    op: int, magnitude: float, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    mask = Mask(torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(0)).to(dtype))
    out = follow(mask, params_of([[(op, magnitude)]]))
    assert isinstance(out, Mask)
    assert out.dtype == dtype
    planes = Mask(plain(mask).reshape(-1, H, W))  # torchvision reads (H, W) as one channel
    like = torchvision_operation(planes, op, magnitude)
    moved, pixels = plain(out).view(1, -1, H, W), plain(planes)[None]
    matrix = compose(torch.tensor([[op]]), torch.tensor([[magnitude]]), H, W)
    near = require_nearest(moved, plain(like)[None], pixels, matrix)
    # A shear by 0.6 puts every fifth row on a border, and 135 degrees a few diagonals.
    assert near.float().mean() < (0.201 if magnitude in (0.6, -135.0) else 1e-3)


def plain(values: Tensor) -> Tensor:
    return values.as_subclass(Tensor)


def test_boxes_hold_what_the_image_shows() -> None:
    """A painted rectangle stays in its box, and fills it unless it was turned."""
    for chain in ([(SHEAR_X, 0.3), (ROTATE, 20.0)], [(TRANSLATE_X, 6.0), (ROTATE, 90.0)]):
        params = params_of([chain])
        mask = torch.zeros(1, H, W)
        mask[:, 15:26, 20:33] = 1
        moved = plain(follow(Mask(mask), params))[0].nonzero()
        box = BoundingBoxes([20.0, 15.0, 33.0, 26.0], format="XYXY", canvas_size=(H, W))
        left, top, right, bottom = follow(box, params)[0].tolist()
        found = [*moved.amin(0).flip(0).tolist(), *(moved.amax(0).flip(0) + 1).tolist()]
        assert np.allclose(found, [left, top, right, bottom], rtol=0, atol=1.5)


@pytest.mark.parametrize("op", [IDENTITY, *COLOUR], ids=lambda op: OPS[op])
def test_colour_leaves_targets_alone(op: int) -> None:
    params = params_of([[(op, 0.7), (ROTATE, 0.0)]])
    targets = {
        "mask": Mask(torch.randint(0, 9, (3, H, W))),
        "points": KeyPoints(torch.tensor([[-4.0, 90.0]]), canvas_size=(H, W)),
        # With odd sides, and beyond the canvas: nothing is rounded or clamped.
        "boxes": BoundingBoxes([[5, 6, 3, 7], [0, 0, 91, 3]], format="CXCYWH", canvas_size=(H, W)),
    }
    out = follow(targets, params)
    for name, target in targets.items():
        assert type(out[name]) is type(target)
        assert torch.equal(plain(out[name]), plain(target))


def test_cut_outs_leave_targets_alone() -> None:
    strong = AdaptiveStrengthTransform("cutout")
    mask = Mask(torch.randint(0, 9, (2, 16, 16)))
    image, out = strong((torch.ones(2, 3, 16, 16), mask), 1.0)
    assert not image.all()
    assert torch.equal(out, mask)


def test_batches_of_masks() -> None:
    chains = [
        [(ROTATE, 30.0), (INVERT, 0.0)],
        [(INVERT, 0.0), (IDENTITY, 0.0)],
        [(SHEAR_X, 0.5), (TRANSLATE_X, 3.0)],
    ]
    params = params_of(chains)
    for shape in ((), (1,), (4,), (2, 2)):
        masks = Mask(
            torch.randint(0, 200, (3, *shape, H, W), generator=torch.Generator().manual_seed(0))
        )
        out = follow(masks, params)
        assert isinstance(out, Mask)
        assert torch.equal(out[1], masks[1])
        for i in range(3):
            alone = follow(Mask(plain(masks)[i]), params.row(i))
            assert torch.equal(plain(alone), plain(out)[i])


class Pair(NamedTuple):
    box: Any
    label: int


def test_structures() -> None:
    params = params_of([[(TRANSLATE_X, 4.0)], [(IDENTITY, 0.0)], [(TRANSLATE_X, -4.0)]])
    box = BoundingBoxes([[10.0, 10.0, 20.0, 20.0]], format="XYXY", canvas_size=(H, W))
    point = KeyPoints(torch.tensor([[10.0, 10.0]]), canvas_size=(H, W))
    mask = torch.zeros(3, H, W, dtype=torch.int64)
    mask[:, :, 10] = 1
    target = {
        "masks": Mask(mask),
        "label": torch.tensor([1, 2, 3]),
        "each": [{"box": box, "name": "a"}, {"box": box, "extra": (point, 7)}, Pair(box, 3)],
        "pair": (Mask(mask), "x"),
    }
    before = copy.deepcopy(target)
    out = follow(target, params)
    assert isinstance(out, Mapping)
    assert list(out) == list(target)
    assert out["label"] is target["label"]
    assert [int(row[0].argmax()) for row in out["masks"]] == [14, 10, 6]
    assert torch.equal(out["pair"][0], out["masks"])
    assert out["pair"][1] == "x"
    assert isinstance(out["pair"], tuple)
    assert out["each"][0]["box"].tolist() == [[14, 10, 24, 20]]
    assert out["each"][0]["name"] == "a"
    assert out["each"][1]["box"].tolist() == [[10, 10, 20, 20]]
    assert out["each"][1]["extra"][0].tolist() == [[10, 10]]
    assert out["each"][1]["extra"][1] == 7
    assert isinstance(out["each"][2], Pair)
    assert out["each"][2].box.tolist() == [[6, 10, 16, 20]]
    assert torch.equal(target["masks"], before["masks"])
    assert target["each"][0]["box"].tolist() == [[10, 10, 20, 20]]
    assert follow("text", params) == "text"
    assert follow(None, params) is None


def test_no_objects_and_no_images() -> None:
    params = params_of([[(ROTATE, 30.0)]])
    empty = BoundingBoxes(torch.zeros(0, 4), format="XYWH", canvas_size=(H, W))
    assert follow(empty, params).shape == (0, 4)
    assert follow(KeyPoints(torch.zeros(0, 2), canvas_size=(H, W)), params).shape == (0, 2)
    assert follow(Mask(torch.zeros(0, H, W)), params).shape == (0, H, W)
    none = AdaptiveStrengthTransform("rand")(
        (torch.zeros(0, 3, H, W), Mask(torch.zeros(0, H, W))), 1.0
    )
    assert none[1].shape == (0, H, W)
    assert follow([], params.select(torch.zeros(0, dtype=torch.int64))) == []


def test_boxes_that_leave_the_canvas_are_clamped() -> None:
    box = BoundingBoxes([[50.0, 10.0, 56.0, 20.0]], format="XYXY", canvas_size=(H, W))
    out = follow(box, params_of([[(TRANSLATE_X, 32.0)]]))
    assert out.tolist() == [[56, 10, 56, 20]]
    points = KeyPoints(torch.tensor([[50.0, 10.0]]), canvas_size=(H, W))  # torchvision keeps them
    assert follow(points, params_of([[(TRANSLATE_X, 32.0)]])).tolist() == [[82, 10]]


def test_errors() -> None:
    one, two = params_of([[(ROTATE, 9.0)]]), params_of([[(ROTATE, 9.0)]] * 2)
    with pytest.raises(
        ValueError, match=r"Mask must have the images' size \(40, 56\), got \(40, 55\)\. R"
    ):
        follow(Mask(torch.zeros(2, H, W - 1)), two)
    with pytest.raises(
        ValueError, match=r"BoundingBoxes must have the images' size .*, got \(9, 9\)\."
    ):
        follow(BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(9, 9)), one)
    with pytest.raises(
        ValueError, match=r"KeyPoints must have the images' size .*, got \(9, 9\)\."
    ):
        follow(KeyPoints([[0, 0]], canvas_size=(9, 9)), one)
    for shape in ((3, H, W), (H, W)):
        with pytest.raises(ValueError, match=r"Mask must be of 2 images, got shape .*\. Stack one"):
            follow(Mask(torch.zeros(shape)), two)
    with pytest.raises(
        ValueError, match=r"BoundingBoxes must be of one image, got 2 images. Give a li"
    ):
        follow(BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(H, W)), two)
    with pytest.raises(
        ValueError, match=r"KeyPoints must be of one image, got 2 images. Give a list"
    ):
        follow(KeyPoints([[0, 0]], canvas_size=(H, W)), two)
    with pytest.raises(
        ValueError, match=r"target.a must be a list of 2 entries, one an image, got 1. "
    ):
        follow({"a": [Mask(torch.zeros(H, W))]}, two)
    rotated = BoundingBoxes([[9.0, 9.0, 4.0, 4.0, 30.0]], format="CXCYWHR", canvas_size=(H, W))
    with pytest.raises(
        ValueError, match=r"boxes must be XYXY, XYWH or CXCYWH, got CXCYWHR. Convert"
    ):
        follow(rotated, one)
    mixed = AdaptiveStrengthTransform("augmix")
    for target in (Mask(torch.zeros(2, H, W)), [{"m": Mask(torch.zeros(H, W))}, 3]):
        with pytest.raises(
            ValueError, match="images must have one geometry for a Mask to follow, got"
        ):
            mixed((torch.zeros(2, 3, H, W), target), 1.0)
    image, label = mixed((torch.zeros(2, 3, H, W), torch.tensor([1, 2])), 1.0)
    assert label.tolist() == [1, 2]
    assert image.shape == (2, 3, H, W)


def photographs() -> list[tuple[Tensor, Tensor]]:
    """Real images of (3, H, W) uint8 and masks of (H, W) int64, from the image itself."""
    photos = [
        torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images
    ]
    digits = torch.from_numpy(load_digits().images[:40]).float().div(16).unsqueeze(1)
    large = F.interpolate(digits, (48, 48), mode="bilinear").clamp(0, 1).mul(255).to(torch.uint8)
    return [(image, segmented(image)) for image in (*photos, *large.repeat(1, 3, 1, 1))]


def segmented(images: Tensor) -> Tensor:
    """The class of each pixel of (..., C, H, W): how bright its green is; 0 for black."""
    return (images[..., 1, :, :] // 50).long()


def test_segmentation_of_real_images() -> None:
    """With nearest, segmenting the moved image gives the moved mask, to the last pixel."""
    strong = AdaptiveStrengthTransform("rand", num_ops=2, magnitude=20)
    moved = 0
    for number, (image, mask) in enumerate(photographs()):
        for copy_of in range(2 if image.shape[-1] > 100 else 12):
            key = torch.tensor([0, number, copy_of])
            params = strong.sample(image.shape, 0.9, keys=key)
            assert isinstance(params, Params)
            if not torch.isin(params.op, torch.tensor([IDENTITY, *GEOMETRY])).all():
                continue
            out, followed = strong((image, Mask(mask)), 0.9, keys=key)
            assert torch.equal(segmented(out), plain(followed))
            moved += not torch.equal(followed, mask)
    assert moved > 50


def test_segmentation_in_a_mixed_batch() -> None:
    strong = AdaptiveStrengthTransform("trivial", seed=3)
    images, masks = (torch.stack(part) for part in zip(*photographs()[2:], strict=True))
    strength = torch.linspace(0, 1, 40)
    keys = torch.stack([torch.arange(40)] * 3, 1)
    params = strong.sample(images.shape, strength, keys=keys)
    assert isinstance(params, Params)
    coloured = torch.isin(params.op, torch.tensor(COLOUR)).flatten(1).any(1)
    assert 10 < int(coloured.sum()) < 35
    out, followed = strong((images, Mask(masks)), strength, keys=keys)
    assert torch.equal(segmented(out)[~coloured], plain(followed)[~coloured])
    assert torch.equal(plain(followed)[coloured], masks[coloured])
    assert not torch.equal(plain(followed), masks)
    # One mask an image in a list, and one image at a time, as in a worker.
    _, listed = strong((images, [{"mask": Mask(mask)} for mask in masks]), strength, keys=keys)
    for i in range(40):
        assert torch.equal(plain(listed[i]["mask"]), plain(followed)[i])
        _, alone = strong((images[i], Mask(masks[i])), float(strength[i]), keys=keys[i])
        assert torch.equal(plain(alone), plain(followed)[i])


def test_a_tuple_of_targets_moves_as_a_list_of_them() -> None:
    """Torchvision's references collate by tuple(zip(*rows)); here are as many objects as images."""
    params = params_of([[(TRANSLATE_X, 4.0)], [(ROTATE, 30.0)], [(IDENTITY, 0.0)]])
    corners = BoundingBoxes([[10.0, 10.0, 20.0, 20.0]] * 3, format="XYXY", canvas_size=(H, W))
    shapes = torch.randint(0, 2, (3, H, W), generator=torch.Generator().manual_seed(0))
    each = {"masks": Mask(shapes), "boxes": corners, "labels": torch.ones(3)}
    for entries in ([each] * 3, [Pair(Mask(shapes), 1)] * 3):
        listed, zipped = (follow(kind(entries), params) for kind in (list, tuple))
        assert isinstance(zipped, tuple)
        for i, (one, other) in enumerate(zip(listed, zipped, strict=True)):
            alone = follow(entries[i], params.row(i))
            for a, b, c in zip(*(torch_leaves(x) for x in (one, other, alone)), strict=True):
                assert torch.equal(plain(a), plain(b))
                assert torch.equal(plain(a), plain(c))
    with pytest.raises(ValueError, match="target must tell what is of one image from what is of"):
        follow([Mask(shapes)] * 3, params)


def torch_leaves(value: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


PLAIN: dict[str, Any] = {
    "(B, H, W)": torch.rand(3, H, W),
    "(B, 1, H, W)": torch.ones(3, 1, H, W, dtype=torch.uint8),
    "(B, H, W, 2)": torch.ones(3, H, W, 2, dtype=torch.bool),
    "(H, W)": torch.zeros(H, W),
    "array": np.zeros((3, H, W)),
    "image": Image(torch.zeros(3, 3, 8, 8)),
    "PIL": [PIL.Image.new("L", (W, H))] * 3,
    "each": [torch.zeros(2, H, W)] * 3,
    "nested": {"a": (torch.arange(3), [torch.arange(3), torch.zeros(3, H, W)])},
    "boxes": {"boxes": torch.ones(3, 4)},
    "each boxes": [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}] * 3,
    "numbers": [{"BBox": [1.0, 2, 3, 4]}] * 3,
    "points": {"keypoints": [torch.ones(3), torch.ones(3)]},  # of numbers, collated
    "fields": Pair(torch.ones(3, 4), 1),
    "list": {"masks": [torch.zeros(3, 2)]},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_would_stay_in_place_is_refused(kind: str) -> None:
    params, target = params_of([[(INVERT, 0.0)]] * 3), PLAIN[kind]  # whatever was drawn
    with pytest.raises(ValueError, match=r"^field[.\w]* must be a tv_tensors.\w+ to fol") as error:
        follow(target, params, name="field")
    name = str(error.value).split('untouched=("')[1].split('"')[0]
    assert follow(target, params, untouched=[name], name="field") is not None
    cut_out = AdaptiveStrengthTransform("cutout").sample((3, 3, H, W), 1.0)
    assert isinstance(cut_out, Params)
    assert follow(target, cut_out) is target


def test_what_lies_on_no_image_stays() -> None:
    params = params_of([[(ROTATE, 9.0)]] * 3)
    target = {
        "label": torch.rand(3, 5),
        "mask": None,
        "masks": torch.ones(3),  # a number an image
        "boxes": "a.xml",
        "keypoints": 17,
        "names": ["a", "b"],
        "sizes": [torch.ones(3), torch.ones(3)],
        "vectors": torch.rand(3, 7, 2),
        "soft": torch.rand(H, W),  # below, of as many images
    }
    soft = target.pop("soft")
    out = follow(target, params)
    assert list(out) == list(target)
    assert all(out[key] is target[key] for key in ("label", "mask", "masks", "boxes", "vectors"))
    assert out["names"] == ["a", "b"]
    assert follow(soft, params_of([[(ROTATE, 9.0)]] * H)) is soft


def test_untouched() -> None:
    params = params_of([[(TRANSLATE_X, 4.0)]] * 2)
    mask, boxes = Mask(torch.rand(2, H, W)), torch.ones(2, 4)
    target = {"mask": mask, "deep": [{"boxes": boxes[0]}, {"boxes": boxes[1]}], "two": (1, boxes)}
    out = follow(target, params, untouched=("boxes", "target.two"))
    assert out["two"] is target["two"]
    assert out["deep"][1]["boxes"] is target["deep"][1]["boxes"]
    assert not torch.equal(out["mask"], mask)
    assert follow(target, params, untouched=("target",)) is target
    assert follow({"mask": mask}, params, untouched=("mask",))["mask"] is mask
    # As the default collate makes a list of two fields, in a batch of two.
    pair = [torch.arange(2), torch.rand(2, H, W)]
    assert follow(pair, params, untouched=("target.1",))[1] is pair[1]


MASKS = (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16)


@pytest.mark.parametrize("dtype", [*MASKS, torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [255, -100, 0])
def test_mask_fill(dtype: torch.dtype, fill: int) -> None:
    chains = [[(ROTATE, 30.0)], [(INVERT, 0.0)], [(SHEAR_X, 0.5)]]
    masks = torch.randint(1, 9, (3, 2, H, W), generator=torch.Generator().manual_seed(0)).to(dtype)
    params = params_of(chains)
    if dtype == torch.uint8 and fill < 0:
        with pytest.raises(ValueError, match="mask_fill must be a value of torch"):
            follow(Mask(masks), params, mask_fill=fill)
        return
    before = masks.clone()
    found = plain(follow(Mask(masks), params, mask_fill=fill))
    usual = plain(follow(Mask(masks), params))
    outside = usual == 0
    wanted = usual.masked_fill(outside, 0 if dtype == torch.bool else fill)
    assert torch.equal(found, wanted)
    assert outside[0].any()
    assert torch.equal(found[1], masks[1])
    assert torch.equal(masks, before)
    alone = follow(Mask(masks[2]), params, 2, mask_fill=fill)
    assert torch.equal(plain(alone), wanted[2])


def test_mask_fill_is_checked() -> None:
    params = params_of([[(INVERT, 0.0)]])  # whatever was drawn
    for dtype, fill in ((torch.int64, 0.5), (torch.int8, 255), (torch.int64, torch.inf)):
        with pytest.raises(ValueError, match=rf"mask_fill must be a value of {dtype} masks, got"):
            follow(Mask(torch.zeros(1, H, W, dtype=dtype)), params, mask_fill=fill)
    floating = follow(Mask(torch.ones(1, H, W)), params_of([[(ROTATE, 45.0)]]), mask_fill=0.5)
    assert floating.unique().tolist() == [0.5, 1.0]
