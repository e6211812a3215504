"""The ciphers of ESP, working in place on one frame (RFC 4303 s2, RFC 4106, RFC 7634, RFC 3602, RFC 4868).

A frame is one ESP packet from its SPI to its ICV.  Whoever seals puts the payload where it will lie, so that no octet
is copied between the TUN read and the UDP send.
"""

import hmac
import struct
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from hushwire.entropy import Entropy
from hushwire.policy.sad import SA
from hushwire.wire.registry import EncrID, IntegID


class BadFrame(Exception):
    """The ICV is wrong, or what it protects is no ESP payload."""


class Unsupported(Exception):
    """This suite, or a key of this length, is not computed here."""


class Transform(Protocol):
    """The cipher of one SA."""

    header: int
    """Octets before the payload: SPI, sequence number, IV."""

    def sealed_length(self, payload: int) -> int:
        """The frame's length for so many octets of payload."""
        ...

    def seal(self, frame: memoryview, payload: int, next_header: int, sequence: int) -> None:
        """Make an ESP packet of `frame`, which holds `payload` octets at `header`, and is exactly long enough."""
        ...

    def open(self, frame: memoryview, sequence: int) -> tuple[int, memoryview]:
        """Next header and payload, decrypted where they lie.  Raises BadFrame."""
        ...


def transform(sa: SA, entropy: Entropy) -> Transform:
    """The cipher that an SA asks for.  Raises Unsupported."""
    suite, key, integ_key = sa.suite, sa.encr_key.expose(), sa.integ_key.expose()
    if suite.encr in (EncrID.AES_GCM_16, EncrID.CHACHA20_POLY1305):
        if suite.integ or integ_key:
            raise Unsupported(f"{suite}: an AEAD takes no integrity transform")
        if len(key) * 8 != suite.key_bits + 32 or suite.key_bits not in _AEAD_BITS[suite.encr]:
            raise Unsupported(f"{suite}: {len(key)} octets of key and salt")
        cipher = AESGCM if suite.encr is EncrID.AES_GCM_16 else ChaCha20Poly1305
        return Aead(cipher(key[:-4]), key[-4:], sa.spi, suite.esn)
    if suite.encr is EncrID.AES_CBC and suite.integ in _HMAC:
        digest, key_length, icv = _HMAC[suite.integ]
        if len(key) * 8 != suite.key_bits or suite.key_bits not in (128, 192, 256) or len(integ_key) != key_length:
            raise Unsupported(f"{suite}: keys of {len(key)} and {len(integ_key)} octets")
        return CbcHmac(key, integ_key, digest, icv, sa.spi, suite.esn, entropy)
    raise Unsupported(f"{suite} is not computed here")


_AEAD_BITS = {EncrID.AES_GCM_16: (128, 192, 256), EncrID.CHACHA20_POLY1305: (256,)}
# RFC 4868 s2.6: key as long as the hash, ICV half of it.
_HMAC = {
    IntegID.HMAC_SHA2_256_128: ("sha256", 32, 16),
    IntegID.HMAC_SHA2_384_192: ("sha384", 48, 24),
    IntegID.HMAC_SHA2_512_256: ("sha512", 64, 32),
}

HEADER = struct.Struct(">II")
"""SPI, and the low half of the sequence number."""
_COUNTER_HEADER = struct.Struct(">IIQ")
_NONCE = struct.Struct(">4sQ")
_ESN_ASSOCIATED = struct.Struct(">IQ")
_LOW = 0xFFFF_FFFF

# RFC 4303 s2.4: padding is 1, 2, 3, ...; one slice holds every pad there is, and every trailer begins with one.
PADDING = bytes(range(1, 256))


