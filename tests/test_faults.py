"""What dies, is cut short, interrupted or changed on the way, and what is left of it."""

import io
import os
import pickle
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from augloader import (
    AdaptiveStrengthTransform,
    CoresetSampler,
    DistributedCoresetSampler,
    Draw,
    Every,
    FacilityLocation,
    Mixup,
    Residual,
    Sample,
    StableInfluence,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.feedback import SampleTable
from augloader.loading.plan import EpochPlan

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata's own
    pytest.mark.filterwarnings("ignore:All draws of epoch:UserWarning"),  # looked at
]

N, CLASSES, BATCH = 30, 3, 8
LIMIT = 10  # seconds that a rank waits for the others


class Rows(Dataset[tuple[Tensor, int]]):
    """A data set whose length can change, and one row of which kills the worker that reads it."""

    def __init__(self, n: int = N, fatal: Path | None = None) -> None:
        self.images = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.fatal = fatal  # there is a file as long as it is

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 11 and self.fatal is not None and self.fatal.exists():
            self.fatal.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index], index % CLASSES


def planned(data: Any, **options: Any) -> CoresetSampler:
    kind = DistributedCoresetSampler if "group" in options else CoresetSampler
    return kind(
        data,
        FacilityLocation(),
        count=12,
        refresh=Every(1, warmup=1),
        strength=StableInfluence(window=2, view="clean"),
        **options,
    )


def report(sampler: CoresetSampler, batch: Sample) -> None:
    x = batch.index + batch.epoch + 2 * batch.strength
    logits = torch.stack([x.sin(), x.cos(), (x / 2).sin()], 1)
    sampler.report(batch, loss=logits.square().sum(1), logits=logits)


def reported(epochs: int = 2) -> CoresetSampler:
    """A sampler in an epoch that was drawn and reported."""
    sampler = planned(range(N))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        report(sampler, columns(list(sampler)))
    return sampler


def columns(draws: list[Draw]) -> Sample:
    index, copied, weight, strength, at, _ = map(torch.tensor, zip(*draws, strict=True))
    return Sample(None, index % CLASSES, index, weight, strength, copied, at)


# A worker that dies -------------------------------------------------------------------------------


def loop(data: Any, path: Path, stateful: bool, resume: bool = False) -> Iterator[list[Any]]:
    """Train for three epochs, saving after each batch."""
    sampler = planned(data)
    options: dict[str, Any] = {"sampler": sampler, "num_workers": 2}
    if stateful:
        torchdata = pytest.importorskip("torchdata.stateful_dataloader")
        loader = torchdata.StatefulDataLoader(data, BATCH, snapshot_every_n_steps=1, **options)
    else:
        loader = DataLoader(data, BATCH, **options)
    if resume:
        state = torch.load(path, weights_only=True)
        sampler.load_state_dict(state["sampler"])
        sampler.table.load_state_dict(state["table"])
        if stateful:
            loader.load_state_dict(state["loader"])
    for epoch in range(sampler.epoch, 3):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        used = 0
        for batch in loader:
            report(sampler, batch)
            used += len(batch.index)
            consumed = 0 if stateful else used
            state = {"sampler": sampler.state_dict(consumed), "table": sampler.table.state_dict()}
            state["loader"] = loader.state_dict() if stateful else None
            torch.save(state, path.with_suffix(".part"))  # where a worker's death may raise, too
            os.replace(path.with_suffix(".part"), path)
            yield [batch.keys.tolist(), batch.weight.tolist(), batch.strength.tolist()]


@pytest.mark.parametrize("stateful", [False, True])
def test_a_worker_that_is_killed_is_named_and_the_run_resumes(
    stateful: bool, tmp_path: Path
) -> None:
    whole = list(loop(WeightedAugmentedDataset(Rows()), tmp_path / "whole.pt", stateful))
    fatal, path = tmp_path / "fatal", tmp_path / "state.pt"
    data, made = WeightedAugmentedDataset(Rows(fatal=fatal)), list[Any]()
    made.extend(islice(loop(data, path, stateful), 6))
    steps = loop(data, path, stateful, resume=True)
    made.append(next(steps))
    fatal.touch()
    error = ""
    try:
        for step in steps:
            made.append(step)
    except RuntimeError as raised:
        error = str(raised)
    assert re.search(r"DataLoader worker \(pid.*(killed by signal|exited)", error)
    assert not fatal.exists()
    assert 7 <= len(made) < len(whole)
    made.extend(loop(data, path, stateful, resume=True))
    assert made == whole


