"""The papers' tables: what is trained, what is on disk, and what the report says of it."""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import papers
import recipe
import records
import report
import schedules
import setting
import sources
from cifar import Images
from method import Method
from recipe import Outcome, Trainer
from records import Mean, Record, Run
from schedules import Problem, Schedule
from setting import Setting
from sources import Source
from tables import TABLES, Row, Table
from tables.frontier import SelectiveBackprop
from tables.index import ENTRIES

from augloader import (
    FacilityLocation,
    LastLayerGradient,
    Loss,
    Rank,
    Residual,
    Sample,
    StableInfluence,
    Uniform,
    sweep,
)
from tests.scripts import image_folder

TINY = Schedule("tiny", 12, ("resnet8", "resnet8"), 5, 16, 4, 2, 0.05, "one-cycle", 1e-4, True)
CLEAN = Problem("clean")
CPU = torch.device("cpu")
SETTINGS = [Setting("cifar10", TINY, policy) for policy in ("trivial", *setting.POLICIES)]
ROWS = [(name, row) for made in SETTINGS for name in TABLES for row in made.table(name).rows]
FILES = sorted(records.RESULTS.glob("*/*/*--*.json"))
FIGURES = sorted(records.RESULTS.glob("*/*/figure-*.json"))


def given(n: int = 48, classes: int = 2) -> tuple[Images, Images]:
    """Return training and test images of noise, whose brightness tells the class."""
    labels = torch.arange(n) % classes
    noise = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = (90 + 80 * labels.view(-1, 1, 1, 1) + 40 * noise).clamp(0, 255).to(torch.uint8)
    names = [str(c) for c in range(classes)]
    return Images(pixels, labels, names), Images(pixels[:20], labels[:20], names)


def under(tmp_path: Path, policy: str = "trivial") -> Setting:
    """Return a setting whose results lie under a folder."""
    return Setting("cifar10", TINY, policy, tmp_path)


def trained(method: Method, seed: int = 0, schedule: Schedule = TINY) -> Outcome:
    """Train a run on the noise."""
    return Trainer(CLEAN, schedule, method, seed, given(), CPU).run()


def without_time(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds={})


# The recipe ---------------------------------------------------------------------------------------


def test_crops_and_flips_are_those_of_padded_images_whatever_the_batch() -> None:
    images = torch.randint(0, 256, (64, 3, 9, 32), dtype=torch.uint8)
    keys = torch.stack([torch.zeros(64), torch.arange(64), torch.zeros(64)], 1).long()
    out = recipe.crop_and_flip(images, keys, seed=3)
    padded, found = F.pad(images, (4,) * 4), set()
    for i in range(64):
        views = {
            (top, left, flipped): view.flip(2) if flipped else view
            for top in range(9)
            for left in range(9)
            for flipped in (False, True)
            for view in [padded[i, :, top : top + 9, left : left + 32]]
        }
        same = [name for name, view in views.items() if torch.equal(view, out[i])]
        assert len(same) == 1
        found.add(same[0])
    assert {top for top, _, _ in found} == {left for _, left, _ in found} == set(range(9))
    assert {flipped for _, _, flipped in found} == {False, True}
    alone = recipe.crop_and_flip(images[5:6], keys[5:6], seed=3)
    assert torch.equal(alone[0], out[5])
    assert not torch.equal(recipe.crop_and_flip(images, keys, seed=4), out)


