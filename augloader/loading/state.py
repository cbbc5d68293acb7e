"""What changes in a sampler from epoch to epoch, and how it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from augloader.core.evidence import Selection
from augloader.core.fields import (
    Field,
    Maybe,
    Parts,
    Rows,
    Same,
    Whole,
    checksum,
    require_fields,
    require_parts,
    require_state,
    signed,
)
from augloader.loading.layout import Layout
from augloader.loading.plan import FORMER, EpochPlan

_VERSION = 4  # of saved states
_KEYS = {"version", "arguments", "epoch", "start", "refreshed", "selection", "strengths"}


@dataclass(frozen=True, eq=False)
class State:
    """What changes from epoch to epoch; a sampler swaps it whole, by one assignment.

    Attributes:
        epoch: the epoch that is drawn.
        strengths: (n,) float32, of every sample's copies in this epoch.
        draws: of the whole epoch, as the plan composes them.
        selection: None before the first.
        kept: the samples of a pruned base; None keeps all.
        refreshed: epoch of the last refresh.
        start: draws of this epoch that were made before a resume.
        resumed: whether the epoch was loaded, or begun within.
        overtaken: the state of a later epoch that this one was loaded over.
    """

    epoch: int
    strengths: Tensor
    draws: Layout
    selection: Selection | None = None
    refreshed: int | None = None
    kept: Selection | None = None
    start: int = 0
    resumed: bool = False
    overtaken: State | None = None

    def saved(self, arguments: dict[str, Any], used: int) -> dict[str, Any]:
        """Return the state in plain values and tensors.

        Args:
            arguments: what the draws depend on beside the state.
            used: how many more of the epoch's draws training has used.
        """
        state = {
            "version": _VERSION,
            "arguments": arguments,
            "epoch": self.epoch,
            "start": self.start + used,
            "refreshed": self.refreshed,
            **self._tensors,
        }
        return signed(state, self._checksums)

    @property
    def _tensors(self) -> dict[str, Any]:
        """What is saved and large."""
        chosen, kept = self.selection, self.kept
        return {
            "selection": None if chosen is None else (chosen.indices, chosen.weights),
            "strengths": self.strengths,
            # Where a base is pruned alone: states of before that was there can be read.
            **({} if kept is None else {"kept": (kept.indices, kept.weights)}),
        }

    @cached_property
    def _checksums(self) -> dict[str, int]:
        """Their checksums: a loader may ask for the state after every batch."""
        return {name: checksum(value) for name, value in self._tensors.items()}

    def restored(self, plan: EpochPlan, arguments: dict[str, Any], saved: dict[str, Any]) -> State:
        """Return the state that was saved; this one is what it is loaded over.

        Raises:
            ValueError: saved with other arguments, of an epoch that is not planned, of a version
                that cannot be read, or not whole.
        """
        saved = require_state("the sampler", saved, _VERSION, _KEYS, _STEPS)
        theirs = saved["arguments"] if isinstance(saved["arguments"], Mapping) else {}
        names = [*arguments, *(name for name in theirs if name not in arguments)]
        names = [name for name in names if theirs.get(name) != arguments.get(name)]
        if names:
            ours, got = (
                ", ".join(f"{name}={given.get(name)}" for name in names)
                for given in (arguments, theirs)
            )
            raise ValueError(
                f"state must be of a sampler with {ours}, got {got}. "
                "Build the sampler as it was built when saved."
            )
        require_fields(saved, {"epoch": Whole(0)})
        epoch = plan.require_epoch(saved["epoch"])
        require_fields(saved, _fields(plan, saved))
        chosen, strengths = saved["selection"], saved["strengths"]
        selection = None if chosen is None else Selection(*chosen)
        kept = Selection(*saved["kept"]) if "kept" in saved else None
        draws = plan.compose(epoch, selection, strengths, kept)
        require_fields(saved, {"start": Whole(0, plan.length(draws))})
        return State(
            epoch,
            strengths,
            draws,
            selection,
            saved["refreshed"],
            kept,
            saved["start"],
            resumed=True,
            overtaken=self if self.epoch > epoch else None,
        )


def _fields(plan: EpochPlan, saved: Mapping[str, Any]) -> dict[str, Field]:
    """Return what must be in a state, whose epoch is a planned one; ``start`` beside it."""
    refreshed, n = saved["refreshed"], plan.n
    fields: dict[str, Field] = {
        "refreshed": Maybe(Whole(0, saved["epoch"])),
        "strengths": Rows(torch.float32, (n,), 0, plan.strength_schedule.at(saved["epoch"])),
    }
    if refreshed is None:
        fields["selection"] = Same(None)
    elif type(refreshed) is int and 0 <= refreshed <= saved["epoch"]:
        fields["selection"] = _chosen(n, plan.budget(refreshed))
    if "kept" in saved:
        fields["kept"] = Same(None) if plan.pruning is None else _chosen(n, n)
    return fields


def _chosen(n: int, most: int) -> Field:
    """Return what a saved selection of at most so many of n samples is."""
    lengths = (range(1, most + 1),)
    return Parts((Rows(torch.int64, lengths, 0, n - 1), Rows(torch.float32, lengths, 0)))


def _from_version_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 2: since then cluster weights are scaled to 1 on average.

    Some of version 1 were saved after that change, which nothing in them tells.
    """
    require_parts("the sampler", saved, {"arguments": Mapping})
    weighting = saved["arguments"].get("weighting")
    if weighting not in ("uniform", "downweight"):
        raise ValueError(
            f"state of version 1 must have no cluster weights, got weighting={weighting!r}, which "
            "meant other weights then. Begin anew, or resume with the release that saved it."
        )
    return {**saved, "version": 2}


def _from_version_2(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 3, in which some arguments have other names."""
    require_parts("the sampler", saved, {"arguments": Mapping})
    arguments = {FORMER.get(name, name): value for name, value in saved["arguments"].items()}
    return {**saved, "arguments": arguments, "version": 3}


def _from_version_3(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 4, which has a checksum, and other draws, if it is of no part.

    Since then epochs of many draws, random bases and what has a probability are drawn another way.
    """
    require_parts("the sampler", saved, {"start": int})
    if saved["start"]:
        raise ValueError(
            f"state of version {saved['version']} must be of an epoch that was not begun, got "
            f"start={saved['start']}: since then the draws come in another order. Begin the epoch "
            'again: state | {"start": 0}.'
        )
    return {**saved, "version": 4}


_STEPS = {1: _from_version_1, 2: _from_version_2, 3: _from_version_3}
