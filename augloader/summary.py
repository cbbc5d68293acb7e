"""What a selection or a sampler is, as a table to read in ten seconds, and for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from augloader.core.checks import require_int, require_labels
from augloader.core.evidence import Certificate, Selection

if TYPE_CHECKING:
    from augloader.loading.sampler import CoresetSampler

_CLASSES = 10  # rows of the table; of more classes the others are put together in the last
_HEAVIEST = 6  # medoids that are named


class Writer(Protocol):
    """What logging writes to, as torch.utils.tensorboard.SummaryWriter."""

    def add_scalar(self, tag: str, value: Any, step: int, /) -> None:
        """Write a number."""

    def add_histogram(self, tag: str, values: Any, step: int, /) -> None:
        """Write the distribution of some numbers."""


def of_selection(selection: Selection, labels: Tensor | None = None) -> str:
    """Return a selection's size, weights, classes and certificate as a table.

    Args:
        selection: what a strategy or ``sampler.refresh`` returned.
        labels: (n,) integer, 0 or more: the classes of all samples of the dataset, for a row a
            class; or None. Of more than ten classes the last row is for all the others.

    Returns:
        Lines of text, 15 at most, without an end of line after the last.

    Raises:
        TypeError: labels that are not integers.
        ValueError: labels below 0, or fewer than the selected indices say.

    Cost: O(n).

    Example:
        >>> from augloader import Selection
        >>> selection = Selection(torch.tensor([3, 1, 0]), torch.tensor([4.0, 2.0, 1.0]))
        >>> print(of_selection(selection, torch.tensor([1, 0, 0, 0, 0, 0, 0])))
        class   selected  of    share  weight min  median  max
        0              2   6   33.3 %           2       3    4
        1              1   1  100.0 %           1       1    1
        all            3   7   42.9 %           1       2    4
        heaviest     3 (4), 1 (2), 0 (1): index (weight)
        certificate  none: not selected by facility location, or loaded
    """
    weights = selection.weights
    n = round(float(weights.sum(dtype=torch.float64))) if labels is None else len(labels)
    if labels is not None:
        _check_labels(labels, int(selection.indices.max()))
    head = ["selected", "of", "share", "weight min", "median", "max"]
    rows = [["", *head]] if labels is None else [["class", *head], *_classes(selection, labels)]
    rows.append(["all", *_row(weights, n)])
    order = weights.argsort(descending=True, stable=True)[:_HEAVIEST]
    pairs = zip(selection.indices[order].tolist(), weights[order].tolist(), strict=True)
    heaviest = ", ".join(f"{index} ({number(weight)})" for index, weight in pairs)
    facts = {"heaviest": f"{heaviest}: index (weight)", **_certificate(selection)}
    return "\n".join(aligned(rows) + named(facts))


def of_sampler(sampler: CoresetSampler) -> str:
    """Return where a CoresetSampler stands: its epoch's draws, strengths, weights and refreshes.

    Args:
        sampler: a CoresetSampler; of a DistributedCoresetSampler the draws of all ranks.

    Returns:
        Lines of text, about a dozen, without an end of line after the last.

    Cost: O(n).

    Example:
        >>> from augloader import CoresetSampler, Every, Uniform
        >>> sampler = CoresetSampler(range(10), Uniform(), fraction=0.2, refresh=Every(2))
        >>> _ = sampler.refresh()
        >>> print(of_sampler(sampler))
        CoresetSampler of 10 samples by Uniform(groups=None, allocation='proportional')
        epoch      0, of no planned end
        refresh    every 2 epochs; last at epoch 0, next due at epoch 2
        budget     2 (20.0 %)
        selection  2
        draws      12: 10 base, 2 copies (1 of each); 2 strong
        strength   of strong draws mean 1, median 1, middle 90 % 1 to 1
        rule       Constant(value=1.0)
        weights    1 to 1 (cluster); mean 1
        schedules  strength × 1, probability 1, weak 1
        reports    0; of 0 of 10 samples
    """
    n, epoch, chosen = sampler.n, sampler.epoch, sampler.selection
    planned = "no planned end" if sampler.epochs is None else f"{sampler.epochs}"
    facts = {
        "epoch": f"{epoch}, of {planned}",
        "refresh": _refreshes(sampler),
        "budget": f"{sampler.budget:,} ({_percent(sampler.budget, n)})",
        "selection": "none yet",
    }
    if chosen is not None:
        facts["selection"] = f"{len(chosen):,}"
        if chosen.certificate is not None:
            facts["selection"] += f"; {_ratio(chosen.certificate)}"
        facts |= _kept(chosen)
    if chosen is None and sampler.refresh_due:
        facts["draws"] = "none before the first refresh, which is due"
    else:
        facts |= _draws(sampler)
    visits = sampler.table.visits
    courses = {
        "strength ×": sampler.plan.strength_schedule,
        "probability": sampler.plan.probability,
        "weak": sampler.plan.weak_probability,
    }
    factors = (f"{name} {number(course.at(epoch))}" for name, course in courses.items())
    facts["schedules"] = ", ".join(factors)
    facts["reports"] = f"{int(visits.sum()):,}; of {int((visits > 0).sum()):,} of {n:,} samples"
    head = f"{type(sampler).__name__} of {n:,} samples by {sampler.strategy!r}"
    return "\n".join([short(head), *named(facts)])


def log(writer: Writer, sampler: CoresetSampler, step: int, *, prefix: str = "augloader") -> None:
    """Write what a CoresetSampler does now to TensorBoard: once an epoch, after ``refresh``.

    Scalars: selected; draws, of this rank; coverage_ratio, what the certificate guarantees;
    kept_share, of the samples that were selected before too; and strength_mean, over all samples.
    Histograms: weights, of the selected samples, and strengths. Without a certificate or a
    selection theirs are left out.

    Args:
        writer: torch.utils.tensorboard.SummaryWriter, or anything with its ``add_scalar`` and
            ``add_histogram``.
        sampler: a CoresetSampler.
        step: 0 or more, what the values are drawn over: the epoch, or the training step.
        prefix: what the tags begin with.

    Raises:
        TypeError: a writer without these methods, a step that is no integer.
        ValueError: a step below 0.

    Cost: O(n).

    Example:
        >>> from augloader import CoresetSampler, Uniform
        >>> class Printed:
        ...     def add_scalar(self, tag, value, step): print(tag, value, step)
        ...     def add_histogram(self, tag, values, step): print(tag, len(values), step)
        >>> sampler = CoresetSampler(range(10), Uniform(), fraction=0.2)
        >>> _ = sampler.refresh()
        >>> log(Printed(), sampler, 0)
        augloader/strength_mean 1.0 0
        augloader/strengths 10 0
        augloader/selected 2 0
        augloader/weights 2 0
        augloader/draws 12 0
    """
    for method in ("add_scalar", "add_histogram"):
        if not callable(getattr(writer, method, None)):
            raise TypeError(
                f"writer must be an object with add_scalar and add_histogram, got {writer!r}. Pass "
                "torch.utils.tensorboard.SummaryWriter()."
            )
    step = require_int("step", step, 0, "Pass the epoch.")
    writer.add_scalar(f"{prefix}/strength_mean", float(sampler.strengths.mean()), step)
    writer.add_histogram(f"{prefix}/strengths", sampler.strengths, step)
    chosen = sampler.selection
    if chosen is not None:
        writer.add_scalar(f"{prefix}/selected", len(chosen), step)
        writer.add_histogram(f"{prefix}/weights", chosen.weights, step)
        certificate = chosen.certificate
        if certificate is not None:
            writer.add_scalar(f"{prefix}/coverage_ratio", certificate.ratio, step)
            if certificate.kept is not None:
                writer.add_scalar(f"{prefix}/kept_share", certificate.kept / len(chosen), step)
    if chosen is not None or not sampler.refresh_due:  # else it cannot know its length
        writer.add_scalar(f"{prefix}/draws", len(sampler), step)


def number(value: float) -> str:
    """Return a number in three digits, or whole where it is large.

    Example:
        >>> number(3.0), number(1 / 3), number(12345.6)
        ('3', '0.333', '12,346')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def short(text: str, most: int = 100) -> str:
    """Return a text, cut where it is longer than this many characters.

    Example:
        >>> short("medoids", 4)
        'med…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def called(numbers: Sequence[int], names: Sequence[str] | None, what: str, most: int) -> list[str]:
    """Return the names of ascending numbers, cut to so many characters; without names the numbers.

    Raises:
        ValueError: a number without a name; the message says of what.

    Example:
        >>> called([0, 2], ["cat", "dog", "parrot"], "class", 4), called([3], None, "class", 4)
        (['cat', 'par…'], ['3'])
    """
    if names is None:
        return [str(number) for number in numbers]
    least = max(numbers, default=-1) + 1
    if len(names) < least:
        raise ValueError(
            f"names must be at least {least}, one a {what}, got {len(names)}. Name each {what}."
        )
    return [short(names[number], most) for number in numbers]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, the first column to the left, the others to the right.

    Example:
        >>> aligned([["", "selected"], ["all", "3"]])
        ['      selected', 'all          3']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[0] += 1  # apart from the figures
    return [
        f"{row[0]:{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def named(facts: dict[str, str]) -> list[str]:
    """Return facts as lines, each after its name.

    Example:
        >>> named({"epoch": "3, of 9", "n": "60"})
        ['epoch  3, of 9', 'n      60']
    """
    width = max(map(len, facts))
    return [f"{name:{width}}  {text}" for name, text in facts.items()]


def _check_labels(labels: Tensor, last: int) -> None:
    require_labels("labels", labels, len(labels))
    if last >= len(labels):
        raise ValueError(
            f"labels must be of all samples, at least {last + 1}, got {len(labels)}. Give the "
            "labels of the whole dataset, not of the selected samples."
        )


def _classes(selection: Selection, labels: Tensor) -> list[list[str]]:
    """Return a row for each class, or for the first ones and one for all the others."""
    labels = labels.cpu().to(torch.int64)
    own, sizes = labels[selection.indices], torch.bincount(labels)
    classes = sizes.nonzero().flatten()
    few = _CLASSES if len(classes) <= _CLASSES else _CLASSES - 1
    named, others = classes[:few], classes[few:]
    rows = [
        [str(label), *_row(selection.weights[own == label], int(sizes[label]))]
        for label in named.tolist()
    ]
    if len(others):
        rest = selection.weights[torch.isin(own, others)]
        rows.append([f"{len(others):,} more", *_row(rest, int(sizes[others].sum()))])
    return rows


def _row(weights: Tensor, of: int) -> list[str]:
    """Return the cells of some selected samples: count, of how many, share, weights."""
    cells = [f"{len(weights):,}", f"{of:,}", _percent(len(weights), of)]
    if not len(weights):
        return [*cells, "–", "–", "–"]
    middle = weights.double().quantile(0.5)
    return cells + [number(float(v)) for v in (weights.min(), middle, weights.max())]


def _certificate(selection: Selection) -> dict[str, str]:
    certificate = selection.certificate
    if certificate is None:
        return {"certificate": "none: not selected by facility location, or loaded"}
    reason = short(certificate.reason)
    return {"certificate": f"{_ratio(certificate)}; {reason}", **_kept(selection)}


def _ratio(certificate: Certificate) -> str:
    known = "proven" if certificate.proven else "for the neighbours found"
    return f"at least {certificate.ratio:.1%} of the best coverage, {known}".replace("%", " %")


def _kept(selection: Selection) -> dict[str, str]:
    """Say how many of the samples were selected before; nothing at the first selection."""
    kept = None if selection.certificate is None else selection.certificate.kept
    if kept is None:
        return {}
    k = len(selection.indices)
    return {"kept": f"{kept:,} of {k:,} ({_percent(kept, k)}) were selected before"}


def _draws(sampler: CoresetSampler) -> dict[str, str]:
    """Describe the draws of the whole epoch."""
    draws = sampler.draws
    copies, weight, strength = draws.copy, draws.weight, draws.strength
    base, appended = int((copies == 0).sum()), int((copies > 0).sum())
    parts = [f"{base:,} base"] if base else []
    if sampler.copies:
        parts.append(f"{appended:,} copies ({sampler.copies} of each)")
    elif sampler.selection is not None:
        drawn = torch.isin(sampler.selection.indices, torch.from_numpy(draws.index))
        parts.append(f"{int(drawn.sum()):,} of them selected, in place")
    strong = torch.from_numpy(strength[strength > 0]).double()
    facts = {"draws": f"{len(draws):,}: {', '.join(parts)}; {len(strong):,} strong"}
    if len(strong):
        ends = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
        low, middle, high = _quantiles(strong, ends)
        facts["strength"] = (
            f"of strong draws mean {number(float(strong.mean()))}, median {number(middle)}, "
            f"middle 90 % {number(low)} to {number(high)}"
        )
    facts["rule"] = short(repr(sampler.table.rule))
    if sampler.plan.pruning is not None:
        facts["base"] = (
            f"{sampler.base_size:,} of {sampler.n:,} kept by {short(repr(sampler.base))}"
        )
    if len(weight):
        least, most, mean = (number(float(x)) for x in (weight.min(), weight.max(), weight.mean()))
        facts["weights"] = f"{least} to {most} ({sampler.plan.weighting}); mean {mean}"
    return facts


def _quantiles(values: Tensor, shares: Tensor) -> list[float]:
    """Return quantiles by linear interpolation; torch.quantile takes 16 million values at most."""
    ordered = values.sort().values
    at = shares * (len(values) - 1)
    low, high = ordered[at.floor().long()], ordered[at.ceil().long()]
    return [float(v) for v in low + (high - low) * (at - at.floor())]


def _refreshes(sampler: CoresetSampler) -> str:
    every, refreshed = sampler.plan.every, sampler.refreshed
    last = "none yet" if refreshed is None else f"last at epoch {refreshed}"
    if sampler.refresh_due:
        due = "due now"
    else:
        epoch = sampler.plan.next_refresh(sampler.epoch)
        due = "no other due" if epoch is None else f"next due at epoch {epoch}"
    times = "once" if every.interval is None else f"every {_epochs(every.interval)}"
    warmup = f" after {_epochs(every.warmup)} of warm-up" if every.warmup else ""
    return f"{times}{warmup}; {last}, {due}"


def _epochs(count: int) -> str:
    return f"{count:,} epoch" + "s" * (count != 1)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"
