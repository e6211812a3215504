"""Identity keys: RFC 7670 (raw public keys), RFC 8017 A.1 (RSA), RFC 5480 (ECDSA), RFC 8410 (EdDSA).

RSA keys have 2048 to 4096 bits and an exponent between 2^16 and 2^64: with exponents of 1 and 3 signatures have been
forged wherever a verifier was lax, and longer moduli and exponents let a stranger make us the slow side.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from hushwire.crypto.secret import Secret
from hushwire.wire.registry import CertEncoding

AnyPublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
AnyPrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey


class BadKey(ValueError):
    """Octets that are no key we use; the text says why, and never quotes them."""


class KeyKind(Enum):
    """What a key can sign with."""

    RSA = "rsa"
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"
    ECDSA_P521 = "ecdsa-p521"
    ED25519 = "ed25519"
    ED448 = "ed448"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, repr=False)
class PublicKey:
    """A public key of a kind and size we use.  Two are equal when their DER is: one key has one form."""

    spki: bytes
    """Its SubjectPublicKeyInfo, in DER."""
    kind: KeyKind = field(compare=False)
    key: AnyPublicKey = field(compare=False)
    """As the library has it."""

    @classmethod
    def read(cls, spki: bytes) -> "PublicKey":
        """From SubjectPublicKeyInfo (RFC 5280 s4.1.2.7), or BadKey.  Uncompressed points and named curves only."""
        public = cls._load(spki)
        # Only what we would write ourselves is read, so that a fingerprint names a key and a key has one fingerprint.
        if public.spki != spki:
            raise BadKey("not the canonical SubjectPublicKeyInfo of its key")
        return public

    @classmethod
    def read_pkcs1(cls, der: bytes) -> "PublicKey":
        """From an RSAPublicKey (RFC 8017 A.1.1), or BadKey."""
        public = cls._load(der)
        if public.write_pkcs1() != der:
            raise BadKey("not the canonical RSAPublicKey of its key")
        return public

    def write_pkcs1(self) -> bytes:
        """As an RSAPublicKey; BadKey when it is no RSA key."""
        if self.kind != KeyKind.RSA:
            raise BadKey(f"a key of kind {self.kind} has no RSAPublicKey form")
        return self.key.public_bytes(Encoding.DER, PublicFormat.PKCS1)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return hashlib.sha256(self.spki).digest()

    def __repr__(self) -> str:
        return f"<PublicKey {self.kind} {self.fingerprint.hex()}>"

    @classmethod
    def _load(cls, der: bytes) -> "PublicKey":
        try:
            key = load_der_public_key(der)
            return cls.of(key)
        except BadKey:
            raise
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("no public key that the library reads") from None

    @classmethod
    def of(cls, key: object) -> "PublicKey":
        """From the library's key, or BadKey."""
        if not isinstance(key, AnyPublicKey):
            raise BadKey(f"keys of type {type(key).__name__} are not used")
        return cls(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), _kind(key), key)


