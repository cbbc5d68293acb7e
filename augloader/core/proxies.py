"""Gradient proxies: what a sample does to the model, without a backward pass.

The gradient of the cross-entropy loss with respect to the last layer's output is the residual
g = p - y, and with respect to its weights the outer product g (x) h with the layer's input h.
The outer product, n * C * d numbers, is never formed: distances need only Gram matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import (
    as_tensor,
    kind,
    require_finite,
    require_int,
    require_labels,
    require_seed,
    unchecked,
)

_BLOCK = 2**20  # distances computed at a time: they stay in the cache


@dataclass(frozen=True)
class Residual:
    """Ask a sweep for the residual g = softmax(z) - y of every sample.

    (n, C) float32; the upper bound on the gradient norm of Katharopoulos & Fleuret (2018), and the
    proxy that Liu & Mirzasoleiman (2022, section 5) use. Any model that returns logits will do.

    Example:
        >>> Residual()
        Residual()
    """


@dataclass(frozen=True)
class LastLayerGradient:
    """Ask a sweep for the full gradient g (x) [h, 1] of the last layer's weights and bias.

    h, (n, d) float32, is the input of the head, caught by a forward hook; the 1 stands for the
    bias and is left out when the head has none.

    With ``project`` a sweep keeps w numbers of each outer product, a TensorSketch, in place of its
    factors: inner products have the right mean, and a squared distance a relative standard
    deviation of at most sqrt(8 / w). Of ImageNet that is 5 GB for w = 1,024, in place of 15.

    Args:
        head: name of the head as in ``model.named_modules()``; None takes the last ``nn.Linear``.
        project: w, at least 1; None keeps the factors.
        seed: of the projection.

    Raises:
        TypeError, ValueError: a projection below 1, a seed out of range.

    Example:
        >>> LastLayerGradient(head="fc")
        LastLayerGradient(head='fc', project=None, seed=0)
    """

    head: str | None = None
    project: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        if self.project is not None:
            require_int("project", self.project, 1, "None keeps the factors.")
        require_seed(self.seed)


@dataclass(frozen=True)
class LayerGradient:
    """Ask a sweep for the gradient by the parameters of chosen layers, of every sample.

    (n, P) float32 for layers of P parameters together, earlier ones as well as the last. Where P
    is large, ``project`` keeps w numbers a sample: coordinate i is added to number b(i) with a
    random sign, every number getting equally many coordinates. Inner products then have the right
    mean, and a squared distance a relative standard deviation of at most about sqrt(2 / w); w >= P
    only reorders the coordinates.

    Args:
        layers: names of modules, as in ``model.named_modules()``, or of parameters; one or more.
        project: w, numbers that are kept of a sample, at least 1; None keeps all P.
        seed: of the projection; the same seed and layers give the same one everywhere.

    Raises:
        TypeError, ValueError: no layers or names twice, a width below 1, a seed that is none.

    Memory of a sweep: n w or n P floats; a copy of the model.

    Example:
        >>> LayerGradient(["layer4.1", "fc"], project=256)
        LayerGradient(layers=('layer4.1', 'fc'), project=256, seed=0)

    Source: Liu & Mirzasoleiman (2022), section 5: gradients of more than the last layer; the
    projection of Charikar, Chen & Farach-Colton (2002), with equal shares.
    """

    layers: Sequence[str]
    project: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the names and the projection."""
        names = self.layers
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(
                f"layers must be a sequence of names, got {names!r}. Pass a list, as "
                '["layer4", "fc"].'
            )
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                f"layers must be one name or more, got {names!r}. Name modules as in "
                "model.named_modules()."
            )
        inner = [a for a in names for b in names if a != b and a.startswith(f"{b}.")]
        if inner or len(set(names)) < len(names):
            raise ValueError(
                f"layers must be apart from each other, got {tuple(names)}. Name each once, and "
                "nothing within another."
            )
        object.__setattr__(self, "layers", tuple(names))
        if self.project is not None:
            width = require_int("project", self.project, 1, "256 is a good start.")
            object.__setattr__(self, "project", width)
        object.__setattr__(self, "seed", require_seed(self.seed))


def residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy loss by the logits, g = softmax(z) - onehot(y).

    Args:
        logits: (n, C) floating.
        labels: (n,) integer, in [0, C).

    Returns:
        (n, C) float32, on the logits' device; every row sums to 0.

    Raises:
        ValueError: labels out of range or of the wrong length.
        TypeError: labels that are not integers, logits that are not (n, C) and floating.

    Cost: O(n C).

    Example:
        >>> residual(torch.zeros(1, 2), torch.tensor([1]))
        tensor([[ 0.5000, -0.5000]])

    Source: Katharopoulos & Fleuret (2018); Liu & Mirzasoleiman (2022), section 5.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.ndim != 2:
        raise TypeError(
            f"logits must be an (n, C) floating tensor, got {kind(logits)}. Give the outputs of "
            "the model, a row a sample."
        )
    return unchecked_residual(
        logits, require_labels("labels", labels, len(logits), logits.shape[1])
    )


