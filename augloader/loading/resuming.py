"""Saving a sampler within a training, and going on from there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from augloader.core.checks import require_int
from augloader.feedback.table import SampleTable
from augloader.loading.plan import EpochPlan
from augloader.loading.state import State
from augloader.loading.watch import Watch


class Resumable:
    """What a sampler saves, and how it goes on; of ``CoresetSampler``."""

    if TYPE_CHECKING:  # what the sampler has
        plan: EpochPlan
        table: SampleTable
        group: dist.ProcessGroup | None
        _state: State
        _watch: Watch

        @property
        def _length(self) -> int: ...

    def skip(self, draws: int) -> None:
        """Leave out the first draws of this epoch, made before a resume.

        ``set_epoch`` of the same epoch goes on with the rest; that of another ends it.

        Args:
            draws: number of draws, 0 to the length of the epoch: batches done x batch size.
        """
        if require_int("draws", draws, 0, "Count the draws that were made.") > self._length:
            raise ValueError(
                f"draws must be at most {self._length}, the epoch's length, got {draws}. "
                "Count the draws of this epoch only."
            )
        self._state = replace(self._state, start=int(draws), resumed=True)

    def state_dict(self, consumed: int = 0) -> dict[str, Any]:
        """Return what the draws depend on, strengths too; O(1), never mutated.

        Reports are the table's: save ``sampler.table.state_dict()`` beside it, on every rank its
        own. Give the loader a
        ``generator`` of its own: starting it draws from torch's global stream else, and a resumed
        epoch starts it once more.

        Args:
            consumed: draws that training used since the loader was last started, batches x batch
                size (of this rank), all of them where the epoch is over: a plain loader's workers
                have fetched more than these. 0 where torchdata's StatefulDataLoader counts; load
                both states then.
        """
        return self._state.saved(self._arguments(), self._used(consumed))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the sampler must be built with the same arguments.

        The rest of the epoch has the strengths it began with, whatever was reported since. Loop
        over ``range(sampler.epoch, epochs)`` then.

        Raises:
            ValueError: a state saved with other arguments, of an epoch that is not planned, of
                another version, or not whole. Nothing has changed then.
        """
        self._state = self._state.restored(self.plan, self._arguments(), state)
        self._watch.loaded(self._state.epoch)

    def _used(self, consumed: int) -> int:
        """Return how many draws of the whole epoch are used up by some of this rank's."""
        require_int("consumed", consumed, 0, "Count the draws since the loader was started.")
        return min(int(consumed), self._length - self._state.start) if consumed else 0

    def _arguments(self) -> dict[str, Any]:
        """Return what the draws depend on beside the state, in plain values."""
        return {**self.plan.arguments(), "strength": repr(self.table.rule)}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle and copy; a process group has no place in it."""
        if self.group is not None:
            raise TypeError(
                "sampler must be without a process group to be pickled or copied, got one. Save "
                "sampler.state_dict(), and give workers the dataset alone."
            )
        return self.__dict__

    def _go_on(self, yielded: int) -> None:
        """Leave out the draws that a loader says it was given of the epoch just loaded.

        All of them where it is over: where ``set_epoch`` had begun a later one, that one goes on.
        """
        state = self._state
        self._state = state.overtaken or replace(state, start=state.start + self._used(yielded))
        self._watch.loaded(self._state.epoch)
