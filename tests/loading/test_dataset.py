"""Draws in, samples out, whatever the wrapped dataset and the transforms are."""

import pickle
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Draw,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    collate,
)
from augloader.augment import crops, rotations, translations


def tensors(n: int = 8) -> TensorDataset:
    return TensorDataset(torch.arange(float(n)), torch.arange(n) % 3)


class Counting(Dataset[Any]):
    """Counts how often each item is fetched."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.fetched.append(index)
        return torch.tensor(float(index)), index % 3


def plus_ten(x: Tensor) -> Tensor:
    return x + 10


def negative(x: Tensor) -> Tensor:
    return -x


def double(x: Tensor) -> Tensor:
    return x * 2


def with_force_apply(*args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
    assert not args
    assert data["image"].shape == (8, 8, 3)
    return {"image": 255 - data["image"]}


def keyword_only(*, image: Any) -> dict[str, Any]:
    return {"image": 255 - image}


def scaled(x: Tensor, strength: float) -> Tensor:
    return x * strength


def keyed(x: Tensor, keys: Tensor) -> Tensor:
    assert keys.dtype == torch.int64
    return x + keys @ torch.tensor([10_000, 100, 1])


def keyed_and_scaled(x: Tensor, *, strength: float, keys: Tensor) -> Tensor:
    return keyed(x * strength, keys)


class Keyed(torch.nn.Module):
    def forward(self, x: Tensor, strength: float = 1.0, keys: Tensor | None = None) -> Tensor:
        assert keys is not None
        return keyed_and_scaled(x, strength=strength, keys=keys)


def same(a: Any, b: Any) -> bool:
    """Whether two batches are equal in values, types, dtypes, keys and their order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(np.all(a == b))


def test_transforms_apply_in_order_and_strong_only_above_zero() -> None:
    data = WeightedAugmentedDataset(tensors(), weak=plus_ten, strong=negative, final=double)
    assert data[Draw(3, 0, 0.5, 0.0)].input == 26
    assert data[Draw(3, 1, 0.5, 1e-6)].input == -26
    assert data[3].input == -26
    assert data.clean()[Draw(3, 0, 1.0, 1.0)].input == 6


def test_the_weak_transform_is_left_out_where_the_draw_says_so() -> None:
    data = WeightedAugmentedDataset(tensors(), weak=plus_ten, strong=negative, final=double)
    for strength, sign in ((0.0, 1), (0.5, -1)):
        with_weak, without = (Draw(3, 1, 1.0, strength, 0, weak) for weak in (True, False))
        assert data[with_weak].input == sign * 26
        assert data[without].input == sign * 6
        batch = data.__getitems__([without, with_weak, without])
        assert [sample.input.item() for sample in batch] == [sign * 6, sign * 26, sign * 6]
        assert data[without][1:] == data[with_weak][1:]
    assert data.clean()[Draw(3, weak=False)] == data.clean()[Draw(3, weak=True)]
    assert WeightedAugmentedDataset(tensors())[Draw(3, weak=False)].input == 3


def test_what_the_dataset_returns_is_not_mixed() -> None:
    data = WeightedAugmentedDataset(tensors(), strong=negative)
    assert data[3].mixed is False
    assert data.clean()[3].mixed is False
    for batch in DataLoader(data, batch_size=3):
        assert batch.mixed.dtype == torch.bool
        assert batch.mixed.tolist() == [False] * len(batch.index)


def test_a_batch_carries_the_draws_in_the_right_types() -> None:
    draws = [Draw(7, 2, 0.25, 1.0, 3), Draw(0, 0, 1.5, 0.0, 3)]
    data = WeightedAugmentedDataset(tensors())
    (batch,) = DataLoader(data, batch_size=2, sampler=draws)
    assert isinstance(batch, Sample)
    assert batch.input.tolist() == [7, 0]
    assert batch.target.tolist() == [1, 0]
    assert batch.index.tolist() == [7, 0]
    assert batch.copy.tolist() == [2, 0]
    assert batch.epoch.tolist() == [3, 3]
    assert batch.keys.tolist() == [[3, 7, 2], [3, 0, 0]]
    assert data[draws[0]].keys.tolist() == [3, 7, 2]
    assert batch.weight.tolist() == [0.25, 1.5]
    assert batch.strength.tolist() == [1, 0]
    assert batch.index.dtype == batch.copy.dtype == batch.epoch.dtype == torch.int64
    assert batch.weight.dtype == batch.strength.dtype == torch.float32


