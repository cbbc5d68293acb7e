"""The sample table: what training reported about every sample."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from augloader.core.checks import (
    count_and_first,
    require_finite,
    require_int,
    require_labels,
    require_state,
    unchecked,
)
from augloader.core.deprecated import renamed
from augloader.core.evidence import Evidence
from augloader.core.proxies import Proxies, residual
from augloader.feedback.learners import (
    ARGUMENTS,
    Columns,
    ForgettingEvents,
    Learner,
    Memory,
    clone,
    merge_columns,
)
from augloader.feedback.strength import Constant, StrengthRule, require_rule
from augloader.feedback.views import Weakest

_VERSION = 1  # of saved states
_COLUMNS = ("losses", "logits", "proxies")
_DERIVED = ("losses", "proxies")  # which logits and labels give too
_SAVED = {"strength": "memory", "forgetting": "forgetting"}  # learners, and their keys in a state
_ROWS = {  # what to do about rows of another shape
    "losses": 'Compute the loss with reduction="none"; of pixels or tokens report their mean.',
    "logits": "Report one row of class scores a sample; of pixels or tokens, and in regression, "
    "report loss and proxy instead.",
    "proxies": "Report one row a sample: pool or flatten its values.",
}


class SampleTable:
    """Per-sample memory of losses, logits or proxies, filled by the training loop's own outputs.

    Losses of differently strong views are not comparable, so within a refresh period a sample
    keeps its weakest view: a report replaces one of the same or of higher strength.

    Args:
        n: number of samples, at least 1.
        dtype: torch.float32 or torch.float16, how reported values are stored.
        rule: what decides the samples' strengths. The table keeps its columns, which a new refresh
            period does not forget.
        forgetting: count forgetting events, which a new refresh period does not forget either;
            every report must hold logits and labels then.

    Raises:
        TypeError: n not an integer, a rule that is none.
        ValueError: n below 1, another dtype.

    Memory: 24 n bytes, for each kind of value reported 4 n bytes and n rows in ``dtype`` (logits of
    CIFAR-10 in float16: 1.2 MB), and the rule's.

    Example:
        >>> table = SampleTable(3)
        >>> table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.5]))
        >>> table.missing("losses")
        tensor([1])
        >>> table.visits
        tensor([1, 0, 1])
    """

    def __init__(
        self,
        n: int,
        *,
        dtype: torch.dtype = torch.float32,
        rule: StrengthRule = Constant(),  # noqa: B008 - frozen
        forgetting: bool = False,
    ) -> None:
        self.n = require_int("n", n, 1, "Give the number of samples of the dataset.")
        if dtype not in (torch.float32, torch.float16):
            raise ValueError(
                f"dtype must be torch.float32 or torch.float16, got {dtype}. float16 halves the "
                "memory at three digits of precision."
            )
        self.dtype = dtype
        self.rule = require_rule("rule", rule)
        self.visits = torch.zeros(n, dtype=torch.int64)
        self._labels = torch.full((n,), -1)
        self._columns: dict[str, Weakest] = {}
        self._shared = torch.zeros(n, dtype=torch.int64)  # visits that all ranks know of
        learners: dict[str, Learner] = {"strength": self.rule}
        if forgetting:
            learners["forgetting"] = ForgettingEvents()
        self._memories = {name: Memory(learner, n) for name, learner in learners.items()}

    @renamed(losses="loss", proxies="proxy", labels="target")
    def report(
        self,
        index: Tensor,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        proxy: Tensor | None = None,
        target: Tensor | None = None,
        strength: Tensor | None = None,
    ) -> None:
        """Store what a step found out about b distinct samples; change nothing if it raises.

        Args:
            index: (b,) int64, distinct, in [0, n).
            loss: (b,) floating, finite.
            logits: (b, C) floating, finite.
            proxy: (b, d) floating, finite: gradient proxies of your own.
            target: (b,) integer, 0 or more; below C when given with logits.
            strength: (b,) in [0, 1], how strongly the views were augmented; None means 0.

        Raises:
            TypeError: index not int64, values not floating, target not integer.
            ValueError: nothing reported, or not what the rule needs; repeated, negative or too
                large indices; wrong lengths or widths; NaN, infinity or, in a float16 table,
                values above 65,504.

        Cost: O(b C); waits for the device the values are on.
        """
        index = self._check_index(index)
        b = len(index)
        weakness = torch.zeros(b) if strength is None else strength.detach().cpu().float()
        if weakness.shape != (b,) or not ((weakness >= 0) & (weakness <= 1)).all():
            raise ValueError(
                f"strength must be ({b},) values in [0, 1], got {weakness}. Report the batch's own."
            )
        given = {"losses": loss, "logits": logits, "proxies": proxy, "labels": target}
        moved = {name: part.detach().cpu() for name, part in given.items() if part is not None}
        rows = {k: self._stored(k, part, b) for k, part in moved.items() if k in _COLUMNS}
        if not rows:
            raise ValueError(
                "report must be given loss, logits or proxy, got none. Pass one of them."
            )
        labels = moved.get("labels")
        if labels is not None:
            if labels.is_floating_point() and labels.ndim == 1:
                raise TypeError(
                    f"target must be integer, got {labels.dtype}. Of a number that is regressed "
                    "report a range as group, target=torch.bucketize(target, edges), or none."
                )
            require_labels("target", labels, b, None if logits is None else logits.shape[1])
        learnt = [(m, m.learn(index, weakness, moved)) for m in self._memories.values()]
        # Everything is checked: only now does anything change.
        for name, values in rows.items():
            self._column(name, tuple(values.shape[1:])).take(index, values, weakness)
        if labels is not None:
            self._labels[index] = labels.to(torch.int64)
        for memory, (columns, visited, new) in learnt:
            memory.columns = columns
            for name, values in new.items():
                columns[name][visited] = values
        self.visits[index] += 1

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
        values = self.rule.strengths(memory.known(), generator)
        if (values.shape, values.dtype) != ((self.n,), torch.float32) or not (
            (values >= 0) & (values <= 1)
        ).all():
            raise ValueError(
                f"strengths of {self.rule!r} must be ({self.n},) float32 in [0, 1], got {values}. "
                "Fix its strengths method."
            )
        return values.clone() if memory.columns else values

    def missing(self, name: str) -> Tensor:
        """Return the (m,) int64 indices of samples that lack a kind of evidence in this period.

        Args:
            name: "losses", "logits", "proxies" or "labels".

        Cost: O(n).
        """
        return self._view(name).isinf().nonzero().flatten()

    @property
    def forgetting(self) -> Tensor | None:
        """Forgetting events, (n,) float32, -1 before a correct one; None until all were visited."""
        if len(self.missing("forgetting")):
            return None
        return ForgettingEvents().counts(self.learnt["forgetting"])

    def evidence(self, needs: frozenset[str] = frozenset()) -> Evidence:
        """Return what was reported in this period as evidence, without a forward pass.

        Losses and proxies that were not reported themselves are computed from reported logits and
        labels (proxies: the residual p - y). The values are as old as each sample's last visit.

        Args:
            needs: names of evidence that must be there for every sample.

        Raises:
            ValueError: a need that some samples lack; the message says how many and which.

        Cost: O(n C).
        """
        labels = None if len(self.missing("labels")) else self._labels.clone()
        known = {name: self._complete(name) for name in _COLUMNS}
        losses, logits, proxies = (known[name] for name in _COLUMNS)
        vectors = None if proxies is None else unchecked(Proxies, gradient=proxies)
        if logits is not None and labels is not None:
            losses = F.cross_entropy(logits, labels, reduction="none") if losses is None else losses
            vectors = Proxies(residual(logits, labels)) if vectors is None else vectors
        evidence = Evidence(self.n, labels, vectors, losses, forgetting=self.forgetting)
        for name in sorted(needs):
            if getattr(evidence, name) is None:
                self.raise_missing({name}, self._lacking(name))
        return evidence

    def views(self, needs: frozenset[str]) -> Tensor:
        """Return how strongly augmented the view is that each sample's evidence comes from.

        Args:
            needs: names of the evidence.

        Returns:
            (n,) float32 in [0, 1], or infinity where some of the evidence is not known.

        Cost: O(n).
        """
        derived = self._view("logits").maximum(self._view("labels"))
        views = torch.zeros(self.n)
        for name in needs:
            own = self._view(name)
            if name in _DERIVED:
                own = own.where(own.isfinite(), derived)
            views = views.maximum(own)
        return views

    def rows(self, index: Tensor) -> SampleTable:
        """Return a table of (m,) samples alone, m >= 1, with what was reported in this period."""
        part = SampleTable(len(index), dtype=self.dtype, forgetting="forgetting" in self._memories)
        for name in part._memories.keys() - {"strength"}:  # which is no evidence
            columns = self.learnt[name].items()
            part._memories[name].columns = {k: v[index] for k, v in columns}
        part.visits, part._labels = self.visits[index], self._labels[index]
        part._columns = {k: c.each(lambda rows: rows[index]) for k, c in self._columns.items()}
        return part

    def restart(self) -> None:
        """Begin a new refresh period: forget which samples were reported, keep the visit counts."""
        self._columns = {
            name: Weakest(column.values, torch.full_like(column.strength, torch.inf))
            for name, column in self._columns.items()
        }  # at once: what interrupts this leaves all as it was

    def merge(self, other: SampleTable) -> None:
        """Take over what another table, of another rank, has seen.

        Each sample keeps its weaker view, and the mean of two equally weak ones; visits add up.
        a.merge(b) and b.merge(a) leave the same values.

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
        mine, others = self.kind, other.kind
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
            self._check_width(name, theirs.width)
        for name, theirs in other._columns.items():
            self._columns[name] = self._column(name, theirs.width).merged(theirs)
        for name, memory in self._memories.items():
            memory.columns = merge_columns(memory.columns, other._memories[name].columns)
        self._labels = torch.maximum(self._labels, other._labels)
        self.visits = self.visits + other.visits

    @property
    def labels(self) -> Tensor:
        """(n,) int64 labels reported so far; -1 where there is none."""
        return self._labels

    @property
    def learns(self) -> bool:
        """Whether anything is learnt from reports beyond a refresh period."""
        return any(memory.learner.needs for memory in self._memories.values())

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
        for name, columns in learnt.items():
            self._memories[name].columns = columns
        self.visits, self._shared = visits, visits.clone()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the whole state, of tensors and plain values only."""
        columns = {k: c.each(torch.clone) for k, c in self._columns.items()}
        learnt = {_SAVED[name]: clone(known) for name, known in self.learnt.items()}
        return {
            "version": _VERSION,
            "n": self.n,
            "dtype": self.dtype,
            "rule": repr(self.rule),
            "visits": self.visits.clone(),
            "shared": self._shared.clone(),
            "labels": self._labels.clone(),
            "columns": {k: (c.values, c.strength) for k, c in columns.items()},
            **dict.fromkeys(_SAVED.values()),
            **learnt,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that ``state_dict`` returned.

        Raises:
            ValueError: the state is of another version, n, dtype, rule or number of classes, or not
                whole. Nothing has changed then.
        """
        require_state("the table", state, _VERSION, self.state_dict().keys())
        learnt = {k: clone(state[key]) for k, key in _SAVED.items() if state[key] is not None}
        saved = _kind(state["n"], state["dtype"], state["rule"], learnt)
        mine = self.kind
        if mine != saved:
            raise ValueError(
                f"state must be of {mine}, got {saved}. Resume with the data set and the rule that "
                "were saved."
            )
        columns = {k: Weakest(*parts).each(torch.clone) for k, parts in state["columns"].items()}
        for name, column in columns.items():
            self._check_width(name, column.width)
        plain = [state[name].clone() for name in ("visits", "shared", "labels")]
        # All of it was read: only now does anything change.
        self.visits, self._shared, self._labels = plain
        self._columns = columns
        for name, known in learnt.items():
            self._memories[name].columns = known

    @property
    def kind(self) -> str:
        """What tables must have in common to be merged."""
        return _kind(self.n, self.dtype, repr(self.rule), self._memories)

    def _column(self, name: str, width: tuple[int, ...]) -> Weakest:
        """Return a column, made where there is none yet."""
        if name not in self._columns:
            self._columns[name] = Weakest.none(self.n, width, self.dtype)
        return self._columns[name]

    def _complete(self, name: str) -> Tensor | None:
        return None if len(self.missing(name)) else self._columns[name].values.float()

    def _check_index(self, index: Tensor) -> Tensor:
        if index.dtype != torch.int64:
            raise TypeError(
                f"index must be int64, got {index.dtype}. Report batch.index as it is: large "
                "indices do not survive a float."
            )
        if index.ndim != 1 or not len(index):
            raise ValueError(
                f"index must have shape (b,) with b >= 1, got {tuple(index.shape)}. "
                "Report one index a row."
            )
        index = index.detach().cpu()
        bad = (index < 0) | (index >= self.n)
        if bad.any():
            raise ValueError(
                f"index must be in [0, {self.n}), got {count_and_first(bad, 'outside')}. "
                "Report the indices that the dataset returned."
            )
        ordered = index.sort().values
        repeated = ordered[1:][ordered[1:] == ordered[:-1]].unique()[:5].tolist()
        if repeated:
            raise ValueError(
                f"index must hold each sample once, got repeated {repeated}. Report one row a "
                "sample; CoresetSampler.report does so for a batch with copies."
            )
        return index

    def _stored(self, name: str, values: Tensor, b: int) -> Tensor:
        """Return reported values, on the CPU, as they are kept, or raise."""
        argument = ARGUMENTS[name]
        if not values.is_floating_point():
            raise TypeError(f"{argument} must be floating, got {values.dtype}. Report raw values.")
        ndim = 1 if name == "losses" else 2
        if values.ndim != ndim or len(values) != b:
            shape = f"({b},)" if ndim == 1 else f"({b}, width)"
            raise ValueError(
                f"{argument} must have shape {shape}, got {tuple(values.shape)}. {_ROWS[name]}"
            )
        self._check_width(name, tuple(values.shape[1:]))
        stored = values.to(self.dtype)
        require_finite(argument, stored, f"Stored as {self.dtype}: has training diverged?")
        return stored

    def _check_width(self, name: str, width: tuple[int, ...]) -> None:
        column = self._columns.get(name)
        if column is not None and column.width != width:
            raise ValueError(
                f"{ARGUMENTS[name]} must keep the width {column.width} of earlier reports, "
                f"got {width}. Use one table for one model."
            )

    def _view(self, name: str) -> Tensor:
        """Return the (n,) strengths of the views that evidence is from; infinity: there is none."""
        if name in self._columns:
            return self._columns[name].strength
        known = torch.zeros(self.n, dtype=torch.bool)
        if name == "labels":
            known = self._labels >= 0
        elif name in self._memories:  # counted in clean views, and not in this period alone
            known = self._memories[name].known()["visits"] > 0
        return torch.zeros(self.n).masked_fill_(~known, torch.inf)

    def _lacking(self, name: str) -> Tensor:
        """Return the (n,) mask of samples for which a kind of evidence is not known."""
        if name in _DERIVED and name not in self._columns and "logits" in self._columns:
            return self._view("logits").maximum(self._view("labels")).isinf()
        return self._view(name).isinf()

    def raise_missing(self, needs: Set[str], bad: Tensor) -> NoReturn:
        """Raise ValueError: some of the needs are missing for the (n,) masked samples."""
        for name in sorted(needs & {"features", "scores"}):  # are never reported
            Evidence(self.n).require(name)
        when, other = "since the last refresh", "sweep(model, data, Residual())"
        if "forgetting" in needs:
            when, other = "of a view with strength 0", "Evidence(n, forgetting=...)"
        unlabelled = ""
        if "labels" in needs and bad.all():
            unlabelled = (
                " Where there are no classes report groups as target=, or choose among all "
                "samples: FacilityLocation(per_class=False)."
            )
        raise ValueError(
            f"{' and '.join(sorted(needs))} must be known for every sample, got "
            f"{count_and_first(bad, 'samples')} without a report {when}. Report every batch of a "
            "whole epoch over the full data, or pass evidence: "
            f"sampler.refresh({other}).{unlabelled}"
        )


def _kind(n: int, dtype: torch.dtype, rule: str, learners: Mapping[str, Any]) -> str:
    return f"n={n}, {dtype} and {rule}" + ", forgetting" * ("forgetting" in learners)
