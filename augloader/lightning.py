"""Former place of ``augloader.integrations.lightning``, until 0.3."""

from typing import Any
from warnings import warn


def __getattr__(name: str) -> Any:
    """Return the callback, with a DeprecationWarning."""
    if name != "CoresetCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from augloader.integrations.lightning import CoresetCallback

    warn(f"{__name__} is now {CoresetCallback.__module__}.", DeprecationWarning, stacklevel=2)
    return CoresetCallback
