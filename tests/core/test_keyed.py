import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augloader.core.keyed import uniforms

WORD = 2**64
keys_of_rows = st.lists(st.tuples(*[st.integers(0, 2**63 - 1)] * 3), min_size=1, max_size=6)
seeds = st.integers(0, WORD - 1)


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def by_definition(seed: int, keys: tuple[int, ...], count: int) -> list[float]:
    """The documented recurrence on Python's integers."""
    gamma = 0x9E3779B97F4A7C15
    state = mix(seed)
    for key in keys:
        state = mix((state + gamma + key) % WORD)
    return [(mix((state + i * gamma) % WORD) >> 11) / 2**53 for i in range(1, count + 1)]


@given(seeds, keys_of_rows, st.integers(0, 5))
def test_it_is_the_documented_recurrence(
    seed: int, rows: list[tuple[int, ...]], count: int
) -> None:
    out = uniforms(seed, np.array(rows), count)
    assert out.dtype == np.float64
    assert out.tolist() == [by_definition(seed, row, count) for row in rows]


def test_golden_values() -> None:
    """A change of these changes every augmentation of every user's run."""
    out = uniforms(0, np.array([[0, 0, 0], [3, 1234, 1]]), 2)
    assert out.tolist() == [
        [0.1296456182997474, 0.049920065672091285],
        [0.9079008811795715, 0.5198752674507598],
    ]
    assert uniforms(7, np.array([[3, 1234, 1]]), 1).tolist() == [[0.7231572606616058]]


@given(seeds, keys_of_rows)
def test_a_row_depends_on_its_own_keys_alone(seed: int, rows: list[tuple[int, ...]]) -> None:
    keys = np.array(rows)
    whole = uniforms(seed, keys, 4)
    order = np.random.default_rng(seed).permutation(len(keys))
    assert np.array_equal(uniforms(seed, keys[order], 4), whole[order])
    assert np.array_equal(uniforms(seed, keys[-1:], 4), whole[-1:])
    assert np.array_equal(uniforms(seed, keys, 2), whole[:, :2])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_key_types_do_not_matter(dtype: type) -> None:
    keys = np.array([[0, 7, 1], [100, 3, 0]])
    assert np.array_equal(uniforms(3, keys.astype(dtype), 3), uniforms(3, keys, 3))


def test_seed_epoch_index_copy_all_matter() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"), -1).reshape(-1, 3)
    rows = np.concatenate([uniforms(seed, grid, 1) for seed in range(8)])
    assert len(np.unique(rows)) == 8**4  # (0, 1) is not (1, 0), no seed is another's shift


def test_extremes() -> None:
    keys = np.array([[2**63 - 1, 2**63 - 1, 0]])
    out = uniforms(WORD - 1, keys, 3)
    assert ((out >= 0) & (out < 1)).all()
    assert uniforms(0, np.zeros((0, 3), np.int64), 4).shape == (0, 4)
    assert uniforms(0, keys, 0).shape == (1, 0)


@pytest.fixture(scope="module")
def table() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """As in training: neighbouring indices of one epoch."""
    indices = np.arange(100_000)
    return uniforms(0, np.stack([indices * 0 + 3, indices, indices * 0 + 1], 1), 4)


def test_uniform(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    n = len(table)
    assert np.abs(table.mean(0) - 0.5).max() < 4 / np.sqrt(12 * n)
    assert np.abs(table.var(0) - 1 / 12).max() < 4 * np.sqrt(1 / 180 / n)
    for column in table.T:
        counts = np.bincount((column * 64).astype(int), minlength=64)
        assert 20 < ((counts - n / 64) ** 2 / (n / 64)).sum() < 120  # chi-square, 63 degrees


def test_bits_are_balanced(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    whole = (table * 2.0**53).astype(np.uint64)
    for bit in range(53):
        share = ((whole >> np.uint64(bit)) & np.uint64(1)).mean(0)
        assert np.abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(len(table))


def test_no_correlation(table: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    indices = np.arange(100_000)
    zeros = indices * 0
    others = [
        table[:, 1],  # the row's next number
        table[:, 3],
        np.roll(table[:, 0], 1),  # the neighbouring index
        np.roll(table[:, 0], 2),
        np.roll(table[:, 0], 256),
        uniforms(1, np.stack([zeros + 3, indices, zeros + 1], 1), 1)[:, 0],  # the next seed
        uniforms(0, np.stack([zeros + 4, indices, zeros + 1], 1), 1)[:, 0],  # the next epoch
        uniforms(0, np.stack([zeros + 3, indices, zeros + 2], 1), 1)[:, 0],  # the next copy
        uniforms(0, np.stack([indices, zeros + 3, zeros + 1], 1), 1)[:, 0],  # keys swapped
    ]
    bound = 4.5 / np.sqrt(len(table))
    for other in others:
        pair = np.stack([table[:, 0], other])
        for values in (pair, np.cos(2 * np.pi * pair), pair > 0.9):
            assert abs(np.corrcoef(values)[0, 1]) < bound