def test_split_keeps_rows_together() -> None:
    rows = torch.arange(8)
    batch = Sample(rows * 1.0, rows, rows, rows + 1.0, rows + 2.0, rows, rows)
    parts = list(recipe.split(batch, 4))
    assert [part.index.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for part in parts:
        assert torch.equal(part.input, part.index * 1.0)
        assert torch.equal(part.strength, part.index + 2.0)


def test_rates() -> None:
    he = schedules.HE
    rates = [he.rate_at(epoch / 400) for epoch in (0, 149, 150, 274, 275, 399, 449)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001])
    wide = [schedules.HE_WIDE.rate_at(epoch / 400) for epoch in (119, 120, 240, 320, 449)]
    assert wide == pytest.approx([0.1 * 0.2**i for i in (0, 1, 2, 3, 3)])
    cosine = [schedules.HE_COSINE.rate_at(epoch / 400) for epoch in (0, 200, 449)]
    assert cosine == pytest.approx([0.1, 0.05, 1e-4])
    one_cycle = schedules.REDUCED
    assert one_cycle.rate_at(0) == pytest.approx(0.1 * one_cycle.rate)
    assert one_cycle.rate_at(0.25) == pytest.approx(one_cycle.rate)
    assert one_cycle.rate_at(1) == pytest.approx(0.001 * one_cycle.rate)
    steps = [schedules.PAPER.rate_at(epoch / 200) for epoch in (0, 99, 100, 149, 150, 199)]
    assert steps == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_the_images_of_a_problem(tmp_path: Path) -> None:
    image_folder(tmp_path, train=12, test=4)
    source = Source("noise", "folder", tmp_path)
    train, test = sources.images(source, CLEAN, 8)
    again, _ = sources.images(source, CLEAN, 8)
    assert torch.equal(train.images, again.images)
    assert train.labels.bincount().tolist() == [8, 8]
    assert test.labels.bincount().tolist() == [4, 4]
    tail, _ = sources.images(source, Problem("tail", imbalance=4.0), 8)
    assert tail.labels.bincount().tolist() == [8, 2]
    noisy, clean_test = sources.images(source, Problem("noise", noise=0.5), 12)
    whole, _ = sources.images(source, CLEAN, 12)
    assert torch.equal(noisy.images, whole.images)
    assert int((noisy.labels != whole.labels).sum()) == 12
    assert torch.equal(clean_test.labels.sort().values, test.labels.sort().values)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("method", "rows", "swept"),
    [
        (Method("weak"), [48] * 5, 0),
        (Method("full", Uniform(), 1.0), [96] * 5, 0),
        (Method("in-place", Uniform(), 1.0, base="none"), [48] * 5, 0),
        (Method("random", Uniform(), 0.5), [80] * 5, 0),
        (Method("max-loss", Rank(Loss()), 0.5), [80] * 5, 3 * 48),
        (Method("coreset", FacilityLocation(), 0.5), [80] * 5, 3 * 48),
        (
            Method("only", FacilityLocation(), per_class=4, base="selected", refresh=1),
            [16] * 5,
            240,
        ),
        (Method("last", FacilityLocation(), 0.5, proxy="last layer", refresh=20), [80] * 5, 48),
        (Method("free", FacilityLocation(), 0.5, free=True), [80] * 5, 48),
        (Method("replacing", FacilityLocation(), 0.5, copies=0), [48] * 5, 3 * 48),
        (Method("refined", Uniform(), 0.5, refined=True), [80] * 4 + [48], 0),
        (Method("random base", Uniform(), 0.5, base="random", base_fraction=0.25), [48] * 5, 0),
        (Method("shorter", Uniform(), 1.0, base="none", epochs=0.4), [48] * 2, 0),
        (Method("harder", Uniform(), 1.0, base="none", hardest=2), [80] * 5, 0),
        (
            Method("4 of 8", Uniform(), 2 / 3, hardest=8, keep=4),
            [80 + 3 * 32] * 5 + [round(5 * 8 * 32 / 3)],
            0,
        ),
        (
            Method("pruned", Uniform(), 1.0, base=Uniform(), base_fraction=0.5, copies=0, rows=8),
            [24] * 5,
            0,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else "",
)
def test_how_many_images_are_trained_on(method: Method, rows: list[int], swept: int) -> None:
    found = trained(method)
    assert found.rows == sum(rows)
    assert found.swept == swept
    assert set(found.seconds) == set(recipe.PHASES)
    assert (found.seconds["sweep"] > 0) == (swept > 0)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mix", ["mixup", "manifold", None])
def test_warming_up_compiles_what_is_trained_and_changes_nothing(
    mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Method("mixed", Uniform(), 1.0, base="none", policy=None if mix else "auto", mix=mix)
    trainer = Trainer(CLEAN, TINY, method, 0, given(), CPU)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    forward, kinds = trainer.forward, []

    def noted(*batch: Any) -> Any:
        kinds.append(tuple((part.shape, part.dtype) for part in batch))
        return forward(*batch)

    monkeypatch.setattr(trainer, "forward", noted)
    trainer.warm_up()
    assert len(kinds) == 3
    assert all(torch.equal(value, before[k]) for k, value in trainer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    trainer.sampler.set_epoch(0)
    trainer.refresh()
    trainer.epoch(0)
    assert len(set(kinds)) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mix", ["mixup", "manifold", "cutmix", None])
def test_runs_repeat_for_a_seed_and_do_not_for_another(mix: Any) -> None:
    method = Method("mixed", Uniform(), 1.0, base="none", policy=None if mix else "auto", mix=mix)
    first = trained(method)
    torch.rand(3)
    assert without_time(trained(method)) == without_time(first)
    assert trained(method, seed=1).loss != first.loss


@pytest.mark.usefixtures("one_thread")
def test_refining_ends_strong_augmentation_and_the_standard_one_its_crops() -> None:
    runs = {}
    for refined in (False, True):
        method = Method("in-place", Uniform(), 1.0, base="none", refined=refined)
        trainer = Trainer(CLEAN, TINY, method, 0, given(), CPU)
        trainer.sampler.set_epoch(4)
        trainer.sampler.refresh()
        (chunk,) = trainer.chunks(48)
        runs[refined] = float(chunk.strength.mean())
    assert runs == {False: 1.0, True: 0.0}
    trainer = Trainer(CLEAN, TINY, Method("weak", refined=True), 0, given(), CPU)
    for epoch, whole in ((3, False), (4, True)):
        trainer.sampler.set_epoch(epoch)
        (chunk,) = trainer.chunks(48)
        plain = given()[0].images[chunk.index]
        assert torch.equal(chunk.input, plain) == whole


@pytest.mark.usefixtures("one_thread")
def test_strengths_follow_what_was_reported() -> None:
    sada = Method("sada", Uniform(), 1.0, base="none", strength=StableInfluence(window=2))
    trained_on, fresh = (Trainer(CLEAN, TINY, sada, 0, given(), CPU) for _ in range(2))
    found = trained_on.run()
    assert 0 < found.strength < 1
    assert found.strength == pytest.approx(np.mean(trained_on.strengths))
    for trainer in (trained_on, fresh):
        trainer.sampler.set_epoch(4)
    # Unknown samples' strengths are random, and the same here and there.
    assert (trained_on.sampler.strengths != fresh.sampler.strengths).all()


@pytest.mark.usefixtures("one_thread")
def test_a_step_weighs_its_rows_and_takes_its_rate() -> None:
    trainer = Trainer(CLEAN, TINY, Method("weak"), 0, given(), CPU)
    pixels, labels = given()[0].images[:16], given()[0].labels[:16]
    rows = torch.arange(16)
    weight = torch.linspace(0, 2, 16)
    mean, losses, logits = trainer.forward(pixels, labels, weight)
    assert torch.equal(losses, F.cross_entropy(logits, labels, reduction="none"))
    assert mean.item() == pytest.approx((losses * weight).sum().item() / 16, rel=1e-5)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    for rate, same in ((0.0, True), (0.1, False)):
        trainer.step(Sample(pixels, labels, rows, weight, weight, rows, rows), rate)
        after = dict(trainer.model.named_parameters())
        assert all(torch.equal(after[name], value) for name, value in before.items()) == same


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("DEFAULT", torch.float32), ("AVX2", torch.float32), ("AVX512", torch.bfloat16)],
)
def test_a_cpu_that_would_emulate_bfloat16_computes_in_float32(
    capability: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert recipe.halved(CPU) == (dtype is torch.bfloat16)
    hardest = Method("coreset", FacilityLocation(), 0.5, refresh=1, hardest=2, keep=1)
    trainer = Trainer(CLEAN, TINY, hardest, 0, given(), CPU)
    found = []
    first = trainer.model.get_submodule("body.0")
    first.register_forward_hook(lambda module, args, out: found.append(out.dtype))
    for _ in trainer.course(1):
        trainer.evaluate(given()[1])
    assert set(found) == {dtype}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("method", "proxy"),
    [
        (Method("coreset", FacilityLocation(), 0.5), Residual()),
        (Method("coreset", FacilityLocation(), 0.5, proxy="last layer"), LastLayerGradient()),
        (Method("max-loss", Rank(Loss()), 0.5, proxy="last layer"), None),
    ],
)
def test_what_is_swept(method: Method, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(model: Any, data: Any, proxy: Any, **options: Any) -> Any:
        asked.append(proxy)
        return sweep(model, data, proxy, **options)

    monkeypatch.setattr(recipe, "sweep", spy)
    Trainer(CLEAN, TINY, method, 0, given(), CPU).refresh()
    assert [type(found) for found in asked] == [type(proxy)]


@pytest.mark.parametrize(("mix", "share"), [("mixup", 1.0), ("manifold", 1.0), ("cutmix", 0.5)])
def test_mixing_is_as_in_the_paper(mix: Any, share: float) -> None:
    method = Method("mixed", Uniform(), 1.0, base="none", policy=None, mix=mix)
    mixer = Trainer(CLEAN, TINY, method, 0, given(), CPU).mixer
    assert mixer is not None
    rows, mixed, shares = torch.arange(16), 0, []
    for epoch in range(60):
        one, pixels = torch.ones(16), torch.zeros(16, 3, 8, 8)
        batch = Sample(pixels, rows % 2, rows, one, one, rows, epoch)
        lam = mixer.sample(batch).lam
        mixed += int((lam < 1).sum())
        shares += lam[lam < 1].tolist()
    assert mixed / (60 * 16) == pytest.approx(share, abs=0.1)
    assert np.ptp(shares) > 0.4  # Beta(1, 1) is uniform


# The tables ---------------------------------------------------------------------------------------


def test_a_name_is_one_method() -> None:
    found: dict[str, Any] = {}
    for _, row in ROWS:
        described = records.describe(CLEAN, TINY, row.method)
        assert found.setdefault(row.method.name, described) == described
    problems = {(row.problem.name, row.problem) for _, row in ROWS}
    assert len(problems) == len({name for name, _ in problems})


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_compared_with_rows_of_their_table(name: str) -> None:
    table = TABLES[name]
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == len(labels)
    for row in table.rows:
        if row.against:
            assert table.row(row.against).problem == row.problem
            assert row.against != row.label
    assert bool(table.none) == bool(table.full)
    if table.paired:
        everything = {row.column for row in table.rows if row.everything}
        assert everything == set(table.columns)
        assert not any(row.against for row in table.rows)
    if table.none:
        assert table.row(table.none).method.strategy is None
        assert table.row(table.full).method.fraction == 1


@pytest.mark.parametrize("schedule", schedules.SCHEDULES.values(), ids=lambda s: s.name)
def test_every_method_makes_a_sampler(schedule: Schedule) -> None:
    n = 10 * (schedule.per_class or 5000)
    rows = [row for table in TABLES.values() for row in table.rows]
    for method in {row.method.name: row.method for row in rows}.values():
        sampler = method.sampler(range(n), schedule, 10, 0)
        assert 1 <= sampler.budget <= n
        if method.per_class:
            assert sampler.budget == 10 * method.per_class
        first = round(schedule.epochs * method.epochs)
        more = schedule.refining or round((method.longer or 0) * first)
        more = more if method.refined and method.off is None else 0
        assert sampler.epochs == first + more


# On disk ------------------------------------------------------------------------------------------


def run_of(seed: int = 0, accuracy: float = 0.5, **changes: Any) -> Run:
    seconds = dict.fromkeys(recipe.PHASES, 1.0)
    about: dict[str, Any] = dict.fromkeys(("machine", "device", "clock", "commit", "date"), "x")
    about["versions"] = {}
    values = {"accuracy": accuracy, "loss": 1.0, "rows": 10, "swept": 0, "strength": 1.0}
    values["data"] = 1
    return Run(seed, Outcome(**{**values, "seconds": seconds, **changes}), about)


METHOD = Method("coreset-10", FacilityLocation(), 0.1)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = records.read(tmp_path, CLEAN, TINY, METHOD)
    assert not record.runs
    for seed in (2, 0):
        record = record.plus(run_of(seed, 0.5 + seed / 10))
    record = record.plus(run_of(0, 0.4))  # in place of the first
    record.write(records.path_of(tmp_path, CLEAN, TINY, METHOD))
    again = records.read(tmp_path, CLEAN, TINY, METHOD)
    assert again == record
    assert [run.seed for run in again.runs] == [0, 2]
    assert again.accuracy.n == 2
    assert [again.accuracy.mean, again.accuracy.spread] == pytest.approx([0.55, 0.15 * 2**0.5])
    with pytest.raises(ValueError, match="Name the method anew"):
        records.read(tmp_path, CLEAN, TINY, replace(METHOD, weighting="uniform"))


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": 1.2},
        {"accuracy": float("nan")},
        {"loss": float("inf")},
        {"seconds": {"train": 1.0}},
        {"seconds": dict.fromkeys(recipe.PHASES, float("nan"))},
    ],
)
def test_runs_that_are_none_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        run_of(**changes)


