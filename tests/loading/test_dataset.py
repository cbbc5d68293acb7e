"""Draws in, samples out, whatever the wrapped dataset and the transforms are."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
    default_collate,
    random_split,
)
from torchvision import tv_tensors
from torchvision.transforms import v2

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
    data = WeightedAugmentedDataset(tensors(), strong=negative)
    batch = next(iter(DataLoader(data, batch_size=8)))
    assert batch.input.tolist() == [-float(i) for i in range(8)]
    assert batch.weight.tolist() == batch.strength.tolist() == [1] * 8


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


def with_force_apply(*args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
    assert not args
    assert data["image"].shape == (8, 8, 3)
    return {"image": 255 - data["image"]}


def keyword_only(*, image: Any) -> dict[str, Any]:
    return {"image": 255 - image}


@pytest.mark.parametrize("transform", [with_force_apply, keyword_only])
def test_albumentations_style_keeps_the_kind_of_image(transform: Callable[..., Any]) -> None:
    images = [PIL_IMAGE, IMAGE, np.asarray(PIL_IMAGE)]
    for image in images:
        data = WeightedAugmentedDataset([(image, 0)], strong=transform)
        out = data[0].input
        assert type(out) is type(image)
        plain = out.permute(1, 2, 0).numpy() if isinstance(out, Tensor) else np.asarray(out)
        np.testing.assert_array_equal(plain, 255 - np.asarray(PIL_IMAGE))


def to_tensor_at_the_end(*, image: Any) -> dict[str, Any]:
    return {"image": torch.from_numpy(image.copy()).permute(2, 0, 1)}


def test_albumentations_that_ends_in_a_tensor() -> None:
    data = WeightedAugmentedDataset([(PIL_IMAGE, 0), (IMAGE, 0)], strong=to_tensor_at_the_end)
    assert torch.equal(data[0].input, IMAGE)
    assert torch.equal(data[1].input, IMAGE)


@pytest.mark.parametrize("image", [PIL_IMAGE, IMAGE])
def test_torchvision_and_pil(image: Any) -> None:
    strong = v2.Compose([v2.TrivialAugmentWide(), v2.RandomHorizontalFlip(1.0)])
    final = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    data = WeightedAugmentedDataset([(image, 0)], strong=strong, final=final)
    plain = data[Draw(0, strength=0.0)].input
    torch.testing.assert_close(plain.as_subclass(Tensor), IMAGE / 255)
    assert data[0].input.shape == (3, 8, 8)
    assert not data[0].input.allclose(plain)


def test_kornia_on_one_image_gives_one_image() -> None:
    data = WeightedAugmentedDataset([(IMAGE / 255, 0)], strong=K.RandomHorizontalFlip(p=1.0))
    assert torch.equal(data[0].input, (IMAGE / 255).flip(-1))


def scaled(x: Tensor, strength: float) -> Tensor:
    return x * strength


def test_a_transform_with_a_strength_is_given_the_draws() -> None:
    data = WeightedAugmentedDataset(tensors(), strong=scaled)
    assert data[Draw(4, strength=0.25)].input == 1


def keyed(x: Tensor, keys: Tensor) -> Tensor:
    assert keys.dtype == torch.int64
    return x + keys @ torch.tensor([10_000, 100, 1])


def keyed_and_scaled(x: Tensor, *, strength: float, keys: Tensor) -> Tensor:
    return keyed(x * strength, keys)


class Keyed(torch.nn.Module):
    def forward(self, x: Tensor, strength: float = 1.0, keys: Tensor | None = None) -> Tensor:
        assert keys is not None
        return keyed_and_scaled(x, strength=strength, keys=keys)


def test_a_transform_with_keys_is_given_epoch_index_and_copy() -> None:
    draw = Draw(4, 2, strength=0.25, epoch=3)
    assert WeightedAugmentedDataset(tensors(), strong=keyed)[draw].input == 30_406
    for transform in (keyed_and_scaled, Keyed()):
        assert WeightedAugmentedDataset(tensors(), strong=transform)[draw].input == 30_403
    data = WeightedAugmentedDataset(tensors(), weak=keyed, final=scaled)
    assert data[draw].input == 30_406 / 4
    assert data[4].input == 404 + 4 - 4


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
        data[0]


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


# Batches at once ----------------------------------------------------------------------------------


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


DRAWS: list[Any] = [Draw(5, 0, 0.5, 0.0, 3), Draw(2, 1, 1.25, 0.7, 3), 5, Draw(0, 2, 0.0, 1.0, 3)]


class Frozen(TensorDataset):
    """Not a TensorDataset's own items."""

    def __getitem__(self, i: int) -> Any:
        return tuple(column[i] for column in reversed(self.tensors))


