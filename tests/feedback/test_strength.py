"""Strength rules against the formulas, one sample at a time, and against what they are for."""

import copy
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import betainc
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    Confidence,
    Constant,
    CoresetSampler,
    Entropy,
    LossRank,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.feedback import SampleTable, StrengthRule
from augloader.feedback.learners import Columns, View
from augloader.feedback.sada import Form, Scaling, loss_influence
from augloader.feedback.strength import average_ranks, require_rule
from tests.reference import random_state

N, C = 30, 4
RULES: list[StrengthRule] = [
    Constant(0.25),
    *(
        StableInfluence(form, window=3, view=view)
        for form in ("kl", "loss")
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

    def to(self, table: SampleTable) -> None:
        table.report(
            self.index,
            loss=self.losses,
            logits=self.logits,
            target=self.labels,
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


@dataclass
class History:
    """One sample under StableInfluence, as the formula reads: lists, Python floats."""

    influences: list[float] = field(default_factory=list)
    last: Any = None
    v: float | None = None

    def visit(self, rule: StableInfluence, loss: float, logits: Tensor) -> None:
        if rule.form == "loss":
            now: Any = float(np.float32(loss))
            influence = 0.0 if self.last is None else abs(self.last - now)
        else:
            total = math.log(sum(math.exp(z) for z in logits.tolist()))
            now = [float(np.float16(z - total)) for z in logits.tolist()]
            last = now if self.last is None else self.last
            influence = sum(abs(math.exp(a) * (a - b)) for a, b in zip(now, last, strict=True))
        if self.last is not None:
            self.influences.append(float(np.float16(influence)))
        self.last = now
        if len(self.influences) >= rule.window and self.influences:
            part = self.influences[-rule.window :]
            mean = sum(part) / len(part)
            v = sum((x - mean) ** 2 for x in part) / len(part)
            self.v = v if self.v is None else rule.smoothing * v + (1 - rule.smoothing) * self.v


def naive_scaling(v: list[float], scaling: Scaling) -> Any:
    if min(v) == max(v):
        return np.ones(len(v))
    if scaling == "rank":
        return 1 - (rankdata(v) - 1) / (len(v) - 1)
    if scaling == "quantile":
        v = list(np.clip(v, np.quantile(v, 0.05), np.quantile(v, 0.95)))
    return np.array([1 - (x - min(v)) / (max(v) - min(v)) for x in v])


@pytest.mark.parametrize("view", get_args(View))
@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize(("window", "smoothing", "visits"), [(2, 1.0, 14), (5, 0.9, 50)])
def test_stable_influence_is_the_formula(
    form: Form, view: View, window: int, smoothing: float, visits: int
) -> None:
    rule = StableInfluence(form, window=window, smoothing=smoothing, view=view)
    table = SampleTable(N, rule=rule)
    histories = [History() for _ in range(N)]
    checked = set()
    for report in reports(visits):
        report.to(table)
        for row, i in enumerate(report.index.tolist()):
            if view == "any" or report.strength[row] == 0:
                histories[i].visit(rule, float(report.losses[row]), report.logits[row].double())
        ready = [i for i, history in enumerate(histories) if history.v is not None]
        v = [history.v for history in histories if history.v is not None]
        columns = table.state_dict()["memory"]
        assert (columns["visits"] > window).nonzero().flatten().tolist() == ready
        # A loss computed in float32 may round to the neighbour in float16.
        np.testing.assert_allclose(columns["variance"][ready], v, rtol=2e-2, atol=1e-6)
        for scaling in get_args(Scaling):
            found = replace(rule, scaling=scaling).strengths(columns, generator()).numpy()
            expected = uniform()
            if ready:
                stored = columns["variance"][ready].tolist()
                expected[ready] = naive_scaling(stored, scaling)
                checked.add(len(ready))
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(checked) >= 2
    assert max(checked) > N // 2


def test_an_output_that_did_not_change_has_no_influence() -> None:
    rule = StableInfluence("kl", window=2)
    table = SampleTable(N, rule=rule)
    for report in reports(1) * 4:
        report.to(table)
    index = report.index
    assert not table.state_dict()["memory"]["window"].any()
    assert (table.strengths(generator())[index] == 1).all()  # all V are equal


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_one_sample_or_equal_variances_have_strength_one(scaling: Scaling) -> None:
    rule = StableInfluence("loss", window=2, scaling=scaling)
    columns = {**rule.start(5, 0), "visits": torch.tensor([0, 3, 2, 9, 3])}
    columns["variance"][[1, 3, 4]] = 7.0
    found = rule.strengths(columns, generator())
    assert found[[1, 3, 4]].tolist() == [1, 1, 1]
    assert found[[0, 2]].tolist() == uniform(5)[[0, 2]].tolist()
    columns["visits"][[1, 4]] = 0
    assert rule.strengths(columns, generator())[3] == 1


def test_heavy_tails_push_strengths_to_one_unless_scaled() -> None:
    v = torch.from_numpy(np.random.default_rng(0).lognormal(0, 3, 1000).astype(np.float32))
    columns = {"variance": v, "visits": torch.full((1000,), 9)}
    mean = {
        scaling: float(
            StableInfluence("loss", scaling=scaling).strengths(columns, generator()).mean()
        )
        for scaling in get_args(Scaling)
    }
    assert mean["minmax"] > 0.98 > mean["quantile"]
    assert mean["rank"] == pytest.approx(0.5)


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
        (StableInfluence, {"form": "tv"}, ValueError, "form must be one of 'kl', 'loss', got 'tv'"),
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
        (Needy(), ValueError, "needs must be among losses, logits, labels, got horoscope"),
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


@pytest.mark.parametrize("broken", ["rows", "name"])
def test_a_rule_that_returns_other_rows(broken: str) -> None:
    table = SampleTable(3, rule=Mine(broken))
    with pytest.raises(ValueError, match=r"update of Mine.* must return the rows of last, visits"):
        table.report(torch.tensor([2, 0]), loss=torch.tensor([0.5, 1.0]))
    assert not table.visits.any()
    assert not table.state_dict()["memory"]


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
            r"log-probabilities must be finite, got 1 non-finite rows \(first indices 1\)",
        ),
    ],
)
def test_a_report_that_the_rule_cannot_use_changes_nothing(
    rule: StrengthRule, given: dict[str, Tensor], words: str
) -> None:
    table = SampleTable(3, rule=rule)
    with pytest.raises(ValueError, match=words):
        table.report(torch.tensor([2, 0]), **given)
    state = table.state_dict()
    assert not table.visits.any()
    assert not state["memory"]
    assert not state["columns"]


