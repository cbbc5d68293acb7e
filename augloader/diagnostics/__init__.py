"""What augmentation and selection do to a model, measured as the papers measure it.

Every function reads a model, a data set, proxies or losses, changes none of them, and returns a
small frozen dataclass; ``augloader.plot`` draws each of them.
"""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
