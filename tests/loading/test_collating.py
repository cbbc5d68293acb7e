"""Draws go beside a batch, or inside its items, whatever the collate function does."""

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate
from torchvision.transforms import v2

from augloader import Evidence, Loss, Rank, Sample, Uniform, wrap

N = 24


class Pair(NamedTuple):
    x: Tensor
    y: int


@dataclass(frozen=True)
class Record:
    x: Tensor
    y: int


def value(i: int) -> Tensor:
    return torch.full((2,), float(i))


SHAPES: dict[str, Any] = {
    "tuple": lambda i: (value(i), i % 3),
    "list": lambda i: [value(i), i % 3],
    "dict": lambda i: {"x": value(i), "y": i % 3},
    "named tuple": lambda i: Pair(value(i), i % 3),
    "tensor": value,
}


def loaded(items: Any, collate_fn: Any = None, workers: int = 0, **options: Any) -> Any:
    plain: DataLoader[Any] = DataLoader(items, 8, collate_fn=collate_fn, num_workers=workers)
    loader, sampler = wrap(plain, Uniform(), **{"fraction": 0.5, "extras": "item", **options})
    sampler.refresh(Evidence(N))
    return loader, sampler


def first(batch: Any) -> Tensor:
    """The images of a batch."""
    if isinstance(batch, dict):
        return batch["x"]  # type: ignore[no-any-return]
    return batch[0] if isinstance(batch, list | tuple) else batch.x  # type: ignore[no-any-return]


def planned(sampler: Any) -> Counter[Any]:
    return Counter(sampler.draws.index.tolist())


# Fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_fields_are_tensors_that_make_a_sample_again(shape: str, workers: int) -> None:
    items = [SHAPES[shape](i) for i in range(N)]
    loader, sampler = loaded(items, extras="fields", workers=workers)
    seen: Counter[Any] = Counter()
    for batch in loader:
        fields = batch if isinstance(batch, dict) else batch[-1]
        assert all(isinstance(fields[f"draw_{name}"], Tensor) for name in ("index", "mixed"))
        drawn = Sample.of(fields)
        assert torch.equal(first(batch)[:, 0].long(), drawn.index)
        assert drawn.weight.dtype == drawn.strength.dtype == torch.float32
        sampler.report(drawn, loss=drawn.index.float())
        seen.update(drawn.index.tolist())
    assert seen == planned(sampler)
    assert torch.equal(sampler.table.evidence().losses, torch.arange(float(N)))


def test_fields_of_an_object_are_its_attributes() -> None:
    def collate(rows: Any) -> Any:
        x, y = default_collate(rows)
        return SimpleNamespace(x=x, y=y)

    loader, _ = loaded([(value(i), i % 3) for i in range(N)], collate, extras="fields")
    for batch in loader:
        assert torch.equal(batch.x[:, 0].long(), batch.draw_index)
        assert torch.equal(Sample.of(vars(batch)).weight, batch.draw_weight)


# Inside the items ---------------------------------------------------------------------------------


def by_size(rows: list[Any]) -> Any:
    """Sort rows, leave some out, and hand on their draws."""
    rows = sorted(rows, key=lambda row: -float(row[0][0]))[:-1]
    return torch.stack([x for x, _, _ in rows]), Sample.of([draw for _, _, draw in rows])


def records(rows: list[Any]) -> Any:
    rows = rows[::-1]
    return torch.stack([row.x for row in rows]), Sample.of([row.draw for row in rows])


def test_draws_travel_inside_items_that_are_sorted_and_left_out() -> None:
    loader, sampler = loaded([(value(i), i % 3) for i in range(N)], by_size)
    count = 0
    for x, drawn in loader:
        assert torch.equal(x[:, 0].long(), drawn.index)
        sampler.report(drawn, loss=x[:, 0])
        count += len(x)
    assert count == len(sampler) - len(loader)


