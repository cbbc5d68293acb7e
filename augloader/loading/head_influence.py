"""The influence of each sample on the head's last change, caught in the training's forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from augloader.core.checks import kind
from augloader.core.fields import Rows, require_fields, require_state, signed
from augloader.core.modules import device_of, unwrapped
from augloader.core.precision import computed_in
from augloader.core.proxies import residual
from augloader.feedback.sada import head_influence
from augloader.loading.heads import Tap, head_of

_VERSION = 2  # of saved states; those of version 1 had no checksum


class HeadInfluence:
    """What ``StableInfluence("gradient")`` is told: each sample's gradient along the last step.

    Of a sample with features h_i, logits z_i and label y_i in the forward pass with parameters
    theta_t, and of the last layer's weights W and bias b,

        influence_i = g_i . ((W_{t-1} - W_t) h_i + b_{t-1} - b_t),        g_i = softmax(z_i) - y_i,

    which is exactly <grad L_i(theta_t), theta_{t-1} - theta_t> of these parameters. theta_{t-1} are
    the parameters before their last change: passes without a step between them, as where gradients
    are accumulated, have the same. Until a first step it is 0. Earlier layers are left out. Weights
    that are loaded count as a step: load its own state too, or make it after them.

    Args:
        model: whose last layer is an ``nn.Linear`` that returns the logits.
        head: its name as in ``model.named_modules()``; None takes the last ``nn.Linear``.

    Raises:
        TypeError: a head that is not ``nn.Linear``.
        ValueError: no head, or none of that name, or one that is frozen.

    Memory: three times the head's parameters.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> influence, x, y = HeadInfluence(model), torch.tensor([[1.0, 2.0]]), torch.tensor([0])
        >>> with influence:
        ...     logits = model(x)
        >>> influence(logits, y)
        tensor([0.])
        >>> with torch.no_grad():
        ...     _ = model.weight[0].add_(1.0)  # a step
        >>> with influence:
        ...     logits = model(x)
        >>> influence(logits, y)  # g = (p - 1, 1 - p), p = 1 / (1 + exp(-3)); (dW) h = (-3, 0)
        tensor([0.1423])

    Source: SADA (Yang et al. 2025), as publicly described.
    """

    def __init__(self, model: nn.Module, head: str | None = None) -> None:
        name, layer = head_of(unwrapped(model), head)
        if not isinstance(layer, nn.Linear):
            raise TypeError(
                f"head {name!r} must be an nn.Linear, got {kind(layer)}. Name the last linear "
                'layer, or use StableInfluence("loss"), which needs none.'
            )
        if not layer.weight.requires_grad:
            raise ValueError(
                f"head {name!r} must be trained, got one that is frozen, along whose steps every "
                'influence is 0. Unfreeze it before, or use StableInfluence("loss").'
            )
        self._layer, self._tap = layer, Tap(name, layer)
        self._weights = self._now()
        self._change = torch.zeros_like(self._weights)  # theta_{t-1} - theta_t

    def __enter__(self) -> HeadInfluence:
        """Begin a forward pass: see what has changed since the one before, and listen."""
        now = self._now()
        before, change = (part.to(now.device) for part in (self._weights, self._change))
        moved = (now != before).any()  # asked of the device: a GPU is not waited for
        self._weights, self._change = now, torch.where(moved, before - now, change)
        self._tap.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """End the forward pass."""
        self._tap.__exit__(*error)

    @torch.no_grad()
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the influence of each sample of the last forward pass, before or after its step.

        Args:
            logits: (b, C) that the model returned.
            target: (b,) class labels, or (b, C) floating probabilities.

        Returns:
            (b,) float32, signed, on the model's device.

        Raises:
            TypeError, ValueError: outputs of another layer, labels out of range.
            RuntimeError: no forward pass in the block, or this one was asked for already.

        Cost: O(b C d); on a GPU it waits for the check of the labels.
        """
        h = self._tap.features(logits.detach())
        self._tap.require_same()
        if target.shape == logits.shape and target.is_floating_point():
            g = logits.detach().float().softmax(1) - target.to(logits.device).float()
        else:
            g = residual(logits.detach(), target)
        with computed_in(h.device, None):
            return head_influence(g, h, self._change)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the weights of the last pass and of their last change."""
        parts = {"weights": self._weights, "change": self._change}
        return signed({"version": _VERSION, **{name: part.clone() for name, part in parts.items()}})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that ``state_dict`` returned.

        Raises:
            TypeError, ValueError: another version, a head of another shape, or a state that is not
                whole. Nothing has changed then.
        """
        keys, steps = {"version", "weights", "change"}, {1: lambda saved: {**saved, "version": 2}}
        state = require_state("HeadInfluence", state, _VERSION, keys, steps)
        mine = tuple(self._weights.shape)
        found = [tuple(getattr(state[name], "shape", ())) for name in ("weights", "change")]
        if found != [mine, mine]:
            raise ValueError(
                f"state must be of a head of {mine} parameters, got {found[0]}. Load it with the "
                "model that it was saved with."
            )
        require_fields(state, dict.fromkeys(("weights", "change"), Rows(torch.float32, mine)))
        home = device_of(self._layer)
        self._weights, self._change = (state[k].clone().to(home) for k in ("weights", "change"))

    def _now(self) -> Tensor:
        """Return the head's parameters, (C, d) or with a bias (C, d + 1), a copy in float32."""
        bias, weight = self._layer.bias, self._layer.weight.detach().float()
        if bias is None:
            return weight.clone()
        return torch.cat([weight, bias.detach().float()[:, None]], 1)
