"""k-DPPs: random subsets of high-quality and diverse samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.core.blocks import row_blocks
from augloader.core.checks import (
    count_and_first,
    plain_options,
    require_int,
    require_number,
    require_one_of,
)
from augloader.selection.scored import Members, OrderedStrategy, Values, positive
from augloader.selection.scores import Score

_ROUNDING = 1e-15  # times r: eigenvalues below this share of the largest are none
_LEAST = 1e-5  # of the largest quality: below, eigenvalues would be lost in rounding
_PROPOSALS = 256  # drawn at a time
_BLOCK = 2**17  # values taken to float64 at a time: a MiB


def linear_kernel(quality: Values, features: Tensor, samples: Tensor | None = None) -> Tensor:
    """Return the factor of L_ij = q_i (phi_i . phi_j) q_j, phi the features at length 1.

    Args:
        quality: (n,) above 0.
        features: (n, d) floating, no row of zeros.
        samples: (n,) int64, which samples they are; None: in order.

    Returns:
        (n, min(n, d)) float32 (float64 where d > n).

    Raises:
        ValueError: a row of zeros.

    Cost: O(n d), or O(n^2 d) where d > n.

    Source: Kuchnik & Smith (2019), App. H; Kulesza & Taskar (2012), section 3.1.
    """
    q, lacking = _scaled(quality), torch.zeros(len(features), dtype=torch.bool, device="cpu")
    wide = features.shape[1] > len(features)
    b = torch.empty(features.shape, dtype=torch.float64 if wide else torch.float32, device="cpu")
    for rows in row_blocks(len(b), b.shape[1], _BLOCK):
        x = features[rows].detach().cpu().double()
        if x.shape[1]:  # so that no square overflows
            x = x / x.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        lengths = x.square().sum(1, keepdim=True).sqrt()
        lacking[rows] = lengths[:, 0] == 0
        b[rows] = x * (q[rows] / lengths)
    if lacking.any():
        raise ValueError(
            "features must not be rows of zeros for a k-DPP, got "
            f"{count_and_first(lacking, 'such rows', samples=samples)}. "
            'Take kernel="gaussian".'
        )
    return _root(b @ b.T) if wide else b


def gaussian_kernel(
    quality: Values,
    features: Tensor,
    width: int,
    bandwidth: float | None,
    generator: np.random.Generator,
) -> Tensor:
    """Return the factor of L_ij = q_i exp(-||x_i - x_j||^2 / (2 s^2)) q_j.

    Up to n = width of the kernel itself; beyond, of its mean over width / 2 random Fourier features
    (cos w.x, sin w.x), which is a kernel of the same form and diagonal.

    Args:
        quality: (n,) above 0.
        features: (n, d) floating.
        width: the largest rank, at least 2.
        bandwidth: s; None takes the median distance of 1,000 random pairs.
        generator: of pairs and frequencies.

    Returns:
        (n, at most width) floating.

    Cost: O(n d width); O(n^2 d + n^3) up to n = width.

    Source: Rahimi & Recht (2007); Affandi et al. (2013).
    """
    x, q = features.detach().cpu(), _scaled(quality)
    if bandwidth is None:
        one, other = torch.from_numpy(generator.integers(len(x), size=(2, 1000)))
        apart = (x[one].double() - x[other].double()).square().sum(1).sqrt()
        bandwidth = float(apart[apart > 0].median()) if apart.any() else 1.0
    if len(x) <= width:
        x = x.double() / bandwidth
        return q * _root(torch.exp(-torch.cdist(x, x).square() / 2))
    frequencies = torch.from_numpy(generator.standard_normal((x.shape[1], width // 2)))
    out = torch.empty(len(x), width, dtype=torch.float32, device="cpu")
    for rows in row_blocks(len(x), max(x.shape[1], width), _BLOCK):
        angles = (x[rows].double() / bandwidth) @ frequencies
        out[rows] = torch.cat([angles.cos(), angles.sin()], 1) * (q[rows] / (width // 2) ** 0.5)
    return out


def sample(b: Tensor, k: int | None, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw from the k-DPP of L = B B': P(S) is proportional to det(L_S) among the k-subsets.

    First k eigenvectors, by elementary symmetric polynomials of the eigenvalues; then k items of
    the projection they span. An item is proposed in proportion to its squared length in the span,
    and accepted with the share of it that the items drawn before leave: exact, with about k ln k
    proposals.

    Args:
        b: (n, r) floating.
        k: 1 to the rank of B; None takes the rank.
        generator: the source of randomness.

    Returns:
        (k,) int64, distinct.

    Raises:
        ValueError: k above the rank.

    Cost: O(n r (r + k) + r^3 + k^3 log k) time; r (r + k) + n numbers beside B.

    Example:
        >>> same = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> 2 in sample(same, 2, np.random.default_rng(0))  # 0 and 1 never go together
        True

    Source: Kulesza & Taskar (2012), Alg. 1, 3 and 8, section 5.2; Barthelme, Tremblay & Amblard
    (2023) for the rejection.
    """
    dual = torch.zeros(b.shape[1], b.shape[1], dtype=torch.float64, device="cpu")
    for rows in row_blocks(len(b), b.shape[1], _BLOCK):
        x = b[rows].double()
        dual.addmm_(x.T, x)
    values, vectors = torch.linalg.eigh(dual)
    solid = values > _ROUNDING * len(values) * values[-1].clamp(min=0)
    values, vectors = values[solid], vectors[:, solid]
    k = len(values) if k is None else k
    if k > len(values):
        raise ValueError(
            f"budget must be at most the rank of the kernel, {len(values)}, for a k-DPP, got {k} "
            f"of {len(b)} samples. "
            'Ask for fewer, or raise the rank: kernel="gaussian", of a smaller bandwidth or larger '
            "width."
        )
    chosen = torch.from_numpy(_elementary(values.numpy(), k, generator))
    return _project(b, vectors[:, chosen] / values[chosen].sqrt(), generator)


