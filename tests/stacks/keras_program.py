"""What the test of Keras runs, with KERAS_BACKEND=torch."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import pytest
import torch
from torch.utils.data import DataLoader

from augloader import Sample, collate
from tests.stacks.planned import BATCH, EPOCHS, Planned, Seen, dataset, require_reported, steps


class Model(keras.Sequential):
    """A model that weights its loss and reports."""

    def train_step(self, data: dict[str, Any]) -> dict[str, Any]:
        batch = Sample.of(data)
        logits = self(batch.input, training=True)
        losses, loss = steps(logits, batch)
        self.zero_grad()
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply(
                [weight.value.grad for weight in self.trainable_weights], self.trainable_weights
            )
        self.sampler.report(batch, loss=losses, logits=logits)
        self.seen.add(batch)
        return {"loss": loss.detach()}


class Coresets(keras.callbacks.Callback):
    """Begin the epochs of the model's sampler, and save within the second one."""

    saved: dict[str, Any]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.model.sampler.begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (1, 2):
            sampler = self.model.sampler
            self.saved = {"sampler": sampler.state_dict(3 * BATCH)}
            self.saved |= {"table": sampler.table.state_dict(), "model": self.model.get_weights()}


def model(sampler: Planned, rate: float) -> Model:
    keras.utils.set_random_seed(0)
    made = Model([keras.layers.Input((1, 4, 4)), keras.layers.Flatten(), keras.layers.Dense(3)])
    made.compile(optimizer=keras.optimizers.SGD(rate))
    made.sampler, made.seen = sampler, Seen()
    return made


def fit(made: Model, until: int, first: int = 0) -> Coresets:
    def flat(rows: Any) -> Any:
        return collate(rows).flat()

    loader = DataLoader(dataset(), BATCH, sampler=made.sampler, collate_fn=flat)
    callback = Coresets()
    made.fit(loader, epochs=until, initial_epoch=first, callbacks=[callback], verbose=0)
    return callback


def planned(**options: Any) -> Planned:
    return Planned(**{"epochs": EPOCHS, "constant_length": True, **options})


def once() -> None:
    made = model(planned(), 0.0)
    fit(made, EPOCHS)
    made.seen.require_planned(made.sampler.chosen)
    require_reported(made.sampler, made)


def resumed() -> None:
    whole = model(planned(), 0.1)
    saved = fit(whole, EPOCHS).saved
    rest = model(planned(), 0.1)
    rest.set_weights(saved["model"])
    rest.sampler.load_state_dict(saved["sampler"])
    rest.sampler.table.load_state_dict(saved["table"])
    epoch = rest.sampler.epoch
    fit(rest, epoch + 1, epoch)  # what is left of it is shorter than those that follow
    rest.sampler.begin(epoch + 1)  # before Keras asks for the length
    fit(rest, EPOCHS, epoch + 1)
    assert rest.seen.rows == whole.seen.rows[len(whole.sampler) + 3 * BATCH :]
    for mine, theirs in zip(rest.get_weights(), whole.get_weights(), strict=True):
        assert (mine == theirs).all()


def cut() -> None:
    warnings.filterwarnings("error", "48 of")
    with pytest.raises(UserWarning, match="48 of 53 draws of epoch 1 were"):
        fit(model(planned(constant_length=False), 0.1), EPOCHS)


if __name__ == "__main__":
    once()
    resumed()
    cut()
    Path(sys.argv[1]).write_text(json.dumps("done"))
