"""k-DPPs against the definition: P(S) = det(L_S) over the sum of all k-subsets'."""

from collections import Counter
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, chisquare
from torch import Tensor

from augloader.selection import kdpp
from augloader.selection.kdpp import _elementary, gaussian_kernel, linear_kernel, sample
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")
Values = NDArray[np.float64]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_law(counts: Counter[Any], law: dict[Any, float], limit: float = 1e-3) -> None:
    """Chi-square, p above the limit; what has no probability never occurs."""
    draws = sum(counts.values())
    assert not {outcome for outcome in counts if law.get(outcome, 0.0) < 1e-12}
    total = sum(law.values())
    expected = {outcome: draws * p / total for outcome, p in law.items()}
    seen, awaited, rest = [], [], np.zeros(2)
    for outcome, e in expected.items():
        if e < 5:
            rest += counts[outcome], e
        else:
            seen.append(float(counts[outcome]))
            awaited.append(e)
    if rest[1] >= 5:
        seen.append(rest[0])
        awaited.append(rest[1])
    elif seen:  # too rare for a cell of their own
        seen[0] += rest[0]
        awaited[0] += rest[1]
    if len(seen) > 1:
        assert chisquare(seen, awaited).pvalue > limit
    else:
        assert sum(seen) == pytest.approx(sum(awaited))


def assert_rates(hits: NDArray[Any], draws: int, rates: Values) -> None:
    """Each count is binomial: exact tests of all, at 1 in 100,000."""
    for count, rate in zip(hits.tolist(), rates.clip(0, 1).tolist(), strict=True):
        assert binomtest(int(count), draws, rate).pvalue > 1e-5


def subsets(b: Tensor, k: int) -> dict[tuple[int, ...], float]:
    """The law of a k-DPP by its definition."""
    kernel = (b.double() @ b.double().T).numpy()
    some = combinations(range(len(b)), k)
    dets = {s: max(float(np.linalg.det(kernel[np.ix_(s, s)])), 0.0) for s in some}
    total = sum(dets.values())
    return {s: det / total if det / total > 1e-12 else 0.0 for s, det in dets.items()}


def normal(n: int, r: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(random(seed).normal(size=(n, r)))


UNEQUAL = torch.tensor([1e-3, 1.0, 0.02, 0.3, 5e-3, 0.8], dtype=torch.float64)[:, None]
KERNELS: dict[str, tuple[Tensor, int, int]] = {
    "two of six": (normal(6, 4), 2, 5000),
    "one": (normal(7, 4, 1), 1, 2500),
    "the rank": (normal(6, 3, 2), 3, 2500),
    "all": (normal(5, 5, 3), 5, 300),
    "four of eight": (normal(8, 6, 4), 4, 2500),
    "duplicates": (normal(4, 4, 5)[[0, 0, 1, 1, 2, 3]], 3, 2500),
    "very unequal": (normal(6, 5, 6) * UNEQUAL, 2, 2500),
    "of lower rank": (normal(7, 3, 7) @ normal(3, 5, 8), 2, 2500),
    "wide": (normal(5, 9, 9), 3, 2500),
    "float32": (normal(6, 3, 10).float(), 2, 2500),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_subsets_come_as_often_as_their_determinants_say(name: str) -> None:
    b, k, draws = KERNELS[name]
    generator, law = random(11), subsets(b, k)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws):
        drawn = sample(b, k, generator)
        assert len(set(drawn.tolist())) == k
        counts[tuple(sorted(drawn.tolist()))] += 1
    assert_law(counts, law)
    hits, rates = np.zeros(len(b)), np.zeros(len(b))
    for s in law:
        hits[list(s)] += counts[s]
        rates[list(s)] += law[s]
    assert_rates(hits, draws, rates)


def test_inclusion_probabilities_of_more_samples_than_can_be_enumerated() -> None:
    """P(i in S) = sum_m v_mi^2 lambda_m e_{k-1}(without m) / e_k, e from np.poly."""
    b, k, draws = normal(60, 9), 5, 2500
    values, vectors = np.linalg.eigh((b @ b.T).numpy())
    values, vectors = values[-9:], vectors[:, -9:]

    def e(some: Values, order: int) -> float:
        return float(np.poly(-some)[order])

    parts = [values[m] * e(np.delete(values, m), k - 1) / e(values, k) for m in range(9)]
    rates = np.square(vectors) @ np.array(parts)
    assert rates.sum() == pytest.approx(k)
    generator, hits = random(1), np.zeros(60)
    for _ in range(draws):
        hits[sample(b, k, generator)] += 1
    assert_rates(hits, draws, rates)


@pytest.mark.parametrize(
    ("values", "k"),
    [
        ([1.0, 2.0, 3.0, 0.5], 2),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 3),
        ([1e-4, 1.0, 100.0, 0.1, 7.0, 7.0], 3),
        ([1e-8, 1e8, 3e7, 2e-8], 3),
        ([0.3, 5.0], 1),
        ([0.3, 5.0, 1e-9], 3),
    ],
)
def test_eigenvectors_come_as_often_as_the_products_of_their_values_say(
    values: list[float], k: int
) -> None:
    law = {s: prod(values[m] for m in s) for s in combinations(range(len(values)), k)}
    total = sum(law.values())
    generator, array = random(2), np.array(values)
    drawn = (tuple(_elementary(array, k, generator).tolist()) for _ in range(20_000))
    assert_law(Counter(drawn), {s: max(p / total, 1e-11) for s, p in law.items()})


