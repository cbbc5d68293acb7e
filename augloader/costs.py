"""What an epoch will cost, from measured seconds: when augmenting a part of the data pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from augloader.core.checks import require_int, require_number
from augloader.core.schedule import Course, Every
from augloader.loading.distributed_sampler import DistributedCoresetSampler
from augloader.loading.plan import EpochPlan, Expected
from augloader.loading.sampler import CoresetSampler
from augloader.selection.pruning import Pruning
from augloader.summary import aligned, named, number

Limit = Literal["loader", "device", "cores"]


@dataclass(frozen=True)
class Cost:
    """What ``cost`` returns: the seconds of a mean epoch, in parts, and of full augmentation's.

    Attributes:
        epoch: seconds of an epoch: its start, loading and training as far as they overlap, and its
            share of sweeps and selections.
        loading: seconds that loading takes where nothing else runs, with all workers.
        training: seconds that the training device is busy.
        starting: seconds before the first batch is there.
        sweeping: seconds of sweeps, spread over the epochs.
        selecting: seconds of selections, spread over the epochs.
        limit: what an epoch waits for: "loader", more workers would help; "device", they would not;
            or "cores", nothing but more cores would. Without workers: the larger part.
        draws: rows of an epoch.
        strong: how many of them are strongly augmented.
        in_place: seconds of an epoch in which every sample is strongly augmented in place.
        appended: seconds of an epoch of every sample and as many strong copies of each as the
            sampler makes, at least one.

    Example:
        >>> from augloader import CoresetSampler, Uniform
        >>> sampler = CoresetSampler(range(1000), Uniform(), fraction=0.3)
        >>> found = cost(sampler, step=0.002, load=0.001, workers=2, epochs=1)
        >>> found.epoch, found.limit, round(found.times_appended, 2)
        (2.6, 'device', 1.54)
    """

    epoch: float
    loading: float
    training: float
    starting: float
    sweeping: float
    selecting: float
    limit: Limit
    draws: float
    strong: float
    in_place: float
    appended: float

    @property
    def draws_per_second(self) -> float:
        """Rows trained on in a second, sweeps and selections included."""
        return self.draws / self.epoch

    @property
    def times_in_place(self) -> float:
        """How many of these epochs take the time of one that augments everything in place."""
        return self.in_place / self.epoch

    @property
    def times_appended(self) -> float:
        """How many of these epochs take the time of one with copies of everything appended."""
        return self.appended / self.epoch

    def __str__(self) -> str:
        """Return the parts as a table."""
        chosen = self.sweeping + self.selecting
        facts = {
            "epoch": f"{number(self.epoch)} s, limited by the {self.limit}",
            "loading": f"{number(self.loading)} s alone, {number(self.starting)} s to start",
            "training": f"{number(self.training)} s alone",
            "selection": f"{number(chosen)} s: {number(self.sweeping)} s sweeping, "
            f"{number(self.selecting)} s selecting",
            "draws": f"{self.draws:,.0f}, {self.strong:,.0f} strong; "
            f"{self.draws_per_second:,.0f} a second",
            "in place": f"{number(self.in_place)} s with everything augmented in place, "
            f"{self.times_in_place:.2f} times as long",
            "appended": f"{number(self.appended)} s with copies of everything appended, "
            f"{self.times_appended:.2f} times as long",
        }
        return "\n".join(named(facts))

    def summary(self) -> None:
        """Print the parts as a table."""
        print(self)


def cost(
    sampler: CoresetSampler,
    *,
    step: float,
    load: float,
    strong: float = 0.0,
    strong_on_device: float = 0.0,
    sweep: float = 0.0,
    select: float = 0.0,
    start: float = 0.0,
    workers: int = 0,
    cores: int | None = None,
    step_cores: float | None = None,
    epochs: int | None = None,
    kept: float | None = None,
    selected: float | None = None,
) -> Cost:
    """Return what an epoch of a sampler costs, and what it saves against augmenting everything.

    For N draws of an epoch, S of them strong, training takes T = N step + S strong_on_device and
    loading L = N load + S strong seconds of one core. An epoch takes T + L without workers, else
    start + max(T, L / workers, (L + c T) / cores), c = ``step_cores``; and each refresh n sweep +
    select. Seconds are means over the epochs.

    It was within 10 % for 49 of 54 settings, and within 13 % for all, on cores that did nothing
    else (benchmarks/pays.py); other work on them makes epochs longer.

    The seconds are of one row on your machine, as two loops tell them, over plain and over strong
    draws: see "What it will save" in examples/README.md.

    Args:
        sampler: its plan says how many draws an epoch has and when samples are selected. Only its
            length is read of the data: ``CoresetSampler(range(n), Uniform(), fraction=0.3)`` will
            do. Of a DistributedCoresetSampler the draws are this rank's.
        step: seconds of a training step, forward, backward and optimizer, a row; above 0.
        load: seconds of one core to read, decode, weakly augment and collate a row. Of a loop with
            workers that does nothing else: its seconds a row times the workers (at most the cores),
            which counts sending the batches, too.
        strong: seconds of one core that a strong draw takes beyond ``load``, where the dataset
            augments; 0 where the batch is augmented.
        strong_on_device: seconds that a strong draw adds to the step, where the batch is augmented
            on the training device; 0 where the dataset augments.
        sweep: seconds of a whole sweep, loading included, a sample of the dataset; 0 where
            selection needs none, or takes what was reported.
        select: seconds of one selection, ``sampler.refresh(evidence)``.
        start: seconds until the first batch of an epoch is there, ``next(iter(loader))`` with
            workers that start anew; 0 without workers.
        workers: the DataLoader's ``num_workers``.
        cores: how many cores workers and training share; None: as many as they use.
        step_cores: c, how many cores training keeps busy: torch.get_num_threads() on the CPU, 0 to
            1 on a GPU. Given with ``cores``, and only then.
        epochs: how many, from the first; None takes those planned.
        kept: share of the samples that an epoch draws, in (0, 1], where a pruning rule decides, as
            ``len(sampler.kept) / sampler.n`` tells in training; else None.
        selected: share of the selected samples that an epoch draws, in [0, 1], where a pruned base
            and the strategy go by the same values: ``torch.isin(sampler.selection.indices,
            sampler.kept).float().mean()``, of the hard ones of a base that leaves easy ones out 1.
            None: as many as of all samples, as where neither tells of the other.

    Returns:
        A ``Cost``, which prints as a table.

    Raises:
        TypeError: a sampler that is none, other types.
        ValueError: seconds below 0 or not finite, a step of 0; cores without step_cores, or the
            reverse; a pruning rule without ``kept``, or the reverse; ``selected`` without a pruned
            base; no number of epochs is known, or more than are planned.

    Cost: O(epochs).

    Example:
        >>> from augloader import CoresetSampler, Every, Uniform
        >>> sampler = CoresetSampler(
        ...     range(10_000), Uniform(), fraction=0.3, copies=0, refresh=Every(5))
        >>> found = cost(sampler, step=1e-3, load=2e-3, strong=6e-3, sweep=5e-4, select=0.5,
        ...     workers=4, epochs=20)
        >>> print(found)
        epoch      11.1 s, limited by the device
        loading    9.5 s alone, 0 s to start
        training   10 s alone
        selection  1.1 s: 1 s sweeping, 0.1 s selecting
        draws      10,000, 3,000 strong; 901 a second
        in place   20 s with everything augmented in place, 1.80 times as long
        appended   25 s with copies of everything appended, 2.25 times as long
    """
    if not isinstance(sampler, CoresetSampler):
        raise TypeError(
            f"sampler must be a CoresetSampler, got {type(sampler).__name__}. One of "
            "range(n) will do: CoresetSampler(range(50_000), Uniform(), fraction=0.3)."
        )
    advice = "Give the seconds of one row."
    seconds = {"load": load, "strong": strong, "strong_on_device": strong_on_device, "sweep": sweep}
    for name, value in seconds.items():
        seconds[name] = require_number(name, value, "[0, inf)", advice)
    machine = _Machine(
        require_number("step", step, "(0, inf)", advice),
        seconds["load"],
        seconds["strong"],
        seconds["strong_on_device"],
        require_int("workers", workers, 0, "0 loads and trains in turn."),
        *_cores(cores, step_cores),
    )
    selecting = require_number("select", select, "[0, inf)", "Give the seconds of one selection.")
    starting = require_number("start", start, "[0, inf)", "Give the seconds of one epoch's start.")
    if starting and not machine.workers:
        raise ValueError(
            f"start must be 0 without workers, got {start}. Loading counts the first batch then."
        )
    count = len(sampler.planned_draws(epochs))  # says what is wrong with the epochs
    ranks = sampler.num_replicas if isinstance(sampler, DistributedCoresetSampler) else 1
    plan = sampler.plan
    expected = plan.expected(count, _kept(plan, kept), _selected(plan, selected))
    course = [machine.run(epoch, ranks) for epoch in expected]
    refreshes = sum(epoch.selects for epoch in expected) / count
    sweeping, selecting = refreshes * plan.n * seconds["sweep"], refreshes * selecting
    limits: dict[Limit, float] = {"loader": 0.0, "device": 0.0, "cores": 0.0}
    for run in course:
        limits[run.limit] += run.seconds
    return Cost(
        sum(run.seconds for run in course) / count + starting + sweeping + selecting,
        sum(run.loading for run in course) / count,
        sum(run.training for run in course) / count,
        starting,
        sweeping,
        selecting,
        max(limits, key=lambda limit: limits[limit]),
        sum(run.draws for run in course) / count,
        sum(run.strong for run in course) / count,
        starting + machine.run(_everything(plan, 0), ranks).seconds,
        starting + machine.run(_everything(plan, max(plan.copies, 1)), ranks).seconds,
    )


def compare(costs: Mapping[str, Cost]) -> str:
    """Return the costs of several settings as a table, a row each.

    Args:
        costs: what ``cost`` returned, by what the settings are called; at least one.

    Returns:
        Lines of text, without an end of line after the last. The last two columns are
        ``times_in_place`` and ``times_appended``.

    Raises:
        TypeError: no mapping, values that are none.
        ValueError: no settings.

    Cost: O(settings).

    Example:
        >>> from augloader import CoresetSampler, Uniform
        >>> def setting(fraction):
        ...     sampler = CoresetSampler(range(10_000), Uniform(), fraction=fraction, copies=0)
        ...     return cost(sampler, step=1e-3, load=2e-3, strong=6e-3, workers=4, epochs=1)
        >>> print(compare({"half": setting(0.5), "30 %": setting(0.3)}))
               s an epoch  selection   limit   draws  strong  a second  in place  appended
        half         12.5          0  loader  10,000   5,000       800     1.60x     2.00x
        30 %           10          0  device  10,000   3,000     1,000     2.00x     2.50x
    """
    if not isinstance(costs, Mapping):
        raise TypeError(
            f"costs must be a mapping, got {type(costs).__name__}. Pass {{name: cost(...)}}."
        )
    if not costs:
        raise ValueError("costs must hold at least one setting, got none. Pass {name: cost(...)}.")
    head = ["s an epoch", "selection", "limit", "draws", "strong", "a second"]
    rows = [["", *head, "in place", "appended"]]
    for name, of in costs.items():
        if not isinstance(of, Cost):
            raise TypeError(
                f"costs must be what cost(...) returned, got {type(of).__name__} for {name!r}. "
                "Pass {name: cost(...)}."
            )
        rows.append(
            [
                str(name),
                number(of.epoch),
                number(of.sweeping + of.selecting),
                of.limit,
                f"{of.draws:,.0f}",
                f"{of.strong:,.0f}",
                f"{of.draws_per_second:,.0f}",
                f"{of.times_in_place:.2f}x",
                f"{of.times_appended:.2f}x",
            ]
        )
    return "\n".join(aligned(rows))


class _Run(NamedTuple):
    """An epoch without selection: its seconds and theirs alone, what limits, and its rows."""

    seconds: float
    loading: float
    training: float
    limit: Limit
    draws: float
    strong: float


class _Machine(NamedTuple):
    """What a row takes, checked, and where it is loaded."""

    step: float
    load: float
    strong: float
    strong_on_device: float
    workers: int
    cores: int | None
    step_cores: float

    def run(self, epoch: Expected, ranks: int) -> _Run:
        """Return what an epoch takes on one of the ranks that share it."""
        draws, strong = epoch.draws / ranks, epoch.strong / ranks
        training = draws * self.step + strong * self.strong_on_device
        work = draws * self.load + strong * self.strong
        if not self.workers:
            limit: Limit = "loader" if work > training else "device"
            return _Run(training + work, work, training, limit, draws, strong)
        cores = self.workers if self.cores is None else self.cores
        loading = work / min(self.workers, cores)
        bounds: dict[Limit, float] = {"device": training, "loader": loading}
        if self.cores is not None:
            bounds["cores"] = (work + self.step_cores * training) / cores
        limit = max(bounds, key=lambda name: bounds[name])
        return _Run(bounds[limit], loading, training, limit, draws, strong)


def _cores(cores: int | None, step_cores: float | None) -> tuple[int | None, float]:
    """Return both, checked; step_cores is 0 where nothing is said."""
    if (cores is None) != (step_cores is None):
        raise ValueError(
            "cores and step_cores must be given together, got "
            f"cores={cores} and step_cores={step_cores}. Pass step_cores=torch.get_num_threads() "
            "where the CPU trains, 0 where a GPU does."
        )
    if cores is None or step_cores is None:
        return None, 0.0
    shared = require_int("cores", cores, 1, "Count the cores that workers and training share.")
    return shared, require_number("step_cores", step_cores, "[0, inf)", "0 where a GPU trains.")


def _kept(plan: EpochPlan, kept: float | None) -> float:
    """Return the share that a pruning rule keeps, 1 where there is none."""
    if isinstance(plan.pruning, Pruning) != (kept is not None):
        raise ValueError(
            f"kept must be given where a pruning rule is the base, and only there, got {kept} with "
            f"{plan.pruning!r}. Pass the share of the samples that an epoch draws, as 0.7."
        )
    return 1.0 if kept is None else require_number("kept", kept, "(0, 1]", "0.7 leaves out 30 %.")


def _selected(plan: EpochPlan, selected: float | None) -> float | None:
    """Return the share of the selected that a pruned base draws, None where nothing is said."""
    if selected is None:
        return None
    if plan.pruning is None:
        raise ValueError(
            f"selected must be given where the base is pruned, and only there, got {selected} with "
            f"base={plan.base!r}. Leave it out: all selected samples are drawn."
        )
    advice = "1 where a base keeps all that is selected."
    return require_number("selected", selected, "[0, 1]", advice)


def _everything(plan: EpochPlan, copies: int) -> Expected:
    """Return an epoch of the same data in which every sample is selected and strong."""
    always = Course.of("probability", 1.0, None)
    full = replace(
        plan,
        share=plan.n,
        base="full",
        base_share=None,
        pruning=None,
        copies=copies,
        every=Every(None),
        epochs=None,
        strength_schedule=always,
        probability=always,
        constant_length=False,
    )
    return full.expected(1)[0]
