"""Values that pass between the parts, and the guards that all of them share."""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
