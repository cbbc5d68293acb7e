"""Items and columns of a wrapped dataset, and the batches made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset, default_collate, get_worker_info

from augloader.core.batch import NUMPY, SMALL, Draw, Sample, stacked


class Fetched(Sequence[Any]):
    """The rows of a batch, made where they are asked for; ``whole`` is the batch.

    Attributes:
        draws: the draws of the rows.
        items: as many items of the wrapped dataset, or a tuple or mapping of columns of them.
    """

    def __init__(
        self,
        draws: Sequence[Draw],
        items: Any,
        whole: Callable[[Sequence[Draw], Any], Any],
        row: Callable[[Draw, Any], Any],
    ) -> None:
        self.draws, self.items = draws, items
        self.columns = isinstance(items, tuple | Mapping)
        self._whole, self._row = whole, row  # how the dataset makes a batch, or a row of it

    def whole(self) -> Any:
        """Return the batch, without going through its rows."""
        return self._whole(self.draws, self.items)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.draws)

    def __getitem__(self, i: Any) -> Any:
        """Return one row, or a list of them."""
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        draw = self.draws[i]
        return self._row(draw, row_of(self.items, i) if self.columns else self.items[i])


def collate(rows: Sequence[Any]) -> Any:
    """Stack the rows of a batch as the default collate does, but pass on what is a batch already.

    A loader over tensors in memory is several times faster with it:
    ``DataLoader(data, 128, sampler=sampler, collate_fn=collate)``.

    Args:
        rows: what a dataset's ``__getitems__`` returned.

    Returns:
        The Sample batch.

    Cost: that of the default collate, or nothing.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from augloader import WeightedAugmentedDataset
        >>> data = WeightedAugmentedDataset(TensorDataset(torch.eye(4), torch.arange(4)))
        >>> next(iter(DataLoader(data, batch_size=2, collate_fn=collate))).target
        tensor([0, 1])
    """
    if isinstance(rows, Fetched):
        return rows.whole()
    if not rows or not all(type(row) is Sample for row in rows):
        return collated(list(rows))
    image, target, index, weight, strength, copy, epoch, extra, mixed = zip(*rows, strict=True)
    return stacked(index, copy, weight, strength, epoch)._replace(
        input=column(tuple, image),
        target=column(tuple, target),
        extra=collated(list(extra)),
        mixed=collated(list(mixed)),
    )


def collated(rows: Any) -> Any:
    """Return what the default collate makes of rows, on the CPU whatever the default device is."""
    with on_cpu():
        return default_collate(rows)


def on_cpu() -> AbstractContextManager[Any]:
    """Make the CPU the default device in a block."""
    plain = torch.get_default_device().type == "cpu"
    return nullcontext() if plain else torch.device("cpu")


def row_of(columns: Any, i: int) -> Any:
    """Return one row of columns: tensors, or sequences with an entry a row."""
    if isinstance(columns, Mapping):
        return {key: column[i] for key, column in columns.items()}
    return tuple(column[i] for column in columns)


def transposed(items: list[Any]) -> Any:
    """Return the columns of items, which all have the same fields."""
    if is_dataclass(items[0]):
        items = [_as_dict(item) for item in items]
    first = items[0]
    if isinstance(first, Mapping):
        return {key: [item[key] for item in items] for key in first}
    if not isinstance(first, tuple | list):
        return first  # which is refused where it is split
    if len({*map(len, items)}) > 1:
        raise ValueError(
            f"data must return items of one length, got {sorted({*map(len, items)})}. Give every "
            "item the same fields."
        )
    return tuple(zip(*items, strict=True))


def _as_dict(item: Any) -> Any:
    if type(item) in (tuple, list, dict):
        return item
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclass_fields(item)}
    return item


def column(kind: Callable[[Any], Any], entries: Any) -> Any:
    """Return a column of a batch, as the default collate would return it of its entries."""
    if isinstance(entries, Tensor):
        return entries
    if set(map(type, entries)) == {int}:
        return torch.from_numpy(np.array(entries, np.int64))
    return collated(kind(entries))


def in_memory(data: Any, indices: list[int]) -> tuple[Tensor, ...] | None:
    """Return rows of tensors in memory, as columns; None where the data is something else."""
    if type(data) is Subset:  # a random_split, for instance
        return in_memory(data.dataset, [data.indices[index] for index in indices])
    if type(data) is not TensorDataset or not all(map(_is_plain, data.tensors)):
        return None
    rows = np.array(indices, np.int64)
    return tuple(_taken(column, rows) for column in data.tensors)


def _is_plain(column: Tensor) -> bool:
    return type(column) is Tensor and column.layout == torch.strided and not column.requires_grad


def _taken(column: Tensor, rows: np.ndarray[Any, Any]) -> Tensor:
    """Return rows of a tensor; in a worker, unless they go by value, in memory it shares.

    In the main process by NumPy, in one thread: torch's threads wait for a busy core a hundred
    times as long as it takes to copy a batch of small images.
    """
    shape = (len(rows), *column.shape[1:])
    shared = get_worker_info() is not None and prod(shape) * column.element_size() > SMALL
    if column.device.type != "cpu" or column.dtype not in NUMPY or column.is_neg():
        return column[torch.from_numpy(rows)]
    if not shared:
        return torch.from_numpy(column.numpy().take(rows, 0))
    storage = column._typed_storage()._new_shared(prod(shape))
    out = column.new(storage).resize_(shape)
    return torch.index_select(column, 0, torch.from_numpy(rows), out=out)


def require_item(index: int, item: Any) -> None:
    """Raise TypeError if a dataset holds no item for an index."""
    if item is None:
        raise TypeError(
            f"data must hold an item for each index, got None for index {index}. Leave broken "
            "samples out before: torch.utils.data.Subset(data, good)."
        )


def require_rows(items: Any, count: int) -> None:
    """Raise unless a wrapped ``__getitems__`` returned so many items, or columns of so many."""
    if isinstance(items, tuple | Mapping):
        parts = items.values() if isinstance(items, Mapping) else items
        found = [len(part) if _is_column(part) else 0 for part in parts]
        what = f"columns of {found}"
    else:
        found = [len(items)] if isinstance(items, Sized) else []
        what = str(*found) if found else type(items).__name__
    if set(found) != {count}:
        raise ValueError(
            f"data.__getitems__ must return one item an index, got {what} items for {count} "
            "indices. Return a list of items, or a tuple or dict of columns."
        )


def _is_column(part: Any) -> bool:
    return part.ndim > 0 if isinstance(part, Tensor | np.ndarray) else isinstance(part, Sized)


def split_item(item: Any, fields: tuple[int | str, int | str]) -> tuple[Any, Any, Any]:
    """Return the input, the target and the other fields of a wrapped dataset's item."""
    item = _as_dict(item)
    if isinstance(item, Mapping):
        known: tuple[Any, ...] = tuple(item)
    elif isinstance(item, tuple | list):
        known = tuple(range(len(item)))
    else:
        raise TypeError(
            "data must return tuples, dicts or dataclasses of input and target, got "
            f"{type(item).__name__}. "
            "Return (input, target)."
        )
    if not set(fields) <= set(known):
        raise TypeError(
            f"fields must name two of the item's {list(known)}, got {fields}. "
            'Pass, for instance, fields=("image", "label").'
        )
    rest = [key for key in known if key not in fields]
    extra = (
        {k: item[k] for k in rest} if isinstance(item, Mapping) else tuple(item[k] for k in rest)
    )
    first, second = (item[key] for key in fields)
    return first, second, extra


