"""Scores: what each computes from the evidence, and what it asks for."""

from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import TensorDataset

from augloader import (
    EL2N,
    KDPP,
    Evidence,
    Forgetting,
    Given,
    GraNd,
    Influence,
    LastLayerGradient,
    LocalDensity,
    Loss,
    Margin,
    Product,
    Proportional,
    Proxies,
    Rank,
    Residual,
    Softmax,
    sweep,
)
from augloader.core.evidence import EVIDENCE
from augloader.selection import Score, influence
from augloader.selection.leave_one_out import Hessian
from augloader.selection.svm import margins
from tests.reference import random_state

pytestmark = pytest.mark.usefixtures("one_thread")
n, classes, d = 30, 3, 4
SCORES: list[Score] = [
    Loss(),
    Influence(),
    Influence(1.0, "kronecker"),
    Influence(1.0, "diagonal"),
    EL2N(),
    GraNd(),
    Margin(1.0),
    Margin(),
    Forgetting(),
    Given(),
    LocalDensity(4),
    Product(Loss(), LocalDensity(4)),
    Product(EL2N(), Product(Forgetting(), GraNd())),
]
every = pytest.mark.parametrize("score", SCORES, ids=repr)


def full(dtype: torch.dtype = torch.float32) -> Evidence:
    """Evidence of every kind."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % classes
    h = torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype)
    g = (logits.softmax(1) - F.one_hot(labels, classes)).to(dtype)
    return Evidence(
        n,
        labels,
        Proxies(g, h),
        F.cross_entropy(logits, labels, reduction="none").to(dtype),
        features=h,
        forgetting=torch.randint(-1, 5, (n,), generator=generator).to(dtype),
        scores=torch.randn(n, generator=generator, dtype=torch.float64).to(dtype),
    )


def only(needs: frozenset[str]) -> Evidence:
    """Evidence of some kinds."""
    kept: dict[str, Any] = {name: getattr(full(), name) for name in needs}
    return Evidence(n, **kept)


# What every score keeps --------------------------------------------------------------------------


@every
def test_scores_keep_the_contract(score: Score) -> None:
    assert isinstance(score, Score)
    assert score.needs
    assert score.needs <= set(EVIDENCE)
    given_ = full()
    found = score(given_)
    assert found.shape == (n,)
    assert found.dtype == (torch.float64 if isinstance(score, Product) else torch.float32)
    assert found.isfinite().all()
    assert torch.equal(score(full()), found)
    untouched = full()
    for name in ("labels", "losses", "features", "forgetting", "scores"):
        assert torch.equal(getattr(given_, name), getattr(untouched, name))


@every
def test_no_global_random_state_is_used(score: Score) -> None:
    before = random_state()
    score(full())
    assert random_state() == before


@every
def test_a_score_looks_at_what_it_needs_alone(score: Score) -> None:
    assert torch.equal(score(only(score.needs)), score(full()))


@every
def test_a_need_that_is_missing_is_named(score: Score) -> None:
    for name in score.needs:
        for rest in (score.needs - {name}, frozenset(EVIDENCE) - {name}):
            with pytest.raises(ValueError, match=rf"evidence\.{name} must be given, got None"):
                score(only(rest))


@every
def test_float64_evidence_gives_the_same_in_float32(score: Score) -> None:
    found = score(full(torch.float64))
    double = score == Given() or isinstance(score, Product)
    assert found.dtype == (torch.float64 if double else torch.float32)
    torch.testing.assert_close(found.float(), score(full()).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("score", [s for s in SCORES if s != Margin()], ids=repr)
def test_the_order_of_the_samples_does_not_matter(score: Score) -> None:
    """Of several C the folds of the cross-validation depend on it."""
    given_, order = full(), torch.randperm(n, generator=torch.Generator().manual_seed(1))
    moved = {k: getattr(given_, k)[order] for k in EVIDENCE}
    found = score(Evidence(n, **moved))
    torch.testing.assert_close(found, score(given_)[order], rtol=1e-4, atol=1e-3)


@every
def test_scores_are_values(score: Score) -> None:
    """Equal and hashable by their options, and unlike every other."""
    assert sum(score == other for other in SCORES) == 1
    assert len({*SCORES}) == len(SCORES)
    with pytest.raises(AttributeError):
        score.needs = frozenset()  # type: ignore[misc]


def test_what_is_no_score() -> None:
    assert not isinstance(torch.sum, Score)
    assert not isinstance(object(), Score)


# Each against a direct computation ---------------------------------------------------------------


def test_the_given_ones_are_given() -> None:
    given_ = full()
    assert given_.losses is not None
    assert given_.scores is not None
    assert torch.equal(Loss()(given_), given_.losses)
    assert torch.equal(Given()(given_), given_.scores)


def test_norms_sample_by_sample() -> None:
    given_ = full()
    assert given_.proxies is not None
    assert given_.proxies.features is not None
    for g, h, error, norm in zip(
        given_.proxies.gradient,
        given_.proxies.features,
        EL2N()(given_),
        GraNd()(given_),
        strict=True,
    ):
        torch.testing.assert_close(error, torch.linalg.vector_norm(g))
        torch.testing.assert_close(norm, torch.linalg.matrix_norm(g.outer(h)))


def test_without_features_grand_is_el2n() -> None:
    given_ = full()
    assert given_.proxies is not None
    plain = replace(given_, proxies=Proxies(given_.proxies.gradient))
    assert torch.equal(GraNd()(plain), EL2N()(plain))
    assert torch.equal(EL2N()(plain), EL2N()(given_))
    with pytest.raises(ValueError, match="proxies must have features"):
        Influence()(plain)


@pytest.mark.parametrize("hessian", get_args(Hessian))
def test_influence_passes_its_options_on(hessian: Hessian) -> None:
    given_ = full()
    assert given_.proxies is not None
    expected = influence(given_.proxies, 0.3, hessian)
    assert torch.equal(Influence(0.3, hessian)(given_), expected)
    assert torch.equal(Influence()(given_), influence(given_.proxies, 0.1))


@pytest.mark.parametrize("C", [0.1, (0.1, 1.0, 10.0)])
def test_margin_is_the_distance_from_the_margin(C: Any) -> None:
    given_ = full()
    assert given_.features is not None
    assert given_.labels is not None
    assert torch.equal(Margin(C)(given_), margins(given_.features, given_.labels, C).abs())


@given(st.lists(st.integers(-1, 6), min_size=1, max_size=20))
def test_samples_that_were_never_right_come_one_above_the_most_forgotten(
    events: list[int],
) -> None:
    most = max(0, *events, 0)
    found = Forgetting()(Evidence(len(events), forgetting=torch.tensor(events).float()))
    assert found.tolist() == [most + 2 if count < 0 else count + 1 for count in events]


@pytest.mark.parametrize("counts", [[-1.0, -1.0], [0.0, 0.0], [-1.0]])
def test_forgetting_where_nothing_was_forgotten(counts: list[float]) -> None:
    found = Forgetting()(Evidence(len(counts), forgetting=torch.tensor(counts)))
    assert found.tolist() == [1.0 + (count < 0) for count in counts]


# One times the other ------------------------------------------------------------------------------


def positive(values: list[float], **columns: Any) -> Evidence:
    return Evidence(len(values), scores=torch.tensor(values, dtype=torch.float64), **columns)


def test_a_product_is_one_times_the_other() -> None:
    given_ = full()
    for one, other in ((Loss(), EL2N()), (GraNd(), LocalDensity(3)), (Loss(), Loss())):
        both: Product = Product(one, other)
        assert both.needs == one.needs | other.needs
        found = both(given_)
        assert found.dtype == torch.float64
        assert torch.equal(found, one(given_).double() * other(given_).double())
        assert torch.equal(found, Product(other, one)(given_))
    three = Product(Loss(), Product(EL2N(), Forgetting()))
    assert three.needs == {"losses", "proxies", "forgetting"}
    torch.testing.assert_close(
        three(given_), Product(Product(Loss(), EL2N()), Forgetting())(given_)
    )


@given(
    st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False), min_size=2, max_size=20),
    st.floats(1e-6, 1e6),
)
def test_units_do_not_matter_to_the_order_of_products(values: list[float], unit: float) -> None:
    """And no product of float32 scores is infinite, or 0 where neither factor is."""
    losses = torch.tensor(values).flip(0)
    found = Product(Given(), Loss())(positive(values, losses=losses))
    assert found.isfinite().all()
    assert torch.equal(found > 0, (torch.tensor(values) > 0) & (losses > 0))
    other = Product(Given(), Loss())(positive([v * unit for v in values], losses=losses))
    torch.testing.assert_close(other, found * unit, rtol=1e-12, atol=0)


def test_every_strategy_of_a_score_takes_products() -> None:
    given_ = replace(full(), scores=torch.rand(n, generator=torch.Generator().manual_seed(2)))
    both = Product(LocalDensity(3), Given())
    values = both(given_)
    best = values.argsort(descending=True, stable=True)[:8]
    chosen = Rank(both).select(given_, 8, generator=np.random.default_rng(0)).indices
    assert torch.equal(chosen, best)
    known, plain = replace(given_, scores=values), Given()
    for strategy, same in (
        (Proportional(both), Proportional(plain)),
        (Softmax(both), Softmax(plain)),
        (KDPP(both, kernel="gaussian"), KDPP(plain, kernel="gaussian")),
    ):
        assert strategy.needs == {"features", "scores"}
        chosen = strategy.select(given_, 8, generator=np.random.default_rng(0)).indices
        expected = same.select(known, 8, generator=np.random.default_rng(0)).indices
        assert torch.equal(chosen, expected)


def test_samples_that_either_score_rules_out_come_last() -> None:
    given_ = positive([0.0, 1.0, 1.0, 1.0], losses=torch.tensor([9.0, 1.0, 0.0, 2.0]))
    for seed in range(20):
        strategy = Proportional(Product(Given(), Loss()))
        order = strategy.order(given_, generator=np.random.default_rng(seed)).tolist()
        assert set(order[:2]) == {1, 3}


@dataclass(frozen=True)
class Returned:
    """A score that returns what it is given."""

    what: Any
    needs: frozenset[str] = frozenset()

    def __call__(self, evidence: Evidence) -> Any:
        return self.what


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ([1.0, -2.0], ValueError, r"0 or more to be multiplied, got 1 negative ones \(first ind"),
        ([1.0, float("nan")], ValueError, "scores must be finite, got 1 others .* from Returned"),
        ([[1.0], [2.0]], ValueError, r"must be an \(n,\) tensor, got \(2, 1\)"),
        (torch.ones(2, dtype=torch.complex64), ValueError, "got .*complex64"),
        ([1.0], ValueError, "of the same samples to be multiplied, got "),
        (None, TypeError, "scores must be a tensor or an array of numbers, got NoneType. Fix Ret"),
    ],
)
def test_what_cannot_be_multiplied(what: Any, error: type[Exception], words: str) -> None:
    given_ = positive([1.0, 2.0])
    for both in (Product(Given(), Returned(what)), Product(Returned(what), Given())):
        with pytest.raises(error, match=words):
            both(given_)


def test_two_negative_scores_make_no_large_one() -> None:
    with pytest.raises(ValueError, match=r"got 2 negative ones .*from Given\(\). Clamp or shift"):
        Product(Given(), Given())(positive([-1.0, -2.0, 3.0]))


def test_arrays_and_lists_are_multiplied_too() -> None:
    for what in (
        [2, 3],
        np.array([2.0, 3.0]),
        torch.tensor([2, 3]),
        torch.tensor([2.0, 3.0]).half(),
    ):
        found = Product(Given(), Returned(what))(positive([1.0, 2.0]))
        assert found.tolist() == [2.0, 6.0]


@pytest.mark.parametrize(
    "what", [Loss, None, "loss", torch.sum, Returned(1, frozenset({"colour"}))]
)
def test_a_product_is_of_scores(what: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"first(.needs)? must be"):
        Product(what, Loss())
    with pytest.raises((TypeError, ValueError), match=r"second(.needs)? must be"):
        Product(Loss(), what)


# Against autograd, through a sweep ---------------------------------------------------------------


class Net(nn.Module):
    """A body and a head, with or without a bias."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Linear(7, classes, bias=bias)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (n,), generator=generator)
    return TensorDataset(torch.randn(n, 5, generator=generator), labels)


