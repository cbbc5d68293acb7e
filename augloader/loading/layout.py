"""An epoch's draws by their place, each made where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from augloader.core.keyed import uniforms
from augloader.core.permutation import Permutation

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Draws:
    """Some draws as columns; see ``Draw``.

    Attributes:
        index: (m,) int64.
        copy: (m,) int64.
        weight: (m,) float32.
        strength: (m,) float32.
        weak: (m,) bool.
    """

    index: Array
    copy: Array
    weight: Array
    strength: Array
    weak: Array

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.index)

    @property
    def columns(self) -> tuple[Array, ...]:
        """All columns, in the order of ``Draw``'s fields."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def rows(self, which: Array) -> Draws:
        """Return some of the draws, (k,) positions or (m,) bool."""
        return Draws(*(column[which] for column in self.columns))


class Base(Protocol):
    """The samples that an epoch draws as they are, by their place, and what each weighs."""

    def __len__(self) -> int:
        """Return how many."""

    def at(self, places: Array) -> Array:
        """Return the (m,) int64 samples at some places."""

    def holds(self, samples: Array) -> Array:
        """Return of (m,) samples whether each is among them."""

    def places(self, samples: Array) -> Array:
        """Return the places of (m,) samples among them."""

    def worth(self, places: Array) -> Array:
        """Return the (m,) float64 weights at some places."""

    @property
    def total(self) -> float:
        """The sum of all weights."""


class _Alike:
    """A base whose samples weigh 1 each."""

    def __len__(self) -> int:
        raise NotImplementedError

    def worth(self, places: Array) -> Array:
        """See ``Base``."""
        return np.ones(len(places))

    @property
    def total(self) -> float:
        """See ``Base``."""
        return float(len(self))


@dataclass(frozen=True)
class Everyone(_Alike):
    """All of n samples, at weight 1."""

    n: int

    def __len__(self) -> int:
        """Return n."""
        return self.n

    def at(self, places: Array) -> Array:
        """See ``Base``."""
        return places

    def holds(self, samples: Array) -> Array:
        """See ``Base``."""
        return np.ones(len(samples), bool)

    def places(self, samples: Array) -> Array:
        """See ``Base``."""
        return samples


@dataclass(frozen=True, eq=False)
class Random(_Alike):
    """The first of a permutation of all samples, at weight 1."""

    order: Permutation
    size: int

    def __len__(self) -> int:
        """Return the size."""
        return self.size

    def at(self, places: Array) -> Array:
        """See ``Base``."""
        return self.order.at(places)

    def holds(self, samples: Array) -> Array:
        """See ``Base``."""
        return self.order.where(samples) < self.size

    def places(self, samples: Array) -> Array:
        """See ``Base``."""
        return self.order.where(samples)


@dataclass(frozen=True, eq=False)
class Listed:
    """Some samples, (k,) int64, with (k,) floating weights."""

    samples: Array
    weights: Array

    def __len__(self) -> int:
        """Return k."""
        return len(self.samples)

    def at(self, places: Array) -> Array:
        """See ``Base``."""
        return self.samples[places]

    def holds(self, samples: Array) -> Array:
        """See ``Base``."""
        return np.isin(samples, self.samples)

    def places(self, samples: Array) -> Array:
        """See ``Base``."""
        values, order = self._sorted
        return order[np.searchsorted(values, samples)]

    @cached_property
    def _sorted(self) -> tuple[Array, Array]:
        order = self.samples.argsort()
        return self.samples[order], order

    def worth(self, places: Array) -> Array:
        """See ``Base``."""
        return self.weights[places]

    @property
    def total(self) -> float:
        """See ``Base``."""
        return float(self.weights.sum(dtype=np.float64))


@dataclass(frozen=True)
class Chance:
    """Whether something happens to the draw at a place, as a seed tells.

    Attributes:
        probability: in [0, 1].
        seed: of 64 bits.
    """

    probability: float
    seed: int

    def at(self, places: Array) -> Array:
        """Return the (m,) bool answers at some places."""
        if self.probability in (0, 1):
            return np.full(len(places), self.probability == 1)
        drawn: Array = uniforms(self.seed, places[:, None], 1)[:, 0] < self.probability
        return drawn


