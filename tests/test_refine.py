"""The example of refinement runs, on digits and on an image folder."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.scripts import EXAMPLES, image_folder, load, run


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    return load("refine")


def test_digits(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, figures = tmp_path / "out.png", tmp_path / "out.json"
    options = ("--images", "128", "--epochs", "2", "--refined", "2", "--seeds", "2")
    run(example, monkeypatch, *options, "--output", str(picture), "--json", str(figures))
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    printed = capsys.readouterr().out
    recorded = json.loads(figures.read_text())["runs"]
    assert set(recorded) == {"augmented to the end", "refined"}
    for name, of in recorded.items():
        assert name in printed
        assert [len(one[key]) for one in of for key in ("augmented", "clean", "test")] == [4] * 6
    for whole, refined in zip(*recorded.values(), strict=True):
        for key in ("augmented", "clean", "test", "accuracy"):
            # The same training until the switch, another one after it.
            assert whole[key][:2] == refined[key][:2]
        assert whole["augmented"][2:] != refined["augmented"][2:]


def test_image_folder(example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image_folder(tmp_path, train=40, test=4)
    options = ("--data", str(tmp_path), "--images", "70", "--epochs", "1", "--refined", "1")
    run(example, monkeypatch, *options, "--seeds", "1", "--output", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").exists()
