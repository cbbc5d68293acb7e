"""The sample table: reports in, evidence out, and nothing changed by a bad report."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from augloader import Entropy, LossRank, StableInfluence
from augloader.core import residual
from augloader.feedback import SampleTable, StrengthRule
from augloader.feedback.views import UNKNOWN


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def full_table(n: int = 6, dtype: torch.dtype = torch.float32) -> SampleTable:
    table = SampleTable(n, dtype=dtype)
    logits = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    table.report(torch.arange(n), logits=logits, target=torch.arange(n) % 3)
    return table


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_evidence_is_what_was_reported(dtype: torch.dtype) -> None:
    n = 40_002  # above 2048 a float16 index would already be another one
    logits = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3
    table = SampleTable(n, dtype=dtype)
    for part in torch.randperm(n, generator=torch.Generator().manual_seed(1)).split(999):
        table.report(part, logits=logits[part], target=labels[part])
    stored = logits.to(dtype).float()
    evidence = table.evidence(frozenset({"proxies", "labels", "losses"}))
    assert evidence.proxies is not None
    assert evidence.losses is not None
    assert evidence.labels is not None
    assert torch.equal(evidence.labels, labels)
    torch.testing.assert_close(evidence.proxies.gradient, residual(stored, labels))
    expected = F.cross_entropy(stored, labels, reduction="none")
    torch.testing.assert_close(evidence.losses, expected)
    assert table.visits.eq(1).all()


def test_reported_losses_and_proxies_come_before_computed_ones() -> None:
    table = full_table()
    table.report(torch.arange(6), loss=torch.arange(6.0), proxy=torch.ones(6, 2))
    evidence = table.evidence()
    assert evidence.losses is not None
    assert evidence.proxies is not None
    assert evidence.losses.tolist() == [0, 1, 2, 3, 4, 5]
    assert evidence.proxies.gradient.shape == (6, 2)


def test_the_weakest_view_of_a_period_counts() -> None:
    table = SampleTable(2)

    def report(loss: float, strength: float) -> None:
        table.report(
            torch.tensor([0]), loss=torch.tensor([loss]), strength=torch.tensor([strength])
        )

    def loss() -> float:
        table.report(torch.tensor([1]), loss=torch.tensor([0.0]))
        losses = table.evidence(frozenset({"losses"})).losses
        assert losses is not None
        return float(losses[0])

    report(1.0, 0.5)
    assert loss() == 1
    report(2.0, 0.7)
    assert loss() == 1
    report(3.0, 0.5)
    assert loss() == 3
    report(4.0, 0.0)
    assert loss() == 4
    table.restart()
    report(5.0, 1.0)
    assert loss() == 5
    assert table.visits.tolist() == [5, 5]


def test_a_sample_without_a_report_keeps_its_last_known_value() -> None:
    table, every, some = SampleTable(4), torch.arange(4), torch.tensor([0, 2])

    def losses(**limits: Any) -> list[float] | None:
        found = table.evidence(**limits).losses
        return None if found is None else found.tolist()

    table.report(every, loss=torch.ones(4), strength=torch.zeros(4), epoch=3)
    table.restart()
    assert losses() == losses(epoch=4, stale=1) == [1, 1, 1, 1]
    table.report(some, loss=torch.full((2,), 5.0), strength=torch.ones(2), epoch=4)
    assert losses() == losses(epoch=4, stale=1) == [5, 1, 5, 1]  # of a stronger view, but later
    assert losses(epoch=4, stale=0) is None
    assert table.missing("losses", epoch=4, stale=0).tolist() == [1, 3]
    assert table.missing("losses").tolist() == []
    with pytest.raises(
        ValueError,
        match=r"losses must be known.*got 2 samples \(first indices 1, 3\) without a report "
        r"that is at most 1 epochs old.*drop_last=True, limited batches or a base.*mixed rows"
        r".*pad_to_multiple_of.*larger stale",
    ):
        table.evidence(frozenset({"losses"}), epoch=5, stale=1)
    table.restart()
    table.restart()
    assert losses(epoch=9, stale=6) == [5, 1, 5, 1]
    again = SampleTable(4)
    again.load_state_dict(table.state_dict())
    assert same(again.state_dict(), table.state_dict())
    assert again.missing("losses", epoch=6, stale=2).tolist() == [1, 3]


def test_logits_of_a_later_period_come_before_losses_of_an_earlier_one() -> None:
    table, every = SampleTable(3), torch.arange(3)
    table.report(every, loss=torch.ones(3), proxy=torch.ones(3, 3))
    table.report(every, logits=torch.eye(3) * 9, target=every)
    losses = table.evidence().losses
    assert losses is not None
    assert torch.equal(losses, torch.ones(3))
    table.restart()
    table.report(every[:2], logits=torch.eye(3)[:2] * 9, target=every[:2])
    losses, proxies = table.evidence().losses, table.evidence().proxies
    assert losses is not None
    assert proxies is not None
    assert losses.max() < 0.1  # of the third sample those of the earlier period
    assert proxies.gradient.abs().max() < 0.1


@pytest.mark.parametrize(
    ("limits", "error", "words"),
    [
        ({"stale": 1}, ValueError, "epoch must be given with stale=1, got None"),
        ({"stale": -1, "epoch": 0}, ValueError, "stale must be at least 0, got -1"),
        ({"stale": 1.0, "epoch": 0}, TypeError, "stale must be an integer, got 1.0"),
        ({"stale": 1, "epoch": "2"}, TypeError, "epoch must be an integer, got '2'"),
    ],
)
def test_bad_limits(limits: dict[str, Any], error: type[Exception], words: str) -> None:
    for asked in (full_table().evidence, lambda **given: full_table().missing("losses", **given)):
        with pytest.raises(error, match=words):
            asked(**limits)


def test_a_state_of_version_1_counts_as_of_epoch_0() -> None:
    table = full_table()
    old = {**table.state_dict(), "version": 1}
    del old["reported"], old["period"], old["checksum"]
    again = SampleTable(6)
    again.load_state_dict(old)
    assert same(again.state_dict(), table.state_dict())
    needs = frozenset({"proxies", "labels"})
    assert not len(again.missing("proxies", epoch=3, stale=3))
    with pytest.raises(ValueError, match="must be known for every sample, got 6 samples"):
        again.evidence(needs, epoch=3, stale=2)


def test_a_new_period_is_one_for_every_kind() -> None:
    table = full_table()
    table.restart()
    table.report(torch.tensor([0, 4]), logits=torch.zeros(2, 3), target=torch.tensor([0, 1]))
    found, before = table.evidence().proxies, full_table().evidence().proxies
    assert found is not None
    assert before is not None
    changed = (found.gradient != before.gradient).any(1)
    assert changed.nonzero().flatten().tolist() == [0, 4]


def test_a_need_that_was_never_reported() -> None:
    with pytest.raises(ValueError, match=r"losses must be known for every sample, got 3 samples"):
        SampleTable(3).evidence(frozenset({"losses"}))
    assert SampleTable(3).evidence().n == 3


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"index": [1, 2, 1]}, ValueError, r"each sample once, got repeated \[1\]"),
        ({"index": [1, 2, -1]}, ValueError, r"in \[0, 6\), got 1 outside \(first samples -1\)"),
        ({"index": [1, 2, 6]}, ValueError, r"in \[0, 6\)"),
        ({"index": [1.0, 2.0, 3.0]}, TypeError, "index must be int64"),
        ({"index": []}, TypeError, "index must be int64"),
        ({"loss": [1.0, 2.0]}, ValueError, r"loss must have shape \(3,\), got \(2,\)"),
        ({"loss": [[1.0], [2.0], [3.0]]}, ValueError, r"loss must have shape \(3,\)"),
        ({"loss": [1.0, float("nan"), 2.0]}, ValueError, r"loss must be finite.*samples 1"),
        ({"loss": [1.0, float("inf"), 2.0]}, ValueError, "loss must be finite"),
        ({"loss": [1, 2, 3]}, TypeError, "loss must be floating"),
        ({"logits": [[0.0, float("nan"), 0.0]] * 3}, ValueError, "got 3 non-finite rows"),
        ({"logits": [[0.0, 1.0]] * 3}, ValueError, r"keep the width \(3,\).*got \(2,\)"),
        ({"logits": [[0.0] * 3] * 3, "target": [0, 1, 3]}, ValueError, r"target must be in \[0, 3"),
        ({"target": [0, 1]}, ValueError, r"target must have shape \(3,\)"),
        ({"target": [0, 1, -1]}, ValueError, "target must be 0 or more"),
        ({"target": [0.0, 1.0, 2.0]}, TypeError, "target must be integer"),
        ({"epoch": -1}, ValueError, "epoch must be at least 0, got -1"),
        ({"strength": [0.0, 0.5]}, ValueError, r"strength must be \(3,\) values in \[0, 1\]"),
        ({"strength": [0.0, 0.5, 1.5]}, ValueError, "strength must be"),
        ({"strength": [0.0, 0.5, float("nan")]}, ValueError, "strength must be"),
    ],
)
def test_a_bad_report_changes_nothing(
    given: dict[str, Any], error: type[Exception], words: str
) -> None:
    table = full_table()
    before = copy.deepcopy(table.state_dict())
    values: dict[str, Any] = {"index": [0, 1, 2], "loss": [1.0, 2.0, 3.0]} | given
    values |= {k: torch.tensor(v) for k, v in values.items() if k != "epoch"}
    with pytest.raises(error, match=words):
        table.report(**values)
    assert same(table.state_dict(), before)


def test_a_report_of_nothing() -> None:
    with pytest.raises(ValueError, match="must be given loss, logits or proxy"):
        SampleTable(3).report(torch.tensor([0]))


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss must be finite.*float16"):
        SampleTable(3, dtype=torch.float16).report(torch.tensor([0]), loss=torch.tensor([70000.0]))


def test_bad_tables() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        SampleTable(0)
    with pytest.raises(ValueError, match=r"float32 or torch\.float16"):
        SampleTable(3, dtype=torch.bfloat16)


def test_state_is_a_copy() -> None:
    table = full_table()
    state = table.state_dict()
    table.report(torch.arange(6), logits=torch.zeros(6, 3))
    other = SampleTable(6)
    other.load_state_dict(state)
    assert not same(table.state_dict(), other.state_dict())
    other.report(torch.arange(6), logits=torch.ones(6, 3))
    again = SampleTable(6)
    again.load_state_dict(state)
    assert same(again.state_dict(), full_table().state_dict())


def test_a_state_or_table_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="state must be of n=5"):
        SampleTable(5).load_state_dict(full_table().state_dict())
    with pytest.raises(ValueError, match="other must have n=5"):
        SampleTable(5).merge(full_table())
    clash = SampleTable(6)
    clash.report(torch.tensor([1]), loss=torch.zeros(1), target=torch.tensor([0]))
    before = clash.state_dict()
    with pytest.raises(ValueError, match=r"agree on the labels, got 1 others \(first indices 1\)"):
        clash.merge(full_table())
    wide = SampleTable(6)
    wide.report(torch.tensor([1]), logits=torch.zeros(1, 9))
    with pytest.raises(ValueError, match="keep the width"):
        wide.merge(full_table())
    assert same(clash.state_dict(), before)


def test_ranks_that_saw_disjoint_shares_merge_to_the_whole() -> None:
    whole = full_table()
    logits = whole.state_dict()["columns"]["logits"][0]
    parts = []
    for rank in range(2):
        part, mine = SampleTable(6), torch.arange(rank, 6, 2)
        part.report(mine, logits=logits[mine], target=mine % 3)
        parts.append(part)
    parts[0].merge(parts[1])
    assert same(parts[0].state_dict(), whole.state_dict())


# The rule's columns ------------------------------------------------------------------------------


def reported(rule: StrengthRule, losses: dict[int, list[float]], n: int = 4) -> SampleTable:
    """A table to which every sample's losses were reported one after the other."""
    table = SampleTable(n, rule=rule)
    for i, values in losses.items():
        for value in values:
            table.report(torch.tensor([i]), loss=torch.tensor([float(value)]))
    return table


