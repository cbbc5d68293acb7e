"""The pure parts of the benchmarks against brute force, and one timed child of each kind."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import augmenters
import common
import facility
import feedback
import imports
import loader
import ordering
import scores
import selection
import solvers
import transform

from augloader import Sample, StableInfluence
from tests.scripts import run

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.parametrize(
    ("model", "cores", "name"),
    [
        ("AMD EPYC", 2, "amd-epyc-2c"),
        ("AMD EPYC 9575F 64-Core Processor", 4, "amd-epyc-9575f-4c"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", 8, "intel-xeon-8c"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", 12, "intel-core-i7-9750h-12c"),
        ("aarch64", 1, "aarch64-1c"),
    ],
)
def test_slug(model: str, cores: int, name: str) -> None:
    assert common.slug(model, cores) == name


def test_spread() -> None:
    assert common.Spread.of([3.0, 1.0, 2.0]) == common.Spread(2.0, 1.0, 3.0)
    assert common.Spread.of(iter([1.0, 2.0])) == common.Spread(1.5, 1.0, 2.0)


def test_everyone_comes_first_in_turn() -> None:
    found = ["".join(common.in_turn({"a": 1, "b": 2, "c": 3}, i)) for i in range(4)]
    assert found == ["abc", "bca", "cab", "abc"]


def test_residuals_are_those_of_one_class() -> None:
    g = facility.residuals(np.random.default_rng(0), 300)
    assert g.shape == (300, 10)
    assert g.dtype == torch.float32
    assert g.sum(1).abs().max() < 1e-6
    assert (g[:, 0] < 0).all()
    assert (g[:, 1:] > 0).all()


@pytest.mark.parametrize("data", ["residuals", "mixture", "outer"])
def test_data_depend_on_the_seed_alone(data: str) -> None:
    first, again, other = (facility.make(data, 20, seed).gradient for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("data", ["residuals", "outer"])
def test_costs_equal_brute_force(data: str) -> None:
    proxies = facility.make(data, 30, 0)
    chosen = [4, 9, 20]
    x = proxies.gradient.double().numpy()
    if proxies.features is not None:
        x = np.stack([np.kron(g, h) for g, h in zip(x, proxies.features.numpy(), strict=True)])
    distances = np.array([[np.sqrt(((a - x[j]) ** 2).sum()) for j in chosen] for a in x])
    cost = distances.min(1).sum()
    assert facility.objective(proxies, torch.tensor(chosen)) == pytest.approx(cost, rel=1e-12)
    medoid = torch.tensor(chosen)[torch.from_numpy(distances.argmin(1))]
    assert facility.total_distance(proxies, proxies[medoid]) == pytest.approx(cost, rel=1e-12)


def problem(n: int = 400, k: int = 50, classes: int = 1) -> facility.Problem:
    return facility.Problem(facility.make("residuals", n, 0), k, classes)


def test_costs_of_many_points_are_those_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(2000)
    whole = given.cost(torch.arange(50))
    monkeypatch.setattr(facility, "_EVALUATED", 2000 * 50 * 10 / 2)
    assert given.cost(torch.arange(50)) == pytest.approx(whole, rel=0.05)
    assert given.cost(torch.arange(50)) != whole


def test_assignments_agree() -> None:
    given = problem()
    ours, theirs = (solvers.SOLVERS[name](given)() for name in ("nearest", "cdist"))
    cost = facility.total_distance(given.proxies, given.proxies[ours])
    assert cost == pytest.approx(given.cost(torch.arange(50)), rel=1e-9)
    assert cost == pytest.approx(
        facility.total_distance(given.proxies, given.proxies[theirs]), rel=1e-4
    )
    classes = problem(classes=4)
    mine = solvers.SOLVERS["by class"](classes)()
    assert torch.equal(mine % 4, classes.labels)
    cost = facility.total_distance(given.proxies, given.proxies[mine])
    assert cost == pytest.approx(classes.cost(torch.arange(50)), rel=1e-9)


@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize(
    "solver", ["ours", "dense", "matrix-free", "graph", "stochastic", "cold", "warm", "random"]
)
def test_solvers_select_what_is_asked_for(solver: str, classes: int) -> None:
    given = problem(classes=classes, k=48)
    chosen = solvers.SOLVERS[solver](given)()
    assert len(chosen.unique()) == 48
    assert (chosen % classes).bincount().tolist() == [48 // classes] * classes
    best = given.cost(solvers.SOLVERS["ours"](given)())
    assert best <= given.cost(chosen) < (2.5 if solver == "random" else 1.2) * best


def test_row_compares_round_by_round() -> None:
    def reading(seconds: float, cost: float, peak: float) -> common.Reading:
        return {"seconds": seconds, "cost": cost, "base_mb": 10.0, "peak_mb": peak, "others": 0.0}

    case = selection.Case("residuals", 100, 10, ("ours", "submodlib"), rounds=3)
    peer = [reading(20, 10, 50), reading(60, 10, 40), reading(25, 10, 40)]
    mine = [reading(1, 10, 15), reading(2, 11, 12), reading(1, 9, 11)]
    row = selection.Row(case, {"ours": mine, "submodlib": peer})
    assert row.ratio("submodlib") == common.Spread(25, 20, 30)
    assert row.error("submodlib").max == pytest.approx(0.1)
    assert row.error("submodlib").min == pytest.approx(-0.1)
    assert (row.added("ours"), row.added("submodlib")) == (5, 40)
    assert "25.0x [20.0, 30.0]" in "".join(row.lines())
    assert row.record()["solved"]["submodlib"]["readings"] == peer
    assert selection.slowest([row], "submodlib") == 25
    assert selection.slowest([row], "apricot") is None


def test_picture_draws_seconds_against_n(tmp_path: Path) -> None:
    def row(n: int, solver: str) -> selection.Row:
        reading = {"seconds": n / 1e3, "cost": 1.0, "base_mb": 1.0, "peak_mb": 2.0, "others": 0.0}
        case = selection.Case("mixture", n, n // 10, (solver,))
        return selection.Row(case, {solver: [reading]})

    selection.picture([row(100, "ours"), row(1000, "graph"), row(200, "dense")], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


@linux
def test_child_measures_ours() -> None:
    job: dict[str, Any] = {"data": "residuals", "n": 2000, "k": 20, "classes": 1, "seed": 0}
    reading = selection.child("ours", **job)
    given = facility.Problem(facility.make("residuals", 2000, 0), 20)
    assert reading["cost"] == given.cost(solvers.ours(given)())
    assert reading["seconds"] > 0
    assert reading["peak_mb"] >= reading["base_mb"] > 0


@linux
@pytest.mark.parametrize("peer", ["submodlib", "apricot", "kmedoids"])
def test_child_measures_a_peer(peer: str) -> None:
    if find_spec(peer) is None:
        pytest.skip(f"needs pip install {solvers.PEERS[peer][0]}")
    job: dict[str, Any] = {"data": "residuals", "n": 200, "k": 20, "classes": 1, "seed": 0}
    theirs = common.run_child(selection.__file__, {"solver": peer, **job}, 1)
    ours = selection.child("ours", **job)
    assert theirs["cost"] == pytest.approx(ours["cost"], rel=0.05)
    assert theirs["seconds"] > 0
    assert theirs["others"] >= 0


@linux
def test_run_child_reads_the_last_line_and_limits_the_threads(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "print('chatter')\n"
        "print(json.dumps({**json.loads(sys.argv[2]), 'omp': int(os.environ['OMP_NUM_THREADS'])}))"
    )
    reading = common.run_child(str(script), {"n": 7}, 3)
    assert (reading["n"], reading["omp"]) == (7, 3)
    assert reading["others"] >= 0


@linux
def test_run_child_says_why_it_failed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('no such thing')")
    with pytest.raises(RuntimeError, match=r"status 1:\nno such thing"):
        common.run_child(str(script), {}, 1)


def test_feedback_reads_every_rule_in_every_round() -> None:
    bench = feedback.Bench(feedback.Size(n=60, batch=8, side=8), torch.device("cpu"))
    assert bench.size.steps == 8
    assert {len(batch.index) for batch in bench.batches} == {8}
    before = {name: sampler.table.visits.sum() for name, sampler in bench.samplers.items()}
    rounds = [bench.round(steps=2, looped=1) for _ in range(2)]
    for measured in rounds:
        assert measured.report.keys() == measured.set_epoch.keys() == feedback.RULES.keys()
        seconds = [*measured.report.values(), *measured.set_epoch.values(), measured.step]
        assert min(*seconds, measured.loop, measured.loop_reporting) > 0
    for name, sampler in bench.samplers.items():
        reported = 2 * (2 + (name == feedback.LOOPED))
        assert sampler.table.visits.sum() > before[name] + (reported - 1) * 6
        memory = sampler.table.state_dict()["memory"]
        assert not memory or (memory["visits"] > 5).all()
        assert sampler.epoch == 2
    rows = {row.rule: row for row in feedback.summarise(bench, rounds)}
    assert rows.keys() == feedback.RULES.keys()
    assert rows["influence loss"].state_bytes == 60 * 22
    assert rows["influence kl"].state_bytes == 60 * (18 + 2 * 10)
    assert rows["constant"].state_bytes == 0
    for name, row in rows.items():
        shares = sorted(r.report[name] / r.step for r in rounds)
        assert (row.report_share.min, row.report_share.max) == (shares[0], shares[1])
        epochs = [r.set_epoch[name] / (8 * r.step) for r in rounds]
        assert row.set_epoch_share.median == pytest.approx(sum(epochs) / 2)
        assert name in str(row)
    assert common.device_name(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("workers", ["0", "2 fork"])
def test_loaders_take_turns_and_are_compared_in_samples_per_second(workers: str) -> None:
    found = loader.load(loader.in_memory(100), loader.IN_MEMORY, workers, rounds=2, batch=20)
    assert (found.data, found.workers) == (loader.IN_MEMORY, workers)
    assert found.rates.keys() == {"plain", "hand", "wrap"}
    assert {len(rates) for rates in found.rates.values()} == {2}
    assert found.ratio("plain") == common.Spread(1.0, 1.0, 1.0)
    pairs = zip(found.rates["wrap"], found.rates["plain"], strict=True)
    low, high = sorted(ours / plain for ours, plain in pairs)
    assert found.ratio("wrap") == common.Spread((low + high) / 2, low, high)
    assert str(found).count("handles") == 3
    if workers == "0":
        assert {*found.batch_bytes.values(), *found.handles.values()} == {0}
    else:
        pixels = 20 * 3 * 32 * 32
        assert found.handles == {"plain": 2, "hand": 0, "wrap": 0}
        assert all(pixels + 160 < size < pixels + 3000 for size in found.batch_bytes.values())


def test_a_rate_counts_samples_and_not_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    by = loader.loaders(loader.in_memory(30), "0", 8)
    assert {which: sum(len(x[0]) for x in each) for which, each in by.items()} == {
        "plain": 30,
        "hand": 39,
        "wrap": 39,
    }
    times = iter([10.0, 13.0])
    monkeypatch.setattr(loader, "perf_counter", lambda: next(times))
    assert loader.rate(by["wrap"]) == 13


def test_what_is_transported() -> None:
    shared, value = torch.zeros(5, 8), torch.ones(3)
    size, handles = loader.transported([shared, {"a": value}])
    assert handles == 2
    assert 160 + 12 < size < 160 + 12 + 100
    assert loader.transported(Sample(value, 1, 2, 3, 4))[1] == 0


def test_image_files_are_written_or_taken_from_every_class(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        loader.write_images(tmp_path / "train", 40, 32, suffix)
    with loader.image_folder(tmp_path, 20, 32, "png") as data:
        assert len(data) == 20
        assert {label for _, label in data} == set(range(10))
        assert {(x.shape, x.dtype) for x, _ in data} == {((3, 32, 32), torch.uint8)}
    with loader.image_folder(None, 11, 224, "jpg") as data:
        assert len(data) == 11
        assert data[0][0].shape == (3, 224, 224)
        assert data[0][0].float().std() > 10


def test_the_smallest_ratio_is_of_all_workers_and_both_loaders() -> None:
    def found(data: str, workers: str, hand: float, wrapped: float) -> loader.Load:
        rates = {"plain": [1.0, 2.0, 4.0]}
        rates["hand"] = [hand * rate for rate in rates["plain"]]
        rates["wrap"] = [wrapped, wrapped * 2, wrapped * 40]  # the median leaves the last one out
        return loader.Load(data, workers, rates, dict.fromkeys(rates, 1), dict.fromkeys(rates, 1))

    loads = [
        found(loader.IN_MEMORY, "0", 3.0, 4.0),
        found(loader.IN_MEMORY, "2 fork", 2.5, 2.0),
        found(loader.FOLDER, "0", 0.98, 1.01),
        found(loader.JPEG, "0", 0.5, 0.5),
    ]
    summary = loader.loading_summary(loads)
    assert list(summary) == ["benchmark", "machine", "in_memory_ratio", "image_folder_ratio"]
    assert (summary["benchmark"], summary["machine"]) == ("loader", common.machine())
    assert (summary["in_memory_ratio"], summary["image_folder_ratio"]) == (2.0, 0.98)


SMALL = ["--tensors", "60", "--files", "20", "--jpegs", "10", "--device", "cpu", "--threads", "1"]


def test_loader_quick_ends_with_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loader, "WORKERS", ("0",))
    options = [*SMALL, "--quick", "--output", str(tmp_path)]
    run(loader, monkeypatch, *options)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(summary) == ["benchmark", "machine", "in_memory_ratio", "image_folder_ratio"]
    assert min(summary["in_memory_ratio"], summary["image_folder_ratio"]) > 0
    assert not list(tmp_path.iterdir())


def test_loader_records_both_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loader, "WORKERS", ("0",))
    monkeypatch.setattr(loader, "ROUNDS", 2)
    monkeypatch.setattr(feedback, "STEPS", 2)
    size = feedback.Size(n=60, batch=8, side=8)
    monkeypatch.setattr(feedback, "Size", lambda: size)
    run(loader, monkeypatch, *SMALL, "--output", str(tmp_path))
    record = json.loads((tmp_path / f"loader--{common.machine()}--cpu.json").read_text())
    assert record["summary"] == json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"in_memory_ratio", "image_folder_ratio", "report_share", "loop_overhead", "device"}
    assert keys < record["summary"].keys()
    rows = record["loading"]["rows"]
    assert [row["data"] for row in rows] == [loader.IN_MEMORY, loader.FOLDER, loader.JPEG]
    assert all(row["ratio"]["plain"]["median"] == 1 for row in rows)
    assert len(record["rows"]) == len(feedback.RULES)
    assert len(record["rounds"]) == 2
    assert record["environment"]["threads"] == 1


def test_noisy_digits_have_their_share_of_wrong_labels() -> None:
    data, wrong = ordering.noisy_digits(0, 500)
    again, _ = ordering.noisy_digits(0, 500)
    other, _ = ordering.noisy_digits(1, 500)
    assert int(wrong.sum()) == 100
    assert torch.equal(data.tensors[1], again.tensors[1])
    assert not torch.equal(data.tensors[0], other.tensors[0])
    bunch = load_digits()
    right = {
        image.tobytes(): label for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    for image, label, noisy in zip(*data.tensors, wrong, strict=True):
        key = (image[0].double() * 16).numpy().tobytes()
        assert (right[key] != label) == noisy


def test_strong_is_the_identity_at_strength_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 1, 8, 8, generator=generator)
    strength = torch.tensor([0.0, 0.0, 1.0, 0.3])
    out = ordering.strong(images, strength, generator)
    torch.testing.assert_close(out[:2], images[:2])
    assert all(not out[i].allclose(images[i], atol=1e-3) for i in (2, 3))


def test_share_of_ordered_pairs_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    variance, wrong = rng.integers(0, 9, 40), rng.random(40) < 0.3
    pairs = [(a > b) + (a == b) / 2 for a in variance[wrong] for b in variance[~wrong]]
    found = ordering.ordered(torch.from_numpy(variance), torch.from_numpy(wrong))
    assert found == pytest.approx(np.mean(pairs))


def test_ordering_trains_and_records_mean_and_spread() -> None:
    rule = StableInfluence("loss", window=2)
    first, again = (ordering.train(rule, 0, 3, 200) for _ in range(2))
    assert first == again
    assert first.keys() == {"minmax", "rank", "quantile", "ordered"}
    rows = ordering.run(seeds=1, epochs=1, limit=64)
    assert [(row.form, row.view) for row in rows] == [
        ("kl", "any"),
        ("kl", "clean"),
        ("loss", "any"),
        ("loss", "clean"),
    ]
    record = ordering.Row("loss", "any", [{"rank": 1.0}, {"rank": 3.0}]).record()
    assert record["rank"] == {"mean": 2, "std": 2**0.5, "median": 2, "min": 1, "max": 3}
    assert "+1.000" in str(ordering.Row("kl", "any", [{"rank": 1.0}]))


def check_line(line: dict[str, Any], keys: Iterable[str]) -> None:
    assert json.loads(json.dumps(line)) == line
    assert line.keys() == {"benchmark", "machine", *keys}
    assert (line["benchmark"], line["machine"]) == ("transform", common.machine())
    assert all(math.isfinite(line[key]) and line[key] > 0 for key in keys)


def test_transform_measures_ours_and_the_peers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for side in (8, 12):
        config = transform.Config(4, side, torch.get_num_threads())
        rows += transform.rows_of(config, transform.measure(config, rounds=2, seconds=1e-3))
    assert {row.policy for row in rows} == set(augmenters.POLICIES)
    assert {len(row.seconds) for row in rows} == {2}
    names = [row.name for row in rows if row.policy == "auto" and row.config.side == 8]
    assert names[0] == augmenters.OURS
    assert {augmenters.TENSOR, augmenters.PIL, augmenters.KORNIA, augmenters.FLOOR} <= set(names)
    check_line(transform.final(transform.summarise(rows, sides=(8, 12))), transform.KEYS)
    transform.report(rows)
    assert "4 x 3 x 12 x 12, cpu" in capsys.readouterr().out


def transform_row(policy: str, name: str, *seconds: float, side: int = 32) -> transform.Row:
    return transform.Row(transform.Config(8, side, 1), policy, name, seconds, (1.0, 2.0, 1.0))


def test_transform_names_the_worst_policy(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        transform_row(policy, name, *seconds, side=side)
        for side in (32, 224)
        for name in (augmenters.TENSOR, augmenters.PIL, augmenters.KORNIA)
        for policy, seconds in (("trivial", (9.0, 8.0, 3.0)), ("rand", (0.5, 9.0, 5.0)))
    ]
    assert rows[0].ratio() == common.Spread(4, 3, 9)
    assert rows[0].images_per_second() == 1
    rows.append(transform_row("auto", augmenters.KORNIA, 0.5, 9.0, 0.6))
    line = transform.summarise(rows)
    assert line == dict.fromkeys(transform.KEYS, 4.0) | {"speedup_kornia_32": 0.6}
    assert str(rows[-1]).endswith("0.60x [0.50, 4.50]  ours is slower")
    transform.report_summary("title", line)
    said = capsys.readouterr().out
    assert "4.00  goal 1.2x: met\n" in said
    assert "0.60  goal 2x: MISSED  ours is slower\n" in said


def test_transform_compares_with_the_copy_of_the_round() -> None:
    values = 8 * 3 * 32**2
    copy = 2 * augmenters.COPIED_BYTES / values  # seconds: one byte a value takes one second
    rows = [
        transform_row("trivial", augmenters.COPY, copy, 2 * copy, copy),
        transform_row("trivial", augmenters.whole_name(torch.uint8), 2.2, 8.8, 2.2),
        transform_row("trivial", augmenters.kernels_name(torch.float32), 10.4, 10.4, 52.0),
    ]
    whole, kernels = (
        transform.shares(rows, name) for name in (augmenters.whole_name, augmenters.kernels_name)
    )
    assert list(whole) == ["trivial, ours, uint8"]
    assert whole["trivial, ours, uint8"].median == pytest.approx(1)
    assert whole["trivial, ours, uint8"].min == pytest.approx(0.5)
    assert kernels["trivial, kernels alone, float32"].median == pytest.approx(0.5)


def test_transform_makes_images_that_use_all_levels() -> None:
    images = augmenters.make_images(4, 32)
    assert (images.shape, images.dtype) == ((4, 3, 32, 32), torch.uint8)
    assert torch.equal(images, augmenters.make_images(4, 32))
    assert len(images.unique()) > 200
    floats = augmenters.to_float(torch.tensor([0, 255], dtype=torch.uint8))
    assert floats.tolist() == pytest.approx([0, 1])


@pytest.mark.gpu
@pytest.mark.triton
def test_transform_measures_the_device() -> None:
    config = transform.Config(4, 32, 1, "cuda")
    rows = transform.rows_of(config, transform.measure(config, rounds=1, seconds=1e-3))
    line = transform.final(summary := transform.summarise_cuda(rows))
    check_line(line, summary)
    assert "speedup_kornia_gpu_224" in line


# scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["augloader", "numpy", "torch"])
def test_scores_draw_in_proportion(who: str) -> None:
    found: Any = scores.proportional(who, 50, 5)()
    chosen = found.indices if who == "augloader" else found
    assert len(set(chosen.tolist())) == 5


@pytest.mark.slow
@linux
def test_scores_measure_in_a_child() -> None:
    job = {"case": "kdpp", "size": [200, 16, 10], "who": "augloader"}
    reading = common.run_child(scores.__file__, job, 1)
    assert {"seconds", "peak_mb", "base_mb"} <= reading.keys()
    rows = scores.summarise([(job, [reading]), ({**job, "who": "dppy"}, [reading])])
    assert rows[1]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_scores_correlate_the_approximations_with_the_exact_influences() -> None:
    near = scores.correlations()
    assert near["exact"] == pytest.approx(1)
    assert 0.99 < near["kronecker"] < 1
    assert 0.98 < near["diagonal"] < 1


def test_save_names_script_machine_and_device(tmp_path: Path) -> None:
    path = common.save(tmp_path / "results", "selection", "cpu", {"a": 1})
    assert path.name == f"selection--{common.machine()}--cpu.json"
    assert path.read_text() == '{\n "a": 1\n}\n'


# train: by its path, for examples/train.py has the same name --------------------------------------


@pytest.fixture(scope="module")
def training() -> Any:
    """The benchmark's module; its dataclasses look it up by this name."""
    path = Path(common.__file__).with_name("train.py")
    spec = spec_from_file_location("train_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_train_ideals_at_30_percent(training: Any) -> None:
    assert [training.count(kind, 1.0) for kind in "abc"] == [6, 9, 23]
    assert [training.count(kind, 0.0) for kind in "abc"] == [3, 3, 3]
    found = [training.ideal(kind, 0.3) for kind in "abc"]
    assert found == pytest.approx([6 / 3.9, 9 / 4.8, 23 / 9])
    assert training.ideal("a", 0.3, swept=True) == pytest.approx(6 / 3.95)
    assert training.ideal("c", 0.3, backward=1.0) == pytest.approx((2 + 16) / (2 + 0.3 * 16))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_train_forwards_the_rows_that_are_counted(
    training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BATCH", 16)
    n, wanted = 120, training.cases(training.FRACTIONS)
    assert len(wanted) == 1 + 3 * 4
    bench = training.Bench(training.noise(n, side=8), wanted, torch.device("cpu"))
    bench.warm_up()
    rows: Counter[bool] = Counter()
    bench.model.register_forward_pre_hook(
        lambda _, given: rows.update({torch.is_grad_enabled(): len(given[0])})
    )
    for case in wanted:
        rows.clear()
        bench.train(case, 1)
        scored, trained = training.KINDS.get(case.kind, (0, 0))
        chosen = round(case.fraction * n)
        assert rows[False] == chosen * scored
        assert rows[True] == n + chosen * trained
        cost = training.count("a" if case.kind == "weak" else case.kind, case.fraction)
        assert rows[False] + 3 * rows[True] == pytest.approx(n * cost)


@pytest.mark.usefixtures("one_thread")
def test_train_consistency_is_of_the_chosen_rows(training: Any) -> None:
    bench = training.Bench(training.noise(6, side=8), [], torch.device("cpu"))
    bench.model.eval()  # so that rows do not depend on each other
    images, target = bench.images.images, bench.images.labels
    weight, plain = torch.arange(6.0), torch.zeros(6)
    batch = Sample(images, target, torch.arange(6), weight, plain, plain.long(), plain.long())
    losses = F.cross_entropy(bench.model(images), target, reduction="none")
    torch.testing.assert_close(bench.loss("b", batch), (losses * weight).mean())
    chosen = torch.tensor([1, 4])
    strong = batch._replace(strength=plain.index_fill(0, chosen, 1.0))
    outputs = [bench.model(images)[chosen]]
    for copied in (1, 2):
        keys = torch.tensor([[0, 1, copied], [0, 4, copied]])
        outputs.append(bench.model(bench.augmix(images[chosen], torch.ones(2), keys=keys)))
    losses[chosen] += 12 * training.jensen_shannon(*outputs)
    torch.testing.assert_close(bench.loss("b", strong), (losses * weight).mean())


def test_train_pairs_rounds_and_adds_a_share_of_the_selection(training: Any) -> None:
    full = (training.Reading(4.0), training.Reading(6.0), training.Reading(8.0))
    own = (training.Reading(1.5, 8.0, 2.0), training.Reading(4.0), training.Reading(2.0))
    assert [reading.epoch for reading in own] == [2, 4, 2]
    units = (training.Unit(300.0, 100.0), training.Unit(400.0, 200.0), training.Unit(600.0, 150.0))
    assert [unit.backward for unit in units] == [2, 1, 3]
    row = training.Row(training.Case("c", 0.3), own, full, units)
    record = row.record()
    assert record["speedup"] == {"median": 2.0, "min": 1.5, "max": 4.0}
    assert record["share_of_ideal"]["max"] == pytest.approx(4 / (23 / 9))
    best = [training.ideal("c", 0.3, backward) for backward in (2, 1, 3)]
    assert record["ideal_measured_unit"]["max"] == max(best)
    shares = sorted(speedup / ideal for speedup, ideal in zip((2, 1.5, 4), best, strict=True))
    assert record["share_of_measured_unit"]["median"] == pytest.approx(shares[1])
    assert "2.00 [1.50, 4.00]" in str(row)
    weak = training.Row(training.Case("weak", 0.0), own, own, units)
    assert "speedup" not in weak.record()
    assert str(weak).startswith("weak       2.00 [2.00, 4.00]")


@pytest.mark.slow
@linux
@pytest.mark.usefixtures("one_thread")
def test_train_ends_with_a_line_of_the_headline(
    training: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--images", "64", "--rounds", "1", "--device", "cpu"]
    training.main(["--quick", *size, "--output", str(tmp_path)])
    said = capsys.readouterr().out.splitlines()
    line = json.loads(said[-1])
    assert line.keys() == {"benchmark", "machine", "share_of_ideal_30", "speedup_30"}
    assert (line["benchmark"], line["machine"]) == ("train", common.machine())
    for kind in "abc":
        share = line["speedup_30"][kind] / training.ideal(kind, 0.3)
        assert line["share_of_ideal_30"][kind] == pytest.approx(share)
    record = json.loads((tmp_path / f"train-quick--{common.machine()}--cpu.json").read_text())
    assert (record["summary"], record["n"], record["rounds"]) == (line, 64, 1)
    assert record["data"] == "noise"
    assert [(row["kind"], row["fraction"]) for row in record["rows"]] == [
        ("weak", 0.0),
        *((kind, share) for kind in "abc" for share in (1.0, 0.3)),
    ]
    for row in record["rows"]:
        assert all(part["train"] > 0 for part in row["readings"])
        assert all((part["sweep"] > 0) == (row["fraction"] == 0.3) for part in row["readings"])


# imports ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_imports_are_timed_beside_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imports.main(["--other", str(imports.ROOT), "--rounds", "1", "--output", str(tmp_path)])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    (path,) = tmp_path.glob("imports--*--cpu.json")
    record = json.loads(path.read_text())
    assert record["summary"] == line
    assert {row["import"] for row in record["rows"]} == set(imports.IMPORTS.values())
    torch_alone, package, name = (row["this"]["median"] for row in record["rows"])
    assert package < min(torch_alone, name)
