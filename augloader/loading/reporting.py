"""What a training step tells a sampler, at once or when it has come from the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from torch import Tensor

from augloader.core.batch import Sample
from augloader.core.changes import Changes
from augloader.distributed import collectives
from augloader.feedback.pending import on_gpu
from augloader.feedback.table import SampleTable
from augloader.loading.passes import Progress
from augloader.loading.reports import named_report, require_epoch, require_rows, weakest_views
from augloader.loading.soft import class_labels
from augloader.loading.watch import Watch


class Reporting:
    """What a sampler is told; of ``CoresetSampler``."""

    if TYPE_CHECKING:  # what the sampler has
        table: SampleTable
        group: dist.ProcessGroup | None
        report_at_once: bool
        epoch: Any
        copies: Any
        _watch: Watch

    def report(
        self,
        batch: Sample,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        proxy: Tensor | None = None,
        target: Tensor | None = None,
        influence: Tensor | None = None,
        mixed: Tensor | bool | None = None,
    ) -> None:
        """Tell the table what a training step found out; call it once a batch.

        Of a sample's draws in the batch the one with the lowest strength counts. Rows that were
        mixed with others are left out, as their outputs are no evidence of one sample, and so are
        rows of weight 0, which only fill up an epoch.

        What is on a GPU is not waited for: the table takes it in when it has arrived, as a rule in
        the next report, and before anything of the table is read. What is wrong with the values is
        then raised there, with the epoch and the first samples of the report, which is left out;
        the report whose call raised is kept. ``report_at_once`` waits, and raises here.

        Args:
            batch: the Sample batch that the loader gave, on any device.
            loss: (b,) losses with reduction="none", or None.
            logits: (b, C) or None; with them the target must be (b,) class labels, or one-hot or
                smoothed rows, or what mixing made of them.
            proxy: (b, d) gradient proxies or embeddings of your own, or None.
            target: (b,) class labels, or groups of your own to select by; None takes the batch's
                where logits are given.
            influence: (b,) numbers that ``StableInfluence("gradient")`` learns from, as
                ``augloader.loading.HeadInfluence`` returns them; None for other rules.
            mixed: (b,) bool, or True for all rows: which were mixed outside of augloader, as by
                timm's Mixup, beside those that the batch says are mixed; False: none, whatever it
                says, as where targets are soft for another reason.

        Raises:
            TypeError: batch is not a Sample.
            ValueError: wrong lengths, the same draw twice, another epoch's, indices out of range,
                NaN or infinite values, targets of several classes. Nothing of that report is
                stored then.

        Cost: O(b C), and with ``report_at_once`` waiting for the values' device.
        """
        given = {"loss": loss, "logits": logits, "proxy": proxy, "target": target}
        given["influence"] = influence
        if logits is not None and target is None:
            given["target"] = getattr(batch, "target", None)
        require_rows(batch, given)
        epoch, progress = self.epoch, self._watch.progress
        parts = Sample(None, None, *batch[2:7], mixed=batch.mixed), given, mixed
        later, pending = not self.report_at_once, self.table.pending
        later = later and on_gpu(*batch[2:7], batch.mixed, *given.values(), mixed)
        if later:
            self.table.formed(len(batch.index), given)
            if not on_gpu(batch.epoch):
                require_epoch(batch, epoch)
        try:
            pending.settle(wait=not later)
        finally:  # this report is no worse for an earlier one
            with pending.lock:
                if later:
                    changes = pending.added(partial(self._stored_later, epoch, progress), *parts)
                else:
                    changes = self._stored(epoch, progress, *parts)
                changes.also(progress.record(len(batch.index)))
                changes.make()
        self._watch.reported(batch.epoch)

    def _stored_later(self, epoch: int, progress: Progress, batch: Sample, *values: Any) -> Changes:
        with named_report(batch, epoch):
            return self._stored(epoch, progress, batch, *values)

    def _stored(
        self,
        epoch: int,
        progress: Progress,
        batch: Sample,
        given: Mapping[str, Tensor | None],
        mixed: Tensor | bool | None,
    ) -> Changes:
        """Return what of a report counts; nothing of it changes if it raises."""
        found, changes = weakest_views(batch, given, mixed), Changes()
        require_epoch(batch, epoch)
        if found is not None:
            index, strength, values = found
            if "target" in values:
                values["target"] = class_labels(values["target"])
            changes.also(self.table.changes(index, values, strength, epoch))
        if self.group is not None:
            changes.also(progress.name(batch, self.copies))
        return changes

    def _settle(self) -> None:
        """Take in the reports under way; what is wrong with one is raised on all ranks."""
        if self.group is None:
            self.table.pending.settle()
        else:
            collectives.attempt(self.table.pending.settle, self.group)
