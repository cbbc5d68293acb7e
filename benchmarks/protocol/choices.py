"""A round's logistic regressions, and the ways to choose which points are augmented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

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
from augloader.selection import Score
from protocol.problems import Array

GRID = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of C, for cross-validation
FOLDS = 3
DPP = 250  # points of a k-DPP at most, as in the paper

Accuracies = dict[int, float]  # by number of augmented points
Strategy = Callable[[float], Any]  # of C, which influence depends on

SCORES: dict[str, Callable[[float], Score]] = {
    "loss": lambda C: Loss(),
    "influence": lambda C: Influence(damping=1 / C),
}


@dataclass(frozen=True)
class Task:
    """A round's features under one transformation: (n, m + 1, d + 1) each, with (n,) labels.

    Attributes:
        grid: the C to choose from in each fit; () keeps the model's.
        renew: returns the task of features that were trained with the chosen points augmented; None
            keeps the features.
    """

    train: Array
    labels: Array
    test: Array
    test_labels: Array
    grid: tuple[float, ...] = ()
    renew: Callable[[Array], Task] | None = None

    @classmethod
    def of(cls, features: Array, labels: Array, train: Array, test: Array, **options: Any) -> Task:
        """Divide by the mean length of the training images' features, and append a 1."""
        length = np.linalg.norm(features[train, 0], axis=1).mean()
        x = np.concatenate([features / length, np.ones((*features.shape[:2], 1))], 2)
        return cls(x[train], labels[train], x[test], labels[test], **options)

    def fit(self, model: LogisticRegression, chosen: Array, downweight: bool = False) -> None:
        """Fit to all images and the moved versions of the chosen ones, from where the model is."""
        moves = self.train.shape[1] - 1
        moved = self.train[chosen, 1:].reshape(-1, self.train.shape[2])
        labels = np.concatenate([self.labels, self.labels[chosen].repeat(moves)])
        weights = np.ones(len(labels))
        if downweight:
            weights[chosen] = weights[len(self.labels) :] = 1 / (moves + 1)
        x = np.concatenate([self.train[:, 0], moved])
        if self.grid:
            owners = np.concatenate([np.arange(len(self.labels)), np.repeat(chosen, moves)])
            model.set_params(C=self.validated(model, x, labels, weights, owners))
        model.fit(x, labels, weights)

    def validated(
        self, model: LogisticRegression, x: Array, labels: Array, weights: Array, owners: Array
    ) -> float:
        """Return the C of the grid with the smallest loss on rows that are held out.

        An image and its moved versions are held out together; each class is divided evenly.
        """
        folds = np.empty(len(self.labels), dtype=np.int64)
        for label in (0, 1):
            own = self.labels == label
            folds[own] = np.arange(own.sum()) % FOLDS
        losses = np.zeros(len(self.grid))
        for fold in range(FOLDS):
            held, trial = folds[owners] == fold, clone(model)
            for i, C in enumerate(self.grid):  # each from the one before
                trial.set_params(C=C).fit(x[~held], labels[~held], weights[~held])
                margins = (2 * labels[held] - 1) * trial.decision_function(x[held])
                losses[i] += weights[held] @ np.logaddexp(0, -margins)
        return self.grid[int(losses.argmin())]

    def accuracy(self, model: LogisticRegression) -> float:
        """Return the accuracy on the test images and all their moved versions."""
        predicted = model.predict(self.test.reshape(-1, self.test.shape[2]))
        return float((predicted.reshape(self.test.shape[:2]) == self.test_labels[:, None]).mean())

    def evidence(self, model: LogisticRegression) -> Evidence:
        """Return what the model says of the training images themselves.

        Also of a model that was fitted to moved versions: these are no part of the Hessian.
        """
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
        strategy: made for the C of the regression.
        update: whether scores are those of the model of the last refit.
        downweight: whether a point and its m moved versions weigh 1 / (m + 1) each.
        anew: numbers of points for which it selects afresh; () where one order serves all. A k-DPP
            ends at the last number that its kernel's rank allows.
        clustered: whether it selects from as many clusters as it selects points; needs ``anew``.
    """

    score: str
    name: str
    strategy: Strategy
    update: bool = False
    downweight: bool = False
    anew: tuple[int, ...] = ()
    clustered: bool = False

    def walk(
        self, task: Task, model: LogisticRegression, points: Sequence[int], seed: Sequence[int]
    ) -> Accuracies:
        """Augment more and more points; return the accuracy with each number of them."""
        rng, model, evidence = np.random.default_rng(seed), deepcopy(model), task.evidence(model)
        strategy, chosen, current = self.strategy(model.C), np.empty(0, dtype=np.int64), task
        order, found = None, dict[int, float]()
        for k in self.anew or points:
            if self.anew and k:
                groups = {"groups": Clusters(k)} if self.clustered else {}
                try:
                    picked = replace(strategy, **groups).select(evidence, k, generator=rng)
                except ValueError as error:
                    if isinstance(strategy, KDPP) and "the rank of the kernel" in str(error):
                        break
                    raise
                chosen = picked.indices.numpy()
            elif k:
                if order is None or self.update:
                    if self.update:
                        evidence, strategy = current.evidence(model), self.strategy(model.C)
                    order = strategy.order(evidence, generator=rng).numpy()
                rest = order[~np.isin(order, chosen)]
                chosen = np.concatenate([chosen, rest[: k - len(chosen)]])
            current = task.renew(chosen) if task.renew and len(chosen) else task
            current.fit(model, chosen, self.downweight)
            found[len(chosen)] = current.accuracy(model)
        return found


def by(kind: Callable[..., Any], score: str, **options: Any) -> Strategy:
    """Return what makes a strategy of this kind by a score, for any C."""
    return lambda C: kind(SCORES[score](C), **options)


def same(strategy: Any) -> Strategy:
    return lambda C: strategy


def few_choices() -> list[Choice]:
    """Return uniform and the random strategies: where each point takes a training."""
    random = [Choice(name, "proportional", by(Proportional, name)) for name in SCORES]
    return [Choice("none", "uniform", same(Uniform())), *random]


def main_choices() -> list[Choice]:
    """Return uniform, and the random and deterministic strategies with their inverses."""
    kinds = {"proportional": Proportional, "rank": Rank}
    return [
        Choice("none", "uniform", same(Uniform())),
        *(
            Choice(name, f"{'inverse ' * inverse}{kind}", by(make, name, inverse=inverse))
            for name in SCORES
            for inverse in (False, True)
            for kind, make in kinds.items()
        ),
    ]


def catalogue(count: int, points: Sequence[int]) -> list[Choice]:
    """Return the paper's strategies, those of its appendices, and facility location."""
    every = tuple(points)
    some = tuple(k for k in points if 0 < k <= DPP)
    margins = (("proportional", False), ("inverse proportional", True))
    found = [
        *main_choices(),
        Choice("none", "uniform downweight", same(Uniform()), downweight=True),
        Choice("none", "uniform clustered", same(Uniform()), anew=every, clustered=True),
        Choice("none", "k-DPP linear", same(KDPP(None)), anew=some),
        Choice("none", "k-DPP gaussian", same(KDPP(None, kernel="gaussian")), anew=some),
        Choice("none", "support vectors", same(SupportVectors()), anew=(count,)),
        Choice("none", "facility location", same(FacilityLocation(per_class=False)), anew=every),
        *(
            Choice("margin", name, same(Proportional(Margin(), inverse=inverse)))
            for name, inverse in margins
        ),
    ]
    for name in SCORES:
        kinds = {"proportional": by(Proportional, name), "rank": by(Rank, name)}
        for kind, strategy in kinds.items():
            for update, downweight in ((False, True), (True, False), (True, True)):
                label = f"{kind}{' update' * update}{' downweight' * downweight}"
                found.append(Choice(name, label, strategy, update, downweight))
        clustered = by(Proportional, name)
        found += [
            Choice(name, "softmax", by(Softmax, name)),
            Choice(name, "proportional clustered", clustered, anew=every, clustered=True),
            Choice(name, "k-DPP linear", by(KDPP, name), anew=some),
            Choice(name, "k-DPP gaussian", by(KDPP, name, kernel="gaussian"), anew=some),
        ]
    return found
