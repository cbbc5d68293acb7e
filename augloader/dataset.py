"""The dataset: a Draw in, a weighted and augmented Sample out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as dataclass_fields
from math import prod
from operator import index as as_index
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate, get_worker_info
from torchvision.transforms.functional import to_pil_image

from augloader.checks import require_dataset
from augloader.types import SMALL, Draw, Sample, stack

Transform = Callable[..., Any]


class WeightedAugmentedDataset(Dataset[Sample]):
    """Wrap any map-style dataset so that every draw is augmented as the sampler asks.

    input = final(strong(weak(x))), where ``strong`` is applied only to draws with strength > 0.

    Args:
        data: map-style dataset. Items are tuples, lists, dicts or dataclasses; fields other than
            input and target are kept in ``Sample.extra``.
        weak: transform of the draws with ``weak`` (crop, flip), all unless scheduled; or None. It
            is given the input alone: let that be (image, mask) where a mask must move along.
        strong: transform of the draws with strength > 0, or None when the batch is augmented later.
            Any callable on one image: torchvision, PIL, Kornia (a batch dimension of one that it
            adds is dropped) or Albumentations (called with ``image=`` as an (H, W, C) array). One
            with a parameter named ``strength`` is given the draw's, and one with a parameter named
            ``keys`` the draw's (3,) int64 epoch, index and copy, to seed its random numbers with.
            Or a list of m of them, f_T(z) = {z_1, ..., z_m}, as ``translations(3)``: copy j is
            augmented by the j-th, and the sampler must be built with ``copies=m``.
        final: transform of every draw and of the clean view (to tensor, normalise), or None.
        fields: positions or keys of the input and the target in an item.

    A plain int index stands for ``Draw(index)``: weight 1, strength 1; so a loader without a
    CoresetSampler augments everything.

    Raises:
        TypeError: data without ``__len__`` or ``__getitem__``, a transform that is not callable.
        ValueError: an empty dataset, fields that are not two.

    Example:
        >>> squares = [(torch.tensor([float(i)]), i % 2) for i in range(4)]
        >>> data = WeightedAugmentedDataset(squares, strong=lambda x: -x)
        >>> data[Draw(3, strength=0.0)].input, data[Draw(3, copy=1)].input
        (tensor([3.]), tensor([-3.]))
    """

    def __init__(
        self,
        data: Any,
        *,
        weak: Transform | None = None,
        strong: Transform | Sequence[Transform] | None = None,
        final: Transform | None = None,
        fields: tuple[int | str, int | str] = (0, 1),
    ) -> None:
        self._n = require_dataset(data)
        if len(fields) != 2:
            raise ValueError(
                f"fields must be the positions or keys of input and target, got {fields}. "
                'Give two, as ("image", "label").'
            )
        self.data = data
        self.fields = fields
        self.weak = _adapt("weak", weak)
        self._one_a_copy = isinstance(strong, list | tuple)
        transforms: Sequence[Any] = strong if isinstance(strong, list | tuple) else [strong]
        self.strong = [_adapt("strong", transform) for transform in transforms]
        if self._one_a_copy and (not self.strong or None in self.strong):
            raise TypeError(
                f"strong must hold at least one transform, and nothing else, got {strong!r}. "
                "Pass a list, as translations(3)."
            )
        self.final = _adapt("final", final)
        self._clean = False

    @property
    def copies(self) -> int | None:
        """How many copies a sample must have: m where ``strong`` is a list; None: any number."""
        return len(self.strong) if self._one_a_copy else None

    def __len__(self) -> int:
        """Return the number of samples of the wrapped dataset."""
        return self._n

    def __getitem__(self, draw: Draw | int) -> Sample:
        """Return one sample, fetched once from the wrapped dataset.

        Raises:
            IndexError: index outside [0, n).
            TypeError: the item has no such fields.
        """
        draw = self._draw(draw)
        sample: Sample = self._sample(draw, self.data[draw.index])
        return sample

    def __getitems__(self, draws: Sequence[Draw | int]) -> Sequence[Any]:
        """Return the rows of a batch, a sequence, fetched at once where the wrapped dataset can.

        Its own ``__getitems__`` is used where it has one: it returns a list of items, or a tuple or
        mapping of columns. Tensors in memory, of a TensorDataset, a Subset of one or such columns,
        are indexed once a batch where no transform needs single images; ``augloader.collate`` then
        passes them on as they are.

        Raises:
            IndexError: index outside [0, n).
            ValueError: the wrapped ``__getitems__`` returned another number of items, or the
                wrapped dataset has another length than when it was wrapped.
        """
        drawn = self._drawn(draws)
        if len(self.data) != self._n:
            raise ValueError(
                f"data must keep its {self._n} samples, got {len(self.data)} now. Build dataset "
                "and sampler anew when it has changed."
            )
        items = self._items([draw.index for draw in drawn])
        if not self._transforms:
            return Fetched(self, drawn, items)
        if isinstance(items, tuple | Mapping):
            items = [_row(items, i) for i in range(len(drawn))]
        return [self._sample(draw, item) for draw, item in zip(drawn, items, strict=True)]

    def _items(self, indices: list[int]) -> Any:
        """Return a list of the wrapped dataset's items, or columns."""
        columns = None if self._transforms else _columns(self.data, indices)
        if columns is not None:
            return columns
        if not callable(getattr(self.data, "__getitems__", None)):
            return [self.data[index] for index in indices]
        items = self.data.__getitems__(indices)
        require_rows(items, len(indices))
        return items

    def clean(self) -> WeightedAugmentedDataset:
        """Return the un-augmented view: the same items and ``final``, no weak or strong part.

        Its draws have strength 0, plain indices too, so reports of its batches count as clean.
        """
        clean = WeightedAugmentedDataset(self.data, final=self.final, fields=self.fields)
        clean._clean = True
        return clean

    def _draw(self, draw: Draw | int) -> Draw:
        draw = draw if isinstance(draw, Draw) else Draw(as_index(draw))
        if not 0 <= draw.index < self._n:
            raise IndexError(
                f"index must be in [0, {self._n}), got {draw.index}. "
                "Build the sampler on this dataset."
            )
        return draw._replace(strength=0.0) if self._clean else draw

    def _drawn(self, draws: Sequence[Draw | int]) -> list[Draw]:
        """Return the draws of a batch; what a CoresetSampler yields is checked all at once."""
        if draws and not self._clean and all(type(draw) is Draw for draw in draws):
            indices = [draw.index for draw in draws]  # type: ignore[union-attr]
            if min(indices) >= 0 and max(indices) < self._n:
                return list(draws)  # type: ignore[arg-type]
        return [self._draw(draw) for draw in draws]

    def _strong(self, draw: Draw) -> _Adapted | None:
        """Return the strong transform of a draw."""
        if draw.strength == 0:
            return None
        if not self._one_a_copy:
            return self.strong[0]
        if not 1 <= draw.copy <= len(self.strong):
            raise ValueError(
                f"copy must be 1 to {len(self.strong)}, the transforms in strong, got {draw.copy}. "
                f"Build the sampler with copies={len(self.strong)}."
            )
        return self.strong[draw.copy - 1]

    @property
    def _transforms(self) -> bool:
        """Whether single images are transformed."""
        return any(part is not None for part in (self.weak, *self.strong, self.final))

    def _transformed(self, image: Any, draw: Draw) -> Any:
        if self.weak is not None and draw.weak:
            image = self.weak(image, draw)
        strong = self._strong(draw)
        if strong is not None:
            image = strong(image, draw)
        return image if self.final is None else self.final(image, draw)

    def _whole(self, draws: Sequence[Draw], items: Any) -> Any:
        """Return the batch of some items or columns, as the default collate makes it of rows."""
        columns = items if isinstance(items, tuple | Mapping) else _transposed(items)
        image, target, extra = _split(columns, self.fields)
        rest: Any
        if isinstance(extra, Mapping):
            rest = {key: column(list, entries) for key, entries in extra.items()}
        else:
            rest = [column(tuple, entries) for entries in extra]
        image, target = column(tuple, image), column(tuple, target)
        return stack(draws)._replace(input=image, target=target, extra=rest)

    def _sample(self, draw: Draw, item: Any) -> Any:
        image, target, extra = _split(item, self.fields)
        image = self._transformed(image, draw)
        # float32 scalars: a Python float would collate to float64 and promote the loss.
        weight, strength = np.float32(draw.weight), np.float32(draw.strength)
        return Sample(image, target, draw.index, weight, strength, draw.copy, draw.epoch, extra)


