from __future__ import annotations

import copy
import pickle

import pytest
import torch

from augloader.augment.images import (
    DTYPES,
    RangeCheck,
    laid_out_as,
    require_channels,
    require_fill,
    require_images,
)
from tests.pretend_cuda import pretend_cuda


def test_what_is_taken() -> None:
    for dtype in DTYPES:
        for shape in ((3, 4, 5), (2, 3, 4, 5), (0, 3, 4, 5)):
            images = torch.ones(shape).to(dtype)
            require_images(images)
            RangeCheck()(images)
            require_fill((1.0, 0.0, 0.5), images)
    require_channels("mean", (0.5,), 4)
    require_channels("mean", (0.5,) * 4, 4)


def test_errors() -> None:
    with pytest.raises(TypeError, match="images must be a uint8 or floating tensor, got"):
        require_images(torch.zeros(1, 3, 4, 4, dtype=torch.int32))
    with pytest.raises(
        ValueError, match=r"images must be \(B, C, H, W\) or \(C, H, W\), got shape"
    ):
        require_images(torch.zeros(4, 4))
    for value in (-0.1, 1.1, torch.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\] .*Augment .* by images\.clamp\(0, 1\)"):
            RangeCheck()(torch.full((1, 3, 4, 4), value))
    with pytest.raises(ValueError, match="mean must be one number or one for each of 3 channels"):
        require_channels("mean", (0.5,) * 2, 3)
    with pytest.raises(ValueError, match=r"fill must be in \[0, 255\] for torch.uint8 images, got"):
        require_fill((256.0,), torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_gpu_is_not_waited_for_and_a_later_call_raises(dtype: torch.dtype) -> None:
    check, good = RangeCheck(), torch.rand(2, 3, 4, 4).to(dtype)
    with pretend_cuda() as gpu:
        there, bad = good.to("cuda"), (good + 1.5).to("cuda")
        gpu.clear()
        check(there)
        check(there)
        check(bad)
        with pytest.raises(ValueError, match=r"in \[0, 1\] .* of an earlier batch from 1\.\d"):
            check(there)
        check(there.byte())
        check.arrived()
        assert not gpu.waits, gpu.report()
        bad[0, 0, 0, 0] = torch.nan
        check(bad)
        with pytest.raises(ValueError, match="from nan to nan"):
            check.arrived()
        check.arrived()


def test_checks_under_way_stay_where_they_are() -> None:
    check = RangeCheck()
    with pretend_cuda():
        check(torch.full((1, 1, 2, 2), 9.0).to("cuda"))
        for other in (copy.deepcopy(check), pickle.loads(pickle.dumps(check))):
            other.arrived()
        with pytest.raises(ValueError, match="from 9 to 9"):
            check.arrived()


def test_nothing_is_checked_in_a_capture() -> None:
    check = RangeCheck()
    with pretend_cuda():
        images = torch.full((1, 1, 2, 2), 9.0).to("cuda")
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            check(images)
        check.arrived()


def test_memory_format() -> None:
    out, last = torch.rand(2, 3, 4, 5), torch.channels_last
    kept = laid_out_as(torch.rand(2, 3, 4, 5).contiguous(memory_format=last), out)
    assert kept.is_contiguous(memory_format=last)
    assert torch.equal(kept, out)
    for other in (torch.rand(2, 3, 4, 5), torch.rand(2, 3, 5, 4).mT, torch.rand(2, 1, 4, 5)):
        assert laid_out_as(other, out) is out