def test_a_loader_without_our_sampler_augments_everything_with_weight_one() -> None:
    data = WeightedAugmentedDataset(tensors(), weak=plus_ten, strong=negative)
    batch = next(iter(DataLoader(data, batch_size=8)))
    assert batch.input.tolist() == [-float(i) - 10 for i in range(8)]
    assert batch.weight.tolist() == batch.strength.tolist() == [1] * 8
    assert batch.epoch.tolist() == [-1] * 8
    assert batch.keys[:, 0].tolist() == [0] * 8
    assert same(tuple(data[np.int64(3)]), tuple(data[3]))
    assert same(tuple(data[3]), tuple(data[Draw(3, epoch=-1)]))


def test_each_draw_fetches_its_item_once() -> None:
    counting = Counting()
    data = WeightedAugmentedDataset(counting)
    data.__getitems__([Draw(3), 5, Draw(3, 1)])
    _ = data[2]
    assert counting.fetched == [3, 5, 3, 2]


class Batched(Counting):
    """Fetches a whole batch at once, and may lose some of it."""

    def __init__(self, lost: int = 0) -> None:
        super().__init__()
        self.lost = lost
        self.calls: list[list[int]] = []

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        self.calls.append(indices)
        return [self[i] for i in indices[self.lost :]]


def test_the_wrapped_getitems_is_used() -> None:
    wrapped = Batched()
    batch = WeightedAugmentedDataset(wrapped).__getitems__([Draw(2), Draw(0), 2])
    assert wrapped.calls == [[2, 0, 2]]
    assert wrapped.fetched == [2, 0, 2]
    assert [sample.input.item() for sample in batch] == [2, 0, 2]
    subset = WeightedAugmentedDataset(Subset(Counting(), [6, 4, 2]))
    assert [sample.input.item() for sample in subset.__getitems__([2, 0])] == [2, 6]
    with pytest.raises(ValueError, match="one item an index, got 1 items for 2"):
        WeightedAugmentedDataset(Batched(lost=1)).__getitems__([0, 1])


@pytest.mark.parametrize(
    ("item", "fields", "extra"),
    [
        ((1.0, 2), (0, 1), ()),
        ([1.0, 2, "a", "b"], (0, 1), ("a", "b")),
        (("a", 2, 1.0), (2, 1), ("a",)),
        ({"image": 1.0, "label": 2, "path": "a"}, ("image", "label"), {"path": "a"}),
    ],
)
def test_extra_fields_are_kept(item: Any, fields: Any, extra: Any) -> None:
    sample = WeightedAugmentedDataset([item], fields=fields)[0]
    assert (sample.input, sample.target, sample.extra) == (1.0, 2, extra)


def test_extra_fields_are_collated() -> None:
    items = [{"image": torch.zeros(2), "label": 0, "id": i, "name": str(i)} for i in range(4)]
    data = WeightedAugmentedDataset(items, fields=("image", "label"))
    batch = next(iter(DataLoader(data, batch_size=4)))
    assert batch.extra["id"].tolist() == [0, 1, 2, 3]
    assert batch.extra["name"] == ["0", "1", "2", "3"]


def test_unknown_fields_are_answered_with_the_known_ones() -> None:
    items = [{"image": 0, "label": 1}]
    with pytest.raises(TypeError, match=r"two of the item's \['image', 'label'\], got \(0, 1\)"):
        _ = WeightedAugmentedDataset(items)[0]
    with pytest.raises(TypeError, match="must return tuples, dicts or dataclasses"):
        _ = WeightedAugmentedDataset([3.0])[0]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


