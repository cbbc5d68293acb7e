"""Data sets and networks by name: what they read and return, and who is refused."""

import argparse
import json
import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import figures
import networks
import papers
import recipe
import records
import report
import setting
import sources
from method import Method
from recipe import Trainer
from schedules import REDUCED, Problem, Schedule
from sources import Files, Source

from augloader import FacilityLocation, Uniform
from tests.scripts import image_folder, write_norb

TINY = Schedule("tiny", None, ("resnet8", "resnet8"), 2, 16, 4, 1, 0.05, "one-cycle", 1e-4, True)
CLEAN = Problem("clean")
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def write(root: Path, names: list[str], size: tuple[int, int] = (40, 32)) -> None:
    """Write random pictures of these names under a folder."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(root / name)


# Data sets ----------------------------------------------------------------------------------------


def test_folders_may_say_val_and_must_have_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path, ["train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/1.png"])
    train, test = sources.images(Source("x", "folder", tmp_path), CLEAN, None)
    assert train.images.shape == test.images.shape == (2, 3, 32, 32)
    write(tmp_path, ["train/c/0.png"])
    with pytest.raises(SystemExit, match="same names"):
        sources.images(Source("x", "folder", tmp_path), CLEAN, None)
    with pytest.raises(SystemExit, match="must hold train/ and test/"):
        sources.images(Source("x", "folder", tmp_path / "train"), CLEAN, None)
    with pytest.raises(ValueError, match="dataset must be one of folder, cifar10"):
        sources.images(Source("x", "flowers", tmp_path), CLEAN, None)


def test_the_shorter_side_is_resized_and_the_longer_one_cut_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, 8:24] = 200
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / part / "a" / "0.png")
    train, _ = sources.images(Source("x", "folder", tmp_path, size=16), CLEAN, None)
    assert (train.images == 200).all()
    train, _ = sources.images(Source("x", "folder", tmp_path, size=8), CLEAN, None)
    assert train.images.shape == (1, 3, 8, 8)
    assert float(train.images.float().mean()) > 190


def test_tinyimagenet_has_its_labels_in_a_file(tmp_path: Path) -> None:
    write(tmp_path, [f"train/n{c}/images/n{c}_{i}.JPEG" for c in range(3) for i in range(2)])
    write(tmp_path, [f"val/images/val_{i}.JPEG" for i in range(4)])
    lines = [f"val_{i}.JPEG\tn{(i + 1) % 3}\t0\t0\t62\t62" for i in range(4)]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines))
    train, test = Source("tinyimagenet", "tinyimagenet", tmp_path, 64).parts()
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels.tolist() == [1, 2, 0, 1]
    assert test.classes == train.classes == ["n0", "n1", "n2"]
    assert np.asarray(test.read(3)).shape == (32, 40, 3)


def test_caltech_is_split_by_class_and_no_image_is_on_both_sides(tmp_path: Path) -> None:
    write(tmp_path, [f"00{c}.x/{i}.jpg" for c in range(2) for i in range(63)], (4, 4))
    train, test = Source("caltech256", "caltech256", tmp_path, 4).parts()
    assert np.bincount(train.labels).tolist() == [60, 60]
    assert np.bincount(test.labels).tolist() == [3, 3]
    paths = [set(part.read.paths) for part in (train, test)]  # type: ignore[attr-defined]
    assert not paths[0] & paths[1]
    assert len(paths[0] | paths[1]) == 126
    again, _ = Source("caltech256", "caltech256", tmp_path, 4).parts()
    assert again.read == train.read


def test_norb_is_read_as_it_is_written(tmp_path: Path) -> None:
    pixels = write_norb(tmp_path, 6)
    source = Source("norb", "norb", tmp_path, 96)
    train, test = sources.images(source, CLEAN, None)
    order = np.random.default_rng(0).permutation(6)
    assert torch.equal(train.images[:, 0], torch.from_numpy(pixels["training"][order, 0]))
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    assert train.labels.tolist() == (order % 5).tolist()
    assert len(test) == 6
    (tmp_path / "smallnorb-testing-dat.mat").write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match="must be one of NORB's files"):
        source.parts()
    (tmp_path / "smallnorb-testing-dat.mat").unlink()
    with pytest.raises(SystemExit, match="must hold NORB's"):
        source.parts()


def test_digits_are_at_hand(tmp_path: Path) -> None:
    train, test = sources.images(Source("digits", "digits", tmp_path), CLEAN, 50)
    assert train.images.shape == (500, 3, 32, 32)
    assert len(test) == 797
    assert int(train.images.max()) == 255


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "svhn", "mnist"])
def test_nothing_is_downloaded_unless_asked(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"must hold {kind}'s files .* Give --download"):
        Source(kind, kind, tmp_path).parts()


def test_cifar_is_read_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rng = tmp_path / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = pickle.dumps({"label_names": ["a", "b", "c", "d"]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    train, test = sources.images(Source("cifar10", "cifar10", tmp_path), CLEAN, 3)
    assert train.labels.bincount().tolist() == [3, 3, 3, 3]
    assert train.classes == ["a", "b", "c", "d"]
    assert len(test) == 4


def test_what_does_not_fit_is_read_from_its_files(tmp_path: Path) -> None:
    image_folder(tmp_path, train=12, test=4)
    source = Source("x", "folder", tmp_path)
    noisy = Problem("noise", noise=0.5)
    held, _ = sources.images(source, noisy, 8)
    files, test = sources.images(replace(source, memory=3 * 32**2 * 15), noisy, 8)
    assert isinstance(files, Files)
    assert not isinstance(test, Files)  # eight images
    assert torch.equal(files.labels, held.labels)
    for i in (0, 7, 15):
        pixels, label = files[i]
        assert torch.equal(pixels, held.images[i])
        assert label == held.labels[i]
    again = pickle.loads(pickle.dumps(files))  # as to a worker that was spawned
    assert torch.equal(again[3][0], files[3][0])


def test_the_checksum_tells_images_and_labels_from_others(tmp_path: Path) -> None:
    image_folder(tmp_path, train=12, test=4)
    found = set()
    for memory in (None, 0):
        source = Source("x", "folder", tmp_path, memory=memory)
        for problem in (CLEAN, Problem("noise", noise=0.5), Problem("tail", imbalance=4.0)):
            data, _ = sources.images(source, problem, 8)
            again, _ = sources.images(source, problem, 8)
            assert sources.checksum(data) == sources.checksum(again)
            found.add(sources.checksum(data))
    assert len(found) == 6
    write(tmp_path, ["train/cat/0.png"], (32, 32))
    data, _ = sources.images(Source("x", "folder", tmp_path), CLEAN, 12)
    assert sources.checksum(data) not in found


def test_the_checksum_of_what_is_not_held_is_of_the_files_contents(tmp_path: Path) -> None:
    for place in ("train/a/0.bmp", "train/b/0.bmp", "test/a/0.bmp", "test/b/0.bmp"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / place)  # 12 KiB, whatever is in it
    found = []
    for colour in ((9, 9, 9), (9, 9, 8), (9, 9, 9)):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "train/a/0.bmp")
        data, _ = sources.images(Source("x", "folder", tmp_path, memory=0), CLEAN, None)
        found.append(sources.checksum(data))
    assert found[0] == found[2] != found[1]


def test_weights_are_told_by_what_is_in_their_file(tmp_path: Path) -> None:
    def schedule() -> Schedule:
        parser = argparse.ArgumentParser()
        setting.add_options(parser)
        return setting.planned(REDUCED, parser.parse_args(["--weights", str(file)]))

    file, said = tmp_path / "w.pt", []
    for content in (b"a", b"b", b"a"):
        file.write_bytes(content)
        made = schedule()
        said.append((made.name, records.describe(CLEAN, made, Method("weak"))["schedule"]))
    assert said[0] == said[2] != said[1]
    assert said[0][0] != said[1][0]
    assert said[0][1]["weights"] != said[1][1]["weights"]
    file = tmp_path / "elsewhere" / "w.pt"
    file.parent.mkdir()
    file.write_bytes(b"a")
    assert schedule().name == said[0][0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("strategy", [Uniform(), FacilityLocation()])
def test_files_are_trained_as_images_in_memory(
    strategy: Uniform | FacilityLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(tmp_path, train=12, test=4)
    monkeypatch.setattr(recipe, "WORKERS", 1)
    source, method = Source("x", "folder", tmp_path), Method("m", strategy, 0.5)
    outcomes = []
    for memory in (None, 0):
        given = sources.images(replace(source, memory=memory), CLEAN, None)
        trainer = Trainer(CLEAN, TINY, method, 0, given, torch.device("cpu"))
        assert trainer.workers == (memory == 0)
        outcomes.append(trainer.run())
    held, files = outcomes
    assert files.loss == pytest.approx(held.loss, rel=1e-5)
    assert (files.accuracy, files.rows, files.swept) == (held.accuracy, held.rows, held.swept)


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Published: 0.27 million; 11.2; 36.5; 11.69 of 1,000 classes.
        ("resnet20", 269_722),
        ("preactresnet18", 11_172_170),
        ("wrn-28-10", 36_479_194),
        ("resnet18", 11_181_642),
        ("lenet", None),
        ("mlp", None),
    ],
)
def test_networks_have_the_published_size_and_take_uint8(name: str, parameters: int | None) -> None:
    with torch.random.fork_rng(devices=[]):
        model = networks.network(name, 10, MEAN, STD, 32).eval()
        images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    count = sum(p.numel() for p in model.parameters())
    if parameters:
        assert count == parameters
    with torch.inference_mode():
        logits = model(images)
        assert logits.shape == (2, 10)
        torch.testing.assert_close(model(images.float()), logits)


def test_images_are_normalised() -> None:
    seen: Callable[..., torch.Tensor] = networks.Normalised(nn.Identity(), MEAN, STD)
    pixels = (MEAN * 255).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(seen(pixels), torch.zeros(1, 3, 2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen(pixels + 255 * STD.view(3, 1, 1)), torch.ones(1, 3, 2, 2))


def test_weights_of_a_file_are_loaded_but_for_a_head_of_other_classes(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = networks.network("resnet18", 1000, MEAN, STD, 32)
        other = networks.network("resnet34", 10, MEAN, STD, 32)
        file = tmp_path / "r18.pt"
        torch.save(whole.network.state_dict(), file)  # type: ignore[union-attr]
        found = networks.network("resnet18", 10, MEAN, STD, 32, file).state_dict()
        same = networks.network("resnet18", 1000, MEAN, STD, 32, file).state_dict()
    assert found["network.fc.weight"].shape == (10, 512)
    for name, value in whole.state_dict().items():
        assert torch.equal(same[name], value)
        assert ".fc." in name or torch.equal(found[name], value)
    with pytest.raises(ValueError, match="weights must be of this network"):
        networks.load(other, file)


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="network must be resnet8, resnet20"):
        networks.network("resnet7", 10, MEAN, STD, 32)


@pytest.mark.parametrize("name", ["resnet8", "preactresnet18", "resnet18"])
def test_layers_that_are_mixed_exist(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        model = networks.network(name, 10, MEAN, STD, 32)
    layers = networks.mixable(model)
    assert layers[0] == ""
    assert len(layers) == 3
    assert set(layers) <= {found for found, _ in model.named_modules()}


def test_networks_without_stages_are_not_mixed_inside() -> None:
    with torch.random.fork_rng(devices=[]):
        model = networks.network("mlp", 10, MEAN, STD, 32)
    with pytest.raises(ValueError, match="must be of a network with stages"):
        networks.mixable(model)


# Options -----------------------------------------------------------------------------------------

WRONG = [
    ("--epochs 0", "--epochs: must be an integer of at least 1, got 0"),
    ("--size 0", "--size: must be an integer of at least 1, got 0"),
    ("--per-class x", "--per-class: must be an integer of at least 1, got x"),
    ("--refresh 0", "--refresh: must be an integer of at least 1, got 0"),
    ("--rate -1", "--rate: must be a number above 0, got -1"),
    ("--weights /no", "--weights: must be a file that is there, got /no"),
    ("--network no", "--network: must be resnet8, .* or one of torchvision.models with .* got no"),
    ("--network googlenet", "--network: must be .* with one output, got googlenet"),
    ("--jobs 0", "--jobs: must be an integer of at least 1, got 0"),
    ("--seeds -1", "--seeds: must be an integer of at least 0, got -1"),
    ("--device no", "--device: must be cpu or cuda, got no"),
    ("--only no", "--only: must begin a row's file, got none of clean--"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_options_say_what_to_do(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["table4", "--data", str(tmp_path), "--device", "cpu", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        papers.main([*usual, *words.split()])
    assert re.search(message, capsys.readouterr().err)


def test_a_report_of_nothing_says_where_results_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "mine" / "reduced-2-epochs"
    place.mkdir(parents=True)
    (place / "clean--none.json").write_text("{}")
    output = ["--output", str(tmp_path)]
    for words in (["--name", "mine"], ["--epochs", "3"], ["--curves", "here.png"]):
        with pytest.raises(
            SystemExit, match=r"no tables .* Results are in .*reduced-2-epochs\. Gi"
        ):
            report.main([*words, *output])
    for words, message in (
        (["--curves", "a.xyz"], "--curves: must end with a picture's format"),
        (["--name", "mine", "--write"], "--write: of all settings"),
    ):
        with pytest.raises(SystemExit):
            report.main([*words, *output])
        assert message in capsys.readouterr().err


# Figures ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_figures_are_measured_and_drawn(tmp_path: Path) -> None:
    image_folder(tmp_path / "data", train=24, test=6)
    words = ["spectrum", "refined", "overlap", "--data", str(tmp_path / "data"), "--epochs", "5"]
    words += ["--images", "4", "--device", "cpu", "--output", str(tmp_path / "out")]
    figures.main(words)
    place = tmp_path / "out" / "data" / "reduced-5-epochs"
    found = {
        name: json.loads((place / f"figure-{name}.json").read_text())["found"]
        for name in figures.FIGURES
    }
    assert set(found["spectrum"]) == {"mlp", "resnet8"}
    small, large = (found["spectrum"]["mlp"][f"noise, at most {b}"] for b in figures.BOUNDS)
    assert 0 < small["perturbation"] < large["perturbation"]
    risks = found["refined"]["refined, Mixup"]
    assert risks["epochs"] == [4]
    assert risks["augmented loss"][0] != risks["clean loss"][0]
    assert len(risks["singular values, class 0"]) == 64
    (errors,) = found["overlap"]["errors of the gradient"]
    assert errors["coreset"] <= errors["bound"]
    assert found["overlap"]["by chance"] == [pytest.approx(0.3, abs=0.05)]
    assert len(list(place.glob("*.png"))) == 8
    image_folder(tmp_path / "other" / "data", train=22, test=6)  # of the same name
    words[words.index("--data") + 1] = str(tmp_path / "other" / "data")
    with pytest.raises(ValueError, match=r"^data must be that of .* Give another --name"):
        figures.main([words[2], *words[3:]])
    words[words.index("--data") + 1] = str(tmp_path / "data")
    for what, more in (("seed", ["--seed", "1"]), ("images", ["--images", "5"])):
        with pytest.raises(ValueError, match=f"^{what} must be that of"):
            figures.main([*words[:1], *words[3:], *more])
    figures.main([*words[2:], "--policy", "augmix"])
    other = json.loads((place / "figure-overlap-augmix.json").read_text())["found"]
    assert other["errors of the gradient"] != found["overlap"]["errors of the gradient"]
