"""UDP sockets of IKE and of ESP in UDP (RFC 7296 s2.23, RFC 3948): who sent, to which of our addresses, and from it."""

import ctypes
import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Self

from hushwire.linux import xfrm_codec
from hushwire.wire.address import Endpoint, IPAddress

IKE_PORT, NAT_T_PORT = 500, 4500
NON_ESP_MARKER = bytes(4)
"""RFC 3948 s2.2: what begins an IKE message on port 4500, where an SPI of ESP never is 0."""


class PortInUse(OSError):
    """Another program holds the port."""


@dataclass(frozen=True, slots=True)
class Received:
    """One datagram, or with UDP_GRO several of one flow in a row."""

    local: Endpoint
    remote: Endpoint
    data: bytes
    segment: int = 0
    """Octets of each datagram in `data` but the last, which may be shorter; 0: `data` is one."""

    def datagrams(self) -> Iterator[bytes]:
        """Each of them."""
        step = self.segment or max(1, len(self.data))
        for start in range(0, max(1, len(self.data)), step):
            yield self.data[start : start + step]


class UdpSocket:
    """A UDP socket of one family on every address of the host, non-blocking."""

    def __init__(self, version: int, port: int, *, mark: int = 0, shared: bool = False) -> None:
        """`shared`: others of this user may bind the port too (SO_REUSEPORT).  `mark`: for routing rules (SO_MARK)."""
        self.version = version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with ExitStack() as unless_bound:
            self.socket = unless_bound.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
            if version == 4:
                self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            else:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            if mark:
                self.socket.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            if shared:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                self.socket.bind(("", port))
            except OSError as refused:
                raise _bind_error(refused, version, port) from refused
            unless_bound.pop_all()
        self.port: int = self.socket.getsockname()[1]

    @classmethod
    def adopt(cls, inherited: socket.socket) -> Self:
        """One that another process opened."""
        made = cls.__new__(cls)
        made.socket = inherited
        made.version = 4 if inherited.family == socket.AF_INET else 6
        made.port = inherited.getsockname()[1]
        return made

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, size: int = 65535) -> Received | None:
        """The next datagram; None: none there, or an ICMP error took its place."""
        try:
            data, ancillary, _, sender = self.socket.recvmsg(size, ANCILLARY_BUFFER)
        except (BlockingIOError, ConnectionRefusedError):
            return None
        local: IPAddress = IPv4Address(0) if self.version == 4 else IPv6Address(0)
        segment = 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                local = _v4(IN_PKTINFO.unpack(value)[2])
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                local = _v6(IN6_PKTINFO.unpack(value)[0])
            elif (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                segment = INT.unpack(value)[0]
        remote = Endpoint(_address(sender[0]), sender[1])
        return Received(Endpoint(local, self.port), remote, data, segment)

    def send(self, local: IPAddress, remote: Endpoint, parts: Iterable[bytes], segment: int = 0) -> None:
        """Send from one of our addresses.  With `segment`, the kernel cuts the octets into datagrams of that length.

        OSError says why the network would not have it; BlockingIOError: its queue is full.
        """
        ancillary = [_source(local)]
        if segment:
            ancillary.append((socket.IPPROTO_UDP, UDP_SEGMENT, U16.pack(segment)))
        self.socket.sendmsg(list(parts), ancillary, 0, (_host(remote.address), remote.port))

    def bypass_xfrm(self) -> None:
        """Let this socket's own packets pass the SPD both ways.  Needs CAP_NET_ADMIN.

        RFC 7296 s2.23 and RFC 3948: IKE, and ESP in UDP before it is taken out, must not meet the policies for the
        traffic that they protect.
        """
        v4, v6 = (socket.IPPROTO_IP, IP_XFRM_POLICY), (socket.IPPROTO_IPV6, IPV6_XFRM_POLICY)
        for direction in (xfrm_codec.POLICY_IN, xfrm_codec.POLICY_OUT):
            self.socket.setsockopt(*(v4 if self.version == 4 else v6), xfrm_codec.bypass(self.socket.family, direction))

    def take_esp(self) -> None:
        """Let the kernel plane take ESP out of what arrives here; IKE, with its marker, still comes to us."""
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, xfrm_codec.UDP_ENCAP_ESPINUDP)

    def join_datagrams(self) -> None:
        """Let the kernel hand over many datagrams of one flow at once (UDP_GRO): see Received.segment."""
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)


