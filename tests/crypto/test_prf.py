"""crypto.prf: RFC 4231's vectors, and RFC 7296's formulas written out a second time with hmac alone."""

import hmac
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.prf import ChildKeys, IkeKeys, child_keys, ike_keys, prf, prf_plus, rekeyed_ike_keys
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import PRF, IkeSuite
from hushwire.wire.registry import EncrID, IntegID, KeID, PrfID

NI, NR, SPI_I, SPI_R = b"\x01" * 32, b"\x02" * 40, b"\x03" * 8, b"\x04" * 8
SHARED, NEW_SHARED = Secret(b"\x05" * 32), Secret(b"\x06" * 32)
GCM = IkeSuite(EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519)
CBC = IkeSuite(EncrID.AES_CBC, 192, IntegID.HMAC_SHA2_384_192, PrfID.HMAC_SHA2_512, KeID.CURVE25519)


@pytest.mark.parametrize(
    ("id_", "key", "data", "output"),
    [
        (
            PrfID.HMAC_SHA2_256,
            b"\x0b" * 20,
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            PrfID.HMAC_SHA2_384,
            b"\x0b" * 20,
            b"Hi There",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
        ),
        (
            PrfID.HMAC_SHA2_512,
            b"\x0b" * 20,
            b"Hi There",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
            "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            PrfID.HMAC_SHA2_256,
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            PrfID.HMAC_SHA2_256,
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_rfc_4231(id_: PrfID, key: bytes, data: bytes, output: str) -> None:
    assert prf(id_, Secret(key), data).hex() == output


@pytest.mark.parametrize("id_", list(PRF))
def test_prf_plus_is_rfc_7296_s2_13(id_: PrfID) -> None:
    name = PRF[id_].hash
    t1 = hmac.digest(b"key", b"seed\x01", name)
    t2 = hmac.digest(b"key", t1 + b"seed\x02", name)
    t3 = hmac.digest(b"key", t2 + b"seed\x03", name)
    whole = t1 + t2 + t3
    for length in (0, 1, len(t1) - 1, len(t1), len(t1) + 1, len(whole)):
        assert prf_plus(id_, Secret(b"key"), b"seed", length).expose() == whole[:length]


def test_prf_plus_ends_at_255_blocks() -> None:
    assert len(prf_plus(PrfID.HMAC_SHA2_256, Secret(b"key"), b"seed", 255 * 32)) == 255 * 32
    with pytest.raises(ValueError, match="range"):
        prf_plus(PrfID.HMAC_SHA2_256, Secret(b"key"), b"seed", 255 * 32 + 1)


def _stream(name: str, key: bytes, seed: bytes) -> bytes:
    """Plenty of prf+, written out."""
    out = block = b""
    for count in range(1, 20):
        block = hmac.digest(key, block + seed + bytes([count]), name)
        out += block
    return out


def test_ike_keys_are_cut_in_the_order_of_rfc_7296_s2_14() -> None:
    keys = ike_keys(CBC, SHARED, NI, NR, SPI_I, SPI_R)
    skeyseed = hmac.digest(NI + NR, SHARED.expose(), "sha512")
    stream = _stream("sha512", skeyseed, NI + NR + SPI_I + SPI_R)
    assert _octets(keys) == _cut(stream, 64, 48, 48, 24, 24, 64, 64)


def test_an_aead_has_salts_and_no_integrity_keys() -> None:
    keys = ike_keys(GCM, SHARED, NI, NR, SPI_I, SPI_R)
    skeyseed = hmac.digest(NI + NR, SHARED.expose(), "sha256")
    stream = _stream("sha256", skeyseed, NI + NR + SPI_I + SPI_R)
    assert _octets(keys) == _cut(stream, 32, 0, 0, 36, 36, 32, 32)


def test_a_rekeyed_ike_sa_starts_with_the_old_prf_and_goes_on_with_the_new() -> None:
    """RFC 7296 s2.18."""
    old_d = Secret(b"\x07" * 32)
    keys = rekeyed_ike_keys(CBC, PrfID.HMAC_SHA2_256, old_d, NEW_SHARED, NI, NR, SPI_I, SPI_R)
    skeyseed = hmac.digest(old_d.expose(), NEW_SHARED.expose() + NI + NR, "sha256")
    stream = _stream("sha512", skeyseed, NI + NR + SPI_I + SPI_R)
    assert _octets(keys) == _cut(stream, 64, 48, 48, 24, 24, 64, 64)


@pytest.mark.parametrize("shared", [None, NEW_SHARED])
@pytest.mark.parametrize(
    ("encr", "bits", "integ", "e", "a"),
    [
        (EncrID.AES_GCM_16, 128, IntegID.NONE, 20, 0),
        (EncrID.CHACHA20_POLY1305, 256, IntegID.NONE, 36, 0),
        (EncrID.AES_CBC, 256, IntegID.HMAC_SHA2_512_256, 32, 64),
    ],
)
def test_child_keys_are_cut_in_the_order_of_rfc_7296_s2_17(
    shared: Secret | None, encr: EncrID, bits: int, integ: IntegID, e: int, a: int
) -> None:
    sk_d = Secret(b"\x08" * 48)
    keys = child_keys(PrfID.HMAC_SHA2_384, sk_d, encr, bits, integ, NI, NR, shared)
    seed = (shared.expose() if shared else b"") + NI + NR
    stream = _stream("sha384", sk_d.expose(), seed)
    assert _octets(keys) == _cut(stream, e, a, e, a)


@given(st.binary(min_size=16, max_size=256), st.binary(min_size=16, max_size=256))
def test_every_input_counts(ni: bytes, nr: bytes) -> None:
    keys = ike_keys(GCM, SHARED, ni, nr, SPI_I, SPI_R)
    assert keys == ike_keys(GCM, SHARED, ni, nr, SPI_I, SPI_R)
    for other in (
        ike_keys(GCM, NEW_SHARED, ni, nr, SPI_I, SPI_R),
        ike_keys(GCM, SHARED, ni + b"\0", nr, SPI_I, SPI_R),
        ike_keys(GCM, SHARED, ni, nr + b"\0", SPI_I, SPI_R),
        ike_keys(GCM, SHARED, ni, nr, SPI_R, SPI_R),
        ike_keys(GCM, SHARED, ni, nr, SPI_I, SPI_I),
    ):
        assert other.d != keys.d
        assert other.ei != keys.ei


def test_keys_do_not_print() -> None:
    keys = ike_keys(GCM, SHARED, NI, NR, SPI_I, SPI_R)
    assert keys.ei.expose().hex() not in repr(keys)
    assert repr(keys.ei) == "<Secret 36 octets>"


def _octets(keys: IkeKeys | ChildKeys) -> list[bytes]:
    return [getattr(keys, name).expose() for name in keys.__slots__]


def _cut(stream: bytes, *lengths: int) -> list[bytes]:
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    return [stream[start:end] for start, end in pairwise(ends)]
