"""Strong views that are kept: the same within an interval, by any workers, and bounded."""

import copy
import gc
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    Draw,
    Every,
    Uniform,
    WeightedAugmentedDataset,
    wrap,
)
from augloader.loading import Cache
from tests.reference import random_state

N = 12
Views = dict[tuple[int, int], Tensor]


def drawn(image: Tensor, strength: float) -> Tensor:
    """What depends on all the global random states."""
    numbers = torch.rand(1) + random.random() + float(np.random.random_sample())  # noqa: NPY002
    return (image + strength * numbers).clamp(0, 3)


def images(n: int = N) -> TensorDataset:
    x = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(n) % 2)


def data(cache: Cache | None, strong: Any = drawn) -> WeightedAugmentedDataset:
    return WeightedAugmentedDataset(
        images(), weak=v2.RandomHorizontalFlip(), strong=strong, final=torch.neg, cache=cache
    )


def sampler_of(given: Any, every: Every, copies: int = 2) -> CoresetSampler:
    return CoresetSampler(given, Uniform(), count=4, copies=copies, refresh=every, seed=1)


def epoch(given: Any, sampler: CoresetSampler, number: int, workers: int = 0) -> Views:
    """The strong views of an epoch, by index and copy."""
    sampler.set_epoch(number)
    if sampler.refresh_due:
        sampler.refresh()
    views: Views = {}
    for batch in DataLoader(given, batch_size=3, sampler=sampler, num_workers=workers):
        for row in range(len(batch.index)):
            if batch.strength[row] > 0:
                views[int(batch.index[row]), int(batch.copy[row])] = batch.input[row]
    return views


def same(one: Views, other: Views) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("strong", [drawn, AdaptiveStrengthTransform("perturb", seed=2)])
def test_within_an_interval_views_are_the_same_for_any_workers(strong: Any) -> None:
    every = Every(3)
    found = []
    for workers in (0, 1, 2):
        made = data(Cache(every), strong)
        sampler = sampler_of(made, every)
        found.append([epoch(made, sampler, number, workers) for number in range(6)])
    for views in found:
        assert len(views[0]) == 8
        for number in range(6):
            assert same(views[number], found[0][number - number % 3])
        both = views[0].keys() & views[3].keys()
        assert not any(torch.equal(views[0][k], views[3][k]) for k in both)
    again = data(None, strong)
    sampler = sampler_of(again, every)
    plain = [epoch(again, sampler, number) for number in range(2)]
    assert not same(plain[0], plain[1])


def test_each_view_is_made_once_an_interval() -> None:
    calls = []

    def counted(image: Tensor, strength: float) -> Tensor:
        calls.append(1)
        return drawn(image, strength)

    every, cache = Every(2, warmup=1), Cache(Every(2, warmup=1))
    made = data(cache, counted)
    sampler = sampler_of(made, every)
    totals = []
    for number in range(5):
        epoch(made, sampler, number)
        totals.append(len(calls))
    assert totals == [0, 8, 8, 16, 16]
    assert cache.size > 8 * 4 * 3 * 36
    folders = [part.name for part in cache._root.iterdir()]
    assert folders == ["3"]  # those of the interval before are removed


def test_a_resumed_training_sees_the_same_views() -> None:
    every = Every(4)
    whole = data(Cache(every))
    sampler = sampler_of(whole, every)
    expected = [epoch(whole, sampler, number) for number in range(2)][1]
    state = pickle.loads(pickle.dumps(sampler.state_dict()))
    resumed = data(Cache(every))
    again = sampler_of(resumed, every)
    again.load_state_dict(state)
    assert same(epoch(resumed, again, 3), expected)


@given(st.integers(0, 10**6), st.integers(0, 2**40), st.integers(1, 9))
def test_what_is_not_kept_is_made_to_the_same_view(limit: int, seed: int, interval: int) -> None:
    every = Every(interval)
    bounded, free = Cache(every, limit=limit % 4000, seed=seed), Cache(every, seed=seed)
    state = random_state()
    for number in (0, interval - 1, interval):
        for index in range(3):
            draw = Draw(index, 1, strength=0.5, epoch=number)
            views = [data(cache)[draw].input for cache in (bounded, free)]
            assert torch.equal(*views)
            begin = draw._replace(epoch=number - number % interval)
            assert torch.equal(data(free)[begin].input, views[0])
    assert bounded.size <= limit % 4000
    assert random_state() == state


