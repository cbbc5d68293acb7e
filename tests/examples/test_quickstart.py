"""The quickstart runs, on digits and on an image folder, and says what it measured."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from tests.scripts import load, run


@pytest.fixture
def quickstart() -> ModuleType:
    return load("quickstart")


@pytest.mark.slow
def test_digits(
    quickstart: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    views = quickstart.transformed_views

    def few(images: torch.Tensor) -> list[torch.Tensor]:
        whole: list[torch.Tensor] = views(images)
        assert len(whole) == 24
        return whole[::8]

    monkeypatch.setattr(quickstart, "transformed_views", few)
    picture = tmp_path / "q.png"
    options = ("--epochs", "4", "--seeds", "2", "--images", "120", "--wrong", "0.25")
    run(
        quickstart,
        monkeypatch,
        *options,
        "--output",
        str(picture),
        "--json",
        str(tmp_path / "q.json"),
    )
    out = capsys.readouterr().out
    for name in quickstart.METHODS:
        assert f"\n{name}" in out
    assert "120 training images, 30 of them with a wrong label, 1677 clean and 5031 " in out
    assert "small losses 60 % against random 60 %" in out
    runs = json.loads((tmp_path / "q.json").read_text())["runs"]
    assert [len(of) for of in runs.values()] == [2] * 5
    rows = {name: of[0]["rows"] for name, of in runs.items()}
    assert rows["copies appended"] == rows["in place"] == rows["weak only"] == 480
    assert 400 < rows["small losses 60 %"] == rows["random 60 %"] < 560
    with Image.open(picture) as drawn:
        assert drawn.size == (1560, 660)


def test_image_folder(
    quickstart: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(12):
                pixels = torch.randint(256, (20, 16, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(tmp_path / part / name / f"{i}.png")
    options = ("--data", str(tmp_path), "--size", "16", "--epochs", "1", "--seeds", "1")
    run(quickstart, monkeypatch, *options, "--output", str(tmp_path / "q.png"))
    out = capsys.readouterr().out
    assert "24 training images, 7 of them with a wrong label, 24 clean" in out
    assert "no verdict" in out
    assert (tmp_path / "q.png").exists()
