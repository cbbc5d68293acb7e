"""The sweep: one pass of a model over the un-augmented data, for evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel

from augloader.core.batch import Sample
from augloader.core.checks import require_finite, require_labels, unchecked
from augloader.core.evidence import Evidence
from augloader.core.modules import copied, device_of, eval_mode, unwrapped
from augloader.core.precision import autocast_dtype, computed_in
from augloader.core.proxies import (
    LastLayerGradient,
    LayerGradient,
    Proxies,
    Residual,
    unchecked_residual,
)
from augloader.core.sketch import TensorSketch
from augloader.distributed import collectives
from augloader.loading.heads import Tap, head_of
from augloader.loading.layer_gradients import LayerGradients
from augloader.loading.randomness import Fixed
from augloader.loading.unaugmented import batches, loader_of, on, unaugmented

Forward = Callable[[Any, Any], tuple[Any, Any]]

_OTHERS = (
    "Of pixels or tokens, and in regression, report proxies instead: sampler.report(batch, "
    "loss=loss, proxy=proxy), then sampler.refresh()."
)
_AT_ONCE = 2**18  # logits that losses and residuals are computed of together
_OVERLAP = 16  # samples of the next rank's share that a rank sweeps too


def sweep(
    model: nn.Module,
    data: Any,
    proxy: Residual | LastLayerGradient | LayerGradient | None,
    *,
    batch_size: int = 128,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    forward: Forward | None = None,
    autocast: bool | torch.dtype | None = None,
    progress: bool | None = None,
    group: dist.ProcessGroup | None = None,
) -> Evidence:
    """Run a model over the un-augmented view of a dataset and return what a strategy may look at.

    The model runs in eval mode without gradients, on the device its parameters are on. Every
    module's train mode, the hook and the global random states of torch's CPU, NumPy and Python are
    restored even after an exception. Data that draw from these are given seeds of their positions,
    so that every sweep sees the same, and a warning says that the view is not un-augmented.

    Args:
        model: maps a batch of inputs to (n, C) logits.
        data: WeightedAugmentedDataset, whose ``clean()`` view is taken, of one in a Subset or
            ConcatDataset too; or a map-style dataset of (input, target, ...) items.
        proxy: ``Residual()``, ``LastLayerGradient()``, ``LayerGradient(layers)`` without a forward
            of your own, or None for losses and labels alone.
        batch_size: samples a forward pass, at least 1.
        num_workers: worker processes that fetch the samples.
        collate_fn: stacks Samples into a batch; None takes ``augloader.collate``. With forward it
            is given a list of the data's own items (of a WeightedAugmentedDataset: Samples), and
            returns what forward takes; None takes torch's default for items.
        forward: ``forward(model, batch)`` returns the batch's logits, (b, C), and labels, (b,), for
            models that take more than one tensor or return objects; the batch is on the model's
            device, moved by its own ``to`` or, in mappings and sequences, tensor by tensor. None is
            ``model(batch.input), batch.target``.
        autocast: precision of the forward passes. None is that of the ``torch.autocast`` around
            this call, float32 without one; a dtype, bfloat16 or float16, casts to it; True to
            bfloat16 where the device computes in it, else to float16, and not at all on a CPU that
            would emulate both; False not at all.
        progress: show a bar (needs tqdm); None does so where a terminal is attached.
        group: None, or the ranks that share the work, all of which call this: each sweeps its
            share, samples rank, rank + world, ..., and 16 of the next rank's, to see that both hold
            the same data. A model in DistributedDataParallel is given rank 0's buffers, as by its
            next forward pass, and unwrapped; other models must not communicate in theirs.

    Returns:
        Evidence of all n samples in order: labels int64, losses float32 and proxies float32, on
        the model's device (on the CPU for MPS, which has no float64); with LastLayerGradient that
        does not project also the features that the head was given. With a group: of this rank's
        share, with indices, for a sampler with the same group.

    Raises:
        TypeError: data without ``__len__``, a stream or a loader, an item that is None, labels that
            are not integers, an output that is not a tensor, a forward that returns no pair.
        ValueError: an output that is not (n, C), labels out of range, no linear head, a head whose
            output is not the logits, layers that the model lacks, a forward beside them, or outputs
            that depend on the others in a batch; inputs of several sizes, proxies or losses that
            are NaN or infinite.
        RuntimeError: the head was not called in the forward pass; another thread sweeps the model.
        ImportError: progress without tqdm.
        UserWarning, once a sweep: the data drew random numbers.
        With a group every rank raises what one did; an ImportError as RuntimeError. On a GPU what
        values tell (another head, labels of forward out of range, NaN) raises after the last batch.

    Cost: one forward pass a sample; with LayerGradient another and a backward pass; memory
    n (C + d) floats, with LayerGradient n P, or n w where a proxy projects, and a batch's or 1 MiB.
    Waits for a GPU once, at the end.

    Example:
        >>> data = [(torch.tensor([1.0, 0.0]), 0), (torch.tensor([0.0, 1.0]), 1)]
        >>> evidence = sweep(nn.Linear(2, 2), data, LastLayerGradient())
        >>> evidence.proxies.gradient.shape, evidence.proxies.features.shape
        (torch.Size([2, 2]), torch.Size([2, 3]))
        >>> forward = lambda model, batch: (2 * model(batch[0]), batch[1])
        >>> sweep(nn.Linear(2, 2), data, Residual(), forward=forward).labels
        tensor([0, 1])

    Source: Liu & Mirzasoleiman (2022), section 5 and Alg. 1.
    """
    if group is not None:
        inner = _synchronised(model, collectives.require_group(group))
        place = dist.get_rank(group), dist.get_world_size(group)
    else:
        inner, place = model, None

    def work() -> Evidence:
        return _sweep(
            inner,
            data,
            proxy,
            place,
            batch_size,
            num_workers,
            collate_fn,
            forward,
            autocast,
            progress,
        )

    return work() if group is None else collectives.attempt(work, group)


def _sweep(
    model: nn.Module,
    data: Any,
    proxy: Residual | LastLayerGradient | LayerGradient | None,
    place: tuple[int, int] | None,
    batch_size: int,
    num_workers: int,
    collate_fn: Callable[[list[Any]], Any] | None,
    forward: Forward | None,
    autocast: bool | torch.dtype | None,
    bar: bool | None,
) -> Evidence:
    """Sweep all samples, or the share of a place (rank, world)."""
    view = unaugmented(data, own=forward is not None)
    device = device_of(model)
    dtype = autocast_dtype(device, autocast)
    share = None if place is None else _share(len(view), *place)
    if share is not None and not len(share):
        return Evidence(len(view), indices=share)
    loader = loader_of(view, share, batch_size, num_workers, collate_fn, device)
    tap = Tap(*head_of(model, proxy.head)) if isinstance(proxy, LastLayerGradient) else Tap()
    layers = sketch = None
    if isinstance(proxy, LayerGradient):
        if forward is not None:
            raise ValueError(
                "forward must be None beside LayerGradient, got a function. Give a model that maps "
                "one tensor to logits, or use LastLayerGradient()."
            )
        layers = LayerGradients(model, proxy, dtype)
    factors = isinstance(proxy, LastLayerGradient) and proxy.project is None
    columns = Columns(len(view) if share is None else len(share), Residual() == proxy or factors)
    with eval_mode(model), tap, torch.no_grad(), Fixed(0):
        for batch, positions in batches(loader, "sweep", bar):
            moved = on(batch, device)
            with computed_in(device, dtype):
                found, target = _outputs(model, moved, forward)
            logits = _check_logits(found, len(positions))
            if forward is None:
                target = batch.target  # on the CPU, where checking it waits for nothing
            target = _check_target(target, logits, positions).to(device, non_blocking=True)
            rows = {"labels": target}
            if layers is not None:
                rows["gradient"] = layers(moved.input, _within(target, logits))
            if isinstance(proxy, LastLayerGradient):
                rows["features"] = tap.features(logits)
                if proxy.project is not None:
                    features = rows.pop("features")
                    if sketch is None:
                        widths = logits.shape[1], features.shape[1]
                        sketch = TensorSketch(*widths, proxy.project, proxy.seed)
                    residuals = unchecked_residual(logits, _within(target, logits))
                    rows["gradient"] = sketch(residuals, features)
            columns.add(rows, logits)
        columns.settle()
    home = torch.device("cpu") if device.type == "mps" else device  # distances need float64
    parts = {name: part.to(home) for name, part in columns.values.items()}
    _require_sound(parts, logits.shape[1], tap, len(view), share)
    proxies = inputs = None
    if "gradient" in parts:
        proxies = unchecked(Proxies, gradient=parts["gradient"], features=parts.get("features"))
    if "features" in parts:  # the bias's input is a column of ones
        inputs = parts["features"][:, :-1] if tap.biased else parts["features"]
    known = {"labels": parts["labels"], "losses": parts["losses"], "proxies": proxies}
    return Evidence(len(view), indices=share).with_checked(**known, features=inputs)


class Columns:
    """What is known of n samples, filled in some rows at a time.

    Attributes:
        values: by name, (n, ...), on the device of the first rows.
    """

    def __init__(self, n: int, residuals: bool) -> None:
        self.values: dict[str, Tensor] = {}
        self._n, self._residuals = n, residuals  # whether these are the gradient
        self._known = self._done = 0
        self._waiting: list[Tensor] = []

    def add(self, rows: dict[str, Tensor], logits: Tensor) -> None:
        """Fill in the next b rows, (b, ...) by name; what logits tell waits for more of them."""
        self._fill(self._known, rows)
        self._known += len(logits)
        self._waiting.append(logits.to(torch.float32, copy=True))  # whose memory models may reuse
        if (self._known - self._done) * logits.shape[1] >= _AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Fill in what the logits that wait tell, in large steps, which cost less than many."""
        if self._waiting:
            logits = torch.cat(self._waiting)
            within = _within(self.values["labels"][self._done : self._known], logits)
            rows = {"losses": F.cross_entropy(logits, within, reduction="none")}
            if self._residuals:
                rows["gradient"] = unchecked_residual(logits, within)
            self._fill(self._done, rows)
            self._done, self._waiting = self._known, []

    def _fill(self, start: int, rows: dict[str, Tensor]) -> None:
        for name, part in rows.items():
            if name not in self.values:
                self.values[name] = part.new_empty(self._n, *part.shape[1:])
            self.values[name][start : start + len(part)] = part


