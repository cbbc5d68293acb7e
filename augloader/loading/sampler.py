"""The sampler: a selection in, the draws of an epoch out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from math import ceil
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from augloader.core.batch import Draw, Sample
from augloader.core.checks import (
    require_dataset,
    require_fraction,
    require_int,
    require_one_of,
    require_state,
)
from augloader.core.evidence import Evidence, Selection
from augloader.core.schedule import Course, Every, Schedule, require_planned
from augloader.distributed import collectives
from augloader.distributed.selection import select as select_together
from augloader.distributed.tables import merge_learnt, share_of
from augloader.feedback.strength import Constant, StrengthRule, require_rule
from augloader.feedback.table import SampleTable
from augloader.loading.dataset import WeightedAugmentedDataset
from augloader.selection.strategy import Strategy, require_needs

Base = Literal["full", "random", "selected", "none"]
Weighting = Literal["cluster", "uniform", "population", "downweight"]
Plan = tuple[np.ndarray[Any, Any], ...]  # index, copy, weight, strength and weak of draws
_VERSION = 2  # of saved states
# What changes from epoch to epoch:
_STATE = ("epoch", "selection", "strengths", "_refreshed", "_start", "_plan", "_loaded", "_passed")
# Independent random streams:
_SELECT, _SUBSET, _SHUFFLE, _STRENGTH, _STRONG, _WEAK = range(6)


class CoresetSampler(Sampler[Draw]):
    """Yield each epoch's draws: a base at strength 0, and strong copies of the selected samples.

    An epoch is the base and r copies of each of the k selected samples, shuffled together. A copy
    weighs gamma_j k / (n r), gamma_j the number of samples that j stands for, 1 / r on average; a
    base draw weighs 1. All weights are then scaled to mean 1, so that a fraction does not change
    the loss.

    What it yields depends on (seed, epoch, selection, strengths) alone: not on workers, ranks or
    history. The strengths of the copies, ``sampler.strengths``, (n,) float32, are computed where an
    epoch begins, in ``set_epoch``, from what was reported until then, and hold for all of it.

    On several ranks every rank's sampler yields the whole epoch. accelerate shards it by itself,
    each draw once with ``multiple``; for Lightning, and where nothing shards, take
    ``DistributedCoresetSampler``. With a ``group`` each rank sweeps and reports its share only, and
    the ranks select together.

    Args:
        data: the dataset; only its length is read, and of a WeightedAugmentedDataset ``copies``.
        strategy: how samples are selected, as ``FacilityLocation()``.
        fraction: share of the data to select, in (0, 1], or a schedule of it, read at the first
            epoch of each refresh period; or else
        count: number of samples to select, 1 to n.
        base: "full": every sample; "random": a random subset, drawn again with each refresh
            period; "selected": the selected samples; "none": nothing but the copies.
        base_fraction: size of the random subset as a share of n; None takes the selection's.
        copies: r; 0 augments the selected samples in place instead of appending copies.
        refresh: when to select again. Before the first selection an epoch is the base alone
            (every sample where the base is "selected" or "none"), with weight 1.
        weighting: "cluster" as above; "uniform": every draw weighs 1, which trained as well or
            better in benchmarks/papers.py; "population": copies weigh gamma_j / r and base draws n
            / (size of the base), so that the copies weigh together as much as the base, however few
            they are, as Eq. 10 reads: small fractions then train badly there; or "downweight": the
            draws of a sample share the weight of one, 1 / |f_T(z)| each (Kuchnik & Smith, section
            4.2).
        strength: the rule of how strongly each sample's copies are augmented, as
            ``StableInfluence()``; base draws have strength 0 under every rule.
        epochs: how many epochs are planned; None plans no end. Schedules need it.
        schedule: factor of all strengths, as ``SwitchOff(last=20)`` for refinement (He et al.): a
            schedule or a number in [0, 1]. It carries over to mixing, which follows the strength.
        probability: of a draw that would be strong to be so, drawn for each; else it has strength
            0. A schedule or a number.
        plain_copies: whether draws of selected samples whose strength comes to 0 stay as they are:
            appended copies are then plain repetitions, and keep the selection's weights. False
            leaves such copies out, and in place gives them the weight of the base, so that an
            epoch of refinement is the base itself.
        weak: probability of a draw to get the dataset's weak transform. A schedule or a number;
            ``SwitchOff(last=20)`` refines without weak augmentation, too.
        multiple: the epoch is filled up to a multiple of this many draws, with its first ones at
            weight 0. The batch size: else a last batch of a few rows takes a step as large as any
            other; or drop it (``DataLoader(drop_last=True)``). Ranks x batch size where a framework
            shards batches (accelerate), which would train on some draws twice.
        seed: 0 or more.
        table_dtype: torch.float32 or torch.float16, how reported values are kept.
        group: the ranks whose reports and selection are one. All of them call ``refresh`` and, if
            the rule or ``Forgetting`` learns from reports, ``set_epoch``; where they disagree all
            raise the same error. A sampler with a group cannot be pickled or copied.

    Raises:
        TypeError: data without ``__len__``, a strategy or rule that is none, wrong types.
        ValueError: an empty dataset, not exactly one of fraction and count, values out of range,
            schedules without epochs or longer than these.

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

    def __init__(
        self,
        data: Any,
        strategy: Strategy,
        *,
        fraction: Schedule | float | None = None,
        count: int | None = None,
        base: Base = "full",
        base_fraction: float | None = None,
        copies: int = 1,
        refresh: Every = Every(1),  # noqa: B008 - frozen
        weighting: Weighting = "cluster",
        strength: StrengthRule = Constant(),  # noqa: B008 - frozen
        epochs: int | None = None,
        schedule: Schedule | float = 1.0,
        probability: Schedule | float = 1.0,
        plain_copies: bool = True,
        weak: Schedule | float = 1.0,
        multiple: int = 1,
        seed: int = 0,
        table_dtype: torch.dtype = torch.float32,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = None if group is None else collectives.require_group(group)
        self.n = require_dataset(data)
        self.strategy = _check_strategy(strategy)
        self.epochs = epochs
        if epochs is not None:
            require_int("epochs", epochs, 1, "Plan at least one epoch.")
        self._share = _share(self.n, fraction, count, epochs)
        self._schedule = Course.of("schedule", schedule, epochs)
        self._probability = Course.of("probability", probability, epochs)
        self._weak = Course.of("weak", weak, epochs)
        require_one_of("base", base, get_args(Base))
        self.base: Base = base
        if not isinstance(plain_copies, bool):
            raise TypeError(f"plain_copies must be True or False, got {plain_copies!r}. Pass one.")
        if base == "none" and not plain_copies:
            raise ValueError(
                'plain_copies must be True with base="none", got False. An epoch without strong '
                "augmentation would be empty."
            )
        self.plain_copies = plain_copies
        if base_fraction is not None and base != "random":
            raise ValueError(
                f'base_fraction must come with base="random", got base={base!r}. Leave it out.'
            )
        self._base_share = None if base_fraction is None else _size(self.n, base_fraction)
        self.copies = require_int("copies", copies, 0, "0 augments in place.")
        wanted = data.copies if isinstance(data, WeightedAugmentedDataset) else None
        if wanted is not None and copies != wanted:
            raise ValueError(
                f"copies must be {wanted}, the number of transforms in the dataset's strong, got "
                f"{copies}. Pass copies={wanted}, or fewer transforms."
            )
        if not isinstance(refresh, Every):
            raise TypeError(f"refresh must be an Every, got {refresh!r}. Pass Every(20).")
        self.every = refresh
        require_one_of("weighting", weighting, get_args(Weighting))
        self.weighting: Weighting = weighting
        self.multiple = require_int("multiple", multiple, 1, "1 adds nothing.")
        self.seed = require_int("seed", seed, 0, "Any whole number will do.")
        rule = require_rule("strength", strength)
        counting = "forgetting" in strategy.needs
        if counting and (base != "full" or copies == 0):
            raise ValueError(
                'base must be "full" and copies 1 or more to count forgetting, got '
                f"base={base!r} and copies={copies}. Other epochs lack clean views of some samples."
            )
        self.table = SampleTable(self.n, dtype=table_dtype, rule=rule, forgetting=counting)
        self.selection: Selection | None = None
        self._refreshed: int | None = None  # epoch of the last refresh
        self._loaded = False  # whether the epoch was loaded, or begun within
        self._passed: dict[str, Any] = {}  # what an earlier epoch was loaded over
        self._begin(0)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0, with the strengths that the rule finds now.

        The length may change here and in ``refresh`` only. After ``load_state_dict`` calls with the
        loaded epoch go on with it, so that a resumed loop needs no other code.

        Args:
            epoch: 0 or more.

        Raises:
            TypeError: not an integer.
            ValueError: below 0, or beyond the planned epochs; ranks that disagree on it.

        Cost: O(n), and the rule's; with a group also the exchange of the rule's columns.
        """
        resumed = self._loaded and epoch == self.epoch
        if self.group is not None:
            self._meet(epoch, resumed, self.group)
        with self._unchanged():
            self._passed = {}
            if not resumed:
                self._loaded = False
                self._begin(epoch)

    def _meet(self, epoch: int, resumed: bool, group: dist.ProcessGroup) -> None:
        """Make what was learnt from reports the same on all ranks, where an epoch begins."""
        if self.table.learns:
            collectives.require_same({"epoch": f"{epoch}, resumed" if resumed else epoch}, group)
            if not resumed:
                merge_learnt(self.table, group)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Put everything back where something is raised, Ctrl-C too."""
        before = {name: getattr(self, name) for name in _STATE}
        try:
            yield
        except BaseException:
            self.__dict__.update(before)
            raise

    def _begin(self, epoch: int) -> None:
        epoch = require_int("epoch", epoch, 0, "Epochs count from 0.")
        if self.epochs is not None:
            require_planned(epoch, self.epochs)
        strengths = self.table.strengths(self._generator(_STRENGTH, epoch))
        factor = self._schedule.at(epoch)
        self.strengths = strengths if factor == 1 else strengths * factor
        self.epoch = epoch
        self._start = 0  # draws of this epoch that were made before a resume
        self._plan = self._compose()

    @property
    def budget(self) -> int:
        """How many samples are selected in this epoch's refresh period."""
        if isinstance(self._share, int):
            return self._share
        return _size(self.n, self._share.at(self.every.begin(self.epoch)))

    @property
    def base_size(self) -> int:
        """How many samples the base has, before augmentation in place."""
        if self.base != "random":
            return self.n
        return self.budget if self._base_share is None else self._base_share

    @property
    def refresh_due(self) -> bool:
        """Whether the schedule asks for a new selection before this epoch is drawn.

        Never where the rest of its refresh period has no strong draw, as in refinement, and no part
        of the base is what was selected.
        """
        period = self.every.period(self.epoch)
        if period is None or self._idle:
            return False
        return self._refreshed is None or self.every.period(self._refreshed) != period

    @property
    def _idle(self) -> bool:
        """Whether what is selected matters in no epoch from this one on to the period's end."""
        end = self.epoch + 1
        if self.epochs is not None:
            interval = self.every.interval or self.epochs
            end = min(self.every.begin(self.epoch) + interval, self.epochs)
        return not any(map(self._matters, range(self.epoch, end)))

    def _matters(self, epoch: int) -> bool:
        """Whether an epoch may have strong draws, or has a base of what was selected."""
        strong = self._schedule.at(epoch) > 0 and self._probability.at(epoch) > 0
        return strong or self.base not in ("full", "random")

    def refresh(self, evidence: Evidence | None = None) -> Selection:
        """Select anew, at this epoch, whether due or not. Nothing changes if it raises.

        Args:
            evidence: as ``sweep(model, data, Residual())`` returns it. None takes what was
                reported since the last refresh, without a forward pass; every sample must have been
                reported, which base="full" does. With a group: this rank's share of either.

        Returns:
            The selection, also kept as ``sampler.selection``.

        Raises:
            ValueError: evidence of another n, or without what the strategy needs; a share without a
                group; ranks that disagree, on all ranks alike.

        Cost: the strategy's; with a group see ``augloader.distributed.selection``.
        """
        generator = self._generator(_SELECT, self.epoch)
        if self.group is None:
            known = self.table.evidence(self.strategy.needs) if evidence is None else evidence
            known = self._with_known(known)
            selection = self.strategy.select(known, self.budget, generator=generator)
        else:
            selection = self._select_together(evidence, generator, self.group)
        self._check_selection(selection)
        with self._unchanged():
            self.selection, self._refreshed = selection, self.epoch
            self._plan = self._compose()
            self.table.restart()
        return selection

    def _select_together(
        self, evidence: Evidence | None, generator: np.random.Generator, group: dist.ProcessGroup
    ) -> Selection:
        what = "of reports" if evidence is None else "given"
        same = {"strategy": self.strategy, "epoch": self.epoch, "evidence": what}
        same["epochs"] = self.epochs
        collectives.require_same({**self._arguments(), **same}, group)
        if evidence is None:
            evidence = share_of(self.table, self.strategy.needs, group)
        known = collectives.attempt(partial(self._with_known, evidence), group)
        return select_together(self.strategy, known, self.budget, group=group, generator=generator)

    def _with_known(self, evidence: Evidence) -> Evidence:
        """Add what the sampler knows: what is selected now, and what was forgotten."""
        if evidence.n != self.n:
            raise ValueError(
                f"evidence must be of the sampler's {self.n} samples, got {evidence.n}. "
                "Sweep the data set that the sampler was built on."
            )
        if self.group is None:
            evidence.require_whole()
        chosen, counts = self.selection, self.table.forgetting
        if evidence.forgetting is None and counts is not None:
            rows = slice(None) if evidence.indices is None else evidence.indices.cpu()
            evidence = replace(evidence, forgetting=counts[rows])
        return evidence if chosen is None else replace(evidence, previous=chosen.indices)

    def report(
        self,
        batch: Sample,
        *,
        loss: Tensor | None = None,
        logits: Tensor | None = None,
        proxy: Tensor | None = None,
        target: Tensor | None = None,
    ) -> None:
        """Tell the table what a training step found out; call it once a batch.

        Of a sample's draws in the batch the one with the lowest strength counts. Rows that were
        mixed with others are left out, as their outputs are no evidence of one sample, and so are
        rows of weight 0, which only fill up an epoch.

        Args:
            batch: the Sample batch that the loader gave, on any device.
            loss: (b,) losses with reduction="none", or None.
            logits: (b, C) or None; with them the target must be (b,) class labels, or what mixing
                made of them.
            proxy: (b, d) gradient proxies or embeddings of your own, or None.
            target: (b,) class labels, or groups of your own to select by; None takes the batch's
                where logits are given.

        Raises:
            TypeError: batch is not a Sample.
            ValueError: wrong lengths, the same draw twice, indices out of range, values that are
                NaN or infinite. Nothing has changed then.

        Cost: O(b C), and waiting for the values' device.
        """
        if not isinstance(batch, Sample) or not isinstance(batch.index, Tensor):
            raise TypeError(
                f"batch must be the Sample batch of the loader, got {type(batch).__name__}. "
                "Report other batches with sampler.table.report(index, ...)."
            )
        known = [part.cpu() for part in (batch.index, batch.copy, batch.strength)]
        index, copied, strength = (part.numpy() for part in known)
        given = {"losses": loss, "logits": logits, "proxies": proxy, "labels": target}
        flags = [torch.as_tensor(part).cpu().bool() for part in (batch.mixed, batch.weight)]
        for name, flag in zip(("mixed", "weight"), flags, strict=True):
            if flag.shape not in ((), index.shape):
                raise ValueError(
                    f"{name} must have {len(index)} rows, as the batch, got shape "
                    f"{tuple(flag.shape)}. Pass the batch as it was mixed."
                )
        mixed, weighed = (flag.expand(len(index)).numpy() for flag in flags)
        if logits is not None and target is None:
            given["labels"] = batch.target
        for name, values in given.items():
            if values is not None and not isinstance(values, Tensor):
                raise TypeError(
                    f"{name} must be a tensor, got {type(values).__name__}. Report tensors with a "
                    "row a sample."
                )
            if values is not None and values.shape[:1] != index.shape:
                raise ValueError(
                    f"{name} must have {len(index)} rows, as the batch, got shape "
                    f'{tuple(values.shape)}. Compute the loss with reduction="none".'
                )
        names = (index * (copied.max(initial=0) + 1) + copied)[weighed]
        if len(np.unique(names)) < len(names):
            raise ValueError(
                "batch must hold each (index, copy) once, got repeated draws. Report every batch "
                "once, as the loader gave it."
            )
        order = np.lexsort((strength, index))
        order = order[(weighed & ~mixed)[order]]
        if not len(order):
            return
        _, first = np.unique(index[order], return_index=True)
        rows = torch.from_numpy(order[first])
        picked = {k: None if v is None else v.detach().cpu()[rows] for k, v in given.items()}
        labels = picked.get("labels")
        if labels is not None:
            picked["labels"] = _labels(labels)
        self.table.report(known[0][rows], strength=known[2][rows], **picked)

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
        return _Draws(self)

    def _rest(self) -> Plan:
        """Return the epoch's draws in order, without those made before a resume."""
        return self._at(np.arange(self._start, self._length))

    def _at(self, places: np.ndarray[Any, Any]) -> Plan:
        """Return some draws of the epoch; beyond the last come the first again, at weight 0."""
        plan = self._planned()
        whole = len(plan[0])
        order = self._generator(_SHUFFLE, self.epoch).permutation(whole)[places % max(whole, 1)]
        index, copies, weight, *others = (column[order] for column in plan)
        return index, copies, np.where(places < whole, weight, np.float32(0)), *others

    def _go_on(self, yielded: int) -> None:
        """Leave out the draws that a loader says it was given of the epoch just loaded.

        All of them where it is over: where ``set_epoch`` had begun a later one, that one goes on.
        """
        if self._passed:
            self.__dict__.update(self._passed)
        else:
            self._start += self._used(yielded)

    @property
    def _length(self) -> int:
        """The length of the whole epoch."""
        return ceil(len(self._planned()[0]) / self.multiple) * self.multiple

    def __len__(self) -> int:
        """Return the number of draws that ``__iter__`` yields.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        return self._length - self._start

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
        self._start, self._loaded = draws, True

    def state_dict(self, consumed: int = 0) -> dict[str, Any]:
        """Return what the draws depend on, strengths too; O(1), never mutated.

        Reports are the table's: save ``sampler.table.state_dict()`` beside it. Give the loader a
        ``generator`` of its own: starting it draws from torch's global stream else, and a resumed
        epoch starts it once more.

        Args:
            consumed: draws that training used since the loader was last started, batches x batch
                size (of this rank), all of them where the epoch is over: a plain loader's workers
                have fetched more than these. 0 where torchdata's StatefulDataLoader counts; load
                both states then.
        """
        chosen = self.selection
        return {
            "version": _VERSION,
            "arguments": self._arguments(),
            "epoch": self.epoch,
            "start": self._start + self._used(consumed),
            "refreshed": self._refreshed,
            "selection": None if chosen is None else (chosen.indices, chosen.weights),
            "strengths": self.strengths,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the sampler must be built with the same arguments.

        The rest of the epoch has the strengths it began with, whatever was reported since. Loop
        over ``range(sampler.epoch, epochs)`` then.

        Raises:
            ValueError: a state saved with other arguments, of an epoch that is not planned, of
                another version, or not whole. Nothing has changed then.
        """
        require_state("the sampler", state, _VERSION, self.state_dict().keys())
        mine, saved = self._arguments(), state["arguments"]
        names = [name for name in mine if saved.get(name) != mine[name]]
        if names:
            ours, theirs = (
                ", ".join(f"{name}={given.get(name)}" for name in names) for given in (mine, saved)
            )
            raise ValueError(
                f"state must be of a sampler with {ours}, got {theirs}. "
                "Build the sampler as it was built when saved."
            )
        if self.epochs is not None:
            require_planned(state["epoch"], self.epochs)
        chosen, before = state["selection"], {name: getattr(self, name) for name in _STATE}
        with self._unchanged():
            self.selection = None if chosen is None else Selection(*chosen)
            self._refreshed = state["refreshed"]
            self.epoch, self._start = state["epoch"], state["start"]
            self.strengths = state["strengths"]
            self._plan = self._compose()
            self._loaded = True
            self._passed = before if before["epoch"] > self.epoch else {}

    def _used(self, consumed: int) -> int:
        """Return how many draws of the whole epoch are used up by some of this rank's."""
        require_int("consumed", consumed, 0, "Count the draws since the loader was started.")
        return min(int(consumed), self._length - self._start) if consumed else 0

    def _arguments(self) -> dict[str, Any]:
        """Return what the draws depend on beside the state, in plain values."""
        return {
            "n": self.n,
            "seed": self.seed,
            "count" if isinstance(self._share, int) else "fraction": str(self._share),
            "base": self.base,
            "base_share": self._base_share,
            "copies": self.copies,
            "interval": self.every.interval,
            "warmup": self.every.warmup,
            "weighting": self.weighting,
            "strength": repr(self.table.rule),
            "schedule": str(self._schedule),
            "probability": str(self._probability),
            "plain_copies": self.plain_copies,
            "multiple": self.multiple,
            "weak": str(self._weak),
        }

    def _generator(self, stream: int, epoch: int) -> np.random.Generator:
        """Return a generator from a hash of (seed, stream, epoch), never from a sum of them."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, epoch)))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle and copy; a process group has no place in it."""
        if self.group is not None:
            raise TypeError(
                "sampler must be without a process group to be pickled or copied, got one. Save "
                "sampler.state_dict(), and give workers the dataset alone."
            )
        return self.__dict__

    def _planned(self) -> Plan:
        if self.selection is None and self.refresh_due:
            raise RuntimeError(
                f"sampler must have a selection from epoch {self.every.warmup} on, got none at "
                f"epoch {self.epoch}. Before iterating: if sampler.refresh_due: "
                "sampler.refresh(sweep(model, data, Residual()))."
            )
        return self._plan

    def _compose(self) -> Plan:
        """Return index, copy, weight, strength and weak of the epoch's draws, before shuffling."""
        if self.base == "random":
            period = self.every.period(self.epoch)
            generator = self._generator(_SUBSET, 0 if period is None else period + 1)
            base = np.sort(generator.choice(self.n, self.base_size, replace=False))
        else:
            base = np.arange(self.n)
        population = self.weighting == "population"
        each = self.n / len(base) if population else 1.0  # what a base draw weighs
        base_weight = np.full(len(base), each)
        if self.selection is None:
            chosen, gamma = base[:0], base_weight[:0]
        else:
            chosen = self.selection.indices.numpy()
            gamma = self.selection.weights.numpy().astype(np.float64)
            gamma = gamma if population else gamma * len(chosen) / self.n
            if self.base == "selected":
                base, base_weight = chosen, gamma
            elif self.base == "none":
                base, base_weight = chosen[:0], gamma[:0]
            if self.copies == 0:
                kept = ~np.isin(base, chosen)
                base, base_weight = base[kept], base_weight[kept]
        copy = np.arange(1, self.copies + 1) if self.copies else np.zeros(1, np.int64)
        index = np.concatenate([base, np.tile(chosen, len(copy))])
        copies = np.concatenate([np.zeros(len(base), np.int64), np.repeat(copy, len(chosen))])
        weight = np.concatenate([base_weight, np.tile(gamma / len(copy), len(copy))])
        strength = self.strengths.numpy()[index]
        strength[: len(base)] = 0
        strength[~self._drawn(_STRONG, self._probability, len(index))] = 0
        if not self.plain_copies:
            plain = (np.arange(len(index)) >= len(base)) & (strength == 0)
            if self.base in ("full", "random"):
                weight[plain] = each
            kept = (copies == 0) | ~plain
            index, copies, weight, strength = (
                column[kept] for column in (index, copies, weight, strength)
            )
        if self.weighting == "uniform":
            weight = np.ones(len(index))
        elif self.weighting == "downweight":
            weight = 1 / np.bincount(index, minlength=1)[index]
        weight = (weight / weight.mean()).astype(np.float32)
        return index, copies, weight, strength, self._drawn(_WEAK, self._weak, len(index))

    def _drawn(self, stream: int, course: Course, count: int) -> np.ndarray[Any, Any]:
        """Return which of the draws get what has this epoch's probability."""
        chance = course.at(self.epoch)
        if chance in (0, 1):
            return np.full(count, chance == 1)
        drawn: np.ndarray[Any, Any] = self._generator(stream, self.epoch).random(count) < chance
        return drawn

    def _check_selection(self, selection: Selection) -> None:
        if len(selection) > self.budget or int(selection.indices.max()) >= self.n:
            raise ValueError(
                f"strategy must select at most {self.budget} of {self.n} samples, got "
                f"{len(selection)} with indices up to {int(selection.indices.max())}. "
                "Mend its select method."
            )


class _Draws(chain):  # type: ignore[type-arg]
    """The draws of an epoch, which know how far they got: torchdata saves and loads that.

    A chain of one map, for a ``__next__`` in C: it is called for every draw.
    """

    _sampler: CoresetSampler
    _given: dict[str, Any]
    _count: int
    _left: Any  # an iterator that knows how much of it is left

    def __new__(cls, sampler: CoresetSampler) -> _Draws:
        """Return the draws that the sampler has left."""
        given: dict[str, Any] = {}  # may change until the first draw is asked for

        def draws() -> Iterator[Any]:
            yield map(Draw, *given["columns"])

        made: Any = cls.from_iterable(draws())
        made._given, made._sampler = given, sampler
        made._fill()
        return cast(_Draws, made)

    def _fill(self) -> None:
        index, *columns, weak = (column.tolist() for column in self._sampler._rest())
        self._count, self._left = len(index), iter(index)
        epoch = repeat(self._sampler.epoch)
        self._given["columns"] = (self._left, *columns, epoch, weak)

    def state_dict(self) -> dict[str, int]:
        """Return how many draws were yielded, of those that the sampler's state leaves."""
        return {"yielded": self._count - self._left.__length_hint__()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the loader was that saved this; its sampler's state was loaded before."""
        self._sampler._go_on(state["yielded"])
        self._fill()


def _share(
    n: int, fraction: Schedule | float | None, count: int | None, epochs: int | None
) -> Course | int:
    """Return how many samples to select: a number, or a course of the fraction."""
    if (fraction is None) == (count is None):
        raise ValueError(
            f"exactly one of fraction and count must be given, got fraction={fraction} and "
            f"count={count}. Pass fraction=0.3 or a number of samples."
        )
    if fraction is not None:
        if not callable(fraction):
            require_fraction("fraction", fraction)
        course = Course.of("fraction", fraction, epochs)
        if min(course.values) == 0:
            raise ValueError(
                f"fraction must be in (0, 1] at every epoch, got 0 at {course.values.index(0)}. To "
                "augment nothing schedule the strength or the probability."
            )
        return course
    if require_int("count", count, 1, "Select at least one sample.") > n:
        raise ValueError(
            f"count must be at most the {n} samples of the dataset, got {count}. "
            "Select fewer, or all with fraction=1.0."
        )
    assert count is not None
    return int(count)


def _size(n: int, fraction: float) -> int:
    """Return the number of samples that a share of the data is, at least 1."""
    return max(1, round(require_fraction("fraction", fraction) * n))


def _labels(target: Tensor) -> Tensor:
    """Return class labels where mixing made one-hot rows of them, and anything else as it is."""
    if target.ndim != 2 or not ((target != 0).sum(1) == 1).all() or not (target.amax(1) == 1).all():
        return target
    return target.argmax(1)


def _check_strategy(strategy: Any) -> Strategy:
    if isinstance(strategy, type) or not isinstance(strategy, Strategy):
        raise TypeError(
            f"strategy must be an object with needs and select, got {strategy!r}. "
            "Pass an instance, as FacilityLocation()."
        )
    require_needs("strategy.needs", strategy.needs)
    return strategy
