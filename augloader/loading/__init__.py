"""Draws in, batches out: the plan of an epoch, samplers, dataset, sweep, and wrap."""

from augloader.core.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