def test_a_run_says_where_it_came_from() -> None:
    with pytest.raises(ValueError, match="environment must have"):
        Run(0, run_of().outcome, {"machine": "x"})


@pytest.mark.parametrize("change", ["another field", "no runs", "twice", "other data"])
def test_files_that_are_no_records_are_refused(change: str, tmp_path: Path) -> None:
    path = records.path_of(tmp_path, CLEAN, TINY, METHOD)
    records.read(tmp_path, CLEAN, TINY, METHOD).plus(run_of()).write(path)
    stored = json.loads(path.read_text())
    if change == "another field":
        stored["more"] = 1
    elif change == "no runs":
        del stored["runs"]
    else:
        stored["runs"] += json.loads(json.dumps(stored["runs"]))
    if change == "other data":
        stored["runs"][1]["seed"], stored["runs"][1]["outcome"]["data"] = 1, 2
    with pytest.raises(ValueError, match="must"):
        records.parse(stored)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_results_are_of_the_tables_as_they_stand(path: Path) -> None:
    """The schema of what is committed: nothing stale, nothing made up, at least one seed."""
    stored = json.loads(path.read_text())
    record = records.parse(stored)
    schedule = schedules.SCHEDULES[path.parent.name]
    rows = {f"{row.problem.name}--{row.method.name}": row for _, row in ROWS}
    row = rows[path.stem]
    assert record.described == records.describe(row.problem, schedule, row.method)
    assert record.runs
    assert stored["summary"]["accuracy"] == asdict(record.accuracy)
    assert stored["summary"]["rows"] == record.rows
    checksums = {
        run.outcome.data
        for other in FILES
        if other.parent == path.parent and other.stem.startswith(f"{row.problem.name}--")
        for run in records.parse(json.loads(other.read_text())).runs
    }
    assert len(checksums) == 1  # of all methods
    for run in record.runs:
        assert run.outcome.rows > 0
        assert run.outcome.seconds["train"] > 0
        assert not run.environment["commit"].endswith("+")


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_the_figures_are_of_the_images_of_the_tables(path: Path) -> None:
    stored = json.loads(path.read_text())
    assert stored["schedule"]["name"] == path.parent.name
    records.require_data(path.parents[1], CLEAN, schedules.REDUCED, stored["data"], 0)
    assert not stored["environment"]["commit"].endswith("+")


