"""What becomes of an epoch's draws: they are handed out, and reported, or it is cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any, cast
from warnings import warn

import numpy as np

from augloader.core.batch import Draw, Sample, draws_of
from augloader.core.changes import Changes
from augloader.loading.layout import Order

_SOME = 2**14  # draws that are made at a time


class Pass:
    """One pass over an epoch's draws, as far as a loader has asked for them.

    Attributes:
        count: number of its draws.
        reported: number of the epoch's rows that were reported before it.
        over: why no more of them may be handed out, or None.
    """

    def __init__(self, count: int, reported: int = 0) -> None:
        self.count, self.reported = count, reported
        self.over: str | None = None
        self._made, self._index = 0, iter(list[int]())

    @property
    def handed_out(self) -> int:
        """The number of draws that were handed out."""
        return self._made - int(self._index.__length_hint__())  # type: ignore[attr-defined]

    def part(self, index: list[int]) -> Iterator[int]:
        """Hand out some more of its draws: return their samples, which are counted as they go."""
        self._made, self._index = self._made + len(index), iter(index)
        return self._index

    def end(self, why: str) -> None:
        """Hand out no more: what asks for a draw that is left gets a RuntimeError."""
        if self.handed_out < self.count:
            self.over = why
            left = int(self._index.__length_hint__())  # type: ignore[attr-defined]
            self._made -= left
            deque(self._index, maxlen=0)  # an iterator in C is moved to its end


class Progress:
    """How far an epoch has come, in draws of this rank.

    Attributes:
        epoch: which it is.
        held: whether it was begun by ``begin``.
        passes: over its draws, in the order they began.
        reported: number of rows that were reported.
        batch: those of the largest batch.
        names: of the reported draws, where ranks compare them.
        compared: whether ranks did.
        renamed: whether some rows had no name, by which ``HardestOf`` made more of them.
    """

    def __init__(self, epoch: int, held: bool = False) -> None:
        self.epoch, self.held = epoch, held
        self.passes: list[Pass] = []
        self.reported, self.batch = 0, 0
        self.names: list[np.ndarray[Any, Any]] = []
        self.compared, self.renamed = False, False
        self._told = False

    def begun(self, count: int) -> Pass:
        """Return a new pass over so many draws."""
        self.require_once()
        self.passes.append(Pass(count, self.reported))
        return self.passes[-1]

    def require_once(self) -> None:
        """Warn where all draws were handed out twice, and trained on as far as reports tell."""
        whole = [part for part in self.passes if part.handed_out == part.count > 0]
        looked_at = self.reported > 0 and self.passes[-1].reported == self.reported
        if self._told or len(whole) < 2 or looked_at:
            return
        self._told = True
        warn(
            f"All draws of epoch {self.epoch} were made twice: the same samples, in the same order "
            "and with the same random numbers. Begin each epoch by sampler.set_epoch(epoch), or by "
            "sampler.begin(epoch), after which only begin counts; loaders that begin the next "
            "epoch early, as endless ones do, cannot be used.",
            stacklevel=3,
        )

    def end(self, why: str) -> None:
        """Hand out no more draws of it."""
        for part in self.passes:
            part.end(why)

    def record(self, rows: int) -> Changes:
        """Return what counts a reported batch."""
        changes = Changes()
        changes.attribute(self, "reported", self.reported + rows)
        changes.attribute(self, "batch", max(self.batch, rows))
        return changes

    def name(self, batch: Sample, copies: int) -> Changes:
        """Return what keeps the names of a reported batch's draws, which ranks compare.

        Rows that ``HardestOf`` gave other copies have no names.
        """
        index, copy, weight = (x.cpu().numpy() for x in (batch.index, batch.copy, batch.weight))
        changes, names, before = Changes(), self.names, len(self.names)
        changes.attribute(self, "renamed", self.renamed or bool((copy > copies).any()))
        named = (index * (copies + 1) + copy)[(copy <= copies) & (weight > 0)]
        changes.step(lambda: names.append(named), lambda: names.__delitem__(slice(before, None)))
        return changes

    def cut(self, share: int) -> str | None:
        """Say how the epoch was cut, or return None.

        What is missing of reports may be a last batch that was dropped, and is no cut.

        Args:
            share: number of draws that were to be reported here; 0 where that is not known.
        """
        count, made = max(((part.count, part.handed_out) for part in self.passes), default=(0, 0))
        told = f"draws of epoch {self.epoch} were"
        if self.reported and share - self.reported >= self.batch:
            if made < count:
                return f"{self.reported} of {share} {told} reported. {_CUT}"
            return (
                f"{self.reported} of {share} {told} reported, though all were made. What is not "
                "reported is not known: report every batch. If some are left out on purpose, take "
                "no notice."
            )
        return f"{made} of {count} {told} made. {_CUT}" if made < count else None


_CUT = (
    "A trainer that asks a loader for its length once cuts longer epochs: pass "
    "constant_length=True and epochs. If they are limited on purpose, take no notice."
)


class Left(chain):  # type: ignore[type-arg]
    """The draws left of an epoch, by a ``__next__`` in C; torchdata saves how far it got."""

    def __new__(cls, sampler: Any) -> Left:
        """Return the draws that a CoresetSampler has left."""
        parts: list[Any] = [(), ()]  # looked up where the first draw is asked for
        made: Any = cls.from_iterable(parts)
        made._sampler, made._parts = sampler, parts
        made._fill()
        return cast(Left, made)

    def _fill(self: Any) -> None:
        """Begin with what the sampler has left now."""
        progress, (order, places) = self._sampler._watch.progress, self._sampler._left()
        self._pass = progress.begun(len(places))
        self._parts[:] = (
            chain.from_iterable(_draws(order, places, self._sampler.epoch, self._pass)),
            _end(self._pass, progress),
        )

    def state_dict(self: Any) -> dict[str, int]:
        """Return how many draws were yielded, of those that the sampler's state leaves."""
        return {"yielded": self._pass.handed_out}

    def load_state_dict(self: Any, state: dict[str, int]) -> None:
        """Go on where the loader was that saved this; its sampler's state was loaded before."""
        self._sampler._go_on(state["yielded"])
        self._fill()


def _draws(order: Order, places: range, epoch: int, part: Pass) -> Iterator[Iterator[Draw]]:
    """Yield some draws at a time, until the pass is over."""
    for start in range(0, len(places), _SOME):
        if part.over is not None:
            return
        some = places[start : start + _SOME]
        found = order.at(np.arange(some.start, some.stop, some.step))
        columns = [_values(column) for column in (found.copy, found.weight, found.strength)]
        index = part.part(found.index.tolist())
        yield draws_of(index, *columns, repeat(epoch), _values(found.weak))


def _values(column: np.ndarray[Any, Any]) -> Iterable[Any]:
    """Return a column's values as Python's, one made once where all are alike."""
    return repeat(column[0].item()) if (column == column[0]).all() else column.tolist()


def _end(part: Pass, progress: Progress) -> Any:
    """Yield nothing after the last draw; raise where more were left, and are of an epoch over."""
    if part.over is not None:
        raise RuntimeError(part.over)
    progress.require_once()
    yield from ()
