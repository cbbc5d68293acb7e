"""Greedy facility location for many groups at once, made for a GPU: the batched engine.

The lazy greedy of Minoux (1978): a gain only falls as medoids are added, so an old gain bounds the
new one from above, and a candidate that still leads after its gain is computed anew is the best of
all. Here every group tries its leading candidates at once, in one iteration of fixed shapes that
never asks the device for a value. Every gain is summed in an order that depends on the group alone:
since rounding is monotone, an old gain stays a bound, duplicates tie exactly, and it does not
matter which groups run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augloader.core.checks import require_int
from augloader.selection.greedy.medoids import check_start, check_xi
from augloader.selection.greedy.transfer import fetched, sent

_FULL = 1, 2, 4, 8, 16  # iterations after which all gains are computed anew
_SURPLUS = 4  # times m / width: iterations beyond the largest budget before the host looks
_MORE = 64  # iterations between its looks, at least
_ENTRIES = 2**24  # distances worked on at a time; each takes 12 bytes
_HISTORY = 2**22  # and of the history; each takes 70


@dataclass(frozen=True, eq=False)
class Found:
    """What the greedy found in one group, on the CPU.

    Attributes:
        taken: (k,) int64, the medoids in the order in which they were taken.
        gains: (k,) float64, their marginal gains.
        remaining: (size,) float64, the gain that every candidate has left, -inf for medoids.
        constant: c1, the group's largest distance.
        nearest: (size,) int64, for every point the position in ``taken`` of its medoid.
        distances: (size,) float32, the distance to it.
        moves: (c, 3) int64, the history of the clusters; see ``Medoids``.
        seeds: how many of the medoids were given to begin with.
    """

    taken: Tensor
    gains: Tensor
    remaining: Tensor
    constant: float
    nearest: Tensor
    distances: Tensor
    moves: Tensor
    seeds: int


def batched_greedy(
    distances: Tensor,
    sizes: Tensor,
    budgets: Tensor,
    *,
    xi: float | None = None,
    width: int = 32,
    starts: Sequence[Tensor] | None = None,
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
        xi: stop a group as soon as sum_i m_i <= xi, but after its first medoid.
        width: how many candidates a group tries in an iteration.
        starts: for every group (s,) int64, distinct medoids to begin with, at most its budget.

    Returns:
        One ``Found`` a group.

    Raises:
        TypeError: distances not float32, width not an integer.
        ValueError: distances not (G, m, m) or not finite within a group, sizes or budgets of
            another length or out of range, xi below 0, width below 1, starts that do not fit.

    Cost: an iteration reads G width m distances and takes at most one medoid in every group. They
    number the largest budget and 4 m / width, and more only where groups are not finished then;
    with xi groups are looked at as their number doubles. The first 16 iterations and the end
    compute all G m^2 terms 7 times. Memory beside the distances: at most 200 MB, or 12 G m bytes if
    that is more, about 40 G m bytes of state, and at most 300 MB for the history; ``width`` is
    lowered to stay within it. On a GPU an iteration is one replay of a CUDA graph, and the host
    waits three times: for the capture, for the look, and for the results.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> distances = torch.cdist(x, x).expand(2, 4, 4)
        >>> both = batched_greedy(distances, torch.tensor([4, 2]), torch.tensor([2, 1]))
        >>> [(one.taken.tolist(), one.gains.tolist()) for one in both]
        [([1, 3], [26.0, 8.0]), ([0], [1.0])]

    Source: Liu & Mirzasoleiman (2022), Alg. 1; lazy evaluation of Minoux (1978).
    """
    _check(distances, sizes, budgets, xi, width)
    if starts is None:
        starts = [sizes[:0]] * len(sizes)
    given = [
        torch.from_numpy(check_start(start, n, budget))
        for start, n, budget in zip(starts, sizes.tolist(), budgets.tolist(), strict=True)
    ]
    batch = Batch(distances, sizes.tolist(), budgets.tolist(), given, xi, width)
    return run([batch])[0]


def run(batches: Sequence[Batch]) -> list[list[Found]]:
    """Take the medoids of all groups of batches on one device, an iteration of all at a time."""
    for batch in batches:
        batch.refresh()
    step, done = _begun(batches), 1

    def until(count: int) -> None:
        nonlocal done
        for _ in range(done, count):
            step()
        done = max(done, count)

    begun = max(batch.longest for batch in batches)  # iterations that take what was given
    for count in _FULL:
        until(begun + count)
        for batch in batches:
            batch.refresh()
    asked = any(batch.xi >= 0 for batch in batches)
    until(_MORE if asked else max(batch.iterations for batch in batches))
    while _unfinished(batches):
        until(done + (done if asked else max(_MORE, *(batch.sweep for batch in batches))))
    for batch in batches:
        batch.refresh()
    results = [batch.results() for batch in batches]
    parts = iter(fetched([part for result in results for part in result]))
    return [
        batch.found(*(next(parts) for _ in result))
        for batch, result in zip(batches, results, strict=True)
    ]