def test_elementary_polynomials_neither_overflow_nor_vanish() -> None:
    values = np.logspace(-8, 8, 300)
    for k in (1, 250, 299, 300):
        chosen = _elementary(values, k, random())
        assert len(set(chosen.tolist())) == k
        assert chosen.min() >= 0
        assert chosen.max() < 300
    # Those that are left out are small: of large values one is worth many decades.
    assert set(range(100, 300)) <= set(_elementary(values, 250, random(1)).tolist())


@pytest.mark.parametrize("spread", [0, 5])
def test_a_large_draw_stays_finite(spread: int) -> None:
    """600 samples, rank 300, eigenvalues from 1e-5 to 1e5: 250 distinct ones."""
    u = torch.linalg.qr(normal(600, 300)).Q
    b = u * torch.logspace(-spread / 2, spread / 2, 300, dtype=torch.float64)
    for k in (250, 300, None):
        drawn = sample(b, k, random())
        assert drawn.dtype == np.int64
        assert len(set(drawn.tolist())) == len(drawn) == (k or 300)
        assert drawn.min() >= 0
        assert drawn.max() < 600


def test_more_than_the_rank_is_refused_with_the_rank() -> None:
    words = "budget must be at most the rank of the kernel, 3, for a k-DPP, got 4.*gaussian"
    for b in (normal(9, 3), normal(9, 3) @ normal(3, 7), normal(3, 3)[[0, 0, 1, 1, 2, 2]]):
        with pytest.raises(ValueError, match=words):
            sample(b, 4, random())
        assert len(set(sample(b, 3, random()).tolist())) == 3
        assert len(sample(b, None, random())) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_rows_never_go_together(dtype: torch.dtype) -> None:
    """Six directions, 40 samples of each, in other lengths and qualities."""
    generator = random(3)
    x = normal(6, 20).to(dtype).repeat(40, 1) * torch.logspace(-3, 3, 240, dtype=dtype)[:, None]
    b = linear_kernel(generator.uniform(0.01, 1, 240), x)
    for k in (2, 6):
        for _ in range(100):
            assert len(set((sample(b, k, generator) % 6).tolist())) == k
    with pytest.raises(ValueError, match="the rank of the kernel, 6, for a k-DPP, got 7"):
        sample(b, 7, generator)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 8), st.data())