def test_the_spread_is_over_the_seeds_and_differences_inside_it_are_ties() -> None:
    a, b = Mean.of([0.70, 0.72, 0.74]), Mean.of([0.69, 0.70, 0.71])
    assert [a.spread, b.spread] == pytest.approx([0.02, 0.01])
    for other, difference, tie in ((b, 0.02, True), (Mean(0.69, 0.01, 3), 0.03, False)):
        found = a.above(other)
        assert [found.mean, found.spread] == pytest.approx([difference, 0.0005**0.5])
        assert found.tie == tie
    assert a.above(Mean(0.1, 0.0, 2)).tie  # too few seeds to tell
    assert Mean.of([0.5]) == Mean(0.5, 0.0, 1)


# Running ------------------------------------------------------------------------------------------


def test_what_is_missing_is_run_once_seed_by_seed(tmp_path: Path) -> None:
    names = ["table4", "ablations", "table4"]
    wanted = papers.missing(under(tmp_path), names, [0, 1])
    places = [(seed, row.problem.name, row.method.name) for seed, row in wanted]
    assert len(set(places)) == len(places)
    rows = [row for name in ("table4", "ablations") for row in TABLES[name].rows]
    assert len(places) == 2 * len({(row.problem.name, row.method.name) for row in rows})
    first = [seed for seed, row in wanted if row in TABLES["table4"].rows]
    assert first == sorted(first)
    done = TABLES["table4"].rows[0]
    folder = tmp_path / "cifar10"
    place = records.path_of(folder, done.problem, TINY, done.method)
    records.read(folder, done.problem, TINY, done.method).plus(run_of(1)).write(place)
    left = papers.missing(under(tmp_path), names, [0, 1])
    assert len(left) == len(wanted) - 1
    assert not [row for seed, row in left if seed == 1 and row.method == done.method]


