"""How much of a selection lies among the samples of largest loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augloader.core.checks import as_tensor, require_finite
from augloader.core.evidence import Selection


@dataclass(frozen=True, eq=False)
class Overlap:
    """The share of each selection that lies among as many samples of largest score.

    Attributes:
        shares: (t,) float64, in [0, 1], for each refresh.
        chance: (t,) float64, what a random selection of as many samples has on average, k / n.
    """

    shares: Tensor
    chance: Tensor


def overlap(selections: Sequence[Selection], scores: Sequence[Tensor]) -> Overlap:
    """Return how much of each refresh's selection lies among the largest scores of that time.

    |S_t and top_k(scores_t)| / k, k = |S_t|. The paper finds that it grows over training: early on
    coresets are other samples than those of largest loss, later gradients are large where losses
    are.

    Args:
        selections: one a refresh.
        scores: for each of them the (n,) floating and finite scores of all samples at that time, as
            the losses of the sweep that it was made from. Equal ones count in order of the index.

    Returns:
        Overlap, on the CPU.

    Raises:
        TypeError: values that are no selections, scores that are not floating.
        ValueError: none, not as many scores as selections, scores of other shapes or of fewer
            samples than were selected from, NaN or infinite ones.

    Cost: O(n log n) a refresh.

    Example:
        >>> losses = torch.tensor([0.1, 2.0, 0.3, 1.0])
        >>> chosen = Selection(torch.tensor([1, 2]), torch.tensor([2.0, 2.0]))
        >>> overlap([chosen], [losses])
        Overlap(shares=tensor([0.5000], dtype=torch.float64), chance=tensor([0.5000], \
dtype=torch.float64))

    Source: Liu & Mirzasoleiman (2022), section 5.1 and App. D.11.
    """
    if not len(selections) or len(selections) != len(scores):
        raise ValueError(
            "scores must be one tensor a selection, and at least one, got "
            f"{len(scores)} for {len(selections)} selections. Keep evidence.losses of each refresh."
        )
    shares, chance = [], []
    for t, (selection, given) in enumerate(zip(selections, scores, strict=True)):
        if not isinstance(selection, Selection):
            raise TypeError(
                f"selections[{t}] must be a Selection, got {type(selection).__name__}. Keep what "
                "sampler.refresh returns."
            )
        values = _scores(f"scores[{t}]", given, int(selection.indices.max()))
        top = values.argsort(descending=True, stable=True)[: len(selection)]
        inside = torch.isin(selection.indices.cpu(), top)
        shares.append(int(inside.sum()) / len(selection))
        chance.append(len(selection) / len(values))
    made = (torch.tensor(part, dtype=torch.float64, device="cpu") for part in (shares, chance))
    return Overlap(*made)


def _scores(name: str, given: Tensor, last: int) -> Tensor:
    """Return the scores of all samples on the CPU, or raise."""
    advice = "Keep evidence.losses of each refresh."
    values: Tensor = as_tensor(name, given, advice)
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating, got {values.dtype}. {advice}")
    if values.ndim != 1 or len(values) <= last:
        raise ValueError(
            f"{name} must be (n,) of all samples, at least {last + 1}, got shape "
            f"{tuple(values.shape)}. {advice}"
        )
    require_finite(name, values, advice)
    return values.cpu()