def replaced(item: Any, changes: Mapping[int | str, Any]) -> Any:
    """Return an item of the same shape with some fields changed."""
    if isinstance(item, tuple):
        parts = [changes.get(i, part) for i, part in enumerate(item)]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    changed: Any = dict(item) if _is_frozen(item) else copy(item)
    record = is_dataclass(item) and not isinstance(item, type)
    for field, value in changes.items():
        if record:
            object.__setattr__(changed, str(field), value)
        else:
            changed[field] = value
    return changed


def _is_frozen(item: Any) -> bool:
    return isinstance(item, Mapping) and not isinstance(item, MutableMapping)


def as_parts(item: Any, field: int | str) -> Any:
    """Return an item as a dict, tuple or list, or raise TypeError where it lacks a field."""
    parts = _as_dict(item)
    if isinstance(parts, Mapping):
        parts = parts if type(parts) is dict else dict(parts)
        known: list[Any] = list(parts)
    elif isinstance(parts, tuple | list):
        known = list(range(len(parts)))
        if type(parts) not in (tuple, list) and not hasattr(parts, "_fields"):
            parts = tuple(parts) if isinstance(parts, tuple) else list(parts)
    else:
        raise TypeError(
            "data must return tuples, lists, mappings or dataclasses, got "
            f"{type(item).__name__}. Transform its images in the dataset."
        )
    if field not in known:
        raise TypeError(
            f"fields must name two of the item's {known}, got {field!r}. "
            'Pass, for instance, fields=("image", "label").'
        )
    return parts