def test_draws_are_distinct_and_follow_the_generator(
    seed: int, n: int, r: int, data: st.DataObject
) -> None:
    b = normal(n, r, seed)
    if data.draw(st.booleans()):
        b = b[random(seed).integers(0, n, n)]
    rank = int(np.linalg.matrix_rank(b.numpy()))
    k = data.draw(st.integers(1, rank))
    before = random_state()
    drawn = sample(b, k, random(seed))
    assert random_state() == before
    assert len(set(drawn.tolist())) == k
    assert set(drawn.tolist()) <= set(range(n))
    assert drawn.tolist() == sample(b, k, random(seed)).tolist()
    assert np.linalg.matrix_rank(b[torch.from_numpy(drawn)].numpy()) == k


def test_other_seeds_give_other_draws() -> None:
    assert len({tuple(sample(normal(50, 9), 5, random(seed)).tolist()) for seed in range(20)}) == 20


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    b = normal(50, 9)
    whole = [sample(b, 5, random(seed)).tolist() for seed in range(10)]
    x, q = normal(50, 3), random().uniform(1, 2, 50)
    features = gaussian_kernel(q, x, 10, 1.0, random())
    monkeypatch.setattr("augloader.selection.kdpp._BLOCK", 63)
    assert [sample(b, 5, random(seed)).tolist() for seed in range(10)] == whole
    torch.testing.assert_close(gaussian_kernel(q, x, 10, 1.0, random()), features)


# Kernels ------------------------------------------------------------------------------------------


def product(b: Tensor) -> Values:
    return np.asarray((b.double() @ b.double().T).numpy())


