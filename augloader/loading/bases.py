"""The base of an epoch: by name, or pruned by a rule or a strategy as training reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Literal, get_args
from zlib import crc32

import numpy as np
import torch
import torch.distributed as dist

from augloader.core.checks import require_one_of
from augloader.core.evidence import Evidence, Selection
from augloader.core.fields import checksum
from augloader.distributed import collectives
from augloader.distributed.tables import complete, last_losses
from augloader.feedback.table import SampleTable
from augloader.loading.choosing import choose
from augloader.selection.pruning import Pruning
from augloader.selection.strategy import Strategy, require_needs, require_selection

Base = Literal["full", "random", "selected", "none"]
_WHOLE = 1000  # values of a tensor that its repr shows
_REPORTED = frozenset({"losses", "labels", "proxies"})  # what a strategy may need


def require_base(base: Any) -> Pruning | Strategy | None:
    """Return a pruning rule or strategy, None for the name of a base, or raise."""
    if isinstance(base, str):
        require_one_of("base", base, get_args(Base))
        return None
    if isinstance(base, type) or not isinstance(base, Pruning | Strategy):
        raise TypeError(
            f"base must be one of {', '.join(map(repr, get_args(Base)))}, a pruning rule or a "
            f"strategy, got {base!r}. Pass an instance, as InfoBatch(0.5)."
        )
    if " at 0x" in repr(base):
        raise TypeError(
            f"base must have a repr that names its options, got {base!r}. Make it, and what it is "
            "made of, frozen dataclasses of plain values: saved states are compared by it."
        )
    require_needs("base.needs", base.needs)
    known = frozenset({"losses"}) if isinstance(base, Pruning) else _REPORTED
    if base.needs - known:
        raise ValueError(
            f"base must need nothing but {' and '.join(sorted(known))}, as training reports them, "
            f"got {base!r}, which needs {' and '.join(sorted(base.needs))}. Select by it from a "
            'sweep instead, and train on base="selected".'
        )
    return base


def described(base: Pruning | Strategy) -> str:
    """Return a base's repr, and a checksum of its tensors where that abbreviates one.

    Example:
        >>> from augloader import Uniform
        >>> described(Uniform(groups=torch.arange(1001)))[-11:]
        ' (fa29897f)'
    """
    tensors = list(_tensors(base))
    if max((t.numel() for t in tensors), default=0) <= _WHOLE:
        return repr(base)
    return f"{base!r} ({checksum(tensors):08x})"


def _tensors(part: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that a base and what it is made of have as fields."""
    if isinstance(part, torch.Tensor | np.ndarray):
        yield torch.as_tensor(part)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors(getattr(part, field.name, None))


def kept_by(
    base: Pruning | Strategy | None,
    size: int,
    *,
    table: SampleTable,
    previous: Selection | None,
    epoch: int,
    epochs: int | None,
    generator: np.random.Generator,
    group: dist.ProcessGroup | None,
) -> tuple[Selection | None, bool]:
    """Return the samples that an epoch draws, and whether all are for want of reports.

    Args:
        base: what chooses; None keeps all.
        size: how many a strategy chooses.
        table: what was reported; of this rank where there is a group.
        previous: what is kept now; some strategies start from it.
        epoch: the one that begins.
        epochs: how many are planned.
        generator: of this epoch.
        group: the ranks that must agree, or None.

    Returns:
        The samples and their weights, None for all at weight 1; and whether a rule knows no loss,
        or a strategy lacks what it needs of some samples.

    Raises:
        TypeError, ValueError: what the rule or strategy raises, or that it keeps no samples of the
            data; on all ranks alike, also where they disagree.

    Cost: the rule's or strategy's.
    """
    if base is None or (size == table.n and not isinstance(base, Pruning)):
        return None, False
    if isinstance(base, Pruning):
        losses = last_losses(table, group) if base.needs else torch.full((table.n,), torch.nan)

        def keep() -> Selection:
            found = base.keep(losses, epoch=epoch, epochs=epochs, generator=generator)
            if not isinstance(found, Selection):
                raise TypeError(
                    f"base must keep a Selection, got {type(found).__name__} of {base!r}. Fix its "
                    "keep method."
                )
            require_selection(found, table.n, table.n, "base", "keep")
            return found

        kept = keep() if group is None else _together(keep, base, group)
        return kept, bool(base.needs) and bool(losses.isnan().all())
    if not complete(table, base.needs, group):
        return None, True
    pick = partial(
        choose,
        base,
        None if base.needs else Evidence(table.n),
        size,
        table=table,
        previous=previous,
        epoch=epoch,
        stale=None,
        generator=generator,
        group=group if base.needs else None,  # without evidence all ranks choose the same
    )
    return pick() if group is None or base.needs else _together(pick, base, group), False


def _together(keep: Callable[[], Selection], base: Any, group: dist.ProcessGroup) -> Selection:
    """Return what is kept on all ranks, or raise on all that they disagree."""
    kept = collectives.attempt(keep, group)
    mark = crc32(kept.weights.numpy().tobytes(), crc32(kept.indices.numpy().tobytes()))
    collectives.require_same({"base": f"{base!r} with {len(kept)} samples ({mark:08x})"}, group)
    return kept
