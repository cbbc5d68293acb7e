"""Wording and guards shared by every public error message.

Form: ``<name> must be <rule>, got <value>. <what to do>``.
"""

from __future__ import annotations

from collections.abc import Set, Sized
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from augloader.core.batch import as_array
from augloader.core.blocks import row_blocks

T = TypeVar("T")
_NUMBERS = 2**22  # that are looked at at a time

_MANY = (
    "Where rows were mixed with others say so, and they are left out: "
    "sampler.report(batch._replace(mixed=True), ...). Where a sample has several labels report "
    "proxies of your own, as sampler.report(batch, loss=loss, proxy=logits.sigmoid() - target)."
)


def unchecked(kind: type[T], **fields: Any) -> T:
    """Return a dataclass of values that were checked before: ``__post_init__`` is not called."""
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made


def plain(value: T) -> T:
    """Return a number of numpy, or an array or tensor of no dimension, as Python's; others as is.

    Example:
        >>> plain(np.float64(0.5)), plain(torch.tensor(3)), plain("a")
        (0.5, 3, 'a')
    """
    scalar = isinstance(value, np.generic | np.ndarray | Tensor) and value.ndim == 0
    return value.item() if scalar else value  # type: ignore[attr-defined]


def plain_options(options: object) -> None:
    """Replace numbers of numpy among a frozen dataclass's fields by Python's.

    Saved states are compared by the options' repr, and a hash needs plain values.
    """
    for name, value in vars(options).items():
        if plain(value) is not value:
            object.__setattr__(options, name, plain(value))


def as_tensor(name: str, values: Any, advice: str) -> Tensor:
    """Return a tensor, detached, and an array or a list of numbers as one on the CPU.

    Arrays keep their dtype, and share memory where they can; Python's floats become float32.

    Raises:
        TypeError: anything else.

    Example:
        >>> as_tensor("scores", [0.5, 2], "Give one a sample.")
        tensor([0.5000, 2.0000])
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got {values.layout}. {advice}")
        return values.detach() if values.requires_grad else values
    if isinstance(values, list | tuple) or hasattr(values, "__array__"):
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, RuntimeError):  # ragged, or of tensors that are elsewhere
            array = np.empty(0, object)
        if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
            dtype = array.dtype.newbyteorder("=")
            if isinstance(values, list | tuple) and dtype.kind == "f":
                dtype = np.dtype(np.float32)
            return torch.from_numpy(np.require(array, dtype, ["C", "W"]))
    raise TypeError(
        f"{name} must be a tensor or an array of numbers, got {type(values).__name__}. {advice}"
    )


def distinct(values: Tensor) -> Tensor:
    """Return (n, ...) values, or the first alone where one was expanded to all.

    Example:
        >>> distinct(torch.ones(1).expand(5))
        tensor([1.])
    """
    return values[:1] if len(values) and values.stride(0) == 0 else values


def count_and_first(
    bad: Tensor, noun: str = "values", limit: int = 5, samples: Tensor | None = None
) -> str:
    """Say how many entries of a mask are set and where the first ones are.

    Args:
        bad: (n,) bool mask, True where something is wrong.
        noun: what one entry is, in the plural.
        limit: how many positions to name.
        samples: (n,) integer, the samples that the entries are of, where these are named instead.

    Example:
        >>> count_and_first(torch.tensor([False, True, True]), "rows")
        '2 rows (first indices 1, 2)'
        >>> count_and_first(torch.tensor([False, True]), "rows", samples=torch.tensor([8, 5]))
        '1 rows (first samples 5)'
    """
    where = bad.nonzero().flatten().cpu()
    if samples is not None:
        where = samples.detach().cpu()[where].sort().values
    first = ", ".join(map(str, where[:limit].tolist()))
    return f"{len(where)} {noun} (first {'indices' if samples is None else 'samples'} {first})"


def require_finite(name: str, rows: Tensor, advice: str, samples: Tensor | None = None) -> None:
    """Raise ValueError if any row of an (n, ...) tensor holds NaN or infinity.

    Args:
        name: what the rows are.
        rows: (n, ...).
        advice: what to do.
        samples: (n,) integer, the samples that the rows are of; None: they are in order.
    """
    array = as_array(rows)
    if array is not None and _all_finite(array):
        return
    bad = ~rows.isfinite()
    if bad.any():
        where = bad.reshape(len(rows), -1).any(1)
        text = count_and_first(where, "non-finite rows", samples=samples)
        raise ValueError(f"{name} must be finite, got {text}. {advice}")


def _all_finite(array: np.ndarray[Any, Any]) -> bool:
    width = array.size // max(len(array), 1)
    blocks = row_blocks(len(array), width, _NUMBERS)
    return all(np.isfinite(array[rows]).all() for rows in blocks)


def require_vectors(vectors: Any, name: str = "vectors") -> Tensor:
    """Return ``vectors`` if they are (n, d >= 1) floating and finite, or raise."""
    found: Tensor = as_tensor(name, vectors, "Give one row a sample.")
    if found.ndim != 2 or not found.shape[1] or not found.is_floating_point():
        raise TypeError(
            f"{name} must be (n, d >= 1) floating, got {tuple(found.shape)} {found.dtype}. "
            "Flatten each sample's values to one row, and convert them with .float()."
        )
    require_finite(name, found, "Check the model they come from.")
    return found


def require_int(name: str, value: object, least: int, advice: str) -> int:
    """Return ``value`` as an int that is at least ``least``, or raise TypeError or ValueError."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}. {advice}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}, got {value}. {advice}")
    return int(value)


