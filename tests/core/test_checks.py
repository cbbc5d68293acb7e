"""Wording and guards of the error messages."""

import math
import re

import numpy as np
import pytest
import torch

from augloader.core.checks import (
    count_and_first,
    require_dataset,
    require_finite,
    require_fraction,
    require_int,
    require_labels,
    require_number,
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


def test_small_integer_types_are_labels() -> None:
    for dtype in (torch.uint8, torch.int32, torch.int64):
        require_labels("y", torch.tensor([0, 2], dtype=dtype), 2, 3)
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
