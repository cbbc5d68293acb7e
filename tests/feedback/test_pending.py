"""Reports under way: in order, never read before they have arrived, and no wait but for reading."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augloader import StableInfluence
from augloader.core.changes import Changes
from augloader.feedback import SampleTable
from augloader.feedback.pending import Pending, Settled, on_gpu
from tests.pretend_cuda import Gpu


def add(pending: Pending, store: Callable[..., object], *values: Any) -> None:
    """Have ``store`` called when values have arrived."""

    def changes(*copies: Any) -> Changes:
        made = Changes()
        made.step(lambda: store(*copies), lambda: None)
        return made

    pending.added(changes, *values).make()


def kept(pending: Pending, *values: Any) -> list[Any]:
    """What is stored of some values, when it is."""
    stored: list[Any] = []
    add(pending, lambda *copies: stored.extend(copies), *values)
    return stored


@pytest.mark.parametrize("behind", [0, 1, 3])
def test_nothing_is_stored_before_it_has_arrived(pretended: Gpu, behind: int) -> None:
    pretended.behind = behind
    pending, given = Pending(), torch.arange(3.0)
    stored = kept(pending, given.cuda(), {"deep": [given.cuda()]}, None)
    pretended.clear()
    for _ in range(behind):
        pending.settle(wait=False)
        assert not stored
    pending.settle(wait=False)
    assert not pretended.waits
    first, nested, nothing = stored
    assert first.equal(given)
    assert nested["deep"][0].equal(given)
    assert nothing is None
    pending.settle()
    assert len(stored) == 3


def test_what_is_read_is_waited_for_in_order(pretended: Gpu) -> None:
    pretended.behind, pending, order = 99, Pending(), list[float]()
    for value in (1.0, 2.0, 3.0):
        add(pending, lambda x: order.append(float(x)), torch.tensor(value).cuda())
    pretended.clear()
    pending.settle()
    assert order == [1, 2, 3]
    assert pretended.waits.total() == 3
    assert {what for what, _ in pretended.waits} == {"synchronize"}


def test_what_changes_later_does_not_change_what_was_reported(pretended: Gpu) -> None:
    pretended.behind = 1
    pending, here, there = Pending(), torch.ones(3), torch.ones(3).cuda()
    stored = kept(pending, here, there)
    here.zero_()
    there.zero_()
    pending.settle()
    assert [part.tolist() for part in stored] == [[1, 1, 1], [1, 1, 1]]


def test_the_oldest_is_waited_for_where_many_are_under_way(pretended: Gpu) -> None:
    pretended.behind, pending = 10**6, Pending()
    stored = []
    for step in range(30):
        pending.settle(wait=False)
        stored.append(kept(pending, torch.tensor(step).cuda()))
    assert [bool(part) for part in stored] == [True] * 21 + [False] * 9


def test_a_report_that_fails_is_left_out_and_no_other(pretended: Gpu) -> None:
    pending = Pending()

    def fail(x: Tensor) -> None:
        raise ValueError("values must be good, got bad. Try again.")

    stored = kept(pending, torch.ones(1).cuda())
    add(pending, fail, torch.ones(1).cuda())
    others = kept(pending, torch.ones(1).cuda())
    with pytest.raises(ValueError, match="values must be good"):
        pending.settle()
    assert stored
    assert not others
    pending.settle()
    assert others


def test_an_interrupt_leaves_what_it_stopped_under_way(pretended: Gpu) -> None:
    pending, interrupts = Pending(), [KeyboardInterrupt()]
    stored = list[float]()

    def store(x: Tensor) -> None:
        stored.append(float(x))
        if interrupts:
            raise interrupts.pop()

    add(pending, store, torch.tensor(1.0).cuda())
    others = kept(pending, torch.ones(1).cuda())
    with pytest.raises(KeyboardInterrupt):
        pending.settle()
    assert (stored, others) == ([1], [])
    pending.settle()
    assert (stored, len(others)) == ([1, 1], 1)


def test_gradients_are_not_kept(pretended: Gpu) -> None:
    pending = Pending()
    stored = kept(pending, torch.ones(2, requires_grad=True).cuda())
    pending.settle()
    assert not stored[0].requires_grad


def test_where_values_are(pretended: Gpu) -> None:
    here, there = torch.ones(2), torch.ones(2).cuda()
    assert not on_gpu(here, None, 1)
    assert on_gpu(here, None, there)


class Holder:
    value = Settled[int]()

    def __init__(self) -> None:
        self.pending, self.value = Pending(), 1


def test_an_attribute_is_read_when_all_is_stored(pretended: Gpu) -> None:
    holder = Holder()

    def store(x: Tensor) -> None:
        holder.value += int(x)  # reads itself, and does not wait for itself

    add(holder.pending, store, torch.tensor(4).cuda())
    add(holder.pending, store, torch.tensor(5).cuda())
    assert vars(holder)["value"] == 1
    assert holder.value == 10
    assert isinstance(Holder.value, Settled)


# The table's reads ------------------------------------------------------------------------------

N = 6


def under_way(pretended: Gpu) -> SampleTable:
    """A table, one report of which is under way, that never arrives by itself."""
    pretended.behind = 10**6
    table = SampleTable(N, rule=StableInfluence("loss", window=2), forgetting=True)

    def report(table: SampleTable, index: Tensor) -> None:
        logits = torch.eye(N, 3)[index.cpu()] * 2
        add(
            table.pending,
            lambda index, loss, logits: table.report(
                index, loss=loss, logits=logits, target=index % 3
            ),
            *(part.cuda() for part in (index, index + 1.0, logits)),
        )

    report(table, torch.arange(N))
    return table


READS: dict[str, Callable[[SampleTable], Any]] = {
    "visits": lambda table: table.visits,
    "labels": lambda table: table.labels,
    "learnt": lambda table: table.learnt,
    "new visits": lambda table: table.new_visits,
    "missing": lambda table: table.missing("losses"),
    "forgetting": lambda table: table.forgetting,
    "evidence": lambda table: table.evidence(frozenset({"losses", "labels"})),
    "precedence": lambda table: table.precedence(frozenset({"losses"})),
    "rows": lambda table: table.rows(torch.tensor([4, 1])).state_dict(),
    "strengths": lambda table: table.strengths(np.random.default_rng(0)),
    "state": SampleTable.state_dict,
    "copy": lambda table: copy.copy(table).state_dict(),
    "deepcopy": lambda table: copy.deepcopy(table).state_dict(),
    "pickle": lambda table: pickle.loads(pickle.dumps(table)).state_dict(),
    "restart": lambda table: after(table, table.restart),
    "merge": lambda table: after(table, lambda: table.merge(copy.deepcopy(table))),
    "report": lambda table: after(table, lambda: again(table)),
    "reload": lambda table: after(table, lambda: table.load_state_dict(table.state_dict())),
}


def after(table: SampleTable, change: Callable[[], object]) -> dict[str, Any]:
    change()
    return table.state_dict()


def again(table: SampleTable) -> None:
    """A later report, from the CPU."""
    table.report(
        torch.tensor([2]),
        loss=torch.tensor([9.0]),
        logits=torch.ones(1, 3),
        target=torch.tensor([2]),
    )


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return plain(vars(value)) if hasattr(value, "n") else str(value)


@pytest.mark.parametrize("name", READS)
def test_every_read_knows_what_is_under_way(pretended: Gpu, name: str) -> None:
    waited_for = under_way(pretended)
    waited_for.pending.settle()
    assert plain(READS[name](under_way(pretended))) == plain(READS[name](waited_for))


def test_a_table_that_is_merged_is_read_too(pretended: Gpu) -> None:
    table = SampleTable(N, rule=StableInfluence("loss", window=2), forgetting=True)
    table.merge(under_way(pretended))
    assert table.visits.eq(1).all()
