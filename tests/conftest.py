"""Shared settings of the tests."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

if "PYTEST_XDIST_WORKER" in os.environ:  # beside other workers, and for what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests.pretend_cuda import RUNNING, Gpu, pretend_cuda

settings.register_profile("augloader", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("augloader")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run many small operations ten times as fast where other processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bfloat16_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``autocast=True`` cast on any CPU, as on one that computes in bfloat16."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.fixture(autouse=True)
def _threads_are_left_alone() -> Iterator[None]:
    """Fail where a test leaves torch with more threads or fewer: what comes next may crawl."""
    threads = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == threads, f"the test left torch with {left} threads in place of {threads}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that want a device, real or pretended, which this run lacks."""
    cuda, pretended = torch.cuda.is_available(), RUNNING in config.stash
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for item in items:
        gpu, triton = map(item.get_closest_marker, ("gpu", "triton"))
        if gpu and not (cuda and not (triton and (pretended or interpreted))):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        if triton and not (find_spec("triton") and (interpreted or (cuda and not pretended))):
            item.add_marker(pytest.mark.skip(reason="needs Triton, and a GPU or its interpreter"))


@pytest.fixture
def pretended(request: pytest.FixtureRequest) -> Iterator[Gpu]:
    """A pretended CUDA device with nothing counted yet: the whole run's, where there is one."""
    running = request.config.stash.get(RUNNING, None)
    if running is not None:
        running.clear()
        yield running
        running.behind = 0
    else:
        with pretend_cuda() as gpu:
            yield gpu
