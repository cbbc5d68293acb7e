"""What is free on a device, and which device an engine's limit is read from."""

from collections.abc import Callable

import pytest
import torch

from augloader.selection.greedy import engine as engine_module
from augloader.selection.greedy.memory import free_memory

GPU = torch.device("cuda", 0)


def test_some_is_free_on_the_cpu() -> None:
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


def test_what_the_allocator_keeps_is_free_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def told(value: object) -> Callable[[torch.device], object]:
        def answer(device: torch.device) -> object:
            asked.append(device)
            return value

        return answer

    monkeypatch.setattr(torch.cuda, "mem_get_info", told((1000, 80_000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", told(500))
    monkeypatch.setattr(torch.cuda, "memory_allocated", told(200))
    assert free_memory(GPU) == 1300
    assert asked == [GPU] * 3


def test_the_dense_engine_asks_the_device_of_its_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 4_000, "cuda": 400}
    monkeypatch.setattr(engine_module, "free_memory", lambda device: free[device.type])
    limits = engine_module._limits(None, GPU, None)
    assert limits == {"dense": 100, "matrix-free": 1000, "graph": 1000}
    # The stochastic greedy computes the matrix on the GPU and works on the CPU.
    assert engine_module._limits(None, GPU, 0.1)["dense"] == 100
    free["cuda"] = 8_000
    assert engine_module._limits(None, GPU, None)["dense"] == 2000
    assert engine_module._limits(None, GPU, 0.1)["dense"] == 1000
    assert set(engine_module._limits(None, torch.device("cpu"), None).values()) == {1000}
    assert set(engine_module._limits(77, GPU, None).values()) == {77}
