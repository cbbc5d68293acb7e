from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as TF

from augloader.augment.pixels import rows as row_helpers
from augloader.augment.pixels.geometry import (
    Interpolation,
    _grid,
    compose,
    moved_rows,
    warp_,
    warp_mask,
    warp_points,
)
from augloader.augment.pixels.ops import (
    BRIGHTNESS,
    GEOMETRY,
    IDENTITY,
    OPS,
    ROTATE,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
)
from tests.reference import (
    as_dtype,
    naive_warp,
    require_nearest,
    sample_images,
    torchvision_operation,
)

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(3, 32, 32), (1, 17, 23), (3, 97, 64), (3, 64, 97), (1, 1, 5)]
each = pytest.mark.parametrize("op", GEOMETRY, ids=lambda op: OPS[op])


def magnitudes(op: int, rows: int, seed: int = 0) -> Tensor:
    """Magnitudes over the published range, its ends and special angles among them."""
    u = 2 * torch.rand(rows, generator=torch.Generator().manual_seed(seed)) - 1
    u[:2] = torch.tensor([-1.0, 1.0])[:rows]
    if op in (SHEAR_X, SHEAR_Y):
        return 0.99 * u
    if op in (TRANSLATE_X, TRANSLATE_Y):
        return (32 * u).trunc()
    special = torch.tensor([90.0, -90.0, 180.0, -180.0, 270.0, 360.0, 45.0, 30.0, 0.0])
    return torch.cat([special, 135 * u])[:rows]


def warp(
    images: Tensor,
    op: int,
    magnitude: Tensor,
    interpolation: Interpolation = "nearest",
    fill: tuple[float, ...] = (0.0,),
) -> Tensor:
    matrix = compose(torch.full((len(images), 1), op), magnitude[:, None], *images.shape[2:])
    return warp_(images.clone(), torch.arange(len(images)), matrix, interpolation, fill)


def require_torchvisions(
    images: Tensor, op: int, magnitude: Tensor, fill: tuple[float, ...] | None = None
) -> Tensor:
    """Raise unless nearest takes torchvision's pixels; return (n, H, W), where borders are hit."""
    matrix = compose(torch.full((len(images), 1), op), magnitude[:, None], *images.shape[2:])
    out = warp(images, op, magnitude, fill=fill or (0.0,))
    like = expected(images, op, magnitude, fill=fill)
    return require_nearest(out, like, images, matrix, fill or 0.0)


def expected(
    images: Tensor,
    op: int,
    magnitude: Tensor,
    interpolation: str = "nearest",
    fill: float | tuple[float, ...] | None = None,
) -> Tensor:
    pairs = zip(images, magnitude.tolist(), strict=True)
    return torch.stack([torchvision_operation(x, op, m, interpolation, fill) for x, m in pairs])