@pytest.mark.parametrize(("n", "d"), [(30, 4), (30, 30), (10, 40), (1, 1), (1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_the_linear_factor_squares_to_the_kernel(n: int, d: int, dtype: torch.dtype) -> None:
    x, q = normal(n, d).to(dtype), random(1).uniform(0.1, 7, n)
    b = linear_kernel(q, x)
    assert b.shape == (n, min(n, d))
    assert b.dtype == (torch.float64 if d > n else torch.float32)
    y = x.double().numpy()
    y = y / np.linalg.norm(y, axis=1, keepdims=True) * (q / q.max())[:, None]
    np.testing.assert_allclose(product(b), y @ y.T, atol=1e-6)


def test_neither_the_lengths_of_features_nor_the_unit_of_quality_matter() -> None:
    x, q = normal(20, 4), random(1).uniform(0.1, 7, 20)
    b = linear_kernel(q, x)
    torch.testing.assert_close(linear_kernel(1e6 * q, x), b)
    torch.testing.assert_close(linear_kernel(q, x * torch.logspace(-9, 9, 20)[:, None]), b)


def test_rows_of_zeros_are_refused() -> None:
    x = normal(9, 4)
    x[[2, 5]] = 0
    words = r"features must not be rows of zeros.*got 2 such rows \(first indices 2, 5\).*gaussian"
    with pytest.raises(ValueError, match=words):
        linear_kernel(np.ones(9), x)
    assert gaussian_kernel(np.ones(9), x, 64, 1.0, random()).isfinite().all()


def gaussian(x: Tensor, s: float) -> Values:
    return np.asarray(
        np.exp(-cdist(x.double().numpy(), x.double().numpy(), "sqeuclidean") / 2 / s**2)
    )


@pytest.mark.parametrize("n", [1, 2, 63, 64])
@pytest.mark.parametrize("s", [0.3, 2.0])
def test_up_to_its_width_the_gaussian_factor_is_exact(n: int, s: float) -> None:
    x, q = normal(n, 3), random(1).uniform(0.1, 7, n)
    b = gaussian_kernel(q, x.float(), 64, s, random())
    assert len(b) == n
    assert b.shape[1] <= 64
    q = q / q.max()
    np.testing.assert_allclose(product(b), q[:, None] * gaussian(x.float(), s) * q, atol=1e-6)


@pytest.mark.parametrize("width", [128, 512, 2048])
def test_random_features_are_near_the_gaussian_and_their_diagonal_exact(width: int) -> None:
    """A mean of width / 2 cosines of variance at most 1 / 2: an error of 1 / sqrt(width)."""
    n = width + 10
    x, q = normal(n, 4), random(1).uniform(0.1, 7, n)
    b = gaussian_kernel(q, x, width, 1.5, random(2))
    assert b.shape == (n, width)
    q = q / q.max()
    found = product(b)
    np.testing.assert_allclose(found.diagonal(), q**2, rtol=1e-5)
    error = found / (q[:, None] * q) - gaussian(x, 1.5)
    assert np.sqrt(np.square(error).mean()) < 1 / width**0.5
    assert np.abs(error).max() < 6 / width**0.5
    assert np.abs(error.mean()) < 1 / width**0.5


@pytest.mark.parametrize("width", [20, 400])
def test_the_bandwidth_is_a_median_distance(width: int) -> None:
    x = normal(200, 5) * 37
    apart = cdist(x.numpy(), x.numpy())[np.triu_indices(200, 1)]
    b = gaussian_kernel(np.ones(200), x, 400, None, random())
    s = np.sqrt(-(apart[0] ** 2) / 2 / np.log(product(b)[0, 1]))
    assert s == pytest.approx(np.median(apart), rel=0.05)
    # Its unit does not matter, and duplicates do not count.
    small = gaussian_kernel(np.ones(200), x / 1000, width, None, random())
    large = gaussian_kernel(np.ones(200), x, width, None, random())
    np.testing.assert_allclose(product(small), product(large), atol=1e-5)
    mostly = torch.cat([x[:1].repeat(180, 1), x[180:]])
    assert product(gaussian_kernel(np.ones(200), mostly, 400, None, random()))[0, -1] > 0.01


def test_samples_that_are_all_the_same_have_a_kernel_of_rank_1() -> None:
    for width in (64, 8):
        b = gaussian_kernel(np.ones(10), torch.ones(10, 3), width, None, random())
        np.testing.assert_allclose(product(b), np.ones((10, 10)), atol=1e-6)
        assert len(sample(b, None, random())) == 1


def test_random_features_follow_their_generator() -> None:
    x, q = normal(40, 3), np.ones(40)
    first, again, other = (gaussian_kernel(q, x, 16, None, random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Diversity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_it_covers_more_clusters_than_chance(kernel: str) -> None:
    """Ten clusters, ten samples: chance covers 6.5 of them."""
    generator = random(4)
    centres = np.eye(10) * 5
    cluster = np.arange(300) % 10
    x = torch.from_numpy(centres[cluster] + 0.3 * generator.normal(size=(300, 10)))
    if kernel == "linear":
        b = linear_kernel(np.ones(300), x)
    else:
        b = gaussian_kernel(np.ones(300), x, 400, 2.0, generator)
    draws = [sample(b, 10, generator) for _ in range(60)]
    chance = [generator.choice(300, 10, replace=False) for _ in range(60)]
    covered, at_random = (
        np.mean([len(set(cluster[drawn].tolist())) for drawn in some]) for some in (draws, chance)
    )
    assert covered > at_random + 1


def test_better_items_come_more_often() -> None:
    q = np.where(np.arange(40) < 20, 1.0, 0.2)
    b = linear_kernel(q, normal(40, 12))
    generator = random(5)
    good = np.mean([(sample(b, 4, generator) < 20).mean() for _ in range(200)])
    assert good > 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_are_made_in_blocks_and_leave_features_as_they_are(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = np.random.default_rng(0).random(50) + 0.1
    features = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = features.clone()

    def made() -> list[torch.Tensor]:
        rng = np.random.default_rng(1)
        return [
            linear_kernel(quality, features),
            gaussian_kernel(quality, features, 8, None, rng),
            linear_kernel(quality[:5], features[:5]),
        ]

    whole = made()
    monkeypatch.setattr(kdpp, "_BLOCK", 56)
    for one, other in zip(made(), whole, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(features, before)
