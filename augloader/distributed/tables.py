"""Sample tables across ranks: shares of evidence, and what was learnt."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from augloader.core.evidence import Evidence
from augloader.distributed.collectives import (
    agree,
    attempt,
    gather,
    raise_clash,
    reduced,
    require_same,
)
from augloader.feedback.guards import raise_missing
from augloader.feedback.learners import Columns
from augloader.feedback.table import SampleTable
from augloader.feedback.views import UNKNOWN


def share_of(
    table: SampleTable,
    needs: frozenset[str],
    group: dist.ProcessGroup,
    *,
    epoch: int | None = None,
    stale: int | None = None,
) -> Evidence:
    """Return what was reported as this rank's share, without a forward pass.

    A sample that several ranks reported belongs to the one that did in the latest refresh period,
    then to the one with the weakest view of it, then to the lowest.

    Args:
        table: of this rank.
        needs: names of the evidence that must be there for every sample.
        group: the ranks.
        epoch: from which ``stale`` is counted back; the same on every rank.
        stale: how many epochs old a value may be at most, the same on every rank; None takes values
            of any age.

    Returns:
        Evidence with indices; the shares of all ranks are disjoint and hold every sample.

    Raises:
        TypeError, ValueError: on every rank the same: tables of another kind, contradicting labels,
            samples that no rank reported, or not of late, stale without an epoch.

    Cost: O(n + m C), and one reduction of 3 n numbers.
    """
    require_same({"table": table.kind, "epoch": epoch, "stale": stale}, group)
    me, world = dist.get_rank(group), dist.get_world_size(group)
    key = _with_rank(table.precedence(needs, epoch=epoch, stale=stale), group)
    labels, unknown = table.labels, table.labels < 0
    low, high = labels.masked_fill(unknown, UNKNOWN), (-labels).masked_fill(unknown, UNKNOWN)
    key, low, high = reduced(torch.stack([key, low, high]), dist.ReduceOp.MIN, group)
    clash = (low != -high) & (low < UNKNOWN)
    if clash.any():
        first = int(clash.nonzero()[0])
        raise_clash(clash, f"{int(low[first])} and {int(-high[first])}")
    lost = key == UNKNOWN
    if lost.any():
        raise_missing(needs, lost, stale)
    mine = (key % world == me).nonzero().flatten()

    def work() -> Evidence:
        if not len(mine):
            return Evidence(table.n, indices=mine)
        part = table.rows(mine).evidence(needs, epoch=epoch, stale=stale)
        return part.with_checked(n=table.n, indices=mine)

    return attempt(work, group)


def complete(
    table: SampleTable, needs: frozenset[str], group: dist.ProcessGroup | None = None
) -> bool:
    """Return whether evidence of every sample was reported, on some rank where there is a group.

    Cost: O(n), and with a group one reduction of n numbers.
    """
    order = table.precedence(needs)
    if group is not None and needs:
        order = reduced(order, dist.ReduceOp.MIN, group)
    return bool((order < UNKNOWN).all())


def last_losses(table: SampleTable, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return every sample's last known loss, (n,) float32; NaN where none was reported.

    Of several ranks that of the latest period counts, then of the weakest view, then of the lowest
    rank.

    Cost: O(n C), and with a group two reductions of n numbers.
    """
    needs = frozenset({"losses"})
    order = table.precedence(needs)
    mine = known = order < UNKNOWN
    if group is not None:
        key = _with_rank(order, group)
        best = reduced(key.clone(), dist.ReduceOp.MIN, group)
        mine, known = known & (key == best), best < UNKNOWN
    losses, rows = torch.zeros(table.n, device="cpu"), mine.nonzero().flatten()
    if len(rows):
        losses[rows] = table.rows(rows).evidence(needs).require("losses")
    if group is not None:  # all ranks but one add zeros
        losses = reduced(losses, dist.ReduceOp.SUM, group)
    return losses.masked_fill(~known, torch.nan)


def _with_rank(order: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return an order of tables in which no two ranks are even but where they know nothing."""
    key = order * dist.get_world_size(group) + dist.get_rank(group)
    return key.masked_fill(order == UNKNOWN, UNKNOWN)


def merge_learnt(table: SampleTable, group: dist.ProcessGroup) -> None:
    """Make what was learnt from reports, and the visits, the same on all ranks.

    A sample keeps the row of the rank that visited it most, the lowest of several: what other ranks
    saw of it since the last merge is not in it. Reports of all ranks since then add up in
    ``table.visits``.

    Raises:
        ValueError: on every rank the same: tables of another kind or width.

    Cost: O(n) and the columns, one after the other.
    """
    learnt = table.learnt
    shapes = {
        name: {key: (values.shape, values.dtype) for key, values in columns.items()} or None
        for name, columns in learnt.items()
    }
    found = gather(lambda: {"table": table.kind, **shapes}, group)
    agree([{k: None if v is None else str(v) for k, v in part.items()} for part in found])
    new = table.new_visits
    visits = table.visits - new + reduced(new, dist.ReduceOp.SUM, group)
    known: dict[str, Any] = {}
    for name in learnt:
        known[name] = next((part[name] for part in found if part[name]), {})
    merged = {name: _merged(learnt[name], table.n, known[name], group) for name in learnt}
    table.take_over(merged, visits)


def _merged(columns: Columns, n: int, shapes: dict[str, Any], group: dist.ProcessGroup) -> Columns:
    """Return columns of which each row is that of the rank with most visits."""
    if not shapes:
        return {}
    me, world = dist.get_rank(group), dist.get_world_size(group)
    key = torch.zeros(n, dtype=torch.int64, device="cpu")
    if columns:
        key = (columns["visits"].to(torch.int64) + 1) * world + (world - 1 - me)
    mine = (reduced(key.clone(), dist.ReduceOp.MAX, group) == key) & bool(columns)
    merged = {}
    for name, (shape, dtype) in shapes.items():
        values = torch.zeros(shape, dtype=dtype, device="cpu")
        if columns:
            values[mine] = columns[name][mine]
        # All ranks but one add zeros: the sum of the bytes is exact for any dtype.
        merged[name] = reduced(values.view(torch.uint8), dist.ReduceOp.SUM, group).view(dtype)
    return merged