def _scaled(quality: Values) -> Tensor:
    """Return q over its largest, which does not change a k-DPP, at least _LEAST, as a column."""
    return torch.from_numpy(quality / quality.max()).clamp(min=_LEAST)[:, None]


def _root(gram: Tensor) -> Tensor:
    """Return R with R R' = gram."""
    values, vectors = torch.linalg.eigh(gram)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def _elementary(values: Values, k: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Choose k of r eigenvectors, a set in proportion to the product of its eigenvalues.

    e[m, l], the l-th elementary symmetric polynomial of the first m eigenvalues, in logarithms.
    """
    logs = np.log(values)
    e = np.full((len(values) + 1, k + 1), -np.inf)
    e[:, 0] = 0
    for m, log in enumerate(logs):
        e[m + 1, 1:] = np.logaddexp(e[m, 1:], log + e[m, :-1])
    chosen = np.empty(k, np.int64)
    left = k
    for m in range(len(values), 0, -1):
        if left == 0:
            break
        if np.log(generator.random()) < logs[m - 1] + e[m - 1, left - 1] - e[m, left]:
            left -= 1
            chosen[left] = m - 1
    return chosen


def _project(b: Tensor, w: Tensor, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw the k items of the projection DPP with the orthonormal columns of B w."""
    k = w.shape[1]
    squares = np.empty(len(b))
    for part in row_blocks(len(b), b.shape[1], _BLOCK):
        squares[part] = (b[part].double() @ w).square_().sum(1)
    reach = squares.cumsum()
    basis = w.new_empty(k, k)  # of what the items drawn so far span
    drawn: list[int] = []
    while len(drawn) < k:
        proposed = np.searchsorted(reach, generator.random(_PROPOSALS) * reach[-1], side="right")
        proposed = proposed.clip(max=len(b) - 1)
        heights = generator.random(_PROPOSALS) * squares[proposed]
        rows = b[torch.from_numpy(proposed)].double() @ w
        for i, row, height in zip(proposed.tolist(), rows, heights.tolist(), strict=True):
            known = basis[: len(drawn)]
            rest = row - known.T @ (known @ row)
            if i in drawn or height >= float(rest @ rest):
                continue
            rest -= known.T @ (known @ rest)  # once more, against rounding
            basis[len(drawn)] = rest / rest.square().sum().sqrt()
            drawn.append(i)
            if len(drawn) == k:
                break
    return np.array(drawn)


Kernel = Literal["linear", "gaussian"]


@dataclass(frozen=True, eq=False)
class KDPP(OrderedStrategy):
    """A random subset of k samples that are high-quality and diverse.

    P(S) is proportional to det(L_S) among the subsets of k, L_ij = q_i K(x_i, x_j) q_j, with the
    score as quality q and the kernel K of the features:

        "linear"     x_i . x_j / (||x_i|| ||x_j||), the paper's; k is at most its rank, at most d;
        "gaussian"   exp(-||x_i - x_j||^2 / (2 s^2)); for n > width by random Fourier features.

    A k-DPP is drawn for its k: the selection has no smaller one in it, and of ``order`` only as
    many samples as the kernel's rank are a k-DPP; the others follow, drawn in proportion to q.

    Args:
        score: quality, 0 or more, of which anything below 1e-5 of the largest counts as that;
            None takes 1 for all.
        kernel: "linear" or "gaussian".
        width: the gaussian kernel's largest rank, even, at least 2.
        bandwidth: s of the gaussian kernel; None takes the median distance of random pairs.
        groups, allocation: see ``Uniform``; a k-DPP in each group.

    Raises:
        TypeError, ValueError: options that are none of these.

    Cost: the score's, and with r the rank O(n r (r + k) + r^3 + k^3 log k); n r numbers.

    Example:
        >>> from augloader import Evidence
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> KDPP().select(Evidence(3, features=x), 2, generator=np.random.default_rng(0)).indices[0]
        tensor(2)

    Source: Kuchnik & Smith (2019), App. H; Kulesza & Taskar (2012).
    """

    score: Score | None = None
    kernel: Kernel = "linear"
    width: int = 2048
    bandwidth: float | None = None

    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_one_of("kernel", self.kernel, get_args(Kernel))
        if require_int("width", self.width, 2, "2048 allows 1,000 samples.") % 2:
            raise ValueError(f"width must be even, got {self.width}. Half of it are cosines.")
        if self.bandwidth is not None:
            require_number("bandwidth", self.bandwidth, "(0, inf)", "It is a distance.")
        super().__post_init__()

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at: features, the score's, and the groups'."""
        return super().needs | {"features"}

    @property
    def _score(self) -> Score | None:
        return self.score

    def _checked(self, scores: Any, n: int) -> Values:
        return positive(super()._checked(scores, n), self)

    def _keys(self, members: Members, k: int | None, generator: np.random.Generator) -> Values:
        indices, scores, features = members
        assert features is not None
        keys = np.log(scores) + generator.gumbel(size=len(scores))
        if k != 0:
            if self.kernel == "linear":
                samples = None if indices is None else torch.from_numpy(indices)
                b = linear_kernel(scores, features, samples)
            else:
                b = gaussian_kernel(scores, features, self.width, self.bandwidth, generator)
            chosen = sample(b, k, generator)
            keys[chosen] = keys.max() + np.arange(len(chosen), 0, -1)
        return keys