def test_all_tables_are_those_of_the_data_set() -> None:
    assert {"table1", "table6", "sada"} <= set(papers.of_all("cifar10"))
    assert not {"table2", "table4-svhn", "frontier-6"} & set(papers.of_all("cifar10"))
    assert set(papers.of_all("svhn")) - set(papers.of_all("cifar10")) == {"table4-svhn"}


def options(*words: str) -> argparse.Namespace:
    """Return the options of a command."""
    parser = argparse.ArgumentParser()
    setting.add_options(parser)
    return parser.parse_args(words)


def test_other_sizes_networks_and_rates_have_another_name(tmp_path: Path) -> None:
    assert setting.planned(schedules.REDUCED, options()) is schedules.REDUCED
    other = setting.planned(schedules.REDUCED, options("--epochs", "3", "--per-class", "40"))
    assert (other.epochs, other.per_class) == (3, 40)
    assert other.name == "reduced-3-epochs-40-a-class"
    weights = tmp_path / "r18.pt"
    weights.touch()
    words = ["--network", "resnet18", "--weights", str(weights), "--size", "64"]
    words += ["--rate", "0.05", "--refresh", "5"]
    other = setting.planned(schedules.PAPER, options(*words))
    assert other.name == "paper-resnet18-from-r18-00000000-64px-rate-0.05-every-5"
    assert other.networks == ("resnet18", "resnet18")
    assert (other.weights, other.size, other.rate, other.refresh) == (
        str(weights),
        64,
        0.05,
        5,
    )


def test_data_sets_have_the_names_and_sizes_of_their_folders(tmp_path: Path) -> None:
    found = setting.source_of(options(), tmp_path / "flowers")
    assert (found.name, found.kind, found.size) == ("flowers", "folder", 32)
    found = setting.source_of(options("--dataset", "tinyimagenet"), tmp_path)
    assert (found.name, found.size) == ("tinyimagenet", 64)
    found = setting.source_of(options("--name", "mine", "--size", "16"), tmp_path)
    assert (found.name, found.size) == ("mine", 16)


def test_the_papers_numbers_stand_beside_its_own_augmentation_and_data() -> None:
    numbers = {
        (data, policy): {row.paper for row in Setting(data, TINY, policy).table("table4").rows}
        for data in ("cifar10", "svhn")
        for policy in ("trivial", "highest-loss")
    }
    assert "75.0 %" in numbers.pop(("cifar10", "highest-loss"))
    assert all(found == {""} for found in numbers.values())
    assert Setting("svhn", TINY, "highest-loss").table("table4-svhn").rows[0].paper == "95.68"


