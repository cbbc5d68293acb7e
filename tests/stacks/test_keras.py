"""Keras 3 on torch: a train step of one's own, epochs of one length, and what is left of one."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.frameworks import start

pytestmark = pytest.mark.stacks


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed")
def test_every_planned_draw_is_trained_on_once_and_training_goes_on(tmp_path: Path) -> None:
    command = ["-m", "tests.stacks.keras_program", str(tmp_path / "done")]
    start(command, tmp_path, KERAS_BACKEND="torch")
    assert (tmp_path / "done").exists()
