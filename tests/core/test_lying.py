from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes, KeyPoints, Mask, Video

from augloader.core.lying import Place, lying, names_of, require_none_lying, start, walked


class Fields(NamedTuple):
    """A target of two fields."""

    mask: Any
    label: Any


def test_places() -> None:
    seen: list[tuple[Any, Place]] = []
    walked(
        lambda leaf, place: seen.append((leaf, place)),
        {"a": [{"boxes": [1, {"b": 2}]}, 3], "b": Fields(4, ("5",)), 6: [7, 8, 9]},
        Place("target"),
        images=2,
    )
    boxes, mask = "BoundingBoxes", "Mask"
    assert seen == [
        (1, Place("target.a.boxes", boxes, True, 0)),
        (2, Place("target.a.boxes.b", boxes, True, 0)),
        (3, Place("target.a", "", True, 1)),
        (4, Place("target.b.mask", mask)),
        ("5", Place("target.b.label.0", "", True)),
        (7, Place("target.6.0", "", True)),
        (8, Place("target.6.1", "", True)),
        (9, Place("target.6.2", "", True)),
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("target", "target"), ("extra.1", "extra.1"), ("a.b.c", "a.b.c"), ("extra.0.boxes", "boxes")],
)
def test_hints_name_what_they_are_for(name: str, hint: str) -> None:
    assert Place(name).hint == hint


def test_structure_is_kept() -> None:
    value = {"a": [1, (2, Fields(3, 4))], "b": [5] * 3}
    assert walked(lambda leaf, _: leaf, value, Place("x"), 3) == value
    doubled = walked(lambda leaf, _: 2 * leaf, value, Place("x"), 3, untouched=("label", "x.b.1"))
    assert doubled == {"a": [2, (4, Fields(6, 4))], "b": [10, 5, 10]}
    assert isinstance(doubled["a"][1][1], Fields)
    assert isinstance(doubled["a"][1], tuple)


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (torch.zeros(2, 4, 6), "a plain tensor of shape (2, 4, 6)"),
        (np.zeros((2, 4, 6, 3)), "a plain array of shape (2, 4, 6, 3)"),
        (Video(torch.zeros(1, 3, 2, 2)), "another Video of shape (1, 3, 2, 2)"),
        (Mask(torch.zeros(2, 4, 6)), ""),
        (KeyPoints([[1, 2]], canvas_size=(4, 6)), ""),
        (torch.zeros(2, 6), ""),
        (torch.zeros(2, 4, 5), ""),
        (torch.tensor(1), ""),
        (3.0, ""),
        ("name", ""),
    ],
)
def test_lying(value: Any, described: str) -> None:
    assert lying(value, Place("target"), 2, (4, 6)) == described


def test_rows_of_soft_labels_are_not_images() -> None:
    """As many rows and classes as the image has rows and columns."""
    labels = torch.rand(4, 6)
    assert not lying(labels, Place("target"), 4, (4, 6))
    assert lying(labels, Place("target", row=0), 4, (4, 6))
    assert lying(labels, Place("target"), 1, (4, 6))


@pytest.mark.parametrize(
    "value", [Mask(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6), {"bboxes": torch.zeros(2, 4)}]
)
def test_nothing_may_lie_on_images_that_move_alone(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^extra[.\w]* must not lie on the images.*\. Take it o"):
        require_none_lying("Take it out.", "extra", value, (2, 3, 4, 6))
    require_none_lying("Take it out.", "extra", value, (2, 3, 4, 6), ("extra",))
    boxes = BoundingBoxes([[0, 0, 1, 1]], format="XYXY", canvas_size=(4, 6))
    with pytest.raises(ValueError, match=r"extra\.0 must not lie .* got BoundingBoxes"):
        require_none_lying("Take it out.", "extra", [boxes, boxes], (2, 3, 4, 6))


def test_names() -> None:
    assert names_of("a.b") == ("a.b",)
    assert names_of(["a", "extra.1"]) == ("a", "extra.1")
    for wrong in (None, 3, [1], {"a": 1}.values()):
        with pytest.raises(TypeError, match="untouched must be names of what stays in place, got"):
            names_of(wrong)


H, W = 4, 6


def rows_of(value: Any, images: int, name: str = "target") -> list[int | None]:
    """Return the row that each leaf is of."""
    seen: list[int | None] = []
    walked(lambda _, place: seen.append(place.row), value, start(name), images)
    return seen


def masks(*shape: int) -> Mask:
    return Mask(torch.zeros(*shape, H, W))


def test_a_tuple_of_a_mapping_an_image_is_as_a_list_of_them() -> None:
    each = {"masks": masks(3), "labels": torch.ones(3)}
    for entries in ([each] * 3, [each, None, each], [Fields(masks(3), 1)] * 3):
        wanted = [i for i, entry in enumerate(entries) for _ in entry or [0]]
        assert rows_of(tuple(entries), 3) == rows_of(entries, 3) == wanted
        assert isinstance(walked(lambda leaf, _: leaf, tuple(entries), start("x"), 3), tuple)
    assert rows_of((each, each), 3) == [None] * 4  # fields, and not images
    assert rows_of((each, 7, each), 3) == [None] * 5
    for fields in ((each, each), [each, each]):  # of a Sample: two fields of two images
        assert rows_of(fields, 2, "extra") == [None] * 4


@pytest.mark.parametrize(
    "value",
    [
        [masks(2), masks(2)],
        (masks(2), masks(2)),
        [masks(2, 1), torch.zeros(2)],
        {"masks": [masks(2), masks(2)]},
        ((masks(2), torch.zeros(2)), (masks(2), torch.zeros(2))),
        ([masks(), masks()], [masks(), masks()]),
        ([{"mask": masks()}, None], [{"mask": masks()}, None]),
    ],
)
def test_masks_that_may_be_of_one_image_or_of_all(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x[.\w]* must tell what is of one image .* of 2, "):
        walked(lambda leaf, _: leaf, value, start("x"), 2)
    walked(lambda leaf, _: leaf, value, start("x"), 2, ("x",))
    walked(lambda leaf, _: leaf, value, Place("x", row=0), 2)


def test_masks_that_can_be_of_one_image_or_of_all_alone() -> None:
    boxes = BoundingBoxes([[0, 0, 1, 1]] * 2, format="XYXY", canvas_size=(H, W))
    assert rows_of([masks(2), masks(3)], 2) == [0, 1]
    assert rows_of([masks(1), masks(1)], 2) == [0, 1]
    assert rows_of([masks(), masks()], 2) == [0, 1]
    assert rows_of([boxes, boxes], 2) == [0, 1]
    assert rows_of([(masks(2), boxes)] * 2, 2) == [0, 0, 1, 1]
    assert rows_of((masks(2), torch.zeros(2)), 2) == [None, None]
    assert rows_of([masks(1)], 1) == [0]


def test_a_padding_mask_is_no_mask_of_an_image() -> None:
    place = start("extra").key("mask")
    for padding in (torch.ones(2, 9), torch.ones(9), torch.ones(3, 9), np.ones((2, 3))):
        assert not lying(padding, place, 2, (H, W))
    assert not lying(torch.ones(9), Place("extra", "Mask", row=0), 2, (H, W))
    for mask, row in ((torch.ones(2, 3, 5), None), (torch.ones(H, W), 1), (torch.ones(3, 5), 1)):
        assert lying(mask, place._replace(row=row), 2, (H, W)).startswith("a plain tensor")
