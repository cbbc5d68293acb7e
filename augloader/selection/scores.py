"""Scores: evidence in, one number a sample out; the larger, the more augmenting it may pay.

A score is any callable with ``needs``; nothing is inherited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    count_and_first,
    plain_options,
    require_number,
    require_one_of,
)
from augloader.core.evidence import Evidence
from augloader.core.proxies import Proxies
from augloader.selection.leave_one_out import HESSIANS, Hessian, influence
from augloader.selection.strategy import require_needs


@runtime_checkable
class Score(Protocol):
    """What strategies ask of a score.

    Attributes:
        needs: names of the fields of Evidence it looks at.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at."""

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return (n,) scores, the same for the same evidence; those of this module are float32."""


@dataclass(frozen=True)
class Loss:
    """Each sample's loss, by default the cross-entropy -log p_y.

    Raises when called:
        ValueError: no losses in the evidence.

    Cost: O(1).

    Example:
        >>> Loss()(Evidence(2, losses=torch.tensor([0.1, 3.0])))
        tensor([0.1000, 3.0000])

    Source: Kuchnik & Smith (2019), section 4.1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 losses."""
        losses: Tensor = evidence.require("losses")
        return losses.float()


@dataclass(frozen=True)
class Influence:
    """Leave-one-out influence on the sample's own loss; see ``augloader.selection.influence``.

    |v_i' (H + damping I)^-1 v_i| with the last layer's gradient v_i and Hessian H.

    Args:
        damping: 0 or more, on the scale of the sum of losses: scikit-learn's 1 / C (the paper's C
            is 10), or weight decay times n where the mean loss is minimised.
        hessian: "exact", "kronecker" or "diagonal".

    Raises:
        TypeError, ValueError: options outside their range.

    Raises when called:
        ValueError: as ``augloader.selection.influence``.

    Cost: that of ``augloader.selection.influence``.

    Example:
        >>> from augloader import Proxies
        >>> g, h = torch.tensor([[-0.5], [0.5], [-0.1]]), torch.tensor([[1.0], [-1.0], [1.0]])
        >>> Influence()(Evidence(3, proxies=Proxies(g, h)))
        tensor([0.3623, 0.3623, 0.0145])

    Source: Kuchnik & Smith (2019), section 4.1, Eq. 1.
    """

    damping: float = 0.1
    hessian: Hessian = "exact"

    needs: ClassVar[frozenset[str]] = frozenset({"proxies"})

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_number("damping", self.damping, "[0, inf)", "0.1 is C = 10.")
        require_one_of("hessian", self.hessian, HESSIANS)

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 influences."""
        return influence(evidence.require("proxies"), self.damping, self.hessian)


@dataclass(frozen=True)
class EL2N:
    """Error L2 norm: ||p - y||.

    Raises when called:
        ValueError: no proxies in the evidence.

    Cost: O(n C).

    Example:
        >>> from augloader import Proxies
        >>> EL2N()(Evidence(1, proxies=Proxies(torch.tensor([[0.3, -0.7, 0.4]]))))
        tensor([0.8602])

    Source: Paul, Ganguli & Dziugaite (2021), Def. 2.2; they average it over some ten models early
    in training, which ``Evidence(scores=...)`` and ``Given`` allow.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"proxies"})

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 norms of the residuals."""
        proxies: Proxies = evidence.require("proxies")
        return _lengths(proxies.gradient)


@dataclass(frozen=True)
class GraNd:
    """Gradient norm in the last layer: ||p - y|| ||h||.

    The paper's is of all parameters: ``augloader.loading.gradient_norms`` computes it, for
    ``Given``. With residuals alone, without features, this is EL2N.

    Raises when called:
        ValueError: no proxies in the evidence.

    Cost: O(n (C + d)).

    Example:
        >>> from augloader import Proxies
        >>> g, h = torch.tensor([[0.3, -0.7, 0.4]]), torch.tensor([[3.0, 4.0]])
        >>> GraNd()(Evidence(1, proxies=Proxies(g, h)))
        tensor([4.3012])

    Source: Paul, Ganguli & Dziugaite (2021), Def. 2.1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"proxies"})

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 norms."""
        proxies: Proxies = evidence.require("proxies")
        norms = _lengths(proxies.gradient)
        return norms if proxies.features is None else norms * _lengths(proxies.features)


@dataclass(frozen=True)
class Forgetting:
    """1 + how often a sample was forgotten: classified correctly, and wrongly at the next visit.

    Samples that were never classified correctly come first: they score one above all others. The
    sampler's table counts, where the strategy asks for it, in every report with logits and labels
    of a view with strength 0 (others would count the augmentation, not the forgetting). So every
    epoch must have one of every sample: base="full" and copies of 1 or more.

    Raises when called:
        ValueError: no counts in the evidence.

    Cost: O(n); in the table 9 bytes a sample.

    Example:
        >>> Forgetting()(Evidence(3, forgetting=torch.tensor([0.0, 2.0, -1.0])))  # -1: never
        tensor([1., 3., 4.])

    Source: Toneva et al. (2019), Def. 1.1-1.2 and Alg. 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forgetting"})

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float32 scores, 1 or more."""
        counts: Tensor = evidence.require("forgetting").float()
        return 1 + torch.where(counts < 0, counts.max().clamp(min=0) + 1, counts)


@dataclass(frozen=True)
class Given:
    """Scores of your own, ``Evidence(scores=...)``, as they are.

    Raises when called:
        ValueError: no scores in the evidence.

    Example:
        >>> Given()(Evidence(2, scores=torch.tensor([1.0, 2.0])))
        tensor([1., 2.])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"scores"})

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) scores."""
        scores: Tensor = evidence.require("scores")
        return scores


@dataclass(frozen=True)
class Product:
    """Two scores, one times the other: high where both are high, 0 where either is 0.

    Neither is rescaled: as a proportion or a rank the product is the same in any units of the two,
    and of ``Softmax`` the temperature is in units of the product. A sum, a difference or three
    scores are a callable of your own with ``needs``, or a Product in a Product.

    Args:
        first, second: ``LocalDensity()``, ``Given()``, ... ; 0 or more. Two negative scores would
            make a large one: shift or clamp them first.

    Raises:
        TypeError, ValueError: what is no score.

    Raises when called:
        ValueError: as the two; scores that are negative, not finite, or of another length.

    Cost: that of the two, and O(n).

    Example:
        >>> evidence = Evidence(2, losses=torch.tensor([0.5, 3.0]), scores=torch.tensor([1.0, 0.0]))
        >>> Product(Loss(), Given())(evidence)
        tensor([0.5000, 0.0000], dtype=torch.float64)

    Source: the idea of Yang et al. (2025), When Dynamic Data Selection Meets Data Augmentation:
    low density and agreement with the text, jointly; that it is their product is ours.
    """

    first: Score
    second: Score

    def __post_init__(self) -> None:
        """Check that both are scores."""
        require_score("first", self.first)
        require_score("second", self.second)

    @property
    def needs(self) -> frozenset[str]:
        """Names of the evidence it looks at: those of both."""
        return frozenset(self.first.needs | self.second.needs)

    def __call__(self, evidence: Evidence) -> Tensor:
        """Return the (n,) float64 products, on the CPU: as float32 they could be 0 or infinite."""
        first, second = _factor(self.first, evidence), _factor(self.second, evidence)
        if first.shape != second.shape:
            raise ValueError(
                f"scores must be of the same samples to be multiplied, got {len(first)} from "
                f"{self.first!r} and {len(second)} from {self.second!r}. Return one a sample."
            )
        return first * second


def require_score(name: str, score: Any) -> None:
    """Raise TypeError or ValueError unless it is an object that strategies can take as a score."""
    if isinstance(score, type) or not isinstance(score, Score):
        raise TypeError(
            f"{name} must be a callable with needs, got {score!r}. Pass an instance, as Loss()."
        )
    require_needs(f"{name}.needs", score.needs)


def _factor(score: Score, evidence: Evidence) -> Tensor:
    """Return a score's (n,) float64 values on the CPU, or raise where they are no factors."""
    values = as_tensor("scores", score(evidence), f"Fix {score!r}.").cpu()
    if values.ndim != 1 or values.is_complex():
        got = f"{tuple(values.shape)} {values.dtype}"
        raise ValueError(f"scores must be an (n,) tensor, got {got}. Fix {score!r}.")
    values = values.double()
    if (bad := ~values.isfinite()).any():
        raise ValueError(
            f"scores must be finite, got {count_and_first(bad, 'others')} from {score!r}. Check "
            "the model: has training diverged?"
        )
    if (bad := values < 0).any():
        raise ValueError(
            "scores must be 0 or more to be multiplied, got "
            f"{count_and_first(bad, 'negative ones')} from {score!r}. Clamp or shift them first."
        )
    return values


def _lengths(rows: Tensor) -> Tensor:
    return rows.float().square().sum(1).sqrt()
