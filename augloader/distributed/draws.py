"""Draws across ranks: each is trained on by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

from augloader.distributed.collectives import gather


def require_once(
    names: Sequence[np.ndarray[Any, Any]], epoch: int, group: dist.ProcessGroup
) -> None:
    """Raise on all ranks if the same draws of an epoch were reported by several.

    Args:
        names: of this rank's reported draws, int64.
        epoch: whose draws they are.
        group: the ranks.

    Raises:
        RuntimeError: on every rank the same.

    Cost: one exchange of 8 bytes a reported draw.
    """

    def mine() -> np.ndarray[Any, Any]:
        return np.unique(np.concatenate([np.empty(0, np.int64), *names]))

    everyone = np.concatenate(gather(mine, group))
    twice = len(everyone) - len(np.unique(everyone))
    if twice:
        raise RuntimeError(
            f"each draw must be reported by one rank, got {twice} of the {len(everyone)} reported "
            f"draws of epoch {epoch} from several. Shard them once: by DistributedCoresetSampler, "
            "or, where the framework shards batches (accelerate), by CoresetSampler with "
            "pad_to_multiple_of=ranks * batch_size."
        )