@each
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_nearest_is_torchvisions(op: int, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    images = as_dtype(sample_images("noise", 20, *size), dtype)
    magnitude = magnitudes(op, 20)
    near = require_torchvisions(images, op, magnitude)
    # Turns by 30, 45 or 90 degrees put many positions on borders.
    generic = magnitude % 15 != 0 if op == ROTATE else magnitude == magnitude
    assert near[generic].float().mean() < 1e-3


@each
@pytest.mark.parametrize("fill", [(0.5,), (0.1, 0.7, 1.0)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_nearest_with_fill_is_torchvisions(
    op: int, fill: tuple[float, ...], dtype: torch.dtype
) -> None:
    images = as_dtype(sample_images("noise", 24, 3, 19, 32), dtype)
    fill = tuple(255 * value for value in fill) if dtype == torch.uint8 else fill
    magnitude = magnitudes(op, 24)
    near = require_torchvisions(images, op, magnitude, fill)
    generic = magnitude % 15 != 0 if op == ROTATE else magnitude == magnitude
    assert near[generic].float().mean() < 1e-3


@each
def test_bilinear_uint8_is_torchvisions(op: int) -> None:
    total = wrong = 0
    for size in (*SIZES, (3, 224, 224)):
        rows = 20 if size[1] < 200 else 4
        images = as_dtype(sample_images("smooth", rows, *size), torch.uint8)
        magnitude = magnitudes(op, rows)
        out = warp(images, op, magnitude, "bilinear")
        difference = (out.int() - expected(images, op, magnitude, "bilinear").int()).abs()
        assert difference.max() <= 1
        total, wrong = total + out.numel(), wrong + int((difference > 0).sum())
    assert wrong <= 1e-4 * total


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bilinear_floats_are_torchvisions(op: int, dtype: torch.dtype) -> None:
    images = sample_images("smooth", 30, 3, 33, 41).to(dtype)
    magnitude = magnitudes(op, 30)
    out = warp(images, op, magnitude, "bilinear")
    # Grid positions are exact to 1e-6 of the image, and neighbours differ by up to 1.
    torch.testing.assert_close(out, expected(images, op, magnitude, "bilinear"), rtol=0, atol=2e-5)


@each
def test_translations_beyond_the_image_leave_nothing(op: int) -> None:
    if op in (TRANSLATE_X, TRANSLATE_Y):
        images = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
        for fill in (0.0, 9.0):
            out = warp(images, op, torch.tensor([8.0, -40.0]), fill=(fill,))
            assert (out == fill).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_move_every_pixel_exactly(turns: int) -> None:
    for size in (8, 31):
        images = as_dtype(sample_images("noise", 1, 3, size, size), torch.uint8)
        for sign in (1, -1):
            out = warp(images, ROTATE, torch.tensor([sign * 90.0 * turns]))
            assert torch.equal(out, torch.rot90(images, sign * turns, (2, 3)))


def chain(seed: int, length: int, rows: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    op = torch.randint(GEOMETRY.start, GEOMETRY.stop, (rows, length), generator=generator)
    u = 2 * torch.rand(rows, length, generator=generator) - 1
    largest = torch.tensor([0, 0.3, 0.3, 4, 4, 30])[op]
    moved = (op == TRANSLATE_X) | (op == TRANSLATE_Y)
    return op, torch.where(moved, (u * largest).trunc(), u * largest)


@pytest.mark.parametrize("length", [2, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_a_chain_is_one_resampling(length: int, interpolation: Interpolation, fill: float) -> None:
    images = sample_images("noise", 8, 1, 13, 18)
    op, magnitude = chain(length, length)
    matrix = compose(op, magnitude, 13, 18)
    out = warp_(images.clone(), torch.arange(8), matrix, interpolation, (fill,))
    for i in range(8):
        # The matrix, as a product of those of single operations, the first on the left.
        product = np.eye(3)
        for k in range(length):
            one = compose(op[i : i + 1, k : k + 1], magnitude[i : i + 1, k : k + 1], 13, 18)
            product = product @ one[0].numpy()
        assert np.allclose(matrix[i].numpy(), product, rtol=0, atol=1e-12)
        like = naive_warp(images[i, 0].double().numpy(), product, interpolation, fill)
        difference = np.abs(out[i, 0].numpy() - like)
        assert (
            difference.max() < 1e-4
            if interpolation == "bilinear"
            else (
                np.mean(difference > 1e-6) < 0.01  # positions halfway between two pixels
            )
        )


def test_chains_are_torchvisions_one_after_the_other() -> None:
    """On smooth images, where resampling twice costs little, and away from the border."""
    size = 61
    y, x = torch.meshgrid(*[torch.linspace(0, 4, size)] * 2, indexing="ij")
    image = (0.5 + 0.25 * (x + 0.3 * y).sin() + 0.25 * (1.3 * y - 0.2 * x).cos())[None]
    for seed in range(3):
        op, magnitude = chain(seed, 2, rows=12)
        matrix = compose(op, magnitude, size, size)
        images = image.repeat(12, 1, 1, 1)
        out = warp_(images.clone(), torch.arange(12), matrix, "bilinear")
        worst = 0.0
        for i in range(12):
            like = image
            for k in range(2):
                like = torchvision_operation(
                    like, int(op[i, k]), float(magnitude[i, k]), "bilinear"
                )
            swapped = image
            for k in (1, 0):
                swapped = torchvision_operation(
                    swapped, int(op[i, k]), float(magnitude[i, k]), "bilinear"
                )
            inner = (slice(None), slice(24, -24), slice(24, -24))
            torch.testing.assert_close(out[i][inner], like[inner], rtol=0, atol=3e-3)
            worst = max(worst, float((out[i][inner] - swapped[inner]).abs().max()))
        assert worst > 1e-2  # so the order is seen


def test_matrices_are_torchvisions() -> None:
    """In pixels from the centre, as torchvision's affine grids have them."""
    for height, width in ((10, 10), (7, 30)):
        points = tv_tensors.KeyPoints([[1.0, 2.0], [5.5, 0.0]], canvas_size=(height, width))
        centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
        for op in GEOMETRY:
            for magnitude in magnitudes(op, 12).tolist():
                matrix = compose(torch.tensor([[op]]), torch.tensor([[magnitude]]), height, width)
                moved = follow_torchvision(points, op, magnitude).double()
                back = (moved - centre) @ matrix[0, :2, :2].T + matrix[0, :2, 2] + centre
                torch.testing.assert_close(
                    back, points.double().as_subclass(Tensor), rtol=0, atol=1e-4
                )


def follow_torchvision(points: tv_tensors.KeyPoints, op: int, magnitude: float) -> Tensor:
    """Key points moved by torchvision, with the policies' parameters."""
    moved: Tensor
    if op == ROTATE:
        moved = TF.rotate(points, magnitude)
        return moved.as_subclass(Tensor)
    degrees = float(np.degrees(np.arctan(magnitude)))
    shear = [degrees * (op == SHEAR_X), degrees * (op == SHEAR_Y)]
    shift = [int(magnitude) * (op == TRANSLATE_X), int(magnitude) * (op == TRANSLATE_Y)]
    center = [0.0, 0.0] if op in (SHEAR_X, SHEAR_Y) else None
    moved = TF.affine(points, 0.0, shift, 1.0, shear, center=center)
    return moved.as_subclass(Tensor)


def test_what_is_no_geometry_is_skipped() -> None:
    op = torch.tensor([[BRIGHTNESS, TRANSLATE_X, IDENTITY], [IDENTITY, BRIGHTNESS, ROTATE]])
    magnitude = torch.tensor([[0.5, 3.0, 9.0], [1.0, 0.7, 0.0]])
    matrix = compose(op, magnitude, 9, 7)
    assert matrix.dtype == torch.float64
    assert matrix[0].tolist() == [[1, 0, -3], [0, 1, 0], [0, 0, 1]]
    assert torch.equal(matrix[1], torch.eye(3).double())
    assert moved_rows(op, magnitude).tolist() == [0]


def test_moved_rows() -> None:
    op = torch.tensor([[ROTATE, IDENTITY], [IDENTITY, SHEAR_X], [TRANSLATE_Y, ROTATE]])
    assert moved_rows(op, torch.zeros(3, 2)).tolist() == []
    assert moved_rows(op, -torch.zeros(3, 2)).tolist() == []
    assert moved_rows(op, torch.tensor([[0.0, 5.0], [0.0, 0.1], [0.0, -1.0]])).tolist() == [1, 2]
    assert moved_rows(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2)).dtype == torch.int64
    assert compose(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2), 4, 4).shape == (0, 3, 3)
    empty = compose(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0), 4, 4)
    assert torch.equal(empty, torch.eye(3).double().repeat(2, 1, 1))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("large", [False, True])
def test_rows_are_independent(
    dtype: torch.dtype, interpolation: Interpolation, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(row_helpers, "_LARGE", 1000)  # one row at a time
    images = as_dtype(sample_images("noise", 20, 3, 16, 21), dtype)
    op, magnitude = chain(0, 2, rows=20)
    rows = torch.tensor([3, 19, 0, 7, 8, 11, 12, 15, 16])
    matrix = compose(op[rows], magnitude[rows], 16, 21)
    out = images.clone()
    assert warp_(out, rows, matrix, interpolation) is out
    kept = [i for i in range(20) if i not in rows.tolist()]
    assert torch.equal(out[kept], images[kept])
    for i, row in enumerate(rows.tolist()):
        alone = warp_(
            images[row : row + 1].clone(), torch.tensor([0]), matrix[i : i + 1], interpolation
        )
        assert torch.equal(out[row], alone[0])
    wide = torch.zeros(20, 16, 30, 3, dtype=dtype)
    view = wide[:, :, 4:25].permute(0, 3, 1, 2)
    view.copy_(images)
    warp_(view, rows, matrix, interpolation)
    assert torch.equal(view, out)
    assert not wide[:, :, :4].any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_bilinear_with_fill_blends_at_the_border(dtype: torch.dtype) -> None:
    images = as_dtype(sample_images("noise", 6, 2, 9, 12), dtype)
    white = 255 if dtype == torch.uint8 else 1
    fill = (0.2 * white, 0.9 * white)
    op, magnitude = chain(4, 1, rows=6)
    magnitude = magnitude * 2
    matrix = compose(op, magnitude, 9, 12)
    out = warp_(images.clone(), torch.arange(6), matrix, "bilinear", fill)
    for i in range(6):
        for c in range(2):
            plane = images[i, c].double().numpy()
            like = naive_warp(plane, matrix[i].numpy(), "bilinear", fill[c])
            tolerance = 0.51 if dtype == torch.uint8 else 1e-4
            assert np.abs(out[i, c].double().numpy() - like).max() < tolerance


def test_nearest_is_torchvisions_in_large_images() -> None:
    image = as_dtype(sample_images("noise", 1, 1, 701, 523), torch.uint8)
    for op, magnitude in ((ROTATE, 33.3), (SHEAR_X, -0.51), (SHEAR_Y, 0.2), (TRANSLATE_Y, 17.0)):
        near = require_torchvisions(image, op, torch.tensor([magnitude]))
        # A shear by 1/5 puts every fifth column on a border.
        assert near.float().mean() < (0.201 if op == SHEAR_Y else 1e-3)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_right_angles_are_torchvisions_exactly(turns: int) -> None:
    """On squares, and half turns of any image: every sum is exact, or far from a border."""
    for size in (31, 31), (32, 32), *([] if turns % 2 else [(31, 32), (18, 41)]):
        for dtype in (torch.uint8, torch.float32, torch.float64):
            images = as_dtype(sample_images("noise", 2, 3, *size), dtype)
            magnitude = torch.tensor([90.0 * turns, -90.0 * turns])
            out = warp(images, ROTATE, magnitude)
            assert torch.equal(out, expected(images, ROTATE, magnitude))


@pytest.mark.parametrize("op", [TRANSLATE_X, TRANSLATE_Y], ids=lambda op: OPS[op])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_translations_are_torchvisions_exactly(op: int, dtype: torch.dtype) -> None:
    for size in SIZES:
        images = as_dtype(sample_images("noise", 20, *size), dtype)
        magnitude = magnitudes(op, 20)
        assert torch.equal(warp(images, op, magnitude), expected(images, op, magnitude))


def test_chains_are_multiplied_in_one_order() -> None:
    """Bit for bit as Python multiplies and adds, which rounds every step on every machine."""
    op, magnitude = chain(5, 4, rows=30)
    matrix = compose(op, magnitude, 23, 40)
    for i in range(30):
        product = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        for k in range(4):
            one = compose(op[i : i + 1, k : k + 1], magnitude[i : i + 1, k : k + 1], 23, 40)[0]
            columns = one.T.tolist()
            product = [
                [(r[0] * c[0] + r[1] * c[1]) + r[2] * c[2] for c in columns] for r in product
            ]
        assert matrix[i].tolist() == product


def test_grids_round_every_step() -> None:
    """Bit for bit: (a x + b y) + c with no fused step, in numpy's float32."""
    op, magnitude = chain(6, 2, rows=12)
    theta = compose(op, magnitude, 37, 50)[:, :2].float()
    x, y = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2) for size in (50, 37))
    half = np.array([25, 18.5], dtype=np.float32)
    a, b, c = np.moveaxis((theta.numpy() / half[:, None])[..., None, None], 2, 0)
    planes = (a * x + b * y[:, None]) + c
    assert planes.dtype == np.float32
    assert np.array_equal(_grid(theta, 37, 50).numpy(), np.moveaxis(planes, 1, 3))


IMAGES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("size", [(61, 83), (64, 128), (250, 31)])
def test_images_and_masks_take_the_same_pixels(size: tuple[int, int]) -> None:
    """Whatever the dtype, alone or in a batch, with or without fill; many positions on borders."""
    op, magnitude = chain(7, 2, rows=16)
    op[:6, 1] = IDENTITY
    op[:6, 0] = torch.tensor([SHEAR_X, SHEAR_Y, SHEAR_X, ROTATE, ROTATE, ROTATE])
    magnitude[:6, 0] = torch.tensor([0.6, 0.2, -0.3, 90.0, 45.0, 30.0])
    matrix, rows = compose(op, magnitude, *size), torch.arange(16)
    # Where every pixel comes from: its row and column, from 1, which uint8 holds; 0 outside.
    y, x = torch.meshgrid(*(torch.arange(1, side + 1) for side in size), indexing="ij")
    places = torch.stack([y, x]).to(torch.uint8).repeat(16, 1, 1, 1)
    near = require_nearest(out := warp_(places.clone(), rows, matrix), out, places, matrix)
    assert near[:6].any((1, 2)).sum() >= 3
    source = out[:, 0].long() * (size[1] + 1) + out[:, 1]  # of the padded image

    def moved(values: Tensor, fill: float = 0.0) -> Tensor:
        """(16, C, H, W) as the image of places was."""
        padded = F.pad(values, (1, 0, 1, 0), value=fill).flatten(2)
        index = source.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        return padded.gather(2, index).view(values.shape)

    for dtype in IMAGES:
        images = as_dtype(sample_images("noise", 16, 3, *size), dtype)
        for fill in (0.0, 1.0):
            whole = warp_(images.clone(), rows, matrix, fill=(fill,))
            assert torch.equal(whole, moved(images, fill))
            for i in range(16):
                alone = warp_(images[i : i + 1].clone(), rows[:1], matrix[i : i + 1], fill=(fill,))
                assert torch.equal(alone[0], whole[i])
    for dtype in (*MASKS, *IMAGES[1:]):
        low, high = MASKS.get(dtype, (-100, 100))
        generator = torch.Generator().manual_seed(1)
        masks = torch.randint(low, high, (16, 2, *size), generator=generator).to(dtype)
        whole = warp_mask(masks, rows, matrix)
        assert torch.equal(whole, moved(masks))
        for i in range(16):
            alone = warp_mask(masks[i : i + 1], rows[:1], matrix[i : i + 1])
            assert torch.equal(alone[0], whole[i])


MASKS = {
    torch.bool: (0, 1),
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-32768, 32767),
    torch.int32: (-(2**31), 2**31 - 1),
    torch.int64: (-(2**62) - 1, 2**62 + 1),
}


@pytest.mark.parametrize("dtype", MASKS)
@pytest.mark.parametrize("shape", [(), (2,), (0,), (2, 3)])
def test_masks_of_any_type_follow_an_image_exactly(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    op, magnitude = chain(1, 2, rows=7)
    rows = torch.tensor([0, 2, 3, 6])
    matrix = compose(op[rows], magnitude[rows], 21, 34)
    generator = torch.Generator().manual_seed(0)
    low, high = MASKS[dtype]
    values = torch.randint(low, high, (7, *shape, 21, 34), generator=generator)
    masks = values.to(dtype)
    out = warp_mask(masks, rows, matrix)
    assert (out.dtype, out.shape) == (masks.dtype, masks.shape)
    assert torch.equal(masks, values.to(dtype))
    assert torch.equal(out[[1, 4, 5]], masks[[1, 4, 5]])
    # Where an image of positions comes from: float32 as images are, 0 for outside.
    positions = torch.arange(1.0, 21 * 34 + 1).view(1, 1, 21, 34).repeat(4, 1, 1, 1)
    source = warp_(positions, torch.arange(4), matrix).long().flatten(1)
    for i, row in enumerate(rows.tolist()):
        planes = masks[row].reshape(int(np.prod(shape)), 21 * 34)
        taken = F.pad(planes, (1, 0))[:, source[i]]
        assert torch.equal(out[row], taken.view(*shape, 21, 34))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masks_of_floats(dtype: torch.dtype) -> None:
    masks = sample_images("noise", 2, 1, 9, 9)[:, 0].to(dtype)
    matrix = compose(torch.tensor([[ROTATE]]), torch.tensor([[90.0]]), 9, 9)
    out = warp_mask(masks, torch.tensor([1]), matrix)
    assert torch.equal(out, torch.stack([masks[0], torch.rot90(masks[1])]))


def test_masks_of_no_rows_and_any_layout() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    matrix = torch.zeros(0, 3, 3, dtype=torch.float64)
    for masks in (torch.zeros(0, 4, 5), torch.ones(3, 2, 4, 5, dtype=torch.int64)):
        out = warp_mask(masks, none, matrix)
        assert torch.equal(out, masks)
        assert out is not masks
    masks = torch.randint(0, 9, (2, 6, 5, 3)).permute(0, 3, 2, 1)
    matrix = compose(torch.tensor([[TRANSLATE_X]]), torch.tensor([[1.0]]), 5, 6)
    out = warp_mask(masks, torch.tensor([0]), matrix)
    assert torch.equal(out[0, ..., 1:], masks[0, ..., :-1])
    assert not out[0, ..., 0].any()
    assert torch.equal(out[1], masks[1])


@each
def test_points_are_torchvisions(op: int) -> None:
    points = 40 * torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)) - 5
    for magnitude in magnitudes(op, 14).tolist():
        matrix = compose(torch.tensor([[op]]), torch.tensor([[magnitude]]), 24, 31)[0]
        like = follow_torchvision(tv_tensors.KeyPoints(points, canvas_size=(24, 31)), op, magnitude)
        out = warp_points(points, matrix, 24, 31)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, like, rtol=0, atol=1e-4)
        whole = warp_points(points.long(), matrix, 24, 31)
        exact = warp_points(points.long().double(), matrix, 24, 31)
        assert whole.dtype == torch.int64
        assert torch.equal(whole, exact.round().long())


