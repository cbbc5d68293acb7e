"""What runs in real processes, on every rank of a gloo group, and what it is compared with."""

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from augloader import (
    EL2N,
    KDPP,
    Clusters,
    CoresetSampler,
    DistributedCoresetSampler,
    Draw,
    Every,
    Evidence,
    FacilityLocation,
    Forgetting,
    Given,
    Influence,
    InfoBatch,
    LastLayerGradient,
    LayerGradient,
    Loss,
    Proportional,
    Proxies,
    RandomPruning,
    Rank,
    Sample,
    Selection,
    StableInfluence,
    Strategy,
    SwitchOff,
    Uniform,
    sweep,
    wrap,
)
from augloader.distributed.draws import require_once
from augloader.distributed.selection import select
from augloader.distributed.tables import share_of
from augloader.feedback import SampleTable
from augloader.loading import HeadInfluence
from augloader.selection import allocate
from tests.pretend_cuda import pretend_cuda

N, EPOCHS, BATCH = 60, 5, 8
WORLDS = (1, 2, 3)
COURSES = ("strength_schedule", "probability", "weak_probability", "fraction")


class Nearest:
    """A user's strategy, with its address in its repr: the samples with the smallest proxies."""

    needs: ClassVar[frozenset[str]] = frozenset({"proxies"})

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        assert evidence.proxies is not None
        order = evidence.proxies.gradient.norm(dim=1).argsort(stable=True)[:budget]
        return Selection(order, torch.full((budget,), evidence.n / budget))


class Class(NamedTuple):
    """One class, and how many of it are selected."""

    members: torch.Tensor
    budget: int


