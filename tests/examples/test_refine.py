"""The example of refinement runs, on digits and on an image folder."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
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
        assert [len(one[key]) for one in of for key in example.CURVES] == [4] * 8
    for whole, refined in zip(*recorded.values(), strict=True):
        for key in (*example.CURVES, "accuracy"):
            # The same training until the switch, another one after it.
            assert whole[key][:2] == refined[key][:2]
        assert whole["objective"][2:] != refined["objective"][2:]


def test_image_folder(example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image_folder(tmp_path, train=40, test=4)
    options = ("--data", str(tmp_path), "--images", "70", "--epochs", "1", "--refined", "1")
    run(example, monkeypatch, *options, "--seeds", "1", "--output", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").exists()


def test_the_rate_at_the_switch_is_kept(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates: list[float] = []

    class Noted(torch.optim.SGD):
        def step(self, *args: Any, **given: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args, **given)

    monkeypatch.setattr(torch.optim, "SGD", Noted)
    options = ("--images", "64", "--epochs", "8", "--refined", "4", "--seeds", "1")
    run(example, monkeypatch, *options, "--output", str(tmp_path / "out.png"))
    expected = [0.1] * 5 + [0.01] * 7  # one batch an epoch, two trainings
    assert rates == pytest.approx(expected * 2)
