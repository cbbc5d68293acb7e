"""A base of samples of similar loss, from easy to hard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from augloader.core.checks import plain_options, require_int, require_number
from augloader.core.evidence import Selection
from augloader.selection.clusters import kmeans
from augloader.selection.pruning import (
    ANNEAL,
    RATIO,
    Indices,
    annealed,
    require_some,
    thinned,
    weighed,
)


@dataclass(frozen=True)
class SeTa:
    """Leave out a share at random, and of the rest all but a window that slides from easy to hard.

    In every epoch a share 1 - ratio of the samples is drawn, and grouped by k-means of their last
    losses. The groups are put in order of their mean loss, g of them with samples, and w = window g
    of them are kept: from the (epoch mod (g - w + 1))-th on. In epoch 0 and in the last epochs all
    that were drawn are kept, and those that were never reported always. All weigh 1: it is no
    unbiased rule, and does not claim to be.

    Args:
        ratio: share that is left out at random, in [0, 1).
        groups: number of groups, 1 or more.
        window: share of the groups that is kept, in (0, 1].
        anneal: share of the epochs, the last ones, without a window, in [0, 1]; above 0 the sampler
            must know ``epochs``.

    Raises:
        TypeError, ValueError: options out of range.

    Raises when called:
        ValueError: a ratio that leaves less than one sample; no planned epochs where anneal is
            above 0.

    Cost: that of ``augloader.selection.kmeans`` with d = 1.

    Example:
        >>> import torch
        >>> losses = torch.tensor([0.1, 0.2, 4.0, 0.1, 4.1])
        >>> rule, generator = SeTa(0, groups=2, anneal=0), np.random.default_rng(0)
        >>> for epoch in (1, 2):
        ...     rule.keep(losses, epoch=epoch, epochs=None, generator=generator).indices.tolist()
        [2, 4]
        [0, 1, 3]

    Source: Zhou et al., Scale Efficient Training for Large Datasets (CVPR 2025), section 3.
    """

    ratio: float = 0.1
    groups: int = 10
    window: float = 0.5
    anneal: float = 0.125

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_number("ratio", self.ratio, "[0, 1)", RATIO)
        require_int("groups", self.groups, 1, "The authors take 5 to 10.")
        require_number("window", self.window, "(0, 1]", "0.5 keeps half of the groups.")
        require_number("anneal", self.anneal, "[0, 1]", ANNEAL)

    def keep(
        self, losses: Tensor, *, epoch: int, epochs: int | None, generator: np.random.Generator
    ) -> Selection:
        """Return the samples of an epoch; see ``Pruning``."""
        n = len(losses)
        require_some(self.ratio, n)
        drawn = thinned(np.arange(n), self.ratio, generator)
        unseen = np.flatnonzero(losses.isnan().numpy())
        if not annealed(self.anneal, epoch, epochs) and epoch and len(unseen) < n:
            seen = np.setdiff1d(drawn, unseen)
            drawn = self._window(seen, losses[seen], epoch, generator) if len(seen) else seen
        return weighed(np.union1d(drawn, unseen), 1.0, n)

    def _window(
        self, samples: Indices, losses: Tensor, epoch: int, generator: np.random.Generator
    ) -> Indices:
        """Return the samples in this epoch's groups."""
        count, seed = min(self.groups, len(samples)), int(generator.integers(2**31))
        group = kmeans(losses.view(-1, 1), count, seed).numpy()
        sizes = np.bincount(group, minlength=count)
        means = np.bincount(group, losses.double().numpy(), count) / np.maximum(sizes, 1)
        order = np.argsort(means, kind="stable")
        order = order[sizes[order] > 0]
        width = max(1, round(self.window * len(order)))
        start = epoch % (len(order) - width + 1)
        return samples[np.isin(group, order[start : start + width])]
