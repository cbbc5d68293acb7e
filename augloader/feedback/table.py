"""The sample table: what training reported about every sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.changes import Changes
from augloader.core.checks import (
    count_and_first,
    require_bool,
    require_finite,
    require_generator,
    require_int,
    require_names,
    require_one_of,
    unchecked,
)
from augloader.core.deprecated import renamed
from augloader.core.evidence import EVIDENCE, Evidence
from augloader.core.fields import signed
from augloader.core.proxies import Proxies
from augloader.feedback.derived import losses_of, proxies_of
from augloader.feedback.forms import COLUMNS, formed, require_width
from augloader.feedback.guards import (
    earliest,
    raise_missing,
    require_epoch,
    require_index,
    require_room,
    require_strengths,
    require_target,
    require_weakness,
)
from augloader.feedback.learners import (
    ARGUMENTS,
    Columns,
    ForgettingEvents,
    Learner,
    Memory,
    clone,
    merge_columns,
)
from augloader.feedback.pending import Pending, Settled
from augloader.feedback.saved import SAVED, VERSION, columns_of, kind_of, read
from augloader.feedback.strength import Constant, StrengthRule, require_rule
from augloader.feedback.views import PERIOD, UNKNOWN, Weakest

_EVIDENCE = ("labels", "losses", "proxies", "forgetting")  # what reports tell
_DERIVED = {"losses": losses_of, "proxies": proxies_of}  # which logits and labels give too


class SampleTable:
    """Per-sample memory of losses, logits or proxies, filled by the training loop's own outputs.

    Losses of differently strong views are not comparable, so within a refresh period a sample
    keeps its weakest view: a report replaces one of the same or of higher strength, or of an
    earlier period. A sample that is not reported in a period keeps its last known value, which is
    evidence as long as it is not staler than asked for.

    Args:
        n: number of samples, at least 1.
        dtype: torch.float32 or torch.float16, how reported values are stored.
        rule: what decides the samples' strengths. The table keeps its columns, which a new refresh
            period does not forget.
        forgetting: count forgetting events, which a new refresh period does not forget either;
            every report must hold logits and labels then.
        keep_logits: False keeps the losses that follow from reported logits and labels, 4 bytes a
            sample, where proxies, n x C numbers, are not wanted.

    Raises:
        TypeError: n not an integer, a rule that is none.
        ValueError: n below 1, another dtype.

    Attributes:
        pending: reports of a sampler whose values are still on their way from a GPU. Whatever is
            read of the table waits for them.

    Memory: 24 n bytes, for each kind of value reported 12 n bytes and n rows in ``dtype`` (logits
    of CIFAR-10 in float16: 1.6 MB), and the rule's.

    Example:
        >>> table = SampleTable(3)
        >>> table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.5]))
        >>> table.missing("losses")
        tensor([1])
        >>> table.visits
        tensor([1, 0, 1])
    """

    visits, _labels = Settled[Tensor](), Settled[Tensor]()
    _columns, _period = Settled[dict[str, Weakest]](), Settled[int]()
    _memories = Settled[dict[str, Memory]]()

    def __init__(
        self,
        n: int,
        *,
        dtype: torch.dtype = torch.float32,
        rule: StrengthRule = Constant(),  # noqa: B008 - frozen
        forgetting: bool = False,
        keep_logits: bool = True,
    ) -> None:
        require_bool("forgetting", forgetting, "True counts forgetting events.")
        require_bool("keep_logits", keep_logits, "False keeps the losses that follow from them.")
        self.n = require_int("n", n, 1, "Give the number of samples of the dataset.")
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(
                f"dtype must be torch.float32 or torch.float16, got {dtype}. float16 halves the "
                "memory at three digits of precision."
            )
        self.dtype, self.keep_logits = dtype, keep_logits
        self.rule = require_rule("rule", rule)
        self.pending = Pending()
        self.visits = torch.zeros(self.n, dtype=torch.int64, device="cpu")
        self._labels = torch.full_like(self.visits, -1)
        self._columns = {}
        self._period = 0  # refresh periods that are over
        self._shared = self.visits.clone()  # visits that all ranks know of
        self._learners: dict[str, Learner] = {"strength": self.rule}
        if forgetting:
            self._learners["forgetting"] = ForgettingEvents()
        self._memories = {name: Memory(made, self.n) for name, made in self._learners.items()}

    @renamed(losses="loss", proxies="proxy", labels="target")
    def report(
        self,
        index: Tensor,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        proxy: Tensor | None = None,
        target: Tensor | None = None,
        influence: Tensor | None = None,
        strength: Tensor | None = None,
        epoch: int = 0,
    ) -> None:
        """Store what a step found out about b distinct samples; change nothing if it raises.

        Arrays and lists of numbers are taken too.

        Args:
            index: (b,) int64, distinct, in [0, n).
            loss: (b,) floating, finite.
            logits: (b, C) floating, finite.
            proxy: (b, d) floating, finite: gradient proxies of your own.
            target: (b,) integer, 0 or more; below C when given with logits.
            influence: (b,) floating, finite, for a rule that needs it; it is not kept by itself.
            strength: (b,) in [0, 1], how strongly the views were augmented; None means 0.
            epoch: which the values are of, 0 or more; what ``stale`` of ``evidence`` looks at.

        Raises:
            TypeError: index not int64, values not floating, target not integer.
            ValueError: nothing reported, or not what the rule needs; repeated, negative or too
                large indices; wrong lengths or widths; NaN, infinity or, in a float16 table,
                values above 65,504; more to keep than half of the machine's memory.

        Cost: O(b C); waits for the device the values are on.
        """
        self.pending.settle()
        given = {"loss": loss, "logits": logits, "proxy": proxy, "target": target}
        given["influence"] = influence
        with self.pending.lock:
            self.changes(index, given, strength, epoch).make()

    def changes(
        self,
        index: Tensor,
        given: Mapping[str, Tensor | None],
        strength: Tensor | None = None,
        epoch: int = 0,
    ) -> Changes:
        """Return what a report changes, which ``report`` makes; ``given`` by its names."""
        index = require_index(index, self.n)
        epoch = require_epoch(epoch)
        weakness = require_weakness(strength, index)
        moved = {name: part.cpu() for name, part in self.formed(len(index), given).items()}
        rows = {k: self._stored(k, part, index) for k, part in moved.items() if k in COLUMNS}
        if "labels" in moved:
            classes = moved["logits"].shape[1] if "logits" in moved else None
            moved["labels"] = require_target(moved["labels"], index, classes)
        logits = None if self.keep_logits else rows.pop("logits", None)
        if logits is not None and "labels" in moved and "losses" not in rows:
            rows["losses"] = losses_of(logits, moved["labels"]).to(self.dtype)
        made, columns = Changes(), dict(self._columns)
        for name, values in rows.items():
            columns[name] = self._column(name, tuple(values.shape[1:]))
            made.also(columns[name].take(index, values, weakness, self._period, epoch))
        if columns.keys() != self._columns.keys():
            made.attribute(self, "_columns", columns)
        if "labels" in moved:
            made.rows(self._labels, index, moved["labels"])
        for memory in self._memories.values():
            made.also(memory.learn(index, weakness, moved))
        visits = self.visits
        made.rows(visits, index, torch.from_numpy(visits.numpy()[index.numpy()] + 1))
        return made

    def formed(self, b: int, given: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Return a report of b samples by column, or raise what is wrong without its values."""
        # Past the descriptor: this waits for no report under way.
        return formed(b, given, vars(self)["_columns"], self._learners)

    def strengths(self, generator: np.random.Generator) -> Tensor:
        """Return every sample's strength by the rule, from what was reported so far.

        Args:
            generator: for samples of which the rule does not know enough yet.

        Returns:
            (n,) float32 in [0, 1], which later reports do not change.

        Raises:
            ValueError: the rule returned something else.

        Cost: the rule's.
        """
        memory = self._memories["strength"]
        values = self.rule.strengths(memory.known(), require_generator(generator))
        values = require_strengths(self.rule, values, self.n)
        return values.clone() if memory.columns else values

    def missing(self, name: str, *, epoch: int | None = None, stale: int | None = None) -> Tensor:
        """Return the (m,) int64 indices of samples that lack a kind of evidence.

        Args:
            name: "losses", "logits", "proxies", "labels" or "forgetting".
            epoch: see ``evidence``.
            stale: see ``evidence``; None lists samples that were never reported.

        Cost: O(n).
        """
        require_one_of("name", name, (*COLUMNS, "labels", "forgetting"))
        order, _ = self._source(name, earliest(epoch, stale))
        return (order == UNKNOWN).nonzero().flatten()

    @property
    def forgetting(self) -> Tensor | None:
        """Forgetting events, (n,) float32, -1 before a correct one; None until all were visited."""
        if len(self.missing("forgetting")):
            return None
        return ForgettingEvents().counts(self.learnt["forgetting"])

    def evidence(
        self,
        needs: frozenset[str] = frozenset(),
        *,
        epoch: int | None = None,
        stale: int | None = None,
    ) -> Evidence:
        """Return what was reported as evidence, without a forward pass.

        Of each sample it is the last known value: the weakest view of the last refresh period in
        which it was reported. Losses and proxies that were not reported themselves, or in earlier
        periods only, are computed from reported logits and labels (proxies: the residual p - y).

        Args:
            needs: names of evidence that must be there for every sample; of losses and proxies no
                others are made then. None of them: what there is.
            epoch: from which ``stale`` is counted back.
            stale: how many epochs old a value may be at most; None takes values of any age.

        Raises:
            TypeError: epoch or stale no integers.
            ValueError: a need that some samples lack; the message says how many and which. Stale
                below 0, or without an epoch.

        Cost: O(n C), and of memory beyond what is returned O(n).
        """
        require_names("needs", needs, EVIDENCE, "Name the fields of Evidence.")
        since = earliest(epoch, stale)
        sources = ((name, *self._source(name, since)) for name in _EVIDENCE)  # (n,), in turn
        known = {name: made for name, order, made in sources if order.max() < UNKNOWN}
        for name in sorted(needs - known.keys()):
            raise_missing({name}, self._source(name, since)[0] == UNKNOWN, stale)
        values = {
            name: _DERIVED[name](self._columns["logits"].values, self._labels)
            if made
            else self._columns[name].values.float()
            for name, made in known.items()
            if name in _DERIVED and (not needs or name in needs)
        }
        vectors = values.get("proxies")
        return Evidence(
            self.n,
            self._labels.clone() if "labels" in known else None,
            None if vectors is None else unchecked(Proxies, gradient=vectors),
            values.get("losses"),
            forgetting=self.forgetting,
        )

    def precedence(
        self, needs: frozenset[str], *, epoch: int | None = None, stale: int | None = None
    ) -> Tensor:
        """Return what tells which of several tables knows each sample best: the lowest.

        Returns:
            (n,) int64, 0 or more: lower where the evidence is of a later period, and within a
            period of a weaker view; ``UNKNOWN``, 2^62, where some of it is not known.

        Cost: O(n).
        """
        since, order = earliest(epoch, stale), torch.zeros_like(self.visits)
        for name in needs:
            order = order.maximum(self._source(name, since)[0])
        return order

    def rows(self, index: Tensor) -> SampleTable:
        """Return a table of (m,) samples alone, m >= 1, with what was reported of them."""
        counting = "forgetting" in self._learners
        part = SampleTable(len(index), dtype=self.dtype, forgetting=counting)
        for name in part._memories.keys() - {"strength"}:  # which is no evidence
            columns = self.learnt[name].items()
            part._memories[name].columns = {k: v[index] for k, v in columns}
        part.visits, part._labels = self.visits[index], self._labels[index]
        part._period = self._period
        part._columns = {k: c.each(lambda rows: rows[index]) for k, c in self._columns.items()}
        return part

    def restart(self) -> None:
        """Begin a new refresh period: the next report of a sample replaces what is known of it."""
        self._period += 1

    def merge(self, other: SampleTable) -> None:
        """Take over what another table, of another rank, has seen.

        Each sample keeps the value of the later period, then of the weaker view, and the mean of
        two equally weak ones, which is as old as the older of them; visits add up. a.merge(b)
        and b.merge(a) leave the same values.

        Of the rule's columns a sample keeps the whole row of the table with more of its visits;
        after equally many, which leave ring buffers at the same position, the mean of floating
        values and the larger of others.

        Args:
            other: a table of the same n, dtype and rule.

        Raises:
            ValueError: another n, dtype, rule or width, or contradicting labels. Nothing has
                changed.

        Cost: O(n C).
        """
        mine = self.kind
        others = other.kind if isinstance(other, SampleTable) else type(other).__name__
        if mine != others:
            raise ValueError(
                f"other must have {mine}, got {others}. "
                "Build every rank's table alike, for the whole data set."
            )
        clash = (self._labels != other._labels) & (self._labels >= 0) & (other._labels >= 0)
        if clash.any():
            raise ValueError(
                f"other must agree on the labels, got {count_and_first(clash, 'others')}. "
                "Give every rank the same data set."
            )
        for name, theirs in other._columns.items():
            require_width(self._columns, name, theirs.width)
        columns, changes = dict(self._columns), Changes()
        for name, theirs in other._columns.items():
            columns[name] = self._column(name, theirs.width).merged(theirs)
        changes.attribute(self, "_columns", columns)
        for name, memory in self._memories.items():
            learnt = merge_columns(memory.columns, other._memories[name].columns)
            changes.attribute(memory, "columns", learnt)
        changes.attribute(self, "_labels", torch.maximum(self._labels, other._labels))
        changes.attribute(self, "visits", self.visits + other.visits)
        changes.attribute(self, "_period", max(self._period, other._period))
        changes.make()

    @property
    def labels(self) -> Tensor:
        """(n,) int64 labels reported so far; -1 where there is none."""
        return self._labels

    @property
    def learns(self) -> bool:
        """Whether anything is learnt from reports beyond a refresh period."""
        return any(learner.needs for learner in self._learners.values())

    @property
    def learnt(self) -> dict[str, Columns]:
        """The columns of "strength" and "forgetting", with visits; empty before a first report."""
        return {name: memory.columns for name, memory in self._memories.items()}

    @property
    def new_visits(self) -> Tensor:
        """(n,) int64, reports since ``take_over``, which other ranks do not know of."""
        return self.visits - self._shared

    def take_over(self, learnt: Mapping[str, Columns], visits: Tensor) -> None:
        """Replace what was learnt, and the visits, by what all ranks agreed on."""
        changes = Changes()
        for name, columns in learnt.items():
            changes.attribute(self._memories[name], "columns", columns)
        changes.attribute(self, "visits", visits)
        changes.attribute(self, "_shared", visits.clone())
        changes.make()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the whole state, of tensors and plain values only."""
        columns = {k: c.each(torch.clone) for k, c in self._columns.items()}
        learnt = {SAVED[name]: clone(known) for name, known in self.learnt.items()}
        return signed(
            {
                "version": VERSION,
                "n": self.n,
                "dtype": self.dtype,
                "rule": repr(self.rule),
                "visits": self.visits.clone(),
                "shared": self._shared.clone(),
                "labels": self._labels.clone(),
                "period": self._period,
                "columns": {k: (c.values, c.strength) for k, c in columns.items()},
                "reported": {k: (c.period, c.epoch) for k, c in columns.items()},
                **dict.fromkeys(SAVED.values()),
                **learnt,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that ``state_dict`` returned.

        Values in a state of version 1, which knew no epochs, count as of epoch 0: ``stale`` leaves
        them out as soon as it can.

        Raises:
            TypeError: no dict.
            ValueError: the state is of another version, n, dtype, rule or number of classes,
                damaged, or not whole. Nothing has changed then.

        Cost: O(n C).
        """
        state = read(state, self.n, self.dtype, self._learners)
        learnt = {k: clone(state[key]) for k, key in SAVED.items() if state[key] is not None}
        columns = columns_of(state)
        if not self.keep_logits:
            columns.pop("logits", None)
        for name, column in columns.items():
            require_width(self._columns, name, column.width)
        changes = Changes()
        for name, key in {"visits": "visits", "_shared": "shared", "_labels": "labels"}.items():
            changes.attribute(self, name, state[key].clone())
        changes.attribute(self, "_columns", columns)
        changes.attribute(self, "_period", state["period"])
        for name, known in learnt.items():
            changes.attribute(self._memories[name], "columns", known)
        with self.pending.lock:
            changes.make()

    @property
    def kind(self) -> str:
        """What tables must have in common to be merged."""
        return kind_of(self.n, self.dtype, repr(self.rule), self._learners)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle and copy, with all reports under way."""
        self.pending.settle()
        return vars(self)

    def _column(self, name: str, width: tuple[int, ...]) -> Weakest:
        """Return a column, or a new one where there is none yet."""
        found = self._columns.get(name)
        if found is None:
            require_room(ARGUMENTS[name], (self.n, *width), self.dtype)
        return Weakest.none(self.n, width, self.dtype) if found is None else found

    def _stored(self, name: str, values: Tensor, index: Tensor) -> Tensor:
        """Return reported values, on the CPU, as they are kept, or raise."""
        stored, advice = values.to(self.dtype), f"Stored as {self.dtype}: has training diverged?"
        require_finite(ARGUMENTS[name], stored, advice, index)
        return stored

    def _order(self, name: str, since: int) -> Tensor:
        """Return the (n,) ``Weakest.order`` of what was reported or counted under a name."""
        if name in self._columns:
            return self._columns[name].order(self._period, since)
        known = torch.zeros_like(self.visits, dtype=torch.bool)
        if name == "labels":
            known = self._labels >= 0
        elif name in self._memories:  # counted in clean views, and not in this period alone
            known = self._memories[name].known()["visits"] > 0
        return torch.zeros_like(self.visits).masked_fill_(~known, UNKNOWN)

    def _source(self, name: str, since: int) -> tuple[Tensor, bool]:
        """Return the (n,) order of evidence, and whether it comes from logits and labels.

        It does where it is whole that way alone, or was reported that way in a later period.
        """
        own = self._order(name, since)
        if name not in _DERIVED:
            return own, False
        made = self._order("logits", since)
        torch.maximum(made, self._order("labels", since), out=made)
        ranks = [(bool(o.max() == UNKNOWN), int(o.min()) // PERIOD) for o in (made, own)]
        return (made, True) if ranks[0] < ranks[1] else (own, False)
