"""What a run of the papers' tables asks of augloader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from schedules import Schedule

from augloader import Constant, CoresetSampler, Every, Linear, Strategy, SwitchOff, Uniform
from augloader.core.schedule import Schedule as Schedules
from augloader.feedback import StrengthRule
from augloader.loading import Base, Weighting
from augloader.selection import Pruning

REFINED = 0.2  # share of the epochs, the last ones, without strong augmentation


@dataclass(frozen=True)
class Method:
    """What augloader is asked for.

    Attributes:
        name: of the file that has its results.
        strategy: None never augments strongly.
        fraction: share of the data to select; or
        per_class: number of images to select for each class, on average.
        proxy: what FacilityLocation sees.
        free: select by what training reported, after a first period with a sweep.
        copies: 0 augments in place.
        refresh: None takes the schedule's.
        policy: strong augmentation, such as "trivial", or several one after the other, as
            "auto+cutout"; None: strong draws are cropped and flipped as all are, and mixed.
        refined: whether the last epochs are without strong augmentation; where there is none
            anyway, without crops and flips.
        epochs: share of the schedule's epochs.
        rate: other than the schedule's; None takes it.
        rows: batch size, other than the schedule's; None takes it.
        hardest: of how many versions of a strong row those of highest loss are trained on; None:
            of one. Each version's forward pass counts as a third of a row.
        keep: how many of them.
        off: share of the epochs, the last ones, that refine; None takes a fifth, or the schedule's.
        longer: epochs, as a share of the others, that refine after them at the last rate, where the
            schedule has none of its own; None refines in the last ones.
        fade: share of the epochs in which mixing and strong augmentation fade out: Mixup's gamma,
            the probability of everything else (He et al. 2019, section 4.1).
        bare: whether crops and flips end where strong augmentation does.
    """

    name: str
    strategy: Strategy | None = None
    fraction: Schedules | float | None = None
    per_class: int | None = None
    base: Base | Pruning | Strategy = "full"
    base_fraction: Schedules | float | None = None
    copies: int = 1
    weighting: Weighting = "cluster"
    proxy: Literal["residual", "last layer"] = "residual"
    free: bool = False
    refresh: int | None = None
    strength: StrengthRule = Constant()  # noqa: RUF009 - frozen
    policy: str | None = "trivial"
    mix: Literal["mixup", "manifold", "cutmix"] | None = None
    refined: bool = False
    epochs: float = 1.0
    rate: float | None = None
    rows: int | None = None
    hardest: int | None = None
    keep: int = 1
    off: float | None = None
    longer: float | None = None
    fade: float | None = None
    bare: bool = False

    def batch(self, schedule: Schedule) -> int:
        """Return the batch size."""
        if self.rows is not None:
            return self.rows
        return schedule.small_batch if self.base == "selected" else schedule.batch

    def last(self, schedule: Schedule) -> int:
        """Return how many epochs refine."""
        if not self.refined:
            return 0
        if self.off is not None:
            return round(self.off * self.first(schedule))
        return self.after(schedule) or round(REFINED * self.first(schedule))

    def after(self, schedule: Schedule) -> int:
        """Return how many epochs refine after those in which the rate falls."""
        if not self.refined or self.off is not None:
            return 0
        return schedule.refining or round((self.longer or 0) * self.first(schedule))

    def first(self, schedule: Schedule) -> int:
        """Return in how many epochs the rate falls to its last."""
        return max(1, round(schedule.epochs * self.epochs))

    def planned(self, schedule: Schedule) -> int:
        """Return for how many epochs it is trained."""
        return self.first(schedule) + self.after(schedule)

    def fades(self, schedule: Schedule) -> Linear | None:
        """Return what mixing's gamma or a strong draw's probability is multiplied by."""
        return None if self.fade is None else Linear(round(self.fade * self.first(schedule)))

    def sampler(self, data: Any, schedule: Schedule, classes: int, seed: int) -> CoresetSampler:
        """Return the sampler of a run."""
        epochs = self.planned(schedule)
        whole = self.fraction == 1  # then nothing is chosen
        every = Every(None if whole else self.refresh or schedule.refresh)
        if self.strategy is None:
            every = Every(None, warmup=epochs)
        count = None if self.per_class is None else self.per_class * classes
        return CoresetSampler(
            data,
            self.strategy or Uniform(),
            fraction=(self.fraction or 1.0) if count is None else None,
            count=count,
            base=self.base,
            base_fraction=self.base_fraction,
            copies=self.copies,
            refresh=every,
            weighting=self.weighting,
            strength=self.strength,
            epochs=epochs,
            strength_schedule=SwitchOff(self.last(schedule)),
            probability=1.0 if self.mix == "mixup" else self.fades(schedule) or 1.0,
            keep_unaugmented_copies=self.base == "none",
            pad_to_multiple_of=self.batch(schedule),  # no step of a few rows, as large as any other
            seed=seed,
        )
