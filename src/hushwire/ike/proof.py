"""What a verified AUTH leaves behind: without it no Child SA can be built (DESIGN.md section 2)."""

from dataclasses import dataclass

from hushwire.crypto.auth import (
    SUPPORTED_HASHES,
    AuthenticationFailed,
    Verified,
    choose_scheme,
    compare_shared_key,
    shared_key_auth,
    verify,
    verify_null,
)  # fmt: skip
from hushwire.crypto.auth import auth_payload as write_auth
from hushwire.crypto.keys import PublicKey
from hushwire.crypto.secret import Secret
from hushwire.ike.errors import Rejected
from hushwire.ike.traps import Sign
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import PadEntry
from hushwire.wire.payload import Authentication
from hushwire.wire.registry import AuthMethod, HashID, NotifyType, PrfID

MOST_KEYS = 8
"""Keys tried per peer (ATTACKS section 4)."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The peer of `entry` proved it with what `verified` names."""

    entry: PadEntry
    verified: Verified

    @property
    def anonymous(self) -> bool:
        """Whether the peer proved nothing but that it is one and the same (RFC 7619)."""
        return self.verified.anonymous

    @property
    def assurance(self) -> Assurance:
        return min(self.entry.assurance, Assurance.ENCRYPTED) if self.anonymous else self.entry.assurance


def reconsidered(proof: Authenticated, entry: PadEntry) -> Authenticated:
    """What the same AUTH proves by another entry.  Raises Rejected if that takes another key."""
    key = proof.verified.public
    if key is None or (key not in entry.keys and key.fingerprint not in entry.fingerprints):
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, f"the peer has proved another key than one of {entry.name}'s")
    return Authenticated(entry, proof.verified)


async def prove(
    entry: PadEntry, payload: Authentication, octets: bytes, prf: PrfID, sk_p: Secret, sent: PublicKey | None
) -> Authenticated:
    """Check a peer's AUTH payload against its PAD entry; raises Rejected(AUTHENTICATION_FAILED).

    `sk_p` is the peer's SK_pi or SK_pr.  `sent` is the key of its CERT payload.  That is no evidence: it only says
    which of the entry's keys to try, or is the one that a fingerprint of the entry's is of.
    """
    if payload.method == AuthMethod.NULL:
        # RFC 7619 s2: where policy wants to know who the peer is, this is an AUTH that failed.
        if not entry.anonymous:
            raise Rejected(NotifyType.AUTHENTICATION_FAILED, "the peer is anonymous, and no rule lets it be")
        try:
            return Authenticated(entry, verify_null(prf, sk_p, payload.data, octets))
        except AuthenticationFailed as error:
            raise Rejected(NotifyType.AUTHENTICATION_FAILED, str(error)) from None
    if payload.method == AuthMethod.SHARED_KEY:
        if entry.psk is None:
            raise Rejected(NotifyType.AUTHENTICATION_FAILED, "a shared key, and none is configured")
        expected = await Sign(entry.psk, shared_key_scheme(prf), octets)
        try:
            return Authenticated(entry, compare_shared_key(expected, payload.data))
        except AuthenticationFailed as error:
            raise Rejected(NotifyType.AUTHENTICATION_FAILED, str(error)) from None
    reason = "the peer's key is none of those known for it" if entry.keys else "no key is known for the peer"
    for key in _candidates(entry, sent):
        try:
            return Authenticated(entry, verify(key, payload.method, payload.data, octets, SUPPORTED_HASHES))
        except AuthenticationFailed as error:
            reason = str(error)
    raise Rejected(NotifyType.AUTHENTICATION_FAILED, reason)


def _candidates(entry: PadEntry, sent: PublicKey | None) -> list[PublicKey]:
    """The keys that may prove the peer."""
    if sent is None:
        return list(entry.keys[:MOST_KEYS])
    return [sent] if sent in entry.keys or sent.fingerprint in entry.fingerprints else []


async def authentication(
    entry: PadEntry, key: PublicKey | None, hashes: frozenset[HashID] | None, octets: bytes, prf: PrfID, sk_p: Secret
) -> Authentication:
    """Our own AUTH payload, made by the keeper.  Raises Rejected when the peer can verify nothing of ours."""
    if entry.own_null:
        return Authentication(AuthMethod.NULL, shared_key_auth(prf, sk_p, octets))
    if entry.psk is not None:
        return Authentication(AuthMethod.SHARED_KEY, await Sign(entry.psk, shared_key_scheme(prf), octets))
    scheme = choose_scheme(key.kind, hashes) if key is not None else None
    if key is None or scheme is None:
        ours = f"no signature of our {key.kind} key" if key is not None else "no key: we have none"
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, f"the peer can verify {ours}")
    return Authentication(*write_auth(scheme, await Sign(key.fingerprint, scheme.name, octets)))


def shared_key_scheme(prf: PrfID) -> str:
    return f"SHARED_KEY/{prf.name}"
