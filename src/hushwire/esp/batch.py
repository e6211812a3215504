"""Bursts: frames sealed side by side for one UDP send, TCP coalesced for one TUN write (RFC 3948, RFC 4303 s3).

A system call costs more than AES does, so one call carries many packets: UDP_SEGMENT cuts one send into datagrams of
equal length, UDP_GRO returns such as one, and a TUN with a virtio-net header takes a TCP super-packet of up to 64 KiB.
Going out, the kernel has cut and summed the segments before they come here: it does that faster than Python.
"""

from collections.abc import Callable
from struct import Struct

from hushwire.esp.packet import PORTED, VNET, checksum_at, flow_key, split_flow_key
from hushwire.esp.plane import Cause, Output, Plane, Transmit
from hushwire.esp.sad import Inbound, Outbound
from hushwire.esp.translate import mend_sealed
from hushwire.timers import Now
from hushwire.wire.address import Endpoint
from hushwire.wire.registry import IPProtocol

LARGEST = 65535
"""Octets of the longest IP packet."""
DATAGRAM = 65507
"""Octets of the largest UDP payload over IPv4, and so of one send."""
SEGMENTS = 64
"""Datagrams of one send: UDP_MAX_SEGMENTS of the older kernels."""
READS = 256
"""Packets taken from the TUN before others have their turn."""
_OVERHEAD = 128
"""More than any SA adds to a packet."""

Buffer = bytes | bytearray | memoryview
Read = Callable[[list[memoryview]], int]
"""As os.readv: fill the buffers in turn; BlockingIOError when there is no packet."""
Send = Callable[[Endpoint, Endpoint, Buffer, int], None]
"""Send octets from one end to the other, cut into datagrams of the length given."""
Write = Callable[[list[Buffer]], object]
"""As os.writev: one packet, its virtio-net header first."""


