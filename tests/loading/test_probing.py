"""A collate function that moves or loses rows is found; others are not."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate
from torchvision.transforms import v2

from augloader.loading.probing import require_number, require_order
from tests.reference import random_state

ITEMS = [(torch.full((1 + i * 5 % 7, 2), float(i)), i % 2) for i in range(9)]
SQUARES = [(torch.full((3, 4, 4), float(i)), i % 2) for i in range(9)]
Collate = Callable[[list[Any]], Any]


def padded(rows: list[Any]) -> Any:
    return pad_sequence([x for x, _ in rows], batch_first=True), torch.tensor([y for _, y in rows])


def by_length(rows: list[Any]) -> Any:
    return padded(sorted(rows, key=lambda row: -len(row[0])))


def by_class(rows: list[Any]) -> Any:
    return padded(sorted(rows, key=lambda row: row[1]))


def backwards(rows: list[Any]) -> Any:
    return padded(rows[::-1])


def turned(rows: list[Any]) -> Any:
    return padded([*rows[1:], rows[0]])


def shuffled(rows: list[Any]) -> Any:
    return padded(random.sample(rows, len(rows)))


def as_lists(rows: list[Any]) -> Any:
    return tuple(zip(*rows, strict=True))


def lists_by_length(rows: list[Any]) -> Any:
    return as_lists(sorted(rows, key=lambda row: len(row[0])))


def named(rows: list[Any]) -> Any:
    x, y = padded(rows)
    return SimpleNamespace(x=x, places=torch.arange(len(rows)), deep={"y": y})


def named_by_length(rows: list[Any]) -> Any:
    x, y = by_length(rows)
    return {"deep": SimpleNamespace(x=x, y=y, places=torch.arange(len(rows)))}


def only_places(rows: list[Any]) -> Any:
    return {"x": sum(x.sum() for x, _ in rows), "places": torch.arange(len(rows))}


def seven_at_once(rows: list[Any]) -> Any:
    raise RuntimeError("not of these")


def mixing(rows: list[Any]) -> Any:
    return v2.MixUp(num_classes=2)(*default_collate(rows))


def noisy(rows: list[Any]) -> Any:
    x, y = default_collate(rows)
    return x + torch.rand_like(x) + np.random.rand() + random.random(), y  # noqa: NPY002


MOVING: list[Collate] = [by_length, by_class, backwards, turned, shuffled]
MOVING += [lists_by_length, named_by_length]
KEEPING: list[Collate] = [padded, as_lists, named, only_places, seven_at_once]


@pytest.mark.parametrize("collate", MOVING)
def test_another_order_is_an_error(collate: Collate) -> None:
    with pytest.raises(ValueError, match=r'collate_fn must keep the rows.*extras="item"'):
        require_order(collate, ITEMS, range(9))


@pytest.mark.parametrize("collate", KEEPING)
def test_the_same_order_passes(collate: Collate) -> None:
    assert require_order(collate, ITEMS, range(9))


@pytest.mark.parametrize("collate", [default_collate, mixing, noisy, list])
def test_images_that_are_mixed_or_changed_pass_and_no_random_state_moves(collate: Collate) -> None:
    before = random_state()
    assert require_order(collate, SQUARES, range(9))
    assert random_state() == before


def test_columns_are_tried_too() -> None:
    columns = {"x": torch.rand(6, 2), "name": [f"n{i}" for i in range(6)]}
    assert require_order(lambda given: given, columns, range(6))
    with pytest.raises(ValueError, match="collate_fn must keep the rows"):
        require_order(lambda given: {"x": given["x"].sort(0).values}, columns, range(6))


def test_too_few_items_tell_nothing() -> None:
    assert not require_order(by_length, ITEMS, [0, 3])


X, Y = torch.zeros(4, 2), torch.zeros(4)


@pytest.mark.parametrize(
    "batch",
    [
        (X, Y),
        (torch.zeros(8, 2), torch.zeros(8)),  # two crops of each
        (torch.zeros(7, 4, 2), torch.zeros(7, 4)),  # of time first
        (torch.zeros(9, 2), torch.zeros(2, 20), Y),  # as graphs are
        [(1, 2, 3)] * 4,
        {"x": X, "names": ["a"] * 4},
        torch.zeros(4),
        torch.zeros(()),
        ([1] * 4, [2] * 4),
        "text",
        7,
    ],
)
def test_as_many_rows_pass(batch: Any) -> None:
    require_number(batch, 4)


@pytest.mark.parametrize(
    "batch",
    [(X[1:], Y[1:]), {"x": X[1:]}, X[1:], ([1] * 3, [2] * 3), SimpleNamespace(x=X[1:], y=Y[1:])],
)
def test_fewer_rows_are_an_error(batch: Any) -> None:
    with pytest.raises(ValueError, match=r"collate_fn must keep the 4 rows of a batch, got 3\."):
        require_number(batch, 4)