class Fetched(Sequence[Any]):
    """The rows of a batch, made where they are asked for; ``whole`` is the batch.

    Attributes:
        draws: the draws of the rows.
        items: as many items of the wrapped dataset, or a tuple or mapping of columns of them.
    """

    def __init__(self, data: WeightedAugmentedDataset, draws: list[Draw], items: Any) -> None:
        self._data, self.draws, self.items = data, draws, items
        self.columns = isinstance(items, tuple | Mapping)

    def whole(self) -> Any:
        """Return the batch, without going through its rows."""
        return self._data._whole(self.draws, self.items)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.draws)

    def __getitem__(self, i: Any) -> Any:
        """Return one row, or a list of them."""
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        draw = self.draws[i]
        return self._data._sample(draw, _row(self.items, i) if self.columns else self.items[i])


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
        >>> data = WeightedAugmentedDataset(TensorDataset(torch.eye(4), torch.arange(4)))
        >>> next(iter(DataLoader(data, batch_size=2, collate_fn=collate))).target
        tensor([0, 1])
    """
    if isinstance(rows, Fetched):
        return rows.whole()
    if not rows or not all(type(row) is Sample for row in rows):
        return default_collate(list(rows))
    image, target, index, weight, strength, copy, epoch, extra, mixed = zip(*rows, strict=True)
    named = zip(index, copy, weight, strength, epoch, strict=True)
    parts = [default_collate(list(part)) for part in (extra, mixed)]
    parts = [column(tuple, image), column(tuple, target), *parts]
    draws = stack([Draw(*values) for values in named])
    return draws._replace(**dict(zip(("input", "target", "extra", "mixed"), parts, strict=True)))


def _row(columns: Any, i: int) -> Any:
    """Return one row of columns: tensors, or sequences with an entry a row."""
    if isinstance(columns, Mapping):
        return {key: column[i] for key, column in columns.items()}
    return tuple(column[i] for column in columns)


def _transposed(items: list[Any]) -> Any:
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
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in dataclass_fields(item)}
    return item


def column(kind: Callable[[Any], Any], entries: Any) -> Any:
    """Return a column of a batch, as the default collate would return it of its entries."""
    return entries if isinstance(entries, Tensor) else default_collate(kind(entries))


def _columns(data: Any, indices: list[int]) -> tuple[Tensor, ...] | None:
    """Return rows of tensors in memory, as columns; None where the data is something else."""
    if type(data) is Subset:  # a random_split, for instance
        return _columns(data.dataset, [data.indices[index] for index in indices])
    if type(data) is not TensorDataset or not all(map(_is_plain, data.tensors)):
        return None
    rows = torch.tensor(indices)
    return tuple(_taken(column, rows) for column in data.tensors)


def _is_plain(column: Tensor) -> bool:
    return type(column) is Tensor and column.layout == torch.strided and not column.requires_grad


def _taken(column: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a tensor; in a worker, unless they go by value, in memory it shares."""
    if column.device.type != "cpu":
        return column[rows]
    shape = (len(rows), *column.shape[1:])
    if get_worker_info() is None or prod(shape) * column.element_size() <= SMALL:
        return column.index_select(0, rows)
    storage = column._typed_storage()._new_shared(prod(shape))
    return torch.index_select(column, 0, rows, out=column.new(storage).resize_(shape))


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


