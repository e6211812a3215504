"""crypto.keys: one key has one form, and a weak one none."""

import hashlib
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import (
    BadKey,
    KeyKind,
    PrivateKey,
    PublicKey,
    cert_from_public_key,
    public_key_from_cert,
)
from hushwire.crypto.secret import Secret
from hushwire.wire.registry import CertEncoding

PRIVATE = {kind: PrivateKey.generate(kind) for kind in KeyKind}
ECDSA = (KeyKind.ECDSA_P256, KeyKind.ECDSA_P384, KeyKind.ECDSA_P521)
# A fixed key, so that nothing here waits for primes: only the modulus's size and the exponent are looked at.
MODULUS = PRIVATE[KeyKind.RSA].public.key.public_numbers().n  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KeyKind)
def test_there_and_back(kind: KeyKind) -> None:
    private = PRIVATE[kind]
    public = PublicKey.read(private.public.spki)
    assert public == private.public
    assert hash(public) == hash(private.public)
    assert public.kind == private.kind == kind
    assert public.fingerprint == hashlib.sha256(public.spki).digest()
    assert PrivateKey.read_pem(private.write_pem().expose()).public == public


def test_keys_are_equal_when_their_octets_are() -> None:
    publics = [private.public for private in PRIVATE.values()]
    assert len(set(publics)) == len(publics)
    assert publics[0] != publics[0].spki


@pytest.mark.parametrize("kind", KeyKind)
def test_reprs_show_the_fingerprint_only(kind: KeyKind) -> None:
    private = PRIVATE[kind]
    assert repr(private.public) == f"<PublicKey {kind} {private.public.fingerprint.hex()}>"
    assert repr(private) == f"<PrivateKey of {private.public!r}>"
    assert "octets" in repr(private.write_pem())


def test_a_private_key_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(PRIVATE[KeyKind.ED25519])


