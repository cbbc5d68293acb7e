"""Hugging Face accelerate on two ranks trains on each draw once."""

from pathlib import Path

import pytest

from tests.frameworks import TORCHRUN, accuracy, require_each_draw_once, run


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_train_on_each_draw_once(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    options = "--epochs", "3", "--images", "301", "--accumulate", "2"
    printed = run("accelerated", "CoresetSampler", tmp_path, TORCHRUN, *options)
    require_each_draw_once(tmp_path, ranks=2, epochs=3, images=301)
    assert accuracy(printed) > 0.2
