"""Names that a package exports without importing the modules they live in, until one is used."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from warnings import warn


def lazily(
    package: str, file: str, deprecated: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Its names are those that ``__init__.pyi`` beside ``__init__.py`` imports, which type checkers
    and editors read too, so that they are listed once.

    Args:
        package: its ``__name__``.
        file: its ``__file__``.
        deprecated: names of an earlier release, each with the module that has it now. They work,
            with a DeprecationWarning that names that module.

    Cost: the stub is parsed once, below a millisecond.
    """
    homes: dict[str, str] = {}
    names: list[str] = []
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign):  # of __all__
            names = ast.literal_eval(node.value)
    old = deprecated or {}

    def getattribute(name: str) -> Any:
        if name in old:
            message = f"{package}.{name} is now in {old[name]}: from {old[name]} import {name}."
            warn(message, DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module(old[name]), name)
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:  # a module of it
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(homes[name]), name)

    return getattribute, lambda: sorted(homes), names
