"""Captures as tshark reads them; what it decrypts is in test_strongswan.py."""

from pathlib import Path

import pytest

from hushwire.lab.capture import PcapWriter, dissect
from hushwire.wire import ip, udp

SOURCE, DESTINATION = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))


def frame(payload: bytes) -> bytes:
    datagram = udp.write_datagram(SOURCE, DESTINATION, 40000, 9, payload)
    return bytes(12) + b"\x08\x00" + ip.write_header(SOURCE, DESTINATION, 17, len(datagram)) + datagram


@pytest.mark.lab
def test_what_is_written_is_read(tmp_path: Path) -> None:
    with PcapWriter(tmp_path / "wire.pcap") as pcap:
        assert [pcap.write(frame(payload)) for payload in (b"one", b"", bytes(60_000))] == [1, 2, 3]
        # It can be read while it is being written.
        pcap.flush()
        rows = dissect(tmp_path / "wire.pcap", "frame.number", "ip.src", "udp.length", "icmp.type", show="udp")
    assert rows == [
        {"frame.number": (number,), "ip.src": ("192.0.2.1",), "udp.length": (length,), "icmp.type": ()}
        for number, length in (("1", "11"), ("2", "8"), ("3", "60008"))
    ]
    assert dissect(tmp_path / "wire.pcap", "frame.number", show="tcp") == []


def test_a_capture_ends_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "wire.pcap"
    with PcapWriter(path, limit=250) as pcap:
        assert [pcap.write(bytes(100)) for _ in range(4)] == [1, 2, 3, 4]
        assert pcap.refused == 2
    assert path.stat().st_size == 24 + 2 * (16 + 100)


@pytest.mark.lab
def test_what_tshark_does_not_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)tshark: status 2: .*nowhere"):
        dissect(tmp_path / "nowhere.pcap", "frame.number")
    with PcapWriter(tmp_path / "wire.pcap"):
        pass
    with pytest.raises(RuntimeError, match=r"no\.such\.field"):
        dissect(tmp_path / "wire.pcap", "no.such.field")
