"""Scores: evidence in, one number a sample out; the larger, the more augmenting it may pay.

A score is any callable with ``needs``; nothing is inherited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from augloader.core.checks import plain_options, require_number, require_one_of
from augloader.core.evidence import Evidence
from augloader.core.proxies import Proxies
from augloader.selection.leave_one_out import HESSIANS, Hessian, influence


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
        """Return (n,) float32 scores, the same for the same evidence."""


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


def _lengths(rows: Tensor) -> Tensor:
    return rows.float().square().sum(1).sqrt()
