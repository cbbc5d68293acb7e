"""Collectives of ranks that cannot hang.

Every function that takes a group is collective: all its ranks call it, in the same order. What
fails on one rank is raised on all, so that none waits for another that has given up.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from augloader.core.checks import count_and_first

T = TypeVar("T")


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
    agree(gather(lambda: {name: plain(value) for name, value in values.items()}, group))


def require_group(group: Any) -> dist.ProcessGroup:
    """Return ``group``, or raise TypeError unless it is a process group with this rank in it."""
    if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        raise TypeError(
            f"group must be a process group that this rank is in, got {group!r}. Pass "
            "torch.distributed.group.WORLD, after init_process_group."
        )
    return group


def agree(parts: Sequence[Mapping[str, object]]) -> None:
    """Raise unless the ranks' values are the same; None agrees with everything."""
    for name in dict.fromkeys(name for part in parts for name in part):
        got = {rank: part.get(name, "nothing") for rank, part in enumerate(parts)}
        got = {rank: value for rank, value in got.items() if value is not None}
        if len(set(got.values())) > 1:
            raise ValueError(
                f"{name} must be the same on every rank, got {by_rank(got)}. Build model, data "
                "set and sampler alike on every rank, and make the same calls."
            )


def by_rank(values: Mapping[int, object]) -> str:
    """Say which rank has which value; eight of them at most."""
    listed = [f"{value} on rank {rank}" for rank, value in values.items()]
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")


def plain(value: object) -> str:
    """Return a value as text, without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def home_of(group: dist.ProcessGroup) -> torch.device:
    """Return where the group's tensors must be."""
    nccl = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def reduced(values: Tensor, how: Any, group: dist.ProcessGroup) -> Tensor:
    """Return values reduced over all ranks, on the CPU; they may be overwritten."""
    moved = values.to(home_of(group))
    dist.all_reduce(moved, how, group=group)
    return moved.cpu()


def raise_clash(clash: Tensor, first: str) -> None:
    """Raise ValueError: ranks have other labels for the (n,) masked samples."""
    raise ValueError(
        "labels must be the same on every rank, got "
        f"{count_and_first(clash, 'samples with two labels')}, the first {first}. Give every rank "
        "the same data set in the same order."
    )
