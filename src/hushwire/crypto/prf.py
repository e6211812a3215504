"""Pseudo-random functions and the keys they make: RFC 7296 s2.13, s2.14, s2.17, s2.18; RFC 4868."""

import hmac
from dataclasses import dataclass

from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import PRF, IkeSuite, encr_key_length, integ_key_length
from hushwire.wire.registry import EncrID, IntegID, PrfID


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """The seven keys of an IKE SA (RFC 7296 s2.14)."""

    d: Secret
    """SK_d, from which Child SAs and successors are derived."""
    ai: Secret
    """SK_ai; empty with an AEAD."""
    ar: Secret
    """SK_ar; empty with an AEAD."""
    ei: Secret
    """SK_ei, salt included."""
    er: Secret
    """SK_er, salt included."""
    pi: Secret
    """SK_pi, for the initiator's AUTH."""
    pr: Secret
    """SK_pr, for the responder's AUTH."""


@dataclass(frozen=True, slots=True)
class ChildKeys:
    """The keys of a Child SA's two directions: the initiator of the exchange sends with the first pair."""

    encr_i: Secret
    """Cipher key, then salt."""
    integ_i: Secret
    """Empty with an AEAD."""
    encr_r: Secret
    integ_r: Secret


def ike_keys(suite: IkeSuite, shared: Secret, ni: bytes, nr: bytes, spi_i: bytes, spi_r: bytes) -> IkeKeys:
    """RFC 7296 s2.14: the keys of a first IKE SA."""
    skeyseed = prf(suite.prf, Secret(ni + nr), shared.expose())
    return _from_skeyseed(suite, Secret(skeyseed), ni, nr, spi_i, spi_r)


def rekeyed_ike_keys(
    suite: IkeSuite, old_prf: PrfID, old_d: Secret, shared: Secret, ni: bytes, nr: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """RFC 7296 s2.18: the keys of an IKE SA that replaces one with SK_d `old_d`."""
    # RFC 7296 s2.18: SKEYSEED comes of the old SA's PRF, the keys of the new one's.
    skeyseed = prf(old_prf, old_d, shared.expose() + ni + nr)
    return _from_skeyseed(suite, Secret(skeyseed), ni, nr, spi_i, spi_r)


def child_keys(
    prf_id: PrfID,
    sk_d: Secret,
    encr: EncrID,
    key_bits: int,
    integ: IntegID,
    ni: bytes,
    nr: bytes,
    shared: Secret | None = None,
) -> ChildKeys:
    """RFC 7296 s2.17: KEYMAT, cut for both directions.  `shared` is the g^ir of a CREATE_CHILD_SA with KE."""
    seed = (shared.expose() if shared else b"") + ni + nr
    # RFC 7296 s2.17: initiator to responder comes first, and of each direction encryption first.
    one_way = (encr_key_length(encr, key_bits), integ_key_length(integ))
    return ChildKeys(*_expand(prf_id, sk_d, seed, one_way * 2))


def prf(prf_id: PrfID, key: Secret, data: bytes) -> bytes:
    return hmac.digest(key.expose(), data, PRF[prf_id].hash)


def prf_plus(prf_id: PrfID, key: Secret, seed: bytes, length: int) -> Secret:
    """RFC 7296 s2.13: T1 | T2 | ..., cut to `length` octets."""
    secret, name = key.expose(), PRF[prf_id].hash
    stream = block = b""
    count = 0
    while len(stream) < length:
        count += 1
        # RFC 7296 s2.13: the counter is one octet; bytes() raises ValueError beyond 255 blocks.
        block = hmac.digest(secret, block + seed + bytes((count,)), name)
        stream += block
    return Secret(stream[:length])


def _from_skeyseed(suite: IkeSuite, skeyseed: Secret, ni: bytes, nr: bytes, spi_i: bytes, spi_r: bytes) -> IkeKeys:
    p = PRF[suite.prf].length
    a = integ_key_length(suite.integ)
    e = encr_key_length(suite.encr, suite.key_bits)
    return IkeKeys(*_expand(suite.prf, skeyseed, ni + nr + spi_i + spi_r, (p, a, a, e, e, p, p)))


def _expand(prf_id: PrfID, key: Secret, seed: bytes, lengths: tuple[int, ...]) -> list[Secret]:
    """Consecutive pieces of prf+."""
    stream = prf_plus(prf_id, key, seed, sum(lengths)).expose()
    pieces, start = [], 0
    for length in lengths:
        pieces.append(Secret(stream[start : start + length]))
        start += length
    return pieces
