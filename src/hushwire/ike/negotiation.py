"""What IKE_AUTH and CREATE_CHILD_SA have in common: agreeing on a Child SA (RFC 7296 s1.3, s2.9, s2.17)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hushwire.crypto.prf import child_keys
from hushwire.crypto.secret import Secret
from hushwire.ike.child import ChildSA, ChildTerms, build
from hushwire.ike.errors import PeerMisbehaved, Rejected
from hushwire.ike.narrowing import AnySelector, asked, narrow, substitute
from hushwire.ike.proof import Authenticated
from hushwire.ike.proposals import EspChoice, accepted_esp, choose_esp, esp_proposals, not_below
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Selector
from hushwire.wire.message import Message
from hushwire.wire.payload import Notify, Payload, Proposal, SecurityAssociation, TSi, TSr
from hushwire.wire.registry import KeID, NotifyType

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA


Selectors = Sequence[AnySelector]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Child SA that this host asks for."""

    selectors: tuple[Selector, ...]
    mode: Mode
    acquire: int = 0
    """The sequence number of the Acquire that asks for it."""
    least: int = 0
    """Bits of a cipher's key, and no fewer."""
    packet: Selector | None = None
    """What it is wanted for, if it is for a packet: within one of the selectors."""


def request_payloads(sa: "IkeSA", wanted: Wanted, spi_in: bytes, *, with_ke: bool) -> list[Payload]:
    """SA, TSi, TSr and the mode's notify, as the exchange's initiator.  Raises Rejected."""
    # RFC 7296 s2.9: the packet itself comes first, so that whatever becomes of the others it is not narrowed away.
    local, remote = asked([*([wanted.packet] if wanted.packet is not None else []), *wanted.selectors])
    offers = esp_proposals(not_below(sa.host.settings.esp_offers, wanted.least), spi_in, with_ke=with_ke)
    if not offers:
        raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, f"we have nothing with keys of {wanted.least} bits any more")
    payloads: list[Payload] = [SecurityAssociation(offers), TSi(local), TSr(remote)]
    if wanted.mode is Mode.TRANSPORT:
        payloads.append(Notify(NotifyType.USE_TRANSPORT_MODE))
    return payloads


def take_response(
    sa: "IkeSA", response: Message, wanted: Wanted, spi_in: bytes, nonces: tuple[bytes, bytes], *, with_ke: bool
) -> tuple[ChildTerms, EspChoice]:
    """What the responder made of our request.  Raises Rejected, PeerMisbehaved."""
    answer, tsi, tsr = response.one(SecurityAssociation), response.one(TSi), response.one(TSr)
    if answer is None or tsi is None or tsr is None:
        raise PeerMisbehaved("a Child SA without SA, TSi or TSr")
    choice = accepted_esp(not_below(sa.host.settings.esp_offers, wanted.least), answer.proposals, with_ke)
    mode = _mode(response)
    if mode is not wanted.mode:
        raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, f"the peer insists on {mode.value} mode")
    local, remote = _seen(sa, mode, tsi, tsr, initiated=True)
    selector = narrow(local, remote, wanted.selectors, wanted.packet)
    return ChildTerms(choice.suite, selector, mode, spi_in, choice.accepted.spi, nonces, True), choice


def answer_request(
    sa: "IkeSA",
    proof: Authenticated,
    request: Message,
    nonces: tuple[bytes, bytes],
    *,
    with_ke: bool,
    hint: KeID | None = None,
    least: int = 0,
) -> tuple[ChildTerms, EspChoice, list[Payload]]:
    """What we make of the peer's request, and the payloads that say so.  Raises Rejected."""
    offer, tsi, tsr = request.one(SecurityAssociation), request.one(TSi), request.one(TSr)
    if offer is None or tsi is None or tsr is None:
        raise Rejected(NotifyType.INVALID_SYNTAX, "a Child SA without SA, TSi or TSr")
    choice = choose_esp(not_below(sa.host.settings.esp_offers, least), offer.proposals, with_ke, hint)
    mode = _mode(request)
    if mode is not proof.entry.mode:
        raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, f"{mode.value} mode, not {proof.entry.mode.value}")
    remote, local = _seen(sa, mode, tsi, tsr, initiated=False)
    selector = narrow(local, remote, proof.entry.selectors)
    spi_in = sa.host.new_child_spi()
    accepted = Proposal(choice.accepted.number, choice.accepted.protocol, spi_in, choice.accepted.transforms)
    ours, theirs = asked([selector])
    payloads: list[Payload] = [SecurityAssociation((accepted,)), TSi(theirs), TSr(ours)]
    if mode is Mode.TRANSPORT:
        payloads.append(Notify(NotifyType.USE_TRANSPORT_MODE))
    terms = ChildTerms(choice.suite, selector, mode, spi_in, choice.accepted.spi, nonces, False)
    return terms, choice, payloads


def _mode(message: Message) -> Mode:
    return Mode.TRANSPORT if message.notify(NotifyType.USE_TRANSPORT_MODE) else Mode.TUNNEL


def _seen(sa: "IkeSA", mode: Mode, tsi: TSi, tsr: TSr, *, initiated: bool) -> tuple[Selectors, Selectors]:
    """(TSi, TSr) as they look from here: through a NAT, transport mode goes by the addresses that we see."""
    if mode is Mode.TUNNEL or not sa.nat:
        return tsi.selectors, tsr.selectors
    # RFC 7296 s2.23.1: each end puts the addresses of its own view in place of those that the NAT has changed.
    local, remote = sa.local.address, sa.remote.address
    initiator, responder = (local, remote) if initiated else (remote, local)
    return substitute(tsi.selectors, initiator), substitute(tsr.selectors, responder)


def assemble(
    sa: "IkeSA", proof: Authenticated, terms: ChildTerms, shared: Secret | None = None, acquire: int = 0
) -> ChildSA:
    """The Child SA of these terms, with keys of this IKE SA."""
    settings, suite = sa.host.settings, terms.suite
    keys = child_keys(sa.suite.prf, sa.keys.d, suite.encr, suite.key_bits, suite.integ, *terms.nonces, shared)
    return build(
        proof,
        terms,
        keys,
        (sa.local, sa.remote),
        (settings.child_lifetime, settings.child_packets),
        encapsulated=bool(sa.nat),
        replay_window=settings.replay_window,
        now=sa.host.now.monotonic,
        rekey_at=sa.host.now.monotonic + sa.host.jitter(settings.child_lifetime),
        acquire=acquire,
    )