class Aead:
    """AES-GCM with a 16-octet ICV (RFC 4106) or ChaCha20-Poly1305 (RFC 7634): laid out alike.

    The IV is the sequence number, so a (key, nonce) pair cannot come twice while the sequence number does not
    (RFC 4106 s3.1, RFC 7634 s2); the salt is the key's tail (RFC 4106 s4).
    """

    __slots__ = ("_cipher", "_decrypt", "_encrypt", "_esn", "_salt", "_spi", "_trailers", "header")

    _ICV = 16

    def __init__(self, cipher: AESGCM | ChaCha20Poly1305, salt: bytes, spi: int, esn: bool) -> None:
        self.header = 16
        self._encrypt, self._decrypt = cipher.encrypt_into, cipher.decrypt_into
        self._salt, self._spi, self._esn = salt, spi, esn
        self._trailers: dict[int, list[bytes]] = {}

    def sealed_length(self, payload: int) -> int:
        return 16 + (payload + 5 & -4) + 16  # RFC 4303 s2.4: the trailer ends on a 4-octet boundary.

    def seal(self, frame: memoryview, payload: int, next_header: int, sequence: int) -> None:
        _COUNTER_HEADER.pack_into(frame, 0, self._spi, sequence & _LOW, sequence)
        trailers = self._trailers.get(next_header)
        if trailers is None:
            trailers = [PADDING[:pad] + bytes((pad, next_header)) for pad in (2, 1, 0, 3)]
            self._trailers[next_header] = trailers
        frame[16 + payload : -16] = trailers[payload & 3]
        associated = _ESN_ASSOCIATED.pack(self._spi, sequence) if self._esn else frame[:8]
        self._encrypt(_NONCE.pack(self._salt, sequence), frame[16:-16], associated, frame[16:])

    def open(self, frame: memoryview, sequence: int) -> tuple[int, memoryview]:
        length = len(frame)
        if length < 34 or length & 3:
            raise BadFrame("length")
        associated = _ESN_ASSOCIATED.pack(self._spi, sequence) if self._esn else frame[:8]
        plain = frame[16:-16]
        try:
            self._decrypt(self._salt + frame[8:16], frame[16:], associated, plain)
        except InvalidTag:
            raise BadFrame("ICV") from None
        return _unpad(plain)


class CbcHmac:
    """AES-CBC (RFC 3602) with HMAC-SHA2 (RFC 4868), encrypt then MAC."""

    __slots__ = ("_digest", "_entropy", "_esn", "_icv", "_integ_key", "_key", "_spi", "header")

    def __init__(
        self, key: bytes, integ_key: bytes, digest: str, icv: int, spi: int, esn: bool, entropy: Entropy
    ) -> None:
        self.header = 24
        self._key, self._integ_key, self._digest, self._icv = algorithms.AES(key), integ_key, digest, icv
        self._spi, self._esn, self._entropy = spi, esn, entropy

    def sealed_length(self, payload: int) -> int:
        return 24 + (payload + 17 & -16) + self._icv

    def seal(self, frame: memoryview, payload: int, next_header: int, sequence: int) -> None:
        HEADER.pack_into(frame, 0, self._spi, sequence & _LOW)
        frame[8:24] = self._entropy.public(16)  # RFC 3602 s3: not predictable.
        plain, pad = frame[24 : -self._icv], -(payload + 2) % 16
        plain[payload:] = PADDING[:pad] + bytes((pad, next_header))
        encryptor = Cipher(self._key, modes.CBC(bytes(frame[8:24]))).encryptor()
        plain[:] = encryptor.update(plain) + encryptor.finalize()
        frame[-self._icv :] = self._mac(frame, sequence)

    def open(self, frame: memoryview, sequence: int) -> tuple[int, memoryview]:
        plain = frame[24 : -self._icv]
        if not plain or len(plain) % 16:
            raise BadFrame("length")
        if not hmac.compare_digest(frame[-self._icv :], self._mac(frame, sequence)):
            raise BadFrame("ICV")
        decryptor = Cipher(self._key, modes.CBC(bytes(frame[8:24]))).decryptor()
        plain[:] = decryptor.update(plain) + decryptor.finalize()
        return _unpad(plain)

    def _mac(self, frame: memoryview, sequence: int) -> bytes:
        mac = hmac.new(self._integ_key, frame[: -self._icv], self._digest)
        if self._esn:  # RFC 4303 s3.3.2.1: the high half is authenticated, not sent.
            mac.update((sequence >> 32).to_bytes(4, "big"))
        return mac.digest()[: self._icv]


def _unpad(plain: memoryview) -> tuple[int, memoryview]:
    """Next header and payload.  RFC 4303 s2.4: the receiver inspects the padding."""
    pad = plain[-2]
    if not pad:
        return plain[-1], plain[:-2]
    end = len(plain) - 2 - pad
    if end < 0 or plain[end:-2] != PADDING[:pad]:
        raise BadFrame("padding")
    return plain[-1], plain[:end]
