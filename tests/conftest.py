"""Shared settings of the tests."""

from hypothesis import settings

settings.register_profile("augloader", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("augloader")
