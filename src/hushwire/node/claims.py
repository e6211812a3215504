"""The PAD is searched (RFC 4301 s4.4.3): for who says who he is, and then for who has a key (RFC 5386 s2).

A claim reaches us in IKE_AUTH, which only decrypts for who had our IKE_SA_INIT response: no forged source gets here.
Whether what a stranger says is looked up is DESIGN.md law 7.
"""

from collections.abc import Sequence
from dataclasses import replace

from hushwire.crypto.keys import PublicKey
from hushwire.ike import report
from hushwire.ike.errors import Unauthorized
from hushwire.ike.sa import IkeSA
from hushwire.names.allow import AllowList, Pace
from hushwire.names.name import BadName, host_name
from hushwire.node.memory import Memory
from hushwire.node.peer import Peer
from hushwire.node.peers import Crowded, Peers
from hushwire.node.rulebook import Rules, refuses
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import ANONYMOUS, Identity, PadEntry, fingerprint_text
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import IDType

NEIGHBOURS = 256
"""New strangers of one /24 or /64 in an hour: an office has no more."""


class Unmatched(Unauthorized):
    """Nobody is known by the identity."""


class Claims:
    """Identities that no peer has yet."""

    def __init__(self, patterns: Sequence[str], peers: Peers, memory: Memory) -> None:
        self._allowed = AllowList(patterns)
        self._pace = Pace()
        """Of those who come, and have yet to prove anything."""
        self._neighbours = Pace(per_source=NEIGHBOURS, span=3600.0)
        """Of all who come: who has a /64 to himself shall not be a peer at each of its addresses (ATTACKS row 55)."""
        self._peers = peers
        self._memory = memory

    def search(self, wanted: report.AuthorizationWanted, now: float) -> Peer:
        """Whom a claim is matched with, of two passes: of what he says he is, and of where he is.  Raises Unauthorized.

        What is said of him has yet to be looked up, maybe; entry() is for afterwards.
        """
        peer = self._peers.by_reqid(wanted.reqid)
        if wanted.identity is None:
            if peer is None:
                raise Unauthorized("the peer is not known any more")
            return peer
        found = self._peers.claiming(wanted.identity, wanted.remote.address)
        return found or peer or self.admit(wanted.identity, wanted.remote.address, now)

    def entry(self, peer: Peer, wanted: report.AuthorizationWanted) -> PadEntry:
        """The entry that a claim has to satisfy.  Raises Unauthorized."""
        address, own = wanted.remote.address, self._peers.own
        entry = peer.entry(address, own)
        if entry is None:
            raise Unauthorized(f"nothing is known that would prove {peer.name} at {address}")
        if wanted.identity is None:
            return entry
        sought = self._peers.by_reqid(wanted.reqid)
        if sought is not None and sought is not peer:
            # We sought a stranger, who says that he is somebody we know: then he has to prove that.
            stranger = sought.entry(address, own)
            assert stranger is not None
            return replace(entry, name=stranger.name, reqid=stranger.reqid, selectors=stranger.selectors)
        if not entry.btns:
            return entry
        if wanted.key is None and not (entry.null and wanted.identity == ANONYMOUS):
            raise Unauthorized(f"{peer.name} has sent no bare key, or does not sign with it")
        introduced = self._peers.introduced_at(address, peer)
        if introduced is not None:
            # RFC 5386 s2, the second search: what he could ask to be protected is another's, who has been introduced.
            raise Unauthorized(f"{address} is {introduced.name}'s, and that this is who speaks there is not proved")
        if wanted.key is None:
            # RFC 7619 s2.4: of who stays anonymous the entry itself is all that is known.
            self._memory.bear(peer)
            return entry
        return entry.met(wanted.key, self._worth(wanted.key, peer))

    def proved(self, sa: IkeSA) -> None:
        """Who came and was somebody is no reason to keep his neighbours waiting."""
        if not sa.initiator:
            self._pace.take_back(sa.remote.address)

    def _worth(self, key: PublicKey, peer: Peer) -> Assurance:
        """What a stranger's key is worth, if that is enough."""
        worth = self._memory.worth(peer, key)
        if worth < peer.rule.require:
            known = f"hushwire trust add {fingerprint_text(key.fingerprint)}"
            raise Unauthorized(f"the key of {peer.name} is not trusted; if it is the right one: {known}")
        return worth

    def admit(self, identity: Identity, source: IPAddress, now: float) -> Peer:
        """The peer that one would be whom nobody knows yet, to be looked up.  Raises Unauthorized."""
        try:
            if identity == Identity.address(source):
                return self._of_address(source, now)
            try:
                return self._of_name(identity, source, now)
            except Unmatched:
                # What he says he is is nothing to us: he is who is there.
                if not self._takes_strangers(source):
                    raise
                return self._of_address(source, now)
        except Crowded as error:
            raise Unauthorized(str(error)) from None

    def _of_name(self, identity: Identity, source: IPAddress, now: float) -> Peer:
        if identity.type is not IDType.FQDN:
            raise Unmatched(f"no rule speaks of {identity}")
        try:
            name = host_name(identity.data.decode("ascii"))
        except (BadName, UnicodeDecodeError):
            raise Unmatched(f"{identity} is no name of a host") from None
        # One name, one identity: what is only alike after it was mended is another's (ATTACKS row 27).
        if Identity.fqdn(name) != identity:
            raise Unmatched(f"{identity} is not how {name} is written")
        rules = self._peers.rulebook.for_name(name)
        if rules is None:
            raise Unmatched(f"no rule speaks of {identity}")
        if not self._allowed.allows(name):
            # Law 4: who matches an entry and cannot prove it is no stranger.
            raise Unauthorized(f"dns.ask does not allow to look up {identity}")
        self._judge(rules, identity)
        self._hurry(source, now)
        return self._peers.of_name(name, rules)

    def _of_address(self, source: IPAddress, now: float) -> Peer:
        rules = self._peers.rulebook.for_address(source)
        if rules is None:
            raise Unauthorized(f"no rule speaks of {source}")
        self._judge(rules, Identity.address(source))
        if self._peers.by_name(str(source)) is None:
            # Of whom there is somebody already nothing new is begun.
            self._hurry(source, now)
        peer = self._peers.of_address(source)
        assert peer is not None
        return peer

    def _takes_strangers(self, source: IPAddress) -> bool:
        rules = self._peers.rulebook.for_address(source)
        return rules is not None and rules[0].btns

    def _judge(self, rules: Rules, identity: Identity) -> None:
        if rules[0].require is Assurance.CLEAR or refuses(rules):
            raise Unauthorized(f"the rule about {identity} wants no IPsec")

    def _hurry(self, source: IPAddress, now: float) -> None:
        if not (self._pace.admits(source, now) and self._neighbours.admits(source, now)):
            raise Unauthorized("too many strangers at once")
