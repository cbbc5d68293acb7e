"""Support vector machines: margins as a score, and support vectors as a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    plain,
    require_finite,
    require_labels,
    require_number,
)
from augloader.core.evidence import Evidence, Selection
from augloader.selection.strategy import Ordered, require_evidence

GRID = (0.01, 0.1, 1.0, 10.0, 100.0)  # the values of C that the paper searches
_FOLDS = 3


def margins(features: Tensor, labels: Tensor, C: float | Sequence[float] = GRID) -> Tensor:
    """Return each sample's functional margin to a linear SVM fitted to all of them.

        margin_i = min_c y_ic (w_c . x_i + b_c),   y_ic = 1 for the label c = y_i and -1 else,

    over the one-vs-rest classifiers (a single one for two classes). Each minimises
    1/2 (||w||^2 + b^2) + C sum_i max(0, 1 - y_ic f_c(x_i))^2. Support vectors are the samples
    with a margin below 1.

    Args:
        features: (n, d) floating, finite; scale them to about 1, as for every SVM.
        labels: (n,) integer; at least two classes.
        C: above 0; of several the one with the best accuracy in 3-fold cross-validation.

    Returns:
        (n,) float32 on the CPU; negative for samples on the wrong side.

    Raises:
        ImportError: no scikit-learn.
        ValueError: a single class, C not above 0, several C and a class with one sample.

    Cost: a fit O(n d) an iteration and class; of several C, 3 fits each.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> margins(x, torch.tensor([0, 0, 1, 1]), C=100.0).round(decimals=1)
        tensor([2., 1., 1., 2.])

    Source: Kuchnik & Smith (2019), section 5.1 and App. F; Decoste & Schoelkopf (2002).
    """
    features = as_tensor("features", features, "Give one row a sample.")
    if features.ndim != 2 or not features.is_floating_point():
        raise TypeError(
            f"features must be (n, d) floating, got {tuple(features.shape)} {features.dtype}. "
            "Flatten each sample's values to one row, and convert them with .float()."
        )
    require_finite("features", features, "Check the model they come from.")
    labels = require_labels(
        "labels", as_tensor("labels", labels, "Give one label a sample."), len(features)
    )
    C = check_C(C)
    kinds, sizes = labels.unique(return_counts=True)
    if len(kinds) < 2:
        raise ValueError(
            f"labels must hold at least 2 classes for an SVM, got only class {int(kinds[0])}. "
            "Take another score, as Loss()."
        )
    try:
        from sklearn.model_selection import GridSearchCV, StratifiedKFold
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ImportError(
            "Margin and SupportVectors need scikit-learn. Install it: pip install scikit-learn"
        ) from error
    x, y = features.detach().cpu().double().numpy(), labels.cpu().numpy()
    if isinstance(C, Sequence):
        if int(sizes.min()) < 2:
            raise ValueError(
                "labels must give every class at least 2 samples to choose C by cross-validation, "
                f"got 1 in class {int(kinds[sizes.argmin()])}. Give one C, as C=1.0."
            )
        folds = StratifiedKFold(min(_FOLDS, int(sizes.min())), shuffle=True, random_state=0)
        svm = GridSearchCV(LinearSVC(dual=False, random_state=0), {"C": list(C)}, cv=folds)
    else:
        svm = LinearSVC(dual=False, C=C, random_state=0)
    values = svm.fit(x, y).decision_function(x).reshape(len(x), -1)
    classes = kinds[1:] if len(kinds) == 2 else kinds
    own = y[:, None] == classes.cpu().numpy()
    return torch.from_numpy(np.where(own, values, -values).min(1)).float()


def check_C(C: Any) -> float | tuple[float, ...]:
    """Return a number above 0, or several of them, as Python's; or raise."""
    if isinstance(C, np.ndarray) and C.ndim == 1:
        C = tuple(C.tolist())
    several = isinstance(C, Sequence) and len(C) and not isinstance(C, str)
    for value in C if several else [C]:
        require_number("C", value, "(0, inf)", "Large C allows few errors.")
    return tuple(map(plain, C)) if several else plain(C)


@dataclass(frozen=True)
class Margin:
    """Distance from a linear SVM's decision, |margin_i|; see ``augloader.selection.margins``.

    Samples far from the margin score high; the paper's other choice, those near it, is
    ``Proportional(Margin(), inverse=True)``. Needs scikit-learn.

    Args:
        C: above 0; of several the best in cross-validation.

    Raises:
        TypeError, ValueError: C not above 0.

    Raises when called:
        ValueError: no features or labels in the evidence, a single class.
        ImportError: no scikit-learn.

    Cost: that of the fits.

    Example:
        >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> Margin(C=100.0)(Evidence(4, y, features=x)).round(decimals=1)
        tensor([2., 1., 1., 2.])

    Source: Kuchnik & Smith (2019), App. F.
    """

    C: float | Sequence[float] = GRID

    needs: ClassVar[frozenset[str]] = frozenset({"features", "labels"})

    def __post_init__(self) -> None:
        """Check C."""
        object.__setattr__(self, "C", check_C(self.C))

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 distances."""
        features, labels = evidence.require("features"), evidence.require("labels")
        return margins(features, labels, self.C).abs()


@dataclass(frozen=True)
class SupportVectors:
    """The support vectors of a linear SVM: the samples with a margin below 1, the smallest first.

    At most ``budget`` of them, and no others: where there are fewer the selection is smaller.

    Args:
        C: of the SVM, above 0; of several the best in cross-validation.

    Raises:
        TypeError, ValueError: C not above 0.

    Cost: that of the fits.

    Example:
        >>> x, y = torch.tensor([[-2.0], [-0.1], [0.1], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> evidence = Evidence(4, y, features=x)
        >>> s = SupportVectors(C=100.0).select(evidence, 4, generator=np.random.default_rng(0))
        >>> s.indices.sort().values, s.weights
        (tensor([1, 2]), tensor([2., 2.]))

    Source: Decoste & Schoelkopf (2002); Kuchnik & Smith (2019), section 5.1.
    """

    C: float | Sequence[float] = GRID

    needs: ClassVar[frozenset[str]] = frozenset({"features", "labels"})

    def __post_init__(self) -> None:
        """Check C."""
        object.__setattr__(self, "C", check_C(self.C))

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return at most ``budget`` support vectors; each weighs n over their number.

        Args:
            evidence: with features and labels.
            budget: 1 to n.
            generator: not used.

        Raises:
            ValueError: evidence missing, budget out of range, one class only.
        """
        budget = require_evidence(evidence, self.needs, budget, generator)
        values = self._margins(evidence)
        count = min(budget, max(1, int((values < 1).sum())))
        return Ordered(values.argsort(stable=True)[:count], evidence.n).first(count)

    def order(self, evidence: Evidence, *, generator: np.random.Generator) -> Tensor:
        """Return all samples by their margin, the smallest first: the support vectors lead."""
        require_evidence(evidence, self.needs, 1, generator)
        return self._margins(evidence).argsort(stable=True)

    def _margins(self, evidence: Evidence) -> Tensor:
        return margins(evidence.require("features"), evidence.require("labels"), self.C)
