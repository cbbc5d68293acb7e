"""What strategies look at and return: Evidence, Selection and its Certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    require_finite,
    require_int,
    require_labels,
    unchecked,
)
from augloader.core.proxies import Proxies

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Certificate:
    """How good a selection by facility location is, and how good one could be at most.

    Coverage is f(S) = sum_i (c1 - min_{j in S} d_ij) over the samples of every group, c1 at least
    the largest distance in the group. By submodularity no selection of as many samples of each
    group exceeds f(S) + the sum of the largest marginal gains that are left.

    Attributes:
        coverage: f(S), in units of proxy distance.
        bound: what no selection of the same shape exceeds.
        gains: (k,) float64, the marginal gain of each selected sample when it was taken.
        covered: share of samples whose medoid is among the neighbours that the engine knows; 1
            where all pairs were compared.
        proven: whether the bound is a theorem; False after an approximate neighbour search, when
            it holds for the neighbours found.
        reason: which engine ran, and why.
        kept: how many of the samples were selected before too; None at the first selection.

    Source: Nemhauser, Wolsey & Fisher (1978); Leskovec et al. (2007), section 3.2.
    """

    coverage: float
    bound: float
    gains: Tensor
    covered: float
    proven: bool
    reason: str
    kept: int | None = None

    @property
    def ratio(self) -> float:
        """The share of the best possible coverage that is reached for certain, in (0, 1]."""
        return min(self.coverage / self.bound, 1.0) if self.bound > 0 else 1.0


class Nested(Protocol):
    """An object that knows the selections of all smaller budgets."""

    def first(self, budget: int) -> Selection:
        """Return the selection of a smaller budget."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The samples that a strategy chose, and how many samples each of them stands for.

    Args:
        indices: (k,) int64, distinct, 0 or more.
        weights: (k,) float32, finite, above 0; they sum to the number of samples stood for.
        certificate: how good the selection is, where the strategy knows.
        nested: what answers smaller budgets, where the strategy's order is nested.

    Raises:
        TypeError: wrong dtype.
        ValueError: empty, wrong shape, repeated or negative indices, weights not above 0.

    Example:
        >>> len(Selection(torch.tensor([3, 1]), torch.tensor([2.0, 4.0])))
        2
    """

    indices: Tensor
    weights: Tensor
    certificate: Certificate | None = None
    nested: Nested | None = None

    def __post_init__(self) -> None:
        """Take arrays, and check the contract above."""
        for name in ("indices", "weights"):
            values = as_tensor(f"selection.{name}", getattr(self, name), "Give one a sample.")
            object.__setattr__(self, name, values)
        if self.indices.dtype != torch.int64 or self.weights.dtype != torch.float32:
            raise TypeError(
                "selection must be int64 indices and float32 weights, got "
                f"{self.indices.dtype} and {self.weights.dtype}. Convert them with .to()."
            )
        if self.indices.ndim != 1 or self.indices.shape != self.weights.shape or not len(self):
            raise ValueError(
                "selection must be k >= 1 indices and as many weights, got shapes "
                f"{tuple(self.indices.shape)} and {tuple(self.weights.shape)}. Give one weight "
                "for each chosen sample."
            )
        if (self.indices < 0).any() or len(self.indices.unique()) < len(self):
            raise ValueError(
                "selection.indices must be distinct and 0 or more, got negative or repeated ones. "
                "Choose each sample once."
            )
        bad = ~(self.weights.isfinite() & (self.weights > 0))
        if bad.any():
            raise ValueError(
                "selection.weights must be finite and above 0, got "
                f"{count_and_first(bad, 'others')}. Leave out samples that stand for nothing."
            )

    def __len__(self) -> int:
        """Return the number of chosen samples."""
        return len(self.indices)

    def summary(self, labels: Tensor | None = None) -> None:
        """Print the selection's size, weights, classes and certificate as a table.

        Args:
            labels: see ``augloader.summary.of_selection``, which returns the text.
        """
        from augloader import summary  # a view: it only reads

        print(summary.of_selection(self, labels))

    def first(self, budget: int) -> Selection:
        """Return the selection of a smaller budget, without running the strategy again.

        Args:
            budget: number of samples, from one a class to the number selected.

        Raises:
            ValueError: a strategy without nested order, budget out of range.

        Example:
            >>> import numpy as np
            >>> from augloader import FacilityLocation, Proxies
            >>> evidence = Evidence(4, proxies=Proxies(torch.tensor([[0.0], [1.0], [2.0], [9.0]])))
            >>> strategy = FacilityLocation(per_class=False)
            >>> three = strategy.select(evidence, 3, generator=np.random.default_rng(0))
            >>> two = three.first(2)
            >>> two.indices.tolist(), two.weights.tolist()
            ([1, 3], [3.0, 1.0])
        """
        if self.nested is None:
            raise ValueError(
                "selection must be of a strategy with a nested order, got one without. Select "
                "with FacilityLocation, or again with the smaller budget."
            )
        return self.nested.first(budget)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a strategy may look at.

    Arrays and lists of numbers are taken too; what requires gradients is detached.

    Args:
        n: number of samples, at least 1.
        labels: (m,) integer, 0 or more, or None; the groups that are selected one by one. They are
            kept as int64.
        proxies: gradient proxies of the m samples, or None; (m, d) floating values are taken as
            proxies that are vectors.
        losses: (m,) floating and finite, or None.
        previous: (k,) int64 indices that are selected now, or None; the sampler adds them.
        indices: None where the rows are of all samples in order, m = n. Else a share, as of one
            rank: (m,) int64, distinct, in [0, n), the samples that the rows are of; m may be 0.
        features: (m, d) floating and finite, what the model's head is given, or None.
        forgetting: (m,) floating, forgetting events, -1 for samples that were never classified
            correctly, or None; the sampler adds them.
        scores: (m,) floating and finite, scores of your own, or None; see ``augloader.Given``.

    Raises:
        TypeError: wrong dtype, or no tensor or array.
        ValueError: empty, wrong length, negative labels, values that are NaN or infinite, indices
            repeated or out of range.

    Example:
        >>> Evidence(3, losses=torch.tensor([0.1, 2.0, 0.4])).n
        3
    """

    n: int
    labels: Tensor | None = None
    proxies: Proxies | None = None
    losses: Tensor | None = None
    previous: Tensor | None = None
    indices: Tensor | None = None
    features: Tensor | None = None
    forgetting: Tensor | None = None
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        """Take arrays, and check the contract above."""
        m = self._set(
            "n", require_int("evidence.n", self.n, 1, "Give the number of samples of the dataset.")
        )
        for name, advice in _ADVICE.items():
            values = getattr(self, name)
            if values is not None:
                self._set(name, as_tensor(name, values, advice))
        if self.indices is not None:
            self._check_positions("indices", self.indices)
            m = len(self.indices)
            if len(self.indices.unique()) < m:
                raise ValueError(
                    "indices must be distinct, got repeated ones. Give one row a sample."
                )
        if self.labels is not None:
            self._set("labels", require_labels("labels", self.labels, m, samples=self.indices))
        if self.proxies is not None and len(self._set("proxies", Proxies.of(self.proxies))) != m:
            raise ValueError(
                f"proxies must have {m} rows, got {len(self.proxies)}. Give one row a sample."
            )
        for name in ("losses", "features", "forgetting", "scores"):
            values = getattr(self, name)
            if values is not None:
                _require_rows(name, values, m, self.indices)
        if self.previous is not None:
            self._check_positions("previous", self.previous)
            if len(self.previous.unique()) < len(self.previous):
                raise ValueError(
                    f"previous must be distinct, got repeated ones. {_ADVICE['previous']}"
                )

    def _set(self, name: str, value: T) -> T:
        object.__setattr__(self, name, value)
        return value

    def with_checked(self, **fields: Any) -> Evidence:
        """Return this evidence with other fields, which were checked before and are not again."""
        return unchecked(type(self), **(vars(self) | fields))

    def require(self, name: str) -> Any:
        """Return one of ``EVIDENCE``, or raise ValueError where it is not given."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"evidence.{name} must be given, got None. {_SOURCE[name]}")
        return value

    def require_whole(self) -> None:
        """Raise ValueError if the rows are a share of the samples only."""
        if self.indices is not None:
            raise ValueError(
                f"evidence must be of all {self.n} samples, got a share of {len(self.indices)}. "
                "Give the sampler group=, so that the ranks select together."
            )

    def _check_positions(self, name: str, given: Tensor) -> None:
        advice = _ADVICE[name]
        if given.dtype != torch.int64 or given.ndim != 1:
            raise TypeError(
                f"{name} must be (k,) int64 indices, got {tuple(given.shape)} {given.dtype}. "
                f"{advice}"
            )
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < self.n:
            raise ValueError(
                f"{name} must be in [0, {self.n}), got indices from {int(given.min())} to "
                f"{int(given.max())}. {advice}"
            )


_SWEEP = "Take the evidence from augloader.sweep, or report it in every step."
_SOURCE = {
    "labels": f"{_SWEEP[:-1]}; or select among all samples: FacilityLocation(per_class=False).",
    "proxies": _SWEEP,
    "losses": _SWEEP,
    "features": "Take the evidence from augloader.sweep with LastLayerGradient(), or add your own.",
    "forgetting": "The sampler's table counts it from reports with logits and labels.",
    "scores": "Add yours: dataclasses.replace(evidence, scores=...).",
}
EVIDENCE = tuple(_SOURCE)  # what strategies and scores may need
_ADVICE = {
    "labels": "Give one label a sample.",
    "losses": 'Compute the loss with reduction="none", and check the model: has training diverged?',
    "previous": "Pass selection.indices of this data.",
    "indices": "Name the samples of the rows.",
    "features": "Flatten each sample's features to one row, and check the model.",
    "forgetting": "Leave it to the sampler's table.",
    "scores": "Give one finite score a sample.",
}


def _require_rows(name: str, values: Tensor, m: int, samples: Tensor | None) -> None:
    """Raise unless values are floating and finite, one number or one row a sample."""
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating, got {values.dtype}. Convert with .float().")
    ndim = 2 if name == "features" else 1
    if values.ndim != ndim or len(values) != m:
        shape = f"({m},)" if ndim == 1 else f"({m}, d)"
        got = tuple(values.shape)
        raise ValueError(f"{name} must have shape {shape}, got {got}. {_ADVICE[name]}")
    require_finite(name, values, _ADVICE[name], samples)
