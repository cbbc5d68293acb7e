"""What a strategy is: evidence and a budget in, a selection out.

A strategy is any object with ``needs`` and a pure ``select``; nothing is inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    kind,
    require_budget,
    require_generator,
    require_int,
    require_names,
)
from augloader.core.evidence import EVIDENCE, Evidence, Selection
from augloader.core.proxies import Proxies


@runtime_checkable
class Strategy(Protocol):
    """What the sampler asks of a strategy.

    Attributes:
        needs: names of the fields of Evidence it looks at.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at."""

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        """Return at most ``budget`` samples whose weights sum to ``evidence.n``."""


class Part(Protocol):
    """What a separable strategy selects by itself, as one class.

    Attributes:
        members: (m,) int64, the indices of its samples.
    """

    @property
    def members(self) -> Tensor:
        """The indices of its samples."""


@runtime_checkable
class Separable(Strategy, Protocol):
    """A strategy that selects from parts of the data one by one: ranks then share the parts.

    ``join(parts, solve(parts, ...), previous)`` of ``parts = plan(...)`` must be what ``select``
    returns. On several ranks each solves some of the parts, in any order; parts and their outcomes
    are pickled. Such a strategy looks at proxies, of the part alone, and at labels.
    """

    def plan(
        self,
        n: int,
        labels: Tensor | None,
        previous: Tensor | None,
        budget: int,
        generator: np.random.Generator,
    ) -> Sequence[Any]:
        """Return the parts, each a ``Part``; they depend on the arguments alone."""

    def solve(
        self, parts: Sequence[Any], proxies_of: Callable[[Any], Proxies], device: torch.device
    ) -> Sequence[Any]:
        """Return the outcome of each part; ``proxies_of`` gives its rows, one for each member."""

    def join(
        self, parts: Sequence[Any], found: Sequence[Any], previous: Tensor | None
    ) -> Selection:
        """Return the selection, from all parts and their outcomes."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """A selection whose first samples are the selections of smaller budgets."""

    indices: Tensor
    n: int

    def first(self, budget: int) -> Selection:
        """Return the selection of a smaller budget."""
        budget = require_budget(budget, len(self.indices))
        weights = torch.full((budget,), self.n / budget, dtype=torch.float32, device="cpu")
        return Selection(self.indices[:budget], weights, nested=self)


def require_strategy(strategy: Any) -> Strategy:
    """Return ``strategy`` if it is one, or raise TypeError or ValueError."""
    if isinstance(strategy, type) or not isinstance(strategy, Strategy):
        raise TypeError(
            f"strategy must be an object with needs and select, got {strategy!r}. "
            "Pass an instance, as FacilityLocation()."
        )
    require_needs("strategy.needs", strategy.needs)
    return strategy


def require_selection(
    selection: Selection, budget: int, n: int, name: str = "strategy", method: str = "select"
) -> None:
    """Raise ValueError unless at most so many of n samples were selected, or kept."""
    if len(selection) > budget or int(selection.indices.max()) >= n:
        raise ValueError(
            f"{name} must {method} at most {budget} of {n} samples, got {len(selection)} with "
            f"indices up to {int(selection.indices.max())}. Fix its {method} method."
        )


def require_needs(name: str, needs: frozenset[str]) -> None:
    """Raise TypeError unless the needs are a set, ValueError unless all are of Evidence."""
    require_names(name, needs, EVIDENCE, "Name the fields of Evidence.")


def require_evidence(
    evidence: Evidence, needs: frozenset[str], budget: int, generator: np.random.Generator
) -> int:
    """Return the budget, or raise unless it fits the evidence, which has what a strategy needs."""
    if not isinstance(evidence, Evidence):
        raise TypeError(
            f"evidence must be an Evidence, got {kind(evidence)}. Pass what sweep returns, or "
            "values of your own: Evidence(n, proxies=proxies)."
        )
    evidence.require_whole()
    for name in sorted(needs):
        evidence.require(name)
    require_generator(generator)
    budget = require_int("budget", budget, 1, "Choose at least one sample.")
    if budget > evidence.n:
        raise ValueError(
            f"budget must be at most the number of samples, {evidence.n}, got {budget}. "
            "Ask for fewer samples."
        )
    return budget
