"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) >= 2
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert "medoids" in capsys.readouterr().out
    selection = names["selection"]
    assert len(selection) == 539  # type: ignore[arg-type]  # 30 % of 1,797


def test_every_public_name_of_the_table_exists() -> None:
    import augloader

    table = README.read_text().split("## What is there")[1].split("## Speed")[0]
    named = set(re.findall(r"`([A-Za-z_]+)`", table))
    methods = {"needs", "select", "view", "start", "update", "strengths"}
    assert named - methods <= set(augloader.__all__)
