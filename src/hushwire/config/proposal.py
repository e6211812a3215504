"""Proposals as an administrator writes them, "aes256gcm16-prfsha256-x25519": words joined by hyphens, best first."""

from collections.abc import Iterable
from enum import IntEnum
from typing import TypeVar

from hushwire.config.value import shown, text
from hushwire.crypto.suite import ENCR
from hushwire.ike.proposals import Cipher, EspOffer, IkeOffer
from hushwire.wire.registry import EncrID, EsnID, IntegID, KeID, PrfID

CIPHERS: dict[str, Cipher] = {
    "aes128gcm16": (EncrID.AES_GCM_16, 128),
    "aes192gcm16": (EncrID.AES_GCM_16, 192),
    "aes256gcm16": (EncrID.AES_GCM_16, 256),
    "chacha20poly1305": (EncrID.CHACHA20_POLY1305, 256),
    "aes128": (EncrID.AES_CBC, 128),
    "aes192": (EncrID.AES_CBC, 192),
    "aes256": (EncrID.AES_CBC, 256),
}
NUMBERS: dict[str, PrfID | IntegID | KeID | EsnID] = {
    "prfsha256": PrfID.HMAC_SHA2_256,
    "prfsha384": PrfID.HMAC_SHA2_384,
    "prfsha512": PrfID.HMAC_SHA2_512,
    "sha256": IntegID.HMAC_SHA2_256_128,
    "sha384": IntegID.HMAC_SHA2_384_192,
    "sha512": IntegID.HMAC_SHA2_512_256,
    "x25519": KeID.CURVE25519,
    "x448": KeID.CURVE448,
    "ecp256": KeID.ECP_256,
    "ecp384": KeID.ECP_384,
    "ecp521": KeID.ECP_521,
    "modp2048": KeID.MODP_2048,
    "modp3072": KeID.MODP_3072,
    "modp4096": KeID.MODP_4096,
    "nopfs": KeID.NONE,
    "esn": EsnID.ESN,
    "noesn": EsnID.NO_ESN,
}


def ike_offer(value: object) -> IkeOffer:
    """A proposal for IKE SAs: ciphers, with CBC also integrity algorithms, PRFs, key exchanges."""
    words = _words(value)
    ciphers, integs = _ciphers(words)
    prfs, groups = _of(PrfID, words), _of(KeID, words)
    if not prfs:
        raise ValueError(f'{shown(value)} has no pseudo-random function; add one such as "-prfsha256"')
    if not groups:
        raise ValueError(f'{shown(value)} has no key exchange; add one such as "-x25519"')
    if KeID.NONE in groups:
        raise ValueError(f'{shown(value)} would have no key exchange; "nopfs" belongs to esp.proposals')
    if _of(EsnID, words):
        raise ValueError(f'{shown(value)} speaks of sequence numbers; "esn" and "noesn" belong to esp.proposals')
    return IkeOffer(ciphers, integs, prfs, groups)


def esp_offer(value: object) -> EspOffer:
    """A proposal for Child SAs: like one for IKE SAs without PRF, and with "nopfs", "esn" and "noesn" as liked."""
    words = _words(value)
    ciphers, integs = _ciphers(words)
    if _of(PrfID, words):
        raise ValueError(f"{shown(value)} has a pseudo-random function; those belong to ike.proposals")
    return EspOffer(ciphers, integs, _of(EsnID, words) or (EsnID.ESN, EsnID.NO_ESN), _of(KeID, words))


def _words(value: object) -> list[str]:
    words = text(value).split("-")
    for word in words:
        if word not in CIPHERS and word not in NUMBERS:
            raise ValueError(f"{shown(word)} is no algorithm here; there are {', '.join([*CIPHERS, *NUMBERS])}")
        if words.count(word) > 1:
            raise ValueError(f'{shown(value)} says "{word}" twice; once is enough')
    return words


def _ciphers(words: Iterable[str]) -> tuple[tuple[Cipher, ...], tuple[IntegID, ...]]:
    """The ciphers and what protects the integrity of what they encrypt.

    RFC 5282 s8: a cipher that does both and one that does not never share a proposal.
    """
    said = "-".join(words)
    ciphers, integs = tuple(CIPHERS[word] for word in words if word in CIPHERS), _of(IntegID, words)
    combined = {ENCR[encr].aead for encr, _ in ciphers}
    if not combined:
        raise ValueError(f'{shown(said)} has no cipher; begin it with one such as "aes256gcm16"')
    if len(combined) > 1:
        raise ValueError(f"{shown(said)} mixes ciphers with and without integrity; write a proposal for each kind")
    if combined == {True} and integs:
        raise ValueError(f"{shown(said)} protects integrity twice; leave out {_spelt(integs)}")
    if combined == {False} and not integs:
        raise ValueError(f'{shown(said)} does not protect integrity; add "-sha256", or take "aes256gcm16"')
    return ciphers, integs


Number = TypeVar("Number", PrfID, IntegID, KeID, EsnID)


def _of(kind: type[Number], words: Iterable[str]) -> tuple[Number, ...]:
    return tuple(number for word in words if isinstance(number := NUMBERS.get(word), kind))


def _spelt(numbers: Iterable[IntEnum]) -> str:
    return ", ".join(f'"{word}"' for word, number in NUMBERS.items() if number in numbers)
