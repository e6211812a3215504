"""CREATE_CHILD_SA for Child SAs: new ones and replacements (RFC 7296 s1.3.1, s1.3.3, s2.8, s2.25).

HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr}  -->
                                <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from hushwire.crypto.kex import BadKeyExchange, KeyShare, generate
from hushwire.ike import rekey_ike, report
from hushwire.ike.allowance import make_room_for_child
from hushwire.ike.child import ChildSA
from hushwire.ike.errors import PeerMisbehaved, PeerRefused, PlaneRefused, Rejected
from hushwire.ike.informational import activate, activate_waiting, delete_child, disown, error_notify, let_go
from hushwire.ike.negotiation import Wanted, answer_request, assemble, request_payloads, take_response
from hushwire.ike.state import State
from hushwire.ike.traps import Install, Request, Respond
from hushwire.wire.message import Message
from hushwire.wire.payload import KeyExchange, Nonce, Notify, Payload, SecurityAssociation
from hushwire.wire.registry import ExchangeType, KeID, NotifyType, ProtocolID

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

RETRY = 5.0
"""Seconds until a rekey that the peer put off is tried again."""


async def create(sa: "IkeSA", wanted: Wanted, known: Collection[bytes]) -> None:
    """Ask for one more Child SA, unless one that was not `known` when it was wanted serves already."""
    newer = [child for spi_in, child in sa.children.items() if spi_in not in known]
    if sa.state is not State.ESTABLISHED or any(child.selector.covers(wanted.selectors[0]) for child in newer):
        return
    try:
        new = await _exchange(sa, wanted, None)
    except (Rejected, PlaneRefused, BadKeyExchange) as failure:
        sa.host.outbox.append(report.ChildFailed(sa, str(failure)))
        return
    sa.children.add(new)
    _settle(sa, new)


def _settle(sa: "IkeSA", new: ChildSA, replaced: ChildSA | None = None) -> None:
    """When both ends made the same at once, one of the two goes, by the rule of RFC 7296 s2.8.1 for rekeys."""
    for other in list(sa.children.values()):
        if other in (new, replaced) or other.successor is not None or other.initiated is new.initiated:
            continue
        if (other.selector, other.mode) == (new.selector, new.mode):
            lost = min(new, other, key=lambda child: min(child.nonces))
            if lost.initiated:
                sa.children.disown(lost.spi_in)


async def rekey(sa: "IkeSA", child: ChildSA) -> None:
    """Replace a Child SA; when both ends do so at once, one of the two replacements goes (RFC 7296 s2.8.1)."""
    if child.spi_in not in sa.children or child.successor is not None:
        child.rekeying = False
        return
    try:
        least = child.inbound.suite.key_bits
        new = await _exchange(sa, Wanted((child.selector,), child.mode, least=least), child)
    except (Rejected, PlaneRefused, BadKeyExchange) as failure:
        child.rekeying = False
        child.rekey_at = sa.host.now.monotonic + sa.host.jitter(RETRY)
        if isinstance(failure, PeerRefused) and failure.notify == NotifyType.CHILD_SA_NOT_FOUND:
            # RFC 7296 s2.25: the peer does not have it, so neither do we.
            await let_go(sa, child)
        else:
            sa.arm_children()
            sa.host.notice("ike.rekey-failed", ("peer", sa.peer_name), ("reason", str(failure)))
        return
    sa.children.add(new)
    rival = child.successor
    if rival is not None and rival.spi_in in sa.children and min(new.nonces) < min(rival.nonces):
        # RFC 7296 s2.8.1: the one made with the lowest of the four nonces is closed by who made it.
        await delete_child(sa, new)
    else:
        await delete_child(sa, child)


async def _exchange(sa: "IkeSA", wanted: Wanted, replaced: ChildSA | None) -> ChildSA:
    """One CREATE_CHILD_SA of ours.  Raises Rejected, PlaneRefused, BadKeyExchange."""
    sa.children.creating = True
    try:
        return await _make(sa, wanted, replaced)
    finally:
        sa.children.creating = False


async def _make(sa: "IkeSA", wanted: Wanted, replaced: ChildSA | None) -> ChildSA:
    """Tried again once if the peer takes another group."""
    host = sa.host
    groups = [group for offer in host.settings.esp_offers for group in offer.ke]
    group = sa.suite.ke if sa.suite.ke in groups else next(iter(groups), KeID.NONE)
    for attempt in range(2):
        spi_in, ni = host.new_child_spi(), host.new_nonce()
        payloads: list[Payload] = []
        if replaced is not None:
            # RFC 7296 s1.3.3: by the SPI in which its initiator expects to receive.
            payloads.append(Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, replaced.spi_in))
        sa_payload, *selectors = request_payloads(sa, wanted, spi_in, with_ke=group != KeID.NONE)
        payloads += [sa_payload, Nonce(ni)]
        share = generate(group, host.entropy) if group != KeID.NONE else None
        if share is not None:
            payloads.append(KeyExchange(group, share.public))
        response = await Request(ExchangeType.CREATE_CHILD_SA, payloads + selectors)
        error = error_notify(response)
        if error is None:
            break
        suggested = KeID(int.from_bytes(error.data)) if len(error.data) == 2 else KeID.NONE
        if error.type != NotifyType.INVALID_KE_PAYLOAD or suggested not in groups or attempt:
            raise PeerRefused(error.type, "said the peer")
        group = suggested
    try:
        child = _take(sa, response, wanted, spi_in, ni, share)
        await Install((child.inbound, child.outbound))
    except (Rejected, PlaneRefused, BadKeyExchange):
        await disown(sa, spi_in)
        raise
    return child


def _take(sa: "IkeSA", response: Message, wanted: Wanted, spi_in: bytes, ni: bytes, share: KeyShare | None) -> ChildSA:
    """The Child SA that the response to our request makes.  Raises Rejected, PeerMisbehaved, BadKeyExchange."""
    assert sa.authenticated is not None
    nonce, ke = response.one(Nonce), response.one(KeyExchange)
    if nonce is None:
        raise PeerMisbehaved("CREATE_CHILD_SA response without nonce")
    terms, choice = take_response(sa, response, wanted, spi_in, (ni, nonce.data), with_ke=share is not None)
    shared = None
    if choice.ke != KeID.NONE:
        if share is None or ke is None or not choice.ke == ke.group == share.group:
            raise PeerMisbehaved("CREATE_CHILD_SA response with another group than its KE")
        shared = share.agree(ke.data)
    return assemble(sa, sa.authenticated, terms, shared, wanted.acquire)


async def respond(sa: "IkeSA", message: Message) -> None:
    """Answer any CREATE_CHILD_SA request: what its SA payload proposes says which kind it is."""
    offer = message.one(SecurityAssociation)
    if offer is None or not offer.proposals:
        raise Rejected(NotifyType.INVALID_SYNTAX, "CREATE_CHILD_SA without SA")
    if sa.state is not State.ESTABLISHED or sa.deleting:
        raise Rejected(NotifyType.TEMPORARY_FAILURE, "this IKE SA is on its way out")
    # When both ends rekey the IKE SA at once, the peer speaks only in the one of the two that stays.
    sa.take_over()
    await activate_waiting(sa)
    if offer.proposals[0].protocol == ProtocolID.IKE:
        await rekey_ike.respond(sa, message)
    else:
        await _respond_child(sa, message)


async def _respond_child(sa: "IkeSA", message: Message) -> None:
    host, proof = sa.host, sa.authenticated
    assert proof is not None
    if sa.rekeying:
        # RFC 7296 s2.25.2: the children are about to move.
        raise Rejected(NotifyType.TEMPORARY_FAILURE, "the IKE SA is being rekeyed")
    replaced = _replaced(sa, message)
    make_room_for_child(sa, proof.entry)
    nonce, ke = message.one(Nonce), message.one(KeyExchange)
    if nonce is None:
        raise Rejected(NotifyType.INVALID_SYNTAX, "CREATE_CHILD_SA without nonce")
    if replaced is not None:
        sa.succession.pace.count(host.now.monotonic)
    nr = host.new_nonce()
    hint = ke.group if ke is not None else None
    nonces = (nonce.data, nr)
    least = replaced.inbound.suite.key_bits if replaced is not None else 0
    terms, choice, payloads = answer_request(sa, proof, message, nonces, with_ke=ke is not None, hint=hint, least=least)
    shared = None
    if choice.ke != KeID.NONE:
        if ke is None or ke.group != choice.ke:
            raise Rejected(NotifyType.INVALID_KE_PAYLOAD, f"not {choice.ke.name}", choice.ke.to_bytes(2))
        share = generate(choice.ke, host.entropy)
        try:
            shared = share.agree(ke.data)
        except BadKeyExchange as error:
            raise Rejected(NotifyType.INVALID_SYNTAX, str(error)) from None
        payloads.insert(1, KeyExchange(choice.ke, share.public))
    payloads.insert(1, Nonce(nr))
    child = assemble(sa, proof, terms, shared)
    # Of a replacement only the inbound half: what we send goes the old way until the peer drops it (RFC 7296 s2.8).
    child.outbound_waits = replaced is not None or sa.children.must_wait(child)
    await Install((child.inbound,) if child.outbound_waits else (child.inbound, child.outbound))
    await Respond(payloads)
    sa.children.add(child)
    if replaced is not None:
        replaced.successor = child
        if replaced.spi_in not in sa.children:
            # It expired meanwhile: nothing will go any more that this one could take over from.
            await activate(sa, child)
    sa.children.activate_orphans()
    _settle(sa, child, replaced)


def _replaced(sa: "IkeSA", message: Message) -> ChildSA | None:
    """The Child SA that the request replaces, if it replaces one."""
    notify = message.notify(NotifyType.REKEY_SA)
    if notify is None:
        return None
    child = next((child for child in sa.children.values() if child.spi_out == notify.spi), None)
    if child is None and sa.children.creating:
        # It may be what we are installing: the peer was quick (RFC 7296 s2.25).
        raise Rejected(NotifyType.TEMPORARY_FAILURE, "a Child SA is being made")
    if notify.protocol != ProtocolID.ESP or child is None:
        raise Rejected(NotifyType.CHILD_SA_NOT_FOUND, "no such Child SA to rekey")
    if child.spi_in in sa.children.disowned or child.successor is not None:
        # RFC 7296 s2.25.1: it is being closed.
        raise Rejected(NotifyType.TEMPORARY_FAILURE, "that Child SA is on its way out")
    return child
