"""IKE_SA_INIT (RFC 7296 s1.2, s2.6, s2.7, s2.23).

HDR, SAi1, KEi, Ni  -->
                    <--  HDR, SAr1, KEr, Nr
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hushwire.crypto.auth import SUPPORTED_HASHES
from hushwire.crypto.kex import BadKeyExchange, KeyShare, generate
from hushwire.crypto.prf import ike_keys
from hushwire.ike import nat
from hushwire.ike.errors import NoAnswer, PeerMisbehaved, Rejected
from hushwire.ike.proposals import accepted_ike, choose_ike, ike_proposals
from hushwire.ike.traps import InitRequest, Listen, Respond
from hushwire.wire.address import Endpoint
from hushwire.wire.cursor import DecodeError
from hushwire.wire.message import Message
from hushwire.wire.payload import (
    Certificate,
    CertificateRequest,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
)  # fmt: skip
from hushwire.wire.registry import CertEncoding, HashID, KeID, NotifyType

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

RAW_ENCODINGS = (CertEncoding.RAW_PUBLIC_KEY, CertEncoding.OPENIKED_ECDSA, CertEncoding.RAW_RSA_KEY)
"""Forms of a bare key, in falling preference."""
MOST_COOKIES = 3
"""Cookies taken in one attempt: a server under load asks once, a forger for ever (ATTACKS row 13)."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What IKE_SA_INIT leaves for IKE_AUTH to sign and to choose by."""

    request: bytes
    """The initiator's message, to the octet."""
    response: bytes
    """The responder's."""
    ni: bytes
    nr: bytes
    hashes: frozenset[HashID] | None
    """What the peer can verify (RFC 7427 s4); None: it only knows the old methods."""
    encodings: frozenset[CertEncoding]
    """Forms of keys that the peer asked for."""


async def initiate(sa: "IkeSA") -> Agreed:
    """Agree on keys with whoever answers.  Raises NoAnswer, with the last unprotected hint why."""
    host, offers = sa.host, sa.host.settings.ike_offers
    groups = [group for offer in offers for group in offer.ke]
    share = generate(groups[0], host.entropy)
    ni = host.new_nonce()
    sent: dict[KeID, tuple[KeyShare, bytes]] = {}
    cookies = 0
    cookie: Notify | None = None
    hint = ""
    while True:
        first = [cookie] if cookie else []
        try:
            message, octets = await InitRequest(first + _initiator_payloads(sa, share, ni))
            assert sa.window.outstanding is not None
            sent[share.group] = share, sa.window.outstanding.datagram
            while True:
                # RFC 7296 s2.6: asked for a cookie, the request is repeated with it and else unchanged.
                asked = message.notify(NotifyType.COOKIE)
                if asked is not None and 1 <= len(asked.data) <= 64 and cookies < MOST_COOKIES:
                    cookie, cookies = asked, cookies + 1
                    break
                group = _suggested_group(message)
                if group in groups and group not in sent:
                    share = generate(group, host.entropy)
                    break
                try:
                    return _complete(sa, sent, ni, message, octets)
                except (Rejected, PeerMisbehaved, BadKeyExchange, DecodeError) as error:
                    # Anybody on the path can forge this: the real answer may still come (ATTACKS row 13).
                    hint = str(error)
                message, octets = await Listen()
        except NoAnswer as error:
            raise NoAnswer(f"{error}; it or a forger said {hint}" if hint else str(error)) from None


def _initiator_payloads(sa: "IkeSA", share: KeyShare, ni: bytes) -> list[Payload]:
    settings = sa.host.settings
    return [
        SecurityAssociation(ike_proposals(settings.ike_offers, first_ke=share.group)),
        KeyExchange(share.group, share.public),
        Nonce(ni),
        *_nat_notifies(sa),
        _hash_algorithms(),
    ]


def _nat_notifies(sa: "IkeSA") -> list[Notify]:
    pretend = sa.host.entropy if sa.host.settings.encapsulate else None
    return nat.notifies(sa.spi_i, sa.spi_r, sa.local, sa.remote, pretend)


def key_requests() -> list[CertificateRequest]:
    """What has a peer send its bare key.

    OpenIKED knows nothing of RFC 7670, and asked for RSA sends ECDSA as well; libreswan takes an encoding that it does
    not know, such as OpenIKED's own for ECDSA, for a syntax error.
    """
    return [CertificateRequest(encoding, b"") for encoding in (CertEncoding.RAW_PUBLIC_KEY, CertEncoding.RAW_RSA_KEY)]


def _hash_algorithms() -> Notify:
    octets = b"".join(hash_id.to_bytes(2) for hash_id in sorted(SUPPORTED_HASHES))
    return Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, octets)


def _suggested_group(message: Message) -> KeID | None:
    refusal = message.notify(NotifyType.INVALID_KE_PAYLOAD)
    return KeID(int.from_bytes(refusal.data)) if refusal is not None and len(refusal.data) == 2 else None