class _Range:
    """The range of m numbers, as an array without its memory."""

    def __init__(self, m: int) -> None:
        self._m = m

    def __len__(self) -> int:
        return self._m

    def __getitem__(self, places: Array) -> Array:
        return places


@dataclass(frozen=True, eq=False)
class Layout:
    """The draws of an epoch before they are shuffled: the base, then copy after copy.

    Attributes:
        n: number of samples.
        base: the samples drawn as they are.
        chosen: the k samples that are augmented, and the weight of a strong draw of each.
        worth: (k,) float64, what a plain draw of each weighs, beside ``each``.
        unit: what the chosen samples' weights are multiplied by.
        copies: strong draws of each after the base; 0: the base's are strong themselves, and after
            it come those chosen that it does not hold.
        first: number of the first copy.
        strengths: (n,) float32.
        is_strong: whether a draw that may be strong is so.
        is_weak: whether a draw is weakly augmented.
        weighting: "uniform", all alike; "share": a sample's worth by the number of its draws;
            "own": each draw's own.
        each: what a draw of the base weighs, times its worth.
        scaled: scale the weights to mean 1.
        plain: whether a chosen draw without copies weighs as the base's where it is not strong.
        fewer: leave out copies that are not strong.

    Memory: O(k), and with draws in place a byte a sample; with ``fewer`` O(k copies).
    """

    n: int
    base: Base
    chosen: Listed
    worth: Array
    copies: int
    first: int
    strengths: Tensor
    is_strong: Chance
    is_weak: Chance
    weighting: Literal["uniform", "share", "own"] = "own"
    each: float = 1.0
    unit: float = 1.0
    scaled: bool = True
    plain: bool = False
    fewer: bool = False

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.base) + len(self._after)

    def at(self, places: Array) -> Draws:
        """Return the draws at (m,) int64 places in [0, len).

        Cost: O(m).
        """
        own = places < len(self.base)
        first, after = np.flatnonzero(own), np.flatnonzero(~own)  # which masks are slower than
        slot = self._after[places[after] - len(self.base)]
        number, which = np.divmod(slot, max(1, len(self.chosen)))
        index, copy = np.empty(len(places), np.int64), np.zeros(len(places), np.int64)
        index[first], index[after] = self.base.at(places[first]), self.chosen.samples[which]
        copy[after] = number + self.first
        origin = places.copy()  # before any was left out
        origin[after] = len(self.base) + slot
        strong = np.flatnonzero(self._marked[index]) if self._in_place else after
        strength = np.zeros(len(places), np.float32)
        strength[strong] = self.strengths.numpy()[index[strong]]
        strength[~self.is_strong.at(origin)] = 0
        if self.weighting == "uniform":
            weight = np.ones(len(places))
        else:
            weight = np.empty(len(places))
            weight[first] = self.each * self.base.worth(places[first])
            weight[after] = self.each * self.worth[which]
            if self.weighting == "share":
                drawn = np.flatnonzero(self._marked[index]) if len(self.chosen) else places[:0]
                weight[drawn] /= self._count[self.chosen.places(index[drawn])]
            else:
                if self.plain:
                    strong = np.flatnonzero(strength > 0)
                position = np.empty(len(places), np.int64)
                position[after] = which
                position = position[strong]
                based = own[strong]
                if based.any():
                    position[based] = self.chosen.places(index[strong[based]])
                weight[strong] = self.unit * self.chosen.weights[position]
        weak = self.is_weak.at(origin)
        return Draws(index, copy, (weight * self._scale).astype(np.float32), strength, weak)

    def rows(self, which: Array) -> Draws:
        """Return some of the draws, (k,) positions or (m,) bool."""
        return self.at(np.flatnonzero(which) if which.dtype == bool else which)

    @cached_property
    def whole(self) -> Draws:
        """All draws as columns, 25 bytes each."""
        return self.at(np.arange(len(self)))

    index = property(attrgetter("whole.index"), doc="(m,) int64, of all draws.")
    copy = property(attrgetter("whole.copy"), doc="(m,) int64, of all draws.")
    weight = property(attrgetter("whole.weight"), doc="(m,) float32, of all draws.")
    strength = property(attrgetter("whole.strength"), doc="(m,) float32, of all draws.")
    weak = property(attrgetter("whole.weak"), doc="(m,) bool, of all draws.")
    columns = property(attrgetter("whole.columns"), doc="All columns, in the order of a Draw.")

    @property
    def graded(self) -> bool:
        """Whether a draw may have a strength between 0 and 1."""
        found = self.strengths.numpy()[self.chosen.samples]
        return self.is_strong.probability > 0 and bool(((found > 0) & (found < 1)).any())

    @property
    def least(self) -> float:
        """A bound below all weights, as float32 has it."""
        parts = [self.each * self.base.worth(np.arange(len(self.base)))]
        parts.append(self.unit * self.chosen.weights)
        if self.weighting == "share":
            parts = [parts[0] / max(1, self._count.max(initial=1))]
        lowest = min((float(part.min()) for part in parts if len(part)), default=1.0)
        return float(np.float32(lowest * self._scale))

    @cached_property
    def _in_place(self) -> bool:
        return self.copies == 0 and len(self.base) > 0 and len(self.chosen) > 0

    @cached_property
    def _held(self) -> Array:
        """(k,) bool: which of the chosen samples the base holds."""
        return self.base.holds(self.chosen.samples)

    @cached_property
    def _marked(self) -> Array:
        """(n,) bool: which samples are chosen."""
        marked = np.zeros(self.n, bool)
        marked[self.chosen.samples] = True
        return marked

    @cached_property
    def _after(self) -> Any:
        """The numbers of the draws after the base: copy k + position of the sample."""
        k = len(self.chosen)
        if self.copies == 0:
            return np.flatnonzero(~self._held)
        if not self.fewer:
            return _Range(k * self.copies)
        slots = np.arange(k * self.copies)
        strong = self.strengths.numpy()[self.chosen.samples] > 0
        return slots[np.tile(strong, self.copies) & self.is_strong.at(len(self.base) + slots)]

    @cached_property
    def _count(self) -> Array:
        """(k,) int64: how many draws each chosen sample has."""
        k = len(self.chosen)
        if self.copies == 0:
            return np.ones(k, np.int64)
        after = np.bincount(self._after % k, minlength=k) if self.fewer and k else self.copies
        return self._held + after

    @cached_property
    def _scale(self) -> float:
        """What brings the weights to mean 1."""
        if not self.scaled or self.weighting == "uniform" or not len(self):
            return 1.0
        total = self.each * self.base.total
        if self.weighting == "share":
            total += self.each * self.worth[~self._held & (self._count > 0)].sum()
        elif self.copies:
            if self.fewer:
                some = self.chosen.weights[self._after % max(1, len(self.chosen))]
                total += self.unit * some.sum(dtype=np.float64)
            else:
                total += self.unit * self.chosen.total * self.copies
        elif len(self.chosen):
            strong = self.unit * self.chosen.weights.astype(np.float64)
            weights = np.where(self._strong, strong, self.each * self.worth)
            total += weights.sum() - self.each * self.worth[self._held].sum()
        return len(self) / float(total)

    @property
    def _strong(self) -> Array:
        """(k,) bool: which chosen samples, drawn without copies, weigh as strong draws."""
        if not self.plain:
            return np.ones(len(self.chosen), bool)
        places = len(self.base) + np.arange(len(self.chosen))
        places[self._held] = self.base.places(self.chosen.samples[self._held])
        positive: Array = self.strengths.numpy()[self.chosen.samples] > 0
        return positive & self.is_strong.at(places)


@dataclass(frozen=True, eq=False)
class Order:
    """The draws of a layout as they are shuffled; beyond the last, the first again at weight 0."""

    layout: Layout
    permutation: Permutation

    def at(self, places: Array) -> Draws:
        """Return the draws at (m,) places of the epoch, 0 or more.

        Cost: O(m).
        """
        whole = len(self.layout)
        found = self.layout.at(self.permutation.at(places % max(whole, 1)))
        return replace(found, weight=np.where(places < whole, found.weight, np.float32(0)))
