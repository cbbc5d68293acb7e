"""The benchmark of ``cost``: its parts by hand, and a small run from the command line."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import common
import pays

from augloader import CoresetSampler, FacilityLocation, Uniform
from tests.scripts import run

PARTS = pays.Parts(
    step=2.0, load=1.0, strong=3.0, sweep=0.5, select=10.0, start=7.0, step_cores=0.5
)


def test_images_are_smooth_and_as_large_as_said(tmp_path: Path) -> None:
    pays.write_images(tmp_path, 12)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 12
    assert {path.parent.name for path in files} == set(map(str, range(10)))
    sizes = []
    for path in files:
        with Image.open(path) as image:
            sizes.append(image.size)
    assert {min(size) for size in sizes} == {256}
    assert all(256 <= max(size) <= 341 for size in sizes)
    assert len(set(sizes)) > 4


def test_draws_of_the_settings() -> None:
    with pays.image_folder(20) as images:
        bench = pays.Bench(images, pays.PLACES[:1])
        found = {}
        for setting in pays.SETTINGS:
            sampler = bench.sampler(setting)
            if setting == pays.CORESET:
                continue
            draws = list(sampler)
            found[setting] = len(draws), sum(draw.strength > 0 for draw in draws)
        batch = next(iter(bench.loader(bench.sampler("all in place"), 0)))
    assert batch.input.shape == (16, 3, 224, 224)
    assert batch.input.dtype == torch.uint8
    assert found == {
        "nothing strong": (20, 0),
        "all in place": (20, 20),
        "half in place": (20, 10),
        "30 % in place": (20, 6),
        "all appended": (40, 20),
        "30 % appended": (26, 6),
        "30 % appended to half": (16, 6),
        "30 % alone": (6, 6),
    }


@pytest.mark.parametrize("setting", ["30 % in place", pays.CORESET])
def test_a_prediction_passes_the_parts_on(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pays, "CORES", 2)
    chosen = CoresetSampler(range(100), Uniform(), **pays.SETTINGS[setting])
    if setting == pays.CORESET:
        chosen.strategy = FacilityLocation()
    selecting = (100 * 0.5 + 10) / pays.REFRESH if setting == pays.CORESET else 0
    alone = pays.predict(chosen, pays.Place("", 0, width=1), replace(PARTS, start=0.0))
    assert alone.epoch == pytest.approx(200 + 100 + 90 + selecting)
    shared = pays.predict(chosen, pays.Place("", 2, width=1), PARTS)
    assert shared.epoch == pytest.approx(7 + 200 + selecting)
    assert shared.limit == "device"


def row(setting: str, predicted: list[float], measured: list[float]) -> pays.Row:
    return pays.Row(pays.PLACES[0], setting, "loader", 60, predicted, measured)


def test_ratios_are_taken_round_by_round() -> None:
    found = row("all in place", [1.0, 2.0, 4.0], [1.1, 2.0, 3.0])
    assert found.ratio == common.Spread(1.0, 0.75, 1.1)
    record = found.record()
    assert record["images_per_second"]["median"] == 30
    assert record["place"]["workers"] == 0
    assert "2.00 s" in str(found)
    line = pays.final([found, row("half in place", [1.0], [1.2])])
    assert (line["least_ratio"], line["largest_ratio"]) == (1.0, 1.2)
    assert (line["within_goal"], line["settings"]) == (1, 2)


def test_parts_are_medians() -> None:
    others = [replace(PARTS, load=load) for load in (1.0, 5.0, 2.0)]
    assert pays.Parts.middle(others) == replace(PARTS, load=2.0)


@pytest.mark.slow
def test_pays_records_parts_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pays, "PLACES", (pays.PLACES[0], pays.Place("own", 1, wait=1e-4)))
    monkeypatch.setattr(pays, "TIMES", 1)
    run(pays, monkeypatch, "--quick", "--images", "32", "--output", str(tmp_path))
    record = json.loads((tmp_path / f"pays-quick--{common.machine()}--cpu.json").read_text())
    assert record["summary"] == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["summary"]["settings"] == len(record["rows"]) == 6
    assert [part["place"] for part in record["parts"]] == [pays.PLACES[0].name, "own"]
    assert all(part["step"]["median"] > 0 for part in record["parts"])
    assert record["parts"][0]["start"]["median"] == 0 < record["parts"][1]["start"]["median"]
    for found in record["rows"]:
        assert min(*found["predicted"], *found["measured"]) > 0
        assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]


def test_the_table_of_the_document_is_that_on_record() -> None:
    folder = Path(pays.__file__).parent
    text = (folder / "README.md").read_text()
    record = json.loads((folder / "results" / "pays--intel-xeon-2c--cpu.json").read_text())
    rows = {(row["place"]["name"], row["setting"]): row for row in record["rows"]}
    settings = ("all in place", "30 % in place", "all appended", "30 % appended")
    for place in dict.fromkeys(name for name, _ in rows):
        cells = []
        for setting in settings:
            row = rows[place, setting]
            said, took = median(row["predicted"]), median(row["measured"])
            cells.append(f"{said:.2f} s, {took:.2f} s, {row['ratio']['median']:.2f}")
        assert f"| {place} | {' | '.join(cells)} |" in text
    summary = record["summary"]
    assert f"{summary['within_goal']} of {summary['settings']} median ratios are within" in text
