"""What all tests share: how hypothesis searches, and how a test with a very large number is called."""

import os

import pytest
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


def pytest_make_parametrize_id(val: object) -> str | None:
    """Large numbers and octets by their length: a fresh key's would be others in each of parallel workers."""
    if isinstance(val, int) and val.bit_length() > 64:
        return f"{val.bit_length()}bit"
    if isinstance(val, bytes) and len(val) > 8:
        return f"{len(val)}octets"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that nobody waits for it alone at the end: the planes' contract, in User-Mode Linux."""
    items.sort(key=lambda item: not item.nodeid.endswith("test_contract.py::test_the_kernel_plane"))
