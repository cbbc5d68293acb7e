"""timm: its mixing, schedules and averages on our draws, and its endless loader, which is told."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from augloader import CoresetSampler, Every, Uniform, collate
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

pytest.importorskip("timm")
from timm.data import Mixup
from timm.data.loader import MultiEpochsDataLoader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3

pytestmark = pytest.mark.stacks


def planned() -> Planned:
    return Planned(pad_to_multiple_of=BATCH)  # timm's Mixup wants even batches


def train(
    sampler: CoresetSampler, rate: float, mixup: bool = False, resume: dict[str, Any] | None = None,
    kind: Any = DataLoader, **options: Any,
) -> tuple[Seen, nn.Module, dict[str, Any]]:  # fmt: skip
    """Return what was trained on, the average, and the checkpoint within the second epoch."""
    model = network()
    average = ModelEmaV3(model, decay=0.9)
    optimizer = create_optimizer_v2(model, opt="momentum", lr=rate, weight_decay=0.0)
    loader = kind(dataset(), BATCH, sampler=sampler, collate_fn=collate, **options)
    updates = sum(draws // BATCH for draws in sampler.planned_draws(EPOCHS))
    schedule = CosineLRScheduler(optimizer, t_initial=updates, t_in_epochs=False)
    mix = Mixup(mixup_alpha=0.4, label_smoothing=0.0, num_classes=3)
    seen, done = Seen(), 0
    saved: dict[str, Any] = {}
    if resume:
        sampler.load_state_dict(resume["sampler"])
        sampler.table.load_state_dict(resume["table"])
        for name, part in {"model": model, "average": average, "optimizer": optimizer}.items():
            part.load_state_dict(resume[name])
        done = resume["done"]
        schedule.step_update(done)
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.begin(epoch)
        for batches, batch in enumerate(loader, 1):
            seen.add(batch)
            if mixup:
                x, target = mix(batch.input, batch.target)
                mixed = torch.ones(len(target), dtype=torch.bool)
                batch = batch._replace(input=x, target=target, mixed=mixed)
            logits = model(batch.input)
            losses, loss = steps(logits, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
            done += 1
            schedule.step_update(done)
            sampler.report(batch, loss=losses, logits=None if mixup else logits)
            if (epoch, batches) == (1, 3):
                parts = {"model": model, "average": average, "optimizer": optimizer}
                saved = {name: part.state_dict() for name, part in parts.items()}
                saved |= {"table": sampler.table.state_dict(), "done": done}
                saved = deepcopy({**saved, "sampler": sampler.state_dict(batches * BATCH)})
    assert done == updates
    return seen, average.module, saved


def test_every_planned_draw_is_trained_on_once() -> None:
    sampler = planned()
    seen, average, _ = train(sampler, 0.0)
    seen.require_planned(sampler.chosen)
    require_reported(sampler, average)


def test_mixed_rows_are_no_evidence() -> None:
    sampler = CoresetSampler(
        dataset(), Uniform(), fraction=0.3, refresh=Every(1, warmup=1), pad_to_multiple_of=BATCH
    )
    train(sampler, 0.1, mixup=True)
    assert len(sampler.table.missing("losses")) == N


def test_training_goes_on_from_a_checkpoint() -> None:
    whole, model, saved = train(planned(), 0.1)
    rest, other, _ = train(planned(), 0.1, resume=saved)
    assert rest.rows == whole.rows[48 + 3 * BATCH :]
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.filterwarnings("ignore:.* of 56 draws of epoch 0 were reported")
def test_an_endless_loader_is_told() -> None:
    sampler = CoresetSampler(dataset(), Uniform(), fraction=0.3, pad_to_multiple_of=BATCH)
    with pytest.raises((ValueError, RuntimeError), match=r"of epoch 0.* as endless"):
        train(sampler, 0.1, kind=MultiEpochsDataLoader, num_workers=2)
