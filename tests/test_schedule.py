"""When the selection is renewed."""

import pytest

from augloader import Every


def test_periods_begin_after_the_warm_up_and_last_the_interval() -> None:
    periods = [Every(3, warmup=2).period(epoch) for epoch in range(9)]
    assert periods == [None, None, 0, 0, 0, 1, 1, 1, 2]
    assert [Every(1).period(epoch) for epoch in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("interval", [0, -1])
def test_the_interval_is_at_least_one(interval: int) -> None:
    with pytest.raises(ValueError, match="interval must be at least 1"):
        Every(interval)


def test_only_whole_epochs() -> None:
    with pytest.raises(ValueError, match="warmup must be at least 0, got -1"):
        Every(1, warmup=-1)
    with pytest.raises(TypeError, match="interval must be an integer"):
        Every(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("warmup", [0, 2])
def test_without_an_interval_the_first_selection_is_kept(warmup: int) -> None:
    schedule = Every(None, warmup=warmup)
    assert schedule.interval is None
    expected = [None] * warmup + [0] * 50
    assert [schedule.period(epoch) for epoch in range(warmup + 50)] == expected
    assert schedule.period(10**6) == 0
    with pytest.raises(ValueError, match="warmup must be at least 0"):
        Every(None, warmup=-1)
