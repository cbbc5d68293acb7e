"""Wording and guards of the error messages."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset

from augloader.core.checks import (
    count_and_first,
    holds_draws,
    require_dataset,
    require_finite,
    require_fraction,
    require_int,
    require_labels,
    require_number,
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


def test_numpy_numbers_are_numbers_and_truth_values_are_not() -> None:
    assert require_int("x", np.int64(3), 0, "") == 3
    assert require_fraction("x", np.float32(0.5)) == 0.5
    assert require_fraction("x", 1) == 1.0
    for guard in (lambda: require_int("x", True, 0, ""), lambda: require_fraction("x", True)):
        with pytest.raises(TypeError, match="got True"):
            guard()


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
    for dtype in (torch.uint8, torch.int32, torch.int64):
        require_labels("y", torch.tensor([0, 2], dtype=dtype), 2, 3)
    with pytest.raises(TypeError, match=r"y must be integer class labels, got torch\.bool"):
        require_labels("y", torch.tensor([True, False]), 2)


def test_labels_are_tensors() -> None:
    with pytest.raises(TypeError, match="labels must be a tensor of class labels, got list"):
        require_labels("labels", [0, 1], 2)  # type: ignore[arg-type]
