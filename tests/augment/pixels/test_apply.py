"""From parameters to pixels: output types, cut-outs, mixtures, and what CUDA is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from augloader.augment.pixels import apply as applying
from augloader.augment.pixels import fused
from augloader.augment.pixels.apply import Output, apply_params
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.geometry import Interpolation
from augloader.augment.policies import POLICIES, Params, Policy
from tests.pretend_cuda import pretend_cuda
from tests.reference import SUMS_ROUND_ONCE, as_dtype, sample_images

SHAPE = (24, 3, 16, 18)


def drawn(name: str, shape: tuple[int, int, int, int] = SHAPE, **options: Any) -> Params:
    policy: Policy = POLICIES[name](**options)
    generator = np.random.default_rng(0)
    return policy.draw(generator.random((shape[0], policy.uniforms)), np.ones(shape[0]), shape)


def images(dtype: torch.dtype = torch.uint8) -> Tensor:
    return as_dtype(sample_images("smooth", *SHAPE), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("source", [torch.uint8, torch.float32])
def test_output_is_scaled_and_normalised(dtype: torch.dtype, source: torch.dtype) -> None:
    before = images(source)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    wide = v2.functional.to_dtype(before, torch.float64, scale=True)
    tolerance: dict[str, Any] = {
        "rtol": 0,
        "atol": 8 * torch.finfo(dtype).eps + 4e-7 * (dtype != torch.float64),
    }
    plain = Output(dtype).of(before)
    assert plain.dtype == dtype
    torch.testing.assert_close(plain.double(), wide, **tolerance)
    normal = Output(dtype, mean, std).of(before)
    expected = v2.functional.normalize(wide, list(mean), list(std))
    torch.testing.assert_close(normal.double(), expected, **tolerance)
    one = Output(dtype, (0.5,), (0.5,)).of(before)
    torch.testing.assert_close(one.double(), 2 * wide - 1, **tolerance)


def test_no_output_type_keeps_the_images() -> None:
    before = images()
    assert Output().of(before) is before
    assert not Output(torch.float32, (0.0, 0.0), (1.0,)).normalised
    assert Output(torch.float32, (0.0, 0.1), (1.0,)).normalised
    assert Output(torch.float32, (0.0,), (1.0, 2.0)).normalised


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fill", [(0.0,), (1.0, 0.25, 0.5)])
@pytest.mark.parametrize("name", ["cutout", "erasing"])
def test_boxes_are_filled(dtype: torch.dtype, fill: Sequence[float], name: str) -> None:
    before, params = images(dtype), drawn(name)
    kept = before.clone()
    out = apply_params(before, params, Output(), fill=tuple(fill))
    expected = before.clone()
    value = torch.tensor(fill).round() if dtype == torch.uint8 else torch.tensor(fill)
    assert params.boxes is not None
    for i, (top, left, bottom, right) in enumerate(params.boxes.tolist()):
        expected[i, :, top:bottom, left:right] = value.to(dtype).view(-1, 1, 1)
    assert torch.equal(out, expected)
    assert torch.equal(before, kept)
    assert not torch.equal(out, before)
    with pretend_cuda():
        there = apply_params(before.to("cuda"), params, Output(), fill=tuple(fill))
        assert torch.equal(there.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_a_mixture_is_the_weighted_sum_of_its_chains(dtype: torch.dtype) -> None:
    before, params = images(dtype), drawn("augmix")
    assert params.mix is not None
    exact = before.float() if dtype == torch.bfloat16 else before
    total = exact.double() * params.mix[:, 0].double().view(-1, 1, 1, 1)
    for m in range(params.op.shape[1]):
        chain = replace(params, op=params.op[:, m : m + 1], mix=None)
        chain = replace(chain, magnitude=params.magnitude[:, m : m + 1])
        part = apply_params(exact, chain, Output(), interpolation="bilinear")
        total += part.double() * params.mix[:, m + 1].double().view(-1, 1, 1, 1)
    out = apply_params(before, params, Output(), interpolation="bilinear")
    tolerance = 0.501 if dtype == torch.uint8 else 1e-6 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(out.double(), total, rtol=0, atol=tolerance)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", ["trivial", "rand", "auto", "augmix"])
def test_cuda_is_asked_for_the_same(
    name: str, interpolation: Interpolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels themselves are tested against ``apply_dense``, in tests/test_fused.py."""
    asked = []

    def apply_fused(batch: Tensor, *chain: Tensor, **options: Any) -> Tensor:
        asked.append(options)
        output = Output(options.pop("dtype", torch.uint8), options.pop("mean", None) or (0.0,))
        output = replace(output, std=options.pop("std", None) or (1.0,))
        made = apply_dense(batch, *chain, **options)
        return made if output.dtype == torch.uint8 else output.of(made)

    before, params = images(), drawn(name)
    normal = Output(torch.float32, (0.4,), (0.3,))
    options: dict[str, Any] = {"interpolation": interpolation, "fill": (9.0, 0.0, 255.0)}
    for output in (Output(), Output(torch.float16), normal):
        expected = apply_params(before, params, output, **options)
        with monkeypatch.context() as patch:
            patch.setattr(applying, "_fusible", lambda batch: batch.dtype == torch.uint8)
            patch.setattr(fused, "apply_fused", apply_fused)
            out = apply_params(before, params, output, **options)
        assert out.dtype == expected.dtype
        level = 1.1 * (1 if output.dtype is None else 1 / 255 / min(output.std))  # and float16
        gap = (out.double() - expected.double()).abs()
        # Without fused sums each of two operations may be a level off, and the second stretch it.
        assert gap.max() <= (level if SUMS_ROUND_ONCE else 3 * level)
        assert (gap > 1e-3 * level).double().mean() < (1e-3 if SUMS_ROUND_ONCE else 0.05)
    assert len(asked) >= 3


def test_float64_output_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_fusible", lambda batch: True)
    params = drawn("cutout")
    out = apply_params(images(), params, Output(torch.float64))
    assert out.dtype == torch.float64
