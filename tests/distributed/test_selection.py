"""Every rank gets the selection of a single process."""

from itertools import chain

import pytest

from augloader.distributed.selection import owners
from augloader.selection.strategy import Separable
from tests.distributed.ranks import CASES, WORLDS, Found, Longest, facts, generator, same, whole


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_every_rank_has_the_selection_of_a_single_process(
    found: Found, world: int, name: str
) -> None:
    strategy, evidence, budget = CASES[name]
    alone = facts(strategy.select(evidence, budget, generator=generator()))
    for rank in found[world]:
        assert same(rank["selections"][name], alone)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_without_samples_and_with_all(found: Found, world: int) -> None:
    for rank in found[world]:
        chosen = rank["selections"]
        for name in chosen.keys() - CASES.keys():
            case = name.split(":")[0] if ":" in name else "outer products"
            assert same(chosen[name], chosen[case]), name


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_share_the_parts_of_a_users_strategy(found: Found, world: int) -> None:
    strategy, evidence = Longest(), whole()
    assert isinstance(strategy, Separable)
    alone = facts(strategy.select(evidence, 20, generator=generator()))
    chosen, solved = zip(*(rank["separable"] for rank in found[world]), strict=True)
    assert all(same(selection, alone) for selection in chosen)
    assert all(solved)  # each rank solved some classes
    assert sorted(chain(*solved)) == sorted(strategy.solved)  # and each class was solved once


@pytest.mark.parametrize("world", WORLDS)
def test_a_rank_gets_the_rows_of_its_classes_alone(found: Found, world: int) -> None:
    labels = CASES["outer products"][1].labels
    assert labels is not None
    sizes = labels.bincount().tolist()
    owner = owners(sizes, world)
    for r, rank in enumerate(found[world]):
        mine = sum(size for size, who in zip(sizes, owner, strict=True) if who == r)
        assert rank["received"]["outer products"] == [mine, mine]
        assert rank["received"]["Uniform"] == []
        every = len(labels) if r == 0 else 0
        assert rank["received"]["a user's"] == [every]
        assert rank["received"]["forgetting"] == []
        assert rank["received"]["clusters"] == [every]
        assert rank["received"]["k-DPP of proxies"] == [every] * 3


def test_classes_are_dealt_by_their_squares() -> None:
    assert owners([10, 7, 7], 2) == [0, 1, 1]
    assert owners([3, 3], 3) == [0, 1]
    assert owners([5], 1) == [0]