class Longest:
    """A user's separable strategy: of each class the samples with the longest proxies.

    It writes down the first sample of each class that it solves.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"proxies", "labels"})

    def __init__(self) -> None:
        self.solved: list[int] = []

    def select(
        self, evidence: Evidence, budget: int, *, generator: np.random.Generator
    ) -> Selection:
        proxies = evidence.proxies
        assert proxies is not None
        parts = self.plan(evidence.n, evidence.labels, evidence.previous, budget, generator)
        found = self.solve(parts, lambda part: proxies[part.members], proxies.device)
        return self.join(parts, found, evidence.previous)

    def plan(
        self,
        n: int,
        labels: torch.Tensor | None,
        previous: torch.Tensor | None,
        budget: int,
        generator: np.random.Generator,
    ) -> list[Class]:
        assert labels is not None
        members = [(labels == c).nonzero().flatten() for c in labels.unique()]
        shares = allocate([len(rows) for rows in members], budget, "proportional")
        return [Class(*part) for part in zip(members, shares, strict=True)]

    def solve(
        self,
        parts: Sequence[Class],
        proxies_of: Callable[[Class], Proxies],
        device: torch.device,
    ) -> list[torch.Tensor]:
        self.solved += [int(part.members[0]) for part in parts]
        lengths = [proxies_of(part).gradient.norm(dim=1) for part in parts]
        return [
            part.members[found.argsort(descending=True, stable=True)[: part.budget]]
            for part, found in zip(parts, lengths, strict=True)
        ]

    def join(
        self,
        parts: Sequence[Class],
        found: Sequence[torch.Tensor],
        previous: torch.Tensor | None,
    ) -> Selection:
        weights = [torch.full((part.budget,), len(part.members) / part.budget) for part in parts]
        return Selection(torch.cat(list(found)), torch.cat(weights))


def whole(sizes: tuple[int, ...] = (40, 2, 9, 3, 25), features: bool = True) -> Evidence:
    random, n = torch.Generator().manual_seed(0), sum(sizes)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    h = torch.randn(n, 4, generator=random) if features else None
    proxies = Proxies(torch.randn(n, 3, generator=random), h)
    order = torch.randperm(n, generator=random)
    previous = order[: n // 4]
    return Evidence(n, labels[order], proxies, torch.rand(n, generator=random), previous)


def scored() -> Evidence:
    """With features, forgetting events, scores, and proxies that are residuals."""
    given, random = whole(), torch.Generator().manual_seed(1)
    assert given.labels is not None
    logits = torch.randn(given.n, 5, generator=random)
    residuals = logits.softmax(1) - nn.functional.one_hot(given.labels, 5)
    return replace(
        given,
        proxies=Proxies(residuals, torch.randn(given.n, 4, generator=random)),
        features=torch.randn(given.n, 6, generator=random),
        forgetting=torch.randint(-1, 4, (given.n,), generator=random).float(),
        scores=torch.rand(given.n, generator=random),
    )


COLUMNS = ("labels", "proxies", "losses", "features", "forgetting", "scores")


def part(evidence: Evidence, indices: torch.Tensor) -> Evidence:
    """The rows of some samples, as a sweep of this rank would return them."""
    known = {name: getattr(evidence, name) for name in COLUMNS}
    rows: dict[str, Any] = {k: v[indices] for k, v in known.items() if v is not None}
    return Evidence(evidence.n, **rows, previous=evidence.previous, indices=indices)


def share(evidence: Evidence, rank: int, world: int) -> Evidence:
    """Every world-th sample, out of order, and a few that other ranks have too."""
    own = torch.arange(evidence.n)[rank::world].flip(0)
    return part(evidence, torch.cat([own, torch.arange(evidence.n)[::7]]).unique().flip(0))


FEW = (30, 20)
CASES: dict[str, tuple[Strategy, Evidence, int]] = {
    "outer products": (FacilityLocation(), whole(), 20),
    "vectors": (FacilityLocation(), whole(features=False), 20),
    "equal shares": (FacilityLocation(allocation="equal"), whole(), 20),
    "xi": (FacilityLocation(xi=4.0), whole(), 40),
    "warm": (FacilityLocation(warm_start=0.5), whole(), 20),
    "stochastic": (FacilityLocation(stochastic=0.2), whole(), 20),
    "matrix-free": (FacilityLocation(engine="matrix-free"), whole(FEW), 40),
    "all as one": (FacilityLocation(per_class=False), whole(), 20),
    "few classes": (FacilityLocation(), whole(FEW), 9),
    "two samples": (FacilityLocation(), whole((2,)), 1),
    "classes of one sample": (FacilityLocation(), whole((1, 12, 1, 1, 9)), 8),
    "groups of one sample": (Rank(Loss(), groups="labels"), whole((1, 12, 1, 1, 9)), 8),
    "MaxLoss": (Rank(Loss()), whole(), 20),
    "Uniform": (Uniform(), whole(), 20),
    "a user's": (Nearest(), whole(features=False), 20),
    "clusters": (Uniform(groups=Clusters(3)), scored(), 20),
    "k-DPP": (KDPP(Given()), scored(), 6),
    "k-DPP of proxies": (KDPP(EL2N(), kernel="gaussian", groups="labels"), scored(), 20),
    "random features": (KDPP(kernel="gaussian", width=16), scored(), 9),
    "forgetting": (Proportional(Forgetting()), scored(), 20),
    "influence": (Proportional(Influence()), scored(), 20),
    "influence in clusters": (Rank(Influence(), groups=Clusters(4)), scored(), 20),
}


def facts(selection: Selection) -> dict[str, Any]:
    found: dict[str, Any] = {"indices": selection.indices, "weights": selection.weights}
    if selection.certificate is not None:
        found |= vars(selection.certificate)
        found["smaller"] = selection.first(max(len(selection) - 1, 1)).indices
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def generator() -> np.random.Generator:
    return np.random.default_rng(3)


# What runs in the processes -----------------------------------------------------------------------


def selections(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, Any]:
    found = {}
    for name, (strategy, evidence, budget) in CASES.items():
        mine = share(evidence, rank, world)
        if name == "two samples":
            mine = part(evidence, torch.arange(evidence.n)[rank::world])
        chosen = select(strategy, mine, budget, group=group, generator=generator())
        found[name] = facts(chosen)
    strategy, evidence, budget = CASES["outer products"]
    last = torch.arange(evidence.n if rank == world - 1 else 0)
    odd = Evidence(
        evidence.n,
        proxies=Proxies(torch.empty(0, 7).double()),
        previous=evidence.previous,
        indices=torch.empty(0, dtype=torch.int64),
    )
    bare = Evidence(evidence.n, previous=evidence.previous, indices=last)
    for name, mine in (
        ("an empty share", part(evidence, last)),
        ("an empty share of other proxies", odd if rank < world - 1 else part(evidence, last)),
        ("no share", bare if rank < world - 1 else part(evidence, last)),
        ("everything on every rank", evidence),
    ):
        chosen = select(strategy, mine, budget, group=group, generator=generator())
        found[name] = facts(chosen)
    some = sorted({0, world - 1})
    pair = dist.new_group(some)
    if isinstance(pair, dist.ProcessGroup):
        mine = share(evidence, some.index(rank), len(some))
        chosen = select(strategy, mine, budget, group=pair, generator=generator())
    found["a smaller group"] = facts(chosen)
    strategy, evidence, _ = CASES["clusters"]
    for name, mine in (
        ("clusters: an empty share", part(evidence, last)),
        ("clusters: no share", bare if rank < world - 1 else part(evidence, last)),
        ("clusters: everything on every rank", evidence),
    ):
        chosen = select(strategy, mine, budget, group=group, generator=generator())
        found[name] = facts(chosen)
    return found


def separable(rank: int, world: int, group: dist.ProcessGroup) -> tuple[dict[str, Any], list[int]]:
    """Select by a user's own separable strategy; return the classes solved here, too."""
    strategy, mine = Longest(), share(whole(), rank, world)
    chosen = select(strategy, mine, 20, group=group, generator=generator())
    return facts(chosen), strategy.solved


