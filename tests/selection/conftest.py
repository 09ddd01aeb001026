"""Hypothesis measures wall time, which a busy machine stretches: tests that bound time measure it themselves."""

from hypothesis import settings

settings.register_profile("selection", deadline=None)
settings.load_profile("selection")
