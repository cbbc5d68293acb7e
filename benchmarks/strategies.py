"""Which training images are worth augmenting: those of high loss or influence, or any?

    python benchmarks/strategies.py --data DIR --classes airplane automobile
    python benchmarks/strategies.py --digits

The experiment of Kuchnik & Smith (2019). A network, trained without augmentation and then frozen,
gives features; logistic regression (C = 10) on those of 1,000 images tells two classes apart. C is
on the scale of the features, so these are divided by the mean length of the training images'; other
C are tried too, because what is found depends on it. The
test set holds every transformed version of its images, so accuracy rises as training images are
augmented, each by all its transformed versions, in the order that a strategy wants. Every round
draws other training images; strategies are compared within rounds, and intervals are over rounds.

DIR holds train/ and test/ with one folder a class; on it the network learns all classes, once. The
digits, even against odd, need no files; there each round trains a network on its 1,000 images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import environment, progress, save
from scipy import stats
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from augloader import (
    KDPP,
    Clusters,
    Evidence,
    FacilityLocation,
    Influence,
    Loss,
    Margin,
    Proportional,
    Proxies,
    Rank,
    Softmax,
    SupportVectors,
    Uniform,
)
from augloader.augment import crops, rotations, translations
from augloader.selection import Score

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from cifar import ResNet, mean_and_std, read

PACKAGES = ("augloader", "numpy", "torch", "torchvision", "scikit-learn", "scipy")
C = 10.0  # of the logistic regression
OTHERS = (1.0, 100.0)  # other C, under which the main strategies are compared too
POINTS = (0, 1, 10, 50, 100, 250, 500, 750, 1000)
COMPARED = (50, 100, 250)  # numbers of augmented points with a column in the table
CROPS = (2,)  # pixels left out on every side, of images of 32
ANGLES = (-5.0, -2.5, 2.5, 5.0)
SCORES = ("loss", "influence")

Array = np.ndarray[Any, Any]
Move = Callable[[Tensor], Tensor]
Accuracies = dict[int, float]  # by number of augmented points
Seconds = defaultdict[str, float]


@contextmanager
def timed(seconds: Seconds, name: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[name] += perf_counter() - start


@dataclass(frozen=True)
class Problem:
    """Images of two classes, what transforms them, and the network that makes features of them.

    Attributes:
        images: (n, 3, H, W) uint8.
        labels: (n,), 0 or 1.
        count: training images of a round, half of each class.
        test: indices of the test images; None takes all that a round does not train on.
        moves: the transformations, each several maps of images to images.
        network: returns the network to use, given the indices of a round's training images.
    """

    name: str
    images: Tensor
    labels: Array
    count: int
    test: Array | None
    moves: Mapping[str, Sequence[Move]]
    network: Callable[[Array], nn.Module]

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the indices of a round's training and test images."""
        everything = np.arange(len(self.labels))
        free = everything if self.test is None else np.setdiff1d(everything, self.test)
        train = [
            rng.choice(free[self.labels[free] == label], self.count // 2, replace=False)
            for label in (0, 1)
        ]
        chosen = rng.permutation(np.concatenate(train))
        return chosen, np.setdiff1d(everything, chosen) if self.test is None else self.test

    def features(self, network: nn.Module) -> dict[str, Array]:
        """Return (n, m + 1, d) by transformation: of images and their m moved versions."""
        plain = outputs(network, self.images, lambda images: images)
        return {
            name: np.stack([plain, *(outputs(network, self.images, move) for move in moves)], 1)
            for name, moves in self.moves.items()
        }


@torch.inference_mode()
def outputs(network: nn.Module, images: Tensor, move: Move) -> Array:
    return torch.cat([network(move(part)) for part in images.split(500)]).double().numpy()


def trained(images: Tensor, labels: Tensor, epochs: int, seed: int) -> nn.Module:
    """Train a ResNet-8 without augmentation; return what its head is given, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = ResNet(1, int(labels.max()) + 1, *mean_and_std(images))
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        steps = epochs * -(-len(labels) // 128)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, steps)
        for _ in progress(range(epochs)) if len(labels) > 5000 else range(epochs):
            for rows in torch.randperm(len(labels)).split(128):
                F.cross_entropy(network(images[rows]), labels[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
    network.head = nn.Identity()
    network.eval()
    return network


def folder(
    data: Path, classes: Sequence[str], limit: int | None, epochs: int, seed: int, seconds: Seconds
) -> Problem:
    """Train the network on all classes of an image folder; keep the images of two."""
    rng = np.random.default_rng(seed)
    with timed(seconds, "read"):
        train, test = read(data / "train", rng, limit=limit), read(data / "test", rng)
    wanted = torch.tensor([train.classes.index(name) for name in classes])
    kept = [torch.isin(part.labels, wanted) for part in (train, test)]
    labels = torch.cat([train.labels[kept[0]], test.labels[kept[1]]]) == wanted[1]
    with timed(seconds, "network"):
        network = trained(train.images, train.labels, epochs, seed)
    return Problem(
        "cifar10",
        torch.cat([train.images[kept[0]], test.images[kept[1]]]),
        labels.long().numpy(),
        1000,
        np.arange(int(kept[0].sum()), len(labels)),
        {"translate": translations(3), "rotate": rotations(ANGLES), "crop": crops(CROPS)},
        lambda _: network,
    )


def digits(count: int, epochs: int, seed: int, seconds: Seconds) -> Problem:
    """Even against odd digits; the network learns all ten of them, on a round's images alone."""
    bunch = load_digits()
    images = torch.tensor(bunch.images / 16 * 255).round().byte()[:, None].expand(-1, 3, -1, -1)
    labels = torch.tensor(bunch.target)

    def network(rows: Array) -> nn.Module:
        with timed(seconds, "network"):
            return trained(images[rows], labels[rows], epochs, seed)

    angles = tuple(angle for angle in np.linspace(-30, 30, 15).tolist() if angle)
    return Problem(
        "digits",
        images,
        bunch.target % 2,
        count,
        None,
        {"translate": translations(1), "rotate": rotations(angles), "crop": crops((1, 2))},
        network,
    )


@dataclass(frozen=True)
class Task:
    """A round's features under one transformation: (n, m + 1, d + 1) each, with (n,) labels."""

    train: Array
    labels: Array
    test: Array
    test_labels: Array

    @classmethod
    def of(cls, features: Array, labels: Array, train: Array, test: Array) -> Task:
        """Divide by the mean length of the training images' features, and append a 1."""
        length = np.linalg.norm(features[train, 0], axis=1).mean()
        x = np.concatenate([features / length, np.ones((*features.shape[:2], 1))], 2)
        return cls(x[train], labels[train], x[test], labels[test])

    def fit(self, model: LogisticRegression, chosen: Array, downweight: bool = False) -> None:
        """Fit to all images and the moved versions of the chosen ones, from where the model is."""
        moves = self.train.shape[1] - 1
        moved = self.train[chosen, 1:].reshape(-1, self.train.shape[2])
        labels = np.concatenate([self.labels, self.labels[chosen].repeat(moves)])
        weights = np.ones(len(labels))
        if downweight:
            weights[chosen] = weights[len(self.labels) :] = 1 / (moves + 1)
        model.fit(np.concatenate([self.train[:, 0], moved]), labels, weights)

    def accuracy(self, model: LogisticRegression) -> float:
        """Return the accuracy on the test images and all their moved versions."""
        predicted = model.predict(self.test.reshape(-1, self.test.shape[2]))
        return float((predicted.reshape(self.test.shape[:2]) == self.test_labels[:, None]).mean())

    def evidence(self, model: LogisticRegression) -> Evidence:
        """Return what the model says of the training images themselves."""
        x, sign = self.train[:, 0], 2 * self.labels - 1
        margins = sign * model.decision_function(x)
        residuals = torch.from_numpy(-sign * expit(-margins)).float()
        design = torch.from_numpy(x).float()
        return Evidence(
            len(x),
            torch.from_numpy(self.labels),
            Proxies(residuals[:, None], design),
            torch.from_numpy(np.logaddexp(0, -margins)).float(),
            features=design[:, :-1],
        )


@dataclass(frozen=True)
class Choice:
    """A way to choose points.

    Attributes:
        update: whether scores are those of the model of the last refit.
        downweight: whether a point and its m moved versions weigh 1 / (m + 1) each.
        anew: numbers of points for which it selects afresh; () where one order serves all.
        clustered: whether it selects from as many clusters as it selects points; needs ``anew``.
    """

    score: str
    name: str
    strategy: Any
    update: bool = False
    downweight: bool = False
    anew: tuple[int, ...] = ()
    clustered: bool = False

    def walk(
        self, task: Task, model: LogisticRegression, points: Sequence[int], seed: Sequence[int]
    ) -> Accuracies:
        """Augment more and more points; return the accuracy with each number of them."""
        rng, model, evidence = np.random.default_rng(seed), deepcopy(model), task.evidence(model)
        chosen = np.empty(0, dtype=np.int64)
        order, found = None, {}
        for k in self.anew or points:
            if self.anew and k:
                groups = {"groups": Clusters(k)} if self.clustered else {}
                strategy = replace(self.strategy, **groups)
                chosen = strategy.select(evidence, k, generator=rng).indices.numpy()
            elif k:
                if order is None or self.update:
                    evidence = task.evidence(model) if self.update else evidence
                    order = self.strategy.order(evidence, generator=rng).numpy()
                rest = order[~np.isin(order, chosen)]
                chosen = np.concatenate([chosen, rest[: k - len(chosen)]])
            task.fit(model, chosen, self.downweight)
            found[len(chosen)] = task.accuracy(model)
        return found


def scores(C: float) -> dict[str, Score]:
    return dict(zip(SCORES, (Loss(), Influence(damping=1 / C)), strict=True))


def main_choices(C: float) -> list[Choice]:
    """Return uniform, and the random and deterministic strategies with their inverses."""
    return [
        Choice("none", "uniform", Uniform()),
        *(
            Choice(name, f"{'inverse ' * inverse}{kind}", make(score, inverse))
            for name, score in scores(C).items()
            for inverse in (False, True)
            for kind, make in (("proportional", Proportional), ("rank", Rank))
        ),
    ]


def catalogue(count: int, points: Sequence[int], C: float) -> list[Choice]:
    """Return the paper's strategies, those of its appendices, and facility location."""
    every = tuple(points)
    few = tuple(k for k in points if 0 < k <= 50)  # the linear kernel has rank 64
    some = tuple(k for k in points if 0 < k <= count // 10)  # the gaussian one has more
    found = [
        *main_choices(C),
        Choice("none", "uniform downweight", Uniform(), downweight=True),
        Choice("none", "uniform clustered", Uniform(), anew=every, clustered=True),
        Choice("none", "k-DPP linear", KDPP(None), anew=few),
        Choice("none", "k-DPP gaussian", KDPP(None, kernel="gaussian"), anew=some),
        Choice("none", "support vectors", SupportVectors(), anew=(count,)),
        Choice("none", "facility location", FacilityLocation(per_class=False), anew=every),
        Choice("margin", "proportional", Proportional(Margin())),
        Choice("margin", "inverse proportional", Proportional(Margin(), inverse=True)),
    ]
    for name, score in scores(C).items():
        kinds = {"proportional": Proportional(score), "rank": Rank(score)}
        for kind, strategy in kinds.items():
            for update, downweight in ((False, True), (True, False), (True, True)):
                label = f"{kind}{' update' * update}{' downweight' * downweight}"
                found.append(Choice(name, label, strategy, update, downweight))
        found += [
            Choice(name, "softmax", Softmax(score)),
            Choice(name, "proportional clustered", Proportional(score), anew=every, clustered=True),
            Choice(name, "k-DPP linear", KDPP(score), anew=few),
            Choice(name, "k-DPP gaussian", KDPP(score, kernel="gaussian"), anew=some),
        ]
    return found


def interval(values: Array) -> dict[str, float]:
    """Return the mean and half the width of its 95 % t interval."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    return {"mean": float(values.mean()), "half": float(half)}


def curve(rounds: Sequence[Accuracies], count: int) -> dict[str, Array]:
    """Return each round's accuracies, and their mean over 0 to ``count`` points as "auc"."""
    points = sorted(set.intersection(*map(set, rounds)))
    found = {str(k): np.array([reached[k] for reached in rounds]) for k in points}
    if {0, count} <= set(points):
        found["auc"] = np.trapezoid(list(found.values()), points, axis=0) / count
    return found


def compare(own: dict[str, Array], uniform: dict[str, Array], count: int) -> dict[str, Any]:
    """Return what a strategy reached, and by how much it beat uniform, round by round."""
    return {
        "mean": {key: interval(x) for key, x in own.items()},
        "gain": {key: interval(x - uniform[key]) for key, x in own.items() if key in uniform},
        "auc_in_points": count * float(own["auc"].mean()) if "auc" in own else None,
    }


@dataclass(frozen=True)
class Results:
    """What a run found.

    Attributes:
        record: by transformation, each round's accuracy with no and all points augmented; each
            round's rank correlation, and its p-value, of the scores by the models of those two;
            and of every strategy what it reached and by how much that beats uniform.
        images, scores: the first round's training images, and their scores without augmentation.
    """

    name: str
    record: dict[str, dict[str, Any]]
    images: Tensor
    scores: dict[str, Array]


def run(
    problem: Problem,
    choices: Sequence[Choice],
    points: Sequence[int],
    rounds: int,
    seed: int,
    seconds: Seconds,
    C: float = C,
) -> Results:
    """Walk the strategies, the first of them uniform; ``points`` rise from 0 to problem.count."""
    reached: dict[str, list[list[Accuracies]]] = {name: [] for name in problem.moves}
    ranks: dict[str, list[dict[str, Any]]] = {name: [] for name in problem.moves}
    network: nn.Module | None = None
    images, first = problem.images[:0], dict[str, Array]()
    for r in progress(range(rounds)):
        train, test = problem.draw(np.random.default_rng([seed, r]))
        previous, network = network, problem.network(train)
        if network is not previous:
            with timed(seconds, "features"):
                features = problem.features(network)
        for name, x in features.items():
            task = Task.of(x, problem.labels, train, test)
            none = LogisticRegression(
                C=C, fit_intercept=False, solver="newton-cholesky", warm_start=True, tol=1e-6
            )
            task.fit(none, np.arange(0))
            full = deepcopy(none)
            task.fit(full, np.arange(problem.count))
            before, after = (
                {key: score(task.evidence(model)).numpy() for key, score in scores(C).items()}
                for model in (none, full)
            )
            if r == 0:
                images, first = problem.images[train], before
            ranks[name].append({k: [*stats.spearmanr(before[k], after[k])] for k in before})
            reached[name].append([])
            for choice in choices:
                with timed(seconds, f"{choice.score} {choice.name}"):
                    reached[name][r].append(choice.walk(task, none, points, [seed, r]))
    record = {}
    for name in problem.moves:
        walks = [*zip(*reached[name], strict=True)]
        uniform = curve(walks[0], problem.count)
        record[name] = {
            "none": uniform["0"].tolist(),
            "full": uniform[str(problem.count)].tolist(),
            "spearman": {key: [rho[key] for rho in ranks[name]] for key in SCORES},
            "strategies": [
                {"score": choice.score, "strategy": choice.name, "rounds": walk}
                | compare(curve(walk, problem.count), uniform, problem.count)
                for choice, walk in zip(choices, walks, strict=True)
            ],
        }
    return Results(problem.name, record, images, first)


def summary(results: Results) -> dict[str, Any]:
    auc: dict[str, Any] = {key: defaultdict(dict) for key in results.record}
    bounds: dict[str, dict[str, float]] = {"none": {}, "full": {}}
    for key, found in results.record.items():
        for row in found["strategies"]:
            if "auc" in row["mean"]:
                auc[key][row["score"]][row["strategy"]] = round(row["mean"]["auc"]["mean"], 5)
        for bound, values in bounds.items():
            values[key] = round(float(np.mean(found[bound])), 5)
    return {"benchmark": "strategies", "data": results.name, "auc": auc, **bounds}


def table(results: Results) -> str:
    """Return areas under the curve and, in percentage points, how strategies beat uniform."""
    columns = ("auc", *map(str, COMPARED))
    lines = []
    for name, found in results.record.items():
        rhos = (f"{key} {np.mean(x, 0)[0]:.2f}" for key, x in found["spearman"].items())
        lines += [
            f"\n{name}: {np.mean(found['none']):.2%} without augmentation, "
            f"{np.mean(found['full']):.2%} with all; rank correlation of the scores before and "
            f"after: {', '.join(rhos)}",
            f"{'':46}{'AUC':>7}" + "".join(f"{'+ ' + key:>16}" for key in columns),
        ]
        for row in found["strategies"]:
            cells = [f"{100 * row['mean']['auc']['mean']:.2f}%" if "auc" in row["mean"] else ""]
            for gain in map(row["gain"].get, columns):
                cells.append(
                    f"{100 * gain['mean']:+.2f} ± {100 * gain['half']:.2f}" if gain else ""
                )
            if row["strategy"] == "support vectors":  # as many as there are
                size, reached = np.mean([*(pair for x in row["rounds"] for pair in x.items())], 0)
                cells[1] = f"{reached:.2%} with {size:.0f}"
            lines.append(
                f"{row['score']:10}{row['strategy']:36}{cells[0]:>7}"
                + "".join(f"{cell:>16}" for cell in cells[1:]).rstrip()
            )
    return "\n".join(lines)


def draw(results: Results, stem: Path) -> None:
    """Draw curves, extreme images and histograms to ``<stem>-<kind>.png``."""
    import matplotlib

    matplotlib.use("Agg")
    for kind, make in (("curves", draw_curves), ("images", draw_images), ("scores", draw_scores)):
        make(results).savefig(f"{stem}-{kind}.png", dpi=120, bbox_inches="tight")


def draw_curves(results: Results) -> Any:
    """Draw random strategies above and deterministic ones below, as the paper's Figs. 3 and 10."""
    from matplotlib import pyplot

    colours = {"none": "tab:red", "loss": "tab:green", "influence": "tab:blue"}
    columns = len(results.record)
    figure, axes = pyplot.subplots(2, columns, figsize=(12, 6.5), squeeze=False, layout="tight")
    panels = product(("proportional", "rank"), results.record.items())
    for axis, (kind, (name, found)) in zip(axes.flat, panels, strict=True):
        for row in found["strategies"]:
            label = f"{row['strategy']} {row['score']}".removesuffix(" none")
            drawn = (
                "uniform",
                *(f"{way} {key}" for way in (kind, f"inverse {kind}") for key in SCORES),
            )
            if label not in drawn:
                continue
            points = [key for key in row["mean"] if key != "auc"]
            mean, half = 100 * np.array([[*row["mean"][key].values()] for key in points]).T
            x, style = [*map(int, points)], ".--" if "inverse" in label else ".-"
            axis.plot(x, mean, style, color=colours[row["score"]], label=label)
            axis.fill_between(x, mean - half, mean + half, color=colours[row["score"]], alpha=0.1)
        for bound, colour in (("none", "tab:red"), ("full", "tab:green")):
            axis.axhline(100 * np.mean(found[bound]), color=colour, linestyle=":")
        axis.set(title=name, xlabel="augmented points", ylabel="accuracy, %")
        axis.legend(fontsize=7)
    return figure


def draw_images(results: Results) -> Any:
    """Draw the ten images of highest and of lowest scores, as the paper's Figure 12."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(4, 10, figsize=(8, 3.8))
    ends = product(("high", "low"), results.scores.items())
    for row, (end, (score, values)) in zip(axes, ends, strict=True):
        order = values.argsort(kind="stable")
        for axis, i in zip(row, order[::-1] if end == "high" else order, strict=False):
            axis.imshow(results.images[i].permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{end} {score}", rotation=0, ha="right", va="center")
    return figure


def draw_scores(results: Results) -> Any:
    """Draw how the first round's scores are distributed, as the paper's Figure 1."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results.scores), figsize=(8, 3), layout="tight")
    for axis, (score, values) in zip(axes, results.scores.items(), strict=True):
        axis.hist(values, bins=60, log=True)
        axis.set(xlabel=score, ylabel="training images")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with train/ and test/, a folder a class")
    parser.add_argument("--classes", nargs=2, default=("airplane", "automobile"))
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits instead")
    parser.add_argument("--quick", action="store_true", help="two rounds and a short training")
    parser.add_argument("--rounds", type=int, help="(10)")
    parser.add_argument("--epochs", type=int, help="of the network's training (15; digits 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.digits == bool(options.data):
        parser.error("give --data DIR or --digits")
    rounds = options.rounds or (2 if options.quick else 10)
    if rounds < 2:
        parser.error("--rounds must be 2 or more, for an interval")
    usual, few = (40, 10) if options.digits else (15, 5)
    epochs = options.epochs or (few if options.quick else usual)
    torch.set_num_threads(options.threads)
    seconds: Seconds = defaultdict(float)
    with timed(seconds, "all"):
        if options.digits:
            problem = digits(1000, epochs, options.seed, seconds)
        else:
            limit = 10_000 if options.quick else None
            problem = folder(options.data, options.classes, limit, epochs, options.seed, seconds)
        choices = catalogue(problem.count, POINTS, C)
        results = run(problem, choices, POINTS, rounds, options.seed, seconds)
        others = {
            other: run(problem, main_choices(other), POINTS, rounds, options.seed, seconds, other)
            for other in (() if options.quick else OTHERS)
        }
    for other, found in others.items():
        print(f"\nC = {other:g}:\n{table(found)}")
    print(f"\nC = {C:g}:\n{table(results)}")
    record = {
        "quick": options.quick,
        "rounds": rounds,
        "epochs": epochs,
        "seed": options.seed,
        "classes": None if options.digits else options.classes,
        "environment": environment(options.threads, PACKAGES),
        "summary": summary(results),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "transformations": results.record,
        "other_C": {f"{other:g}": found.record for other, found in others.items()},
    }
    record = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 6))
    script = f"strategies-{problem.name}{'-quick' if options.quick else ''}"
    draw(results, save(options.output, script, "cpu", record).with_suffix(""))
    print(json.dumps(record["summary"]))


if __name__ == "__main__":
    main()
