"""Summaries say what is so: their numbers are compared with computations of their own."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    Constant,
    CoresetSampler,
    DistributedCoresetSampler,
    Every,
    Evidence,
    FacilityLocation,
    LossRank,
    Proxies,
    RandomPruning,
    Sample,
    Selection,
    SwitchOff,
    Uniform,
    WarmUp,
    WeightedAugmentedDataset,
)
from augloader.core.schedule import Schedule
from augloader.summary import log, number, of_sampler, of_selection, short

pytestmark = [
    pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning"),  # looked at
    pytest.mark.filterwarnings("ignore:.* draws of epoch .* were reported:UserWarning"),
]
N = 90


def evidence(seed: int = 0) -> Evidence:
    points = torch.randn(N, 3, generator=torch.Generator().manual_seed(seed))
    return Evidence(N, torch.arange(N) % 3, Proxies(points))


def facts(text: str) -> dict[str, str]:
    """Return what comes after the first column, by the first column."""
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if len(line.split()) > 1]
    return {name: rest.strip() for name, rest in pairs}


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


# Selections


@pytest.mark.parametrize("classes", [1, 3, 10, 11, 45])
def test_the_classes_of_a_selection(classes: int) -> None:
    labels = torch.arange(N) % classes
    given = Evidence(N, labels, Proxies(torch.randn(N, 2)))
    selection = FacilityLocation().select(given, 60, generator=np.random.default_rng(0))
    text = of_selection(selection, labels)
    lines = text.splitlines()
    assert len(lines) <= 15
    assert cells(lines[0]) == ["class", "selected", "of", "share", "weight min", "median", "max"]
    chosen, weights = labels[selection.indices].tolist(), selection.weights.tolist()
    shown = range(classes if classes <= 10 else 9)
    groups: list[tuple[str, set[int]]] = [(str(label), {label}) for label in shown]
    if classes > 10:
        groups.append((f"{classes - 9} more", set(range(9, classes))))
    groups.append(("all", set(range(classes))))
    rows = lines[1 : 1 + len(groups)]
    for row, (name, members) in zip(rows, groups, strict=True):
        own = [w for w, label in zip(weights, chosen, strict=True) if label in members]
        of = sum(int(label) in members for label in labels)
        spread = [number(value) for value in (min(own), median(own), max(own))]
        assert cells(row) == [name, str(len(own)), str(of), percent(len(own), of), *spread]
    assert len({len(line) for line in lines[: 1 + len(groups)]}) == 1  # aligned


def test_a_class_without_selected_samples_and_labels_without_samples() -> None:
    selection = Selection(torch.tensor([1, 0]), torch.tensor([2.0, 2.0]))
    text = of_selection(selection, torch.tensor([0, 0, 7, 7]))
    rows = [cells(line) for line in text.splitlines()]
    assert rows[1] == ["0", "2", "2", "100.0 %", "2", "2", "2"]
    assert rows[2] == ["7", "0", "2", "0.0 %", "–", "–", "–"]
    assert rows[3][0] == "all"


def test_the_heaviest_the_certificate_and_what_was_kept() -> None:
    sampler = CoresetSampler(range(N), FacilityLocation(), count=30)
    first = sampler.refresh(evidence())
    second = sampler.refresh(evidence(1))
    for selection in (first, second):
        found = facts(of_selection(selection))
        assert selection.certificate is not None
        order = sorted(range(30), key=lambda i: -float(selection.weights[i]))[:6]
        pairs = [f"{selection.indices[i]} ({selection.weights[i]:g})" for i in order]
        assert found["heaviest"] == f"{', '.join(pairs)}: index (weight)"
        ratio = selection.certificate.coverage / selection.certificate.bound
        assert found["certificate"].startswith(f"at least {100 * ratio:.1f} % of the best")
        assert "proven; dense for 3 of 3 groups" in found["certificate"]
        assert cells(f"all  {found['all']}")[:4] == ["all", "30", str(N), "33.3 %"]
    assert "kept" not in facts(of_selection(first))
    kept = len({*first.indices.tolist()} & {*second.indices.tolist()})
    assert facts(of_selection(second))["kept"] == (
        f"{kept} of 30 ({percent(kept, 30)}) were selected before"
    )


def test_one_sample_without_certificate() -> None:
    text = of_selection(Selection(torch.tensor([8]), torch.tensor([12.0])))
    assert text.splitlines() == [
        "      selected  of  share  weight min  median  max",
        "all          1  12  8.3 %          12      12   12",
        "heaviest     8 (12): index (weight)",
        "certificate  none: not selected by facility location, or loaded",
    ]


def test_a_summary_refuses_labels_of_something_else() -> None:
    selection = Selection(torch.tensor([4, 1]), torch.tensor([2.0, 2.0]))
    with pytest.raises(ValueError, match=r"labels must be of all samples, at least 5, got 2\. Giv"):
        of_selection(selection, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"labels must be integer class labels, got torch.float32"):
        of_selection(selection, torch.rand(9))
    with pytest.raises(ValueError, match="labels must be 0 or more"):
        of_selection(selection, torch.full((9,), -1))


def test_numbers_and_long_texts() -> None:
    found = [number(value) for value in (0, 1, 1.5, 2 / 3, 99.96, 100, 123456.7)]
    assert found == ["0", "1", "1.5", "0.667", "100", "100", "123,457"]
    assert short("a" * 100) == "a" * 100
    assert short("a" * 101) == "a" * 99 + "…"


# Samplers


@dataclass(frozen=True)
class Known(Constant):
    """Strengths that are known beforehand: i / n."""

    def strengths(self, columns: Any, generator: np.random.Generator) -> Tensor:
        return torch.arange(N, dtype=torch.float32) / N


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"copies": 3, "base": "random", "base_fraction": 0.5},
        {"copies": 0, "weighting": "uniform"},
        {"base": "none", "weighting": "downweight"},
        {"base": "selected", "probability": 0.5},
    ],
)
def test_the_draws_of_a_sampler(options: dict[str, Any]) -> None:
    sampler = CoresetSampler(range(N), FacilityLocation(), count=30, strength=Known(), **options)
    chosen = sampler.refresh(evidence())
    found = facts(of_sampler(sampler))
    draws = list(sampler)
    total = re.match(r"([\d,]+):", found["draws"])
    assert total is not None
    assert int(total[1]) == len(draws)
    base = sum(draw.copy == 0 for draw in draws)
    assert f" {base} base" in found["draws"] or not base
    if sampler.copies:
        assert f" {len(draws) - base} copies ({sampler.copies} of each)" in found["draws"]
    else:
        assert " 30 of them selected, in place" in found["draws"]
    strong = np.array([draw.strength for draw in draws if draw.strength > 0])
    assert found["draws"].endswith(f"; {len(strong)} strong")
    ends = np.quantile(strong, (0.5, 0.05, 0.95))
    assert found["strength"] == (
        f"of strong draws mean {number(strong.mean())}, median {number(ends[0])}, "
        f"middle 90 % {number(ends[1])} to {number(ends[2])}"
    )
    weights = [draw.weight for draw in draws]
    span = f"{number(min(weights))} to {number(max(weights))}"
    assert found["weights"] == f"{span} ({sampler.plan.weighting}); mean 1"
    assert found["budget"] == "30 (33.3 %)"
    assert chosen.certificate is not None
    ratio = f"{100 * chosen.certificate.ratio:.1f} %"
    assert found["selection"] == f"30; at least {ratio} of the best coverage, proven"


def test_a_pruned_base_leaves_out_selected_samples_too() -> None:
    sampler = CoresetSampler(range(N), Uniform(), count=30, copies=0, base=RandomPruning(0.5))
    chosen = sampler.refresh()
    found, kept = facts(of_sampler(sampler)), sampler.kept
    assert kept is not None
    strong = int(torch.isin(chosen.indices, kept.indices).sum())
    assert strong < 30
    assert found["draws"] == (
        f"{len(kept)}: {len(kept)} base, {strong} of them selected, in place; {strong} strong"
    )
    assert found["base"] == f"{len(kept)} of {N} kept by RandomPruning(ratio=0.5)"


@pytest.mark.parametrize(
    ("refresh", "schedule", "epochs"),
    [
        (Every(1), 1.0, None),
        (Every(3, warmup=2), 1.0, None),
        (Every(None), 1.0, None),
        (Every(None, warmup=2), 1.0, 9),
        (Every(2), SwitchOff(4), 9),
        (Every(3), WarmUp(4), 9),
        (Every(2, warmup=1), 0.0, 9),
        (Every(2), 0.0, None),
        (Every(4), lambda epoch, epochs: float(epoch == 6), 9),
        (Every(2), lambda epoch, epochs: float(epoch == 7), 9),
    ],
)
@pytest.mark.parametrize("base", ["full", "selected"])
@pytest.mark.parametrize("course", ["strength_schedule", "probability"])
def test_the_next_refresh_is_the_one_that_will_be_due(
    refresh: Every, schedule: Schedule | float, epochs: int | None, base: Any, course: str
) -> None:
    options: dict[str, Any] = {"epochs": epochs, "base": base, course: schedule}

    def made() -> CoresetSampler:
        return CoresetSampler(range(N), Uniform(), count=3, refresh=refresh, **options)

    end = 9
    sampler, due = made(), []
    for epoch in range(end):  # when it is due in a training
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            due.append(epoch)
            sampler.refresh()
    sampler, last = made(), None
    for epoch in range(end):
        sampler.set_epoch(epoch)
        said = facts(of_sampler(sampler))["refresh"]
        assert ("due now" in said) == (epoch in due)
        if epoch in due:
            sampler.refresh()
            last, said = epoch, facts(of_sampler(sampler))["refresh"]
        assert (f"last at epoch {last}" in said) if last is not None else ("none yet" in said)
        announced = re.search(r"next due at epoch (\d+)", said)
        following = [e for e in due if e > epoch]
        if following:
            assert announced is not None
            # A period whose first epochs have no strong draw begins earlier than it is due.
            assert refresh.period(int(announced[1])) == refresh.period(following[0])
        elif epochs is not None:
            assert announced is None
            assert "no other due" in said


def test_a_sampler_before_its_first_selection() -> None:
    sampler = CoresetSampler(range(N), Uniform(), fraction=0.1, refresh=Every(2, warmup=1))
    found = facts(of_sampler(sampler))
    assert found["selection"] == "none yet"
    assert found["draws"] == f"{N}: {N} base, 0 copies (1 of each); 0 strong"
    assert (
        found["refresh"] == "every 2 epochs after 1 epoch of warm-up; none yet, next due at epoch 1"
    )
    assert "strength" not in found
    sampler.set_epoch(1)
    found = facts(of_sampler(sampler))
    assert found["draws"] == "none before the first refresh, which is due"
    assert found["epoch"] == "1, of no planned end"


def test_schedules_and_reports_of_an_epoch() -> None:
    data = WeightedAugmentedDataset(TensorDataset(torch.rand(N, 2), torch.arange(N) % 3))
    sampler = CoresetSampler(
        data,
        Uniform(),
        fraction=0.1,
        epochs=4,
        strength_schedule=WarmUp(4),
        probability=SwitchOff(1),
        weak_probability=0.5,
        strength=LossRank(),
    )
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
    for i, batch in enumerate(DataLoader(data, batch_size=10, sampler=sampler)):
        assert isinstance(batch, Sample)
        if i < 3:
            sampler.report(batch, loss=torch.rand(10))
    found = facts(of_sampler(sampler))
    assert found["epoch"] == "2, of 4"
    assert found["schedules"] == "strength × 0.5, probability 1, weak 0.5"
    visits = sampler.table.visits
    seen = int((visits > 0).sum())
    assert 20 < seen <= 30
    assert found["reports"] == f"{int(visits.sum())}; of {seen} of {N} samples"
    assert found["rule"] == repr(LossRank())
    sampler.set_epoch(3)
    found = facts(of_sampler(sampler))
    assert found["schedules"] == "strength × 0.75, probability 0, weak 0.5"
    assert found["draws"].endswith("; 0 strong")


def test_ranks_say_the_same() -> None:
    said = []
    for rank in range(2):
        sampler = DistributedCoresetSampler(
            range(N), Uniform(), num_replicas=2, rank=rank, fraction=0.1
        )
        sampler.refresh()
        said.append(of_sampler(sampler))
    assert said[0] == said[1]
    assert facts(said[0])["draws"] == "99: 90 base, 9 copies (1 of each); 9 strong"


def test_a_summary_changes_nothing_and_is_short() -> None:
    sampler = CoresetSampler(range(N), FacilityLocation(), fraction=0.3, strength=LossRank())
    sampler.refresh(evidence())
    before, state = list(sampler), torch.get_rng_state()
    text = of_sampler(sampler)
    assert list(sampler) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert len(text.splitlines()) <= 15
    assert all(len(line) <= 130 for line in text.splitlines())
    starts = {len(line) - len(line.split(maxsplit=1)[1]) for line in text.splitlines()[1:]}
    assert len(starts) == 1  # aligned


# TensorBoard


def test_a_round_trip_through_tensorboard(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    sampler = CoresetSampler(
        range(N), FacilityLocation(), fraction=0.3, refresh=Every(1, warmup=1), strength=Known()
    )
    writer = SummaryWriter(tmp_path)
    made = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            made.append(sampler.refresh(evidence(epoch)))
        log(writer, sampler, epoch, prefix="here")
    writer.close()
    found = reading.EventAccumulator(str(tmp_path), {"histograms": 0})  # 0 keeps all
    found.Reload()

    def scalars(name: str) -> dict[int, float]:
        return {event.step: event.value for event in found.Scalars(f"here/{name}")}

    assert scalars("selected") == {1: 27, 2: 27}
    assert scalars("draws") == {0: N, 1: N + 27, 2: N + 27}
    mean = float(sampler.strengths.mean())
    assert scalars("strength_mean") == pytest.approx({0: mean, 1: mean, 2: mean})
    ratios = [part.certificate.ratio for part in made if part.certificate is not None]
    assert scalars("coverage_ratio") == pytest.approx({1: ratios[0], 2: ratios[1]})
    kept = len({*made[0].indices.tolist()} & {*made[1].indices.tolist()})
    assert scalars("kept_share") == pytest.approx({2: kept / 27})
    strengths = found.Histograms("here/strengths")
    weights = found.Histograms("here/weights")
    assert [event.step for event in strengths] == [0, 1, 2]
    assert [event.step for event in weights] == [1, 2]
    assert (strengths[0].histogram_value.num, weights[1].histogram_value.num) == (N, 27)
    assert strengths[0].histogram_value.max == pytest.approx((N - 1) / N)
    assert weights[1].histogram_value.sum == pytest.approx(N)


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[Any, int]] = {}

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        self.given[tag] = value, step

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self.given[tag] = values, step


def test_what_there_is_not_is_not_logged() -> None:
    sampler, writer = CoresetSampler(range(N), Uniform(), fraction=0.3), Kept()
    log(writer, sampler, 4)  # before the first selection, which is due
    assert set(writer.given) == {"augloader/strength_mean", "augloader/strengths"}
    sampler.refresh()
    log(writer, sampler, 5)  # without a certificate
    assert set(writer.given) == {
        f"augloader/{name}"
        for name in ("strength_mean", "strengths", "selected", "weights", "draws")
    }
    assert {step for _, step in writer.given.values()} == {5}


def test_log_refuses_what_it_cannot_write_to() -> None:
    sampler = CoresetSampler(range(N), Uniform(), fraction=0.3)
    with pytest.raises(TypeError, match="writer must be an object with add_scalar and add_histogr"):
        log("runs", sampler, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"step must be an integer, got 0.5"):
        log(Kept(), sampler, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        log(Kept(), sampler, -1)


def test_selections_and_samplers_print_their_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    sampler = CoresetSampler(range(20), Uniform(), fraction=0.5)
    selection = sampler.refresh()
    selection.summary()
    assert capsys.readouterr().out == of_selection(selection) + "\n"
    sampler.summary()
    assert capsys.readouterr().out == of_sampler(sampler) + "\n"