def received(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, list[int]]:
    """Return how many rows of proxies came, for each strategy."""
    log: list[int] = []
    original = dist.all_to_all_single

    def logged(output: torch.Tensor, *args: Any, **options: Any) -> None:
        log.append(len(output))
        original(output, *args, **options)

    found = {}
    dist.all_to_all_single = logged
    for name in (
        "outer products",
        "Uniform",
        "a user's",
        "forgetting",
        "clusters",
        "k-DPP of proxies",
    ):
        log.clear()
        strategy, evidence, budget = CASES[name]
        mine = share(evidence, rank, world)
        select(strategy, mine, budget, group=group, generator=generator())
        found[name] = list(log)
    dist.all_to_all_single = original
    return found


def logits_of(index: torch.Tensor, epoch: int) -> torch.Tensor:
    return torch.stack([index.sin(), (index + epoch).cos(), (index / 2).sin()], 1)


def training(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Train with free refreshes, on sharded draws whose reports are shared."""
    found: dict[str, Any] = {}
    for view in ("clean", "any", "plain"):
        options: dict[str, Any] = {
            "fraction": 0.3,
            "refresh": Every(1, warmup=1),
            "strength": StableInfluence(window=2, view="any" if view == "any" else "clean"),
            "seed": 5,
        }
        if view == "plain":
            sampler = CoresetSampler(range(N), FacilityLocation(), group=group, **options)
        else:
            sampler = DistributedCoresetSampler(range(N), FacilityLocation(), **options)
        found[view] = []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            if sampler.refresh_due:
                sampler.refresh()
            draws = list(sampler)
            assert len(draws) == len(sampler)
            if view == "plain":
                draws = draws[rank::world]
            for start in range(0, len(draws), BATCH):
                given = batch(draws[start : start + BATCH])
                loss = (given.index * (epoch + 1 + 3 * given.strength)).sin()
                sampler.report(given, loss=loss, logits=logits_of(given.index, epoch))
            chosen = None if sampler.selection is None else sampler.selection.indices
            found[view].append((draws, chosen, sampler.strengths))
        sampler.set_epoch(EPOCHS)
        found[view].append(([], None, sampler.table.visits))
    return found


def accumulating(rank: int, world: int, group: dist.ProcessGroup) -> list[Any]:
    """Sum an epoch's gradient in steps of which the last alone meets the ranks; report each."""
    rows, net = data(N), DistributedDataParallel(nn.Linear(5, 3), process_group=group)
    net.load_state_dict({name: torch.ones_like(p) for name, p in net.state_dict().items()})
    sampler = DistributedCoresetSampler(
        rows, Uniform(), fraction=0.3, strength=StableInfluence(window=2), group=group, seed=5
    )
    sampler.refresh()
    draws = list(sampler)
    for start in range(0, len(draws), BATCH):
        given = batch(draws[start : start + BATCH])
        with nullcontext() if start + BATCH >= len(draws) else net.no_sync():
            x, target = rows[given.index]
            logits = net(x)
            loss = nn.functional.cross_entropy(logits, target, reduction="none")
            (loss * given.weight).sum().mul(world / N).backward()
        sampler.report(given, loss=loss, logits=logits, target=target)
    sampler.set_epoch(1)
    gradients = [p.grad for p in net.parameters()]
    return [*gradients, sampler.table.visits, sampler.strengths]


def pruned_alone(base: Any, **options: Any) -> CoresetSampler:
    return CoresetSampler(range(N), Uniform(), base=base, **PRUNED, **options)


def pruning(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, list[Any]]:
    """Train on pruned bases, on sharded draws whose reports are shared."""
    found = {}
    for name, (base, options) in PRUNINGS.items():
        sampler = DistributedCoresetSampler(range(N), Uniform(), base=base, **PRUNED, **options)
        found[name] = pruned(sampler)
    return found


def pruned(sampler: CoresetSampler) -> list[Any]:
    """Return each epoch's draws, and what is kept."""
    epochs = []
    for epoch in range(EPOCHS):
        sampler.begin(epoch)
        draws = list(sampler)
        for start in range(0, len(draws), BATCH):
            given = batch(draws[start : start + BATCH])
            sampler.report(
                given,
                loss=(given.index * (epoch + 1.0)).sin() + 1,
                logits=logits_of(given.index, epoch),
            )
        epochs.append((draws, None if sampler.kept is None else sampler.kept.indices))
    return epochs


PRUNED: dict[str, Any] = {
    "fraction": 0.5,
    "copies": 1,
    "refresh": Every(2),
    "weighting": "unbiased",
    "epochs": EPOCHS,
    "seed": 3,
}
PRUNINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "infobatch": (InfoBatch(0.5), {}),
    "by loss": (Proportional(Loss()), {"base_fraction": 0.4}),
    "coreset": (FacilityLocation(), {"base_fraction": 0.3}),
    "random": (Uniform(), {"base_fraction": 0.7}),
}


