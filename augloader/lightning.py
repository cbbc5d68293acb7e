"""Former place of ``augloader.integrations.lightning``, until 0.3."""

from warnings import warn

from augloader.integrations.lightning import CoresetCallback

__all__ = ["CoresetCallback"]

warn(
    "augloader.lightning is now augloader.integrations.lightning.", DeprecationWarning, stacklevel=2
)