# A rank that dies ---------------------------------------------------------------------------------


def dying(rank: int, world: int, where: str, folder: str) -> None:
    """Train, save, and lose rank 1 in the next refresh."""
    torch.set_num_threads(1)
    init, limit = f"file://{folder}/store", timedelta(seconds=LIMIT)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world, timeout=limit)
    sampler = planned(range(N), group=dist.group.WORLD)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        if epoch == 2:
            break
        if sampler.refresh_due:
            sampler.refresh()
        report(sampler, columns(list(sampler)))
    draws, length, chosen = list(sampler), len(sampler), sampler.selection
    state = sampler.state_dict(), sampler.table.state_dict()
    torch.save((state, [list(draw) for draw in draws]), f"{folder}/state{rank}.part")
    os.replace(f"{folder}/state{rank}.part", f"{folder}/state{rank}.pt")
    dist.barrier()

    def die(*_: Any, **__: Any) -> None:
        os._exit(3)

    if rank == 1:
        setattr(dist, where, die)
    start, error = time.monotonic(), ""
    try:
        sampler.refresh()
    except RuntimeError as raised:
        error = str(raised)
    kept = (list(sampler), len(sampler), sampler.selection) == (draws, length, chosen)
    torch.save((error, time.monotonic() - start, kept), f"{folder}/{rank}.pt")
    os._exit(0)  # the group is broken: leaving it in order might wait for the dead


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(("world", "where"), [(3, "all_to_all_single"), (2, "all_gather_object")])
def test_a_rank_that_dies_in_a_refresh_is_an_error_on_the_others(
    world: int, where: str, tmp_path: Path
) -> None:
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=dying, args=(rank, world, where, str(tmp_path)), daemon=True)
        for rank in range(world)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    assert codes == [3 if rank == 1 else 0 for rank in range(world)]
    for rank in {0, world - 1} - {1}:
        error, seconds, kept = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert error
        assert seconds < LIMIT + 5
        assert kept
    for rank in range(world):
        (state, table), draws = torch.load(tmp_path / f"state{rank}.pt", weights_only=True)
        alone = planned(range(N))
        alone.load_state_dict(state)
        alone.table.load_state_dict(table)
        assert draws == [list(draw) for draw in alone][rank::world]
        assert alone.refresh_due


# Files that are cut short -------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.99])
def test_a_state_file_that_was_cut_short_is_an_error(share: float, tmp_path: Path) -> None:
    sampler, path = reported(), tmp_path / "state.pt"
    torch.save({"sampler": sampler.state_dict(), "table": sampler.table.state_dict()}, path)
    content = path.read_bytes()
    bad = tmp_path / "bad.pt"
    bad.write_bytes(content[: int(share * len(content))])
    second = planned(range(N))
    second.set_epoch(0)
    with pytest.raises((RuntimeError, EOFError, OSError, pickle.UnpicklingError)):
        second.load_state_dict(torch.load(bad, weights_only=True)["sampler"])
    assert second.selection is None
    state = torch.load(path, weights_only=True)
    second.load_state_dict(state["sampler"])
    second.table.load_state_dict(state["table"])
    assert list(second) == list(sampler)


