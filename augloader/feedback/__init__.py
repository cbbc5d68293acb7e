"""What training reports of every sample, and how strong its augmentation becomes."""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
