"""Key exchange: RFC 3526 (MODP), RFC 5903 (ECP), RFC 8031 (Curve25519 and Curve448); checks of RFC 6989."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import KE
from hushwire.entropy import Entropy
from hushwire.wire.registry import KeID

with warnings.catch_warnings():
    # The library means to drop finite-field groups one day and says so whenever these names are looked up.  Until then
    # they are there for peers without elliptic curves: OpenSSL is eight times faster than pow(), and constant in time.
    warnings.simplefilter("ignore")
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateNumbers, DHPublicNumbers


class BadKeyExchange(Exception):
    """A peer's public value that RFC 6989 s2 refuses."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyShare:
    """Our half of a key exchange, used for one IKE SA or Child SA only (RFC 7296 s2.12)."""

    group: KeID
    public: bytes
    """The Key Exchange Data of our KE payload."""
    _exchange: Callable[[bytes], bytes] = field(repr=False)

    def agree(self, peer: bytes) -> Secret:
        """g^ir, from the Key Exchange Data of the peer's KE payload."""
        if len(peer) != KE[self.group]:
            raise BadKeyExchange(f"{self.group.name}: public value of {len(peer)} octets, not {KE[self.group]}")
        try:
            return Secret(self._exchange(peer))
        except ValueError as error:
            raise BadKeyExchange(f"{self.group.name}: {error}") from None


def generate(group: KeID, entropy: Entropy) -> KeyShare:
    """A fresh share of a group in `suite.KE`."""
    if group in _MODP:
        return _modp(group, entropy)
    if group in _ECP:
        return _ecp(group, entropy)
    return _montgomery(group, entropy)


def _montgomery(group: KeID, entropy: Entropy) -> KeyShare:
    """RFC 8031 s2.  A peer's point of low order makes an all-zero secret, which the library refuses (RFC 7748 s6)."""
    octets = entropy.private(KE[group])
    if group == KeID.CURVE25519:
        x25519 = X25519PrivateKey.from_private_bytes(octets)
        public = x25519.public_key().public_bytes_raw()
        return KeyShare(group, public, lambda peer: x25519.exchange(X25519PublicKey.from_public_bytes(peer)))
    x448 = X448PrivateKey.from_private_bytes(octets)
    public = x448.public_key().public_bytes_raw()
    return KeyShare(group, public, lambda peer: x448.exchange(X448PublicKey.from_public_bytes(peer)))


def _ecp(group: KeID, entropy: Entropy) -> KeyShare:
    """RFC 5903 s7: the public value is x | y, the shared secret is x."""
    curve = _ECP[group]
    # FIPS 186-5 A.2.1: 64 bits more than the order has make the bias of the remainder negligible.
    number = int.from_bytes(entropy.private(curve.key_size // 8 + 9), "big")
    private = ec.derive_private_key(1 + number % (curve.group_order - 1), curve)
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def exchange(peer: bytes) -> bytes:
        # RFC 6989 s2.3: a point that is not on the curve is refused, which is what reading it does.
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, _UNCOMPRESSED + peer)
        return private.exchange(ec.ECDH(), point)

    return KeyShare(group, public.removeprefix(_UNCOMPRESSED), exchange)


def _modp(group: KeID, entropy: Entropy) -> KeyShare:
    """RFC 3526.  The exponent is short, of the length that its s8 estimates for the group."""
    prime, exponent_length = _MODP[group]
    parameters = DHParameterNumbers(prime, 2)
    # The top bit keeps the exponent from being zero or short.
    exponent = int.from_bytes(entropy.private(exponent_length), "big") | 1 << (8 * exponent_length - 1)
    # The library wants the public value that we are about to ask it for; it does not compute with the one given here.
    private = DHPrivateNumbers(exponent, DHPublicNumbers(4, parameters)).private_key()

    def power(base: int) -> bytes:
        # RFC 7296 s2.14: the shared secret is padded with zeros to the prime's length; so does the library.
        return private.exchange(DHPublicNumbers(base, parameters).public_key())

    def exchange(peer: bytes) -> bytes:
        number = int.from_bytes(peer, "big")
        # RFC 6989 s2.1: 0, 1 and p - 1 make secrets that anybody knows.  Exponents are not used twice.
        if not 1 < number < prime - 1:
            raise ValueError("public value is not between 1 and p - 1")
        return power(number)

    return KeyShare(group, power(2), exchange)


def _pi(bits: int) -> int:
    """[2^bits pi], by Machin's formula: the primes of RFC 3526 are written with it."""
    guard = 64
    unit = 1 << (bits + guard)

    def arctan_inverse(x: int) -> int:
        total, term, n = 0, unit // x, 1
        while term:
            total += term // n if n % 4 == 1 else -(term // n)
            term //= x * x
            n += 2
        return total

    return 4 * (4 * arctan_inverse(5) - arctan_inverse(239)) >> guard


def _prime(bits: int, offset: int) -> int:
    """RFC 3526 s3 to s5: 2^b - 2^(b - 64) - 1 + 2^64 * ([2^(b - 130) pi] + offset)."""
    return (1 << bits) - (1 << bits - 64) - 1 + (_pi(bits - 130) + offset << 64)


_MODP = {
    KeID.MODP_2048: (_prime(2048, 124476), 40),
    KeID.MODP_3072: (_prime(3072, 1690314), 52),
    KeID.MODP_4096: (_prime(4096, 240904), 60),
}
"""The prime, and octets of a private exponent (the upper estimates of RFC 3526 s8)."""

_ECP = {KeID.ECP_256: ec.SECP256R1(), KeID.ECP_384: ec.SECP384R1(), KeID.ECP_521: ec.SECP521R1()}
_UNCOMPRESSED = b"\x04"
"""The octet that SEC 1 s2.3.3 puts before x | y, and RFC 5903 does not."""
