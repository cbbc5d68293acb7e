"""An existing DataLoader, and a sampler, made into a loader that augments as the sampler asks."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from augloader.checks import require_dataset, require_one_of
from augloader.dataset import Fetched, Transform, WeightedAugmentedDataset
from augloader.sampler import CoresetSampler
from augloader.strategies import Strategy
from augloader.types import Draw, stack

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
)


def wrap(
    loader: DataLoader[Any],
    strategy: Strategy,
    *,
    weak: Transform | None = None,
    strong: Transform | Sequence[Transform] | None = None,
    final: Transform | None = None,
    fields: tuple[int | str, int | str] = (0, 1),
    extras: Extras = "draw",
    **options: Any,
) -> tuple[DataLoader[Any], CoresetSampler]:
    """Return a loader like the given one whose epochs a CoresetSampler plans, and the sampler.

    Dataset, batch size, workers and their start method, collate function, pinning, ``drop_last``,
    prefetching and generator are the given loader's; the sampler shuffles. Batches keep the shape
    that the collate function gives them, and at the end of a tuple or list, under "draw" in a
    mapping, or as an attribute ``draw`` of any other object, comes a ``Sample`` with index, weight,
    strength, copy and epoch of every row, its input and target None.

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
        **options: of CoresetSampler, as ``fraction=0.3``.

    Raises:
        TypeError: not a DataLoader; over an IterableDataset; a subclass with other arguments.
        ValueError: a loader with a sampler or batch sampler of its own, or without batches; what
            CoresetSampler raises; in the loop, batches that a draw cannot be added to.

    Cost: O(n) once; a batch costs what it did.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from augloader.subsampling import Uniform
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
    data = _Shaped(loader.dataset, weak=weak, strong=strong, final=final, fields=fields)
    sampler = CoresetSampler(data, strategy, **options)
    kept = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    try:
        made = type(loader)(
            data, sampler=sampler, collate_fn=_Collate(loader.collate_fn, extras), **kept
        )
    except TypeError as error:
        raise TypeError(
            f"loader must take the arguments of a DataLoader, got {type(loader).__name__}: {error}."
            " Build it over WeightedAugmentedDataset with sampler=CoresetSampler(...)."
        ) from error
    return made, sampler


class _Shaped(WeightedAugmentedDataset):
    """Items in the wrapped dataset's own shape, each beside its draw."""

    def _whole(self, draws: Sequence[Draw], columns: Any) -> Any:
        return list(columns) if isinstance(columns, tuple) else columns, stack(draws)

    def _sample(self, draw: Draw, item: Any) -> Any:
        if self._transforms:
            item = _replaced(item, self.fields[0], lambda image: self._transformed(image, draw))
        return item, draw


class _Collate:
    """The loader's own collate function, and what is added to its batches."""

    def __init__(self, own: Callable[[list[Any]], Any], extras: Extras) -> None:
        self.own, self.extras = own, extras

    def __call__(self, rows: Sequence[Any]) -> Any:
        if isinstance(rows, Fetched) and self.own is default_collate:
            batch, drawn = rows.whole()
        else:
            items, draws = zip(*rows, strict=True)
            batch, drawn = self.own(list(items)), stack(draws)
        if self.extras == "none":
            return batch
        return _added(batch, self.extras, drawn if self.extras == "draw" else drawn.index)


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
    if loader.batch_size is None:
        raise ValueError(
            "loader must make batches by batch_size, got a batch_sampler of its own or none. Build "
            "it over WeightedAugmentedDataset(data), with a batch sampler over CoresetSampler(...)."
        )
    own: Any = loader.sampler
    n = require_dataset(loader.dataset)
    plain = isinstance(own, SequentialSampler | RandomSampler)
    plain = plain or type(own).__module__.startswith("torchdata.")
    if not plain or getattr(own, "replacement", False) or len(own) != n:
        raise ValueError(
            f"loader must have no sampler of its own, got {type(own).__name__}. Draws come from "
            "CoresetSampler: leave it out, with shuffle=True; in place of DistributedSampler build "
            "DistributedCoresetSampler over WeightedAugmentedDataset(data)."
        )


def _replaced(item: Any, field: int | str, change: Callable[[Any], Any]) -> Any:
    """Return an item of the same shape with one field changed."""
    if isinstance(item, Mapping):
        changed: Any = copy.copy(item)
        changed[field] = change(item[field])
        return changed
    if isinstance(item, tuple | list):
        parts = [change(part) if i == field else part for i, part in enumerate(item)]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return dataclasses.replace(item, **{str(field): change(getattr(item, str(field)))})
    raise TypeError(
        f"data must return tuples, lists, mappings or dataclasses, got {type(item).__name__}. "
        "Transform its images in the dataset."
    )


def _added(batch: Any, name: str, drawn: Any) -> Any:
    """Return a batch of the same shape with one thing more."""
    if isinstance(batch, Mapping):
        if name in batch:
            raise ValueError(
                f"batches must have no key {name!r} of their own, got {list(batch)}. Rename it."
            )
        added: Any = copy.copy(batch)
        added[name] = drawn
        return added
    if isinstance(batch, list):
        return [*batch, drawn]
    if isinstance(batch, tuple) and not hasattr(batch, "_fields"):
        return (*batch, drawn)
    if isinstance(batch, Tensor):
        return [batch, drawn]
    if not hasattr(batch, "__dict__"):
        raise ValueError(
            "batches must be tuples, lists, mappings or objects with attributes, got "
            f'{type(batch).__name__}. Return one of these from collate_fn, or pass extras="none".'
        )
    added = copy.copy(batch)
    object.__setattr__(added, name, drawn)
    return added