def unchecked_residual(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``residual`` of labels that were checked before: a GPU is not waited for."""
    g = logits.float().softmax(1)
    g[torch.arange(len(g), device=g.device), labels.to(g.device, torch.int64)] -= 1
    return g


@dataclass(frozen=True, eq=False)
class Proxies:
    """Gradient proxies of n samples: vectors g, or outer products g (x) h kept as two factors.

    Distances follow from <g_i (x) h_i, g_j (x) h_j> = <g_i, g_j> <h_i, h_j>.

    Args:
        gradient: (n, C) floating, g; residuals or any other vectors. An array is taken too, and one
            that is mapped from a file with ``mmap_mode="c"`` stays there.
        features: (n, d) floating, h, or None for proxies that are plain vectors.

    Raises:
        TypeError: not floating, or no tensor or array.
        ValueError: not two-dimensional, of different lengths or devices, NaN or infinite (the
            message gives the count and the first indices).

    Example:
        >>> p = Proxies(torch.tensor([[1.0], [2.0]]), features=torch.eye(2))
        >>> p.distances()
        tensor([[0.0000, 2.2361],
                [2.2361, 0.0000]])
    """

    gradient: Tensor
    features: Tensor | None = None

    def __post_init__(self) -> None:
        """Take arrays, and check shapes, dtypes and finiteness."""
        for name, part in self._parts():
            advice = "Pass (n, d) floating values, a row a sample."
            object.__setattr__(self, name, as_tensor(f"proxies.{name}", part, advice))
        self._check_form()
        for name, part in self._parts():
            require_finite(
                f"proxies.{name}", part, "Check the model's outputs: has training diverged?"
            )

    def _parts(self) -> list[tuple[str, Tensor]]:
        parts = ("gradient", self.gradient), ("features", self.features)
        return [(name, part) for name, part in parts if part is not None]

    def _check_form(self) -> None:
        for name, part in self._parts():
            if not part.is_floating_point():
                raise TypeError(
                    f"proxies.{name} must be floating, got {part.dtype}. Convert it with .float()."
                )
            if part.ndim != 2:
                raise ValueError(
                    f"proxies.{name} must have shape (n, d), got {tuple(part.shape)}. "
                    "Flatten each sample's values to one row."
                )
        if self.features is not None and _kind(self.features) != _kind(self.gradient):
            raise ValueError(
                "proxies.features must match the gradient in length, dtype and device, got "
                f"{_kind(self.features)} and {_kind(self.gradient)}. Take both from one sweep."
            )

    @classmethod
    def of(cls, given: Any) -> Proxies:
        """Return proxies as they are, and (n, d) floating values as proxies that are vectors.

        Raises:
            TypeError, ValueError: as the class.

        Example:
            >>> len(Proxies.of(np.eye(3)))
            3
        """
        if isinstance(given, cls):
            return given
        advice = "Pass Proxies(gradient), or (n, d) floating values, a row a sample."
        return cls(as_tensor("proxies", given, advice))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.gradient)

    def __getitem__(self, rows: Tensor) -> Proxies:
        """Return the proxies of some samples; ``rows`` is an (m,) int64 or (n,) bool tensor."""
        rows = rows.to(self.device)
        some = unchecked(Proxies, **{name: part[rows] for name, part in self._parts()})
        some._check_form()  # its values are finite, as these are
        return some

    @property
    def device(self) -> torch.device:
        """Where the proxies are."""
        return self.gradient.device

    @property
    def widths(self) -> tuple[int, ...]:
        """(C,) of vectors, (C, d) of outer products."""
        return tuple(part.shape[1] for _, part in self._parts())

    def require_same_form(self, other: Proxies) -> None:
        """Raise ValueError unless both are of the same kind, widths, dtype and device."""
        if self.widths != other.widths:
            raise ValueError(
                f"proxies must have the same widths, got {self.widths} and {other.widths}. "
                "Take both from the same model and the same kind of proxy."
            )
        mine, theirs = _kind(self.gradient)[1:], _kind(other.gradient)[1:]
        if mine != theirs:
            raise ValueError(
                f"proxies must have the same dtype and device, got {mine} and {theirs}. "
                "Convert one of them with .to()."
            )

    def project(self, width: int, seed: int = 0) -> Proxies:
        """Return vectors of a smaller width whose distances are about the same.

        Vectors: x R / sqrt(w) with random signs R. Outer products: (g R) * (h Q) / sqrt(w), entry
        by entry, whose inner products have the right mean. A squared distance has a relative
        standard deviation of about sqrt(2 / w) for vectors, up to twice that for outer products.

        Args:
            width: w, at least 1.
            seed: of the signs; the same seed and widths give the same projection everywhere.

        Returns:
            Proxies of (n, w) float32 vectors.

        Raises:
            TypeError, ValueError: width below 1, a seed that is none.

        Cost: O(n (C + d) w).

        Example:
            >>> Proxies(torch.eye(1000)).project(64).gradient.shape
            torch.Size([1000, 64])

        Source: Achlioptas (2003); for products Kar & Karnick (2012).
        """
        width = require_int("width", width, 1, "64 is a good start.")
        rng = np.random.default_rng(require_seed(seed))
        product = torch.full((1, 1), width**-0.5, dtype=torch.float32, device=self.device)
        for _, part in self._parts():
            signs = rng.integers(0, 2, (part.shape[1], width), dtype=np.int8) * 2 - 1
            product = product * (part.float() @ torch.from_numpy(signs).to(part.device).float())
        return Proxies(product)

    def distances(self, other: Proxies | None = None, workspace: Workspace | None = None) -> Tensor:
        """Return the exact Euclidean distances to other proxies, or among these.

        d_ij^2 = ||g_i||^2 ||h_i||^2 + ||g_j||^2 ||h_j||^2 - 2 <g_i, g_j> <h_i, h_j>, in float64
        (the difference cancels for near neighbours) and rounded to float32 at the end.

        Args:
            other: m proxies of the same form; None means these, with an exact zero diagonal.
            workspace: memory to use again, also for what is returned, which the next call with it
                overwrites; None takes new memory.

        Returns:
            (n, m) float32, on the proxies' device.

        Raises:
            ValueError: the two differ in form or width.

        Cost: O(n m (C + d)) time; 4 n m bytes, and blocks of 2^20 in float64 beside them.

        Source: Liu & Mirzasoleiman (2022), Eq. 8-9.
        """
        right = self if other is None else other
        self.require_same_form(right)
        g, h, q = _doubles(self)
        g2, h2, q2 = _doubles(right)
        # q_i + q_j as a product too, so that most of the work is the matrix product's.
        left, across = (
            torch.cat([q, torch.ones_like(q)], 1),
            torch.cat([torch.ones_like(q2), q2], 1),
        )
        if h is None:
            left, across = torch.cat([left, -2 * g], 1), torch.cat([across, g2], 1)
        space = Workspace() if workspace is None else workspace
        out = space.empty("distances", (len(self), len(right)), torch.float32, self.device)
        rows = max(1, min(len(self), max(16, _BLOCK // max(len(right), 1))))
        buffer = space.empty("block", (rows, len(right)), left.dtype, left.device)
        with _pool(self.device) as pool:
            for start in range(0, len(self), rows):
                block = slice(start, start + rows)
                squared = torch.mm(left[block], across.T, out=buffer[: len(left) - start])
                if h is not None and h2 is not None:
                    squared.addcmul_(g[block] @ g2.T, h[block] @ h2.T, value=-2)
                _roots(squared, out[block], pool)
        if other is None:
            out.fill_diagonal_(0)
        return out


class Workspace:
    """Memory that is used again and again: what is freed and asked for anew leaves gaps."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def empty(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return an uninitialised tensor, valid until the next of this name."""
        size, held = prod(shape), self._held.get(name)
        if held is None or (held.dtype, held.device) != (dtype, device) or len(held) < size:
            self._held[name] = held = torch.empty(size, dtype=dtype, device=device)
        return held[:size].view(shape)


def _pool(device: torch.device) -> Any:
    """Return the threads that roots are taken by on the CPU."""
    if device.type != "cpu":
        return nullcontext()
    from augloader.core import compiled  # Numba takes a second to import

    return compiled.threads()


def _roots(squared: Tensor, out: Tensor, pool: Any) -> None:
    """Write the square roots in float32; on the CPU compiled, in one pass for torch's three."""
    if out.device.type != "cpu":
        out.copy_(squared.clamp_(min=0)).sqrt_()
        return
    from augloader.core import compiled

    share = -(-len(out) // torch.get_num_threads())
    parts = (part.split(share) for part in (squared, out))
    list(pool.map(compiled.roots, *([rows.numpy() for rows in part] for part in parts)))


def _kind(part: Tensor) -> tuple[int, torch.dtype, str]:
    return len(part), part.dtype, str(part.device)


def _doubles(proxies: Proxies) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return g, h and the squared norms ||g||^2 ||h||^2, (n, 1), in float64."""
    g, h = proxies.gradient.double(), proxies.features
    norms = g.square().sum(1, keepdim=True)
    if h is None:
        return g, None, norms
    return g, h.double(), norms * h.double().square().sum(1, keepdim=True)
