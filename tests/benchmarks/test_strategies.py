"""The protocol of Kuchnik & Smith in parts, whole on a few digits, and its records."""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import strategies
from networks import LeNet
from protocol import panels, problems, results
from protocol.choices import GRID, Choice, Task, by, catalogue, few_choices, main_choices, same
from protocol.deep import SETS, deep
from protocol.networks import Networks, Recipe, checksum, moved

from augloader import KDPP, Loss, Rank
from augloader.augment import translations
from augloader.plot.values import rank_correlation
from tests.scripts import image_folder, run, write_norb

POINTS = (0, 5, 20, 120)
RESULTS = Path(strategies.__file__).parent / "results"
linux = pytest.mark.skipif(sys.platform != "linux", reason="the machine is read from /proc")


@pytest.fixture(scope="module")
def protocol() -> tuple[results.Results, dict[str, float]]:
    """The whole experiment on 120 digits, with a network of two epochs."""
    seconds: problems.Seconds = defaultdict(float)
    problem = problems.digits(120, Networks(Recipe(2)), seconds)
    settings = strategies.Settings(POINTS, rounds=2)
    return strategies.run(problem, catalogue(120, POINTS), settings, seconds), seconds


def rows_of(found: results.Results, name: str) -> dict[tuple[str, str], Any]:
    return {(row["score"], row["strategy"]): row for row in found.record[name]["strategies"]}


@pytest.mark.slow
def test_strategies_meet_where_nothing_and_everything_is_augmented(
    protocol: tuple[results.Results, dict[str, float]],
) -> None:
    found, seconds = protocol
    assert list(found.record) == ["translate", "rotate", "crop"]
    assert {"network", "features", "loss rank"} <= seconds.keys()
    for name, record in found.record.items():
        assert len(record["none"]) == len(record["full"]) == 2
        for (_, policy), row in rows_of(found, name).items():
            for none, full, reached in zip(
                record["none"], record["full"], row["rounds"], strict=True
            ):
                if 0 in reached:
                    assert reached[0] == none
                if 120 in reached and "downweight" not in policy:
                    assert reached[120] == pytest.approx(full, abs=0.002)  # order of the rows
        assert all(-1 <= rho <= 1 for rhos in record["spearman"].values() for rho, _ in rhos)
        # 64 features are the rank of the linear kernel.
        assert {max(reached) for reached in rows_of(found, name)["none", "k-DPP linear"]["rounds"]}
        assert 120 not in rows_of(found, name)["none", "k-DPP linear"]["mean"]


def test_gains_are_paired_with_uniform_and_areas_are_trapezoids(
    protocol: tuple[results.Results, dict[str, float]],
) -> None:
    rows = rows_of(protocol[0], "crop")
    uniform = rows["none", "uniform"]
    assert all(gain == {"mean": 0.0, "half": 0.0} for gain in uniform["gain"].values())
    row = rows["loss", "rank"]
    curves = [[reached[k] for k in POINTS] for reached in row["rounds"]]
    areas = [np.trapezoid(curve, POINTS) / 120 for curve in curves]
    assert row["mean"]["auc"]["mean"] == pytest.approx(np.mean(areas))
    gains = [
        own[20] - other[20] for own, other in zip(row["rounds"], uniform["rounds"], strict=True)
    ]
    assert row["gain"]["20"]["mean"] == pytest.approx(np.mean(gains))
    half = 12.706 * abs(gains[0] - gains[1]) / 2  # t of one degree of freedom
    assert row["gain"]["20"]["half"] == pytest.approx(half, rel=1e-3)


def test_the_summary_and_the_table_of_strategies(
    protocol: tuple[results.Results, dict[str, float]],
) -> None:
    line = json.loads(json.dumps(results.summary(protocol[0])))
    assert line["benchmark"] == "strategies"
    assert set(line["auc"]["rotate"]) == {"none", "margin", "loss", "influence"}
    assert {"uniform", "uniform clustered"} <= set(line["auc"]["rotate"]["none"])
    assert set(line["none"]) == set(line["full"]) == {"translate", "rotate", "crop"}
    assert "support vectors" in results.table(protocol[0])


