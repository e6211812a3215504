"""Captures: written by the relay as pcap files, read by tshark, which decrypts what it is given the keys of."""

import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hushwire.crypto.secret import Secret
from hushwire.wire.address import IPAddress


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


@dataclass(frozen=True, slots=True)
class IkeDecryption:
    """What tshark needs to read an IKE SA."""

    spi_i: bytes
    spi_r: bytes
    encr: str
    """A key of CIPHERS."""
    ei: Secret
    """SK_ei; with an AEAD its salt too, as it is in the key material."""
    er: Secret
    integ: str | None = None
    """A key of INTEGRITY; None with an AEAD."""
    ai: Secret | None = None
    ar: Secret | None = None


@dataclass(frozen=True, slots=True)
class EspDecryption:
    """What tshark needs to read an ESP SA."""

    source: IPAddress
    destination: IPAddress
    spi: int
    encr: str
    key: Secret
    integ: str | None = None
    integ_key: Secret | None = None


def dissect(
    pcap: Path,
    *fields: str,
    show: str = "",
    ike: Iterable[IkeDecryption] = (),
    esp: Iterable[EspDecryption] = (),
) -> list[dict[str, tuple[str, ...]]]:
    """The fields of each frame that the display filter `show` lets pass, as tshark writes them.

    A field has as many values as it occurs, those in what was decrypted included.  tshark decrypts AES-GCM even if
    the ICV does not verify: wrong keys show as nonsense, not as an error.
    """
    with tempfile.TemporaryDirectory(prefix="hushwire-tshark-") as folder:
        tables = {"ikev2_decryption_table": map(_ike_row, ike), "esp_sa": map(_esp_row, esp)}
        for table, rows in tables.items():
            (Path(folder) / table).write_text("".join(f"{row}\n" for row in rows))
        wanted = [word for field in fields for word in ("-e", field)]
        done = subprocess.run(
            (
                "tshark", "-r", str(pcap), "-Y", show, "-o", "esp.enable_encryption_decode:TRUE",
                "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=,", *wanted,
            ),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            env={"PATH": os.environ["PATH"], "HOME": folder, "WIRESHARK_CONFIG_DIR": folder},
        )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"tshark: status {done.returncode}: {done.stderr.strip()}")
    return [
        {field: tuple(filter(None, value.split(","))) for field, value in zip(fields, line.split("\t"), strict=True)}
        for line in done.stdout.splitlines()
    ]


def _ike_row(sa: IkeDecryption) -> str:
    integ = "NONE [RFC4306]" if sa.integ is None else INTEGRITY[sa.integ][0]
    cipher = f'"{CIPHERS[sa.encr][0]}"'
    keys = _hex(sa.ei), _hex(sa.er), cipher, _hex(sa.ai), _hex(sa.ar)
    return ",".join((sa.spi_i.hex(), sa.spi_r.hex(), *keys, f'"{integ}"'))


def _esp_row(sa: EspDecryption) -> str:
    integ = "NULL" if sa.integ is None else INTEGRITY[sa.integ][1]
    selector = f"IPv{sa.source.version}", sa.source, sa.destination, f"0x{sa.spi:08x}"
    keys = CIPHERS[sa.encr][1], _hex(sa.key, "0x"), integ, _hex(sa.integ_key, "0x")
    return ",".join(f'"{word}"' for word in (*selector, *keys))


def _hex(secret: Secret | None, prefix: str = "") -> str:
    return "" if secret is None else prefix + secret.expose().hex()


CIPHERS = {
    "aes128gcm16": ("AES-GCM-128 with 16 octet ICV [RFC5282]", "AES-GCM with 16 octet ICV [RFC4106]"),
    "aes256gcm16": ("AES-GCM-256 with 16 octet ICV [RFC5282]", "AES-GCM with 16 octet ICV [RFC4106]"),
    "aes128": ("AES-CBC-128 [RFC3602]", "AES-CBC [RFC3602]"),
    "aes256": ("AES-CBC-256 [RFC3602]", "AES-CBC [RFC3602]"),
}
"""What tshark 4.0 calls what strongSwan calls so: in IKE, in ESP."""

INTEGRITY = {
    "sha256": ("HMAC_SHA2_256_128 [RFC4868]", "HMAC-SHA-256-128 [RFC4868]"),
    "sha384": ("HMAC_SHA2_384_192 [RFC4868]", "HMAC-SHA-384-192 [RFC4868]"),
    "sha512": ("HMAC_SHA2_512_256 [RFC4868]", "HMAC-SHA-512-256 [RFC4868]"),
}

_FILE_HEADER = struct.Struct("=IHHiIII")
_FRAME_HEADER = struct.Struct("=IIII")
_ETHERNET = 1
