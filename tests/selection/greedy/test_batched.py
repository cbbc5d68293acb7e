"""The batched greedy, group by group, against the naive reference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader import Proxies
from augloader.selection import greedy_medoids
from augloader.selection.greedy import batched
from augloader.selection.greedy.batched import Batch, Found, batched_greedy
from tests.reference import naive_greedy

SIZES = [90, 1, 37, 2, 64, 120]


def residuals(n: int, seed: int) -> Tensor:
    """Distances of one class of a trained network: most proxies tiny, a few large."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 10, generator=generator) * 3
    logits[:, 0] += 6
    g = logits.softmax(1)
    g[:, 0] -= 1
    return Proxies(g).distances()


def mixture(n: int, seed: int) -> Tensor:
    """Distances in a few clear clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(8, 5, generator=generator) * 10
    x = centres[torch.randint(8, (n,), generator=generator)]
    return Proxies(x + torch.randn(n, 5, generator=generator)).distances()


DATA = {"residuals": residuals, "mixture": mixture}


def padded(groups: list[Tensor], padding: float = torch.nan) -> tuple[Tensor, Tensor]:
    """The groups' distances in one batch, larger than the largest, and their sizes."""
    sizes = torch.tensor([len(group) for group in groups])
    batch = torch.full((len(groups), int(sizes.max()) + 3, int(sizes.max()) + 3), padding)
    for one, group in zip(batch, groups, strict=True):
        one[: len(group), : len(group)] = group
    return batch, sizes


