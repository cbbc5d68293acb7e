"""How much of something an epoch has, and when the selection is renewed."""

import math
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augloader import Cosine, Every, Linear, SwitchOff, WarmUp
from augloader.core.schedule import Course, Product


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


@given(st.none() | st.integers(1, 9), st.integers(0, 9), st.integers(0, 99))
def test_a_period_begins_at_its_first_epoch(interval: int | None, warmup: int, epoch: int) -> None:
    every = Every(interval, warmup=warmup)
    same = [e for e in range(epoch + 1) if every.period(e) == every.period(epoch)]
    assert every.begin(epoch) == same[0]


# Schedules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A user's schedule, which inherits nothing."""

    values: tuple[float, ...]

    def __call__(self, epoch: int, epochs: int) -> float:
        assert len(self.values) == epochs
        return self.values[epoch]


def half(epoch: int, epochs: int) -> float:
    return (epoch + 1) / (2 * epochs)


def over(schedule: Any, epochs: int) -> list[float]:
    """What a schedule gives over a training, as the sampler reads it."""
    course = Course.of("schedule", schedule, epochs)
    return [course.at(epoch) for epoch in range(epochs)]


shares = st.floats(0, 1)


def own(epochs: int) -> st.SearchStrategy[Any]:
    """Every kind of schedule that the package has, of a training of so many epochs."""
    some = st.integers(1, epochs)
    return st.one_of(
        st.builds(SwitchOff, st.just(0) | some),
        st.builds(WarmUp, st.just(0) | some),
        st.builds(Linear, st.none() | some, shares),
        st.builds(Cosine, st.none() | some, shares),
    )


def parts(epochs: int) -> st.SearchStrategy[Any]:
    """Those, numbers, and a user's."""
    values = st.lists(shares, min_size=epochs, max_size=epochs)
    return st.one_of(own(epochs), shares, values.map(lambda given: Table(tuple(given))))


@st.composite
def plans(draw: Any, count: int) -> tuple[Any, ...]:
    """A number of planned epochs, and schedules that go with it; the first can be multiplied."""
    epochs = draw(st.integers(1, 40))
    rest = [draw(parts(epochs)) for _ in range(count - 1)]
    return epochs, draw(own(epochs)), *rest


@given(plans(3))
def test_values_lie_between_0_and_1(plan: Any) -> None:
    epochs, s, f, g = plan
    for schedule in (s, f, s * f, f * s, s * f * g, 0.5 * s):
        values = over(schedule, epochs)
        assert len(values) == epochs
        assert all(type(value) is float and 0 <= value <= 1 for value in values)


@given(plans(2))
def test_a_schedule_composed_with_itself_is_its_square(plan: Any) -> None:
    epochs, *schedules = plan
    for s in schedules:
        twice = Product(s, s)
        assert over(twice, epochs) == [value * value for value in over(s, epochs)]
        if not isinstance(s, float | Table):
            assert s * s == twice
            assert over(twice * twice, epochs) == pytest.approx([v**4 for v in over(s, epochs)])


@given(plans(3))
def test_the_product_is_that_of_the_values_in_any_order(plan: Any) -> None:
    epochs, s, f, g = plan
    first, second, third = (over(part, epochs) for part in (s, f, g))
    assert over(s * f, epochs) == [a * b for a, b in zip(first, second, strict=True)]
    assert over(s * f, epochs) == over(f * s, epochs)
    three = [a * b * c for a, b, c in zip(first, second, third, strict=True)]
    for grouped in ((s * f) * g, s * Product(f, g), f * (g * s)):
        assert over(grouped, epochs) == pytest.approx(three, rel=1e-12, abs=0) or min(three) < 1e-99


@given(plans(1))
def test_1_leaves_a_schedule_as_it_is_and_0_leaves_nothing(plan: Any) -> None:
    epochs, s = plan
    assert over(1 * s, epochs) == over(s * 1.0, epochs) == over(s, epochs)
    assert over(s * 0, epochs) == over(0.0 * s, epochs) == [0.0] * epochs


@given(st.integers(1, 60), st.data())
def test_switching_off_leaves_exactly_the_last_epochs(epochs: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(0, epochs))
    assert over(SwitchOff(last), epochs) == [1.0] * (epochs - last) + [0.0] * last


@given(st.integers(1, 60), shares, st.sampled_from([Linear, Cosine]), st.data())
def test_fades_are_1_and_then_go_down_to_the_end(
    epochs: int, to: float, kind: type[Linear] | type[Cosine], data: st.DataObject
) -> None:
    last = data.draw(st.none() | st.integers(1, epochs))
    values = over(kind(last, to=to), epochs)
    m = epochs if last is None else last
    assert values[: epochs - m] == [1.0] * (epochs - m)
    assert values[-1] == pytest.approx(to, abs=1e-12)
    assert all(later <= earlier for earlier, later in pairwise(values))
    faded = [1.0, *values[epochs - m :]]
    if kind is Linear:
        assert values[-1] == to
        assert np.diff(faded) == pytest.approx([(to - 1) / m] * m, abs=1e-12)
    else:
        t = np.arange(m + 1) / m
        assert faded == pytest.approx(to + (1 - to) * (1 + np.cos(np.pi * t)) / 2, abs=1e-12)


def test_a_fade_over_everything_begins_at_once() -> None:
    assert over(Linear(), 4) == [0.75, 0.5, 0.25, 0.0]
    assert over(Linear(), 4) == over(Linear(4), 4)
    assert over(Cosine(), 4) == over(Cosine(4), 4)
    assert over(Linear(to=1), 4) == over(Cosine(to=1.0), 4) == [1.0] * 4


