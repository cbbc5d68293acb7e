"""Forgetting events: the counting, the table that remembers it, and a loop that selects by it."""

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    CoresetSampler,
    Entropy,
    Every,
    Evidence,
    Forgetting,
    LastLayerGradient,
    Loss,
    Proportional,
    Rank,
    Selection,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.feedback import SampleTable
from augloader.feedback.learners import ForgettingEvents
from tests.feedback.test_table import same

pytestmark = pytest.mark.usefixtures("one_thread")
n, classes = 5, 3
LABELS = torch.arange(n) % classes
Visit = tuple[list[int], list[bool], list[float]]  # samples, whether right, how strong the views


def logits(index: Tensor, right: list[bool]) -> Tensor:
    """Outputs whose largest is that of the label, or of the class after it."""
    shift = torch.tensor([0 if each else 1 for each in right])
    return torch.eye(classes)[(LABELS[index] + shift) % classes] * 3 - 1


def report(table: SampleTable, visit: Visit, **more: Any) -> None:
    samples, right, strength = visit
    index = torch.tensor(samples)
    table.report(
        index,
        logits=logits(index, right),
        target=LABELS[index],
        strength=torch.tensor(strength),
        **more,
    )


def clean(*right: bool) -> Visit:
    """A visit of all samples without augmentation."""
    return list(range(n)), list(right), [0.0] * n


def simulated(visits: list[Visit]) -> list[int | None]:
    """Sample by sample from the definition; None where it was never seen without augmentation."""
    found: list[int | None] = []
    for i in range(n):
        own = [
            each
            for samples, right, strength in visits
            for j, each, s in zip(samples, right, strength, strict=True)
            if j == i and s == 0
        ]
        forgotten = sum(a and not b for a, b in pairwise(own))
        found.append((forgotten if any(own) else -1) if own else None)
    return found


def counts(table: SampleTable) -> list[float]:
    assert table.forgetting is not None
    return table.forgetting.tolist()


