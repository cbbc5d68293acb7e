"""The kernels against the dense chains: on CUDA where there is some, else in Triton's interpreter.

The interpreter must be chosen before the kernels are defined, so the last test runs this file again
in another process.
"""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor

from augloader.augment.pixels import fused, ops
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.fused import apply_fused
from augloader.augment.pixels.geometry import Interpolation
from tests.augment.pixels.test_dense import MAGNITUDES, chains, differing, maps, photos, still

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# Interpreters before Triton 3.7 fail with later numpy.
OLD = fused.available() and tuple(map(int, version("triton").split(".")[:2])) < (3, 7)
LATE_NUMPY = tuple(map(int, version("numpy").split(".")[:2])) >= (2, 4)
HALVES = [torch.float16, torch.bfloat16]


jit, tl = vars(fused)["jit"], vars(fused)["tl"]  # untyped, and None without Triton


def _multiply_add(x: Any, out: Any) -> None:
    tl.store(out, tl.fma(tl.load(x), tl.load(x), tl.load(x + 1)))


def _rounds_twice() -> bool:
    """Whether the interpreter's fused multiply-add is two steps, as in Triton 3.8."""
    x, out = torch.tensor([1 + 2.0**-12, -1 - 2.0**-11]), torch.ones(1)
    jit(_multiply_add)[(1,)](x, out)  # 2^-24, rounded once
    return not out.any()


TWICE = INTERPRETED and fused.available() and _rounds_twice()


def both(*given: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Return what the kernels make and what they should."""
    out = apply_fused(*(x.to(DEVICE) for x in given), **options)
    return out.cpu(), apply_dense(*(x.cpu() for x in given), **options)


def every_operation(rows: int) -> tuple[Tensor, Tensor]:
    """Return chains of one operation: each of them, rows times."""
    op = torch.arange(len(ops.OPS)).repeat_interleave(rows)[:, None]
    magnitude = torch.full(op.shape, float("nan"))
    for number, values in MAGNITUDES.items():
        pick = torch.linspace(0, len(values) - 1, rows).long()
        magnitude[op == number] = values[pick]
    return op, magnitude


def require_close(out: Tensor, expected: Tensor, interpolation: str) -> None:
    """Raise unless outputs are equal, but for a few sums of a bilinear map's."""
    largest, share = differing(out, expected)
    assert out.dtype == expected.dtype
    if interpolation == "nearest" and not TWICE:
        assert largest == 0
    assert largest <= 1
    assert share <= (2e-3 if TWICE else 1e-3)


@pytest.mark.triton
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_every_operation_equals_dense(interpolation: Interpolation, channels: int) -> None:
    op, magnitude = every_operation(3)
    images, theta = photos(len(op), channels, (17, 23)), maps(len(op))
    fill = (0.0, 127.5, 255.0)[:channels]
    out, expected = both(images, op, magnitude, theta, interpolation=interpolation, fill=fill)
    require_close(out, expected, interpolation)


@pytest.mark.triton
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("channels", "size"), [(3, (16, 32)), (1, (5, 70)), (3, (1, 1))])
def test_chains_equal_dense(channels: int, size: tuple[int, int], length: int) -> None:
    images, theta, (op, magnitude) = photos(12, channels, size), maps(12), chains(12, length)
    out, expected = both(images, op, magnitude, theta, fill=(9.0,))
    require_close(out, expected, "nearest")


@pytest.mark.triton
@pytest.mark.parametrize("size", [(2, 2), (8, 8)])
def test_images_of_fewer_pixels_than_threads_equal_dense(size: tuple[int, int]) -> None:
    """A histogram of fewer lanes than threads once counted some pixels several times."""
    assert size[0] * size[1] < fused._LANES
    op, magnitude = every_operation(1)
    images, theta = photos(len(op), 3, size), maps(len(op))
    out, expected = both(images, op, magnitude, theta, fill=(9.0,))
    require_close(out, expected, "nearest")


