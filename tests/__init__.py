"""Unit tests (run by trial and by pytest) and integration tests (pytest, in a process of their own)."""

from hypothesis import HealthCheck, settings

# A time limit for an example would make the result depend on what else the machine does, and a seed of each run's own
# would have it fail for who changed nothing: `make fuzz` and `make model` look for what these examples do not find.
settings.register_profile("dapi", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dapi")
