"""The un-augmented view of any dataset, in batches that are the same in every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from augloader.core.batch import Sample, move
from augloader.core.checks import holds_draws, require_dataset
from augloader.core.progress import progress
from augloader.loading.batches import Fetched, collate, on_cpu, require_item
from augloader.loading.dataset import WeightedAugmentedDataset
from augloader.loading.randomness import drawn_since, seed_all
from augloader.loading.shaped import Shaped


def unaugmented(data: Any, own: bool = False) -> Any:
    """Return the clean view of a dataset, of Subsets and ConcatDatasets of some too.

    Args:
        data: a WeightedAugmentedDataset, what ``wrap`` made of one's own, or any other dataset.
        own: whether the items of others than a WeightedAugmentedDataset are kept in their shape.

    Raises:
        TypeError: a DataLoader, a stream, data without ``__len__`` or ``__getitem__``.
        ValueError: no samples.
    """
    if holds_draws(data) and type(data) is Subset:
        require_dataset(range(len(data)))
        return Subset(unaugmented(data.dataset, own), data.indices)
    if holds_draws(data) and type(data) is ConcatDataset:
        return ConcatDataset([unaugmented(part, own) for part in data.datasets])
    require_dataset(data)
    if own and isinstance(data, Shaped):
        return data.clean_items()
    if isinstance(data, WeightedAugmentedDataset):
        return data.clean()
    return data if own else WeightedAugmentedDataset(data).clean()


def loader_of(
    view: Any,
    share: Tensor | None,
    batch_size: int,
    num_workers: int,
    collate_fn: Callable[[Any], Any] | None,
    device: torch.device,
) -> DataLoader[Any]:
    """Return a loader of a view's samples, or of a share of them, for ``batches``."""
    made: Callable[[Any], Any] = _Collate(collate_fn or collate)
    return DataLoader(
        _Still(view),
        sampler=None if share is None else share.tolist(),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=made,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(device="cpu"),  # its own: a loader would draw from the global one
    )


def batches(
    loader: DataLoader[Any], what: str, bar: bool | None = None
) -> Iterator[tuple[Any, Tensor]]:
    """Yield each batch with its samples' positions, and warn once where they are random.

    The global random states are not restored: let it run in ``Fixed``.
    """
    told = False
    for batch, positions, moved in progress(_OnCpu(loader), what, bar):
        if moved and not told:
            told = True
            warn(
                "data drew random numbers in a pass over its un-augmented view: transforms of its "
                "own are random, and the view is one random view of each sample, the same in every "
                "pass. Pass clean=, a dataset without them, where the data are wrapped; or sweep "
                "such a dataset in their place.",
                stacklevel=5,
            )
        yield batch, positions


def on(batch: Any, device: torch.device) -> Any:
    """Return a batch of any kind on a device: by its own ``to``, else the tensors in it."""
    own = getattr(batch, "to", None)
    return own(device) if callable(own) else move(batch, device)


class _OnCpu:
    """A loader that makes its batches on the CPU, whatever the default device is."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        home = on_cpu()
        with home:
            made = iter(self.loader)
        while True:
            with home:  # but not while the model runs
                batch = next(made, None)
            if batch is None:
                return
            yield batch


class _Still(Dataset[Any]):
    """Fetches rows of a view beside their positions and whether random numbers were drawn.

    Where they were, each row is fetched by itself, with the seed of its position, so that it
    depends on nothing else: not on the batch, the worker or the rank.
    """

    def __init__(self, view: Any) -> None:
        self.view = view
        self.random = False

    def __len__(self) -> int:
        return len(self.view)

    def __getitems__(self, positions: list[int]) -> tuple[Any, Tensor, bool]:
        rows: Any = None
        if not self.random:
            seed_all(0)
            rows = self._rows(positions)
            self.random = drawn_since()
        if self.random:
            rows = []
            for position in positions:
                seed_all(position)
                rows.append(self.view[position])
        if type(rows) is list:
            for position, row in zip(positions, rows, strict=True):
                require_item(position, row)
        return rows, torch.from_numpy(np.array(positions, np.int64)), self.random

    def _rows(self, positions: list[int]) -> Any:
        fetch = getattr(self.view, "__getitems__", None)
        rows = fetch(positions) if callable(fetch) else None
        return rows if isinstance(rows, list | Fetched) else [self.view[i] for i in positions]


class _Collate:
    """Makes a batch of fetched rows; positions and what is known of them are passed on."""

    def __init__(self, own: Callable[[Any], Any]) -> None:
        self.own = own

    def __call__(self, fetched: tuple[Any, Tensor, bool]) -> tuple[Any, Tensor, bool]:
        rows, positions, moved = fetched
        try:
            return self.own(rows), positions, moved
        except RuntimeError as error:
            inputs = [row.input for row in rows if isinstance(row, Sample)]
            sizes = sorted({tuple(x.shape) for x in inputs if isinstance(x, Tensor)})
            if len(sizes) < 2:
                raise
            raise ValueError(
                f"data must give inputs of one size without the weak transform, got {sizes[0]} and "
                f"{sizes[-1]}. Pass clean=, a transform that resizes and crops without random "
                "numbers, to WeightedAugmentedDataset; or a collate_fn that pads."
            ) from error
