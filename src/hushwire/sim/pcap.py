"""sim: a world's wire as a pcap file of bare IP packets, for other eyes to read."""

import struct
from collections.abc import Iterable
from typing import BinaryIO

from hushwire.sim.world import EPOCH, Frame
from hushwire.wire import ip, udp
from hushwire.wire.registry import IPProtocol


def write_pcap(frames: Iterable[Frame], file: BinaryIO) -> None:
    """Every frame once, as its sender sent it, at the world's wall time."""
    file.write(_FILE_HEADER.pack(0xA1B23C4D, 2, 4, 0, 0, 1 << 18, _RAW_IP))
    for frame in frames:
        packet = _packet(frame)
        seconds, fraction = divmod(EPOCH + frame.time, 1)
        file.write(_FRAME_HEADER.pack(int(seconds), int(fraction * 1e9), len(packet), len(packet)) + packet)


def _packet(frame: Frame) -> bytes:
    if frame.clear:
        return frame.data
    source, destination = frame.source.address.packed, frame.destination.address.packed
    segment = udp.write_datagram(source, destination, frame.source.port, frame.destination.port, frame.data)
    return ip.write_header(source, destination, IPProtocol.UDP, len(segment)) + segment


_FILE_HEADER = struct.Struct("=IHHiIII")
_FRAME_HEADER = struct.Struct("=IIII")
_RAW_IP = 101
"""LINKTYPE_RAW: a packet begins with its IP header."""
