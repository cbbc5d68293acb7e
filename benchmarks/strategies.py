"""Which training images are worth augmenting: those of high loss or influence, or any?

    python benchmarks/strategies.py --data DIR --classes airplane automobile
    python benchmarks/strategies.py --data DIR --dataset mnist          3 against 8, with LeNet
    python benchmarks/strategies.py --digits
    python benchmarks/strategies.py --replot FILE                       a record's pictures anew

The experiment of Kuchnik & Smith (2019). A network, trained without augmentation and then frozen,
gives features; logistic regression (C = 10) on those of 1,000 images tells two classes apart. C is
on the scale of the features, so these are divided by the mean length of the training images'; other
C are tried too, because what is found depends on it. The
test set holds every transformed version of its images, so accuracy rises as training images are
augmented, each by all its transformed versions, in the order that a strategy wants. Every round
draws other training images; strategies are compared within rounds, and intervals are over rounds.

DIR holds train/ and test/ with one folder a class, or the files of MNIST or NORB; on them the
network learns all classes, once. The digits, even against odd, need no files; there each
round trains a network on its 1,000 images. With --retrain-features a network is trained anew on the
round's images, and on the augmented ones, for each number of them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment, guard, progress
from protocol.choices import (
    GRID,
    SCORES,
    Accuracies,
    Choice,
    Task,
    catalogue,
    few_choices,
    main_choices,
)
from protocol.deep import deep
from protocol.deep import table as deep_table
from protocol.networks import Networks, Recipe
from protocol.panels import draw, pictures
from protocol.problems import DIGITS, KINDS, Array, Problem, Seconds, digits, files, timed
from protocol.results import ADVICE, Results, compare, curve, path_of, summary, table, write
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import nn

PACKAGES = ("augloader", "numpy", "torch", "torchvision", "scikit-learn", "scipy")
C = 10.0  # of the logistic regression
OTHERS = (1.0, 100.0)  # other C, under which the main strategies are compared too
POINTS = (0, 1, 10, 50, 100, 250, 500, 750, 1000)


@dataclass(frozen=True)
class Settings:
    """How a run is made.

    Attributes:
        points: numbers of augmented points, from 0 to the problem's count.
        C: of the regression; None chooses it by cross-validation in each fit, from the grid.
        retrain: whether the network is trained anew with the augmented points.
    """

    points: tuple[int, ...] = POINTS
    rounds: int = 10
    seed: int = 0
    C: float | None = C
    retrain: bool = False


@dataclass
class Round:
    """A round's images, and the tasks that are made of them."""

    problem: Problem
    train: Array
    test: Array
    settings: Settings
    seconds: Seconds

    def task(self, features: Array, name: str) -> Task:
        grid = GRID if self.settings.C is None else ()
        renew = (lambda chosen: self.renewed(chosen, name)) if self.settings.retrain else None
        labels = self.problem.labels
        return Task.of(features, labels, self.train, self.test, grid=grid, renew=renew)

    def renewed(self, chosen: Array, name: str) -> Task:
        """Return the task of features that were trained with these points augmented."""
        with timed(self.seconds, "network"):
            network = self.problem.relearnt(self.train, chosen, name)
        with timed(self.seconds, "features"):
            return self.task(self.problem.features(network, name), name)


def four_digits(values: Array) -> Array:
    """Return values as a record keeps them."""
    return np.array([float(f"{value:.4g}") for value in values.tolist()])


def run(
    problem: Problem,
    choices: Sequence[Choice],
    settings: Settings,
    seconds: Seconds,
) -> Results:
    """Walk the strategies, the first of them uniform; points rise from 0 to problem.count."""
    reached: dict[str, list[list[Accuracies]]] = {name: [] for name in problem.moves}
    kept: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in problem.moves}
    network: nn.Module | None = None
    encoded: dict[int, str] = {}
    for r in progress(range(settings.rounds)):
        seed = [settings.seed, r]
        train, test = problem.draw(np.random.default_rng(seed))
        drawn = Round(problem, train, test, settings, seconds)
        previous, network = network, problem.network(train)
        if network is not previous:
            with timed(seconds, "features"):
                features = {name: problem.features(network, name) for name in problem.moves}
        for name, x in features.items():
            task = drawn.task(x, name)
            none = LogisticRegression(
                C=settings.C or C,
                fit_intercept=False,
                solver="newton-cholesky",
                warm_start=True,
                tol=1e-6,
            )
            task.fit(none, np.arange(0))
            full, everything = deepcopy(none), np.arange(problem.count)
            last = task.renew(everything) if task.renew else task
            last.fit(full, everything)
            before, after = (
                {key: score(model.C)(own.evidence(model)).numpy() for key, score in SCORES.items()}
                for own, model in ((task, none), (last, full))
            )
            kept[name]["spearman"].append(
                {k: [*stats.spearmanr(before[k], after[k])] for k in before}
            )
            kept[name]["C"].append([none.C, full.C])
            if r == 0:
                pairs = {k: [four_digits(before[k]), four_digits(after[k])] for k in before}
                kept[name]["scores"].append(pairs)
                if not encoded:
                    rows = torch.from_numpy(train)
                    encoded = pictures(problem.images[rows], {k: p[0] for k, p in pairs.items()})
            reached[name].append([])
            for choice in choices:
                with timed(seconds, f"{choice.score} {choice.name}"):
                    reached[name][r].append(choice.walk(task, none, settings.points, seed))
    found = {name: recorded(reached[name], kept[name], choices, problem, settings) for name in kept}
    return Results(problem.name, found, encoded)


