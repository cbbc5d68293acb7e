"""The sampler: a selection in, the draws of an epoch out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from augloader.core.batch import Draw
from augloader.core.checks import require_bool, require_dataset, require_int
from augloader.core.deprecated import formerly, renamed
from augloader.core.evidence import Evidence, Selection
from augloader.core.schedule import Every, Schedule
from augloader.distributed import collectives
from augloader.distributed.tables import merge_learnt
from augloader.feedback.strength import Constant, StrengthRule, require_rule
from augloader.feedback.table import SampleTable
from augloader.loading.bases import Base, kept_by
from augloader.loading.cache import require_interval
from augloader.loading.choosing import choose
from augloader.loading.layout import Layout, Order
from augloader.loading.passes import Left
from augloader.loading.plan import (
    FORMER,
    PRUNE,
    SELECT,
    STRENGTH,
    EpochPlan,
    Weighting,
)
from augloader.loading.reporting import Reporting
from augloader.loading.resuming import Resumable
from augloader.loading.state import State
from augloader.loading.watch import Watch
from augloader.selection.pruning import Pruning
from augloader.selection.strategy import Strategy, require_strategy


class CoresetSampler(Reporting, Resumable, Sampler[Draw]):
    """Yield each epoch's draws: a base at strength 0, and strong copies of the selected samples.

    An epoch is the base and r copies of each of the k selected samples, shuffled together. A copy
    weighs gamma_j k / (n r), gamma_j the number of samples that j stands for, 1 / r on average; a
    base draw weighs 1. All weights are then scaled to mean 1, so that a fraction does not change
    the loss.

    What it yields depends on (seed, epoch, selection, strengths) alone: not on workers, ranks or
    history. The strengths of the copies, ``sampler.strengths``, (n,) float32, are computed where an
    epoch begins, in ``set_epoch``, from what was reported until then, and hold for all of it.

    On several ranks every rank's sampler yields the whole epoch. accelerate shards it by itself,
    each draw once with ``pad_to_multiple_of``; for Lightning, and where nothing shards, take
    ``DistributedCoresetSampler``. With a ``group`` each rank sweeps and reports its share only, and
    the ranks select together.

    Args:
        data: the dataset; only its length is read, and ``required_copies`` and ``cache``
            where it has them.
        strategy: how samples are selected, as ``FacilityLocation()``.
        fraction: share of the data to select, in (0, 1], or a schedule of it, read at the first
            epoch of each refresh period; or else
        count: number of samples to select, 1 to n.
        base: "full": every sample; "random": a random subset, drawn again with each refresh
            period; "selected": the selected samples; "none": nothing but the copies. Or what
            chooses, where every epoch begins, the samples that it draws at all, the selected ones
            among them: a pruning rule, as ``InfoBatch(0.5)``, or a strategy. Both look at what was
            reported last, of a sample that was left out since too; before anything was reported an
            epoch draws all, and with a strategy until every sample was.
        base_fraction: share of n that a strategy as base draws, a number or a schedule; or the size
            of the random subset, which is the selection's by default.
        copies: r; 0 augments the selected samples in place instead of appending copies.
        refresh: when to select again. Before the first selection an epoch is the base alone
            (every sample where the base is "selected" or "none"), with weight 1.
        weighting: "cluster" as above; "uniform": every draw weighs 1, which trained as well or
            better in benchmarks/papers.py; "population": copies weigh gamma_j / r and base draws n
            / (size of the base), so that the copies weigh together as much as the base, however few
            they are, as Eq. 10 reads: small fractions then train badly there; or "downweight": the
            draws of a sample share the weight of one, 1 / |f_T(z)| each (Kuchnik & Smith, section
            4.2). The weights of a pruned base multiply all these but "uniform". "unbiased": the
            draws of a sample share its weight in the base, and nothing is scaled, so that the
            expected sum of an epoch's weighted gradients is that of all samples, if these weights
            make up for what is left out: InfoBatch's and RandomPruning's do, SeTa's do not.
        strength: the rule of how strongly each sample's copies are augmented, as
            ``StableInfluence()``; base draws have strength 0 under every rule.
        epochs: how many epochs are planned; None plans no end. Schedules need it.
        strength_schedule: factor of all strengths, as ``SwitchOff(last=20)`` for refinement (He et
            al.): a schedule or a number in [0, 1]. Mixing, which follows the strength, fades too.
        probability: of a draw that would be strong to be so, drawn for each; else it has strength
            0. A schedule or a number.
        keep_unaugmented_copies: whether draws of selected samples whose strength comes to 0 stay:
            appended copies are then plain repetitions, and keep the selection's weights. False
            leaves such copies out, and in place gives them the weight of the base, so that an
            epoch of refinement is the base itself.
        weak_probability: of a draw to get the dataset's weak transform. A schedule or a number;
            ``SwitchOff(last=20)`` refines without weak augmentation, too.
        pad_to_multiple_of: the epoch is filled up to a multiple of this many draws, with its first
            ones at weight 0. The batch size: else a last batch of a few rows takes a step as large
            as any other; or drop it (``DataLoader(drop_last=True)``). Ranks x batch size where a
            framework shards batches (accelerate), which would train on some draws twice.
        constant_length: fill every epoch up, with draws of weight 0, to the length of the longest
            of the planned ``epochs``: for trainers that ask a loader for its length once
            (transformers, Keras, Ignite) and would cut the epochs that are longer. Nothing is saved
            then by a pruning rule, or by a strategy as base that looks at what was reported.
        seed: 0 or more.
        table_dtype: torch.float32 or torch.float16, how reported values are kept.
        report_at_once: whether each report waits for its values where they are on a GPU; see
            ``report``.
        group: the ranks whose reports and selection are one. All of them call ``refresh`` and, if
            the rule or ``Forgetting`` learns from reports or the base is pruned, ``set_epoch``;
            where they disagree all raise the same error. A sampler with a group cannot be pickled
            or copied.

    Raises:
        TypeError: data without ``__len__``, a strategy or rule that is none, wrong types.
        ValueError: an empty dataset, not exactly one of fraction and count, values out of range,
            schedules without epochs or longer than these.

    Attributes:
        plan: what every epoch is made of, an ``EpochPlan``.
        table: what was reported, a ``SampleTable``.

    Memory: O(n), and the table's.

    Example:
        >>> from augloader import Uniform
        >>> sampler = CoresetSampler(range(10), Uniform(), fraction=0.2, seed=0)
        >>> sampler.set_epoch(0)
        >>> if sampler.refresh_due:
        ...     _ = sampler.refresh()
        >>> draws = list(sampler)
        >>> len(sampler), sum(draw.strength > 0 for draw in draws)
        (12, 2)

    Source: Liu & Mirzasoleiman (2022), Alg. 1, Eq. 10 and sections 6.1-6.3; schedules: He et al.
    (2019), section 3.4.
    """

    @renamed(**FORMER)
    def __init__(
        self,
        data: Any,
        strategy: Strategy,
        *,
        fraction: Schedule | float | None = None,
        count: int | None = None,
        base: Base | Pruning | Strategy = "full",
        base_fraction: Schedule | float | None = None,
        copies: int = 1,
        refresh: Every = Every(1),  # noqa: B008 - frozen
        weighting: Weighting = "cluster",
        strength: StrengthRule = Constant(),  # noqa: B008 - frozen
        epochs: int | None = None,
        strength_schedule: Schedule | float = 1.0,
        probability: Schedule | float = 1.0,
        keep_unaugmented_copies: bool = True,
        weak_probability: Schedule | float = 1.0,
        pad_to_multiple_of: int = 1,
        constant_length: bool = False,
        seed: int = 0,
        table_dtype: torch.dtype = torch.float32,
        report_at_once: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = None if group is None else collectives.require_group(group)
        n = require_dataset(data)
        self.strategy = require_strategy(strategy)
        self.plan = EpochPlan.of(
            n,
            fraction=fraction,
            count=count,
            base=base,
            base_fraction=base_fraction,
            copies=copies,
            refresh=refresh,
            weighting=weighting,
            epochs=epochs,
            strength_schedule=strength_schedule,
            probability=probability,
            keep_unaugmented_copies=keep_unaugmented_copies,
            weak_probability=weak_probability,
            pad_to_multiple_of=pad_to_multiple_of,
            constant_length=constant_length,
            seed=seed,
        )
        require_interval(data, refresh)
        wanted = getattr(data, "required_copies", None)
        if wanted is not None and copies != wanted:
            raise ValueError(
                f"copies must be {wanted}, the number of transforms in the dataset's strong, got "
                f"{copies}. Pass copies={wanted}, or fewer transforms."
            )
        rule = require_rule("strength", strength)
        counting = "forgetting" in strategy.needs
        if counting and (base != "full" or copies == 0):
            raise ValueError(
                'base must be "full" and copies 1 or more to count forgetting, got '
                f"base={base!r} and copies={copies}. Other epochs lack clean views of some samples."
            )
        require_bool("report_at_once", report_at_once, "True waits for the GPU in each report.")
        self.report_at_once = report_at_once
        proxies = "proxies" in strategy.needs | self.plan.base_needs
        self.table = SampleTable(
            n, dtype=table_dtype, rule=rule, forgetting=counting, keep_logits=proxies
        )
        self._watch = Watch(data)
        self._state = self._begun(0)

    n = property(attrgetter("plan.n"), doc="Number of samples.")
    seed = property(attrgetter("plan.seed"), doc="As given.")
    epochs = property(attrgetter("plan.epochs"), doc="As given.")
    copies = property(attrgetter("plan.copies"), doc="As given.")
    every = property(attrgetter("plan.every"), doc="As given for refresh.")
    weighting = property(attrgetter("plan.weighting"), doc="As given.")
    multiple = formerly("multiple", "plan.pad_to_multiple_of")
    plain_copies = formerly("plain_copies", "plan.keep_unaugmented_copies")
    epoch = property(attrgetter("_state.epoch"), doc="The epoch that is drawn.")
    refreshed = property(attrgetter("_state.refreshed"), doc="Epoch of the last refresh, or None.")
    selection = property(attrgetter("_state.selection"), doc="The last Selection, or None.")
    strengths = property(attrgetter("_state.strengths"), doc="(n,) float32, of all copies.")
    _shards = False  # each rank makes some of the draws by itself
    kept = property(attrgetter("_state.kept"), doc="The Selection of a pruned base; None is all.")

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0, with the strengths that the rule finds now.

        The length may change here and in ``refresh`` only. After ``load_state_dict`` calls with the
        loaded epoch go on with it, so that a resumed loop needs no other code.

        Nothing happens where the epoch was begun by ``begin``, which only the next ``begin`` ends:
        loaders that count epochs by themselves call this with numbers of their own after a break, a
        resume or a second pass (Fabric's, accelerate's).

        Args:
            epoch: 0 or more.

        Raises:
            TypeError: not an integer.
            ValueError: below 0, or beyond the planned epochs; ranks that disagree on it.

        Warns:
            UserWarning: once each: the epoch before was cut, so that draws of it were not made or
                not reported; an earlier epoch begins; all ranks trained on all draws.

        Cost: O(n), and the rule's; with a group also the exchange of the rule's columns.
        """
        if self._watch.held:
            require_int("epoch", epoch, 0, "Epochs count from 0.")
        else:
            self._set_epoch(self.plan.require_epoch(epoch))

    def _set_epoch(self, epoch: int, held: bool = False) -> None:
        state = self._state
        resumed = state.resumed and epoch == state.epoch
        if self.group is not None:
            if self._shards or self._learns or self.plan.pruning is not None:
                collectives.require_same(self.plan.beginning(epoch, resumed), self.group)
            self._meet(resumed, self.group)
        elif self.plan.base_needs and self._sharers() > 1:
            raise ValueError(
                f"group must be given with base={self.base!r} on several ranks, got None: each "
                "would keep other samples. Pass group=torch.distributed.group.WORLD."
            )
        if resumed:
            new = replace(state, overtaken=None)
        else:
            new = self._begun(epoch, state, self.group)
            self._watch.look_back(state, epoch, self._sharers(), self.group is not None)
            if self.plan.base_needs:
                self.table.restart()  # the next base is chosen by what this epoch tells
        self._watch.began(epoch, held)
        self._state = new
        self._watch.look_at(new.draws)

    def begin(
        self, epoch: int, evidence: Evidence | Callable[[], Evidence | None] | None = None
    ) -> Selection | None:
        """Begin an epoch and select anew where that is due: set_epoch, refresh_due and refresh.

        Args:
            epoch: 0 or more.
            evidence: a function that returns it, called only where a refresh is due, as
                ``lambda: sweep(model, data, Residual())``; or else as for ``refresh``.

        Returns:
            The new selection, or None where none was due.

        Raises:
            As ``set_epoch`` and ``refresh``.

        Example:
            >>> from augloader import Uniform
            >>> sampler = CoresetSampler(range(10), Uniform(), fraction=0.2)
            >>> for epoch in range(2):
            ...     chosen = sampler.begin(epoch, lambda: Evidence(10))
            ...     print(epoch, len(list(sampler)))
            0 12
            1 12
        """
        self._set_epoch(self.plan.require_epoch(epoch), held=True)
        if not self.refresh_due:
            return None
        return self.refresh(evidence() if callable(evidence) else evidence)

    def _sharers(self) -> int:
        """Return how many ranks share the draws that this sampler yields."""
        if self.group is not None:
            return dist.get_world_size(self.group)
        return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

    def _meet(self, resumed: bool, group: dist.ProcessGroup) -> None:
        """Make what was learnt from reports the same on all ranks, where an epoch begins."""
        if self._learns:
            self._settle()
            self._watch.compare(self._watch.progress, group)
            if not resumed:
                merge_learnt(self.table, group)

    @property
    def _learns(self) -> bool:
        """Whether what is reported decides how epochs begin."""
        return self.table.learns or bool(self.plan.base_needs)

    def _begun(
        self, epoch: int, before: State | None = None, group: dist.ProcessGroup | None = None
    ) -> State:
        """Return the state in which an epoch begins, after another."""
        plan, epoch = self.plan, self.plan.require_epoch(epoch)
        selection, refreshed, kept = None, None, None
        if before is not None:
            selection, refreshed, kept = before.selection, before.refreshed, before.kept
        strengths = plan.scheduled(self.table.strengths(plan.generator(STRENGTH, epoch)), epoch)
        kept, lacking = kept_by(
            plan.pruning,
            plan.base_size(epoch),
            table=self.table,
            previous=kept,
            epoch=epoch,
            epochs=plan.epochs,
            generator=plan.generator(PRUNE, epoch),
            group=group,
        )
        if lacking:
            self._watch.lacks(plan.pruning, epoch)
        draws = plan.compose(epoch, selection, strengths, kept)
        return State(epoch, strengths, draws, selection, refreshed, kept)

    @property
    def base(self) -> Base | Pruning | Strategy:
        """As given."""
        return self.plan.base if self.plan.pruning is None else self.plan.pruning

    @property
    def budget(self) -> int:
        """How many samples are selected in this epoch's refresh period."""
        return self.plan.budget(self.epoch)

    @property
    def base_size(self) -> int:
        """How many samples the base has, before augmentation in place."""
        if self.plan.pruning is None:
            return self.plan.base_size(self.epoch)
        return self.n if self.kept is None else len(self.kept)

    @property
    def refresh_due(self) -> bool:
        """Whether this epoch wants a new selection before it is drawn; see ``plan.refresh_due``."""
        return self.plan.refresh_due(self.epoch, self.refreshed)

    def planned_draws(self, epochs: int | None = None) -> list[int]:
        """Return how many draws each epoch will have, each refresh made when it is due.

        For what must know the number of steps in advance, as OneCycleLR:
        ``sum(ceil(draws / batch_size) for draws in sampler.planned_draws())``.

        Args:
            epochs: how many; None takes those planned.

        Returns:
            One length an epoch, of this rank's draws. At most so many where the number depends on
            what is selected or kept: with a pruned base, with keep_unaugmented_copies=False, and
            with copies=0 beside base="random"; constant_length=True makes them exact.

        Raises:
            ValueError: no number of epochs is known, or more than are planned.
        """
        wanted = self.epochs if epochs is None else epochs
        if wanted is None:
            raise ValueError(
                "epochs must be given where none are planned, got None. Pass a number."
            )
        self.plan.require_epoch(require_int("epochs", wanted, 1, "Plan at least one epoch.") - 1)
        return self.plan.lengths(wanted)

    @property
    def draws(self) -> Layout:
        """All draws of this epoch, before they are shuffled; as columns where these are read.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        if self.selection is None and self.refresh_due:
            raise RuntimeError(
                f"sampler must have a selection from epoch {self.plan.every.warmup} on, got none "
                f"at epoch {self.epoch}. Before iterating: if sampler.refresh_due: "
                "sampler.refresh(sweep(model, data, Residual()))."
            )
        return self._state.draws

    def refresh(self, evidence: Evidence | None = None, *, stale: int | None = None) -> Selection:
        """Select anew, at this epoch, whether due or not. Nothing changes if it raises.

        Args:
            evidence: as ``sweep(model, data, Residual())`` returns it. None takes what was
                reported, without a forward pass: of each sample what was last known of it. With a
                group: this rank's share of either.
            stale: how many epochs old a reported value may be at most; None: of any age. A sample
                that was not reported since is missing then: each that ``drop_last``, a limited
                epoch, a base that leaves it out, or mixing kept from being reported.

        Returns:
            The selection, also kept as ``sampler.selection``.

        Raises:
            TypeError: evidence that is none.
            ValueError: evidence of another n, or without what the strategy needs; samples without
                a report that is recent enough; a share without a group; ranks that disagree, on
                all ranks alike.
            RuntimeError: on all ranks, where several reported the same draws.

        Cost: the strategy's; with a group see ``augloader.distributed.selection``.
        """
        state = self._state
        if self.group is not None:
            what = "of reports" if evidence is None else "given"
            same = {"strategy": self.strategy, "epoch": self.epoch, "evidence": what}
            same |= {"epochs": self.epochs, "stale": stale}
            collectives.require_same({"call": "refresh", **self._arguments(), **same}, self.group)
        self._settle()
        if self.group is not None:
            self._watch.compare(self._watch.before, self.group)
        selection = choose(
            self.strategy,
            evidence,
            self.budget,
            table=self.table,
            previous=state.selection,
            epoch=state.epoch,
            stale=stale,
            generator=self.plan.generator(SELECT, state.epoch),
            group=self.group,
        )
        draws = self.plan.compose(state.epoch, selection, state.strengths, state.kept)
        new = replace(state, selection=selection, refreshed=state.epoch, draws=draws)
        self.table.restart()
        self._state = new
        self._watch.refreshed()
        self._watch.look_at(draws)
        return selection

    def summary(self) -> None:
        """Print this epoch's draws, strengths, weights and selection as a table.

        ``augloader.summary.of_sampler`` returns the text, and ``augloader.summary.log`` writes the
        figures to TensorBoard.
        """
        from augloader import summary  # a view: it only reads

        print(summary.of_sampler(self))

    def __iter__(self) -> Iterator[Draw]:
        """Return the draws of this epoch; a pure function of the sampler's state.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        return Left(self)

    def _left(self) -> tuple[Order, range]:
        """Return the epoch's draws in order, and the places of those that are left to make."""
        order = self.plan.order(self.epoch, self.draws)
        return order, range(self._state.start, self._length)

    @property
    def _length(self) -> int:
        """The length of the whole epoch."""
        return self.plan.length(self.draws)

    def __len__(self) -> int:
        """Return the number of draws that ``__iter__`` yields.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        return self._length - self._state.start
