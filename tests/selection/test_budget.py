"""How a budget is shared among groups."""

from typing import Any

import numpy as np
import pytest

from augloader import FacilityLocation
from augloader.selection.budget import Allocation, allocate
from tests.selection.test_strategy import evidence, select


@pytest.mark.parametrize(
    ("sizes", "budget", "allocation", "shares"),
    [
        ([10, 10, 10], 10, "proportional", [4, 3, 3]),
        ([60, 30, 10], 10, "proportional", [6, 3, 1]),
        ([5000, 100, 2], 51, "proportional", [49, 1, 1]),
        ([97, 1, 1, 1], 10, "proportional", [7, 1, 1, 1]),
        ([50, 50, 2], 30, "equal", [14, 14, 2]),
        ([3, 4, 5], 12, "equal", [3, 4, 5]),
        ([3, 4, 500], 300, "equal", [3, 4, 293]),
        ([5], 5, "proportional", [5]),
    ],
)
def test_allocate(sizes: list[int], budget: int, allocation: Allocation, shares: list[int]) -> None:
    assert allocate(sizes, budget, allocation) == shares


def test_a_budget_below_the_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"between 4, one a class, and 120, all samples, got 3"):
        select(FacilityLocation(), 3, evidence())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([3, 0], 2, "equal"), ValueError, r"sizes must be of 1 sample or more, got \[3, 0\]"),
        (([], 1, "equal"), ValueError, "sizes must be of 1 sample or more"),
        (([3, 4], 5, "even"), ValueError, "allocation must be one of"),
        (([3, 4], True, "equal"), TypeError, "budget must be an integer"),
    ],
)
def test_what_cannot_be_shared(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        allocate(*arguments)
    assert allocate(np.array([3, 4]), np.int64(3), "equal") == [2, 1]  # type: ignore[arg-type]