def recorded(
    reached: Sequence[Sequence[Accuracies]],
    kept: dict[str, list[Any]],
    choices: Sequence[Choice],
    problem: Problem,
    settings: Settings,
) -> dict[str, Any]:
    """Return what a record holds of a transformation; see ``Results``."""
    walks = [*zip(*reached, strict=True)]
    uniform = curve(walks[0], problem.count)
    found: dict[str, Any] = {
        "none": uniform["0"].tolist(),
        "full": uniform[str(problem.count)].tolist(),
        "spearman": {key: [rho[key] for rho in kept["spearman"]] for key in SCORES},
        "scores": {
            key: {"before": old.tolist(), "after": new.tolist()}
            for key, (old, new) in kept["scores"][0].items()
        },
    }
    if settings.C is None:
        found["C"] = {"none": [a for a, _ in kept["C"]], "full": [b for _, b in kept["C"]]}
    found["strategies"] = [
        {"score": choice.score, "strategy": choice.name, "rounds": walk}
        | compare(curve(walk, problem.count), uniform, problem.count)
        for choice, walk in zip(choices, walks, strict=True)
    ]
    return found


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, with what follows from others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/, a folder a class")
    parser.add_argument(
        "--dataset",
        default="cifar10",
        help="what DIR holds: cifar10, mnist, norb, or a name of yours, moved as cifar10 (cifar10)",
    )
    parser.add_argument("--classes", nargs=2, help="the two to tell apart (the paper's)")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits instead")
    parser.add_argument("--replot", type=Path, help="draw the pictures of this record, and end")
    parser.add_argument("--C", default=f"{C:g}", help="of the regression, or cv (10, 1 and 100)")
    parser.add_argument("--network", type=Path, help="file that keeps the networks: read, added to")
    parser.add_argument("--architecture", choices=("resnet8", "lenet"), help="(lenet for mnist)")
    parser.add_argument("--width", type=int, default=16, help="of resnet8: a quarter of features")
    parser.add_argument("--train-augmented", action="store_true", help="augment its images")
    parser.add_argument("--retrain-features", action="store_true", help="at each number of points")
    parser.add_argument("--deep", action="store_true", help="also train whole networks (App. I)")
    parser.add_argument("--transformations", nargs="+", choices=("translate", "rotate", "crop"))
    parser.add_argument("--count", type=int, default=1000, help="training images of a round (1000)")
    parser.add_argument("--points", nargs="+", type=int, help="numbers of them to augment")
    parser.add_argument("--quick", action="store_true", help="two rounds and a short training")
    parser.add_argument("--rounds", type=int, help="(10)")
    parser.add_argument(
        "--epochs", type=int, help="of a network's training (15; digits 40, lenet 45)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    if options.digits + bool(options.data) + bool(options.replot) != 1:
        parser.error("give --data DIR, --digits or --replot FILE")
    if not re.fullmatch(r"[a-z0-9_]+", options.dataset):
        parser.error("--dataset must be of small letters, digits and _: files are named by it")
    if options.dataset not in KINDS and not options.classes:
        parser.error("--classes must name two where --dataset is none of the paper's")
    options.rounds = options.rounds or (2 if options.quick else 10)
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more, for an interval")
    usual_points = [k for k in POINTS if k < options.count] + [options.count]
    options.points = tuple(sorted({*(options.points or usual_points)}))
    if options.count < 2 or options.points[0] != 0 or options.points[-1] != options.count:
        parser.error("--points must begin with 0 and end with --count, which is 2 or more")
    lenet = options.dataset == "mnist" and not options.digits
    options.architecture = options.architecture or ("lenet" if lenet else "resnet8")
    usual, few = (40, 10) if options.digits else (15, 5)
    if options.architecture == "lenet":
        usual = 45  # Kuchnik & Smith, appendix B: 40 to 50
    options.epochs = options.epochs or (few if options.quick else usual)
    try:
        options.C = None if options.C == "cv" else float(options.C)
    except ValueError:
        parser.error("--C must be a number or cv")
    if options.C is not None and not 0 < options.C < float("inf"):
        parser.error("--C must be above 0 and finite")
    return options


def script_of(options: argparse.Namespace, name: str) -> str:
    """Return what a record is named by: the data set, and each option that is not the default."""
    parts = ["strategies", name]
    parts += [] if options.C == C else ["cv" if options.C is None else f"C{options.C:g}"]
    usual = "lenet" if options.dataset == "mnist" and not options.digits else "resnet8"
    parts += [options.architecture] if options.architecture != usual else []
    parts += [f"width{options.width}"] if options.width != 16 else []
    parts += ["augmented"] * options.train_augmented + ["retrained"] * options.retrain_features
    parts += [f"n{options.count}"] if options.count != 1000 else []
    parts += options.transformations or []
    return "-".join(parts + ["quick"] * options.quick)


def made(options: argparse.Namespace, seconds: Seconds) -> tuple[Problem, Networks]:
    """Return the problem that is asked for, and its networks."""
    kind = DIGITS if options.digits else KINDS.get(options.dataset, KINDS["cifar10"])
    moves = {name: kind.moves[name] for name in options.transformations or kind.moves}
    seen = tuple(move for part in moves.values() for move in part)
    recipe = Recipe(
        options.epochs,
        options.seed,
        options.architecture,
        options.width,
        seen if options.train_augmented else (),
    )
    networks = Networks(recipe, options.network)
    if options.digits:
        problem = digits(options.count, networks, seconds)
    else:
        problem = files(
            options.data,
            options.dataset,
            options.classes,
            10_000 if options.quick else None,
            options.seed,
            networks,
            seconds,
            own=options.retrain_features,
            count=options.count,
        )
    return problem.only(tuple(moves)), networks


def choices_of(options: argparse.Namespace, problem: Problem) -> list[Choice]:
    if options.retrain_features:  # each point takes a training
        return few_choices()
    return catalogue(problem.count, options.points)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.replot:
        record = json.loads(options.replot.read_text())
        for path in draw(record, options.replot.with_suffix("")):
            print(f"picture: {path}")
        return
    torch.set_num_threads(options.threads)
    seconds: Seconds = defaultdict(float)
    others: dict[float, Results] = {}
    with timed(seconds, "all"):
        problem, networks = made(options, seconds)
        script = script_of(options, problem.name)
        described = {
            "quick": options.quick,
            "data": {"name": problem.name, "checksum": problem.checksum},
            "rounds": options.rounds,
            "points": options.points,
            "epochs": options.epochs,
            "seed": options.seed,
            "C": "cv" if options.C is None else options.C,
            "network": networks.recipe.describe(),
            "retrained": options.retrain_features,
        }
        guard(path_of(options.output, script), described, ADVICE)
        settings = Settings(
            options.points, options.rounds, options.seed, options.C, options.retrain_features
        )
        results = run(problem, choices_of(options, problem), settings, seconds)
        if options.C == C and not options.quick and not options.retrain_features:
            for other in OTHERS:
                again = Settings(options.points, options.rounds, options.seed, other)
                others[other] = run(problem, main_choices(), again, seconds)
        whole = {}
        if options.deep:
            with timed(seconds, "deep"):
                whole = deep(problem, options.rounds, options.seed, options.epochs)
    for other, found in others.items():
        print(f"\nC = {other:g}:\n{table(found)}")
    print(f"\nC = {'chosen' if options.C is None else f'{options.C:g}'}:\n{table(results)}")
    if whole:
        print(f"\n{deep_table(whole)}")
    if options.network:
        print(f"networks: {networks.loaded} loaded, {networks.trained} trained and kept")
    record = {
        **described,
        "environment": environment(options.threads, PACKAGES),
        "summary": summary(results),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "transformations": results.record,
        "other_C": {
            f"{other:g}": {name: without_scores(part) for name, part in found.record.items()}
            for other, found in others.items()
        },
        "deep": whole,
        "pictures": results.pictures,
    }
    path, record = write(options.output, script, record)
    draw(record, path.with_suffix(""))
    print(json.dumps(record["summary"]))


def without_scores(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "scores"}


if __name__ == "__main__":
    main()