def _within(labels: Tensor, logits: Tensor) -> Tensor:
    """Return labels that are in range; what is not is found after the last batch."""
    return labels.clamp(0, logits.shape[1] - 1)


def _require_sound(
    parts: dict[str, Tensor], classes: int, tap: Tap, n: int, share: Tensor | None
) -> None:
    """Raise unless labels, losses and proxies of a sweep hold; waits for their device once."""
    labels = parts["labels"]
    sound = ((labels >= 0) & (labels < classes)).all()
    for part in parts.values():  # a sum that overflows is looked at below
        sound = sound & part.sum().isfinite()
    if sound if tap.same is None else sound & tap.same.to(sound.device):
        return
    if tap.same is not None:
        tap.require_same()
    samples = torch.arange(n, device="cpu") if share is None else share
    require_labels("target", parts["labels"], len(parts["labels"]), classes, samples)
    # The losses first: where they are not finite, they name the samples of a share.
    Evidence(n, losses=parts["losses"], indices=share)
    Proxies(*(parts[name] for name in ("gradient", "features") if name in parts))


def gradient_norms(
    model: nn.Module,
    data: Any,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    collate_fn: Callable[[list[Sample]], Sample] | None = None,
    autocast: bool | torch.dtype | None = None,
) -> Tensor:
    """Return the norm of each sample's gradient by all parameters, GraNd: ||grad_theta L_i||.

    The model runs in eval mode over the un-augmented view, as in ``sweep``. The paper averages the
    norms of some ten models early in training; a mean of these tensors does so. To select by them:
    ``Proportional(Given())`` with ``Evidence(n, scores=...)``.

    Args:
        model: maps a batch of inputs, one tensor, to (n, C) logits; its parameters that require
            gradients count.
        data: as for ``sweep``.
        batch_size: samples whose gradients are held at a time.
        num_workers: worker processes that fetch the samples.
        collate_fn: stacks Samples into a batch; None takes torch's default.
        autocast: as for ``sweep``. Torch refuses some models in it, as on the CPU those with batch
            norm: pass False.

    Returns:
        (n,) float32 on the model's device.

    Raises:
        TypeError, ValueError: as ``sweep``; no parameters that require gradients, norms that are
            NaN or infinite.
        RuntimeError: a model that cannot be copied, or that uses the statistics of a batch.

    Cost: a forward and backward pass a sample; memory batch_size + 1 times the parameters.

    Example:
        >>> data = [(torch.tensor([3.0, 4.0]), 0)]
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)  # g = (-1/2, 1/2), ||g (x) h|| = 5 / sqrt(2)
        >>> gradient_norms(model, data)
        tensor([3.5355])

    Source: Paul, Ganguli & Dziugaite (2021), Def. 2.1.
    """
    view, device = unaugmented(data), device_of(model)
    dtype = autocast_dtype(device, autocast)
    model = copied(model)
    trained = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(
            "model must have parameters that require gradients, got none. Call "
            "requires_grad_(True) on those that count."
        )

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        with computed_in(device, dtype):
            logits = functional_call(model, parameters, (image.unsqueeze(0),))
        return F.cross_entropy(logits.float(), label.unsqueeze(0))

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    norms: list[Tensor] = []
    loader = loader_of(view, None, batch_size, num_workers, collate_fn, device)
    with Fixed(0):
        for batch, positions in batches(loader, "gradient norms"):
            moved = on(batch, device)
            if not norms:
                # Of one image, to know the number of classes.
                with torch.no_grad(), computed_in(device, dtype):
                    one = _check_logits(model(moved.input[:1]), 1)
            every = one.expand(len(positions), -1)
            given = batch.target.cpu() if isinstance(batch.target, Tensor) else batch.target
            target = _check_target(given, every, positions).to(device, non_blocking=True)
            with computed_in(device, None):  # as for backward(): the forward pass casts alone
                parts = gradients(trained, moved.input, target).values()
            squares = [part.float().flatten(1).square().sum(1) for part in parts]
            norms.append(torch.stack(squares).sum(0).sqrt())
    found = torch.cat(norms)
    require_finite("gradient norms", found, "Check the model: has training diverged?")
    return found