@given(st.integers(1, 60), st.data())
def test_a_warm_up_goes_up_from_0_in_equal_steps(epochs: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, epochs))
    values = over(WarmUp(first), epochs)
    assert values == sorted(values)
    assert values[first:] == [1.0] * (epochs - first)
    if first:
        assert values[0] == 0
        assert np.diff([*values[:first], 1.0]) == pytest.approx([1 / first] * first)


@given(plans(1))
def test_schedules_are_values(plan: Any) -> None:
    epochs, s = plan
    again = eval(repr(s))
    assert again == s
    assert again is not s
    for value in (s, s * s, 0.5 * s, s * half):
        travelled = pickle.loads(pickle.dumps(value))
        assert travelled == value
        assert hash(travelled) == hash(value)
        assert over(travelled, epochs) == over(value, epochs)
    with pytest.raises(FrozenInstanceError):
        s.last = s.first = 3


def test_schedules_of_different_kinds_or_numbers_differ() -> None:
    different = [SwitchOff(2), WarmUp(2), Linear(2), Cosine(2), Linear(), Linear(2, to=0.5)]
    different += [SwitchOff(3), SwitchOff(2) * WarmUp(2), SwitchOff(2) * 0.5, SwitchOff(2) * half]
    assert len(set(different)) == len(different)
    assert repr(Linear(2)) == "Linear(last=2, to=0.0)"
    assert repr(SwitchOff(2) * 0.5) == "Product(first=SwitchOff(last=2), second=0.5)"


def test_functions_and_numbers_compose_from_both_sides() -> None:
    off = SwitchOff(2)
    expected = [0.125, 0.25, 0.0, 0.0]
    for schedule in (half * off, off * half, (lambda e, n: half(e, n)) * off, half * (off * 1)):
        assert over(schedule, 4) == expected
    numbers: list[Any] = [0.5, np.float64(0.5), np.float32(0.5)]
    for number in numbers:
        assert over(number * off, 4) == over(off * number, 4) == [0.5, 0.5, 0.0, 0.0]


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [SwitchOff(5), WarmUp(5), Linear(5), Cosine(5)])
def test_a_schedule_longer_than_the_training_is_refused(schedule: Any) -> None:
    assert len(over(schedule, 5)) == 5
    for longer in (schedule, schedule * SwitchOff(1), half * schedule):
        with pytest.raises(ValueError, match=r"must last at most the 4 planned epochs, got 5\. Pl"):
            Course.of("schedule", longer, 4)
    for epoch in (5, -1):
        words = rf"epoch must be in \[0, 5\), the planned epochs, got {epoch}\. .*plan more: epochs"
        with pytest.raises(ValueError, match=words):
            schedule(epoch, 5)


@pytest.mark.parametrize("schedule", [1.0, SwitchOff(2), half])
def test_an_epoch_beyond_the_plan_has_no_value(schedule: Any) -> None:
    for epochs in (2, 3):
        course = Course.of("schedule", schedule, epochs)
        for epoch in (epochs, -1):
            with pytest.raises(ValueError, match=rf"in \[0, {epochs}\), .* got {epoch}\. To train"):
                course.at(epoch)


def test_without_a_plan_only_numbers() -> None:
    assert Course.of("schedule", 0.25, None).at(10**6) == 0.25
    for schedule in (SwitchOff(2), half, SwitchOff(2) * 0.5):
        words = "epochs must be given with a schedule, got none for weak=.*Pass the number"
        with pytest.raises(ValueError, match=words):
            Course.of("weak", schedule, None)


@pytest.mark.parametrize("kind", [SwitchOff, Linear, Cosine, WarmUp, Table])
def test_a_class_is_not_a_schedule(kind: Any) -> None:
    name = kind.__name__
    words = rf"must be a number or a schedule, got the class {name}\. Pass an instance, as {name}\("
    with pytest.raises(TypeError, match=f"weak {words}"):
        Course.of("weak", kind, 9)
    with pytest.raises(TypeError, match=f"second {words}"):
        SwitchOff(2) * kind
    with pytest.raises(TypeError, match=f"first {words}"):
        kind * SwitchOff(2)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (-0.1, ValueError),
        (1.5, ValueError),
        (2, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (True, TypeError),
        ("0.5", TypeError),
        (None, TypeError),
        ([0.5], TypeError),
    ],
)
def test_numbers_outside_of_0_to_1(number: Any, error: type[Exception]) -> None:
    def fails_at_2(epoch: int, epochs: int) -> Any:
        return number if epoch == 2 else 1

    rule = rf"must be (a number )?in \[0, 1\], got .?{re.escape(str(number))}.?\. "
    with pytest.raises(error, match=f"weak {rule}Or pass a schedule, as SwitchOff"):
        Course.of("weak", number, 4)
    with pytest.raises(error, match=f"second {rule}"):
        SwitchOff(2) * number
    with pytest.raises(error, match=f"weak {rule}That is its value at epoch 2 of 4"):
        Course.of("weak", fails_at_2, 4)
    assert Course.of("weak", fails_at_2, 2).values == (1.0, 1.0)
    with pytest.raises(error, match=rf"to {rule}"):
        Linear(2, to=number)


@pytest.mark.parametrize("kind", [SwitchOff, WarmUp, Linear, Cosine])
def test_numbers_of_epochs(kind: Any) -> None:
    name = "first" if kind is WarmUp else "last"
    fade = kind in (Linear, Cosine)
    for number in (True, 2.0, "2", math.nan):
        with pytest.raises(TypeError, match=f"{name} must be an integer, got {number!r}. "):
            kind(number)
    for number in (0, -1) if fade else (-1,):
        with pytest.raises(ValueError, match=rf"{name} must be at least {int(fade)}, got {number}"):
            kind(number)
    assert over(kind(np.int64(2)), 4) == over(kind(2), 4)