def scheduled(rank: int, world: int, group: dist.ProcessGroup) -> list[Any]:
    """Train by a plan, with a plain function for one schedule, on sharded draws."""
    sampler = DistributedCoresetSampler(range(N), Uniform(), group=group, **PLAN)
    return planned(sampler)


def _less(epoch: int, epochs: int) -> float:
    return 1 - epoch / epochs


PLAN: dict[str, Any] = {
    "epochs": EPOCHS,
    "fraction": _less,
    "strength_schedule": SwitchOff(2),
    "probability": 0.5,
    "weak_probability": 0.5,
    "keep_unaugmented_copies": False,
    "refresh": Every(2),
    "seed": 7,
}


def planned(sampler: CoresetSampler) -> list[Any]:
    """Return what each epoch yields, and what is said of the first that is not planned."""
    sampler.set_epoch(0)
    found: list[Any] = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        found.append(list(sampler))
        assert len(sampler) == len(found[-1])
    try:
        sampler.set_epoch(EPOCHS)
    except ValueError as error:
        found.append(str(error))
    return [*found, sampler.epoch]


def counting(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Each epoch every sample is reported on another rank; what was forgotten adds up."""
    found: dict[str, Any] = {}
    for refreshing in ("never", "swept", "free"):
        sampler = CoresetSampler(
            range(N),
            Proportional(Forgetting()),
            count=9,
            seed=2,
            refresh=Every(1, warmup=EPOCHS if refreshing == "never" else 2),
            group=group,
        )
        found[refreshing] = []
        for epoch in range(EPOCHS + 4):
            sampler.set_epoch(epoch)
            counts = sampler.table.forgetting
            chosen = None
            if sampler.refresh_due and refreshing != "never":
                chosen = chosen_now(sampler, rank, world, swept=refreshing == "swept")
            found[refreshing].append((counts, sampler.table.visits.clone(), chosen))
            mine = torch.arange(N)[(torch.arange(N) + epoch) % world == rank]
            given = batch([Draw(i, 0, 1.0, 0.0, epoch) for i in mine.tolist()])
            sampler.report(given, logits=logits_of(3 * given.index, epoch))
            strong = given._replace(strength=given.strength + 0.5, copy=given.copy + 1)
            sampler.report(strong, logits=-logits_of(given.index, epoch))
    return found


def chosen_now(sampler: CoresetSampler, rank: int, world: int, swept: bool) -> Any:
    """Refresh, or say what was raised."""
    evidence = part(Evidence(N, torch.arange(N) % 3), torch.arange(N)[rank::world])
    try:
        return sampler.refresh(evidence if swept else None).indices
    except ValueError as error:
        return str(error)


def batch(draws: list[Draw]) -> Sample:
    columns = zip(*draws, strict=True)
    index, copied, weight, strength, at, _ = map(torch.tensor, columns)
    return Sample(None, index % 3, index, weight, strength, copied, at)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.norm(x))
        return out


def model() -> Net:
    torch.manual_seed(0)
    return Net()


def data(n: int = 70, classes: int = 3) -> TensorDataset:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=random)
    return TensorDataset(x, torch.randint(classes, (n,), generator=random))


def sweeping(rank: int, world: int, group: dist.ProcessGroup) -> dict[int, Any]:
    net = DistributedDataParallel(model(), process_group=group)
    net(torch.randn(8, 5, generator=torch.Generator().manual_seed(rank)))  # other running means
    found: dict[int, Any] = {}
    for n in (70, 2):
        # Batches of 1: ranks with more samples make more forward passes, and none may wait.
        mine = sweep(net, data(n), LastLayerGradient(), batch_size=1, group=group)
        found[n] = mine.indices, mine.labels, mine.losses
    mine = sweep(model(), data(), LastLayerGradient(), group=group)
    sampler = CoresetSampler(data(), FacilityLocation(), count=9, group=group)
    found[0] = sampler.refresh(mine).indices, None, None
    return found


def influences(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the influences of samples, (3, b), along the steps of three passes."""
    influence, steps = HeadInfluence(net), torch.optim.SGD(net.parameters(), lr=0.5)
    found = []
    for _ in range(3):
        with influence:
            logits = net(x)
        found.append(influence(logits, y))
        steps.zero_grad()
        F.cross_entropy(logits, y).backward()
        steps.step()
    return torch.stack(found)


def gradients(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, Any]:
    """Gradients of layers from a shared sweep, and influences along steps that ranks average."""
    net = DistributedDataParallel(model().eval(), process_group=group)
    mine = sweep(net, data(), LayerGradient(["norm", "head"], project=16), group=group)
    assert mine.proxies is not None
    x, y = (part[rank:12:world] for part in data().tensors)
    found = influences(net, x, y)
    return {"indices": mine.indices, "proxies": mine.proxies.gradient, "influences": found}


Found = dict[int, list[dict[str, Any]]]
Failing = Callable[[int, int, dist.ProcessGroup], object]


def _select(change: Callable[[int, Evidence], Evidence], **options: Any) -> Failing:
    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        mine = change(rank, share(whole(), rank, world))
        strategy = FacilityLocation(**{k: v for k, v in options.items() if k != "budget"})
        budget = options.get("budget", 20)
        return select(strategy, mine, budget, group=group, generator=generator())

    return run


def _other(rank: int, evidence: Evidence, **columns: Any) -> Evidence:
    """Change rank 1's evidence."""
    return Evidence(**(vars(evidence) | columns)) if rank == 1 else evidence


def _halves(evidence: Evidence) -> Proxies:
    assert evidence.proxies is not None
    return Proxies(evidence.proxies.gradient.half())


def _doubles(evidence: Evidence) -> Proxies:
    assert evidence.proxies is not None
    assert evidence.proxies.features is not None
    return Proxies(evidence.proxies.gradient.double(), evidence.proxies.features.double())


def _sampler(rank: int, group: dist.ProcessGroup | None, **options: Any) -> CoresetSampler:
    kept = {"count": 20, "seed": 0} | {k: v for k, v in options.items() if k != "n"}
    n = options.get("n", whole().n)
    return CoresetSampler(range(n), FacilityLocation(), group=group, **kept)


class Fickle:
    """A pruning rule that keeps something else on every rank, or fails on one."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, rank: int, fail: bool = False) -> None:
        self.rank, self.fail = rank, fail

    def keep(self, losses: Tensor, **_: Any) -> Selection:
        if self.fail and self.rank == 1:
            raise ValueError("losses must be finite")
        return Selection(torch.tensor([7 * (self.rank == 1)]), torch.ones(1))


def _fickle(fail: bool) -> Failing:
    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        sampler = CoresetSampler(range(N), Uniform(), fraction=0.5, group=group)
        rule = Fickle(rank, fail)
        sampler.plan = replace(sampler.plan, pruning=rule)
        return sampler.begin(0)

    return run


def _seeds(rank: int, world: int, group: dist.ProcessGroup) -> object:
    options: dict[str, Any] = {"fraction": 0.5, "base": Uniform(), "base_fraction": 0.5}
    seed = int(rank == 1)
    return CoresetSampler(range(N), Uniform(), seed=seed, group=group, **options).begin(0)


def _bases(first: Any, second: Any, sharded: bool = True) -> Failing:
    """Ranks whose bases, or the shares of them, differ; each as (base, share)."""

    def run(rank: int, world: int, group: dist.ProcessGroup) -> None:
        kind = DistributedCoresetSampler if sharded else CoresetSampler
        base, share = second if rank == 1 else first
        options = {} if share is None else {"base_fraction": share}
        sampler = kind(range(N), Uniform(), fraction=0.5, group=group, base=base, **options)
        sampler.set_epoch(0)

    return run


def _resumed_alone(rank: int, world: int, group: dist.ProcessGroup) -> None:
    sampler = DistributedCoresetSampler(
        range(N), Uniform(), fraction=0.5, group=group, base=RandomPruning(0.5)
    )
    sampler.set_epoch(0)
    if rank == 1:
        sampler.load_state_dict(sampler.state_dict())
    sampler.set_epoch(0)


def _no_group(rank: int, world: int, group: dist.ProcessGroup) -> object:
    sampler = CoresetSampler(range(N), Uniform(), fraction=0.5, base=InfoBatch(0.5, 0))
    return sampler.begin(0)


def _disagree(**options: Any) -> Failing:
    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        sampler = _sampler(rank, group, **(options if rank == 1 else {}))
        return sampler.refresh(share(whole(), rank, world))

    return run


def _schedules(name: str) -> Failing:
    """A plan of as many epochs, of which rank 1 refines for longer than the others."""

    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        off = SwitchOff(3 if rank == 1 else 2) * 0.5
        options: dict[str, Any] = {"fraction": 0.3} | {name: off if name != "fraction" else _less}
        if name == "fraction" and rank == 1:
            options["fraction"] = 0.5
        sampler = DistributedCoresetSampler(
            range(whole().n), FacilityLocation(), group=group, epochs=300, **options
        )
        sampler.set_epoch(0)
        return sampler.refresh(share(whole(), rank, world))

    return run


def _free_or_swept(rank: int, world: int, group: dist.ProcessGroup) -> object:
    return _sampler(rank, group).refresh(None if rank else share(whole(), rank, world))


def draws(rank: int, world: int, group: dist.ProcessGroup) -> list[str | None]:
    """What is said where each rank reports draws of its own, and where neighbours share one."""
    said: list[str | None] = []
    for width in (3, 4):
        names = np.arange(3 * rank, 3 * rank + width)
        try:
            require_once([names[:1], names[1:]], 5, group)
            said.append(None)
        except RuntimeError as error:
            said.append(str(error))
    return said


def wrapping(rank: int, world: int, group: dist.ProcessGroup) -> list[Any]:
    """What a wrapped loader's ranks trained, and selected from their reports."""
    data, found = TensorDataset(torch.arange(float(N)), torch.arange(N) % 3), []
    shard: Any
    for shard in (None, DistributedSampler(data, world, rank)):
        plain = DataLoader(data, BATCH, sampler=shard, shuffle=None if shard else True)
        options: dict[str, Any] = {"fraction": 0.25, "refresh": Every(1, warmup=1), "epochs": 3}
        loader, sampler = wrap(plain, Rank(Loss()), group=None if shard else group, **options)
        planned = sampler.planned_draws()
        for epoch in range(3):
            selection = sampler.begin(epoch)
            mine: list[tuple[int, int]] = []
            for x, _, draw in loader:
                sampler.report(draw, loss=x)
                real = draw.weight > 0
                mine += zip(draw.index[real].tolist(), draw.copy[real].tolist(), strict=True)
            chosen = None if selection is None else selection.indices
            found.append((epoch, mine, chosen, planned[epoch], len(sampler)))
    return found


def gap_reports() -> list[tuple[int, int, Tensor, dict[str, Tensor]]]:
    """Reports of some samples over three periods, each by one of six ranks."""
    random, reports = torch.Generator().manual_seed(5), []
    for epoch in range(12):
        for rank in range(6):
            some = torch.randperm(N, generator=random)[: N // (2 + 2 * epoch)]
            loss, strength = (torch.rand(len(some), generator=random) for _ in range(2))
            values = {"loss": loss, "strength": strength, "target": some % 3}
            reports.append((epoch, rank, some, values))
    return reports


def gaps(rank: int, world: int, group: dist.ProcessGroup) -> Any:
    """What the ranks' shares come to, over periods in which some samples are not reported."""
    table = SampleTable(N)
    found: list[Any] = []
    for epoch, who, some, values in gap_reports():
        if who == 0 and epoch and epoch % 4 == 0:
            table.restart()
        if who % world == rank:
            table.report(some, **values, epoch=epoch)
        if who == 5:
            for stale in (None, 2, 9):
                try:
                    needs = frozenset({"losses", "labels"})
                    share = share_of(table, needs, group, epoch=epoch, stale=stale)
                    found.append((share.indices, share.losses))
                except ValueError as error:
                    found.append(str(error))
    return found


def _epochs(rank: int, world: int, group: dist.ProcessGroup) -> None:
    _sampler(rank, group, strength=StableInfluence()).set_epoch(rank)


def _epoch_or_refresh(rank: int, world: int, group: dist.ProcessGroup) -> None:
    sampler = _sampler(rank, group, strength=StableInfluence())
    if rank == 0:
        sampler.set_epoch(0)
    else:
        sampler.refresh()


def _unreported(rank: int, world: int, group: dist.ProcessGroup) -> object:
    sampler = _sampler(rank, group, refresh=Every(1, warmup=1))
    draws = list(sampler)[rank::world]
    if rank == 1:
        draws = draws[3:]
    given = batch(draws)
    sampler.report(given, logits=logits_of(given.index, 0))
    return sampler.refresh()


def _contradicting(rank: int, world: int, group: dist.ProcessGroup) -> object:
    sampler = _sampler(rank, group)
    for_all = torch.arange(sampler.n)
    labels = (for_all + rank) % 3
    sampler.table.report(for_all, logits=logits_of(for_all, 0), target=labels)
    return sampler.refresh()


def _reordered(rank: int, world: int, group: dist.ProcessGroup) -> object:
    x, y = data().tensors
    given = TensorDataset(x.flip(0), y.flip(0)) if rank == 1 else data()
    sampler = CoresetSampler(given, FacilityLocation(), count=9, group=group)
    return sampler.refresh(sweep(model(), given, LastLayerGradient(), group=group))


def _diverged(rank: int, world: int, group: dist.ProcessGroup) -> object:
    net = model()
    if rank == 1:
        net.head.bias.data.fill_(torch.nan)
    return sweep(net, data(), LastLayerGradient(), group=group)


def _late(begin: Callable[[CoresetSampler], object], **options: Any) -> Failing:
    """What is wrong with a report of rank 1 is found when the values have come from the GPU."""

    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        with pretend_cuda() as gpu:
            gpu.behind = 10**6
            sampler = DistributedCoresetSampler(
                range(N), Uniform(), count=6, group=group, **options
            )
            sampler.refresh()
            given = batch(list(sampler)[:4])
            loss = torch.full((4,), torch.nan if rank == 1 else 0.5)
            sampler.report(given, loss=loss.cuda())
            return begin(sampler)

    return run


def _sharded_twice(rank: int, world: int, group: dist.ProcessGroup) -> object:
    """A loader, as accelerate's, that takes every world-th batch of what this rank was given."""
    return _reported(list(range(rank, 100, world)), group)


def _reported(which: list[int], group: dist.ProcessGroup) -> CoresetSampler:
    sampler = DistributedCoresetSampler(range(131), Uniform(), count=20, group=group)
    sampler.refresh()
    draws = list(sampler)
    batches = [draws[start : start + 4] for start in range(0, len(draws), 4)]
    for k, given in enumerate(map(batch, batches)):
        if k in which:
            sampler.report(given, loss=given.index.float())
    sampler.set_epoch(1)
    return sampler


def _pickled(rank: int, world: int, group: dist.ProcessGroup) -> object:
    return pickle.dumps(_sampler(rank, group))


def _too_many(rank: int, world: int, group: dist.ProcessGroup) -> object:
    return DistributedCoresetSampler(range(9), Uniform(), count=2, num_replicas=9)


def _clustered(change: Callable[[Evidence], Evidence], **options: Any) -> Failing:
    def run(rank: int, world: int, group: dist.ProcessGroup) -> object:
        mine = share(scored(), rank, world)
        mine = change(mine) if rank == 1 else mine
        strategy = Uniform(groups=Clusters(options.get("count", 3)))
        return select(strategy, mine, 20, group=group, generator=generator())

    return run


def _narrower(evidence: Evidence) -> Evidence:
    assert evidence.features is not None
    return replace(evidence, features=evidence.features[:, :4])


# name: what fails, and the words of the error on every rank
FAILURES: dict[str, tuple[Failing, type[Exception], str]] = {
    "n": (
        _select(lambda r, e: _other(r, e, n=e.n + 1, previous=None)),
        ValueError,
        r"evidence.n must be the same on every rank, got 79 on rank 0, 80 on rank 1",
    ),
    "labels": (
        _select(lambda r, e: _other(r, e, labels=e.labels.flip(0))),  # type: ignore[union-attr]
        ValueError,
        r"labels must be the same on every rank, got .* samples with two labels.*on rank 1.*order",
    ),
    "dtype": (
        _select(lambda r, e: _other(r, e, proxies=_doubles(e))),
        ValueError,
        r"proxies.gradient must be .*float32.* on rank 0, .*float64.* on rank 1",
    ),
    "widths": (
        _select(lambda r, e: _other(r, e, proxies=_halves(e))),
        ValueError,
        r"proxies.gradient must be .* \(3, torch.float32.* on rank 0, \(3, torch.float16.* rank 1",
    ),
    "no proxies": (
        _select(lambda r, e: _other(r, e, proxies=None)),
        ValueError,
        r"evidence.proxies must be given, got None.*\(On rank 1.\)",
    ),
    "no features": (
        _clustered(lambda e: replace(e, features=None)),
        ValueError,
        r"evidence.features must be given, got None.*\(On rank 1.\)",
    ),
    "widths of features": (
        _clustered(_narrower),
        ValueError,
        r"features must be the same on every rank, got \(6, .* on rank 0, \(4, .* on rank 1",
    ),
    "clusters": (
        _clustered(lambda e: e, count=80),
        ValueError,
        r"count must be at most the number of samples, 79, got 80 clusters.*\(On rank 0.\)",
    ),
    "previous": (
        _select(lambda r, e: _other(r, e, previous=torch.arange(4))),
        ValueError,
        r"previous must be the same on every rank, got 19 samples .* 4 samples",
    ),
    "a sample on no rank": (
        _select(lambda r, e: part(whole(), torch.arange(9 * r, 9 * r + 9))),
        ValueError,
        "evidence must hold every sample on some rank, got .* in no rank's share",
    ),
    "memory": (
        _select(lambda r, e: e, engine="dense", memory_limit=8_000),
        ValueError,
        r"memory_limit must hold .* for 40 samples, got 8,000 bytes.*\(On rank 0.\)",
    ),
    "budget": (
        _select(lambda r, e: e, budget=80),
        ValueError,
        "budget must be at most the number of samples, 79, got 80",
    ),
    "few": (_select(lambda r, e: e, budget=4), ValueError, "budget must be between 5, one a class"),
    "seed": (
        _disagree(seed=1),
        ValueError,
        "seed must be the same on every rank, got 0 on rank 0, 1 on rank 1.*Build",
    ),
    "length": (_disagree(n=80), ValueError, "n must be the same .* got 79 on rank 0, 80 on rank 1"),
    "strength_schedule": (
        _schedules("strength_schedule"),
        ValueError,
        r"schedule must be the same on every rank, got .* on rank 0, .* on rank 1.*Build",
    ),
    "probability": (
        _schedules("probability"),
        ValueError,
        "probability must be the same on every rank, got .* on rank 0, .* on rank 1",
    ),
    "weak_probability": (
        _schedules("weak_probability"),
        ValueError,
        "weak_probability must be the same on every rank, got .* on rank 0, .* on rank 1",
    ),
    "fraction": (
        _schedules("fraction"),
        ValueError,
        "(share|fraction) must be the same on every rank, got .* on rank 0, .* on rank 1",
    ),
    "planned": (
        _disagree(epochs=6),
        ValueError,
        "epochs must be the same on every rank, got None on rank 0, 6 on rank 1",
    ),
    "free": (
        _free_or_swept,
        ValueError,
        "evidence must be the same on every rank, got given on rank 0, of reports on rank 1",
    ),
    "epoch": (_epochs, ValueError, "epoch must be the same on every rank, got 0 on rank 0, 1 on"),
    "calls": (
        _epoch_or_refresh,
        ValueError,
        "call must be the same on every rank, got set_epoch on rank 0, refresh on rank 1",
    ),
    "unreported": (
        _unreported,
        ValueError,
        r"labels and proxies must be known for every sample, got 3 samples .* without a report",
    ),
    "contradicting": (_contradicting, ValueError, "labels must be the same on every rank, got 79"),
    "data order": (_reordered, ValueError, r"labels must be the same on every rank, got .*order"),
    "diverged": (_diverged, ValueError, r"must be finite, got .*non-finite rows.*\(On rank 1.\)"),
    "late": (
        _late(lambda sampler: sampler.set_epoch(0)),
        ValueError,
        r"loss must be finite, got .* of epoch 0 .*\(On rank 1.\)",
    ),
    "late, of what learns": (
        _late(lambda sampler: sampler.set_epoch(0), strength=StableInfluence("loss")),
        ValueError,
        r"loss must be finite, got .* of epoch 0 .*\(On rank 1.\)",
    ),
    "late, before a refresh": (
        _late(lambda sampler: sampler.refresh()),
        ValueError,
        r"loss must be finite, got .* of epoch 0 .*\(On rank 1.\)",
    ),
    "sharded twice": (_sharded_twice, RuntimeError, "must be sharded once.*use CoresetSampler"),
    "kept": (_fickle(False), ValueError, r"base must be the same .* with 1 samples \(.* on rank 1"),
    "keep": (_fickle(True), ValueError, r"losses must be finite \(On rank 1.\)"),
    "base of another seed": (_seeds, ValueError, "base must be the same .* got Uniform"),
    "bases, one by name": (
        _bases(("full", None), (RandomPruning(0.5), None)),
        ValueError,
        r"base must be the same .* got full on rank 0, RandomPruning\(ratio=0.5\) on rank 1",
    ),
    "bases, one by reports": (
        _bases(("full", None), (InfoBatch(0.5, 0), None)),
        ValueError,
        "base must be the same .* got full on rank 0, InfoBatch",
    ),
    "two rules": (
        _bases((RandomPruning(0.5), None), (InfoBatch(0.5, 0), None), False),
        ValueError,
        "base must be the same .* got RandomPruning",
    ),
    "a strategy and one by reports": (
        _bases((Uniform(), 0.5), (Rank(Loss()), 0.5), False),
        ValueError,
        "base must be the same .* got Uniform",
    ),
    "sizes of a base": (
        _bases((Uniform(), 1.0), (Uniform(), 0.5), False),
        ValueError,
        "base size must be the same .* got 60 on rank 0, 30 on rank 1",
    ),
    "sizes of one by reports": (
        _bases((Rank(Loss()), 1.0), (Rank(Loss()), 0.5)),
        ValueError,
        "base size must be the same .* got 60 on rank 0, 30 on rank 1",
    ),
    "resumed alone": (
        _resumed_alone,
        ValueError,
        "epoch must be the same .* got 0 on rank 0, 0, resumed on rank 1",
    ),
    "base without a group": (_no_group, ValueError, "group must be given with base=InfoBatch"),
    "pickled": (_pickled, TypeError, "without a process group to be pickled or copied.*state_dict"),
    "replicas": (_too_many, ValueError, "must be the group's, . and 0|1|2, got 9 and"),
}


def failures(rank: int, world: int, group: dist.ProcessGroup) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (run, _, _) in FAILURES.items():
        try:
            run(rank, world, group)
        except Exception as error:
            found[name] = type(error), str(error)
    _reported(list(range(0, 100, world)), group)  # the same on every rank: not sharded again
    _reported(list(range(100)), group)
    return found


def run(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world, timeout=limit)
    group = dist.group.WORLD
    assert group is not None
    scenarios = [selections, separable, received, training, scheduled, counting, gaps, sweeping]
    scenarios += [draws, wrapping, accumulating, pruning, gradients]
    scenarios += [failures] * (world > 1)
    found = {scenario.__name__: scenario(rank, world, group) for scenario in scenarios}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
