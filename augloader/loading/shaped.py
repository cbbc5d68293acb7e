"""Items of a dataset that a loader's own collate function is used to, each beside its draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, default_collate

from augloader.core.batch import Draw
from augloader.loading.batches import collated, column, require_rows
from augloader.loading.dataset import WeightedAugmentedDataset


class Shaped(WeightedAugmentedDataset):
    """Items in the wrapped dataset's own shape, each beside its draw."""

    def __init__(self, data: Any, collate_fn: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(data, **options)
        self._by_default = collate_fn is default_collate

    def _items(self, indices: list[int]) -> Any:
        """Return items or columns, or what the loader's own collate function is used to."""
        if self._by_default:
            return super()._items(indices)
        if not callable(getattr(self.data, "__getitems__", None)):
            return [self.data[index] for index in indices]
        items = self.data.__getitems__(indices)
        if isinstance(items, list):
            require_rows(items, len(indices))
        elif self._transforms:
            raise TypeError(
                "data.__getitems__ must return a list of items where single images are "
                f"transformed, got {type(items).__name__}. Transform them in the dataset, or later."
            )
        return items

    def _whole(self, draws: Sequence[Draw], items: Any) -> Any:
        if isinstance(items, Mapping):
            return {key: column(list, part) for key, part in items.items()}
        if isinstance(items, tuple):
            return [column(tuple, part) for part in items]
        return collated(items)

    def _sample(self, draw: Draw, item: Any) -> Any:
        return (self._transformed(item, draw) if self._transforms else item), draw

    def clean_items(self) -> Dataset[Any]:
        """Return the clean view's items, in the wrapped dataset's own shape and without draws."""
        return _Items(self.clean())


class _Items(Dataset[Any]):
    """A view's items as its data return them, transformed."""

    def __init__(self, view: WeightedAugmentedDataset) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> Any:
        return self.view.own_item(index)
