"""An existing DataLoader, and a sampler, made into a loader that augments as the sampler asks."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args

from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from augloader.core.batch import Draw, by_value, stack
from augloader.core.checks import require_dataset, require_one_of
from augloader.core.deprecated import renamed
from augloader.core.schedule import Schedule
from augloader.loading.adapt import Transform
from augloader.loading.batches import Fetched
from augloader.loading.dataset import WeightedAugmentedDataset
from augloader.loading.plan import FORMER
from augloader.loading.sampler import CoresetSampler
from augloader.loading.shaped import Shaped
from augloader.selection.strategy import Strategy

Extras = Literal["draw", "index", "none"]
_KEPT = (
    "batch_size",
    "num_workers",
    "pin_memory",
    "drop_last",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "generator",
    "prefetch_factor",
    "persistent_workers",
    "in_order",
    "pin_memory_device",
    "snapshot_every_n_steps",  # of StatefulDataLoader
)


@renamed(**{old: new for old, new in FORMER.items() if old != "weak"})
def wrap(
    loader: DataLoader[Any],
    strategy: Strategy,
    *,
    weak: Transform | None = None,
    strong: Transform | Sequence[Transform] | None = None,
    final: Transform | None = None,
    fields: tuple[int | str, int | str] = (0, 1),
    extras: Extras = "draw",
    weak_probability: Schedule | float = 1.0,
    **options: Any,
) -> tuple[DataLoader[Any], CoresetSampler]:
    """Return a loader like the given one whose epochs a CoresetSampler plans, and the sampler.

    Dataset, batch size, workers and their start method, collate function, pinning, ``drop_last``,
    prefetching and generator are the given loader's; the sampler shuffles. Batches keep the shape
    that the collate function gives them, and at the end of a tuple or list, under "draw" in a
    mapping or named tuple, or as an attribute ``draw`` of any other object, comes a ``Sample`` with
    index, weight, strength, copy and epoch of every row, its input and target None. A batch that is
    a single tensor becomes a list of two.

    Args:
        loader: a DataLoader, or a subclass with the same arguments, as torchdata's
            StatefulDataLoader, over a map-style dataset.
        strategy: as for CoresetSampler.
        weak: as for WeightedAugmentedDataset, with the two below; most datasets have theirs
            already, and the batch may be augmented later.
        strong: see weak.
        final: see weak.
        fields: positions, keys or attributes of input and target in an item; read where a transform
            is given, and by ``sweep(model, loader.dataset, ...)``.
        extras: "draw" as above; "index": the index alone; "none": nothing, for code that takes
            exactly two. What is left out cannot be reported, and weights do not reach the loss.
        weak_probability: as for CoresetSampler, of a draw to get the weak transform.
        **options: of CoresetSampler, as ``fraction=0.3``.

    Raises:
        TypeError: not a DataLoader; over an IterableDataset or a WeightedAugmentedDataset; a
            subclass with other arguments; in the loop, batches that a draw cannot be added to.
        ValueError: a loader with a sampler or batch sampler of its own, or without batches; what
            CoresetSampler raises; in the loop, batches with a field ``draw`` of their own.

    Cost: O(n) once; a batch costs what it did.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from augloader import Uniform
        >>> plain = DataLoader(TensorDataset(torch.eye(6), torch.arange(6)), batch_size=3)
        >>> loader, sampler = wrap(plain, Uniform(), fraction=0.5)
        >>> _ = sampler.refresh()
        >>> for x, y, draw in loader:
        ...     print(len(x), bool((draw.index == y).all()))
        3 True
        3 True
        3 True
    """
    _check(loader)
    require_one_of("extras", extras, get_args(Extras))
    data = Shaped(
        loader.dataset,
        loader.collate_fn,
        weak=weak,
        strong=strong,
        final=final,
        fields=fields,
    )
    sampler = CoresetSampler(data, strategy, weak_probability=weak_probability, **options)
    kept = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    collate_fn = _Collate(loader.collate_fn, extras)
    error: TypeError | None = None
    try:
        made = type(loader)(data, sampler=sampler, collate_fn=collate_fn, **kept)
    except TypeError as raised:
        error = raised
    if error or made.collate_fn is not collate_fn or made.sampler is not sampler:
        raise TypeError(
            f"loader must take the arguments of a DataLoader, got {type(loader).__name__}"
            f"{f': {error}' if error else ', which has a collate function or sampler of its own'}."
            " Build it over WeightedAugmentedDataset with sampler=CoresetSampler(...)."
        ) from error
    return made, sampler


class _Collate:
    """The loader's own collate function, and what is added to its batches."""

    def __init__(self, own: Callable[[Any], Any], extras: Extras) -> None:
        self.own, self.extras = own, extras

    def __call__(self, rows: Sequence[Any]) -> Any:
        draws: Sequence[Draw]
        if isinstance(rows, Fetched):
            draws = rows.draws
            batch = rows.whole() if self.own is default_collate else self.own(rows.items)
        else:
            items, draws = zip(*rows, strict=True)
            batch = self.own(list(items))
        if self.extras != "none":
            drawn = stack(draws)
            batch = _added(batch, self.extras, drawn if self.extras == "draw" else drawn.index)
        return _Sent(batch) if get_worker_info() and type(batch) in (list, tuple, dict) else batch


class _Sent:
    """A batch in a worker, itself in the main process; its small tensors are sent by value."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.batch), (by_value(self.batch),)


def _check(loader: Any) -> None:
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"loader must be a torch DataLoader, got {type(loader).__name__}. Build one over "
            "WeightedAugmentedDataset(data) with sampler=CoresetSampler(...)."
        )
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(
            "loader must be over a map-style dataset, got an IterableDataset. A stream has no "
            "positions to select from: load it into a list or a map-style dataset."
        )
    if isinstance(loader.dataset, WeightedAugmentedDataset):
        raise TypeError(
            "loader must be over the data themselves, got a WeightedAugmentedDataset. Build a "
            "DataLoader over it with sampler=CoresetSampler(...), collate_fn=augloader.collate."
        )
    if loader.batch_size is None:
        raise ValueError(
            "loader must make batches by batch_size, got a batch_sampler of its own or none. Build "
            "it over WeightedAugmentedDataset(data), with a batch sampler over CoresetSampler(...)."
        )
    own: Any = loader.sampler
    n = require_dataset(loader.dataset)
    kind = type(own)
    plain = kind in (SequentialSampler, RandomSampler)
    plain = plain or (kind.__name__ == "RandomSampler" and kind.__module__.startswith("torchdata."))
    if not plain or getattr(own, "replacement", False) or len(own) != n:
        how = " with replacement" if plain and len(own) == n else ""
        raise ValueError(
            f"loader must have no sampler of its own, got {kind.__name__}{how}. Draws come from "
            "CoresetSampler: leave it out, with shuffle=True; in place of DistributedSampler build "
            "DistributedCoresetSampler over WeightedAugmentedDataset(data)."
        )


def _added(batch: Any, name: str, drawn: Any) -> Any:
    """Return a batch of the same shape with one thing more."""
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
            "batches must be tuples, lists, mappings or objects with attributes, got "
            f'{type(batch).__name__}. Return one of these from collate_fn, or pass extras="none".'
        )
    _require_free(name, vars(batch))
    added = copy.copy(batch)
    object.__setattr__(added, name, drawn)
    return added


def _require_free(name: str, known: Collection[str]) -> None:
    if name in known:
        raise ValueError(
            f"batches must have no field {name!r} of their own, got {list(known)}. Rename it, or "
            'pass extras="none".'
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
