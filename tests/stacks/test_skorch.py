"""skorch: the loader in place of its own, and a callback that begins the epochs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
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

pytest.importorskip("skorch")
from skorch import NeuralNet
from skorch.callbacks import Callback

pytestmark = pytest.mark.stacks


class Coresets(Callback):
    """Begin the epochs of the net's sampler."""

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        net.sampler.begin(len(net.history) - 1)


class Net(NeuralNet):
    """A net that draws from a sampler, weights its loss and reports."""

    sampler: Planned
    seen: Seen
    saved: dict[str, Any]

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        if not training:
            return super().get_iterator(dataset, training=training)
        return DataLoader(dataset, self.batch_size, sampler=self.sampler)

    def train_step_single(self, batch: Sample, **_: Any) -> dict[str, Any]:
        self._set_training(True)
        logits = self.infer(batch.input)
        losses, loss = steps(logits, batch)
        loss.backward()
        self.sampler.report(batch, loss=losses, logits=logits)
        self.seen.add(batch)
        return {"loss": loss, "y_pred": logits}


def net(sampler: Planned, rate: float, *callbacks: Callback) -> Net:
    made = Net(
        network(), nn.CrossEntropyLoss, lr=rate, batch_size=BATCH, train_split=None, verbose=0,
        optimizer=torch.optim.SGD, callbacks=[Coresets(), *callbacks],
    )  # fmt: skip
    made.sampler, made.seen = sampler, Seen()
    return made


def test_every_planned_draw_is_trained_on_once() -> None:
    training = net(Planned(), 0.0)
    training.fit(dataset(), epochs=EPOCHS)
    training.seen.require_planned(training.sampler.chosen)
    require_reported(training.sampler, training.module_)


class Saving(Callback):
    """Save the net and its sampler within the second epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_batch_end(self, net: Any, **_: Any) -> None:
        batches = len(net.history[-1, "batches"])
        if (len(net.history), batches) == (2, 3):
            net.save_params(
                f_params=str(self.folder / "model"), f_optimizer=str(self.folder / "optimizer")
            )
            state = {"sampler": net.sampler.state_dict(batches * BATCH)}
            state["table"] = net.sampler.table.state_dict()
            torch.save(state, self.folder / "coreset")


def test_training_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    whole = net(Planned(), 0.1, Saving(tmp_path))
    whole.fit(dataset(), epochs=EPOCHS)
    rest = net(Planned(), 0.1).initialize()
    rest.load_params(f_params=str(tmp_path / "model"), f_optimizer=str(tmp_path / "optimizer"))
    state = torch.load(tmp_path / "coreset")
    rest.sampler.load_state_dict(state["sampler"])
    rest.sampler.table.load_state_dict(state["table"])
    for _ in range(rest.sampler.epoch):
        rest.history.new_epoch()  # of which the callback counts
    rest.partial_fit(dataset(), epochs=EPOCHS - rest.sampler.epoch)
    assert rest.seen.rows == whole.seen.rows[N + 3 * BATCH :]
    for mine, theirs in zip(rest.module_.parameters(), whole.module_.parameters(), strict=True):
        assert torch.equal(mine, theirs)
