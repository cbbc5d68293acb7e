from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from torch import Tensor

from augloader.augment.pixels import rows
from augloader.augment.pixels.colour import equalize_table, recolour
from augloader.augment.pixels.ops import (
    AUTO_CONTRAST,
    BRIGHTNESS,
    COLOR,
    COLOUR,
    CONTRAST,
    EQUALIZE,
    GEOMETRY,
    IDENTITY,
    INVERT,
    OPS,
    POSTERIZE,
    SHARPNESS,
    SOLARIZE,
)
from augloader.augment.pixels.rows import put_, take, to_levels
from tests.pretend_cuda import pretend_cuda
from tests.reference import as_dtype, sample_images, torchvision_operation

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("smooth", "noise", "flat", "few", "extreme")
# Sums of several values, which may be rounded in another order.
SUMS = (CONTRAST, COLOR, SHARPNESS)
each = pytest.mark.parametrize("op", COLOUR, ids=lambda op: OPS[op])


def magnitudes(op: int, rows: int, seed: int = 0) -> Tensor:
    """Magnitudes over the operation's whole range, its ends among them."""
    u = torch.rand(rows, generator=torch.Generator().manual_seed(seed))
    u[:2] = torch.tensor([0.0, 1.0])[:rows]
    if op == POSTERIZE:
        return (8 * u).round()
    return u if op == SOLARIZE else 2 * u - 1


def alike(images: Tensor, op: int, magnitude: Tensor) -> Tensor:
    """Recolour every image by one operation."""
    return recolour(images, torch.full((len(images), 1), op), magnitude[:, None])


def expected(images: Tensor, op: int, magnitude: Tensor) -> Tensor:
    pairs = zip(images, magnitude.tolist(), strict=True)
    return torch.stack([torchvision_operation(image, op, m) for image, m in pairs])


def assert_levels(out: Tensor, like: Tensor, share: float) -> None:
    """uint8 values differ by one level at most, and no more than a share of them."""
    difference = (out.int() - like.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() <= share


@each
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 32, 32), (1, 17, 23), (3, 97, 64), (3, 3, 3), (3, 1, 2)]
)
def test_uint8_values_are_torchvisions(op: int, channels: int, height: int, width: int) -> None:
    rows = 20 if height * width < 2000 else 4
    images = torch.cat([sample_images(kind, rows, channels, height, width) for kind in KINDS])
    images = as_dtype(images, torch.uint8)
    magnitude = magnitudes(op, len(images))
    out = alike(images, op, magnitude)
    assert_levels(out, expected(images, op, magnitude), 1e-3 if op in SUMS else 0.0)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float_values_are_torchvisions(op: int, dtype: torch.dtype) -> None:
    for channels, height, width in ((3, 32, 32), (1, 17, 23), (3, 2, 5)):
        images = torch.cat([sample_images(kind, 5, channels, height, width) for kind in KINDS])
        images = images.to(dtype)
        magnitude = magnitudes(op, len(images))
        out = alike(images, op, magnitude)
        assert out.dtype == dtype
        torch.testing.assert_close(out, expected(images, op, magnitude), rtol=0, atol=3e-7)


@each
def test_large_images(op: int) -> None:
    images = as_dtype(torch.cat([sample_images(k, 1, 3, 224, 224) for k in KINDS]), torch.uint8)
    magnitude = magnitudes(op, len(images))
    out = alike(images, op, magnitude)
    assert_levels(out, expected(images, op, magnitude), 1e-3 if op in SUMS else 0.0)


@pytest.mark.parametrize("op", [SOLARIZE, POSTERIZE, BRIGHTNESS])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_level_at_every_published_magnitude(op: int, dtype: torch.dtype) -> None:
    levels = torch.arange(256).view(1, 1, 16, 16)
    levels = levels.to(dtype) if dtype == torch.uint8 else levels.float() / 255
    published = {
        SOLARIZE: [*torch.linspace(1, 0, 31).tolist(), *torch.linspace(1, 0, 10).tolist()],
        POSTERIZE: list(range(9)),
        BRIGHTNESS: [s * m for m in torch.linspace(0, 0.99, 31).tolist() for s in (-1, 1)],
    }[op]
    images = levels.repeat(len(published), 1, 1, 1)
    magnitude = torch.tensor(published)
    assert torch.equal(alike(images, op, magnitude), expected(images, op, magnitude))


@pytest.mark.parametrize("op", SUMS, ids=lambda op: OPS[op])
def test_sums_at_every_published_magnitude(op: int) -> None:
    """Whole tenths put sums on whole levels, where rounding in two steps shows."""
    images = as_dtype(sample_images("noise", 1, 3, 24, 24), torch.uint8)
    for largest, bins in ((0.9, 10), (0.9, 31), (0.99, 31)):
        published = torch.linspace(0, largest, bins)
        magnitude = torch.cat([published, -published])
        rows = images.expand(len(magnitude), -1, -1, -1)
        out, like = alike(rows, op, magnitude), expected(rows, op, magnitude)
        for i in range(len(magnitude)):
            assert_levels(out[i], like[i], 1e-3)


