"""Former names work, warn with the new one, and are refused beside it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import augloader
from augloader import CutMix, FacilityLocation, ManifoldMixup, Mixup, Uniform
from augloader.core.deprecated import formerly, renamed
from augloader.feedback import SampleTable


def sampler(**options: Any) -> Any:
    return augloader.CoresetSampler(range(9), Uniform(), count=2, **options).plan.arguments()


def shard(**options: Any) -> Any:
    ranks: dict[str, Any] = {"num_replicas": 1, "rank": 0}
    made = augloader.DistributedCoresetSampler(range(9), Uniform(), count=2, **ranks, **options)
    return made.plan.arguments()


def wrapped(**options: Any) -> Any:
    loader = DataLoader(TensorDataset(torch.zeros(9, 1), torch.zeros(9).long()), batch_size=3)
    return augloader.wrap(loader, Uniform(), count=2, **options)[1].plan.arguments()


def mixup(**options: Any) -> Any:
    made = Mixup(**options)
    return made.num_classes, made.alpha


def cutmix(**options: Any) -> Any:
    made = CutMix(**options)
    return made.num_classes, made.alpha


def manifold(**options: Any) -> Any:
    made = ManifoldMixup(nn.Sequential(nn.Linear(1, 1)), ["0"], **options)
    return made.num_classes, made.alpha


def report(**values: Any) -> Any:
    table = SampleTable(1)
    table.report(torch.tensor([0]), **({"logits": torch.zeros(1, 2)} | values))
    return table.state_dict()["columns"].keys(), table.labels.tolist()


PLAN: list[tuple[str, str, Any]] = [
    ("schedule", "strength_schedule", 0.5),
    ("plain_copies", "keep_unaugmented_copies", False),
    ("weak", "weak_probability", 0.5),
    ("multiple", "pad_to_multiple_of", 4),
]
MIX: list[tuple[str, str, Any]] = [("classes", "num_classes", 3), ("gamma", "alpha", 0.5)]
REPORT: list[tuple[str, str, Any]] = [
    ("losses", "loss", torch.zeros(1)),
    ("labels", "target", torch.tensor([1])),
    ("proxies", "proxy", torch.zeros(1, 3)),
]
RENAMED: list[tuple[Callable[..., Any], str, str, Any]] = [
    *((make, *names) for make in (sampler, shard) for names in PLAN),
    *((wrapped, *names) for names in PLAN if names[0] != "weak"),  # there it is a transform
    (FacilityLocation, "warm", "warm_start", 0.25),
    *((make, *names) for make in (mixup, cutmix, manifold) for names in MIX),
    *((report, *names) for names in REPORT),
]


@pytest.mark.parametrize(("make", "old", "new", "value"), RENAMED)
def test_a_former_keyword_means_the_new_one(
    make: Callable[..., Any], old: str, new: str, value: Any
) -> None:
    with pytest.warns(DeprecationWarning, match=f"^{old} is now called {new}\\.$") as caught:
        found = make(**{old: value})
    assert [warning.filename for warning in caught] == [__file__]
    assert found == make(**{new: value}) != make()


@pytest.mark.parametrize(("make", "old", "new", "value"), RENAMED)
def test_both_names_at_once_are_refused(
    make: Callable[..., Any], old: str, new: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"^{new} must be given once, got it as {old} too\\."):
        make(**{old: value, new: value})


def test_former_attributes() -> None:
    for thing, old, new in (
        (FacilityLocation(warm_start=0.5), "warm", "warm_start"),
        (Mixup(3, 0.5), "classes", "num_classes"),
        (Mixup(3, 0.5), "gamma", "alpha"),
    ):
        with pytest.warns(DeprecationWarning, match=f"^{old} is now called {new}\\.$") as caught:
            assert getattr(thing, old) == getattr(thing, new)
        assert [warning.filename for warning in caught] == [__file__]


def test_new_names_do_not_warn_and_the_signature_stays() -> None:
    @renamed(old="new")
    def add(a: int, *, new: int = 0) -> int:
        """Add."""
        return a + new

    class Thing:
        new = 3
        old = formerly("old", "new")

    assert add(1, new=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    with pytest.raises(TypeError, match="unexpected keyword argument 'older'"):
        add(1, older=2)  # type: ignore[call-arg]
    assert Thing.old.__doc__ == "Former name of new."
