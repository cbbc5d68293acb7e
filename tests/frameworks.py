"""Running the examples of other frameworks, and checking that each draw is trained on once."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.scripts import EXAMPLES

SECONDS = 120  # a run may take
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Runs an example whose sampler writes down what was selected and what was trained on.
PROGRAM = """
import json, sys
import torch.distributed as dist

NAME, EXAMPLE, FOLDER = {name!r}, {example!r}, {folder!r}


def write(*line):
    rank = dist.get_rank() if dist.is_initialized() else 0
    with open(f"{{FOLDER}}/{{rank}}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\\n")


def recorded(kind):
    class Recorded(kind):
        def refresh(self, evidence=None):
            selection = super().refresh(evidence)
            write("selected", self.epoch, selection.indices.tolist())
            return selection

        def report(self, batch, **found):
            super().report(batch, **found)
            write("trained", batch.keys.tolist(), batch.weight.tolist())

    return Recorded


if __name__ == "__main__":
    space = {{"__name__": "example"}}
    exec(compile(open(EXAMPLE).read(), EXAMPLE, "exec"), space)
    space[NAME] = recorded(space[NAME])
    space["main"]()
"""


def run(
    name: str, sampler: str, folder: Path, command: list[str], *options: str, **extra: str
) -> str:
    """Run an example with its sampler recorded and return what it printed."""
    program = folder / "program.py"
    example = str(EXAMPLES / f"{name}.py")
    program.write_text(PROGRAM.format(name=sampler, example=example, folder=str(folder)))
    return start([*command, str(program), *options], folder, **extra)


def start(command: list[str], folder: Path, **extra: str) -> str:
    """Run Python in a folder, with these tests to import, and return what it printed."""
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **own, **extra},
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def accuracy(printed: str, ranks: str = "2 ranks") -> float:
    found = re.search(rf"^{ranks}: (\S+) of .*other digits right$", printed, re.MULTILINE)
    assert found is not None, printed
    return float(found[1])


def require_each_draw_once(folder: Path, ranks: int, epochs: int, images: int) -> None:
    """Both ranks selected alike at every second epoch, and trained on all draws of each, once."""
    logs = [
        [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()]
        for rank in range(ranks)
    ]
    selected = [[line[1:] for line in log if line[0] == "selected"] for log in logs]
    assert all(found == selected[0] for found in selected)
    assert [epoch for epoch, _ in selected[0]] == list(range(0, epochs, 2))
    trained = [[line[1:] for line in log if line[0] == "trained"] for log in logs]
    for epoch in range(epochs):
        chosen = selected[0][epoch // 2][1]
        wanted = Counter([(i, 0) for i in range(images)] + [(j, 1) for j in chosen])
        found: Counter[tuple[int, int]] = Counter()
        for batches in trained:
            rows = [row for keys, weights in batches for row in zip(keys, weights, strict=True)]
            mine = [(i, copy) for (e, i, copy), weight in rows if e == epoch and weight > 0]
            assert len(mine) >= sum(wanted.values()) // ranks - 32
            found.update(mine)
        assert found == wanted
