"""SADA: strength from the stability of each sample's influence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augloader.core.checks import (
    plain_options,
    require_finite,
    require_int,
    require_number,
    require_one_of,
)
from augloader.feedback.learners import Columns, View
from augloader.feedback.strength import average_ranks, log_probabilities, with_random

Form = Literal["kl", "loss", "gradient"]
Scaling = Literal["minmax", "rank", "quantile"]
_DIVERGED = "Kept in float16, to 65,504: has training diverged?"


@dataclass(frozen=True)
class StableInfluence:
    """SADA: the steadier a sample's influence on the training, the stronger its augmentation.

    The influence of a sample at its visit t, with its loss l_t and its softmax output p_t, is

        form="loss"      |l_{t-1} - l_t|, to first order |<g_t, theta_{t-1} - theta_t>|;
        form="kl"        sum_c |p_t(c) (log p_t(c) - log p_{t-1}(c))|, which needs no label;
        form="gradient"  |<g_t, theta_{t-1} - theta_t>| as it is reported, influence=: exactly, of
                         the last layer's parameters and the training's last step, what
                         ``augloader.loading.HeadInfluence`` returns.

    The first two compare a sample's visits, an epoch apart; the third the parameters of one step.

    V_t is the population variance of the last L influences, smoothed once there are L of them,
    V <- beta V_t + (1 - beta) V (at first V = V_t), and over the samples that have a V

        strength = 1 - (V - V_min) / (V_max - V_min),        1 where all V are equal.

    The other samples get uniformly random strengths. V has heavy tails, which push nearly all of
    these strengths to 1; ``scaling`` offers two remedies.

    Consecutive visits see different augmentations, so stronger augmentation raises the measured
    variance and lowers the strength. ``view="clean"`` compares like with like: it counts only
    reports of views with strength 0. With base="full" every epoch has one of each sample at no
    cost; without it they cost a forward pass over ``data.clean()`` whose batches are reported.

    Args:
        form: what influence is, "loss", "kl" or "gradient". On digits with wrong labels the loss
            form told them apart, the KL form only in clean views (benchmarks/ordering.py); the
            gradient form was not measured.
        window: L, influences in the window, at least 2: a sample has a V after L + 1 visits, after
            L with form="gradient".
        smoothing: beta in (0, 1], the weight of the newest window.
        scaling: "minmax" as above; "rank": 1 - rank / (m - 1) among the m samples that have a V,
            ties at their average rank; "quantile": as above after V was clipped to its 5 % and
            95 % quantiles.
        view: "any", every report is a visit, or "clean".

    Raises:
        TypeError: a window that is no integer, a smoothing that is no number.
        ValueError: unknown names, values out of range.

    Memory, bytes a sample: 8 + 2 L (window in float16, V in float32, visits), and 4 for the last
    loss or 2 C for the last log-probabilities in float16; nothing more with form="gradient".
    ImageNet, L = 5: loss 28 MB, KL 2.6 GB.

    Example:
        >>> rule = StableInfluence(window=2)
        >>> columns = {**rule.start(2, 0), "visits": torch.zeros(2, dtype=torch.int32)}
        >>> for losses in ([3.0, 3.0], [2.0, 1.0], [1.0, 1.0]):
        ...     new = rule.update(columns, losses=torch.tensor(losses))
        ...     columns = {**new, "visits": columns["visits"] + 1}
        >>> columns["variance"]  # of the influences 1, 1 and 2, 0
        tensor([0., 1.])
        >>> rule.strengths(columns, np.random.default_rng(0))
        tensor([1., 0.])

    Source: implements SADA (Yang et al. 2025) as publicly described. Its full text and code are not
    public: the KL form is inferred from a related method, and L = 5, beta = 0.9, which term beta
    weighs, and scaling over the data set are our choices.
    """

    form: Form = "loss"
    window: int = 5
    smoothing: float = 0.9
    scaling: Scaling = "minmax"
    view: View = "any"

    def __post_init__(self) -> None:
        """Check the options."""
        plain_options(self)
        require_one_of("form", self.form, get_args(Form))
        require_int("window", self.window, 2, "One influence has no variance.")
        require_number("smoothing", self.smoothing, "(0, 1]", "1 forgets older windows.")
        require_one_of("scaling", self.scaling, ("minmax", "rank", "quantile"))
        require_one_of("view", self.view, ("any", "clean"))

    @property
    def needs(self) -> frozenset[str]:
        """Logits, losses or influences, as the form asks."""
        return frozenset({{"kl": "logits", "loss": "losses", "gradient": "influences"}[self.form]})

    @property
    def _first(self) -> int:
        """How many visits a sample had before the first that has an influence."""
        return 0 if self.form == "gradient" else 1

    def start(self, n: int, classes: int) -> Columns:
        """Return the last outputs, where they are compared, the rings of influences, and V; all 0.

        Args:
            n: number of samples.
            classes: C, the width of the last outputs of the KL form.
        """
        variance = torch.zeros(n, dtype=torch.float32, device="cpu")
        window = variance.new_zeros(n, self.window, dtype=torch.float16)
        columns = {"window": window, "variance": variance}
        if self.form == "gradient":
            return columns
        loss = self.form == "loss"
        return {"previous": variance.clone() if loss else window.new_zeros(n, classes), **columns}

    def update(
        self,
        rows: Columns,
        *,
        losses: Tensor | None = None,
        logits: Tensor | None = None,
        influences: Tensor | None = None,
        **_: Tensor | None,
    ) -> Columns:
        """Return the rows after one more visit.

        Args:
            rows: of b samples, with their ``visits`` so far and, for messages, ``index``.
            losses: (b,) floating, for the loss form.
            logits: (b, C) floating, for the KL form; C at least 2.
            influences: (b,) floating, for the gradient form; their absolute values count.

        Raises:
            ValueError: fewer than 2 classes, or others than before; an influence or log-probability
                beyond float16.

        Cost: O(b (C + L)).
        """
        previous: Columns = {}
        if self.form == "gradient":
            assert influences is not None
            influence = influences.abs()
        elif self.form == "loss":
            assert losses is not None
            previous = {"previous": losses.float()}
            influence = loss_influence(rows["previous"], losses)
        else:
            assert logits is not None
            width = rows["previous"].shape[1]
            if logits.shape[1] != width:
                raise ValueError(
                    f"logits must keep the width {width} of earlier reports, got "
                    f"{logits.shape[1]}. Use one sampler for one model."
                )
            now = log_probabilities(logits).half()
            require_finite("log-probabilities", now, _DIVERGED, rows.get("index"))
            previous = {"previous": now}
            influence = kl_influence(rows["previous"].float(), now.float())
        before, variance = rows["visits"] - self._first, rows["variance"]  # influences before
        influence = torch.where(before >= 0, influence, 0).half()  # a first visit compares nothing
        require_finite("influence", influence, _DIVERGED, rows.get("index"))
        slot = before.long() % self.window  # of the first visit the last, filled again later
        window = rows["window"].scatter(1, slot[:, None], influence[:, None])
        newest = window.float().var(1, unbiased=False)
        smoothed = self.smoothing * newest + (1 - self.smoothing) * variance
        variance = torch.where(before >= self.window, smoothed, variance)
        variance = torch.where(before == self.window - 1, newest, variance)
        return {**previous, "window": window, "variance": variance}

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        """Return the strengths of all n samples.

        Args:
            columns: of n samples, with ``visits``.
            generator: for samples without a V; it draws n numbers, whatever was seen.

        Returns:
            (n,) float32 in [0, 1].

        Cost: O(n), for "rank" and "quantile" O(n log n).
        """
        ready = columns["visits"] >= self.window + self._first
        return with_random(
            ready, self._scaled(columns["variance"][ready].double().numpy()), generator
        )

    def _scaled(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.scaling == "quantile" and len(v):
            v = v.clip(*np.quantile(v, (0.05, 0.95)))
        if not len(v) or v.min() == v.max():
            return np.ones_like(v)
        if self.scaling == "rank":
            return 1 - average_ranks(v)
        return np.asarray(1 - (v - v.min()) / (v.max() - v.min()))


def loss_influence(previous: Tensor, now: Tensor) -> Tensor:
    """Return |l_{t-1} - l_t| of every sample.

    To first order this is |<g_t, theta_{t-1} - theta_t>|, the change of the loss along the step.

    Args:
        previous: (b,) floating losses of the visits before.
        now: (b,) floating losses of these visits, of the same views where the formula is to hold.

    Example:
        >>> loss_influence(torch.tensor([2.0]), torch.tensor([0.5]))
        tensor([1.5000])

    Source: SADA (Yang et al. 2025), as publicly described.
    """
    return (previous - now).abs()


def kl_influence(previous: Tensor, now: Tensor) -> Tensor:
    """Return sum_c |p_t(c) (log p_t(c) - log p_{t-1}(c))| of every sample.

    Args:
        previous: (b, C) floating log-probabilities of the visits before.
        now: (b, C) floating log-probabilities of these visits.

    Example:
        >>> half = torch.tensor([[0.5, 0.5]]).log()
        >>> kl_influence(half, half)
        tensor([0.])

    Source: SADA (Yang et al. 2025), as publicly described; the formula after TDDS (CVPR 2024).
    """
    return (now.exp() * (now - previous)).abs().sum(1)


def head_influence(gradient: Tensor, features: Tensor, change: Tensor) -> Tensor:
    """Return <g_i (x) h_i, W_{t-1} - W_t> of every sample, the last layer's part of <g, d theta>.

    The outer product is never formed: it is g_i . ((W_{t-1} - W_t) h_i), in which W_{t-1} h_i is
    what the layer would have returned before the step.

    Args:
        gradient: (b, C) floating, g, of the losses by the last layer's outputs, as ``residual``.
        features: (b, d) floating, h, the layer's inputs; with a column of ones for its bias.
        change: (C, d) floating, W_{t-1} - W_t; with a column for the bias.

    Returns:
        (b,) floating.

    Cost: O(b C d).

    Example:
        >>> g, h = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 1.0]])
        >>> head_influence(g, h, torch.tensor([[0.5, 0.0], [0.0, 0.25]]))
        tensor([0.7500])

    Source: SADA (Yang et al. 2025), as publicly described, of the last layer.
    """
    return (gradient * (features @ change.T)).sum(1)
