"""Nothing depends on torch's defaults: another default dtype or device changes no result."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from augloader import (
    EL2N,
    KDPP,
    Clusters,
    Confidence,
    Constant,
    Entropy,
    Evidence,
    FacilityLocation,
    Forgetting,
    Given,
    GraNd,
    Influence,
    LocalDensity,
    Loss,
    LossRank,
    Margin,
    Product,
    Proportional,
    Proxies,
    Rank,
    Selection,
    Softmax,
    StableInfluence,
    Strategy,
    SupportVectors,
    Uniform,
)
from augloader.core import residual
from augloader.diagnostics import alignment, feature_spectrum, jacobian_spectrum, overlap, risk_gap
from augloader.distributed.selection import select
from augloader.distributed.tables import merge_learnt, share_of
from augloader.feedback import SampleTable, StrengthRule
from augloader.selection import (
    Groups,
    Score,
    facility_location,
    greedy_medoids,
    influence,
    kmeans,
    margins,
    nearest,
)
from augloader.selection.greedy.batched import batched_greedy
from augloader.selection.greedy.engine import Engine

N, C = 36, 3
RANDOM = torch.Generator().manual_seed(0)
LABELS = torch.arange(N) % C
LOGITS = torch.randn(N, C, generator=RANDOM)
FEATURES = torch.randn(N, 5, generator=RANDOM)
RESIDUALS = LOGITS.softmax(1) - torch.nn.functional.one_hot(LABELS, C)
POINTS = Proxies(RESIDUALS, FEATURES)
MODEL = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, C))
EVIDENCE = Evidence(
    N,
    LABELS,
    POINTS,
    torch.rand(N, generator=RANDOM),
    torch.arange(0, N, 5),
    features=FEATURES,
    forgetting=(torch.arange(N) % 4 - 1).float(),
    scores=torch.rand(N, generator=RANDOM),
)
SCORES: list[Score] = [Loss(), Influence(), EL2N(), GraNd(), Forgetting(), Given(), Margin(1.0)]
SCORES += [LocalDensity(3), Product(Loss(), LocalDensity(3))]
ENGINES: tuple[Engine, ...] = ("dense", "matrix-free", "graph")
GROUPS: list[Groups] = ["labels", Clusters(3), np.arange(N) // 9]  # type: ignore[list-item]
STRATEGIES: list[Strategy] = [
    *(FacilityLocation(engine=engine, warm_start=0.5) for engine in ENGINES),
    *(FacilityLocation(stochastic=0.2, xi=0.5, per_class=each) for each in (True, False)),
    *(Rank(score) for score in SCORES),
    *(Uniform(groups=groups, allocation="equal") for groups in GROUPS),
    *(kind(Loss(), groups="labels") for kind in (Proportional, Softmax)),
    *(KDPP(Loss(), kernel=kernel) for kernel in ("linear", "gaussian")),
    KDPP(kernel="gaussian", width=16),
    SupportVectors(1.0),
]
RULES: list[StrengthRule] = [
    Constant(0.5),
    Entropy(),
    LossRank(),
    Confidence(),
    *(StableInfluence(form, window=2, scaling="rank") for form in ("kl", "loss")),
]


def generator() -> np.random.Generator:
    return np.random.default_rng(4)


def chosen(selection: Selection) -> list[Any]:
    smaller = [] if selection.nested is None else [selection.first(3).weights]
    certificate = selection.certificate
    gains = [] if certificate is None else [certificate.gains, certificate.bound, certificate.kept]
    return [selection.indices, selection.weights, *smaller, *gains]


def strategies() -> list[Any]:
    return [chosen(s.select(EVIDENCE, 4, generator=generator())) for s in STRATEGIES]


def scores() -> list[Any]:
    return [score(EVIDENCE) for score in SCORES]


def proxies() -> list[Any]:
    points = [POINTS, Proxies(RESIDUALS)]
    return [
        *(p.distances() for p in points),
        *(p.project(8).gradient for p in points),
        *(nearest(p, p[LABELS == 0])[1] for p in points),
        residual(LOGITS, LABELS),
        Proxies([[1.0, 2.0]]).gradient,  # type: ignore[arg-type]
        Evidence(2, [0, 1], losses=np.ones(2)).losses,  # type: ignore[arg-type]
    ]


def functions() -> list[Any]:
    given = POINTS.distances()
    found = [facility_location(p, 5, engine=e) for p, e in product([POINTS], ENGINES)]
    found.append(greedy_medoids(given, 5, start=LABELS.new_tensor([3, 1])))
    both = batched_greedy(given.expand(2, N, N), LABELS[3:5] * 0 + N, LABELS[4:6])
    return [
        *([m.indices, m.sizes, m.sizes_of(2), m.bound(2)] for m in found),
        *([part.taken, part.gains, part.remaining, part.moves] for part in both),
        *(influence(POINTS, 0.1, form) for form in ("exact", "kronecker", "diagonal")),
        kmeans(FEATURES, 4),
        margins(FEATURES, LABELS, (0.1, 1.0)),
    ]


def tables() -> list[Any]:
    found: list[Any] = []
    for rule, dtype in product(RULES, (torch.float32, torch.float16)):
        table, other = (SampleTable(N, dtype=dtype, rule=rule, forgetting=True) for _ in range(2))
        for epoch, one in enumerate((table, table, other, table, table)):
            index = LABELS.new_tensor(range(epoch, N))
            logits = LOGITS[index] * (epoch + 1)
            one.report(index, loss=logits[:, 0], logits=logits, target=LABELS[index], epoch=epoch)
        table.merge(other)
        table.restart()
        table.report(LABELS[:1], logits=LOGITS[:1], loss=LOGITS[:1, 0], target=LABELS[:1])
        known = table.evidence()
        found += [table.strengths(generator()), known.losses, known.labels, known.forgetting]
        found += [known.proxies.gradient if known.proxies else None, *table.learnt.values()]
        again = SampleTable(N, dtype=dtype, rule=rule, forgetting=True)
        again.load_state_dict(table.state_dict())
        found += [again.visits, again.rows(LABELS[:3]).labels, again.missing("losses", epoch=9)]
    return found


def diagnosed() -> list[Any]:
    moved = Proxies(RESIDUALS * 2, FEATURES + 1)
    selection = STRATEGIES[0].select(EVIDENCE, 6, generator=generator())
    by_class = alignment(POINTS, selection, moved)
    rows = list(zip(FEATURES[:, None, None], LABELS.tolist(), strict=True))
    risks = [risk_gap(MODEL, rows, lambda b: b._replace(input=b.input * (1 + b.strength.max())))]
    spectra = jacobian_spectrum(MODEL, FEATURES[:4], FEATURES[4:8], bins=3)
    return [
        *map(list, (vars(one).values() for one in (*by_class.classes.values(), spectra))),
        [spectra.angles(), spectra.changes()],
        list(vars(feature_spectrum(FEATURES, LABELS)).values()),
        list(vars(overlap([selection], [EVIDENCE.scores])).values()),  # type: ignore[list-item]
        risks,
    ]


def ranks() -> list[Any]:
    group = dist.group.WORLD
    assert group is not None
    table = SampleTable(N, rule=LossRank())
    table.report(torch.arange(N, device="cpu"), loss=LOGITS[:, 0], logits=LOGITS, target=LABELS)
    merge_learnt(table, group)
    share = share_of(table, frozenset({"proxies", "labels"}), group)
    found = [[share.losses, share.indices, table.visits, table.strengths(generator())]]
    for strategy in (FacilityLocation(), Rank(Loss()), KDPP(Influence())):
        one = select(strategy, EVIDENCE, 4, group=group, generator=generator())
        found.append(chosen(one))
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group(
        "gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group", "one_thread")
@pytest.mark.parametrize(
    "work",
    [strategies, scores, proxies, functions, tables, diagnosed, ranks],
    ids=lambda work: work.__name__,
)
def test_the_default_dtype_and_device_change_nothing(work: Callable[[], list[Any]]) -> None:
    expected = work()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = work()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert same(a, b), i
