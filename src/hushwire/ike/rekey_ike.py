"""CREATE_CHILD_SA for the IKE SA itself (RFC 7296 s1.3.2, s2.8.2, s2.18).

HDR, SK {SA, Ni, KEi}  -->
                   <--  HDR, SK {SA, Nr, KEr}
"""

from typing import TYPE_CHECKING

from hushwire.crypto.kex import BadKeyExchange, generate
from hushwire.crypto.prf import rekeyed_ike_keys
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import IkeSuite
from hushwire.ike.allowance import make_room
from hushwire.ike.errors import PeerMisbehaved, PeerRefused, Rejected
from hushwire.ike.informational import delete_ike, error_notify
from hushwire.ike.proposals import accepted_ike, choose_ike, ike_proposals
from hushwire.ike.state import State
from hushwire.ike.traps import Request, Respond
from hushwire.wire.message import Message
from hushwire.wire.payload import KeyExchange, Nonce, Payload, Proposal, SecurityAssociation
from hushwire.wire.registry import ExchangeType, KeID, NotifyType, ProtocolID

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

RETRY = 5.0
"""Seconds until a rekey that the peer put off is tried again."""


async def initiate(sa: "IkeSA") -> None:
    """Replace this IKE SA by another with the same peer and the same children."""
    if sa.state is not State.ESTABLISHED or sa.deleting:
        sa.rekeying = False
        return
    if sa.successor is not None:
        # The peer was first, while this one was waiting for its turn.
        sa.successor.take_over()
        return
    try:
        new = await _exchange(sa)
    except (Rejected, BadKeyExchange) as failure:
        sa.rekeying = False
        if sa.successor is not None:
            sa.successor.take_over()
        else:
            sa.rekey_later(RETRY)
            sa.host.notice("ike.rekey-failed", ("peer", sa.peer_name), ("reason", str(failure)))
        return
    rival = sa.successor
    redundant = rival is not None and min(new.nonces) < min(rival.nonces)
    heir = rival if rival is not None and redundant else new
    if sa.deleting:
        # Whoever wanted this one deleted meanwhile did not mean it to live on in another.
        heir.delete()
    heir.take_over()
    if redundant:
        # RFC 7296 s2.8.2: ours is redundant, and we who made it close it; the peer closes the old one.
        new.delete()
    else:
        await delete_ike(sa)


async def _exchange(sa: "IkeSA") -> "IkeSA":
    host = sa.host
    offers, group = host.settings.ike_offers, sa.suite.ke
    groups = [ke for offer in offers for ke in offer.ke]
    for attempt in range(2):
        spi_i, ni, share = host.new_ike_spi(), host.new_nonce(), generate(group, host.entropy)
        request: list[Payload] = [
            SecurityAssociation(ike_proposals(offers, spi_i, first_ke=group)),
            Nonce(ni),
            KeyExchange(group, share.public),
        ]
        response = await Request(ExchangeType.CREATE_CHILD_SA, request)
        error = error_notify(response)
        if error is None:
            break
        suggested = KeID(int.from_bytes(error.data)) if len(error.data) == 2 else KeID.NONE
        if error.type != NotifyType.INVALID_KE_PAYLOAD or suggested not in groups or attempt:
            raise PeerRefused(error.type, "said the peer")
        group = suggested
    answer, nonce, ke = response.one(SecurityAssociation), response.one(Nonce), response.one(KeyExchange)
    if answer is None or nonce is None or ke is None:
        raise PeerMisbehaved("rekey of the IKE SA without SA, nonce or KE")
    choice = accepted_ike(offers, answer.proposals)
    spi_r = choice.accepted.spi
    if not choice.suite.ke == ke.group == group or len(spi_r) != 8 or spi_r == bytes(8):
        raise PeerMisbehaved("rekey of the IKE SA with another group than its KE, or without SPI")
    return _heir(sa, choice.suite, share.agree(ke.data), (ni, nonce.data), (spi_i, spi_r), initiator=True)


async def respond(sa: "IkeSA", message: Message) -> None:
    host = sa.host
    if sa.children.busy:
        # RFC 7296 s2.25.2: a Child SA of ours is in flight.
        raise Rejected(NotifyType.TEMPORARY_FAILURE, "a Child SA is being changed")
    assert sa.authenticated is not None
    make_room(sa, sa.authenticated.entry, NotifyType.TEMPORARY_FAILURE)
    sa.succession.pace.count(host.now.monotonic)
    offer, nonce, ke = message.one(SecurityAssociation), message.one(Nonce), message.one(KeyExchange)
    if offer is None or nonce is None or ke is None or sa.successor is not None:
        raise Rejected(NotifyType.INVALID_SYNTAX, "rekey of the IKE SA without SA, nonce or KE, or a second one")
    choice = choose_ike(host.settings.ike_offers, offer.proposals, ke.group)
    spi_i = choice.accepted.spi
    if len(spi_i) != 8 or spi_i == bytes(8):
        raise Rejected(NotifyType.INVALID_SYNTAX, "rekey of the IKE SA without SPI")
    if choice.suite.ke != ke.group:
        wanted = choice.suite.ke
        raise Rejected(NotifyType.INVALID_KE_PAYLOAD, f"not {wanted.name}", wanted.to_bytes(2))
    share = generate(ke.group, host.entropy)
    try:
        shared = share.agree(ke.data)
    except BadKeyExchange as error:
        raise Rejected(NotifyType.INVALID_SYNTAX, str(error)) from None
    spi_r, nr = host.new_ike_spi(), host.new_nonce()
    new = _heir(sa, choice.suite, shared, (nonce.data, nr), (spi_i, spi_r), initiator=False)
    accepted = Proposal(choice.accepted.number, ProtocolID.IKE, spi_r, choice.accepted.transforms)
    await Respond([SecurityAssociation((accepted,)), Nonce(nr), KeyExchange(ke.group, share.public)])
    sa.successor = new
    if not sa.rekeying:
        new.take_over()


def _heir(
    sa: "IkeSA",
    suite: IkeSuite,
    shared: Secret,
    nonces: tuple[bytes, bytes],
    spis: tuple[bytes, bytes],
    *,
    initiator: bool,
) -> "IkeSA":
    """The new IKE SA with its keys; its peer is proved by the old one's AUTH."""
    assert sa.authenticated is not None
    new = sa.heir(initiator=initiator)
    (new.spi_i, new.spi_r), new.nonces = spis, nonces
    new.keyed(suite, rekeyed_ike_keys(suite, sa.suite.prf, sa.keys.d, shared, *nonces, *spis))
    new.origin, new.predecessor = sa.origin, sa
    new.authenticate(sa.authenticated)
    sa.host.sas[new.spi] = new
    return new
