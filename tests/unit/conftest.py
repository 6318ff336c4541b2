"""Puts the helpers beside this file on the path, and makes fuzzing the same on every CI run."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
# For a long look: HYPOTHESIS_PROFILE=thorough, with pytest's --timeout raised.
settings.register_profile("thorough", settings.get_profile("default"), max_examples=3000)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "default")
)
