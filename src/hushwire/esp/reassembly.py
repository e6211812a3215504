"""Outbound fragments put together again (RFC 4301 s7, RFC 4303 s3.1.1, RFC 791 s3.2, RFC 8200 s4.5).

The host cuts what is longer than the TUN's MTU before it comes here.  Transport mode takes whole packets only, and a
later fragment has no ports to look a policy up by: guessing would let it past the policy of the packet it belongs to.
"""

from dataclasses import dataclass
from struct import Struct

from hushwire.esp.packet import Packet
from hushwire.wire import ip
from hushwire.wire.registry import IPProtocol

AT_ONCE = 64
"""Packets in the making; the oldest gives way."""

_IPV4 = Struct(">4xHH")
_IPV6 = Struct(">BxHI")
Key = tuple[bytes, bytes, int, int]


class Lost(Exception):
    """A fragment that continues nothing."""


@dataclass(slots=True)
class _Making:
    next_header: int
    payload: bytearray


class Reassembly:
    """Of what one host sends: its kernel gives fragments in order, so a gap means that the rest is lost too."""

    __slots__ = ("_making",)

    def __init__(self) -> None:
        self._making: dict[Key, _Making] = {}

    def add(self, packet: bytes, inner: Packet) -> bytes | None:
        """The whole packet, when its last fragment comes.  Raises Lost."""
        source, destination = inner.fields.source, inner.fields.destination
        if inner.version == 4:
            identification, field = _IPV4.unpack_from(packet)
            start, next_header = inner.header, inner.next_header
            offset, more = (field & 0x1FFF) * 8, field & 0x2000
        else:
            next_header, field, identification = _IPV6.unpack_from(packet, inner.header)
            start = inner.header + _IPV6.size
            offset, more = field & 0xFFF8, field & 1
            if next_header == IPProtocol.FRAGMENT:  # A fragment of a fragment, by no honest sender.
                raise Lost
        key = (source, destination, next_header if inner.version == 4 else 0, identification)
        if offset == 0:
            self._making.pop(key, None)
            if len(self._making) >= AT_ONCE:
                del self._making[next(iter(self._making))]
            self._making[key] = _Making(next_header, bytearray())
        making = self._making.get(key)
        fragment = packet[start : inner.length]
        longest = 0xFFFF - (20 if inner.version == 4 else 0)
        if making is None or offset != len(making.payload) or offset + len(fragment) > longest:
            self._making.pop(key, None)
            raise Lost
        making.payload += fragment
        if more:
            return None
        del self._making[key]
        header = ip.write_header(source, destination, making.next_header, len(making.payload))
        return header + bytes(making.payload)
