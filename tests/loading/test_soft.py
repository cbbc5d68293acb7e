"""What soft targets are taken for."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from augloader.loading.soft import class_labels, is_mixed, is_soft, mixed_rows

LABELS = torch.tensor([2, 0, 1, 2])


def one_hot(classes: int = 4) -> Tensor:
    return F.one_hot(LABELS, classes).float()


def smoothed(classes: int = 4) -> Tensor:
    return one_hot(classes) * 0.9 + 0.1 / classes


@pytest.mark.parametrize("target", [LABELS, one_hot(), one_hot().long(), one_hot(3), smoothed()])
def test_labels_of_what_mixes_no_classes(target: Tensor) -> None:
    assert class_labels(target).tolist() == LABELS.tolist()
    assert not is_mixed(target)


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("mixing", [v2.MixUp, v2.CutMix])
def test_what_torchvision_mixes_is_mixed(mixing: Any, classes: int) -> None:
    torch.manual_seed(0)
    _, target = mixing(num_classes=classes)(torch.rand(4, 3, 8, 8), LABELS)
    assert is_mixed(target)
    with pytest.raises(ValueError, match=r"got rows that mix classes.*mixed=True"):
        class_labels(target)


@pytest.mark.parametrize(
    "target",
    [smoothed(3)[:, 1:], one_hot() * 0, one_hot() + one_hot().flip(1)],
)
def test_rows_of_several_labels_want_a_proxy(target: Tensor) -> None:
    assert not is_soft(target)
    with pytest.raises(ValueError, match=r"target must be class labels.*proxy of your own"):
        class_labels(target)


def test_what_is_of_no_rows_of_classes_is_left_to_others() -> None:
    for target in (LABELS[:, None], LABELS.float(), torch.zeros(4, 2, 3)):
        assert class_labels(target) is target


@given(
    st.integers(3, 9), st.floats(0.01, 0.99), st.lists(st.integers(0, 8), min_size=2, max_size=6)
)
def test_smoothing_is_told_from_mixing(classes: int, share: float, labels: list[int]) -> None:
    rows = F.one_hot(torch.tensor(labels) % classes, classes).double()
    assert not mixed_rows(rows * (1 - share) + share / classes).any()
    other = rows.roll(1, 0)
    expected = (rows != other).any(1)
    assert torch.equal(mixed_rows(rows * share + other * (1 - share)), expected)


def test_of_two_classes_smoothing_is_taken_for_mixing() -> None:
    two = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5]])
    assert mixed_rows(two).tolist() == [False, True, True]


def test_many_rows_of_two_classes_that_are_soft_alike_are_smoothed() -> None:
    labels = torch.arange(9) % 2
    rows = F.one_hot(labels, 2) * 0.9 + 0.05
    assert not mixed_rows(rows).any()
    assert class_labels(rows).tolist() == labels.tolist()
    assert mixed_rows(torch.cat([rows, torch.eye(2)])).sum() == 9