class AtOnce(Dataset[Any]):
    """Columns, or rows, of the items of another dataset."""

    def __init__(self, items: list[Any], make: Callable[[list[Any]], Any]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]

    def __getitems__(self, indices: list[int]) -> Any:
        return self.make([self.items[i] for i in indices])


def turned(rows: list[Any]) -> Any:
    """Columns of rows: a tuple, or a dict of lists, arrays and tensors."""
    if isinstance(rows[0], dict):
        return {key: [row[key] for row in rows] for key in rows[0]}
    return tuple(zip(*rows, strict=True))


def stacked(rows: list[Any]) -> Any:
    batch = default_collate(rows)
    return batch if isinstance(batch, dict) else tuple(batch)


@dataclass
class Record:
    image: Any
    label: int
    name: str


PAIRS = [(torch.full((2, 3), float(i)), i % 3) for i in range(8)]
NAMED = [{"name": f"n{i}", "x": np.full(2, i), "y": f"y{i}", "z": (i / 2, "z")} for i in range(8)]
KINDS: dict[str, tuple[Any, tuple[Any, Any]]] = {
    "tensors": (tensors(), (0, 1)),
    "swapped": (tensors(), (1, 0)),
    "three": (TensorDataset(torch.eye(8), torch.arange(8).byte(), torch.ones(8) > 0), (2, 0)),
    "columns of other dtypes": (
        TensorDataset(torch.arange(16).view(8, 2).half(), torch.arange(8, dtype=torch.int32)),
        (0, 1),
    ),
    "a subset": (Subset(tensors(20), list(range(19, 3, -2))), (0, 1)),
    "a subset of a subset": (
        Subset(Subset(tensors(20), list(range(19, 1, -1))), [*range(8)]),
        (0, 1),
    ),
    "a subclass": (Frozen(torch.arange(8.0), torch.arange(8)), (0, 1)),
    "gradients": (TensorDataset(torch.eye(8, requires_grad=True), torch.arange(8)), (0, 1)),
    "pairs": (PAIRS, (0, 1)),
    "lists": ([[*pair, f"n{i}", (i, 2.5)] for i, pair in enumerate(PAIRS)], (0, 1)),
    "dicts": (NAMED, ("x", "y")),
    "records": ([Record(x, y, f"n{y}") for x, y in PAIRS], ("image", "label")),
    "rows at once": (AtOnce(PAIRS, list), (0, 1)),
    "columns at once": (AtOnce(PAIRS, turned), (0, 1)),
    "tensors at once": (AtOnce(PAIRS, stacked), (0, 1)),
    "dicts at once": (AtOnce(NAMED, turned), ("x", "y")),
    "arrays at once": (
        AtOnce([{"x": np.full(2, i), "y": i, "z": i / 2} for i in range(8)], stacked),
        ("x", "y"),
    ),
}
TRANSFORMS: dict[str, dict[str, Any]] = {"none": {}, "final": {"final": lambda x: x}}