class PrivateKey:
    """A host's identity.  Its repr is its public key's fingerprint; `write_pem` alone gives it away."""

    __slots__ = ("key", "public")

    def __init__(self, key: AnyPrivateKey) -> None:
        self.key = key
        self.public = PublicKey.of(key.public_key())

    @classmethod
    def generate(cls, kind: KeyKind) -> "PrivateKey":
        """A fresh key, from the operating system's randomness.  RSA: 3072 bits (RFC 8247 s4.1.1)."""
        match kind:
            case KeyKind.RSA:
                return cls(generate_rsa_key(65537, 3072))
            case KeyKind.ED25519:
                return cls(Ed25519PrivateKey.generate())
            case KeyKind.ED448:
                return cls(Ed448PrivateKey.generate())
            case _:
                return cls(generate_private_key(_CURVES[kind]))

    @classmethod
    def from_seed(cls, seed: Secret) -> "PrivateKey":
        """The Ed25519 key of 32 octets (RFC 8032 s5.1.5): for simulated hosts, whose runs repeat."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed.expose()))

    @classmethod
    def read_pem(cls, pem: bytes) -> "PrivateKey":
        """From PKCS#8 (RFC 5958), SEC 1 (RFC 5915) or PKCS#1 in PEM, not encrypted; or BadKey."""
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("no private key in PEM, or an encrypted one") from None
        if not isinstance(key, AnyPrivateKey):
            raise BadKey(f"keys of type {type(key).__name__} are not used")
        return cls(key)

    def write_pem(self) -> Secret:
        """As PKCS#8 in PEM, not encrypted."""
        return Secret(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def kind(self) -> KeyKind:
        return self.public.kind

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a PrivateKey is not pickled")


def public_key_from_cert(encoding: CertEncoding, data: bytes) -> PublicKey:
    """The key in a Certificate payload, or BadKey.  Certificates proper are not read (DESIGN.md law 9)."""
    match encoding:
        case CertEncoding.RAW_PUBLIC_KEY:
            return PublicKey.read(data)
        case CertEncoding.RAW_RSA_KEY:
            return PublicKey.read_pkcs1(data)
        case CertEncoding.OPENIKED_ECDSA:
            # OpenBSD's iked sends its ECDSA keys so, as SubjectPublicKeyInfo; it is of private use.
            public = PublicKey.read(data)
            if public.kind not in _CURVES:
                raise BadKey(f"a key of kind {public.kind} in a certificate payload for ECDSA")
            return public
    raise BadKey(f"certificate encoding {encoding.name} is not read")


def cert_from_public_key(key: PublicKey, encoding: CertEncoding) -> bytes:
    """A Certificate payload's data for a key, or BadKey when that encoding cannot say it."""
    match encoding:
        case CertEncoding.RAW_PUBLIC_KEY:
            return key.spki
        case CertEncoding.RAW_RSA_KEY:
            return key.write_pkcs1()
        case CertEncoding.OPENIKED_ECDSA if key.kind in _CURVES:
            return key.spki
    raise BadKey(f"certificate encoding {encoding.name} is not written for a key of kind {key.kind}")


def _kind(key: AnyPublicKey) -> KeyKind:
    match key:
        case Ed25519PublicKey():
            _check_eddsa(key, _P25519, _LOW_ORDER_25519)
            return KeyKind.ED25519
        case Ed448PublicKey():
            _check_eddsa(key, _P448, _LOW_ORDER_448)
            return KeyKind.ED448
        case EllipticCurvePublicKey():
            for kind, curve in _CURVES.items():
                if isinstance(key.curve, type(curve)):
                    return kind
            raise BadKey(f"curve {key.curve.name} is not used")
        case RSAPublicKey():
            _check_rsa(key)
            return KeyKind.RSA


def _check_eddsa(key: Ed25519PublicKey | Ed448PublicKey, prime: int, low_order: frozenset[int]) -> None:
    """A signature under a key of low order needs no private key: such a key would be everybody's."""
    octets = key.public_bytes_raw()
    # RFC 8032 s5.1.2, s5.2.2: y, little-endian, and on top of it the sign of x.
    y = int.from_bytes(octets, "little") & (1 << 8 * len(octets) - 1) - 1
    if y >= prime or y in low_order:
        raise BadKey("EdDSA point of low order, or not in its one form")


def _check_rsa(key: RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise BadKey(f"RSA modulus of {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    numbers = key.public_numbers()
    # FIPS 186-5 A.1.1: the exponent is odd, which the library sees to, and above 2^16.
    if not 1 << 16 < numbers.e < 1 << 64 or numbers.n % 2 == 0:
        raise BadKey("RSA exponent not between 2^16 and 2^64, or an even modulus")


MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096

_P25519, _P448 = 2**255 - 19, 2**448 - 2**224 - 1
_Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_LOW_ORDER_25519 = frozenset({0, 1, _P25519 - 1, _Y8, _P25519 - _Y8})
_LOW_ORDER_448 = frozenset({0, 1, _P448 - 1})
"""The y of each point whose order divides the cofactor: 8, and 4."""

_CURVES = {
    KeyKind.ECDSA_P256: SECP256R1(),
    KeyKind.ECDSA_P384: SECP384R1(),
    KeyKind.ECDSA_P521: SECP521R1(),
}
