"""IKE_AUTH (RFC 7296 s1.2, s2.15, RFC 7670 for raw keys, RFC 7619 for none).

HDR, SK {IDi, [CERT,] [CERTREQ,] [IDr,] AUTH, SAi2, TSi, TSr}  -->
                                <--  HDR, SK {IDr, [CERT,] AUTH, SAr2, TSi, TSr}
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hushwire.crypto.auth import signed_octets
from hushwire.crypto.keys import BadKey, PublicKey, cert_from_public_key, public_key_from_cert
from hushwire.ike import init, report
from hushwire.ike.allowance import make_room, make_room_for_child
from hushwire.ike.child import ChildSA
from hushwire.ike.errors import PeerMisbehaved, PeerRefused, PlaneRefused, Rejected, Unauthorized
from hushwire.ike.informational import disown
from hushwire.ike.init import RAW_ENCODINGS, Agreed
from hushwire.ike.negotiation import Wanted, answer_request, assemble, request_payloads, take_response
from hushwire.ike.proof import Authenticated, authentication, prove
from hushwire.ike.traps import Authorize, Install, Request, Respond
from hushwire.policy.pad import ANONYMOUS, Identity, PadEntry
from hushwire.wire.message import Message
from hushwire.wire.payload import (
    Authentication,
    Certificate,
    CertificateRequest,
    IDi,
    IDr,
    Notify,
    Payload,
    SecurityAssociation,
)  # fmt: skip
from hushwire.wire.registry import AuthMethod, ExchangeType, IDType, NotifyType, PrfID

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

REPLACES = NotifyType(0xE877)
"""Of the private ones: this IKE SA is to replace another, named by the first of its `origin` (ike.reauth)."""


async def initiate(sa: "IkeSA", entry: PadEntry, wanted: Wanted) -> None:
    """Become known to the peer of `entry` and know it, with a first Child SA."""
    sa.peer = entry
    agreed = await init.initiate(sa)
    host, keys, prf = sa.host, sa.keys, _prf(sa)
    ours = sa.known_as = ANONYMOUS if entry.own_null else sa.known_as or entry.own_identity or host.settings.identity
    identity = IDi(ours.type, ours.data)
    octets = signed_octets(agreed.request, agreed.nr, prf, keys.pi, identity.write())
    if sa.succession.instead_of and not _may_replace(sa, host.peers.get(entry.identity, ())):
        sa.close("the peer has replaced the old one by now")
        return
    key = sa.proved_with = _own_key(sa, entry)
    auth = await authentication(entry, key, agreed.hashes, octets, prf, keys.pi)
    spi_in = host.new_child_spi()
    payloads: list[Payload] = [
        identity,
        *_certificates(entry, key, agreed),
        *(init.key_requests() if entry.psk is None else ()),
        *(() if entry.btns else (IDr(entry.identity.type, entry.identity.data),)),
        auth,
        *request_payloads(sa, wanted, spi_in, with_ke=False),
    ]
    first = not host.peers.get(entry.identity) and not host.speaks_with(sa.remote.address)
    # Of several that were begun together, to a peer's addresses of both IP versions, one says so for all: another of
    # them may stand at the peer by now, whose answer is under way.
    begun = (each for each in host.by_reqid.get(entry.reqid, ()) if each.initiator and not each.authenticated)
    if first and next(begun) is sa and entry.introduced and not entry.own_null:
        payloads.append(Notify(NotifyType.INITIAL_CONTACT))
    elif sa.succession.instead_of:
        payloads.append(Notify(REPLACES, sa.succession.instead_of))
    response = await Request(ExchangeType.IKE_AUTH, payloads)
    try:
        proof = await _prove_responder(sa, entry, agreed, response)
    except PeerRefused:
        # It has forgotten us: there is nobody to be told.
        raise
    except Rejected as failure:
        # RFC 7296 s2.21.2: the responder takes us for established, so it is told.
        await Request(ExchangeType.INFORMATIONAL, [Notify(failure.notify)])
        raise
    sa.authenticate(proof)
    host.outbox.append(report.Established(sa))
    sa.children.creating = True
    try:
        _raise_error(response)
        terms, _ = take_response(sa, response, wanted, spi_in, (agreed.ni, agreed.nr), with_ke=False)
        child = assemble(sa, proof, terms, acquire=wanted.acquire)
        await Install((child.inbound, child.outbound))
        sa.children.add(child)
    except (Rejected, PeerMisbehaved, PlaneRefused) as failure:
        if not isinstance(failure, PeerRefused):
            await disown(sa, spi_in)
        # Last of all: who hears of it may try again.
        sa.children.creating = False
        host.outbox.append(report.ChildFailed(sa, str(failure)))
    finally:
        sa.children.creating = False


async def _prove_responder(sa: "IkeSA", entry: PadEntry, agreed: Agreed, response: Message) -> Authenticated:
    idr, auth = response.one(IDr), response.one(Authentication)
    if idr is None or auth is None:
        _raise_error(response)
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, "IKE_AUTH response without IDr or AUTH")
    claimed, sent = _claimed(idr, auth), _signing_key(response, auth)
    if entry.btns:
        entry = _taken(sa, await _authorize(Authorize(claimed, sa.remote, entry.reqid, sent)), auth)
    elif claimed not in (entry.identity, *entry.also):
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, f"the peer is {claimed}, not {entry.identity}")
    octets = signed_octets(agreed.response, agreed.ni, _prf(sa), sa.keys.pr, idr.write())
    proof = await prove(entry, auth, octets, _prf(sa), sa.keys.pr, sent)
    _keep_apart(sa, proof)
    return proof


async def _authorize(question: Authorize) -> PadEntry:
    """The entry that counts for a peer who has told what he is.  Raises Rejected."""
    try:
        return await question
    except Unauthorized as error:
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, str(error)) from None


async def respond(sa: "IkeSA", message: Message) -> None:
    """Let the peer prove who it is, prove who we are, and build the Child SA it asks for."""
    host, keys, agreed, prf = sa.host, sa.keys, sa.agreed, _prf(sa)
    assert agreed is not None
    idi, auth = message.one(IDi), message.one(Authentication)
    if idi is None or auth is None:
        # No AUTH would ask for EAP, which hushwire does not do (DESIGN.md law 9).
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, "IKE_AUTH request without IDi or AUTH")
    sent = _signing_key(message, auth)
    entry = _taken(sa, await _authorize(Authorize(_claimed(idi, auth), sa.remote, key=sent)), auth)
    octets = signed_octets(agreed.request, agreed.nr, prf, keys.pi, idi.write())
    proof = await prove(entry, auth, octets, prf, keys.pi, sent)
    _keep_apart(sa, proof)
    make_room(sa, entry, NotifyType.NO_ADDITIONAL_SAS)
    sa.peer = entry
    own = sa.known_as = _asked_for(sa, message, entry) or entry.own_identity or host.settings.identity
    identity = IDr(own.type, own.data)
    ours = signed_octets(agreed.response, agreed.ni, prf, keys.pr, identity.write())
    key = sa.proved_with = _own_key(sa, entry)
    answer = await authentication(entry, key, agreed.hashes, ours, prf, keys.pr)
    payloads: list[Payload] = [identity, *_certificates(entry, key, _asking(agreed, message)), answer]
    if message.notify(NotifyType.INITIAL_CONTACT) is not None:
        sa.first_contact()
    replaces = message.notify(REPLACES)
    if replaces is not None:
        others = host.peers.get(entry.identity, ())
        if any(replaces.data in (other.origin[0], other.succession.instead_of) for other in others):
            # The second: when both ends began at once, the old one may be gone already.
            sa.succession.instead_of = replaces.data
    sa.authenticate(proof)
    # Whoever gets our response may send at once, and our answers must not leave in clear: first of all the policies.
    # Nor may he get what is meant for somebody who was there before (RFC 5660): that ends before his SAs stand.
    host.outbox.append(report.Proved(sa))
    child: ChildSA | None = None
    failure = ""
    if message.one(SecurityAssociation) is not None:
        try:
            make_room_for_child(sa, entry)
            terms, _, more = answer_request(sa, proof, message, (agreed.ni, agreed.nr), with_ke=False)
            child = assemble(sa, proof, terms)
            child.outbound_waits = sa.children.must_wait(child)
            await Install((child.inbound,) if child.outbound_waits else (child.inbound, child.outbound))
            payloads += more
        except (Rejected, PlaneRefused) as error:
            # RFC 7296 s2.21.2: no Child SA, but the IKE SA stands.
            child, failure = None, str(error)
            payloads.append(Notify(error.notify if isinstance(error, Rejected) else NotifyType.NO_ADDITIONAL_SAS))
    await Respond(payloads)
    sa.agreed = None
    host.outbox.append(report.Established(sa))
    if child is not None:
        sa.children.add(child)
        sa.children.activate_orphans()
    elif failure:
        host.outbox.append(report.ChildFailed(sa, failure))


def _claimed(payload: IDi | IDr, auth: Authentication) -> Identity:
    """What a peer says it is.  Raises Rejected."""
    if payload.type == IDType.NULL and payload.data:
        raise Rejected(NotifyType.INVALID_SYNTAX, "ID_NULL that is not empty")
    # RFC 7619 s2.2: what is said along with NULL counts for nothing.
    return ANONYMOUS if auth.method == AuthMethod.NULL else Identity.received(payload.type, payload.data)


def _taken(sa: "IkeSA", entry: PadEntry, auth: Authentication) -> PadEntry:
    """What an entry comes to for who authenticates himself so."""
    nobody = auth.method == AuthMethod.NULL and entry.null
    return entry.nobodys(sa.local.address, sa.remote.address, sa.spi_i + sa.spi_r) if nobody else entry


def _keep_apart(sa: "IkeSA", proof: Authenticated) -> None:
    """No stranger gets the traffic of whoever is at his address already (RFC 7619 s2.5, s3.3).  Raises Rejected.

    He may be the same, who has forgotten the other IKE SA, or its key: whether that still lives is asked (RFC 7619
    s2.3), and when it does not, he has only to come again (ATTACKS row 53).
    """
    if not (proof.anonymous or proof.entry.btns):
        return
    for other in sa.host.beside(sa, proof.entry):
        if other.authenticated is not None and other.authenticated.entry.identity == proof.entry.identity:
            continue
        if sa.initiator and not other.origin[1] and other.established >= sa.created and other.remote == sa.remote:
            # Both ends began at once, and one of the two goes.
            continue
        other.doubt()
        raise Rejected(NotifyType.AUTHENTICATION_FAILED, f"there is somebody at {sa.remote.address} already")


def _asked_for(sa: "IkeSA", message: Message, entry: PadEntry) -> Identity | None:
    """RFC 7296 s3.5: of our identities, the one that the initiator hopes for.  Where we are is one of them, too."""
    if entry.own_null:
        return ANONYMOUS
    hint = message.one(IDr)
    here = Identity.address(sa.local.address)
    # A rule that gives us another identity for this peer has the last word.
    ours = (here, sa.host.settings.identity) if entry.own_identity in (None, here) else ()
    hoped = Identity.received(hint.type, hint.data) if hint is not None else None
    return hoped if hoped in ours else None


def _may_replace(sa: "IkeSA", others: Sequence["IkeSA"]) -> bool:
    """Whether the old one still stands, or nothing does."""
    return not others or any(other.origin[0] == sa.succession.instead_of and not other.deleting for other in others)


def _prf(sa: "IkeSA") -> PrfID:
    return sa.suite.prf


def _own_key(sa: "IkeSA", entry: PadEntry) -> PublicKey | None:
    """What we prove ourselves with, to the end of this exchange; None where a shared key does, or nothing."""
    return sa.host.settings.key if entry.psk is None and not entry.own_null else None


def _asking(agreed: Agreed, message: Message) -> Agreed:
    """A responder learns what forms of keys its peer reads in IKE_AUTH."""
    encodings = frozenset(p.encoding for p in message.payloads if isinstance(p, CertificateRequest | Certificate))
    return Agreed(agreed.request, agreed.response, agreed.ni, agreed.nr, agreed.hashes, encodings)


def _certificates(entry: PadEntry, key: PublicKey | None, agreed: Agreed) -> list[Certificate]:
    """Our bare key, in the form the peer asked for; by RFC 7670 if it asked for nothing."""
    if key is None or entry.psk is not None:
        return []
    for encoding in RAW_ENCODINGS:
        if encoding in agreed.encodings or not agreed.encodings:
            try:
                return [Certificate(encoding, cert_from_public_key(key, encoding))]
            except BadKey:
                continue
    return []


def _signing_key(message: Message, auth: Authentication) -> PublicKey | None:
    """The bare key among the peer's certificates, if its AUTH is a signature: RFC 5386 s2 wants nothing less.

    What is no bare key is passed over: the PAD entry decides.
    """
    if auth.method in (AuthMethod.SHARED_KEY, AuthMethod.NULL):
        return None
    for payload in message.payloads:
        if isinstance(payload, Certificate) and payload.encoding in RAW_ENCODINGS:
            try:
                return public_key_from_cert(payload.encoding, payload.data)
            except BadKey as error:
                raise Rejected(NotifyType.AUTHENTICATION_FAILED, str(error)) from None
    return None


def _raise_error(response: Message) -> None:
    for payload in response.payloads:
        if isinstance(payload, Notify) and payload.type.is_error:
            raise PeerRefused(payload.type, "said the peer", payload.data)
