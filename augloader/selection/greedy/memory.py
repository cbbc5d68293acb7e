"""What the engines take: bytes needed, bytes free, and sizes they share."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import cuda

DENSE = 16_384  # auto: the largest group whose distances are held
BLOCK = 4 * 2**20  # entries of a block of distances
SKETCH = 256  # width of the vectors that stand for outer products in a search
ENTRY = 20  # bytes that an entry of a ball takes at the peak


def too_small(n: int, limit: int, need: str) -> str:
    """Return the message that an engine does not fit a memory limit."""
    return (
        f"memory_limit must hold what the engine needs for {n:,} samples, got {limit:,} bytes: "
        f"{need}. Raise the limit, or split the samples into more labels."
    )


def dense_bytes(n: int) -> int:
    """Return what the dense engine takes: the distances and balls of an eighth as many entries."""
    return 4 * n**2 + ENTRY * n**2 // 8


def matrix_free_bytes(n: int, d: int) -> int:
    """Return the least of the matrix-free engine: layout, blocks, and balls of 16 a point."""
    return n * (8 * d + 64) + 12 * max(BLOCK, 16 * n) + 16 * ENTRY * n


def graph_bytes(n: int, widths: tuple[int, ...], budget: int) -> int:
    """Return what the graph engine takes: neighbours, and with them first the index and then their
    transpose; blocks, and what the greedy knows of each point.
    """
    index = 4 * widths[0] if len(widths) == 1 else 8 * SKETCH
    near = 4 * neighbors_for(n, budget)
    return n * (2 * near + max(index, near) + 160) + 12 * BLOCK


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device, within the limits of a container.

    On a GPU what PyTorch has reserved and no tensor uses is free, too.
    """
    if device.type == "cuda":
        reserved, used = (f(device) for f in (cuda.memory_reserved, cuda.memory_allocated))
        return cuda.mem_get_info(device)[0] + reserved - used
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    found = re.search(r"MemAvailable:\s*(\d+)", meminfo.read_text()) if meminfo.exists() else None
    free = int(found[1]) * 1024 if found else 16 * 2**30
    most = group / "memory.max"
    if most.exists() and most.read_text().strip() != "max":
        used = int((group / "memory.current").read_text())
        free = min(free, max(int(most.read_text()) - used, 0))
    return free


class NoRoom(ValueError):
    """The balls do not fit, which is known only after the sample."""


def neighbors_for(n: int, budget: int) -> int:
    """Return how many neighbours the graph holds: about six times what a medoid stands for.

    More than 60 would make small budgets cost more than large ones, for little: of 16,000 points
    in 2 to 64 dimensions, 1 %, 128 neighbours end 0 to 1.7 % nearer than 64.
    """
    return min(max(32, 6 * n // budget), 60)
