"""The document of the frameworks: each section runs, and trains on every planned draw once."""

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from augloader import CoresetSampler
from tests.scripts import EXAMPLES

pytestmark = [pytest.mark.stacks, pytest.mark.filterwarnings("ignore")]  # the frameworks' own
SECTIONS = re.split(r"^## ", (EXAMPLES / "FRAMEWORKS.md").read_text(), flags=re.MULTILINE)
PACKAGES = {
    "transformers": "transformers",
    "Lightning Fabric": "lightning",
    "Ignite": "ignite",
    "Keras": "keras",
    "timm": "timm",
    "skorch": "skorch",
    "fastai": "fastai",
}


def name_of(section: str) -> str:
    return section.splitlines()[0]


@pytest.mark.filterwarnings("error:.*(draws|strengths|set_epoch)")  # ours
@pytest.mark.parametrize("section", SECTIONS[1:], ids=name_of)
def test_each_draw_is_reported_once(
    section: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = PACKAGES.get(name_of(section))
    if package and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.chdir(tmp_path)
    reported: Counter[tuple[int, ...]] = Counter()
    report = CoresetSampler.report

    def recorded(self: CoresetSampler, batch: Any, **found: Any) -> None:
        report(self, batch, **found)
        reported.update(tuple(key) for key in batch.keys[batch.weight > 0].tolist())

    monkeypatch.setattr(CoresetSampler, "report", recorded)
    names: dict[str, Any] = {"__name__": "document"}
    for part in (SECTIONS[0], section):
        for block in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
            exec(compile(block, "FRAMEWORKS.md", "exec"), names)
    assert set(reported.values()) == {1}
    epochs, data, sampler = names["epochs"], names["data"], names["sampler"]
    lengths = Counter(epoch for epoch, *_ in reported)
    assert lengths == {0: len(data), 1: len(data) + 36, 2: len(data) + 36}
    assert sampler.epoch == epochs - 1
    chosen = {index for epoch, index, copy in reported if (epoch, copy) == (2, 1)}
    assert chosen == set(sampler.selection.indices.tolist())
