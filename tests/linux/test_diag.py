"""The kernel's table of sockets: the one at our end of a flow, on loopback (tests/lab/test_diag.py has the rest)."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from hushwire.lab.peer import eventually
from hushwire.linux.diag import TCP, UDP, SockDiag
from hushwire.policy.selector import Flow


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    with SockDiag() as diag:
        yield diag


def flow_of(sock: socket.socket) -> Flow:
    local, remote = sock.getsockname(), sock.getpeername()
    ours, theirs = (ip_address(end[0].removeprefix("::ffff:")) for end in (local, remote))
    return Flow(ours, theirs, TCP if sock.type is socket.SOCK_STREAM else UDP, local[1], remote[1])


@pytest.mark.parametrize(
    ("listens", "connects"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)  # fmt: skip
def test_tcp_is_found_at_both_ends(diag: SockDiag, listens: str, connects: str) -> None:
    """IPv4's may be an IPv6 socket's (RFC 4038 s4.2)."""
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with ExitStack() as stack:
        server = stack.enter_context(
            socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::")
        )  # fmt: skip
        client = stack.enter_context(socket.create_connection((connects, server.getsockname()[1])))
        served = stack.enter_context(server.accept()[0])
        for end, kind in ((client, client.family), (served, family)):
            found = diag.find(flow_of(end))
            assert found is not None
            assert (found.flow, found.uid, found.family) == (flow_of(end), os.getuid(), kind)


@pytest.mark.parametrize(
    ("binds", "connects"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "::ffff:127.0.0.1")]
)
def test_udp_is_found_where_it_is_connected(diag: SockDiag, binds: str, connects: str) -> None:
    family = socket.AF_INET6 if ":" in binds else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((binds, 0))
        client.connect((connects, server.getsockname()[1]))
        flow = flow_of(client)
        found = diag.find(flow)
        assert found is not None
        assert (found.flow, found.uid) == (flow, os.getuid())
        # The server's socket has no peer, and is nobody's end of a flow.
        back = Flow(flow.remote, flow.local, UDP, flow.remote_port, flow.local_port)
        assert diag.find(back) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_what_is_bound_to_a_device_is_found_with_it(diag: SockDiag, address: str, kind: int) -> None:
    family, loopback = socket.AF_INET6 if ":" in address else socket.AF_INET, socket.if_nametoindex("lo")
    with (
        socket.socket(family, kind) as server,
        socket.socket(family, kind) as bound,
        socket.socket(family, kind) as free,
    ):
        server.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        for sock in (bound, free):
            sock.connect(server.getsockname())
        found = diag.find(flow_of(bound), loopback)
        assert found is not None
        assert found in diag.connections(ip_network(address))
        assert diag.find(flow_of(bound)) is diag.find(flow_of(bound), loopback + 999) is None
        # One that is not bound may be asked for with any.
        assert diag.find(flow_of(free)) == diag.find(flow_of(free), loopback) is not None


def test_what_is_not_there_is_not_found(diag: SockDiag) -> None:
    """The kernel would answer with a socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        flow = flow_of(client)
        assert diag.find(flow) is not None
        for other in (
            replace(flow, protocol=UDP), replace(flow, protocol=132), replace(flow, local_port=1),
            replace(flow, remote=ip_address("127.0.0.2")),
            Flow(flow.remote, flow.local, TCP, flow.remote_port, 1),
        ):  # fmt: skip
            assert diag.find(other) is None
    assert diag.find(flow) is None or diag.find(flow).uid == 0  # type: ignore[union-attr]


def test_what_has_no_peer_any_more_or_never_had_is_no_connection(diag: SockDiag) -> None:
    """What listens, a UDP socket that is not connected, and what the kernel keeps for a while of what has ended."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loose:
        loose.bind(("127.0.0.1", 0))
        with socket.create_connection(server.getsockname()) as client:
            served, _ = server.accept()
            ports = {client.getsockname()[1], server.getsockname()[1], loose.getsockname()[1]}

            def found() -> list[int]:
                everywhere = diag.connections(ip_network("0.0.0.0/0"))
                return sorted(each.flow.local_port for each in everywhere if each.flow.local_port in ports)

            assert found() == sorted((client.getsockname()[1], server.getsockname()[1]))
        # Who closes first has TIME_WAIT (RFC 9293 s3.6).
        served.close()
        assert eventually(lambda: found() == [])


@pytest.mark.lab
def test_another_in_its_place_is_not_ended(diag: SockDiag) -> None:
    """With the same ends: the kernel has another name for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect(port: int) -> tuple[socket.socket, socket.socket]:
            client = socket.socket()
            # Closed with a RST, its ends are free at once.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.bind(("127.0.0.1", port))
            client.connect(server.getsockname())
            return client, server.accept()[0]

        before = connect(0)
        flow = flow_of(before[0])
        connection = diag.find(flow)
        assert connection is not None
        for sock in before:
            sock.close()
        after = connect(flow.local_port)
        assert flow_of(after[0]) == flow
        assert not diag.end(connection)
        assert after[0].send(b"as before") == 9
        for sock in after:
            sock.close()


ENDS = """
import os, socket, sys
from ipaddress import ip_network
from hushwire.linux.diag import SockDiag
from hushwire.linux.netlink import NetlinkError
from hushwire.linux.sandbox import confine

with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
    if sys.argv[1] == "bound":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    client.connect(server.getsockname())
    diag, loopback = SockDiag(), socket.if_nametoindex("lo")
    if sys.argv[1] == "confined":
        confine(uid=65534, gid=65534, network=False)
    (connection,) = [
        each for each in diag.connections(ip_network("127.0.0.1/32"))
        if each.flow.local_port == client.getsockname()[1]
    ]
    assert diag.find(connection.flow, loopback) == connection
    try:
        print(diag.end(connection))
    except NetlinkError as error:
        print(os.strerror(error.errno))
    os._exit(0)
"""


@pytest.mark.lab
@pytest.mark.parametrize(
    ("how", "said"), [("confined", "Operation not permitted\n"), ("free", "True\n"), ("bound", "True\n")]
)
def test_who_is_confined_looks_and_ends_nothing(how: str, said: str) -> None:
    """With a socket that root opened: the kernel asks who writes to it, too."""
    program = (sys.executable, "-u", "-c", ENDS, how)
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout == said
