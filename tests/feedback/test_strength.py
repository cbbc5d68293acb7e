"""Strength rules against the formulas, one sample at a time, and against what they are for."""

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import betainc
from scipy.stats import rankdata
from torch import Tensor

from augloader import (
    Confidence,
    Constant,
    CoresetSampler,
    Entropy,
    LossRank,
    StableInfluence,
    Uniform,
)
from augloader.feedback import SampleTable, StrengthRule
from augloader.feedback.learners import Columns, View
from augloader.feedback.sada import Form
from augloader.feedback.strength import average_ranks, require_rule
from tests.reference import random_state

N, C = 30, 4
RULES: list[StrengthRule] = [
    Constant(0.25),
    *(
        StableInfluence(form, window=3, view=view)
        for form in get_args(Form)
        for view in get_args(View)
    ),
    StableInfluence("loss", window=2, scaling="rank"),
    StableInfluence("loss", window=2, scaling="quantile"),
    Entropy(),
    Entropy("clean"),
    LossRank(),
    LossRank(0.3, 6.0, "clean"),
    Confidence(),
    Confidence("clean"),
]


@dataclass
class Report:
    index: Tensor
    losses: Tensor
    logits: Tensor
    labels: Tensor
    strength: Tensor

    @property
    def influences(self) -> Tensor:
        """Signed numbers of about one, which no other column tells."""
        return self.logits.sin().sum(1)

    def to(self, table: SampleTable) -> None:
        table.report(
            self.index,
            loss=self.losses,
            logits=self.logits,
            target=self.labels,
            influence=self.influences if "influences" in table.rule.needs else None,
            strength=self.strength,
        )


def reports(count: int, seed: int = 0, n: int = N) -> list[Report]:
    """Random reports of random samples, at strengths of which about a third are 0."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        index = torch.randperm(n, generator=random)[: max(1, 2 * n // 3)]
        logits = torch.randn(len(index), C, generator=random) * 3
        strength = (torch.rand(len(index), generator=random) * 1.5 - 0.5).clamp(0)
        losses = F.cross_entropy(logits, index % C, reduction="none")
        made.append(Report(index, losses, logits, index % C, strength))
    return made


def filled(rule: StrengthRule, count: int = 12, n: int = N) -> SampleTable:
    table = SampleTable(n, rule=rule)
    for report in reports(count, n=n):
        report.to(table)
    return table


def generator(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def uniform(n: int = N) -> Any:
    return generator().random(n, dtype=np.float32)


# By the definition ------------------------------------------------------------------------------


def last_reports(view: View, count: int = 12) -> dict[int, tuple[float, Tensor, int]]:
    """What each sample's last report that counts said."""
    seen = {}
    for report in reports(count):
        for row, i in enumerate(report.index.tolist()):
            if view == "any" or report.strength[row] == 0:
                seen[i] = (float(report.losses[row]), report.logits[row].double(), i % C)
    return seen


@pytest.mark.parametrize("view", get_args(View))
def test_entropy_and_confidence_are_the_formulas(view: View) -> None:
    for count in (1, 12):
        seen = last_reports(view, count)
        entropy, confidence = uniform(), uniform()
        for i, (_, logits, label) in seen.items():
            p = [math.exp(z) for z in logits.tolist()]
            p = [x / sum(p) for x in p]
            entropy[i] = 1 + sum(x * math.log(x) for x in p) / math.log(C)
            cosine = p[label] / math.sqrt(sum(x * x for x in p))
            confidence[i] = cosine ** (2 / math.log(C))
        assert (len(seen) < N) == (count == 1)
        for rule, expected in ((Entropy(view), entropy), (Confidence(view), confidence)):
            found = filled(rule, count).strengths(generator())
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize(("a", "s"), [(0.5, 2.0), (0.3, 6.0), (0.8, 0.5)])
def test_loss_rank_is_the_formula(a: float, s: float, view: View) -> None:
    for count in (1, 12):
        seen = last_reports(view, count)
        expected = uniform()
        ranks = (rankdata([loss for loss, _, _ in seen.values()]) - 1) / (len(seen) - 1)
        expected[list(seen)] = 1 - betainc(s * (1 - a), s * a, ranks)
        found = filled(LossRank(a, s, view), count).strengths(generator())
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_default_loss_rank_is_a_straight_line() -> None:
    columns = {"loss": torch.arange(5.0), "visits": torch.ones(5)}
    assert LossRank().strengths(columns, generator()).tolist() == [1, 0.75, 0.5, 0.25, 0]
    columns["visits"][1:] = 0
    assert LossRank().strengths(columns, generator())[0] == 0.5


