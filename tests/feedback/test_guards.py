"""What the sample table refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from augloader.feedback.guards import (
    earliest,
    raise_missing,
    require_epoch,
    require_index,
    require_strengths,
    require_target,
    require_weakness,
)


def test_a_value_as_old_as_may_be_counts() -> None:
    assert earliest(7, 2) == 5
    assert earliest(None, None) == earliest(7, None) == 0


def test_samples_are_distinct_and_in_range() -> None:
    index = torch.tensor([3, 0])
    assert require_index(index, 4).tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"index must be in \[0, 3\)"):
        require_index(index, 3)


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"losses", "labels"}, r"labels and losses must be .* 2 samples \(first indices 0, 1\)"),
        ({"labels"}, r"per_class=False"),
        ({"forgetting"}, r"of a view with strength 0.*Evidence\(n, forgetting=\.\.\.\)"),
        ({"scores"}, r"evidence\.scores must be given"),
    ],
)
def test_what_is_missing_is_named(needs: set[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        raise_missing(needs, torch.tensor([True, True]), None)


def test_integers_of_any_width_are_samples() -> None:
    for index in ([3, 0], np.array([3, 0], np.int32), torch.tensor([3, 0], dtype=torch.uint8)):
        found = require_index(index, 4)  # type: ignore[arg-type]
        assert (found.tolist(), found.dtype) == ([3, 0], torch.int64)
    wrong: Any
    for wrong in (torch.tensor([True, False]), [0.0, 1.0], 3, "a", None):
        with pytest.raises(TypeError, match="index must be "):
            require_index(wrong, 4)


def test_strengths_of_views() -> None:
    index = torch.tensor([30, 7])
    for given in ([0.0, 0.5], np.array([0.0, 0.5]), torch.tensor([0.0, 0.5]).double()):
        found = require_weakness(given, index)  # type: ignore[arg-type]
        assert (found.tolist(), found.dtype) == ([0, 0.5], torch.float32)
    assert require_weakness(None, index).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"\(2,\) values in \[0, 1\], got shape \(1,\)"):
        require_weakness(torch.zeros(1), index)
    with pytest.raises(ValueError, match=r"got 1 others \(first samples 7\)"):
        require_weakness(torch.tensor([0.0, 1.5]), index)


def test_targets_are_named_by_their_samples() -> None:
    index = torch.tensor([30, 7])
    assert require_target(torch.tensor([1, 0], dtype=torch.int8), index, 2).dtype == torch.int64
    with pytest.raises(
        ValueError, match=r"target must be in \[0, 2\), got .* \(first samples 30\)"
    ):
        require_target(torch.tensor([2, 0]), index, 2)
    with pytest.raises(TypeError, match=r"target=torch\.bucketize"):
        require_target(torch.rand(2), index, 2)
    with pytest.raises(TypeError, match=r"of shape \(2, 2\).*mixed=True.*sigmoid"):
        require_target(torch.eye(2), index, 2)


def test_epochs_fit_32_bits() -> None:
    assert require_epoch(np.int64(3)) == 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"epoch must be below 2\^31, got 2147483648"):
        require_epoch(2**31)


@pytest.mark.parametrize("values", [None, [0.5], np.full(3, 0.5, np.float32), torch.ones(3) * 2])
def test_strengths_of_a_rule(values: Any) -> None:
    with pytest.raises(ValueError, match=r"strengths of 'Mine' must be \(3,\) float32 in \[0, 1\]"):
        require_strengths("Mine", values, 3)
    assert not require_strengths("Mine", torch.zeros(3, requires_grad=True), 3).requires_grad
