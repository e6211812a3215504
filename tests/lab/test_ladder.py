"""The ladder, from a capture that is written here frame by frame."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hushwire.lab.capture import PcapWriter
from hushwire.lab.frame import Kind
from hushwire.lab.ladder import captured, esp_packet, ladder, notation
from hushwire.wire import udp
from hushwire.wire.cursor import DecodeError
from hushwire.wire.esp import write_header
from hushwire.wire.message import Header, Message, write_message
from hushwire.wire.payload import (
    CertificateRequest,
    Encrypted,
    EncryptedFragment,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
)  # fmt: skip
from hushwire.wire.registry import CertEncoding, ExchangeType, KeID, NotifyType, PayloadType

ALICE, BOB, DNS = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:53"
ADDRESSES = {ALICE: IPv4Address("192.0.2.1"), BOB: IPv4Address("192.0.2.2"), DNS: IPv4Address("192.0.2.53")}


def init(*payloads: Payload, response: bool = False, exchange: ExchangeType = ExchangeType.IKE_SA_INIT) -> Message:
    return Message(Header(b"i" * 8, bytes(8), exchange, not response, response, 0), payloads)


def ipv4(source: str, destination: str, protocol: int, packet: bytes) -> bytes:
    header = b"\x45\0" + (20 + len(packet)).to_bytes(2, "big") + bytes(4) + bytes((64, protocol, 0, 0))
    macs = bytes.fromhex(f"{destination}{source}".replace(":", ""))
    return macs + b"\x08\0" + header + ADDRESSES[source].packed + ADDRESSES[destination].packed + packet


def datagram(source: str, destination: str, port: int, payload: bytes) -> bytes:
    octets = udp.write_datagram(ADDRESSES[source].packed, ADDRESSES[destination].packed, port, port, payload)
    return ipv4(source, destination, 17, octets)


def ike(source: str, destination: str, message: Message) -> bytes:
    return datagram(source, destination, 500, write_message(message.header, message.payloads))


def recorded(folder: Path, *frames: bytes) -> Path:
    with PcapWriter(folder / "wire.pcap") as pcap:
        for frame in frames:
            pcap.write(frame)
    return folder / "wire.pcap"


SA = SecurityAssociation(())
KE = KeyExchange(KeID.CURVE25519, bytes(32))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (init(SA, KE, Nonce(bytes(16))), "HDR, SAi1, KEi, Ni"),
        (
            init(SA, KE, Nonce(bytes(16)), CertificateRequest(CertEncoding(15), b""), response=True),
            "HDR, SAr1, KEr, Nr, CERTREQ",
        ),
        (init(Notify(NotifyType.COOKIE, b"c"), response=True), "HDR, N(COOKIE)"),
        (init(Notify(NotifyType(40_001))), "HDR, N(NotifyType_40001)"),
        (init(Encrypted(PayloadType.IDI, bytes(99)), exchange=ExchangeType.IKE_AUTH), "HDR, SK {99 octets}"),
        (
            init(EncryptedFragment(PayloadType.IDI, 1, 2, bytes(7)), exchange=ExchangeType.IKE_AUTH),
            "HDR, SKF {7 octets}",
        ),
    ],
)
def test_notation(message: Message, text: str) -> None:
    assert notation(message) == text


def test_a_ladder_has_one_pair_of_hosts_and_ends_with_the_first_esp_each_way(tmp_path: Path) -> None:
    request, response = init(Nonce(bytes(16))), init(Nonce(bytes(16)), response=True)
    pcap = recorded(
        tmp_path,
        datagram(ALICE, DNS, 53, b"who is bob?"),
        ike(ALICE, DNS, request),
        ike(ALICE, BOB, request),
        ike(BOB, ALICE, response),
        ipv4(ALICE, BOB, 50, write_header(0x1234, 1) + bytes(16)),
        ipv4(ALICE, BOB, 50, write_header(0x1234, 2) + bytes(16)),
        datagram(BOB, ALICE, 4500, write_header(0x5678, 1) + bytes(16)),
        ike(ALICE, BOB, request),
    )
    rungs = list(ladder(captured(pcap), ALICE, BOB, 4))
    assert [(rung.exchange, rung.rightwards, rung.text) for rung in rungs] == [
        ("IKE_SA_INIT", True, "HDR, Ni"),
        ("IKE_SA_INIT", False, "HDR, Nr"),
        ("ESP", True, "ESP, SPI 00001234, number 1"),
        ("ESP", False, "ESP, SPI 00005678, number 1"),
    ]
    assert sorted(rung.time for rung in rungs) == [rung.time for rung in rungs]
    assert list(ladder(captured(pcap), ALICE, BOB, 6)) == []


def test_an_esp_packet_with_and_without_udp(tmp_path: Path) -> None:
    packet = write_header(0x1234, 1) + b"sealed"
    frames = captured(recorded(tmp_path, ipv4(ALICE, BOB, 50, packet), datagram(ALICE, BOB, 4500, packet)))
    found = [each.frame for each in frames]
    assert [frame.kind for frame in found] == [Kind.ESP, Kind.ESP]
    assert [esp_packet(frame) for frame in found] == [packet, packet]


def test_what_is_no_ike_message_is_no_rung(tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        list(ladder(captured(recorded(tmp_path, datagram(ALICE, BOB, 500, b"noise"))), ALICE, BOB, 4))
