"""The example of per-sample strength runs, on digits and on an image folder."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.scripts import EXAMPLES, image_folder, load, run


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbour
    module = load("adaptive_strength")
    monkeypatch.setattr(module, "transformed_views", lambda images: [images.flip(-1)])  # of 24
    return module


@pytest.mark.slow
def test_digits(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, figures = tmp_path / "out.png", tmp_path / "out.json"
    options = ("--images", "40", "--epochs", "2", "--seeds", "2", "--output", str(picture))
    run(example, monkeypatch, *options, "--json", str(figures))
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    printed = capsys.readouterr().out
    recorded = json.loads(figures.read_text())
    assert set(recorded["runs"]) == set(example.RULES)
    for name, of in recorded["runs"].items():
        assert name in printed
        assert len(of) == 2
        for one in of:
            assert 0 <= one["clean"] <= 1
            assert 0 <= one["transformed"] <= 1
            assert len(one["mean_strength"]) == 2
    fixed = recorded["runs"]["fixed 1/2"][0]["mean_strength"]
    assert fixed == [0.5] * 2
    adaptive = [one["mean_strength"] for one in recorded["runs"]["loss rank"]]
    assert all(abs(value - 0.5) < 0.15 for means in adaptive for value in means)


def test_image_folder(example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image_folder(tmp_path, train=12, test=4)
    options = ("--data", str(tmp_path), "--images", "20", "--epochs", "1", "--seeds", "1")
    run(example, monkeypatch, *options, "--output", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").exists()
