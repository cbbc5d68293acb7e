"""What all methods of a table share: which images and labels, which network, epochs and rate."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A data set with a share of wrong labels, or a long tail: largest class / smallest class."""

    name: str
    noise: float = 0.0
    imbalance: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long is trained on what, and at which rate.

    Attributes:
        name: folder of the results.
        per_class: training images of the largest class; None takes all.
        networks: of the balanced problems, and of those with a long tail.
        small_batch: batch size where the subset alone is trained on.
        refresh: R, epochs between selections.
        rate: the first one of "steps" and "cosine", the highest one of "one-cycle".
        shape: a piecewise linear rate of one cycle; divided at some epochs; or a half cosine, both
            down to a thousandth.
        drops: shares of the epochs after which the rate is multiplied by ``factor``.
        refining: T2, epochs that refined methods train beyond the others', at the last rate (He et
            al. 2019); 0: the last ones of as many epochs refine.
        median: of how many last epochs the accuracy is the median of.
        size: pixels a side; None takes the data set's own.
        weights: file of the network's first weights; "" draws them.
    """

    name: str
    per_class: int | None
    networks: tuple[str, str]
    epochs: int
    batch: int
    small_batch: int
    refresh: int
    rate: float
    shape: Literal["one-cycle", "steps", "cosine"]
    decay: float
    nesterov: bool
    drops: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    refining: int = 0
    median: int = 1
    size: int | None = None
    weights: str = ""

    @cached_property
    def origin(self) -> int:
        """Checksum of the file of the first weights, which its path does not tell."""
        return zlib.crc32(Path(self.weights).read_bytes())

    def rate_at(self, done: float) -> float:
        """Return the learning rate when a share of the epochs is done, above 1 while refining."""
        if self.shape == "steps":
            return self.rate * self.factor ** sum(done >= drop for drop in self.drops)
        if self.shape == "cosine":
            return float(self.rate * max(0.001, (1 + np.cos(np.pi * min(done, 1.0))) / 2))
        return float(self.rate * np.interp(done, [0, 0.25, 1], [0.1, 1, 0.001]))


# Liu & Mirzasoleiman (2022), appendix D, of CIFAR-10.
PAPER = Schedule(
    "paper", None, ("resnet20", "resnet32"), 200, 128, 128, 20, 0.1, "steps", 1e-4, False
)
SMALL = ("resnet8", "resnet8")
# As many steps in fewer epochs hardly overfit, and strong augmentation gains nothing: see "short".
REDUCED = Schedule("reduced", 100, SMALL, 100, 128, 16, 10, 0.2, "one-cycle", 5e-4, True)
SHORT = Schedule("short", 500, SMALL, 30, 128, 16, 5, 0.2, "one-cycle", 5e-4, True)
# The best accuracy at each cost: 1,000 epochs of 1,000 images are all of it.
FRONTIER = replace(REDUCED, name="frontier", epochs=1000)
LARGER = replace(FRONTIER, name="frontier-5000", per_class=500, epochs=200)  # as many rows
# He et al. (2019), section 4.1: T1 = 400, T2 = 50; dropout with AutoAugment alone.
HE = replace(
    PAPER,
    name="he-preact",
    networks=("preactresnet18",) * 2,
    epochs=400,
    drops=(150 / 400, 275 / 400),
    refining=50,
    median=10,
)
HE_WIDE = replace(
    HE,
    name="he-wrn",
    networks=("wrn-28-10",) * 2,
    drops=(120 / 400, 240 / 400, 320 / 400),
    factor=0.2,
    decay=5e-4,
)
HE_COSINE = replace(
    HE_WIDE, name="he-wrn-cosine", networks=("wrn-28-10-dropout",) * 2, shape="cosine"
)
HE_LONG = replace(HE, name="he-preact-1000", epochs=1000, drops=(0.4, 0.8), refining=200)  # Table 3
ALL = (PAPER, REDUCED, SHORT, FRONTIER, LARGER, HE, HE_LONG, HE_WIDE, HE_COSINE)
SCHEDULES = {schedule.name: schedule for schedule in ALL}