def require_seed(seed: object) -> int:
    """Return a seed of 64 bits, or raise TypeError or ValueError."""
    seed = plain(seed)
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise TypeError(f"seed must be an int, got {seed!r}. Pass for example seed=0.")
    if not 0 <= int(seed) < 2**64:
        raise ValueError(f"seed must be in [0, 2^64), got {seed}. Pass for example seed=0.")
    return int(seed)


def require_generator(generator: Any) -> np.random.Generator:
    """Return ``generator``, or raise TypeError unless it is numpy's."""
    if not isinstance(generator, np.random.Generator):
        got = repr(generator) if isinstance(generator, int | None) else kind(generator)
        raise TypeError(
            f"generator must be a numpy.random.Generator, got {got}. Pass "
            "numpy.random.default_rng(seed)."
        )
    return generator


def kind(value: object) -> str:
    """Return the dtype of a tensor, the class of anything else."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


_WHOLE = {f"torch.{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def require_strengths(strength: Any, batch: tuple[int, ...]) -> Tensor:
    """Return every row's strength as float32 on the CPU; ``batch`` is (B,), or () for one image.

    A number is that of all rows: of Python or NumPy, or a tensor or array without dimensions.
    """
    given = strength
    if isinstance(given, np.ndarray) and given.dtype.kind in "biuf":
        given = torch.from_numpy(np.array(given, given.dtype.newbyteorder("=")))
    elif isinstance(given, Real) and not isinstance(given, bool):
        given = torch.tensor(float(given), dtype=torch.float64, device="cpu")
    single = isinstance(given, Tensor) and given.ndim == 0 and kind(given) in _WHOLE
    if not isinstance(given, Tensor) or not (given.is_floating_point() or single):
        raise TypeError(
            f"strength must be a float or a floating tensor, got {kind(strength)}. "
            "Convert it first."
        )
    values = given.detach().to("cpu", torch.float32)
    if values.ndim > 0 and values.shape != batch:
        raise ValueError(
            f"strength must be one number or of shape {batch}, got shape {tuple(values.shape)}. "
            "Pass one strength per image."
        )
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        got = count_and_first(bad, "values outside") if values.ndim else values.item()
        raise ValueError(f"strength must be in [0, 1], got {got}. Clamp or rescale it.")
    return values.expand(batch or (1,))


def require_budget(budget: object, selected: int) -> int:
    """Return ``budget`` as an int from 1 to the number selected, or raise."""
    asked = require_int("budget", budget, 1, "Choose at least one sample.")
    if asked > selected:
        raise ValueError(
            f"budget must be at most {selected}, which was selected, got {asked}. Select again."
        )
    return asked


def require_number(name: str, value: object, interval: str, advice: str) -> float:
    """Return a number in the interval, such as "[0, 1)" or "(0, inf)", as a float, or raise."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in {interval}, got {value!r}. {advice}")
    low, high = map(float, interval[1:-1].split(","))
    ends = [end for end, bracket in ((low, interval[0]), (high, interval[-1])) if bracket in "[]"]
    if not (low < float(value) < high or value in ends):
        raise ValueError(f"{name} must be in {interval}, got {value}. {advice}")
    return float(value)


