"""The pretended device of the tests of selection."""

from typing import Any

import pytest


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Any:
    """A pretended CUDA device with nothing counted yet."""
    pytest.importorskip("tests.pretend_cuda", reason="needs the pretended device")
    return request.getfixturevalue("pretended")
