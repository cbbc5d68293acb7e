"""The example of per-sample strength runs, on digits and on an image folder."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))  # as for a script: it imports its neighbour
    spec = importlib.util.spec_from_file_location(
        "adaptive_strength", FOLDER / "adaptive_strength.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "adaptive_strength", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "transformed_views", lambda images: [images.flip(-1)])  # of 24
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["adaptive_strength.py", *options])
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


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
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 12), ("test", 4)):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(tmp_path / part / label / f"{i}.png")
    options = ("--data", str(tmp_path), "--images", "20", "--epochs", "1", "--seeds", "1")
    run(example, monkeypatch, *options, "--output", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").exists()
