"""The documents: their Python runs, their links lead somewhere, their findings are on record."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

import augloader

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = [README, ROOT / "examples" / "README.md", ROOT / "benchmarks" / "README.md"]
NOTES = [ROOT / ".github" / "CONTRIBUTING.md", ROOT / ".github" / "CHANGELOG.md"]
NOTES += [ROOT / "examples" / "FRAMEWORKS.md"]  # which tests/stacks runs
RESULTS = ROOT / "benchmarks" / "results"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(document: Path) -> dict[str, Any]:
    """Run a document's blocks of Python in one namespace, in order, and return that."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        exec(compile(block, str(document), "exec"), names)
    return names


def prose(document: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)


def anchors(document: Path) -> set[str]:
    """Return what a document's headings are called in links, as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    """Return the relative links of a document, images too, that lead nowhere."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if link.startswith(("https://", "http://")):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.slow
def test_the_loop_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert README.read_text().count("```python") == 1
    selection = run(README)["selection"]
    assert len(selection) == 539  # 30 % of 1,797
    assert "539 medoids; the heaviest stands for" in capsys.readouterr().out


@pytest.mark.slow
def test_the_guides_run(capsys: pytest.CaptureFixture[str]) -> None:
    names = run(GUIDES[1])
    assert len(names["selection"]) == 539
    assert len(names["tenth"]) == 179
    assert len(names["chosen"]) == 50
    assert "of the best coverage; " in capsys.readouterr().out


def test_what_the_benchmarks_show_of_python_runs() -> None:
    run(GUIDES[2])


def test_the_readme_is_read_in_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_the_command_of_the_tests_is_the_one_that_runs_in_ci() -> None:
    lines = [line for line in README.read_text().splitlines() if "python -m pytest" in line]
    assert len(lines) == 1
    assert "python -m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", GUIDES + NOTES, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    assert re.search(r"^# ", document.read_text(), re.MULTILINE)
    assert not broken(document)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# On its own?\n[a](#on-its-own) [b](#no) ![c](no.png) [d](page.md#no)\n")
    assert broken(page) == ["#no", "no.png", "page.md#no"]


def test_the_names_of_the_table_are_the_public_ones() -> None:
    table = README.read_text().split("## Names")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", " ".join(cells))
    assert sorted(named) == sorted(augloader.__all__)


# The findings, each with the record that it quotes


def findings() -> list[str]:
    """Return the README's numbered findings."""
    text = README.read_text().split("## What it gains")[1].split("\n## ")[0]
    return re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]


def record(name: str) -> Any:
    (path,) = RESULTS.glob(f"{name}--*-2c--cpu.json")
    return json.loads(path.read_text())


def test_there_are_five_findings_and_each_quotes_a_record() -> None:
    assert len(findings()) == 5
    assert all("](benchmarks/results/" in finding for finding in findings())


def test_accuracies_of_the_findings_are_those_of_the_tables() -> None:
    for finding in findings():
        if "papers/reduced/README.md" in finding:
            found = re.findall(r"\d+\.\d ± \d+\.\d", finding)
            table = (RESULTS / "papers" / "reduced" / "README.md").read_text()
            assert len(found) >= 3
            assert not [figure for figure in found if f"| {figure} |" not in table]


def test_accuracies_of_the_quickstart_are_those_on_record() -> None:
    (finding,) = (text for text in findings() if "quickstart--" in text)
    names = [("quickstart", name) for name in ("small losses 60 %", "in place", "random 60 %")]
    names += [("quickstart-clean", name) for name in ("small losses 60 %", "in place")]
    expected = [
        f"{mean(run['transformed'] for run in record(of)['runs'][name]):.3f}" for of, name in names
    ]
    assert re.findall(r"0\.\d{3}", finding) == expected


def test_speeds_of_an_epoch_are_those_on_record() -> None:
    (finding,) = (text for text in findings() if "train--" in text)
    expected = [f"{value:.2f}" for value in record("train")["summary"]["speedup_30"].values()]
    assert re.findall(r"(\d\.\d+)×", finding) == expected