def test_the_papers_numbers_stand_beside_its_own_network_or_our_small_one() -> None:
    for name, network, shown in (
        ("table1", "resnet8", True),
        ("table1", "resnet20", True),
        ("table1", "wrn-28-10", False),
        ("refinement", "preactresnet18", True),
        ("refinement", "wrn-28-10", False),
    ):
        schedule = replace(TINY, networks=(network, network))
        numbers = {row.paper for row in Setting("cifar10", schedule).table(name).rows}
        assert (numbers == {""}) != shown


def test_refinement_after_training_is_as_long_as_in_the_paper() -> None:
    """He et al. (2019), Table 3."""
    for name, share, first, more in (
        ("reduced", 0.5, 50, 12),
        ("he-preact", 1.0, 400, 50),
        ("he-preact-1000", 1.0, 1000, 200),
        ("he-wrn-cosine", 0.5, 200, 50),
        ("he-wrn-cosine", 1.0, 400, 50),
    ):
        schedule = schedules.SCHEDULES[name]
        method = TABLES["longer"].row(f"and T2 refined, T1 = {share:g}").method
        plain = TABLES["longer"].row(f"AutoAugment, T1 = {share:g}").method
        assert (plain.planned(schedule), plain.last(schedule)) == (first, 0)
        assert (method.first(schedule), method.last(schedule)) == (first, more)
        assert method.planned(schedule) == first + more
        rates = [schedule.rate_at(epoch / first) for epoch in (first, first + more - 1)]
        assert rates == [schedule.rate_at(1.0)] * 2


def test_a_policy_changes_what_is_strong_and_its_file() -> None:
    plain, mixed = (Setting("cifar10", TINY, p).table("table4").rows for p in ("trivial", "augmix"))
    for before, after in zip(plain, mixed, strict=True):
        if before.method.strategy is None or before.method.policy is None:
            assert after.method == before.method
        else:
            assert after.method.policy == "augmix"
            assert after.method.name == f"{before.method.name}-augmix"
    hardest = Setting("cifar10", TINY, "highest-loss").table("table4").row("all").method
    assert (hardest.policy, hardest.hardest, hardest.keep) == ("trivial", 8, 4)


@pytest.mark.slow
def test_the_script_trains_a_table_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path / "data", train=20, test=3)
    usual = ["--jobs", "1", "--threads", "1", "--device", "cpu"]
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    words = ["refinement", "--seeds", "0", "--network", "mlp", "--only", "clean--manifold-mixup"]
    mistake = subprocess.run(  # no such layers: every run fails, and all of them are tried
        [sys.executable, papers.__file__, *usual, *words, *places], capture_output=True, text=True
    )
    assert mistake.returncode == 1
    assert mistake.stdout.count("must be of a network with stages") == 2
    assert "2 of 2 runs failed" in mistake.stderr
    words = ["weights", "--epochs", "1", "--per-class", "20", "--seeds", "4"]
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # which main sets

    def call(*more: str) -> str:
        capsys.readouterr()
        papers.main([*usual, *words, *places, *more])
        return capsys.readouterr().out

    assert len(call().splitlines()) == len(TABLES["weights"].rows)
    files = sorted((tmp_path / "out").rglob("*.json"))
    assert len(files) == len(TABLES["weights"].rows)
    before = [path.read_text() for path in files]
    record = records.parse(json.loads(before[0]))
    assert [run.seed for run in record.runs] == [4]
    assert record.described["schedule"]["epochs"] == 1
    assert call().startswith("All of these runs are in ")
    assert [path.read_text() for path in files] == before
    call("--watch")
    record = records.parse(json.loads(files[0].read_text()))
    assert {name: len(values) for name, values in record.runs[0].outcome.curve.items()} == {
        "accuracy": 1,
        "clean loss": 1,
        "augmented loss": 1,
    }
    # Another folder of images under the same name is refused, and has a name of its own else.
    before = [path.read_text() for path in files]
    image_folder(tmp_path / "other" / "data", train=22, test=3)
    image_folder(tmp_path / "tested" / "data", train=20, test=4)
    for seed in ("4", "5"):  # run already, and not yet
        words[-1] = seed
        for folder, kind in (("other", "training"), ("tested", "test")):
            places[1] = str(tmp_path / folder / "data")
            with pytest.raises(ValueError, match=f"^{kind} images .* Give this data set another"):
                call()
    places[1] = str(tmp_path / "other" / "data")
    call("--name", "other")
    assert [path.read_text() for path in files] == before
    others = sorted((tmp_path / "out" / "other").rglob("*.json"))
    assert [path.name for path in others] == [path.name for path in files]


# The report ---------------------------------------------------------------------------------------


