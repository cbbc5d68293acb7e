"""A sketch of an outer product is the count sketch of its entries, and keeps distances."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augloader.core.sketch import TensorSketch


def factors(b: int, classes: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, size, generator=generator) for size in (classes, width))  # type: ignore[return-value]


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 9), st.integers(0, 9))
def test_it_is_the_count_sketch_of_all_entries(c: int, d: int, w: int, seed: int) -> None:
    sketch = TensorSketch(c, d, w, seed)
    g, h = factors(3, c, d, seed)
    expected = torch.zeros(3, w)
    (a, b), (s, t) = sketch._places, sketch._signs
    for i in range(c):
        for j in range(d):
            expected[:, (a[i] + b[j]) % w] += s[i] * t[j] * g[:, i] * h[:, j]
    torch.testing.assert_close(sketch(g, h), expected, rtol=1e-4, atol=1e-5)


def test_inner_products_have_the_right_mean_and_distances_the_stated_spread() -> None:
    g, h = factors(2, 6, 11)
    exact = float((g[0] @ g[1]) * (h[0] @ h[1]))
    outer = torch.einsum("bc,bd->bcd", g, h).flatten(1)
    square = float((outer[0] - outer[1]).square().sum())
    products, squares = [], []
    for seed in range(1500):
        one, other = TensorSketch(6, 11, 64, seed)(g, h)
        products.append(float(one @ other))
        squares.append(float((one - other).square().sum()))
    spread = np.std(products) / len(products) ** 0.5
    assert abs(np.mean(products) - exact) < 5 * spread
    assert abs(np.mean(squares) / square - 1) < 5 * (8 / 64 / 1500) ** 0.5
    assert np.std(squares) / square < (8 / 64) ** 0.5


def test_the_same_everywhere() -> None:
    g, h = factors(4, 3, 5)
    one = TensorSketch(3, 5, 16, 7)(g, h)
    assert torch.equal(TensorSketch(3, 5, 16, 7)(g, h), one)
    assert not torch.allclose(TensorSketch(3, 5, 16, 8)(g, h), one)
    assert one.dtype == torch.float32
    torch.testing.assert_close(
        TensorSketch(3, 5, 16, 7)(g.half(), h.half()), one, rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("w", [1, 2, 3])
def test_few_numbers(w: int) -> None:
    assert TensorSketch(2, 2, w)(*factors(1, 2, 2)).shape == (1, w)
