"""AUTH: RFC 7296 s2.15 and s3.8, RFC 7427 (digital signature), RFC 4754 (ECDSA), RFC 8420 (EdDSA), RFC 7619 (NULL).

Signatures with SHA-1 or MD5 are neither made nor accepted, whatever the method (SLOTH; RFC 8247 s4.2).  That includes
method 1: RFC 7296 s3.8 makes SHA-1 its default but leaves the hash open, and ours is always SHA-2.
"""

import hmac
from collections.abc import Set
from dataclasses import InitVar, dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes as digests
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from hushwire.crypto import algorithm
from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.prf import prf
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import PRF
from hushwire.wire.registry import AuthMethod, HashID, PrfID

SHA2_256, SHA2_384, SHA2_512 = HashID.SHA2_256, HashID.SHA2_384, HashID.SHA2_512

SUPPORTED_HASHES = frozenset({SHA2_256, SHA2_384, SHA2_512, HashID.IDENTITY})
"""What our SIGNATURE_HASH_ALGORITHMS notify says (RFC 7427 s4)."""

_DIGITAL = AuthMethod.DIGITAL_SIGNATURE
_ECDSA = frozenset({KeyKind.ECDSA_P256, KeyKind.ECDSA_P384, KeyKind.ECDSA_P521})
_RSA = frozenset({KeyKind.RSA})


class AuthenticationFailed(Exception):
    """AUTH that proves nothing; the text says why, for our own log (RFC 7296 s2.21.2: the peer is told no more)."""


class Scheme(Enum):
    """A way to sign AUTH octets: method, hash, the kinds of key that can, and the identifiers it is known by."""

    ED25519 = (_DIGITAL, HashID.IDENTITY, frozenset({KeyKind.ED25519}), algorithm.ed25519())
    ED448 = (_DIGITAL, HashID.IDENTITY, frozenset({KeyKind.ED448}), algorithm.ed448())
    ECDSA_SHA2_256 = (_DIGITAL, SHA2_256, _ECDSA, algorithm.ecdsa(SHA2_256))
    ECDSA_SHA2_384 = (_DIGITAL, SHA2_384, _ECDSA, algorithm.ecdsa(SHA2_384))
    ECDSA_SHA2_512 = (_DIGITAL, SHA2_512, _ECDSA, algorithm.ecdsa(SHA2_512))
    RSA_PSS_SHA2_256 = (_DIGITAL, SHA2_256, _RSA, algorithm.rsa_pss(SHA2_256, trailer=False))
    RSA_PSS_SHA2_384 = (_DIGITAL, SHA2_384, _RSA, algorithm.rsa_pss(SHA2_384, trailer=False))
    RSA_PSS_SHA2_512 = (_DIGITAL, SHA2_512, _RSA, algorithm.rsa_pss(SHA2_512, trailer=False))
    RSA_PKCS1_SHA2_256 = (_DIGITAL, SHA2_256, _RSA, algorithm.rsa_pkcs1(SHA2_256))
    RSA_PKCS1_SHA2_384 = (_DIGITAL, SHA2_384, _RSA, algorithm.rsa_pkcs1(SHA2_384))
    RSA_PKCS1_SHA2_512 = (_DIGITAL, SHA2_512, _RSA, algorithm.rsa_pkcs1(SHA2_512))
    ECDSA_256 = (AuthMethod.ECDSA_256, SHA2_256, frozenset({KeyKind.ECDSA_P256}), b"")
    ECDSA_384 = (AuthMethod.ECDSA_384, SHA2_384, frozenset({KeyKind.ECDSA_P384}), b"")
    ECDSA_521 = (AuthMethod.ECDSA_521, SHA2_512, frozenset({KeyKind.ECDSA_P521}), b"")
    RSA_SIGNATURE = (AuthMethod.RSA_SIGNATURE, SHA2_256, _RSA, b"")

    def __init__(self, method: AuthMethod, hash_id: HashID, kinds: frozenset[KeyKind], identifier: bytes) -> None:
        self.method = method
        self.hash_id = hash_id
        self.kinds = kinds
        self.identifier = identifier
        """The AlgorithmIdentifier that we send; empty but for method DIGITAL_SIGNATURE."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Proof that the holder of a key made an AUTH payload for the octets given.  Only this module makes it."""

    public: PublicKey | None
    """None: a shared key, or nobody's."""
    scheme: str
    """A Scheme's name, SHARED_KEY, or NULL."""
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only crypto.auth makes Verified")

    @property
    def anonymous(self) -> bool:
        """Whether it proves no more than that IKE_AUTH is of who made IKE_SA_INIT (RFC 7619 s2.1)."""
        return self.scheme == AuthMethod.NULL.name


def signed_octets(
    message: bytes, nonce: bytes, prf_id: PrfID, sk_p: Secret, identity: bytes, intermediate: bytes = b""
) -> bytes:
    """RFC 7296 s2.15: what a signer of AUTH signs.

    `message` is his IKE_SA_INIT message, `nonce` the other side's, `sk_p` his SK_pi or SK_pr, `identity` his ID
    payload's body, and `intermediate` the IntAuth of RFC 9242 s3.3.2 when there were IKE_INTERMEDIATE exchanges.
    """
    return message + nonce + prf(prf_id, sk_p, identity) + intermediate