def filled(
    tmp_path: Path, accuracies: dict[str, list[float]], policy: str = "trivial"
) -> report.Report:
    """Return a report of Table 4 with these accuracies, by label."""
    made = under(tmp_path, policy)
    for label, values in accuracies.items():
        row = made.table("table4").row(label)
        record = Record(records.describe(row.problem, TINY, row.method))
        for seed, accuracy in enumerate(values):
            record = record.plus(run_of(seed, accuracy))
        record.write(records.path_of(made.folder, row.problem, TINY, row.method))
    return report.Report(made)


def test_cells_say_what_is_better_and_what_is_a_tie(tmp_path: Path) -> None:
    made = filled(
        tmp_path,
        {
            "none": [0.60, 0.60, 0.60],
            "all": [0.70, 0.70, 0.70],
            "random, 5%": [0.62, 0.63, 0.64],
            "max-loss, 5%": [0.60, 0.59, 0.60],
            "coreset, 5%": [0.64, 0.66, 0.65],
            "random, 10%": [0.65, 0.67, 0.66],
            "coreset, 10%": [0.66, 0.65, 0.67],
            "random, 30%": [0.67, 0.67, 0.67],
            "max-loss, 30%": [0.66],
            "coreset, 30%": [0.68],
        },
        "highest-loss",
    )
    table = made.setting.table("table4")
    cell = {row.label: made.cell(table, row) for row in table.rows}
    assert cell["none"] == "60.0 ± 0.0 [89.46]"
    assert cell["all"] == "**70.0 ± 0.0** [93.50]"
    assert cell["random, 5%"] == "63.0 ± 1.0, 30 ± 10 % [21.8 %]"
    assert cell["max-loss, 5%"] == "_59.7 ± 0.6_, −3 ± 6 % [32.9 %]"
    assert cell["coreset, 5%"] == "**65.0 ± 1.0**, 50 ± 10 % [34.9 %]"
    assert cell["coreset, 10%"] == "66.0 ± 1.0, 60 ± 10 % [51.5 %]"
    assert cell["coreset, 30%"] == "68.0 (1 seed), 80 ± 0 % [75.0 %]"  # nothing is said of one
    assert cell["max-loss, 30%"] == "66.0 (1 seed), 60 ± 0 % [73.5 %]"
    assert cell["random, 10%"] == "66.0 ± 1.0, 60 ± 10 % [39.9 %]"
    assert cell["max-loss, 10%"] == "not run [47.8 %]"
    text = made.short(table)
    assert text.splitlines()[0] == "|  | random | max-loss | coreset | coreset, weighted |"
    assert "| 5% | 63.0 ± 1.0, 30 ± 10 % [21.8 %] | _59.7 ± 0.6_" in text
    assert "\n\nnone: 60.0 ± 0.0 [89.46]; all: **70.0 ± 0.0** [93.50]; all, copies plain:" in text
    long = made.long(table)
    assert "| coreset, 5% | 65.0 ± 1.0 | 3 | random, 5% | +2.0 | 50 ± 10 % | 34.9 % | 10 |" in long
    assert "| max-loss, 5% | 59.7 ± 0.6 | 3 | random, 5% | −3.3 |" in long
    assert "| max-loss, 30% | 66.0 (1 seed) | 1 | random, 30% | −1.0 |" in long
    assert legends(made) == [["random", "max-loss", "coreset"]]  # "coreset, weighted": not run


def legends(made: report.Report) -> list[list[str]]:
    """Return the legend of each panel of a report's picture."""
    found = [panel.get_legend() for panel in made.picture().axes]
    return [[text.get_text() for text in legend.get_texts()] for legend in found if legend]


def test_there_is_no_share_of_a_gain_that_is_none(tmp_path: Path) -> None:
    for full in ([0.6] * 3, [0.5] * 3, [0.59, 0.6, 0.64]):
        made = filled(tmp_path, {"none": [0.6] * 3, "all": full, "random, 5%": [0.6] * 3})
        assert made.gain(TABLES["table4"], TABLES["table4"].row("random, 5%")) == ""


def test_a_picture_of_one_table(tmp_path: Path) -> None:
    made = report.Report(under(tmp_path))
    table = made.setting.table("table6")
    for i, row in enumerate(table.rows):
        assert made.found("table6") == (i >= 5)  # of nine
        records.add(run_of(), made.setting.folder, row.problem, TINY, row.method)
    assert len(made.picture().axes) == 1
    assert "table6" in made.tables
    with pytest.raises(SystemExit, match="no run was watched"):
        made.curves()
    curve = {name: [0.1, 0.2] for name in report.CURVES}
    row = table.rows[0]
    records.add(run_of(1, curve=curve), made.setting.folder, row.problem, TINY, row.method)
    drawn = made.curves().axes
    assert len(drawn) % 3 == 0
    assert np.array_equal(np.asarray(drawn[0].lines[0].get_ydata()), [0.1, 0.2])


