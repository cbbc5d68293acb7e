"""A wrapped loader's items: their own shape, beside their draws."""

from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from augloader import Draw
from augloader.loading.shaped import Shaped


class Scene(NamedTuple):
    image: Any
    boxes: Any


def minus(x: Any) -> Any:
    return -x


def test_an_item_and_its_draw() -> None:
    data: Any = Shaped([{"x": 1.0, "y": 2}] * 3, list, strong=minus, fields=("x", "y"))
    draw = Draw(1, 1)
    assert data[draw] == ({"x": -1.0, "y": 2}, draw)
    assert data[1] == ({"x": -1.0, "y": 2}, Draw(1, epoch=-1))
    assert list(data.__getitems__([draw])) == [data[draw]]


def test_whole_items_keep_their_shape() -> None:
    image = torch.arange(16.0).view(1, 4, 4)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 1, 2]], format="XYXY", canvas_size=(4, 4))
    data: Any = Shaped([Scene(image, boxes)], list, strong=v2.RandomHorizontalFlip(1.0), joint=True)
    item, _ = data[Draw(0)]
    assert type(item) is Scene
    assert torch.equal(item.image, image.flip(-1))
    assert item.boxes.tolist() == [[3, 0, 4, 2]]


def test_clean_items_are_the_datas_own() -> None:
    given: dict[str, Any] = {"strong": minus, "weak": minus, "fields": ("x", "y")}
    items = [{"x": 1.0 * i, "y": i} for i in range(3)]
    assert Shaped(items, list, **given).clean_items()[2] is items[2]
    half: Any = Shaped(
        items, list, **given, clean=lambda x: x / 2, final=lambda x: x + 1
    ).clean_items()
    assert half[2] == {"x": 2.0, "y": 2}
    assert len(half) == 3
    other = Shaped(items, default_collate, **given, clean=items[::-1]).clean_items()
    assert other[0] == items[2]
