"""One rank's part of an epoch's draws."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DistributedSampler, Sampler

from augloader.core.batch import Draw
from augloader.core.checks import require_int
from augloader.core.deprecated import renamed
from augloader.distributed import collectives
from augloader.loading.layout import Order
from augloader.loading.plan import FORMER
from augloader.loading.sampler import CoresetSampler
from augloader.selection.strategy import Strategy


class DistributedCoresetSampler(CoresetSampler, DistributedSampler[Draw]):
    """Yield this rank's draws of each epoch, equally many on every rank.

    For DistributedDataParallel. The draws of a CoresetSampler's epoch are dealt in turn. What is
    missing at the end is filled up with the first draws at weight 0, so that every draw counts
    once. An epoch of 8 on 3 ranks:

        epoch    a b c d e f g h
        rank 0   a d g              weights of the epoch
        rank 1   b e h
        rank 2   c f a              a at weight 0

    It is a ``DistributedSampler``, which Lightning and others do not shard again. What shards any
    sampler, as accelerate does, is to be given the plain CoresetSampler.

    Args:
        data: as for CoresetSampler; not a sampler.
        strategy: as for CoresetSampler.
        num_replicas: number of ranks; None takes the group's.
        rank: this rank; None takes the group's.
        group: see CoresetSampler; None takes the default group, if torch.distributed is
            initialised and num_replicas and rank are not both given. Without a group the sampler
            shards, and ``refresh`` wants evidence of all samples. With one every rank calls
            ``set_epoch``.
        **options: the other keywords of CoresetSampler.

    Raises:
        TypeError, ValueError: as CoresetSampler; no group to take the ranks from, a rank out of
            range or not the group's, a strength rule or base that needs reports without a group.
        RuntimeError: from ``set_epoch``, on all ranks: the reports of the last epoch show that the
            loader shards again.

    Attributes:
        dataset: data.
        num_replicas, rank, seed, epoch: as given.
        drop_last: False.
        shuffle: True.
        num_samples: the number of this rank's draws.
        total_size: that of all ranks, padding included.

    Example:
        >>> from augloader import Uniform
        >>> for rank in range(3):
        ...     sampler = DistributedCoresetSampler(
        ...         range(6), Uniform(), num_replicas=3, rank=rank, count=2)
        ...     _ = sampler.refresh()
        ...     print(len(sampler), sum(draw.weight == 0 for draw in sampler))
        3 0
        3 0
        3 1
    """

    _shards = True

    @renamed(**FORMER)
    def __init__(
        self,
        data: Any,
        strategy: Strategy,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        group: dist.ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        if isinstance(data, Sampler):
            raise TypeError(
                f"data must be the dataset, got the sampler {type(data).__name__}. Sharding its "
                "draws would shard twice: give the dataset itself."
            )
        explicit = num_replicas is not None and rank is not None
        if group is None and not explicit and dist.is_available() and dist.is_initialized():
            group = dist.group.WORLD
        if group is not None:
            ours = dist.get_world_size(collectives.require_group(group)), dist.get_rank(group)
            given = (
                ours[0] if num_replicas is None else num_replicas,
                ours[1] if rank is None else rank,
            )
            if given != ours:
                raise ValueError(
                    f"num_replicas and rank must be the group's, {ours[0]} and {ours[1]}, got "
                    f"{given[0]} and {given[1]}. Leave them out."
                )
            num_replicas, rank = ours
        if num_replicas is None or rank is None:
            raise ValueError(
                f"num_replicas and rank must be known, got {num_replicas} and {rank}. Call "
                "torch.distributed.init_process_group first, or give both."
            )
        self.num_replicas = require_int("num_replicas", num_replicas, 1, "Count the ranks.")
        self.rank = require_int("rank", rank, 0, "Ranks count from 0.")
        if self.rank >= self.num_replicas:
            raise ValueError(
                f"rank must be below num_replicas={num_replicas}, got {rank}. Ranks count from 0."
            )
        self.dataset, self.drop_last, self.shuffle = data, False, True
        super().__init__(data, strategy, group=group, **options)
        if group is None and self.num_replicas > 1 and self._learns:
            raise ValueError(
                "strength, strategy and base must learn from no reports where there is no process "
                f"group, got {self.table.rule!r}, {strategy!r} and {self.base!r}: the ranks could "
                "not agree. Give group=torch.distributed.group.WORLD, after init_process_group."
            )

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """The number of this rank's draws."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """The number of draws on all ranks, with those of weight 0."""
        return len(self) * self.num_replicas

    def __len__(self) -> int:
        """Return the number of draws that ``__iter__`` yields; the same on every rank."""
        return ceil(super().__len__() / self.num_replicas)

    def planned_draws(self, epochs: int | None = None) -> list[int]:
        """Return how many of each epoch's draws will be this rank's; see ``CoresetSampler``."""
        return [ceil(draws / self.num_replicas) for draws in super().planned_draws(epochs)]

    def skip(self, draws: int) -> None:
        """Leave out the first draws of this epoch on every rank; ``set_epoch`` ends it.

        Args:
            draws: number of draws that each rank made, counted as if all of the epoch's ranks had
                been as many as now.
        """
        whole = self._length
        most = ceil(whole / self.num_replicas)
        if require_int("draws", draws, 0, "Count the draws that were made.") > most:
            raise ValueError(
                f"draws must be at most {most}, this rank's share of the epoch, got {draws}. "
                "Count this rank's draws of this epoch only."
            )
        super().skip(min(draws * self.num_replicas, whole))

    def _used(self, consumed: int) -> int:
        """Return how many draws of the whole epoch are used up by some of this rank's."""
        return super()._used(consumed * self.num_replicas)

    def _left(self) -> tuple[Order, range]:
        order, left = super()._left()
        begin, step = left.start + self.rank, self.num_replicas
        return order, range(begin, begin + len(self) * step, step)

    def _meet(self, resumed: bool, group: dist.ProcessGroup) -> None:
        if all(collectives.gather(self._sharded_again, group)):
            raise RuntimeError(
                "sampler must be sharded once, got reports of every "
                f"{self.num_replicas}-th batch of each rank's draws. The loader shards a sampler "
                "that shards already: use CoresetSampler there, as with accelerate."
            )
        self._watch.compare(self._watch.progress, group)
        super()._meet(resumed, group)

    def _sharers(self) -> int:
        return 1

    def _sharded_again(self) -> bool:
        """Whether just the batches rank, rank + W, ... of this rank's draws were reported.

        Where the last round of batches is not full the loader may have filled it up from the first:
        neither is looked at then.
        """
        self.table.pending.settle()
        progress = self._watch.progress
        if not progress.names or progress.renamed or self.num_replicas == 1:
            return False
        order, left = self._left()
        index, copies, *_ = order.at(np.arange(left.start, left.stop, left.step)).columns
        size = progress.batch
        rounds, part = divmod(len(index), size * self.num_replicas)
        seen = np.isin(index * (self.copies + 1) + copies, np.concatenate(progress.names))
        expected = np.arange(len(index)) // size % self.num_replicas == self.rank
        full = slice(size * self.num_replicas if part else 0, rounds * size * self.num_replicas)
        return len(seen[full]) > 0 and bool((seen == expected)[full].all())
