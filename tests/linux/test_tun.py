"""TUN devices: packets both ways with their headers, super-packets, and life beyond a process."""

import select
import struct
import time
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.linux.route import Routes
from hushwire.linux.sockets import UdpSocket
from hushwire.linux.tun import VNET, Gso, Offload, Tun, VnetHeader
from hushwire.wire.address import Endpoint


@given(
    st.builds(
        VnetHeader,
        st.sampled_from(Gso),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.booleans(),
    )
)
def test_headers_survive(header: VnetHeader) -> None:
    assert VnetHeader.read(header.write() + b"packet") == header


def test_a_plain_header_is_ten_zeros_and_an_unknown_kind_is_refused() -> None:
    assert VnetHeader().write() == bytes(10)
    with pytest.raises(ValueError, match="2 is not a valid Gso"):
        VnetHeader.read(VNET.pack(0, 2, 0, 0, 0, 0))


def opened(host: Any, **options: Any) -> Tun:
    def make() -> Tun:
        tun = Tun("hush%d", **options)
        with Routes() as routes:
            routes.change_link(tun.index, up=True)
            routes.add_address(tun.index, ip_address("10.7.0.1"), 24)
        return tun

    made: Tun = host(make)
    return made


def packet(tun: Tun, protocol: int = 17) -> bytes:
    """The next IPv4 packet of a protocol, with its VnetHeader."""
    end = time.monotonic() + 2
    while select.select([tun], [], [], max(0.0, end - time.monotonic()))[0]:
        found = tun.read()
        if found and found[VNET.size] >> 4 == 4 and found[VNET.size + 9] == protocol:
            return found
    raise AssertionError("no packet")


@pytest.mark.lab
def test_a_packet_out_and_another_in(namespace: Any) -> None:
    host = namespace()
    there = Endpoint(ip_address("10.7.0.2"), 9)
    with opened(host, mtu=1400, gso_max_segments=32) as tun, host(UdpSocket, 4, 5000) as sock:
        assert tun.name == "hush0"
        assert "mtu 1400" in host.run(f"ip link show {tun.name}")
        assert "gso_max_segs 32 " in host.run(f"ip -d link show {tun.name}")
        sock.send(ip_address("10.7.0.1"), there, [b"out"])
        out = packet(tun)
        header, datagram = VnetHeader.read(out), out[VNET.size :]
        assert header.gso is Gso.NONE
        assert datagram[20:].startswith(struct.pack("!HHH", 5000, 9, 11))
        # The kernel left the checksum to us, as we said that it may.
        assert (header.checksum_start, header.checksum_offset) == (20, 6)
        # Send it back with the ends exchanged; the pseudo-header's sum, which is in place, stays the same.
        back = datagram[:12] + datagram[16:20] + datagram[12:16] + datagram[22:24] + datagram[20:22] + datagram[24:]
        tun.write(header, [back[:20], back[20:]])
        assert select.select([sock], [], [], 1)[0]
        got = sock.receive()
        assert got is not None
        assert (got.remote, got.data) == (there, b"out")


@pytest.mark.lab
def test_super_packets_come_whole(namespace: Any) -> None:
    host = namespace()
    with opened(host) as tun:
        assert tun.offload >= Offload.CSUM | Offload.TSO4 | Offload.TSO6
        if Offload.USO4 in tun.offload:
            with host(UdpSocket, 4, 0) as sock:
                sock.send(ip_address("10.7.0.1"), Endpoint(ip_address("10.7.0.2"), 9), [bytes(9000)], segment=1000)
            found = packet(tun)
            assert (VnetHeader.read(found).gso, VnetHeader.read(found).segment) == (Gso.UDP_L4, 1000)
            assert len(found) == VNET.size + 28 + 9000


@pytest.mark.lab
def test_a_persistent_device_outlives_its_descriptor_until_removed(namespace: Any) -> None:
    host = namespace()
    opened(host).close()
    assert "hush0" not in host.run("ip link")
    opened(host, persistent=True).close()
    assert "hush0" in host.run("ip link show hush0")
    with host(lambda: Tun("hush0", persistent=True)) as again:
        again.remove()
    assert "hush0" not in host.run("ip link")
