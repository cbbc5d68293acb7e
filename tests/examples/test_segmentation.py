"""The example of segmentation: its masks, its proxies, and that it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augloader import CoresetSampler, Selection
from tests.scripts import EXAMPLES, load, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    return load("segmentation")


@pytest.mark.slow
def test_it_runs(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "out.json"
    options = ("--images", "48", "--epochs", "2", "--seeds", "2", "--json", str(figures))
    run(example, monkeypatch, *options)
    printed = capsys.readouterr().out
    recorded = json.loads(figures.read_text())["runs"]
    assert set(recorded) == set(example.METHODS)
    for name, of in recorded.items():
        assert name in printed
        assert len(of) == 2
        assert all(0 < one[key] < 1 for one in of for key in ("clean", "transformed"))


def test_a_refresh_makes_no_forward_pass(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, selected = [0], list[Selection]()
    forward: Callable[[nn.Sequential, Tensor], Tensor] = nn.Sequential.forward
    refresh = CoresetSampler.refresh

    def counted(self: nn.Sequential, x: Tensor) -> Tensor:
        passes[0] += 1
        return forward(self, x)

    def noted(self: CoresetSampler) -> Selection:
        before = passes[0]
        selected.append(refresh(self))
        assert passes[0] == before
        return selected[-1]

    monkeypatch.setattr(nn.Sequential, "forward", counted)
    monkeypatch.setattr(CoresetSampler, "refresh", noted)
    images, masks = example.shapes(40, seed=0)
    example.train((images, masks), "coreset 30 %", epochs=2, seed=0)
    assert passes[0] == 2 + 2  # 40 draws, and 52 with the copies, in batches of 32
    (selection,) = selected
    assert len(selection) == 12
    groups = example.largest(masks)
    assert (groups[selection.indices].bincount(minlength=3) > 0).all()


def test_what_is_drawn_is_in_the_mask(example: ModuleType) -> None:
    images, masks = example.shapes(20, seed=0)
    assert (images.shape, images.dtype) == ((20, 3, 48, 48), torch.uint8)
    assert masks.unique().tolist() == [0, 1, 2, 3]
    assert images.movedim(1, -1)[masks == 0].max() <= 0.5 * 255 + 1
    again = example.shapes(20, seed=0)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], masks)
    counts = [np.bincount(mask.flatten().numpy(), minlength=4)[1:] for mask in masks]
    assert example.largest(masks).tolist() == [int(count.argmax()) for count in counts]


def test_proxies_are_residuals_summed_by_class(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    masks = torch.randint(0, 4, (3, 5, 6), generator=generator)
    found = example.pooled_residual(logits, masks)
    residuals = logits.softmax(1) - F.one_hot(masks, 4).movedim(-1, 1)
    for i in range(3):
        for k in range(4):
            expected = residuals[i][:, masks[i] == k].sum(1) / 30
            torch.testing.assert_close(found[i, 4 * k : 4 * k + 4], expected)


def test_masks_of_transformed_images_move_along(example: ModuleType) -> None:
    _, masks = example.shapes(4, seed=0)
    drawn = (masks > 0).to(torch.uint8).mul(100).unsqueeze(1).expand(-1, 3, -1, -1)
    images, moved = example.transformed(drawn, masks)
    assert len(images) == len(moved) == 16
    still = images[:8, 0] == 100 * (moved[:8] > 0)  # of rotated and shifted ones
    assert still.float().mean() > 0.99
    assert torch.equal(moved[8:], masks.repeat(2, 1, 1))


@pytest.mark.parametrize("wrong", [0, 1])
def test_mean_iou_is_the_definition(example: ModuleType, wrong: int) -> None:
    images, masks = example.shapes(6, seed=0)
    guesses = torch.where((torch.arange(48) < 10) & (wrong > 0), 1, masks)

    class Knows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.one_hot(guesses, 4).movedim(-1, 1).float()

    shares = []
    for k in range(4):
        a, b = masks == k, guesses == k
        shares.append(float((a & b).sum() / (a | b).sum()))
    assert example.mean_iou(Knows(), images, masks) == pytest.approx(sum(shares) / 4)
    assert (sum(shares) == 4) == (wrong == 0)