def test_merging_keeps_the_longer_history_and_the_mean_of_equally_long_ones() -> None:
    rule = StableInfluence("loss", window=2)
    a = reported(rule, {0: [1, 2, 4, 8], 1: [1.0], 2: [0, 1, 1]})
    b = reported(rule, {0: [5, 5], 1: [3, 3, 3, 7], 2: [0, 3, 9]})
    first, second = (table.state_dict()["memory"] for table in (a, b))
    a.merge(b)
    merged = a.state_dict()["memory"]
    for name, values in merged.items():
        assert torch.equal(values[0], first[name][0])
        assert torch.equal(values[1], second[name][1])
    assert merged["visits"].tolist() == [4, 4, 3, 0]
    assert merged["previous"].tolist() == [8, 7, 5, 0]
    assert merged["window"].tolist() == [[4, 2], [4, 0], [2, 3], [0, 0]]
    assert merged["variance"][2] == (0.25 + 2.25) / 2
    a.report(torch.tensor([2]), loss=torch.tensor([6.0]))  # the ring goes on at its position
    assert a.state_dict()["memory"]["window"][2].tolist() == [1, 3]


def test_ranks_that_share_a_past_merge_to_the_whole() -> None:
    """Every rank goes on from the merged table and reports its own share."""
    rule = StableInfluence("loss", window=2)
    whole, ranks = SampleTable(6, rule=rule), [SampleTable(6, rule=rule) for _ in range(2)]
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        order, losses = torch.randperm(6, generator=random), torch.rand(6, generator=random)
        whole.report(order, loss=losses)
        for rank, table in enumerate(ranks):
            table.report(order[rank::2], loss=losses[rank::2])
        ranks[0].merge(ranks[1])
        ranks[1].load_state_dict(ranks[0].state_dict())
    expected = whole.state_dict()["memory"]
    assert same(ranks[0].state_dict()["memory"], expected)
    assert (expected["visits"] == 5).all()