def test_points_go_where_the_pixels_go() -> None:
    op, magnitude = chain(2, 2, rows=30)
    matrix = compose(op, magnitude, 25, 35)
    images = torch.zeros(30, 1, 25, 35)
    images[:, :, 12, 15] = 1  # the pixel's centre is at (15.5, 12.5)
    warp_(images, torch.arange(30), matrix, "bilinear")
    y, x = (torch.arange(size) + 0.5 for size in (25, 35))
    for i in range(30):
        point = warp_points(torch.tensor([15.5, 12.5]), matrix[i], 25, 35)
        weight = images[i, 0] / images[i, 0].sum()
        found = torch.stack([(weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()])
        assert (found - point).abs().max() < 0.25


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32, torch.float64])
def test_masks_are_filled_outside(dtype: torch.dtype) -> None:
    masks = torch.arange(1, 49).view(2, 1, 4, 6).to(dtype)
    left = compose(torch.tensor([[TRANSLATE_X]]), torch.tensor([[-2.0]]), 4, 6)
    out = warp_mask(masks, torch.tensor([1]), left, -100)
    assert torch.equal(out[0], masks[0])
    assert torch.equal(out[1, :, :, :4], masks[1, :, :, 2:])
    assert (out[1, :, :, 4:] == -100).all()
