"""How cost grows: every part is measured on a few samples, and the line of JSON is whole."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import parts
import scale

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

FEW: dict[str, dict[str, Any]] = {
    "first draw": {"n": 300},
    "epoch": {"n": 300},
    "rank": {"n": 640},
    "report": {"n": 600},
    "refresh": {"n": 300},
    "selection": {"n": 400, "share": 0.1},
    "mapped": {"n": 2000},
    "classes": {"n": 2000},
    "influence": {"n": 600},
    "k-DPP": {"n": 600},
    "sweep": {"n": 600},
    "pass": {"n": 40},
    "erasing": {"n": 16},
    "policies": {"n": 16},
    "threads": {"n": 4},
    "mixing": {"n": 128},
    "candidates": {"n": 16},
}


@pytest.mark.parametrize("part", FEW)
def test_parts_are_measured(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "REPEATS", 2)
    reading = parts.PARTS[part](**FEW[part])
    assert all(math.isfinite(value) for value in reading.values())


def test_every_part_is_asked_for() -> None:
    small, quick, large = ({job["part"] for job in scale.jobs(s)} for s in ("", "quick", "large"))
    assert small | large == parts.PARTS.keys()
    assert quick < small
    assert not large & small
    assert FEW.keys() | {"import"} == parts.PARTS.keys()


def rows_of(part: str, seconds: dict[int, float]) -> list[dict[str, Any]]:
    return [
        {"job": {"part": part, "n": n}, "readings": [{"seconds": s, "peak_mb": 5, "base_mb": 3}]}
        for n, s in seconds.items()
    ]


def test_slopes_are_exponents() -> None:
    rows = rows_of("report", {100: 1.0, 1000: 10.0, 10_000: 1000.0})
    assert scale.slope(rows, "seconds") == [1.0, 2.0]


def test_the_line_has_what_was_measured() -> None:
    line = scale.summary(rows_of("first draw", {10**7: 0.004}))
    assert line["first_draw_ms_1e7"] == 4
    assert line["first_draw_mb_1e7"] == 2
    assert line.keys() == {"benchmark", "machine", "first_draw_ms_1e7", "first_draw_mb_1e7"}
    line = scale.summary(rows_of("mapped", {10**7: 60.0}))
    assert (line["select_seconds_1e7"], line["select_mb_1e7"]) == (60, 2)
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_growth_is_drawn(tmp_path: Path) -> None:
    rows = rows_of("report", {100: 1.0, 1000: 10.0}) + rows_of("first draw", {100: 1.0})
    scale.figure(rows, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 1000
