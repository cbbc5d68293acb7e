"""Leave-one-out influence: how much a sample's own loss rises when training leaves it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from augloader.core.blocks import row_blocks
from augloader.core.checks import require_number, require_one_of
from augloader.core.proxies import Proxies

Hessian = Literal["exact", "kronecker", "diagonal"]
HESSIANS: tuple[Hessian, ...] = ("exact", "kronecker", "diagonal")
_BLOCK = 2048  # samples whose gradients are written out at a time
_VALUES = 2**21  # of residuals and features taken to float64 at a time
_ROUNDING = 1e-15  # times the side of a matrix: pivots and eigenvalues below this are nothing
_LIMIT = 4 << 30  # bytes that the exact Hessian and its factor may take


def influence(proxies: Proxies, damping: float, hessian: Hessian = "exact") -> Tensor:
    """Return each sample's leave-one-out influence on its own loss, in the last layer.

    With the last layer's gradient of sample i, v_i = g_i (x) h_i, g = p - y,

        influence_i = |v_i' (H + damping I)^-1 v_i|,
        H = sum_i (diag(p_i) - p_i p_i') (x) h_i h_i'.

    To first order it is the rise of i's loss when a last layer that minimises the sum of the losses
    and damping / 2 ||theta||^2 is fitted without i. Approximations for large C * d:

        "kronecker"   H = B (x) A,   B = mean_i (diag(p_i) - p_i p_i'),   A = sum_i h_i h_i';
        "diagonal"    H's diagonal alone.

    Args:
        proxies: of ``LastLayerGradient``: residuals (n, C) and features (n, d). C = 1 is binary
            logistic regression: g = sigma(z) - y.
        damping: 0 or more, on the scale of the sum of losses: scikit-learn's 1 / C, or weight decay
            times n where the mean loss is minimised. The softmax Hessian is singular without.
        hessian: "exact", "kronecker" or "diagonal".

    Returns:
        (n,) float32 on the proxies' device; computed in float64.

    Raises:
        TypeError: damping is not a number.
        ValueError: proxies without features or that are not residuals, damping below 0, a singular
            Hessian (the message suggests a damping), an exact Hessian of more than 4 GiB.

    Cost: exact O(n (C d)^2 + (C d)^3) time and 16 (C d)^2 bytes; kronecker O(n d (C + d) + d^3);
    diagonal O(n C d). Proxies are taken to float64 a block of rows at a time.

    Example:
        >>> g, h = torch.tensor([[-0.5], [0.5], [-0.1]]), torch.tensor([[1.0], [-1.0], [1.0]])
        >>> influence(Proxies(g, h), damping=0.1)  # H = 0.25 + 0.25 + 0.09
        tensor([0.3623, 0.3623, 0.0145])

    Source: Kuchnik & Smith (2019), Eq. 1; Koh & Liang (2017), section 2; factors: Martens & Grosse
    (2015).
    """
    damping = require_number("damping", damping, "[0, inf)", "0.1 is scikit-learn's C = 10.")
    require_one_of("hessian", hessian, HESSIANS)
    parts = _Parts(Proxies.of(proxies))
    if hessian == "exact":
        return _exact(parts, damping)
    if hessian == "diagonal":
        (squares,) = _summed(((p * (1 - p)).T @ h.square(),) for _, _, h, p in parts)  # (C, d)
        return parts.squares(_inverse(squares, damping))
    products = ((h.T @ h, p.T @ p, (p * (1 - p)).sum(0)) for _, _, h, p in parts)
    inner, outer, alone = _summed(products)
    values, vectors = torch.linalg.eigh(inner)
    class_values, class_vectors = torch.linalg.eigh(_covariance(outer, alone) / parts.n)
    spectrum = _solid(class_values)[:, None] * _solid(values)
    return parts.squares(_inverse(spectrum, damping), class_vectors, vectors)


class _Parts:
    """Residuals g, features h and probabilities p = g + y in float64, some rows at a time."""

    def __init__(self, proxies: Proxies) -> None:
        if proxies.features is None:
            raise ValueError(
                "proxies must have features for the last layer's Hessian, got residuals alone. "
                "Sweep with LastLayerGradient()."
            )
        self.g, self.h = proxies.gradient.detach(), proxies.features.detach()
        self.n, self.classes = self.g.shape
        self.d = self.h.shape[1]

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Yield the rows, g, h and p; raise ValueError where they are no residuals."""
        for rows in row_blocks(self.n, self.classes + self.d, _VALUES, least=64):
            g = self.g[rows].double()
            yield rows, g, self.h[rows].double(), _probabilities(g)

    def squares(self, inverse: Tensor, *bases: Tensor) -> Tensor:
        """Return sum_cd g_c^2 h_d^2 inverse_cd for each sample, (n,) float32, in two bases."""
        found = self.g.new_empty(self.n, dtype=torch.float32)
        for rows, g, h, _ in self:
            if bases:
                g, h = g @ bases[0], h @ bases[1]
            found[rows] = ((g.square() @ inverse) * h.square()).sum(1).float()
        return found


def _probabilities(g: Tensor) -> Tensor:
    if g.shape[1] == 1:
        p, sums = g + (g < 0), g.new_zeros(())
    else:
        p = g.clone()  # g is negative at the label alone; where it is nowhere, p is a one-hot
        p[torch.arange(len(g), device=g.device), g.argmin(1)] += 1
        sums = g.sum(1)
    if (p < -1e-3).any() or (p > 1 + 1e-3).any() or (sums.abs() > 1e-2).any():
        raise ValueError(
            "proxies must be residuals p - y, rows of sum 0 with one negative entry (or one column "
            "in [-1, 1]), got other vectors. Sweep with LastLayerGradient()."
        )
    return p.clamp(0, 1)


def _exact(parts: _Parts, damping: float) -> Tensor:
    """Assemble H block by block, factor it once, and solve for all gradients."""
    classes, d = parts.classes, parts.d
    side = classes * d
    if 16 * side**2 > _LIMIT:
        raise ValueError(
            f"hessian must fit 4 GiB to be exact, got {classes} x {d} parameters, which take "
            f'{16 * side**2 / 2**30:.1f} GiB. Choose hessian="kronecker".'
        )
    total = parts.g.new_zeros(classes, d, classes, d, dtype=torch.float64)
    for _, _, x, q in parts:
        if classes == 1:
            total[0, :, 0] += (x * (q * (1 - q))).T @ x
        for a in range(classes):
            for b in range(a):
                total[a, :, b] -= (x * (q[:, a] * q[:, b])[:, None]).T @ x
    if classes > 1:
        for a in range(classes):
            for b in range(a):
                total[b, :, a] = total[a, :, b]  # each block, h' W h, is symmetric
        for a in range(classes):  # diag(p) - p p' has rows of sum 0, and so have the blocks
            total[a, :, a] = -total[a].sum(1)
    matrix = total.view(side, side)
    scale = float(matrix.diagonal().mean())
    matrix.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal().square()
    if failed or pivots.min() <= _ROUNDING * side * pivots.max():
        _raise_singular(damping, scale)
    found = []
    for _, g, h, _ in parts:
        for gs, hs in zip(g.split(_BLOCK), h.split(_BLOCK), strict=True):
            rows = (gs[:, :, None] * hs[:, None, :]).view(len(gs), side)
            solved = torch.linalg.solve_triangular(factor, rows.T, upper=False)
            found.append(solved.square().sum(0))
    return torch.cat(found).float()


def _summed(terms: Iterator[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the sums; no term is kept, for it would hold the memory of its block apart."""
    totals = next(terms)
    for more in terms:
        for total, term in zip(totals, more, strict=True):
            total += term
    return totals


def _covariance(outer: Tensor, alone: Tensor) -> Tensor:
    """Return the sum of diag(p) - p p', of those of p p' and of p (1 - p)."""
    if len(alone) == 1:
        return alone[:, None]
    apart = outer.clone()
    apart.fill_diagonal_(0)
    return apart.sum(1).diag() - apart  # rows of sum 0, exactly


def _solid(values: Tensor) -> Tensor:
    """Return eigenvalues of a positive matrix, with those that are rounding set to 0."""
    return values.where(values > _ROUNDING * len(values) * values.max(), 0.0)


def _inverse(spectrum: Tensor, damping: float) -> Tensor:
    """Return 1 / (eigenvalue + damping), or raise where a sum is 0."""
    if damping == 0 and not spectrum.all():
        _raise_singular(damping, float(spectrum.mean()))
    return (spectrum + damping).reciprocal()


def _raise_singular(damping: float, scale: float) -> None:
    raise ValueError(
        f"damping must be larger where the Hessian is singular, got {damping:g}. Give for example "
        f"damping={max(1e-3 * scale, 1e-6):.1g}."
    )
