"""Label noise and long tails against their definitions, and against what earlier records drew."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from augloader.labels import long_tail, mislabelled
from tests.reference import random_state

seeds = st.integers(0, 2**32 - 1)
mosts = st.none() | st.integers(1, 99)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels_of(n: int, classes: int, seed: int) -> Tensor:
    return torch.from_numpy(rng(seed).integers(0, classes, n))


@given(st.integers(0, 200), st.integers(2, 12), st.floats(0, 1), seeds)
def test_exactly_the_share_gets_another_label(
    n: int, classes: int, share: float, seed: int
) -> None:
    labels = labels_of(n, classes, seed)
    before, state = labels.clone(), random_state()
    noisy = mislabelled(labels, share, classes, rng(seed))
    assert int((noisy != labels).sum()) == round(share * n)
    assert not n or bool(((noisy >= 0) & (noisy < classes)).all())
    assert torch.equal(labels, before)
    assert torch.equal(noisy, mislabelled(labels, share, classes, rng(seed)))
    assert random_state() == state


def test_other_labels_are_equally_likely() -> None:
    labels = torch.arange(10).repeat(1000)
    noisy = mislabelled(labels, 0.5, 10, rng())
    assert not torch.equal(noisy, mislabelled(labels, 0.5, 10, rng(1)))
    shift = (noisy - labels)[noisy != labels] % 10
    expected = 5000 / 9
    assert ((shift.bincount(minlength=10)[1:] - expected).abs() < 5 * expected**0.5).all()


def test_the_noise_is_that_of_the_records() -> None:
    """What the benchmarks' seeds drew before this function had a name of its own."""
    found = mislabelled(torch.arange(5).repeat(4), 0.4, 5, rng(0))
    assert found.tolist() == [4, 4, 2, 3, 1, 4, 1, 0, 1, 4, 0, 4, 2, 3, 4, 0, 1, 2, 3, 2]
    assert found.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_kind_are_taken(dtype: torch.dtype) -> None:
    labels = torch.arange(7).repeat(5)
    noisy = mislabelled(labels.to(dtype), 0.5, 7, rng(3))
    assert noisy.dtype == dtype
    plain: Any = labels.numpy()
    assert torch.equal(noisy.long(), mislabelled(plain, 0.5, 7, rng(3)))
    assert torch.equal(long_tail(labels.to(dtype), 3.0), long_tail(plain, 3.0))


@given(
    st.integers(1, 300),
    st.integers(1, 12),
    st.floats(1, 1e4),
    st.none() | st.integers(1, 99),
    seeds,
)
def test_every_class_keeps_its_share(
    n: int, classes: int, imbalance: float, most: int | None, seed: int
) -> None:
    labels = labels_of(n, classes, seed)
    sizes = labels.unique(return_counts=True)[1]
    most_at_all = min(int(sizes.max()), most or n)
    if len(sizes) > 1 and int(most_at_all / imbalance + 1e-9) < 1:
        with pytest.raises(ValueError, match="imbalance must leave a sample of each class"):
            long_tail(labels, imbalance, most=most)
        imbalance = float(most_at_all)
    first, drawn = (long_tail(labels, imbalance, g, most=most) for g in (None, rng(seed)))
    present, sizes = labels.unique(return_counts=True)
    largest = min(int(sizes.max()), most or n)
    for kept in (first, drawn):
        assert kept.tolist() == sorted(set(kept.tolist()))
        for position, (c, size) in enumerate(zip(present.tolist(), sizes.tolist(), strict=True)):
            share = imbalance ** -(position / max(1, len(present) - 1))
            members = kept[labels[kept] == c]
            assert len(members) == min(size, int(largest * share + 1e-9))
    assert torch.equal(labels[first].bincount(), labels[drawn].bincount())
    for c in present.tolist():  # without a generator the first ones
        members = (labels == c).nonzero().flatten()
        kept = first[labels[first] == c]
        assert torch.equal(kept, members[: len(kept)])


def test_the_profile_is_that_of_cifar_lt() -> None:
    labels = torch.from_numpy(rng().permutation(np.repeat(np.arange(10), 5000)))
    kept = long_tail(labels, 100)
    # CIFAR-10-LT of Cui et al. (2019): 5000 * 100 ** (-c / 9), rounded down, 12,406 in all
    expected = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert labels[kept].bincount().tolist() == expected
    assert len(kept.unique()) == 12_406
    assert long_tail(labels, 1).tolist() == list(range(50_000))
    one, same, other = (long_tail(labels, 100, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


NONE: Any = 0  # no generator
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda y: mislabelled(y, 1.5, 3, rng()), ValueError, r"share must be in \[0, 1\], got 1\.5"),
    (lambda y: mislabelled(y, 0.5, 1, rng()), ValueError, "classes must be at least 2, got 1"),
    (lambda y: mislabelled(y, 0.5, 2, rng()), ValueError, r"labels must be in \[0, 2\), got"),
    (
        lambda y: mislabelled(y, 0.5, 3, NONE),
        TypeError,
        "generator must be a numpy.random.Generator",
    ),
    (lambda y: mislabelled(y.float(), 0.5, 3, rng()), TypeError, "labels must be integer class"),
    (lambda y: long_tail(y, 0.5), ValueError, r"imbalance must be in \[1, inf\), got 0\.5"),
    (lambda y: long_tail(y, 2.0, NONE), TypeError, "generator must be a numpy.random.Generator"),
    (lambda y: long_tail(y, 2.0, most=0), ValueError, "most must be at least 1, got 0"),
    (lambda y: long_tail(y[:0], 2.0), ValueError, "labels must be of 1 sample or more, got none"),
    (
        lambda y: long_tail(y, 9.0),
        ValueError,
        r"got 9\.0, .* none of 1 of 3 classes\. Take at most 4",
    ),
    (
        lambda y: long_tail(y[None], 2.0),
        ValueError,
        r"labels must have shape \(n,\), got \(1, 12\)",
    ),
    (
        lambda y: mislabelled(y[None], 0.5, 3, rng()),
        ValueError,
        r"labels must have shape \(n,\), got \(1, 12\)\. Give one class a sample",
    ),
    (lambda y: long_tail(y - 1, 2.0), ValueError, "labels must be 0 or more, got"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_wrong_arguments(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(torch.arange(3).repeat(4))