class Endless(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


def test_what_cannot_be_wrapped() -> None:
    with pytest.raises(TypeError, match="Endless without __len__"):
        WeightedAugmentedDataset(Endless())
    with pytest.raises(TypeError, match=r"map-style.*got Stream"):
        WeightedAugmentedDataset(Stream())
    with pytest.raises(ValueError, match="got 0 samples"):
        WeightedAugmentedDataset([])
    with pytest.raises(TypeError, match="strong must be a callable on one image, got 'trivial'"):
        WeightedAugmentedDataset(tensors(), strong="trivial")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fields must be"):
        WeightedAugmentedDataset(tensors(), fields=(0,))  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 8])
def test_an_index_outside_the_data(index: int) -> None:
    data = WeightedAugmentedDataset(tensors())
    with pytest.raises(IndexError, match=rf"in \[0, 8\), got {index}"):
        _ = data[index]
    with pytest.raises(IndexError):
        data.__getitems__([Draw(index)])


IMAGE = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(3, 8, 8)
PIL_IMAGE = Image.fromarray(IMAGE.permute(1, 2, 0).numpy())


def test_the_clean_view_has_strength_zero() -> None:
    clean = WeightedAugmentedDataset(tensors(), strong=negative).clean()
    batch = next(iter(DataLoader(clean, batch_size=8)))
    assert batch.input.tolist() == list(range(8))
    assert batch.strength.tolist() == [0] * 8
    assert clean[Draw(3, 1, 0.5, 0.7, 2)] == Sample(3.0, 0, 3, 0.5, 0.0, 1, 2)
    assert clean.clean()[3].strength == 0


def test_it_travels_to_spawned_workers() -> None:
    data = WeightedAugmentedDataset(tensors(), weak=plus_ten, strong=scaled, final=keyword_only)
    again = pickle.loads(pickle.dumps(data))
    assert len(again) == 8
    assert again.fields == (0, 1)