@st.composite
def histories(draw: Any, most: int = 12) -> list[Visit]:
    """Batches of some samples; two thirds of the views are not augmented."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    visits: list[Visit] = []
    for _ in range(draw(st.integers(0, most))):
        b = int(rng.integers(1, n + 1))
        strength = rng.choice([0.0, 0.0, 0.5, 1.0], b) if rng.random() < 0.7 else np.zeros(b)
        right = (rng.random(b) < 0.6).tolist()
        visits.append((rng.permutation(n)[:b].tolist(), right, strength.tolist()))
    return visits


def told(visits: list[Visit]) -> SampleTable:
    table = SampleTable(n, forgetting=True)
    for visit in visits:
        report(table, visit)
    return table


# Counting ----------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), max_size=15))
def test_events_are_a_right_answer_followed_by_a_wrong_one(history: list[list[bool]]) -> None:
    events = ForgettingEvents()
    rows = events.start(n, classes)
    for right in history:
        index = torch.arange(n)
        given_ = {k: v.clone() for k, v in rows.items()}
        new = events.update(rows, losses=None, logits=logits(index, right), labels=LABELS)
        assert same(rows, given_)  # pure
        assert {k: (v.dtype, v.shape) for k, v in new.items()} == {
            k: (v.dtype, v.shape) for k, v in rows.items()
        }
        rows = new
    found = events.counts(rows)
    assert found.dtype == torch.float32
    expected = simulated([clean(*right) for right in history])
    assert found.tolist() == [-1 if each is None else each for each in expected]


@pytest.mark.parametrize(
    ("sequence", "events"),
    [
        ("", -1),
        ("w", -1),
        ("www", -1),
        ("r", 0),
        ("wr", 0),
        ("rrr", 0),
        ("rw", 1),
        ("rww", 1),
        ("rwrw", 2),
        ("wrwwrwr", 2),
    ],
)
def test_sequences_by_hand(sequence: str, events: int) -> None:
    learner = ForgettingEvents()
    rows = learner.start(1, 2)
    for answer in sequence:
        out = torch.tensor([[1.0, 0.0] if answer == "r" else [0.0, 1.0]])
        rows = learner.update(rows, losses=None, logits=out, labels=torch.tensor([0]))
    assert learner.counts(rows).tolist() == [events]


@given(histories())
def test_the_table_counts_views_without_augmentation_alone(visits: list[Visit]) -> None:
    table = told(visits)
    expected = simulated(visits)
    if None in expected:
        assert table.forgetting is None
        missing = [i for i, each in enumerate(expected) if each is None]
        words = rf"forgetting must be known.*{len(missing)} samples \(first indices {missing[0]}"
        with pytest.raises(ValueError, match=words):
            table.evidence(frozenset({"forgetting"}))
        assert table.evidence().forgetting is None
        return
    assert counts(table) == expected
    assert table.forgetting is not None
    assert table.forgetting.dtype == torch.float32
    evidence = table.evidence(frozenset({"forgetting"}))
    assert evidence.forgetting is not None
    assert evidence.forgetting.tolist() == expected


def test_counts_that_were_given_do_not_change() -> None:
    table = told([clean(True, True, False, False, True)])
    before = table.forgetting
    assert before is not None
    report(table, clean(False, True, True, False, False))
    assert before.tolist() == [0, 0, -1, -1, 0]
    assert counts(table) == [1, 0, 0, -1, 1]


def test_a_float16_table_counts_what_was_reported() -> None:
    """What is stored is rounded, what is counted is not."""
    table = SampleTable(2, dtype=torch.float16, forgetting=True)
    close = torch.tensor([[1.0, 1.0001], [1.0001, 1.0]])  # equal in float16
    table.report(torch.arange(2), logits=close, target=torch.tensor([1, 1], dtype=torch.uint8))
    assert counts(table) == [0, -1]
    table.report(torch.arange(2), logits=close.flip(1).double(), target=torch.tensor([1, 1]))
    assert counts(table) == [1, 0]


def test_a_table_that_does_not_count() -> None:
    table = SampleTable(n)
    report(table, clean(*[True] * n))
    assert table.forgetting is None
    assert table.state_dict()["forgetting"] is None
    assert table.evidence().forgetting is None
    with pytest.raises(ValueError, match="forgetting must be known for every sample, got 5 sampl"):
        table.evidence(frozenset({"forgetting"}))
    assert not table.learns
    assert SampleTable(n, forgetting=True).learns


# The table ---------------------------------------------------------------------------------------


@given(histories(), histories())
def test_a_new_period_forgets_no_events(first: list[Visit], second: list[Visit]) -> None:
    table, whole = told(first), told([*first, *second])
    table.restart()
    for visit in second:
        report(table, visit)
    assert same(table.state_dict()["forgetting"], whole.state_dict()["forgetting"])
    assert (table.forgetting is None) == (whole.forgetting is None)
    table.restart()
    if whole.forgetting is not None:
        assert counts(table) == counts(whole)
        evidence = table.evidence(frozenset({"forgetting"}))  # without a report in this period
        assert evidence.forgetting is not None


@given(histories(), histories())
def test_a_saved_table_goes_on_where_it_was(first: list[Visit], second: list[Visit]) -> None:
    table = told(first)
    state = table.state_dict()
    kept = copy.deepcopy(state)
    again = SampleTable(n, forgetting=True)
    again.load_state_dict(state)
    assert same(again.state_dict(), kept)
    for visit in second:
        report(table, visit)
        report(again, visit)
    assert same(table.state_dict(), again.state_dict())
    assert same(state, kept)  # a copy
    other = told(second)
    other.load_state_dict(state)  # replaces what was counted
    assert same(other.state_dict()["forgetting"], kept["forgetting"])


@given(histories(6), histories(6))
def test_merging_keeps_the_row_of_the_table_with_more_visits(
    first: list[Visit], second: list[Visit]
) -> None:
    a, b, merged, reverse = told(first), told(second), told(first), told(second)
    mine, theirs = (_visits(table) for table in (a, b))
    merged.merge(b)
    reverse.merge(a)
    assert same(merged.state_dict()["forgetting"], reverse.state_dict()["forgetting"])
    assert same(b.state_dict(), told(second).state_dict())  # the other one is not touched
    events = [_events(table) for table in (a, b, merged)]
    for i in range(n):
        ours, others, found = (row[i] for row in events)
        if mine[i] != theirs[i]:
            assert found == (ours if mine[i] > theirs[i] else others)
        else:
            assert found == max(ours, others)
    assert _visits(merged) == [max(pair) for pair in zip(mine, theirs, strict=True)]


def _visits(table: SampleTable) -> list[int]:
    columns = table.state_dict()["forgetting"]
    return columns["visits"].tolist() if columns else [0] * n


def _events(table: SampleTable) -> list[int]:
    columns = table.state_dict()["forgetting"]
    return columns["events"].tolist() if columns else [-1] * n


def test_a_merged_table_goes_on_from_the_longer_history() -> None:
    a = told([clean(*[True] * n), clean(*[False] * n), clean(*[True] * n)])
    b = told([clean(*[True] * n), clean(*[False] * n)])
    b.merge(a)
    report(b, clean(*[False] * n))
    assert counts(b) == [2] * n


def test_shares_that_tables_saw_of_disjoint_samples_merge_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    parts = [SampleTable(n, forgetting=True) for _ in range(2)]
    visits: list[Visit] = []
    for _ in range(6):
        for rank in range(2):
            index = list(range(rank, n, 2))
            visit = index, (rng.random(len(index)) < 0.5).tolist(), [0.0] * len(index)
            report(parts[rank], visit)
            visits.append(visit)
    assert parts[0].forgetting is None
    parts[0].merge(parts[1])
    assert counts(parts[0]) == simulated(visits)


def test_a_report_without_logits_or_labels_changes_nothing() -> None:
    table, index = told([clean(*[True] * n)]), torch.arange(n)
    before = table.state_dict()
    outputs = logits(index, [False] * n)
    words = r"report must be given logits and target .*ForgettingEvents\(\), got no "
    with pytest.raises(ValueError, match=words + "logits and no target"):
        table.report(index, loss=torch.ones(n))
    with pytest.raises(ValueError, match=words + "target"):
        table.report(index, logits=outputs)
    with pytest.raises(ValueError, match=words + "logits"):
        table.report(index, loss=torch.ones(n), target=LABELS)
    with pytest.raises(ValueError, match=words):
        table.report(index, loss=torch.ones(n), strength=torch.ones(n))
    assert same(table.state_dict(), before)


def test_another_bad_report_changes_no_counts() -> None:
    table, index = told([clean(*[True] * n)]), torch.arange(n)
    before = table.state_dict()
    outputs = logits(index, [False] * n)
    bad: dict[str, Any]
    for bad in ({"logits": outputs * torch.nan}, {"logits": outputs[:, :2]}, {"target": -LABELS}):
        values: dict[str, Any] = {"logits": outputs, "target": LABELS} | bad
        with pytest.raises(ValueError, match="must"):
            table.report(index, **values)
    assert same(table.state_dict(), before)


def test_tables_with_and_without_counting_do_not_mix() -> None:
    plain, counting = SampleTable(n), told([clean(*[True] * n)])
    report(plain, clean(*[True] * n))
    before = plain.state_dict(), counting.state_dict()
    with pytest.raises(ValueError, match=r"other must have n=5, .*, got n=5, .*, forgetting\."):
        plain.merge(counting)
    with pytest.raises(ValueError, match=r"other must have n=5, .*, forgetting, got n=5"):
        counting.merge(plain)
    with pytest.raises(ValueError, match=r"state must be of n=5, .*, got n=5, .*, forgetting\."):
        plain.load_state_dict(before[1])
    with pytest.raises(ValueError, match=r"state must be of n=5, .*, forgetting, got n=5"):
        counting.load_state_dict(before[0])
    assert same((plain.state_dict(), counting.state_dict()), before)


@pytest.mark.parametrize("rule", [Entropy(), Entropy("clean"), StableInfluence("loss", window=2)])
@given(visits=histories(8))
def test_a_strength_rule_beside_it_learns_the_same(rule: Any, visits: list[Visit]) -> None:
    both, events = SampleTable(n, rule=rule, forgetting=True), told(visits)
    alone = SampleTable(n, rule=rule)
    for visit in visits:
        more = {"loss": torch.arange(1.0, len(visit[0]) + 1)}
        report(both, visit, **more)
        report(alone, visit, **more)
    assert same(both.state_dict()["memory"], alone.state_dict()["memory"])
    assert same(both.state_dict()["forgetting"], events.state_dict()["forgetting"])
    again = SampleTable(n, rule=rule, forgetting=True)
    again.load_state_dict(both.state_dict())
    assert same(again.state_dict(), both.state_dict())


# The sampler -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Rank(Loss()), Uniform()])
def test_a_strategy_that_does_not_ask_counts_nothing(strategy: Any) -> None:
    assert not CoresetSampler(range(n), strategy, count=2).table.learns
    assert CoresetSampler(range(n), Rank(Forgetting()), count=2).table.learns


class Spy(Proportional):
    """Writes down the counts that it is given."""

    seen: list[Tensor | None]

    def select(self, evidence: Evidence, *args: Any, **options: Any) -> Selection:
        self.seen.append(evidence.forgetting)
        return super().select(evidence, *args, **options)


class Spying(Spy):
    """A spy with a notebook of its own."""

    def __init__(self) -> None:
        super().__init__(Forgetting())
        object.__setattr__(self, "seen", [])


def noisy(count: int = 40) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator)
    return TensorDataset(x, torch.randint(2, (count,), generator=generator))


@pytest.mark.parametrize("swept", [False, True])
def test_a_training_loop_that_selects_what_it_forgets(swept: bool) -> None:
    data, strategy = noisy(), Spying()
    view = WeightedAugmentedDataset(data, strong=torch.neg)
    sampler = CoresetSampler(data, strategy, count=10, refresh=Every(2, warmup=3))
    loader = DataLoader(view, 8, sampler=sampler, generator=torch.Generator())
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    last, events = [False] * 40, [-1] * 40
    expected: list[list[int]] = []
    for epoch in range(7):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh(sweep(model, view, LastLayerGradient()) if swept else None)
            expected.append(list(events))
        for batch in loader:
            outputs = model(batch.input)
            loss = (F.cross_entropy(outputs, batch.target, reduction="none") * batch.weight).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sampler.report(batch, logits=outputs)
            right = (outputs.argmax(1) == batch.target).tolist()
            for i, s, now in zip(batch.index.tolist(), batch.strength.tolist(), right, strict=True):
                if s == 0:
                    events[i] = max(events[i], 0) if now else events[i] + last[i]
                    last[i] = now
    assert [None if seen is None else seen.tolist() for seen in strategy.seen] == expected
    assert len(expected) == 2
    assert max(expected[-1]) > max(expected[0]) > 0
    assert -1 in expected[0]
    assert sampler.selection is not None
    assert len(sampler.selection) == 10


def test_before_all_samples_were_visited_there_is_nothing_to_select_by() -> None:
    data = noisy()
    sampler = CoresetSampler(data, Proportional(Forgetting()), count=10)
    model = nn.Linear(3, 2)
    evidence = sweep(model, data, None)

    def fails(words: str) -> None:
        before = sampler.table.state_dict()
        with pytest.raises(ValueError, match=words):
            sampler.refresh()
        with pytest.raises(
            ValueError, match=r"evidence\.forgetting must be given, got None.*table"
        ):
            sampler.refresh(evidence)
        assert sampler.selection is None
        assert same(sampler.table.state_dict(), before)

    fails(r"forgetting must be known for every sample, got 40 samples \(first indices 0, 1")
    some = torch.arange(39)
    wrong = 1 - data.tensors[1]
    sampler.table.report(some, logits=torch.eye(2)[wrong[:39]], target=data.tensors[1][:39])
    fails(r"forgetting must be known for every sample, got 1 samples \(first indices 39\)")
    strong: dict[str, Any] = {"strength": torch.ones(40)}
    sampler.table.report(torch.arange(40), logits=torch.eye(2)[wrong], target=1 - wrong, **strong)
    fails(r"got 1 samples \(first indices 39\)")
    sampler.table.report(
        torch.tensor([39]), logits=torch.eye(2)[wrong[39:]], target=data.tensors[1][39:]
    )
    assert len(sampler.refresh()) == 10
    assert len(sampler.refresh(evidence)) == 10


def test_counts_in_the_evidence_come_before_the_tables() -> None:
    sampler = CoresetSampler(range(n), Rank(Forgetting()), count=1)
    report(sampler.table, clean(*[True] * n))
    own = torch.tensor([0.0, 0.0, 7.0, 0.0, 1.0])
    assert sampler.refresh(Evidence(n, forgetting=own)).indices.tolist() == [2]


def test_the_most_forgotten_are_selected_and_a_resume_selects_the_same() -> None:
    sampler, again = (
        CoresetSampler(range(n), Rank(Forgetting()), count=2, refresh=Every(1, warmup=1))
        for _ in range(2)
    )
    for right in ([1, 1, 0, 1, 1], [0, 1, 0, 0, 1], [1, 1, 0, 1, 1], [0, 1, 0, 1, 1]):
        report(sampler.table, clean(*map(bool, right)))
        assert sampler.table.state_dict()["forgetting"]
    assert counts(sampler.table) == [2, 0, -1, 1, 0]
    sampler.set_epoch(1)
    again.load_state_dict(sampler.state_dict())
    again.table.load_state_dict(sampler.table.state_dict())
    for each in (sampler, again):
        assert each.refresh_due
        assert each.refresh().indices.tolist() == [2, 0]  # the one never right, then the forgotten
        assert each.refresh().indices.tolist() == [2, 0]  # without a report in between
