"""What passes from the sampler to the loss: a Draw, a Sample, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Draw(NamedTuple):
    """One element of an epoch: which sample, which copy of it, its weight and strength.

    Weight and strength travel by value, so that workers of any start method, persistent or not,
    see exactly the epoch that the sampler planned.

    Attributes:
        index: position in the wrapped dataset.
        copy: 0 is the sample itself, 1..r are its appended copies.
        weight: factor of this draw's loss; the mean over an epoch is 1.
        strength: in [0, 1]; 0 is the identity, 1 the full strong augmentation.
        epoch: the epoch it belongs to; (epoch, index, copy) names a draw of a whole training. -1:
            of no sampler's epoch, as a plain index given to the dataset is.
        weak: whether the dataset's weak transform is applied.

    Example:
        >>> Draw(7)
        Draw(index=7, copy=0, weight=1.0, strength=1.0, epoch=0, weak=True)
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which a Draw does not need
    copy: int = 0
    weight: float = 1.0
    strength: float = 1.0
    epoch: int = 0
    weak: bool = True


def draws_of(*columns: Iterable[Any]) -> Iterator[Draw]:
    """Return the draws of columns of all fields, as many as the shortest has.

    Cost: half of what calling ``Draw`` costs.

    Example:
        >>> list(draws_of([7, 8], [0, 1], *[[1.0, 1.0]] * 2, [3, 3], [True, False]))[1]
        Draw(index=8, copy=1, weight=1.0, strength=1.0, epoch=3, weak=False)
    """
    return map(_made, zip(*columns, strict=False))


_made: Callable[[tuple[Any, ...]], Draw] = partial(tuple.__new__, Draw)


class Plain(Sequence[Draw]):
    """The draws of plain indices, of no sampler's epoch, each made where it is asked for.

    Args:
        indices: (b,) ints.
        strength: of all of them.

    Example:
        >>> Plain([7, 8], strength=0.0)[1]
        Draw(index=8, copy=0, weight=1.0, strength=0.0, epoch=-1, weak=True)
    """

    def __init__(self, indices: list[int], strength: float) -> None:
        self.indices, self.strength = indices, strength

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.indices)

    def __getitem__(self, i: Any) -> Any:
        """Return one draw."""
        return Draw(self.indices[i], strength=self.strength, epoch=-1)


