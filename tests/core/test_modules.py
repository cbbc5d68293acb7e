"""Helpers for a user's model."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from augloader.core.modules import (
    AtOnce,
    copied,
    device_of,
    eval_mode,
    is_keras,
    layers_of,
    require_independent,
    unwrapped,
)


def test_what_cannot_be_computed_at_once_is_computed_one_by_one_from_then_on() -> None:
    calls = []

    def lacking(x: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(len(x))
        raise RuntimeError("no rule")

    double = AtOnce(lacking, lambda x: {"x": 2 * x})
    for n in (2, 3):
        assert double(torch.ones(n))["x"].tolist() == [2.0] * n
    assert calls == [2]


def test_memory_that_does_not_suffice_is_said_and_other_errors_are_not_hidden() -> None:
    def failing(error: Exception) -> dict[str, torch.Tensor]:
        raise error

    calls = AtOnce(failing, failing)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        calls(torch.OutOfMemoryError("full"))
    with pytest.raises(ValueError, match="other"):
        calls(ValueError("other"))
    assert calls.works


def test_a_compiled_module_is_unwrapped() -> None:
    model = nn.Linear(2, 2)
    assert unwrapped(model) is model
    assert unwrapped(torch.compile(model)) is model  # type: ignore[arg-type]


def test_a_parallel_module_is_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    monkeypatch.setattr("augloader.core.modules.DistributedDataParallel", Parallel)
    model = nn.Linear(2, 2)
    assert unwrapped(Parallel(torch.compile(model))) is model  # type: ignore[arg-type]


def test_a_copy_is_plain_and_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    for given in (model, nn.DataParallel(model), torch.compile(model)):
        found = copied(given)  # type: ignore[arg-type]
        assert type(found) is nn.Sequential
        assert not found.training
        assert found[0].weight is not model[0].weight
    assert model.training


def test_where_a_model_is() -> None:
    assert device_of(nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")).type == "meta"
    assert device_of(nn.ReLU()).type == "cpu"


def test_each_module_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]
    with pytest.raises(KeyError), eval_mode(model):
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False]


def test_one_thread_at_a_time_has_a_model_in_eval_mode() -> None:
    """A second would give its mode back while the first still runs."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    with ThreadPoolExecutor(1) as pool:

        def elsewhere(part: nn.Module) -> bool:
            def entered() -> bool:
                with eval_mode(part):
                    return part.training

            return pool.submit(entered).result()

        with eval_mode(model):
            with eval_mode(model[1]):  # within: by the same thread
                assert not model.training
            for part in (model, model[1], nn.Sequential(model[0])):
                with pytest.raises(RuntimeError, match="swept by one thread at a time"):
                    elsewhere(part)
            assert elsewhere(nn.Dropout()) is False
            assert not model.training
        assert model.training
        assert model[1].training
        assert elsewhere(model) is False
    assert model.training


def test_layers_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    assert layers_of(model) == dict(model.named_modules())
    assert not is_keras(model)


def test_layers_that_keras_does_not_register() -> None:
    def made(kind: str, name: str, *layers: nn.Module) -> nn.Module:
        module: nn.Module = type(kind, (nn.Module,), {"__module__": "keras.src.layers"})()
        vars(module).update(name=name, layers=list(layers))
        return module

    first, last = made("Dense", "dense"), made("Dense", "dense_1")
    model = made("Sequential", "whole", made("Sequential", "body", first), last)
    assert is_keras(model)
    assert list(layers_of(model)) == ["", "body", "body.dense", "dense_1"]
    assert layers_of(nn.Sequential(model))["0.body.dense"] is first


@torch.no_grad()
def test_outputs_that_depend_on_the_batch_are_refused() -> None:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    own = nn.Linear(3, 2)
    require_independent(own, inputs, own(inputs), "Do this.")
    with pytest.raises(ValueError, match=r"whatever its batch, got others\. Do this\."):
        require_independent(Centred(), inputs, Centred()(inputs), "Do this.")


class Centred(nn.Module):
    """Returns inputs less the mean of their batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)
