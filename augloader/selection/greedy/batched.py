"""Greedy facility location for many groups at once, made for a GPU: the batched engine.

The lazy greedy of Minoux (1978): a gain only falls as medoids are added, so an old gain bounds the
new one from above, and a candidate that still leads after its gain is computed anew is the best of
all. Here every group tries its leading candidates at once, in one iteration of fixed shapes that
never asks the device for a value. Every gain is summed in one and the same shape, and so in the
same order: since rounding is monotone, an old gain stays a bound, and duplicates tie exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from augloader.core.checks import require_int
from augloader.selection.greedy.medoids import check_xi

_LOOK = 64  # iterations between two checks by the host whether all groups are finished
_FULL = 16  # iterations, at the start, within which all gains are computed anew now and then
_ENTRIES = 2**24  # distances worked on at a time; each takes 12 bytes


class Found(NamedTuple):
    """What the greedy found in one group, on the distances' device.

    Attributes:
        taken: (k,) int64, the medoids in the order in which they were taken.
        gains: (k,) float64, their marginal gains.
        remaining: (size,) float64, the gain that every candidate has left, -inf for medoids.
        constant: c1, the group's largest distance.
    """

    taken: Tensor
    gains: Tensor
    remaining: Tensor
    constant: float


def batched_greedy(
    distances: Tensor,
    sizes: Tensor,
    budgets: Tensor,
    *,
    xi: float | None = None,
    width: int = 32,
) -> list[Found]:
    """Take medoids greedily in every group until its budget or an error bound is reached.

    The gain of s is sum_i max(0, m_i - d_is) in float64, where m_i is the smallest distance of i to
    a medoid of its group, and c1 before the first. Ties go to the lowest index; a candidate that
    gains nothing (a duplicate) still fills the budget.

    Args:
        distances: (G, m, m) float32, on any device; group g has its symmetric distances with a zero
            diagonal in the upper left ``sizes[g]`` rows and columns, and anything in the rest.
        sizes: (G,) int64, 1 to m.
        budgets: (G,) int64, number of medoids, 1 to the group's size.
        xi: stop a group as soon as sqrt(sum_i m_i^2) <= xi, but after its first medoid.
        width: how many candidates a group tries in an iteration.

    Returns:
        One ``Found`` a group.

    Raises:
        TypeError: distances not float32, width not an integer.
        ValueError: distances not (G, m, m) or not finite within a group, sizes or budgets of
            another length or out of range, xi below 0, width below 1.

    Cost: an iteration reads G width m distances and takes at most one medoid in every group; they
    number little more than the largest budget. The first 16 iterations and the end compute all
    G m^2 terms 7 times. Memory beside the distances: at most 200 MB, or 12 G m bytes if that is
    more, and about 40 G m bytes of state; ``width`` is lowered to stay within it. The host reads
    a value from the device after 1, 2, 4, ... 64 iterations and every 64 from then on; on a GPU an
    iteration is one replay of a CUDA graph.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> distances = torch.cdist(x, x).expand(2, 4, 4)
        >>> both = batched_greedy(distances, torch.tensor([4, 2]), torch.tensor([2, 1]))
        >>> [(one.taken.tolist(), one.gains.tolist()) for one in both]
        [([1, 3], [26.0, 8.0]), ([0], [1.0])]

    Source: Liu & Mirzasoleiman (2022), Alg. 1; lazy evaluation of Minoux (1978).
    """
    _check(distances, sizes, budgets, xi, width)
    distances, counts = distances.detach(), sizes.tolist()
    tops = torch.stack([d[:n, :n].amax() for d, n in zip(distances, counts, strict=True)])
    constants = tops.tolist()
    for top in constants:
        if not top < float("inf"):  # NaN is not
            raise ValueError(
                f"distances must be finite, got {top}. Check the proxies they come from."
            )
    device = distances.device
    groups = _Groups(
        distances,
        sizes.to(device),
        budgets.to(device),
        tops,
        max(budgets.tolist()),
        -1.0 if xi is None else xi**2,
        width,
    )
    groups.refresh()
    step, done = _begun(groups.step, device), 1
    while bool(groups.going().any()):
        if done <= _FULL:
            groups.refresh()
        steps = min(done, _LOOK)
        for _ in range(steps):
            step()
        done += steps
    groups.refresh()
    return [
        Found(groups.taken[g, :k], groups.gains[g, :k], groups.bounds[g, : counts[g]], constants[g])
        for g, k in enumerate(groups.count[:, 0].tolist())
    ]


class _Groups:
    """The greedy's state; its methods work in place and, but for ``going``, return nothing."""

    def __init__(
        self,
        distances: Tensor,
        sizes: Tensor,
        budgets: Tensor,
        constants: Tensor,
        most: int,
        xi2: float,
        width: int,
    ) -> None:
        groups, m, device = len(distances), distances.shape[1], distances.device
        padding = torch.arange(m, device=device) >= sizes[:, None]
        self.distances, self.budgets, self.xi2 = distances, budgets[:, None], xi2
        self.width = max(1, min(width, m, _ENTRIES // (groups * m)))
        self.group = torch.arange(groups, device=device)[:, None]
        # m_i; below everything in the padding, where nothing gains and fmin and fmax skip NaN
        self.best = constants[:, None].repeat(1, m).masked_fill_(padding, -torch.inf)
        self.bounds = torch.full_like(padding, torch.inf, dtype=torch.float64)
        self.bounds.masked_fill_(padding, -torch.inf)
        self.count = torch.zeros(groups, 1, dtype=torch.int64, device=device)
        self.taken = torch.zeros(groups, most, dtype=torch.int64, device=device)
        self.gains = torch.zeros(groups, most, dtype=torch.float64, device=device)
        self.work = torch.empty(groups, self.width, m, dtype=torch.float64, device=device)
        self.zero = torch.zeros((), dtype=torch.float64, device=device)

    def going(self) -> Tensor:
        """Return (G, 1) bool, whether a group is to have more medoids."""
        error = self.best.clamp(min=0).double().square().sum(1, keepdim=True)
        return (self.count < self.budgets) & ((self.count == 0) | (error > self.xi2))

    def fresh(self, rows: Tensor, old: Tensor) -> Tensor:
        """Return the gains of (G, width) candidates from their rows, -inf where the old ones are.

        Always summed in the same shape and layout: see the head of the module.
        """
        torch.sub(self.best.double()[:, None], rows, out=self.work)
        torch.fmax(self.work, self.zero, out=self.work)
        return self.work.sum(2).masked_fill_(old == -torch.inf, -torch.inf)

    def refresh(self) -> None:
        """Compute all gains anew."""
        last = self.bounds.shape[1] - self.width
        for start in range(0, last + self.width, self.width):
            block = slice(min(start, last), min(start, last) + self.width)
            old = self.bounds[:, block]
            old.copy_(self.fresh(self.distances[:, block], old))

    def step(self) -> None:
        """Compute the largest bounds anew; take, group by group, the best if it is among them."""
        tried = self.bounds.topk(self.width, sorted=False).indices
        tried[:, :1] = self.bounds.argmax(1, keepdim=True)  # topk's choice among ties is open
        rows, old = self.distances[self.group, tried], self.bounds.gather(1, tried)
        self.bounds.scatter_(1, tried, self.fresh(rows, old))
        top = self.bounds.argmax(1, keepdim=True)  # the first of the largest
        gain = self.bounds.gather(1, top)
        take = self.going() & (tried == top).any(1, keepdim=True)
        nearer = torch.fmin(self.best, self.distances[self.group, top][:, 0])
        self.best.copy_(torch.where(take, nearer, self.best))
        at = self.count.clamp(max=self.taken.shape[1] - 1)
        self.taken.scatter_(1, at, torch.where(take, top, self.taken.gather(1, at)))
        self.gains.scatter_(1, at, torch.where(take, gain, self.gains.gather(1, at)))
        self.bounds.scatter_(1, top, gain.masked_fill(take, -torch.inf))
        self.count += take


def _begun(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Run the first step and return what runs the next ones: on a GPU a CUDA graph's replay.

    Other threads of the process, as a data loader's that pins memory, may go on during the capture.
    """
    if device.type != "cuda":
        step()
        return step
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            step()
    return graph.replay


def _check(distances: Tensor, sizes: Tensor, budgets: Tensor, xi: float | None, width: int) -> None:
    if distances.dtype != torch.float32:
        raise TypeError(
            f"distances must be float32, got {distances.dtype}. Convert them with .float()."
        )
    if distances.ndim != 3 or distances.shape[1] != distances.shape[2] or not distances.numel():
        raise ValueError(
            f"distances must be (G, m, m) and not empty, got {tuple(distances.shape)}. "
            "Stack the groups' distances, padded to the largest group."
        )
    for name, given in (("sizes", sizes), ("budgets", budgets)):
        if given.shape != distances.shape[:1]:
            raise ValueError(
                f"{name} must have shape ({len(distances)},), got {tuple(given.shape)}. "
                "Give one a group."
            )
    for size, budget in zip(sizes.tolist(), budgets.tolist(), strict=True):
        if not 1 <= size <= distances.shape[1]:
            raise ValueError(
                f"sizes must be 1 to {distances.shape[1]}, got {size}. Leave empty groups out."
            )
        if not 1 <= budget <= size:
            raise ValueError(
                f"budgets must be 1 to the group's size {size}, got {budget}. Reduce the budget."
            )
    check_xi(xi)
    require_int("width", width, 1, "Try at least one candidate.")
