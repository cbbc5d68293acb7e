"""An existing DataLoader, and a sampler, made into a loader that augments as the sampler asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

import torch.distributed as dist
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from augloader.core.checks import require_dataset, require_one_of
from augloader.core.deprecated import renamed
from augloader.core.schedule import Schedule
from augloader.loading.adapt import Transform
from augloader.loading.cache import Cache
from augloader.loading.collating import Collate, Extras
from augloader.loading.dataset import Ungraded, WeightedAugmentedDataset
from augloader.loading.distributed_sampler import DistributedCoresetSampler
from augloader.loading.plan import FORMER
from augloader.loading.sampler import CoresetSampler
from augloader.loading.shaped import Shaped
from augloader.selection.strategy import Strategy

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
    joint: bool = False,
    ungraded: Ungraded = "full",
    clean: Transform | Any | None = None,
    untouched: Collection[str] = (),
    cache: Cache | None = None,
    extras: Extras = "draw",
    weak_probability: Schedule | float = 1.0,
    group: dist.ProcessGroup | None = None,
    **options: Any,
) -> tuple[DataLoader[Any], CoresetSampler]:
    """Return a loader like the given one whose epochs a CoresetSampler plans, and the sampler.

    Dataset, batch size, workers and their start method, collate function, pinning, ``drop_last``,
    prefetching and generator are the given loader's; the sampler shuffles. Batches keep the shape
    that the collate function gives them, and at the end of a tuple or list, under "draw" in a
    mapping or named tuple, or as an attribute ``draw`` of any other object, comes a ``Sample`` with
    index, weight, strength, copy and epoch of every row, its input and target None. A batch that is
    a single tensor becomes a list of two.

    A row's draw has the row's place: the collate function must keep order and number of its rows,
    which is tried on a few of the first. One that sorts rows, or leaves some out, takes draws that
    travel inside the items. Where it mixes images, as by v2.MixUp, and class labels become rows of
    probabilities, the draws of the batch are marked as mixed; where it keeps both labels apart, as
    (x, y_a, y_b, lambda), it cannot be seen: ``report(draw, ..., mixed=True)``.

    With a ``group``, or a loader with a DistributedSampler, each rank draws its share, by a
    ``DistributedCoresetSampler``; the group is then that of all ranks, if none is given.

    Args:
        loader: a DataLoader, or a subclass with the same arguments, as torchdata's
            StatefulDataLoader, over a map-style dataset.
        strategy: as for CoresetSampler.
        weak: as for WeightedAugmentedDataset, as are strong, final, joint, ungraded and clean; most
            datasets have theirs already, and the batch may be augmented later.
        strong: see weak.
        final: see weak.
        fields: positions, keys or attributes of input and target in an item; read where a transform
            is given, and by ``sweep(model, loader.dataset, ...)``.
        joint: see weak.
        ungraded: see weak.
        clean: see weak; where the dataset's own transforms are random, a dataset without them.
        untouched: see weak; names of fields that may stay as they are though they lie on the image.
        cache: see weak; of items that strong is given to.
        extras: "draw" as above; "fields": tensors alone, ``draw_index``, ``draw_weight``,
            ``draw_strength``, ``draw_copy``, ``draw_epoch`` and ``draw_mixed``, in a mapping or as
            attributes, else in a dict at the end: ``Sample.of`` makes one of them; "item": a
            ``Draw`` inside each item, at its end or as ``draw``, and batches as the collate
            function then returns them: it hands them on, and ``Sample.of`` makes a Sample of the
            list; "index": the index alone; "none": nothing, for code that takes exactly two. What
            is left out cannot be reported, and weights do not reach the loss.
        weak_probability: as for CoresetSampler, of a draw to get the weak transform.
        group: of the ranks that share the draws, as for DistributedCoresetSampler.
        **options: of CoresetSampler, as ``fraction=0.3``.

    Raises:
        TypeError: not a DataLoader; over an IterableDataset or a WeightedAugmentedDataset; a
            subclass with other arguments; in the loop, batches that a draw cannot be added to.
        ValueError: a loader with a sampler or batch sampler of its own, as endless loaders have,
            or without batches; what CoresetSampler raises; in the loop, batches with a field
            ``draw`` of their own, items that are None, rows in another order or number.

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
        joint=joint,
        ungraded=ungraded,
        clean=clean,
        untouched=untouched,
        cache=cache,
    )
    sampler = _sampler(
        loader.sampler, group, data, strategy, weak_probability=weak_probability, **options
    )
    kept = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    collate_fn = Collate(loader.collate_fn, extras, fields[1])
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
    _require_plain(loader.batch_sampler, (BatchSampler,), "batch sampler", _ENDLESS)
    own: Any = loader.sampler
    n = require_dataset(loader.dataset)
    if type(own) is DistributedSampler and len(own.dataset) == n:  # type: ignore[arg-type]
        return
    _require_plain(own, (SequentialSampler, RandomSampler), "sampler", _SAMPLED)
    if getattr(own, "replacement", False) or len(own) != n:
        how = "with replacement" if len(own) == n else f"of {len(own)} of {n} samples"
        raise ValueError(
            f"loader must have no sampler of its own, got {type(own).__name__} {how}. {_SAMPLED}"
        )


def _require_plain(given: Any, kinds: tuple[type, ...], name: str, advice: str) -> None:
    """Raise ValueError unless a sampler is torch's or torchdata's own."""
    kind = type(given)
    known = [k.__name__ for k in kinds] if kind.__module__.startswith("torchdata.") else []
    if kind not in kinds and kind.__name__ not in known:
        raise ValueError(f"loader must have no {name} of its own, got {kind.__name__}. {advice}")


_SAMPLED = (
    "Draws come from CoresetSampler: leave it out, with shuffle=True; in place of "
    "SubsetRandomSampler(indices) build the loader over torch.utils.data.Subset(data, indices)."
)
_ENDLESS = (
    "Endless loaders (timm's MultiEpochsDataLoader, YOLO's) begin the next epoch before it is "
    "planned: take a plain DataLoader, with persistent_workers=True. Others are built over "
    "WeightedAugmentedDataset(data), with a batch sampler over CoresetSampler(...)."
)


def _sampler(
    own: Any, group: dist.ProcessGroup | None, data: Any, strategy: Strategy, **options: Any
) -> CoresetSampler:
    """Return the sampler of all draws, or of this rank's."""
    if group is not None:
        return DistributedCoresetSampler(data, strategy, group=group, **options)
    if not isinstance(own, DistributedSampler):
        return CoresetSampler(data, strategy, **options)
    ranks = own.num_replicas, own.rank
    started = dist.is_available() and dist.is_initialized()
    if started and ranks == (dist.get_world_size(), dist.get_rank()):
        return DistributedCoresetSampler(data, strategy, group=dist.group.WORLD, **options)
    return DistributedCoresetSampler(
        data, strategy, num_replicas=ranks[0], rank=ranks[1], **options
    )