@pytest.mark.parametrize("transforms", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_at_once_is_the_batch_of_its_rows(kind: str, transforms: str) -> None:
    items, fields = KINDS[kind]
    data = WeightedAugmentedDataset(items, fields=fields, **TRANSFORMS[transforms])
    for view in (data, data.clean()):
        rows = [view[draw] for draw in DRAWS]
        found = view.__getitems__(DRAWS)
        assert len(found) == 4
        if "at once" not in kind:  # whose rows may be tensors for numbers
            assert same(list(found), rows)
        assert same(found[1:3], list(found)[1:3])
        assert same(found[-1], list(found)[-1])
        with pytest.raises(IndexError):
            _ = found[4]
        expected = default_collate(rows)
        assert same(default_collate(list(found)), expected)
        lazily: Any = found
        assert same(default_collate(lazily), expected)
        assert same(collate(found), expected)
        assert same(collate(rows), expected)
        assert type(collate(found)) is Sample


def test_collate_passes_on_what_is_no_batch_of_ours() -> None:
    assert same(collate([(1, 2.0), (3, 4.0)]), default_collate([(1, 2.0), (3, 4.0)]))
    with pytest.raises(IndexError):
        collate([])


def test_in_memory_columns_are_indexed_once() -> None:
    class Counted(Tensor):
        pass

    data = WeightedAugmentedDataset(TensorDataset(torch.eye(8), torch.arange(8)))
    batch = collate(data.__getitems__([Draw(3), Draw(1), Draw(3)]))
    assert torch.equal(batch.input, torch.eye(8)[[3, 1, 3]])
    batch.input.zero_()  # a copy
    assert torch.equal(data[3].input, torch.eye(8)[3])
    special = TensorDataset(torch.eye(8).as_subclass(Counted), torch.arange(8))
    rows = WeightedAugmentedDataset(special).__getitems__([3, 1])
    assert type(rows[0].input) is Counted


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_the_fast_collate_gives_the_same_batches(workers: int) -> None:
    images = torch.arange(40 * 3 * 40 * 40).view(40, 3, 40, 40)  # batches of 40 are above 1 MiB
    first, _ = random_split(TensorDataset(images, torch.arange(40)), [30, 10], torch.Generator())
    for items in (first, [first[i] for i in range(30)]):
        data = WeightedAugmentedDataset(items)
        sampler = CoresetSampler(data, Uniform(), fraction=0.5)
        sampler.refresh()
        for size in (12, 40):
            options: dict[str, Any] = {"batch_size": size, "sampler": sampler}
            plain = list(DataLoader(data, **options))
            fast = list(DataLoader(data, collate_fn=collate, num_workers=workers, **options))
            assert len(plain) == len(fast)
            assert all(map(same, plain, fast))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rows: rows[1:], "got 2 items for 3 indices"),
        (lambda rows: [*rows, rows[0]], "got 4 items for 3 indices"),
        (lambda rows: stacked(rows[1:]), r"got columns of \[2, 2\] items for 3"),
        (
            lambda rows: (stacked(rows)[0], torch.tensor([1])),
            r"got columns of \[3, 1\] items for 3",
        ),
        (lambda rows: (stacked(rows)[0], 5), r"got columns of \[3, 0\] items for 3"),
        (lambda rows: (stacked(rows)[0], torch.tensor(5)), r"got columns of \[3, 0\] items for 3"),
        (lambda rows: {"a": [1]}, r"got columns of \[1\] items for 3"),
        (lambda rows: {}, r"got columns of \[\] items for 3"),
        (lambda rows: tuple(rows), r"got columns of \[2, 2, 2\] items for 3"),
        (lambda rows: iter(rows), "got list_iterator items for 3"),
    ],
)
@pytest.mark.parametrize("transforms", TRANSFORMS)
def test_another_number_of_items_is_refused(make: Any, words: str, transforms: str) -> None:
    data = WeightedAugmentedDataset(AtOnce(PAIRS, make), **TRANSFORMS[transforms])
    with pytest.raises(ValueError, match=rf"one item an index, {words}.* Return a list of items"):
        data.__getitems__([0, 1, 2])


def test_items_of_other_lengths_are_refused() -> None:
    data = WeightedAugmentedDataset([(1, 2), (1, 2, 3)])
    with pytest.raises(ValueError, match=r"items of one length, got \[2, 3\]\. Give every item"):
        collate(data.__getitems__([0, 1]))
    with pytest.raises(TypeError, match="must return tuples, dicts or dataclasses"):
        collate(WeightedAugmentedDataset([3.0]).__getitems__([0]))


@pytest.mark.parametrize("transforms", TRANSFORMS)
def test_a_dataset_that_has_changed_is_refused(transforms: str) -> None:
    items = [*PAIRS]
    data = WeightedAugmentedDataset(items, **TRANSFORMS[transforms])
    del items[-1]
    with pytest.raises(ValueError, match=r"keep its 8 samples, got 7 now\. Build dataset and samp"):
        data.__getitems__([0])


def test_every_index_of_a_batch_is_checked() -> None:
    data = WeightedAugmentedDataset(tensors())
    for bad in (-1, 8):
        batches: list[list[Any]] = [[Draw(0), Draw(bad)], [0, bad], [Draw(bad), 0]]
        for batch in batches:
            with pytest.raises(IndexError, match=rf"in \[0, 8\), got {bad}"):
                data.__getitems__(batch)


def descriptors(loader: DataLoader[Any]) -> int:
    """Return how many descriptors holding three batches takes the main process."""
    batches = iter(loader)
    held = [next(batches)]
    before = len(os.listdir("/proc/self/fd"))
    held += [next(batches) for _ in range(3)]
    return len(os.listdir("/proc/self/fd")) - before


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_a_batch_takes_fewer_descriptors_than_a_plain_one() -> None:
    items = TensorDataset(torch.zeros(64, 3, 8, 8), torch.arange(64))
    data = WeightedAugmentedDataset(items)
    options: dict[str, Any] = {"batch_size": 4, "num_workers": 1}
    plain = descriptors(DataLoader(items, **options))
    assert plain >= 2 * 3
    assert descriptors(DataLoader(data, collate_fn=collate, **options)) < plain / 2
    assert descriptors(DataLoader(data, **options)) < plain / 2