def raw_socket(version: int) -> socket.socket:
    """To send whole IP packets, and receive nothing.  Needs CAP_NET_RAW.

    The kernel judges them as it does any program's, but knows neither their protocol nor their ports.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    return sock


def send_raw(sock: socket.socket, local: IPAddress, remote: IPAddress, packet: bytes) -> None:
    """Send a whole IP packet between these addresses, the ones in its header.  OSError: the network, or a policy."""
    sock.sendmsg([packet], [_source(local)], 0, (_host(remote), 0))


def shared_nat_t(version: int, port: int = NAT_T_PORT, mark: int = 0) -> tuple[UdpSocket, UdpSocket]:
    """Two sockets on one port for the userspace plane: IKE comes to the first, everything else to the second.

    A program of the kernel's packet filter chooses between them by the first four octets, so that neither process
    sees, or has to pass on, the other's datagrams.
    """
    with ExitStack() as unless_bound:
        node = unless_bound.enter_context(UdpSocket(version, port, mark=mark, shared=True))
        # The program must stand before the second binds, or a datagram between the two goes astray by its hash.
        program = ctypes.create_string_buffer(b"".join(BPF_INSTRUCTION.pack(*each) for each in MARKER_TO_FIRST))
        steering = SOCK_FPROG.pack(len(MARKER_TO_FIRST), ctypes.addressof(program))
        node.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, steering)
        plane = UdpSocket(version, node.port, mark=mark, shared=True)
        unless_bound.pop_all()
    return node, plane


def _bind_error(refused: OSError, version: int, port: int) -> OSError:
    where = f"udp port {port} on {'0.0.0.0' if version == 4 else '[::]'}"
    if refused.errno == errno.EADDRINUSE:
        return PortInUse(errno.EADDRINUSE, f"{where} is in use: another IKE daemon may be running")
    if refused.errno == errno.EACCES:
        return PermissionError(errno.EACCES, f"{where} needs CAP_NET_BIND_SERVICE")
    return OSError(refused.errno, f"{where}: {refused.strerror}")


# A host talks from few addresses, and to the same ones again and again.
_v4 = lru_cache(256)(IPv4Address)
_v6 = lru_cache(256)(IPv6Address)
_host = lru_cache(4096)(str)


@lru_cache(256)
def _source(local: IPAddress) -> tuple[int, int, bytes]:
    """The ancillary data that picks the source address."""
    if isinstance(local, IPv4Address):
        return socket.IPPROTO_IP, IP_PKTINFO, IN_PKTINFO.pack(0, local.packed, bytes(4))
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, IN6_PKTINFO.pack(local.packed, 0)


@lru_cache(4096)
def _address(host: str) -> IPAddress:
    # A link-local sender comes as fe80::1%eth0; the scope is ours, not part of the address.
    host = host.partition("%")[0]
    return IPv6Address(host) if ":" in host else IPv4Address(host)


INT = Struct("=i")
U16 = Struct("=H")
IN_PKTINFO = Struct("=i 4s 4s")
"""struct in_pktinfo: interface, source to send from, destination as received."""
IN6_PKTINFO = Struct("=16s I")
"""struct in6_pktinfo: address, interface."""
BPF_INSTRUCTION = Struct("=H B B I")
"""struct sock_filter: code, jumps if true and if false, operand."""
SOCK_FPROG = Struct("@H P")
"""struct sock_fprog: how many instructions, and where."""
MARKER_TO_FIRST = (
    (0x20, 0, 0, 0),  # A = the first word of the UDP payload; a shorter one ends the program with 0, the first.
    (0x15, 1, 0, 0),  # If A is 0, step over one.
    (0x06, 0, 0, 1),  # Return 1: the socket bound second.
    (0x06, 0, 0, 0),  # Return 0: the socket bound first.
)

IP_PKTINFO, IP_XFRM_POLICY, IPV6_XFRM_POLICY = 8, 17, 35
SO_MARK, SO_ATTACH_REUSEPORT_CBPF = 36, 51
UDP_ENCAP, UDP_SEGMENT, UDP_GRO = 100, 103, 104
ANCILLARY_BUFFER = 256
