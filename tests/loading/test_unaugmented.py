"""The un-augmented view of any dataset, the same in every pass."""

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from augloader import Draw, WeightedAugmentedDataset
from augloader.loading.randomness import Fixed
from augloader.loading.shaped import Shaped
from augloader.loading.unaugmented import batches, loader_of, on, unaugmented
from tests.reference import random_state

CPU = torch.device("cpu")


def minus(x: Any) -> Any:
    return -x


def augmented(n: int = 6) -> WeightedAugmentedDataset:
    data = TensorDataset(torch.arange(1.0, n + 1), torch.arange(n))
    return WeightedAugmentedDataset(data, weak=minus, strong=minus)


def legacy() -> float:
    return float(np.random.rand())  # noqa: NPY002 - as datasets do


DRAWS: dict[str, Any] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": legacy,
    "python": random.random,
}


class Jittered(Dataset[Any]):
    """Adds a random number of one of the global states."""

    def __init__(self, source: str, batched: bool = False) -> None:
        self.source = source
        if batched:
            self.__getitems__ = lambda positions: [self[i] for i in positions]

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor(index + DRAWS[self.source]()), index


def passed(data: Any, batch_size: int = 4, workers: int = 0, share: Any = None) -> Tensor:
    loader = loader_of(unaugmented(data), share, batch_size, workers, None, CPU)
    with Fixed(0):
        return torch.cat([batch.input for batch, _ in batches(loader, "test", False)])


def test_subsets_and_concatenations_are_looked_through() -> None:
    part, other = Subset(augmented(), [4, 1]), TensorDataset(torch.ones(2), torch.zeros(2))
    assert passed(part).tolist() == [5, 2]
    assert passed(Subset(part, range(1, 2))).tolist() == [2]
    joined: ConcatDataset[Any] = ConcatDataset([part, other, augmented(2)])
    assert passed(joined).tolist() == [5, 2, 1, 1, 1, 2]
    assert passed(Subset(joined, [0, 4])).tolist() == [5, 1]
    with pytest.raises(ValueError, match="got 0 samples"):
        unaugmented(Subset(augmented(), []))


class Mine(Subset[Any]):
    pass


def test_what_is_not_looked_through() -> None:
    with pytest.raises(TypeError, match=r"got a Mine around a WeightedAugmentedDataset.*inside"):
        unaugmented(Mine(augmented(), [1]))
    with pytest.raises(TypeError, match=r"got a DataLoader. Pass its dataset: loader.dataset"):
        unaugmented(DataLoader(augmented()))


@pytest.mark.parametrize("source", DRAWS)
def test_random_data_are_the_same_in_every_pass_and_are_told(source: str) -> None:
    data, before = Jittered(source), random_state()
    with pytest.warns(UserWarning, match=r"drew random numbers.*Pass clean=") as told:
        one = passed(data)
    assert len(told) == 1
    assert random_state() == before
    with pytest.warns(UserWarning, match="drew random numbers"):
        two = passed(Shaped(data, list), batch_size=3, workers=2)
    assert torch.equal(one, two)
    assert len({float(x) - i for i, x in enumerate(one)}) == 10
    with pytest.warns(UserWarning, match="drew random numbers"):
        share = passed(Jittered(source, batched=True), share=torch.tensor([7, 2, 3]))
    assert torch.equal(share, one[[7, 2, 3]])


def test_a_clean_part_needs_no_warning() -> None:
    plain = [(torch.tensor(float(i)), i) for i in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = WeightedAugmentedDataset(Jittered("torch"), clean=plain)
        assert passed(data).tolist() == list(range(10))


def test_items_that_are_none_are_named() -> None:
    items: list[Any] = [(torch.zeros(2), 0)] * 5 + [None]
    for own in (False, True):
        view = unaugmented(items, own)
        with pytest.raises(TypeError, match="got None for index 5"):
            list(batches(loader_of(view, None, 2, 0, None, CPU), "test", False))
    with pytest.raises(TypeError, match="got None for index 5"):
        _ = unaugmented(Shaped(items, list), own=True)[5]


def test_inputs_of_several_sizes() -> None:
    items = [(torch.zeros(3, 4 + i, 5), i) for i in range(3)]
    data = WeightedAugmentedDataset(items, weak=lambda x: x[:, :4])
    with pytest.raises(ValueError, match=r"got \(3, 4, 5\) and \(3, 6, 5\)\. Pass clean="):
        passed(data)
    resized = WeightedAugmentedDataset(items, weak=minus, clean=lambda x: x[:, :4])
    assert passed(resized).shape == (3, 3, 4, 5)


class Carried:
    device: Any = None

    def to(self, device: torch.device) -> Any:
        self.device = device
        return self


def test_a_batch_is_moved_by_its_own_way_or_tensor_by_tensor() -> None:
    meta = torch.device("meta")
    assert on(Carried(), meta).device == meta
    moved = on({"x": torch.zeros(2), "names": ["a"]}, meta)
    assert moved["x"].device == meta
    assert moved["names"] == ["a"]


def test_own_items_stay_as_they_are() -> None:
    items = [{"x": i} for i in range(3)]
    assert unaugmented(items, own=True) is items
    assert unaugmented(Shaped(items, list, strong=minus), own=True)[2] == {"x": 2}
    assert unaugmented(augmented(), own=True)[Draw(0)].input == 1