@pytest.mark.parametrize("size", [2, 3, 50])
def test_average_ranks_are_scipys(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(50):
        values = rng.integers(0, rng.integers(1, size + 1), size)
        expected = (rankdata(values) - 1) / (size - 1)
        np.testing.assert_allclose(average_ranks(values), expected, atol=1e-12)
    assert average_ranks(np.array([3.0])).tolist() == [0.5]
    assert average_ranks(np.array([])).tolist() == []


def test_extreme_logits() -> None:
    """Certain outputs of any size: no NaN, and the limits of the formulas."""
    logits = torch.tensor([[3e38, -3e38, 0.0], [0.0, 0.0, 0.0], [1e4, 1e4, 1e4]])
    for label, right in ((0, 1.0), (1, 0.0)):
        given: dict[str, Any] = {"logits": logits, "labels": torch.full((3,), label)}
        entropy = Entropy().update({}, **given)["strength"]
        torch.testing.assert_close(entropy, torch.tensor([1.0, 0.0, 0.0]))
        found = Confidence().update({}, **given)["strength"]
        chance = 3 ** (-1 / math.log(3))  # cos = 1 / sqrt(C), so the strength is 1 / e
        torch.testing.assert_close(found, torch.tensor([right, chance, chance]))


# Every rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_strengths_are_a_pure_function_within_bounds(rule: StrengthRule) -> None:
    table = filled(rule)
    before, state = random_state(), copy.deepcopy(table.state_dict())
    first, again = (table.strengths(generator()) for _ in range(2))
    assert random_state() == before
    assert torch.equal(first, again)
    assert first.shape == (N,)
    assert first.dtype == torch.float32
    assert ((first >= 0) & (first <= 1)).all()
    assert state["memory"].keys() == table.state_dict()["memory"].keys()
    for name, values in state["memory"].items():
        assert torch.equal(values, table.state_dict()["memory"][name])


@pytest.mark.parametrize("rule", RULES[1:], ids=repr)
def test_without_reports_strengths_are_uniform(rule: StrengthRule) -> None:
    table = SampleTable(20_000, rule=rule)
    strengths = table.strengths(generator())
    assert abs(float(strengths.mean()) - 0.5) < 0.01
    assert strengths.tolist() == uniform(20_000).tolist()
    assert not torch.equal(strengths, table.strengths(generator(8)))


@pytest.mark.parametrize("rule", RULES[1:], ids=repr)
def test_a_random_strength_does_not_depend_on_other_samples(rule: StrengthRule) -> None:
    table = SampleTable(N, rule=rule)
    for report in reports(20):
        others = report.index >= 10
        parts = {name: part[others] for name, part in vars(report).items()}
        Report(**parts).to(table)
    assert table.strengths(generator())[:10].tolist() == uniform()[:10].tolist()
    assert table.strengths(generator())[10:].tolist() != uniform()[10:].tolist()


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.view == "clean"], ids=repr)
def test_the_clean_view_passes_over_augmented_ones(rule: StrengthRule) -> None:
    everything = filled(rule)
    only = SampleTable(N, rule=rule)
    for report in reports(12):
        clean = report.strength == 0
        if clean.any():
            Report(**{name: part[clean] for name, part in vars(report).items()}).to(only)
    mine, theirs = everything.state_dict()["memory"], only.state_dict()["memory"]
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert 0 < mine["visits"].sum() < everything.visits.sum()


