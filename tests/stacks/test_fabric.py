"""Lightning Fabric: epochs begun by ``begin``, which its loader's own count does not displace."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.stacks.planned import (
    BATCH,
    EPOCHS,
    Planned,
    PlannedRank,
    Seen,
    dataset,
    network,
    require_reported,
    steps,
)

pytest.importorskip("lightning")
from lightning.fabric import Fabric

pytestmark = [pytest.mark.stacks, pytest.mark.filterwarnings("ignore")]  # Lightning's own


def train(
    fabric: Any, sampler: Planned, rate: float, save: Path | None = None, resume: Path | None = None
) -> tuple[Seen, nn.Module]:
    net = network()
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=rate))
    loader = fabric.setup_dataloaders(DataLoader(dataset(), BATCH, sampler=sampler))
    seen = Seen()
    if resume:
        state = fabric.load(resume, {"model": model, "optimizer": optimizer})
        sampler.load_state_dict(state["sampler"])
        sampler.table.load_state_dict(state["table"])
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.begin(epoch)
        for batches, batch in enumerate(loader, 1):
            logits = model(batch.input)
            losses, loss = steps(logits, batch)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=losses, logits=logits)
            seen.add(batch)
            if save and (epoch, batches) == (1, 3):
                mine = {"sampler": sampler.state_dict(batches * BATCH)}
                mine["table"] = sampler.table.state_dict()
                fabric.save(save, {"model": model, "optimizer": optimizer, **mine})
    return seen, net


def test_every_planned_draw_is_trained_on_once() -> None:
    sampler = Planned()
    seen, model = train(Fabric(accelerator="cpu", devices=1), sampler, rate=0.0)
    seen.require_planned(sampler.chosen)
    require_reported(sampler, model)


def test_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    whole, model = train(fabric, Planned(), 0.1, save=tmp_path / "saved")
    rest, other = train(fabric, Planned(), 0.1, resume=tmp_path / "saved")
    assert rest.rows == whole.rows[41 + 3 * BATCH :]
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def on_a_rank(fabric: Fabric, folder: Path) -> None:
    sampler = PlannedRank()
    seen, _ = train(fabric, sampler, 0.1)
    (folder / f"{fabric.global_rank}.json").write_text(json.dumps(seen.rows))
    chosen = {epoch: sorted(chosen) for epoch, chosen in sampler.chosen.items()}
    (folder / f"chosen-{fabric.global_rank}.json").write_text(json.dumps(chosen))


@pytest.mark.distributed
def test_two_ranks_train_on_each_draw_once(tmp_path: Path) -> None:
    fabric: Any = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    fabric.launch(on_a_rank, tmp_path)

    def read(name: str) -> Any:
        return [json.loads((tmp_path / f"{name}{rank}.json").read_text()) for rank in range(2)]

    seen, chosen = Seen(), read("chosen-")
    assert chosen[0] == chosen[1]
    seen.rows = [tuple(row) for rows in read("") for row in rows]
    seen.require_planned({int(epoch): set(strong) for epoch, strong in chosen[0].items()})
