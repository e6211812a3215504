"""crypto.suite: what can be negotiated, and nothing else."""

import hashlib
from itertools import product

import pytest

from hushwire.crypto.suite import ENCR, INTEG, KE, PRF, IkeSuite, can_encrypt, encr_key_length, integ_key_length
from hushwire.wire.registry import EncrID, IntegID, KeID, PrfID


def test_a_suite_prints_as_its_transforms() -> None:
    aead = IkeSuite(EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519)
    cbc = IkeSuite(EncrID.AES_CBC, 128, IntegID.HMAC_SHA2_256_128, PrfID.HMAC_SHA2_384, KeID.ECP_384)
    assert str(aead) == "AES_GCM_16-256/HMAC_SHA2_256/CURVE25519"
    assert str(cbc) == "AES_CBC-128/HMAC_SHA2_256_128/HMAC_SHA2_384/ECP_384"


@pytest.mark.parametrize(
    ("encr", "key_bits", "integ", "prf", "ke"),
    [
        (EncrID.NULL, 0, IntegID.HMAC_SHA2_256_128, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.NONE, 0, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.TRIPLE_DES, 192, IntegID.HMAC_SHA2_256_128, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_GCM_8, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 257, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 0, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.CHACHA20_POLY1305, 128, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_CBC, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_CBC, 256, IntegID.HMAC_SHA1_96, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 256, IntegID.HMAC_SHA2_256_128, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA1, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.AES128_XCBC, KeID.CURVE25519),
        (EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.NONE),
        (EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.MODP_1024),
        (EncrID.AES_GCM_16, 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID(1025)),
        (EncrID(4711), 256, IntegID.NONE, PrfID.HMAC_SHA2_256, KeID.CURVE25519),
    ],
)
def test_what_we_cannot_compute_is_no_suite(encr: EncrID, key_bits: int, integ: IntegID, prf: PrfID, ke: KeID) -> None:
    with pytest.raises(ValueError, match="no suite of ours"):
        IkeSuite(encr, key_bits, integ, prf, ke)


def test_every_combination_of_rows_is_a_suite_or_refused_by_the_aead_rule() -> None:
    """RFC 5282 s8: an AEAD goes without an integrity algorithm, and any other cipher with one."""
    for (encr, row), integ, prf, ke in product(ENCR.items(), (IntegID.NONE, *INTEG), PRF, KE):
        for bits in row.key_bits:
            if row.aead == (integ == IntegID.NONE):
                assert can_encrypt(encr, bits, integ)
                assert IkeSuite(encr, bits, integ, prf, ke).key_bits == bits
            else:
                assert not can_encrypt(encr, bits, integ)


@pytest.mark.parametrize(
    ("encr", "bits", "octets"),
    [
        (EncrID.AES_GCM_16, 128, 20),
        (EncrID.AES_GCM_16, 256, 36),
        (EncrID.CHACHA20_POLY1305, 256, 36),
        (EncrID.AES_CBC, 256, 32),
    ],
)
def test_keymat_counts_the_salt(encr: EncrID, bits: int, octets: int) -> None:
    assert encr_key_length(encr, bits) == octets


def test_hashes_have_the_lengths_of_their_rows() -> None:
    for prf in PRF.values():
        assert hashlib.new(prf.hash).digest_size == prf.length
    for id_, integ in INTEG.items():
        assert hashlib.new(integ.hash).digest_size == integ.key == integ.icv * 2 == integ_key_length(id_)
    assert integ_key_length(IntegID.NONE) == 0
