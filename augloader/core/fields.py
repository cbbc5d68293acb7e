"""What saved states hold: each field is described once, and loading checks it.

A description says of what kind a value is, which shape and range it has, and what it may be
compared with. What no description tells, as a flipped bit, the checksum does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from augloader.core.batch import mapped
from augloader.core.checks import count_and_first, kind

State = dict[str, Any]
CHECKSUM = "checksum"
_ADVICE = "It was damaged, or changed by hand: load another."


class Field(Protocol):
    """What a saved value must be."""

    def require(self, name: str, value: Any) -> None:
        """Raise ValueError unless a value is what this describes.

        Args:
            name: of the value, for the message.
            value: what was saved.
        """


@dataclass(frozen=True)
class Whole:
    """A whole number.

    Attributes:
        least: the smallest.
        most: the largest; None: there is none.
    """

    least: int = 0
    most: int | None = None

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < self.least or (self.most is not None and value > self.most):
            most = "" if self.most is None else f" and at most {self.most}"
            _refuse(name, f"a whole number, at least {self.least}{most}", value)


@dataclass(frozen=True)
class Rows:
    """A dense tensor on the CPU.

    Attributes:
        dtype: of its values.
        shape: lengths; a range of them, or None for any but 0.
        least: the smallest value; None: there is none, but NaN is refused.
        most: the largest; None: none, but infinity is refused.
        also: one value that is allowed beside, as infinity where nothing is known.
    """

    dtype: torch.dtype
    shape: tuple[int | range | None, ...]
    least: float | Tensor | None = None
    most: float | Tensor | None = None
    also: float | None = None

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        rule = f"{self.dtype} of shape ({', '.join(map(_length, self.shape))})"
        dense = isinstance(value, Tensor) and value.layout == torch.strided
        if not dense or value.dtype != self.dtype:
            _refuse(name, rule, kind(value))
        if len(value.shape) != len(self.shape) or not all(map(_fits, value.shape, self.shape)):
            _refuse(name, rule, f"shape {tuple(value.shape)}")
        if self.dtype == torch.bool:
            return
        bad = ~value.isfinite()
        for end, beyond in ((self.least, torch.lt), (self.most, torch.gt)):
            if end is not None:
                bad |= beyond(value, end)
        if self.also is not None:
            bad &= value != self.also
        if bad.any():
            ends = [_end("at least", self.least), _end("at most", self.most)]
            rule = " and ".join(["finite", *filter(None, ends)])
            where = bad.reshape(len(bad), -1).any(1) if bad.ndim else bad[None]
            _refuse(name, rule, count_and_first(where, "other rows"))


@dataclass(frozen=True)
class Parts:
    """A tuple or a list, of which each part is described."""

    fields: tuple[Field, ...]

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        if not isinstance(value, tuple | list) or len(value) != len(self.fields):
            _refuse(name, f"{len(self.fields)} values", kind(value))
        for i, (field, part) in enumerate(zip(self.fields, value, strict=True)):
            field.require(f"{name}[{i}]", part)


@dataclass(frozen=True)
class Names:
    """A mapping of these names and no others."""

    fields: Mapping[str, Field]

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        if not isinstance(value, Mapping) or value.keys() != self.fields.keys():
            names = ", ".join(map(str, value)) if isinstance(value, Mapping) else kind(value)
            _refuse(name, f"a dict of {', '.join(self.fields) or 'nothing'}", names or "nothing")
        for key, field in self.fields.items():
            field.require(f"{name}.{key}", value[key])


@dataclass(frozen=True)
class Same:
    """Nothing but this value."""

    value: Any

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        if type(value) is not type(self.value) or value != self.value:
            _refuse(name, repr(self.value), value)


@dataclass(frozen=True)
class Maybe:
    """What is described, or None."""

    field: Field

    def require(self, name: str, value: Any) -> None:
        """See ``Field``."""
        if value is not None:
            self.field.require(name, value)


def require_fields(state: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Raise ValueError unless the described fields of a state are what they must be.

    Args:
        state: it holds all of them.
        fields: by name.

    Example:
        >>> require_fields({"epoch": 3}, {"epoch": Whole(0, 9)})
        >>> require_fields({"epoch": -3}, {"epoch": Whole(0, 9)})
        Traceback (most recent call last):
        ...
        ValueError: epoch of the state must be a whole number, at least 0 and at most 9, got -3. \
It was damaged, or changed by hand: load another.
    """
    for name, field in fields.items():
        field.require(name, state[name])