def test_the_rules_columns_are_saved_and_copied() -> None:
    rule = StableInfluence("loss", window=2)
    table = reported(rule, {0: [1, 2, 4, 8], 2: [1, 3]})
    state = table.state_dict()
    kept = copy.deepcopy(state)
    other = SampleTable(4, rule=rule)
    other.load_state_dict(state)
    for each in (table, other):
        each.report(torch.tensor([0]), loss=torch.tensor([5.0]))
    assert same(state, kept)
    assert same(table.state_dict(), other.state_dict())
    assert not same(table.state_dict(), kept)


def test_another_rule_is_refused() -> None:
    table = reported(LossRank(), {0: [1.0]})
    with pytest.raises(
        ValueError, match=r"state must be of n=4.*Entropy.*, got n=4.*LossRank\(a=0"
    ):
        SampleTable(4, rule=Entropy()).load_state_dict(table.state_dict())
    with pytest.raises(ValueError, match=r"other must have .*LossRank\(a=0.5.*, got .*a=0.4"):
        table.merge(SampleTable(4, rule=LossRank(0.4)))


def test_a_rule_that_needs_nothing_has_no_columns() -> None:
    assert full_table().state_dict()["memory"] == {}


def test_a_batch_without_a_clean_view_teaches_a_clean_rule_nothing() -> None:
    table = SampleTable(3, rule=Entropy("clean"))
    every = torch.arange(3)
    table.report(every, logits=torch.eye(3), strength=torch.ones(3))
    assert not table.state_dict()["memory"]["visits"].any()
    table.report(every, logits=torch.eye(3), strength=torch.tensor([0, 1, 0]))
    assert table.state_dict()["memory"]["visits"].tolist() == [1, 0, 1]
    assert table.visits.tolist() == [2, 2, 2]


