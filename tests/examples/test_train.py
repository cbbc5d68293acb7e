"""The example examples/train.py, imported by path and run over a tiny image folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scripts import EXAMPLES, load

SCRIPT = EXAMPLES / "train.py"
TIMES = ("sweep_s", "select_s", "train_s", "eval_s")


sys.path.append(str(EXAMPLES))  # as for a script: it imports its neighbour
cifar: Any = load("cifar")
example: Any = load("train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12 training and 4 test images, 16 x 16, each class of one brightness."""
    root: Path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for level, name in enumerate(("ape", "bee", "cat")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(80 * level, 80 * level + 80, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def _isolated() -> Any:
    """The script seeds torch's global generator; give it back."""
    with torch.random.fork_rng(devices=[]):
        yield


def run(folder: Path, *options: str) -> Any:
    small = ["--size", "16", "--batch", "9", "--epochs", "2", "--lr", "0.01"]
    refresh = [] if "--strategy none" in " ".join(options) else ["--refresh", "1"]
    return example.main(["--data", str(folder), "--device", "cpu", *small, *refresh, *options])


def curve(result: Any) -> list[dict[str, Any]]:
    """Return the records of the epochs but for the clock."""
    return [{k: v for k, v in r.items() if k not in TIMES} for r in result["epochs"]]


def network(arch: str, classes: int = 10) -> Any:
    return cifar.ResNet(cifar.DEPTHS[arch], classes, torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize("arch", ["resnet20", "resnet32", "resnet56"])
def test_parameters_are_those_of_the_paper(arch: str) -> None:
    n = cifar.DEPTHS[arch]
    count = 9 * 3 * 16 + 2 * 16  # the first convolution and its batch norm
    for width_in, width in ((16, 16), (16, 32), (32, 64)):
        count += 9 * width_in * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
    count += 64 * 10 + 10
    found = sum(p.numel() for p in network(arch).parameters())
    assert found == count
    assert arch != "resnet20" or found == 269_722


def test_layers_are_those_of_the_paper() -> None:
    model = network("resnet20").eval()
    shapes = []
    for block in model.body:
        block.register_forward_hook(lambda _m, _x, y: shapes.append(tuple(y.shape[1:])))
    assert model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 10)
    assert shapes[3:] == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    weighted = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(weighted) == 20


def test_shortcut_subsamples_and_pads_without_parameters() -> None:
    block = cifar.Block(16, 32).eval()
    assert not [name for name, _ in block.named_parameters() if not name.startswith("body.")]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in block.modules()) == 2
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)  # what is left is the shortcut
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_model_normalises_with_mean_and_std_of_the_images() -> None:
    images = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8)
    mean, std = cifar.mean_and_std(images)
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), pixels.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "draws", "selected"),
    [
        (("--base", "full"), 36 + 9, 9),
        (("--base", "random"), 9 + 9, 9),
        (("--base", "selected"), 9 + 9, 9),
        (("--base", "none"), 9, 9),
        (("--base", "none", "--copies", "3", "--proxy", "lastlayer"), 27, 9),
        (("--base", "full", "--copies", "0"), 36, 9),
        (("--strategy", "maxloss"), 36 + 9, 9),
        (("--strategy", "uniform"), 36 + 9, 9),
        (("--strategy", "loss", "--weighting", "downweight"), 36 + 9, 9),
        (("--strategy", "influence"), 36 + 9, 9),
    ],
)
def test_every_base_trains(
    folder: Path, options: tuple[str, ...], draws: int, selected: int
) -> None:
    result = run(folder, "--count", "9", *options)
    assert [r["draws"] for r in result["epochs"]] == [draws, draws]
    assert [r["selected"] for r in result["epochs"]] == [selected, selected]
    assert [r["refreshed"] for r in result["epochs"]] == [True, True]
    assert all(np.isfinite(r["loss"]) for r in result["epochs"])


@pytest.mark.parametrize("rule", example.STRENGTHS)
def test_every_strength_rule_trains(folder: Path, rule: str) -> None:
    result = run(folder, "--strategy", "full", "--strength", rule, "--policy", "rand")
    assert all(np.isfinite(r["loss"]) for r in result["epochs"])
    constant = run(folder, "--strategy", "full", "--policy", "rand")
    assert (curve(result) == curve(constant)) == (rule == "constant")


