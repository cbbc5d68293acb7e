"""The loop of torchvision's references: mixed precision, a scaler, accumulation, an average."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from tests.stacks.planned import (
    BATCH,
    EPOCHS,
    N,
    Planned,
    Seen,
    dataset,
    network,
    require_reported,
    steps,
)

pytestmark = pytest.mark.stacks
ACCUMULATE = 2


def train(
    sampler: Planned, rate: float, autocast: bool, resume: dict[str, Any] | None = None
) -> tuple[Seen, nn.Module, dict[str, Any]]:
    """Return what was trained on, the average, and the checkpoint within the second epoch."""
    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    loader = DataLoader(dataset(), BATCH, sampler=sampler)
    updates = sum(-(-draws // BATCH // ACCUMULATE) for draws in sampler.planned_draws(EPOCHS))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=updates)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    parts: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer}
    parts |= {"schedule": schedule, "scaler": scaler, "sampler": sampler, "table": sampler.table}
    saved: dict[str, Any] = {}
    seen = Seen()
    for name, state in (resume or {}).items():
        parts[name].load_state_dict(state)
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.begin(epoch)
        for i, batch in enumerate(loader, 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = model(batch.input)
            losses, loss = steps(logits.float(), batch)
            scaler.scale(loss / ACCUMULATE).backward()
            if i % ACCUMULATE == 0 or i == len(loader):
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                schedule.step()
                average.update_parameters(model)
            sampler.report(batch, loss=losses, logits=logits)
            seen.add(batch)
            if (epoch, i) == (1, 2 * ACCUMULATE):
                saved = {name: part.state_dict() for name, part in parts.items()}
                saved["sampler"] = sampler.state_dict(i * BATCH)
                saved = deepcopy(saved)
    if not resume:
        assert schedule.last_epoch == updates
    return seen, average.module, saved


@pytest.mark.parametrize("autocast", [False, True])
def test_every_planned_draw_is_trained_on_once(autocast: bool) -> None:
    sampler = Planned()
    seen, average, _ = train(sampler, 0.0, autocast)
    seen.require_planned(sampler.chosen)
    if not autocast:
        require_reported(sampler, average)


def test_training_goes_on_from_a_checkpoint() -> None:
    whole, model, saved = train(Planned(), 0.1, True)
    rest, other, _ = train(Planned(), 0.1, True, saved)
    assert rest.rows == whole.rows[N + 2 * ACCUMULATE * BATCH :]
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
