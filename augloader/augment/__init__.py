"""What happens to pixels: policies, the transform, mixing, and what lies on the images."""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