def is_auth_octets(octets: bytes) -> bool:
    """Have octets the shape that `signed_octets` gives?  So that a keeper of keys signs nothing else."""
    if len(octets) < _HEADER:
        return False
    version, exchange, flags = octets[17], octets[18], octets[19]
    message_id, length = octets[20:24], int.from_bytes(octets[24:28], "big")
    initial = version == 0x20 and exchange == 34 and flags in (0x08, 0x20) and message_id == bytes(4)
    after = len(octets) - length
    return initial and length >= _HEADER and any(16 <= after - tail <= 256 for tail in _TAILS)


def choose_scheme(kind: KeyKind, hashes: Set[HashID] | None) -> Scheme | None:
    """The best scheme for a key and the peer's SIGNATURE_HASH_ALGORITHMS; None for `hashes`: he has no RFC 7427.

    None: this key cannot authenticate us to that peer.
    """
    for scheme in _PREFERENCE[kind]:
        if scheme.method != _DIGITAL or (hashes is not None and scheme.hash_id in hashes):
            return scheme
    return None


def sign(private: PrivateKey, scheme: Scheme, octets: bytes) -> bytes:
    """The bare signature.  All but RSA-PSS are deterministic, so that a run can be repeated."""
    if private.kind not in scheme.kinds:
        raise ValueError(f"{scheme.name} with a key of kind {private.kind}")
    match private.key:
        case RSAPrivateKey() as rsa:
            return rsa.sign(octets, _padding(scheme), _DIGEST[scheme.hash_id])
        case EllipticCurvePrivateKey() as ecdsa:
            # RFC 6979: a nonce made from key and message cannot repeat after a snapshot.
            signature = ecdsa.sign(octets, ECDSA(_DIGEST[scheme.hash_id], deterministic_signing=True))
            return signature if scheme.identifier else _raw_signature(signature, ecdsa.curve.key_size)
        case eddsa:
            return eddsa.sign(octets)


def auth_payload(scheme: Scheme, signature: bytes) -> tuple[AuthMethod, bytes]:
    """Method and data of the AUTH payload."""
    if not scheme.identifier:
        return scheme.method, signature
    # RFC 7427 s3: the identifier's length in one octet, the identifier, the signature.
    return scheme.method, bytes((len(scheme.identifier),)) + scheme.identifier + signature


def verify(public: PublicKey, method: AuthMethod, data: bytes, octets: bytes, hashes: Set[HashID]) -> Verified:
    """Proof that the holder of `public` signed `octets`, or AuthenticationFailed.

    `hashes` are those that we announced; they bound method DIGITAL_SIGNATURE only.
    """
    if method == _DIGITAL:
        scheme, signature = _read_digital_signature(data)
        if scheme.hash_id not in hashes:
            raise AuthenticationFailed(f"{scheme.name}: we did not announce {scheme.hash_id.name}")
    elif method in _BY_METHOD:
        scheme, signature = _BY_METHOD[method], data
    else:
        raise AuthenticationFailed(f"method {method.name} is no signature of ours")
    # A key is never asked about a signature of another type: the type comes of the key, not of the peer's word.
    if public.kind not in scheme.kinds:
        raise AuthenticationFailed(f"{scheme.name} with a key of kind {public.kind}")
    try:
        _verify(public, scheme, signature, octets)
    except (InvalidSignature, ValueError):
        raise AuthenticationFailed(f"{scheme.name}: the signature is wrong") from None
    return Verified(public, scheme.name, _SEAL)


def shared_key_auth(prf_id: PrfID, psk: Secret, octets: bytes) -> bytes:
    """RFC 7296 s2.15: AUTH data of method SHARED_KEY (RFC 7619 s2.1: and of NULL, with SK_pi or SK_pr for a key)."""
    return prf(prf_id, Secret(prf(prf_id, psk, b"Key Pad for IKEv2")), octets)


def verify_shared_key(prf_id: PrfID, psk: Secret, data: bytes, octets: bytes) -> Verified:
    """Proof that a holder of the shared key made `data`, or AuthenticationFailed."""
    # RFC 7296 s2.15: an empty key would authenticate anybody.
    if not len(psk):
        raise AuthenticationFailed("SHARED_KEY: the key is empty")
    return compare_shared_key(shared_key_auth(prf_id, psk, octets), data)


def compare_shared_key(expected: bytes, data: bytes) -> Verified:
    """The same, where the keeper of the key has computed what the peer's AUTH data must be."""
    if not expected or not hmac.compare_digest(data, expected):
        raise AuthenticationFailed("SHARED_KEY: the peer has another key")
    return Verified(None, AuthMethod.SHARED_KEY.name, _SEAL)


def verify_null(prf_id: PrfID, sk_p: Secret, data: bytes, octets: bytes) -> Verified:
    """Proof that whoever holds the other half of this IKE SA's keys made `data`, or AuthenticationFailed.

    `sk_p` is the maker's SK_pi or SK_pr (RFC 7619 s2.1).
    """
    if not hmac.compare_digest(data, shared_key_auth(prf_id, sk_p, octets)):
        raise AuthenticationFailed("NULL: this is not of who made IKE_SA_INIT")
    return Verified(None, AuthMethod.NULL.name, _SEAL)