def _share(n: int, rank: int, world: int) -> Tensor:
    """Return the samples that a rank sweeps: its own and, spread out, some of the next rank's."""
    every = torch.arange(n, device="cpu")
    own, others = (every[first::world] for first in (rank, (rank + 1) % world))
    if world == 1 or not len(own):
        return own
    count = min(len(others), _OVERLAP)
    some = torch.linspace(0, len(others) - 1, count, device="cpu", dtype=torch.float64)
    some = some.round().long()
    return torch.cat([own, others[some]])


def _synchronised(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    """Return the module in a DistributedDataParallel, with rank 0's buffers where it says so."""
    inner: Any = getattr(model, "_orig_mod", model)
    if not isinstance(inner, DistributedDataParallel):
        return model
    if inner.broadcast_buffers:
        for buffer in inner.module.buffers():
            dist.broadcast(buffer, group=group, group_src=0)
    return unwrapped(inner)


def _outputs(model: nn.Module, batch: Any, forward: Forward | None) -> tuple[Any, Any]:
    """Return the logits and targets of a batch."""
    if forward is None:
        if not isinstance(batch, Sample):
            raise TypeError(
                f"collate_fn must return a Sample batch, got {type(batch).__name__}. Stack the "
                "Samples that it is given, or pass forward=, which is given any batch."
            )
        return model(batch.input), batch.target
    out = forward(model, batch)
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise TypeError(
            f"forward must return logits and targets, got {type(out).__name__}. Return a pair, as "
            '(model(**batch).logits, batch["labels"]).'
        )
    return out[0], out[1]


def _check_logits(logits: Any, n: int) -> Tensor:
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"model must return (n, C) logits, got {type(logits).__name__}. Pass forward=, as "
            "lambda model, batch: (model(batch.input).logits, batch.target)."
        )
    if logits.ndim != 2 or len(logits) != n or logits.shape[1] < 2:
        raise ValueError(
            f"model must return (n, C) logits for n={n}, C >= 2, got {tuple(logits.shape)}. Wrap "
            f"it in a module that returns one row of class scores a sample. {_OTHERS}"
        )
    return logits


def _check_target(target: Any, logits: Tensor, positions: Tensor) -> Tensor:
    """Return class labels as int64, or raise an error that names the samples.

    Values on another device than the CPU are left to be checked without waiting for it.
    """
    if not isinstance(target, Tensor):
        raise TypeError(
            f"target must collate to a tensor of class labels, got {type(target).__name__}. "
            "Return an int as each item's target."
        )
    if target.is_floating_point() and target.ndim == 1:
        raise TypeError(f"target must be integer class labels, got {target.dtype}. {_OTHERS}")
    here = target.device.type == "cpu"
    values = target if here else torch.zeros(target.shape, dtype=target.dtype, device="cpu")
    checked = require_labels("target", values, len(logits), logits.shape[1], positions)
    return checked if here else target.long()
