"""A bar appears where it is wanted, or where a terminal is attached and the work takes long."""

import sys
import time

import pytest

from augloader.core.progress import progress


def test_without_a_terminal_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    items = [1, 2]
    assert progress(items, "work") is items
    assert progress(items, "work", False) is items
    assert capsys.readouterr().err == ""


def test_a_wanted_bar_names_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([1, 2], "work", True)) == [1, 2]
    assert "work" in capsys.readouterr().err


def test_on_a_terminal_it_comes_after_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress([1, 2], "work")) == [1, 2]
    assert capsys.readouterr().err.strip() == ""
    for _ in progress(range(3), "work"):
        time.sleep(0.6)
    assert "work" in capsys.readouterr().err


def test_tqdm_is_asked_for_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert progress([1], "work") == [1]
    with pytest.raises(ImportError, match="pip install tqdm"):
        progress([1], "work", True)


def test_without_stderr_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert progress([1], "work") == [1]
