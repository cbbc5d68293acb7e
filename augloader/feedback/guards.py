"""What the sample table refuses: samples that are none, and evidence with gaps."""

from __future__ import annotations

import math
import os
from collections.abc import Set
from typing import Any, NoReturn

import torch
from torch import Tensor

from augloader.core.checks import as_tensor, count_and_first, distinct, require_int, require_labels
from augloader.core.evidence import Evidence


def require_index(index: Tensor, n: int) -> Tensor:
    """Return the (b,) samples of a report, on the CPU; raise unless distinct and in [0, n)."""
    index = as_tensor("index", index, "Report batch.index as it is.")
    if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        raise TypeError(
            f"index must be int64, got {index.dtype}. Report batch.index as it is: large "
            "indices do not survive a float."
        )
    if index.ndim != 1 or not len(index):
        raise ValueError(
            f"index must have shape (b,) with b >= 1, got {tuple(index.shape)}. "
            "Report one index a row."
        )
    index = index.cpu().to(torch.int64)
    samples = index.numpy()
    if samples[0] >= 0 and samples[-1] < n and (samples[1:] > samples[:-1]).all():
        return index  # ascending, as a sampler reports
    bad = (index < 0) | (index >= n)
    if bad.any():
        raise ValueError(
            f"index must be in [0, {n}), got {count_and_first(bad, 'outside', samples=index)}. "
            "Report the indices that the dataset returned."
        )
    ordered = index.sort().values
    repeated = ordered[1:][ordered[1:] == ordered[:-1]].unique()[:5].tolist()
    if repeated:
        raise ValueError(
            f"index must hold each sample once, got repeated {repeated}. Report one row a "
            "sample; CoresetSampler.report does so for a batch with copies."
        )
    return index


def require_weakness(strength: Tensor | None, index: Tensor) -> Tensor:
    """Return the (b,) strengths of the views of a report as float32 on the CPU; None is 0."""
    if strength is None:
        return torch.zeros(len(index), dtype=torch.float32, device="cpu")
    advice = "Report the batch's own."
    values = as_tensor("strength", strength, advice).cpu().float()
    if values.shape != index.shape:
        raise ValueError(
            f"strength must be ({len(index)},) values in [0, 1], got shape {tuple(values.shape)}. "
            f"{advice}"
        )
    given = values.numpy()
    bad = ~((given >= 0) & (given <= 1))
    if bad.any():
        got = count_and_first(torch.from_numpy(bad), "others", samples=index)
        raise ValueError(f"strength must be values in [0, 1], got {got}. {advice}")
    return values


def require_target(target: Tensor, index: Tensor, classes: int | None) -> Tensor:
    """Return the (b,) labels of a report as int64, or raise TypeError or ValueError."""
    if target.is_floating_point() and target.ndim == 1:
        raise TypeError(
            f"target must be integer, got {target.dtype}. Of a number that is regressed "
            "report a range as group, target=torch.bucketize(target, edges), or none."
        )
    return require_labels("target", target, len(index), classes, index)


def require_epoch(epoch: int) -> int:
    """Return the epoch of a report, which is kept in 32 bits, or raise TypeError or ValueError."""
    advice = "Report the epoch that is trained."
    epoch = require_int("epoch", epoch, 0, advice)
    if epoch >= 2**31:
        raise ValueError(f"epoch must be below 2^31, got {epoch}. {advice}")
    return epoch


def require_strengths(rule: object, values: Any, n: int) -> Tensor:
    """Return the strengths that a rule gave n samples, or raise ValueError."""
    form = (values.shape, values.dtype) if isinstance(values, Tensor) else type(values).__name__
    if form != ((n,), torch.float32) or not _within(distinct(values)):
        raise ValueError(
            f"strengths of {rule!r} must be ({n},) float32 in [0, 1], got {values}. "
            "Fix its strengths method."
        )
    strengths: Tensor = values.detach()
    return strengths


def _within(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def earliest(epoch: int | None, stale: int | None) -> int:
    """Return the earliest epoch of values that are at most ``stale`` epochs old."""
    if stale is None:
        return 0
    stale = require_int("stale", stale, 0, "0 takes values of this epoch alone, None of any age.")
    if epoch is None:
        raise ValueError(
            f"epoch must be given with stale={stale}, got None. Pass the epoch to count from."
        )
    return require_int("epoch", epoch, 0, "Pass the epoch to count from.") - stale


def require_room(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise ValueError where reported values would take more than half of the memory."""
    size, whole = math.prod(shape) * dtype.itemsize, _memory()
    if 2 * size > whole:
        raise ValueError(
            f"{name} must take at most half of the machine's {whole / 2**30:,.0f} GB, got "
            f"{' x '.join(map(str, shape))} values of {dtype}, {size / 2**30:,.0f} GB. Report loss "
            "alone; or proxies of fewer numbers, as of a random projection; or pass "
            "table_dtype=torch.float16; or select from a sweep with such proxies."
        )


def _memory() -> float:
    """Return the machine's bytes of memory, or infinity where that is not known."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf


def raise_missing(needs: Set[str], bad: Tensor, stale: int | None) -> NoReturn:
    """Raise ValueError: some of the needs are missing for the (n,) masked samples."""
    for name in sorted(needs & {"features", "scores"}):  # are never reported
        Evidence(len(bad)).require(name)
    when = "" if stale is None else f" that is at most {stale} epochs old, and of the weakest view"
    other = "sweep(model, data, Residual())"
    if "forgetting" in needs:
        when, other = " of a view with strength 0", "Evidence(n, forgetting=...)"
    older = "" if stale is None else ", a larger stale"
    unlabelled = ""
    if "labels" in needs and bad.all():
        unlabelled = (
            " Where there are no classes report groups as target=, or choose among all "
            "samples: FacilityLocation(per_class=False)."
        )
    raise ValueError(
        f"{' and '.join(sorted(needs))} must be known for every sample, got "
        f"{count_and_first(bad, 'samples')} without a report{when}. Report every batch; "
        "drop_last=True, limited batches or a base without them leave samples out, and mixed rows "
        "and padding of weight 0 are no reports. Take drop_last=False, or pad_to_multiple_of="
        f"batch size{older}, or evidence: sampler.refresh({other}).{unlabelled}"
    )