def test_an_ed25519_key_from_its_seed() -> None:
    """RFC 8032 s7.1, test 1."""
    seed = Secret(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    public = PrivateKey.from_seed(seed).public
    assert public.spki.hex() == (
        "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )


# --- Certificate payloads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KeyKind)
def test_raw_public_key(kind: KeyKind) -> None:
    public = PRIVATE[kind].public
    data = cert_from_public_key(public, CertEncoding.RAW_PUBLIC_KEY)
    assert data == public.spki
    assert public_key_from_cert(CertEncoding.RAW_PUBLIC_KEY, data) == public


@pytest.mark.parametrize("kind", KeyKind)
def test_raw_rsa_key_is_pkcs1_and_for_rsa_only(kind: KeyKind) -> None:
    public = PRIVATE[kind].public
    if kind == KeyKind.RSA:
        data = cert_from_public_key(public, CertEncoding.RAW_RSA_KEY)
        assert data in public.spki
        assert public_key_from_cert(CertEncoding.RAW_RSA_KEY, data) == public
    else:
        with pytest.raises(BadKey):
            cert_from_public_key(public, CertEncoding.RAW_RSA_KEY)
        with pytest.raises(BadKey):
            public_key_from_cert(CertEncoding.RAW_RSA_KEY, public.spki)


@pytest.mark.parametrize("kind", KeyKind)
def test_openiked_sends_ecdsa_keys_so(kind: KeyKind) -> None:
    public = PRIVATE[kind].public
    if kind in ECDSA:
        data = cert_from_public_key(public, CertEncoding.OPENIKED_ECDSA)
        assert public_key_from_cert(CertEncoding.OPENIKED_ECDSA, data) == public
    else:
        with pytest.raises(BadKey):
            cert_from_public_key(public, CertEncoding.OPENIKED_ECDSA)
        with pytest.raises(BadKey):
            public_key_from_cert(CertEncoding.OPENIKED_ECDSA, public.spki)


def test_the_forms_are_not_confused() -> None:
    """The library reads either form of an RSA key wherever it expects one; we do not."""
    public = PRIVATE[KeyKind.RSA].public
    with pytest.raises(BadKey):
        public_key_from_cert(CertEncoding.RAW_PUBLIC_KEY, public.write_pkcs1())
    with pytest.raises(BadKey):
        public_key_from_cert(CertEncoding.RAW_RSA_KEY, public.spki)


@pytest.mark.parametrize("encoding", [CertEncoding.X509_SIGNATURE, CertEncoding.HASH_AND_URL_X509, CertEncoding(99)])
def test_other_encodings_are_refused(encoding: CertEncoding) -> None:
    public = PRIVATE[KeyKind.ED25519].public
    with pytest.raises(BadKey):
        public_key_from_cert(encoding, public.spki)
    with pytest.raises(BadKey):
        cert_from_public_key(public, encoding)


# --- What is no key -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_octets_give_a_key_or_bad_key(octets: bytes) -> None:
    for read in (PublicKey.read, PublicKey.read_pkcs1):
        with pytest.raises(BadKey):
            read(octets)
    with pytest.raises(BadKey):
        PrivateKey.read_pem(octets)


@given(st.sampled_from(list(KeyKind)), st.data())
def test_a_mutated_key_is_another_key_or_none(kind: KeyKind, data: st.DataObject) -> None:
    spki = bytearray(PRIVATE[kind].public.spki)
    bit = data.draw(st.integers(0, 8 * len(spki) - 1))
    spki[bit // 8] ^= 1 << bit % 8
    try:
        public = PublicKey.read(bytes(spki))
    except BadKey:
        return
    assert public.spki == spki
    assert public != PRIVATE[kind].public


@pytest.mark.parametrize("kind", KeyKind)
def test_nothing_may_follow_and_nothing_may_lack(kind: KeyKind) -> None:
    spki = PRIVATE[kind].public.spki
    for octets in (spki + b"\0", spki[:-1], b"\0" + spki, b""):
        with pytest.raises(BadKey):
            PublicKey.read(octets)


@pytest.mark.parametrize("kind", ECDSA)
def test_a_compressed_point_is_not_the_one_form(kind: KeyKind) -> None:
    key = PRIVATE[kind].public.key
    spki, point = PRIVATE[kind].public.spki, key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    long = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    compressed = _resized(spki.replace(long, point), len(long) - len(point))
    with pytest.raises(BadKey):
        PublicKey.read(compressed)


def _resized(spki: bytes, less: int) -> bytes:
    """SubjectPublicKeyInfo whose BIT STRING got shorter: both lengths mended, in short or long form."""
    rest = spki[2:] if spki[1] < 0x80 else spki[3:]
    algorithm = rest[: 2 + rest[1]]
    bits = rest[len(algorithm) :]
    contents = bits[2:] if bits[1] < 0x80 else bits[3:]
    inner = b"\x03" + _length(len(contents)) + contents
    return b"\x30" + _length(len(algorithm + inner)) + algorithm + inner


def _length(octets: int) -> bytes:
    return bytes((octets,)) if octets < 0x80 else bytes((0x81, octets))


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1(), ec.BrainpoolP256R1()])
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadKey, match="curve"):
        PublicKey.read(spki)
    with pytest.raises(BadKey, match="curve"):
        PrivateKey.read_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_other_algorithms_are_refused() -> None:
    agreement = x25519.X25519PrivateKey.generate()
    signature = dsa.generate_private_key(1024)
    for private in (agreement, signature):
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(BadKey, match="not used"):
            PublicKey.read(spki)
        with pytest.raises(BadKey, match="PrivateKey are not used"):
            PrivateKey.read_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("e", "n"),
    [
        (3, MODULUS),
        (17, MODULUS),
        (65535, MODULUS),
        (1 << 64 | 1, MODULUS),
        (65537, MODULUS >> 1025 | 1),
        (65537, (1 << 2047) - 1),
        (65537, (1 << 4096) + 1),
    ],
)
def test_weak_and_costly_rsa_keys_are_refused(e: int, n: int) -> None:
    for der in _rsa_forms(e, n):
        with pytest.raises(BadKey):
            PublicKey.of(rsa.RSAPublicNumbers(e, n).public_key())
        with pytest.raises(BadKey):
            PublicKey.read(der)
        with pytest.raises(BadKey):
            PublicKey.read_pkcs1(der)


