"""The netlink codec, on octets and against the running kernel."""

import errno
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.linux import netlink
from hushwire.linux.netlink import Netlink, NetlinkError, attribute, read_attributes, read_messages, write_message
from hushwire.linux.route import RTM_GETLINK, Routes


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.binary())))
def test_messages_survive_a_round_trip(wanted: list[tuple[int, int, int, bytes]]) -> None:
    octets = b"".join(write_message(*each) + bytes(-len(each[3]) % 4) for each in wanted)
    assert [(m.type, m.flags, m.sequence, m.body) for m in read_messages(octets)] == wanted


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=300)))
def test_attributes_survive_a_round_trip(wanted: dict[int, bytes]) -> None:
    assert read_attributes(b"".join(attribute(kind, value) for kind, value in wanted.items())) == wanted


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    for read in (lambda: list(read_messages(octets)), lambda: read_attributes(octets)):
        with suppress(ValueError):
            read()


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_length_that_lies_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"of {length} octets where 16 are left"):
        list(read_messages(netlink.HEADER.pack(length, 16, 0, 0, 0)))


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_words_are_in_the_error(capped: bool) -> None:
    request = write_message(16, 5, 1, b"abcdef")
    echoed = request[:16] if capped else request + bytes(2)
    words = attribute(1, b"Number is bad\0")
    flags = netlink.NLM_F_ACK_TLVS | (netlink.NLM_F_CAPPED if capped else 0)
    message = netlink.Message(netlink.NLMSG_ERROR, flags, 1, struct.pack("=i", -errno.EINVAL) + echoed + words)
    assert netlink._read_error(message) == (errno.EINVAL, "Number is bad")
    with pytest.raises(ValueError, match="acknowledgement of 2 octets"):
        netlink._read_error(netlink.Message(netlink.NLMSG_ERROR, 0, 1, b"ab"))


def test_a_refusal_of_the_running_kernel() -> None:
    with Routes() as routes, pytest.raises(NetlinkError, match="find device nosuch: No such device") as refused:
        routes.link("nosuch")
    assert refused.value.errno == errno.ENODEV
    assert refused.value.what == "find device nosuch"


def test_a_dump_of_the_running_kernel_and_a_stranger_who_answers_it() -> None:
    with Netlink(netlink.NETLINK_ROUTE) as asking, Netlink(netlink.NETLINK_ROUTE) as stranger:
        # Not the kernel's port: whatever it says is not heard.
        port, _ = asking.socket.getsockname()
        forged = write_message(netlink.NLMSG_DONE, 0, 1, bytes(4))
        stranger.socket.sendto(forged, (port, 0))
        names = [read_attributes(m.body[16:])[3] for m in asking.dump(RTM_GETLINK, bytes(16), "read links")]
    assert b"lo\0" in names
