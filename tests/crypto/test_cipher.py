"""crypto.cipher: sealed bodies against the primitives alone, and rejection of everything else."""

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.cipher import IkeCipher, IntegrityError
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import ENCR, INTEG, IkeSuite, encr_key_length, integ_key_length
from hushwire.entropy import SeededEntropy
from hushwire.wire.registry import EncrID, IntegID, KeID, PrfID

SUITES = [
    IkeSuite(encr, bits, integ, PrfID.HMAC_SHA2_256, KeID.CURVE25519)
    for encr, row in ENCR.items()
    for bits in row.key_bits
    for integ in ((IntegID.NONE,) if row.aead else INTEG)
]
AEADS = [suite for suite in SUITES if not suite.integ]
CBCS = [suite for suite in SUITES if suite.integ]
HEADER = bytes(range(32))


def _keys(suite: IkeSuite) -> tuple[Secret, Secret]:
    entropy = SeededEntropy(str(suite).encode())
    encr = entropy.private(encr_key_length(suite.encr, suite.key_bits))
    return Secret(encr), Secret(entropy.private(integ_key_length(suite.integ)))


def _cipher(suite: IkeSuite, seed: bytes = b"iv") -> IkeCipher:
    return IkeCipher(suite, *_keys(suite), SeededEntropy(seed))


@given(st.sampled_from(SUITES), st.binary(max_size=300), st.binary(max_size=100))
def test_what_is_sealed_opens(suite: IkeSuite, plaintext: bytes, associated: bytes) -> None:
    cipher = _cipher(suite)
    sealed = cipher.seal(associated, plaintext)
    assert len(sealed) == cipher.sealed_length(len(plaintext))
    assert cipher.open(associated, sealed) == plaintext