def _complete(
    sa: "IkeSA", sent: dict[KeID, tuple[KeyShare, bytes]], ni: bytes, message: Message, octets: bytes
) -> Agreed:
    """Take a response that completes the exchange; raises, with the SA as it was, if this one does not.

    It may answer any request `sent`, by its group: what made us try another group may have been forged.
    """
    for payload in message.payloads:
        if isinstance(payload, Notify) and payload.type.is_error:
            raise Rejected(payload.type)
    answer, ke, nonce = message.one(SecurityAssociation), message.one(KeyExchange), message.one(Nonce)
    if answer is None or ke is None or nonce is None or message.header.spi_r == bytes(8):
        raise PeerMisbehaved("IKE_SA_INIT response without SA, KE or nonce")
    choice = accepted_ike(sa.host.settings.ike_offers, answer.proposals)
    if choice.suite.ke != ke.group or ke.group not in sent:
        raise PeerMisbehaved(f"KE of group {ke.group.name}, which we have not sent")
    share, request = sent[ke.group]
    shared = share.agree(ke.data)
    spi_r = message.header.spi_r
    detected = nat.detect(_notifies(message), sa.spi_i, spi_r, sa.local, sa.remote)
    _settle_nat(sa, detected)
    sa.spi_r = spi_r
    agreed = Agreed(request, octets, ni, nonce.data, _hashes(message), _encodings(message))
    sa.keyed(choice.suite, ike_keys(choice.suite, shared, ni, nonce.data, sa.spi_i, spi_r))
    port = sa.host.settings.nat_port
    if sa.nat and sa.local.port != port:
        # RFC 7296 s2.23: from here on both ends use port 4500; what begins there, keeps to the path that it knows.
        sa.local, sa.remote = Endpoint(sa.local.address, port), Endpoint(sa.remote.address, port)
    return agreed


def _settle_nat(sa: "IkeSA", detected: nat.Nat | None) -> None:
    sa.behind_nat = detected is not None and detected.local
    if sa.host.settings.encapsulate:
        if detected is None:
            raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, "the peer cannot do ESP in UDP, which our plane needs")
        detected = nat.Nat(local=True, remote=detected.remote)
    sa.nat = detected or nat.Nat()


def _notifies(message: Message) -> list[Notify]:
    return [payload for payload in message.payloads if isinstance(payload, Notify)]


def _hashes(message: Message) -> frozenset[HashID] | None:
    said = message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    if said is None:
        return None
    pairs = zip(said.data[::2], said.data[1::2], strict=False)
    return frozenset(HashID(high << 8 | low) for high, low in pairs)


def _encodings(message: Message) -> frozenset[CertEncoding]:
    return frozenset(p.encoding for p in message.payloads if isinstance(p, CertificateRequest | Certificate))


async def respond(sa: "IkeSA", message: Message) -> None:
    """Answer an IKE_SA_INIT request whose cookie, if one was due, the Endpoint has checked."""
    host, settings = sa.host, sa.host.settings
    offer, ke, nonce = message.one(SecurityAssociation), message.one(KeyExchange), message.one(Nonce)
    if offer is None or ke is None or nonce is None:
        raise Rejected(NotifyType.INVALID_SYNTAX, "IKE_SA_INIT request without SA, KE or nonce")
    choice = choose_ike(settings.ike_offers, offer.proposals, ke.group)
    if choice.suite.ke != ke.group:
        # RFC 7296 s1.2: the group that we take, for the initiator to try again.
        wanted = choice.suite.ke
        raise Rejected(NotifyType.INVALID_KE_PAYLOAD, f"{ke.group.name}, not {wanted.name}", wanted.to_bytes(2))
    share = generate(ke.group, host.entropy)
    try:
        shared = share.agree(ke.data)
    except BadKeyExchange as error:
        raise Rejected(NotifyType.INVALID_SYNTAX, str(error)) from None
    spi_r = host.new_ike_spi()
    detected = nat.detect(_notifies(message), sa.spi_i, bytes(8), sa.local, sa.remote)
    _settle_nat(sa, detected)
    sa.spi_r = spi_r
    nr = host.new_nonce()
    payloads: list[Payload] = [
        SecurityAssociation((choice.accepted,)),
        KeyExchange(ke.group, share.public),
        Nonce(nr),
        *(_nat_notifies(sa) if detected is not None else ()),
        *key_requests(),
        # RFC 7427 s4: whether or not the initiator wants a signature of ours, it may sign itself.
        _hash_algorithms(),
    ]
    await Respond(payloads)
    sa.keyed(choice.suite, ike_keys(choice.suite, shared, nonce.data, nr, sa.spi_i, spi_r))
    response = sa.window.response
    sa.agreed = Agreed(sa.init_request, response, nonce.data, nr, _hashes(message), frozenset())
    sa.init_request = b""
    host.sas[spi_r] = sa
    host.half_open.add(sa, sa.remote)
    sa.half_open_until(host.now.monotonic + settings.half_open)
