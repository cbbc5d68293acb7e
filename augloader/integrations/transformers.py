"""A transformers Trainer that trains on a sampler's epochs; needs ``transformers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from augloader.core.batch import Draw, Sample, stack
from augloader.core.evidence import Evidence
from augloader.loading.dataset import WeightedAugmentedDataset
from augloader.loading.distributed_sampler import DistributedCoresetSampler
from augloader.loading.sampler import CoresetSampler

_DRAW = "draw"  # the key of a batch's Sample


class CoresetTrainer(Trainer):
    """Train on a sampler's epochs: begin them, weight each row's loss, report, save and resume.

    The collate function is given the wrapped dataset's items in their own shape, as without a
    sampler, and ``remove_unused_columns`` works as ever. Each row's loss is multiplied by its
    weight, and the batch's is their mean.

    The Trainer asks its loader for its length once, also for the learning rate's schedule, so all
    epochs must be equally long: with a warm-up or schedules of the length pass
    ``constant_length=True`` and ``epochs`` to the sampler. Of pruned bases ``Uniform()`` and what
    else needs no reports, with a ``base_fraction`` that is a number, is as long in every epoch
    where ``copies`` is 0; others save nothing here.

    Checkpoints hold the sampler and the table of each rank. ``train(resume_from_checkpoint=...)``
    goes on with the draws that are left, within an epoch too.

    accelerate shards the batches: on several ranks the sampler is a plain CoresetSampler with
    ``group=torch.distributed.group.WORLD`` and ``pad_to_multiple_of=ranks * batch_size``. Build it
    after the TrainingArguments, whose ``device`` sets the process group up.

    For a Trainer of another kind: ``class Mine(CoresetTrainer, Seq2SeqTrainer)``.

    Args:
        *given: as for Trainer.
        sampler: of the training loader, over ``train_dataset``.
        evidence: a function that returns it where a refresh is due, as
            ``lambda: sweep(network, data, LastLayerGradient())``, called in the precision that
            ``bf16`` or ``fp16`` give the training; None refreshes from reports.
        **options: as for Trainer; ``train_dataset`` is the WeightedAugmentedDataset.

    Raises:
        TypeError: no sampler or dataset of ours, or one that shards already.
        ValueError: epochs of several lengths, or a base pruned by reports without
            ``constant_length``; on several ranks, epochs that are not padded to whole
            batches; a ``compute_loss_func``; a checkpoint of another number of ranks, or without a
            sampler's state.
        RuntimeError: the loader does not draw from the sampler.
        What ``begin`` and ``report`` raise.

    Cost: that of refreshes; a report a batch.

    Example:
        data = WeightedAugmentedDataset(train_set, strong=strong, fields=("pixel_values", "labels"))
        sampler = CoresetSampler(data, FacilityLocation(), fraction=0.3, refresh=Every(5, warmup=1),
                                 epochs=20, constant_length=True)
        CoresetTrainer(model, args, train_dataset=data, sampler=sampler).train()
    """

    loss_is_scaled_for_ga = False  # the loss is the mean of a batch, whatever is accumulated

    def __init__(
        self,
        *given: Any,
        sampler: CoresetSampler,
        evidence: Callable[[], Evidence] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*given, **options)
        if not isinstance(sampler, CoresetSampler) or isinstance(
            sampler, DistributedCoresetSampler
        ):
            raise TypeError(
                f"sampler must be a plain CoresetSampler, got {type(sampler).__name__}. The "
                "Trainer shards its batches itself."
            )
        if not isinstance(self.train_dataset, WeightedAugmentedDataset):
            raise TypeError(
                "train_dataset must be a WeightedAugmentedDataset, got "
                f"{type(self.train_dataset).__name__}. Wrap it, and build the sampler over it."
            )
        if self.compute_loss_func is not None:
            raise ValueError(
                "compute_loss_func must be None, got one. Override row_losses(outputs, inputs), "
                "which returns the loss of each row."
            )
        whole = self._train_batch_size * self.args.world_size
        if self.args.world_size > 1 and sampler.plan.pad_to_multiple_of % whole:
            raise ValueError(
                f"sampler must be padded to whole batches on {self.args.world_size} ranks, got "
                f"pad_to_multiple_of={sampler.plan.pad_to_multiple_of}. Pass {whole}: some draws "
                "would be trained on twice."
            )
        self.model_accepts_loss_kwargs = False  # for which the Trainer counts labels
        self.sampler, self.evidence = sampler, evidence
        self.add_callback(_Epochs(self))

    def augmented(self, inputs: dict[str, Any], draw: Sample) -> tuple[dict[str, Any], Sample]:
        """Return a batch augmented on its device; override it, as for AdaptiveStrengthTransform.

        Args:
            inputs: what the model is given, labels too.
            draw: the batch's Sample, its input and target None; index and strength on the CPU.

        Returns:
            Both, changed or not; of a batch that was mixed the draw with its ``mixed`` rows.
        """
        return inputs, draw

    def row_losses(self, outputs: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Return the loss of each row, and what else is reported; override it for other losses.

        Args:
            outputs: of the model.
            inputs: what the model was given, labels too.

        Returns:
            "loss", (b,), and where there are any "logits", "proxy", "influence" and "target", as
            ``report`` takes them. Here: the cross-entropy of classes, with
            ``label_smoothing_factor``.

        Raises:
            ValueError: other outputs or labels than (b, C) logits and (b,) classes.
        """
        labels = inputs.get("labels")
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
        shapes = getattr(logits, "shape", None), getattr(labels, "shape", None)
        if (
            not isinstance(labels, Tensor)
            or not isinstance(logits, Tensor)
            or labels.is_floating_point()
            or labels.ndim != 1
            or logits.shape[:-1] != labels.shape
        ):
            raise ValueError(
                "outputs must have (b, C) logits for (b,) class labels, got logits of shape "
                f"{shapes[0]} and labels of {shapes[1]}. "
                'Override row_losses(outputs, inputs), which returns {"loss": (b,)}.'
            )
        smoothing = self.args.label_smoothing_factor
        loss = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
        return {"loss": loss, "logits": logits, "target": labels}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> Any:
        """Return the weighted loss of a training batch, and report its rows."""
        if _DRAW not in inputs:
            return super().compute_loss(model, inputs, return_outputs, **options)
        rest = {name: value for name, value in inputs.items() if name != _DRAW}
        rest, draw = self.augmented(rest, inputs[_DRAW])
        outputs = model(**rest)
        found = self.row_losses(outputs, rest)
        self.sampler.report(draw, **found)
        loss = (found["loss"] * draw.weight.to(found["loss"].device)).mean()
        return (loss, outputs) if return_outputs else loss

    def _evidence(self) -> Any:
        """Return the evidence, swept in the training's precision."""
        with self.accelerator.autocast():
            return self.evidence() if callable(self.evidence) else self.evidence

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader over the sampler, its first epoch begun where nothing is selected."""
        sampler = self.sampler
        if sampler.selection is None and sampler.refresh_due:
            sampler.begin(sampler.epoch, self._evidence)
        loader: DataLoader[Any] = super().get_train_dataloader()
        parts: list[Any] = [loader]
        for name in ("batch_sampler", "batch_sampler", "sampler"):
            parts += [getattr(part, name, None) for part in parts]
        if not any(part is sampler for part in parts):
            raise RuntimeError(
                "the training loader must draw from the sampler, got another. Leave "
                "get_train_dataloader and _get_train_sampler as they are."
            )
        return loader

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Train as the Trainer does, or go on from a checkpoint."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir) or True
        if isinstance(resume_from_checkpoint, str | Path):
            self._load(_state_file(Path(resume_from_checkpoint), self.args.process_index))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def _load(self, file: Path) -> None:
        """Load the states of sampler and table."""
        if not file.exists():
            raise ValueError(
                f"resume_from_checkpoint must hold {file.name}, got none in {file.parent}. Resume "
                "on as many ranks as saved it, from a checkpoint of a CoresetTrainer."
            )
        state = torch.load(file, weights_only=True)
        if state["ranks"] != self.args.world_size:
            raise ValueError(
                f"resume_from_checkpoint must be of {self.args.world_size} ranks, got that of "
                f"{state['ranks']}. Resume on as many as saved it."
            )
        self.sampler.load_state_dict(state["sampler"])
        self.sampler.table.load_state_dict(state["table"])

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Leave the draws where ``Sample.to`` leaves them."""
        if _DRAW not in inputs:
            return super()._prepare_inputs(inputs)
        rest = {name: value for name, value in inputs.items() if name != _DRAW}
        return {**super()._prepare_inputs(rest), _DRAW: inputs[_DRAW].to(self.args.device)}

    def _get_train_sampler(self, *given: Any, **options: Any) -> CoresetSampler:
        return self.sampler

    def _get_collator_with_removed_columns(
        self, data_collator: Any, description: str | None = None
    ) -> Any:
        own = super()._get_collator_with_removed_columns(data_collator, description=description)
        return (
            _Collate(own, self.train_dataset.fields)
            if str(description).lower() == "training"
            else own
        )


