"""How a budget is shared among groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from augloader.core.checks import require_int, require_one_of

Allocation = Literal["proportional", "equal"]


def allocate(sizes: Sequence[int], budget: int, allocation: Allocation) -> list[int]:
    """Share a budget among groups, at least 1 and at most its size to each.

    Args:
        sizes: number of samples of each group, 1 or more.
        budget: between the number of groups and the sum of sizes.
        allocation: "proportional" aims at budget * size / n, "equal" at the same number for all;
            what a group cannot take or must be given is balanced by the others. Shares are rounded
            by largest remainder, ties to the first group.

    Returns:
        One share a group; they sum to ``budget``.

    Raises:
        ValueError: budget below the number of groups or above the sum of sizes, empty groups,
            another allocation.

    Cost: O(groups^2) at worst.

    Example:
        >>> allocate([50, 30, 2], 10, "proportional"), allocate([50, 30, 2], 10, "equal")
        ([6, 3, 1], [4, 4, 2])
    """
    require_one_of("allocation", allocation, ("proportional", "equal"))
    budget = require_int("budget", budget, 1, "Choose at least one sample.")
    room = np.array(sizes)
    if not len(room) or room.min() < 1:
        raise ValueError(
            f"sizes must be of 1 sample or more, got {list(sizes)}. Leave empty groups out."
        )
    if not len(sizes) <= budget <= room.sum():
        raise ValueError(
            f"budget must be between {len(sizes)}, one a class, and {room.sum()}, all samples, "
            f"got {budget}. Ask for another fraction or count, or select over all samples with "
            "FacilityLocation(per_class=False)."
        )
    pull = room.astype(float) if allocation == "proportional" else np.ones(len(room))
    share = np.zeros(len(room))
    free = np.ones(len(room), bool)  # not yet held at a bound
    while True:
        share[free] = (budget - share[~free].sum()) * pull[free] / pull[free].sum()
        held = free & ((share < 1) | (share > room))
        if not held.any():
            break
        share[held] = share[held].clip(1, room[held])
        free &= ~held
    whole = np.floor(share + 1e-9).astype(int)
    rest = np.argsort(whole - share, kind="stable")[: budget - whole.sum()]
    whole[rest] += 1
    return [int(part) for part in whole]


def interleave(sizes: Sequence[int], allocation: Allocation) -> NDArray[np.int64]:
    """Return which group is chosen from at each of n places.

    "equal" takes turns. "proportional" takes one turn, and then the group with the smallest
    (r + 1/2) / size, r the number chosen from it so far (Webster's rule, whose shares never fall as
    the budget grows). Larger groups come first.
    """
    group = np.repeat(np.arange(len(sizes)), sizes)
    size = np.array(sizes)[group]
    rank = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = rank if allocation == "equal" else np.where(rank == 0, 0, (rank + 0.5) / size)
    return np.asarray(group[np.lexsort((group, -size, turn))])
