"""Rows of a batch are taken, put back and cut into chunks, whatever their layout."""

import pytest
import torch
from torch import Tensor

from augloader.augment.pixels import rows as module
from augloader.augment.pixels.rows import beside, chunk, put_, take, to_levels

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
SELECTED: tuple[list[int], ...] = ([], [2], [0, 1, 2, 3, 4], [4, 0, 3])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    """One batch of (5, 3, 6, 7) in several layouts, each with memory of its own."""
    images = torch.arange(5 * 3 * 6 * 7).view(5, 3, 6, 7).remainder(251).to(dtype)
    wide = torch.zeros(5, 3, 6, 20, dtype=dtype)
    wide[..., 4:11] = images
    every_other = torch.zeros(10, 3, 6, 7, dtype=dtype)
    every_other[::2] = images
    return {
        "contiguous": images.clone(),
        "channels_last": images.contiguous(memory_format=torch.channels_last),
        "permuted": images.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        "columns of a wider one": wide[..., 4:11],
        "every other row": every_other[::2],
    }


@dtypes
@pytest.mark.parametrize("selected", SELECTED, ids=str)
def test_taken_rows_are_copies(dtype: torch.dtype, selected: list[int]) -> None:
    rows, expected = torch.tensor(selected, dtype=torch.int64), layouts(dtype)["contiguous"]
    for images in layouts(dtype).values():
        part = take(images, rows)
        assert part.dtype == dtype
        assert torch.equal(part, expected[selected])
        part.zero_()
        assert torch.equal(images, expected)


@dtypes
@pytest.mark.parametrize("selected", SELECTED, ids=str)
def test_put_rows_replace_these_and_no_others(dtype: torch.dtype, selected: list[int]) -> None:
    rows = torch.tensor(selected, dtype=torch.int64)
    for images in layouts(dtype).values():
        for values in layouts(dtype).values():
            given, expected = images.clone(memory_format=torch.preserve_format), images.clone()
            some = values.flip(0)[: len(rows)]
            for row, value in zip(selected, some, strict=True):
                expected[row] = value
            put_(given, rows, some)
            assert torch.equal(given, expected)


@dtypes
def test_rows_are_put_into_the_memory_of_a_view(dtype: torch.dtype) -> None:
    whole = torch.zeros(4, 3, 6, 9, dtype=dtype)
    put_(whole[1:, ..., 2:9], torch.tensor([1]), torch.ones(1, 3, 6, 7, dtype=dtype))
    expected = torch.zeros(4, 3, 6, 9, dtype=dtype)
    expected[2, ..., 2:9] = 1
    assert torch.equal(whole, expected)


def test_what_is_put_back_leaves_the_batch_as_it_was() -> None:
    for images in layouts(torch.uint8).values():
        before = images.clone()
        for rows in map(torch.tensor, SELECTED[1:]):
            put_(images, rows, take(images, rows))
        assert torch.equal(images, before)


def test_chunks_hold_what_fits_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * 4 * (3 * 6 * 7))
    images = layouts(torch.uint8)["contiguous"]
    assert chunk(images) == 3
    assert chunk(images[:1]) == 3
    assert chunk(images.double()) == 3  # of float32 intermediates, whatever the images are
    assert chunk(torch.zeros(2, 3, 600, 700)) == 1  # a larger image is one by itself
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert chunk(images) == 6


def test_chunks_of_no_rows_no_pixels_and_other_devices() -> None:
    assert chunk(torch.zeros(0, 3, 6, 7)) == 1
    assert chunk(torch.zeros(4, 3, 0, 7)) == 4
    assert chunk(torch.zeros(4000, 3, 600, 700, device="meta")) == 4000


@dtypes
def test_values_become_levels_of_the_images_dtype(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 0.9, 1.0, 17.999, 254.5, 255.0])
    out = to_levels(values, torch.zeros(1, dtype=dtype))
    assert out.dtype == dtype
    exact = values.floor() if dtype == torch.uint8 else values
    assert torch.equal(out, exact.to(dtype))
    assert to_levels(values[:0], torch.zeros(1, dtype=dtype)).shape == (0,)


def test_levels_of_any_layout() -> None:
    for values in layouts(torch.float32).values():
        levels = to_levels(values + 0.7, torch.zeros(1, dtype=torch.uint8))
        assert torch.equal(levels, values.to(torch.uint8))


@dtypes
def test_numbers_beside_images(dtype: torch.dtype) -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=dtype)
    column = beside((1.0, 2.0, 3.0), dtype, images)
    assert (column.shape, column.dtype) == ((3, 1, 1), dtype)
    assert (images + column)[1, :, 2, 2].tolist() == [1, 2, 3]
    assert beside([4.0], dtype, images).flatten().tolist() == [4]
