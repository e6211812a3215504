"""INFORMATIONAL: liveness and Delete (RFC 7296 s1.4, s2.4, s2.25.1)."""

from typing import TYPE_CHECKING

from hushwire.ike.child import ChildSA
from hushwire.ike.errors import NoAnswer, PlaneRefused
from hushwire.ike.traps import Install, Request, Respond
from hushwire.wire.message import Message
from hushwire.wire.payload import Delete, Notify
from hushwire.wire.registry import ExchangeType, NotifyType, ProtocolID

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA


async def check_liveness(sa: "IkeSA") -> None:
    """An empty exchange; silence closes the IKE SA."""
    await Request(ExchangeType.INFORMATIONAL, [])


async def delete_child(sa: "IkeSA", child: ChildSA) -> None:
    """Delete a Child SA at both ends."""
    if child.spi_in in sa.children and child.spi_in not in sa.children.disowned:
        await disown(sa, child.spi_in)


async def disown(sa: "IkeSA", spi_in: bytes) -> None:
    """Have the peer delete its half of a Child SA, and let go of ours if there is one (RFC 7296 s1.3.1, s1.4.1)."""
    sa.children.disowned.add(spi_in)
    await Request(ExchangeType.INFORMATIONAL, [Delete(ProtocolID.ESP, (spi_in,))])
    sa.children.disowned.discard(spi_in)
    child = sa.children.get(spi_in)
    if child is not None:
        await let_go(sa, child)


async def delete_ike(sa: "IkeSA") -> None:
    """Delete the IKE SA and with it every Child SA (RFC 7296 s1.4.1); done even if nobody answers."""
    sa.deleting = True
    try:
        await Request(ExchangeType.INFORMATIONAL, [Delete(ProtocolID.IKE)])
    except NoAnswer:
        sa.host.notice("ike.delete-unanswered", ("peer", sa.peer_name))
    sa.close("deleted")


async def respond(sa: "IkeSA", message: Message) -> None:
    deletes = [payload for payload in message.payloads if isinstance(payload, Delete)]
    if any(delete.protocol == ProtocolID.IKE for delete in deletes):
        await Respond([])
        if sa.successor is not None:
            # RFC 7296 s2.25.2: the peer has finished its rekey; ours, still under way, is forgotten.
            sa.successor.take_over()
        sa.close("deleted by the peer")
        return
    sa.take_over()
    gone = []
    named = {spi for delete in deletes if delete.protocol == ProtocolID.ESP for spi in delete.spis}
    for child in [child for child in sa.children.values() if child.spi_out in named]:
        if child.spi_in not in sa.children.disowned:
            # RFC 7296 s1.4.1: when both delete at once, neither answer names the SA again.
            gone.append(child.spi_in)
        await let_go(sa, child)
    refused = message.notify(NotifyType.AUTHENTICATION_FAILED) is not None
    if not refused:
        await activate_waiting(sa)
    await Respond([Delete(ProtocolID.ESP, tuple(gone))] if gone else [])
    if refused:
        # RFC 7296 s2.21.2: the initiator could not verify us, so for it there is no IKE SA.
        sa.close("the peer could not authenticate us")


async def let_go(sa: "IkeSA", child: ChildSA) -> None:
    """Remove a Child SA that is gone at the peer too; what the peer's rekey made of it takes over first."""
    await activate(sa, child.successor)
    sa.children.remove(child)


async def activate(sa: "IkeSA", child: ChildSA | None) -> None:
    """Start to send through a Child SA that the peer's rekey made: it can open what comes (RFC 7296 s2.8)."""
    if child is not None and child.outbound_waits and child.spi_in in sa.children and not sa.succession.retiring:
        child.outbound_waits = False
        try:
            await Install((child.outbound,))
        except PlaneRefused:
            # Half a Child SA is none (RFC 7296 s1.4.1): the next packet asks for another.
            sa.children.remove(child)
            sa.children.disown(child.spi_in)


async def activate_waiting(sa: "IkeSA") -> None:
    """The peer asks for something else: what it asked for before stands at its end."""
    for child in sa.children.waiting():
        await activate(sa, child)
    sa.succession.mute_replaced()


def error_notify(message: Message) -> Notify | None:
    """The first error a response carries."""
    for payload in message.payloads:
        if isinstance(payload, Notify) and payload.type.is_error:
            return payload
    return None
