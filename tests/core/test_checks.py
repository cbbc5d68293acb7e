"""Wording and guards of the error messages."""

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
