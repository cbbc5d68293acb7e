"""Selection across ranks: a class's evidence goes to one owner, and all ranks get one selection.

Every function that takes a group is collective: all its ranks call it, in the same order. What
fails on one rank is raised on all, so that none waits for another that has given up.
"""

from __future__ import annotations

import pickle
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from augloader.checks import count_and_first
from augloader.medoids import Medoids
from augloader.proxies import Proxies
from augloader.strategies import FacilityLocation, Strategy, require_evidence
from augloader.strength import Columns
from augloader.table import SampleTable
from augloader.types import Evidence, Selection

T = TypeVar("T")
_NONE = 2**62  # of keys that are reduced to their minimum: no rank has a value


# Nothing hangs ------------------------------------------------------------------------------------


def gather(work: Callable[[], T], group: dist.ProcessGroup) -> list[T]:
    """Run ``work`` on every rank and return all results by rank, or raise on all if one failed.

    Args:
        work: local, without collectives; what it returns is pickled.
        group: the ranks.

    Raises:
        TypeError, ValueError, RuntimeError: what was raised on the first rank that failed, with
            its message, on every rank.

    Cost: one exchange of the results.
    """
    mine: tuple[bytes, type[Exception] | None, str]
    cause = None
    try:
        mine = pickle.dumps(work()), None, ""
    except Exception as error:
        kind = next((k for k in (TypeError, ValueError) if isinstance(error, k)), RuntimeError)
        plain = type(error) in (TypeError, ValueError, RuntimeError)
        mine = b"", kind, f"{error}" if plain else f"{type(error).__name__}: {error}"
        cause = error
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, mine, group=group)
    failed = {rank: (kind, text) for rank, (_, kind, text) in enumerate(parts) if kind is not None}
    if failed:
        first = next(iter(failed.values()))
        where = [rank for rank, error in failed.items() if error == first]
        listed = "" if len(where) == len(parts) else f" (On rank {', '.join(map(str, where))}.)"
        raise first[0](first[1] + listed) from cause
    return [pickle.loads(result) for result, _, _ in parts]


def attempt(work: Callable[[], T], group: dist.ProcessGroup) -> T:
    """Run ``work`` on every rank and return this rank's result, or raise on all if one failed."""
    kept: list[T] = []
    gather(lambda: kept.append(work()), group)
    return kept[0]


def require_same(values: Mapping[str, object], group: dist.ProcessGroup) -> None:
    """Raise the same ValueError on every rank unless all give the same values, as text."""
    _agree(gather(lambda: {name: _plain(value) for name, value in values.items()}, group))


def require_group(group: Any) -> dist.ProcessGroup:
    """Return ``group``, or raise TypeError unless it is a process group with this rank in it."""
    if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        raise TypeError(
            f"group must be a process group that this rank is in, got {group!r}. Pass "
            "torch.distributed.group.WORLD, after init_process_group."
        )
    return group


def _agree(parts: Sequence[Mapping[str, object]]) -> None:
    """Raise unless the ranks' values are the same; None agrees with everything."""
    for name in dict.fromkeys(name for part in parts for name in part):
        got = {rank: part.get(name, "nothing") for rank, part in enumerate(parts)}
        got = {rank: value for rank, value in got.items() if value is not None}
        if len(set(got.values())) > 1:
            raise ValueError(
                f"{name} must be the same on every rank, got {_by_rank(got)}. Build model, data "
                "set and sampler alike on every rank, and make the same calls."
            )


def _by_rank(values: Mapping[int, object]) -> str:
    listed = [f"{value} on rank {rank}" for rank, value in values.items()]
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def _plain(value: object) -> str:
    """Return a value as text, without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _home(group: dist.ProcessGroup) -> torch.device:
    """Return where the group's tensors must be."""
    nccl = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _reduced(values: Tensor, how: Any, group: dist.ProcessGroup) -> Tensor:
    """Return values reduced over all ranks, on the CPU; they may be overwritten."""
    moved = values.to(_home(group))
    dist.all_reduce(moved, how, group=group)
    return moved.cpu()


# Selection ----------------------------------------------------------------------------------------


_NUMBERS = ("losses", "forgetting", "scores")  # evidence of one number a sample, known to all ranks
_ROWS = ("proxies.gradient", "proxies.features", "features")  # and of one row, sent where needed


class _Part(NamedTuple):
    """What every rank learns of a rank's share: all but its rows."""

    header: dict[str, Any]  # what must be the same everywhere; None where a share is empty
    indices: Tensor
    labels: Tensor | None
    numbers: dict[str, Tensor]  # those that the strategy needs


