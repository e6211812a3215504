"""UDP sockets: addresses of both ends, the port shared by marker, segments, and errors that say who needs what."""

import ctypes
import os
import select
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.linux.sockets import NAT_T_PORT, NON_ESP_MARKER, PortInUse, Received, UdpSocket, shared_nat_t
from hushwire.wire.address import Endpoint

pytestmark = pytest.mark.lab


def received(sock: UdpSocket) -> Received | None:
    """What comes within a moment."""
    return sock.receive() if select.select([sock], [], [], 0.5)[0] else None


@pytest.mark.parametrize(("version", "addresses"), [(4, ("127.0.0.2", "127.0.0.3")), (6, ("fd77::2", "fd77::3"))])
def test_each_end_knows_both_addresses_and_answers_from_the_one_asked(
    namespace: Any, version: int, addresses: tuple[str, str]
) -> None:
    host = namespace()
    host.run("ip address add fd77::2/128 dev lo nodad; ip address add fd77::3/128 dev lo nodad")
    one, other = map(ip_address, addresses)
    with host(UdpSocket, version, 500) as ike, host(UdpSocket, version, 0) as peer:
        peer.send(other, Endpoint(one, 500), [b"to the ", b"second"])
        assert received(ike) == Received(Endpoint(one, 500), Endpoint(other, peer.port), b"to the second")
        ike.send(one, Endpoint(other, peer.port), [b"back"])
        assert received(peer) == Received(Endpoint(other, peer.port), Endpoint(one, 500), b"back")
        assert peer.receive() is None


def test_the_two_families_share_a_port_and_a_taken_port_is_named(namespace: Any) -> None:
    host = namespace()
    with host(UdpSocket, 4, 500), host(UdpSocket, 6, 500):
        with pytest.raises(PortInUse, match=r"udp port 500 on 0\.0\.0\.0 is in use"):
            host(UdpSocket, 4, 500)
        with pytest.raises(PortInUse, match=r"udp port 500 on \[::\] is in use"):
            host(UdpSocket, 6, 500)


def test_a_port_below_1024_needs_a_capability(namespace: Any) -> None:
    def attempt() -> None:
        # The effective user of this thread alone: a raw setresuid, as libc's would change them all.
        libc = ctypes.CDLL(None)
        number = {"x86_64": 117, "aarch64": 147}[os.uname().machine]
        libc.syscall(number, -1, 65534, -1)
        try:
            UdpSocket(4, 500)
        finally:
            libc.syscall(number, -1, 0, -1)

    with pytest.raises(PermissionError, match=r"udp port 500 on 0\.0\.0\.0 needs CAP_NET_BIND_SERVICE"):
        namespace()(attempt)


@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_the_marker_steers_between_two_sockets_on_one_port(namespace: Any, version: int, address: str) -> None:
    host = namespace()
    here = ip_address(address)
    node, plane = host(shared_nat_t, version)
    with node, plane:
        # Many source ports, since without steering their hash would choose.
        for n in range(16):
            with host(UdpSocket, version, 0) as sender:
                for payload, expected, other in (
                    (NON_ESP_MARKER + b"IKE %d" % n, node, plane),
                    (b"\x00\x00\x10\x00ESP %d" % n, plane, node),
                    (b"\xff", node, plane),
                ):
                    sender.send(here, Endpoint(here, NAT_T_PORT), [payload])
                    got = received(expected)
                    assert got is not None
                    assert got.data == payload
                    assert other.receive() is None


def test_without_steering_the_marker_goes_to_both(namespace: Any) -> None:
    """The control of the test above."""
    host = namespace()
    here = ip_address("127.0.0.1")
    with host(lambda: UdpSocket(4, 4500, shared=True)) as one, host(lambda: UdpSocket(4, 4500, shared=True)) as other:
        for _ in range(64):
            with host(UdpSocket, 4, 0) as sender:
                sender.send(here, Endpoint(here, NAT_T_PORT), [NON_ESP_MARKER])
        assert received(one)
        assert received(other)


def test_segments_are_cut_by_the_kernel_and_joined_again(namespace: Any) -> None:
    host = namespace()
    here = ip_address("127.0.0.1")
    payload = bytes(range(256)) * 40
    with host(UdpSocket, 4, 4500) as plain, host(UdpSocket, 4, 0) as sender:
        sender.send(here, Endpoint(here, 4500), [payload], segment=1000)
        pieces = [got.data for _ in range(11) if (got := received(plain))]
        assert [len(piece) for piece in pieces] == [1000] * 10 + [240]
        assert b"".join(pieces) == payload
        plain.join_datagrams()
        sender.send(here, Endpoint(here, 4500), [payload], segment=1000)
        joined = received(plain)
        assert joined is not None
        assert (joined.segment, joined.data) == (1000, payload)
        assert list(joined.datagrams()) == pieces


def test_a_datagram_alone_is_one_even_when_empty() -> None:
    end = Endpoint(ip_address("127.0.0.1"), 1)
    assert list(Received(end, end, b"").datagrams()) == [b""]
    assert list(Received(end, end, b"abc").datagrams()) == [b"abc"]


def test_marks_choose_routes_and_inherited_sockets_are_adopted(namespace: Any) -> None:
    host = namespace()
    host.run("ip link add device type veth peer name other; ip link set device up; ip link set other up")
    host.run("ip address add 198.51.100.1/24 dev device")
    host.run("ip rule add fwmark 7/255 table 77; ip route add blackhole 198.51.100.0/24 table 77")
    there = Endpoint(ip_address("198.51.100.9"), 500)
    with host(UdpSocket, 4, 0) as plain, host(lambda: UdpSocket(4, 0, mark=7)) as marked:
        plain.send(ip_address("198.51.100.1"), there, [b"x"])
        with pytest.raises(OSError, match="Invalid argument"):
            marked.send(ip_address("198.51.100.1"), there, [b"x"])
        with UdpSocket.adopt(socket.socket(fileno=os.dup(plain.fileno()))) as adopted:
            assert (adopted.version, adopted.port) == (4, plain.port)
