"""The collate function of a wrapped loader: its own, with the rows' draws beside its batches."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from augloader.core.batch import Draw, Sample, by_value, stack
from augloader.loading.batches import Fetched
from augloader.loading.probing import Probe, require_number
from augloader.loading.soft import is_mixed

Extras = Literal["draw", "fields", "item", "index", "none"]


class Collate:
    """The loader's own collate function, and what is added to its items or batches.

    It must keep the rows of a batch in order and number, which is tried once: a row's draw has its
    place. Where targets that are class labels come out as rows that mix classes, as v2.MixUp in a
    collate function leaves them, the draws of the batch are marked as mixed.

    Args:
        own: the loader's collate function.
        extras: as for ``wrap``.
        target: position or key of the target, in items and batches.
    """

    def __init__(self, own: Callable[[Any], Any], extras: Extras, target: int | str) -> None:
        self.own, self.extras, self.target = own, extras, target
        self._probe = Probe(own)

    def __call__(self, rows: Sequence[Any]) -> Any:
        """Return the batch of some rows, each an item and its draw."""
        draws: Sequence[Draw]
        if isinstance(rows, Fetched) and not (rows.columns and self.extras == "item"):
            items, draws = rows.items, rows.draws
        else:
            columns = zip(*rows, strict=True)
            items, draws = list(next(columns)), next(columns)
        _require_items(items, draws)
        watched = self.extras in ("draw", "fields", "index") and self.own is not default_collate
        if watched:
            self._probe.look_at(items, [draw.index for draw in draws])
        if self.extras == "item":
            batch = self.own(_with_draws(items, draws))
        elif isinstance(rows, Fetched) and self.own is default_collate:
            batch = rows.whole()
        else:
            batch = self.own(items)
        if watched:
            require_number(batch, len(draws))
        if self.extras in ("draw", "fields", "index"):
            batch = self._beside(batch, items, stack(draws))
        return _Sent(batch) if get_worker_info() and type(batch) in (list, tuple, dict) else batch

    def _beside(self, batch: Any, items: Any, drawn: Sample) -> Any:
        """Return a batch with its draws."""
        if self.own is not default_collate and _labelled(items, self.target):
            mixed = is_mixed(_part(batch, self.target))
            drawn = drawn._replace(mixed=torch.full_like(drawn.mixed, mixed))
        if self.extras == "index":
            return added(batch, "index", drawn.index)
        if self.extras == "draw":
            return added(batch, "draw", drawn)
        if isinstance(batch, list | tuple | Tensor):
            return added(batch, "draw", drawn.flat())
        for name, part in drawn.flat().items():
            batch = added(batch, name, part)
        return batch


def _require_items(items: Any, draws: Sequence[Draw]) -> None:
    if isinstance(items, list) and any(item is None for item in items):
        index = next(draw.index for item, draw in zip(items, draws, strict=True) if item is None)
        raise ValueError(
            f"data[{index}] must be an item, got None. Every draw must come to training: leave "
            "such samples out beforehand, as by torch.utils.data.Subset(data, indices)."
        )


def _with_draws(items: Any, draws: Sequence[Draw]) -> list[Any]:
    """Return items that hold their draws: at the end, or as ``draw``."""
    return [added(item, "draw", draw) for item, draw in zip(items, draws, strict=True)]


def _labelled(items: Any, field: int | str) -> bool:
    """Whether the target of the first item is a class label."""
    if not isinstance(items, list):
        return _part(items, field) is not None
    label = _part(items[0], field)
    if isinstance(label, Tensor):
        return label.ndim == 0 and not label.is_floating_point()
    return isinstance(label, Integral)


def _part(value: Any, field: int | str) -> Any:
    """Return a field of an item or batch, or None; a mapping's may have another of usual names."""
    if isinstance(value, Mapping):
        names = (field, f"{field}s", "label", "labels", "target", "targets")
        return next((value[name] for name in names if name in value), None)
    if isinstance(value, list | tuple) and isinstance(field, int):
        return value[field] if -len(value) <= field < len(value) else None
    return getattr(value, field, None) if isinstance(field, str) else None


class _Sent:
    """A batch in a worker, itself in the main process; its small tensors are sent by value."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.batch), (by_value(self.batch),)


def added(batch: Any, name: str, drawn: Any) -> Any:
    """Return a batch, or an item, of the same shape with one thing more."""
    if isinstance(batch, Mapping):
        _require_free(name, list(batch))
        added: Any = copy.copy(batch)
        added[name] = drawn
        return added
    if isinstance(batch, list):
        return [*batch, drawn]
    if isinstance(batch, tuple):
        if not hasattr(batch, "_fields"):
            return (*batch, drawn)
        _require_free(name, batch._fields)
        return _named(type(batch), name, (*batch, drawn))
    if isinstance(batch, Tensor):
        return [batch, drawn]
    if not hasattr(batch, "__dict__"):
        raise TypeError(
            "items and batches must be tuples, lists, mappings or objects with attributes, got "
            f'{type(batch).__name__}. Return one of these, or pass extras="none".'
        )
    _require_free(name, vars(batch))
    added = copy.copy(batch)
    object.__setattr__(added, name, drawn)
    return added


def _require_free(name: str, known: Collection[str]) -> None:
    if name in known:
        raise ValueError(
            f"items and batches must have no field {name!r} of their own, got {list(known)}. "
            'Rename it, or pass extras="none".'
        )


def _named(kind: Any, name: str, values: tuple[Any, ...]) -> Any:
    """Return a named tuple with a field more than another kind has."""
    return _with_field(kind, name)(*values)


@cache
def _with_field(kind: Any, name: str) -> Any:
    made: Any = namedtuple(kind.__name__, (*kind._fields, name))  # type: ignore[misc]

    def reduce(batch: Any) -> tuple[Any, ...]:
        return _named, (kind, name, by_value(tuple(batch)))

    return type(kind.__name__, (made, kind), {"__reduce__": reduce, "__slots__": ()})
