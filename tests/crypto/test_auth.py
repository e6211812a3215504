"""crypto.auth: a signature proves what it should, and every fault fails (ATTACKS rows 17 to 20)."""

import dataclasses
import hashlib
import hmac
from itertools import product
from math import isqrt

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto import algorithm, auth
from hushwire.crypto.auth import (
    SUPPORTED_HASHES,
    AuthenticationFailed,
    Scheme,
    Verified,
    auth_payload,
    choose_scheme,
    compare_shared_key,
    is_auth_octets,
    shared_key_auth,
    sign,
    signed_octets,
    verify,
    verify_shared_key,
)
from hushwire.crypto.keys import BadKey, KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import PRF
from hushwire.wire.registry import AuthMethod, HashID, PrfID

OCTETS = b"what is signed" * 30
PRIVATE = {kind: PrivateKey.generate(kind) for kind in KeyKind}
OTHER = {kind: PrivateKey.generate(kind) for kind in KeyKind}
PAIRS = [(kind, scheme) for kind in KeyKind for scheme in Scheme if kind in scheme.kinds]
DIGITAL = AuthMethod.DIGITAL_SIGNATURE
SHA1, SHA2_256, SHA2_384, SHA2_512, IDENTITY = (HashID(number) for number in range(1, 6))


def _auth(kind: KeyKind, scheme: Scheme, octets: bytes = OCTETS) -> tuple[AuthMethod, bytes]:
    return auth_payload(scheme, sign(PRIVATE[kind], scheme, octets))


def _refused(kind: KeyKind, method: AuthMethod, data: bytes, octets: bytes = OCTETS) -> None:
    with pytest.raises(AuthenticationFailed):
        verify(PRIVATE[kind].public, method, data, octets, SUPPORTED_HASHES)


@pytest.mark.parametrize(("kind", "scheme"), PAIRS)
def test_a_signature_proves_its_key(kind: KeyKind, scheme: Scheme) -> None:
    method, data = _auth(kind, scheme)
    proof = verify(PRIVATE[kind].public, method, data, OCTETS, SUPPORTED_HASHES)
    assert proof.public == PRIVATE[kind].public
    assert proof.scheme == scheme.name


@pytest.mark.parametrize(("kind", "scheme"), PAIRS)
def test_other_octets_and_other_keys_fail(kind: KeyKind, scheme: Scheme) -> None:
    method, data = _auth(kind, scheme)
    for octets in (b"", OCTETS[:-1], OCTETS + b"\0", OCTETS.swapcase()):
        _refused(kind, method, data, octets)
    with pytest.raises(AuthenticationFailed):
        verify(OTHER[kind].public, method, data, OCTETS, SUPPORTED_HASHES)


@given(st.sampled_from(PAIRS), st.data())
def test_every_flipped_bit_of_the_payload_fails(pair: tuple[KeyKind, Scheme], draw: st.DataObject) -> None:
    method, data = _auth(*pair)
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    _refused(pair[0], method, _flip(data, bit))


@given(st.sampled_from(PAIRS), st.integers(0, 8 * len(OCTETS) - 1))
def test_every_flipped_bit_of_the_octets_fails(pair: tuple[KeyKind, Scheme], bit: int) -> None:
    _refused(pair[0], *_auth(*pair), _flip(OCTETS, bit))


@pytest.mark.parametrize("kind", [KeyKind.ED25519, KeyKind.ECDSA_P256])
def test_every_bit_of_one_payload(kind: KeyKind) -> None:
    method, data = _auth(kind, choose_scheme(kind, SUPPORTED_HASHES) or Scheme.ED25519)
    for bit in range(8 * len(data)):
        _refused(kind, method, _flip(data, bit))


