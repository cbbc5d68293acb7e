"""Whether the fused kernels can be used: Triton compiles them where they first run, or never."""

from __future__ import annotations

from subprocess import CalledProcessError
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from augloader.augment.pixels import fused

_BROKEN = (AssertionError, CalledProcessError, ImportError, OSError, RuntimeError)  # of Triton
_refused: list[str] = []  # why they are not used, in this process


def usable() -> bool:
    """Return whether the kernels can be used, as far as is known; warn once where they cannot."""
    if not fused.available() and not _refused:
        _refuse("Triton is not installed")
    return not _refused


def apply_fused(images: Tensor, *chain: Tensor, **options: Any) -> Tensor | None:
    """Return what ``fused.apply_fused`` does; None, and one warning, where it cannot compile.

    Raises:
        torch.OutOfMemoryError, torch.AcceleratorError: of the device, not of the compiler.
        TypeError, ValueError: as ``fused.apply_fused``.
    """
    try:
        return fused.apply_fused(images, *chain, **options)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        if not isinstance(error, _BROKEN) and not type(error).__module__.startswith("triton"):
            raise
        _refuse(f"{type(error).__name__}: {str(error).strip()[:300]}")
        return None


def _refuse(reason: str) -> None:
    _refused.append(reason)
    warn(
        "uint8 images on CUDA are augmented without the fused kernels, to the same levels but "
        f"more slowly: {reason}. Install triton, a C compiler (gcc, or one that the environment "
        "variable CC names) and Python's headers.",
        stacklevel=2,
    )
