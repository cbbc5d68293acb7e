"""PyTorch Ignite, which asks for a loader's length once: epochs of one length, and its resuming."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from augloader import Sample
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

pytest.importorskip("ignite")
from ignite.engine import Engine, Events

pytestmark = pytest.mark.stacks
LENGTH = N + 12  # draws of every epoch, those of weight 0 included


def train(
    rate: float, resume: dict[str, Any] | None = None, **options: Any
) -> tuple[Planned, Seen, nn.Module, dict[str, Any]]:
    """Return also the checkpoint within the second epoch."""
    sampler = Planned(**{"epochs": EPOCHS, "constant_length": True, **options})
    model, seen = network(), Seen()
    saved: dict[str, Any] = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)

    def step(engine: Engine, batch: Sample) -> dict[str, Tensor]:
        logits = model(batch.input)
        losses, loss = steps(logits, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.add(batch)
        return {"loss": losses, "logits": logits}

    engine = Engine(step)
    state: Any = engine.state

    @engine.on(Events.EPOCH_STARTED)
    def begin() -> None:
        sampler.begin(state.epoch - 1)

    @engine.on(Events.ITERATION_COMPLETED)
    def report() -> None:
        sampler.report(state.batch, **state.output)

    @engine.on(Events.ITERATION_COMPLETED(once=10))
    def save() -> None:
        batches = state.iteration % state.epoch_length
        saved.update(sampler=sampler.state_dict(batches * BATCH))
        saved.update(table=sampler.table.state_dict(), engine=engine.state_dict())
        saved.update(model={name: value.clone() for name, value in model.state_dict().items()})

    loader = DataLoader(dataset(), BATCH, sampler=sampler)
    if resume:
        sampler.load_state_dict(resume["sampler"])
        sampler.table.load_state_dict(resume["table"])
        model.load_state_dict(resume["model"])
        engine.load_state_dict(resume["engine"])
        engine.run(loader)
    else:
        sampler.begin(0)
        engine.run(loader, max_epochs=EPOCHS)
    return sampler, seen, model, saved


def test_every_planned_draw_is_trained_on_once() -> None:
    sampler, seen, model, _ = train(0.0)
    seen.require_planned(sampler.chosen)
    assert len(seen.rows) == EPOCHS * LENGTH
    require_reported(sampler, model)


def test_training_goes_on_from_a_checkpoint() -> None:
    _, whole, model, saved = train(0.1)
    _, rest, other, _ = train(0.1, saved)
    assert rest.rows == whole.rows[LENGTH + 3 * BATCH :]
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_epochs_of_several_lengths_are_told() -> None:
    with pytest.raises(UserWarning, match=r"48 of 53 draws of epoch 1 were made\..* constant_len"):
        train(0.1, constant_length=False)
