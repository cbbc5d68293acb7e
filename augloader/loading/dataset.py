"""The dataset: a Draw in, a weighted and augmented Sample out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import index as as_index
from typing import Any, Literal, SupportsIndex, get_args
from uuid import uuid4

import numpy as np
from torch.utils.data import Dataset

from augloader.core.batch import Draw, Plain, Sample, stack
from augloader.core.checks import kind, require_dataset, require_one_of
from augloader.core.deprecated import formerly
from augloader.core.lying import names_of
from augloader.loading.adapt import Adapted, Transform, adapt, uniform
from augloader.loading.batches import (
    Fetched,
    as_parts,
    column,
    in_memory,
    replaced,
    require_item,
    require_rows,
    row_of,
    split_item,
    transposed,
)
from augloader.loading.cache import Cache
from augloader.loading.pictures import places, require_none_left

Ungraded = Literal["full", "probability"]


class WeightedAugmentedDataset(Dataset[Sample]):
    """Wrap any map-style dataset so that every draw is augmented as the sampler asks.

    input = final(strong(weak(x))), where ``strong`` is applied only to draws with strength > 0.

    Args:
        data: map-style dataset. Items are tuples, lists, dicts or dataclasses; fields other than
            input and target are kept in ``Sample.extra``.
        weak: transform of the draws with ``weak`` (crop, flip), all unless scheduled; or None.
        strong: transform of the draws with strength > 0, or None when the batch is augmented later.
            Any callable on one image: torchvision, PIL, Kornia (a batch dimension of one that it
            adds is dropped) or Albumentations (called with ``image=`` as an (H, W, C) array, and of
            an input (image, mask) with ``mask=``; its random numbers depend on the draw). One with
            a parameter named ``strength`` is given the draw's; weak, final and clean ones keep its
            default, or are given 1 where it has none. Any with a parameter named ``keys`` is given
            the draw's (3,) int64 epoch, index and copy, to seed its random numbers with.
            Or a list of m of them, f_T(z) = {z_1, ..., z_m}, as ``translations(3)``: copy j is
            augmented by the j-th, and the sampler must be built with ``copies=m``.
        final: transform of every draw's input, and of the clean view's (to tensor, normalise), or
            None.
        fields: positions or keys of the input and the target in an item.
        joint: whether weak, strong and clean are given the whole item, so that masks, boxes and
            points follow the image: torchvision's v2 move what are tv_tensors in it; Albumentations
            are called by the names of a dict, ``image=``, ``mask=``, ``bboxes=``, .... Without it
            they are given the input alone, which may itself be a tuple of image and mask.
        ungraded: what becomes of a strong transform without a parameter ``strength`` at strengths
            between 0 and 1: "full": it is applied whole; "probability": applied whole with
            probability strength, by a number that depends on epoch, index and copy alone.
        clean: what ``clean()``, and so a sweep, takes in place of the weak transform: a transform,
            as a resize to one size; or a dataset of as many samples, in place of ``data`` where its
            own transforms are random.
        untouched: what may stay as it is though it lies on the image, as a clean image that is the
            target: "target", keys of items that are mappings, "extra.0" of others, the first field
            beside input and target; or paths below, as "target.boxes". With joint the transforms
            are given None in place of such a field.
        cache: None, or a ``Cache``: the item of a strong draw is fetched and augmented once a
            refresh interval and kept in files, for augmentations that are expensive.

    A plain int index stands for ``Draw(index, epoch=-1)``: weight 1, strength 1; so a loader
    without a CoresetSampler augments everything.

    Raises:
        TypeError: data without ``__len__`` or ``__getitem__``, a transform that is not callable, a
            cache that is none;
            for a draw, what lies on an image (tv_tensors, PIL images, tensors and arrays of its
            size, numbers whose key names boxes, points or masks) and would not move with it, a PIL
            image that is neither L nor RGB given to a strong transform, an item that is None.
        ValueError: an empty dataset, fields that are not two, clean data of another length, a cache
            without a strong transform.

    Cost: one fetch of the item and its transforms, a draw.

    Example:
        >>> import torch
        >>> squares = [(torch.tensor([float(i)]), i % 2) for i in range(4)]
        >>> data = WeightedAugmentedDataset(squares, strong=lambda x: -x)
        >>> data[Draw(3, strength=0.0)].input, data[Draw(3, copy=1)].input
        (tensor([3.]), tensor([-3.]))
    """

    takes_draws = True

    def __init__(
        self,
        data: Any,
        *,
        weak: Transform | None = None,
        strong: Transform | Sequence[Transform] | None = None,
        final: Transform | None = None,
        fields: tuple[int | str, int | str] = (0, 1),
        joint: bool = False,
        ungraded: Ungraded = "full",
        clean: Transform | Any | None = None,
        untouched: Collection[str] = (),
        cache: Cache | None = None,
    ) -> None:
        self._n = require_dataset(data)
        if len(fields) != 2:
            raise ValueError(
                f"fields must be the positions or keys of input and target, got {fields}. "
                'Give two, as ("image", "label").'
            )
        require_one_of("ungraded", ungraded, get_args(Ungraded))
        self.data = data
        self.fields = fields
        self.joint = joint
        self.ungraded = ungraded
        self.untouched = names_of(untouched)
        if cache is not None and not isinstance(cache, Cache):
            raise TypeError(
                f"cache must be a Cache or None, got {kind(cache)}. Pass "
                "augloader.loading.Cache(refresh), with the sampler's refresh."
            )
        if cache is not None and strong is None:
            raise ValueError(
                "cache must be None without a strong transform in the dataset, got a Cache. Pass "
                "strong=..., or leave the cache out where the batch is augmented later."
            )
        self.cache, self._owner = cache, uuid4().hex
        self.weak = adapt("weak", weak, self.untouched)
        self._one_a_copy = isinstance(strong, list | tuple)
        transforms: Sequence[Any] = strong if isinstance(strong, list | tuple) else [strong]
        self.strong = [adapt("strong", transform, self.untouched) for transform in transforms]
        if self._one_a_copy and (not self.strong or None in self.strong):
            raise TypeError(
                f"strong must hold at least one transform, and nothing else, got {strong!r}. "
                "Pass a list, as translations(3)."
            )
        self.final = adapt("final", final)
        self._is_clean = False
        shown = isinstance(clean, Dataset) or (clean is not None and not callable(clean))
        self._clean_data: Any = clean if shown else None
        self._clean = None if shown else adapt("clean", clean, self.untouched)
        found = require_dataset(clean) if shown else self._n
        if found != self._n:
            raise ValueError(
                f"clean must hold the {self._n} samples of data, got {found}. Build it of the same "
                "files, in the same order."
            )

    @property
    def required_copies(self) -> int | None:
        """How many copies a sample must have: m where ``strong`` is a list; None: any number."""
        return len(self.strong) if self._one_a_copy else None

    @property
    def takes_strength(self) -> bool:
        """Whether strengths between 0 and 1 mean something to ``strong``; True where it is None."""
        given = [part for part in self.strong if part is not None]
        return self.ungraded == "probability" or all(part.takes_strength for part in given)

    copies = formerly("copies", "required_copies")

    def __len__(self) -> int:
        """Return the number of samples of the wrapped dataset."""
        return self._n

    def __getitem__(self, draw: Draw | SupportsIndex) -> Sample:
        """Return one sample, fetched once from the wrapped dataset.

        Raises:
            IndexError: index outside [0, n).
            TypeError: the item has no such fields.
        """
        draw = self._draw(draw)
        item = None if self._is_kept(draw) else self.data[draw.index]
        sample: Sample = self._sample(draw, item)
        return sample

    def __getitems__(self, draws: Sequence[Draw | SupportsIndex]) -> Sequence[Any]:
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
        if not self._transforms:
            return Fetched(drawn, self._items(indices), self._whole, self._sample)
        wanted = [i for i, draw in enumerate(drawn) if not self._is_kept(draw)]
        items = self._items([indices[i] for i in wanted]) if wanted else []
        if isinstance(items, tuple | Mapping):
            items = [row_of(items, row) for row in range(len(wanted))]
        found = dict(zip(wanted, items, strict=True))
        return [self._sample(draw, found.get(i)) for i, draw in enumerate(drawn)]

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
        """Return the un-augmented view: ``clean`` and ``final`` alone, no weak or strong part.

        Its draws have strength 0, so reports of its batches count as clean.
        """
        if self._is_clean:
            return self
        clean = WeightedAugmentedDataset(
            self.data if self._clean_data is None else self._clean_data,
            weak=self._clean,
            final=self.final,
            fields=self.fields,
            joint=self.joint,
            untouched=self.untouched,
        )
        clean._is_clean = True
        return clean

    def own_item(self, index: int) -> Any:
        """Return an item in the wrapped dataset's own shape, transformed as for a plain index."""
        draw = self._draw(index)
        item = self.data[draw.index]  # of no epoch, so that it is not kept
        require_item(draw.index, item)
        return self._transformed(item, draw) if self._transforms else item

    def _draw(self, draw: Draw | SupportsIndex) -> Draw:
        if not isinstance(draw, Draw):
            draw = Draw(as_index(draw), epoch=-1)
        if not 0 <= draw.index < self._n:
            raise IndexError(
                f"index must be in [0, {self._n}), got {draw.index}. "
                "Build the sampler on this dataset."
            )
        return draw._replace(strength=0.0, weak=True) if self._is_clean else draw

    def _drawn(self, draws: Sequence[Draw | SupportsIndex]) -> tuple[Sequence[Draw], list[int]]:
        """Return the draws of a batch and their indices; those of one kind are checked at once."""
        given: Any = list(draws)
        kinds, indices = set(map(type, given)), given
        if kinds == {Draw} and not self._is_clean:
            indices = [draw.index for draw in given]
        elif kinds == {int}:
            given = Plain(indices, 0.0 if self._is_clean else 1.0)
        if given is indices or min(indices) < 0 or max(indices) >= self._n:
            given = [self._draw(draw) for draw in draws]
            indices = [draw.index for draw in given]
        return given, indices

    def _strong(self, draw: Draw) -> Adapted | None:
        """Return the strong transform of a draw."""
        if draw.strength == 0:
            return None
        if not self._one_a_copy:
            return self._gated(self.strong[0], draw)
        if not 1 <= draw.copy <= len(self.strong):
            raise ValueError(
                f"copy must be 1 to {len(self.strong)}, the transforms in strong, got {draw.copy}. "
                f"Build the sampler with copies={len(self.strong)}."
            )
        return self._gated(self.strong[draw.copy - 1], draw)

    def _gated(self, strong: Adapted | None, draw: Draw) -> Adapted | None:
        """Return a transform, or None where its probability says so."""
        if self.ungraded == "full" or strong is None or strong.takes_strength:
            return strong
        return strong if uniform("strong", draw) < draw.strength else None

    @property
    def _transforms(self) -> bool:
        """Whether single images are transformed."""
        return any(part is not None for part in (self.weak, *self.strong, self.final))

    def _transformed(self, item: Any, draw: Draw) -> Any:
        """Return an item of the same shape, transformed for a draw; what is kept needs none."""
        key = self.fields[0]
        changes: Any = {}
        if self.cache is not None and self._is_kept(draw):
            item = self.cache.view(draw, self._made, self._owner)
            image = as_parts(item, key)[key]
        else:
            require_item(draw.index, item)
            changes, image = self._augmented(item, draw)
        image = image if self.final is None else self.final(image, draw)
        return replaced(item, {**changes, key: image})

    def _is_kept(self, draw: Draw) -> bool:
        """Whether the cache has the item of a draw, or makes it."""
        return self.cache is not None and draw.strength > 0 and draw.epoch >= 0

    def _made(self, draw: Draw) -> Any:
        """Return the item of a draw, fetched and augmented."""
        item = self.data[draw.index]
        require_item(draw.index, item)
        changes, image = self._augmented(item, draw)
        return replaced(item, {**changes, self.fields[0]: image})

    def _augmented(self, item: Any, draw: Draw) -> tuple[Any, Any]:
        """Return what weak and strong transforms change of an item, and its image after them."""
        key = self.fields[0]
        parts = as_parts(item, key)
        weak = self.weak if draw.weak else None
        stages = [part for part in (weak, self._strong(draw)) if part is not None]
        kept = {*self.untouched}
        augments = self.weak is not None or any(self.strong)
        known = places(parts, self.fields) if augments else {}
        beside = [(place, parts[k]) for k, place in known.items() if not kept & {k, place.name}]
        changes: Any = {}
        if self.joint and stages:
            if any(stage.of_torchvision for stage in stages):
                require_none_left(parts[key], beside, kept, joint=True)
            stays = {k: parts[k] for k, place in known.items() if kept & {k, place.name}}
            parts = replaced(parts, dict.fromkeys(stays)) if stays else parts
            for stage in stages:
                parts = stage.whole(parts, key, draw)
            changes = (parts if isinstance(parts, dict) else dict(enumerate(parts))) | stays
            image = changes[key]
        else:
            if augments and not self.joint:
                require_none_left(parts[key], beside, kept)
            image = parts[key]
            for stage in stages:
                image = stage(image, draw)
        return {k: part for k, part in changes.items() if k != key}, image

    def _whole(self, draws: Sequence[Draw], items: Any) -> Any:
        """Return the batch of some items or columns, as the default collate makes it of rows."""
        if isinstance(items, list):
            for i, item in enumerate(items):
                if item is None:
                    require_item(draws[i].index, item)
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
        if self._transforms:
            item = self._transformed(item, draw)
        require_item(draw.index, item)
        image, target, extra = split_item(item, self.fields)
        # float32 scalars: a Python float would collate to float64 and promote the loss.
        weight, strength = np.float32(draw.weight), np.float32(draw.strength)
        return Sample(image, target, draw.index, weight, strength, draw.copy, draw.epoch, extra)
