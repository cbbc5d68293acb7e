"""The sampler: a selection in, the draws of an epoch out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from augloader.checks import (
    require_dataset,
    require_fraction,
    require_int,
    require_one_of,
)
from augloader.schedule import Every
from augloader.strategies import EVIDENCE, Strategy
from augloader.strength import Constant, StrengthRule, require_rule
from augloader.table import SampleTable
from augloader.types import Draw, Evidence, Sample, Selection

Base = Literal["full", "random", "selected", "none"]
Weighting = Literal["cluster", "uniform"]
_SELECT, _SUBSET, _SHUFFLE, _STRENGTH = range(4)  # independent random streams


class CoresetSampler(Sampler[Draw]):
    """Yield each epoch's draws: a base at strength 0, and strong copies of the selected samples.

    An epoch is the base and r copies of each of the k selected samples, shuffled together. A copy
    weighs gamma_j / r (gamma_j: number of samples that j stands for), a base draw n / (size of the
    base); all weights are then scaled to mean 1, so that a fraction does not change the loss.

    What it yields depends on (seed, epoch, selection, strengths) alone: not on workers, ranks or
    history. The strengths of the copies, ``sampler.strengths``, (n,) float32, are computed where an
    epoch begins, in ``set_epoch``, from what was reported until then, and hold for all of it.

    Args:
        data: the dataset; only its length is read.
        strategy: how samples are selected, as ``FacilityLocation()``.
        fraction: share of the data to select, in (0, 1]; or else
        count: number of samples to select, 1 to n.
        base: "full": every sample; "random": a random subset, drawn again with each refresh
            period; "selected": the selected samples; "none": nothing but the copies.
        base_fraction: size of the random subset as a share of n; None takes the selection's.
        copies: r; 0 augments the selected samples in place instead of appending copies.
        refresh: when to select again. Before the first selection an epoch is the base alone
            (every sample where the base is "selected" or "none"), with weight 1.
        weighting: "cluster" as above, or "uniform": every draw weighs 1.
        strength: the rule of how strongly each sample's copies are augmented, as
            ``StableInfluence()``; base draws have strength 0 under every rule.
        seed: 0 or more.
        table_dtype: torch.float32 or torch.float16, how reported values are kept.

    Raises:
        TypeError: data without ``__len__``, a strategy or rule that is none, wrong types.
        ValueError: an empty dataset, not exactly one of fraction and count, values out of range.

    Memory: O(n), and the table's.

    Example:
        >>> from augloader.strategies import Uniform
        >>> sampler = CoresetSampler(range(10), Uniform(), fraction=0.2, seed=0)
        >>> sampler.set_epoch(0)
        >>> if sampler.refresh_due:
        ...     _ = sampler.refresh()
        >>> draws = list(sampler)
        >>> len(sampler), sum(draw.strength > 0 for draw in draws)
        (12, 2)

    Source: Liu & Mirzasoleiman (2022), Alg. 1, Eq. 10 and sections 6.1-6.3.
    """

    def __init__(
        self,
        data: Any,
        strategy: Strategy,
        *,
        fraction: float | None = None,
        count: int | None = None,
        base: Base = "full",
        base_fraction: float | None = None,
        copies: int = 1,
        refresh: Every = Every(1),  # noqa: B008 - frozen
        weighting: Weighting = "cluster",
        strength: StrengthRule = Constant(),  # noqa: B008 - frozen
        seed: int = 0,
        table_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.n = require_dataset(data)
        self.strategy = _check_strategy(strategy)
        self.budget = _budget(self.n, fraction, count)
        require_one_of("base", base, ("full", "random", "selected", "none"))
        self.base: Base = base
        if base_fraction is not None and base != "random":
            raise ValueError(
                f'base_fraction must come with base="random", got base={base!r}. Leave it out.'
            )
        share = self.budget if base_fraction is None else _budget(self.n, base_fraction, None)
        self.base_size = share if base == "random" else self.n
        self.copies = require_int("copies", copies, 0, "0 augments in place.")
        if not isinstance(refresh, Every):
            raise TypeError(f"refresh must be an Every, got {refresh!r}. Pass Every(20).")
        self.schedule = refresh
        require_one_of("weighting", weighting, ("cluster", "uniform"))
        self.weighting: Weighting = weighting
        self.seed = require_int("seed", seed, 0, "Any whole number will do.")
        rule = require_rule("strength", strength)
        self.table = SampleTable(self.n, dtype=table_dtype, rule=rule)
        self.selection: Selection | None = None
        self._refreshed: int | None = None  # epoch of the last refresh
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0, with the strengths that the rule finds now.

        The length may change here and in ``refresh`` only.

        Args:
            epoch: 0 or more.

        Raises:
            TypeError: not an integer.
            ValueError: below 0.

        Cost: O(n), and the rule's.
        """
        epoch = require_int("epoch", epoch, 0, "Epochs count from 0.")
        self.strengths = self.table.strengths(self._generator(_STRENGTH, epoch))
        self.epoch = epoch
        self._start = 0  # draws of this epoch that were made before a resume
        self._plan = self._compose()

    @property
    def refresh_due(self) -> bool:
        """Whether the schedule asks for a new selection before this epoch is drawn."""
        period = self.schedule.period(self.epoch)
        if period is None:
            return False
        return self._refreshed is None or self.schedule.period(self._refreshed) != period

    def refresh(self, evidence: Evidence | None = None) -> Selection:
        """Select anew, at this epoch, whether due or not. Nothing changes if it raises.

        Args:
            evidence: as ``sweep(model, data, Residual())`` returns it. None takes what was
                reported since the last refresh, without a forward pass; every sample must have been
                reported, which base="full" does.

        Returns:
            The selection, also kept as ``sampler.selection``.

        Raises:
            ValueError: evidence of another n, or without what the strategy needs.

        Cost: the strategy's.
        """
        if evidence is None:
            evidence = self.table.evidence(self.strategy.needs)
        if evidence.n != self.n:
            raise ValueError(
                f"evidence must be of the sampler's {self.n} samples, got {evidence.n}. "
                "Sweep the data set that the sampler was built on."
            )
        if self.selection is not None:
            evidence = replace(evidence, previous=self.selection.indices)
        generator = self._generator(_SELECT, self.epoch)
        selection = self.strategy.select(evidence, self.budget, generator=generator)
        self._check_selection(selection)
        self.selection = selection
        self._refreshed = self.epoch
        self.table.restart()
        self._plan = self._compose()
        return selection

    def report(
        self, batch: Sample, *, loss: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        """Tell the table what a training step found out; call it once a batch.

        Of a sample's draws in the batch the one with the lowest strength counts.

        Args:
            batch: the Sample batch that the loader gave, on any device.
            loss: (b,) losses with reduction="none", or None.
            logits: (b, C) or None; with them the batch's target must be (b,) class labels.

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
        order = np.lexsort((copied, index))
        if ((np.diff(index[order]) == 0) & (np.diff(copied[order]) == 0)).any():
            raise ValueError(
                "batch must hold each (index, copy) once, got repeated draws. Report every batch "
                "once, as the loader gave it."
            )
        given = {"losses": loss, "logits": logits}
        if logits is not None:
            given["labels"] = batch.target
        for name, values in given.items():
            if values is not None and values.shape[:1] != index.shape:
                raise ValueError(
                    f"{name} must have {len(index)} rows, as the batch, got shape "
                    f'{tuple(values.shape)}. Compute the loss with reduction="none".'
                )
        order = np.lexsort((strength, index))
        _, first = np.unique(index[order], return_index=True)
        rows = torch.from_numpy(order[first])
        picked = {k: None if v is None else v.detach().cpu()[rows] for k, v in given.items()}
        self.table.report(known[0][rows], strength=known[2][rows], **picked)

    def __iter__(self) -> Iterator[Draw]:
        """Yield the draws of this epoch; a pure function of the sampler's state.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        plan = self._planned()
        order = self._generator(_SHUFFLE, self.epoch).permutation(len(plan[0]))[self._start :]
        yield from map(Draw, *(column[order].tolist() for column in plan), repeat(self.epoch))

    def __len__(self) -> int:
        """Return the number of draws that ``__iter__`` yields.

        Raises:
            RuntimeError: the first selection is due and was not made.
        """
        return len(self._planned()[0]) - self._start

    def skip(self, draws: int) -> None:
        """Leave out the first draws of this epoch, made before a resume; ``set_epoch`` ends it.

        Args:
            draws: number of draws, 0 to the length of the epoch: batches done x batch size.
        """
        whole = len(self._planned()[0])
        if require_int("draws", draws, 0, "Count the draws that were made.") > whole:
            raise ValueError(
                f"draws must be at most {whole}, the epoch's length, got {draws}. "
                "Count the draws of this epoch only."
            )
        self._start = draws

    def state_dict(self) -> dict[str, Any]:
        """Return what the draws depend on, strengths too; O(1), never mutated.

        Reports are the table's: save ``sampler.table.state_dict()`` beside it.
        """
        chosen = self.selection
        return {
            "arguments": self._arguments(),
            "epoch": self.epoch,
            "start": self._start,
            "refreshed": self._refreshed,
            "selection": None if chosen is None else (chosen.indices, chosen.weights),
            "strengths": self.strengths,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the sampler must be built with the same arguments.

        The rest of the epoch has the strengths it began with, whatever was reported since.

        Raises:
            ValueError: a state saved with other arguments. Nothing has changed then.
        """
        mine, saved = self._arguments(), state["arguments"]
        differ = [f"{name}={saved.get(name)}" for name in mine if saved.get(name) != mine[name]]
        if differ:
            ours = ", ".join(f"{name}={value}" for name, value in mine.items())
            raise ValueError(
                f"state must be of a sampler with {ours}, got {', '.join(differ)}. "
                "Build the sampler as it was built when saved."
            )
        chosen = state["selection"]
        self.selection = None if chosen is None else Selection(*chosen)
        self._refreshed = state["refreshed"]
        self.epoch, self._start = state["epoch"], state["start"]
        self.strengths = state["strengths"]
        self._plan = self._compose()

    def _arguments(self) -> dict[str, Any]:
        """Return what the draws depend on beside the state, in plain values."""
        return {
            "n": self.n,
            "seed": self.seed,
            "budget": self.budget,
            "base": self.base,
            "base_size": self.base_size,
            "copies": self.copies,
            "interval": self.schedule.interval,
            "warmup": self.schedule.warmup,
            "weighting": self.weighting,
            "strength": repr(self.table.rule),
        }

    def _generator(self, stream: int, epoch: int) -> np.random.Generator:
        """Return a generator from a hash of (seed, stream, epoch), never from a sum of them."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, epoch)))

    def _planned(self) -> tuple[np.ndarray[Any, Any], ...]:
        if self.selection is None and self.schedule.period(self.epoch) is not None:
            raise RuntimeError(
                f"sampler must have a selection from epoch {self.schedule.warmup} on, got none at "
                f"epoch {self.epoch}. Before iterating: if sampler.refresh_due: "
                "sampler.refresh(sweep(model, data, Residual()))."
            )
        return self._plan

    def _compose(self) -> tuple[np.ndarray[Any, Any], ...]:
        """Return index, copy, weight and strength of the epoch's draws, before shuffling."""
        if self.base == "random":
            period = self.schedule.period(self.epoch)
            generator = self._generator(_SUBSET, 0 if period is None else period + 1)
            base = np.sort(generator.choice(self.n, self.base_size, replace=False))
        else:
            base = np.arange(self.n)
        base_weight = np.full(len(base), self.n / len(base))
        if self.selection is None:
            chosen, gamma = base[:0], base_weight[:0]
        else:
            chosen = self.selection.indices.numpy()
            gamma = self.selection.weights.numpy().astype(np.float64)
            if self.base == "selected":
                base, base_weight = chosen, gamma
            elif self.base == "none":
                base, base_weight = chosen[:0], gamma[:0]
            if self.copies == 0:
                kept = ~np.isin(base, chosen)
                base, base_weight = base[kept], base_weight[kept]
        copy = np.arange(1, self.copies + 1) if self.copies else np.zeros(1, np.int64)
        index = np.concatenate([base, np.tile(chosen, len(copy))])
        weight = np.concatenate([base_weight, np.tile(gamma / len(copy), len(copy))])
        if self.weighting == "uniform":
            weight = np.ones(len(index))
        strength = self.strengths.numpy()[index]
        strength[: len(base)] = 0
        copies = np.concatenate([np.zeros(len(base), np.int64), np.repeat(copy, len(chosen))])
        return index, copies, (weight / weight.mean()).astype(np.float32), strength

    def _check_selection(self, selection: Selection) -> None:
        if len(selection) > self.budget or int(selection.indices.max()) >= self.n:
            raise ValueError(
                f"strategy must select at most {self.budget} of {self.n} samples, got "
                f"{len(selection)} with indices up to {int(selection.indices.max())}. "
                "Mend its select method."
            )


def _budget(n: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise ValueError(
            f"exactly one of fraction and count must be given, got fraction={fraction} and "
            f"count={count}. Pass fraction=0.3 or a number of samples."
        )
    if fraction is not None:
        return max(1, round(require_fraction("fraction", fraction) * n))
    if require_int("count", count, 1, "Select at least one sample.") > n:
        raise ValueError(
            f"count must be at most the {n} samples of the dataset, got {count}. "
            "Select fewer, or all with fraction=1.0."
        )
    assert count is not None
    return count


def _check_strategy(strategy: Any) -> Strategy:
    if isinstance(strategy, type) or not isinstance(strategy, Strategy):
        raise TypeError(
            f"strategy must be an object with needs and select, got {strategy!r}. "
            "Pass an instance, as FacilityLocation()."
        )
    unknown = sorted(strategy.needs - set(EVIDENCE))
    if unknown:
        raise ValueError(
            f"strategy.needs must be among {', '.join(EVIDENCE)}, got {', '.join(unknown)}. "
            "Name the fields of Evidence."
        )
    return strategy