def test_a_threshold_above_white_leaves_white_alone() -> None:
    white = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    assert alike(white, SOLARIZE, torch.tensor([256 / 255]))[0, 0, 0, 0] == 255
    assert alike(white / 255, SOLARIZE, torch.tensor([256 / 255]))[0, 0, 0, 0] == 1
    assert alike(white, SOLARIZE, torch.tensor([1.0]))[0, 0, 0, 0] == 0


@pytest.mark.parametrize("op", [BRIGHTNESS, CONTRAST, COLOR, SHARPNESS])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_magnitude_zero_is_neutral(op: int, dtype: torch.dtype) -> None:
    images = as_dtype(torch.cat([sample_images(k, 4, 3, 9, 11) for k in KINDS]), dtype)
    assert torch.equal(alike(images, op, torch.zeros(len(images))), images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("large", [False, True])
def test_rows_of_a_mixed_batch_are_independent(
    dtype: torch.dtype, channels: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(rows, "_LARGE", 1000)  # one row at a time
    images = as_dtype(sample_images("smooth", 150, channels, 32, 32), dtype)
    generator = torch.Generator().manual_seed(0)
    op = torch.randint(len(OPS), (150, 2), generator=generator)
    op[:100, 0] = torch.tensor([EQUALIZE, SHARPNESS]).repeat_interleave(50)
    magnitude = torch.rand(150, 2, generator=generator)
    out = recolour(images, op, magnitude)
    for i in torch.randperm(150, generator=generator)[:40].tolist():
        alone = recolour(images[i : i + 1], op[i : i + 1], magnitude[i : i + 1])
        assert torch.equal(out[i], alone[0]), op[i]
        steps = recolour(images[i : i + 1], op[i : i + 1, :1], magnitude[i : i + 1, :1])
        assert torch.equal(recolour(steps, op[i : i + 1, 1:], magnitude[i : i + 1, 1:]), alone)
    order = torch.randperm(150, generator=generator)
    assert torch.equal(recolour(images[order], op[order], magnitude[order]), out[order])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_other_rows_are_untouched(dtype: torch.dtype) -> None:
    images = as_dtype(sample_images("noise", 8, 3, 6, 7), dtype)
    op = torch.tensor([[IDENTITY, *GEOMETRY, INVERT, IDENTITY]]).T
    before = images.clone()
    out = recolour(images, op, torch.ones(8, 1))
    assert torch.equal(images, before)
    assert torch.equal(out[[0, 1, 2, 3, 4, 5, 7]], images[[0, 1, 2, 3, 4, 5, 7]])
    assert not torch.equal(out[6], images[6])


@each
def test_any_memory_layout(op: int) -> None:
    images = as_dtype(sample_images("smooth", 6, 3, 9, 8), torch.uint8)
    magnitude = magnitudes(op, 6)
    plain = alike(images, op, magnitude)
    last = images.clone(memory_format=torch.channels_last)
    assert torch.equal(alike(last, op, magnitude), plain)
    wide = torch.zeros(6, 3, 9, 20, dtype=torch.uint8)
    wide[..., 5:13] = images
    assert torch.equal(alike(wide[..., 5:13], op, magnitude), plain)
    assert not wide[..., :5].any()
    assert not wide[..., 13:].any()


@each
def test_no_rows(op: int) -> None:
    images = torch.zeros(0, 3, 5, 5, dtype=torch.uint8)
    assert alike(images, op, torch.zeros(0)).shape == (0, 3, 5, 5)


def test_equalize_tables_are_pillows() -> None:
    generator = np.random.default_rng(0)
    for trial in range(40):
        spread = generator.integers(1, 257)
        pixels = generator.integers(0, spread, (generator.integers(1, 60), 37)).astype(np.uint8)
        table = equalize_table(torch.from_numpy(np.bincount(pixels.ravel(), minlength=256)))
        by_pillow = np.asarray(PIL.ImageOps.equalize(PIL.Image.fromarray(pixels)))
        assert table.dtype == torch.uint8
        assert np.array_equal(table.numpy()[pixels], by_pillow), trial


def test_flat_images_stay() -> None:
    flat = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    for op in (AUTO_CONTRAST, EQUALIZE, SHARPNESS):
        assert torch.equal(alike(flat, op, torch.full((256,), 0.7)), flat)


def test_take_put_and_to_levels() -> None:
    images = torch.arange(12.0).view(3, 1, 2, 2)
    rows = torch.tensor([2, 0])
    taken = take(images, rows)
    assert torch.equal(taken, images[[2, 0]])
    put_(images, rows, -taken)
    assert images[:, 0, 0, 0].tolist() == [0, 4, -8]
    like = torch.zeros(1, dtype=torch.uint8)
    assert to_levels(torch.tensor([0.0, 0.99, 254.99, 255.0]), like).tolist() == [0, 0, 254, 255]
    assert to_levels(torch.tensor([0.99]), torch.zeros(1).double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_no_operation_waits_for_a_gpu(dtype: torch.dtype) -> None:
    images = as_dtype(sample_images("smooth", len(COLOUR), 3, 9, 11), dtype)
    op, magnitude = torch.tensor(COLOUR)[:, None], torch.full((len(COLOUR), 1), 0.5)
    expected = recolour(images, op, magnitude)
    with pretend_cuda() as gpu:
        there = images.to("cuda")
        gpu.clear()
        out = recolour(there, op, magnitude)
        assert not gpu.waits, gpu.report()
        assert torch.equal(out.cpu(), expected)
