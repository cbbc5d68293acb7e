"""The example of a loss over samples and their copies: its divergence, and that it runs."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon

from tests.scripts import EXAMPLES, image_folder, load, run


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    module = load("augmix")
    monkeypatch.setattr(module, "transformed_views", lambda images: [images.flip(-1)])  # of 24
    return module


def test_divergence_is_scipys_for_two_and_zero_for_equal_outputs(example: ModuleType) -> None:
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)).unbind()
    found = example.jensen_shannon(a, b)
    expected = jensenshannon(a.softmax(1).numpy(), b.softmax(1).numpy(), axis=1) ** 2
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(example.jensen_shannon(a, a, a), torch.zeros(5))
    assert example.jensen_shannon(a[:0], b[:0]).shape == (0,)
    c = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    mean = torch.stack([part.softmax(1) for part in (a, b, c)]).mean(0)
    parts = [F.kl_div(mean.log(), one.softmax(1), reduction="none").sum(1) for one in (a, b, c)]
    torch.testing.assert_close(example.jensen_shannon(a, b, c), torch.stack(parts).mean(0))


@pytest.mark.slow
def test_digits(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "out.json"
    options = ("--images", "80", "--epochs", "2", "--seeds", "2", "--json", str(figures))
    run(example, monkeypatch, *options)
    printed = capsys.readouterr().out
    recorded = json.loads(figures.read_text())["runs"]
    assert set(recorded) == set(example.METHODS)
    for name, of in recorded.items():
        assert name in printed
        assert all(0 <= one[key] <= 1 for one in of for key in ("clean", "transformed"))


def test_image_folder(example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image_folder(tmp_path, train=12, test=4)
    options = ("--data", str(tmp_path), "--images", "20", "--epochs", "2", "--seeds", "1")
    run(example, monkeypatch, *options)