@pytest.mark.parametrize(("e", "n"), [(1, MODULUS), (65538, MODULUS), (65537, MODULUS - 1), (0, MODULUS)])
def test_even_and_trivial_rsa_numbers_are_refused(e: int, n: int) -> None:
    with pytest.raises(BadKey):
        PublicKey.read_pkcs1(_pkcs1(e, n))


@pytest.mark.parametrize(("e", "n"), [(65537, 1 << 2047 | 1), (65537, (1 << 4096) - 1), ((1 << 64) - 1, MODULUS)])
def test_rsa_keys_at_the_bounds_are_read(e: int, n: int) -> None:
    assert PublicKey.read_pkcs1(_pkcs1(e, n)).kind == KeyKind.RSA


def _rsa_forms(e: int, n: int) -> list[bytes]:
    key = rsa.RSAPublicNumbers(e, n).public_key()
    return [
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
    ]


def _pkcs1(e: int, n: int) -> bytes:
    """RSAPublicKey written by hand, since the library refuses some of these."""
    numbers = b"".join(_integer(number) for number in (n, e))
    return b"\x30\x82" + len(numbers).to_bytes(2, "big") + numbers


def _integer(number: int) -> bytes:
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    length = bytes((len(octets),)) if len(octets) < 128 else b"\x82" + len(octets).to_bytes(2, "big")
    return b"\x02" + length + octets


# --- EdDSA points of low order --------------------------------------------------------------------------------------

P25519, P448 = 2**255 - 19, 2**448 - 2**224 - 1
Y8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
LOW_25519 = [0, 1, P25519 - 1, P25519, P25519 + 1, int.from_bytes(Y8, "little"), P25519 - int.from_bytes(Y8, "little")]
LOW_448 = [0, 1, P448 - 1, P448, P448 + 1]
LOW_ORDER = [(y | sign << 255).to_bytes(32, "little") for y in LOW_25519 for sign in (0, 1)]
LOW_ORDER += [(y | sign << 455).to_bytes(57, "little") for y in LOW_448 for sign in (0, 1)]


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_eddsa_points_of_low_order_are_refused(point: bytes) -> None:
    with pytest.raises(BadKey):
        PublicKey.of(_eddsa(point))


@pytest.mark.parametrize("point", [bytes([1]) + bytes(31), bytes(57)], ids=len)
def test_control_anybody_signs_for_a_point_of_low_order(point: bytes) -> None:
    """With the guard out: R the point itself, S zero, and any message verifies."""
    for message in (b"any", b"message"):
        _eddsa(point).verify(point + bytes(len(point)), message)


def _eddsa(point: bytes) -> ed25519.Ed25519PublicKey | ed448.Ed448PublicKey:
    if len(point) == 32:
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    return ed448.Ed448PublicKey.from_public_bytes(point)


# --- Private keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyKind.RSA, *ECDSA])
def test_the_traditional_pem_is_read(kind: KeyKind) -> None:
    """PKCS#1 and SEC 1."""
    pem = PRIVATE[kind].key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert b"PRIVATE KEY" in pem
    assert PrivateKey.read_pem(pem).public == PRIVATE[kind].public


def test_an_encrypted_key_is_refused_without_quoting_it() -> None:
    pem = PRIVATE[KeyKind.ED25519].key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
    )
    with pytest.raises(BadKey) as raised:
        PrivateKey.read_pem(pem)
    assert raised.value.__cause__ is None
    assert pem.splitlines()[1].decode() not in str(raised.value)


def test_a_private_key_with_a_weak_public_one_is_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(BadKey, match="1024 bits"):
        PrivateKey.read_pem(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
