"""One run of every scenario in worlds of one, two and three processes, for all tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from tests.distributed.ranks import WORLDS, Found, run


@pytest.fixture(scope="package")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """What each rank of each world found."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = {}
    for world in WORLDS:
        folder: Path = tmp_path_factory.mktemp(f"world{world}")
        spawn(run, args=(world, str(folder)), nprocs=world)
        files = (folder / f"{rank}.pt" for rank in range(world))
        results[world] = [torch.load(file, weights_only=False) for file in files]
    yield results
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.distributed)
