"""Highest-loss augmentation: of several strong versions of an image train on the hardest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augloader.augment.images import require_images
from augloader.augment.transform import AdaptiveStrengthTransform
from augloader.core.batch import Sample, take
from augloader.core.checks import count_and_first, require_finite, require_int
from augloader.core.lying import require_none_lying
from augloader.core.modules import eval_mode, unwrapped
from augloader.core.precision import autocast_dtype, computed_in

_ALONE = "Candidates have no masks: augment by AdaptiveStrengthTransform, which moves them."
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return (m,) losses of (m, C) logits; targets are class indices or probabilities.

    Raises:
        ValueError: (m, C) targets whose rows do not sum to 1, as those of several labels.
    """
    logits = logits.float()
    if target.ndim == 2 and logits.ndim == 2:
        target = target.to(logits.dtype)
        if target.device.type != "cpu":  # NaN is found where the losses are waited for
            losses = F.cross_entropy(logits, target, reduction="none")
            return losses.masked_fill(_unlike_one(target), torch.nan)
        _require_sums(target)
    return F.cross_entropy(logits, target, reduction="none")


def _unlike_one(target: Tensor) -> Tensor:
    return (target.float().sum(1) - 1).abs() > 0.01  # as float16 and bfloat16 round probabilities


def _require_sums(target: Tensor) -> None:
    bad = _unlike_one(target)
    if bad.any():
        raise ValueError(
            "target must be class indices, or rows that sum to 1, for cross-entropy, got "
            f"{count_and_first(bad, 'other rows')}. Of several labels a row pass loss=lambda "
            "logits, target: F.binary_cross_entropy_with_logits(logits, target, "
            'reduction="none").mean(1).'
        )


