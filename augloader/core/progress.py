"""Progress bars for long work, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def progress(items: Iterable[T], what: str, wanted: bool | None = None) -> Iterable[T]:
    """Return the items, with a bar on stderr after a second of work.

    Args:
        items: what is gone through.
        what: what the bar is called.
        wanted: True: a bar at once; False: none; None: one on the first rank, where stderr is a
            terminal and tqdm is installed.

    Raises:
        ImportError: wanted without tqdm.

    Example:
        >>> list(progress(range(3), "nothing to see"))
        [0, 1, 2]
    """
    if wanted is False:
        return items
    try:
        from tqdm import tqdm
    except ImportError as error:
        if wanted is None:
            return items
        raise ImportError("progress=True needs tqdm. Install it: pip install tqdm") from error
    other = dist.is_available() and dist.is_initialized() and dist.get_rank() > 0
    # None: where stderr is no terminal.
    hidden = not wanted and (other or sys.stderr is None or None)
    bar = tqdm(items, desc=what, leave=False, delay=0 if wanted else 1, disable=hidden)
    return items if bar.disable else bar