def test_the_picture_has_every_way_taken_together(tmp_path: Path) -> None:
    rows = TABLES["combination"].rows
    for row in rows:
        records.add(run_of(), under(tmp_path).folder, row.problem, TINY, row.method)
    assert [row.line for row in rows] in legends(report.Report(under(tmp_path)))


def test_lists_say_what_a_row_costs(tmp_path: Path) -> None:
    made = filled(
        tmp_path, {"none": [0.6] * 3, "all": [0.7] * 3, "coreset, 30%": [0.7, 0.71, 0.69]}
    )
    text = made.short(TABLES["combination"])
    assert "| coreset, 30% | 70.0 ± 1.0 | +0.0 (tie) to all, appended | 10 | 5 | 2.0 |" in text
    assert "| none | 60.0 ± 0.0 | −10.0 to all, appended | 10 | 5 | 2.0 |" in text
    assert "| all, in place | not run |  |  |  |  |" in text


def test_what_is_written_lies_between_the_marks() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    new = report.written(text, "new\n")
    assert new == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.written(new, "new\n") == new
    with pytest.raises(ValueError, match="must have the lines"):
        report.written("nothing", "new")


@pytest.mark.skipif(not FILES, reason="no results yet")
def test_the_readme_has_the_tables_of_the_results() -> None:
    text = report.README.read_text()
    assert report.written(text, report.section()) == text


def test_the_index_has_every_paper_and_says_what_was_not_run(tmp_path: Path) -> None:
    whole = report.index()
    lines = whole.splitlines()[2:]
    assert len(lines) == len(ENTRIES)
    for entry, line in zip(ENTRIES, lines, strict=True):
        assert (entry.shown is None) == bool(entry.without)
        assert entry.shown is None or entry.size
        assert line.startswith(f"| {entry.paper} | {entry.place} |")
        for word in entry.command.strip("`").split()[1:]:
            assert not word.startswith("table") or word in TABLES
    nothing = report.index(tmp_path / "papers")
    assert nothing.count("not run yet") == sum(entry.shown is not None for entry in ENTRIES)


def test_unknown_rows_are_not_found() -> None:
    table = Table("title", "source", (Row("a", CLEAN, METHOD),))
    assert table.row("a").method is METHOD
    with pytest.raises(StopIteration):
        table.row("b")


def test_paired_differences_have_the_interval_of_their_mean(tmp_path: Path) -> None:
    """By hand: of the differences 1, 2 and 3 points the half width is 4.303 / sqrt(3)."""
    about = dict.fromkeys(("machine", "device", "clock", "commit", "date", "versions"), "")
    seconds = dict.fromkeys(recipe.PHASES, 1.0)

    def record(*accuracies: float) -> Record:
        runs = [
            Run(seed, Outcome(found, 0.1, 10, 0, 1.0, 7, seconds), about)
            for seed, found in enumerate(accuracies)
        ]
        return Record({}, tuple(runs))

    found = record(0.51, 0.62, 0.73, 0.9).beyond(record(0.5, 0.6, 0.7))
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert found.n == 3
    assert found.spread == pytest.approx(0.01 * 4.302653 / 3**0.5)
    assert report.verdict(found, paired=True) == "+2.0 [−0.5, +4.5] (tie)"
    assert record(0.5).beyond(Record({})) is None


def test_paired_rows_are_compared_with_the_best_that_augments_everything(tmp_path: Path) -> None:
    found = {"worse": 0.5, "better": 0.6, "chosen": 0.65, "elsewhere": 0.9}
    rows = []
    for name, accuracy in found.items():
        method = replace(METHOD, name=name)
        column = "other" if name == "elsewhere" else "column"
        rows.append(Row(name, CLEAN, method, column=column, everything=name != "chosen"))
        runs = [run_of(seed, accuracy + seed / 100) for seed in range(3)]
        for run in runs:
            records.add(run, under(tmp_path).folder, CLEAN, TINY, method)
    table = Table("title", "source", tuple(rows), schedule="tiny", paired=True)
    made = report.Report(under(tmp_path))
    against = [other and other.line for other in (made.against(table, row) for row in rows)]
    assert against == ["better", None, "better", None]
    differences = [made.difference(table, row) for row in rows]
    assert [found and round(found.mean, 6) for found in differences] == [-0.1, None, 0.05, None]
    assert "+5.0 [+5.0, +5.0] to better" in made.listed(table)


def test_selective_backprop_draws_by_the_percentile_of_the_loss() -> None:
    losses = torch.tensor([0.1, 3.0, 2.0, 1.0, torch.nan])
    rule, drawn = SelectiveBackprop(), torch.zeros(5)
    for seed in range(4000):
        kept = rule.keep(losses, epoch=1, epochs=9, generator=np.random.default_rng(seed))
        drawn[kept.indices] += 1
    expected = torch.tensor([0.2, 0.8, 0.6, 0.4, 1.0])
    torch.testing.assert_close(drawn / 4000, expected, atol=0.04, rtol=0)
