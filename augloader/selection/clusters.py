"""Groups of similar samples, by k-means of their features."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    plain_options,
    require_generator,
    require_int,
    require_seed,
    require_vectors,
)
from augloader.core.evidence import Evidence

_LEAST, _EACH = 16_384, 64  # vectors that centres are made of: at least, and of each


@dataclass(frozen=True)
class Clusters:
    """Group samples by k-means of their features.

    Args:
        count: number of clusters, 1 to n; the paper takes as many as samples are selected.

    Raises:
        TypeError, ValueError: a count that is no integer, or below 1.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> found = Clusters(2).of(Evidence(4, features=x), np.random.default_rng(0))
        >>> found[0] == found[1] != found[2] == found[3]
        tensor(True)

    Source: Kuchnik & Smith (2019), App. G.
    """

    count: int

    def __post_init__(self) -> None:
        """Check the count."""
        plain_options(self)
        require_int("count", self.count, 1, "The paper takes as many as samples are selected.")

    def of(self, evidence: Evidence, generator: np.random.Generator) -> Tensor:
        """Return each sample's cluster, (n,) int64.

        Raises:
            ValueError: no features in the evidence, fewer samples than clusters.

        Cost: that of ``augloader.selection.kmeans``.
        """
        require_generator(generator)
        return kmeans(evidence.require("features"), self.count, int(generator.integers(2**31)))


def kmeans(vectors: Tensor, count: int, seed: int = 0) -> Tensor:
    """Group vectors around ``count`` centres: k-means++, then 20 iterations of FAISS.

    Both see a random sample, 64 vectors a centre and 16,384 at least; all then find their centre.

    Args:
        vectors: (n, d) floating, finite.
        count: number of centres, 1 to n.
        seed: of the centres it begins with, 0 to 2^31 - 1.

    Returns:
        (n,) int64 on the CPU, the nearest centre of each vector; a centre may have none.

    Raises:
        TypeError, ValueError: fewer vectors than centres, vectors that are none, a count below 1.

    Cost: O(m count d log count) for the first centres, O(m count d) an iteration, of
    m = min(n, max(16384, 64 count)) vectors; O(n count d) for all.

    Example:
        >>> kmeans(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2).bincount()
        tensor([2, 2])

    Source: Kuchnik & Smith (2019), App. G; Arthur & Vassilvitskii (2007).
    """
    vectors = require_vectors(vectors)
    count = require_int("count", count, 1, "The paper takes as many as samples are selected.")
    if count > len(vectors):
        raise ValueError(
            f"count must be at most the number of samples, {len(vectors)}, got {count} clusters. "
            "Ask for fewer."
        )
    rows = vectors.detach().cpu().double()
    rows = rows - rows.mean(0)  # centred and scaled, squares keep their digits in float32
    rows = (rows / rows.abs().max().clamp(min=torch.finfo(torch.float64).tiny)).float().contiguous()
    generator, some = np.random.default_rng(require_seed(seed)), rows
    sample = max(_LEAST, _EACH * count)
    if len(rows) > sample:
        drawn = generator.choice(len(rows), sample, replace=False)
        some = rows[torch.from_numpy(np.sort(drawn))]
    x, first = some.numpy(), _seeded(some, count, generator)
    # Bounds so wide that FAISS neither drops vectors nor warns of small clusters.
    centres = faiss.Kmeans(
        x.shape[1],
        count,
        niter=20,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    centres.train(x, init_centroids=x[first])
    return torch.from_numpy(centres.assign(rows.numpy())[1].astype(np.int64))


def _seeded(x: Tensor, count: int, generator: np.random.Generator) -> list[int]:
    """Draw rows by k-means++: in proportion to the squared distance to those drawn before.

    In each step the best of 2 + ln(count) candidates, which leaves the smallest sum, as
    ``sklearn.cluster.kmeans_plusplus``: scikit-learn is an optional dependency, and this is not.
    """
    drawn = [int(generator.integers(len(x)))]
    squares = (x - x[drawn[0]]).square().sum(1)
    for tickets in generator.random((count - 1, 2 + int(np.log(count)))):
        reach = squares.double().cumsum(0)
        places = torch.searchsorted(reach, torch.from_numpy(tickets) * reach[-1], right=True)
        places = places.clamp(max=len(x) - 1)
        left = torch.cdist(x[places], x).square().minimum(squares)
        best = int(left.sum(1).argmin())
        drawn.append(int(places[best]))
        squares = left[best]
    return drawn
