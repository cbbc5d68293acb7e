"""Whole networks, trained with some points augmented: their accuracy, and how long epochs take."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression

from augloader import SupportVectors
from protocol.choices import Task
from protocol.problems import Array, Problem, outputs
from protocol.results import interval

SETS = ("none", "uniform", "support vectors", "all")


def deep(problem: Problem, rounds: int, seed: int, epochs: int) -> dict[str, Any]:
    """Train two-class networks on a round's images and the moved versions of some of them.

    Of none, of the support vectors among the frozen features, of as many drawn at random, and of
    all; each is tested on the test images and all their moved versions.

    Returns:
        By transformation: each set's training images, seconds an epoch and accuracy, round by
        round, and the intervals of the accuracies; the line of seconds an epoch over training
        images that fits best, and the share of the variance that it explains.

    Source: Kuchnik & Smith (2019), App. I and Fig. 17.
    """
    found = {}
    for name in problem.moves:
        runs: dict[str, list[dict[str, float]]] = {chosen: [] for chosen in SETS}
        for r in range(rounds):
            train, test = problem.draw(np.random.default_rng([seed, r]))
            for chosen, points in sets(problem, name, train, test, [seed, r]).items():
                start = perf_counter()
                network = problem.relearnt(train, points, name, whole=True)
                took = (perf_counter() - start) / epochs
                size = len(train) + len(points) * len(problem.moves[name])
                accuracy = accuracy_of(problem, network, test, name)
                runs[chosen].append({"images": size, "epoch": took, "accuracy": accuracy})
        pairs = np.array([(run["images"], run["epoch"]) for part in runs.values() for run in part])
        line = stats.linregress(*pairs.T)
        found[name] = {
            "runs": runs,
            "accuracy": {
                chosen: interval(np.array([run["accuracy"] for run in part]))
                for chosen, part in runs.items()
            },
            "seconds_per_1000_images": 1000 * float(line.slope),
            "seconds_fixed": float(line.intercept),
            "explained": float(line.rvalue**2),
        }
    return found


def sets(
    problem: Problem, name: str, train: Array, test: Array, seed: list[int]
) -> dict[str, Array]:
    """Return the points of each set: places in the round's training images."""
    rng = np.random.default_rng(seed)
    features = problem.features(problem.network(train), name)
    task = Task.of(features, problem.labels, train, test)
    model = LogisticRegression(C=10.0, fit_intercept=False, solver="newton-cholesky", tol=1e-6)
    task.fit(model, np.arange(0))
    chosen = SupportVectors().select(task.evidence(model), len(train), generator=rng)
    vectors = chosen.indices.numpy()
    random = rng.choice(len(train), len(vectors), replace=False)
    return dict(zip(SETS, (vectors[:0], random, vectors, np.arange(len(train))), strict=True))


def accuracy_of(problem: Problem, network: torch.nn.Module, test: Array, name: str) -> float:
    """Return the accuracy on the test images and all their moved versions."""
    rows, labels = torch.from_numpy(test), problem.labels[test]
    images, moves = problem.images[rows], (lambda images: images, *problem.moves[name])
    right = [(outputs(network, images, move).argmax(1) == labels).mean() for move in moves]
    return float(np.mean(right))


def table(found: dict[str, Any]) -> str:
    """Return a line for each transformation and set."""
    lines = [f"{'whole networks':15}{'set':18}{'images':>8}{'s an epoch':>12}{'accuracy':>20}"]
    for name, part in found.items():
        for chosen, runs in part["runs"].items():
            images, epoch = (np.mean([run[key] for run in runs]) for key in ("images", "epoch"))
            own = part["accuracy"][chosen]
            reached = f"{100 * own['mean']:.2f} ± {100 * own['half']:.2f} %"
            lines.append(f"{name:15}{chosen:18}{images:8.0f}{epoch:12.3f}{reached:>20}")
        lines.append(
            f"{name}: {part['seconds_per_1000_images']:.3f} s an epoch for 1,000 images; a line "
            f"explains {part['explained']:.1%}"
        )
    return "\n".join(lines)
