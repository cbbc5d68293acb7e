"""Fused kernels are used where Triton compiles them; else dense chains make the same, said once."""

from __future__ import annotations

import warnings
from subprocess import CalledProcessError
from typing import Any

import pytest
import torch
from torch import Tensor

from augloader.augment.pixels import fused, kernels
from augloader.augment.pixels.apply import Output, apply_params
from tests.augment.pixels.test_apply import drawn, images
from tests.pretend_cuda import pretend_cuda


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_refused", [])


def failing(error: Exception, calls: list[int]) -> Any:
    def apply_fused(*given: Any, **options: Any) -> Tensor:
        calls.append(1)
        raise error

    return apply_fused


class CompilationError(Exception):
    """As Triton's, known by where it is defined."""


CompilationError.__module__ = "triton.compiler.errors"
ERRORS = [
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    CalledProcessError(1, ["gcc", "main.c"]),
    FileNotFoundError("ptxas"),
    AssertionError("libcuda.so cannot found!"),
    ImportError("cuda_utils.so: cannot open shared object file"),
    CompilationError("at 3:4"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", ["trivial", "augmix"])
def test_dense_chains_stand_in_and_it_is_said_once(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(fused, "available", lambda: True)
    monkeypatch.setattr(fused, "apply_fused", failing(error, calls))
    before, params, output = images(), drawn(name), Output(torch.float32, (0.4,), (0.3,))
    expected = apply_params(before, params, output)
    with pretend_cuda() as gpu:
        there = before.to("cuda")
        with pytest.warns(UserWarning, match="without the fused kernels") as told:
            out = apply_params(there, params, output)
        gpu.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = apply_params(there, params, output)
        assert not gpu.waits, gpu.report()
        found = [x.cpu() for x in (out, again)]
    assert len(told) == len(calls) == 1
    assert type(error).__name__ in str(told[0].message)
    assert torch.equal(*found)
    gap = (found[0] - expected).abs() * 255 * 0.3
    assert gap.max() <= 3.3
    assert (gap > 0.01).float().mean() < 0.05


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "available", lambda: False)
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert not kernels.usable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernels.usable()


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("2 GiB"), torch.AcceleratorError("illegal"), ValueError("fill must")],
)
def test_other_errors_are_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "available", lambda: True)
    monkeypatch.setattr(fused, "apply_fused", failing(error, []))
    with pytest.raises(type(error)):
        kernels.apply_fused(images())
    assert kernels.usable()
