"""SeTa: groups of similar loss, and the window that slides over them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader.selection import SeTa
from augloader.selection.clusters import kmeans

LOSSES = torch.cat([level + torch.rand(20, generator=torch.Generator().manual_seed(level)) / 9
                    for level in range(5)])  # fmt: skip


def kept(rule: SeTa, losses: Tensor, epoch: int, seed: int = 0) -> list[int]:
    generator = np.random.default_rng(seed)
    return rule.keep(losses, epoch=epoch, epochs=20, generator=generator).indices.tolist()


def test_the_window_slides_from_easy_to_hard() -> None:
    """Five groups of twenty, three of which are kept: the authors' start is epoch mod 3."""
    rule = SeTa(0, groups=5, window=0.6, anneal=0.1)
    for epoch in range(1, 18):
        start = epoch % 3
        assert kept(rule, LOSSES, epoch) == list(range(20 * start, 20 * (start + 3)))
    for epoch in (0, 18, 19):  # all before anything slides, and in the last tenth
        assert kept(rule, LOSSES, epoch) == list(range(100))


def test_a_share_is_left_out_at_random() -> None:
    rule = SeTa(0.25, groups=5, window=0.6, anneal=0.1)
    assert {len(kept(rule, LOSSES, epoch)) for epoch in (0, 18, 19)} == {75}
    found = [kept(rule, LOSSES, 1, seed) for seed in range(5)]
    assert all(set(some) <= set(range(20, 80)) for some in found)
    assert len({tuple(some) for some in found}) == 5
    assert 30 <= np.mean([len(some) for some in found]) <= 60


def test_the_groups_are_those_of_kmeans() -> None:
    """One window of one group each, in the order of their means, makes up all of k-means."""
    losses = torch.rand(60, generator=torch.Generator().manual_seed(1))
    rule = SeTa(0, groups=4, window=0.25, anneal=0)
    seed = int(np.random.default_rng(0).integers(2**31))
    generator = np.random.default_rng(0)
    generator.random(), generator.choice(60, 60, replace=False, shuffle=False)
    seed = int(generator.integers(2**31))
    groups = kmeans(losses.view(-1, 1), 4, seed)
    order = sorted(range(4), key=lambda g: float(losses[groups == g].mean()))
    for epoch in range(1, 9):
        wanted = (groups == order[epoch % 4]).nonzero().flatten().tolist()
        assert kept(rule, losses, epoch) == wanted


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_equal_losses_are_one_group(value: float) -> None:
    assert kept(SeTa(0, groups=10), torch.full((30,), value), 1) == list(range(30))


def test_what_was_never_reported_is_kept() -> None:
    losses = LOSSES.clone()
    losses[::7] = torch.nan
    for epoch in range(4):
        assert set(range(0, 100, 7)) <= set(kept(SeTa(0.5, groups=5), losses, epoch))
    assert kept(SeTa(0.5), torch.full((9,), torch.nan), 3) == list(range(9))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ratio": 1}, ValueError, r"ratio must be in \[0, 1\)"),
        ({"groups": 0}, ValueError, "groups must be at least 1"),
        ({"groups": 2.5}, TypeError, "groups must be an integer"),
        ({"window": 0}, ValueError, r"window must be in \(0, 1\]"),
        ({"anneal": -1}, ValueError, r"anneal must be in \[0, 1\]"),
    ],
)
def test_bad_options(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SeTa(**options)
