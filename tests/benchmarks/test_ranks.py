"""What ranks exchange: the benchmark runs under torchrun and counts what must come."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ranks.py"


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_ranks_receive(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(SCRIPT), "--samples", "2000", "--output", str(tmp_path)], check=True
    )
    (path,) = tmp_path.glob("ranks--*.json")
    alone, two = json.loads(path.read_text())["rows"]
    assert (alone["ranks"], two["ranks"]) == (1, 2)
    assert all(values["bytes"]["max"] == 0 for values in alone["parts"].values())
    # A rank sweeps half of every class and selects from half of the classes: of those rows half
    # come from the other rank, 256 bytes each.
    rows = 256 * 2000 // 4
    assert rows < two["parts"]["coreset"]["bytes"]["median"] < 3 * rows  # with the outcome of each
    # Index, label and loss of the other's share, and the selection.
    assert two["parts"]["losses"]["bytes"]["median"] < 0.5 * rows