@pytest.mark.parametrize("bias", [True, False])
def test_grand_of_a_sweep_is_the_norm_of_the_heads_gradient(bias: bool) -> None:
    model, given_ = Net(bias), data()
    x, y = given_.tensors
    evidence = sweep(model, given_, LastLayerGradient(), batch_size=7)
    model.eval()
    head = {k: v.detach() for k, v in model.named_parameters() if k.startswith("head")}
    assert len(head) == 1 + bias

    def loss(head: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, head, (x[None],)), y[None])

    gradients = vmap(grad(loss), (None, 0, 0))(head, x, y)
    rows = torch.cat([part.reshape(n, -1) for part in gradients.values()], 1).detach()
    torch.testing.assert_close(GraNd()(evidence), rows.norm(dim=1))

    def loss_of_logits(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits[None], y[None])

    with torch.no_grad():
        logits = model(x)
    torch.testing.assert_close(EL2N()(evidence), vmap(grad(loss_of_logits))(logits, y).norm(dim=1))
    torch.testing.assert_close(Loss()(evidence), F.cross_entropy(logits, y, reduction="none"))
    plain = sweep(model, given_, Residual())
    torch.testing.assert_close(GraNd()(plain), EL2N()(evidence))
    assert plain.features is None


@pytest.mark.parametrize("bias", [True, False])
def test_a_sweeps_features_are_what_the_head_is_given(bias: bool) -> None:
    model, given_ = Net(bias), data()
    evidence = sweep(model, given_, LastLayerGradient(), batch_size=7)
    model.eval()
    with torch.no_grad():
        h = model.body(given_.tensors[0])
    assert evidence.features is not None
    assert evidence.features.shape == (n, 7)
    torch.testing.assert_close(evidence.features, h)
    assert evidence.proxies is not None
    assert evidence.proxies.features is not None
    assert evidence.proxies.features.shape == (n, 7 + bias)
    assert torch.equal(evidence.proxies.features[:, :7], evidence.features)
    assert (evidence.proxies.features[:, 7:] == 1).all()
    for score in SCORES:
        if score.needs <= {"labels", "proxies", "losses", "features"}:
            assert score(evidence).isfinite().all()


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "options", "error", "words"),
    [
        (Influence, {"damping": -1}, ValueError, r"damping must be in \[0, inf\), got -1"),
        (Influence, {"damping": float("nan")}, ValueError, "damping must be in"),
        (Influence, {"damping": "1"}, TypeError, "damping must be a number"),
        (Influence, {"hessian": "fisher"}, ValueError, "hessian must be one of 'exact', 'kron"),
        (Margin, {"C": 0}, ValueError, r"C must be in \(0, inf\), got 0"),
        (Margin, {"C": (1.0, -1.0)}, ValueError, r"C must be in \(0, inf\), got -1"),
        (Margin, {"C": "1"}, TypeError, "C must be a number"),
        (Margin, {"C": ()}, TypeError, "C must be a number"),
    ],
)
def test_options_are_checked_at_construction(
    build: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build(**options)