def _unfinished(batches: Sequence[Batch]) -> bool:
    """Whether any group is to have more medoids; the host waits for the answer."""
    looks = [batch.look() for batch in batches]
    parts = iter(fetched([part for look in looks for part in look]))
    return sum(batch.seen(*(next(parts) for _ in range(3))) for batch in batches) > 0


class Batch:
    """The greedy's state in groups of like sizes.

    ``refresh`` and ``step`` work in place, return nothing, and never ask the device for a value.
    """

    def __init__(
        self,
        distances: Tensor,
        sizes: Sequence[int],
        budgets: Sequence[int],
        starts: Sequence[Tensor],
        xi: float | None = None,
        width: int = 32,
    ) -> None:
        groups, m, device = len(distances), distances.shape[1], distances.device
        distances = distances.detach()
        self.device, self.distances, self.sizes = device, distances, list(sizes)
        self.xi = -1.0 if xi is None else xi
        self.width = max(1, min(width, m, _ENTRIES // (groups * m)))
        self.sweep = -(-m // self.width)  # iterations that would try all candidates
        self.iterations = max(budgets) + _SURPLUS * self.sweep
        self.seeds = list(map(len, starts))
        self.longest = max(self.seeds)
        begins = torch.zeros(groups, max(self.longest, 1), dtype=torch.int64, device="cpu")
        for row, start in zip(begins, starts, strict=True):
            row[: len(start)] = start
        counts = torch.tensor([list(sizes), list(budgets), self.seeds], device="cpu")
        self.starts, counts = sent(begins, device), sent(counts, device)[..., None]
        size, self.budgets, self.given = counts.unbind()
        self.group = torch.arange(groups, device=device)[:, None]
        self.point = torch.arange(m, device=device)
        self.padding = self.point >= size
        self.constants = torch.stack(
            [d[:n, :n].amax() for d, n in zip(distances, sizes, strict=True)]
        )
        # m_i; below everything in the padding, where nothing gains and fmin and fmax skip NaN
        self.best = self.constants[:, None].repeat(1, m).masked_fill_(self.padding, -torch.inf)
        self.bounds = torch.full_like(self.padding, torch.inf, dtype=torch.float64)
        self.bounds.masked_fill_(self.padding, -torch.inf)
        self.count = torch.zeros(groups, 1, dtype=torch.int64, device=device)
        self.changes = torch.zeros((), dtype=torch.int64, device=device)
        self.taken = torch.zeros(groups, max(budgets), dtype=torch.int64, device=device)
        self.gains = torch.zeros(groups, max(budgets), dtype=torch.float64, device=device)
        self.work = torch.empty(groups, self.width, m, dtype=torch.float64, device=device)
        self.zero = torch.zeros((), dtype=torch.float64, device=device)

    def going(self) -> Tensor:
        """Return (G, 1) bool, whether a group is to have more medoids."""
        more = self.count < self.budgets
        if self.xi < 0:
            return more
        error = _summed(self.best.clamp(min=0).double())
        return more & ((self.count == 0) | (error[:, None] > self.xi))

    def fresh(self, rows: Tensor, old: Tensor) -> Tensor:
        """Return the gains of (G, width) candidates from their rows, -inf where the old are."""
        torch.sub(self.best.double()[:, None], rows, out=self.work)
        torch.fmax(self.work, self.zero, out=self.work)
        return _summed(self.work).masked_fill(old == -torch.inf, -torch.inf)

    def refresh(self) -> None:
        """Compute all gains anew."""
        last = self.bounds.shape[1] - self.width
        for start in range(0, last + self.width, self.width):
            block = slice(min(start, last), min(start, last) + self.width)
            old = self.bounds[:, block]
            old.copy_(self.fresh(self.distances[:, block], old))

    def step(self) -> None:
        """Compute the largest bounds anew; take, group by group, the best if it is among them."""
        begins = self.count < self.given
        given = self.starts.gather(1, self.count.clamp(max=self.starts.shape[1] - 1))
        tried = self.bounds.topk(self.width, sorted=False).indices
        first = self.bounds.argmax(1, keepdim=True)  # topk's choice among ties is open
        tried[:, :1] = torch.where(begins, given, first)
        rows, old = self.distances[self.group, tried], self.bounds.gather(1, tried)
        self.bounds.scatter_(1, tried, self.fresh(rows, old))
        top = torch.where(begins, given, self.bounds.argmax(1, keepdim=True))  # the first of ties
        gain = self.bounds.gather(1, top)
        take = self.going() & (tried == top).any(1, keepdim=True)
        row = self.distances[self.group, top][:, 0]
        moved = (row < self.best) | (self.point == top) | (self.count == 0)
        self.changes += (moved & take & ~self.padding).sum()
        self.best.copy_(torch.where(take, torch.fmin(self.best, row), self.best))
        at = self.count.clamp(max=self.taken.shape[1] - 1)
        self.taken.scatter_(1, at, torch.where(take, top, self.taken.gather(1, at)))
        self.gains.scatter_(1, at, torch.where(take, gain, self.gains.gather(1, at)))
        self.bounds.scatter_(1, top, gain.masked_fill(take, -torch.inf))
        self.count += take

    def look(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the host must know before it can end."""
        return self.going().any(), self.constants, self.changes

    def seen(self, going: Tensor, constants: Tensor, changes: Tensor) -> bool:
        """Take in what ``look`` returned; return whether a group is to have more medoids."""
        self.tops, self.changed = constants.tolist(), int(changes)
        for top in self.tops:
            if not top < float("inf"):  # NaN is not
                raise ValueError(
                    f"distances must be finite, got {top}. Check the proxies they come from."
                )
        return bool(going)

    def results(self) -> tuple[Tensor, ...]:
        """Return the outcome, for ``found`` on the CPU."""
        return self.count, self.taken, self.gains, self.bounds, *self._history()

    def _history(self) -> tuple[Tensor, Tensor, Tensor]:
        """Find out, from the order alone, when each point went over to which medoid.

        Returns the number of each point's medoid, (G, m); its distance; and one code for each
        change, (group * most + to) * (most + 1) + donor + 1, of as many as there were.
        """
        groups, most = self.taken.shape
        nearest, far = self.best.new_zeros(self.best.shape, dtype=torch.int64), self.best.clone()
        codes = nearest.new_full((self.changed + 1,), -1)  # in the last place what is no change
        order = torch.arange(most, device=self.device)[:, None]
        there, taken = order < self.count[:, None], self.taken[..., None]
        ahead = (self.group[..., None] * most + order) * (most + 1)
        start, past = 0, self.changes.new_zeros(())
        for points in self.point.split(max(1, _HISTORY // (groups * most))):
            block = slice(start, start + len(points))
            start += len(points)
            own = (taken == points) & there
            met = self.distances[:, :, block].gather(1, taken.expand(-1, -1, len(points)))
            met = met.masked_fill(own, 0).masked_fill(~there, torch.inf)
            least = met.cummin(1).values
            changed = own | (order == 0)
            changed[:, 1:] |= met[:, 1:] < least[:, :-1]
            changed &= there & ~self.padding[:, None, block]
            last = torch.where(changed, order, -1).cummax(1).values
            code = ahead + torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1] + 1], 1)
            place = changed.flatten().cumsum(0)
            place = torch.where(changed.flatten(), place + past - 1, self.changed)
            codes.scatter_(0, place, code.flatten())
            past += changed.sum()
            nearest[:, block], far[:, block] = last[:, -1], least[:, -1]
        return nearest, far, codes

    def found(
        self,
        count: Tensor,
        taken: Tensor,
        gains: Tensor,
        remaining: Tensor,
        nearest: Tensor,
        distances: Tensor,
        codes: Tensor,
    ) -> list[Found]:
        """Take what ``results`` returned apart, group by group."""
        most = taken.shape[1]
        pairs, counts = np.unique(codes[:-1][codes[:-1] >= 0].numpy(), return_counts=True)
        of, pairs = np.divmod(pairs, most * (most + 1))
        to, donor = np.divmod(pairs, most + 1)
        moves = torch.from_numpy(np.stack([to, donor - 1, counts], 1))
        cuts = np.searchsorted(of, np.arange(len(taken) + 1)).tolist()
        return [
            Found(
                taken[g, :k],
                gains[g, :k],
                remaining[g, :n],
                self.tops[g],
                nearest[g, :n],
                distances[g, :n],
                moves[cuts[g] : cuts[g + 1]],
                min(k, self.seeds[g]),
            )
            for g, (n, k) in enumerate(zip(self.sizes, count[:, 0].tolist(), strict=True))
        ]


def _summed(x: Tensor) -> Tensor:
    """Return the sums over the last dimension, whose values are overwritten.

    Halves are folded onto each other from the next power of two down: zeros at the end change
    nothing, so the order in which a group is summed is its own, on every device, whatever it is
    padded to.
    """
    m = x.shape[-1]
    while m > 1:
        half = 1 << (m - 1).bit_length() - 1
        x[..., : m - half] += x[..., half:m]
        m = half
    return x[..., 0]


def _begun(batches: Sequence[Batch]) -> Callable[[], None]:
    """Run the first step and return what runs the next ones: on a GPU a CUDA graph's replay.

    Other threads of the process, as a data loader's that pins memory, may go on during the capture.
    """
    device = batches[0].device

    def step() -> None:
        for batch in batches:
            batch.step()

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
