"""Ranks share reports, strengths and counts, and each epoch."""

import re
from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from augloader import (
    CoresetSampler,
    Draw,
    Every,
    Evidence,
    Forgetting,
    Proportional,
    Uniform,
)
from augloader.feedback import SampleTable
from tests.distributed.ranks import (
    EPOCHS,
    PLAN,
    PRUNINGS,
    WORLDS,
    Found,
    N,
    batch,
    chosen_now,
    gap_reports,
    logits_of,
    planned,
    pruned,
    pruned_alone,
    same,
)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("view", ["clean", "any", "plain"])
def test_ranks_share_reports_strengths_and_each_epoch(found: Found, world: int, view: str) -> None:
    trained = [rank["training"][view] for rank in found[world]]
    alone = found[1][0]["training"]["clean"]
    for epoch in range(EPOCHS):
        draws, chosen, strengths = zip(*(rank[epoch] for rank in trained), strict=True)
        assert view == "plain" or len({len(mine) for mine in draws}) == 1
        real = [draw for draw in chain(*draws) if draw.weight > 0]
        assert len(list(chain(*draws))) - len(real) < world
        assert max(Counter((draw.index, draw.copy) for draw in real).values()) == 1
        assert np.mean([draw.weight for draw in real]) == pytest.approx(1, abs=1e-6)
        assert all(same(strength, strengths[0]) for strength in strengths)
        assert all(same(indices, chosen[0]) for indices in chosen)
        assert same(chosen[0], alone[epoch][1])
        if view != "any":  # every sample has one clean view an epoch, whichever rank sees it
            assert same(strengths[0], alone[epoch][2])
            assert sorted(real) == sorted(alone[epoch][0])
    assert len(set(trained[0][EPOCHS - 1][2].tolist())) > N / 2
    visits = [rank[EPOCHS][2] for rank in trained]
    assert all(same(seen, visits[0]) for seen in visits)
    # Copies in one batch with their sample are one report; padding is reported too.
    assert EPOCHS * N <= int(visits[0].sum()) <= EPOCHS * (N + 18 + world)


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_share_what_is_planned(found: Found, world: int) -> None:
    dealt: list[Any] = [rank["scheduled"] for rank in found[world]]
    alone = planned(CoresetSampler(range(N), Uniform(), **PLAN))
    for epoch in range(EPOCHS):
        draws = [rank[epoch] for rank in dealt]
        assert len({len(mine) for mine in draws}) == 1
        assert sorted(draw for draw in chain(*draws) if draw.weight > 0) == sorted(alone[epoch])
    assert [len(epoch) for epoch in alone[:EPOCHS]][3:] == [N, N]
    for rank in (*dealt, alone):
        assert rank[EPOCHS].startswith(f"epoch must be in [0, {EPOCHS}), the planned epochs, got")
        assert rank[EPOCHS + 1] == EPOCHS - 1


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", PRUNINGS)
def test_ranks_prune_alike(found: Found, world: int, name: str) -> None:
    base, options = PRUNINGS[name]
    dealt = [rank["pruning"][name] for rank in found[world]]
    alone = pruned(pruned_alone(base, **options))
    sizes = set()
    for epoch in range(EPOCHS):
        draws, kept = zip(*(rank[epoch] for rank in dealt), strict=True)
        assert len({len(mine) for mine in draws}) == 1
        assert all(same(indices, alone[epoch][1]) for indices in kept)
        real = sorted(draw for draw in chain(*draws) if draw.weight > 0)
        assert real == sorted(alone[epoch][0])
        sizes.add(len({draw.index for draw in real}))
    assert min(sizes) < N


def forgotten(epoch: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Forgetting events and visits before an epoch, sample by sample, by their definition."""
    right = torch.stack(
        [logits_of(3 * torch.arange(N), e).argmax(1) == torch.arange(N) % 3 for e in range(epoch)]
        or [torch.zeros(N, dtype=torch.bool)]
    )
    events = (right[:-1] & ~right[1:]).sum(0).float()
    events[~right.any(0)] = -1
    return events if epoch else None, torch.full((N,), 2 * epoch)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("refreshing", ["never", "swept", "free"])
def test_ranks_count_together_what_was_forgotten(found: Found, world: int, refreshing: str) -> None:
    for rank in found[world]:
        for epoch, (counts, visits, _) in enumerate(rank["counting"][refreshing]):
            expected, seen = forgotten(epoch)
            assert same(counts, expected)
            assert same(visits, seen)
    last = forgotten(EPOCHS + 3)[0]
    assert last is not None
    assert len(last.unique()) > 2


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("refreshing", ["swept", "free"])
def test_ranks_select_by_what_was_forgotten(found: Found, world: int, refreshing: str) -> None:
    def alone(swept: bool) -> list[Any]:
        sampler = CoresetSampler(
            range(N), Proportional(Forgetting()), count=9, seed=2, refresh=Every(1, warmup=2)
        )
        chosen = []
        for epoch in range(EPOCHS + 4):
            sampler.set_epoch(epoch)
            due = sampler.refresh_due
            chosen.append(chosen_now(sampler, 0, 1, swept) if due and not swept else None)
            if due and swept:
                chosen[-1] = sampler.refresh(Evidence(N, torch.arange(N) % 3)).indices
            given = batch([Draw(i, 0, 1.0, 0.0, epoch) for i in range(N)])
            sampler.report(given, logits=logits_of(3 * given.index, epoch))
        return chosen

    expected = alone(refreshing == "swept")
    assert isinstance(expected[-1], torch.Tensor)
    for rank in found[world]:
        for (_, _, chosen), one in zip(rank["counting"][refreshing], expected, strict=True):
            assert same(chosen, one), chosen


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_know_of_every_sample_what_a_single_table_does(found: Found, world: int) -> None:
    table, asked = SampleTable(N), iter(zip(*(rank["gaps"] for rank in found[world]), strict=True))
    needs, outcomes = frozenset({"losses", "labels"}), []
    for epoch, who, some, values in gap_reports():
        if who == 0 and epoch and epoch % 4 == 0:
            table.restart()
        table.report(some, **values, epoch=epoch)
        for stale in (None, 2, 9) if who == 5 else ():
            shares = next(asked)
            outcomes.append(isinstance(shares[0], str))
            if outcomes[-1]:
                with pytest.raises(ValueError, match="must be known for every sample") as raised:
                    table.evidence(needs, epoch=epoch, stale=stale)
                # Where one table keeps an old, weaker view another rank may know a late one alone.
                told = re.compile(r"got (\d+) samples \(")
                lacking = [int(told.findall(said)[0]) for said in (*shares, str(raised.value))]
                assert 0 < max(lacking[:-1]) == min(lacking[:-1]) <= lacking[-1]
                continue
            losses, known = torch.full((N,), torch.nan), table.evidence(needs).losses
            for indices, mine in shares:
                assert losses[indices].isnan().all()  # shares are disjoint
                losses[indices] = mine
            assert same(losses, known)
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("world", WORLDS)
def test_steps_without_a_meeting_of_ranks_report_as_any_others(found: Found, world: int) -> None:
    alone = found[1][0]["accumulating"]
    for rank in found[world]:
        *gradients, visits, strengths = rank["accumulating"]
        assert all(
            torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, alone[:-2], strict=True)
        )
        assert (visits >= 1).all()
        assert same(visits, found[world][0]["accumulating"][-2])
        assert same(strengths, alone[-1])
