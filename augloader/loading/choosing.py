"""From evidence, given or reported, to a selection, on one rank or on all of a group."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch.distributed as dist

from augloader.core.evidence import Evidence, Selection
from augloader.distributed import collectives
from augloader.distributed.selection import select as select_together
from augloader.distributed.tables import share_of
from augloader.feedback.table import SampleTable
from augloader.selection.strategy import Strategy, require_selection


def choose(
    strategy: Strategy,
    evidence: Evidence | None,
    budget: int,
    *,
    table: SampleTable,
    previous: Selection | None,
    epoch: int,
    stale: int | None,
    generator: np.random.Generator,
    group: dist.ProcessGroup | None,
) -> Selection:
    """Return what a strategy selects by some evidence, or by what was reported.

    Args:
        strategy: of the sampler.
        evidence: None takes the table's, of this rank's reports where there is a group.
        budget: number of samples.
        table: what was reported.
        previous: what is selected now; some strategies start from it.
        epoch: the one that is selected for.
        stale: see ``CoresetSampler.refresh``.
        generator: of the selection.
        group: the ranks that select together, or None.

    Raises:
        TypeError, ValueError: as ``CoresetSampler.refresh``; with a group on all ranks alike.
    """
    if evidence is not None and not isinstance(evidence, Evidence):
        raise TypeError(
            f"evidence must be an Evidence, got {type(evidence).__name__}. Pass what sweep(model, "
            "data, Residual()) returns, or scores of your own: Evidence(n, scores=scores)."
        )
    needs = strategy.needs
    if group is None:
        known = table.evidence(needs, epoch=epoch, stale=stale) if evidence is None else evidence
        known = _completed(known, table, previous, None)
        selection = strategy.select(known, budget, generator=generator)
    else:
        if evidence is None:
            evidence = share_of(table, needs, group, epoch=epoch, stale=stale)
        complete = partial(_completed, evidence, table, previous, group)
        known = collectives.attempt(complete, group)
        selection = select_together(strategy, known, budget, group=group, generator=generator)
    require_selection(selection, budget, table.n)
    return selection


def _completed(
    evidence: Evidence, table: SampleTable, previous: Selection | None, group: Any
) -> Evidence:
    """Add what the sampler knows: what is selected now, and what was forgotten."""
    if evidence.n != table.n:
        raise ValueError(
            f"evidence must be of the sampler's {table.n} samples, got {evidence.n}. "
            "Sweep the data set that the sampler was built on."
        )
    if group is None:
        evidence.require_whole()
    counts = table.forgetting
    if evidence.forgetting is None and counts is not None:
        rows = slice(None) if evidence.indices is None else evidence.indices.cpu()
        evidence = evidence.with_checked(forgetting=counts[rows])
    return evidence if previous is None else evidence.with_checked(previous=previous.indices)