def _read_digital_signature(data: bytes) -> tuple[Scheme, bytes]:
    """RFC 7427 s3."""
    identifier = data[1 : 1 + data[0]] if data else b""
    scheme = _BY_IDENTIFIER.get(identifier)
    if scheme is None:
        raise AuthenticationFailed(f"DIGITAL_SIGNATURE: unknown AlgorithmIdentifier of {len(identifier)} octets")
    return scheme, data[1 + len(identifier) :]


def _verify(public: PublicKey, scheme: Scheme, signature: bytes, octets: bytes) -> None:
    """Raises InvalidSignature or ValueError unless the signature is right."""
    match public.key:
        case RSAPublicKey() as rsa if scheme is Scheme.RSA_SIGNATURE:
            _verify_method_1(rsa, signature, octets)
        case RSAPublicKey() as rsa:
            rsa.verify(signature, octets, _padding(scheme), _DIGEST[scheme.hash_id])
        case EllipticCurvePublicKey() as ecdsa:
            der = signature if scheme.identifier else _der_signature(signature, ecdsa.curve.key_size)
            ecdsa.verify(der, octets, ECDSA(_DIGEST[scheme.hash_id]))
        case eddsa:
            eddsa.verify(signature, octets)


def _verify_method_1(rsa: RSAPublicKey, signature: bytes, octets: bytes) -> None:
    """RFC 7296 s3.8: the payload does not say the hash, so each of SHA-2 is tried; never SHA-1."""
    for digest in _DIGEST.values():
        try:
            return rsa.verify(signature, octets, PKCS1v15(), digest)
        except InvalidSignature:
            continue
    raise InvalidSignature


def _padding(scheme: Scheme) -> AsymmetricPadding:
    # RFC 7427 A.4: the salt is as long as the digest, and MGF1 uses the same hash.
    return _PSS.get(scheme) or PKCS1v15()


def _raw_signature(der: bytes, bits: int) -> bytes:
    """RFC 4754 s7: r | s, each as long as the order."""
    length = (bits + 7) // 8
    return b"".join(number.to_bytes(length, "big") for number in decode_dss_signature(der))


def _der_signature(raw: bytes, bits: int) -> bytes:
    length = (bits + 7) // 8
    if len(raw) != 2 * length:
        raise ValueError("r | s of another length")
    return encode_dss_signature(int.from_bytes(raw[:length], "big"), int.from_bytes(raw[length:], "big"))


_SEAL = object()
_HEADER = 28
"""Octets of the IKE header (RFC 7296 s3.1)."""

_TAILS = tuple(tail for row in PRF.values() for tail in (row.length, 3 * row.length + 4))
"""Octets after the nonce: prf(SK_p, ID), and with RFC 9242 s3.3.2 two more prf outputs and a message ID."""

_DIGEST: dict[HashID, digests.HashAlgorithm] = {
    SHA2_256: digests.SHA256(),
    SHA2_384: digests.SHA384(),
    SHA2_512: digests.SHA512(),
}

_PSS = {
    Scheme[f"RSA_PSS_{hash_id.name}"]: PSS(MGF1(digest), salt_length=digest.digest_size)
    for hash_id, digest in _DIGEST.items()
}

_BY_METHOD = {scheme.method: scheme for scheme in Scheme if scheme.method != _DIGITAL}

_BY_IDENTIFIER = {scheme.identifier: scheme for scheme in Scheme if scheme.identifier} | {
    algorithm.rsa_pss(scheme.hash_id, trailer=True): scheme for scheme in _PSS
}

_ANY_ECDSA = (Scheme.ECDSA_SHA2_256, Scheme.ECDSA_SHA2_384, Scheme.ECDSA_SHA2_512)
_PREFERENCE = {
    KeyKind.ED25519: (Scheme.ED25519,),
    KeyKind.ED448: (Scheme.ED448,),
    # The hash of the curve's own strength first (RFC 5480 s4), then whatever the peer has.
    KeyKind.ECDSA_P256: (*_ANY_ECDSA, Scheme.ECDSA_256),
    KeyKind.ECDSA_P384: (Scheme.ECDSA_SHA2_384, *_ANY_ECDSA, Scheme.ECDSA_384),
    KeyKind.ECDSA_P521: (Scheme.ECDSA_SHA2_512, *_ANY_ECDSA, Scheme.ECDSA_521),
    # RFC 8247 s4.2: PSS rather than PKCS#1 v1.5.
    KeyKind.RSA: (
        Scheme.RSA_PSS_SHA2_256,
        Scheme.RSA_PSS_SHA2_384,
        Scheme.RSA_PSS_SHA2_512,
        Scheme.RSA_PKCS1_SHA2_256,
        Scheme.RSA_PKCS1_SHA2_384,
        Scheme.RSA_PKCS1_SHA2_512,
        Scheme.RSA_SIGNATURE,
    ),
}