def test_precedence_is_of_the_later_period_then_of_the_weaker_view() -> None:
    table = SampleTable(5)
    needs = frozenset({"proxies", "labels"})
    assert table.precedence(needs).tolist() == [UNKNOWN] * 5
    assert table.precedence(frozenset()).tolist() == [0] * 5
    logits, strength = torch.zeros(3, 2), torch.tensor([0.5, 0.0, 1.0])
    table.report(
        torch.tensor([0, 1, 3]), logits=logits, target=torch.zeros(3).long(), strength=strength
    )
    table.report(torch.tensor([4]), logits=torch.zeros(1, 2))  # no label: no residual
    first = table.precedence(needs)
    assert first.argsort().tolist()[:3] == [1, 0, 3]
    assert first[[2, 4]].tolist() == [UNKNOWN] * 2
    table.restart()
    later = table.precedence(needs)
    assert (later[[0, 1, 3]] > first[[0, 1, 3]].max()).all()
    table.report(torch.tensor([3]), logits=torch.zeros(1, 2), strength=torch.ones(1), epoch=2)
    assert table.precedence(needs).argsort().tolist()[:3] == [3, 1, 0]
    assert table.precedence(needs)[3] == first[3]
    assert table.precedence(needs, epoch=2, stale=1)[[0, 1]].tolist() == [UNKNOWN] * 2


