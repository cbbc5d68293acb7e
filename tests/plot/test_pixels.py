"""Images as matplotlib shows them."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from augloader.plot.pixels import aspect, show, to_pixels


def test_tensors_and_pil_images_are_shown_alike() -> None:
    levels = torch.arange(60, dtype=torch.uint8).view(3, 4, 5)
    as_pil = Image.fromarray(levels.permute(1, 2, 0).numpy())
    assert np.array_equal(to_pixels(levels, "image"), to_pixels(as_pil, "image"))
    floats = to_pixels(levels.double() / 255, "image")
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats * 255, to_pixels(levels, "image"), rtol=1e-6)
    grey = to_pixels(levels[:1], "image")
    assert (grey.shape, aspect(grey)) == ((4, 5), 1.25)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.zeros((3, 4, 5)), TypeError, "image must be a uint8 or floating tensor or a PIL"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), TypeError, "got torch.int64"),
        (torch.zeros(2, 4, 5), ValueError, r"image must be \(1, H, W\) or \(3, H, W\), got shape"),
        (torch.zeros(3, 0, 5), ValueError, "got shape"),
        (torch.full((3, 4, 5), 1.1), ValueError, r"image must be in \[0, 1\] .* to 1\.1"),
    ],
)
def test_what_is_no_image(image: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        to_pixels(image, "image")


def test_grey_images_go_from_black_to_white() -> None:
    for pixels, white in ((np.zeros((4, 5), np.uint8), 255), (np.zeros((4, 5), np.float32), 1)):
        axes = Figure().subplots()
        show(axes, pixels)
        assert axes.images[0].get_clim() == (0, white)
