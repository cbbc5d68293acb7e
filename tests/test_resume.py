"""A run that is stopped at any batch and resumed goes on as if it had not been, bit for bit."""

import io
import pickle
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from augloader import (
    AdaptiveStrengthTransform,
    Constant,
    CoresetSampler,
    DistributedCoresetSampler,
    Draw,
    Every,
    FacilityLocation,
    Forgetting,
    LossRank,
    Mixup,
    Proportional,
    Residual,
    Sample,
    StableInfluence,
    SwitchOff,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.core.fields import signed
from augloader.feedback import StrengthRule
from augloader.loading.plan import FORMER

pytestmark = [
    pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning"),  # looked at
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata's own
]

N, CLASSES, EPOCHS, BATCH = 31, 3, 6, 6
SCHEDULE = Every(2, warmup=1)  # refreshes at 1 and 3; at 5 nothing strong is left to select for
PLAN: dict[str, Any] = {
    "count": 16,
    "base": "full",
    "refresh": SCHEDULE,
    "epochs": EPOCHS,
    "strength_schedule": SwitchOff(last=1),
    "probability": 0.8,
    "weak_probability": 0.5,
    "seed": 3,
}


class Kind(NamedTuple):
    """How a run is built."""

    stateful: bool = False
    workers: int = 0
    world: int = 1
    persistent: bool = False
    every: int = 1  # steps, for a loader's state

    @property
    def recorded(self) -> "Kind":
        """The run that it must repeat: without a loader's state, workers where these matter."""
        return Kind(workers=min(self.workers, 1), world=self.world)


class Step(NamedTuple):
    """What a step drew, and the loss of each row."""

    epoch: int
    keys: list[list[int]]
    weights: list[float]
    strengths: list[float]
    losses: list[float]


def small() -> nn.Module:
    """Everything that a state holds: weights, running means, and noise from the global stream."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * 36, CLASSES),
    )


def images() -> TensorDataset:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(N, 3, 8, 8, generator=random)
    return TensorDataset(x, torch.randint(CLASSES, (N,), generator=random))


class Run:
    """A training with all its parts built anew; its loop knows nothing of resuming."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self.used = kind, 0
        self.begin: int | None = None
        strong = AdaptiveStrengthTransform("trivial", seed=1)
        if kind.workers:  # in workers, where only keys make an image independent of its worker
            self.data = WeightedAugmentedDataset(images(), strong=strong)
            self.strong: AdaptiveStrengthTransform | None = None
        else:  # by the process's global stream, which is saved
            self.data = WeightedAugmentedDataset(images(), weak=v2.RandomHorizontalFlip())
            self.strong = strong
        self.model, self.mixup = small(), Mixup(CLASSES, epochs=EPOCHS, seed=2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        self.samplers = [self.sampler(rank) for rank in range(kind.world)]
        options: dict[str, Any] = {"num_workers": kind.workers}
        made: Any = DataLoader
        if kind.stateful:
            options["snapshot_every_n_steps"] = kind.every
            made = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
        self.loaders = [
            made(
                self.data,
                BATCH,
                sampler=sampler,
                generator=torch.Generator().manual_seed(4),
                persistent_workers=kind.persistent,
                **options,
            )
            for sampler in self.samplers
        ]

    def sampler(self, rank: int) -> CoresetSampler:
        if self.kind.world == 1:
            rule = StableInfluence(window=2, view="clean")
            return CoresetSampler(self.data, FacilityLocation(), strength=rule, **PLAN)
        replicas: dict[str, Any] = {"num_replicas": self.kind.world, "rank": rank}
        return DistributedCoresetSampler(
            self.data, FacilityLocation(), strength=Constant(0.7), **replicas, **PLAN
        )

    def train(self) -> Generator[Step, None, None]:
        for epoch in range(self.samplers[0].epoch if self.begin is None else self.begin, EPOCHS):
            for sampler in self.samplers:
                sampler.set_epoch(epoch)
            if self.samplers[0].refresh_due:
                swept = self.kind.world > 1
                evidence = sweep(self.model, self.data, Residual()) if swept else None
                for sampler in self.samplers:
                    sampler.refresh(evidence)
            self.used = 0
            for batches in zip(*self.loaders, strict=True):
                yield self.step(epoch, batches)

    def step(self, epoch: int, batches: tuple[Sample, ...]) -> Step:
        self.model.train()
        self.used += len(batches[0].index)
        found = []
        for sampler, given in zip(self.samplers, batches, strict=True):
            batch = given
            if self.strong is not None:
                x = self.strong(batch.input, batch.strength, keys=batch.keys)
                batch = batch._replace(input=x)
            batch = self.mixup(batch)
            logits = self.model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            sampler.report(batch, loss=loss, logits=logits)
            found.append((batch, loss.detach()))
        self.optimizer.step()
        self.optimizer.zero_grad()
        rows = (
            torch.cat(part).tolist()
            for part in zip(
                *((b.keys, b.weight, b.strength, loss) for b, loss in found), strict=True
            )
        )
        return Step(epoch, *rows)

    def save(self, path: Path) -> None:
        stateful = self.kind.stateful
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "samplers": [s.state_dict(0 if stateful else self.used) for s in self.samplers],
            "tables": [sampler.table.state_dict() for sampler in self.samplers],
            "loaders": [loader.state_dict() for loader in self.loaders] if stateful else [],
            "random": torch.get_rng_state(),
        }
        torch.save(state, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for sampler, saved in zip(self.samplers, state["samplers"], strict=True):
            sampler.load_state_dict(saved)
        for sampler, saved in zip(self.samplers, state["tables"], strict=True):
            sampler.table.load_state_dict(saved)
        if self.kind.stateful:
            for loader, saved in zip(self.loaders, state["loaders"], strict=True):
                loader.load_state_dict(saved)
        torch.set_rng_state(state["random"])


@cache
def recorded(kind: Kind) -> tuple[Step, ...]:
    """The whole run."""
    return tuple(Run(kind).train())


def resumed(kind: Kind, cut: int, path: Path) -> list[Step]:
    """What is left after some steps, in everything built anew."""
    first = Run(kind)
    steps = first.train()
    before = list(islice(steps, cut))
    assert before == list(recorded(kind.recorded)[:cut])
    first.save(path)
    steps.close()
    torch.manual_seed(9)
    second = Run(kind)
    second.load(path)
    return list(second.train())


def last_steps() -> list[int]:
    """How many steps were made at the end of each epoch."""
    epochs = [step.epoch for step in recorded(Kind())]
    return [i + 1 for i, (a, b) in enumerate(pairwise(epochs)) if a != b]


def test_the_run_has_all_that_could_go_wrong() -> None:
    """Partly random strengths, and then learnt ones; selections; mixing; a last small batch."""
    steps = recorded(Kind())
    sizes = [sum(len(s.keys) for s in steps if s.epoch == e) for e in range(EPOCHS)]
    assert sizes == [31, 47, 47, 47, 47, 47]
    selected = [
        {key[1] for s in steps if s.epoch == e for key in s.keys if key[2]} for e in range(EPOCHS)
    ]
    assert selected[1] == selected[2] != selected[3] == selected[4]
    strong = [{x for s in steps if s.epoch == e for x in s.strengths if x} for e in range(EPOCHS)]
    assert all(len(values) > 5 for values in strong[1:-1])
    assert strong[0] == strong[-1] == set()
    assert len({len(step.keys) for step in steps}) > 1
    padded = recorded(Kind(world=2))
    sizes = [sum(len(s.keys) for s in padded if s.epoch == e) for e in range(EPOCHS)]
    assert sizes == [32, 48, 48, 48, 48, 48]
    assert recorded(Kind(workers=1)) != steps


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("world", [1, 2])
def test_resumed_after_any_step(world: int, stateful: bool, tmp_path: Path) -> None:
    """Compared to the end of the next epoch; saving leaves the run as it is."""
    kind = Kind(stateful, world=world)
    whole, first = list(recorded(kind.recorded)), Run(kind)
    if not stateful:  # whose loader would start its epoch for it
        first.save(tmp_path / "0.pt")
    for cut, _ in enumerate(first.train(), 1):
        first.save(tmp_path / f"{cut}.pt")
    for path in tmp_path.iterdir():
        cut = int(path.stem)
        torch.manual_seed(9)
        second = Run(kind)
        second.load(path)
        assert list(islice(second.train(), 12)) == whole[cut : cut + 12], cut


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("where", ["first", "middle", "last", "refreshed"])
def test_resumed_with_workers_that_have_fetched_more(
    where: str, stateful: bool, tmp_path: Path
) -> None:
    ends = last_steps()
    cut = {"first": 1, "middle": ends[1] + 3, "last": ends[2], "refreshed": ends[2] + 1}[where]
    middle = where == "middle"
    kind = Kind(stateful, workers=2, persistent=middle, every=2 if middle else 1)
    whole = list(recorded(kind.recorded))
    assert resumed(kind, cut, tmp_path / "state.pt") == whole[cut:]


def go_on(path: str, output: str) -> None:
    """Go on in a fresh process."""
    torch.set_num_threads(1)
    run = Run(Kind())
    run.load(Path(path))
    torch.save([tuple(step) for step in run.train()], output)


def test_resumed_in_another_process(tmp_path: Path) -> None:
    run, cut = Run(Kind()), last_steps()[2] + 2
    list(islice(run.train(), cut))
    run.save(tmp_path / "state.pt")
    code = "import sys; from tests.test_resume import go_on; go_on(*sys.argv[1:])"
    arguments = [str(tmp_path / name) for name in ("state.pt", "rest.pt")]
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, check=True, timeout=120)
    rest = torch.load(tmp_path / "rest.pt", weights_only=True)
    assert [Step(*step) for step in rest] == list(recorded(Kind())[cut:])


def test_a_resumed_run_is_stopped_again_in_the_same_epoch(tmp_path: Path) -> None:
    start, path = last_steps()[1], tmp_path / "state.pt"
    for kind in (Kind(), Kind(stateful=True), Kind(world=2), Kind(stateful=True, world=2)):
        whole = recorded(kind.recorded)
        at = start if kind.world == 1 else next(i for i, s in enumerate(whole) if s.epoch == 2)
        run = Run(kind)
        list(islice(run.train(), at + 1))
        run.save(path)
        for cut in (1, 2, 3):
            run = Run(kind)
            run.load(path)
            assert list(islice(run.train(), 1)) == [whole[at + cut]]
            run.save(path)
        run = Run(kind)
        run.load(path)
        assert list(run.train()) == list(whole[at + 4 :])


@pytest.mark.parametrize("kind", [Kind(), Kind(True), Kind(True, 2), Kind(True, world=2)])
@pytest.mark.parametrize("counted", [False, True])
def test_saved_between_epochs(kind: Kind, counted: bool, tmp_path: Path) -> None:
    """The loader's state is of an epoch that is over, wherever the loop begins."""
    path, whole = tmp_path / "state.pt", recorded(kind.recorded)
    for after in (1, 2) if kind.workers == 0 else (2,):
        run = Run(kind)
        steps = run.train()
        made = len([next(steps) for step in whole if step.epoch <= after])
        for loader in run.loaders:  # as the loop does when it looks for another batch
            if loader._iterator is not None:
                assert next(loader._iterator, None) is None
        run.save(path)
        steps.close()
        run = Run(kind)
        run.load(path)
        run.begin = after + 1 if counted else None  # as examples/train.py does
        assert list(run.train()) == list(whole[made:])


def test_a_run_goes_back_to_an_earlier_state(tmp_path: Path) -> None:
    """As after a loss that was no number; the same objects go on."""
    for kind in (Kind(), Kind(stateful=True)):
        whole, cut = recorded(kind.recorded), last_steps()[1] + 2
        run = Run(kind)
        steps = run.train()
        list(islice(steps, cut))
        run.save(tmp_path / "state.pt")
        list(islice(steps, 20))
        steps.close()
        run.load(tmp_path / "state.pt")
        assert list(run.train()) == list(whole[cut:])


# States -------------------------------------------------------------------------------------------


def reported(
    n: int = N, classes: int = CLASSES, rule: StrengthRule | None = None, **options: Any
) -> CoresetSampler:
    """A sampler in its second epoch, with everything in its table."""
    sampler = CoresetSampler(
        range(n),
        options.pop("strategy", FacilityLocation()),
        count=8,
        refresh=Every(1, warmup=1),
        strength=StableInfluence(form="kl", window=2) if rule is None else rule,
        **options,
    )
    for epoch in range(2):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        train(sampler, classes)
    return sampler


def train(sampler: CoresetSampler, classes: int = CLASSES, shift: float = 0.0) -> None:
    batch = columns([draw for draw in sampler if draw.copy == 0])
    logits = torch.stack([(batch.index + c + shift).sin() for c in range(classes)], 1)
    losses = F.cross_entropy(logits, batch.target % classes, reduction="none")
    sampler.report(batch, loss=losses, logits=logits, target=batch.target % classes)


def frozen(value: Any) -> Any:
    """A state as it is now, in what can be compared."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: frozen(part) for key, part in value.items()}
    return [frozen(part) for part in value] if isinstance(value, tuple | list) else value


def reloaded(part: Any) -> Any:
    file = io.BytesIO()
    torch.save(part.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def everything(sampler: CoresetSampler) -> tuple[Any, ...]:
    states = frozen([sampler.state_dict(), sampler.table.state_dict()])
    return states, list(sampler), len(sampler), sampler.refresh_due


RULES: list[StrengthRule] = [Constant(0.5), StableInfluence(), StableInfluence("kl", window=3)]


@pytest.mark.parametrize("rule", [*RULES, LossRank()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_states_hold_plain_values_and_tensors(rule: StrengthRule, dtype: torch.dtype) -> None:
    strategy = Proportional(Forgetting())
    options: dict[str, Any] = {"strategy": strategy, "strength_schedule": SwitchOff(1), "epochs": 3}
    options["table_dtype"] = dtype
    first = reported(rule=rule, **options)
    second = CoresetSampler(range(N), count=8, refresh=Every(1, warmup=1), strength=rule, **options)
    second.load_state_dict(reloaded(first))
    second.table.load_state_dict(reloaded(first.table))
    assert everything(second) == everything(first)
    for sampler in (first, second):
        sampler.set_epoch(2)
        train(sampler)
    assert everything(second) == everything(first)


@pytest.mark.parametrize("what", ["sampler", "table"])
def test_a_state_of_another_version_or_not_whole_is_refused(what: str) -> None:
    sampler = reported()
    part: Any = sampler if what == "sampler" else sampler.table
    other = reported(seed=0)
    train(other, shift=1.0)
    saved = (other if what == "sampler" else other.table).state_dict()
    before = everything(sampler)
    own = saved["version"]
    for version in (0, own + 1, str(own), None):
        words = rf"state of the {what} must be of version {own}, got {version}\. Load it with"
        with pytest.raises(ValueError, match=words):
            part.load_state_dict(signed(saved | {"version": version}))
    for name in saved:
        whole = {key: value for key, value in saved.items() if key != name}
        words = (
            f"version {own}, got None"
            if name == "version"
            else f"must be whole, got none of {name}"
        )
        with pytest.raises(ValueError, match=words):
            part.load_state_dict(whole)
    assert everything(sampler) == before


def test_a_state_for_another_number_of_samples_is_refused_by_name() -> None:
    sampler, other = reported(), reported(n=N + 1)
    before = everything(sampler)
    with pytest.raises(ValueError, match="state must be of a sampler with n=31, got n=32"):
        sampler.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"state must be of n=31, .* got n=32, "):
        sampler.table.load_state_dict(other.table.state_dict())
    assert everything(sampler) == before


@pytest.mark.parametrize(("version", "weighting"), [(2, "cluster"), (1, "uniform"), (1, "cluster")])
def test_states_of_earlier_versions_load_or_say_why_not(version: int, weighting: str) -> None:
    options: dict[str, Any] = {"count": 8, "epochs": 4, "weighting": weighting}
    options |= {"strength_schedule": SwitchOff(1), "weak_probability": 0.5}
    first, second = (CoresetSampler(range(N), Uniform(), **options) for _ in range(2))
    first.set_epoch(1)
    first.refresh()
    saved = first.state_dict()
    now = {new: old for old, new in FORMER.items()}
    arguments = {now.get(name, name): value for name, value in saved["arguments"].items()}
    assert {"schedule", "multiple", "plain_copies", "weak"} <= arguments.keys()
    old = saved | {"version": version, "arguments": arguments}
    del old["checksum"]
    if (version, weighting) == (1, "cluster"):
        before = second.state_dict()
        with pytest.raises(ValueError, match="must have no cluster weights, got weighting='clus"):
            second.load_state_dict(old)
        assert str(second.state_dict()) == str(before)
        return
    second.load_state_dict(old)
    assert list(second) == list(first)
    with pytest.raises(ValueError, match="must be of a sampler with weight"):
        CoresetSampler(
            range(N), Uniform(), **options | {"weighting": "downweight"}
        ).load_state_dict(old)


def test_a_state_for_another_number_of_classes_is_refused_by_name() -> None:
    sampler, other = reported(), reported(classes=5)
    before = everything(sampler)
    words = r"logits must keep the width \(3,\) of earlier reports, got \(5,\)"
    with pytest.raises(ValueError, match=words):
        sampler.table.load_state_dict(other.table.state_dict())
    assert everything(sampler) == before
    fresh = CoresetSampler(
        range(N),
        FacilityLocation(),
        count=8,
        refresh=Every(1, warmup=1),
        strength=StableInfluence(form="kl", window=2),
    )
    fresh.load_state_dict(other.state_dict())
    fresh.table.load_state_dict(other.table.state_dict())  # cannot know yet
    before = everything(fresh)
    words = r"logits must keep the width \(5,\) of earlier reports, got \(3,\)"
    with pytest.raises(ValueError, match=words):
        train(fresh)
    assert everything(fresh) == before


BROKEN: dict[str, dict[str, Any]] = {
    "sampler": {
        "selection": (torch.tensor([1, 1]), torch.ones(2)),
        "strengths": torch.ones(3),
        "epoch": None,
    },
    "table": {
        "columns": {"logits": (torch.zeros(N, CLASSES), None)},
        "labels": None,
        "memory": {"previous": None},
        "shared": None,
    },
}


@pytest.mark.parametrize(("what", "name"), [(w, k) for w in BROKEN for k in BROKEN[w]])
def test_a_broken_state_changes_nothing(what: str, name: str) -> None:
    sampler, other = reported(), reported()
    other.set_epoch(2)
    other.refresh()
    train(other, shift=1.0)
    before = everything(sampler)
    part, saved = (sampler, other) if what == "sampler" else (sampler.table, other.table)
    with pytest.raises(ValueError, match=r"(of the state|selection.indices) must be"):
        part.load_state_dict(signed(saved.state_dict() | {name: BROKEN[what][name]}))
    assert everything(sampler) == before


def test_a_refresh_that_was_still_due_is_so_after_a_resume() -> None:
    sampler, second = reported(), reported(seed=0)
    sampler.set_epoch(2)
    train(second, shift=3.0)
    second.load_state_dict(reloaded(sampler))
    second.table.load_state_dict(reloaded(sampler.table))
    second.set_epoch(2)
    assert second.refresh_due
    for each in (sampler, second):
        each.refresh()
    assert everything(second) == everything(sampler)


def test_states_and_what_they_were_taken_from_do_not_change_each_other() -> None:
    sampler = reported()
    states = sampler.state_dict(5), sampler.table.state_dict()
    before = frozen(states)

    def go_on_with(other: CoresetSampler) -> None:
        train(other, shift=1.0)
        other.set_epoch(2)
        other.refresh()
        other.skip(3)
        train(other, shift=2.0)

    go_on_with(sampler)
    assert frozen(states) == before
    for _ in range(2):
        second = reported()
        second.load_state_dict(states[0])
        second.table.load_state_dict(states[1])
        go_on_with(second)
        assert frozen(states) == before


def test_a_samplers_state_costs_nothing() -> None:
    """Beside references it is as small for a million samples as for a hundred."""
    sizes = []
    for n in (100, 1_000_000):
        sampler = CoresetSampler(range(n), Uniform(), count=50)
        sampler.refresh()
        state = sampler.state_dict()
        assert sampler.selection is not None
        assert state["strengths"] is sampler.strengths
        assert state["selection"][0] is sampler.selection.indices
        assert state["selection"][1] is sampler.selection.weights
        plain = {k: v for k, v in state.items() if k not in ("strengths", "selection")}
        sizes.append(len(pickle.dumps(plain)))
    assert sizes[1] <= sizes[0] + 8


def test_consumed_draws_are_counted_from_where_the_loader_started() -> None:
    sampler = reported()
    draws = list(sampler)
    for wrong, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError), ("3", TypeError)):
        with pytest.raises(error, match=r"consumed must be .* Count the draws"):
            sampler.state_dict(wrong)  # type: ignore[arg-type]
    second = reported()
    second.load_state_dict(sampler.state_dict(10))
    assert list(second) == draws[10:]
    assert len(second) == len(draws) - 10
    third = reported()
    third.load_state_dict(second.state_dict(6))
    assert list(third) == draws[16:]
    third.load_state_dict(second.state_dict(len(draws)))  # the last batch is not full
    assert list(third) == []
    assert list(sampler) == draws
    third.set_epoch(1)
    assert (len(third), third.refresh_due) == (0, False)
    third.set_epoch(2)
    assert len(third) == len(draws)


@pytest.mark.parametrize("multiple", [1, 4, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_draws_that_fill_up_are_the_same_after_a_resume(multiple: int, world: int) -> None:
    for rank in range(world):
        ranks = {"num_replicas": world, "rank": rank}
        options: dict[str, Any] = {"count": 9, "pad_to_multiple_of": multiple} | ranks
        whole = DistributedCoresetSampler(range(11), Uniform(), **options)
        whole.refresh()
        draws = list(whole)
        for cut in range(len(draws) + 1):
            second = DistributedCoresetSampler(range(11), Uniform(), **options)
            second.load_state_dict(whole.state_dict(cut))
            assert list(second) == draws[cut:]


# Ranks --------------------------------------------------------------------------------------------


def ranked(rank: int, folder: str) -> None:
    """Save after every batch; go on from every other state."""
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2, timeout=limit)

    def made() -> DistributedCoresetSampler:
        rule = StableInfluence(window=2, view="any")
        return DistributedCoresetSampler(range(N), FacilityLocation(), strength=rule, **PLAN)

    def epochs(
        sampler: DistributedCoresetSampler, states: list[bytes], count: int = EPOCHS
    ) -> list[Any]:
        found = []
        for epoch in range(sampler.epoch, min(sampler.epoch + count, EPOCHS)):
            sampler.set_epoch(epoch)
            if sampler.refresh_due:
                sampler.refresh()
            draws = list(sampler)
            for start in range(0, len(draws), BATCH):
                given = draws[start : start + BATCH]
                x = torch.tensor([d.index + 7 * d.strength * epoch + d.copy for d in given])
                logits = torch.stack([x.sin(), (x + epoch).cos(), (x / 2).sin()], 1)
                batch = columns(given)
                loss = F.cross_entropy(logits, batch.target, reduction="none")
                sampler.report(batch, loss=loss, logits=logits)
                found.append((epoch, given, sampler.strengths.tolist()))
                saved = io.BytesIO()
                state = sampler.state_dict(start + len(given)), sampler.table.state_dict()
                torch.save(state, saved)
                states.append(saved.getvalue())
        return found

    states: list[bytes] = []
    whole, wrong = epochs(made(), states), []
    for cut, saved in list(enumerate(states, 1))[::2]:  # 4 batches an epoch, 3 in the first
        again = made()
        state, table = torch.load(io.BytesIO(saved), weights_only=True)
        again.load_state_dict(state)
        again.table.load_state_dict(table)
        rest = epochs(again, [], 2)
        if rest != whole[cut : cut + len(rest)] or len(rest) < min(4, len(whole) - cut):
            wrong.append(cut)
    torch.save((len(states), wrong), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def columns(draws: list[Draw]) -> Sample:
    index, copied, weight, strength, at, _ = map(torch.tensor, zip(*draws, strict=True))
    return Sample(None, index % CLASSES, index, weight, strength, copied, at)


@pytest.mark.distributed
@pytest.mark.slow
def test_ranks_that_learn_together_resume_at_every_batch(tmp_path: Path) -> None:
    spawn(ranked, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        count, wrong = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (count, wrong) == (23, [])
