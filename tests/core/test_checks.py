"""Wording and guards of the error messages."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    holds_draws,
    plain,
    plain_options,
    require_budget,
    require_dataset,
    require_finite,
    require_fraction,
    require_generator,
    require_int,
    require_labels,
    require_number,
    require_seed,
    require_strengths,
)


def test_at_most_five_positions_are_named() -> None:
    bad = torch.arange(20) % 2 == 1
    assert count_and_first(bad, "rows") == "10 rows (first indices 1, 3, 5, 7, 9)"


def test_every_message_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^x must be at least 2, got 1\. Take two\.$"):
        require_int("x", 1, 2, "Take two.")
    with pytest.raises(
        ValueError, match=r"^x must be finite, got 1 non-finite rows .*\. Fix it\.$"
    ):
        require_finite("x", torch.tensor([[0.0, torch.inf], [0.0, 0.0]]), "Fix it.")


INTEGERS: list[Any] = [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)]
NUMBERS: list[Any] = [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5)]
NEITHER: list[Any] = [True, np.True_, np.array(True), torch.tensor(True), "1", None, np.ones(1)]
GUARDS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "int": (lambda x: require_int("x", x, 0, ""), INTEGERS),
    "seed": (require_seed, INTEGERS),
    "budget": (lambda x: require_budget(x, 9), INTEGERS),
    "fraction": (lambda x: require_fraction("x", x), NUMBERS),
    "number": (lambda x: require_number("x", x, "[0, 1]", ""), NUMBERS),
    "strengths": (lambda x: float(require_strengths(x, ())), NUMBERS),
}


@pytest.mark.parametrize("name", GUARDS)
def test_numpy_numbers_are_numbers_and_truth_values_are_not(name: str) -> None:
    guard, numbers = GUARDS[name]
    for number in numbers:
        found = guard(number)
        assert (found, type(found)) == (numbers[0], type(numbers[0]))
    for other in NEITHER:
        if name == "strengths" and isinstance(other, np.ndarray) and other.ndim:
            continue
        with pytest.raises(TypeError, match=r" must be an? "):
            guard(other)
    assert require_fraction("x", 1) == 1.0


def test_options_of_numpy_are_as_those_of_python() -> None:
    @dataclass(frozen=True)
    class Options:
        a: float
        b: Any = None

        def __post_init__(self) -> None:
            plain_options(self)

    for value in (np.float64(0.1), np.array(0.1)):
        assert repr(Options(value)) == repr(Options(0.1))  # type: ignore[arg-type]
        assert hash(Options(value)) == hash(Options(0.1))  # type: ignore[arg-type]
    several = np.arange(3)
    assert Options(1, several).b is several
    assert repr(Options(1)).endswith("Options(a=1, b=None)")  # an integer is left as it is
    assert plain("a") == "a"


def test_arrays_become_tensors() -> None:
    for values, dtype in (
        (np.arange(4.0), torch.float64),
        (np.arange(4, dtype=np.float16), torch.float16),
        (np.arange(8)[::-2][::-1] // 2, torch.int64),
        (np.arange(4, dtype=">f4"), torch.float32),
        ([0.0, 1.0, 2, 3], torch.float32),
        ((0, 1, 2, 3), torch.int64),
        ([torch.tensor(0.0), torch.tensor(1.0), 2, 3], torch.float32),
        (torch.arange(4.0, requires_grad=True), torch.float32),
    ):
        found = as_tensor("x", values, "")
        assert found.dtype == dtype
        assert found.tolist() == [0, 1, 2, 3]
        assert not found.requires_grad
    frozen = np.arange(3.0)
    frozen.setflags(write=False)
    assert as_tensor("x", frozen, "").tolist() == [0, 1, 2]
    whole = torch.zeros(3)
    assert as_tensor("x", whole, "") is whole
    for other in ("abc", None, 3, {1: 2}, ["a"], [[1], [1, 2]], [None, 1], np.array([1j]), range):
        with pytest.raises(TypeError, match=r"^x must be a tensor or an array of .* Pass one\.$"):
            as_tensor("x", other, "Pass one.")


def test_a_generator_is_numpys() -> None:
    generator = np.random.default_rng(0)
    assert require_generator(generator) is generator
    for other, got in (
        (0, "0"),
        (None, "None"),
        (torch.Generator(), "Generator"),
        (np.random.RandomState(0), "RandomState"),
        (np.random, "module"),
    ):
        with pytest.raises(TypeError, match=rf"numpy\.random\.Generator, got {got}\. Pass numpy"):
            require_generator(other)


def test_messages_name_samples() -> None:
    samples = torch.tensor([40, 7, 19])
    with pytest.raises(ValueError, match=r"got 2 non-finite rows \(first samples 19, 40\)"):
        require_finite("x", torch.tensor([torch.nan, 0, torch.inf]), "", samples)
    with pytest.raises(ValueError, match=r"in \[0, 2\), got 1 labels outside \(first samples 7\)"):
        require_labels("y", torch.tensor([0, 2, 1]), 3, 2, samples)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", (0, 0.5, 1, np.float32(1)), (-1e-9, 1.001)),
        ("(0, 1)", (1e-9, 0.5), (0, 1)),
        ("(0, 1000]", (1, 1000), (0, 1001)),
        ("[0, inf)", (0, 1e300), (-1, math.inf)),
        ("(-inf, inf)", (-1e300, 0), (-math.inf, math.inf)),
    ],
)
def test_the_brackets_of_an_interval_say_which_ends_count(
    interval: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    for value in inside:
        require_number("x", value, interval, "")
    for wrong in (*outside, math.nan):
        words = re.escape(f"x must be in {interval}, got {wrong}. Fix it.")
        with pytest.raises(ValueError, match=f"^{words}$"):
            require_number("x", wrong, interval, "Fix it.")
    for other in (True, "1", None, 1j):
        words = re.escape(f"x must be a number in {interval}, got {other!r}. Fix it.")
        with pytest.raises(TypeError, match=f"^{words}$"):
            require_number("x", other, interval, "Fix it.")


def test_any_sized_indexable_is_a_dataset() -> None:
    assert require_dataset(range(3)) == 3
    with pytest.raises(TypeError, match="map-style"):
        require_dataset(iter(range(3)))


def named(name: str, **more: Any) -> Any:
    """Return something with a length and positions, of a class of this name."""
    body = {"__len__": lambda self: 3, "__getitem__": lambda self, i: i, **more}
    return type(name, (), body)()


class Stream(IterableDataset[int]):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __getitem__(self, index: int) -> int:
        return index


def test_streams_are_refused_even_with_positions() -> None:
    shards = type("Shards", (type(named("StreamingDataset")),), {})
    for stream in (Stream(), named("StreamingDataset"), named("IterableDataset"), shards()):
        words = rf"map-style .* got {type(stream).__name__}\. .*chooses the samples itself: load"
        with pytest.raises(TypeError, match=words):
            require_dataset(stream)
    assert require_dataset(named("Dataset")) == 3


def test_a_loader_is_no_dataset() -> None:
    with pytest.raises(TypeError, match=r"got a DataLoader\. Pass its dataset: loader\.dataset"):
        require_dataset(DataLoader(named("Data")))


def test_what_takes_draws_is_not_hidden_in_other_datasets() -> None:
    plain, drawn = named("Data"), named("Drawn", takes_draws=True)
    subset: Any = Subset(drawn, [0])
    assert require_dataset(drawn) == 3
    assert require_dataset(ConcatDataset([plain, Subset(plain, [1])])) == 4
    joined: list[Any] = [ConcatDataset([plain, drawn]), ConcatDataset([Subset(subset, [0])])]
    for hidden in (subset, *joined):
        kind = type(hidden).__name__
        assert holds_draws(hidden)
        with pytest.raises(TypeError, match=rf"got a {kind} around .* inside: .*\({kind}\("):
            require_dataset(hidden)
    assert not holds_draws(plain)


def test_small_integer_types_are_labels() -> None:
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int32, torch.int64):
        found = require_labels("y", torch.tensor([0, 2], dtype=dtype), 2, 3)
        assert (found.dtype, found.tolist()) == (torch.int64, [0, 2])
    with pytest.raises(TypeError, match=r"y must be integer class labels, got torch\.bool"):
        require_labels("y", torch.tensor([True, False]), 2)


def test_labels_are_tensors() -> None:
    with pytest.raises(TypeError, match="labels must be a tensor of class labels, got list"):
        require_labels("labels", [0, 1], 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "strength",
    [
        0.5,
        np.float32(0.5),
        np.float16(0.5),
        np.array(0.5),
        np.array(0.5, ">f4"),
        torch.tensor(0.5, dtype=torch.bfloat16),
        np.full(3, 0.5),
        np.full(6, 0.5, np.float32)[::-2],
        torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True),
    ],
)
def test_strengths_of_any_number_and_array(strength: object) -> None:
    found = require_strengths(strength, (3,))
    assert (found.dtype, found.device.type) == (torch.float32, "cpu")
    assert found.tolist() == [0.5] * 3
    assert not found.requires_grad


@pytest.mark.parametrize("one", [1, np.int64(1), np.array(1), np.array(1, np.uint8)])
def test_whole_strengths_are_numbers(one: object) -> None:
    assert require_strengths(one, ()).tolist() == [1]
    assert require_strengths(torch.as_tensor(one), (2,)).tolist() == [1, 1]


@pytest.mark.parametrize(
    "strength",
    [True, np.True_, np.array(True), torch.tensor(True), np.ones(3, np.int64), torch.ones(3).int()],
)
def test_strengths_are_no_flags_and_no_lists_of_integers(strength: object) -> None:
    with pytest.raises(TypeError, match="strength must be a float or a floating tensor, got"):
        require_strengths(strength, (3,))


@pytest.mark.parametrize("strength", [np.float64(1.5), np.array(-0.5), torch.tensor(2), np.nan])
def test_strengths_are_in_range(strength: object) -> None:
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\], got -?[\dn]"):
        require_strengths(strength, (3,))


@pytest.mark.parametrize(
    "soft", [torch.full((4, 3), 0.5), torch.eye(4, 3).bool(), torch.eye(4, 3).long()]
)
def test_rows_of_classes_are_no_labels(soft: torch.Tensor) -> None:
    with pytest.raises((TypeError, ValueError), match=r"y must .*got ") as raised:
        require_labels("y", soft, 4)
    said = str(raised.value)
    assert "argmax" not in said
    assert "(4, 3)" in said
    for words in ("batch._replace(mixed=True)", "proxy=logits.sigmoid() - target"):
        assert words in said