@pytest.mark.slow
@linux
def test_all_panels_are_drawn_from_the_record_alone(
    protocol: tuple[results.Results, dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, _ = protocol
    record = {
        "data": {"name": "digits", "checksum": "a"},
        "transformations": found.record,
        "other_C": {"1": found.record},
        "pictures": found.pictures,
    }
    path, kept = results.write(tmp_path, "x", record)
    assert json.loads(path.read_text()) == kept
    # As kept, the scores of the first round give the rank correlation that was measured.
    pair = kept["transformations"]["rotate"]["scores"]["loss"]
    rho = kept["transformations"]["rotate"]["spearman"]["loss"][0][0]
    assert rank_correlation(*(np.array(pair[end]) for end in ("before", "after"))) == pytest.approx(
        rho, abs=1e-3
    )
    run(strategies, monkeypatch, "--replot", str(path))
    assert capsys.readouterr().out.count("picture: ") == len(panels.PANELS) + 5
    names = {file.stem.removeprefix(f"{path.stem}-") for file in tmp_path.glob("*.png")}
    assert names == {*panels.PANELS, "curves-C1", "scores", "drift-loss", "drift-influence"} | {
        "images"
    }
    lines = {
        str(line.get_label())
        for name in panels.PANELS
        for axes in figure_of(kept, name).axes
        for line in [*axes.lines, *axes.containers]
    }
    assert {panels.label_of(row) for row in kept["transformations"]["crop"]["strategies"]} <= lines


def figure_of(record: dict[str, Any], name: str) -> Any:
    figure = panels.curves(record["transformations"], name)
    assert figure is not None
    return figure


@pytest.mark.parametrize("panel", [*panels.PANELS])
def test_committed_records_are_still_drawn(panel: str) -> None:
    (path,) = RESULTS.glob("strategies-cifar10--*.json")
    record = json.loads(path.read_text())
    figure = figure_of(record, panel)
    axes = figure.axes[0]
    row = next(
        row
        for row in record["transformations"]["translate"]["strategies"]
        if panels.label_of(row) == "uniform"
    )
    expected = [100 * value["mean"] for key, value in row["mean"].items() if key != "auc"]
    assert axes.lines[0].get_ydata().tolist() == pytest.approx(expected)
    assert [part.get_title() for part in figure.axes[:3]] == ["translate", "rotate", "crop"]


def test_every_choice_has_a_panel() -> None:
    labels = {label for rows in panels.PANELS.values() for row in rows for label in row}
    made = [*catalogue(1000, strategies.POINTS), *main_choices(), *few_choices()]
    rows = [{"strategy": choice.name, "score": choice.score} for choice in made]
    assert {panels.label_of(row) for row in rows} == labels


def test_a_record_of_other_images_is_not_overwritten(tmp_path: Path) -> None:
    record = {"data": {"name": "cats", "checksum": "a"}, "transformations": {}}
    path, _ = results.write(tmp_path, "x", record)
    results.write(tmp_path, "x", record)
    other = {**record, "data": {"name": "cats", "checksum": "b"}}
    with pytest.raises(ValueError, match=r"data must be that of .*'a'}, got .*'b'}\. Give another"):
        results.write(tmp_path, "x", other)
    assert json.loads(path.read_text())["data"]["checksum"] == "a"
    path.write_text("{}")
    with pytest.raises(ValueError, match="none: it is an old one, got"):
        results.write(tmp_path, "x", record)


def test_the_checksum_is_of_what_may_be_trained_on() -> None:
    seconds: problems.Seconds = defaultdict(float)
    problem = problems.digits(20, Networks(Recipe(1)), seconds)
    held = replace(problem, test=np.arange(1000, 1797))
    changed = problem.images.clone()
    changed[1500] = 0
    same_images = replace(held, images=changed)
    assert held.checksum == same_images.checksum != problem.checksum
    changed[3] = 0
    assert replace(held, images=changed).checksum != held.checksum
    a = torch.arange(4)
    assert checksum(a) != checksum(a.view(2, 2)) != checksum(a.int())


def test_scores_keep_their_digits_and_accuracies_six() -> None:
    record = {"a": 0.12345678, "scores": {"loss": {"before": [1.23456e-9]}}, "b": [1, "x"]}
    assert results.tidy(record) == {
        "a": 0.123457,
        "scores": {"loss": {"before": [1.235e-9]}},
        "b": [1, "x"],
    }


# Fits ---------------------------------------------------------------------------------------------


def toy(n: int = 60, moves: int = 3, **options: Any) -> Task:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, moves + 1, 3)) + labels[:, None, None]
    return Task.of(features, labels, np.arange(2 * n // 3), np.arange(2 * n // 3, n), **options)


def test_features_are_of_mean_length_one_and_downweighting_conserves_weight() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(30, 5, 3)), np.arange(30) % 2
    task = Task.of(features, labels, np.arange(20), np.arange(20, 30))
    assert np.linalg.norm(task.train[:, 0, :-1], axis=1).mean() == pytest.approx(1)
    assert (task.train[..., -1] == 1).all()
    given: list[Any] = []

    class Spy:
        def fit(self, x: Any, y: Any, weights: Any) -> None:
            given.append((x, y, weights))

    task.fit(Spy(), np.array([3, 7]), downweight=True)
    x, y, weights = given[0]
    assert (len(x), weights.sum()) == (20 + 2 * 4, pytest.approx(20))
    assert y[20:].tolist() == [labels[3]] * 4 + [labels[7]] * 4
    assert np.array_equal(x[20:24], task.train[3, 1:])


def test_updated_scores_keep_the_points_augmented_before() -> None:
    task = toy()
    fitted: list[list[int]] = []

    class Spied(Task):
        def fit(self, model: Any, chosen: Any, downweight: bool = False) -> None:
            fitted.append(chosen.tolist())
            super().fit(model, chosen, downweight)

    spied = Spied(task.train, task.labels, task.test, task.test_labels)
    model = LogisticRegression(fit_intercept=False)
    task.fit(model, np.arange(0))
    policy = Choice("loss", "rank update", by(Rank, "loss"), update=True)
    policy.walk(spied, model, (0, 3, 9, 40), [0])
    assert [len(chosen) for chosen in fitted] == [0, 3, 9, 40]
    assert all(b[: len(a)] == a for a, b in pairwise(fitted))
    assert sorted(fitted[-1]) == list(range(40))


def test_C_is_the_one_of_least_loss_on_images_held_out_with_their_versions() -> None:
    task = toy(grid=GRID)
    model = LogisticRegression(fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    chosen = np.array([2, 5, 11, 30])
    task.fit(model, chosen)
    x = np.concatenate([task.train[:, 0], task.train[chosen, 1:].reshape(-1, 4)])
    labels = np.concatenate([task.labels, task.labels[chosen].repeat(3)])
    owners = np.concatenate([np.arange(40), chosen.repeat(3)])
    folds = np.arange(40) // 2 % 3  # each class, of every second image, in turn
    losses = []
    for C in GRID:
        other = LogisticRegression(
            C=C, fit_intercept=False, solver="newton-cholesky", tol=1e-8, max_iter=500
        )
        total = 0.0
        for held in range(3):
            out = folds[owners] == held
            other.fit(x[~out], labels[~out])
            found = other.predict_proba(x[out])[np.arange(out.sum()), labels[out]]
            total -= np.log(found).sum()
        losses.append(total)
    assert GRID[int(np.argmin(losses))] == model.C


def test_a_kdpp_ends_where_its_kernel_does() -> None:
    task = toy()  # three features
    model = LogisticRegression(fit_intercept=False)
    task.fit(model, np.arange(0))
    choice = Choice("none", "k-DPP linear", same(KDPP(None)), anew=(1, 3, 10))
    assert [*choice.walk(task, model, (0, 40), [0])] == [1, 3]
    wrong = Choice("none", "k-DPP linear", same(KDPP(None)), anew=(1, 300))
    with pytest.raises(ValueError, match="at most the number of samples"):  # not hidden
        wrong.walk(task, model, (0, 40), [0])


def test_retrained_features_are_those_of_the_points_chosen_so_far() -> None:
    asked: list[list[int]] = []

    def renew(chosen: Any) -> Task:
        asked.append(chosen.tolist())
        return toy()

    task = toy(renew=renew)
    model = LogisticRegression(fit_intercept=False)
    task.fit(model, np.arange(0))
    found = Choice("loss", "rank", by(Rank, "loss")).walk(task, model, (0, 2, 40), [0])
    order = Rank(Loss()).order(task.evidence(model), generator=np.random.default_rng([0]))
    assert asked == [order[:2].tolist(), order.tolist()]
    assert [*found] == [0, 2, 40]


# Networks and data --------------------------------------------------------------------------------


def images_of(n: int, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return images, torch.arange(n) % 2


def test_networks_are_loaded_where_all_is_the_same(tmp_path: Path) -> None:
    images, labels = images_of(20)
    path = tmp_path / "new" / "networks.pt"
    state = torch.get_rng_state()
    first = Networks(Recipe(1), path)
    expected = first.get(images, labels)(images)
    again = Networks(Recipe(1), path)
    assert torch.equal(again.get(images, labels)(images), expected)
    assert (first.loaded, first.trained, again.loaded, again.trained) == (0, 1, 1, 0)
    for other in (Recipe(2), Recipe(1, seed=1), Recipe(1, moves=tuple(translations(1)))):
        networks = Networks(other, path)
        assert not torch.equal(networks.get(images, labels)(images), expected)
        assert networks.loaded == 0
    again.get(images, 1 - labels)
    assert again.trained == 1
    assert torch.equal(torch.get_rng_state(), state)
    torch.save([1], tmp_path / "other.pt")
    with pytest.raises(ValueError, match="must be a file that --network wrote"):
        Networks(Recipe(1), tmp_path / "other.pt")


@pytest.mark.parametrize(("recipe", "features"), [(Recipe(1, width=4), 16), (Recipe(1), 64)])
def test_the_width_is_a_quarter_of_the_features(recipe: Recipe, features: int) -> None:
    images, labels = images_of(10)
    assert recipe.train(images, labels)(images).shape == (10, features)


def test_lenet_makes_84_features_of_digits_that_are_large_enough() -> None:
    images, labels = images_of(40, 28)
    network = Recipe(2, kind="lenet").train(images, labels)
    assert network(images).shape == (40, 84)
    assert (network(images) >= 0).all()
    with pytest.raises(ValueError, match="12 pixels or more, got 8"):
        LeNet(8, 2, torch.zeros(3), torch.ones(3))


def test_images_are_moved_by_one_of_the_moves_or_none() -> None:
    images, _ = images_of(200)
    moves = translations(2)
    torch.manual_seed(0)
    out = moved(images, moves)
    versions = torch.stack([images, *(move(images) for move in moves)])
    which = (versions == out).flatten(2).all(2).double().argmax(0)
    assert (versions[which, torch.arange(200)] == out).all()
    assert which.bincount(minlength=5).min() > 20
    assert moved(images, ()) is images


def test_the_papers_moves() -> None:
    sizes = {
        name: {key: len(moves) for key, moves in kind.moves.items()}
        for name, kind in problems.KINDS.items()
    }
    assert sizes == {
        "cifar10": {"translate": 4, "rotate": 4, "crop": 1},
        "mnist": {"translate": 4, "rotate": 14, "crop": 6},
        "norb": {"translate": 4, "rotate": 4, "crop": 1},
    }
    norb = problems.KINDS["norb"].moves["translate"]
    assert {(abs(move.right), abs(move.down)) for move in norb} == {  # type: ignore[attr-defined]
        (6, 0),
        (0, 6),
    }


def test_mnist_is_read_from_torchvisions_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 30)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        head = np.array([0x803, n, 28, 28], dtype=">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x801, n], dtype=">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    networks, seconds = Networks(Recipe(1, kind="lenet")), defaultdict[str, float](float)
    problem = problems.files(tmp_path, "mnist", None, None, 0, networks, seconds, count=4)
    assert (problem.name, problem.images.shape) == ("mnist", (12 + 6, 3, 28, 28))
    assert problem.labels.tolist().count(0) == 9
    train, test = problem.draw(np.random.default_rng(0))
    assert len(train) == 4
    assert test.tolist() == list(range(12, 18))
    assert networks.trained == 1
    assert problem.features(problem.network(train), "crop").shape == (18, 7, 84)
    with pytest.raises(ValueError, match=r"classes must be two of .* got \['cat'\]"):
        problems.files(tmp_path, "mnist", ("cat", "3"), None, 0, networks, seconds)


def test_norb_is_read_from_its_own_files(tmp_path: Path) -> None:
    pixels = write_norb(tmp_path, 20)["training"]
    networks, seconds = Networks(Recipe(1, kind="lenet")), defaultdict[str, float](float)
    problem = problems.files(tmp_path, "norb", None, None, 0, networks, seconds, count=4)
    assert (problem.name, problem.images.shape) == ("norb", (8 + 8, 3, 96, 96))
    ours = {image.numpy().tobytes() for image in problem.images[:8, 0]}
    animals_and_humans = np.arange(20) % 5 < 2
    assert ours == {image[0].tobytes() for image in pixels[animals_and_humans]}


@pytest.mark.parametrize("name", ["mnist", "norb", "pets"])
def test_files_that_are_not_there_are_named(tmp_path: Path, name: str) -> None:
    options = ["--data", str(tmp_path), "--dataset", name, "--classes", "cat", "dog", "--quick"]
    threads = ["--threads", str(torch.get_num_threads())]
    with pytest.raises(SystemExit, match=r"(must hold|must be one of|not found)"):
        strategies.main([*options, *threads])


def test_a_folder_is_named_by_its_data_set_and_classes(tmp_path: Path) -> None:
    image_folder(tmp_path, train=6, test=2)
    networks, seconds = Networks(Recipe(1)), defaultdict[str, float](float)
    found = [
        problems.files(tmp_path, name, ("cat", "dog"), None, 0, networks, seconds, own, 4)
        for name, own in (("pets", False), ("cifar10", True))
    ]
    assert [problem.name for problem in found] == ["pets-cat-dog", "cifar10-cat-dog"]
    assert networks.trained == 1
    large = problems.files(tmp_path, "norb", ("cat", "dog"), None, 0, networks, seconds, True, 4)
    assert large.images.shape == (16, 3, 96, 96)
    assert large.checksum != found[0].checksum == found[1].checksum
    rows = found[1].draw(np.random.default_rng(0))[0]
    found[1].network(rows)
    assert networks.trained == 2
    relearnt = found[1].relearnt(rows, np.array([0, 2]), "translate")
    assert relearnt(found[1].images[:3]).shape == (3, 64)


@pytest.mark.slow
def test_whole_networks_are_trained_on_the_images_that_are_said() -> None:
    seconds = defaultdict[str, float](float)
    problem = problems.digits(80, Networks(Recipe(6)), seconds).only(("crop",))
    asked: list[tuple[int, int, bool]] = []

    def learn(images: Tensor, targets: Tensor, headless: bool) -> Any:
        asked.append((len(images), int(targets.max()), headless))
        return Recipe(6).train(images, targets, headless)

    found = deep(replace(problem, learn=learn), rounds=2, seed=0, epochs=6)["crop"]
    sizes = [[run["images"] for run in found["runs"][name]] for name in SETS]
    assert [size for pair in zip(*sizes, strict=True) for size in pair] == [n for n, _, _ in asked]
    assert {(classes, headless) for _, classes, headless in asked} == {(1, False)}
    none, uniform, vectors, everything = sizes
    assert (none, everything) == ([80, 80], [240, 240])
    assert uniform == vectors
    assert all(80 < size < 240 and size % 2 == 0 for size in vectors)
    assert found["accuracy"]["all"]["mean"] > 0.6
    assert 0 <= found["explained"] <= 1


# The command --------------------------------------------------------------------------------------


def test_options_name_the_record() -> None:
    def named(*words: str) -> str:
        return strategies.script_of(strategies.parsed(words), "x")

    assert named("--digits") == "strategies-x"
    assert named("--digits", "--quick") == "strategies-x-quick"
    assert named("--digits", "--C", "cv", "--width", "64") == "strategies-x-cv-width64"
    assert named("--data", "d", "--dataset", "mnist") == "strategies-x"
    words = ("--digits", "--train-augmented", "--retrain-features", "--transformations", "crop")
    assert named(*words) == "strategies-x-augmented-retrained-crop"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --data DIR, --digits or --replot FILE"),
        (("--digits", "--data", "x"), "give --data DIR, --digits or --replot FILE"),
        (("--data", "x", "--dataset", "../x"), "files are named by it"),
        (("--data", "x", "--dataset", "pets"), "--classes must name two"),
        (("--digits", "--C", "large"), "--C must be a number or cv"),
        (("--digits", "--C", "0"), "--C must be above 0"),
        (("--digits", "--rounds", "1"), "--rounds must be 2 or more"),
        (("--digits", "--points", "1", "1000"), "--points must begin with 0"),
        (("--digits", "--points", "0", "9"), "end with --count"),
    ],
)
def test_wrong_options_are_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        strategies.parsed(words)
    assert message in capsys.readouterr().err


@linux
@pytest.mark.slow
def test_the_command_with_cross_validation_and_retrained_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        *("--digits", "--quick", "--epochs", "1", "--count", "60", "--points", "0", "10", "60"),
        *("--transformations", "crop", "--C", "cv", "--train-augmented", "--retrain-features"),
        *("--threads", "1", "--network", str(tmp_path / "n.pt"), "--output", str(tmp_path)),
    )
    run(strategies, monkeypatch, *words)
    said = capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    assert path.name.startswith("strategies-digits-cv-augmented-retrained-n60-crop-quick--")
    record = json.loads(path.read_text())
    assert json.loads(said.splitlines()[-1]) == record["summary"]
    assert (record["C"], record["retrained"], record["data"]["name"]) == ("cv", True, "digits")
    found = record["transformations"]["crop"]
    assert {C for part in found["C"].values() for C in part} <= {*GRID}
    assert [row["strategy"] for row in found["strategies"]] == ["uniform", *["proportional"] * 2]
    assert len(found["scores"]["influence"]["after"]) == 60
    assert "networks: 0 loaded, 2 trained and kept" in said
    run(strategies, monkeypatch, *words)
    again = capsys.readouterr().out
    assert "networks: 2 loaded, 0 trained and kept" in again
    assert again.splitlines()[-1] == said.splitlines()[-1]  # the same to the last digit