def checksum(value: Any, begun: int = 0) -> int:
    """Return 32 bits that depend on every value, type and shape, of tensors and plain values.

    A tuple and a list of the same parts have the same.

    Args:
        value: tensors, numbers, strings, None, dtypes, and what holds such.
        begun: of values before it.

    Cost: O(bytes), about a second for 1 GB.

    Example:
        >>> checksum([1, torch.ones(2)]) == checksum((1, torch.ones(2)))
        True
        >>> checksum(torch.ones(2)) == checksum(torch.ones(2, dtype=torch.float64))
        False
    """
    if isinstance(value, Tensor) and value.layout == torch.strided:
        begun = zlib.crc32(f"{value.dtype} {tuple(value.shape)}".encode(), begun)
        data = value.detach().cpu().contiguous().flatten()
        if data.stride(0) != 1:  # of one value that was expanded, or of none
            data = data.new_empty(len(data)).copy_(data)
        return zlib.crc32(data.view(torch.uint8).numpy().data, begun)
    if isinstance(value, Mapping):
        begun = zlib.crc32(f"mapping {len(value)}".encode(), begun)
        for key in sorted(value, key=str):
            begun = checksum(value[key], checksum(key, begun))
        return begun
    if isinstance(value, tuple | list):
        begun = zlib.crc32(f"sequence {len(value)}".encode(), begun)
        for part in value:
            begun = checksum(part, begun)
        return begun
    return zlib.crc32(repr(value).encode(), begun)


def signed(state: State, known: Mapping[str, int] = MappingProxyType({})) -> State:
    """Return a state with its checksum.

    Args:
        state: without one, or with another.
        known: checksums of some of its values, by name.
    """
    parts = [
        (name, known[name] if name in known else checksum(value))
        for name, value in sorted(state.items(), key=lambda part: str(part[0]))
        if name != CHECKSUM
    ]
    return {**state, CHECKSUM: f"{checksum(parts):08x}"}


def require_state(
    name: str,
    state: Any,
    version: int,
    keys: Set[str],
    steps: Mapping[int, Callable[[State], State]] = MappingProxyType({}),
) -> State:
    """Return a saved state of this version, its tensors on the CPU, or raise unless it is one.

    Args:
        name: whose state it is.
        state: what ``state_dict`` returned, of this release or an earlier one.
        version: of the states of this release.
        keys: what a state must hold, beside its checksum.
        steps: for an earlier version, what makes a state of the next version of it; none of them
            had a checksum.

    Raises:
        TypeError: no dict.
        ValueError: of another version, not whole, or not as it was saved.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state of {name} must be a dict, got {kind(state)}. Load what state_dict returned."
        )
    found = state.get("version")
    known = type(found) is int and (found == version or found in steps)
    if not known:
        raise ValueError(
            f"state of {name} must be of version {version}, got {found}. Load it with the release "
            "of augloader that saved it, or begin anew."
        )
    made: State = mapped(Tensor.cpu, dict(state))
    if found == version:
        _require_whole(name, made, {*keys, CHECKSUM})
        if made[CHECKSUM] != signed(made)[CHECKSUM]:
            raise ValueError(
                f"state of {name} must be as it was saved, got one whose checksum differs. "
                f"{_ADVICE}"
            )
        return made
    if CHECKSUM in made:
        _refuse("version", f"{version}, as its checksum is of states of this version", found)
    while made["version"] != version:
        made = steps[made["version"]](made)
    _require_whole(name, made, keys)
    return made


def require_parts(name: str, state: State, kinds: Mapping[str, type]) -> None:
    """Raise ValueError unless a state of an earlier version holds these, each of its type."""
    _require_whole(name, state, kinds.keys())
    for key, wanted in kinds.items():
        if not isinstance(state[key], wanted):
            _refuse(key, f"a {wanted.__name__}", kind(state[key]))


def _require_whole(name: str, state: State, keys: Set[str]) -> None:
    if keys - state.keys():
        raise ValueError(
            f"state of {name} must be whole, got none of {', '.join(sorted(keys - state.keys()))}. "
            "Load what state_dict returned."
        )


def _fits(length: int, wanted: int | range | None) -> bool:
    if wanted is None:
        return length > 0
    return length in wanted if isinstance(wanted, range) else length == wanted


def _length(wanted: int | range | None) -> str:
    if isinstance(wanted, range):
        return f"{wanted.start} to {wanted.stop - 1}"
    return "any" if wanted is None else str(wanted)


def _end(words: str, value: float | Tensor | None) -> str:
    if value is None:
        return ""
    return f"{words} {f'{value:g}' if not isinstance(value, Tensor) else 'others of the state'}"


def _refuse(name: str, rule: str, got: Any) -> NoReturn:
    raise ValueError(f"{name} of the state must be {rule}, got {got}. {_ADVICE}")
