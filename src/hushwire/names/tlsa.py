"""A key's fingerprint in the DNS: the TLSA record 3 1 1 at `_500._udp.NAME` (RFC 6698 s2.1, RFC 7671 s5.1).

For keys too big for DNS, and for peers that send their key in CERT: the record vouches for the key, and holds none.
"""

from collections.abc import Iterable

from hushwire.names.name import host_name

TLSA = 52
"""The RR type."""

DIGEST_OCTETS = 32

DANE_EE_SPKI_SHA256 = bytes((3, 1, 1))
"""RFC 7671 s5.1: the end entity's own key and nothing else; SubjectPublicKeyInfo; SHA-256."""


class BadTlsa(ValueError):
    """RDATA that is no fingerprint we can use; the text says why."""


def owner(name: str) -> str:
    """Where the fingerprints of `name` are: UDP port 500, IKE's (RFC 6698 s3).  BadName when there is no room."""
    return host_name(f"_500._udp.{name}")


def write_fingerprint(fingerprint: bytes) -> bytes:
    """SHA-256 of a SubjectPublicKeyInfo -> RDATA."""
    if len(fingerprint) != DIGEST_OCTETS:
        raise ValueError(f"a fingerprint of {len(fingerprint)} octets")
    return DANE_EE_SPKI_SHA256 + fingerprint


def read_fingerprint(rdata: bytes) -> bytes:
    """RDATA -> SHA-256 of a SubjectPublicKeyInfo, or BadTlsa."""
    if len(rdata) < 3:
        raise BadTlsa(f"{len(rdata)} octets of RDATA, fewer than 3")
    if rdata[:3] != DANE_EE_SPKI_SHA256:
        # RFC 7671 s5: what speaks of certificates or of other digests says nothing of a raw key's SHA-256.
        raise BadTlsa("TLSA {} {} {} is not used, only 3 1 1".format(*rdata[:3]))
    if len(rdata) != 3 + DIGEST_OCTETS:
        raise BadTlsa(f"a SHA-256 of {len(rdata) - 3} octets")
    return rdata[3:]


def read_fingerprints(rdatas: Iterable[bytes]) -> tuple[frozenset[bytes], tuple[str, ...]]:
    """The usable fingerprints of a set, and why the other records were skipped.  Nothing is raised."""
    found: set[bytes] = set()
    skipped: list[str] = []
    for rdata in sorted(set(rdatas)):
        try:
            found.add(read_fingerprint(rdata))
        except BadTlsa as bad:
            skipped.append(str(bad))
    return frozenset(found), tuple(skipped)
