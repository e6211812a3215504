"""The Encrypted payload's cipher: RFC 7296 s3.14, RFC 5282 (AES-GCM), RFC 7634 (ChaCha20-Poly1305), RFC 7383 s2.5."""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import ENCR, INTEG, IkeSuite, encr_key_length, integ_key_length
from hushwire.entropy import Entropy
from hushwire.wire.registry import EncrID, IntegID


class IntegrityError(Exception):
    """A sealed body that the holder of the keys did not make, or made against RFC 7296 s3.14."""


class IkeCipher:
    """One direction of an IKE SA.  What is sealed is IV | ciphertext | ICV: the body of an SK or SKF payload."""

    def __init__(self, suite: IkeSuite, encr_key: Secret, integ_key: Secret, entropy: Entropy) -> None:
        if len(encr_key) != encr_key_length(suite.encr, suite.key_bits):
            raise ValueError(f"SK_e of {len(encr_key)} octets for {suite}")
        if len(integ_key) != integ_key_length(suite.integ):
            raise ValueError(f"SK_a of {len(integ_key)} octets for {suite}")
        row = ENCR[suite.encr]
        self._suite: _Aead | _EncryptThenMac
        if row.aead:
            self._suite = _Aead(suite.encr, encr_key)
        else:
            self._suite = _EncryptThenMac(suite.integ, encr_key, integ_key, entropy)
        self._block = row.block
        self._overhead = row.iv + (row.icv or INTEG[suite.integ].icv)

    def sealed_length(self, length: int) -> int:
        """Octets that `length` octets of payloads become: IV, payloads, padding, Pad Length and ICV."""
        return self._overhead + length + 1 + self._padding(length)

    def seal(self, associated: bytes, plaintext: bytes) -> bytes:
        """Encrypt payloads.  `associated` is the message up to this body: IKE header to SK or SKF header."""
        padding = self._padding(len(plaintext))
        return self._suite.seal(associated, plaintext + bytes(padding) + bytes((padding,)))

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        """The payloads, or IntegrityError."""
        if len(sealed) < self._overhead + 1:
            raise IntegrityError(f"sealed body of {len(sealed)} octets")
        padded = self._suite.open(associated, sealed)
        # RFC 7296 s3.14: the padding's content is the sender's choice and is not looked at.
        length = len(padded) - 1 - padded[-1]
        if length < 0:
            raise IntegrityError(f"Pad Length {padded[-1]} in {len(padded)} octets")
        return padded[:length]

    def _padding(self, length: int) -> int:
        return -(length + 1) % self._block


class _Aead:
    """RFC 5282 s3, s4: nonce = salt | IV, where the IV counts messages."""

    def __init__(self, encr: EncrID, key: Secret) -> None:
        row, octets = ENCR[encr], key.expose()
        self._salt = octets[-row.salt :]
        self._iv_length = row.iv
        self._cipher = _AEAD[encr](octets[: -row.salt])
        # RFC 5282 s3.1: a counter is unique, and that suffices.  It may start at 1 because no key outlives the process.
        self._sealed = 0

    def seal(self, associated: bytes, padded: bytes) -> bytes:
        self._sealed += 1
        iv = self._sealed.to_bytes(self._iv_length, "big")
        return iv + self._cipher.encrypt(self._salt + iv, padded, associated)

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        iv, ciphertext = sealed[: self._iv_length], sealed[self._iv_length :]
        try:
            return self._cipher.decrypt(self._salt + iv, ciphertext, associated)
        except InvalidTag:
            raise IntegrityError("ICV is wrong") from None


class _EncryptThenMac:
    """AES-CBC, then HMAC over the message from its first octet to the last before the ICV (RFC 7296 s3.14)."""

    def __init__(self, integ: IntegID, encr_key: Secret, integ_key: Secret, entropy: Entropy) -> None:
        row = INTEG[integ]
        self._aes = AES(encr_key.expose())
        self._mac_key = integ_key
        self._hash, self._icv_length = row.hash, row.icv
        self._entropy = entropy

    def seal(self, associated: bytes, padded: bytes) -> bytes:
        # RFC 7296 s3.14: the sender must choose an unpredictable IV for each message.
        iv = self._entropy.public(_BLOCK)
        encryptor = Cipher(self._aes, CBC(iv)).encryptor()
        body = iv + encryptor.update(padded) + encryptor.finalize()
        return body + self._icv(associated, body)

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        body, icv = sealed[: -self._icv_length], sealed[-self._icv_length :]
        # The ICV comes before anything that depends on the plaintext, so padding is no oracle.
        if not hmac.compare_digest(icv, self._icv(associated, body)):
            raise IntegrityError("ICV is wrong")
        if len(body) % _BLOCK:
            raise IntegrityError(f"ciphertext of {len(body) - _BLOCK} octets is not whole blocks")
        decryptor = Cipher(self._aes, CBC(body[:_BLOCK])).decryptor()
        return decryptor.update(body[_BLOCK:]) + decryptor.finalize()

    def _icv(self, associated: bytes, body: bytes) -> bytes:
        return hmac.digest(self._mac_key.expose(), associated + body, self._hash)[: self._icv_length]


_AEAD: dict[EncrID, type[AESGCM] | type[ChaCha20Poly1305]] = {
    EncrID.AES_GCM_16: AESGCM,
    EncrID.CHACHA20_POLY1305: ChaCha20Poly1305,
}
_BLOCK = 16
"""Octets of an AES block, and of a CBC IV."""