class Sample(NamedTuple):
    """What the dataset returns for a draw, and what the default collate stacks into a batch.

    Attributes:
        input: what the model takes.
        target: the label.
        index: int64, position in the wrapped dataset.
        weight: float32, factor of the loss.
        strength: float32 in [0, 1].
        copy: int64, 0 for the sample itself.
        epoch: int64, the epoch of the draw; -1 where it is of no sampler's epoch.
        extra: the wrapped item's other fields: a tuple for tuple items, a dict for dict items.
        mixed: bool, whether input and target are mixed with another row's; such rows are no
            evidence of their own sample, and ``CoresetSampler.report`` leaves them out.

    ``Sample(parts)`` of one iterable of all nine fields is the Sample of them, as frameworks build
    a tuple anew: ``type(batch)(part.to(device) for part in batch)``. Where only mappings of tensors
    pass, ``batch.flat()`` does, and ``Sample.of`` brings the batch back.

    Example:
        >>> batch = Sample(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([4, 7]),
        ...                torch.ones(2), torch.zeros(2))
        >>> batch.to("cpu").target
        tensor([0, 1])
        >>> batch.keys
        tensor([[0, 4, 0],
                [0, 7, 0]])
    """

    input: Any
    target: Any
    index: Any
    weight: Any
    strength: Any
    copy: Any = 0
    epoch: Any = 0
    extra: Any = ()
    mixed: Any = False

    @property
    def keys(self) -> Tensor:
        """Which draws these are: int64 (B, 3) of epoch, index and copy; (3,) for one sample.

        Rows of no sampler's epoch have the keys of epoch 0.
        """
        given = self.epoch, self.index, self.copy
        home = next((part.device for part in given if isinstance(part, Tensor)), "cpu")
        parts = [torch.as_tensor(part, device=home) for part in given]
        parts[0] = parts[0].clamp(min=0)
        return torch.stack(torch.broadcast_tensors(*parts), -1).to(torch.int64)

    def flat(self) -> dict[str, Any]:
        """Return the batch as a flat dict, for what takes nothing but mappings of tensors.

        Returns:
            "input", "target" and, where there are any, "extra", each if it is not None; and the
            draw's fields as "draw_index", "draw_weight", "draw_strength", "draw_copy",
            "draw_epoch" and "draw_mixed".

        Example:
            >>> batch = Sample(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([4, 7]),
            ...                torch.ones(2), torch.zeros(2))
            >>> flat = batch.flat()
            >>> list(flat)[:4], Sample.of(flat).index
            (['input', 'target', 'draw_index', 'draw_weight'], tensor([4, 7]))
        """
        own = {name: getattr(self, name) for name in ("input", "target")}
        own |= {"extra": self.extra} if self.extra else {}
        drawn = {PREFIX + name: getattr(self, name) for name in _DRAWN}
        return {name: value for name, value in own.items() if value is not None} | drawn

    @classmethod
    def of(cls, draws: Mapping[str, Any] | Sequence[Draw]) -> Sample:
        """Return the batch that a flat mapping holds, or that of some draws.

        Args:
            draws: what ``flat`` returned, or ``wrap(..., extras="fields")`` added to a batch,
                beside fields of your own; what it lacks is None, or unmixed. Or a sequence of
                Draws, as they come with the items of ``wrap(..., extras="item")``, or the Draw of
                tensors that the default collate makes of it.

        Raises:
            ValueError: a mapping without index, weight, strength, copy or epoch of the draws.
        """
        if isinstance(draws, Draw):  # of columns, as the default collate makes it
            return stacked(*(np.asarray(column) for column in draws[:-1]))
        if not isinstance(draws, Mapping):
            return stack(draws)
        missing = [PREFIX + name for name in _DRAWN[:-1] if PREFIX + name not in draws]
        if missing:
            raise ValueError(
                f"mapping must hold {', '.join(missing)}, got {', '.join(map(str, draws))}. Keep "
                'what Sample.flat() or wrap(..., extras="fields") gave.'
            )
        known = {name: draws[PREFIX + name] for name in _DRAWN if PREFIX + name in draws}
        own = {name: draws[name] for name in ("input", "target", "extra") if name in draws}
        return cls(**{"input": None, "target": None} | own | known)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a batch's small tensors by value; see ``by_value``."""
        return type(self), tuple(map(by_value, self))

    def __copy__(self) -> Sample:
        """Return this batch, as copying any tuple does."""
        return self

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Sample:
        """Return the batch with input, target, weight and extra, nested ones too, on ``device``.

        Index, copy, epoch, strength and mixed stay where the loader left them, on the CPU. They are
        used there, to draw random parameters and to store reports; reading them back from a GPU
        would make every step wait for it.

        Args:
            device: where to.
            non_blocking: copy to a device as pinned memory arrives. Copies to the CPU are always
                waited for: their memory holds anything until then.
        """
        moved = ("input", "target", "weight", "extra")
        return self._replace(
            **{name: move(getattr(self, name), device, non_blocking) for name in moved}
        )

    def pin_memory(self) -> Sample:
        """Return the batch in page-locked memory, but for what is on a device already."""
        return Sample(*map(pinned, self))


Column = Sequence[float] | np.ndarray[Any, Any]
PREFIX = "draw_"  # of the fields that flat() names
_DRAWN = ("index", "weight", "strength", "copy", "epoch", "mixed")
_new = Sample.__new__


def _from_parts(cls: type[Sample], *args: Any, **fields: Any) -> Sample:
    """Return a Sample of its fields, or of one iterable of all of them."""
    if len(args) == 1 and not fields:  # alone it would be an input without the rest
        parts = args[0]
        args = tuple(parts) if isinstance(parts, Iterable) else args
    return _new(cls, *args, **fields)


# A NamedTuple must not define it, and a subclass would not be one for torch's pytrees.
Sample.__new__ = _from_parts  # type: ignore[method-assign, assignment]