def test_an_influence_beyond_float16_is_refused() -> None:
    table = SampleTable(3, rule=StableInfluence("loss"))
    every = torch.arange(3)
    table.report(every, loss=torch.tensor([0.0, 0.0, 1e5]))
    before = copy.deepcopy(table.state_dict())
    words = r"influence must be finite, got 1 non-finite rows \(first indices 1\).*65,504"
    with pytest.raises(ValueError, match=words):
        table.report(every, loss=torch.tensor([65_000.0, 70_000.0, 1e5]))
    after = table.state_dict()
    assert torch.equal(before["visits"], after["visits"])
    for name, values in before["memory"].items():
        assert torch.equal(values, after["memory"][name])
    assert torch.equal(before["columns"]["losses"][0], after["columns"]["losses"][0])


# What it is for ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own forward mode
def test_the_loss_form_is_the_jvp_along_the_step_to_first_order() -> None:
    """Halving the step from theta_{t-1} to theta_t quarters the difference, on a fixed view."""
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(20, 6, generator=random, dtype=torch.float64)
    y = torch.arange(20) % 3
    start = {
        name: torch.randn(value.shape, generator=random, dtype=torch.float64) / 2
        for name, value in model.named_parameters()
    }
    step = {
        name: torch.randn(value.shape, generator=random, dtype=torch.float64) / 5
        for name, value in start.items()
    }

    def losses(theta: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, theta, (x,)), y, reduction="none")

    rule, every, differences = StableInfluence("loss"), torch.arange(20), []
    for halvings in range(6):
        size = 0.5 ** (halvings + 2)
        now = {name: value + size * step[name] for name, value in start.items()}
        back = {name: -size * part for name, part in step.items()}  # theta_{t-1} - theta_t
        with torch.no_grad():
            before, after = losses(start), losses(now)
            inner_product = jvp(losses, (now,), (back,))[1]
        influence = loss_influence(before, after)
        differences.append(float((influence - inner_product.abs()).abs().sum()))
        # What the table keeps of it is the same number in float16.
        table = SampleTable(20, rule=rule)
        for values in (before, after):
            table.report(every, loss=values)
        kept = table.state_dict()["memory"]["window"][:, 0]
        torch.testing.assert_close(kept.double(), influence, rtol=1e-3, atol=1e-6)
    ratios = [a / b for a, b in pairwise(differences)]
    assert all(3.5 < ratio < 4.5 for ratio in ratios), ratios
    assert abs(ratios[-1] - 4) < 0.1


def shifted(image: Tensor, strength: float) -> Tensor:
    """Shift by up to two of the eight pixels; the pixels themselves say where to."""
    down, across = (int(part) % 5 - 2 for part in (image.sum() * 100, image[0, 4].sum() * 100))
    return image.roll((round(down * strength), round(across * strength)), (1, 2))


@pytest.mark.parametrize("view", get_args(View))
def test_wrongly_labelled_digits_get_less_strength(view: View) -> None:
    bunch, rng = load_digits(), np.random.default_rng(0)
    kept = rng.permutation(len(bunch.target))[:1000]
    wrong = torch.arange(1000) < 200
    labels = torch.from_numpy(bunch.target[kept])
    labels = torch.where(wrong, (labels + torch.from_numpy(rng.integers(1, 10, 1000))) % 10, labels)
    images = torch.tensor(bunch.images[kept], dtype=torch.float32).unsqueeze(1) / 16
    data = WeightedAugmentedDataset(TensorDataset(images, labels), strong=shifted)
    rule = StableInfluence("loss", view=view)
    sampler = CoresetSampler(
        data, Uniform(), fraction=0.5, strength=rule, weighting="uniform", seed=0
    )
    loader = DataLoader(data, batch_size=50, sampler=sampler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU()
        ).append(nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    drawn = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        sampler.refresh()
        for batch in loader:
            logits = model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            optimizer.zero_grad()
            (loss * batch.weight).mean().backward()
            optimizer.step()
            sampler.report(batch, loss=loss, logits=logits)
            drawn.update(batch.strength.tolist())
    sampler.set_epoch(12)
    assert len(drawn) > 1000
    assert (sampler.table.state_dict()["memory"]["visits"] > rule.window).all()
    assert sampler.strengths[wrong].mean() < sampler.strengths[~wrong].mean() - 0.02
