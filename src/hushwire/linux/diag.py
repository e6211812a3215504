"""The connections of local programs: to be found, and to be ended (sock_diag(7), linux/inet_diag.h)."""

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from struct import Struct

from hushwire.linux.netlink import Client, NetlinkError, attribute
from hushwire.policy.selector import Flow
from hushwire.wire.address import IPAddress, IPNetwork

TCP, UDP = 6, 17
PROTOCOLS = (TCP, UDP)
"""Whose sockets the kernel finds and ends.  Of UDP, those that are connected: the others have no peer."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of a connection: a socket of this network namespace that has a peer."""

    flow: Flow
    uid: int
    """Of its owner."""
    family: int
    """Of the socket, which may be IPv6's where the addresses are IPv4's."""
    answered: bool
    """Whether its peer may have heard of it.  Of UDP nobody knows."""
    identity: bytes
    """The kernel's name of it, which no other socket will have (struct inet_diag_sockid)."""


class SockDiag(Client):
    """A socket to the kernel's table of sockets.  To look needs no privilege, to end one CAP_NET_ADMIN."""

    def __init__(self) -> None:
        super().__init__(NETLINK_SOCK_DIAG)

    def connections(self, remote: IPNetwork) -> Iterator[Connection]:
        """All whose peer is in a network.  Raises NetlinkError."""
        # A socket of IPv6 may speak IPv4 (RFC 4038 s4.2).
        families = (socket.AF_INET, socket.AF_INET6) if remote.version == 4 else (socket.AF_INET6,)
        for family in families:
            for protocol in PROTOCOLS:
                body = REQUEST.pack(family, protocol, 0, CONNECTED, bytes(SOCKET_ID)) + _towards(remote)
                try:
                    found = self._netlink.dump(SOCK_DIAG_BY_FAMILY, body, f"look for connections with {remote}")
                except NetlinkError as error:
                    if error.errno != errno.ENOENT:
                        raise
                    # The kernel has no such protocol, or no such table of it.
                    continue
                yield from (_read(message.body, protocol) for message in found)

    def find(self, flow: Flow, device: int = 0) -> Connection | None:
        """The one at our end of a flow, without a walk through the table.  Raises NetlinkError.

        `device`: the index of the interface that it may be bound to; the kernel finds no such one without.
        """
        family = socket.AF_INET if flow.local.version == 4 else socket.AF_INET6
        ours, theirs = (flow.local, flow.local_port), (flow.remote, flow.remote_port)
        # Where it is asked for one socket, the kernel takes UDP's ends the other way round.
        ends = (ours, theirs) if flow.protocol == TCP else (theirs, ours)
        (source, source_port), (destination, destination_port) = ends
        identity = ENDS.pack(
            source_port, destination_port, source.packed.ljust(16, b"\0"), destination.packed.ljust(16, b"\0")
        ) + DEVICE.pack(device) + NO_COOKIE  # fmt: skip
        body = REQUEST.pack(family, flow.protocol, 0, CONNECTED, identity)
        try:
            found = self._netlink.request(SOCK_DIAG_BY_FAMILY, body, f"look for the connection with {flow.remote}")
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        # Where there is none, the kernel may answer with a socket that listens there.
        connections = (_read(message.body, flow.protocol) for message in found)
        return next((connection for connection in connections if connection.flow == flow), None)

    def end(self, connection: Connection) -> bool:
        """End it: its program hears that it was aborted, and a TCP peer gets a RST.  False: it is gone already.

        Raises NetlinkError: EOPNOTSUPP where the kernel was built without (CONFIG_INET_DIAG_DESTROY).
        """
        flow = connection.flow
        body = REQUEST.pack(connection.family, flow.protocol, 0, CONNECTED, connection.identity)
        try:
            self._netlink.request(SOCK_DESTROY, body, f"end a connection with {flow.remote}")
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def can_end(self) -> bool:
        """Whether the kernel ends connections if it is asked to, and we may ask."""
        nobody = Connection(
            Flow(ip_address("127.0.0.1"), ip_address("127.0.0.1"), TCP), 0, socket.AF_INET, True, bytes(SOCKET_ID)
        )
        try:
            self.end(nobody)
        except NetlinkError:
            return False
        return True


def _towards(remote: IPNetwork) -> bytes:
    """A filter of one condition; what does not meet it jumps beyond the end, which is how one says no."""
    family = socket.AF_INET if remote.version == 4 else socket.AF_INET6
    host = HOST.pack(family, remote.prefixlen, ANY_PORT) + remote.network_address.packed
    size = OPERATION.size + len(host)
    return attribute(INET_DIAG_REQ_BYTECODE, OPERATION.pack(BC_D_COND, size, size + 4) + host)


def _read(body: bytes, protocol: int) -> Connection:
    family, state, identity, uid = ANSWER.unpack_from(body)
    local_port, remote_port, local, remote = ENDS.unpack_from(identity)
    flow = Flow(_address(family, local), _address(family, remote), protocol, local_port, remote_port)
    return Connection(flow, uid, family, state != SYN_SENT, identity)


def _address(family: int, octets: bytes) -> IPAddress:
    if family == socket.AF_INET:
        return ip_address(octets[:4])
    address = IPv6Address(octets)
    return address.ipv4_mapped or address


NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21

SOCKET_ID = 48
"""Octets of struct inet_diag_sockid."""
REQUEST = Struct(f"=B B B x I {SOCKET_ID}s")
"""struct inet_diag_req_v2: family, protocol, extensions, states, socket."""
ANSWER = Struct(f"=B B 2x {SOCKET_ID}s 12x I")
"""struct inet_diag_msg: family, state, timer, retransmissions; socket; expires, queues; uid."""
ENDS = Struct("!H H 16s 16s")
"""struct inet_diag_sockid up to the interface: ports and addresses, ours first."""
DEVICE = Struct("=I")
"""What follows them: the index of an interface."""
NO_COOKIE = b"\xff" * 8
"""Of a socket that is known by its ends only."""
SYN_SENT = 2
CONNECTED = 0xFFF & ~(1 << 6 | 1 << 7 | 1 << 10)
"""States of a TCP socket, 1 to 11, but for TIME_WAIT, CLOSE and LISTEN."""

INET_DIAG_REQ_BYTECODE = 1
OPERATION = Struct("=B B H")
"""struct inet_diag_bc_op: code, and how far to go on if it holds and if not."""
BC_D_COND = 8
HOST = Struct("=B B 2x i")
"""struct inet_diag_hostcond up to the address: family, length of the prefix, port."""
ANY_PORT = -1
