"""Shares of selections among the largest losses, against sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augloader import Evidence, Loss, Rank, Selection
from augloader.diagnostics import overlap


def chosen(indices: list[int]) -> Selection:
    return Selection(torch.tensor(indices), torch.ones(len(indices)))


@given(data=st.data(), n=st.integers(1, 30), times=st.integers(1, 4))
def test_it_is_the_share_of_the_sets_common_members(
    data: st.DataObject, n: int, times: int
) -> None:
    selections, scores, expected, chance = [], [], [], []
    for _ in range(times):
        losses = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
        k = data.draw(st.integers(1, n))
        indices = data.draw(st.permutations(range(n)))[:k]
        top = sorted(range(n), key=lambda i: (-losses[i], i))[:k]
        selections.append(chosen(list(indices)))
        scores.append(torch.tensor(losses, dtype=torch.float32))
        expected.append(len({*top} & {*indices}) / k)
        chance.append(k / n)
    found = overlap(selections, scores)
    assert found.shares.tolist() == expected
    assert found.chance.tolist() == chance


def test_the_largest_losses_overlap_with_themselves_and_a_random_choice_by_chance() -> None:
    import numpy as np

    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(1000, generator=generator)
    largest = Rank(Loss()).select(
        Evidence(1000, losses=losses), 300, generator=np.random.default_rng(0)
    )
    picked = [chosen(torch.randperm(1000, generator=generator)[:300].tolist()) for _ in range(20)]
    found = overlap([largest, *picked], [losses] * 21)
    assert found.shares[0] == 1
    assert float(found.shares[1:].mean()) == pytest.approx(float(found.chance[0]), abs=0.02)


def test_what_it_refuses() -> None:
    losses = torch.rand(4)
    with pytest.raises(ValueError, match="one tensor a selection, and at least one, got 0 for 0"):
        overlap([], [])
    with pytest.raises(ValueError, match=r"got 2 for 1 selections\. Keep evidence.losses"):
        overlap([chosen([0])], [losses, losses])
    with pytest.raises(TypeError, match=r"selections\[1\] must be a Selection, got Tensor"):
        overlap([chosen([0]), losses], [losses, losses])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"scores\[0\] must be floating, got torch.int64"):
        overlap([chosen([0])], [losses.long()])
    with pytest.raises(ValueError, match=r"scores\[0\] must be \(n,\) of all samples, at least 5"):
        overlap([chosen([4])], [losses])
    with pytest.raises(ValueError, match=r"scores\[0\] must be finite"):
        overlap([chosen([0])], [losses * torch.inf])