def test_restarting_the_period_does_not_forget() -> None:
    table = filled(StableInfluence("loss", window=2))
    before = table.strengths(generator())
    table.restart()
    assert torch.equal(table.strengths(generator()), before)


# Memory -----------------------------------------------------------------------------------------


def size(tensors: Columns) -> int:
    return sum(values.nbytes for values in tensors.values())


def test_a_data_set_of_imagenets_size_fits() -> None:
    """1,281,167 samples of 1,000 classes, really reported and really allocated."""
    n = 1_281_167
    table = SampleTable(n, rule=StableInfluence("loss"))
    for start in range(0, n, 2**19):
        index = torch.arange(start, min(n, start + 2**19))
        table.report(index, loss=torch.rand(len(index)))
    state = table.state_dict()
    assert size(state["memory"]) == 22 * n < 100e6
    values, strength = state["columns"]["losses"]
    rest = {
        "values": values,
        "strength": strength,
        "visits": table.visits,
        "labels": state["labels"],
        **dict(zip(("period", "epoch"), state["reported"]["losses"], strict=True)),
    }
    assert size(state["memory"]) + size(rest) < 100e6
    assert table.strengths(generator()).shape == (n,)
    per_sample = size(StableInfluence("kl").start(1_000, 1_000)) / 1_000 + 4
    assert per_sample == 8 + 2 * 5 + 2 * 1_000


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "options", "error", "words"),
    [
        (
            Constant,
            {"value": 1.5},
            ValueError,
            r"value must be in \[0, 1\], got 1.5. 1 is the full",
        ),
        (Constant, {"value": -0.1}, ValueError, "value must be in"),
        (Constant, {"value": float("nan")}, ValueError, "value must be in"),
        (Constant, {"value": "full"}, TypeError, "value must be a number in"),
        (Constant, {"value": True}, TypeError, "value must be a number in"),
        (
            StableInfluence,
            {"form": "tv"},
            ValueError,
            "form must be one of 'kl', 'loss', 'gradient', got 'tv'",
        ),
        (StableInfluence, {"window": 1}, ValueError, "window must be at least 2, got 1. One"),
        (StableInfluence, {"window": 2.5}, TypeError, "window must be an integer"),
        (StableInfluence, {"smoothing": 0}, ValueError, r"smoothing must be in \(0, 1\], got 0"),
        (StableInfluence, {"smoothing": 1.1}, ValueError, "smoothing must be in"),
        (
            StableInfluence,
            {"scaling": "z"},
            ValueError,
            "scaling must be one of 'minmax', 'rank",
        ),
        (StableInfluence, {"view": "weak"}, ValueError, "view must be one of 'any', 'clean'"),
        (Entropy, {"view": "weak"}, ValueError, "view must be one of 'any', 'clean', got 'weak'"),
        (Confidence, {"view": "weak"}, ValueError, "view must be one of"),
        (LossRank, {"a": 0}, ValueError, r"a must be in \(0, 1\), got 0. 0.5 treats"),
        (LossRank, {"a": 1.0}, ValueError, "a must be in"),
        (LossRank, {"s": 0}, ValueError, r"s must be in \(0, 1000\], got 0. 2 with"),
        (LossRank, {"s": float("inf")}, ValueError, "s must be in"),
        (LossRank, {"view": "weak"}, ValueError, "view must be one of"),
    ],
)
def test_bad_options(
    rule: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        rule(**options)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25)])
def test_the_ends_of_the_range_are_in_it(value: float) -> None:
    assert SampleTable(3, rule=Constant(value)).strengths(generator()).tolist() == [value] * 3