@pytest.mark.triton
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_channels_last_images_stay_so(dtype: torch.dtype) -> None:
    images, theta, (op, magnitude) = photos(4, 3, (9, 35)), maps(4), chains(4, 2)
    given = [x.to(DEVICE) for x in (images, op, magnitude, theta)]
    plain = apply_fused(*given, fill=(0.0, 9.5, 255.0), dtype=dtype)
    last = given[0].contiguous(memory_format=torch.channels_last)
    out = apply_fused(last, *given[1:], fill=(0.0, 9.5, 255.0), dtype=dtype)
    assert plain.is_contiguous()
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, plain)


@pytest.mark.triton
def test_chains_of_colour_alone_equal_dense() -> None:
    """Every stage reads what the one before it left."""
    images, (op, magnitude) = photos(24, 3, (9, 14)), chains(24, 3, seed=1)
    op = op % len(ops.COLOUR) + ops.COLOUR[0]
    magnitude = magnitude.nan_to_num(0).clamp(0, 1)
    out, expected = both(images, op, magnitude, still(24))
    require_close(out, expected, "nearest")


@pytest.mark.triton
def test_statistics_are_of_the_whole_image() -> None:
    op = torch.tensor([[ops.CONTRAST], [ops.AUTO_CONTRAST], [ops.EQUALIZE]])
    size = (70, 61)
    assert size[0] * size[1] > fused._BLOCK
    images = photos(3, 3, size)
    images[:, :, -1, -1] = 255
    out, expected = both(images, op, torch.full((3, 1), 0.7), still(3))
    require_close(out, expected, "nearest")


@pytest.mark.triton
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_neutral_rows_stay_as_they_are(interpolation: Interpolation) -> None:
    op = torch.tensor([o for o in range(len(ops.OPS)) if o not in ops.GATED])[:, None]
    magnitude = torch.tensor([[ops.NEUTRAL.get(o, 0.0)] for o in op.flatten().tolist()])
    images = photos(len(op), 3, (9, 33))
    out, _ = both(images, op, magnitude, still(len(op)), interpolation=interpolation)
    assert torch.equal(out, images)


@pytest.mark.triton
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_levels_are_scaled_and_cast(dtype: torch.dtype) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 8, 32).expand(1, 3, 8, 32)
    chain = [x.to(DEVICE) for x in (levels, torch.zeros(1, 1).long(), torch.zeros(1, 1), still(1))]
    out = apply_fused(*chain, dtype=dtype).cpu()
    eps = torch.finfo(dtype).eps
    truncated = dtype == torch.bfloat16  # by the interpreter, not by the kernel
    off = 2 * eps if TWICE or (INTERPRETED and truncated) else 0
    torch.testing.assert_close(out, (levels / 255).to(dtype), rtol=off, atol=0)

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = apply_fused(*chain, mean=mean, std=std, dtype=dtype).cpu()
    m, s = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (mean, std))
    close = max(1e-6, eps)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), (levels / 255.0 - m) / s, rtol=close, atol=close / 4)


@pytest.mark.triton
def test_empty_batches_and_other_strides() -> None:
    images, theta, (op, magnitude) = photos(4, 3, (9, 14)), maps(4), chains(4, 2)
    out, expected = both(images[:0], op[:0], magnitude[:0], theta[:0])
    assert out.shape == expected.shape
    before = images.clone()
    strided = images.contiguous(memory_format=torch.channels_last)
    turned = (op.t().contiguous().t(), magnitude.t().contiguous().t())
    out, expected = both(strided, *turned, theta)
    require_close(out, expected, "nearest")
    assert torch.equal(images, before)


@pytest.mark.gpu
@pytest.mark.triton
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (97, 64), (224, 224)])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_large_batches_equal_dense(
    length: int, size: tuple[int, int], interpolation: Interpolation
) -> None:
    images, theta, (op, magnitude) = photos(128, 3, size), maps(128), chains(128, length)
    out, expected = both(images, op, magnitude, theta, interpolation=interpolation)
    require_close(out, expected, interpolation)


