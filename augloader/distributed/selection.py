"""Selection across ranks: a class's evidence goes to one owner, and all ranks get one selection."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from augloader.core.checks import count_and_first, unchecked
from augloader.core.evidence import Evidence, Selection
from augloader.core.proxies import Proxies
from augloader.distributed.collectives import (
    agree,
    attempt,
    by_rank,
    gather,
    home_of,
    plain,
    raise_clash,
)
from augloader.selection.strategy import Part, Separable, Strategy, require_evidence

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

    A ``Separable`` strategy, as ``FacilityLocation``: the rows of a class go from the ranks that
    swept them to the class's one owner, and the owners select side by side. An owner puts a class's
    rows in the order of its samples, so that on the same kind of device and number of threads the
    result is the single process's to the last bit. Any other strategy runs on the first rank, which
    gets the proxies and features of all samples if the strategy needs them.

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
    agree([part.header for part in parts])
    # From here on every rank knows the same, and raises the same, until rows are sent.
    n = evidence.n
    source = _source(n, parts)
    labels = _labels(n, parts)  # even where they are not needed, to see that the data are the same
    needed = labels if "labels" in strategy.needs else None
    numbers = {name: _numbers(n, name, parts) for name in _NUMBERS if name in strategy.needs}
    whole = unchecked(Evidence, n=n, labels=needed, previous=evidence.previous, **numbers)
    budget = require_evidence(whole, strategy.needs - {"proxies", "features"}, budget, generator)
    shares = _Shares(group, parts, source, _rows(strategy.needs, evidence))
    if isinstance(strategy, Separable):
        return _by_part(strategy, whole, budget, shares, generator)
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
    indices = torch.arange(n, device="cpu") if indices is None else indices.cpu()
    numbers: dict[str, Tensor] = {}
    if len(indices):
        require_evidence(evidence.with_checked(n=len(indices), indices=None), needs, 1, generator)
        given = {name: getattr(evidence, name) for name in _NUMBERS if name in needs}
        numbers = {name: values.detach().cpu() for name, values in given.items()}
    header: dict[str, Any] = {
        "evidence.n": n,
        "strategy": plain(strategy),
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
    source = torch.full((n,), len(parts), dtype=torch.int64, device="cpu")
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
    labels = torch.full((n,), -1, dtype=torch.int64, device="cpu")
    clash = torch.zeros_like(labels, dtype=torch.bool)
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
        raise_clash(clash, by_rank(given))
    return labels


def _numbers(n: int, name: str, parts: Sequence[_Part]) -> Tensor:
    given = [(part.indices, part.numbers[name]) for part in parts if name in part.numbers]
    numbers = torch.zeros(n, dtype=given[0][1].dtype, device="cpu")
    for indices, values in reversed(given):
        numbers[indices] = values
    return numbers


def _by_part(
    strategy: Separable,
    whole: Evidence,
    budget: int,
    shares: _Shares,
    generator: np.random.Generator,
) -> Selection:
    """Select from the parts dealt to this rank, and put those of all ranks together."""
    planned = strategy.plan(whole.n, whole.labels, whole.previous, budget, generator)
    owner = owners([len(part.members) for part in planned], len(shares.parts))
    dealt = [
        [part for part, rank in zip(planned, owner, strict=True) if rank == r]
        for r in range(len(shares.parts))
    ]
    own = dealt[shares.rank]
    nothing = torch.empty(0, dtype=torch.int64, device="cpu")
    rows, place = shares.route(
        [torch.cat([nothing, *(part.members for part in mine)]) for mine in dealt]
    )

    def work() -> Sequence[Any]:
        proxies = _proxies(rows)
        lines = place.to(proxies.device).split([len(part.members) for part in own])
        places = {id(part): line for part, line in zip(own, lines, strict=True)}

        def proxies_of(part: Part) -> Proxies:
            return proxies[places[id(part)]]

        return strategy.solve(own, proxies_of, proxies.device)

    found = gather(work, shares.group)
    outcomes = [iter(of) for of in found]
    return strategy.join(planned, [next(outcomes[rank]) for rank in owner], whole.previous)


def _on_first(
    strategy: Strategy,
    whole: Evidence,
    budget: int,
    shares: _Shares,
    generator: np.random.Generator,
) -> Selection:
    """Select on the first rank, and tell the others."""
    every = torch.arange(whole.n, device="cpu")
    rows, place = shares.route([every] + [every[:0]] * (len(shares.parts) - 1))

    def work() -> Selection | None:
        if shares.rank != 0:
            return None
        known = {name: part[place.to(part.device)] for name, part in rows.items()}
        features = known.get("features")
        proxies = _proxies(known) if "proxies.gradient" in known else None
        evidence = whole.with_checked(proxies=proxies, features=features)
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
        held = self.parts[me].indices
        place[held] = torch.arange(len(held), device="cpu")
        sent = [rows[source[rows] == me] for rows in wanted]
        sizes = [len(rows) for rows in sent]
        origin = source[wanted[me]]
        counts = origin.bincount(minlength=len(self.parts)).tolist()
        came, homes = {}, {}
        for name in _ROWS:
            if header[name] != "none":
                width, dtype, device = header[name]
                homes[name] = self.rows[name].device if name in self.rows else device
                rows = self.rows.get(name, torch.empty(0, width, dtype=dtype, device="cpu"))
                came[name] = _exchange(rows, place[torch.cat(sent)], sizes, counts, self.group)
        where = torch.empty_like(origin)
        where[origin.argsort(stable=True)] = torch.arange(len(where), device="cpu")
        moved = attempt(lambda: {k: rows.to(homes[k]) for k, rows in came.items()}, self.group)
        return moved, where


def _proxies(rows: Mapping[str, Tensor]) -> Proxies:
    gradient, features = rows["proxies.gradient"], rows.get("proxies.features")
    return unchecked(Proxies, gradient=gradient, features=features)


def _exchange(
    rows: Tensor, chosen: Tensor, sizes: list[int], counts: list[int], group: dist.ProcessGroup
) -> Tensor:
    """Send chosen rows, ``sizes`` of them to each rank, and return the ``counts`` that come."""

    def buffers() -> tuple[Tensor, Tensor]:
        there = rows[chosen.to(rows.device)].to(home_of(group)).view(torch.uint8)  # of any dtype
        return there, there.new_empty(sum(counts), there.shape[1])

    there, here = attempt(buffers, group)
    dist.all_to_all_single(here, there, counts, sizes, group=group)
    return here.view(rows.dtype)
