"""A PyTorch Lightning callback that refreshes, reports, logs and resumes; needs ``lightning``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch import nn
from torch.utils._pytree import tree_leaves

from augloader.core.batch import Sample
from augloader.core.evidence import Evidence
from augloader.core.precision import autocast_dtype
from augloader.core.proxies import LastLayerGradient, LayerGradient, Residual
from augloader.loading.distributed_sampler import DistributedCoresetSampler
from augloader.loading.sampler import CoresetSampler
from augloader.loading.sweeping import sweep

Proxy = Residual | LastLayerGradient | LayerGradient
_VALUES = ("logits", "proxy", "influence")  # reported under the names that steps return them by


class CoresetCallback(Callback):
    """Do in Lightning what ``set_epoch``, ``refresh`` and ``report`` do in a loop of your own.

    The LightningModule weights its loss and returns what is to be reported, no more:

        def training_step(self, batch, batch_idx):
            logits = self(batch.input)
            losses = F.cross_entropy(logits, batch.target, reduction="none")
            return {"loss": (losses * batch.weight).mean(), "losses": losses, "logits": logits}

    Reported are "losses", "logits", "proxy", "influence" and "target" of what it returns; "batch"
    is the Sample that they belong to where it is not the loader's: after mixing or ``HardestOf``.
    The loss alone is enough where sweeps tell the strategy all it needs, and strength rule and base
    need nothing.

    The first epoch is prepared in ``on_fit_start``, every other at the end of the one before it:
    earlier than Lightning asks the loader for its length. Lightning would go on with the length of
    the first epoch. Where the length changes, as a schedule may make it, the callback has Lightning
    look again (``trainer.reload_dataloaders_every_n_epochs = 1``, for that one epoch): a
    ``train_dataloader`` method must give the same sampler again.

    Logged for each epoch: ``coreset/selected``, ``coreset/draws`` of all ranks,
    ``coreset/strength``, the mean of the selected samples', ``coreset/coverage``, the ratio of the
    certificate, and where it was selected anew ``coreset/seconds``.

    Checkpoints hold the sampler and the tables of all ranks. Training goes on from one as if it had
    not stopped, also within an epoch and with any loader; Lightning warns there if the loader is
    not torchdata's StatefulDataLoader.

    Args:
        sampler: the sampler of the training loader, or a function that returns it, called where the
            training starts: with several ranks a DistributedCoresetSampler, built in ``setup`` of a
            LightningDataModule, say, when Lightning has set the process group up.
        data: the dataset to sweep; None never sweeps, but refreshes from reports alone.
        proxy: as for ``sweep``.
        reports: sweep for the first selection only, and refresh from reports from then on.
        network: name of the submodule that maps inputs to logits; "" is the LightningModule itself,
            by its ``forward``.
        **options: of ``sweep``, as ``batch_size=512``; without ``autocast`` the trainer's
            ``precision`` is taken.

    Raises:
        TypeError: no sampler, or with several ranks one that does not shard: Lightning would shard
            it, and repeat draws.
        RuntimeError: Lightning trains on a loader without this sampler; ``Tuner.lr_find`` and
            ``scale_batch_size``, which run without callbacks, are given the sampler's loader before
            it has a selection.
        ValueError: a training step that returns the loss alone where reports are needed.
        What ``sweep``, ``refresh`` and ``report`` raise.

    Strategies: a single device and DistributedDataParallel.

    Cost: that of sweeps and refreshes; a report a batch.

    Example:
        sampler = CoresetSampler(data, FacilityLocation(), fraction=0.3, refresh=Every(5))
        trainer = Trainer(max_epochs=20, callbacks=[CoresetCallback(sampler, data)])
        trainer.fit(module, DataLoader(data, batch_size=64, sampler=sampler))
    """

    def __init__(
        self,
        sampler: CoresetSampler | Callable[[], CoresetSampler],
        data: Any = None,
        proxy: Proxy | None = LastLayerGradient(),  # noqa: B008 - frozen
        *,
        reports: bool = False,
        network: str = "",
        **options: Any,
    ) -> None:
        self.given, self.data, self.proxy = sampler, data, proxy
        self.reports, self.network, self.options = reports, network, options
        self._sampler: CoresetSampler | None = None
        self._epoch = 0  # the one to train next, or now
        self._seconds: float | None = None  # of the refresh for that epoch
        self._length: int | None = None  # of the epoch before
        self._batches: int | None = None  # of the epoch, where a checkpoint was saved within
        self._consumed = 0  # draws of this epoch that a resume leaves out
        self._reload: int | None = None  # the trainer's own setting, where it is changed
        self._state: dict[str, Any] = {}  # loaded, and not taken over yet

    @property
    def sampler(self) -> CoresetSampler:
        """The sampler, once the training has started."""
        if self._sampler is None:
            found = self.given if isinstance(self.given, CoresetSampler) else self.given()
            if not isinstance(found, CoresetSampler):
                raise TypeError(
                    "sampler must be a CoresetSampler or return one, got "
                    f"{type(found).__name__}. Pass the one that the loader was given."
                )
            self._sampler = found
        return self._sampler

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise RuntimeError where a tuner is about to draw from a sampler without a selection."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        ahead = callbacks[: callbacks.index(self)]
        tuners = [part for part in ahead if isinstance(part, LearningRateFinder | BatchSizeFinder)]
        if stage != "fit" or not tuners:
            return
        source = trainer.fit_loop._data_source
        drawn: Any = [self.given]
        if not source.is_module():
            found = [part for loader in tree_leaves(source.instance) for part in _samplers(loader)]
            drawn = [part for part in found if isinstance(part, CoresetSampler)]
        if any(
            not isinstance(part, CoresetSampler) or (part.selection is None and part.refresh_due)
            for part in drawn
        ):
            raise RuntimeError(
                f"the sampler must have a selection where {type(tuners[0]).__name__} draws from "
                "it, got none: it runs without other callbacks, and before this one. Give the "
                "tuner a plain loader, as Tuner(trainer).lr_find(module, DataLoader(data, "
                "batch_size=64, shuffle=True)); or call sampler.begin(0, lambda: sweep(module, "
                "data, Residual())) before."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a loaded state over, and prepare the first epoch."""
        self._sampler = None  # a data module may have built another since the last training
        sampler = self.sampler
        if trainer.world_size > 1 and not isinstance(sampler, DistributedCoresetSampler):
            raise TypeError(
                f"sampler must be a DistributedCoresetSampler on {trainer.world_size} ranks, got "
                f"{type(sampler).__name__}. Lightning shards any other, and repeats draws."
            )
        self._epoch, self._length = trainer.current_epoch, None
        begun = bool(self._state) and self._take_over(sampler)
        if begun or not self._over(trainer):
            self._prepare(trainer, begun)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have Lightning count batches from the epoch's first one, where it goes on within it.

        An epoch that was saved after its last batch is over, however long the one that follows.
        """
        loop = trainer.fit_loop
        if self._batches is not None and loop._data_fetcher is not None:
            loop.max_batches = loop._data_fetcher.length = self._batches
        elif loop.epoch_loop.batch_progress.is_last_batch:
            counted = loop.epoch_loop.batch_progress.current
            counted.completed = max(counted.completed, int(loop.max_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the epoch consists of."""
        sampler, chosen = self.sampler, self.sampler.selection
        self._restore(trainer)
        loaders = tree_leaves(trainer.train_dataloader)
        if not any(_draws_from(loader, sampler) for loader in loaders):
            raise RuntimeError(
                "the training loader must draw from the callback's sampler, got another. Build it "
                "with DataLoader(data, sampler=sampler), without overfit_batches."
            )
        found: dict[str, float] = {"draws": len(sampler) * trainer.world_size}
        if chosen is not None:
            found["selected"] = len(chosen)
            found["strength"] = float(sampler.strengths[chosen.indices].mean())
            if chosen.certificate is not None:
                found["coverage"] = chosen.certificate.ratio
        if self._seconds is not None:
            found["seconds"], self._seconds = self._seconds, None
        for name, value in found.items():
            pl_module.log(f"coreset/{name}", value, batch_size=1, sync_dist=True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report what the training step returned."""
        found = dict(outputs) if isinstance(outputs, Mapping) else {}
        drawn = _drawn(batch, found.get("batch"))
        if found and self._told(found):  # not where the step returned None, to be skipped
            given = {name: found.get(name) for name in (*_VALUES, "target")}
            given["loss"] = found.get("losses")
            self.sampler.report(found.get("batch", drawn), **given)
        if trainer.is_last_batch:
            self._epoch, self._consumed, self._batches = trainer.current_epoch + 1, 0, None
        else:
            loaders = tree_leaves(trainer.train_dataloader)
            counted = any(hasattr(loader, "load_state_dict") for loader in loaders)
            self._consumed += 0 if counted else len(drawn.index)
            self._batches = int(trainer.num_training_batches)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have checkpoints saved by the validation go on with the epoch that it ends."""
        self._epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the trainer as it was."""
        self._restore(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the next epoch, if there is one."""
        self._epoch = trainer.current_epoch + 1
        if not self._over(trainer):
            self._prepare(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of sampler and tables; every rank of a group calls this."""
        if self._sampler is None:
            return self._state
        tables = [self._sampler.table.state_dict()]
        if self._sampler.group is not None:
            everyone: list[Any] = [None] * dist.get_world_size(self._sampler.group)
            dist.all_gather_object(everyone, tables[0], group=self._sampler.group)
            tables = everyone
        return {
            "epoch": self._epoch,
            "batches": self._batches,
            "sampler": self._sampler.state_dict(self._consumed),
            "tables": tables,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the training starts; testing needs none."""
        self._state = state_dict

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what Lightning restored to validate or test: no training goes on from it."""
        if stage != "fit":
            self._state = {}

    def _told(self, found: Mapping[str, Any]) -> bool:
        """Whether a step returned what can be reported, or raise ValueError where it must."""
        if any(found.get(key) is not None for key in ("losses", *_VALUES)):
            return True
        sampler, who = self.sampler, ""
        if sampler.table.rule.needs:
            who = f"the rule {sampler.table.rule!r}"
        elif sampler.table.learns:
            who = f"{sampler.strategy!r}, which counts forgetting"
        elif sampler.plan.base_needs:
            who = f"the base {sampler.base!r}"
        elif sampler.strategy.needs and (self.data is None or self.reports):
            who = f"{sampler.strategy!r}, which selects from reports"
        if who:
            raise ValueError(
                f'training_step must return "losses" or "logits" for {who}, got '
                f'{", ".join(map(repr, found))}. Return {{"loss": loss, "losses": losses, '
                '"logits": logits}, losses of shape (b,) with reduction="none"; or, for a '
                "strategy, pass the dataset to sweep: CoresetCallback(sampler, data)."
            )
        return False

    def _take_over(self, sampler: CoresetSampler) -> bool:
        """Load the state, and return whether it is that of the epoch to train."""
        rank, world = 0, 1
        if sampler.group is not None:
            rank, world = dist.get_rank(sampler.group), dist.get_world_size(sampler.group)
        state, self._state = self._state, {}
        if len(state["tables"]) != world:
            raise ValueError(
                f"state must be of {world} ranks, got that of {len(state['tables'])}. Resume on as "
                "many as saved it."
            )
        sampler.table.load_state_dict(state["tables"][rank])
        sampler.load_state_dict(state["sampler"])
        self._epoch, self._batches, self._consumed = state["epoch"], state["batches"], 0
        return bool(sampler.epoch == self._epoch)

    def _over(self, trainer: Trainer) -> bool:
        """Whether Lightning will not train the epoch that comes next."""
        epochs, steps = trainer.max_epochs, trainer.max_steps
        last = epochs is not None and 0 <= epochs <= self._epoch
        return last or 0 <= steps <= trainer.global_step

    def _prepare(self, trainer: Trainer, begun: bool = False) -> None:
        """Begin an epoch before Lightning does, and refresh if that is due."""
        sampler = self.sampler
        start, due = time.perf_counter(), begun and sampler.refresh_due
        if due:
            sampler.refresh(self._evidence(trainer))
        elif not begun:
            self._batches, self._consumed = None, 0
            due = sampler.begin(self._epoch, lambda: self._evidence(trainer)) is not None
        if due:
            self._seconds = time.perf_counter() - start
        if self._length not in (None, len(sampler)):
            self._reload_once(trainer)
        self._length = len(sampler)

    def _reload_once(self, trainer: Any) -> None:
        """Have Lightning ask the loader for its length anew where the next epoch begins."""
        self._reload = trainer.reload_dataloaders_every_n_epochs
        trainer.reload_dataloaders_every_n_epochs = 1

    def _restore(self, trainer: Any) -> None:
        if self._reload is not None:
            trainer.reload_dataloaders_every_n_epochs, self._reload = self._reload, None

    def _evidence(self, trainer: Trainer) -> Evidence | None:
        """Sweep, or return None where reports are enough."""
        group, known = self.sampler.group, self.sampler.selection is not None
        if self.data is None or (self.reports and known):
            return None
        model: nn.Module = trainer.lightning_module
        if self.network:
            model = model.get_submodule(self.network)
        elif group is not None and trainer.model is not None:
            model = trainer.model  # in DistributedDataParallel: sweep gives it rank 0's buffers
        options = {"autocast": _autocast(trainer), **self.options}
        return sweep(model, self.data, self.proxy, group=group, **options)


def _autocast(trainer: Trainer) -> torch.dtype | bool:
    """Return the half precision that training_step runs in, mixed or true, or False."""
    with trainer.precision_plugin.forward_context():
        dtype = autocast_dtype(trainer.strategy.root_device, None) or torch.get_default_dtype()
    return dtype if dtype in (torch.float16, torch.bfloat16) else False


def _draws_from(loader: Any, sampler: CoresetSampler) -> bool:
    """Whether a loader takes its draws from this sampler."""
    return any(found is sampler for found in _samplers(loader))


def _samplers(loader: Any) -> list[Any]:
    """Return what a loader and its batch sampler name as their samplers."""
    parts = loader, getattr(loader, "batch_sampler", None)
    return [getattr(part, "sampler", None) for part in parts]


def _drawn(batch: Any, returned: Any) -> Sample:
    """Return the Sample in what the loader gave, or that ``wrap`` added to it, or the returned."""
    parts = tree_leaves(batch, is_leaf=lambda part: isinstance(part, Sample))
    held = [part for part in (*parts, getattr(batch, "draw", None), returned) if part is not None]
    for part in held:
        if isinstance(part, Sample):
            return part
    raise TypeError(
        f"batch must hold a Sample of the sampler's loader, got {type(batch).__name__}. Return it "
        'from training_step under "batch".'
    )
