"""Per-sample gradients by the parameters of chosen layers, for a sweep."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from augloader.core.modules import AtOnce, copied, device_of, require_independent
from augloader.core.precision import computed_in
from augloader.core.proxies import LayerGradient

_ENTRIES = 2**25  # of gradients that are held at a time, before they are projected


class LayerGradients:
    """What a sweep calls with each batch's inputs and labels; of a copy of the model.

    Args:
        model: maps a batch of inputs, one tensor, to (b, C) logits; in eval mode.
        proxy: names the layers and the projection.
        dtype: of ``autocast_dtype``, for the forward pass.

    Raises:
        ValueError: a layer that the model lacks or that has no floating parameters; in the first
            call, a model whose outputs of a sample depend on the others in its batch.
        RuntimeError: a model that cannot be copied, or that torch cannot differentiate.

    Memory: a copy of the model; per parameter of the layers 9 bytes with a projection; at a time
    three times 128 MB of gradients, or one sample's.
    """

    def __init__(
        self, model: nn.Module, proxy: LayerGradient, dtype: torch.dtype | None = None
    ) -> None:
        self._model = copied(model)
        self._device, self._dtype = device_of(self._model), dtype
        every = dict(self._model.named_parameters(remove_duplicate=False))
        self._chosen: dict[str, Tensor] = {}
        taken: set[int] = set()  # a parameter of two names counts once
        for layer in proxy.layers:
            found = {k: p for k, p in every.items() if k == layer or k.startswith(layer + ".")}
            found = {k: p for k, p in found.items() if p.is_floating_point()}
            if not found:
                modules = dict.fromkeys(k.rpartition(".")[0] for k in every)
                raise ValueError(
                    f"layers must name modules or parameters of the model, got {layer!r}. Its last "
                    f"modules with parameters are {', '.join([*modules][-5:])}."
                )
            self._chosen |= {k: p.detach() for k, p in found.items() if id(p) not in taken}
            taken |= set(map(id, found.values()))
        self.width = sum(p.numel() for p in self._chosen.values())
        self._project = proxy.project
        if proxy.project is not None:
            rng, w = np.random.default_rng(proxy.seed), proxy.project
            places = -(-self.width // w) * w
            order = rng.permutation(places)  # which coordinate, or padding, is at which place
            signs = rng.integers(0, 2, places, dtype=np.int8) * 2 - 1
            signs[order >= self.width] = 0
            order[order >= self.width] = 0
            self._order = torch.from_numpy(order).to(self._device)
            self._signs = torch.from_numpy(signs).to(self._device)
        self._gradients = AtOnce(vmap(grad(self._loss), in_dims=(None, 0, 0)), self._one_by_one)
        self._probed = False

    def _loss(self, parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        with computed_in(self._device, self._dtype):
            logits = functional_call(self._model, parameters, (image.unsqueeze(0),))
        return F.cross_entropy(logits.float(), label.unsqueeze(0))

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the gradients of b samples, or their projections.

        Args:
            inputs: (b, ...) on the model's device.
            labels: (b,) int64 beside them.

        Returns:
            (b, P) or (b, project) float32; the layers in the order they are named in, and in each
            the parameters in the model's.

        Cost: a forward and a backward pass a sample, one by one where vmap cannot go through the
        model (as with channels_last or checkpoints in it); O(b P) for a projection.
        """
        self._probe(inputs[:4])
        parts = []
        rows = max(1, _ENTRIES // self.width)
        for images, some in zip(inputs.split(rows), labels.split(rows), strict=True):
            with computed_in(self._device, None):  # as for backward(): the forward pass casts alone
                found = self._gradients(self._chosen, images, some)
            flat = torch.cat([found[k].float().flatten(1) for k in self._chosen], 1)
            parts.append(flat if self._project is None else self._projected(flat))
        return torch.cat(parts)

    def _probe(self, inputs: Tensor) -> None:
        """Raise, once, unless a sample's outputs are its own."""
        if self._probed:
            return
        self._probed = True
        with torch.no_grad(), computed_in(self._device, None):
            require_independent(
                self._model,
                inputs,
                self._model(inputs),
                "Batch norm must track running statistics; or use LastLayerGradient().",
            )

    def _one_by_one(
        self, parameters: dict[str, Tensor], images: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Return the gradients of some samples, (b, ...) of each parameter."""
        rows = []
        with torch.enable_grad():
            given = {k: p.clone().requires_grad_() for k, p in parameters.items()}
            for image, label in zip(images, labels, strict=True):
                loss, wanted = self._loss(given, image, label), list(given.values())
                rows.append(torch.autograd.grad(loss, wanted, materialize_grads=True))
        return {
            k: torch.stack(part) for k, part in zip(given, zip(*rows, strict=True), strict=True)
        }

    def _projected(self, flat: Tensor) -> Tensor:
        assert self._project is not None
        signed = flat[:, self._order].mul_(self._signs)
        return signed.view(len(flat), -1, self._project).sum(1)
