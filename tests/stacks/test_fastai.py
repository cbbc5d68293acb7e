"""fastai: a Learner over torch loaders, and a callback."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from augloader import Sample, collate
from tests.stacks.planned import (
    BATCH,
    EPOCHS,
    N,
    Planned,
    Seen,
    dataset,
    images,
    network,
    require_reported,
    steps,
)

pytest.importorskip("fastai")
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper

pytestmark = [pytest.mark.stacks, pytest.mark.filterwarnings("ignore")]  # fastai's own


def split(rows: Any) -> tuple[Tensor, tuple[Any, ...]]:
    """Return a batch as fastai splits it: the model's inputs, and what the loss is given."""
    batch = collate(rows)
    return batch.input, tuple(batch)


class Coresets(Callback):
    """Begin the epochs, weight the loss and report."""

    def __init__(self, sampler: Planned, first: int = 0) -> None:
        self.sampler, self.first, self.seen = sampler, first, Seen()

    def before_train(self) -> None:
        self.sampler.begin(self.first + self.epoch)

    def after_loss(self) -> None:
        if not self.training:
            return
        batch = Sample(*self.yb[0])
        losses, self.learn.loss_grad = steps(self.pred, batch)
        self.learn.loss = self.learn.loss_grad.clone()
        self.sampler.report(batch, loss=losses, logits=self.pred)
        self.seen.add(batch)


def learner(sampler: Planned, rate: float, first: int = 0) -> tuple[Any, Coresets]:
    model, callback = network(), Coresets(sampler, first)
    train = DataLoader(dataset(), BATCH, sampler=sampler, collate_fn=split)
    loaders = DataLoaders(train, DataLoader(images(), BATCH))
    made = Learner(
        loaders, model, loss_func=lambda logits, _: logits.sum(), lr=rate,
        opt_func=lambda groups, lr: OptimWrapper(groups, torch.optim.SGD, lr=lr),
        cbs=[callback],
    )  # fmt: skip
    return made, callback


def fit(made: Any, epochs: int) -> None:
    with made.no_logging():
        made.fit(epochs)


def test_every_planned_draw_is_trained_on_once() -> None:
    sampler = Planned()
    made, callback = learner(sampler, 0.0)
    fit(made, EPOCHS)
    callback.seen.require_planned(sampler.chosen)
    require_reported(sampler, made.model)


class Saving(Callback):
    """Save the learner and its sampler within the second epoch."""

    def __init__(self, sampler: Planned) -> None:
        self.sampler = sampler
        self.saved: dict[str, Any] = {}

    def after_batch(self) -> None:
        if self.training and (self.epoch, self.iter) == (1, 2):
            state = {"model": self.learn.model, "opt": self.learn.opt}
            state = {name: part.state_dict() for name, part in state.items()}
            state["table"] = self.sampler.table.state_dict()
            self.saved = deepcopy({**state, "sampler": self.sampler.state_dict(3 * BATCH)})


def test_training_goes_on_from_a_checkpoint() -> None:
    sampler = Planned()
    whole, seen = learner(sampler, 0.1)
    saving = Saving(sampler)
    whole.add_cb(saving)
    fit(whole, EPOCHS)
    other = Planned()
    other.load_state_dict(saving.saved["sampler"])
    other.table.load_state_dict(saving.saved["table"])
    rest, left = learner(other, 0.1, first=other.epoch)
    rest.model.load_state_dict(saving.saved["model"])
    rest.create_opt()
    rest.opt.load_state_dict(saving.saved["opt"])
    fit(rest, EPOCHS - other.epoch)
    assert left.seen.rows == seen.seen.rows[N + 3 * BATCH :]
    for mine, theirs in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
