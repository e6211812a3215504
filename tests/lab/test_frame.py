"""What the relay takes each frame for, and that what it rewrites is still well-formed."""

import pytest

from hushwire.lab.frame import Classifier, Frame, Kind
from hushwire.wire import ip, udp
from hushwire.wire.registry import ExchangeType, IPProtocol

MACS = bytes.fromhex("020000000002 020000000001")
V4 = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
V6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("20010db8000000000000000000000002")
IKE_MESSAGE = bytes(16) + bytes((0, 0x20, ExchangeType.IKE_AUTH, 0x28)) + bytes(8)


def packet(protocol: int, payload: bytes, addresses: tuple[bytes, bytes] = V4) -> bytes:
    ethertype = b"\x08\x00" if len(addresses[0]) == 4 else b"\x86\xdd"
    return MACS + ethertype + ip.write_header(*addresses, protocol, len(payload)) + payload


def datagram(port: int, payload: bytes, addresses: tuple[bytes, bytes] = V4) -> bytes:
    return packet(IPProtocol.UDP, udp.write_datagram(*addresses, 40000, port, payload), addresses)


def frame(octets: bytes) -> Frame:
    return Classifier().frame(octets, "alice")


@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize(
    ("protocol", "payload", "kind"),
    [
        (50, bytes(64), Kind.ESP),
        (51, bytes(64), Kind.CLEAR),
        (1, b"\x08\x00" + bytes(64), Kind.CLEAR),
        (58, b"\x80\x00" + bytes(64), Kind.CLEAR),
        (58, b"\x87\x00" + bytes(64), Kind.NEIGHBOUR),
        (6, b"\xc0\x00\x00\x35" + bytes(16), Kind.DNS),
        (6, b"\x00\x50\xc0\x00" + bytes(16), Kind.CLEAR),
        (17, b"\x11\x94", Kind.CLEAR),
    ],
)
def test_kinds_by_protocol(protocol: int, payload: bytes, kind: Kind, addresses: tuple[bytes, bytes]) -> None:
    assert frame(packet(protocol, payload, addresses)).kind == kind


@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize(
    ("port", "payload", "kind"),
    [
        (500, IKE_MESSAGE, Kind.IKE),
        (4500, bytes(4) + IKE_MESSAGE, Kind.IKE),
        (4500, bytes((0, 0, 1, 0)) + bytes(40), Kind.ESP),
        (4500, b"\xff", Kind.KEEPALIVE),
        (4500, b"abc", Kind.CLEAR),
        (53, b"a question", Kind.DNS),
        (5353, b"chatter", Kind.CLEAR),
    ],
)
def test_kinds_by_port(port: int, payload: bytes, kind: Kind, addresses: tuple[bytes, bytes]) -> None:
    assert frame(datagram(port, payload, addresses)).kind == kind


def test_what_is_no_ip_and_what_is_broken_ip() -> None:
    assert frame(MACS + b"\x08\x06" + bytes(28)).kind == Kind.NEIGHBOUR
    assert frame(MACS + b"\x88\xcc" + bytes(28)).kind == Kind.OTHER
    assert frame(b"").kind == Kind.OTHER
    # Not to be understood is no excuse: it may be a leak.
    assert frame(MACS + b"\x08\x00" + b"\x45").kind == Kind.CLEAR


@pytest.mark.parametrize(("protocol", "kind"), [(50, Kind.ESP), (17, Kind.CLEAR)])
def test_a_later_fragment_is_what_the_first_was(protocol: int, kind: Kind) -> None:
    def fragment(offset: int, more: bool) -> bytes:
        header = bytearray(ip.write_header(*V4, protocol, 64, identification=7))
        header[6:8] = (offset | more << 13).to_bytes(2, "big")
        return MACS + b"\x08\x00" + bytes(header) + bytes(64)

    classifier = Classifier()
    assert classifier.frame(fragment(8, False), "alice").kind == Kind.CLEAR
    assert classifier.frame(fragment(0, True), "alice").kind == kind
    assert classifier.frame(fragment(8, False), "alice").kind == kind


@pytest.mark.parametrize("port", [500, 4500])
def test_ike_is_looked_into(port: int) -> None:
    marker = bytes(4) if port == 4500 else b""
    message = frame(datagram(port, marker + IKE_MESSAGE))
    assert message.ike == IKE_MESSAGE
    assert message.exchange == ExchangeType.IKE_AUTH
    assert message.is_response
    other = frame(datagram(4501, IKE_MESSAGE))
    assert (other.ike, other.exchange, other.is_response) == (b"", None, False)


@pytest.mark.parametrize("addresses", [V4, V6])
def test_a_rewritten_datagram_has_the_lengths_and_sums_of_one_just_made(addresses: tuple[bytes, bytes]) -> None:
    before = frame(datagram(500, b"some payload", addresses))
    assert before.with_payload(b"another") == datagram(500, b"another", addresses)
    assert before.replaced(b"some", b"no") == datagram(500, b"no payload", addresses)


def test_other_protocols_keep_their_length() -> None:
    before = frame(packet(50, b"ciphertext"))
    assert before.replaced(b"cipher", b"CIPHER") == packet(50, b"CIPHERtext")
    with pytest.raises(ValueError, match="length"):
        before.replaced(b"cipher", b"plain")
    with pytest.raises(ValueError, match="no UDP"):
        before.with_payload(b"")
