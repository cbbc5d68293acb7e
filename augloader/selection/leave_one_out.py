"""Leave-one-out influence: how much a sample's own loss rises when training leaves it out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from augloader.core.checks import require_number, require_one_of
from augloader.core.proxies import Proxies

Hessian = Literal["exact", "kronecker", "diagonal"]
HESSIANS: tuple[Hessian, ...] = ("exact", "kronecker", "diagonal")
_BLOCK = 2048  # samples whose gradients are written out at a time
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
    diagonal O(n C d).

    Example:
        >>> g, h = torch.tensor([[-0.5], [0.5], [-0.1]]), torch.tensor([[1.0], [-1.0], [1.0]])
        >>> influence(Proxies(g, h), damping=0.1)  # H = 0.25 + 0.25 + 0.09
        tensor([0.3623, 0.3623, 0.0145])

    Source: Kuchnik & Smith (2019), Eq. 1; Koh & Liang (2017), section 2; factors: Martens & Grosse
    (2015).
    """
    damping = require_number("damping", damping, "[0, inf)", "0.1 is scikit-learn's C = 10.")
    require_one_of("hessian", hessian, HESSIANS)
    g, h, p = _parts(Proxies.of(proxies))
    if hessian == "exact":
        return _exact(g, h, p, damping)
    if hessian == "diagonal":
        spectrum = (p * (1 - p)).T @ h.square()  # (C, d)
        return _squares(g, h, _inverse(spectrum, damping))
    values, vectors = torch.linalg.eigh(h.T @ h)
    class_values, class_vectors = torch.linalg.eigh(_covariance(p))
    spectrum = _solid(class_values)[:, None] * _solid(values)
    return _squares(g @ class_vectors, h @ vectors, _inverse(spectrum, damping))


def _parts(proxies: Proxies) -> tuple[Tensor, Tensor, Tensor]:
    """Return g, h and the probabilities p = g + y, in float64."""
    if proxies.features is None:
        raise ValueError(
            "proxies must have features for the last layer's Hessian, got residuals alone. Sweep "
            "with LastLayerGradient()."
        )
    g = proxies.gradient.detach().double()
    if g.shape[1] == 1:
        p = g + (g < 0)
        sums = g.new_zeros(())
    else:
        p = g.clone()  # g is negative at the label alone; where it is nowhere, p is a one-hot
        p[torch.arange(len(g), device=g.device), g.argmin(1)] += 1
        sums = g.sum(1)
    if (p < -1e-3).any() or (p > 1 + 1e-3).any() or (sums.abs() > 1e-2).any():
        raise ValueError(
            "proxies must be residuals p - y, rows of sum 0 with one negative entry (or one column "
            "in [-1, 1]), got other vectors. Sweep with LastLayerGradient()."
        )
    return g, proxies.features.detach().double(), p.clamp(0, 1)


def _exact(g: Tensor, h: Tensor, p: Tensor, damping: float) -> Tensor:
    """Assemble H block by block, factor it once, and solve for all gradients."""
    n, classes, d = len(g), g.shape[1], h.shape[1]
    side = classes * d
    if 16 * side**2 > _LIMIT:
        raise ValueError(
            f"hessian must fit 4 GiB to be exact, got {classes} x {d} parameters, which take "
            f'{16 * side**2 / 2**30:.1f} GiB. Choose hessian="kronecker".'
        )
    total = g.new_zeros(classes, d, classes, d)
    for block in torch.arange(n, device=g.device).split(8 * _BLOCK):
        q, x = p[block], h[block]
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
    parts = []
    for block in torch.arange(n, device=g.device).split(_BLOCK):
        rows = (g[block][:, :, None] * h[block][:, None, :]).view(len(block), side)
        solved = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        parts.append(solved.square().sum(0))
    return torch.cat(parts).float()


def _covariance(p: Tensor) -> Tensor:
    """Return the mean of diag(p) - p p'."""
    if p.shape[1] == 1:
        return (p * (1 - p)).mean(0, keepdim=True)
    apart = p.T @ p / len(p)
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


def _squares(g: Tensor, h: Tensor, inverse: Tensor) -> Tensor:
    """Return sum_cd g_c^2 h_d^2 inverse_cd for each sample."""
    return ((g.square() @ inverse) * h.square()).sum(1).float()


def _raise_singular(damping: float, scale: float) -> None:
    raise ValueError(
        f"damping must be larger where the Hessian is singular, got {damping:g}. Give for example "
        f"damping={max(1e-3 * scale, 1e-6):.1g}."
    )
