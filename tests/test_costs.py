"""Costs: closed forms by hand, laws over random inputs, and an oracle that counts real draws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augloader import (
    CoresetSampler,
    Cost,
    DistributedCoresetSampler,
    Every,
    InfoBatch,
    Loss,
    Rank,
    SwitchOff,
    Uniform,
    cost,
)
from augloader.costs import compare

N = 1000
SECONDS = ("step", "load", "strong", "strong_on_device", "sweep", "select", "start")


def sampler(**options: Any) -> CoresetSampler:
    return CoresetSampler(range(N), Uniform(), **({"fraction": 0.3, "epochs": 10} | options))


def seconds(**options: Any) -> Cost:
    return cost(sampler(copies=0), **({"step": 0.001, "load": 0.002} | options))


# By hand


def test_without_workers_the_parts_add_up() -> None:
    found = cost(
        sampler(copies=0, refresh=Every(5)),
        step=0.01,
        load=0.002,
        strong=0.003,
        sweep=0.004,
        select=2,
    )
    assert found.training == pytest.approx(10)
    assert found.loading == pytest.approx(2 + 0.9)
    assert found.sweeping == pytest.approx(4 * 2 / 10)  # at epochs 0 and 5
    assert found.selecting == pytest.approx(2 * 2 / 10)
    assert found.starting == 0
    assert found.epoch == pytest.approx(10 + 2.9 + 0.8 + 0.4)
    assert (found.draws, found.strong, found.limit) == (1000, 300, "device")
    assert found.draws_per_second == pytest.approx(1000 / 14.1)
    assert found.in_place == pytest.approx(15)
    assert found.appended == pytest.approx(20 + 4 + 3)
    assert found.times_in_place == pytest.approx(15 / 14.1)
    assert found.times_appended == pytest.approx(27 / 14.1)


@pytest.mark.parametrize(
    ("step", "cores", "limit", "epoch"),
    [
        (0.001, None, "loader", 4),  # 8 s of loading by 2 workers
        (0.005, None, "device", 5),
        (0.001, 2, "cores", 4.5),  # 8 s and 1 s on 2 cores
        (0.001, 1, "cores", 9),
        (0.001, 3, "loader", 4),
        (0.009, 2, "device", 9),
    ],
)
def test_with_workers_the_longest_counts(
    step: float, cores: int | None, limit: str, epoch: float
) -> None:
    used = None if cores is None else 1.0
    found = seconds(step=step, load=0.008, workers=2, cores=cores, step_cores=used)
    assert found.limit == limit
    assert found.epoch == pytest.approx(epoch)
    assert found.loading == pytest.approx(8 if cores == 1 else 4)
    assert found.training == pytest.approx(1000 * step)
    later = seconds(step=step, load=0.008, workers=2, cores=cores, step_cores=used, start=0.5)
    assert later == replace(
        found,
        epoch=found.epoch + 0.5,
        starting=0.5,
        in_place=found.in_place + 0.5,
        appended=found.appended + 0.5,
    )


def test_a_gpu_takes_no_core() -> None:
    assert seconds(load=0.008, workers=2, cores=2, step_cores=0).epoch == pytest.approx(4)


def test_strong_rows_on_the_device_take_its_time() -> None:
    found = seconds(strong_on_device=0.01)
    assert found.training == pytest.approx(1 + 3)
    assert found.loading == pytest.approx(2)
    assert found.in_place == pytest.approx(1 + 10 + 2)


def test_a_third_appended_saves_a_third_at_most() -> None:
    for step, load, strong in ((1.0, 0.0, 0.0), (1.0, 5.0, 0.0), (1e-9, 1.0, 0.0)):
        found = cost(sampler(), step=step, load=load, strong=strong)
        assert found.times_appended == pytest.approx(2 / 1.3)


def test_in_place_saves_nothing_where_the_device_limits() -> None:
    found = seconds(step=0.01, strong=0.02, workers=4)
    assert (found.limit, found.times_in_place) == ("device", 1.0)


def test_each_epoch_has_its_own_limit() -> None:
    """Refinement for half of the epochs: 8 s of loading at first, then 2 s beside 3 s of steps."""
    refined = sampler(fraction=1.0, copies=0, strength_schedule=SwitchOff(5))
    found = cost(refined, step=0.003, load=0.002, strong=0.006, workers=1)
    assert found.epoch == pytest.approx((8 + 3) / 2)
    assert found.loading == pytest.approx(5)
    assert found.training == pytest.approx(3)
    assert found.limit == "loader"
    assert found.in_place == pytest.approx(8)


def test_a_ranks_share() -> None:
    whole = cost(sampler(), step=0.001, load=0.002, sweep=0.01)
    rank = DistributedCoresetSampler(
        range(N), Uniform(), num_replicas=4, rank=1, fraction=0.3, epochs=10
    )
    found = cost(rank, step=0.001, load=0.002, sweep=0.01)
    assert found.draws == len_of(rank) == whole.draws / 4
    assert found.sweeping == whole.sweeping
    assert found.times_appended < whole.times_appended
    plain = cost(rank, step=0.001, load=0.002)
    assert plain.appended == pytest.approx(whole.appended / 4)


def len_of(sampler: CoresetSampler) -> int:
    return sampler.planned_draws()[0]


# Against draws that were made

PLANS: list[dict[str, Any]] = [
    {},
    {"copies": 0},
    {"copies": 3, "base": "none"},
    {"copies": 0, "base": "none", "refresh": Every(2, warmup=1)},
    {"base": "selected", "refresh": Every(3, warmup=2)},
    {"copies": 0, "base": "selected"},
    {"base": "random", "base_fraction": 0.5},
    {"base": "random", "copies": 0, "base_fraction": 0.5},
    {"base": "random", "copies": 0, "refresh": Every(2, warmup=3)},
    {"probability": 0.25},
    {"copies": 0, "probability": 0.25},
    {"copies": 2, "probability": 0.25, "keep_unaugmented_copies": False},
    {"strength_schedule": SwitchOff(2), "keep_unaugmented_copies": False},
    {"strength_schedule": SwitchOff(2), "refresh": Every(None)},
    {"fraction": lambda epoch, epochs: 0.2 + 0.1 * (epoch // 3), "refresh": Every(2)},
    {"fraction": 0.301, "pad_to_multiple_of": 64},
    {"fraction": 0.3, "constant_length": True, "strength_schedule": SwitchOff(2)},
    {"copies": 0, "base": "random", "probability": 0.5, "pad_to_multiple_of": 4},
]


@pytest.mark.parametrize("options", PLANS, ids=lambda options: "-".join(options))
def test_the_draws_are_those_that_are_made(options: dict[str, Any]) -> None:
    epochs, seeds = 5, 8
    draws, strong, selections = 0.0, 0.0, 0
    for seed in range(seeds):
        made = sampler(**({"epochs": epochs} | options), seed=seed)
        for epoch in range(epochs):
            selections += made.begin(epoch) is not None
            drawn = list(made)
            draws += len(drawn) / epochs / seeds
            strong += sum(draw.strength > 0 for draw in drawn) / epochs / seeds
    found = cost(sampler(**({"epochs": epochs} | options)), step=1, load=0, select=epochs)
    assert found.selecting == selections / seeds
    assert found.draws == pytest.approx(draws, rel=0.01)
    assert found.strong == pytest.approx(strong, rel=0.03)
    chance = "probability" in options or options.get("base") == "random"
    if not chance and "pad_to_multiple_of" not in options and "constant_length" not in options:
        assert found.draws == pytest.approx(draws, rel=1e-9)
        assert found.strong == pytest.approx(strong, rel=1e-9)
    planned = sampler(**({"epochs": epochs} | options)).planned_draws()
    assert found.draws <= sum(planned) / epochs * (1 + 1e-9)


# Laws

positive = st.floats(1e-6, 10)
machines = st.fixed_dictionaries(
    {
        **dict.fromkeys(SECONDS, positive),
        "workers": st.integers(1, 16),
        "cores": st.integers(1, 16),
        "step_cores": st.floats(0, 8),
    }
)
plans = st.fixed_dictionaries(
    {
        "fraction": st.floats(0.01, 1),
        "copies": st.integers(0, 3),
        "base": st.sampled_from(["full", "random", "selected", "none"]),
        "refresh": st.builds(Every, st.none() | st.integers(1, 5), st.integers(0, 2)),
    }
)


def at_most(less: float, more: float) -> bool:
    return less <= more * (1 + 1e-9)


@given(plans, machines, st.sampled_from([*SECONDS, "step_cores"]), st.floats(1, 5))
def test_more_seconds_take_no_less(
    plan: dict[str, Any], machine: dict[str, Any], name: str, factor: float
) -> None:
    made = sampler(**plan)
    found = cost(made, **machine)
    slower = cost(made, **machine | {name: machine[name] * factor})
    assert at_most(found.epoch, slower.epoch)
    assert at_most(found.in_place, slower.in_place)
    assert at_most(found.appended, slower.appended)


@given(plans, machines, st.sampled_from(["workers", "cores"]), st.integers(0, 8))
def test_more_workers_and_cores_take_no_more(
    plan: dict[str, Any], machine: dict[str, Any], name: str, more: int
) -> None:
    made = sampler(**plan)
    found, wider = cost(made, **machine), cost(made, **machine | {name: machine[name] + more})
    assert at_most(wider.epoch, found.epoch)
    assert at_most(found.in_place, found.appended)


@given(plans, machines, st.floats(0.01, 100))
def test_a_machine_of_another_speed_has_the_same_ratios(
    plan: dict[str, Any], machine: dict[str, Any], factor: float
) -> None:
    made = sampler(**plan)
    found = cost(made, **machine)
    other = cost(made, **machine | {name: machine[name] * factor for name in SECONDS})
    assert other.epoch == pytest.approx(found.epoch * factor)
    assert other.times_in_place == pytest.approx(found.times_in_place)
    assert other.times_appended == pytest.approx(found.times_appended)


@given(plans, machines)
def test_an_epoch_takes_at_least_its_longest_part_and_at_most_all(
    plan: dict[str, Any], machine: dict[str, Any]
) -> None:
    made = sampler(**plan)
    found = cost(made, **machine | {"step_cores": 1.0})
    rest = found.starting + found.sweeping + found.selecting
    assert at_most(max(found.loading, found.training) + rest, found.epoch)
    alone = cost(made, **{name: machine[name] for name in SECONDS} | {"start": 0.0})
    assert at_most(found.epoch - found.starting, alone.epoch)
    assert alone.epoch == pytest.approx(
        alone.loading + alone.training + alone.sweeping + alone.selecting
    )


@given(machines, st.integers(1, 3))
def test_everything_costs_what_everything_costs(machine: dict[str, Any], copies: int) -> None:
    free = machine | {"sweep": 0.0, "select": 0.0}
    inside = cost(sampler(fraction=1.0, copies=0), **free)
    beside = cost(sampler(fraction=1.0, copies=copies), **free)
    assert inside.times_in_place == pytest.approx(1)
    assert beside.times_appended == pytest.approx(1)
    assert beside.times_in_place == pytest.approx(inside.epoch / beside.epoch)
    assert (inside.strong, beside.draws) == (N, N * (copies + 1))


# What is refused


@pytest.mark.parametrize("name", SECONDS)
def test_seconds_are_not_negative(name: str) -> None:
    for value in (-1e-9, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"{name} must be in [\[(]0, inf\), got"):
            seconds(workers=1, **{name: value})
    for wrong in ("1", None, True, [1]):
        with pytest.raises(TypeError, match=rf"{name} must be a number in"):
            seconds(workers=1, **{name: wrong})


def test_what_else_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step must be in \(0, inf\), got 0"):
        seconds(step=0)
    with pytest.raises(TypeError, match="sampler must be a CoresetSampler, got range"):
        cost(range(9), step=1, load=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        seconds(workers=-1)
    with pytest.raises(TypeError, match=r"workers must be an integer, got 1\.5"):
        seconds(workers=1.5)
    with pytest.raises(ValueError, match="cores must be at least 1, got 0"):
        seconds(workers=1, cores=0, step_cores=1)
    with pytest.raises(ValueError, match=r"step_cores must be in \[0, inf\), got -1"):
        seconds(workers=1, cores=2, step_cores=-1)
    for half in ({"cores": 2}, {"step_cores": 1}):
        with pytest.raises(ValueError, match="cores and step_cores must be given together, got"):
            seconds(workers=1, **half)
    with pytest.raises(ValueError, match=r"start must be 0 without workers, got 0\.5"):
        seconds(start=0.5)
    with pytest.raises(ValueError, match="epochs must be given where none are planned, got None"):
        cost(sampler(epochs=None), step=1, load=1)
    with pytest.raises(ValueError, match=r"epoch must be in \[0, 10\), the planned epochs, got 10"):
        seconds(epochs=11)
    with pytest.raises(ValueError, match="costs must hold at least one setting, got none"):
        compare({})
    with pytest.raises(TypeError, match=r"costs must be a mapping, got list\. Pass \{name: cost"):
        compare([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"costs must be what cost.* got float for 'a'"):
        compare({"a": 1.0})  # type: ignore[dict-item]


def test_numbers_of_numpy_are_taken() -> None:
    plain = seconds(workers=2, cores=2, step_cores=1, sweep=0.5)
    assert plain == seconds(
        step=np.float64(0.001),
        load=np.float64(0.002),
        workers=np.int64(2),
        cores=np.int64(2),
        step_cores=np.float32(1),
        sweep=np.float32(0.5),
    )


# What is printed


def test_a_cost_is_read_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = seconds(strong=0.01, sweep=0.002, select=0.5, workers=2, start=0.25)
    found.summary()
    text = capsys.readouterr().out
    assert text == f"{found}\n"
    lines = dict(line.split(maxsplit=1) for line in text.splitlines()[:5])
    assert lines == {
        "epoch": "5.25 s, limited by the loader",
        "loading": "2.5 s alone, 0.25 s to start",
        "training": "1 s alone",
        "selection": "2.5 s: 2 s sweeping, 0.5 s selecting",
        "draws": "1,000, 300 strong; 190 a second",
    }
    assert "in place   6.25 s with everything augmented in place, 1.19 times as long" in text
    assert "appended   7.25 s with copies of everything appended, 1.38 times as long" in text


def test_settings_are_compared_row_by_row() -> None:
    costs = {"30 %": seconds(strong=0.01), "much faster": seconds(strong=0.001, step=0.0001)}
    head, *rows = compare(costs).splitlines()
    assert head.split("  ")[-1] == "appended"
    assert len({len(line) for line in (head, *rows)}) == 1
    for row, (name, found) in zip(rows, costs.items(), strict=True):
        assert row.startswith(name)
        assert row.endswith(f"{found.times_in_place:.2f}x  {found.times_appended:7.2f}x")
        assert f" {found.limit} " in row


def test_a_pruned_base_saves_rows() -> None:
    """With a rule the share is told, with a strategy it is the plan's; half of the kept strong."""
    rates: dict[str, Any] = {"step": 1e-3, "load": 1e-3, "epochs": 4}
    options: dict[str, Any] = {"fraction": 0.5, "copies": 0, "refresh": Every(None)}
    ruled = CoresetSampler(range(1000), Uniform(), base=InfoBatch(0.5, 0), **options)
    chosen = CoresetSampler(range(1000), Uniform(), base=Uniform(), base_fraction=0.7, **options)
    for found in (cost(ruled, kept=0.7, **rates), cost(chosen, **rates)):
        assert (found.draws, found.strong) == pytest.approx((700, 350))
        assert found.times_in_place == pytest.approx(1 / 0.7)
    reported = CoresetSampler(
        range(1000), Uniform(), base=Rank(Loss()), base_fraction=0.6, **options
    )
    assert cost(reported, **rates).draws == (1000 + 3 * 600) / 4  # all before anything is reported
    found = cost(ruled, kept=0.7, selected=1.0, **rates)  # the hard ones, which are all kept
    assert (found.draws, found.strong) == pytest.approx((700, 500))
    assert cost(chosen, selected=0.0, **rates).strong == 0
    full = CoresetSampler(range(1000), Uniform(), **options)
    with pytest.raises(ValueError, match=r"selected must be given where the base is pruned.*full"):
        cost(full, selected=0.5, **rates)
    with pytest.raises(ValueError, match=r"selected must be in \[0, 1\], got 2"):
        cost(ruled, kept=0.7, selected=2, **rates)
    with pytest.raises(ValueError, match="kept must be given where a pruning rule is the base"):
        cost(ruled, **rates)
    with pytest.raises(ValueError, match=r"kept must be given .* got 0.7 with Uniform"):
        cost(chosen, kept=0.7, **rates)
    with pytest.raises(ValueError, match=r"kept must be in \(0, 1\], got 2"):
        cost(ruled, kept=2, **rates)