def test_rows_are_a_table_of_some_samples() -> None:
    table = full_table()
    some = torch.tensor([4, 1])
    part, whole = table.rows(some).evidence(), table.evidence()
    assert part.n == 2
    for mine, all_ in ((part.labels, whole.labels), (part.losses, whole.losses)):
        assert mine is not None
        assert all_ is not None
        assert torch.equal(mine, all_[some])


def test_taking_over_what_the_ranks_agreed_on() -> None:
    table = SampleTable(3, rule=Entropy())
    labels = torch.zeros(2).long()
    table.report(torch.tensor([0, 2]), logits=torch.zeros(2, 2), target=labels)
    assert table.new_visits.tolist() == [1, 0, 1]
    learnt = table.learnt["strength"].items()
    columns = {name: values.clone() for name, values in learnt}
    table.take_over({"strength": columns}, torch.tensor([1, 1, 2]))
    assert table.visits.tolist() == [1, 1, 2]
    assert table.new_visits.tolist() == [0, 0, 0]
    table.report(torch.tensor([0, 2]), logits=torch.zeros(2, 2), target=labels)
    again = SampleTable(3, rule=Entropy())
    again.load_state_dict(table.state_dict())
    assert again.new_visits.tolist() == table.new_visits.tolist() == [1, 0, 1]


def test_arrays_and_lists_are_reports() -> None:
    index, loss, logits, target = [4, 1], [0.5, 2.0], [[0.0, 1.0], [3.0, 0.0]], [1, 0]
    states = []
    kinds: list[Any] = [torch.tensor, np.array, list]
    for kind in kinds:
        table = SampleTable(np.int64(5), forgetting=True)  # type: ignore[arg-type]
        given: dict[str, Any] = {
            name: kind(values)
            for name, values in (("loss", loss), ("logits", logits), ("target", target))
        }
        table.report(kind(index), **given, strength=kind([0.0, 0.0]), epoch=np.int64(2))  # type: ignore[arg-type]
        states.append(table.state_dict())
    assert all(same(state, states[0]) for state in states)


def test_values_are_named_by_their_samples() -> None:
    table, index = SampleTable(50), torch.tensor([40, 8, 21])
    loss = torch.tensor([1.0, 2.0, torch.nan])
    with pytest.raises(ValueError, match=r"loss must be finite, got .* \(first samples 21\)"):
        table.report(index, loss=loss)
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\), got .*\(first samples 8\)"):
        table.report(index, logits=torch.zeros(3, 2), target=torch.tensor([0, 2, 1]))
    assert not table.visits.any()


def test_labels_beyond_logits_that_were_reported_later() -> None:
    table, index = SampleTable(3), torch.arange(3)
    table.report(index, loss=torch.ones(3), target=torch.tensor([0, 5, 1]))
    table.restart()
    table.report(index, logits=torch.zeros(3, 2))
    for need in ("losses", "proxies"):
        with pytest.raises(ValueError, match=r"labels must be in \[0, 2\).*first indices 1"):
            table.evidence(frozenset({need}))


def test_names_of_evidence() -> None:
    table = SampleTable(3)
    with pytest.raises(ValueError, match=r"name must be one of 'losses', .* got 'loss'"):
        table.missing("loss")
    with pytest.raises(TypeError, match=r"needs must be a set of names, got 'losses'"):
        table.evidence("losses")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs must be among labels, .* got loss"):
        table.evidence(frozenset({"loss"}))
    with pytest.raises(ValueError, match=r"other must have n=3, .* got int"):
        table.merge(3)  # type: ignore[arg-type]
    for state in (None, [1]):
        with pytest.raises(TypeError, match=r"state of the table must be a dict, got"):
            table.load_state_dict(state)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator must be a numpy.random.Generator, got 0"):
        table.strengths(0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"forgetting must be True or False, got 'no'"):
        SampleTable(3, forgetting="no")  # type: ignore[arg-type]
