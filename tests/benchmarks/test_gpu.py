"""The script for a machine with a GPU: its steps, and that none takes another down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from augloader.augment.pixels import fused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
PYTHON = """#!/usr/bin/env bash
echo "$@" >>"$CALLS"
case "$*" in *"$FAILS"*) echo broken; exit 3 ;; esac
echo '{"fine": true}'
"""
SANITIZER = """#!/bin/sh
shift 4
exec "$@"
"""


def call(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"OUT": str(tmp_path / "out"), "CALLS": str(tmp_path / "calls")}
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=given | environment, capture_output=True, text=True)


def faked(tmp_path: Path, *words: str, fails: str, **environment: str) -> Any:
    """Call the script with a python that does nothing, but for one step that fails."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in (("python3", PYTHON), ("compute-sanitizer", SANITIZER)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    return call(tmp_path, *words, PATH=path, FAILS=fails, **environment)


def steps(tmp_path: Path) -> dict[str, int]:
    lines = (tmp_path / "out" / "steps.jsonl").read_text().splitlines()
    return {line["step"]: line["rc"] for line in map(json.loads, lines)}


@pytest.mark.parametrize("fails", ["no step", "-m pytest", "benchmarks/kernels.py"])
def test_a_check_takes_all_steps_and_tells_which_failed(tmp_path: Path, fails: str) -> None:
    done = faked(tmp_path, "check", fails=fails)
    broken = {"-m pytest": "tests", "benchmarks/kernels.py": "kernels"}.get(fails)
    names = ("versions", "tests", "kernels", "selection", "transform")
    assert steps(tmp_path) == {name: 3 * (name == broken) for name in names}
    assert done.returncode == (broken is not None)
    assert (f"Failed: {broken}." if broken else "All went well") in done.stdout
    out = tmp_path / "out"
    assert {path.stem for path in out.glob("*.json")} == {*names} - {broken}
    asked = (tmp_path / "calls").read_text()
    for words in ("gpu or triton", "selection.py --gpu", "transform.py --quick --device cuda"):
        assert words in asked


def test_training_takes_what_is_given_and_wheels_are_installed(tmp_path: Path) -> None:
    done = faked(tmp_path, "train", fails="no step")
    assert "DATA must be a folder" in done.stdout
    assert done.returncode == 1
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "kornia-1.whl").touch()
    given = {"DATA": str(tmp_path / "data"), "WHEELS": str(tmp_path / "wheels")}
    done = faked(tmp_path, "train", fails="no step", **given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [*steps(tmp_path)][-4:] == ["versions", "loader", "wheels", "table4"]
    asked = (tmp_path / "calls").read_text()
    assert "--no-index" in asked
    assert "papers.py table4" in asked
    assert "loader.py --device cuda" in asked


def test_what_is_not_known_is_refused_with_the_usage(tmp_path: Path) -> None:
    for words in ((), ("all",), ("check", "--wet")):
        done = call(tmp_path, *words)
        assert done.returncode == 2
        assert "benchmarks/gpu.sh check" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_it_fails_unless_dry(tmp_path: Path) -> None:
    for words, rc in (((), int(not torch.cuda.is_available())), (("--dry",), 0)):
        done = call(tmp_path, "check", *words, STEPS="versions", PYTHON=sys.executable)
        assert done.returncode == rc, done.stdout + done.stderr
        assert steps(tmp_path) == {"versions": rc}
    assert "torch" in json.loads((tmp_path / "out" / "versions.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(not fused.available(), reason="needs Triton")
def test_the_kernels_are_compared_dry(tmp_path: Path) -> None:
    done = call(tmp_path, "check", "--dry", STEPS="kernels", PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "out" / "kernels.json").read_text())["wrong"] == []
