"""What becomes of an epoch's draws: they are handed out, and reported, or it is cut."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, cast
from warnings import warn

import numpy as np

from augloader.core.batch import Draw, Sample


class Pass:
    """One pass over an epoch's draws, as far as a loader has asked for them.

    Attributes:
        count: number of its draws.
        reported: number of the epoch's rows that were reported before it.
        over: why no more of them may be handed out, or None.
    """

    def __init__(self, index: list[int], reported: int = 0) -> None:
        self.count, self.reported = len(index), reported
        self.index: Any = iter(index)
        self.over: str | None = None

    @property
    def handed_out(self) -> int:
        """The number of draws that were handed out."""
        return self.count - int(self.index.__length_hint__())

    def end(self, why: str) -> None:
        """Hand out no more: what asks for a draw that is left gets a RuntimeError."""
        if self.handed_out < self.count:
            self.over = why
            self.index.__setstate__(self.count)  # an iterator in C: it is moved to its end


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

    def begun(self, index: list[int]) -> Pass:
        """Return a new pass over draws of these samples."""
        self.require_once()
        self.passes.append(Pass(index, self.reported))
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

    def record(self, rows: int) -> None:
        """Count a reported batch."""
        self.reported, self.batch = self.reported + rows, max(self.batch, rows)

    def name(self, batch: Sample, copies: int) -> None:
        """Keep the names of a reported batch's draws, which ranks compare.

        Rows that ``HardestOf`` gave other copies have no names.
        """
        index, copy, weight = (x.cpu().numpy() for x in (batch.index, batch.copy, batch.weight))
        self.renamed |= bool((copy > copies).any())
        self.names.append((index * (copies + 1) + copy)[(copy <= copies) & (weight > 0)])

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
        index, *columns, weak = (column.tolist() for column in self._sampler._left().columns)
        progress = self._sampler._watch.progress
        self._pass = progress.begun(index)
        epoch = repeat(self._sampler.epoch)
        self._parts[:] = (
            map(Draw, self._pass.index, *columns, epoch, weak),
            _end(self._pass, progress),
        )

    def state_dict(self: Any) -> dict[str, int]:
        """Return how many draws were yielded, of those that the sampler's state leaves."""
        return {"yielded": self._pass.handed_out}

    def load_state_dict(self: Any, state: dict[str, int]) -> None:
        """Go on where the loader was that saved this; its sampler's state was loaded before."""
        self._sampler._go_on(state["yielded"])
        self._fill()


def _end(part: Pass, progress: Progress) -> Any:
    """Yield nothing after the last draw; raise where more were left, and are of an epoch over."""
    if part.over is not None:
        raise RuntimeError(part.over)
    progress.require_once()
    yield from ()
