"""Rows in blocks of so many values, for what is computed in more memory than the rows take."""

from __future__ import annotations

from collections.abc import Iterator


def row_blocks(n: int, width: int, values: int, least: int = 1) -> Iterator[slice]:
    """Return slices that cover n rows of ``width`` values each, in order.

    Args:
        n: rows, 0 or more.
        width: values a row, 0 or more.
        values: how many a block has at most.
        least: rows of a block, whatever their width.

    Cost: O(n width / values).

    Example:
        >>> list(row_blocks(5, 3, 7))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    rows = max(least, values // max(1, width))
    return (slice(start, start + rows) for start in range(0, n, rows))