def same(here: list[Found], there: list[Found]) -> bool:
    """Whether two outcomes agree to the last bit."""
    return all(
        torch.equal(a.taken, b.taken)
        and torch.equal(a.gains, b.gains)
        and torch.equal(a.remaining, b.remaining)
        and a.constant == b.constant
        for a, b in zip(here, there, strict=True)
    )


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("padding", [torch.nan, 0.0, -1.0, torch.inf, -torch.inf])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_equals_the_naive_greedy(data: str, padding: float, share: float) -> None:
    groups = [DATA[data](n, seed) for seed, n in enumerate(SIZES)]
    batch, sizes = padded(groups, padding)
    before = batch.clone()
    found = batched_greedy(batch, sizes, (sizes * share).long().clamp(min=1))
    assert torch.equal(batch.nan_to_num(), before.nan_to_num())
    for group, one in zip(groups, found, strict=True):
        budget = max(1, int(len(group) * share))
        taken, gains = naive_greedy(group.numpy(), budget)
        assert one.taken.tolist() == taken
        assert one.constant == group.max()
        np.testing.assert_allclose(one.gains.numpy(), gains, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("budget", [1, 5, 17, 100, 400])
def test_equals_the_naive_greedy_far_beyond_the_full_refreshes(data: str, budget: int) -> None:
    groups = [DATA[data](400, seed) for seed in range(3)]
    found = batched_greedy(*padded(groups), torch.full((3,), budget))
    for group, one in zip(groups, found, strict=True):
        taken, gains = naive_greedy(group.numpy(), budget)
        assert one.taken.tolist() == taken
        np.testing.assert_allclose(one.gains.numpy(), gains, rtol=1e-9, atol=1e-9)


def test_every_group_has_its_own_budget() -> None:
    groups = [mixture(50, seed) for seed in range(5)]
    budgets = [1, 2, 9, 49, 50]
    found = batched_greedy(*padded(groups), torch.tensor(budgets))
    for group, budget, one in zip(groups, budgets, found, strict=True):
        assert one.taken.tolist() == naive_greedy(group.numpy(), budget)[0]
        assert one.taken.dtype == torch.int64
        assert one.gains.dtype == one.remaining.dtype == torch.float64


@pytest.mark.parametrize("data", DATA)
def test_remaining_are_the_gains_at_the_end(data: str) -> None:
    groups = [DATA[data](n, seed) for seed, n in enumerate(SIZES)]
    batch, sizes = padded(groups)
    found = batched_greedy(batch, sizes, (sizes // 3).clamp(min=1))
    for group, one in zip(groups, found, strict=True):
        d = group.double()
        gain = (d[:, one.taken].min(1).values[:, None] - d).clamp(min=0).sum(0)
        gain[one.taken] = -torch.inf
        torch.testing.assert_close(one.remaining, gain, rtol=1e-9, atol=1e-12)


def test_duplicates_fill_the_budget_lowest_index_first() -> None:
    x = torch.tensor([[0.0], [5.0], [5.0], [0.0], [5.0]])
    y = torch.tensor([[1.0], [1.0], [7.0], [1.0]])
    batch, sizes = padded([torch.cdist(x, x), torch.cdist(y, y)])
    for width in (1, 2, 32):
        found = batched_greedy(batch, sizes, sizes, width=width)
        assert found[0].taken.tolist() == [1, 0, 2, 3, 4]
        assert found[1].taken.tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("width", [1, 7, 32])
def test_twins_tie_to_the_lowest_index(width: int) -> None:
    group = residuals(100, 0).repeat(2, 2)
    one = batched_greedy(*padded([group]), torch.tensor([200]), width=width)[0]
    assert one.taken[:100].max() < 100
    assert one.taken[100:].tolist() == list(range(100, 200))
    assert not one.gains[100:].any()


@pytest.mark.parametrize("width", [1, 3, 32])
def test_all_alike(width: int) -> None:
    batch, sizes = padded([torch.zeros(n, n) for n in (1, 2, 70)])
    for n, one in zip(sizes, batched_greedy(batch, sizes, sizes, width=width), strict=True):
        assert one.taken.tolist() == list(range(n))
        assert one.gains.tolist() == [0] * int(n)
        assert one.constant == 0
    two = batched_greedy(batch, sizes, torch.ones(3).long(), width=width)[1]
    assert two.remaining.tolist() == [-torch.inf, 0]


@pytest.mark.parametrize("width", [1, 5, 10_000])
def test_the_width_changes_nothing(width: int) -> None:
    groups = [residuals(120, 0), mixture(80, 1), torch.zeros(40, 40)]
    batch, sizes = padded(groups)
    usual = batched_greedy(batch, sizes, sizes // 2)
    assert same(usual, batched_greedy(batch, sizes, sizes // 2, width=width))


def test_the_layout_changes_nothing() -> None:
    batch, sizes = padded([residuals(120, 0), mixture(80, 1)])
    usual = batched_greedy(batch, sizes, sizes // 2)
    assert same(usual, batched_greedy(batch.mT.contiguous().mT, sizes, sizes // 2))


@pytest.mark.parametrize("n", [37, 61, 99])
def test_a_group_is_summed_alike_whatever_runs_beside_it(n: int) -> None:
    """To the last bit, with twins in a group of odd size, and in every place of a batch."""
    group = residuals(n // 2, 0).repeat(2, 2)
    group = torch.cat([group, group[:1]])
    group = torch.cat([group, group[:, :1]], 1)  # and a third of the first
    assert len(group) % 2
    alone = batched_greedy(group[None], torch.tensor([len(group)]), torch.tensor([n // 3]))[0]
    assert alone.taken.max() < n // 2
    for more in (1, 2, 30, 70):
        others = [mixture(len(group) + more, 1), group, residuals(5, 2), group]
        batch, sizes = padded(others)
        for width in (1, 3, 32):
            found = batched_greedy(batch, sizes, sizes.clamp(max=n // 3), width=width)
            assert same([found[1], found[3]], [alone, alone])


@pytest.mark.parametrize("m", [1, 2, 3, 7, 64, 65, 1000, 5001])
def test_sums_fold_halves_so_that_zeros_at_the_end_change_nothing(m: int) -> None:
    def folded(terms: list[float]) -> float:
        while len(terms) > 1:
            half = 2 ** ((len(terms) - 1).bit_length() - 1)
            upper = terms[half:] + [0.0] * (2 * half - len(terms))
            terms = [a + b for a, b in zip(terms[:half], upper, strict=True)]
        return terms[0]

    x = torch.rand(3, m, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    expected = [folded(row) for row in x.tolist()]
    for more in (0, 1, 5, m, 4000):
        padded_with_0 = torch.nn.functional.pad(x, (0, more))
        assert batched._summed(padded_with_0).tolist() == expected


def test_every_gain_is_summed_so() -> None:
    group = residuals(1001, 0)
    one = batched_greedy(*padded([group]), torch.tensor([1]))[0]
    row = group.double().max() - group.double()[one.taken[0]]
    assert one.gains[0] == batched._summed(row.clone())
    left = (group[one.taken[0]].double()[:, None] - group).clamp(min=0).T.contiguous()
    left = batched._summed(left).index_fill_(0, one.taken, -torch.inf)
    assert torch.equal(one.remaining, left)


def test_twins_have_the_same_gain_in_any_batch() -> None:
    x = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    group = Proxies(torch.cat([x, x, x[:1]])).distances()
    for more in (0, 1, 2, 3, 64):
        batch, sizes = padded([group, mixture(35 + more, 1)])
        left = batched_greedy(batch, sizes, torch.tensor([4, 1]))[0].remaining
        there = left > -torch.inf
        twins = there[:17] & there[17:34]
        assert torch.equal(left[:17][twins], left[17:34][twins])


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("xi", [None, 1.0])
def test_begins_with_what_is_given(data: str, xi: float | None) -> None:
    groups = [DATA[data](n, seed) for seed, n in enumerate((30, 7, 45))]
    starts = [torch.tensor(given, dtype=torch.int64) for given in ([9, 2, 29], [], [44])]
    batch, sizes = padded(groups)
    budgets = torch.tensor([12, 3, 20])
    found = batched_greedy(batch, sizes, budgets, xi=xi, starts=starts)
    for group, start, budget, one in zip(groups, starts, budgets, found, strict=True):
        usual = greedy_medoids(group, int(budget), xi=xi, start=start)
        assert one.taken.tolist() == usual.indices.tolist()
        assert one.seeds == usual.seeds
        assert torch.equal(one.nearest, usual.nearest)
        assert torch.equal(one.distances, usual.distances)
        torch.testing.assert_close(one.gains, usual.gains, rtol=1e-9, atol=1e-9)
        moves, expected = (sorted(m.tolist()) for m in (one.moves, usual.moves))
        assert moves == expected
    with pytest.raises(ValueError, match="start must be at most 12 distinct positions"):
        batched_greedy(batch, sizes, budgets, starts=[torch.tensor([1, 1]), *starts[1:]])


def test_the_history_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, sizes = padded([residuals(50, 0), mixture(31, 1)])
    usual = batched_greedy(batch, sizes, sizes // 2)
    monkeypatch.setattr(batched, "_HISTORY", 1)
    for a, b in zip(usual, batched_greedy(batch, sizes, sizes // 2), strict=True):
        assert torch.equal(a.moves, b.moves)
        assert torch.equal(a.nearest, b.nearest)


def test_goes_on_where_the_first_look_finds_a_group_unfinished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, sizes = padded([mixture(120, 0), residuals(90, 1)])
    usual = batched_greedy(batch, sizes, sizes // 3, width=4)
    monkeypatch.setattr(batched, "_SURPLUS", -1)
    monkeypatch.setattr(batched, "_MORE", 1)
    assert same(usual, batched_greedy(batch, sizes, sizes // 3, width=4))


def test_stops_where_greedy_medoids_does() -> None:
    groups = [DATA[data](150, seed) for data in DATA for seed in range(2)]
    batch, sizes = padded(groups)
    order = batched_greedy(batch, sizes, sizes)[0].taken
    errors = [float(groups[0][:, order[:k]].min(1).values.double().sum()) for k in (1, 20, 50)]
    for xi in (0.0, *(error * (1 + 1e-9) for error in errors), torch.inf):
        for group, one in zip(groups, batched_greedy(batch, sizes, sizes, xi=xi), strict=True):
            usual = greedy_medoids(group, 150, xi=xi)
            assert one.taken.tolist() == usual.indices.tolist()
    for k, error in zip((1, 20, 50), errors, strict=True):
        stopped = batched_greedy(batch, sizes, sizes, xi=error * (1 + 1e-9))
        assert len(stopped[0].taken) == k


def test_an_iteration_asks_for_no_value() -> None:
    """On the meta device there are none: reading one, or a shape that hangs on it, is an error."""
    groups = state(torch.empty(3, 50, 50, device="meta"))
    groups.refresh()
    groups.step()
    with pytest.raises(RuntimeError, match="meta"):
        bool(groups.going().any())


def test_an_iteration_works_in_place() -> None:
    """A graph goes on with the memory that it was captured with."""
    groups = state(torch.stack([mixture(40, 0), mixture(40, 1)]))

    def places() -> list[int]:
        return [part.data_ptr() for part in vars(groups).values() if isinstance(part, Tensor)]

    before = places()
    groups.refresh()
    groups.step()
    assert places() == before
    assert groups.count.tolist() == [[1]] * 2


def state(distances: Tensor) -> Batch:
    """A greedy before its first iteration."""
    groups = len(distances)
    return Batch(distances, [40] * groups, [40] * groups, [torch.empty(0)] * groups)


THREE = torch.zeros(2, 3, 3)
FULL = torch.tensor([3, 3])


@pytest.mark.parametrize(
    ("distances", "sizes", "budgets", "error", "words"),
    [
        (THREE.double(), FULL, FULL, TypeError, "distances must be float32"),
        (torch.zeros(3, 3), FULL, FULL, ValueError, r"\(G, m, m\) and not empty"),
        (torch.zeros(2, 3, 4), FULL, FULL, ValueError, r"\(G, m, m\) and not empty"),
        (torch.zeros(0, 3, 3), FULL[:0], FULL[:0], ValueError, "not empty"),
        (THREE, FULL[:1], FULL, ValueError, r"sizes must have shape \(2,\), got \(1,\)"),
        (THREE, FULL, FULL[None], ValueError, r"budgets must have shape \(2,\), got \(1, 2\)"),
        (THREE, FULL + 1, FULL, ValueError, "sizes must be 1 to 3, got 4"),
        (THREE, FULL * 0, FULL, ValueError, "sizes must be 1 to 3, got 0"),
        (THREE, FULL - 1, FULL, ValueError, "budgets must be 1 to the group's size 2, got 3"),
        (THREE, FULL, FULL * 0, ValueError, "budgets must be 1 to the group's size 3, got 0"),
        (THREE + torch.nan, FULL, FULL, ValueError, "distances must be finite, got nan"),
        (THREE + torch.inf, FULL, FULL, ValueError, "distances must be finite, got inf"),
    ],
)
def test_bad_input(
    distances: Tensor, sizes: Tensor, budgets: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        batched_greedy(distances, sizes, budgets)


def test_bad_options() -> None:
    for xi in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"xi must be in \[0, inf\]"):
            batched_greedy(THREE, FULL, FULL, xi=xi)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        batched_greedy(THREE, FULL, FULL, width=0)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_iteration_does_not_wait_for_the_gpu() -> None:
    batch = torch.stack([residuals(40, seed) for seed in range(3)]).cuda()
    groups = state(batch)
    groups.refresh()
    groups.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        groups.refresh()
        groups.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert groups.count.tolist() == [[2]] * 3


@pytest.mark.slow  # where a device is pretended
@pytest.mark.gpu
@pytest.mark.parametrize("xi", [None, 0.5])
def test_gpu_equals_the_cpu(xi: float | None) -> None:
    groups = [DATA[data](n, n) for data in DATA for n in (1, 2, 300, 1500)]
    groups.append(torch.zeros(70, 70))
    batch, sizes = padded(groups)
    budgets = (sizes * 3 // 10).clamp(min=1)
    here = batched_greedy(batch, sizes, budgets, xi=xi)
    there = batched_greedy(batch.cuda(), sizes.cuda(), budgets.cuda(), xi=xi)
    for a, b in zip(here, there, strict=True):
        assert a.taken.tolist() == b.taken.tolist()
        torch.testing.assert_close(a.gains, b.gains.cpu(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(a.remaining, b.remaining.cpu(), rtol=1e-9, atol=1e-9)
        assert a.constant == b.constant
