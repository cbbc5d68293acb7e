"""Names that load their module where they are used."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STUB = """
from rooms.kitchen import stove as stove
from rooms import hall as hall
__all__ = ["stove"]
"""
INIT = """
from augloader.core.lazy import lazily
__getattr__, __dir__, __all__ = lazily(__name__, __file__, {"oven": "rooms.kitchen"})
"""


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package of two modules."""
    package = tmp_path / "rooms"
    package.mkdir()
    (package / "__init__.py").write_text(INIT)
    (package / "__init__.pyi").write_text(STUB)
    (package / "kitchen.py").write_text("stove = 'hot'\noven = 'cold'\n")
    (package / "hall.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    import rooms  # type: ignore[import-not-found]

    yield rooms
    for name in [name for name in sys.modules if name.split(".")[0] == "rooms"]:
        del sys.modules[name]


def test_a_module_is_imported_where_a_name_of_it_is_used(rooms: Any) -> None:
    assert rooms.__all__ == ["stove"]
    assert dir(rooms) == ["hall", "stove"]
    assert "rooms.kitchen" not in sys.modules
    assert rooms.stove == "hot"
    assert "rooms.kitchen" in sys.modules
    assert "rooms.hall" not in sys.modules
    assert isinstance(rooms.hall, ModuleType)


def test_former_names_say_where_they_are(rooms: Any) -> None:
    words = r"rooms.oven is now in rooms.kitchen: from rooms.kitchen import oven\."
    with pytest.warns(DeprecationWarning, match=words):
        assert rooms.oven == "cold"


def test_unknown_names(rooms: Any) -> None:
    with pytest.raises(AttributeError, match="module 'rooms' has no attribute 'attic'"):
        rooms.attic  # noqa: B018
