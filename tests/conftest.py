"""Shared settings of the tests."""

from collections.abc import Iterator

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
