"""The head of a model is found, or named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from augloader.loading.heads import Tap, head_of


def keras_layer(name: str, kind: str = "Dense", **fields: Any) -> Any:
    """Return a module as Keras makes them: of its own package, with a name and an activation."""
    made = type(kind, (nn.Linear,), {"__module__": "keras.src.layers"})(2, 2)
    for field, value in {"name": name, **fields}.items():
        setattr(made, field, value)
    return made


def keras_model(layers: list[Any]) -> Any:
    made = type("Sequential", (nn.Module,), {"__module__": "keras.src.models"})()
    object.__setattr__(made, "layers", layers)  # which are not registered as modules
    made.name = "sequential"
    return made


def softmax(x: Tensor) -> Tensor:
    return x.softmax(1)


def test_the_last_linear_layer_or_the_one_named() -> None:
    last = nn.Linear(3, 2)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(last, nn.Dropout()))
    assert head_of(model, None) == ("2.0", last)
    assert head_of(model, "0") == ("0", model[0])
    with pytest.raises(ValueError, match="head must be a module of the model, got 'fc'"):
        head_of(model, "fc")
    with pytest.raises(ValueError, match=r"must have an nn.Linear head, got ReLU .*head="):
        head_of(nn.ReLU(), None)


def test_the_layers_of_keras_models() -> None:
    dense = keras_layer("dense_2")
    inner = keras_model([keras_layer("dense"), keras_layer("dense_1")])
    model = keras_model([inner, dense, keras_layer("dropout", "Dropout")])
    model.layers[-1].__class__ = type("Dropout", (nn.Module,), {"__module__": "keras.src"})
    assert head_of(model, None) == ("dense_2", dense)
    assert head_of(model, "sequential.dense") == ("sequential.dense", inner.layers[0])
    curved = keras_model([keras_layer("last", activation=softmax)])
    with pytest.raises(ValueError, match=r"head 'last' must return logits.*'softmax'"):
        head_of(curved, None)


def test_what_the_head_is_given() -> None:
    head, x = nn.Linear(3, 2), torch.rand(4, 3)
    with Tap("head", head) as tap:
        logits = head(x)
        assert torch.equal(tap.features(logits), torch.cat([x, torch.ones(4, 1)], 1))
        with pytest.raises(RuntimeError, match="head 'head' must be called"):
            tap.features(logits)
    assert not head._forward_hooks
    with Tap() as none:
        assert none.head is None
