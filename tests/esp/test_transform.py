"""Frames: round trips, golden packets computed another way, and nothing bent gets through."""

import hmac
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from hushwire.entropy import SeededEntropy
from hushwire.esp.transform import BadFrame, Transform, Unsupported, transform
from hushwire.policy.sad import EspSuite
from hushwire.wire.registry import EncrID, IntegID

EIGHT = range(8)


def seal(cipher: Transform, payload: bytes, next_header: int, sequence: int) -> bytearray:
    frame = bytearray(cipher.sealed_length(len(payload)))
    frame[cipher.header : cipher.header + len(payload)] = payload
    cipher.seal(memoryview(frame), len(payload), next_header, sequence)
    return frame


@given(st.sampled_from(EIGHT), st.binary(max_size=200), st.integers(0, 255), st.integers(1, 2**32 - 1))
def test_round_trip(kit: SimpleNamespace, suite: int, payload: bytes, next_header: int, sequence: int) -> None:
    suite = kit.SUITES[suite]
    sequence += (sequence << 32) if suite.esn else 0
    cipher = transform(kit.make_sa(suite=suite), SeededEntropy(b"iv"))
    frame = seal(cipher, payload, next_header, sequence)
    assert payload not in frame or len(payload) < 4
    assert cipher.open(memoryview(frame), sequence) == (next_header, payload)


@given(st.sampled_from(EIGHT), st.data())
def test_a_flipped_bit_or_a_cut_is_rejected(kit: SimpleNamespace, suite: int, data: st.DataObject) -> None:
    cipher = transform(kit.make_sa(suite=kit.SUITES[suite]), SeededEntropy(b"iv"))
    frame = seal(cipher, b"sixteen octets!!" * 3, 6, 5)
    cipher.open(memoryview(frame[:]), 5)  # Control: untouched, it opens.
    # From the sequence number on: the SPI chose the cipher.
    bit = data.draw(st.integers(32, 8 * len(frame) - 1))
    bent = frame[:]
    bent[bit // 8] ^= 1 << bit % 8
    for forged in (bent, frame[: bit // 8]):
        with pytest.raises(BadFrame):
            cipher.open(memoryview(forged), int.from_bytes(forged[4:8], "big"))


@pytest.mark.parametrize("suite", EIGHT)
def test_the_high_half_is_authenticated(kit: SimpleNamespace, suite: int) -> None:
    if not kit.SUITES[suite].esn:
        return
    cipher = transform(kit.make_sa(suite=kit.SUITES[suite]), SeededEntropy(b"iv"))
    with pytest.raises(BadFrame):
        cipher.open(memoryview(seal(cipher, b"payload", 6, 5)), 5 + 2**32)


@pytest.mark.parametrize("suite", [0, 1, 2, 3])
def test_golden_aead(kit: SimpleNamespace, suite: int) -> None:
    """RFC 4106 s3, s4, s5 and RFC 7634 s2, s2.1, spelt out a second time."""
    suite = kit.SUITES[suite]
    sa = kit.make_sa(spi=0xDEADBEEF, suite=suite)
    key, salt = sa.encr_key.expose()[:-4], sa.encr_key.expose()[-4:]
    sequence = (3 << 32) + 9 if suite.esn else 9
    iv = sequence.to_bytes(8, "big")
    associated = bytes.fromhex("deadbeef") + ((b"\0\0\0\3" if suite.esn else b"") + b"\0\0\0\x09")
    aead = (AESGCM if suite.encr is EncrID.AES_GCM_16 else ChaCha20Poly1305)(key)
    sealed = aead.encrypt(salt + iv, b"hello" + b"\1" + b"\1\x11", associated)
    assert seal(transform(sa, SeededEntropy(b"")), b"hello", 17, sequence) == (
        bytes.fromhex("deadbeef00000009") + iv + sealed
    )


@pytest.mark.parametrize("suite", [4, 5, 6, 7])
def test_golden_cbc(kit: SimpleNamespace, suite: int) -> None:
    """RFC 3602 s2 and RFC 4868 s2 with RFC 4303 s3.3.2.1, spelt out a second time."""
    suite = kit.SUITES[suite]
    sa = kit.make_sa(spi=0xDEADBEEF, suite=suite)
    sequence = (3 << 32) + 9 if suite.esn else 9
    frame = seal(transform(sa, SeededEntropy(b"iv")), b"hello", 17, sequence)
    digest, icv = {12: ("sha256", 16), 13: ("sha384", 24), 14: ("sha512", 32)}[suite.integ]
    encryptor = Cipher(algorithms.AES(sa.encr_key.expose()), modes.CBC(bytes(frame[8:24]))).encryptor()
    sealed = encryptor.update(b"hello" + bytes(range(1, 10)) + b"\x09\x11")
    covered = bytes.fromhex("deadbeef00000009") + bytes(frame[8:24]) + sealed
    mac = hmac.digest(sa.integ_key.expose(), covered + (b"\0\0\0\3" if suite.esn else b""), digest)[:icv]
    assert frame == covered + mac


def test_no_iv_comes_twice(kit: SimpleNamespace) -> None:
    for suite in kit.SUITES:
        cipher = transform(kit.make_sa(suite=suite), SeededEntropy(b"iv"))
        ivs = {bytes(seal(cipher, b"", 59, sequence)[8 : cipher.header]) for sequence in range(1, 200)}
        assert len(ivs) == 199


@pytest.mark.parametrize("trailer", [b"\2\1\2\6", b"\1\2\4\6", b"\0\6", b"\xff\6", b"\1\2\1\6"])
def test_padding_is_inspected(kit: SimpleNamespace, trailer: bytes) -> None:
    """RFC 4303 s2.4, under a right ICV; \\0\\6 alone is the control that opens."""
    sa = kit.make_sa()
    key, salt = sa.encr_key.expose()[:-4], sa.encr_key.expose()[-4:]
    plain = b"x" * (-len(trailer) % 4 + 8) + trailer
    head = sa.spi.to_bytes(4, "big") + b"\0\0\0\1"
    frame = bytearray(head + bytes(8) + AESGCM(key).encrypt(salt + bytes(8), plain, head))
    cipher = transform(sa, SeededEntropy(b""))
    if trailer == b"\0\6":
        assert cipher.open(memoryview(frame), 1) == (6, b"x" * 10)
    else:
        with pytest.raises(BadFrame, match="padding"):
            cipher.open(memoryview(frame), 1)


@pytest.mark.parametrize(
    "suite",
    [
        EspSuite(EncrID.NULL, 0), EspSuite(EncrID.AES_GCM_8, 128), EspSuite(EncrID.AES_CBC, 128),
        EspSuite(EncrID.AES_CBC, 128, IntegID.HMAC_SHA1_96), EspSuite(EncrID.AES_GCM_16, 64),
        EspSuite(EncrID.AES_GCM_16, 128, IntegID.HMAC_SHA2_256_128),
    ],
    ids=str,
)  # fmt: skip
def test_other_suites_are_refused(kit: SimpleNamespace, suite: EspSuite) -> None:
    with pytest.raises(Unsupported):
        transform(kit.make_sa(suite=suite), SeededEntropy(b""))