def select(
    strategy: Strategy,
    evidence: Evidence,
    budget: int,
    *,
    group: dist.ProcessGroup,
    generator: np.random.Generator,
) -> Selection:
    """Select from the shares of all ranks; every rank gets the selection of a single process.

    ``FacilityLocation``: the rows of a class go from the ranks that swept them to the class's one
    owner, and the owners select side by side. An owner puts a class's rows in the order of its
    samples, so that on the same kind of device and number of threads the result is the single
    process's to the last bit. Any other strategy runs on the first rank, which gets the proxies and
    features of all samples if the strategy needs them.

    Args:
        strategy: the same on every rank.
        evidence: this rank's share. Of a sample in several shares the lowest rank's row counts.
        budget: number of samples.
        group: the ranks.
        generator: in the same state on every rank.

    Returns:
        The same Selection on every rank.

    Raises:
        TypeError, ValueError, RuntimeError: on every rank the same: ranks that disagree, samples
            in no share, evidence missing, whatever the strategy raises on an owner.

    Memory: O(n) for labels, losses and result; of the proxies a rank's share, twice while it is
    sent, and the rows of its classes. Without a ``memory_limit`` every owner counts on a quarter
    of the free memory: give one where more than four ranks share a machine's.

    Cost: the strategy's on the rank with most to do: classes are dealt so that the sums of squared
    sizes are alike. The others wait for it, within the group's timeout.
    """
    parts = gather(lambda: _part(strategy, evidence, budget, generator), group)
    _agree([part.header for part in parts])
    # From here on every rank knows the same, and raises the same, until rows are sent.
    n = evidence.n
    source = _source(n, parts)
    labels = _labels(n, parts)  # even where they are not needed, to see that the data are the same
    needed = labels if "labels" in strategy.needs else None
    numbers = {name: _numbers(n, name, parts) for name in _NUMBERS if name in strategy.needs}
    losses, forgetting, scores = (numbers.get(name) for name in _NUMBERS)
    previous = evidence.previous
    whole = Evidence(n, needed, None, losses, previous, forgetting=forgetting, scores=scores)
    require_evidence(whole, strategy.needs - {"proxies", "features"}, budget)
    shares = _Shares(group, parts, source, _rows(strategy.needs, evidence))
    if type(strategy) is FacilityLocation:
        return _by_class(strategy, whole, budget, shares, generator)
    return _on_first(strategy, whole, budget, shares, generator)


def owners(sizes: Sequence[int], world: int) -> list[int]:
    """Deal groups to ranks: the largest first, to the rank whose squared sizes sum to least.

    Example:
        >>> owners([2, 9, 5, 4, 6], 2)
        [1, 0, 1, 1, 1]
    """
    load, owner = [0] * world, [0] * len(sizes)
    for g in sorted(range(len(sizes)), key=lambda g: -sizes[g]):
        owner[g] = load.index(min(load))
        load[owner[g]] += sizes[g] ** 2
    return owner


def _part(
    strategy: Strategy, evidence: Evidence, budget: int, generator: np.random.Generator
) -> _Part:
    """Describe this rank's share, or raise where it lacks what the strategy needs."""
    n, indices, labels, needs = evidence.n, evidence.indices, evidence.labels, strategy.needs
    indices = torch.arange(n) if indices is None else indices.cpu()
    numbers: dict[str, Tensor] = {}
    if len(indices):
        require_evidence(replace(evidence, n=len(indices), indices=None, previous=None), needs, 1)
        given = {name: getattr(evidence, name) for name in _NUMBERS if name in needs}
        numbers = {name: values.detach().cpu() for name, values in given.items()}
    header: dict[str, Any] = {
        "evidence.n": n,
        "strategy": _plain(strategy),
        "budget": budget,
        "generator": _checksum(str(generator.bit_generator.state).encode()),
        "previous": "none" if evidence.previous is None else _digest(evidence.previous),
        **{f"{k}.dtype": numbers[k].dtype if numbers else None for k in _NUMBERS if k in needs},
    }
    rows = _rows(needs, evidence)
    for name in _ROWS:
        form = _form(rows[name]) if name in rows else "none"
        header[name] = form if len(indices) else None
    labels = None if labels is None else labels.cpu().to(torch.int64)
    return _Part(header, indices, labels, numbers)


def _rows(needs: frozenset[str], evidence: Evidence) -> dict[str, Tensor]:
    """Return the rows of this rank's share that are needed; none of an empty one."""
    rows: dict[str, Tensor | None] = {}
    if evidence.indices is not None and not len(evidence.indices):
        return {}
    if "proxies" in needs and evidence.proxies is not None:
        proxies = evidence.proxies
        rows = {"proxies.gradient": proxies.gradient, "proxies.features": proxies.features}
    if "features" in needs:
        rows["features"] = evidence.features
    return {name: part.detach() for name, part in rows.items() if part is not None}


