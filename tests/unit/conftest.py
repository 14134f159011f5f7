"""Hypothesis on a busy machine: inputs that take long to make are no fault of what is tested."""

from hypothesis import HealthCheck, settings

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
