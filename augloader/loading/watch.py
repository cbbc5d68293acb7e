"""A watch over a training's epochs: what was planned, and what became of it."""

from __future__ import annotations

from typing import Any
from warnings import warn

import torch.distributed as dist
from torch import Tensor

from augloader.distributed.draws import require_once
from augloader.loading.layout import Layout
from augloader.loading.passes import Progress
from augloader.loading.state import State

# What a base may need, and how a report tells it.
_TOLD_BY = {
    "losses": "loss=losses",
    "labels": "target=batch.target",
    "proxies": "proxy=proxies",
}


class Watch:
    """Compare what a sampler planned with what was done, and warn of each thing once.

    Attributes:
        progress: of the epoch that is drawn.
        before: of the epoch before.
    """

    def __init__(self, data: Any, epoch: int = 0) -> None:
        self._graded = getattr(data, "takes_strength", None) is not False
        self._told: set[str] = set()
        self.progress = self.before = Progress(epoch)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: no passes, which are of this process."""
        return {
            **vars(self),
            **dict.fromkeys(("progress", "before"), Progress(self.progress.epoch)),
        }

    @property
    def held(self) -> bool:
        """Whether the epoch was begun by ``begin``, and so goes on until the next ``begin``."""
        return self.progress.held

    def began(self, epoch: int, held: bool) -> None:
        """Turn to an epoch that begins: what is left of another may not be made any more."""
        if epoch != self.progress.epoch:
            self.progress.end(
                f"draws of epoch {self.progress.epoch} were asked for when epoch {epoch} had "
                "begun: what is left of them was planned for the old one. Begin an epoch when the "
                "loader is done with the one before; loaders that begin early, as endless ones do "
                "(timm's MultiEpochsDataLoader, YOLO's), or that go on with a cut epoch cannot be "
                "used."
            )
            self.before = self.progress
        self.progress = Progress(epoch, held)

    def refreshed(self) -> None:
        """What is left of the epoch's draws may not be made any more: they have changed."""
        self.progress.end(
            f"draws of epoch {self.progress.epoch} were asked for after it was refreshed: what is "
            "left of them is of the selection before. Refresh before the loader is started."
        )

    def loaded(self, epoch: int) -> None:
        """Turn to an epoch that a state was loaded of."""
        self.progress.end(
            f"draws of epoch {self.progress.epoch} were asked for after a state was loaded. Load "
            "it before the loader is started."
        )
        self.progress = Progress(epoch)

    def look_back(self, state: State, epoch: int, sharers: int, together: bool) -> None:
        """Warn where a loaded epoch is left for an earlier one, or the one that ends was cut.

        Args:
            state: of the epoch that ends.
            epoch: the one that begins.
            sharers: number of ranks that share the draws made here.
            together: whether ranks compare what was reported.
        """
        if epoch == state.epoch:
            return
        progress = self.progress
        if state.resumed and epoch < state.epoch:
            self._tell(
                f"left {state.epoch}",
                f"epoch {state.epoch} was loaded, {state.start} of its draws made, and is left for "
                f"epoch {epoch}. Loop over range(sampler.epoch, epochs), and begin epochs by "
                "sampler.begin(epoch): the loaders of accelerate and Fabric count from 0 again.",
            )
        elif state.refreshed is not None and (
            epoch < state.refreshed or (epoch < state.epoch and not progress.passes)
        ):
            self._tell(
                "back",
                f"epoch {epoch} begins after epoch {state.epoch}, with the selection and the "
                "reports made until then. Build a new sampler for another training; where a loader "
                "counts epochs by itself, as accelerate's do after a break or a resume, begin them "
                "by sampler.begin(epoch).",
            )
        made = max((part.count for part in progress.passes), default=0)
        if sharers > 1 and not together and progress.reported >= made > 0:
            self._tell(
                "each",
                f"all {made} draws of epoch {progress.epoch} were reported on one of {sharers} "
                "ranks: every rank trains on all of them. Share them by DistributedCoresetSampler, "
                "or by a framework that shards samplers, as accelerate.",
            )
        cut = progress.cut(0 if state.resumed else made // sharers)
        if cut is not None:
            self._tell("cut", cut)

    def lacks(self, base: Any, epoch: int) -> None:
        """Warn where an epoch draws all samples because the one before told nothing of some."""
        if self.progress.passes and epoch != self.progress.epoch:
            needed = [said for name, said in _TOLD_BY.items() if name in base.needs]
            self._tell(
                "lacks",
                f"epoch {epoch} draws all samples: base={base!r} needs {sorted(base.needs)}, which "
                "were not reported of all. Report them in every step: "
                f"sampler.report(batch, {', '.join(needed)}). Rows that were mixed, or in a last "
                "batch that was dropped, tell nothing.",
            )

    def look_at(self, draws: Layout) -> None:
        """Warn where strengths between 0 and 1 mean nothing to the dataset's own transform."""
        if not self._graded and draws.graded:
            self._tell(
                "ungraded",
                "strengths between 0 and 1 mean nothing to the dataset's strong transform, which "
                "takes no parameter named strength: it is applied in full. Give it one, or pass "
                'WeightedAugmentedDataset(..., ungraded="probability").',
            )

    def reported(self, epoch: object) -> None:
        """Warn where a batch that was reported is of no sampler's epoch."""
        if isinstance(epoch, Tensor) and epoch.device.type == "cpu" and (epoch < 0).any():
            self._tell(
                "no epoch",
                "rows of no epoch were reported: their loader has no sampler of augloader. Give it "
                "sampler=sampler, without shuffle=True.",
            )

    def compare(self, progress: Progress, group: dist.ProcessGroup) -> None:
        """Raise on all ranks where several reported the same draws of an epoch; once an epoch."""
        if not progress.compared:
            require_once(progress.names, progress.epoch, group)
            progress.compared, progress.names = True, []

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warn(message, stacklevel=5)
