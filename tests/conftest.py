"""Shared settings of the tests."""

import os
from collections.abc import Iterator

if "PYTEST_XDIST_WORKER" in os.environ:  # beside other workers, and for what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

settings.register_profile("augloader", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("augloader")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run many small operations ten times as fast where other processes share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
