"""Copies between the CPU and a device: what comes back, and how often the host waits."""

from typing import Any

import torch
from torch import Tensor

from augloader.selection.greedy.transfer import fetched, sent


def tensors() -> list[Tensor]:
    """Of all widths, shapes and layouts, none among them."""
    return [
        torch.tensor([True, False, True]),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor(2.5),
        torch.empty(0, 4, dtype=torch.int32),
        torch.tensor([[1.5], [torch.nan]], dtype=torch.float64),
        torch.arange(5, dtype=torch.int16)[1::2],
    ]


def same(here: list[Tensor], there: list[Tensor]) -> bool:
    """Whether two lists agree in dtypes, shapes and values, NaN included."""
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.equal(b) | (a != a).any()
        for a, b in zip(here, there, strict=True)
    )


def test_the_cpu_keeps_its_tensors() -> None:
    given = tensors()
    assert all(a is b for a, b in zip(fetched(given), given, strict=True))
    assert fetched([]) == []
    assert sent(given[0], torch.device("cpu")) is given[0]


def test_all_come_back_with_one_wait(gpu: Any) -> None:
    there = [sent(x, torch.device("cuda")) for x in tensors()]
    assert all(x.is_cuda for x in there)
    assert not gpu.waits
    assert same(fetched(there), tensors())
    assert gpu.waits.total() == 1
    assert sent(there[0], torch.device("cuda")) is there[0]