@dataclass(frozen=True)
class Mine:
    """A user's rule, which may break the contract in one way."""

    broken: str = ""
    view: View = "any"

    needs: ClassVar[frozenset[str]] = frozenset({"losses"})

    def start(self, n: int, classes: int) -> Columns:
        return {"last": torch.zeros(n, 2)}

    def update(self, rows: Columns, *, losses: Any, logits: Any, labels: Any) -> Columns:
        if self.broken == "rows":
            return {"last": torch.zeros(len(losses), 3)}
        if self.broken == "name":
            return {"first": torch.zeros(len(losses), 2)}
        if self.broken == "dtype":
            return {"last": losses[:, None].expand(-1, 2).double()}
        if self.broken in ("list", "none"):
            return {"last": losses.tolist()} if self.broken == "list" else None  # type: ignore[return-value]
        return {"last": losses[:, None].expand(-1, 2)}

    def strengths(self, columns: Columns, generator: np.random.Generator) -> Tensor:
        found = columns["last"][:, 0]
        return {"range": found + 2, "nan": found * torch.nan, "type": found.double()}.get(
            self.broken, found
        )


class Nameless(Mine):
    __repr__ = object.__repr__


class Needy(Mine):
    needs = frozenset({"losses", "horoscope"})


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (StableInfluence, TypeError, r"object with needs, view, start.*Pass an instance"),
        (0.5, TypeError, r"got 0.5. Pass an instance, as Constant\(0.5\)"),
        (None, TypeError, "got None"),
        (Uniform(), TypeError, r"got Uniform\("),
        (Nameless(), TypeError, "must have a repr that names its options"),
        (
            Needy(),
            ValueError,
            "needs must be among losses, logits, labels, influences, got horoscope",
        ),
        (Mine(view="weak"), ValueError, "view must be one of 'any', 'clean'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_rule(rule: Any, error: type[Exception], words: str) -> None:
    for build in (
        lambda: require_rule("rule", rule),
        lambda: SampleTable(3, rule=rule),
        lambda: CoresetSampler(range(3), Uniform(), count=1, strength=rule),
    ):
        with pytest.raises(error, match=words):
            build()
    with pytest.raises(error, match="strength"):
        CoresetSampler(range(3), Uniform(), count=1, strength=rule)


def test_a_users_rule() -> None:
    rule = Mine()
    assert isinstance(rule, StrengthRule)
    table = SampleTable(3, rule=rule)
    table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.0]))
    strengths = table.strengths(generator())
    assert strengths.tolist() == [1, 0, 0.5]
    table.report(torch.tensor([0]), loss=torch.tensor([0.0]))
    assert strengths.tolist() == [1, 0, 0.5]  # they do not change under the feet


@pytest.mark.parametrize("broken", ["rows", "name", "dtype", "list", "none"])
def test_a_rule_that_returns_other_rows(broken: str) -> None:
    table = SampleTable(3, rule=Mine(broken))
    with pytest.raises(ValueError, match=r"update of Mine.* must return {'last': .*Fix its"):
        table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.0]))
    assert not table.visits.any()
    assert not table.state_dict()["memory"]


class Learns(Mine):
    """A rule with weights of its own, which hands on the rows it was given."""

    def update(self, rows: Columns, *, losses: Any, logits: Any, labels: Any) -> Columns:
        assert rows["index"].tolist() == [2, 0]
        weight = torch.ones((), requires_grad=True)
        return {**rows, "last": losses[:, None].expand(-1, 2) * weight}


def test_what_is_learnt_keeps_no_graph() -> None:
    table = SampleTable(3, rule=Learns())
    table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.0]))
    columns = table.learnt["strength"]
    assert columns.keys() == {"last", "visits"}
    assert not columns["last"].requires_grad


class Begins(Mine):
    """A rule that begins with other columns."""

    def __init__(self, begun: Any) -> None:
        object.__setattr__(self, "begun", begun)

    def start(self, n: int, classes: int) -> Any:
        return self.begun  # type: ignore[attr-defined]