class _Epochs(TrainerCallback):
    """Begin a sampler's epochs before the Trainer draws them, and save it beside the model."""

    def __init__(self, trainer: CoresetTrainer) -> None:
        self.trainer = trainer
        self.epoch = 0
        self.length = 0  # of the first epoch

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the first epoch, or the one to go on with; refuse epochs of several lengths."""
        sampler, self.epoch = self.trainer.sampler, int(state.epoch or 0)
        plan = sampler.plan
        if plan.base_needs and not plan.constant_length and state.num_train_epochs > 1:
            raise ValueError(
                f"base must be as long in every epoch, got {sampler.base!r}, which keeps as many "
                "as training reports. Take base=Uniform() with a base_fraction; or pass "
                "constant_length=True and epochs, with which nothing is saved."
            )
        self.length = len(sampler)
        planned = sampler.planned_draws(state.num_train_epochs)
        self._require(max(planned), min(planned))
        self._begin()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin the next epoch: before the Trainer asks for its length, as some releases do."""
        self.epoch += 1
        stopped = control.should_training_stop or state.global_step >= state.max_steps
        if not stopped and self.epoch < state.num_train_epochs:
            self._begin()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the states of sampler and table in the checkpoint."""
        if state.is_hyper_param_search:
            return  # of which none goes on
        sampler, ranks = self.trainer.sampler, args.world_size
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        saved = {"sampler": sampler.state_dict(), "table": sampler.table.state_dict()}
        torch.save({"ranks": ranks, **saved}, _state_file(folder, args.process_index))

    def _begin(self) -> None:
        self.trainer.sampler.begin(self.epoch, self.trainer._evidence)
        self._require(len(self.trainer.sampler), self.length)

    def _require(self, length: int, other: int) -> None:
        if length != other:
            raise ValueError(
                f"sampler must have epochs of one length, got {other} and {length} draws. Pass "
                "constant_length=True and epochs: the Trainer would cut the longer ones."
            )


class _Collate:
    """The collate function of items, of rows of the dataset, with the Sample of their draws."""

    def __init__(self, own: Callable[[list[Any]], Any], fields: tuple[Any, Any]) -> None:
        self.own, self.fields = own, fields

    def __call__(self, rows: Sequence[Sample]) -> dict[str, Any]:
        draws = [
            Draw(row.index, row.copy, float(row.weight), float(row.strength), row.epoch)
            for row in rows
        ]
        batch = self.own([self._item(row) for row in rows])
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"data_collator must return a mapping, got {type(batch).__name__}. The Trainer "
                "calls the model with its entries by name."
            )
        return {**batch, _DRAW: stack(draws)}

    def _item(self, row: Sample) -> Any:
        """Return the item that a row was made of."""
        own = dict(zip(self.fields, (row.input, row.target), strict=True))
        if isinstance(row.extra, Mapping):
            return {**own, **row.extra}
        parts = list(row.extra)
        for place in sorted(own):
            parts.insert(place, own[place])
        return tuple(parts)


def _state_file(folder: Path, rank: int) -> Path:
    return folder / f"coreset-{rank}.pt"
