"""Descriptions of saved values, and the checksum of a state."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augloader.core.fields import (
    Field,
    Maybe,
    Names,
    Parts,
    Rows,
    Same,
    Whole,
    checksum,
    require_fields,
    require_parts,
    require_state,
    signed,
)

ROWS = Rows(torch.float32, (3, None), 0, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (Whole(), 0),
        (Whole(2, 5), 5),
        (ROWS, torch.ones(3, 2)),
        (Rows(torch.int64, (range(1, 4),), -1), torch.tensor([-1, 7])),
        (Rows(torch.float32, (2,), 0, 1, also=torch.inf), torch.tensor([0.5, torch.inf])),
        (Rows(torch.int64, (2,), 0, torch.tensor([1, 2])), torch.tensor([1, 2])),
        (Rows(torch.bool, (2,)), torch.tensor([True, False])),
        (Rows(torch.float16, (1,)), torch.tensor([-3.0]).half()),
        (Parts((Whole(), ROWS)), [1, torch.zeros(3, 1)]),
        (Names({"a": Whole()}), {"a": 1}),
        (Names({}), {}),
        (Same(None), None),
        (Maybe(Whole()), None),
        (Maybe(Whole()), 3),
    ],
)
def test_what_is_described_is_taken(field: Field, value: Any) -> None:
    require_fields({"part": value}, {"part": field})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (Whole(), -1, "part of the state must be a whole number, at least 0, got -1"),
        (Whole(2, 5), 6, "at least 2 and at most 5, got 6"),
        (Whole(), True, "got True"),
        (Whole(), 1.0, "got 1.0"),
        (Whole(), None, "got None"),
        (ROWS, torch.ones(3), r"torch.float32 of shape \(3, any\), got shape \(3,\)"),
        (ROWS, torch.ones(3, 0), r"got shape \(3, 0\)"),
        (ROWS, torch.ones(3, 2).double(), "got torch.float64"),
        (ROWS, torch.ones(3, 2).to_sparse(), "torch.float32 of shape"),
        (ROWS, np.ones((3, 2), np.float32), "got ndarray"),
        (ROWS, 2 * torch.ones(3, 2), "finite and at least 0 and at most 1, got 3 other rows"),
        (ROWS, torch.full((3, 2), torch.nan), "got 3 other rows"),
        (Rows(torch.float32, (1,)), torch.tensor([torch.inf]), "must be finite, got 1 other rows"),
        (Rows(torch.float32, (1,), also=torch.inf), torch.tensor([-torch.inf]), "got 1 other"),
        (Rows(torch.int64, (2,), 0, torch.tensor([1, 2])), torch.tensor([2, 2]), "indices 0"),
        (Rows(torch.int64, (range(1, 4),)), torch.arange(4), r"shape \(1 to 3\), got shape \(4,\)"),
        (Parts((Whole(), ROWS)), [1], "2 values, got list"),
        (Parts((Whole(), Whole())), (1, -1), r"part\[1\] of the state must be a whole number"),
        (Names({"a": Whole()}), {"a": 1, "b": 2}, "a dict of a, got a, b"),
        (Names({"a": Whole()}), {"a": -1}, r"part\.a of the state"),
        (Names({"a": Whole()}), None, "a dict of a, got NoneType"),
        (Names({}), {"a": 1}, "a dict of nothing, got a"),
        (Same(None), 0, "None, got 0"),
        (Same(1), True, "1, got True"),
        (Maybe(Whole()), -1, "got -1"),
    ],
)
def test_anything_else_is_refused_by_name(field: Field, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        require_fields({"part": value}, {"part": field})


def test_a_checksum_depends_on_values_types_shapes_names_and_order() -> None:
    one: dict[str, Any] = {"a": torch.arange(4), "b": (1, None, "x", torch.float32)}
    others: list[Any] = [
        {**one, "a": torch.arange(4).int()},
        {**one, "a": torch.arange(4)[None]},
        {**one, "a": torch.tensor([0, 1, 3, 2])},
        {**one, "b": (1, None, "y", torch.float32)},
        {**one, "b": (None, 1, "x", torch.float32)},
        {**one, "b": ("1", None, "x", torch.float32)},
        {"a": one["b"], "b": one["a"]},
        {**one, "c": 1},
        [],
        [[]],
        None,
        torch.tensor(1),
        torch.ones(0),
        torch.ones(2).to_sparse(),
    ]
    found = [checksum(value) for value in [one, *others]]
    assert len(set(found)) == len(found)
    assert checksum({"b": list(one["b"]), "a": one["a"].clone()}) == checksum(one)
    wide = torch.arange(6).view(2, 3)
    assert checksum(wide.T.contiguous().T) == checksum(wide)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_flipped_bit_changes_the_checksum(octets: bytes, data: st.DataObject) -> None:
    value = torch.tensor(list(octets), dtype=torch.uint8)
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    other = value.clone()
    other[bit // 8] ^= 1 << bit % 8
    assert checksum(other) != checksum(value)


def test_a_state_is_read_as_it_was_signed() -> None:
    state = signed({"version": 2, "part": torch.ones(2)})
    assert require_state("it", state, 2, {"part"}).keys() == {"version", "part", "checksum"}
    assert signed(state) == state
    known = {"part": checksum(state["part"])}
    assert signed({"version": 2, "part": state["part"]}, known) == state
    with pytest.raises(ValueError, match="state of it must be as it was saved, got one whose"):
        require_state("it", {**state, "part": torch.zeros(2)}, 2, {"part"})
    with pytest.raises(ValueError, match="must be whole, got none of checksum"):
        require_state("it", {"version": 2, "part": 1}, 2, {"part"})
    with pytest.raises(TypeError, match="state of it must be a dict, got list"):
        require_state("it", [1], 2, {"part"})
    for version in (None, 3, 0, "2", True, [2]):
        with pytest.raises(ValueError, match="must be of version 2, got"):
            require_state("it", {**state, "version": version}, 2, {"part"})


def test_states_of_earlier_versions_take_their_steps() -> None:
    def second(saved: dict[str, Any]) -> dict[str, Any]:
        require_parts("it", saved, {"old": dict})
        return {"version": 2, "part": saved["old"]["part"]}

    steps = {1: second, 2: lambda saved: {**saved, "version": 3}}
    old: dict[str, Any] = {"version": 1, "old": {"part": 5}}
    assert require_state("it", old, 3, {"part"}, steps) == {"version": 3, "part": 5}
    with pytest.raises(ValueError, match="must be whole, got none of old"):
        require_state("it", {"version": 1}, 3, {"part"}, steps)
    with pytest.raises(ValueError, match="old of the state must be a dict, got int"):
        require_state("it", {"version": 1, "old": 5}, 3, {"part"}, steps)
    with pytest.raises(ValueError, match="must be whole, got none of part"):
        require_state("it", {"version": 2}, 3, {"part"}, steps)


def test_a_view_has_the_checksum_of_its_values() -> None:
    one = torch.ones(1)
    for view, whole in (
        (one.expand(5), torch.ones(5)),
        (one.expand(5)[:1], one),
        (one.expand(5)[:0], torch.ones(0)),
        (torch.arange(6)[::2], torch.tensor([0, 2, 4])),
        (torch.tensor(3.0), torch.tensor(3.0)),
    ):
        assert checksum(view) == checksum(whole)
