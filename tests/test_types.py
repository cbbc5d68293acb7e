"""The values that pass between the parts."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import default_collate

from augloader import Draw, Evidence, Proxies, Sample, Selection
from augloader.types import take


def test_a_plain_index_draws_at_full_strength() -> None:
    assert Draw(3) == Draw(3, 0, 1.0, 1.0, 0, True)


def test_batches_move_with_everything_nested_in_them() -> None:
    extra = {"mask": torch.zeros(2), "more": [torch.zeros(2), ("name", torch.zeros(2))]}
    where = torch.arange(2)
    batch = Sample(
        torch.zeros(2), torch.zeros(2), where, torch.ones(2), torch.ones(2), where, where, extra
    )
    moved = batch.to("meta")
    assert isinstance(moved, Sample)
    assert moved.input.device.type == moved.extra["mask"].device.type == "meta"
    assert moved.target.device.type == moved.weight.device.type == "meta"
    name, tensor = moved.extra["more"][1]
    assert name == "name"
    assert tensor.device.type == "meta"
    assert batch.input.device.type == "cpu"
    # Random parameters are drawn and reports stored where these are.
    stay = (moved.index, moved.copy, moved.epoch, moved.strength)
    assert {part.device.type for part in stay} == {"cpu"}


def test_what_is_mixed_stays_on_the_cpu_and_is_false_unless_said() -> None:
    samples = [Sample(torch.zeros(2), i, i, 1.0, 0.0, mixed=i == 1) for i in range(3)]
    batch = default_collate(samples)
    assert isinstance(batch, Sample)
    assert batch.mixed.dtype == torch.bool
    assert batch.mixed.tolist() == [False, True, False]
    moved = batch.to("meta")
    assert moved.mixed is batch.mixed
    assert Sample(None, 1, 7, 1.0, 0.5).mixed is False
    assert Sample(None, 1, 7, 1.0, 0.5).to("meta").mixed is False


# Rows of a batch ----------------------------------------------------------------------------------


def item(i: int) -> Sample:
    """With extra fields of every kind that the default collate knows."""
    x = torch.tensor([i, -i])
    extra = {"id": i, "name": f"n{i}", "pair": (f"a{i}", x), "more": [{"f": i / 2}, (i, f"b{i}")]}
    return Sample(x, i % 3, i, 1.0, i / 9, i, 4, extra, i % 2 == 0)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and all(map(same, a, b)) and len(a) == len(b)
    return bool(a == b)


@given(st.integers(1, 6), st.data())
def test_rows_of_a_batch_are_the_batch_of_those_items(n: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9))
    batch = default_collate([item(i) for i in range(n)])
    taken = take(batch, torch.tensor(rows))
    assert isinstance(taken, Sample)
    assert same(taken, default_collate([item(i) for i in rows]))
    assert same(batch, default_collate([item(i) for i in range(n)]))


def test_what_is_taken_of_each_kind() -> None:
    rows, none = torch.tensor([2, 0, 2]), torch.empty(0, dtype=torch.int64)
    column = torch.arange(3.0)
    assert take(column, rows).tolist() == [2, 0, 2]
    assert take(["x", "y", "z"], rows) == ["z", "x", "z"]
    assert take(("x", "y", "z"), rows) == ("z", "x", "z")
    assert take([[], ["x", "y", "z"], ()], rows) == [[], ["z", "x", "z"], ()]
    pair = take((column, {"deep": [column, ("x", "y", "z")]}), rows)
    assert isinstance(pair, tuple)
    assert pair[0].tolist() == pair[1]["deep"][0].tolist() == [2, 0, 2]
    assert pair[1]["deep"][1] == ("z", "x", "z")
    empty: list[Any] = [(), {}, [], 0, False, None]
    assert [take(value, rows) for value in empty] == empty
    assert take(column, none).shape == (0,)
    assert take(["x"], none) == []
    selected = take(Sample(column, column, column, column, column), rows)
    assert (selected.copy, selected.epoch, selected.extra, selected.mixed) == (0, 0, (), False)


def test_rows_are_copies_and_stay_on_their_device() -> None:
    column = torch.arange(3.0)
    taken = take([column], torch.tensor([0, 0]))[0]
    taken += 1
    assert column.tolist() == [0, 1, 2]
    assert take(torch.zeros(3, 2, device="meta"), torch.tensor([0, 2])).shape == (2, 2)


def test_keys_name_the_draws() -> None:
    one = Sample(None, 1, 7, 1.0, 0.5, 2, 4)
    assert one.keys.tolist() == [4, 7, 2]
    batch = Sample(None, None, torch.tensor([7, 8]), None, None, torch.tensor([2, 0]))
    assert batch.keys.tolist() == [[0, 7, 2], [0, 8, 0]]
    assert one.keys.dtype == batch.keys.dtype == torch.int64


@pytest.mark.parametrize(
    ("indices", "weights", "error", "words"),
    [
        (torch.tensor([0.0]), torch.ones(1), TypeError, "int64 indices"),
        (torch.tensor([0]), torch.ones(1, dtype=torch.float64), TypeError, "float32 weights"),
        (torch.tensor([], dtype=torch.int64), torch.ones(0), ValueError, "k >= 1"),
        (torch.tensor([0, 1]), torch.ones(1), ValueError, "as many weights"),
        (torch.tensor([2, 2]), torch.ones(2), ValueError, "distinct"),
        (torch.tensor([0, -1]), torch.ones(2), ValueError, "distinct and 0 or more"),
        (torch.tensor([0, 1]), torch.tensor([1.0, 0.0]), ValueError, r"first indices 1"),
        (torch.tensor([0, 1]), torch.tensor([torch.nan, 1.0]), ValueError, r"first indices 0"),
    ],
)
def test_bad_selections(
    indices: Tensor, weights: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Selection(indices, weights)


def test_bad_evidence() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Evidence(0)
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        Evidence(3, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"labels must be 0 or more.*first indices 2"):
        Evidence(3, labels=torch.tensor([0, 1, -1]))
    with pytest.raises(ValueError, match="proxies must have 3 rows, got 2"):
        Evidence(3, proxies=Proxies(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match=r"losses must have shape \(3,\)"):
        Evidence(3, losses=torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"losses must be finite.*first indices 1"):
        Evidence(3, losses=torch.tensor([0.0, torch.nan, 0.0]))
    with pytest.raises(TypeError, match="losses must be floating"):
        Evidence(3, losses=torch.tensor([0, 1, 2]))


def test_shares_and_bad_ones() -> None:
    three = torch.tensor([7, 0, 4])
    share = Evidence(9, torch.arange(3), Proxies(torch.zeros(3, 2)), torch.zeros(3), indices=three)
    assert share.n == 9
    nothing = torch.empty(0, dtype=torch.int64)
    assert Evidence(9, nothing, losses=torch.empty(0), indices=nothing).proxies is None
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        Evidence(9, labels=torch.zeros(9, dtype=torch.int64), indices=three)
    with pytest.raises(ValueError, match="proxies must have 3 rows, got 9"):
        Evidence(9, proxies=Proxies(torch.zeros(9, 2)), indices=three)
    with pytest.raises(ValueError, match=r"losses must have shape \(3,\)"):
        Evidence(9, losses=torch.zeros(9), indices=three)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 7\), got indices from 0 to 7"):
        Evidence(7, indices=three)
    with pytest.raises(ValueError, match="indices must be distinct, got repeated ones"):
        Evidence(9, indices=torch.tensor([1, 2, 1]))
    with pytest.raises(TypeError, match=r"indices must be \(k,\) int64 indices, got .*float32"):
        Evidence(9, indices=torch.tensor([1.0]))
