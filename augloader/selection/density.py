"""Local density of the features, by exact nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augloader.core.checks import plain_options, require_int, require_vectors
from augloader.core.evidence import Evidence
from augloader.selection.greedy.search import compared, index
from augloader.selection.greedy.transfer import sent

_QUERIES = 4096  # rows whose neighbours are searched at a time
_SPARE = 16  # candidates beside twice as many as asked for, to tell that none is missed
_MOST = 2048  # candidates that FAISS lists on a GPU
_UNIT = 2.0**-24  # half a step of float32 at 1


def neighbor_distances(vectors: Tensor, k: int) -> Tensor:
    """Return each vector's Euclidean distances to its k nearest others, the nearest first.

    FAISS compares all pairs in float32. The candidates' distances are then computed in float64,
    and where the rounding of float32 may have hidden a nearer vector all pairs are compared again
    in float64. A vector is never its own neighbour; its duplicates are, at distance 0.

    Args:
        vectors: (n, d) floating, finite; at any place and scale, they are centred and scaled.
        k: number of neighbours, 1 to n - 1.

    Returns:
        (n, k) float64 on the CPU, in units of the vectors.

    Raises:
        TypeError: vectors that are none, a k that is no integer.
        ValueError: vectors that are not finite, k out of range.

    Cost: O(n^2 d) time, on the vectors' device; memory beside the vectors about 8,192 (k + d)
    numbers.

    Example:
        >>> neighbor_distances(torch.tensor([[0.0], [1.0], [5.0]]), 2).tolist()
        [[1.0, 5.0], [1.0, 4.0], [4.0, 5.0]]

    Source: Johnson, Douze & Jegou (2019) for the search.
    """
    vectors = require_vectors(vectors)
    n = len(vectors)
    k = require_int("k", k, 1, "Ask for at least one neighbour.")
    if k >= n:
        raise ValueError(
            f"k must be below the number of samples, {n}, got {k} neighbours. Ask for fewer, "
            "or give more samples."
        )
    rows, unit = vectors.cpu().double(), 1.0
    if (largest := float(rows.abs().max())) > 0:  # so that no square overflows
        rows, unit = rows / largest, largest
    rows = rows - rows.mean(0)  # so that squares keep their digits in float32
    count = min(n, 2 * (k + 1) + _SPARE)
    short = sent(rows.float(), vectors.device if count <= _MOST else torch.device("cpu"))
    search, _ = index(short.contiguous(), flat=True)
    norms = rows.square().sum(1)
    # A float32 square of a distance is |x|^2 + |y|^2 - 2 x.y of rounded x and y, sums of d terms.
    errors = 2 * (rows.shape[1] + 8) * _UNIT * (norms + norms.max())
    found = torch.empty(n, k, dtype=torch.float64, device="cpu")
    for own in torch.arange(n, device="cpu").split(_QUERIES):
        squares = _squares(rows, own, search(short[own.to(short.device)], count).cpu())
        known, last = squares[:, :k], squares.masked_fill(squares.isinf(), 0).amax(1)
        # What was not found is at least as far as all that was, but for two errors.
        sure = (known[:, -1] <= last - 2 * errors[own]) | (known[:, -1] == 0)
        if count < n and not sure.all():
            rest = own[~sure]
            known[~sure] = _squares(rows, rest, compared(rows[rest], rows, k + 1))[:, :k]
        found[own] = known.sqrt() * unit
    return found


@dataclass(frozen=True)
class LocalDensity:
    """How sparse the features are around a sample: its mean distance to the k nearest others.

        s_i = 1/k sum_{j in N_k(i)} ||h_i - h_j||,   N_k(i) the k samples nearest to i, without i

    The larger the score, the lower the density. Samples in sparse regions score high: there an
    augmented copy fills a gap, where the features are dense it adds little. So do outliers and
    samples with wrong labels or of no class: ``Product`` with an agreement of your own holds them
    back, as the paper does. Neighbours are of all samples, whatever the strategy's groups.

    Distances are Euclidean; for cosine distances give features of length 1.

    Args:
        k: number of neighbours, 1 to n - 1.

    Raises:
        TypeError, ValueError: a k that is no integer, or below 1.

    Raises when called:
        ValueError: no features in the evidence, k not below the number of samples.

    Cost: O(n^2 d), all pairs compared by FAISS on the features' device.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> LocalDensity(2)(Evidence(4, features=x))
        tensor([1.5000, 1.0000, 1.5000, 7.5000])

    Source: the idea of Yang et al. (2025), When Dynamic Data Selection Meets Data Augmentation,
    who augment samples of low density that agree with their text; the formula is ours.
    """

    k: int = 10

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __post_init__(self) -> None:
        """Check the number of neighbours."""
        plain_options(self)
        require_int("k", self.k, 1, "10 neighbours are usual.")

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 mean distances, on the CPU."""
        return neighbor_distances(evidence.require("features"), self.k).mean(1).float()


def _squares(rows: Tensor, own: Tensor, ids: Tensor) -> Tensor:
    """Return the squared distances of some rows to listed ones, ascending; infinite to itself."""
    some = rows[own]
    columns = [(rows[column] - some).square().sum(1) for column in ids.T]
    squares = torch.stack(columns, 1).masked_fill(ids == own[:, None], torch.inf)
    return squares.sort(1).values
