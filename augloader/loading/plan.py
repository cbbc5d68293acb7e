"""What every epoch is made of: one frozen plan, and the draws that it composes."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from augloader.core.checks import distinct, require_int, require_one_of
from augloader.core.evidence import Selection
from augloader.core.permutation import Permutation
from augloader.core.schedule import Course, Every, Schedule, require_planned
from augloader.loading.bases import Base, described, require_base
from augloader.loading.layout import Base as Members
from augloader.loading.layout import Chance, Everyone, Layout, Listed, Order, Random
from augloader.loading.shares import base_share, selected_share, size_of
from augloader.selection.pruning import Pruning
from augloader.selection.strategy import Strategy

Weighting = Literal["cluster", "uniform", "population", "downweight", "unbiased"]
FORMER = {  # names of arguments in version 0.1, until 0.3
    "schedule": "strength_schedule",
    "plain_copies": "keep_unaugmented_copies",
    "weak": "weak_probability",
    "multiple": "pad_to_multiple_of",
}
# Independent random streams:
SELECT, SUBSET, SHUFFLE, STRENGTH, STRONG, WEAK, PRUNE = range(7)


class Expected(NamedTuple):
    """What an epoch is expected to hold, before it is drawn.

    Attributes:
        draws: how many, those included that fill it up.
        strong: how many of them are strong.
        selects: whether samples are selected anew for it.
    """

    draws: float
    strong: float
    selects: bool


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch is made of, for every epoch of a training; ``of`` checks what a user asks for.

    Everything it returns is a pure function of the plan and the arguments.

    Attributes:
        n: number of samples.
        share: how many of them are selected: a number, or a course of their share.
        base_share: size of a random base, or of one that a strategy chooses, a number or a course
            of the share; None: the selection's, or what a pruning rule keeps.
        every: when samples are selected anew.
        constant_length: whether every epoch is as long as the longest of those planned.
        pruning: what chooses the samples of each epoch, with base="full"; or None.

    The others are CoresetSampler's arguments, schedules as courses.

    Example:
        >>> import torch
        >>> plan = EpochPlan.of(4, fraction=0.5, weighting="uniform")
        >>> chosen = Selection(torch.tensor([3, 0]), torch.tensor([2.0, 2.0]))
        >>> draws = plan.compose(0, chosen, torch.ones(4))
        >>> draws.index.tolist(), draws.strength.tolist()
        ([0, 1, 2, 3, 3, 0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    """

    n: int
    share: Course | int
    base: Base
    base_share: Course | int | None
    copies: int
    every: Every
    weighting: Weighting
    epochs: int | None
    strength_schedule: Course
    probability: Course
    keep_unaugmented_copies: bool
    weak_probability: Course
    pad_to_multiple_of: int
    seed: int
    constant_length: bool = False
    pruning: Pruning | Strategy | None = None

    @classmethod
    def of(
        cls,
        n: int,
        *,
        fraction: Schedule | float | None = None,
        count: int | None = None,
        base: Base | Pruning | Strategy = "full",
        base_fraction: Schedule | float | None = None,
        copies: int = 1,
        refresh: Every = Every(1),  # noqa: B008 - frozen
        weighting: Weighting = "cluster",
        epochs: int | None = None,
        strength_schedule: Schedule | float = 1.0,
        probability: Schedule | float = 1.0,
        keep_unaugmented_copies: bool = True,
        weak_probability: Schedule | float = 1.0,
        pad_to_multiple_of: int = 1,
        constant_length: bool = False,
        seed: int = 0,
    ) -> EpochPlan:
        """Check CoresetSampler's arguments and return the plan.

        Raises:
            TypeError, ValueError: as CoresetSampler.
        """
        if epochs is not None:
            require_int("epochs", epochs, 1, "Plan at least one epoch.")
        share = selected_share(n, fraction, count, epochs)
        schedules = {
            "strength_schedule": strength_schedule,
            "probability": probability,
            "weak_probability": weak_probability,
        }
        courses = {name: Course.of(name, given, epochs) for name, given in schedules.items()}
        pruning = require_base(base)
        flags = {
            "keep_unaugmented_copies": keep_unaugmented_copies,
            "constant_length": constant_length,
        }
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False, got {flag!r}. Pass one.")
        if constant_length and epochs is None:
            raise ValueError(
                "epochs must be given with constant_length, got none. Pass the number of epochs "
                "that you will train: their longest gives the length."
            )
        if base == "none" and not keep_unaugmented_copies:
            raise ValueError(
                'keep_unaugmented_copies must be True with base="none", got False. An epoch '
                "without strong augmentation would be empty."
            )
        of_base = base_share(n, base, base_fraction, epochs)
        require_int("copies", copies, 0, "0 augments in place.")
        if not isinstance(refresh, Every):
            raise TypeError(f"refresh must be an Every, got {refresh!r}. Pass Every(20).")
        require_one_of("weighting", weighting, get_args(Weighting))
        if weighting == "unbiased" and base in ("random", "selected", "none"):
            raise ValueError(
                f'weighting must be another than "unbiased" with base={base!r}: what it leaves out '
                'no weight makes up for. Take base=RandomPruning(0.7), another rule or "full".'
            )
        return cls(
            n,
            share,
            base if isinstance(base, str) else "full",
            of_base,
            int(copies),
            refresh,
            weighting,
            epochs,
            keep_unaugmented_copies=keep_unaugmented_copies,
            constant_length=constant_length,
            pruning=pruning,
            pad_to_multiple_of=require_int(
                "pad_to_multiple_of", pad_to_multiple_of, 1, "1 adds nothing."
            ),
            seed=require_int("seed", seed, 0, "Any whole number will do."),
            **courses,
        )

    def seed_of(self, stream: int, epoch: int) -> np.random.SeedSequence:
        """Return a seed that is a hash of (seed, stream, epoch), never a sum of them."""
        return np.random.SeedSequence(self.seed, spawn_key=(stream, epoch))

    def generator(self, stream: int, epoch: int) -> np.random.Generator:
        """Return a generator from that seed."""
        return np.random.default_rng(self.seed_of(stream, epoch))

    def require_epoch(self, epoch: object) -> int:
        """Return ``epoch`` if it is a planned one, or raise TypeError or ValueError."""
        found = require_int("epoch", epoch, 0, "Epochs count from 0.")
        if self.epochs is not None:
            require_planned(found, self.epochs)
        return found

    def budget(self, epoch: int) -> int:
        """Return how many samples are selected in an epoch's refresh period."""
        if isinstance(self.share, int):
            return self.share
        return size_of(self.n, self.share.at(self.every.begin(epoch)))

    @property
    def base_needs(self) -> frozenset[str]:
        """Names of what the choice of an epoch's samples needs of reports."""
        return frozenset() if self.pruning is None else self.pruning.needs

    @cached_property
    def base_name(self) -> str:
        """What tells the base from others, in states and on other ranks."""
        return self.base if self.pruning is None else described(self.pruning)

    def beginning(self, epoch: int, resumed: bool) -> dict[str, Any]:
        """Return what ranks that share an epoch must agree on where it begins."""
        began = f"{epoch}, resumed" if resumed else epoch
        base = {"base": self.base_name, "base size": self.base_size(epoch)}
        return {"call": "set_epoch", "epoch": began, **base}

    def base_size(self, epoch: int) -> int:
        """Return how many samples the base has at most, before augmentation in place."""
        if isinstance(self.base_share, Course):
            drawn = self.every.begin(epoch) if self.base == "random" else epoch
            return size_of(self.n, self.base_share.at(drawn))
        if self.base_share is not None:
            return self.base_share
        return self.budget(epoch) if self.base == "random" else self.n

    def refresh_due(self, epoch: int, refreshed: int | None) -> bool:
        """Return whether an epoch wants a new selection, the last one being of another epoch.

        Never where the rest of its refresh period has no strong draw, as in refinement, and no part
        of the base is what was selected.
        """
        period = self.every.period(epoch)
        if period is None or (refreshed is not None and self.every.period(refreshed) == period):
            return False
        end = epoch + 1
        if self.epochs is not None:
            interval = self.every.interval or self.epochs
            end = min(self.every.begin(epoch) + interval, self.epochs)
        return any(map(self.matters, range(epoch, end)))

    def next_refresh(self, epoch: int) -> int | None:
        """Return the next epoch at which a refresh is due, if none is now; None: no other."""
        every, end = self.every, self.epochs
        if epoch < every.warmup:
            start = every.warmup
        elif every.interval is None:
            return None
        else:
            start = every.begin(epoch) + every.interval
        if end is None:
            end = start + 1  # without planned epochs all of them are alike
        return next((every.begin(e) for e in range(start, end) if self.matters(e)), None)

    def matters(self, epoch: int) -> bool:
        """Return whether an epoch may have strong draws, or has a base of what was selected."""
        strong = self.strength_schedule.at(epoch) > 0 and self.probability.at(epoch) > 0
        return strong or self.base in ("selected", "none")

    def scheduled(self, strengths: Tensor, epoch: int) -> Tensor:
        """Return (n,) strengths times the epoch's factor; where all are one number, one is kept."""
        factor = self.strength_schedule.at(epoch)
        if factor == 1:
            return strengths
        return (distinct(strengths) * factor).expand(self.n)

    def compose(
        self,
        epoch: int,
        selection: Selection | None,
        strengths: Tensor,
        kept: Selection | None = None,
    ) -> Layout:
        """Return the epoch's draws, before they are shuffled: the base, then copy after copy.

        A copy weighs gamma_j k / (n r), gamma_j the number of samples that medoid j stands for, and
        a base draw 1, or what ``weighting`` says, times what a pruned base says of the sample; all
        are scaled to mean 1, but for unbiased ones.

        Args:
            epoch: a planned one.
            selection: None before the first.
            strengths: (n,) float32 of all samples, as ``scheduled`` returns them.
            kept: the samples of a pruned base, and their weights; the selected ones that are not
                among them are not drawn. None keeps all, at weight 1.

        Raises:
            ValueError: weights of a pruned base beside which others are 0 in float32.

        Cost: O(k), and of a pruned base O(kept); with copies left out O(r k).

        Source: Liu & Mirzasoleiman (2022), Eq. 10; Kuchnik & Smith (2019), section 4.2.
        """
        members, population = self._members(epoch, kept), self.weighting == "population"
        chosen, gamma, unit = np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0
        if selection is not None:
            chosen, gamma = selection.indices.numpy(), selection.weights.numpy()
            unit = 1.0 if population else len(chosen) / self.n
        worth = np.broadcast_to(1.0, len(chosen))
        if kept is not None and len(chosen):
            drawn = members.holds(chosen)
            chosen = chosen[drawn]
            worth = members.worth(members.places(chosen))
            gamma = gamma[drawn] * worth
        each = self.n / members.total if population else 1.0  # what a base draw weighs
        share = self.weighting in ("downweight", "unbiased")
        if selection is not None and self.base in ("selected", "none"):
            members, each = Listed(chosen, worth if share else gamma), 1.0 if share else unit
            if self.base == "none" or self.copies == 0:
                members, each = Listed(chosen[:0], worth[:0]), 1.0
        found = Layout(
            self.n,
            members,
            Listed(chosen, gamma),
            worth,
            self.copies,
            min(self.copies, 1),
            strengths,
            self._chance(STRONG, self.probability, epoch),
            self._chance(WEAK, self.weak_probability, epoch),
            "uniform" if self.weighting == "uniform" else "share" if share else "own",
            each,
            unit / max(1, self.copies),
            scaled=self.weighting != "unbiased",
            plain=self.copies == 0
            and not self.keep_unaugmented_copies
            and self.base in ("full", "random"),
            fewer=self.copies > 0 and not self.keep_unaugmented_copies,
        )
        if kept is not None and len(found) and found.least <= 0:
            raise ValueError(
                f"weights of a base must be of one magnitude, got {float(kept.weights.min())} to "
                f"{float(kept.weights.max())} of {self.pruning!r}. Bound them: some came to 0."
            )
        return found

    def _members(self, epoch: int, kept: Selection | None) -> Members:
        """Return the samples that an epoch draws as they are."""
        if kept is not None:
            order = kept.indices.argsort()
            return Listed(kept.indices[order].numpy(), kept.weights[order].double().numpy())
        if self.base != "random":
            return Everyone(self.n)
        period = self.every.period(epoch)
        seed = self.seed_of(SUBSET, 0 if period is None else period + 1)
        return Random(Permutation(self.n, seed), self.base_size(epoch))

    def _chance(self, stream: int, course: Course, epoch: int) -> Chance:
        """Return what happens to draws with this epoch's probability."""
        seed = self.seed_of(stream, epoch).generate_state(1, np.uint64)
        return Chance(course.at(epoch), int(seed[0]))

    def length(self, draws: Sized) -> int:
        """Return the length of an epoch of these draws, filled up."""
        return max(self._filled_up(len(draws)), self.longest)

    @cached_property
    def longest(self) -> int:
        """The length that shorter epochs are filled up to; 0 where lengths may change."""
        if not self.constant_length:
            return 0
        return max(map(self._filled_up, self._sizes(self.epochs or 0)))

    def lengths(self, epochs: int) -> list[int]:
        """Return the lengths of the first epochs, each refresh made when it is due.

        Where copies may be left out, by keep_unaugmented_copies=False, with copies=0 beside
        base="random", which may hold some of the selected samples, and with a pruned base, they are
        at most these.
        """
        return [max(self._filled_up(size), self.longest) for size in self._sizes(epochs)]

    def expected(
        self, epochs: int, kept: float = 1.0, selected: float | None = None
    ) -> list[Expected]:
        """Return what the first epochs hold on average, each refresh made when it is due.

        As ``lengths``, with means where chance decides: how many strong draws ``probability`` lets
        happen, and how many of the selected samples a random base holds; such a mean is filled up
        as a number of draws is. Every strength that the rule gives counts as above 0.

        Args:
            epochs: how many.
            kept: share of the samples that a pruned base draws, where a rule decides.
            selected: share of the selected that it draws; None: as many as of all.

        Cost: O(epochs).

        Example:
            >>> plan = EpochPlan.of(100, fraction=0.3, copies=0, refresh=Every(2, warmup=1))
            >>> for epoch in plan.expected(3):
            ...     print(epoch)
            Expected(draws=100.0, strong=0.0, selects=False)
            Expected(draws=100.0, strong=30.0, selects=True)
            Expected(draws=100.0, strong=30.0, selects=False)
        """
        found = []
        for epoch, selects, most, count in self._parts(epochs):
            base, chosen = self._drawn(epoch, kept, selected, most, count)
            happens = self.probability.at(epoch) if self.strength_schedule.at(epoch) > 0 else 0.0
            draws = float(base + chosen * (self.copies or self.base == "none"))
            strong = chosen * max(self.copies, 1) * happens
            if self.base == "random" and not self.copies:
                draws += chosen * (1 - base / self.n)
            elif not self.keep_unaugmented_copies and self.copies:
                draws = base + strong
            multiple = self.pad_to_multiple_of
            length = draws if multiple == 1 else float(self._filled_up(ceil(draws)))
            length = max(length, float(self.longest))
            found.append(Expected(length, strong * (length / draws), selects))
        return found

    def _drawn(
        self, epoch: int, kept: float, selected: float | None, base: int, chosen: int
    ) -> tuple[float, float]:
        """Return how many samples of a base, and of those selected, are drawn on average."""
        unknown = self.base_share is not None and bool(self.base_needs) and epoch == 0
        if self.pruning is None or unknown:  # a strategy draws all before anything was reported
            return base, chosen
        part = kept if self.base_share is None else self.base_size(epoch) / self.n
        return part * self.n, (part if selected is None else selected) * chosen

    def _filled_up(self, draws: int) -> int:
        return ceil(draws / self.pad_to_multiple_of) * self.pad_to_multiple_of

    def _sizes(self, epochs: int) -> Iterator[int]:
        """Yield how many draws the first epochs have at most, before they are filled up."""
        for epoch, _, base, chosen in self._parts(epochs):
            chosen = chosen if self.pruning is None else min(chosen, base)
            strong = self.strength_schedule.at(epoch) > 0 and self.probability.at(epoch) > 0
            if self.copies:
                yield base + chosen * self.copies * (strong or self.keep_unaugmented_copies)
            else:
                yield min(self.n, base + chosen) if self.base in ("random", "none") else base

    def _parts(self, epochs: int) -> Iterator[tuple[int, bool, int, int]]:
        """Yield the first epochs, whether they select, their base and how many are selected."""
        refreshed: int | None = None
        for epoch in range(epochs):
            selects = self.refresh_due(epoch, refreshed)
            if selects:
                refreshed = epoch
            base = self.n if self.base_needs else self.base_size(epoch)
            if refreshed is None:
                yield epoch, False, base, 0
                continue
            chosen = self.budget(refreshed)
            yield epoch, selects, {"selected": chosen, "none": 0}.get(self.base, base), chosen

    def order(self, epoch: int, draws: Layout) -> Order:
        """Return an epoch's draws in the order in which they are drawn."""
        return Order(draws, Permutation(len(draws), self.seed_of(SHUFFLE, epoch)))

    def arguments(self) -> dict[str, Any]:
        """Return what the draws depend on beside the state, in plain values."""
        return {
            "n": self.n,
            "seed": self.seed,
            "count" if isinstance(self.share, int) else "fraction": str(self.share),
            "base": self.base_name,
            "base_share": share if isinstance(share := self.base_share, int | None) else str(share),
            "copies": self.copies,
            "interval": self.every.interval,
            "warmup": self.every.warmup,
            "weighting": self.weighting,
            "strength_schedule": str(self.strength_schedule),
            "probability": str(self.probability),
            "keep_unaugmented_copies": self.keep_unaugmented_copies,
            "pad_to_multiple_of": self.pad_to_multiple_of,
            "weak_probability": str(self.weak_probability),
            # Where it is used alone: states of before it was there can be read.
            **({"constant_length": self.longest} if self.constant_length else {}),
        }
