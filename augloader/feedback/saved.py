"""What a saved sample table holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from augloader.core.fields import (
    Field,
    Names,
    Parts,
    Rows,
    Whole,
    require_fields,
    require_parts,
    require_state,
)
from augloader.feedback.forms import COLUMNS
from augloader.feedback.learners import Learner, Memory
from augloader.feedback.views import Weakest

VERSION = 3  # of saved states
SAVED = {"strength": "memory", "forgetting": "forgetting"}  # learners, and their keys in a state
_KEYS = {"version", "n", "dtype", "rule", "visits", "shared", "labels", "period", "columns"}
_KEYS |= {"reported", *SAVED.values()}
_LATEST = 2**31 - 1  # period and epoch, which are kept in 32 bits


def read(state: Any, n: int, dtype: torch.dtype, learners: Mapping[str, Learner]) -> dict[str, Any]:
    """Return a table's state of this version, or raise unless each field is what it must be.

    Args:
        state: what ``SampleTable.state_dict`` returned, of this release or an earlier one.
        n: number of samples of the table that takes it over.
        dtype: of its values.
        learners: of that table, by name.

    Raises:
        TypeError: no dict.
        ValueError: of another version, n, dtype, rule or number of classes, damaged, or not whole.

    Cost: O(bytes).
    """
    found = require_state("the table", state, VERSION, _KEYS, _STEPS)
    counted = ("forgetting",) if found["forgetting"] is not None else ()
    saved = kind_of(found["n"], found["dtype"], found["rule"], counted)
    mine = kind_of(n, dtype, repr(learners["strength"]), learners)
    if mine != saved:
        raise ValueError(
            f"state must be of {mine}, got {saved}. Resume with the data set and the rule that "
            "were saved."
        )
    require_fields(found, {"period": Whole(0, _LATEST), "columns": _Known(n, dtype)})
    require_fields(found, _counts(n) | {"reported": _origins(found, n)})
    require_fields(found, {"shared": Rows(torch.int64, (n,), 0, found["visits"])})
    for name, key in SAVED.items():
        if name in learners and found[key] != {}:
            require_fields(found, {key: _remembered(Memory(learners[name], n), found[key])})
    return found


def columns_of(state: Mapping[str, Any]) -> dict[str, Weakest]:
    """Return copies of a state's reported values."""
    return {
        name: Weakest(*known, *state["reported"][name]).each(torch.clone)
        for name, known in state["columns"].items()
    }


def kind_of(n: Any, dtype: Any, rule: Any, learners: Any) -> str:
    """Return what tables must have in common for one to take over or merge another's state."""
    return f"n={n}, {dtype} and {rule}" + ", forgetting" * ("forgetting" in learners)


class _Known:
    """The reported values by name, each with the strengths of its views."""

    def __init__(self, n: int, dtype: torch.dtype) -> None:
        strength = Rows(torch.float32, (n,), 0, 1, also=torch.inf)
        self._fields = {
            name: Parts((Rows(dtype, (n,) if name == "losses" else (n, None)), strength))
            for name in COLUMNS
        }

    def require(self, name: str, value: Any) -> None:
        names = value.keys() if isinstance(value, Mapping) else ()
        Names({key: field for key, field in self._fields.items() if key in names}).require(
            name, value
        )


def _counts(n: int) -> dict[str, Field]:
    return {"visits": Rows(torch.int64, (n,), 0), "labels": Rows(torch.int64, (n,), -1)}


def _origins(state: Mapping[str, Any], n: int) -> Field:
    """Return what the periods and epochs of the reported values are."""
    period, epoch = Rows(torch.int32, (n,), 0, state["period"]), Rows(torch.int32, (n,), 0)
    return Names(dict.fromkeys(state["columns"], Parts((period, epoch))))


def _remembered(memory: Memory, columns: Any) -> Field:
    """Return what a learner's columns are, of as many classes as some of them are wide."""
    parts = columns.values() if isinstance(columns, Mapping) else ()
    widths = [part.shape[1] for part in parts if isinstance(part, Tensor) and part.ndim == 2]
    begun = [memory.known(classes) for classes in (0, *widths)]
    fitting = (rows for rows in begun if _shapes(rows) == _shapes(columns))
    rows = next(fitting, begun[0])
    return Names({name: _like(part) for name, part in rows.items()})


def _shapes(columns: Any) -> list[Any]:
    parts = columns.items() if isinstance(columns, Mapping) else ()
    return sorted((str(name), tuple(getattr(part, "shape", ()))) for name, part in parts)


def _like(column: Tensor) -> Field:
    """Return what a learner's column is that begins as this one."""
    least = 0 if column.dtype == torch.int32 and not (column < 0).any() else None
    return Rows(column.dtype, tuple(column.shape), least)


def _from_version_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 2: since then values have a period and an epoch."""
    require_parts("the table", saved, {"visits": Tensor, "columns": Mapping})
    zeros = torch.zeros_like(saved["visits"], dtype=torch.int32)
    reported = dict.fromkeys(saved["columns"], (zeros, zeros))
    return {**saved, "reported": reported, "period": 0, "version": 2}


def _from_version_2(saved: dict[str, Any]) -> dict[str, Any]:
    """Return a state of version 3: since then it has a checksum, which is not looked at."""
    return {**saved, "version": 3}


_STEPS = {1: _from_version_1, 2: _from_version_2}
