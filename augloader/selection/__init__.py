"""Which samples: strategies, the scores they draw by, and the coreset."""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
