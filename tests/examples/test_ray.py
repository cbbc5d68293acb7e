"""Ray Train on a cluster of one node trains on each draw once."""

import importlib.util
from pathlib import Path

import pytest

from tests.frameworks import accuracy, require_each_draw_once, run

MISSING = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f'no {MISSING}: pip install "ray[train]"')
def test_two_workers_train_on_each_draw_once(tmp_path: Path) -> None:
    options = "--epochs", "3", "--images", "301"
    own = {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}  # where Ray puts its token
    printed = run("ray_train", "DistributedCoresetSampler", tmp_path, [], *options, **own)
    require_each_draw_once(tmp_path, ranks=2, epochs=3, images=301)
    assert accuracy(printed) > 0.2
