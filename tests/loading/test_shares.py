"""How many samples are selected, and how many a base has."""

from typing import Any

import pytest

from augloader import InfoBatch, SwitchOff, Uniform
from augloader.loading.shares import base_share, selected_share, size_of


def test_a_share_is_at_least_one_sample() -> None:
    assert [size_of(10, share) for share in (0.01, 0.25, 0.3, 1.0)] == [1, 2, 3, 10]


def test_numbers_and_courses() -> None:
    assert selected_share(10, None, 4, None) == 4
    course = selected_share(10, lambda epoch, epochs: 1 - epoch / epochs, None, 4)
    assert not isinstance(course, int)
    assert course.values == (1.0, 0.75, 0.5, 0.25)
    assert base_share(10, "random", 0.3, None) == 3
    assert base_share(10, "random", None, None) is None
    assert base_share(10, InfoBatch(), None, None) is None
    falling = base_share(10, Uniform(), lambda epoch, _: 1 - epoch / 10, 3)
    assert falling is not None
    assert not isinstance(falling, int)
    assert falling.values == (1.0, 0.9, 0.8)


@pytest.mark.parametrize(
    ("base", "fraction", "words"),
    [
        (Uniform(), None, "base_fraction must be given with base=Uniform"),
        ("full", 0.5, 'must come with base="random" or a strategy'),
        (InfoBatch(), 0.5, 'must come with base="random" or a strategy'),
        ("random", SwitchOff(1), "base_fraction must be in .* got 0 at 2"),
        (Uniform(), 1.5, r"base_fraction must be in \(0, 1\]"),
    ],
)
def test_bad_shares(base: Any, fraction: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        base_share(10, base, fraction, 3)


def test_one_of_fraction_and_count() -> None:
    with pytest.raises(ValueError, match="exactly one of fraction and count"):
        selected_share(10, 0.5, 5, None)
    with pytest.raises(ValueError, match="count must be at most the 10 samples"):
        selected_share(10, None, 11, None)
