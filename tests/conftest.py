"""What all tests share: how hypothesis searches."""

import os

from hypothesis import HealthCheck, settings

# Time says nothing on a machine that others use too.  In CI a run is repeatable; elsewhere each one looks
# somewhere new.
settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("house")
