"""Loss and accuracy of a model on clean and on augmented views of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from augloader.core.batch import Draw, Sample
from augloader.core.checks import require_int, require_number, require_seed
from augloader.core.keyed import uniforms
from augloader.loading.dataset import WeightedAugmentedDataset
from augloader.loading.randomness import Fixed
from augloader.loading.shaped import Shaped
from augloader.loading.sweeping import Forward, sweep

Strong = Callable[[Sample], Sample]


@dataclass(frozen=True)
class Risk:
    """Mean loss and accuracy on one view of a data set.

    Attributes:
        loss: mean cross-entropy, in nats; of mixed rows to their mixed targets.
        accuracy: share of the rows whose largest output is their target's class, of mixed targets
            the largest.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class RiskGap:
    """The risks of a model on the views of a data set, at one epoch.

    Attributes:
        epoch: whose views they are.
        clean: on the un-augmented view.
        weak: on the view of the data's weak transform; None where the data have none.
        strong: on the view that is weakly and strongly augmented; None without strong augmentation.
    """

    epoch: int
    clean: Risk
    weak: Risk | None
    strong: Risk | None

    @property
    def gap(self) -> float:
        """The loss on the most strongly augmented view there is, less that on the clean one."""
        most = self.strong or self.weak
        assert most is not None  # one of them is there
        return most.loss - self.clean.loss


def risk_gap(
    model: nn.Module,
    data: Any,
    strong: Strong | None = None,
    *,
    epoch: int = 0,
    strength: float = 1.0,
    copies: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    forward: Forward | None = None,
    autocast: bool | torch.dtype | None = None,
) -> RiskGap:
    """Return mean loss and accuracy on the clean, the weak and the strong view of a data set.

    R = 1/n sum_i L(f(x_i), y_i), and the same with x_i augmented: the empirical risks whose gap
    refinement closes. Measure once an epoch, or every few, and keep what it returns: the curves of
    the paper's Fig. 1.

    Each view is one pass of ``sweep``, so that the model, its modes and the global random states
    stay as they were. An augmented view is made of draws (epoch, index, copy), copies from 1 on:
    the same seed and epoch give the same view in every call, and another epoch another one.

    Args:
        model: maps a batch of inputs to (b, C) logits.
        data: WeightedAugmentedDataset, with the weak transform of the training and a strong one
            where that is made in the dataset; or a map-style dataset of (input, target, ...) items.
        strong: what augments a batch on the model's device as in the training: an
            ``AdaptiveStrengthTransform``, a ``Mixup``, or a function of several, as ``lambda
            batch: mix(strong(batch))``. It is given the batches of all views, and has to augment
            the rows of strength above 0 alone, as these do. None where the data do it.
        epoch: 0 or more, whose views are made.
        strength: in (0, 1], of the strong view.
        copies: views of each sample that are averaged; None takes as many as the data require, as
            with ``strong=translations(3)``, else 1.
        seed: of weak and other transforms that draw from the global random states. Those with keys,
            as AdaptiveStrengthTransform, have their own.
        batch_size: samples a forward pass. Rows are mixed within their batch.
        num_workers: worker processes that fetch the samples.
        collate_fn: stacks Samples into a batch; None takes ``augloader.collate``.
        forward: as for ``sweep``: ``forward(model, batch)`` of the augmented batch returns logits
            and targets; None is ``model(batch.input), batch.target``.
        autocast: as for ``sweep``.

    Returns:
        RiskGap.

    Raises:
        TypeError: as ``sweep``; data that ``wrap`` made, a strong that is not callable or does not
            return a Sample.
        ValueError: as ``sweep``; no augmentation at all, numbers out of range, copies other than
            the data require.

    Cost: a forward pass a sample for the clean view, and one a copy for each augmented one.

    Example:
        >>> from augloader import AdaptiveStrengthTransform
        >>> _ = torch.manual_seed(0)
        >>> data = [(torch.rand(1, 8, 8), i % 2) for i in range(6)]
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> strong = AdaptiveStrengthTransform("trivial")
        >>> history = [risk_gap(model, data, strong, epoch=epoch) for epoch in (0, 0, 1)]
        >>> [history[0] == other for other in history]
        [True, True, False]

    Source: He et al. (2019), Fig. 1 and Table 2.
    """
    if isinstance(data, Shaped):
        raise TypeError(
            "data must give Samples, got the dataset of a wrapped loader. Pass "
            "WeightedAugmentedDataset(data, weak=..., strong=...) of your own."
        )
    given = data if isinstance(data, WeightedAugmentedDataset) else WeightedAugmentedDataset(data)
    if strong is not None and not callable(strong):
        raise TypeError(
            f"strong must be callable on a batch, got {type(strong).__name__}. Pass an "
            "AdaptiveStrengthTransform."
        )
    strongly = strong is not None or any(part is not None for part in given.strong)
    if not strongly and given.weak is None:
        raise ValueError(
            "strong must be given where the data have no transform, got None. Pass an "
            "AdaptiveStrengthTransform, or WeightedAugmentedDataset(data, weak=...)."
        )
    epoch = require_int("epoch", epoch, 0, "Count epochs from 0.")
    strength = require_number("strength", strength, "(0, 1]", "1 is the whole policy.")
    seed, required = require_seed(seed), given.required_copies
    count = required or 1
    if copies is not None:
        count = require_int("copies", copies, 1, "Make at least one view.")
    if required is not None and count != required:
        raise ValueError(
            f"copies must be {required}, the transforms in strong, got {copies}. Leave it out."
        )

    def risk(view: Any) -> Risk:
        passing = _Pass(strong, forward, seed)
        sweep(
            model,
            view,
            None,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=collate_fn,
            forward=passing,
            autocast=autocast,
        )
        hits, losses = torch.cat(passing.hits), torch.cat(passing.losses)
        return Risk(float(losses.cpu().double().mean()), int(hits.sum()) / len(hits))

    def mean(level: float, views: int) -> Risk:
        risks = [risk(_View(given, copy, level, epoch, seed)) for copy in range(1, views + 1)]
        loss, accuracy = (
            sum(getattr(one, name) for one in risks) / views for name in ("loss", "accuracy")
        )
        return Risk(loss, accuracy)

    plain = risk(given)
    weak = None if given.weak is None else mean(0.0, 1 if required else count)
    return RiskGap(epoch, plain, weak, mean(strength, count) if strongly else None)


