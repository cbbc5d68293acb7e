"""Two real processes: every rank plans the same epoch, and shared reports make one table."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from augloader import CoresetSampler, Every, FacilityLocation, Sample, SampleTable

N, WORLD = 60, 2


def logits_of(index: torch.Tensor) -> torch.Tensor:
    return torch.stack([index.sin(), index.cos(), (index / 2).sin()], 1)


def run(rank: int, world: int, folder: str) -> None:
    """Train three epochs on this rank's share, exchange the reports, and refresh for free."""
    if world > 1:
        init = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world)
    sampler = CoresetSampler(
        range(N), FacilityLocation(), fraction=0.3, refresh=Every(1, warmup=1), seed=5
    )
    record: list[Any] = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            states: list[Any] = [None] * world
            if world > 1:
                dist.all_gather_object(states, sampler.table.state_dict())
            else:
                states = [sampler.table.state_dict()]
            merged = SampleTable(N)
            for state in states:
                part = SampleTable(N)
                part.load_state_dict(state)
                merged.merge(part)
            sampler.refresh(merged.evidence(frozenset({"proxies", "labels"})))
        draws = list(sampler)
        mine = draws[rank::world]
        for start in range(0, len(mine), 8):
            columns = zip(*mine[start : start + 8], strict=True)
            index, copied, weight, strength, at = map(torch.tensor, columns)
            batch = Sample(None, index % 3, index, weight, strength, copied, at)
            sampler.report(batch, logits=logits_of(index))
        record.append((draws, mine))
    torch.save(record, f"{folder}/{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")
def test_two_ranks_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    spawn(run, args=(WORLD, str(tmp_path)), nprocs=WORLD)
    run(0, 1, str(tmp_path))
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1")
    )
    for epoch in range(3):
        draws = alone[epoch][0]
        assert first[epoch][0] == second[epoch][0] == draws
        assert sorted(first[epoch][1] + second[epoch][1]) == sorted(draws)
        assert sum(draw.strength > 0 for draw in draws) == (0 if epoch == 0 else 18)
