"""Whether a collate function keeps the rows of a batch, so that each stays beside its draw."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.batch import take
from augloader.loading.randomness import Fixed

FEWEST, MOST = 3, 8  # items that are tried
_ADVICE = (
    "Their draws would belong to other samples. Keep every row in its place, or let each draw "
    'travel inside its item: wrap(..., extras="item"), and Sample.of.'
)


def require_order(collate: Callable[[Any], Any], items: Any, distinct: Sequence[int]) -> bool:
    """Raise ValueError where a collate function is seen to bring rows into another order.

    A few items are collated as they come and in two other orders, which together make up every
    permutation. Where a field of the batches holds the same rows each time, the rows have to
    follow the items. Batches that tell nothing, as of mixed images, pass.

    Args:
        collate: the function.
        items: a list of items, or a tuple or mapping of columns of them.
        distinct: positions of items of different samples.

    Returns:
        Whether there were items enough to tell.

    Cost: four batches of eight rows.
    """
    m = min(len(distinct), MOST)
    if m < FEWEST:
        return False
    whole = np.array(distinct[:m])
    turned, swapped = np.roll(np.arange(m), -1), np.array([1, 0, *range(2, m)])
    try:
        kept, *others, constant = [
            dict(_fields(batch, m))
            for batch in _batches(
                collate, items, (whole, whole[turned], whole[swapped], whole[:1].repeat(m))
            )
        ]
    except Exception:  # a function that takes no such batches tells nothing; its own will fail
        return True
    moved = False
    for path, rows in kept.items():
        place = {row: i for i, row in enumerate(rows)}
        if len(place) < m or constant.get(path) == rows:
            continue
        followed = [
            [place[row] for row in other[path]] == order.tolist()
            for order, other in zip((turned, swapped), others, strict=True)
            if set(other.get(path, ())) == set(rows)
        ]
        if followed and all(followed):
            return True
        moved |= bool(followed)
    if moved:
        raise ValueError(
            f"collate_fn must keep the rows of a batch in order, got them in another. {_ADVICE}"
        )
    return True


def require_number(batch: Any, b: int) -> None:
    """Raise ValueError where all fields of a batch have another number of rows than b.

    A multiple of b, as several crops have, or b in the second place, as sequences that begin with
    time have, is none.
    """
    fields = [batch] if isinstance(batch, Tensor) else [part for _, part in _parts(batch)]
    shapes = [
        np.shape(part) if isinstance(part, Tensor | np.ndarray) else (len(part),)
        for part in fields
        if isinstance(part, Tensor | np.ndarray | list | tuple)
    ]
    found = {shape[0] if shape else b for shape in shapes}
    others = {shape[1] for shape in shapes if shape[1:]}
    rows = isinstance(batch, list | tuple) and len(batch) == b
    if rows or len(found) != 1 or min(found) % b == 0 or b in others:
        return
    raise ValueError(f"collate_fn must keep the {b} rows of a batch, got {min(found)}. {_ADVICE}")


def _batches(collate: Callable[[Any], Any], items: Any, orders: Sequence[Any]) -> list[Any]:
    """Return the batches of items in some orders, from the same random states."""
    batches = []
    for order in orders:
        rows = (
            [items[i] for i in order]
            if isinstance(items, list)
            else take(items, torch.from_numpy(order))
        )
        with Fixed(0):
            batches.append(collate(rows))
    return batches


def _fields(batch: Any, b: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, list[Hashable]]]:
    """Yield what in a batch may be b rows, by the path to it, and what its rows are."""
    if isinstance(batch, Tensor | np.ndarray):
        if batch.ndim and len(batch) == b:
            yield path, [_value(row) for row in batch]
        return
    if isinstance(batch, list | tuple) and len(batch) == b:
        yield path, [_value(row) for row in batch]
    for name, part in _parts(batch):
        yield from _fields(part, b, (*path, name))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from vars(value).items()


def _value(row: Any) -> Hashable:
    """Return what is equal for equal rows; an object that cannot be looked into is only itself."""
    if isinstance(row, Tensor) and row.layout == torch.strided and not row.is_nested:
        flat = row.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(row.dtype), tuple(row.shape), flat.numpy().tobytes()
    if isinstance(row, np.ndarray | np.generic) and row.dtype != object:
        return str(row.dtype), row.shape, row.tobytes()
    if isinstance(row, str | bytes | int | float | complex | None):
        return repr(row)
    if isinstance(row, Mapping):
        return tuple((repr(name), _value(part)) for name, part in row.items())
    if isinstance(row, list | tuple):
        return tuple(map(_value, row))
    return id(row)
