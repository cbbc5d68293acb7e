"""The head of a model, and what it is given in a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from augloader.core.modules import is_keras, layers_of


class Tap:
    """Catches what goes into and comes out of the head in each forward pass."""

    def __init__(self, name: str = "", head: nn.Module | None = None) -> None:
        self.name, self.head = name, head
        self.biased = getattr(head, "bias", None) is not None
        self.seen: tuple[Tensor, Tensor] | None = None
        self.same: Tensor | None = None  # whether its outputs were the logits
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())  # of logits and output

    def __enter__(self) -> Tap:
        """Begin to listen, whatever was heard before."""
        self.seen = self.same = None
        if self.head is not None:
            self.hook = self.head.register_forward_hook(self._catch)
        return self

    def __exit__(self, *error: object) -> None:
        """Stop."""
        if self.head is not None:
            self.hook.remove()

    def _catch(self, head: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.seen = (inputs[0], output)

    def features(self, logits: Tensor) -> Tensor:
        """Return the head's last input, (b, d) or with a bias (b, d + 1), in float32.

        Whether the head's outputs are the logits is seen at once on the CPU. On a device, which
        would have to be waited for, it is kept for ``require_same``.
        """
        if self.seen is None:
            raise RuntimeError(
                f"head {self.name!r} must be called in the forward pass, got no call. Name the "
                "module that returns the logits, of a model that was not compiled and run before."
            )
        h, out = self.seen
        self.seen = None
        self.shapes = tuple(logits.shape), tuple(out.shape)
        if out.shape == logits.shape and out is not logits:
            # NaN logits are the model's too, and reported as such.
            same = ((out == logits) | (out.isnan() & logits.isnan())).all()
            self.same = same if self.same is None else self.same & same
        if out.shape != logits.shape or out.device.type == "cpu":
            self.require_same()
        if h.ndim != 2:
            raise ValueError(
                f"head {self.name!r} must take (n, d) features, got {tuple(h.shape)}. "
                "Pool them before the head, or take what needs no head: Residual(), or "
                'StableInfluence("loss").'
            )
        h = h.float()
        return torch.cat([h, h.new_ones(len(h), 1)], 1) if self.biased else h

    def require_same(self) -> None:
        """Raise unless the outputs of the head were the logits; waits for their device."""
        wanted, got = self.shapes
        if wanted != got or (self.same is not None and not self.same):
            what = f"an output {got}" if wanted != got else "other values"
            raise ValueError(
                f"head {self.name!r} must return the model's logits {wanted}, got {what}. Name the "
                'layer whose output the model returns as it is, head="fc".'
            )


def head_of(model: nn.Module, name: str | None) -> tuple[str, nn.Module]:
    """Return the head of a model and its name: the one named, or else the last linear layer.

    Raises:
        ValueError: no module of that name; none that is linear; a Keras layer with an activation.
    """
    layers = layers_of(model)
    if name is not None and name not in layers:
        known = ", ".join(list(layers)[-5:])
        raise ValueError(
            f"head must be a module of the model, got {name!r}. Its last modules are {known}."
        )
    linear = [key for key, layer in layers.items() if _is_linear(layer)]
    if name is None and not linear:
        raise ValueError(
            f"model must have an nn.Linear head, got {type(model).__name__} without one. Name the "
            'layer, LastLayerGradient(head="..."), or use Residual(), which needs none.'
        )
    name = linear[-1] if name is None else name
    activation = getattr(getattr(layers[name], "activation", None), "__name__", "linear")
    if is_keras(layers[name]) and activation != "linear":
        raise ValueError(
            f"head {name!r} must return logits, got a layer with activation {activation!r}. Build "
            "the model with activation=None there."
        )
    return name, layers[name]


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (is_keras(layer) and type(layer).__name__ == "Dense")
