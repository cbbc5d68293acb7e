"""Which precision a forward pass takes: the one around the call, or one that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from augloader.core.precision import autocast_dtype, computed_in

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
def test_none_follows_what_is_active_for_the_device(dtype: torch.dtype) -> None:
    assert autocast_dtype(CPU, None) is None
    with torch.autocast("cpu", dtype):
        assert autocast_dtype(CPU, None) == dtype
        with torch.autocast("cpu", enabled=False):
            assert autocast_dtype(CPU, None) is None


def test_anothers_autocast_is_not_the_devices() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(CUDA, None) is None


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_asked_for_is_taken_whatever_is_active(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype(CPU, False) is None
        assert autocast_dtype(CPU, dtype) == dtype


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_true_is_bfloat16_where_the_device_computes_in_it(
    able: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: able)
    assert autocast_dtype(CUDA, True) == dtype
    assert autocast_dtype(torch.device("mps"), True) == torch.float16


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ("DEFAULT", None),
        ("AVX2", None),
        ("AVX512", torch.bfloat16),
        ("AMX", torch.bfloat16),
        ("SVE256", torch.bfloat16),
    ],
)
def test_true_is_off_on_a_cpu_that_would_emulate(
    capability: str, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert autocast_dtype(CPU, True) == dtype
    with torch.autocast("cpu", torch.float16):
        assert autocast_dtype(CPU, True) == dtype


@pytest.mark.parametrize("autocast", [torch.float32, "bf16", 2, torch.float64])
def test_anything_else_raises(autocast: Any) -> None:
    with pytest.raises(ValueError, match="autocast must be None, True, False"):
        autocast_dtype(CPU, autocast)


def test_a_device_without_autocast() -> None:
    meta = torch.device("meta")
    assert autocast_dtype(meta, None) is None
    assert autocast_dtype(meta, False) is None
    with pytest.raises(ValueError, match="None or False on meta"):
        autocast_dtype(meta, True)
    with computed_in(meta, None):
        pass


def test_a_forward_pass_is_computed_in_it() -> None:
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with computed_in(CPU, None):
            assert layer(x).dtype == torch.float32
        with torch.no_grad(), computed_in(CPU, torch.float16):
            assert layer(x).dtype == torch.float16
        assert layer(x).dtype == torch.bfloat16
        assert layer(x).requires_grad