@pytest.mark.gpu
@pytest.mark.triton
def test_offsets_exceed_32_bits() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 16 * 2**30:
        pytest.skip("needs 16 GiB of GPU memory")
    rows = 2**31 // 4096**2 + 2
    images = photos(1, 1, (4096, 4096)).to(DEVICE).expand(rows, -1, -1, -1)
    op = torch.tensor([[ops.EQUALIZE, ops.SHARPNESS]], device=DEVICE).expand(rows, -1)
    theta = maps(3)[1:2].to(DEVICE).expand(rows, -1, -1)
    chain = (images, op, torch.full((rows, 2), 0.5, device=DEVICE), theta)
    out = apply_fused(*chain)
    expected = apply_dense(*(x[:1].cpu() for x in chain))[0]
    assert torch.equal(out[0].cpu(), expected)
    assert torch.equal(out[-1].cpu(), expected)


@pytest.mark.gpu
@pytest.mark.triton
def test_the_host_waits_for_nothing_and_graphs_capture_it() -> None:
    images, theta, (op, magnitude) = photos(60, 3, (17, 23)), maps(60), chains(60, 2)
    given = [x.cuda() for x in (images, op, magnitude, theta)]
    apply_fused(*given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        apply_fused(*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply_fused(*given)
    graph.replay()
    require_close(out.cpu(), apply_dense(images, op, magnitude, theta), "nearest")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dtype": torch.float64}, TypeError, "dtype must be one of"),
        ({"mean": (0.5,), "dtype": torch.float32}, ValueError, "must be given together"),
        ({"mean": (0.5,), "std": (0.5,)}, ValueError, "with a floating dtype"),
        ({"mean": (0, 0), "std": (1, 1), "dtype": torch.float32}, ValueError, "1 or 3 values"),
        ({"mean": (0,), "std": (0,), "dtype": torch.float32}, ValueError, "std above 0"),
        ({"interpolation": "bicubic"}, ValueError, "interpolation must be one of"),
    ],
)
def test_arguments_are_checked(options: Any, error: type[Exception], text: str) -> None:
    images, theta, (op, magnitude) = photos(2, 3, (4, 4)), still(2), chains(2, 1)
    with pytest.raises(error, match=text):
        apply_fused(images, op, magnitude, theta, **options)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter takes tensors on the CPU")
def test_needs_cuda() -> None:
    images, theta, (op, magnitude) = photos(2, 3, (4, 4)), still(2), chains(2, 1)
    with pytest.raises(RuntimeError, match=r"Use apply_dense\."):
        apply_fused(images, op, magnitude, theta)


@pytest.mark.skipif(INTERPRETED, reason="once is enough")
def test_triton_stays_optional() -> None:
    program = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "from augloader.augment.pixels import fused\n"
        "assert not fused.available()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


POINTERS = {"op": "*i64", "magnitude": "*fp32", "theta": "*fp32", "out": "*fp16"}
POINTERS |= dict.fromkeys(("images", "before", "tables"), "*u8")
SIZES = {"H": "i32", "W": "i32"}
COMPILED = {"C": 3, "K": 2, "BEHIND": 0, "BLOCK": 128, "TILE_Y": 16, "TILE_X": 32}
COMPILED |= {"LAST": True, "BILINEAR": True}


@pytest.mark.skipif(INTERPRETED, reason="once is enough")
@pytest.mark.skipif(not fused.available(), reason="needs Triton")
@pytest.mark.parametrize("name", ["_tables", "_render"])
def test_kernels_compile_for_a_gpu_whatever_fill_mean_and_std(name: str) -> None:
    """Triton needs no GPU to compile for one; what is no constant here is a number of the call."""
    compiler = import_module("triton.compiler")
    target = import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    kernel = vars(fused)[name]
    constants = {p.name: COMPILED[p.name] for p in kernel.params if p.is_constexpr}
    kinds = POINTERS | SIZES | dict.fromkeys(constants, "constexpr")
    signature = {p.name: kinds.get(p.name, "fp32") for p in kernel.params}
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert compiler.compile(source, target=target, options={"enable_fp_fusion": False})


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's run")
@pytest.mark.skipif(not fused.available(), reason="needs Triton")
@pytest.mark.skipif(OLD and LATE_NUMPY, reason="this Triton's interpreter needs numpy below 2.4")
def test_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([*command, __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
