"""Which rows of a reported batch count: one a sample, of its weakest view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augloader.core.batch import Sample


def require_rows(batch: Sample, given: Mapping[str, Tensor | None]) -> None:
    """Raise TypeError or ValueError unless a report is of a Sample batch, with as many values.

    Args:
        batch: as the loader gave it.
        given: values of the rows by name, or None.
    """
    if not isinstance(batch, Sample) or not isinstance(batch.index, Tensor):
        raise TypeError(
            f"batch must be the Sample batch of the loader, got {type(batch).__name__}. "
            "Report other batches with sampler.table.report(index, ...)."
        )
    b = len(batch.index)
    for name, values in given.items():
        if values is not None and not isinstance(values, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(values).__name__}. Report tensors with a "
                "row a sample."
            )
        if values is not None and values.shape[:1] != (b,):
            raise ValueError(
                f"{name} must have {b} rows, as the batch, got shape "
                f'{tuple(values.shape)}. Compute the loss with reduction="none".'
            )


def weakest_views(
    batch: Sample, given: Mapping[str, Tensor | None], mixed: Tensor | bool | None = None
) -> tuple[Tensor, Tensor, dict[str, Tensor]] | None:
    """Return what a report says of each sample, on the CPU, or None where it says nothing.

    Of a sample's draws in the batch the one with the lowest strength counts. Rows that were mixed
    with others are left out, as their outputs are no evidence of one sample, and so are rows of
    weight 0, which only fill up an epoch.

    Args:
        batch: that passes ``require_rows`` with them, b rows on any device.
        given: values of the rows by name, (b, ...), or None.
        mixed: (b,) bool, or True: which rows are mixed, beside those the batch says are; or False:
            none, whatever it says.

    Returns:
        The samples, (m,) int64 ascending, their views' strengths, (m,) float32, and the values.

    Raises:
        ValueError: other numbers of weights or of what is mixed, the same draw twice.

    Cost: O(b log b), and waiting for the values' device.
    """
    samples = batch.index.detach().cpu().numpy()
    b = len(samples)
    weighed = _flag("weight", batch.weight, b)
    unmixed = ~_flag("mixed", False if mixed is False else batch.mixed, b)
    unmixed &= ~_flag("mixed", False if mixed is None else mixed, b)
    # As float32, which Lightning casts to its true half precision.
    strength = _host(batch.strength).float().expand(b).numpy()
    order = samples.argsort()
    ascending = samples[order]
    repeated = bool((ascending[1:] == ascending[:-1]).any())
    if repeated:
        copies = _host(batch.copy).expand(b).numpy()
        names = (samples * (int(copies.max()) + 1) + copies)[weighed]
        if len(np.unique(names)) < len(names):
            raise ValueError(
                "batch must hold each (index, copy) once, got repeated draws. Report every batch "
                "once, as the loader gave it."
            )
        order = np.lexsort((strength, samples))
    order = order[(weighed & unmixed)[order]]
    if not len(order):
        return None
    if repeated:
        ascending = samples[order]
        order = order[np.concatenate([[True], ascending[1:] != ascending[:-1]])]
    rows = torch.from_numpy(order)
    picked = {k: v.detach().cpu().index_select(0, rows) for k, v in given.items() if v is not None}
    return torch.from_numpy(samples[order]), torch.from_numpy(strength[order]), picked


def require_epoch(batch: Sample, epoch: int) -> None:
    """Raise ValueError unless a batch is of an epoch, or of none.

    Of none are draws of plain indices, and a Sample of one's own to which no epoch was given.
    """
    if not isinstance(batch.epoch, Tensor):
        return
    told = _host(batch.epoch).numpy()
    other = told[(told != epoch) & (told >= 0)]
    if len(other):
        raise ValueError(
            f"batch must be of epoch {epoch}, got {len(other)} rows of epoch {int(other[0])}. The "
            "loader began an epoch before set_epoch did, as endless loaders do, or went on with an "
            "old one; or the last batch was reported after set_epoch."
        )


@contextmanager
def named_report(batch: Sample, epoch: int) -> Iterator[None]:
    """Add to an error which report it is of, where it is raised in a later step."""
    try:
        yield
    except (TypeError, ValueError) as error:
        first = ", ".join(map(str, batch.index[:5].tolist()))
        error.args = (
            f"{error} It is of an earlier report, of epoch {epoch} and a batch that begins with "
            f"samples {first}, whose values have come from the GPU since. "
            "sampler.report_at_once = True waits for them in each report.",
        )
        raise


def _host(given: object) -> Tensor:
    return torch.as_tensor(given).detach().cpu()


def _flag(name: str, given: object, b: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if isinstance(given, bool):
        return np.full(b, given)
    flag = _host(given).bool()
    if flag.shape not in ((), (b,)):
        raise ValueError(
            f"{name} must have {b} rows, as the batch, got shape {tuple(flag.shape)}. Pass the "
            "batch as it was mixed."
        )
    return flag.expand(b).numpy()
