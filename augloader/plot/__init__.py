"""Pictures of selections, strengths, augmentations and diagnostics; needs matplotlib.

Every function returns a ``matplotlib.figure.Figure``, to be shown by a notebook or saved:
``figure.savefig("medoids.png")``. Nothing here touches pyplot or any global state.
"""

from importlib.util import find_spec

from augloader.core.lazy import lazily

if find_spec("matplotlib") is None:
    raise ImportError("augloader.plot needs matplotlib: pip install matplotlib")

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
