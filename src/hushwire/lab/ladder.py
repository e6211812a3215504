"""Exchanges as RFC 7296 s1.2 writes them, from what the relay captured: without keys, so that SK { } stays shut."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from hushwire.lab.frame import PACKET_AT, Classifier, Frame, Kind
from hushwire.wire import esp
from hushwire.wire.message import Message, read_message
from hushwire.wire.payload import Encrypted, EncryptedFragment, Notify, Payload
from hushwire.wire.registry import ExchangeType, PayloadType


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame of a capture."""

    time: float
    """Seconds since the epoch."""
    frame: Frame
    """Its source is a MAC address."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One message."""

    time: float
    """Seconds since the epoch."""
    exchange: str
    rightwards: bool
    """From the host on the left."""
    text: str


def captured(pcap: Path) -> Iterator[Captured]:
    """The frames that hosts sent, as the relay's PcapWriter wrote them."""
    octets, at = pcap.read_bytes(), _FILE_HEADER_SIZE
    classifier = Classifier()
    while at < len(octets):
        seconds, nanoseconds, length, _ = _FRAME_HEADER.unpack_from(octets, at)
        at += _FRAME_HEADER.size
        frame = octets[at : at + length]
        at += length
        yield Captured(seconds + nanoseconds / 1e9, classifier.frame(frame, frame[6:12].hex(":")))


def ladder(frames: Iterator[Captured], left: str, right: str, version: int) -> Iterator[Rung]:
    """IKE and the first ESP packet each way, between two MAC addresses, in IPv4 or IPv6."""
    awaited = {left, right}
    for each in frames:
        frame = each.frame
        source, destination = frame.source, frame.octets[:6].hex(":")
        if {source, destination} != {left, right} or frame.octets[PACKET_AT] >> 4 != version:
            continue
        if frame.kind is Kind.IKE:
            message = read_message(frame.ike)
            yield Rung(each.time, message.header.exchange.name, source == left, notation(message))
        elif frame.kind is Kind.ESP and source in awaited:
            awaited.remove(source)
            header = esp.read_header(esp_packet(frame))
            yield Rung(each.time, "ESP", source == left, f"ESP, SPI {header.spi:08x}, number {header.sequence}")
        if not awaited:
            return


def esp_packet(frame: Frame) -> bytes:
    """ESP itself, from its SPI on: behind UDP, or right behind IP."""
    return frame.payload or frame.octets[PACKET_AT + (20 if frame.octets[PACKET_AT] >> 4 == 4 else 40) :]


def notation(message: Message) -> str:
    """HDR, SAi1, KEi, Ni ..."""
    letter = "r" if message.header.response else "i"
    return ", ".join(("HDR", *(_name(payload, message.header.exchange, letter) for payload in message.payloads)))


def _name(payload: Payload, exchange: ExchangeType, letter: str) -> str:
    match payload:
        case Encrypted():
            return f"SK {{{len(payload.body)} octets}}"
        case EncryptedFragment():
            return f"SKF {{{len(payload.body)} octets}}"
        case Notify():
            return f"N({payload.type.name})"
    name = payload.kind.name
    match payload.kind:
        case PayloadType.SA if exchange is ExchangeType.IKE_SA_INIT:
            return f"SA{letter}1"
        case PayloadType.KE:
            return f"KE{letter}"
        case PayloadType.NONCE:
            return f"N{letter}"
    return name


_FILE_HEADER_SIZE = 24
_FRAME_HEADER = Struct("=IIII")
