"""Fixed grids of translations, rotations and crops against numpy and torchvision."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as V

from augloader.augment import crops, rotations, translations
from augloader.augment.grids import Crop, Rotation, Translation
from tests.reference import as_dtype, sample_images

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(12, 12), (9, 16), (17, 6), (28, 28)]
DTYPES = [torch.uint8, torch.float32]


def image(
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    kind: str = "noise",
    channels: int = 3,
) -> Tensor:
    return as_dtype(sample_images(kind, 1, channels, height, width, 3)[0], dtype)


def to_pil(x: Tensor) -> Image.Image:
    return Image.fromarray(x.permute(1, 2, 0).squeeze(-1).numpy())


def plain(x: Any) -> Tensor:
    """Any kind of image as a (C, H, W) tensor."""
    if isinstance(x, Tensor):
        return x
    array = np.array(x)
    return torch.from_numpy(array[..., None] if array.ndim == 2 else array).permute(2, 0, 1)


# Translations -------------------------------------------------------------------------------------


def moved(x: Tensor, right: int, down: int) -> Tensor:
    """np.roll of an image padded so far that nothing comes round, and cut back."""
    far = max(abs(right), abs(down))
    padded = np.pad(x.numpy(), [(0, 0), (far, far), (far, far)], mode="edge")
    rolled = np.roll(padded, (down, right), (1, 2))
    return torch.from_numpy(rolled[:, far : far + x.shape[1], far : far + x.shape[2]].copy())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_translations_repeat_the_edge(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = image(*size, dtype)
    for right, down in ((1, 0), (-2, 0), (0, 3), (0, -1), (2, 5), (-3, 1), (4, -4), (-20, 30)):
        out = Translation(right, down)(x)
        assert out.dtype == dtype
        assert torch.equal(out, moved(x, right, down))
        if dtype == torch.uint8:
            for some in (x, x[:1]):
                shown = Translation(right, down)(to_pil(some))
                assert isinstance(shown, Image.Image)
                assert torch.equal(plain(shown), moved(some, right, down))


def test_translations_go_in_four_or_eight_directions() -> None:
    def offsets(*arguments: Any) -> list[tuple[int, int]]:
        return [(move.right, move.down) for move in translations(*arguments)]

    assert set(offsets(2)) == {(2, 0), (-2, 0), (0, 2), (0, -2)}
    assert len(offsets(2)) == 4
    assert set(offsets(1, True)) == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)} - {(0, 0)}
    assert len(offsets(1, True)) == 8
    assert set(offsets((1, 3))) == set(offsets(1)) | set(offsets(3))
    assert len(offsets(range(1, 4), True)) == 24


# Rotations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 9, 28, 33])
@pytest.mark.parametrize("turns", [1, 2, 3, -1, 5])
def test_quarter_turns_are_exact(side: int, turns: int) -> None:
    x = image(side, side)
    turned = torch.rot90(x, turns, (1, 2))
    torch.testing.assert_close(Rotation(90.0 * turns)(x), turned, atol=1e-3, rtol=0)
    x = image(side, side, torch.uint8)
    turned = torch.rot90(x, turns, (1, 2)).int()
    for out in (Rotation(90.0 * turns)(x), plain(Rotation(90.0 * turns)(to_pil(x)))):
        assert out.dtype == torch.uint8
        assert (out.int() - turned).abs().max() <= 1


def test_half_turns_of_images_that_are_not_square() -> None:
    x = image(9, 16)
    torch.testing.assert_close(Rotation(180.0)(x), x.flip(1, 2), atol=1e-3, rtol=0)


def test_rotations_are_counter_clockwise() -> None:
    x = torch.zeros(1, 21, 21)
    x[:, 10, 18] = 1  # to the right of the middle
    out = Rotation(30.0)(x)[0]
    row, column = divmod(int(out.argmax()), 21)
    assert (row, column) == (10 - 4, 10 + 7)


def test_the_identity_is_left_out() -> None:
    angles = np.linspace(-30, 30, 15)
    assert len(rotations(angles)) == 14
    assert [turn.degrees for turn in rotations(angles)] == [a for a in angles if abs(a) > 1e-6]
    assert [turn.degrees for turn in rotations((-5, -2.5, 0, 2.5, 5))] == [-5, -2.5, 2.5, 5]
    assert rotations((0, 0.0, -0.0)) == []
    assert all(type(turn.degrees) is float for turn in rotations(angles))
    assert [crop.pixels for crop in crops(range(7))] == [1, 2, 3, 4, 5, 6]
    assert crops((0,)) == []


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_image_has_no_black_corners(size: tuple[int, int], dtype: torch.dtype) -> None:
    x = image(*size, dtype, "flat")
    for degrees in (*range(-180, 181, 15), 1.0, 44.5, 63.4, 89.0):
        out = Rotation(float(degrees))(x)
        assert out.shape == x.shape
        torch.testing.assert_close(out, x, atol=1e-4 if dtype.is_floating_point else 0, rtol=0)
        if dtype == torch.uint8:
            shown = Rotation(float(degrees))(to_pil(x))
            assert shown.size == size[::-1]
            assert torch.equal(plain(shown), x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [-30.0, 5.0, 17.0, 90.0, 135.0])
def test_a_rotation_of_pil_is_near_that_of_a_tensor(size: tuple[int, int], degrees: float) -> None:
    x = image(*size, torch.uint8, "smooth")
    there, shown = Rotation(degrees)(x), plain(Rotation(degrees)(to_pil(x)))
    assert (there.int() - shown.int()).abs().max() <= 2
    single = Rotation(degrees)(x.float() / 255) * 255
    assert (there - single).abs().max() <= 1


def test_a_rotation_is_torchvisions_inside() -> None:
    """Where no padding comes into view."""
    x = image(40, 40)
    expected = V.rotate(x, 20.0, V.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(10, 30), slice(10, 30))
    torch.testing.assert_close(Rotation(20.0)(x)[inside], expected[inside], atol=1e-4, rtol=0)


# Crops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [1, 2])
def test_crops_are_torchvisions(size: tuple[int, int], cut: int) -> None:
    height, width = size
    box = cut, cut, height - 2 * cut, width - 2 * cut
    x = image(height, width)
    expected = V.resized_crop(x, *box, list(size), antialias=True)
    out = Crop(cut)(x)
    torch.testing.assert_close(out, expected)
    inner = x[None, :, cut:-cut, cut:-cut]
    slow = F.interpolate(inner, size, mode="bilinear", antialias=True)[0]
    torch.testing.assert_close(out, slow)
    x = image(height, width, torch.uint8)
    expected = V.resized_crop(x, *box, list(size), antialias=True)
    assert (Crop(cut)(x).int() - expected.int()).abs().max() <= 1
    shown = to_pil(x)
    expected = plain(V.resized_crop(shown, *box, list(size)))
    out = Crop(cut)(shown)
    assert isinstance(out, Image.Image)
    assert torch.equal(plain(out), expected)
    assert (plain(out).int() - Crop(cut)(x).int()).abs().max() <= 1


def test_a_crop_leaves_some_of_the_image() -> None:
    assert Crop(4)(image(9, 30)).shape == (3, 9, 30)
    with pytest.raises(ValueError, match=r"half of the image's 9 x 30, got 5\. Crop less"):
        Crop(5)(image(9, 30))
    with pytest.raises(ValueError, match="less than half of the image's 30 x 10, got 5"):
        Crop(5)(to_pil(image(30, 10, torch.uint8)))
    assert Crop(5)(image(9, 30), strength=0.8).shape == (3, 9, 30)


# All ----------------------------------------------------------------------------------------------

ALL: list[Any] = [*translations(2, True), *rotations((-30, 7)), *crops((1, 3))]


@pytest.mark.parametrize("transform", ALL, ids=repr)
@pytest.mark.parametrize("size", SIZES)
def test_strength_0_is_the_identity(transform: Any, size: tuple[int, int]) -> None:
    for x in (image(*size), image(*size, torch.uint8), to_pil(image(*size, torch.uint8))):
        out = transform(x, strength=0.0)
        assert type(out) is type(x)
        assert torch.equal(plain(out), plain(x))


@pytest.mark.parametrize(
    ("whole", "half"),
    [
        (Translation(4, -2), Translation(2, -1)),
        (Rotation(30.0), Rotation(15.0)),
        (Crop(4), Crop(2)),
    ],
)
def test_half_a_strength_is_half_a_transform(whole: Any, half: Any) -> None:
    for x in (image(17, 13), image(17, 13, torch.uint8), to_pil(image(17, 13, torch.uint8))):
        assert torch.equal(plain(whole(x, strength=0.5)), plain(half(x)))
        assert torch.equal(plain(whole(x, 1.0)), plain(whole(x)))
        assert not torch.equal(plain(whole(x)), plain(half(x)))


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_images_stay_as_they_are_and_transforms_travel(transform: Any) -> None:
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    for x in (image(12, 15), image(12, 15, torch.uint8, channels=1)):
        before = x.clone()
        out = transform(x)
        assert torch.equal(x, before)
        assert (out.shape, out.dtype) == (x.shape, x.dtype)
        assert not torch.equal(out, x)
        assert torch.equal(again(x), out)


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: translations(0), ValueError, "pixels must be at least 1, got 0. Moves by 0 change"),
    (lambda: translations((1, -2)), ValueError, "pixels must be at least 1, got -2"),
    (lambda: translations((1, 2.0)), TypeError, "pixels must be an integer, got 2.0"),  # type: ignore[arg-type]
    (lambda: translations(True), TypeError, "pixels must be an integer, got True"),
    (lambda: translations(1.5), TypeError, "pixels must be an integer, got 1.5"),  # type: ignore[arg-type]
    (
        lambda: rotations((1, float("nan"))),
        ValueError,
        r"degrees must be in \(-inf, inf\), got nan",
    ),
    (lambda: rotations((1, float("inf"))), ValueError, "degrees must be in"),
    (lambda: rotations(("5",)), TypeError, "degrees must be a number"),  # type: ignore[arg-type]
    (lambda: crops((1, -1)), ValueError, "pixels must be at least 0, got -1"),
    (lambda: crops((1.5,)), TypeError, "pixels must be an integer, got 1.5"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("bad", "error", "words"), BAD)
def test_bad_grids(bad: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bad()


def test_numpy_integers_are_integers() -> None:
    assert crops(np.arange(3)) == crops(range(3))
    assert translations(list(np.arange(1, 3))) == translations((1, 2))
    two: Any = np.int64(2)
    assert translations(two) == translations(2)


def test_one_number_will_do() -> None:
    assert rotations(5) == rotations([5.0])
    assert crops(2) == crops([2])
    assert translations(2) == translations((2,))
