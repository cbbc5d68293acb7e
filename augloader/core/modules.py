"""Helpers for a user's model: its modes, wrappers and device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from threading import Lock, get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_LOCK = Lock()
_HELD = dict[int, int]()  # the modules whose mode is to be given back, and by which thread


class AtOnce:
    """A function of many samples, until torch cannot compute it; from then on another, the same.

    vmap has no rule for some operations, as for a model in channels_last. A device whose memory
    does not suffice says so: one by one it would be another cost than the one that was planned.

    Example:
        >>> def lacking(x: Tensor) -> dict[str, Tensor]:
        ...     raise RuntimeError("vmap: no rule")
        >>> double = AtOnce(lacking, lambda x: {"rows": torch.stack([2 * row for row in x])})
        >>> double(torch.ones(2)), double.works
        ({'rows': tensor([2., 2.])}, False)
    """

    def __init__(
        self,
        at_once: Callable[..., dict[str, Tensor]],
        one_by_one: Callable[..., dict[str, Tensor]],
    ) -> None:
        self.at_once, self.one_by_one, self.works = at_once, one_by_one, True

    def __call__(self, *given: Any) -> dict[str, Tensor]:
        """Return what either function returns."""
        if self.works:
            try:
                return self.at_once(*given)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                self.works = False
        return self.one_by_one(*given)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module in torch.compile and DistributedDataParallel, which never communicates."""
    inner: Any = model
    while isinstance(inner, DistributedDataParallel) or hasattr(inner, "_orig_mod"):
        inner = inner.module if isinstance(inner, DistributedDataParallel) else inner._orig_mod
    found: nn.Module = inner
    return found


def copied(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, without what wraps it, for ``functional_call``.

    That does not give a module that has two names its parameters back, nor takes a DataParallel.
    """
    inner: nn.Module = unwrapped(model)
    if isinstance(inner, nn.DataParallel):
        inner = unwrapped(inner.module)
    return deepcopy(inner).eval()


def is_keras(module: object) -> bool:
    """Whether a module is a layer or model of Keras, known without importing it."""
    return any(kind.__module__.split(".")[0] == "keras" for kind in type(module).__mro__)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules in a model by name, and what Keras's models do not register as modules."""
    found = dict(model.named_modules())
    for name, module in list(found.items()):
        for layer in getattr(module, "layers", ()) if is_keras(module) else ():
            for inner, part in layers_of(layer).items():
                found[".".join(filter(None, (name, layer.name, inner)))] = part
    return found


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's first parameter or buffer is; the CPU where it has none."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, then give every module its own mode back.

    Raises:
        RuntimeError: another thread does so at present, and would give the mode back too early.
    """
    modules, me = list(model.modules()), get_ident()
    with _LOCK:
        if any(_HELD.get(id(module), me) != me for module in modules):
            raise RuntimeError(
                "model must be swept by one thread at a time, got a second one. Wait for the "
                "first, or sweep copy.deepcopy(model)."
            )
        taken = [id(module) for module in modules if id(module) not in _HELD]
        _HELD.update(dict.fromkeys(taken, me))
    modes = [(module, module.training) for module in modules]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with _LOCK:
            for number in taken:
                del _HELD[number]


def require_independent(model: nn.Module, inputs: Tensor, together: Tensor, advice: str) -> None:
    """Raise ValueError unless a model's outputs of a sample do not depend on the others.

    Args:
        model: in the mode and precision that it is used in.
        inputs: (b, ...), a few samples.
        together: (b, C), what the model returns for them.
        advice: what to do about it, a sentence.

    Raises:
        ValueError: alone a sample has other outputs, by more than a hundredth.

    Cost: b forward passes.
    """
    alone = torch.cat([model(inputs[i : i + 1]) for i in range(len(inputs))])
    scale = float(together.nan_to_num(0, 0, 0).abs().max())
    if not torch.allclose(alone, together, rtol=1e-2, atol=1e-2 * scale, equal_nan=True):
        raise ValueError(
            "model must return the same outputs for a sample whatever its batch, got others. "
            f"{advice}"
        )