class Sealer:
    """Packets from a TUN to frames side by side in one buffer.

    Where a packet's payload must lie depends on its SA, which is known only when it has been read.  So it is read to
    where the SA of the packet before would want it, the IP header apart; a wrong guess costs a copy.
    """

    def __init__(self) -> None:
        self._octets = memoryview(bytearray(DATAGRAM + LARGEST + _OVERHEAD))
        self._headers = memoryview(bytearray(VNET + 40))
        self._guess: Outbound | None = None
        self._version = 4

    def drain(self, read: Read, send: Send, plane: Plane, now: Now) -> list[Output]:
        """Read what is there, within bounds, and send it sealed.  What is not for sending comes back."""
        outputs: list[Output] = []
        octets, routes = self._octets, plane.routes
        start = at = stride = full = 0  # The run of equal frames not sent yet; where the next begins; where it is full.
        guess, header, lead = self._aim()
        head = self._headers[: VNET + header]
        for _ in range(READS):
            begin = at + lead
            try:
                size = read([head, octets[begin:]]) - len(head)
            except BlockingIOError:
                break
            key = split_flow_key(head, octets, begin)
            sa = routes.get(key) if size >= 4 else None
            if sa is None or sa is not guess or sa.packets >= sa.packets_mark or sa.octets >= sa.octets_mark:
                if at > start and guess is not None:
                    send(guess.near, guess.far, octets[start:at], stride)
                start = at = stride = 0
                packet = bytes(head[VNET:]) + bytes(octets[begin : begin + max(size, 0)])
                self._one(bool(head[0] or head[1]), packet[: max(header + size, 0)], send, plane, now, outputs)
                guess, header, lead = self._aim()
                head = self._headers[: VNET + header]
                continue
            length = sa.transform.sealed_length(size)
            next_header = head[self._protocol_at] if header else self._tunnelled
            if sa.delta:
                mend_sealed(octets, begin, begin + size, next_header, sa.delta)
            sa.seal(octets[at : at + length], size, next_header)
            if length > stride:
                if at > start:
                    send(sa.near, sa.far, octets[start:at], stride)
                start, stride = at, length
                full = min(start + min(SEGMENTS, DATAGRAM // length) * length, DATAGRAM)
            at += length
            # A frame shorter than the others must be the last of its send.
            if length < stride or at + stride > full:
                send(sa.near, sa.far, octets[start:at], stride)
                start = at = stride = 0
        if at > start and guess is not None:
            send(guess.near, guess.far, octets[start:at], stride)
        return outputs

    def _aim(self) -> tuple[Outbound | None, int, int]:
        """The SA to read for, the octets of IP header it takes off, and where in its frame the payload lies."""
        self._protocol_at, size = (VNET + 9, 20) if self._version == 4 else (VNET + 6, 40)
        self._tunnelled = int(IPProtocol.IPV4 if self._version == 4 else IPProtocol.IPV6)
        if self._guess is None:
            return None, size, 0
        return self._guess, 0 if self._guess.tunnel else size, self._guess.transform.header

    def _one(self, offloaded: bool, packet: bytes, send: Send, plane: Plane, now: Now, outputs: list[Output]) -> None:
        """A packet whose SA was not guessed."""
        if offloaded:  # Its checksum, or its cutting, was left to us; the TUN was not asked to.
            plane.counters[Cause.OUT_HEADER] += 1
            return
        for output in plane.outbound(packet, now):
            if isinstance(output, Transmit):
                send(output.local, output.remote, output.data, len(output.data))
            else:
                outputs.append(output)
        key = flow_key(packet)
        if key in plane.routes:
            self._guess, self._version = plane.routes[key], packet[0] >> 4


_TCP = Struct(">4sIIHH2xH")
_WORD = Struct(">H")
# struct virtio_net_hdr in the host's order: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
_VNET = Struct("=BBHHHH")
_PLAIN = bytes(VNET)
_NEEDS_CSUM = 1
_GSO_TCP = {20: 1, 40: 4}
"""gso_type by the size of the IP header."""
_PSH, _ACK = 0x08, 0x10


class Run:
    """Consecutive TCP segments of one flow, to become one packet."""

    __slots__ = ("ack", "data", "header", "next", "ports", "sa", "size", "total", "window", "word")

    sa: Inbound
    ports: bytes
    ack: int
    window: int
    word: int
    """Data offset and flags, without PSH."""
    header: bytearray
    """TCP header with its options."""
    next: int
    """Sequence number that continues it."""
    size: int
    """Octets of data in each segment; the last may have fewer."""
    total: int
    data: list[memoryview]


class Opener:
    """Frames as UDP_GRO returns them, opened in place, to packets for a TUN.

    What is coalesced lies in the receive buffer until flush(): the buffer must not be used again before.
    """

    def __init__(self) -> None:
        self._run: Run | None = None

    def open(
        self, octets: memoryview, stride: int, remote: Endpoint, plane: Plane, now: Now, write: Write
    ) -> list[Output]:
        """Open datagrams of `stride` octets each, the last perhaps shorter."""
        outputs: list[Output] = []
        for at in range(0, len(octets), stride):
            opened = plane.open(octets[at : at + stride], remote, now, outputs)
            if opened is None:
                continue
            sa, next_header, payload = opened
            if sa.tunnel:
                self.flush(write)
                length = self._admitted_length(sa, payload, plane)
                if length:
                    write([_PLAIN, payload[:length]])
            elif next_header == 6 and len(payload) >= 20:
                self._tcp(sa, payload, plane, write)
            else:
                self.flush(write)
                shown = plane.shown(sa, next_header, payload)
                if shown is not None and self._admits(sa, next_header, shown, plane):
                    self._write_one(sa, next_header, shown, write)
        return outputs

    def flush(self, write: Write) -> None:
        """Write what is coalesced so far."""
        run = self._run
        if run is None:
            return
        self._run = None
        header, length = run.header, len(run.header) + run.total
        _WORD.pack_into(header, 16, run.sa.header.pseudo_sum(6, length))
        size = run.sa.header.size
        segments = len(run.data)
        vnet = _VNET.pack(
            _NEEDS_CSUM, _GSO_TCP[size] if segments > 1 else 0, size + len(header), run.size if segments > 1 else 0,
            size, 16,
        )  # fmt: skip
        write([vnet + run.sa.header.write(6, length) + header, *run.data])

    def _tcp(self, sa: Inbound, payload: memoryview, plane: Plane, write: Write) -> None:
        ports, sequence, ack, word, window, urgent = _TCP.unpack_from(payload)
        start = word >> 12 << 2
        size = len(payload) - start
        push, word = word & _PSH, word & ~_PSH
        run = self._run
        if (
            run is not None
            and sequence == run.next
            and sa is run.sa
            and ports == run.ports
            and ack == run.ack
            and word == run.word
            and window == run.window
            and not urgent
            and 0 < size <= run.size
            and run.total + size + 120 <= LARGEST
            and (start == 20 or payload[20:start] == run.header[20:])
        ):
            run.data.append(payload[start:])
            run.next = sequence + size & 0xFFFF_FFFF
            run.total += size
            if push:
                run.header[13] |= _PSH
            if push or size < run.size:
                self.flush(write)
            return
        self.flush(write)
        if not self._admits(sa, IPProtocol.TCP, payload, plane):
            return
        if size <= 0 or word & 0xFFF != _ACK or urgent or push or start < 20:
            self._write_one(sa, 6, payload, write)
            return
        run = self._run = Run()
        run.sa, run.ports, run.ack, run.word, run.window = sa, ports, ack, word, window
        run.header, run.next, run.size = bytearray(payload[:start]), sequence + size & 0xFFFF_FFFF, size
        run.total, run.data = size, [payload[start:]]

    def _admits(self, sa: Inbound, next_header: int, payload: memoryview, plane: Plane) -> bool:
        """Whether the inner packet is let in; remembered by its ports."""
        key = (sa.sa.spi, next_header, bytes(payload[:4])) if next_header in PORTED else None
        if key is not None and key in plane.admitted:
            return True
        if plane.admit(sa, memoryview(sa.header.write(next_header, len(payload)) + payload)) is None:
            return False
        if key is not None:
            plane.remember(key)
        return True

    def _admitted_length(self, sa: Inbound, packet: memoryview, plane: Plane) -> int:
        """Octets of an inner packet that is let in, without the padding that may follow it; 0 if it is not."""
        flow = flow_key(packet)
        key = (sa.sa.spi, *flow) if flow else None
        if key is None or key not in plane.admitted:
            inner = plane.admit(sa, packet)
            if inner is not None and key is not None:
                plane.remember(key)
            return inner.length if inner else 0
        length: int = packet[2] << 8 | packet[3] if packet[0] == 0x45 else 40 + (packet[4] << 8 | packet[5])
        if 24 <= length <= len(packet):
            return length
        plane.counters[Cause.IN_HEADER] += 1
        return 0

    def _write_one(self, sa: Inbound, next_header: int, payload: memoryview, write: Write) -> None:
        """A packet by itself.  The kernel sums TCP and UDP anew (RFC 3948 s3.1.2)."""
        vnet, header = _PLAIN, sa.header.write(next_header, len(payload))
        at = checksum_at(next_header, payload)
        if at is not None:
            _WORD.pack_into(payload, at, sa.header.pseudo_sum(next_header, len(payload)))
            vnet = _VNET.pack(_NEEDS_CSUM, 0, 0, 0, len(header), at)
        write([vnet + header, payload])
