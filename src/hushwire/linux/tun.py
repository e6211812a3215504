"""TUN devices, with super-packets in both directions (linux/if_tun.h, linux/virtio_net.h)."""

import errno
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from fcntl import ioctl
from pathlib import Path
from struct import Struct
from typing import Self

from hushwire.linux.route import Routes


class Offload(IntFlag):
    """What the kernel may leave undone in a packet it gives us."""

    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    USO4 = 0x20
    USO6 = 0x40


class Gso(IntEnum):
    """What a packet stands for (virtio_net_hdr.gso_type), ECN bit apart."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4
    UDP_L4 = 5


@dataclass(frozen=True, slots=True)
class VnetHeader:
    """struct virtio_net_hdr: what stands before each packet, both ways."""

    gso: Gso = Gso.NONE
    header_length: int = 0
    """Octets of headers that each segment repeats.  The kernel does not promise it."""
    segment: int = 0
    """Octets of payload in each segment."""
    checksum_start: int | None = None
    """Where the checksum that is still to be made begins; None: it is complete."""
    checksum_offset: int = 0
    """Where it goes, from `checksum_start`."""
    ecn: bool = False

    def write(self) -> bytes:
        needs = self.checksum_start is not None
        kind = self.gso | (GSO_ECN if self.ecn else 0)
        return VNET.pack(
            NEEDS_CSUM if needs else 0, kind, self.header_length, self.segment, self.checksum_start or 0,
            self.checksum_offset,
        )  # fmt: skip

    @classmethod
    def read(cls, packet: bytes | memoryview) -> "VnetHeader":
        """The header before a packet; ValueError on a kind of super-packet that we never asked for."""
        flags, kind, header_length, segment, start, offset = VNET.unpack_from(packet)
        needs = flags & NEEDS_CSUM
        gso = Gso(kind & ~GSO_ECN)
        return cls(gso, header_length, segment, start if needs else None, offset if needs else 0, bool(kind & GSO_ECN))


class Tun:
    """A TUN device.  Making one needs CAP_NET_ADMIN; reading and writing its descriptor needs nothing."""

    def __init__(self, name: str, *, mtu: int = 0, persistent: bool = False, gso_max_segments: int = 0) -> None:
        """`name` may hold %d, for the kernel to number it.  A persistent one outlives us, until `remove`."""
        with ExitStack() as unless_made:
            self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            unless_made.callback(os.close, self.descriptor)
            request = IFREQ.pack(name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
            self.name: str = ioctl(self.descriptor, TUNSETIFF, request)[:16].rstrip(b"\0").decode()
            ioctl(self.descriptor, TUNSETVNETHDRSZ, U32.pack(VNET.size))
            self.offload = self._offload()
            ioctl(self.descriptor, TUNSETPERSIST, int(persistent))
            with Routes() as routes:
                self.index = routes.link(self.name).index
                if mtu or gso_max_segments:
                    routes.change_link(self.index, mtu=mtu, gso_max_segments=gso_max_segments)
            unless_made.pop_all()

    def _offload(self) -> Offload:
        """Take as much as this kernel has: USO came with 6.2."""
        tso = Offload.CSUM | Offload.TSO4 | Offload.TSO6
        for wanted in (tso | Offload.USO4 | Offload.USO6, tso, Offload.CSUM):
            try:
                ioctl(self.descriptor, TUNSETOFFLOAD, int(wanted))
            except OSError as refused:
                if refused.errno != errno.EINVAL:
                    raise
            else:
                return wanted
        return Offload(0)

    def fileno(self) -> int:
        return self.descriptor

    def read(self) -> bytes | None:
        """The next packet from the host with its VnetHeader in front; None: none there."""
        try:
            return os.read(self.descriptor, READ_BUFFER)
        except BlockingIOError:
            return None

    def write(self, header: VnetHeader, parts: Iterable[bytes]) -> None:
        """Give the host a packet.  OSError EIO: the device is down; EINVAL: it is no packet."""
        os.writev(self.descriptor, [header.write(), *parts])

    def remove(self) -> None:
        """End it, though it was persistent, when the last descriptor closes."""
        ioctl(self.descriptor, TUNSETPERSIST, 0)

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exempt_ipv4(device: str) -> None:
    """Let the IPv4 packets of a TUN of this namespace pass the SPD: the userspace plane has judged them, or will.

    With a base block for the same addresses, what goes through the TUN passes and what goes astray does not.  A
    selector's ifindex could say that only for what goes out: inbound, the kernel compares it with the loopback
    device, of all packets that are for this host.

    IPv6 has neither: outbound its selectors see only the device that a socket was bound to, and its disable_policy
    goes by the device that holds the local address, not by the one where the packet came in.  There, routes of our own
    (route.Rule, a blackhole behind the TUN) keep what goes out on its way, and the packet filter what comes in.
    """
    for name in ("disable_policy", "disable_xfrm"):
        Path(f"/proc/sys/net/ipv4/conf/{device}/{name}").write_text("1")


VNET = Struct("=B B H H H H")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset: in the machine's own order."""
IFREQ = Struct("=16s H 22x")
"""struct ifreq: name, flags."""
U32 = Struct("=I")

NEEDS_CSUM = 1
GSO_ECN = 0x80
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUNSETIFF, TUNSETPERSIST, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454CB, 0x400454D0, 0x400454D8
READ_BUFFER = VNET.size + 65535 + 128
"""Octets: the largest super-packet."""
