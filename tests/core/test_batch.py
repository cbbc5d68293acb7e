"""The values that pass between the parts."""

import copy
import pickle
import pickletools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision import tv_tensors

from augloader import Draw, Sample
from augloader.core.batch import SMALL, Plain, by_value, draws_of, stack, take
from tests.pretend_cuda import Gpu


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


def test_batches_are_pinned_but_for_what_is_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pins: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        pins.append(tensor)
        return tensor + 1

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    here, there = torch.zeros(2), torch.zeros(2, device="meta")
    batch = Sample(there, here, here, here, here, extra={"name": ["a", "b"], "both": (there, here)})
    pinned = pin_memory(batch)  # as a DataLoader does
    assert len(pins) == 5
    assert type(pinned) is Sample
    assert pinned.input is there
    assert pinned.weight.tolist() == [1.0, 1.0]
    assert pinned.extra["name"] == ["a", "b"]
    assert pinned.extra["both"][0] is there
    assert pinned.extra["both"][1].tolist() == [1.0, 1.0]


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


# What a worker sends ------------------------------------------------------------------------------


def through(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_comes_back_as_it_was_sent(dtype: torch.dtype, protocol: int) -> None:
    column = torch.arange(6).to(dtype)
    grid = column.view(2, 3).t()
    empty = torch.empty(0, dtype=dtype)
    extra = {"deep": [column, ("name", grid)], "array": np.arange(3), "none": None, 3: empty}
    sent = Sample(grid, column, column, column, column[::2], column[3], empty, extra, column)
    found = through(sent, protocol)
    assert type(found) is Sample
    assert found.extra.pop("array").tolist() == [0, 1, 2]
    sent.extra.pop("array")
    assert same(found, sent)
    for part in (*found[:5], found.extra["deep"][0]):
        part.zero_()  # without a warning that it cannot be written
    assert torch.equal(column, torch.arange(6).to(dtype))


@pytest.mark.parametrize("shape", [(SMALL // 4,), (SMALL // 4 + 1,), (2, SMALL // 4), (0,), ()])
def test_large_tensors_come_back_too(shape: tuple[int, ...]) -> None:
    sent = Sample(torch.ones(shape), 1, torch.ones(shape), None, None)
    assert same(through(sent), sent)


def test_only_small_plain_tensors_go_by_value() -> None:
    plain = torch.ones(SMALL // 4)
    left = [
        torch.ones(SMALL // 4 + 1),
        torch.ones(2, requires_grad=True),
        nn.Parameter(torch.ones(2)),
        tv_tensors.Image(torch.ones(3, 2, 2)),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        np.ones(2),
        "name",
        None,
    ]
    assert all(by_value(value) is value for value in left)
    for value in (plain, plain[:0], plain[3], plain[::2], plain.bool()):
        assert type(by_value(value)).__name__ == "_ByValue"
    nested = by_value({"a": [plain, (plain, left[0])], "b": left[3]})
    assert nested["a"][1][1] is left[0]
    assert same(through(nested), {"a": [plain, (plain, left[0])], "b": through(left[3])})
    kept = through(Sample(left[1], left[2], left[3], left[4], 0.5, extra=left[6]))
    assert kept.input.requires_grad
    assert type(kept.target) is nn.Parameter
    assert type(kept.index) is tv_tensors.Image
    assert kept.weight.dtype == torch.bfloat16
    assert kept.extra.is_sparse


def test_a_view_sends_its_own_values_only() -> None:
    rows = torch.zeros(1000, 1000)[:2]
    assert len(pickle.dumps(Sample(rows, None, None, None, None))) < 10_000
    names = [op.name for op, *_ in pickletools.genops(pickle.dumps(Sample(1, 2, 3, 4.0, 0.5)))]
    assert "REDUCE" in names


def test_copies_of_a_batch() -> None:
    batch = Sample(torch.ones(2), 1, torch.arange(2), torch.ones(2), torch.ones(2), extra=[[1]])
    shallow, deep = copy.copy(batch), copy.deepcopy(batch)
    assert shallow.input is batch.input
    assert same(shallow, batch)
    assert same(deep, batch)
    deep.input.zero_()
    deep.extra[0].append(2)
    assert batch.input.tolist() == [1, 1]
    assert batch.extra == [[1]]


def identity(rows: list[Any]) -> Any:
    return rows[0]


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_samples_travel_from_workers(start: str) -> None:
    sent = [
        Sample(torch.rand(2, 3), 1, i, np.float32(0.5), 0.5, extra={"mask": torch.ones(2) > 0})
        for i in range(2)
    ]
    sent.append(Sample(torch.rand(SMALL), None, torch.arange(3), None, None, mixed=torch.ones(2)))
    loader: DataLoader[Any] = DataLoader(
        sent,  # type: ignore[arg-type]
        num_workers=1,
        multiprocessing_context=start,
        collate_fn=identity,
        generator=torch.Generator(),
    )
    assert all(map(same, loader, sent))


def test_draws_of_columns_are_those_of_their_rows() -> None:
    rows = [(3, 0, 1.0, 0.0, 2, True), (4, 1, 0.5, 0.25, 2, False)]
    made = list(draws_of(*zip(*rows, strict=True)))
    assert made == [Draw(*row) for row in rows]
    assert {type(draw) for draw in made} == {Draw}


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_plain_indices_are_stacked_as_their_draws(strength: float) -> None:
    plain = Plain([4, 2, 2**40], strength)
    draws = [Draw(index, strength=strength, epoch=-1) for index in plain.indices]
    assert list(plain) == draws
    assert same(stack(plain), stack(draws))


def test_stacked_draws_are_what_the_default_collate_makes_of_them() -> None:
    draws = [Draw(3, 1, 0.1, 0.7, 5), Draw(0, 0, 2.0, 0.0, 5, False)]
    weights = [(np.float32(draw.weight), np.float32(draw.strength)) for draw in draws]
    rows = [
        Sample(0, 0, draw.index, *real, draw.copy, draw.epoch)
        for draw, real in zip(draws, weights, strict=True)
    ]
    expected = default_collate(rows)._replace(input=None, target=None, extra=())
    assert same(stack(draws), expected)


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


def test_keys_are_beside_the_index(pretended: Gpu) -> None:
    index = torch.tensor([7, 8]).cuda()
    for copy_, epoch in ((0, 4), (torch.tensor([0, 0]), 4), (0, torch.tensor([4, 4]))):
        keys = Sample(None, None, index, None, None, copy_, epoch).keys
        assert keys.tolist() == [[4, 7, 0], [4, 8, 0]]
    assert Sample(None, None, index, None, None).keys.is_cuda


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", ["cpu", torch.device("cpu")])
def test_a_batch_is_back_on_the_cpu_when_to_returns(
    pretended: Gpu, back: torch.device | str
) -> None:
    mask, x = torch.ones(2, 4), torch.rand(2, 3)
    batch = Sample(
        x, torch.tensor([1, 0]), torch.arange(2), torch.ones(2), torch.ones(2), extra=({"m": mask},)
    )
    there = batch.to("cuda")
    assert there.input.is_cuda
    assert there.extra[0]["m"].is_cuda
    assert same(there.to(back), batch)
    assert same(there.to(back, non_blocking=True), batch)


def test_what_is_on_the_cpu_or_the_device_already_is_not_copied(pretended: Gpu) -> None:
    batch = Sample(torch.rand(2, 3), None, torch.arange(2), torch.ones(2), torch.ones(2))
    assert batch.to("cpu").input is batch.input
    there = batch.to("cuda")
    pretended.clear()
    assert there.to("cuda").weight is there.weight
    assert not pretended.waits
    assert not pretended.copies


def test_a_pinned_batch_goes_to_the_device_without_waiting(pretended: Gpu) -> None:
    batch = Sample(torch.rand(2, 3), None, torch.arange(2), torch.ones(2), torch.ones(2))
    there = batch.pin_memory().to("cuda")
    assert not pretended.waits
    assert there.input.cpu().equal(batch.input)
    assert there.pin_memory().input is there.input  # is left where it is
    batch.to("cuda", non_blocking=False)
    assert pretended.waits