def _form(rows: Tensor) -> tuple[int, torch.dtype, str]:
    return rows.shape[1], rows.dtype, rows.device.type


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


def _digest(indices: Tensor) -> str:
    return f"{len(indices)} samples with checksum {_checksum(indices.cpu().numpy().tobytes())}"


def _source(n: int, parts: Sequence[_Part]) -> Tensor:
    """Return the (n,) lowest rank with each sample in its share."""
    source = torch.full((n,), len(parts))
    for rank in reversed(range(len(parts))):
        source[parts[rank].indices] = rank
    lost = source == len(parts)
    if lost.any():
        raise ValueError(
            "evidence must hold every sample on some rank, got "
            f"{count_and_first(lost, 'samples')} in no rank's share. Sweep on all ranks with the "
            "same group as the sampler's."
        )
    return source


def _labels(n: int, parts: Sequence[_Part]) -> Tensor:
    """Return the (n,) labels, or raise unless all ranks agree on them."""
    labels, clash = torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)
    for part in reversed(parts):
        if part.labels is not None:
            known = labels[part.indices]
            clash[part.indices] |= (known >= 0) & (known != part.labels)
            labels[part.indices] = part.labels
    if clash.any():
        first = int(clash.nonzero()[0])
        given = {
            rank: int(part.labels[part.indices == first])
            for rank, part in enumerate(parts)
            if part.labels is not None and (part.indices == first).any()
        }
        _raise_clash(clash, _by_rank(given))
    return labels


def _raise_clash(clash: Tensor, first: str) -> None:
    raise ValueError(
        "labels must be the same on every rank, got "
        f"{count_and_first(clash, 'samples with two labels')}, the first {first}. Give every rank "
        "the same data set in the same order."
    )


def _numbers(n: int, name: str, parts: Sequence[_Part]) -> Tensor:
    given = [(part.indices, part.numbers[name]) for part in parts if name in part.numbers]
    numbers = torch.zeros(n, dtype=given[0][1].dtype)
    for indices, values in reversed(given):
        numbers[indices] = values
    return numbers


def _by_class(
    strategy: FacilityLocation,
    whole: Evidence,
    budget: int,
    shares: _Shares,
    generator: np.random.Generator,
) -> Selection:
    """Select the classes dealt to this rank, and put those of all ranks together."""
    tasks = strategy.plan(whole.n, whole.labels, whole.previous, budget, generator)
    owner = owners([len(task.members) for task in tasks], len(shares.parts))
    dealt = [
        [task for task, rank in zip(tasks, owner, strict=True) if rank == r]
        for r in range(len(shares.parts))
    ]
    own = dealt[shares.rank]
    nothing = torch.empty(0, dtype=torch.int64)
    rows, place = shares.route(
        [torch.cat([nothing, *(task.members for task in mine)]) for mine in dealt]
    )
    places = dict(zip(own, place.split([len(task.members) for task in own]), strict=True))

    def work() -> list[Medoids]:
        proxies = _proxies(rows)
        return strategy.solve(own, lambda task: proxies[places[task]], proxies.device)

    found = gather(work, shares.group)
    ranks = [iter(medoids) for medoids in found]
    return strategy.join(tasks, [next(ranks[rank]) for rank in owner], whole.previous)


def _on_first(
    strategy: Strategy,
    whole: Evidence,
    budget: int,
    shares: _Shares,
    generator: np.random.Generator,
) -> Selection:
    """Select on the first rank, and tell the others."""
    every = torch.arange(whole.n)
    rows, place = shares.route([every] + [every[:0]] * (len(shares.parts) - 1))

    def work() -> Selection | None:
        if shares.rank != 0:
            return None
        known = {name: part[place.to(part.device)] for name, part in rows.items()}
        features = known.get("features")
        proxies = _proxies(known) if "proxies.gradient" in known else None
        evidence = replace(whole, proxies=proxies, features=features)
        return strategy.select(evidence, budget, generator=generator)

    selection = gather(work, shares.group)[0]
    assert selection is not None
    return selection


