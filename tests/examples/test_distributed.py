"""The example of several ranks runs under torchrun, and ranks of any number agree on it."""

import os
import re
import subprocess
import sys

import pytest

from tests.scripts import EXAMPLES


def torchrun(ranks: int) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), str(EXAMPLES / "distributed.py")]
    done = subprocess.run(
        [*command, "--epochs", "2", "--images", "300"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_select_what_one_does() -> None:
    pytest.importorskip("sklearn")
    alone, together = torchrun(1), torchrun(2)
    assert alone[0] == together[0]
    assert alone[0].startswith("epoch 0: 90 medoids, at least ")
    for ranks, lines in ((1, alone), (2, together)):
        found = re.fullmatch(rf"{ranks} ranks: (\S+) of 297 other digits right", lines[-1])
        assert found is not None
        assert float(found[1]) > 0.3