def test_the_key_is_all_that_a_view_depends_on() -> None:
    cache = Cache(Every(5))
    made, draw = data(cache), Draw(3, 1, strength=0.5, epoch=7)
    kept = made[draw].input
    assert torch.equal(made[draw._replace(epoch=5, weight=3.0)].input, kept)
    others = [{"copy": 2}, {"index": 4}, {"strength": 0.25}, {"epoch": 10}]
    for change in others:
        assert not torch.equal(made[draw._replace(**change)].input, kept)  # type: ignore[arg-type]
    assert not torch.equal(data(Cache(Every(5), seed=1))[draw].input, kept)
    pair = made.__getitems__([draw, draw])
    assert all(torch.equal(sample.input, kept) for sample in pair)
    kept_again = made[draw].input
    kept_again.zero_()  # what is changed in place was a copy
    assert torch.equal(made[draw].input, kept)


def test_plain_indices_and_weak_draws_are_not_kept() -> None:
    cache = Cache(Every(5))
    made = data(cache)
    assert not torch.equal(made[3].input, made[3].input)
    for number in range(3):
        made[Draw(3, strength=0.0, epoch=number)]
    assert made.clean().cache is None
    assert not cache.size


def test_whole_items_and_parts_of_tensors() -> None:
    def joint(item: Any) -> Any:
        noise = torch.rand(1000, 6, 6)
        return {"image": item["image"] + noise[:3], "mask": item["mask"] + int(noise[0, 0, 0] * 99)}

    items = [{"image": torch.zeros(3, 6, 6), "mask": torch.zeros(6, 6).long()} for _ in range(3)]
    cache = Cache(Every(9))
    made = WeightedAugmentedDataset(
        items, strong=joint, joint=True, fields=("image", "mask"), cache=cache
    )
    one, other = (made[Draw(1, 1, epoch=number)] for number in (0, 8))
    assert torch.equal(one.input, other.input)
    assert torch.equal(one.target, other.target)
    assert one.target.any()
    assert cache.size < 4000


class Turned(Dataset[Any]):
    """Images and their masks, which the data set itself mirrors at random; counts its fetches."""

    def __init__(self) -> None:
        self.fetched = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.fetched += 1
        image = torch.zeros(1, 4, 4)
        image[0, 0, 0] = 1
        image = image.flip(-1) if torch.rand(1) < 0.5 else image
        return image, image[0].long()


def test_random_data_sets_keep_image_and_mask_together() -> None:
    draws = [Draw(i, 1, epoch=number) for number in range(4) for i in range(6)]
    views = []
    for limit in (None, 0):
        turned = Turned()
        cache = Cache(Every(4), limit=limit)
        made = WeightedAugmentedDataset(
            turned, strong=lambda image: 3 * image, untouched={"target"}, cache=cache
        )
        rows = [made[draw] for draw in draws[:12]] + list(made.__getitems__(draws[12:]))
        assert all(torch.equal(row.input[0], 3.0 * row.target) for row in rows)
        assert turned.fetched == (6 if limit is None else 24)
        views.append(torch.stack([row.input for row in rows]))
    assert torch.equal(*views)
    assert len(views[0].unique(dim=0)) == 2
    assert torch.equal(views[0][:6], views[0][18:])


def test_batches_of_kept_and_other_draws() -> None:
    made = data(Cache(Every(4)))
    draws = [Draw(i, i % 2, strength=float(i % 2), epoch=i % 3) for i in range(N)]
    for _ in range(2):
        rows = made.__getitems__(draws)
        assert [row.index for row in rows] == list(range(N))
        for draw, row in zip(draws[1::2], rows[1::2], strict=True):
            assert torch.equal(row.input, made[draw].input)
    assert len(list((made.cache._root / "0").iterdir())) == N // 2  # type: ignore[union-attr]