@dataclass(frozen=True, eq=False)
class _Shares:
    """Where every sample's rows are.

    Attributes:
        group: the ranks.
        parts: what every rank knows of every share.
        source: (n,) the rank whose row of a sample counts.
        rows: of this rank's share, by name; none where it is empty.
    """

    group: dist.ProcessGroup
    parts: Sequence[_Part]
    source: Tensor
    rows: dict[str, Tensor]

    @property
    def rank(self) -> int:
        """This rank."""
        return dist.get_rank(self.group)

    def route(self, wanted: Sequence[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Send rows from their sources to the ranks that want them.

        Args:
            wanted: for every rank the samples it wants.

        Returns:
            The rows that came, by name and ordered by source, and where among them the wanted
            samples are.
        """
        header = next(part.header for part in self.parts if len(part.indices))
        me, source = self.rank, self.source
        place = torch.full_like(source, -1)
        place[self.parts[me].indices] = torch.arange(len(self.parts[me].indices))
        sent = [rows[source[rows] == me] for rows in wanted]
        sizes = [len(rows) for rows in sent]
        origin = source[wanted[me]]
        counts = origin.bincount(minlength=len(self.parts)).tolist()
        came, homes = {}, {}
        for name in _ROWS:
            if header[name] != "none":
                width, dtype, device = header[name]
                homes[name] = self.rows[name].device if name in self.rows else device
                rows = self.rows.get(name, torch.empty(0, width, dtype=dtype))
                came[name] = _exchange(rows, place[torch.cat(sent)], sizes, counts, self.group)
        where = torch.empty_like(origin)
        where[origin.argsort(stable=True)] = torch.arange(len(where))
        moved = attempt(lambda: {k: rows.to(homes[k]) for k, rows in came.items()}, self.group)
        return moved, where


def _proxies(rows: Mapping[str, Tensor]) -> Proxies:
    return Proxies(rows["proxies.gradient"], rows.get("proxies.features"))


def _exchange(
    rows: Tensor, chosen: Tensor, sizes: list[int], counts: list[int], group: dist.ProcessGroup
) -> Tensor:
    """Send chosen rows, ``sizes`` of them to each rank, and return the ``counts`` that come."""

    def buffers() -> tuple[Tensor, Tensor]:
        there = rows[chosen.to(rows.device)].to(_home(group)).view(torch.uint8)  # of any dtype
        return there, there.new_empty(sum(counts), there.shape[1])

    there, here = attempt(buffers, group)
    dist.all_to_all_single(here, there, counts, sizes, group=group)
    return here.view(rows.dtype)


# Tables -------------------------------------------------------------------------------------------


def share_of(table: SampleTable, needs: frozenset[str], group: dist.ProcessGroup) -> Evidence:
    """Return what was reported in this period as this rank's share, without a forward pass.

    A sample that several ranks reported belongs to the one with the weakest view of it, and among
    equally weak ones to the lowest.

    Args:
        table: of this rank.
        needs: names of the evidence that must be there for every sample.
        group: the ranks.

    Returns:
        Evidence with indices; the shares of all ranks are disjoint and hold every sample.

    Raises:
        ValueError: on every rank the same: tables of another kind, contradicting labels, samples
            that no rank reported.

    Cost: O(n + m C), and one reduction of 3 n numbers.
    """
    require_same({"table": table.kind}, group)
    me, world = dist.get_rank(group), dist.get_world_size(group)
    views = table.views(needs)
    # The bits of floats that are not negative are ordered as the floats.
    key = (views + 0.0).view(torch.int32).to(torch.int64) * world + me
    key[views.isinf()] = _NONE
    labels, unknown = table.labels, table.labels < 0
    low, high = labels.masked_fill(unknown, _NONE), (-labels).masked_fill(unknown, _NONE)
    key, low, high = _reduced(torch.stack([key, low, high]), dist.ReduceOp.MIN, group)
    clash = (low != -high) & (low < _NONE)
    if clash.any():
        first = int(clash.nonzero()[0])
        _raise_clash(clash, f"{int(low[first])} and {int(-high[first])}")
    lost = key == _NONE
    if lost.any():
        table.raise_missing(" and ".join(sorted(needs)), lost)
    mine = (key % world == me).nonzero().flatten()

    def work() -> Evidence:
        if not len(mine):
            return Evidence(table.n, indices=mine)
        return replace(table.rows(mine).evidence(needs), n=table.n, indices=mine)

    return attempt(work, group)


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
    _agree([{k: None if v is None else str(v) for k, v in part.items()} for part in found])
    new = table.new_visits
    visits = table.visits - new + _reduced(new, dist.ReduceOp.SUM, group)
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
    key = torch.zeros(n, dtype=torch.int64)
    if columns:
        key = (columns["visits"].to(torch.int64) + 1) * world + (world - 1 - me)
    mine = (_reduced(key.clone(), dist.ReduceOp.MAX, group) == key) & bool(columns)
    merged = {}
    for name, (shape, dtype) in shapes.items():
        values = torch.zeros(shape, dtype=dtype)
        if columns:
            values[mine] = columns[name][mine]
        # All ranks but one add zeros: the sum of the bytes is exact for any dtype.
        merged[name] = _reduced(values.view(torch.uint8), dist.ReduceOp.SUM, group).view(dtype)
    return merged