class _Pass:
    """The forward pass of a sweep: augments the batch, and keeps its losses and hits."""

    def __init__(self, strong: Strong | None, forward: Forward | None, seed: int) -> None:
        self.strong, self.forward, self.seed = strong, forward, seed
        self.hits: list[Tensor] = []
        self.losses: list[Tensor] = []

    def __call__(self, model: Any, batch: Any) -> tuple[Any, Any]:
        if self.strong is not None:
            batch = self._augmented(batch)
        if self.forward is None:
            logits, target = model(batch.input), batch.target
        else:
            found = self.forward(model, batch)
            if not isinstance(found, tuple | list) or len(found) != 2:
                return found  # which the sweep refuses
            logits, target = found
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor) or logits.ndim != 2:
            return logits, target  # which the sweep refuses, as all that is not kept here
        target = target.to(logits.device)
        soft = target.is_floating_point() and target.shape == logits.shape
        labels = target.argmax(1) if soft else target
        if soft or (labels.shape == logits.shape[:1] and not labels.is_floating_point()):
            self.hits.append(logits.argmax(1) == labels)
            aim = target.float() if soft else labels.long().clamp(0, logits.shape[1] - 1)
            self.losses.append(F.cross_entropy(logits.float(), aim, reduction="none"))
        return logits, labels

    def _augmented(self, batch: Any) -> Sample:
        if not isinstance(batch, Sample):
            raise TypeError(
                f"collate_fn must return a Sample batch for strong, got {type(batch).__name__}. "
                "Stack the Samples that it is given."
            )
        assert self.strong is not None
        first = batch.keys.reshape(-1, 3)[:1].cpu().numpy()
        with Fixed(_number(self.seed, first)):
            made = self.strong(batch)
        if not isinstance(made, Sample):
            raise TypeError(
                f"strong must return a Sample for a Sample, got {type(made).__name__}. Pass an "
                "AdaptiveStrengthTransform, or lambda batch: batch._replace(input=...)."
            )
        if len(made.index) != len(batch.index):
            raise ValueError(
                f"strong must keep the {len(batch.index)} rows of a batch, got {len(made.index)}. "
                "Of HardestOf take keep=1."
            )
        return made


class _View(Dataset[Any]):
    """A dataset at one draw of each sample; random states begin at a seed of that draw."""

    def __init__(
        self, data: WeightedAugmentedDataset, copy: int, strength: float, epoch: int, seed: int
    ) -> None:
        self.data, self.seed = data, seed
        self.common = {"copy": copy, "strength": strength, "epoch": epoch}
        self.random = False

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        draw = Draw(index, **self.common)  # type: ignore[arg-type]
        key = np.array([[draw.epoch, index, draw.copy]])
        with Fixed(_number(self.seed, key)):
            return self.data[draw]

    def __getitems__(self, positions: list[int]) -> Any:
        if not self.random:
            fixed = Fixed(0)
            with fixed:
                rows = self.data.__getitems__(
                    [Draw(i, **self.common) for i in positions]  # type: ignore[arg-type]
                )
            self.random = fixed.moved
        return [self[i] for i in positions] if self.random else rows


def _number(seed: int, key: np.ndarray[Any, Any]) -> int:
    """Return the seed of a draw."""
    return int(uniforms(seed, key, 1)[0, 0] * 2**53)
