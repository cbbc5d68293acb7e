"""Blocks cover every row once, in order."""

from hypothesis import given
from hypothesis import strategies as st

from augloader.core.blocks import row_blocks

few = st.integers(0, 40)


@given(few, few, st.integers(1, 100), st.integers(1, 9))
def test_blocks_cover_every_row_once_and_hold_what_they_may(
    n: int, width: int, values: int, least: int
) -> None:
    parts = [range(n)[rows] for rows in row_blocks(n, width, values, least)]
    assert [row for part in parts for row in part] == list(range(n))
    assert all(parts)
    assert all(len(part) * width <= values or len(part) <= least for part in parts)
    assert (
        len(parts) <= 1 or (len(parts[0]) + 1) * max(1, width) > values
    )  # as large as they may be