def test_masks_follow_their_images_through_workers() -> None:
    """A segmentation item, ((image, mask), label): the strong transform moves both."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (12, 3, 16, 16), generator=generator, dtype=torch.uint8)
    items = [((image, tv_tensors.Mask(image[:1] > 99)), i % 2) for i, image in enumerate(images)]
    for policy, moves in (("cutout", False), ("trivial", True)):
        batches = []
        for workers in (0, 2):
            data = WeightedAugmentedDataset(items, strong=AdaptiveStrengthTransform(policy))
            sampler = CoresetSampler(data, Uniform(), fraction=1.0, base="none", seed=0)
            sampler.refresh()
            batches.append(next(iter(DataLoader(data, 12, sampler=sampler, num_workers=workers))))
        (shown, masks), (again, same) = (batch.input for batch in batches)
        assert torch.equal(shown, again)
        assert torch.equal(masks, same)
        before = torch.stack([items[i][0][1] for i in batches[0].index.tolist()])
        assert masks.shape == before.shape
        assert torch.equal(masks, before) != moves
    kornia = AdaptiveStrengthTransform(K.RandomInvert(p=1.0))
    data = WeightedAugmentedDataset(items, strong=kornia)
    with pytest.raises(TypeError, match="must be a single tensor for Kornia operations"):
        data[Draw(0)]


# One transform a copy -----------------------------------------------------------------------------


def test_copy_j_is_augmented_by_the_jth_transform() -> None:
    strong = [plus_ten, negative, double]
    data = WeightedAugmentedDataset(tensors(), weak=double, strong=strong, final=plus_ten)
    found = [data[Draw(3, copy, 1.0, 1e-3)].input.item() for copy in (1, 2, 3)]
    assert found == [6 + 10 + 10, -6 + 10, 12 + 10]
    assert WeightedAugmentedDataset(tensors(), strong=tuple(strong))[Draw(3, 2)].input == -3
    for copy in (0, 1, 7):
        assert data[Draw(3, copy, 1.0, 0.0)].input == 16
        assert data.clean()[Draw(3, copy)].input == 13
    batch = data.__getitems__([Draw(1, 1), Draw(1, 3), Draw(2, 0, strength=0.0)])
    assert [sample.input.item() for sample in batch] == [22, 14, 14]
    one = WeightedAugmentedDataset(tensors(), strong=[negative])
    assert one[Draw(3, 1)].input == -3


def test_each_of_several_transforms_is_given_what_it_asks_for() -> None:
    strong: list[Any] = [scaled, keyed, keyed_and_scaled, Keyed(), negative]
    data = WeightedAugmentedDataset(tensors(), strong=strong)
    found = [data[Draw(4, copy, strength=0.25, epoch=3)].input.item() for copy in range(1, 6)]
    assert found == [1, 30_406, 30_404, 30_405, -4]
    kinds: list[Any] = [with_force_apply, K.RandomHorizontalFlip(p=1.0)]
    images = WeightedAugmentedDataset([(IMAGE, 0), (IMAGE / 255, 0)], strong=kinds)
    assert torch.equal(images[Draw(0, 1)].input, 255 - IMAGE)
    assert torch.equal(images[Draw(1, 2)].input, (IMAGE / 255).flip(-1))


@pytest.mark.parametrize("copy", [0, 4])
def test_a_copy_without_a_transform_is_refused(copy: int) -> None:
    data = WeightedAugmentedDataset(tensors(), strong=[plus_ten, negative, double])
    words = rf"copy must be 1 to 3, the transforms in strong, got {copy}.*with copies=3"
    with pytest.raises(ValueError, match=words):
        _ = data[Draw(3, copy)]
    with pytest.raises(ValueError, match=words):
        data.__getitems__([Draw(3, 1), Draw(3, copy, strength=0.1)])


def test_an_index_alone_has_no_transform_of_several() -> None:
    with pytest.raises(ValueError, match=r"copy must be 1 to 1, .* got 0"):
        _ = WeightedAugmentedDataset(tensors(), strong=[negative])[3]


@pytest.mark.parametrize(
    ("strong", "words"),
    [
        ([], r"strong must hold at least one transform, .*got \[\].*translations\(3\)"),
        ((), "strong must hold at least one transform"),
        ([None], "strong must hold at least one transform, and nothing else"),
        ([negative, None], "strong must hold at least one transform, and nothing else"),
        ([negative, "trivial"], "strong must be a callable on one image, got 'trivial'"),
    ],
)
def test_lists_that_hold_something_else(strong: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        WeightedAugmentedDataset(tensors(), strong=strong)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_shows_every_transform_of_every_selected_sample_once(workers: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, 8, 8), generator=generator, dtype=torch.uint8)
    strong: list[Any] = [*translations(1), *rotations((-15, 15)), *crops((1,))]
    data = WeightedAugmentedDataset(TensorDataset(images, torch.arange(20) % 2), strong=strong)
    data = pickle.loads(pickle.dumps(data))
    sampler = CoresetSampler(data, Uniform(), count=5, copies=len(strong), base="full")
    selected = sampler.refresh().indices.tolist()
    seen = []
    for batch in DataLoader(data, batch_size=16, sampler=sampler, num_workers=workers):
        for x, i, copy, strength in zip(
            batch.input, batch.index.tolist(), batch.copy.tolist(), batch.strength, strict=True
        ):
            expected = strong[copy - 1](images[i]) if strength else images[i]
            assert torch.equal(x, expected)
            seen.append((i, copy, float(strength)))
    every = [(i, copy, 1.0) for i in selected for copy in range(1, len(strong) + 1)]
    assert sorted(seen) == sorted(every + [(i, 0, 0.0) for i in range(20)])


# Whole items --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    image: Any
    mask: Any


@dataclass
class Scene:
    image: Any
    mask: Any


FLIP: Any = v2.RandomHorizontalFlip(1.0)
MASK = tv_tensors.Mask(torch.arange(64).view(8, 8) % 5)
BOXES = tv_tensors.BoundingBoxes([[0, 0, 2, 4]], format="XYXY", canvas_size=(8, 8))


@pytest.mark.parametrize("stage", ["weak", "strong"])
@pytest.mark.parametrize("image", [IMAGE, tv_tensors.Image(IMAGE), PIL_IMAGE])
def test_what_lies_on_the_image_follows_it_in_whole_items(image: Any, stage: str) -> None:
    items: list[tuple[Any, Any]] = [
        ((image, MASK), (0, 1)),
        ([image, MASK, "a"], (0, 1)),
        ((torch.ones(2, 2), MASK, image), (2, 1)),
        ({"id": torch.ones(2, 2), "mask": MASK, "image": image}, ("image", "mask")),
        (UserDict(mask=MASK, image=image), ("image", "mask")),
        (Scene(image, MASK), ("image", "mask")),
    ]
    for item, fields in items:
        data = WeightedAugmentedDataset([item], **{stage: FLIP}, joint=True, fields=fields)
        found = data[Draw(0)]
        assert type(found.input) is type(image)
        assert type(found.target) is tv_tensors.Mask
        assert torch.equal(found.target, MASK.flip(-1))
        shown = pil_to_tensor(found.input) if image is PIL_IMAGE else found.input
        assert torch.equal(shown, IMAGE.flip(-1))
        extra = found.extra.values() if isinstance(found.extra, dict) else found.extra
        assert all(torch.equal(x, torch.ones(2, 2)) for x in extra if isinstance(x, Tensor))
        plain = data[Draw(0, strength=0.0, weak=False)]
        assert plain.input is image
        assert plain.target is MASK
    boxes = WeightedAugmentedDataset(
        [(image, {"boxes": BOXES})], **{stage: FLIP}, joint=True, final=torch.as_tensor
    )
    if image is not PIL_IMAGE:
        assert boxes[Draw(0)].target["boxes"].tolist() == [[6, 0, 8, 4]]


def test_a_transform_of_ours_moves_whole_items() -> None:
    strong = AdaptiveStrengthTransform("rand")
    data = WeightedAugmentedDataset([(IMAGE, MASK)], strong=strong, joint=True)
    draw = Draw(0, 1, strength=0.7, epoch=3)
    expected = strong((IMAGE, MASK), 0.7, keys=torch.tensor([3, 0, 1]))
    found = data[draw]
    assert torch.equal(found.input, expected[0])
    assert torch.equal(found.target, expected[1])
    assert data.takes_strength
    named = WeightedAugmentedDataset([Pair(IMAGE, MASK)], strong=strong, joint=True)
    assert torch.equal(named[draw].input, expected[0])
    turned = WeightedAugmentedDataset([(MASK, IMAGE)], strong=strong, joint=True, fields=(1, 0))
    assert torch.equal(turned[draw].input, expected[0])
    assert torch.equal(turned[draw].target, expected[1])
    item = {"mask": MASK, "picture": IMAGE, "label": 3}
    keyed = WeightedAugmentedDataset(
        [item], strong=strong, joint=True, fields=("picture", "label")
    )[draw]
    assert torch.equal(keyed.input, expected[0])
    assert keyed.target == 3
    assert torch.equal(keyed.extra["mask"], expected[1])


def test_whole_items_that_would_come_apart() -> None:
    given: dict[str, Any] = {"strong": FLIP, "joint": True}
    plain = WeightedAugmentedDataset([(IMAGE, MASK.as_subclass(Tensor))], **given)
    with pytest.raises(TypeError, match=r"target must be a tv_tensors.Mask .*got a plain ten"):
        _ = plain[Draw(0)]
    palette = WeightedAugmentedDataset([(PIL_IMAGE, PIL_IMAGE.convert("P"))], **given)
    with pytest.raises(TypeError, match="mode L or RGB"):
        _ = palette[Draw(0)]
    one = WeightedAugmentedDataset([(IMAGE, 3)], strong=lambda item: item[0], joint=True)
    with pytest.raises(TypeError, match="strong must return the whole item with joint=True"):
        _ = one[Draw(0)]


# Strengths that a transform does not take ---------------------------------------------------------


def test_whether_strengths_mean_something() -> None:
    def given(strong: Any, **more: Any) -> bool:
        return WeightedAugmentedDataset(tensors(), strong=strong, **more).takes_strength

    assert given(None)
    assert given(scaled)
    assert given([scaled, Keyed()])
    assert not given(negative)
    assert not given([scaled, negative])
    assert given(negative, ungraded="probability")
    with pytest.raises(ValueError, match="ungraded must be one of 'full', 'probability'"):
        given(negative, ungraded="none")


def test_a_strength_as_a_probability() -> None:
    n = 2000
    data = WeightedAugmentedDataset(tensors(n), strong=plus_ten, ungraded="probability")
    again = pickle.loads(pickle.dumps(data))
    for strength in (0.0, 0.3, 1.0):
        draws = [Draw(i, 1, 1.0, strength, epoch=2) for i in range(n)]
        applied = [float(row.input) - i for i, row in enumerate(data.__getitems__(draws))]
        assert set(applied) <= {0.0, 10.0}
        assert abs(sum(applied) / 10 - n * strength) <= 5 * (n * strength * (1 - strength)) ** 0.5
        assert [float(again[draw].input) - draw.index for draw in reversed(draws)] == applied[::-1]
    whole = WeightedAugmentedDataset(tensors(), strong=plus_ten)
    assert whole[Draw(3, 1, strength=0.01)].input == 13
    graded = WeightedAugmentedDataset(tensors(), strong=scaled, ungraded="probability")
    assert graded[Draw(4, 1, strength=0.25)].input == 1


# The clean view -----------------------------------------------------------------------------------


def test_a_clean_transform_stands_in_for_the_weak_one() -> None:
    data = WeightedAugmentedDataset(tensors(), weak=plus_ten, clean=negative, final=double)
    assert data[3].input == 26
    clean = data.clean()
    assert clean[3].input == clean[Draw(3, 1, weak=False)].input == -6
    assert clean.clean()[3].input == -6
    assert torch.equal(next(iter(DataLoader(clean, batch_size=2))).input, torch.tensor([0.0, -2.0]))


def test_clean_data_stand_in_for_the_data() -> None:
    others = [(torch.tensor(100.0 + i), i) for i in range(8)]
    for clean in (others, TensorDataset(torch.arange(100.0, 108.0), torch.arange(8))):
        data = WeightedAugmentedDataset(tensors(), weak=plus_ten, clean=clean, final=double)
        assert data[3].input == 26
        assert data.clean()[3].input == 206
    with pytest.raises(ValueError, match="clean must hold the 8 samples of data, got 7"):
        WeightedAugmentedDataset(tensors(), clean=others[:7])
    module = torch.nn.Sequential(torch.nn.Identity())  # has a length, and is a transform
    assert WeightedAugmentedDataset(tensors(), clean=module).clean()[3].input == 3


@pytest.mark.parametrize("final", [None, double])
def test_an_item_that_is_none_is_named(final: Any) -> None:
    items: list[Any] = [(torch.zeros(2), 0)] * 3 + [None]
    data = WeightedAugmentedDataset(items, final=final)
    with pytest.raises(TypeError, match="got None for index 3"):
        _ = data[3]
    with pytest.raises(TypeError, match="got None for index 3"):
        collate(data.__getitems__([0, 3]))


@pytest.fixture(params=["dtype", "device"])
def default(request: pytest.FixtureRequest) -> Iterator[None]:
    dtype = torch.get_default_dtype()
    if request.param == "dtype":
        torch.set_default_dtype(torch.float64)
    else:
        torch.set_default_device("meta")
    yield
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)


def summed(x: Tensor, keys: Tensor) -> Tensor:
    return x + keys.sum()


X, Y = torch.arange(8.0), torch.arange(8) % 3


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("strong", [None, summed, scaled])
def test_other_defaults_of_torch_change_nothing(strong: Any) -> None:
    draws = [Draw(i, 1, 0.5, 0.5, 3) for i in (2, 0, 7)]
    keys = np.array([3 + draw.index + 1 for draw in draws])
    for given in (TensorDataset(X, Y), list(zip(X, Y.tolist(), strict=True))):
        data = WeightedAugmentedDataset(given, strong=strong)
        batch = collate(data.__getitems__(draws))
        shown = X.numpy()[[2, 0, 7]]
        wanted = {None: shown, summed: shown + keys, scaled: shown * 0.5}[strong]
        assert np.array_equal(batch.input.numpy(), wanted)
        assert batch.target.tolist() == [2, 0, 1]
        assert batch.input.dtype == batch.weight.dtype == batch.strength.dtype == torch.float32
        assert batch.target.dtype == torch.int64
        assert {part.device.type for part in batch if isinstance(part, Tensor)} == {"cpu"}