# A data set that changes --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [N - 1, N + 1])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_of_another_length_is_refused(n: int, workers: int) -> None:
    rows = Rows()
    data = WeightedAugmentedDataset(rows)
    sampler = planned(data)
    loader = DataLoader(data, BATCH, sampler=sampler, num_workers=workers)
    for batch in loader:
        report(sampler, batch)
    rows.images = Rows(n).images
    sampler.set_epoch(1)
    sampler.refresh()
    words = f"data must keep its {N} samples, got {n} now. Build dataset and sampler anew"
    batches: Any = iter(loader)
    with pytest.raises(ValueError, match=words):
        next(batches)
    if workers:  # else the garbage collection does, where torch waits for 10 s
        batches._shutdown_workers()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    draws = list(sampler)
    with pytest.raises(ValueError, match=f"must .*{N}.*, got {n}"):
        sampler.refresh(sweep(model, data, Residual()))
    assert list(sampler) == draws


# Ctrl-C -------------------------------------------------------------------------------------------


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


CTRL_C: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "select": lambda patch: patch.setattr(FacilityLocation, "select", interrupted),
    "compose": lambda patch: patch.setattr(EpochPlan, "compose", interrupted),
    "restart": lambda patch: patch.setattr(SampleTable, "restart", interrupted),
}


def everything(sampler: CoresetSampler) -> list[Any]:
    table = io.BytesIO()
    torch.save(sampler.table.state_dict(), table)
    chosen = sampler.selection
    return [
        sampler.epoch,
        len(sampler),
        list(sampler),
        chosen,
        sampler.refresh_due,
        table.getvalue(),
    ]


@pytest.mark.parametrize("where", CTRL_C)
def test_ctrl_c_in_a_refresh_leaves_all_as_it_was(where: str) -> None:
    sampler, other = reported(), reported()
    for each in (sampler, other):
        each.set_epoch(2)
    before = everything(sampler)
    with pytest.MonkeyPatch.context() as patch:
        CTRL_C[where](patch)
        with pytest.raises(KeyboardInterrupt):
            sampler.refresh()
    assert everything(sampler) == before
    assert torch.equal(sampler.refresh().indices, other.refresh().indices)
    assert list(sampler) == list(other)


def test_ctrl_c_where_an_epoch_begins_or_a_state_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler, other = reported(), reported()
    other.set_epoch(2)
    other.refresh()
    state, before = other.state_dict(), everything(sampler)
    works: list[Callable[[], None]] = [
        lambda: sampler.set_epoch(2),
        lambda: sampler.load_state_dict(state),
    ]
    for work in works:
        with monkeypatch.context() as patch:
            patch.setattr(EpochPlan, "compose", interrupted)
            with pytest.raises(KeyboardInterrupt):
                work()
        assert everything(sampler) == before
    sampler.load_state_dict(state)
    with monkeypatch.context() as patch:
        patch.setattr(CoresetSampler, "_begun", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sampler.set_epoch(3)
    sampler.set_epoch(2)  # goes on with what was loaded, as if nothing had been
    assert list(sampler) == list(other)


# A long run ---------------------------------------------------------------------------------------


def memory(pids: list[int]) -> float:
    """Resident MB of some processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def opened(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures by /proc")
def test_a_hundred_epochs_grow_neither_memory_nor_open_files() -> None:
    strong = AdaptiveStrengthTransform("trivial", seed=1)
    data = WeightedAugmentedDataset(TensorDataset(Rows().images, torch.arange(N) % CLASSES))
    sampler, mixup = planned(data), Mixup(CLASSES)
    loader = DataLoader(data, BATCH, sampler=sampler, num_workers=2, persistent_workers=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    megabytes, files = [], []
    for epoch in range(100):
        sampler.set_epoch(epoch)
        if sampler.refresh_due:
            sampler.refresh()
        for given in loader:
            x = strong(given.input, given.strength, keys=given.keys)
            batch = mixup(given._replace(input=x))
            logits = model(batch.input)
            loss = F.cross_entropy(logits, batch.target, reduction="none")
            (loss * batch.weight).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            sampler.report(batch, loss=loss, logits=logits)
        workers = loader._iterator._workers  # type: ignore[union-attr]
        pids = [os.getpid(), *(worker.pid for worker in workers)]
        megabytes.append(memory(pids))
        files.append(opened(pids))
    early, late = (statistics.median(megabytes[part]) for part in (slice(20, 40), slice(80, 100)))
    assert late - early < 4
    assert max(files[80:]) <= max(files[20:40])
