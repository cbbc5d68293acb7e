"""Manifold Mixup: what a layer returns is mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from augloader.augment.mixing import Mixer, drawing, require_floating
from augloader.core.batch import Sample
from augloader.core.deprecated import renamed
from augloader.core.modules import unwrapped


class ManifoldMixup(Mixer):
    """Mixup of what a layer returns, at a layer drawn anew for every batch.

    A context manager: while it is open a forward hook mixes the layer's output, or the model's
    input for "", with the same arithmetic as ``Mixup``. The hook is gone after the block, also
    where the forward pass raises. All else is as in ``Mixup``.

        with manifold(batch) as mixed:
            logits = model(batch.input)
        loss = F.cross_entropy(logits, mixed.target, reduction="none")
        (loss * mixed.weight).mean().backward()
        sampler.report(mixed, loss=loss, logits=logits)  # mixed, which knows what was mixed

    Args:
        model: the module that is called in the block; in DistributedDataParallel or torch.compile
            its layers are named as without.
        layers: names of the eligible layers, as in ``model.named_modules()``; "" is the input. Each
            returns one tensor with a row a sample, and is called once in a forward pass, not inside
            activation checkpointing: what is computed again is not mixed.
        num_classes: as for Mixup.
        alpha: as for Mixup; 2 in the paper, 1 in He et al.
        **options: probability, schedule, epochs, seed and untouched, as for Mixup.

    Raises:
        TypeError: as Mixup; a layer that returns anything but a floating tensor.
        ValueError: as Mixup; no layers, names that the model does not have; a layer that returns
            another number of rows.
        RuntimeError: a layer that was never called (a compiled model may not see hooks) or twice.

    Cost: a pass over what the layer returns.

    Example:
        >>> from augloader import Sample
        >>> batch = Sample(torch.eye(2), torch.arange(2), torch.arange(2), torch.ones(2),
        ...                torch.ones(2))
        >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> with ManifoldMixup(model, ["", "0"], num_classes=2)(batch) as mixed:
        ...     hidden = model(batch.input)
        >>> torch.equal(hidden, mixed.target)
        True

    Source: Verma et al. (2019), as in He et al. (2019), section 3.1.
    """

    @renamed(classes="num_classes", gamma="alpha")
    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        num_classes: int | None = None,
        alpha: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, alpha, **options)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}. Pass it.")
        modules = dict(unwrapped(model).named_modules())
        if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
            raise ValueError(
                f'layers must be at least one name, got {layers!r}. Pass a list, as ["", "layer1"].'
            )
        for name in layers:
            if name not in modules:
                known = ", ".join(map(repr, list(modules)[:8]))
                raise ValueError(
                    f"layers must be modules of the model, got {name!r}. Its first ones are "
                    f"{known}."
                )
        self.layers = tuple(layers)
        self._modules = [modules[name] for name in layers]

    @contextmanager
    def __call__(self, batch: Sample, generator: torch.Generator | None = None) -> Iterator[Sample]:
        """Yield the batch with mixed targets and weights; mix in the forward pass of the block."""
        epoch, strength, rng = drawing(self.seed, batch, generator)
        mixing = self._sample(batch, epoch, strength, rng)
        mixed = self._mix(batch, mixing, batch.input)
        if not mixing.mixed.any():
            yield mixed
            return
        at = int(rng.integers(len(self.layers)))
        name, module = self.layers[at], self._modules[at]
        calls = 0

        def blend(hidden: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise RuntimeError(
                    f"layer {name!r} must be called once in the block, got a second call. Name "
                    "layers that are not shared, and run the model once."
                )
            return mixing.blend(
                require_floating(f"what layer {name!r} returns", hidden, "Name other layers.")
            )

        if name:
            hook = module.register_forward_hook(lambda _, inputs, output: blend(output))
        else:
            hook = module.register_forward_pre_hook(
                lambda _, inputs: (blend(inputs[0] if inputs else None), *inputs[1:])
            )
        try:
            yield mixed
        finally:
            hook.remove()
        if not calls:
            raise RuntimeError(
                f"layer {name!r} must be called in the block, got no call. Run the model inside "
                "the block, and do not compile it."
            )