@pytest.mark.parametrize("shape", [Pair, Record, SimpleNamespace])
def test_draws_travel_as_a_field_of_an_item(shape: Any) -> None:
    loader, _ = loaded([shape(x=value(i), y=i % 3) for i in range(N)], records)
    for x, drawn in loader:
        assert torch.equal(x[:, 0].long(), drawn.index)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_default_collate_makes_one_draw_of_columns(shape: str) -> None:
    loader, sampler = loaded([SHAPES[shape](i) for i in range(N)])
    seen: Counter[Any] = Counter()
    for batch in loader:
        drawn = Sample.of(batch["draw"] if isinstance(batch, dict) else batch[-1])
        assert torch.equal(first(batch)[:, 0].long(), drawn.index)
        assert drawn.weight.dtype == torch.float32
        sampler.report(drawn, loss=drawn.index.float())
        seen.update(drawn.index.tolist())
    assert seen == planned(sampler)


# What cannot stand beside its draw ----------------------------------------------------------------


def reversed_rows(rows: list[Any]) -> Any:
    return default_collate(rows[::-1])


def fewer(rows: list[Any]) -> Any:
    return default_collate(rows[:-1])


@pytest.mark.parametrize("extras", ["draw", "fields", "index"])
@pytest.mark.parametrize("collate_fn", [reversed_rows, fewer])
def test_rows_that_move_or_are_lost_are_an_error(collate_fn: Any, extras: str) -> None:
    loader, _ = loaded([(value(i), i % 3) for i in range(N)], collate_fn, extras=extras)
    with pytest.raises(ValueError, match="collate_fn must keep the"):
        next(iter(loader))


def test_where_nothing_is_added_nothing_is_tried() -> None:
    loader, _ = loaded([(value(i), i % 3) for i in range(N)], reversed_rows, extras="none")
    assert len(next(iter(loader))) == 2


def test_in_workers_too() -> None:
    loader, _ = loaded([(value(i), i) for i in range(N)], reversed_rows, workers=1, extras="draw")
    with pytest.raises(ValueError, match="collate_fn must keep the"):
        next(iter(loader))


class Gaps:
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        return None if i == 17 else (value(i), i % 3)


def without_none(rows: list[Any]) -> Any:
    return default_collate([row for row in rows if row is not None])


@pytest.mark.parametrize("extras", ["draw", "item", "none"])
def test_an_item_that_is_none_is_named(extras: str) -> None:
    loader, _ = loaded(Gaps(), without_none, extras=extras)
    with pytest.raises(ValueError, match=r"data\[17\] must be an item, got None.*Subset"):
        list(loader)
    there: Any = Subset(Gaps(), [i for i in range(N) if i != 17])  # type: ignore[arg-type]
    plain: DataLoader[Any] = DataLoader(there, 8)
    loader, sampler = wrap(plain, Uniform(), fraction=0.5)
    sampler.refresh(Evidence(N - 1))
    assert sum(len(x) for x, _, _ in loader) == len(sampler)


# Mixed by the collate function --------------------------------------------------------------------


def images(i: int, target: Any = None) -> Any:
    return torch.full((3, 4, 4), float(i)), i % 4 if target is None else target


def mixed(rows: list[Any]) -> Any:
    return v2.MixUp(num_classes=4)(*default_collate(rows))


def smoothed(rows: list[Any]) -> Any:
    x, y = default_collate(rows)
    return x, torch.nn.functional.one_hot(y, 4) * 0.9 + 0.025


def test_rows_that_a_collate_function_mixes_are_marked() -> None:
    items: Any = [images(i) for i in range(N)]
    plain: DataLoader[Any] = DataLoader(items, 8, collate_fn=mixed)
    loader, sampler = wrap(plain, Rank(Loss()), fraction=0.5, base="full")
    sampler.set_epoch(0)
    sampler.refresh(Evidence(N, losses=torch.rand(N)))
    for _, _, drawn in loader:
        assert drawn.mixed.all()
        sampler.report(drawn, loss=torch.rand(len(drawn.index)))
    assert len(sampler.table.missing("losses")) == N


@pytest.mark.parametrize("collate_fn", [smoothed, default_collate])
def test_smoothed_labels_are_not_mixed(collate_fn: Any) -> None:
    loader, _ = loaded([images(i) for i in range(N)], collate_fn, extras="draw")
    assert not any(drawn.mixed.any() for _, _, drawn in loader)


def test_soft_targets_of_the_data_themselves_are_not_mixed() -> None:
    soft = torch.tensor([0.5, 0.3, 0.2])
    loader, _ = loaded(
        [images(i, soft) for i in range(N)], lambda rows: default_collate(rows), extras="draw"
    )
    assert not any(drawn.mixed.any() for _, _, drawn in loader)