class HardestOf:
    """Replace each strongly augmented row by the S of its K versions with the highest loss.

    K candidates of every row with strength > 0 are made on the batch's device and scored by the
    model in eval mode without gradients; rows with strength 0 cost nothing. The S chosen rows share
    their draw's weight, w / S each. All weights are then multiplied by (rows after) / (rows
    before), so that the mean of weight x loss over the larger batch is that over the draws of
    weight x (mean loss of the S), and neither the learning rate nor ranks with more rows than
    others are affected.

    Candidate k of copy c is drawn as copy c K + k, which becomes the chosen row's ``copy`` (plain
    rows become c K): keys name pixels. K = S = 1 is plain augmentation. Of a draw's S rows
    ``sampler.report`` takes the first, which for S < K has the highest loss of all K.

    Args:
        transform: made of a named policy, its candidates depend on the seed and the keys alone; of
            Kornia operations, on what was drawn before.
        candidates: K, 1 or more.
        keep: S, 1 to K. S = K scores nothing.
        loss: (logits, target) -> (m,) losses; cross-entropy by default, of class indices or of rows
            of probabilities. For several labels a row give a loss of your own.
        autocast: precision of the model's passes. None is that of the ``torch.autocast`` around the
            call; a dtype, True and False as for ``sweep``.

    Raises:
        TypeError: another transform, numbers that are not integers; when called, not a Sample.
        ValueError: values out of range; when called, losses of another shape, NaN or infinite; of
            a policy with geometry masks, boxes, points or images in target and extra fields, which
            its ``untouched`` does not name.

    Cost: for m rows with strength > 0, K m augmentations and, where S < K, as many forward passes
    without gradient, in parts of at most the batch's rows; waits for the device once. Models in
    FullyShardedDataParallel, whose forward pass communicates, are not supported.

    Example:
        >>> strong = AdaptiveStrengthTransform("trivial", seed=0, dtype=torch.float32)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
        >>> batch = Sample(torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 1]), torch.arange(3),
        ...                torch.ones(3), torch.tensor([0.0, 1.0, 0.5]), copy=torch.ones(3).long())
        >>> hardest = HardestOf(strong, candidates=8, keep=4)(batch, model)
        >>> hardest.index
        tensor([0, 1, 1, 1, 1, 2, 2, 2, 2])
        >>> hardest.weight / hardest.weight[0]
        tensor([1.0000, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500])

    Source: Wu et al. (2020), "On the generalization effects of linear transformations in data
    augmentation", the costly case of Liu & Mirzasoleiman (2022), section 1.
    """

    def __init__(
        self,
        transform: AdaptiveStrengthTransform,
        *,
        candidates: int,
        keep: int = 1,
        loss: Loss = cross_entropy,
        autocast: bool | torch.dtype | None = None,
    ) -> None:
        if not isinstance(transform, AdaptiveStrengthTransform):
            raise TypeError(
                f"transform must be an AdaptiveStrengthTransform, got {type(transform).__name__}. "
                'Pass AdaptiveStrengthTransform("trivial"), or one made of Kornia augmentations.'
            )
        self.transform = transform
        self.candidates = require_int("candidates", candidates, 1, "Make at least one.")
        self.keep = require_int("keep", keep, 1, "Keep at least one candidate.")
        if keep > candidates:
            raise ValueError(
                f"keep must be at most the {candidates} candidates, got {keep}. Make more "
                "candidates, or keep fewer."
            )
        if not callable(loss):
            raise TypeError(
                f"loss must be a function, got {loss!r}. Pass (logits, target) -> (m,)."
            )
        self.loss = loss
        autocast_dtype(torch.device("cpu"), autocast)
        self.autocast = autocast

    def __call__(self, batch: Sample, model: nn.Module) -> Sample:
        """Augment a batch; the model, its modes, statistics and gradients are left as they are.

        Args:
            batch: (b, ...) on the model's device, images as the transform takes them, other fields
                as the default collate makes them.
            model: maps what the transform returns to (b, C) logits.

        Returns:
            b + (S - 1) m rows in the batch's order; of S < K the hardest of each draw first.
        """
        if not isinstance(batch, Sample):
            raise TypeError(
                f"batch must be the Sample batch of the loader, got {type(batch).__name__}. Pass "
                "it before it is augmented."
            )
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}. Pass it.")
        b, many, keep = len(batch.keys), self.candidates, self.keep
        for name in ("input", "target", "weight", "strength"):
            value = getattr(batch, name)
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name} must be a tensor, got {type(value).__name__}. Pass the batch as the "
                    "loader collated it."
                )
            if name == "target" and value.ndim > 2:
                raise ValueError(
                    f"target must be (b,) or (b, C), got shape {tuple(value.shape)}. Candidates "
                    "are moved without their masks."
                )
            if value.shape[:1] != (b,) or (name in ("weight", "strength") and value.ndim != 1):
                raise ValueError(
                    f"{name} must have {b} rows, as the batch, got shape {tuple(value.shape)}. "
                    "Pass the batch as the loader collated it."
                )
        strength = batch.strength.cpu()
        strong = strength > 0
        scored = keep < many and bool(strong.any())
        # All versions; those that are scored come first, so that they need no copy.
        versions = torch.where(strong, many, 1)
        order = (strong & scored).sort(descending=True, stable=True).indices
        source = order.repeat_interleave(versions[order])
        first = torch.empty_like(versions)
        first[order] = versions[order].cumsum(0) - versions[order]
        keys = batch.keys.cpu()[source]
        keys[:, 2] = keys[:, 2] * many + torch.arange(len(source), device="cpu") - first[source]
        given = keys if self.transform.keyed else None
        require_images(batch.input)
        candidates = take(batch.input, source)
        params = self.transform.sample(candidates.shape, strength[source], keys=given)
        if params.geometric:
            for name in ("target", "extra"):
                field = getattr(batch, name)
                require_none_lying(_ALONE, name, field, batch.input.shape, self.transform.untouched)
        images = self.transform.apply(candidates, params)
        chosen = torch.arange(keep, device="cpu").expand(int(strong.sum()), -1)
        if scored:
            made = len(chosen) * many
            target = take(batch.target, source[:made])
            losses = self._losses(model, images[:made], target, b).view(-1, many)
            chosen = losses.sort(dim=1, descending=True, stable=True).indices[:, :keep]
        kept = torch.where(strong, keep, 1)
        position = first.repeat_interleave(kept)
        position[strong.repeat_interleave(kept)] += chosen.flatten()
        row, every = source[position], torch.arange(len(source), device="cpu")
        share = torch.ones(len(row), dtype=torch.float32, device="cpu")
        share = share.masked_fill_(strong[row], 1 / keep) * len(row) / b
        out = take(batch._replace(input=None), row)
        return out._replace(  # type: ignore[no-any-return]
            input=images if torch.equal(position, every) else take(images, position),
            weight=out.weight * share.to(out.weight, non_blocking=True),
            copy=keys[position, 2],
        )

    def _losses(self, model: nn.Module, images: Tensor, target: Tensor, rows: int) -> Tensor:
        """Return every candidate's loss on the CPU, computed a batch's rows at a time."""
        # Other ranks may have nothing to score: this forward pass must not wait for theirs.
        inner = unwrapped(model)
        found: list[Any] = []
        dtype = autocast_dtype(images.device, self.autocast)
        with eval_mode(inner), torch.no_grad():
            for part, labels in zip(images.split(rows), target.split(rows), strict=True):
                with computed_in(images.device, dtype):
                    logits = inner(part)
                losses = self.loss(logits, labels)
                if not isinstance(losses, Tensor):
                    raise TypeError(
                        f"loss must return a tensor, got {type(losses).__name__}. Return (m,) "
                        "losses."
                    )
                if losses.shape != labels.shape[:1]:
                    raise ValueError(
                        f"loss must return one value a row, ({len(labels)},), got shape "
                        f'{tuple(losses.shape)}. Use reduction="none".'
                    )
                found.append(losses.float())
        losses = torch.cat(found).cpu()
        self.transform.require_arrived()  # as all has that was before
        if self.loss is cross_entropy and target.ndim == 2 and not losses.isfinite().all():
            _require_sums(target)
        require_finite("losses of candidates", losses, "Has training diverged?")
        return losses
