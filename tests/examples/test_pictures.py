"""The example of all pictures runs, on digits and on an image folder, and logs."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tests.scripts import EXAMPLES, image_folder, load, run

NAMES = {"medoids", "coverage", "strengths", "ladder", "turnover"}
NAMES |= {"evolution", "extremes", "scores", "drift"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    return load("pictures")


def test_digits(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "new" / "folder"
    options = ("--images", "80", "--epochs", "3", "--refresh", "1", "--output", str(folder))
    run(example, monkeypatch, *options)
    assert {path.stem for path in folder.iterdir()} == NAMES
    for path in folder.iterdir():
        with Image.open(path) as drawn:
            assert min(drawn.size) > 250
    printed = capsys.readouterr().out
    assert "CoresetSampler of 80 samples by FacilityLocation" in printed
    assert "epoch      2, of 3" in printed
    assert "were selected before" in printed
    assert printed.count("picture: ") == 9


def test_image_folder_with_one_selection_and_logs(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    image_folder(tmp_path, train=12, test=4)
    logs, folder = tmp_path / "logs", tmp_path / "out"
    options = ("--data", str(tmp_path), "--images", "20", "--epochs", "1", "--log", str(logs))
    run(example, monkeypatch, *options, "--output", str(folder))
    assert {path.stem for path in folder.iterdir()} == NAMES - {"turnover"}
    assert len(list(logs.iterdir())) == 1


def test_logs_without_tensorboard_say_what_to_install(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SystemExit, match="pip install tensorboard"):
        run(example, monkeypatch, "--images", "40", "--epochs", "1", "--log", str(tmp_path / "l"))
