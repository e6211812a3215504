"""What is said of a kernel, by its version and by trying."""

import re
from typing import Any

import pytest

from hushwire.linux.kernel import esp_warning, has_esp
from hushwire.linux.xfrm import Xfrm


@pytest.mark.parametrize(
    ("release", "version", "warns"),
    [
        ("6.1.170", "#1 SMP", "6.1.170: CVE-2026-43284 .* mended since 6.1.171"),
        ("6.1.171", "#1 SMP", None),
        ("6.18.44-something", "#1 SMP", None),
        ("6.18.27", "#1 SMP", "since 6.18.28"),
        ("5.10.0-9-amd64", "#1 SMP Debian 5.10.255-1 (2026-06-01)", None),
        ("6.1.0-44-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-01)", "6.1.170"),
        ("6.8.12", "#1 SMP", "in no release of this series that we know"),
        ("4.19.300", "#1 SMP", "4.19.300"),
        ("7.0.5", "#1 SMP", None),
        ("7.0", "#1 SMP", "7.0.0"),
        ("7.1.0-rc1", "#1 SMP", None),
        ("mystery", "", "cannot tell"),
    ],
)
def test_the_hole_by_version(release: str, version: str, warns: str | None) -> None:
    said = esp_warning(release, version)
    if warns is None:
        assert said is None
    else:
        assert said is not None

        assert re.search(warns, said)


@pytest.mark.lab
def test_esp_is_there_exactly_when_iproute2_can_make_an_sa(namespace: Any) -> None:
    host = namespace()
    add = f"ip xfrm state add src ::1 dst ::1 proto esp spi 1000 aead 'rfc4106(gcm(aes))' 0x{1:040x} 128"
    there = host.run(f"{add} 2>/dev/null && echo yes || echo no; ip xfrm state flush") == "yes\n"
    support = host(has_esp)
    assert bool(support) == there
    assert ("does no ESP here" in support.reason) == (not there)

    def rest() -> object:
        with Xfrm() as xfrm:
            return xfrm.sas(())

    assert host(rest) == []
