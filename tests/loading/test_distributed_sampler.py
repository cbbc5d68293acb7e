"""One rank's part of an epoch, without processes; with them: tests/distributed."""

import copy
from collections import Counter
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from augloader import (
    CoresetSampler,
    DistributedCoresetSampler,
    Evidence,
    FacilityLocation,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.loading import Base
from tests.loading.test_plan import BASES, SCHEDULED, epoch_of, scheduled
from tests.loading.test_sampler import N, evidence, ready

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")  # looked at


def ranked(world: int, n: int = N, **options: Any) -> list[DistributedCoresetSampler]:
    samplers = [
        DistributedCoresetSampler(
            range(n), Uniform(), num_replicas=world, rank=rank, **({"fraction": 0.25} | options)
        )
        for rank in range(world)
    ]
    for sampler in samplers:
        sampler.refresh()
    return samplers


@for_all(st.integers(1, 6), st.integers(1, 30), st.integers(0, 3), st.integers(0, 9))
def test_ranks_cover_each_draw_once_at_equal_lengths(
    world: int, n: int, copies: int, seed: int
) -> None:
    options: dict[str, Any] = {"count": max(1, n // 3), "copies": copies, "seed": seed}
    whole = CoresetSampler(range(n), Uniform(), **options)
    whole.refresh()
    samplers = ranked(world, n, **options, fraction=None)
    dealt = [list(sampler) for sampler in samplers]
    length = -(-len(whole) // world)
    for sampler, mine in zip(samplers, dealt, strict=True):
        assert len(mine) == len(sampler) == sampler.num_samples == length
        assert sampler.total_size == length * world
        assert len({(draw.index, draw.copy) for draw in mine}) == length
    in_turn = list(chain(*zip(*dealt, strict=True)))
    epoch = list(whole)
    assert in_turn[: len(epoch)] == epoch
    repeated = [draw._replace(weight=0.0) for draw in epoch] * world
    assert in_turn[len(epoch) :] == repeated[: len(in_turn) - len(epoch)]
    assert np.mean([draw.weight for draw in epoch]) == pytest.approx(1, abs=1e-5)


@for_all(st.integers(1, 5), st.integers(1, 5), st.data())
def test_a_run_resumes_with_another_number_of_ranks(before: int, after: int, data: Any) -> None:
    first = ranked(before)
    cut = data.draw(st.integers(0, len(first[0])))
    made = [list(sampler)[:cut] for sampler in first]
    for sampler in first:
        sampler.skip(cut)
        assert len(list(sampler)) == len(sampler) == len(ranked(before)[0]) - cut
    second = ranked(after)
    for sampler in second:
        sampler.load_state_dict(first[0].state_dict())
    rest = [list(sampler) for sampler in second]
    assert {len(mine) for mine in rest} == {len(second[0])}
    real = [draw for draw in chain(*made, *rest) if draw.weight > 0]
    whole = CoresetSampler(range(N), Uniform(), fraction=0.25)
    whole.refresh()
    assert sorted(real) == sorted(whole)
    whole.load_state_dict(first[0].state_dict())
    in_turn = [draw for draw in chain(*zip_longest(*rest)) if draw is not None and draw.weight > 0]
    assert in_turn == list(whole)


def test_it_is_a_distributed_sampler_for_a_loader() -> None:
    data = WeightedAugmentedDataset([(float(i), i % 2) for i in range(N)])
    samplers = [
        DistributedCoresetSampler(
            data, FacilityLocation(), fraction=0.25, num_replicas=3, rank=rank, seed=4
        )
        for rank in range(3)
    ]
    seen: Counter[tuple[int, int]] = Counter()
    for rank, sampler in enumerate(samplers):
        assert isinstance(sampler, DistributedSampler)
        assert sampler.dataset is data
        assert (sampler.num_replicas, sampler.rank, sampler.epoch) == (3, rank, 0)
        assert (sampler.drop_last, sampler.shuffle, sampler.seed) == (False, True, 4)
        sampler.refresh(evidence())
        for given in DataLoader(data, batch_size=8, sampler=sampler):
            real = given.weight > 0
            pairs = zip(given.index[real].tolist(), given.copy[real].tolist(), strict=True)
            seen.update(pairs)
            sampler.report(given, loss=given.index.float())
        copy.deepcopy(sampler)
        sampler.set_epoch(1)
    assert len(seen) == N + 10
    assert set(seen.values()) == {1}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"data": ready()}, TypeError, "data must be the dataset, got the sampler CoresetSampler"),
        ({"rank": None}, ValueError, "num_replicas and rank must be known, got 2 and None. Call"),
        ({"num_replicas": None}, ValueError, "got None and 0. Call torch.distributed.init_process"),
        ({"rank": 2}, ValueError, "rank must be below num_replicas=2, got 2"),
        ({"rank": -1}, ValueError, "rank must be at least 0"),
        ({"rank": 0.5}, TypeError, "rank must be an integer"),
        ({"num_replicas": 0}, ValueError, "num_replicas must be at least 1"),
        (
            {"strength": StableInfluence()},
            ValueError,
            "base must learn from no reports where there is no.*group.WORLD",
        ),
        ({"group": 7}, TypeError, "group must be a process group that this rank is in, got 7"),
        ({"fraction": 2}, ValueError, r"fraction must be in \(0, 1\]"),
    ],
)
def test_bad_ranks(options: dict[str, Any], error: type[Exception], words: str) -> None:
    given: dict[str, Any] = {
        "data": range(N),
        "strategy": Uniform(),
        "fraction": 0.5,
        "num_replicas": 2,
        "rank": 0,
    }
    with pytest.raises(error, match=words):
        DistributedCoresetSampler(**(given | options))


