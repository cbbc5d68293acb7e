"""SADA against its formula, one sample at a time, and against what it is for."""

import copy
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    CoresetSampler,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
)
from augloader.feedback import SampleTable
from augloader.feedback.learners import View
from augloader.feedback.sada import Form, Scaling, loss_influence
from tests.feedback.test_strength import N, generator, reports, uniform


@dataclass
class History:
    """One sample under StableInfluence, as the formula reads: lists, Python floats."""

    influences: list[float] = field(default_factory=list)
    last: Any = None
    v: float | None = None

    def visit(self, rule: StableInfluence, loss: float, logits: Tensor, given: float) -> None:
        now: Any
        if rule.form == "gradient":
            self.last, now, influence = 0, 0, abs(given)  # it compares no visits
        elif rule.form == "loss":
            now = float(np.float32(loss))
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
                given = float(report.losses[row]), report.logits[row].double()
                histories[i].visit(rule, *given, float(report.influences[row]))
        ready = [i for i, history in enumerate(histories) if history.v is not None]
        v = [history.v for history in histories if history.v is not None]
        columns = table.state_dict()["memory"]
        needed = window + (form != "gradient")
        assert (columns["visits"] >= needed).nonzero().flatten().tolist() == ready
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


def test_an_influence_beyond_float16_is_refused() -> None:
    table = SampleTable(3, rule=StableInfluence("loss"))
    every = torch.arange(3)
    table.report(every, loss=torch.tensor([0.0, 0.0, 1e5]))
    before = copy.deepcopy(table.state_dict())
    words = r"influence must be finite, got 1 non-finite rows \(first samples 1\).*65,504"
    with pytest.raises(ValueError, match=words):
        table.report(every, loss=torch.tensor([65_000.0, 70_000.0, 1e5]))
    after = table.state_dict()
    assert torch.equal(before["visits"], after["visits"])
    for name, values in before["memory"].items():
        assert torch.equal(values, after["memory"][name])
    assert torch.equal(before["columns"]["losses"][0], after["columns"]["losses"][0])


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


def test_the_kl_form_is_of_one_number_of_classes() -> None:
    rule = StableInfluence("kl", window=2)
    rows = {**rule.start(2, 3), "visits": torch.zeros(2, dtype=torch.int32)}
    rule.update(rows, logits=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="logits must keep the width 3 of earlier reports, got 4"):
        rule.update(rows, logits=torch.zeros(2, 4))