def test_data_sets_that_share_a_cache_keep_their_own_views() -> None:
    cache, draw = Cache(Every(5)), Draw(0, 1)
    one = WeightedAugmentedDataset([(torch.zeros(2), 0)], strong=lambda x: x + 1, cache=cache)
    other = WeightedAugmentedDataset([(torch.zeros(2), 0)], strong=lambda x: x - 1, cache=cache)
    for _ in range(2):
        assert one[draw].input.tolist() == [1, 1]
        assert other[draw].input.tolist() == [-1, -1]
    assert pickle.loads(pickle.dumps(data(cache)))[draw].input.shape == (3, 6, 6)


def test_workers_share_the_limit_though_the_main_process_began() -> None:
    every = Every(5)
    cache = Cache(every, limit=6000)
    made = data(cache)
    made[Draw(0, 1, strength=0.5)]
    sampler = CoresetSampler(made, Uniform(), fraction=1.0, refresh=every)
    epoch(made, sampler, 0, workers=2)
    assert 3000 < cache.size <= 6000


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    cache = Cache(Every(5), tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"folder must have room .* Give a limit below that") as found:
        data(cache)[Draw(0, 1)]
    assert found.value.errno == 28
    assert not list((cache._root / "0").iterdir())


def test_a_folder_that_is_gone_is_named() -> None:
    cache = Cache(Every(5))
    sent = pickle.dumps(cache)
    del cache
    gc.collect()
    with pytest.raises(FileNotFoundError, match=r"folder must be there .* where it is used\."):
        data(pickle.loads(sent))[Draw(0, 1)]


def test_copies_in_a_process_hold_the_folder() -> None:
    made = data(Cache(Every(2)))
    other = copy.deepcopy(made)
    expected = made[Draw(0, 1)].input
    del made
    gc.collect()
    assert torch.equal(other[Draw(0, 1)].input, expected)
    assert not torch.equal(other[Draw(0, 1, epoch=2)].input, expected)


def test_wrapped_loaders_keep_views() -> None:
    every = Every(3)
    cache = Cache(every)
    plain = DataLoader(images(), batch_size=4)
    loader, sampler = wrap(plain, Uniform(), count=4, refresh=every, strong=drawn, cache=cache)
    found: list[Views] = []
    for number in range(3):
        sampler.set_epoch(number)
        if sampler.refresh_due:
            sampler.refresh()
        views: Views = {}
        for x, _, draw in loader:
            for row in (draw.strength > 0).nonzero()[:, 0].tolist():
                views[int(draw.index[row]), int(draw.copy[row])] = x[row]
        found.append(views)
    assert len(found[0]) == 4
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert cache.size


def test_its_folder_goes_with_it(tmp_path: Path) -> None:
    cache = Cache(Every(2), tmp_path)
    made = data(cache)
    expected = made[Draw(0, 1)].input
    sent = pickle.loads(pickle.dumps(cache))
    assert torch.equal(data(sent)[Draw(0, 1)].input, expected)
    assert torch.equal(data(copy.deepcopy(cache))[Draw(0, 1)].input, expected)
    del sent
    gc.collect()
    assert cache.size
    assert len(list(tmp_path.iterdir())) == 1
    del cache, made
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_what_is_no_cache(tmp_path: Path) -> None:
    other: Any = 20
    with pytest.raises(TypeError, match="every must be an Every, got int"):
        Cache(other)
    with pytest.raises(ValueError, match="limit must be at least 0, got -1"):
        Cache(Every(2), limit=-1)
    with pytest.raises(ValueError, match=r"folder must be there, got .*no"):
        Cache(Every(2), tmp_path / "no")
    with pytest.raises(TypeError, match=r"cache must be a Cache or None, got bool\. Pass augl"):
        data(True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cache must be None without a strong transform"):
        data(Cache(Every(2)), None)
    with pytest.raises(ValueError, match=r"refresh must be that of the dataset's cache, Every\("):
        sampler_of(data(Cache(Every(2))), Every(3))
    assert "seed=3" in repr(Cache(Every(2), seed=3))
