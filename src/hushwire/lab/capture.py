"""Captures: written by the relay as pcap files, read by tshark, which decrypts what it is given the keys of."""

import struct
import time
from pathlib import Path
from types import TracebackType


class PcapWriter:
    """A pcap file of Ethernet frames, with nanoseconds, that ends in time."""

    def __init__(self, path: Path, limit: int = 1 << 30) -> None:
        """`limit`: octets, after which frames are refused."""
        self._file = path.open("wb", buffering=1 << 20)
        self._left = limit
        self._number = 0
        self.refused = 0
        self._file.write(_FILE_HEADER.pack(0xA1B23C4D, 2, 4, 0, 0, 1 << 18, _ETHERNET))
        self.flush()

    def __enter__(self) -> "PcapWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, frame: bytes) -> int:
        """Record a frame as of now; returns its number, from 1."""
        self._number += 1
        self._left -= len(frame)
        if self._left < 0:
            self.refused += 1
        else:
            seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
            self._file.write(_FRAME_HEADER.pack(seconds, nanoseconds, len(frame), len(frame)) + frame)
        return self._number

    def flush(self) -> None:
        """Let readers see everything."""
        self._file.flush()


_FILE_HEADER = struct.Struct("=IHHiIII")
_FRAME_HEADER = struct.Struct("=IIII")
_ETHERNET = 1
