"""The precision that forward passes are computed in: the training's, or another on request."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

_HALVES = (torch.bfloat16, torch.float16)
_CPUS = ("AVX512", "AMX", "SVE")  # that compute in bfloat16


def autocast_dtype(device: torch.device, autocast: bool | torch.dtype | None) -> torch.dtype | None:
    """Return what torch.autocast is to cast to on a device; None where it is to be off.

    Args:
        device: of the model.
        autocast: None follows the torch.autocast that is active for the device now; True is
            bfloat16 where the device computes in it, else float16, and off on a CPU that would
            emulate both; a dtype is taken; False is off.

    Raises:
        ValueError: anything else; a device that has no autocast, where it is asked for.

    Example:
        >>> cpu = torch.device("cpu")
        >>> autocast_dtype(cpu, None), autocast_dtype(cpu, torch.float16)
        (None, torch.float16)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     autocast_dtype(cpu, None), autocast_dtype(cpu, False)
        (torch.bfloat16, None)
    """
    if not (autocast is None or isinstance(autocast, bool) or autocast in _HALVES):
        raise ValueError(
            "autocast must be None, True, False, torch.bfloat16 or torch.float16, got "
            f"{autocast!r}. None follows the torch.autocast around the call."
        )
    kind = device.type
    known = torch.amp.is_autocast_available(kind)
    if autocast is None:
        on = known and torch.is_autocast_enabled(kind)
        return torch.get_autocast_dtype(kind) if on else None
    if autocast is False:
        return None
    if not known:
        raise ValueError(
            f"autocast must be None or False on {kind}, which has none, got {autocast!r}. Leave it "
            "out."
        )
    if isinstance(autocast, torch.dtype):
        return autocast
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    if kind == "cpu":  # others emulate it: ResNet-8 took ten times float32's seconds with AVX2
        capability = torch.backends.cpu.get_cpu_capability()
        return torch.bfloat16 if capability.startswith(_CPUS) else None
    return torch.float16 if kind == "mps" else torch.bfloat16


def computed_in(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Return a context for a forward pass in what ``autocast_dtype`` returned.

    Nothing is kept of the weights that are cast in it: a pass without gradients must not hand its
    casts on to the training's.
    """
    known = torch.amp.is_autocast_available(device.type)
    if not known or (dtype is None and not torch.is_autocast_enabled(device.type)):
        return nullcontext()
    if dtype is None:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype, cache_enabled=False)