def test_auto_takes_the_data_sets_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    usual = example.augloader.AdaptiveStrengthTransform

    def build(*args: Any, **options: Any) -> Any:
        built.append(usual(*args, **options))
        return built[-1]

    monkeypatch.setattr(example.augloader, "AdaptiveStrengthTransform", build)
    run(folder, "--policy", "auto")
    run(folder, "--policy", "auto", "--dataset", "svhn")
    run(folder, "--policy", "perturb")
    assert [
        f"dataset='{name}'" in repr(strong)
        for name, strong in zip(("cifar10", "svhn", "cifar10"), built, strict=True)
    ] == [True, True, False]
    with pytest.raises(SystemExit):
        run(folder, "--dataset", "svhn")


def test_refinement_changes_the_last_epochs_alone(folder: Path) -> None:
    plain, refined = curve(run(folder)), curve(run(folder, "--refined", "1"))
    assert plain[0] == refined[0]
    assert (plain[1]["draws"], refined[1]["draws"]) == (36 + 11 + 7, 36)  # filled up to batches
    assert plain[1]["refreshed"]
    assert not refined[1]["refreshed"]


def test_none_and_full_are_the_two_ends(folder: Path) -> None:
    none, full = run(folder, "--strategy", "none"), run(folder, "--strategy", "full")
    assert [r["draws"] for r in none["epochs"]] == [36, 36]
    assert [r["refreshed"] for r in none["epochs"]] == [False, False]
    assert [r["draws"] for r in full["epochs"]] == [72, 72]


@pytest.mark.parametrize("strategy", ["coreset", "maxloss"])
def test_free_refresh_never_sweeps(
    folder: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.augloader, "sweep", None)  # calling it would raise
    result = run(folder, "--strategy", strategy, "--free-refresh", "--warmup", "1")
    assert [r["refreshed"] for r in result["epochs"]] == [False, True]
    assert [r["draws"] for r in result["epochs"]] == [36, 36 + 11 + 7]


def test_same_seed_gives_the_same_run_and_workers_only_other_crops(folder: Path) -> None:
    first, second = run(folder), run(folder)
    assert curve(first) == curve(second)
    assert curve(first) != curve(run(folder, "--seed", "1"))
    with_workers = [curve(run(folder, "--workers", "1")) for _ in range(2)]
    assert with_workers[0] == with_workers[1]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--free-refresh", "--warmup", "1"),
        ("--workers", "1", "--strength", "sada"),
        ("--strength", "lossrank", "--policy", "augmix"),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(
    folder: Path, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    expected = run(folder, "--checkpoint", str(whole), *options)
    with monkeypatch.context() as patch:
        patch.setattr(example, "evaluate", _once(example.evaluate))
        with pytest.raises(KeyboardInterrupt):  # in the second epoch
            run(folder, "--checkpoint", str(cut), *options)
    resumed = run(folder, "--checkpoint", str(cut), "--resume", str(cut), *options)
    assert curve(resumed) == curve(expected)
    ours, theirs = (torch.load(path)["model"] for path in (cut, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(SystemExit, match=r"\['lr'\]"):
        run(folder, "--resume", str(cut), "--lr", "0.5", *options)


def _once(function: Any) -> Any:
    calls: list[int] = []

    def wrapped(*args: Any) -> Any:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return function(*args)

    return wrapped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--strategy none --base full", "leave out ['base']"),
        ("--strategy full --fraction .5", "leave out ['fraction']"),
        ("--fraction .5 --count 3", "exclude each other"),
        ("--fraction 1.5", "in (0, 1]"),
        ("--strategy maxloss --proxy residual", "needs --strategy coreset"),
        ("--strategy uniform --free-refresh --warmup 1", "uniform needs no sweep"),
        ("--free-refresh", "--warmup 1 or more"),
        ("--free-refresh --warmup 1 --base none", "needs --base full"),
        ("--free-refresh --warmup 1 --proxy lastlayer", "no --proxy lastlayer"),
        ("--device cpu --autocast", "needs a GPU"),
        ("--label-noise 2", "in [0, 1]"),
        ("--imbalance .5", "1 or more"),
        ("--epochs 9 --refined 10", "0 to --epochs"),
    ],
)
def test_impossible_combinations_are_refused(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        example.main(["--data", "nowhere", *options.split()])
    assert message in capsys.readouterr().err


def test_command_line_writes_the_record(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    options = ["--size 20 --batch 16 --epochs 1 --limit 30", "--imbalance 3 --label-noise .2"]
    paths = ["--data", str(folder), "--output", str(output)]
    command = [sys.executable, str(SCRIPT), *" ".join(options).split(), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(output.read_text())
    assert result["options"]["label_noise"] == 0.2
    (record,) = result["epochs"]
    assert set(TIMES) < set(record)
    assert 18 < record["draws"] < 36
    assert result["total"]["draws"] == record["draws"]
    assert done.stdout.count("\n") == 2
    assert "accuracy" in done.stdout
