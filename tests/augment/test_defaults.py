"""Results depend neither on torch's default dtype nor on its default device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.tv_tensors import BoundingBoxes, KeyPoints, Mask

from augloader import AdaptiveStrengthTransform, CutMix, HardestOf, ManifoldMixup, Mixup, Sample
from augloader.augment import crops, rotations, translations
from augloader.augment.pixels import ops
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.policies import POLICIES, _pairs, _space
from tests.augment.test_kornia import CASES

pytestmark = pytest.mark.usefixtures("one_thread")
CPU: dict[str, Any] = {"device": "cpu"}


@pytest.fixture(params=["dtype", "device"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Change a default when called; without what was computed before, and restored after."""

    def change() -> None:
        _space.cache_clear()
        _pairs.cache_clear()
        if request.param == "dtype":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device("meta")

    yield change
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    _space.cache_clear()


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(8, 3, 12, 10, generator=generator, dtype=torch.float32, device="cpu")
    return (values * 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)


def rows(dtype: torch.dtype = torch.float32) -> Sample:
    index = torch.arange(8, **CPU)
    ones = torch.ones(8, dtype=torch.float32, device="cpu")
    strength = torch.linspace(0, 1, 8, dtype=torch.float32, device="cpu")
    return Sample(images(dtype), index % 3, index, ones + index, strength)


def lying() -> tuple[Any, ...]:
    size: dict[str, Any] = {"canvas_size": (12, 10), "device": "cpu"}
    values = torch.tensor([[2.0, 3.0, 7.0, 9.0]], dtype=torch.float32, device="cpu")
    masks = Mask((images()[:, 0] * 9).long(), device="cpu")
    each = [
        {
            "boxes": BoundingBoxes(values, format=form, **size),
            "points": KeyPoints(values[:, :2], **size),
        }
        for form in ["XYXY", "CXCYWH"] * 4
    ]
    return masks, each


def policy(name: str, dtype: torch.dtype, **options: Any) -> Any:
    out = AdaptiveStrengthTransform(name, seed=1, **options)
    drawn = out(images(dtype), 0.7, torch.Generator().manual_seed(0))
    followed = () if name == "augmix" else out((images(dtype), *lying()), 0.9)
    return out(rows(dtype)), drawn, followed, out(images(dtype)[0], 0.5)


def hardest(keep: int) -> Sample:
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 3, dtype=torch.float32, device="cpu"))
    model.requires_grad_(False)
    for i, part in enumerate(model.parameters()):
        part.copy_(torch.arange(part.numel(), dtype=torch.float32, device="cpu").view_as(part) % 7)
        part.add_(i)
    strong = AdaptiveStrengthTransform("rand", seed=1)
    return HardestOf(strong, candidates=4, keep=keep)(rows(), model)


def manifold() -> Any:
    model = nn.Sequential(nn.Flatten(), nn.Identity())
    with ManifoldMixup(model, ["", "0", "1"], 3)(rows()) as mixed:
        return model(rows().input), mixed


def grids(x: Tensor) -> list[Tensor]:
    made: list[Any] = [*translations(2, diagonal=True), *rotations((-20, 35)), *crops(1)]
    return [turn(x, 0.8) for turn in made]


def dense(interpolation: Any) -> Tensor:
    f32: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    turn = torch.tensor([[0.9, -0.3, 1.0], [0.3, 0.9, 0.0]], **f32).expand(8, 2, 3)
    number = torch.tensor([*ops.COLOUR][:8], **CPU)[:, None]
    level = torch.full((8, 1), 0.4, **f32)
    return apply_dense(
        images(torch.uint8), number, level, turn, interpolation=interpolation, fill=(9.0,)
    )


def single(kind: Any) -> Any:
    """Numbers in place of tensors, as of a batch made by hand."""
    batch = rows()._replace(strength=[1.0] * 8, copy=0, epoch=2)
    return kind(3)(batch), kind(3)(rows(), torch.Generator().manual_seed(0))


WAYS: dict[str, Callable[[], Any]] = {
    **{f"{name} uint8": partial(policy, name, torch.uint8) for name in POLICIES},
    **{f"{name} float": partial(policy, name, torch.float32) for name in POLICIES},
    "filled": lambda: policy("rand", torch.uint8, fill=(1, 2.4, 3), mask_fill=255),
    "bilinear": lambda: policy("rand", torch.float32, fill=0.3, interpolation="bilinear"),
    "half": lambda: policy("trivial", torch.float16, mean=[0.4], std=[0.3]),
    "normalised": lambda: policy("auto", torch.uint8, mean=[0.4] * 3, std=[0.3] * 3),
    "hardest": lambda: hardest(2),
    "all kept": lambda: hardest(4),
    "mixup": lambda: single(Mixup),
    "cutmix": lambda: single(CutMix),
    "manifold": manifold,
    "grids": lambda: grids(images()[0]),
    "grids uint8": lambda: grids(images(torch.uint8)[0]),
    "dense": lambda: [dense(mode) for mode in ("nearest", "bilinear")],
}


def require_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert (a.dtype, a.device) == (b.dtype, b.device)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        require_same(list(a.items()), list(b.items()))
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            require_same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("way", WAYS)
def test_defaults_do_not_matter(way: str, elsewhere: Callable[[], None]) -> None:
    expected = WAYS[way]()
    elsewhere()
    require_same(WAYS[way](), expected)


@pytest.mark.parametrize("name", CASES)
def test_defaults_do_not_matter_to_kornia(name: str, elsewhere: Callable[[], None]) -> None:
    make = CASES[name][0]
    before = AdaptiveStrengthTransform(make(1.0), seed=3)
    expected = AdaptiveStrengthTransform(make(1.0), seed=3)(rows())
    elsewhere()
    require_same(before(rows()), expected)
