"""An interrupt at any line, a failed allocation, several threads: a report is stored, or it is not.

A tracer raises KeyboardInterrupt at the k-th line of the library that a call runs, for every k.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import augloader
from augloader import CoresetSampler, Forgetting, Proportional, Sample, StableInfluence
from augloader.feedback import SampleTable
from augloader.feedback.views import Weakest
from tests.tracing import interrupted

pytestmark = pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning")

HOME = str(Path(augloader.__file__).parent)
N, CLASSES = 12, 3


def sampler_of() -> CoresetSampler:
    rule = StableInfluence("kl", window=2)
    return CoresetSampler(range(N), Proportional(Forgetting()), count=4, strength=rule)


def batch_of(index: Tensor) -> tuple[Sample, dict[str, Tensor]]:
    target = index % CLASSES
    logits = torch.stack([(index + c).sin() for c in range(CLASSES)], 1)
    ones = torch.ones(len(index))
    batch = Sample(None, target, index, ones, ones * 0, index * 0)
    return batch, {"loss": F.cross_entropy(logits, target, reduction="none"), "logits": logits}


def report(sampler: CoresetSampler, index: Tensor) -> None:
    batch, values = batch_of(index)
    sampler.report(batch, **values)


def frozen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double().nan_to_num(-7.0, 1e300).tolist()
    if isinstance(value, Mapping):
        return {key: frozen(part) for key, part in value.items()}
    return [frozen(part) for part in value] if isinstance(value, tuple | list) else str(value)


def known(sampler: CoresetSampler) -> Any:
    """All that a report tells: the table's state, and how far the epoch has come."""
    progress = sampler._watch.progress
    return frozen(sampler.table.state_dict()), progress.reported, progress.batch


@pytest.mark.parametrize("first", [True, False])
def test_an_interrupt_at_any_line_of_a_report(first: bool) -> None:
    begun = sampler_of()
    if not first:
        report(begun, torch.arange(N).flip(0))
    begun = copy.deepcopy(begun)  # which counts no reports yet
    index = torch.tensor([7, 2, 3, 11])
    whole = copy.deepcopy(begun)
    report(whole, index)
    before, after, seen, at = known(begun), known(whole), [0, 0], 0
    while True:
        at += 1
        sampler = copy.deepcopy(begun)
        lines = interrupted(lambda: report(sampler, index), at, HOME)  # noqa: B023 - called at once
        found = known(sampler)
        assert found in (before, after), at
        seen[found == after] += 1
        if found == before:
            report(sampler, index)
            assert known(sampler) == after, at
        if lines < at:
            break
    assert at > 100
    assert min(seen) >= 1


def test_an_interrupt_at_any_line_of_taking_over_a_tables_state() -> None:
    begun, other = sampler_of(), sampler_of()
    report(begun, torch.arange(3))
    report(other, torch.arange(N))
    state = other.table.state_dict()
    before, after, at = frozen(begun.table.state_dict()), frozen(state), 0
    while True:
        at += 1
        sampler = copy.deepcopy(begun)
        lines = interrupted(lambda: sampler.table.load_state_dict(state), at, HOME)  # noqa: B023
        assert frozen(sampler.table.state_dict()) in (before, after), at
        if lines < at:
            break
    assert at > 50


def test_an_interrupt_at_any_line_of_merging() -> None:
    begun, other = sampler_of(), sampler_of()
    report(begun, torch.arange(3))
    report(other, torch.arange(N))
    begun = copy.deepcopy(begun)
    whole = copy.deepcopy(begun)
    whole.table.merge(other.table)
    before, after, at = known(begun), known(whole), 0
    while True:
        at += 1
        sampler = copy.deepcopy(begun)
        lines = interrupted(lambda: sampler.table.merge(other.table), at, HOME)  # noqa: B023
        assert known(sampler) in (before, after), at
        if lines < at:
            break
    assert at > 30


@pytest.mark.parametrize("fail_at", range(1, 4))
def test_an_allocation_that_fails_leaves_a_report_out(
    fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a first report, which allocates a column for each kind of value."""
    table, made = SampleTable(N, rule=StableInfluence(window=2)), 0
    before = frozen(table.state_dict())
    begin = Weakest.none.__func__  # type: ignore[attr-defined]

    def none(cls: type[Weakest], *given: Any) -> Weakest:
        nonlocal made
        made += 1
        if made == fail_at:
            raise MemoryError
        return begin(cls, *given)  # type: ignore[no-any-return]

    monkeypatch.setattr(Weakest, "none", classmethod(none))
    index = torch.arange(N)
    given: dict[str, Any] = {
        "loss": torch.ones(N),
        "logits": torch.ones(N, 3),
        "proxy": torch.ones(N, 2),
    }
    with pytest.raises(MemoryError):
        table.report(index, **given, target=index % 3)
    assert frozen(table.state_dict()) == before
    table.report(index, **given, target=index % 3)
    assert not len(table.missing("proxies"))


def test_threads_report_one_after_the_other() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            sampler, ready, threads = sampler_of(), Barrier(3), 3

            def work(part: int, sampler: Any = sampler, ready: Any = ready) -> None:
                index = torch.arange(N)[part::3]
                ready.wait()
                for one in index.split(2):
                    report(sampler, one)

            running = [Thread(target=work, args=(part,)) for part in range(threads)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            assert sampler.table.visits.eq(1).all()
            for name in ("losses", "labels", "forgetting"):
                assert not len(sampler.table.missing(name))
            assert sampler._watch.progress.reported == N
    finally:
        sys.setswitchinterval(interval)
