"""What changes in a sampler from epoch to epoch, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from augloader.core.checks import require_state
from augloader.core.evidence import Selection
from augloader.loading.plan import FORMER, Draws, EpochPlan

_VERSION = 3  # of saved states
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
    draws: Draws
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
        chosen, kept = self.selection, self.kept
        return {
            "version": _VERSION,
            "arguments": arguments,
            "epoch": self.epoch,
            "start": self.start + used,
            "refreshed": self.refreshed,
            "selection": None if chosen is None else (chosen.indices, chosen.weights),
            "strengths": self.strengths,
            # Where a base is pruned alone: states of before that was there can be read.
            **({} if kept is None else {"kept": (kept.indices, kept.weights)}),
        }

    def restored(self, plan: EpochPlan, arguments: dict[str, Any], saved: dict[str, Any]) -> State:
        """Return the state that was saved; this one is what it is loaded over.

        Raises:
            ValueError: saved with other arguments, of an epoch that is not planned, of a version
                that cannot be read, or not whole.
        """
        saved = require_state("the sampler", saved, _VERSION, _KEYS, _STEPS)
        names = [name for name in arguments if saved["arguments"].get(name) != arguments[name]]
        if names:
            ours, theirs = (
                ", ".join(f"{name}={given.get(name)}" for name in names)
                for given in (arguments, saved["arguments"])
            )
            raise ValueError(
                f"state must be of a sampler with {ours}, got {theirs}. "
                "Build the sampler as it was built when saved."
            )
        chosen, epoch, strengths = saved["selection"], saved["epoch"], saved["strengths"]
        selection = None if chosen is None else Selection(*chosen)
        kept = Selection(*saved["kept"]) if "kept" in saved else None
        return State(
            plan.require_epoch(epoch),
            strengths,
            plan.compose(epoch, selection, strengths, kept),
            selection,
            saved["refreshed"],
            kept,
            saved["start"],
            resumed=True,
            overtaken=self if self.epoch > epoch else None,
        )


def _from_version_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 2: since then cluster weights are scaled to 1 on average.

    Some of version 1 were saved after that change, which nothing in them tells.
    """
    weighting = saved.get("arguments", {}).get("weighting")
    if weighting not in ("uniform", "downweight"):
        raise ValueError(
            f"state of version 1 must have no cluster weights, got weighting={weighting!r}, which "
            "meant other weights then. Begin anew, or resume with the release that saved it."
        )
    return {**saved, "version": 2}


def _from_version_2(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 3, in which some arguments have other names."""
    arguments = {FORMER.get(name, name): value for name, value in saved["arguments"].items()}
    return {**saved, "arguments": arguments, "version": 3}


_STEPS = {1: _from_version_1, 2: _from_version_2}
