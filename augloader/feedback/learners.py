"""What learns from reports, and what it remembers of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from augloader.core.changes import Changes

REPORTED = ("losses", "logits", "labels", "influences")  # what ``needs`` may name
ARGUMENTS = {
    "losses": "loss",
    "logits": "logits",
    "proxies": "proxy",
    "labels": "target",
    "influences": "influence",
}
View = Literal["any", "clean"]
Columns = dict[str, Tensor]


class Learner(Protocol):
    """What the sample table asks of an object that learns from reports.

    The table counts in ``visits``, an int32 column beside the learner's own, how often each sample
    was updated; it may be read and is not returned. Nor is ``index``, the samples that rows are of,
    which messages name. What needs nothing is never updated. The repr
    must name all options, as a dataclass's does: saved states are compared by it.

    Attributes:
        needs: names of what every report must hold, among "losses", "logits", "labels" and
            "influences", which are passed to ``update`` where they are named here only.
        view: "any": every report counts; "clean": only those of views with strength 0.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Names of what every report must hold."""

    @property
    def view(self) -> View:
        """Which reports count."""

    def start(self, n: int, classes: int) -> Columns:
        """Return the columns of n samples not yet seen; ``classes`` is 0 where it is not known."""

    def update(
        self, rows: Columns, *, losses: Tensor | None, logits: Tensor | None, labels: Tensor | None
    ) -> Columns:
        """Return the new rows of b samples from their old ones and a report on the CPU.

        What a learner does not need it may take as ``**_``.
        """


@dataclass(frozen=True)
class ForgettingEvents:
    """What ``augloader.Forgetting`` scores, counted in the sample table as strength rules learn.

    Only views with strength 0 count: others would count the augmentation, not the forgetting.

    Memory: 9 bytes a sample, visits included.

    Example:
        >>> events, rows = ForgettingEvents(), ForgettingEvents().start(1, classes=2)
        >>> right, wrong, label = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), [0]
        >>> for logits in (wrong, right, wrong, wrong, right, wrong):
        ...     rows = events.update(rows, logits=logits, labels=torch.tensor(label))
        >>> events.counts(rows)
        tensor([2.])

    Source: Toneva et al. (2019), Alg. 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    view: ClassVar[View] = "clean"

    def start(self, n: int, classes: int) -> Columns:
        """Return the columns of n samples not yet seen: no events, -1 until one is correct."""
        events = torch.full((n,), -1, dtype=torch.int32, device="cpu")
        return {"events": events, "right": torch.zeros_like(events, dtype=torch.bool)}

    def update(
        self,
        rows: Columns,
        *,
        logits: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Tensor | None,
    ) -> Columns:
        """Return the new rows of b samples from their old ones and a report."""
        assert logits is not None
        assert labels is not None
        right = logits.argmax(1) == labels
        events = rows["events"] + (rows["right"] & ~right)
        return {"events": torch.where(right, events.clamp(min=0), events).int(), "right": right}

    def counts(self, columns: Columns) -> Tensor:
        """Return the (n,) float32 events, -1 for samples that were never classified correctly."""
        return columns["events"].float()


@dataclass
class Memory:
    """What a learner remembers of every sample: its columns and ``visits``, from a report on."""

    learner: Learner
    n: int
    columns: Columns = field(default_factory=dict)

    def known(self, classes: int = 0) -> Columns:
        """Return the columns, or what they are before any report."""
        if self.columns:
            return self.columns
        begun, n = self.learner.start(self.n, classes), self.n
        if not isinstance(begun, Mapping) or not all(
            _is_column(part, n) for part in begun.values()
        ):
            raise ValueError(
                f"start of {self.learner!r} must return columns, tensors of {n} rows on the CPU, "
                f"got {_forms(begun)}. Fix its start method."
            )
        visits = torch.zeros(n if self.learner.needs else 1, dtype=torch.int32, device="cpu")
        return {**begun, "visits": visits.expand(n)}  # what needs nothing is never visited

    def learn(self, index: Tensor, strength: Tensor, given: dict[str, Tensor]) -> Changes:
        """Return what the learner changes of what it remembers; nothing is changed yet."""
        changes = Changes()
        if not self.learner.needs:
            return changes
        if self.learner.view == "clean":
            clean = strength == 0
            index, given = index[clean], {name: part[clean] for name, part in given.items()}
        columns = self.known(given["logits"].shape[1] if "logits" in given else 0)
        if columns is not self.columns:
            changes.attribute(self, "columns", columns)
        if not len(index):
            return changes
        rows = {name: values[index] for name, values in columns.items()}
        losses, logits = (given[k].float() if k in given else None for k in ("losses", "logits"))
        more = {k: given[k].float() for k in {"influences"} & self.learner.needs}
        new = self.learner.update(
            {"index": index, **rows},
            losses=losses,
            logits=logits,
            labels=given.get("labels"),
            **more,
        )
        if isinstance(new, Mapping):
            kept = {name: values for name, values in new.items() if name in rows or name != "index"}
            new = {**kept, "visits": rows["visits"] + 1}
        if _forms(new) != _forms(rows):
            raise ValueError(
                f"update of {self.learner!r} must return {_forms(rows)}, got {_forms(new)}. Fix "
                "its update method."
            )
        for name, values in new.items():
            changes.rows(columns[name], index, values.detach())
        return changes


def require_needs(learner: Learner, given: Set[str]) -> None:
    """Raise ValueError unless a report holds what a learner needs; ``given`` are names."""
    needs = learner.needs
    if needs - given:
        asked, lacking = (
            sorted(ARGUMENTS.get(name, name) for name in names) for names in (needs, needs - given)
        )
        raise ValueError(
            f"report must be given {' and '.join(asked)} for the rule {learner!r}, got "
            f"no {' and no '.join(lacking)}. Report them in every step."
        )


def clone(columns: Columns) -> Columns:
    """Return columns that later reports do not change."""
    return {name: values.clone() for name, values in columns.items()}


def _is_column(values: Any, n: int) -> bool:
    held = isinstance(values, Tensor) and values.device.type == "cpu"
    return held and values.shape[:1] == (n,)


def _forms(columns: Any) -> dict[str, str] | str:
    """Return each column's shape, dtype and device; of anything else its class."""
    if not isinstance(columns, Mapping):
        return type(columns).__name__
    return {
        name: f"{tuple(values.shape)} {values.dtype} on {values.device}"
        if isinstance(values, Tensor)
        else type(values).__name__
        for name, values in columns.items()
    }


def merge_columns(ours: Columns, theirs: Columns) -> Columns:
    """Return a rule's columns as two tables together know them; no columns are no visits."""
    if not ours or not theirs:
        return clone(ours or theirs)
    ahead, even = (compare(ours["visits"], theirs["visits"]) for compare in (torch.gt, torch.eq))
    merged = {}
    for name, a in ours.items():
        b, shape = theirs[name], (-1,) + (1,) * (a.ndim - 1)
        mean = ((a.float() + b.float()) / 2).to(a.dtype) if a.is_floating_point() else a.maximum(b)
        merged[name] = torch.where(even.view(shape), mean, torch.where(ahead.view(shape), a, b))
    return merged
