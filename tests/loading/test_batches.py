"""Batches fetched and collated at once are the batches of their rows."""

import os
import sys
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)

from augloader import (
    CoresetSampler,
    Draw,
    Sample,
    Uniform,
    WeightedAugmentedDataset,
    collate,
)
from augloader.loading.batches import as_parts, replaced
from tests.loading.test_dataset import same, tensors

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at

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
        draws = list(sampler)
        for size in (12, 40):
            options: dict[str, Any] = {"batch_size": size, "sampler": draws}
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


# Items whose fields change ------------------------------------------------------------------------


class Pair(NamedTuple):
    x: int
    y: int


class Own(tuple[int, ...]):
    pass


@dataclass(frozen=True)
class Fixed:
    x: int
    y: int


def test_a_field_changes_and_the_item_does_not() -> None:
    items: list[tuple[Any, int | str]] = [
        ((1, 2), 0),
        ([1, 2], 0),
        (Pair(1, 2), 0),
        ({"x": 1, "y": 2}, "x"),
        (UserDict(x=1, y=2), "x"),
        (Fixed(1, 2), "x"),
        (MappingProxyType({"x": 1, "y": 2}), "x"),
    ]
    for item, field in items:
        changed = replaced(item, {field: 9})
        frozen = isinstance(item, MappingProxyType)
        assert type(changed) is (dict if frozen else type(item))
        for one, x in ((item, 1), (changed, 9)):
            parts = as_parts(one, field)
            assert list(parts.values() if isinstance(parts, dict) else parts) == [x, 2]


def test_an_item_as_its_parts() -> None:
    assert as_parts(Fixed(1, 2), "x") == as_parts(UserDict(x=1, y=2), "x") == {"x": 1, "y": 2}
    assert type(as_parts(Own((1, 2)), 0)) is tuple
    pair = Pair(1, 2)
    assert as_parts(pair, 0) is pair
    with pytest.raises(TypeError, match=r"two of the item's \['x', 'y'\], got 0"):
        as_parts(Fixed(1, 2), 0)
    with pytest.raises(TypeError, match="must return tuples, lists, mappings or dataclasses"):
        as_parts(3, 0)