@given(st.sampled_from(SUITES), st.binary(max_size=80), st.data())
def test_every_flipped_bit_is_found(suite: IkeSuite, plaintext: bytes, data: st.DataObject) -> None:
    cipher = _cipher(suite)
    sealed = cipher.seal(HEADER, plaintext)
    bit = data.draw(st.integers(0, 8 * len(HEADER + sealed) - 1))
    flipped = bytearray(HEADER + sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        cipher.open(bytes(flipped[: len(HEADER)]), bytes(flipped[len(HEADER) :]))


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_every_bit_of_one_body(suite: IkeSuite) -> None:
    cipher = _cipher(suite)
    sealed = cipher.seal(HEADER, b"payloads")
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            cipher.open(HEADER, bytes(flipped))


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_every_other_length_is_refused(suite: IkeSuite) -> None:
    cipher = _cipher(suite)
    sealed = cipher.seal(HEADER, b"payloads")
    for length in range(len(sealed)):
        with pytest.raises(IntegrityError):
            cipher.open(HEADER, sealed[:length])
    for more in (b"\0", sealed, bytes(16)):
        with pytest.raises(IntegrityError):
            cipher.open(HEADER, sealed + more)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_another_key_opens_nothing(suite: IkeSuite) -> None:
    encr, integ = _keys(suite)
    sealed = _cipher(suite).seal(HEADER, b"payloads")
    other = IkeCipher(
        suite,
        Secret(encr.expose()[::-1]),
        Secret(integ.expose()[::-1]),
        SeededEntropy(b""),
    )
    with pytest.raises(IntegrityError):
        other.open(HEADER, sealed)


@pytest.mark.parametrize("suite", AEADS, ids=str)
def test_aead_is_rfc_5282(suite: IkeSuite) -> None:
    """Nonce = salt | IV, one Pad Length octet and no padding, the ICV at the end."""
    key, salt = _keys(suite)[0].expose()[:-4], _keys(suite)[0].expose()[-4:]
    primitive = AESGCM(key) if suite.encr == EncrID.AES_GCM_16 else ChaCha20Poly1305(key)
    sealed = _cipher(suite).seal(HEADER, b"payloads")
    assert primitive.decrypt(salt + sealed[:8], sealed[8:], HEADER) == b"payloads\0"


@pytest.mark.parametrize("suite", AEADS, ids=str)
def test_no_iv_comes_twice(suite: IkeSuite) -> None:
    cipher = _cipher(suite)
    ivs = [cipher.seal(HEADER, b"same")[:8] for _ in range(1000)]
    assert len(set(ivs)) == 1000


@pytest.mark.parametrize("suite", CBCS, ids=str)
def test_cbc_is_rfc_7296_s3_14(suite: IkeSuite) -> None:
    encr, integ = _keys(suite)
    row = INTEG[suite.integ]
    sealed = _cipher(suite).seal(HEADER, b"payloads")
    body, icv = sealed[: -row.icv], sealed[-row.icv :]
    assert icv == hmac.digest(integ.expose(), HEADER + body, row.hash)[: row.icv]
    decryptor = Cipher(AES(encr.expose()), CBC(body[:16])).decryptor()
    padded = decryptor.update(body[16:]) + decryptor.finalize()
    assert padded == b"payloads" + bytes(7) + b"\x07"


@pytest.mark.parametrize("suite", CBCS, ids=str)
def test_cbc_ivs_come_of_entropy(suite: IkeSuite) -> None:
    """RFC 7296 s3.14 wants them unpredictable: they are the public stream's, one draw for each message."""
    cipher, stream = _cipher(suite, b"stream"), SeededEntropy(b"stream")
    for _ in range(3):
        assert cipher.seal(HEADER, b"same")[:16] == stream.public(16)


@pytest.mark.parametrize("octets", [0, 1, 14, 15, 16, 31])
def test_cbc_padding_fills_a_block(octets: int) -> None:
    cipher = _cipher(CBCS[0])
    assert (cipher.sealed_length(octets) - 16 - 16) % 16 == 0
    assert cipher.open(HEADER, cipher.seal(HEADER, bytes(octets))) == bytes(octets)


def _sealed_by_a_peer(suite: IkeSuite, padded: bytes) -> bytes:
    """A body with a right ICV, whatever its padding."""
    encr, integ = _keys(suite)
    if suite.encr == EncrID.AES_GCM_16:
        return bytes(8) + AESGCM(encr.expose()[:-4]).encrypt(encr.expose()[-4:] + bytes(8), padded, HEADER)
    row = INTEG[suite.integ]
    encryptor = Cipher(AES(encr.expose()), CBC(bytes(16))).encryptor()
    body = bytes(16) + encryptor.update(padded) + (encryptor.finalize() if len(padded) % 16 == 0 else b"odd")
    return body + hmac.digest(integ.expose(), HEADER + body, row.hash)[: row.icv]


@pytest.mark.parametrize("suite", [AEADS[0], CBCS[0]], ids=str)
def test_padding_of_any_content_is_accepted(suite: IkeSuite) -> None:
    """RFC 7296 s3.14."""
    assert _cipher(suite).open(HEADER, _sealed_by_a_peer(suite, b"abcd" + b"\xee" * 11 + b"\x0b")) == b"abcd"
    assert _cipher(suite).open(HEADER, _sealed_by_a_peer(suite, bytes(15) + b"\x0f")) == b""


@pytest.mark.parametrize("suite", [AEADS[0], CBCS[0]], ids=str)
def test_a_pad_length_beyond_the_body_is_refused(suite: IkeSuite) -> None:
    for pad_length in (16, 17, 255):
        sealed = _sealed_by_a_peer(suite, bytes(15) + bytes((pad_length,)))
        with pytest.raises(IntegrityError, match="Pad Length"):
            _cipher(suite).open(HEADER, sealed)


def test_an_authenticated_body_of_broken_blocks_is_refused() -> None:
    suite = CBCS[0]
    for padded in (b"", bytes(20)):
        sealed = _sealed_by_a_peer(suite, padded)
        with pytest.raises(IntegrityError):
            _cipher(suite).open(HEADER, sealed)


def test_an_empty_aead_plaintext_is_refused() -> None:
    """Not even a Pad Length."""
    with pytest.raises(IntegrityError):
        _cipher(AEADS[0]).open(HEADER, _sealed_by_a_peer(AEADS[0], b""))


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_keys_of_another_length_are_our_own_error(suite: IkeSuite) -> None:
    encr, integ = _keys(suite)
    with pytest.raises(ValueError, match="SK_e"):
        IkeCipher(suite, Secret(encr.expose() + b"\0"), integ, SeededEntropy(b""))
    with pytest.raises(ValueError, match="SK_a"):
        IkeCipher(suite, encr, Secret(integ.expose() + b"\0"), SeededEntropy(b""))


def test_control_without_the_icv_a_flipped_bit_goes_through() -> None:
    """What CBC alone does with a flipped IV bit: it flips the plaintext's bit, unnoticed."""
    suite = CBCS[0]
    encr, _ = _keys(suite)
    sealed = bytearray(_cipher(suite).seal(HEADER, b"payloads")[: -INTEG[suite.integ].icv])
    sealed[0] ^= 1
    decryptor = Cipher(AES(encr.expose()), CBC(bytes(sealed[:16]))).decryptor()
    assert (decryptor.update(bytes(sealed[16:])) + decryptor.finalize())[:8] == b"qayloads"
