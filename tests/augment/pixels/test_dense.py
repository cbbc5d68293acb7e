"""The dense chains against torchvision's kernels, one image at a time."""

import shutil
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional._geometry import _affine_grid

from augloader.augment.pixels import ops
from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.geometry import Interpolation
from tests.reference import SUMS_ROUND_ONCE, require_nearest

SIZES = [(32, 32), (17, 23), (64, 48), (3, 5), (2, 7), (1, 1)]
STEPS = torch.linspace(-0.99, 0.99, 61)  # whole steps: many results fall on whole levels
MAGNITUDES = {
    **dict.fromkeys((ops.BRIGHTNESS, ops.CONTRAST, ops.COLOR, ops.SHARPNESS), STEPS),
    ops.SOLARIZE: torch.cat([torch.linspace(0, 1, 31), torch.tensor([256 / 255])]),
    ops.POSTERIZE: torch.tensor([0.0, 1.0, 3.9, 4.0, 7.0, 8.0]),
}
STILL = torch.eye(2, 3)


def photos(rows: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Noise, smooth images of a narrow range, flat images, and few levels, in turn."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, channels, *size)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    waves = torch.linspace(0, 3, size[1]).sin() * torch.linspace(0, 2, size[0]).cos()[:, None]
    kinds = [
        noise,
        (90 + 60 * waves + torch.arange(channels)[:, None, None]).to(torch.uint8).expand(shape),
        noise[..., :1, :1].expand(shape),
        (noise // 86) * 85,
    ]
    return torch.stack([kinds[i % 4][i] for i in range(rows)])


def oracle(image: Tensor, op: int, m: float) -> Tensor:
    """Return what torchvision does to one image."""
    flat = {
        ops.AUTO_CONTRAST: F.autocontrast,
        ops.EQUALIZE: F.equalize,
        ops.INVERT: F.invert,
    }
    scaled = {
        ops.BRIGHTNESS: F.adjust_brightness,
        ops.CONTRAST: F.adjust_contrast,
        ops.COLOR: F.adjust_saturation,
        ops.SHARPNESS: F.adjust_sharpness,
    }
    out: Any = image
    if op in flat:
        out = flat[op](image)
    elif op in scaled:
        out = scaled[op](image, 1 + m)
    elif op == ops.POSTERIZE:
        out = F.posterize(image, int(m))
    elif op == ops.SOLARIZE and m <= 1:
        out = F.solarize(image, 255 * m)
    return torch.as_tensor(out)


def still(rows: int) -> Tensor:
    return STILL.repeat(rows, 1, 1)


def maps(rows: int, seed: int = 0) -> Tensor:
    """Return random affine maps, some of whole pixels, some far away."""
    generator = torch.Generator().manual_seed(seed)
    theta = STILL + torch.randn(rows, 2, 3, generator=generator) * torch.tensor([0.5, 0.5, 5.0])
    theta[::5] = STILL
    theta[::5, :, 2] = torch.randint(-6, 7, theta[::5, :, 2].shape, generator=generator).float()
    theta[-1, :, 2] = 1e12
    return theta


def chains(rows: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random operations, geometric ones too, with magnitudes of their whole range."""
    generator = torch.Generator().manual_seed(seed)
    op = torch.randint(len(ops.OPS), (rows, length), generator=generator)
    magnitude = torch.empty(rows, length)
    for i, number in enumerate(op.flatten().tolist()):
        values = MAGNITUDES.get(number, torch.tensor([0.0, 30.0, float("nan")]))
        pick = torch.randint(len(values), (), generator=generator)
        magnitude.view(-1)[i] = values[pick]
    return op, magnitude


def differing(a: Tensor, b: Tensor) -> tuple[int, float]:
    """Return the largest difference and the share of values that differ."""
    apart = (a.int() - b.int()).abs()
    return int(apart.max()), float((apart > 0).float().mean())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", ops.COLOUR)
def test_colour_equals_torchvision(op: int, size: tuple[int, int], channels: int) -> None:
    magnitude = MAGNITUDES.get(op, torch.zeros(2)).repeat_interleave(4)[:, None]
    images = photos(len(magnitude), channels, size, seed=op)
    out = apply_dense(images, torch.full_like(magnitude, op).long(), magnitude, still(len(images)))
    expected = [oracle(x, op, m) for x, m in zip(images, magnitude.flatten().tolist(), strict=True)]
    largest, share = differing(out, torch.stack(expected))
    assert largest <= 1
    # Of less than a vector of values, or without fused sums, torchvision rounds twice.
    assert share <= (1e-3 if SUMS_ROUND_ONCE and size[0] * size[1] >= 256 else 0.05)


@pytest.mark.parametrize("length", [2, 3])
def test_chains_equal_torchvision_step_by_step(length: int) -> None:
    images, (op, magnitude) = photos(200, 3, (24, 31)), chains(200, length)
    out = apply_dense(images, op, magnitude, still(200))
    for i, expected in enumerate(images):
        for number, m in zip(op[i].tolist(), magnitude[i].tolist(), strict=True):
            expected = oracle(expected, number, m)
        # Without fused sums each operation may round 5 % of the values otherwise, as above.
        assert differing(out[i], expected)[1] <= (1e-3 if SUMS_ROUND_ONCE else 0.05 * length)


@pytest.mark.parametrize("size", [*SIZES, (224, 224)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_maps_equal_torchvision(interpolation: Interpolation, size: tuple[int, int]) -> None:
    images, theta = photos(20, 3, size), maps(20)
    identity = torch.zeros(20, 0).long()
    out = apply_dense(images, identity, identity.float(), theta, interpolation=interpolation)
    grids = [_affine_grid(t[None].clone(), size[1], size[0], size[1], size[0]) for t in theta]
    expected = torch.nn.functional.grid_sample(
        images.float(), torch.cat(grids), interpolation, "zeros", align_corners=False
    )
    largest, share = differing(out, like := expected.round().to(torch.uint8))
    if interpolation == "bilinear":
        assert share <= 1e-4
        assert largest <= 1
    else:
        last = torch.tensor([0.0, 0.0, 1.0]).expand(20, 1, 3)
        near = require_nearest(out, like, images, torch.cat([theta, last], 1).double())
        assert near[:-1].float().mean() < 1e-3  # the last map is where float32 has no fractions


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [(7.0,), (0.0, 127.5, 255.0)])
def test_fill_is_blended_in_from_outside(
    interpolation: Interpolation, fill: Sequence[float]
) -> None:
    images, theta = photos(20, 3, (17, 23)), maps(20)
    identity = torch.zeros(20, 0).long()
    # A frame of the fill's colour around the image shows the same.
    grounds = torch.tensor(fill).view(-1, 1, 1)
    framed = grounds.expand(20, 3, 57, 63).clone()
    framed[..., 20:-20, 20:-20] = images
    grids = [_affine_grid(t[None].clone(), 63, 57, 23, 17) for t in theta]
    expected = torch.nn.functional.grid_sample(
        framed - grounds, torch.cat(grids), interpolation, "zeros", align_corners=False
    )
    out = apply_dense(
        images, identity, identity.float(), theta, interpolation=interpolation, fill=fill
    )
    largest, share = differing(out, (expected + grounds).round().to(torch.uint8))
    # Positions in an image of another size differ in the last bit; there "nearest" may jump.
    assert share <= 1e-3
    assert largest <= 1 or interpolation == "nearest"


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [*SIZES, (224, 224), (1, 4096), (4096, 1)])
def test_neutral_rows_stay_as_they_are(interpolation: Interpolation, size: tuple[int, int]) -> None:
    op = torch.tensor([o for o in range(len(ops.OPS)) if o not in ops.GATED])[:, None]
    magnitude = torch.tensor([[ops.NEUTRAL.get(o, 0.0)] for o in op.flatten().tolist()])
    images = photos(len(op), 3, size)
    out = apply_dense(images, op, magnitude, still(len(op)), interpolation=interpolation)
    assert torch.equal(out, images)
    assert out.data_ptr() != images.data_ptr()


def test_rows_do_not_depend_on_each_other() -> None:
    images, theta, (op, magnitude) = photos(30, 3, (17, 23)), maps(30), chains(30, 2)
    whole = apply_dense(images, op, magnitude, theta)
    single = [
        apply_dense(*(x[i : i + 1] for x in (images, op, magnitude, theta))) for i in range(30)
    ]
    assert torch.equal(whole, torch.cat(single))


def test_images_are_not_modified_and_may_have_any_strides() -> None:
    images, theta, (op, magnitude) = photos(30, 3, (17, 23)), maps(30), chains(30, 2)
    before = images.clone()
    out = apply_dense(images, op, magnitude, theta)
    assert torch.equal(images, before)
    strided = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(apply_dense(strided, op, magnitude, theta), out)


def test_empty_batches() -> None:
    images, theta, (op, magnitude) = photos(1, 3, (17, 23)), maps(1), chains(1, 2)
    out = apply_dense(images[:0], op[:0], magnitude[:0], theta[:0])
    assert out.shape == (0, 3, 17, 23)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_to_one_graph(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    images, theta, (op, magnitude) = photos(60, 3, (17, 23)), maps(60), chains(60, 2)
    torch.compiler.reset()
    compiled = torch.compile(apply_dense, fullgraph=True, backend=backend)
    out = compiled(images, op, magnitude, theta)
    assert differing(out, apply_dense(images, op, magnitude, theta))[1] <= 1e-3


@pytest.mark.gpu
def test_runs_in_a_cuda_graph() -> None:
    images, theta, (op, magnitude) = photos(60, 3, (17, 23)), maps(60), chains(60, 2)
    expected = apply_dense(images, op, magnitude, theta)
    given = [x.cuda() for x in (images, op, magnitude, theta)]
    apply_dense(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply_dense(*given)
    graph.replay()
    assert differing(out.cpu(), expected)[1] <= 1e-3


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, TypeError, "images must be a torch.uint8 tensor"),
        ({"images": torch.zeros(2, 4, 4, 4).byte()}, ValueError, "images must be"),
        ({"op": torch.zeros(2, 1)}, TypeError, "op must be a torch.int64 tensor"),
        ({"op": torch.zeros(3, 1).long()}, ValueError, r"op must be \(2, K\)"),
        ({"magnitude": torch.zeros(2, 2)}, ValueError, r"magnitude must be \(2, 1\)"),
        ({"theta": torch.zeros(2, 3, 3)}, ValueError, r"theta must be \(2, 2, 3\)"),
        ({"interpolation": "bicubic"}, ValueError, "interpolation must be one of"),
        ({"fill": (0.0, 0.0)}, ValueError, "fill must be 1 or 3 values"),
        ({"fill": (256.0,)}, ValueError, "fill must be 1 or 3 values"),
    ],
)
def test_arguments_are_checked(changed: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments: dict[str, Any] = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "op": torch.zeros(2, 1, dtype=torch.int64),
        "magnitude": torch.zeros(2, 1),
        "theta": still(2),
    }
    with pytest.raises(error, match=text):
        apply_dense(**(arguments | changed))
