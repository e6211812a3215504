"""Suites: one row per algorithm that we can compute; nothing else is ever negotiated (RFC 7296 s3.3, RFC 8247)."""

from dataclasses import dataclass

from hushwire.wire.registry import EncrID, IntegID, KeID, PrfID


@dataclass(frozen=True, slots=True)
class IkeSuite:
    """The transforms of an IKE SA.  One that exists can be computed; any other raises ValueError."""

    encr: EncrID
    key_bits: int
    """Length of the cipher's key in bits, salt not counted: 128, 192 or 256."""
    integ: IntegID
    """NONE with an AEAD, and only then (RFC 5282 s8)."""
    prf: PrfID
    ke: KeID

    def __post_init__(self) -> None:
        known = can_encrypt(self.encr, self.key_bits, self.integ) and self.prf in PRF and self.ke in KE
        if not known:
            raise ValueError(f"no suite of ours: {self}")

    def __str__(self) -> str:
        integ = f"/{self.integ.name}" if self.integ else ""
        return f"{self.encr.name}-{self.key_bits}{integ}/{self.prf.name}/{self.ke.name}"


def can_encrypt(encr: EncrID, key_bits: int, integ: IntegID) -> bool:
    """Do we compute this cipher with this integrity algorithm?  An AEAD goes with NONE, another cipher with an HMAC."""
    row = ENCR.get(encr)
    return row is not None and key_bits in row.key_bits and (integ == IntegID.NONE if row.aead else integ in INTEG)


def encr_key_length(encr: EncrID, key_bits: int) -> int:
    """Octets of KEYMAT that a cipher takes: its key, then its salt (RFC 4106 s8.1, RFC 7634 s2)."""
    return key_bits // 8 + ENCR[encr].salt


def integ_key_length(integ: IntegID) -> int:
    """Octets of KEYMAT that an integrity algorithm takes; none for NONE."""
    return INTEG[integ].key if integ else 0


@dataclass(frozen=True, slots=True)
class Encr:
    """A cipher.  Lengths in octets."""

    key_bits: tuple[int, ...]
    """Key lengths we use, in bits."""
    salt: int
    """Comes after the key in KEYMAT and before the IV in the nonce."""
    iv: int
    """As sent in each message."""
    icv: int
    """0: the integrity algorithm brings its own."""
    block: int
    """What the plaintext is padded to."""

    @property
    def aead(self) -> bool:
        return self.icv > 0


@dataclass(frozen=True, slots=True)
class Prf:
    """A pseudo-random function.  With HMAC the preferred key is as long as the output (RFC 4868 s2.1.2)."""

    hash: str
    """As hashlib names it."""
    length: int
    """Octets of the output, and of the preferred key."""


@dataclass(frozen=True, slots=True)
class Integ:
    """An integrity algorithm.  Lengths in octets."""

    hash: str
    """As hashlib names it."""
    key: int
    icv: int


ENCR = {
    EncrID.AES_GCM_16: Encr(key_bits=(128, 192, 256), salt=4, iv=8, icv=16, block=1),  # RFC 4106, RFC 5282
    EncrID.CHACHA20_POLY1305: Encr(key_bits=(256,), salt=4, iv=8, icv=16, block=1),  # RFC 7634
    EncrID.AES_CBC: Encr(key_bits=(128, 192, 256), salt=0, iv=16, icv=0, block=16),  # RFC 3602
}

PRF = {  # RFC 4868
    PrfID.HMAC_SHA2_256: Prf("sha256", 32),
    PrfID.HMAC_SHA2_384: Prf("sha384", 48),
    PrfID.HMAC_SHA2_512: Prf("sha512", 64),
}

INTEG = {  # RFC 4868
    IntegID.HMAC_SHA2_256_128: Integ("sha256", key=32, icv=16),
    IntegID.HMAC_SHA2_384_192: Integ("sha384", key=48, icv=24),
    IntegID.HMAC_SHA2_512_256: Integ("sha512", key=64, icv=32),
}

KE = {
    KeID.MODP_2048: 256,  # RFC 3526
    KeID.MODP_3072: 384,
    KeID.MODP_4096: 512,
    KeID.ECP_256: 64,  # RFC 5903
    KeID.ECP_384: 96,
    KeID.ECP_521: 132,
    KeID.CURVE25519: 32,  # RFC 8031
    KeID.CURVE448: 56,
}
"""Octets of each group's public value."""
