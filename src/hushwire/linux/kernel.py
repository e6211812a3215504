"""What the running kernel can do, and what it should not be trusted with."""

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from secrets import randbelow, token_bytes

from hushwire.crypto.secret import Secret
from hushwire.linux.netlink import NetlinkError
from hushwire.linux.xfrm import Xfrm
from hushwire.policy.sad import SA, Direction, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.wire.registry import EncrID


@dataclass(frozen=True, slots=True)
class EspSupport:
    """True where the kernel plane can work."""

    reason: str
    """Why not; empty when it can."""

    def __bool__(self) -> bool:
        return not self.reason


def has_esp() -> EspSupport:
    """Whether this kernel can do ESP: install a throw-away SA in the present network namespace, and delete it."""
    address = IPv4Address("127.0.0.1")
    sa = SA(
        spi=(1 << 31) + randbelow(1 << 31),
        direction=Direction.OUT,
        source=address,
        destination=address,
        mode=Mode.TRANSPORT,
        suite=EspSuite(EncrID.AES_GCM_16, 128),
        encr_key=Secret(token_bytes(20)),
        integ_key=Secret(b""),
        selector=Selector.between(address, address),
        reqid=0,
        lifetime=Lifetime(hard_seconds=1),
    )
    try:
        with Xfrm() as xfrm:
            xfrm.install_sa(sa)
            xfrm.delete_sa(SAName(sa.spi, sa.destination))
    except (NetlinkError, OSError) as refused:
        return EspSupport(f"the kernel does no ESP here: {refused}")
    return EspSupport("")


def esp_warning(release: str = "", version: str = "") -> str | None:
    """Why kernel ESP should not be used on this kernel, when a hole in it is known (CVE-2026-43284).

    `release` and `version` are as uname(2) gives them (empty: of the running kernel).  A distribution's release
    is the name of its ABI and tells little; Debian writes the upstream version into `version`.
    """
    release, version = release or os.uname().release, version or os.uname().version
    found = re.search(r"Debian (\d+)\.(\d+)\.(\d+)", version) or re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if not found:
        return f"kernel {release}: cannot tell whether {HOLE} is mended"
    major, minor, patch = (int(part or 0) for part in found.groups())
    mended = MENDED.get((major, minor))
    if (major, minor) > max(MENDED) or (mended is not None and patch >= mended):
        return None
    since = f"since {major}.{minor}.{mended}" if mended is not None else "in no release of this series that we know"
    return (
        f"kernel {major}.{minor}.{patch}: {HOLE} gives local users root through ESP in UDP; mended {since}. "
        "Upgrade, or block the modules esp4 and esp6 and use the userspace plane"
    )


HOLE = "CVE-2026-43284"
MENDED = {(5, 10): 255, (5, 15): 205, (6, 1): 171, (6, 6): 138, (6, 12): 87, (6, 18): 28, (7, 0): 5}
"""The first release without the hole, by series."""
