"""How well a weighted selection stands for the gradient of all samples, clean and augmented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augloader.core.checks import as_tensor, require_labels
from augloader.core.evidence import Selection
from augloader.core.proxies import Proxies
from augloader.selection.facility import Coreset

_BLOCK = 2**24  # distances held at a time


@dataclass(frozen=True, eq=False)
class Alignment:
    """How far the weighted gradient of a selection is from that of all samples it stands for.

    All are norms in units of the proxies. g_i are the clean proxies, a_i the augmented ones,
    gamma_j the weights, m_i the distance of g_i to the nearest selected one of its group.

    Attributes:
        n: number of samples.
        selected: how many of them are selected.
        norm: ||sum_i g_i||, of the whole gradient.
        error: ||sum_i g_i - sum_j gamma_j g_j||, the paper's Eq. 8.
        bound: sum_i m_i, which ``FacilityLocation(xi=...)`` stops at, class by class. The error is
            never above it where each weight is the number of samples that its own is the nearest
            to, as FacilityLocation's are.
        frobenius: sqrt(sum_i m_i^2) = ||G_S||_F of Eq. 9, which the error may exceed.
        augmented_norm: ||sum_i a_i||; None without augmented proxies of all samples.
        augmented_error: ||sum_i a_i - sum_j gamma_j a_j||, the left side of Lemma 5.1; None without
            augmented proxies of all samples.
        augmented_bound: sum_i m_i + sum_i ||a_i - g_i|| + sum_j gamma_j ||a_j - g_j||, which the
            augmented error is never above under the same condition; None as above.
        replaced: ||sum_i g_i - sum_j gamma_j a_j||, of the augmented selection in place of all
            clean samples; None without augmented proxies.
        classes: where the selection was made group by group, the same of each group alone, by its
            label or, where no labels were given, its position; empty otherwise.
    """

    n: int
    selected: int
    norm: float
    error: float
    bound: float
    frobenius: float
    augmented_norm: float | None = None
    augmented_error: float | None = None
    augmented_bound: float | None = None
    replaced: float | None = None
    classes: Mapping[int, Alignment] = field(default_factory=dict, repr=False)


def alignment(
    proxies: Proxies | Tensor,
    selection: Selection,
    augmented: Proxies | Tensor | None = None,
    *,
    labels: Tensor | None = None,
) -> Alignment:
    """Return how well a selection captures the gradient of all samples, and its bound.

        error = ||sum_i g_i - sum_{j in S} gamma_j g_j|| <= sum_i m_i,
        m_i = min_{j in S} ||g_i - g_j||

    within each group that was selected by itself: each difference g_i - g_j(i) has norm m_i, and
    their sum no more than the sum of them. Sums of outer products g (x) h are matrix products,
    G^T diag(c) H; no sample's own is formed.

    Args:
        proxies: of all n samples, as ``sweep`` finds them: vectors, or outer products as factors.
        selection: of these samples.
        augmented: None; or proxies of the same form of the augmented samples: of all n in order, or
            of the k selected in the selection's order. Where k = n they are those of all.
        labels: (n,) integer, 0 or more, the groups that were selected one by one. None takes those
            that a FacilityLocation's selection knows, else all samples as one group. Of a selection
            by classes that was loaded with a sampler's state give them: a state has no groups, and
            all samples as one group have a bound that the error may exceed.

    Returns:
        Alignment.

    Raises:
        TypeError: a selection that is none, labels that are not integers, proxies that are not
            floating.
        ValueError: indices beyond the samples, augmented proxies of another form or number, labels
            of another shape, or with a group of which nothing is selected.

    Cost: O(n k (C + d)) over the groups, and 2^24 distances at a time.

    Example:
        >>> from augloader import FacilityLocation, Evidence
        >>> import numpy as np
        >>> g = torch.tensor([[0.0], [1.0], [2.5], [9.0]])
        >>> strategy = FacilityLocation(per_class=False)
        >>> evidence = Evidence(4, proxies=g)
        >>> selection = strategy.select(evidence, 2, generator=np.random.default_rng(0))
        >>> found = alignment(g, selection, augmented=g + 1)
        >>> found.norm, found.error, found.bound  # |12.5 - (3 * 1 + 1 * 9)|, 1 + 1.5
        (12.5, 0.5, 2.5)
        >>> found.augmented_error, found.augmented_bound, found.replaced
        (0.5, 10.5, 3.5)

    Source: Liu & Mirzasoleiman (2022), Eq. 8-9, Alg. 1 and Lemma 5.1.
    """
    proxies = Proxies.of(proxies)
    n = len(proxies)
    if not isinstance(selection, Selection):
        raise TypeError(
            f"selection must be a Selection, got {type(selection).__name__}. Pass what a strategy "
            "or sampler.refresh returned."
        )
    last = int(selection.indices.max())
    if last >= n:
        raise ValueError(
            f"proxies must be of all samples that were selected from, at least {last + 1}, got "
            f"{n}. Sweep the whole data set."
        )
    moved = None if augmented is None else _augmented(Proxies.of(augmented), proxies, selection)
    home = proxies.device
    indices, weights = selection.indices.to(home), selection.weights.to(home).double()
    gamma = torch.zeros(n, dtype=torch.float64, device=home)
    gamma[indices] = weights
    groups = _groups(selection, labels, n)
    m = torch.zeros(n, dtype=torch.float64, device=home)
    for key, members in groups.items():
        chosen = members[gamma[members.to(home)].cpu() > 0]
        if not len(chosen):
            raise ValueError(
                f"labels must be of the groups that were selected one by one, got no selected "
                f"sample of {key}. Leave labels out."
            )
        m[members.to(home)] = _nearest(proxies[members], proxies[chosen])
    m[indices] = 0  # exactly, for their own
    every = torch.arange(n, device="cpu")
    whole = _measured(proxies, moved, gamma, m, every)
    if len(groups) < 2:
        return whole
    classes = {key: _measured(proxies, moved, gamma, m, members) for key, members in groups.items()}
    return replace(whole, classes=classes)


def _augmented(augmented: Proxies, proxies: Proxies, selection: Selection) -> tuple[Proxies, bool]:
    """Return augmented proxies of all rows, the clean ones where not given, and if all are."""
    proxies.require_same_form(augmented)
    n, k = len(proxies), len(selection)
    if len(augmented) not in (n, k):
        raise ValueError(
            f"augmented must be of all {n} samples or of the {k} selected, got {len(augmented)}. "
            "Sweep the same samples augmented, in the same order."
        )
    if len(augmented) == n:
        return augmented, True
    rows = selection.indices.to(proxies.device)
    gradient = proxies.gradient.index_copy(0, rows, augmented.gradient)
    if proxies.features is None or augmented.features is None:
        return Proxies(gradient), False
    return Proxies(gradient, proxies.features.index_copy(0, rows, augmented.features)), False


def _groups(selection: Selection, labels: Tensor | None, n: int) -> dict[int, Tensor]:
    """Return the indices of each group, on the CPU."""
    if labels is not None:
        given = as_tensor("labels", labels, "Give one label a sample.")
        y = require_labels("labels", given, n).cpu()
        return {label: (y == label).nonzero().flatten() for label in y.unique().tolist()}
    nested = selection.nested
    if isinstance(nested, Coreset) and sum(map(len, nested.members)) == n:
        return {place: members.cpu() for place, members in enumerate(nested.members)}
    return {0: torch.arange(n, device="cpu")}


def _nearest(proxies: Proxies, chosen: Proxies) -> Tensor:
    """Return the distance of each to the nearest chosen one, (n,) float64."""
    rows = torch.arange(len(proxies), device="cpu").split(max(1, _BLOCK // len(chosen)))
    parts = [proxies[some].distances(chosen).amin(1) for some in rows]
    return torch.cat(parts).double()


def _measured(
    proxies: Proxies,
    augmented: tuple[Proxies, bool] | None,
    gamma: Tensor,
    m: Tensor,
    members: Tensor,
) -> Alignment:
    """Return the measurements of some of the samples."""
    rows = members.to(m.device)
    own, weight, least = proxies[rows], gamma[rows], m[rows]
    ones = torch.ones_like(weight)
    total = _sum(own, ones)
    found = Alignment(
        n=len(members),
        selected=int((weight > 0).sum()),
        norm=_norm(total),
        error=_norm(_sum(own, ones - weight)),
        bound=float(least.sum()),
        frobenius=_norm(least),
    )
    if augmented is None:
        return found
    other, complete = augmented[0][rows], augmented[1]
    found = replace(found, replaced=_norm(total - _sum(other, weight)))
    if not complete:
        return found
    return replace(
        found,
        augmented_norm=_norm(_sum(other, ones)),
        augmented_error=_norm(_sum(other, ones - weight)),
        augmented_bound=found.bound + float(_apart(own, other) @ (ones + weight)),
    )


def _sum(proxies: Proxies, factors: Tensor) -> Tensor:
    """Return sum_i c_i g_i or sum_i c_i g_i (x) h_i, in float64."""
    g = proxies.gradient.double() * factors[:, None]
    return g.sum(0) if proxies.features is None else g.T @ proxies.features.double()


def _norm(values: Tensor) -> float:
    return float(values.square().sum().sqrt())


def _apart(one: Proxies, other: Proxies) -> Tensor:
    """Return ||g_i - a_i|| of each row, (n,) float64.

    g (x) h - a (x) b = (g - a) (x) h + a (x) (h - b), whose squared norm does not cancel.
    """
    g, a = one.gradient.double(), other.gradient.double()
    apart = g - a
    if one.features is None or other.features is None:
        return apart.square().sum(1).sqrt()
    h, b = one.features.double(), other.features.double()
    moved = h - b
    squares = apart.square().sum(1) * h.square().sum(1) + a.square().sum(1) * moved.square().sum(1)
    squares += 2 * (apart * a).sum(1) * (h * moved).sum(1)
    return squares.clamp(min=0).sqrt()
