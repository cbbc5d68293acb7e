"""One run of every scenario in worlds of one, two and three processes, for all tests here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch.multiprocessing.spawn import spawn

from tests.distributed.ranks import WORLDS, Found, run


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank of each world found; workers of one test run share what the first has run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "worlds.lock"):
        return {world: _run(world, shared / f"world{world}") for world in WORLDS}


@pytest.fixture(scope="package")
def found(worlds: Found) -> Iterator[Found]:
    """What each rank found, for tests that compute the same with one thread, as ranks do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield worlds
    torch.set_num_threads(threads)


def _run(world: int, folder: Path) -> list[dict[str, Any]]:
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        unfinished.mkdir(exist_ok=True)
        spawn(run, args=(world, str(unfinished)), nprocs=world)
        unfinished.rename(folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.distributed)