def _split(item: Any, fields: tuple[int | str, int | str]) -> tuple[Any, Any, Any]:
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


@dataclass(frozen=True)
class _Adapted:
    """A transform of any library, called in its own way with one image."""

    transform: Transform
    albumentations: bool = False
    asks: frozenset[str] = frozenset()  # which of strength and keys it takes

    def __call__(self, image: Any, draw: Draw) -> Any:
        if self.albumentations:
            return _with_arrays(self.transform, image)
        given: dict[str, Any] = {}
        if "strength" in self.asks:
            given["strength"] = draw.strength
        if "keys" in self.asks:
            given["keys"] = torch.tensor([draw.epoch, draw.index, draw.copy])
        out = self.transform(image, **given)
        if isinstance(out, Tensor) and isinstance(image, Tensor) and out.ndim == image.ndim + 1:
            out = out.squeeze(0)  # Kornia returns a batch of one
        return out


def _adapt(name: str, transform: Transform | _Adapted | None) -> _Adapted | None:
    if transform is None or isinstance(transform, _Adapted):
        return transform
    if not callable(transform):
        raise TypeError(
            f"{name} must be a callable on one image, got {transform!r}. "
            "Pass the transform itself, or None."
        )
    try:
        called = transform.forward if isinstance(transform, nn.Module) else transform
        parameters = inspect.signature(called).parameters
    except ValueError:  # some built-ins have no signature
        return _Adapted(transform)
    image = parameters.get("image")
    if "force_apply" in parameters or (image and image.kind is inspect.Parameter.KEYWORD_ONLY):
        return _Adapted(transform, albumentations=True)
    return _Adapted(transform, asks=frozenset({"strength", "keys"} & parameters.keys()))


def _with_arrays(transform: Transform, image: Any) -> Any:
    """Call an Albumentations-style transform; PIL stays PIL, a (C, H, W) tensor stays one."""
    if isinstance(image, Tensor):
        out = transform(image=image.permute(1, 2, 0).numpy())["image"]
        channels_first = isinstance(out, np.ndarray)
        return torch.from_numpy(out.transpose(2, 0, 1).copy()) if channels_first else out
    out = transform(image=np.asarray(image))["image"]
    plain = isinstance(image, np.ndarray) or not isinstance(out, np.ndarray)
    return out if plain else to_pil_image(out)
