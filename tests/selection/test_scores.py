"""Scores: what each computes from the evidence, and what it asks for."""

from dataclasses import replace
from typing import Any, get_args

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
    Evidence,
    Forgetting,
    Given,
    GraNd,
    Influence,
    LastLayerGradient,
    Loss,
    Margin,
    Proxies,
    Residual,
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
    assert found.dtype == torch.float32
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
    assert found.dtype == (torch.float64 if score == Given() else torch.float32)
    torch.testing.assert_close(found.float(), score(full()), rtol=1e-3, atol=1e-3)


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
