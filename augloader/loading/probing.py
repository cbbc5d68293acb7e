"""Whether a collate function keeps the rows of a batch, so that each stays beside its draw."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.batch import take
from augloader.loading.randomness import Fixed
from augloader.loading.soft import is_soft

_ADVICE = (
    "Their draws would belong to other samples. Keep every row in its place, or let each draw "
    'travel inside its item: wrap(..., extras="item"), and Sample.of.'
)


class Probe:
    """Tries a collate function on copies of the first batches, until it is known to keep the order.

    It is tried on two batches that tell, for rows that a sort leaves in place tell nothing, and on
    ten at most: batches of mixed images never do.

    Args:
        collate: the function. One that holds state is copied: it counts no calls of ours.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate
        self._telling, self._tries = 2, 10

    def look_at(self, items: Any, index: Sequence[int]) -> None:
        """Raise ValueError where the function is seen to bring items into another order.

        Args:
            items: a list of b items, or a tuple or mapping of columns; they are not touched.
            index: the b samples that they are.

        Cost: nothing after the first batches; else four batches, and copies of the items.
        """
        if len(set(index)) < 2 or self._telling == 0 or self._tries == 0:
            return
        self._tries -= 1
        self._telling -= keeps_order(copy.copy(self.collate), items, index)


def keeps_order(collate: Callable[[Any], Any], items: Any, index: Sequence[int]) -> bool:
    """Raise ValueError where a collate function is seen to bring rows into another order.

    The items are collated as they come and in two other orders, which together make up every
    permutation. Where a field of the batches holds the same rows each time, the rows have to
    follow the items. A field counts that has a row of its own for each sample, as images do and
    labels do not, and that is not the same for any items, as places are. Class probabilities do
    not count: mixing makes equal ones of other rows. One field that follows is enough.

    Args:
        collate: the function.
        items: a list of b items, or a tuple or mapping of columns of them.
        index: the b samples that they are, two or more of them different.

    Returns:
        Whether rows were seen to follow. Batches that tell nothing, as of mixed images, do not.
    """
    b, samples = len(index), len(set(index))
    whole = np.arange(b)
    turned, swapped = np.roll(whole, -1), whole.copy()
    other_one = next(k for k in range(b) if index[k] != index[0])
    swapped[[0, other_one]] = other_one, 0
    try:
        kept, *others, constant = [
            dict(_fields(_batch(collate, items, order), b))
            for order in (whole, turned, swapped, np.zeros_like(whole))
        ]
    except Exception:  # a function that takes no such batches tells nothing; its own will fail
        return False
    follows = moves = False
    for path, rows in kept.items():
        times: Counter[Hashable] = Counter(rows)
        if len(times) < samples or constant.get(path) == rows:
            continue
        places = [k for k in range(b) if times[rows[k]] == 1]  # of rows that are like no other
        held = []
        for order, other in zip((turned, swapped), others, strict=True):
            if len(places) > 1 and Counter(other.get(path, ())) == times:
                back = {int(order[k]): k for k in range(b)}
                held.append(all(other[path][back[k]] == rows[k] for k in places))
        follows |= held == [True, True]
        moves |= not all(held)
    if moves and not follows:
        raise ValueError(
            f"collate_fn must keep the rows of a batch in order, got them in another. {_ADVICE}"
        )
    return follows


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


def _batch(collate: Callable[[Any], Any], items: Any, order: np.ndarray[Any, Any]) -> Any:
    """Return the batch of copies of items in some order, from fixed random states."""
    if isinstance(items, list):
        given: Any = [copy.deepcopy(items[k]) for k in order]  # a copy for each time one is there
    else:
        given = copy.deepcopy(take(items, torch.from_numpy(order)))
    with Fixed(0):
        return collate(given)


def _fields(batch: Any, b: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, list[Hashable]]]:
    """Yield what in a batch may be b rows, by the path to it, and what its rows are."""
    if isinstance(batch, Tensor | np.ndarray):
        if batch.ndim and len(batch) == b and not is_soft(batch):
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
    return (type(row), row.tobytes()) if hasattr(row, "tobytes") else id(row)  # as of PIL
