"""The dataset: a Draw in, a weighted and augmented Sample out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index as as_index
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from augloader.core.batch import Draw, Sample, stack
from augloader.core.checks import require_dataset
from augloader.core.deprecated import formerly
from augloader.loading.adapt import Adapted, Transform, adapt
from augloader.loading.batches import (
    Fetched,
    column,
    in_memory,
    require_rows,
    row_of,
    split_item,
    transposed,
)


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
        >>> import torch
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
        self.weak = adapt("weak", weak)
        self._one_a_copy = isinstance(strong, list | tuple)
        transforms: Sequence[Any] = strong if isinstance(strong, list | tuple) else [strong]
        self.strong = [adapt("strong", transform) for transform in transforms]
        if self._one_a_copy and (not self.strong or None in self.strong):
            raise TypeError(
                f"strong must hold at least one transform, and nothing else, got {strong!r}. "
                "Pass a list, as translations(3)."
            )
        self.final = adapt("final", final)
        self._clean = False

    @property
    def required_copies(self) -> int | None:
        """How many copies a sample must have: m where ``strong`` is a list; None: any number."""
        return len(self.strong) if self._one_a_copy else None

    copies = formerly("copies", "required_copies")

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
        drawn, indices = self._drawn(draws)
        if len(self.data) != self._n:
            raise ValueError(
                f"data must keep its {self._n} samples, got {len(self.data)} now. Build dataset "
                "and sampler anew when it has changed."
            )
        items = self._items(indices)
        if not self._transforms:
            return Fetched(drawn, items, self._whole, self._sample)
        if isinstance(items, tuple | Mapping):
            items = [row_of(items, i) for i in range(len(drawn))]
        return [self._sample(draw, item) for draw, item in zip(drawn, items, strict=True)]

    def _items(self, indices: list[int]) -> Any:
        """Return a list of the wrapped dataset's items, or columns."""
        columns = None if self._transforms else in_memory(self.data, indices)
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

    def _drawn(self, draws: Sequence[Draw | int]) -> tuple[list[Draw], list[int]]:
        """Return the draws of a batch and their indices; a sampler's draws are checked at once."""
        given: Any = draws
        if not self._clean and set(map(type, given)) == {Draw}:
            indices = [draw.index for draw in given]
            if min(indices) >= 0 and max(indices) < self._n:
                return list(given), indices
        drawn = [self._draw(draw) for draw in given]
        return drawn, [draw.index for draw in drawn]

    def _strong(self, draw: Draw) -> Adapted | None:
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
        columns = items if isinstance(items, tuple | Mapping) else transposed(items)
        image, target, extra = split_item(columns, self.fields)
        rest: Any
        if isinstance(extra, Mapping):
            rest = {key: column(list, entries) for key, entries in extra.items()}
        else:
            rest = [column(tuple, entries) for entries in extra]
        image, target = column(tuple, image), column(tuple, target)
        return stack(draws)._replace(input=image, target=target, extra=rest)

    def _sample(self, draw: Draw, item: Any) -> Any:
        image, target, extra = split_item(item, self.fields)
        image = self._transformed(image, draw)
        # float32 scalars: a Python float would collate to float64 and promote the loss.
        weight, strength = np.float32(draw.weight), np.float32(draw.strength)
        return Sample(image, target, draw.index, weight, strength, draw.copy, draw.epoch, extra)
