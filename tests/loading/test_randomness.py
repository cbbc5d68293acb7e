"""Global random states are fixed in a block, and restored."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from augloader.loading.randomness import Fixed, drawn_since, seed_all
from tests.reference import random_state


def legacy() -> Any:
    return np.random.rand(2).tolist()  # noqa: NPY002 - as datasets do


@pytest.mark.parametrize("draw", [lambda: torch.rand(2).tolist(), legacy, random.random])
def test_a_block_draws_the_same_and_leaves_no_trace(draw: Callable[[], Any]) -> None:
    before = random_state()
    seen = []
    for seed in (3, 3, 4, 2**33):
        fixed = Fixed(seed)
        with fixed:
            seen.append(draw())
        assert fixed.moved
        assert random_state() == before
    assert seen[0] == seen[1] != seen[2]


def test_a_block_that_draws_nothing_or_raises() -> None:
    before, fixed = random_state(), Fixed(1)
    with fixed, Fixed(2) as inner:
        torch.rand(2, generator=torch.Generator())
        with pytest.raises(KeyError), Fixed(3):
            _ = {2.0: 0}[random.random()]
    assert not fixed.moved
    assert not inner.moved
    assert random_state() == before


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), legacy, lambda: random.gauss(0, 1)])
def test_whether_numbers_were_drawn(draw: Callable[[], Any]) -> None:
    with Fixed(0):
        for seed in (0, 0):
            seed_all(seed)
            assert not drawn_since()
            seed_all(seed)
            draw()
            assert drawn_since()
