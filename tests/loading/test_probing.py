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

from augloader.loading.probing import Probe, keeps_order, require_number
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
TELLING_NOTHING: list[Collate] = [only_places, seven_at_once]
KEEPING: list[Collate] = [padded, as_lists, named, *TELLING_NOTHING]


@pytest.mark.parametrize("collate", MOVING)
def test_another_order_is_an_error(collate: Collate) -> None:
    with pytest.raises(ValueError, match=r'collate_fn must keep the rows.*extras="item"'):
        keeps_order(collate, ITEMS, range(9))


@pytest.mark.parametrize("collate", KEEPING)
def test_the_same_order_passes(collate: Collate) -> None:
    assert keeps_order(collate, ITEMS, range(9)) == (collate not in TELLING_NOTHING)


@pytest.mark.parametrize("collate", [default_collate, mixing, noisy, list])
def test_images_that_are_mixed_or_changed_pass_and_no_random_state_moves(collate: Collate) -> None:
    before = random_state()
    keeps_order(collate, SQUARES, range(9))
    assert random_state() == before


@pytest.mark.parametrize("first", range(24))
def test_mixed_targets_that_coincide_are_no_evidence(first: int) -> None:
    labels = [first >> k & 1 for k in range(3)] + [2, 1, 0, 2, 1]
    items = [(torch.rand(3, 4, 4), label) for label in labels]
    keeps_order(lambda rows: v2.MixUp(num_classes=3)(*default_collate(rows)), items, range(8))


def with_partners(rows: list[Any]) -> Any:
    x, y = padded(rows)
    return x, y, y.flip(0), torch.arange(len(rows)) + y.flip(0) * 100


def test_partners_of_rows_that_follow_are_no_evidence() -> None:
    items = [(x, 10 * i) for i, (x, _) in enumerate(ITEMS)]
    assert keeps_order(with_partners, items, range(9))


def test_columns_are_tried_too() -> None:
    columns = {"x": torch.rand(6, 2), "name": [f"n{i}" for i in range(6)]}
    assert keeps_order(lambda given: given, columns, range(6))
    with pytest.raises(ValueError, match="collate_fn must keep the rows"):
        keeps_order(lambda given: {"x": given["x"].sort(0).values}, columns, range(6))


def test_two_rows_are_enough_for_a_sort() -> None:
    assert keeps_order(padded, ITEMS[:2], range(2))
    for items in (ITEMS[:2], ITEMS[1::-1]):
        with pytest.raises(ValueError, match="collate_fn must keep the rows"):
            keeps_order(by_length, items, range(2))


def test_rows_of_one_sample_twice_are_no_evidence_and_hide_none() -> None:
    twice = [*ITEMS[:4], ITEMS[0], ITEMS[2]]
    assert keeps_order(padded, twice, [0, 1, 2, 3, 0, 2])
    with pytest.raises(ValueError, match="collate_fn must keep the rows"):
        keeps_order(by_length, twice, [0, 1, 2, 3, 0, 2])


class Popping:
    """Changes its items, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rows: list[Any]) -> Any:
        self.calls += 1
        for row in rows:
            row["label"] = row.pop("y")
            row["x"].div_(255)
        return default_collate(rows)


def test_the_items_and_the_function_stay_as_they_were() -> None:
    own = Popping()
    rows: list[Any] = [{"x": torch.full((2,), 255.0 * i), "y": i} for i in range(4)]
    assert keeps_order(Probe(own).collate, [dict(row) for row in rows], range(4))
    Probe(own).look_at(rows, range(4))
    assert own.calls == 4  # the first call, of the function itself; the probe's were of a copy
    assert [row["y"] for row in rows] == [0, 1, 2, 3]
    assert [float(row["x"][0]) for row in rows] == [0, 255, 510, 765]


def test_a_probe_goes_on_until_two_batches_tell() -> None:
    calls: list[int] = []

    def collate(rows: list[Any]) -> Any:
        calls.append(len(rows))
        return by_length(rows)

    probe, alike = Probe(collate), [(torch.full((3, 2), float(i)), 0) for i in range(4)]
    probe.look_at(alike, range(4))  # a sort leaves them as they are
    with pytest.raises(ValueError, match="collate_fn must keep the rows"):
        probe.look_at(ITEMS, range(9))
    probe, calls[:] = Probe(mixing), []
    for _ in range(12):
        probe.look_at(SQUARES, range(9))

    def counted(rows: list[Any]) -> Any:
        calls.append(1)
        return padded(rows)

    probe = Probe(counted)
    for _ in range(5):
        probe.look_at(ITEMS, range(9))
    assert len(calls) == 8


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
