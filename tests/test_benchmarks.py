"""The pure parts of the benchmarks against brute force, and one timed child of each kind."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import selection

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


def test_residuals_are_those_of_one_class() -> None:
    g = selection.residuals(np.random.default_rng(0), 300)
    assert g.shape == (300, 10)
    assert g.dtype == torch.float32
    assert g.sum(1).abs().max() < 1e-6
    assert (g[:, 0] < 0).all()
    assert (g[:, 1:] > 0).all()


@pytest.mark.parametrize("data", ["residuals", "mixture", "outer"])
def test_data_depend_on_the_seed_alone(data: str) -> None:
    first, again, other = (selection.make(data, 20, seed).gradient for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("data", ["residuals", "outer"])
def test_costs_equal_brute_force(data: str) -> None:
    proxies = selection.make(data, 30, 0)
    chosen = [4, 9, 20]
    x = proxies.gradient.double().numpy()
    if proxies.features is not None:
        x = np.stack([np.kron(g, h) for g, h in zip(x, proxies.features.numpy(), strict=True)])
    distances = np.array([[np.sqrt(((a - x[j]) ** 2).sum()) for j in chosen] for a in x])
    cost = distances.min(1).sum()
    assert selection.objective(proxies, torch.tensor(chosen)) == pytest.approx(cost, rel=1e-12)
    medoid = torch.tensor(chosen)[torch.from_numpy(distances.argmin(1))]
    assert selection.total_distance(proxies, medoid) == pytest.approx(cost, rel=1e-12)


def test_assignments_agree() -> None:
    proxies = selection.make("residuals", 400, 0)
    ours, theirs = (
        assign(proxies, 50) for assign in (selection.assign_ours, selection.assign_cdist)
    )
    cost = selection.total_distance(proxies, ours)
    assert cost == pytest.approx(selection.objective(proxies, torch.arange(50)), rel=1e-9)
    assert cost == pytest.approx(selection.total_distance(proxies, theirs), rel=1e-4)


def test_row_compares_round_by_round() -> None:
    def reading(seconds: float, cost: float, peak: float) -> common.Reading:
        return {"seconds": seconds, "cost": cost, "base_mb": 10.0, "peak_mb": peak, "others": 0.0}

    case = selection.Case("residuals", 100, 10, ("ours", "submodlib"))
    rounds = [
        [reading(1, 10, 15), reading(20, 10, 50)],
        [reading(2, 11, 12), reading(60, 10, 40)],
        [reading(1, 9, 11), reading(25, 10, 40)],
    ]
    row = selection.Row(case, rounds)
    assert row.ratio() == common.Spread(25, 20, 30)
    assert row.error().max == pytest.approx(0.1)
    assert row.error().min == pytest.approx(-0.1)
    assert (row.peak(0), row.added(0), row.added(1)) == (15, 5, 40)
    assert "25.0x [20.0, 30.0]" in str(row)
    assert row.record()["solved"]["submodlib"]["readings"] == [b for _, b in rounds]


@linux
def test_child_measures_ours() -> None:
    reading = selection.child("ours", "residuals", 200, 20, 0)
    chosen = selection.select_ours(selection.make("residuals", 200, 0), 20)
    cost = selection.objective(selection.make("residuals", 200, 0), chosen)
    assert reading["cost"] == cost
    assert reading["seconds"] > 0
    assert reading["peak_mb"] >= reading["base_mb"] > 0


@linux
@pytest.mark.skipif(find_spec("submodlib") is None, reason="needs pip install submodlib-py")
def test_child_measures_submodlib() -> None:
    job = {"solver": "submodlib", "data": "residuals", "n": 200, "k": 20, "seed": 0}
    peer = common.run_child(selection.__file__, job, 1)
    ours = selection.child("ours", "residuals", 200, 20, 0)
    assert peer["cost"] == pytest.approx(ours["cost"], rel=0.05)
    assert peer["seconds"] > 0
    assert peer["others"] >= 0


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


def test_save_names_script_machine_and_device(tmp_path: Path) -> None:
    path = common.save(tmp_path / "results", "selection", "cpu", {"a": 1})
    assert path.name == f"selection--{common.machine()}--cpu.json"
    assert path.read_text() == '{\n "a": 1\n}\n'