NUMPY = {torch.from_numpy(np.empty(0, code)).dtype for code in "?bBhilefd"}
SMALL = 2**20  # bytes of a tensor that is sent by value


def as_array(tensor: Tensor) -> np.ndarray[Any, Any] | None:
    """Return a tensor as an array on its memory, whose small steps cost less; None if it has none.

    Example:
        >>> as_array(torch.ones(2)), as_array(torch.ones(2, dtype=torch.bfloat16))
        (array([1., 1.], dtype=float32), None)
    """
    known = tensor.device.type == "cpu" and tensor.dtype in NUMPY and not tensor.is_neg()
    return tensor.detach().numpy() if known else None


class _ByValue:
    """What a worker sends as a copy of its values, and not as a handle of shared memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self.tensor.numpy(),)


def by_value(value: Any) -> Any:
    """Return what is pickled by value, up to 1 MiB a tensor, and unpickled as it was.

    Sharing the memory of a tensor costs a worker a file, and both sides a descriptor and a message
    each: more than copying it does. Tensors in lists, tuples and dicts are found; all others, and
    those of subclasses or that require gradients, are left to torch.
    """
    if type(value) is Tensor:
        small = (
            value.layout == torch.strided
            and value.dtype in NUMPY
            and value.device.type == "cpu"
            and not (value.requires_grad or value.is_neg() or value.is_nested)
            and value.nbytes <= SMALL
        )
        return _ByValue(value) if small else value
    if type(value) in (list, tuple):
        return type(value)(map(by_value, value))
    if type(value) is dict:
        return {key: by_value(part) for key, part in value.items()}
    return value


def stack(draws: Sequence[Draw]) -> Sample:
    """Return the batch of some draws, its input and target still None."""
    if isinstance(draws, Plain):
        zeros = np.zeros(len(draws))
        return stacked(draws.indices, zeros, zeros + 1, zeros + draws.strength, zeros - 1)
    return stacked(*list(zip(*draws, strict=True))[:-1])


def stacked(index: Column, copy: Column, weight: Column, strength: Column, epoch: Column) -> Sample:
    """Return the batch of the columns of some draws, its input and target still None."""
    i, c, e = (torch.from_numpy(np.array(part, np.int64)) for part in (index, copy, epoch))
    w, s = (torch.from_numpy(np.array(part, np.float32)) for part in (weight, strength))
    mixed = torch.from_numpy(np.zeros(len(i), np.bool_))
    return Sample(None, None, i, w, s, c, e, (), mixed)


def take(value: Any, rows: Tensor) -> Any:
    """Return rows of a collated batch's value, in the given order, each as often as named.

    Tensors and arrays are indexed; mappings and sequences are gone through, but a sequence of what
    is none of these, such as names, holds one entry a row.

    Args:
        value: a collated field.
        rows: (m,) int64 on the CPU.
    """
    if isinstance(value, Tensor):
        index = rows.to(value.device, non_blocking=True)
        # The first is four times as fast, the second keeps the memory format.
        return value.index_select(0, index) if value.is_contiguous() else value[index]
    if isinstance(value, np.ndarray):
        return value[rows.numpy()]
    if isinstance(value, Mapping):
        return {key: take(part, rows) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(take(part, rows) for part in value))
    if isinstance(value, list | tuple):
        if all(isinstance(part, Tensor | np.ndarray | Mapping | list | tuple) for part in value):
            return type(value)(take(part, rows) for part in value)
        return type(value)(value[row] for row in rows.tolist())
    return value


def move(value: Any, device: torch.device | str, non_blocking: bool = True) -> Any:
    """Return ``value`` with every tensor in it on ``device``; what holds none is kept.

    Copies to the CPU are waited for.
    """
    later = non_blocking and torch.device(device).type != "cpu"
    return mapped(lambda tensor: tensor.to(device, non_blocking=later), value)


def pinned(value: Any) -> Any:
    """Return ``value`` with every tensor in it that is on the CPU in page-locked memory."""
    return mapped(
        lambda tensor: tensor if tensor.device.type != "cpu" else tensor.pin_memory(), value
    )


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return ``value`` with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(change, part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(change, part) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(mapped(change, part) for part in value)
    return value