@pytest.mark.parametrize(("kind", "scheme"), PAIRS)
def test_every_other_length_fails(kind: KeyKind, scheme: Scheme) -> None:
    method, data = _auth(kind, scheme)
    for length in range(0, len(data), max(1, len(data) // 40)):
        _refused(kind, method, data[:length])
    for more in (data[:-1], data + b"\0", b"\0" + data, data + data):
        _refused(kind, method, more)


@given(st.sampled_from(list(KeyKind)), st.integers(0, 255), st.binary(max_size=600))
def test_any_octets_fail(kind: KeyKind, method: int, data: bytes) -> None:
    _refused(kind, AuthMethod(method), data)


def test_two_runs_sign_alike() -> None:
    """All but PSS, whose salt is random."""
    for kind, scheme in PAIRS:
        again = sign(PRIVATE[kind], scheme, OCTETS) == sign(PRIVATE[kind], scheme, OCTETS)
        assert again != scheme.name.startswith("RSA_PSS")


# --- Key type confusion: openiked CVE-2020-16088 --------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "scheme"), PAIRS)
def test_a_key_of_another_type_never_verifies(kind: KeyKind, scheme: Scheme) -> None:
    method, data = _auth(kind, scheme)
    for other in KeyKind:
        if other != kind:
            _refused(other, method, data)


def test_a_signature_under_another_identifier_fails() -> None:
    """The signature of each scheme in the dress of each other."""
    for (kind, scheme), dress in product(PAIRS, Scheme):
        if dress is scheme:
            continue
        method, data = auth_payload(dress, sign(PRIVATE[kind], scheme, OCTETS))
        # Method 1 names no hash, and its one form is PKCS#1 with SHA-2: that much is one signature in two dresses.
        if {scheme.name, dress.name} <= {"RSA_SIGNATURE", "RSA_PKCS1_SHA2_256"}:
            continue
        if dress is Scheme.RSA_SIGNATURE and scheme.name.startswith("RSA_PKCS1"):
            continue
        _refused(kind, method, data)


def test_we_sign_with_a_fitting_key_only() -> None:
    for kind, scheme in product(KeyKind, Scheme):
        if kind not in scheme.kinds:
            with pytest.raises(ValueError, match="with a key of kind"):
                sign(PRIVATE[kind], scheme, OCTETS)


def test_control_without_the_guard_a_key_signs_under_another_name() -> None:
    """Method 9 is P-256 with SHA-256.  A P-384 key that says method 9 verifies, once nobody compares types."""
    private = PRIVATE[KeyKind.ECDSA_P384]
    assert isinstance(private.key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(private.key.sign(OCTETS, ec.ECDSA(hashes.SHA256())))
    data = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    auth._verify(private.public, Scheme.ECDSA_256, data, OCTETS)
    _refused(KeyKind.ECDSA_P384, AuthMethod.ECDSA_256, data)


class Faulty:
    """A key of the library's in which something goes wrong."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def verify(self, signature: bytes, octets: bytes) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (InvalidSignature(), AuthenticationFailed),
        (ValueError("key types differ"), AuthenticationFailed),
        (RuntimeError("out of memory"), RuntimeError),
    ],
)
def test_an_error_in_the_library_is_no_success(error: Exception, raised: type[Exception]) -> None:
    """Fault injection: whatever goes wrong below, no proof is made."""
    public = dataclasses.replace(PRIVATE[KeyKind.ED25519].public, key=Faulty(error))  # type: ignore[arg-type]
    with pytest.raises(raised):
        verify(public, *_auth(KeyKind.ED25519, Scheme.ED25519), OCTETS, SUPPORTED_HASHES)


def test_nobody_else_makes_a_proof() -> None:
    public = PRIVATE[KeyKind.ED25519].public
    with pytest.raises(TypeError):
        Verified(public, "ED25519", object())
    with pytest.raises(TypeError):
        Verified(public, "ED25519")  # type: ignore[call-arg]
    proof = verify(public, *_auth(KeyKind.ED25519, Scheme.ED25519), OCTETS, SUPPORTED_HASHES)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(proof, public=OTHER[KeyKind.ED25519].public)


# --- SHA-1, MD5 and hashes that were not announced (SLOTH) ----------------------------------------------------------


@pytest.mark.parametrize("weak", [hashes.SHA1(), hashes.MD5()])
def test_method_1_with_a_weak_hash_is_refused(weak: hashes.HashAlgorithm) -> None:
    """With the guard out, the control: it is a good signature."""
    private = PRIVATE[KeyKind.RSA]
    assert isinstance(private.key, rsa.RSAPrivateKey)
    signature = private.key.sign(OCTETS, PKCS1v15(), weak)
    private.key.public_key().verify(signature, OCTETS, PKCS1v15(), weak)
    _refused(KeyKind.RSA, AuthMethod.RSA_SIGNATURE, signature)


@pytest.mark.parametrize(
    ("identifier", "padding", "weak"),
    [
        ("300d06092a864886f70d0101050500", PKCS1v15(), hashes.SHA1()),
        ("300d06092a864886f70d0101040500", PKCS1v15(), hashes.MD5()),
        ("300d06092a864886f70d01010a3000", PSS(MGF1(hashes.SHA1()), 20), hashes.SHA1()),
        ("300b06092a864886f70d01010a", PSS(MGF1(hashes.SHA1()), 20), hashes.SHA1()),
    ],
    ids=["sha1WithRSA", "md5WithRSA", "PSS default parameters", "PSS without parameters"],
)
def test_digital_signatures_with_weak_hashes_are_refused(
    identifier: str, padding: AsymmetricPadding, weak: hashes.HashAlgorithm
) -> None:
    private = PRIVATE[KeyKind.RSA].key
    assert isinstance(private, rsa.RSAPrivateKey)
    octets = bytes.fromhex(identifier)
    _refused(KeyKind.RSA, DIGITAL, bytes((len(octets),)) + octets + private.sign(OCTETS, padding, weak))


def test_ecdsa_with_sha1_is_refused() -> None:
    private = PRIVATE[KeyKind.ECDSA_P256].key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    signature = private.sign(OCTETS, ec.ECDSA(hashes.SHA1()))
    identifier = bytes.fromhex("300906072a8648ce3d0401")
    _refused(KeyKind.ECDSA_P256, DIGITAL, bytes((len(identifier),)) + identifier + signature)


@pytest.mark.parametrize(("kind", "scheme"), [pair for pair in PAIRS if pair[1].method == DIGITAL])
def test_a_hash_that_we_did_not_announce_is_refused(kind: KeyKind, scheme: Scheme) -> None:
    method, data = _auth(kind, scheme)
    with pytest.raises(AuthenticationFailed, match="announce"):
        verify(PRIVATE[kind].public, method, data, OCTETS, SUPPORTED_HASHES - {scheme.hash_id})


def test_sha1_is_never_announced() -> None:
    assert SHA1 not in SUPPORTED_HASHES
    assert all(scheme.hash_id in SUPPORTED_HASHES for scheme in Scheme)


# --- Method 1 and PKCS#1 v1.5: libreswan CVE-2026-50722, strongSwan CVE-2018-16151 ----------------------------------

DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def _raw_rsa(private: PrivateKey, message: bytes) -> bytes:
    """The private operation on any encoded message, however wrong."""
    assert isinstance(private.key, rsa.RSAPrivateKey)
    numbers = private.key.private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(message, "big"), numbers.d, n).to_bytes(len(message), "big")


def _encoded(info: bytes, length: int = 384, tail: bytes = b"", block: bytes = b"\0\1", fill: bytes = b"\xff") -> bytes:
    rest = b"\0" + info + tail
    return block + fill * (length - len(block) - len(rest)) + rest


HASHED = hashlib.sha256(OCTETS).digest()
FORGERIES = {
    "hash cut to 4 octets": _encoded(DIGEST_INFO[:-1] + b"\4" + HASHED[:4]),
    "hash cut, lengths kept": _encoded(DIGEST_INFO + HASHED[:16]),
    "no DigestInfo": _encoded(HASHED),
    "empty hash": _encoded(DIGEST_INFO[:-1] + b"\0"),
    "NULL left out": _encoded(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + HASHED),
    "garbage after the hash": _encoded(DIGEST_INFO + HASHED, tail=bytes(100)),
    "garbage in the parameters": _encoded(
        bytes.fromhex("3041301d0609608648016503040201") + b"\x05\x10" + bytes(16) + b"\x04\x20" + HASHED
    ),
    "length in the long form": _encoded(bytes.fromhex("308131300d060960864801650304020105000420") + HASHED),
    "padding of other octets": _encoded(DIGEST_INFO + HASHED, fill=b"\xfe"),
    "padding of zeros": _encoded(DIGEST_INFO + HASHED, fill=b"\0"),
    "block type 0": _encoded(DIGEST_INFO + HASHED, block=b"\0\0"),
    "block type 2": _encoded(DIGEST_INFO + HASHED, block=b"\0\2"),
    "SHA-1's identifier on a SHA-256 hash": _encoded(bytes.fromhex("302d300906052b0e03021a05000420") + HASHED),
    "another octet string": _encoded(DIGEST_INFO + hashlib.sha256(b"other").digest()),
}


def test_control_the_right_encoding_verifies() -> None:
    """What the forgeries differ from; so they fail for what they are, and not for how they are made."""
    signature = _raw_rsa(PRIVATE[KeyKind.RSA], _encoded(DIGEST_INFO + HASHED))
    for method, data in (
        (AuthMethod.RSA_SIGNATURE, signature),
        auth_payload(Scheme.RSA_PKCS1_SHA2_256, signature),
    ):
        assert verify(PRIVATE[KeyKind.RSA].public, method, data, OCTETS, SUPPORTED_HASHES)


@pytest.mark.parametrize("encoded", FORGERIES.values(), ids=FORGERIES.keys())
def test_pkcs1_forgeries_are_refused(encoded: bytes) -> None:
    signature = _raw_rsa(PRIVATE[KeyKind.RSA], encoded)
    _refused(KeyKind.RSA, AuthMethod.RSA_SIGNATURE, signature)
    _refused(KeyKind.RSA, *auth_payload(Scheme.RSA_PKCS1_SHA2_256, signature))


@pytest.mark.parametrize("number", [0, 1])
def test_trivial_rsa_signatures_are_refused(number: int) -> None:
    _refused(KeyKind.RSA, AuthMethod.RSA_SIGNATURE, number.to_bytes(384, "big"))


def test_a_signature_plus_the_modulus_is_refused() -> None:
    """s + n is another form of s, where it fits."""
    private = PRIVATE[KeyKind.RSA]
    assert isinstance(private.key, rsa.RSAPrivateKey)
    n = private.key.public_key().public_numbers().n
    for count in range(200):
        octets = OCTETS + bytes((count,))
        signature = int.from_bytes(sign(private, Scheme.RSA_SIGNATURE, octets), "big")
        if (signature + n).bit_length() <= 3072:
            _refused(KeyKind.RSA, AuthMethod.RSA_SIGNATURE, (signature + n).to_bytes(384, "big"), octets)
            return
    pytest.fail("no signature was small enough")


E3 = rsa.generate_private_key(3, 2048).public_key()


def test_a_cube_root_forgery_fails_thrice() -> None:
    """Bleichenbacher 2006: with e = 3, garbage after the hash lets anybody sign, if the verifier looks no further."""
    prefix = b"\0\1" + b"\xff" * 8 + b"\0" + DIGEST_INFO + HASHED
    target = int.from_bytes(prefix + b"\xff" * (256 - len(prefix)), "big")
    forged = _cube_root(target).to_bytes(256, "big")
    # The control: a verifier that reads from the left and stops at the hash is content.
    n = E3.public_numbers().n
    opened = pow(int.from_bytes(forged, "big"), 3, n).to_bytes(256, "big")
    assert opened.startswith(prefix)
    # The library is not, and such a key never gets that far.
    with pytest.raises(InvalidSignature):
        E3.verify(forged, OCTETS, PKCS1v15(), hashes.SHA256())
    with pytest.raises(BadKey):
        PublicKey.of(E3)


def _cube_root(number: int) -> int:
    low, high = 0, isqrt(number)
    for _ in range(2100):
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


@pytest.mark.parametrize("hash_id", [SHA2_256, SHA2_384, SHA2_512])
def test_method_1_takes_any_sha2(hash_id: HashID) -> None:
    """RFC 7296 s3.8 leaves the hash open."""
    signature = sign(PRIVATE[KeyKind.RSA], Scheme[f"RSA_PKCS1_{hash_id.name}"], OCTETS)
    proof = verify(PRIVATE[KeyKind.RSA].public, AuthMethod.RSA_SIGNATURE, signature, OCTETS, frozenset())
    assert proof.scheme == "RSA_SIGNATURE"


# --- PSS: strongSwan CVE-2021-41990 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "salt"),
    [
        (hashes.SHA256(), 0),
        (hashes.SHA256(), 20),
        (hashes.SHA256(), 31),
        (hashes.SHA256(), 33),
        (hashes.SHA256(), PSS.MAX_LENGTH),
        (hashes.SHA512(), 32),
        (hashes.SHA1(), 32),
    ],
)
def test_pss_with_other_parameters_is_refused(mask: hashes.HashAlgorithm, salt: int) -> None:
    """The control: each is a good signature under the parameters it was made with."""
    private = PRIVATE[KeyKind.RSA].key
    assert isinstance(private, rsa.RSAPrivateKey)
    padding = PSS(MGF1(mask), salt)
    signature = private.sign(OCTETS, padding, hashes.SHA256())
    private.public_key().verify(signature, OCTETS, padding, hashes.SHA256())
    _refused(KeyKind.RSA, *auth_payload(Scheme.RSA_PSS_SHA2_256, signature))


def test_pss_identifiers_claiming_another_salt_or_mask_are_refused() -> None:
    signature = sign(PRIVATE[KeyKind.RSA], Scheme.RSA_PSS_SHA2_256, OCTETS)
    ours = Scheme.RSA_PSS_SHA2_256.identifier
    for bit in range(8 * len(ours)):
        identifier = _flip(ours, bit)
        _refused(KeyKind.RSA, DIGITAL, bytes((len(identifier),)) + identifier + signature)


@pytest.mark.parametrize("hash_id", [SHA2_256, SHA2_384, SHA2_512])
def test_pss_with_the_trailer_spelt_out_is_read(hash_id: HashID) -> None:
    scheme = Scheme[f"RSA_PSS_{hash_id.name}"]
    identifier = algorithm.rsa_pss(hash_id, trailer=True)
    data = bytes((len(identifier),)) + identifier + sign(PRIVATE[KeyKind.RSA], scheme, OCTETS)
    assert verify(PRIVATE[KeyKind.RSA].public, DIGITAL, data, OCTETS, SUPPORTED_HASHES).scheme == scheme.name


# --- ECDSA ----------------------------------------------------------------------------------------------------------

ORDER_256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_rfc_4754_s8_1() -> None:
    """The signature of "abc"."""
    numbers = ec.EllipticCurvePublicNumbers(
        0x2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970,
        0x6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D,
        ec.SECP256R1(),
    )
    data = bytes.fromhex(
        "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C"
        "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315"
    )
    public = PublicKey.of(numbers.public_key())
    assert verify(public, AuthMethod.ECDSA_256, data, b"abc", SUPPORTED_HASHES).scheme == "ECDSA_256"


@pytest.mark.parametrize("numbers", list(product((0, 1, ORDER_256, ORDER_256 + 1), repeat=2)))
def test_degenerate_ecdsa_numbers_are_refused(numbers: tuple[int, int]) -> None:
    r, s = numbers
    _refused(KeyKind.ECDSA_P256, AuthMethod.ECDSA_256, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    _refused(KeyKind.ECDSA_P256, *auth_payload(Scheme.ECDSA_SHA2_256, encode_dss_signature(r, s)))


def test_raw_ecdsa_numbers_have_one_length() -> None:
    """RFC 4754 s7.  Zeros before s, or none before a short one, would be second forms of one signature."""
    data = sign(PRIVATE[KeyKind.ECDSA_P256], Scheme.ECDSA_256, OCTETS)
    for other in (data[:32] + bytes(2) + data[32:], bytes(1) + data[:32] + bytes(1) + data[32:], data[:32], b""):
        _refused(KeyKind.ECDSA_P256, AuthMethod.ECDSA_256, other)


def test_ecdsa_der_has_one_form() -> None:
    """Numbers that are the same in BER are not, here: negative, padded, or with something behind them."""
    der = sign(PRIVATE[KeyKind.ECDSA_P256], Scheme.ECDSA_SHA2_256, OCTETS)
    r, s = decode_dss_signature(der)
    for other in (
        der + b"\0",
        b"\x30\x81" + der[1:],
        b"\x30" + bytes((der[1] + 1,)) + b"\x02" + bytes((der[3] + 1,)) + b"\0" + der[4:],
        encode_dss_signature(r, s + ORDER_256),
        encode_dss_signature(r + ORDER_256, s),
    ):
        _refused(KeyKind.ECDSA_P256, *auth_payload(Scheme.ECDSA_SHA2_256, other))


# --- Choice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hash_ids", "scheme"),
    [
        (KeyKind.ED25519, {SHA2_256, IDENTITY}, Scheme.ED25519),
        (KeyKind.ED25519, {SHA2_256}, None),
        (KeyKind.ED25519, None, None),
        (KeyKind.ED448, {IDENTITY}, Scheme.ED448),
        (KeyKind.ED448, None, None),
        (KeyKind.ECDSA_P256, {SHA2_256, SHA2_384, SHA2_512}, Scheme.ECDSA_SHA2_256),
        (KeyKind.ECDSA_P384, {SHA2_256, SHA2_384, SHA2_512}, Scheme.ECDSA_SHA2_384),
        (KeyKind.ECDSA_P521, {SHA2_256, SHA2_384, SHA2_512}, Scheme.ECDSA_SHA2_512),
        (KeyKind.ECDSA_P521, {SHA2_256}, Scheme.ECDSA_SHA2_256),
        (KeyKind.ECDSA_P256, {SHA1}, Scheme.ECDSA_256),
        (KeyKind.ECDSA_P256, None, Scheme.ECDSA_256),
        (KeyKind.ECDSA_P384, None, Scheme.ECDSA_384),
        (KeyKind.ECDSA_P521, None, Scheme.ECDSA_521),
        (KeyKind.RSA, {SHA1, SHA2_512}, Scheme.RSA_PSS_SHA2_512),
        (KeyKind.RSA, set(SUPPORTED_HASHES), Scheme.RSA_PSS_SHA2_256),
        (KeyKind.RSA, {SHA1}, Scheme.RSA_SIGNATURE),
        (KeyKind.RSA, None, Scheme.RSA_SIGNATURE),
    ],
)
def test_the_best_scheme_that_the_peer_knows(
    kind: KeyKind, hash_ids: set[HashID] | None, scheme: Scheme | None
) -> None:
    assert choose_scheme(kind, hash_ids) is scheme


def test_identifiers_are_those_of_rfc_7427_and_rfc_8420() -> None:
    assert Scheme.ED25519.identifier.hex() == "300506032b6570"
    assert Scheme.ED448.identifier.hex() == "300506032b6571"
    assert Scheme.ECDSA_SHA2_256.identifier.hex() == "300a06082a8648ce3d040302"
    assert Scheme.RSA_PKCS1_SHA2_512.identifier.hex() == "300d06092a864886f70d01010d0500"
    assert algorithm.rsa_pss(SHA2_256, trailer=True).hex() == (
        "304606092a864886f70d01010a3039a00f300d06096086480165030402010500"
        "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101"
    )


# --- Shared keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prf_id", list(PRF))
def test_shared_key_is_rfc_7296_s2_15(prf_id: PrfID) -> None:
    name = PRF[prf_id].hash
    padded = hmac.digest(b"psk", b"Key Pad for IKEv2", name)
    data = shared_key_auth(prf_id, Secret(b"psk"), OCTETS)
    assert data == hmac.digest(padded, OCTETS, name)
    proof = verify_shared_key(prf_id, Secret(b"psk"), data, OCTETS)
    assert (proof.public, proof.scheme) == (None, "SHARED_KEY")


def test_every_fault_of_a_shared_key_fails() -> None:
    prf_id, psk = PrfID.HMAC_SHA2_256, Secret(b"psk")
    data = shared_key_auth(prf_id, psk, OCTETS)
    for bit in range(8 * len(data)):
        with pytest.raises(AuthenticationFailed):
            verify_shared_key(prf_id, psk, _flip(data, bit), OCTETS)
    for bad in (b"", data[:-1], data + b"\0"):
        with pytest.raises(AuthenticationFailed):
            verify_shared_key(prf_id, psk, bad, OCTETS)
    with pytest.raises(AuthenticationFailed):
        verify_shared_key(prf_id, Secret(b"PSK"), data, OCTETS)
    with pytest.raises(AuthenticationFailed):
        verify_shared_key(prf_id, psk, data, OCTETS + b"\0")


def test_a_keeper_computes_and_another_compares() -> None:
    data = shared_key_auth(PrfID.HMAC_SHA2_256, Secret(b"psk"), OCTETS)
    assert compare_shared_key(data, bytes(bytearray(data))).scheme == "SHARED_KEY"
    for expected, given_ in ((data, data[:-1]), (data[:-1], data), (b"", b""), (b"", data), (data, b"")):
        with pytest.raises(AuthenticationFailed):
            compare_shared_key(expected, given_)


def test_an_empty_shared_key_authenticates_nobody() -> None:
    data = shared_key_auth(PrfID.HMAC_SHA2_256, Secret(b""), OCTETS)
    with pytest.raises(AuthenticationFailed, match="empty"):
        verify_shared_key(PrfID.HMAC_SHA2_256, Secret(b""), data, OCTETS)


# --- What is signed -------------------------------------------------------------------------------------------------


def _initial(flags: int = 0x08, length: int = 200, *, version: int = 0x20, exchange: int = 34, id_: int = 0) -> bytes:
    header = b"\1" * 8 + bytes(8) + bytes((33, version, exchange, flags)) + id_.to_bytes(4, "big")
    return header + length.to_bytes(4, "big") + bytes(max(0, length - 28))


def _header_says(length: int) -> bytes:
    return _initial()[:24] + length.to_bytes(4, "big")


@pytest.mark.parametrize("prf_id", list(PRF))
@pytest.mark.parametrize("flags", [0x08, 0x20])
@pytest.mark.parametrize("nonce", [16, 32, 256])
@pytest.mark.parametrize("intermediate", [False, True])
def test_signed_octets_have_their_shape(prf_id: PrfID, flags: int, nonce: int, intermediate: bool) -> None:
    row = PRF[prf_id]
    more = bytes(2 * row.length + 4) if intermediate else b""
    octets = signed_octets(_initial(flags), b"n" * nonce, prf_id, Secret(b"sk_p"), b"\2\0\0\0name", more)
    assert octets == _initial(flags) + b"n" * nonce + hmac.digest(b"sk_p", b"\2\0\0\0name", row.hash) + more
    assert is_auth_octets(octets)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"ssh-userauth or any other protocol's octets" * 10,
        _initial()[:27],
        _initial(),
        _initial() + bytes(15 + 32),
        _initial() + bytes(256 + 3 * 64 + 4 + 1),
        _initial(version=0x10) + bytes(64),
        _initial(version=0x21) + bytes(64),
        _initial(exchange=35) + bytes(64),
        _initial(id_=1) + bytes(64),
        _initial(0x00) + bytes(64),
        _initial(0x28) + bytes(64),
        _initial(length=27) + bytes(64),
        _header_says(2**32 - 1) + bytes(300),
    ],
)
def test_a_keeper_signs_nothing_else(octets: bytes) -> None:
    assert not is_auth_octets(octets)


def _flip(octets: bytes, bit: int) -> bytes:
    flipped = bytearray(octets)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)
