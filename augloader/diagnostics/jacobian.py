"""The Jacobian of a network on clean and on augmented inputs: singular values and subspaces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from augloader.core.checks import as_tensor, require_finite, require_int
from augloader.core.modules import AtOnce, copied, device_of, require_independent
from augloader.core.precision import computed_in
from augloader.loading.randomness import Fixed
from augloader.selection.greedy.memory import free_memory

_COPIES = 4  # of a block's rows: two blocks, and what computing them and their product takes
_GRAMS = 4  # of the Gram matrix: itself, and what its eigenvectors take


@dataclass(frozen=True, eq=False)
class JacobianSpectrum:
    """The spectra of the Jacobians J of clean and J' of augmented inputs, and their subspaces.

    Attributes:
        clean: (m,) float64, the singular values of J in descending order, m = min(n C, p).
        augmented: (m,) float64, those of J'.
        edges: (b + 1,) int64, ascending from 0: range i of the index is edges[i] to edges[i + 1],
            the last one left out, as of a slice.
        left: (edges[b],) float64, in radians from 0 to pi / 2: the principal angles between the
            subspaces that the left singular vectors of a range span, ascending within each range.
        right: as left, of the right singular vectors, which are directions in parameter space.
        perturbation: ||J' - J||_2, which no singular value moves more than (Weyl).
        resolution: singular values below it are rounding errors, and in no range.
    """

    clean: Tensor
    augmented: Tensor
    edges: Tensor
    left: Tensor
    right: Tensor
    perturbation: float
    resolution: float

    @property
    def change(self) -> Tensor:
        """(m,) float64, by how much each singular value is larger on augmented inputs."""
        return self.augmented - self.clean

    def angles(self, side: str = "left") -> Tensor:
        """Return the mean of each range's principal angles, (b,) float64, in radians.

        Args:
            side: "left" or "right".
        """
        if side not in ("left", "right"):
            raise ValueError(
                f"side must be 'left' or 'right', got {side!r}. The left ones are those of the "
                "tangent kernel."
            )
        values = self.left if side == "left" else self.right
        return range_means(values, self.edges)

    def changes(self, relative: bool = False) -> Tensor:
        """Return the mean change of each range's singular values, (b,) float64.

        Args:
            relative: whether as a share of each clean value.
        """
        inside = slice(int(self.edges[-1]))
        values = self.change[inside] / self.clean[inside] if relative else self.change[inside]
        return range_means(values, self.edges)

    def __repr__(self) -> str:
        """Return how many values there are, and the largest ones."""
        top = f"{float(self.clean[0]):.4g} and {float(self.augmented[0]):.4g}"
        return (
            f"{type(self).__name__}({len(self.clean):,} singular values, at most {top}, in "
            f"{len(self.edges) - 1} ranges; perturbation {self.perturbation:.4g})"
        )


def range_means(values: Tensor, edges: Tensor) -> Tensor:
    """Return the means of (edges[b],) values over each of b ranges of the index, (b,).

    Example:
        >>> range_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 2, 3]))
        tensor([2., 5.])
    """
    return torch.stack([part.mean() for part in values.split(edges.diff().tolist())])


def jacobian_spectrum(
    model: nn.Module,
    clean: Tensor,
    augmented: Tensor,
    *,
    bins: int = 10,
    batch_size: int = 8,
    memory_limit: int | None = None,
) -> JacobianSpectrum:
    """Return singular values and singular subspaces of the Jacobian, clean and augmented.

    J, (n C, p), holds the derivatives of all C outputs at all n samples by the p parameters that
    require gradients; J J^T is the neural tangent kernel, whose eigenvectors are the left singular
    vectors of J. Both follow exactly from the Gram matrix of the rows of J and J':

        J J^T = U S^2 U^T,    V^T V' = S^-1 U^T (J J'^T) U' S'^-1

    It is formed in float64 from blocks of rows; J as a whole is held only where it fits. The paper
    shows the change of the singular values, and the angles between singular subspaces, over ranges
    of their index; its theory (Eq. 4 and 6) is of the left ones. Here are both.

    The model is copied and runs in eval mode, in the precision of its parameters, one sample by
    itself: batch norm takes its running statistics.

    Args:
        model: maps (b, ...) inputs to (b, C) outputs.
        clean: (n, ...) inputs as the model takes them, on any device. The Gram matrix has 2 n C
            rows: take some hundred samples.
        augmented: (n, ...), the augmented versions of these samples, in the same order; the paper's
            figure adds noise of a bounded norm.
        bins: number of ranges of the index at most, of about equal width; at least 1. With one a
            singular value, the angles are those between single singular vectors.
        batch_size: samples whose derivatives are computed at a time.
        memory_limit: bytes to take, about, beside the model's activations; None takes a quarter of
            what is free.

    Returns:
        JacobianSpectrum, on the CPU.

    Raises:
        TypeError: inputs that are no tensors, an output that is none.
        ValueError: inputs of different shapes, no samples, outputs that are not (b, C), a model
            without parameters that require gradients or whose outputs of a sample depend on the
            others in its batch, derivatives that are NaN, infinite or all zero, a memory limit
            below what is needed.
        RuntimeError: a model that cannot be copied or that torch.func cannot differentiate.

    Cost: C backward passes a sample where all rows fit in the memory limit, else about (1 + the
    number of blocks) / 2 times as many, one by one where vmap cannot go through the model (as with
    channels_last in it); O((n C)^2 p) for the Gram matrix and O((n C)^3).
    Singular values below 1e-7 of the largest, in float32 models about 1e-5, are lost to rounding.

    Example:
        >>> model, clean = nn.Linear(2, 1, bias=False), torch.eye(2)
        >>> found = jacobian_spectrum(model, clean, 3 * clean, bins=1)  # J is the inputs
        >>> found.clean.round(decimals=4).tolist(), found.augmented.round(decimals=4).tolist()
        ([1.0, 1.0], [3.0, 3.0])
        >>> round(found.perturbation, 4), round(found.angles("right").item(), 4)
        (2.0, 0.0)

    Source: Liu & Mirzasoleiman (2022), section 4, Fig. 1 and App. C.
    """
    n = _check_inputs(clean, augmented)
    bins = require_int("bins", bins, 1, "10 ranges show where the spectrum changes.")
    batch_size = require_int("batch_size", batch_size, 1, "8 suits most models.")
    if memory_limit is not None:
        memory_limit = require_int("memory_limit", memory_limit, 1, "Give bytes, as 4 * 2**30.")
    with Fixed(0):  # a model that draws random numbers leaves the global states as they were
        rows = _Rows(model, clean, batch_size)
        limit = free_memory(rows.device) // 4 if memory_limit is None else memory_limit
        gram = _gram(rows, [clean, augmented], limit)
    norms = gram.diagonal().view(2, n, rows.outputs)  # squared; a row of each sample
    advice = "Check its inputs and the model's outputs: has training diverged?"
    for name, squares in zip(("clean", "augmented"), norms, strict=True):
        require_finite(f"{name} Jacobian", squares, advice)
    size = n * rows.outputs
    own, other, across = gram[:size, :size], gram[size:, size:], gram[:size, size:]
    most = min(size, rows.width)
    (s, u), (s2, u2) = (_decomposed(part, most) for part in (own, other))
    moved = own + other - across - across.T
    # Of a Gram matrix in float64, of rows in the model's dtype.
    eps = torch.finfo(torch.float64).eps
    relative = max((size * eps) ** 0.5, rows.eps * size**0.5)
    resolution = relative * float(torch.maximum(s[0], s2[0]))
    rank = int(((s > resolution) & (s2 > resolution)).sum())
    if not rank:
        raise ValueError(
            "Jacobian must not be zero, got no singular value above rounding. Check that the "
            "parameters that require gradients act on the outputs."
        )
    edges = torch.linspace(0, rank, min(bins, rank) + 1, dtype=torch.float64, device="cpu")
    edges = edges.round().long()
    u, u2 = u[:, :rank], u2[:, :rank]
    left = u.T @ u2
    right = (u.T @ across @ u2) / torch.outer(s[:rank], s2[:rank])
    top = float(torch.linalg.eigvalsh(moved)[-1].clamp(min=0).sqrt())
    angles = [_angles(cosines, edges).cpu() for cosines in (left, right)]
    return JacobianSpectrum(s.cpu(), s2.cpu(), edges, angles[0], angles[1], top, resolution)


def _check_inputs(clean: Tensor, augmented: Tensor) -> int:
    for name, inputs in (("clean", clean), ("augmented", augmented)):
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f"{name} must be a tensor of inputs, got {type(inputs).__name__}. Stack the "
                "samples, a row a sample."
            )
        as_tensor(name, inputs, "Stack the samples, a row a sample.")
    if clean.shape != augmented.shape or clean.ndim < 1 or not len(clean):
        raise ValueError(
            "augmented must be the same samples as clean, at least one, got shapes "
            f"{tuple(augmented.shape)} and {tuple(clean.shape)}. Augment each sample once."
        )
    return len(clean)


class _Rows:
    """Rows of the Jacobian of a copy of a model."""

    def __init__(self, model: nn.Module, inputs: Tensor, batch_size: int) -> None:
        self.model = copied(model)
        self.device, self.batch_size = device_of(self.model), batch_size
        named = dict(self.model.named_parameters())
        self.trained = {k: p.detach() for k, p in named.items() if p.requires_grad}
        if not self.trained:
            raise ValueError(
                "model must have parameters that require gradients, got none. Call "
                "requires_grad_(True) on those that count."
            )
        self.width = sum(p.numel() for p in self.trained.values())
        self.bytes = sum(p.numel() * p.element_size() for p in self.trained.values())
        self.eps = max(torch.finfo(p.dtype).eps for p in self.trained.values())
        self.derivatives = AtOnce(vmap(jacrev(self._outputs), in_dims=(None, 0)), self._one_by_one)
        self.outputs = self._probe(inputs[:4])

    def _probe(self, inputs: Tensor) -> int:
        """Return C, or raise unless a sample's outputs are its own."""
        inputs = inputs.to(self.device)
        with torch.no_grad(), computed_in(self.device, None):
            together = self.model(inputs)
            if not isinstance(together, Tensor):
                raise TypeError(
                    f"model must return a tensor, got {type(together).__name__}. Wrap it in a "
                    "module that returns its logits."
                )
            if together.ndim != 2 or len(together) != len(inputs) or not together.shape[1]:
                raise ValueError(
                    f"model must return (b, C) outputs for b={len(inputs)}, got "
                    f"{tuple(together.shape)}. Wrap it in a module that returns one row a sample."
                )
            require_independent(
                self.model, inputs, together, "Batch norm must track running statistics."
            )
        return int(together.shape[1])

    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """Return J of (b, ...) inputs, (b C, p_k) for each parameter."""
        rows = len(inputs) * self.outputs
        parts = [p.new_empty(rows, p.numel()) for p in self.trained.values()]
        done = 0
        with computed_in(self.device, None):
            for some in inputs.detach().split(self.batch_size):
                found = self.derivatives(self.trained, some.to(self.device))
                upto = done + len(some) * self.outputs
                for part, name in zip(parts, self.trained, strict=True):
                    part[done:upto] = found[name].detach().reshape(upto - done, -1)
                done = upto
        return parts

    def _outputs(self, parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        found: Tensor = functional_call(self.model, parameters, (sample.unsqueeze(0),))
        return found.squeeze(0)

    def _one_by_one(self, parameters: dict[str, Tensor], samples: Tensor) -> dict[str, Tensor]:
        """Return (b C, ...) for each parameter."""
        rows = []
        for sample in samples:
            made: Any = vjp(partial(self._outputs, sample=sample), parameters)
            found, pull = made
            rows += [pull(one)[0] for one in torch.eye(len(found), device="cpu").to(found)]
        return {name: torch.stack([row[name] for row in rows]) for name in parameters}


def _gram(rows: _Rows, inputs: list[Tensor], limit: int) -> Tensor:
    """Return the inner products of all rows of the Jacobians, in float64."""
    size = sum(map(len, inputs)) * rows.outputs
    fixed, each = _GRAMS * 8 * size**2, _COPIES * rows.outputs * rows.bytes
    if fixed + each > limit:
        raise ValueError(
            f"memory_limit must be at least {fixed + each:,} bytes for {size:,} rows of "
            f"{rows.width:,} parameters, got {limit:,}. Take fewer samples, or raise the limit."
        )
    step = (limit - fixed) // each
    blocks = [block for part in inputs for block in part.split(step)]
    ends = torch.tensor([0, *map(len, blocks)], device="cpu").cumsum(0) * rows.outputs
    places = [slice(a, b) for a, b in pairwise(ends.tolist())]
    home = torch.device("cpu") if rows.device.type == "mps" else rows.device
    gram = torch.zeros(size, size, dtype=torch.float64, device=home)
    fits = sum(map(len, inputs)) <= step
    held = [rows(block) for block in blocks] if fits else None
    for i, mine in enumerate(places):
        left = rows(blocks[i]) if held is None else held[i]
        for j in range(i, len(places)):
            right = left if i == j else rows(blocks[j]) if held is None else held[j]
            product = _product(left, right, home)
            gram[mine, places[j]] = product
            gram[places[j], mine] = product.T
    return gram


def _product(left: list[Tensor], right: list[Tensor], home: torch.device) -> Tensor:
    """Return J J'^T, parameter by parameter, in columns that are converted to float64 in turn."""
    total = torch.zeros(len(left[0]), len(right[0]), dtype=torch.float64, device=home)
    for mine, theirs in zip(left, right, strict=True):
        columns = max(1, mine.shape[1] // 16, 2**20 // max(len(mine), len(theirs)))
        for a, b in zip(mine.split(columns, 1), theirs.split(columns, 1), strict=True):
            total += a.to(home).double() @ b.to(home).double().T
    return total


def _decomposed(gram: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the largest singular values, descending, and the left singular vectors."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0)[:most].clamp(min=0).sqrt(), vectors.flip(1)[:, :most]


def _angles(cosines: Tensor, edges: Tensor) -> Tensor:
    """Return the principal angles of each range, from inner products of singular vectors."""
    ends = edges.tolist()
    spans = [slice(a, b) for a, b in pairwise(ends)]
    return torch.cat(
        [torch.linalg.svdvals(cosines[span, span]).clamp(max=1).arccos() for span in spans]
    )