def require_fraction(name: str, value: object) -> float:
    """Return ``value`` as a float in (0, 1], or raise TypeError or ValueError."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number in (0, 1], got {value!r}. Give a share, as 0.3.")
    if not 0 < float(value) <= 1:
        raise ValueError(
            f"{name} must be in (0, 1], got {value}. 0.3 means 30 % of the samples; "
            "give a number of samples as count=."
        )
    return float(value)


def require_bool(name: str, value: object, advice: str) -> None:
    """Raise TypeError unless the value is True or False."""
    if not isinstance(plain(value), bool):
        raise TypeError(f"{name} must be True or False, got {value!r}. {advice}")


def require_names(name: str, names: object, known: tuple[str, ...], advice: str) -> None:
    """Raise TypeError unless ``names`` is a set, and ValueError unless all are known."""
    if not isinstance(names, Set):
        raise TypeError(
            f"{name} must be a set of names, got {names!r}. Write it as frozenset({{...}})."
        )
    unknown = sorted(names - set(known))
    if unknown:
        raise ValueError(
            f"{name} must be among {', '.join(known)}, got {', '.join(unknown)}. {advice}"
        )


def require_one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError if a mode is not one of the known ones."""
    if value not in known:
        listed = ", ".join(repr(word) for word in known)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}. Choose one of them.")


def holds_draws(data: object) -> bool:
    """Whether data are a Subset or ConcatDataset around a dataset that takes draws."""
    inner = [data.dataset] if isinstance(data, Subset) else []
    inner = list(data.datasets) if isinstance(data, ConcatDataset) else inner
    return any(getattr(part, "takes_draws", False) or holds_draws(part) for part in inner)


_STREAMS = ("IterableDataset", "StreamingDataset", "IterDataPipe")


def require_dataset(data: object) -> int:
    """Return the length of a map-style dataset, or raise TypeError or ValueError.

    Streams are refused, also such as MosaicML's StreamingDataset, which have positions but choose
    the samples that a worker reads themselves.
    """
    rule = "must be a map-style dataset with __getitem__ and __len__"
    kind = type(data).__name__
    if isinstance(data, DataLoader):
        raise TypeError(f"data {rule}, got a {kind}. Pass its dataset: loader.dataset.")
    stream = any(name.__name__.endswith(_STREAMS) for name in type(data).__mro__)
    if stream or not hasattr(data, "__getitem__"):
        raise TypeError(
            f"data {rule}, got {kind}. A stream has no positions to select from, or chooses the "
            "samples itself: load it into a list or a map-style dataset (as datasets.Dataset, or "
            "ImageFolder over a local copy); or augment its batches alone, with "
            "AdaptiveStrengthTransform."
        )
    if holds_draws(data):
        raise TypeError(
            f"data {rule}, got a {kind} around a WeightedAugmentedDataset, which cannot pass draws "
            f"on. Put it inside: WeightedAugmentedDataset({kind}(...), ...)."
        )
    if not isinstance(data, Sized):
        raise TypeError(f"data {rule}, got {kind} without __len__. Define __len__.")
    if len(data) < 1:
        raise ValueError(f"data {rule} of at least 1, got 0 samples. Check its path and filters.")
    return len(data)


def require_labels(
    name: str,
    labels: Tensor,
    n: int,
    classes: int | None = None,
    samples: Tensor | None = None,
) -> Tensor:
    """Return ``labels`` as int64, or raise unless they are an (n,) integer tensor in [0, classes).

    Args:
        name: what they are called.
        labels: (n,) of any integer dtype.
        n: how many there are.
        classes: C, or None.
        samples: (n,) integer, the samples that the labels are of; None: they are in order.

    Raises:
        TypeError: not a tensor, or of no integers.
        ValueError: of another shape, or out of range.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must be a tensor of class labels, got {type(labels).__name__}. "
            "Pass torch.as_tensor(labels)."
        )
    advice = _MANY if labels.ndim > 1 else "Give one label a sample, as with .long()."
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        shape = f" of shape {tuple(labels.shape)}" if labels.ndim > 1 else ""
        raise TypeError(f"{name} must be integer class labels, got {labels.dtype}{shape}. {advice}")
    if labels.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {tuple(labels.shape)}. {advice}")
    labels = labels.to(torch.int64)
    above = 2**63 - 1 if classes is None else classes - 1
    low, high = (int(end) for end in labels.aminmax()) if n else (0, 0)
    if low < 0 or high > above:
        bad = labels != labels.clamp(0, above)
        rule = "0 or more" if classes is None else f"in [0, {classes})"
        got = count_and_first(bad, "labels outside", samples=samples)
        raise ValueError(
            f"{name} must be {rule}, got {got}. Number the classes from 0, as the model's outputs "
            "are."
        )
    return labels