def test_a_rank_cannot_skip_more_than_its_share() -> None:
    sampler = ranked(3)[0]
    sampler.skip(17)
    assert list(sampler) == []
    with pytest.raises(ValueError, match=r"draws must be at most 17, this rank's share.*got 18"):
        sampler.skip(18)


def test_a_share_wants_a_group() -> None:
    part = Evidence(N, torch.arange(3) % 2, indices=torch.arange(3))
    for sampler in (ready(), ranked(2)[0], CoresetSampler(range(N), Uniform(), count=3)):
        with pytest.raises(
            ValueError, match="evidence must be of all 40 samples, got a share of 3"
        ):
            sampler.refresh(part)
    with pytest.raises(ValueError, match=r"of all 40 samples, got a share of 3\. Give the sampler"):
        Uniform().select(part, 3, generator=np.random.default_rng(0))


@for_all(st.integers(1, 5), st.sampled_from(BASES[:3]), st.integers(0, 7), st.integers(0, 9))
def test_ranks_share_a_scheduled_epoch(world: int, base: Base, epoch: int, seed: int) -> None:
    options = SCHEDULED | {"base": base, "seed": seed, "probability": 0.6, "weak_probability": 0.5}
    whole = scheduled(**options)
    samplers = ranked(world, **options)
    for sampler in (whole, *samplers):
        sampler.set_epoch(epoch)
        sampler.refresh()
    dealt = [list(sampler) for sampler in samplers]
    assert {len(mine) for mine in dealt} == {len(sampler) for sampler in samplers}
    assert {len(mine) for mine in dealt} == {-(-len(whole) // world)}
    in_turn = list(chain(*zip(*dealt, strict=True)))
    draws = list(whole)
    assert in_turn[: len(draws)] == draws
    assert {draw.weight for draw in in_turn[len(draws) :]} <= {0.0}
    assert len({draw.weak for draw in draws}) == 2
    for sampler in samplers:
        with pytest.raises(ValueError, match="the planned epochs, got 8"):
            sampler.set_epoch(8)
        assert sampler.epoch == epoch


def test_three_ranks_that_are_given_explicitly() -> None:
    whole = scheduled()
    samplers = ranked(3, **SCHEDULED)
    whole.refresh()
    for epoch in range(8):
        draws = epoch_of(whole, epoch)
        dealt = [epoch_of(sampler, epoch) for sampler in samplers]
        assert len({len(mine) for mine in dealt}) == 1
        assert sorted(draw for draw in chain(*dealt) if draw.weight) == sorted(draws)
