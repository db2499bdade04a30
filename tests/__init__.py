"""Tests: flat, one file per module; `fakes` and `examples` are what they share."""

from hypothesis import HealthCheck, settings

# No test is about how long it takes: that is what bench/ is for.
settings.register_profile("callboard", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callboard")