@pytest.mark.parametrize("begun", [None, {"last": np.zeros((3, 2))}, {"last": torch.zeros(2, 2)}])
def test_a_rule_that_begins_with_other_columns(begun: Any) -> None:
    table = SampleTable(3, rule=Begins(begun))
    with pytest.raises(
        ValueError, match=r"start of Begins.* must return columns, tensors of 3 rows"
    ):
        table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize(
    ("plain", "numpys"),
    [
        (Constant(0.5), Constant(np.float32(0.5))),  # type: ignore[arg-type]
        (LossRank(0.5, 2), LossRank(np.array(0.5), np.int64(2))),  # type: ignore[arg-type]
        (StableInfluence(window=3), StableInfluence(window=np.int8(3), smoothing=np.float64(0.9))),  # type: ignore[arg-type]
    ],
)
def test_options_of_numpy_are_those_of_python(plain: StrengthRule, numpys: StrengthRule) -> None:
    """So that a table saved with the one is loaded with the other."""
    assert repr(plain) == repr(numpys)
    SampleTable(2, rule=numpys).load_state_dict(SampleTable(2, rule=plain).state_dict())


@pytest.mark.parametrize("broken", ["range", "nan", "type"])
def test_a_rule_that_returns_other_strengths(broken: str) -> None:
    with pytest.raises(ValueError, match=r"strengths of Mine.* must be \(3,\) float32 in \[0, 1\]"):
        SampleTable(3, rule=Mine(broken)).strengths(generator())


@pytest.mark.parametrize(
    ("rule", "given", "words"),
    [
        (Entropy(), {"loss": torch.zeros(2)}, r"given logits for the rule Entropy.* no logits"),
        (Confidence(), {"logits": torch.zeros(2, 2)}, "given logits and target .* no target"),
        (LossRank(), {"logits": torch.zeros(2, 2)}, "given loss for the rule LossRank"),
        (StableInfluence("kl"), {"loss": torch.zeros(2)}, "given logits for"),
        (StableInfluence("gradient"), {"loss": torch.zeros(2)}, "given influence for the rule"),
        (StableInfluence("gradient"), {"influence": torch.zeros(2)}, "given loss, logits or proxy"),
        (
            StableInfluence("gradient"),
            {"loss": torch.zeros(2), "influence": torch.tensor([torch.nan, 0])},
            r"influence must be finite, got 1 non-finite rows",
        ),
        (
            StableInfluence("gradient"),
            {"loss": torch.zeros(2), "influence": torch.zeros(2, 1)},
            r"influence must have shape \(2,\), got \(2, 1\)\. Report one number a sample",
        ),
        (
            LossRank(),
            {"loss": torch.zeros(2), "influence": torch.zeros(2)},
            r"reported for a rule that needs it, got LossRank.*Leave it out",
        ),
        (StableInfluence("loss"), {"logits": torch.zeros(2, 2)}, "given loss for"),
        (Entropy("clean"), {"loss": torch.zeros(2)}, "given logits for"),
        (Entropy(), {"logits": torch.zeros(2, 1)}, "logits must have 2 classes or more, got 1"),
        (StableInfluence("kl"), {"logits": torch.zeros(2, 1)}, "2 classes or more"),
        (
            Confidence(),
            {"logits": torch.zeros(2, 1), "target": torch.zeros(2, dtype=torch.int64)},
            "2 classes or more",
        ),
        (Entropy(), {"logits": torch.full((2, 2), torch.nan)}, "logits must be finite"),
        (
            StableInfluence("loss"),
            {"loss": torch.tensor([torch.inf, 0])},
            "loss must be finite",
        ),
        (
            StableInfluence("kl"),
            {"logits": torch.tensor([[0.0, 1.0], [0.0, 1e5]])},
            r"log-probabilities must be finite, got 1 non-finite rows \(first samples 0\)",
        ),
    ],
)
def test_a_report_that_the_rule_cannot_use_changes_nothing(
    rule: StrengthRule, given: dict[str, Any], words: str
) -> None:
    table = SampleTable(3, rule=rule)
    with pytest.raises(ValueError, match=words):
        table.report(torch.tensor([2, 0]), **given)
    state = table.state_dict()
    assert not table.visits.any()
    assert not state["memory"]
    assert not state["columns"]
