"""When and where IKE SAs are begun with a peer, and which of those there are are his."""

from dataclasses import replace

from hushwire.config import Start
from hushwire.events import Acquire
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.negotiation import Wanted
from hushwire.ike.sa import IkeSA
from hushwire.ike.state import State
from hushwire.names.allow import Pace
from hushwire.node.peer import ACQUIRE_LIFE, Peer, Sought
from hushwire.node.peers import Peers
from hushwire.node.scope import nearest
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Flow
from hushwire.timers import Now
from hushwire.wire.address import IPAddress

MOST_WAITING = 16
"""Packets of a peer that wait for its name to be looked up, or for the next attempt."""


class Seeking:
    """Over the Endpoint, which knows IKE SAs but no peers."""

    def __init__(self, ike: Endpoint, peers: Peers) -> None:
        self._ike = ike
        self._peers = peers
        self._pace = Pace()
        """Of attempts that programs' questions bring about (ATTACKS row 41)."""

    def sas_of(self, peer: Peer) -> list[IkeSA]:
        """Every IKE SA with it, whatever its state."""
        return self._ike.of_reqid(peer.reqid)

    def standing(self, peer: Peer) -> list[IkeSA]:
        """Those in which it has proved who it is."""
        return [sa for sa in self.sas_of(peer) if sa.authenticated is not None]

    def peer_of(self, sa: IkeSA) -> Peer | None:
        return self._peers.by_reqid(sa.peer.reqid) if sa.peer is not None else None

    def seek(self, peer: Peer, acquire: Acquire, now: Now) -> None:
        """Have a Child SA made for a packet; if another is being waited for first, when that one stands."""
        flow = replace(acquire.flow, remote=peer.real(acquire.flow.remote))
        wanted = peer.wanted(flow, acquire.sequence)
        if wanted is not None and wanted.selectors[0].covers(flow.selector):
            wanted = replace(wanted, packet=flow.selector)
        if wanted is not None and peer.left_out.get(wanted.selectors[0], 0.0) <= now.monotonic:
            begun = self.protect(peer, flow, wanted, now)
            where = peer.end_for(flow.remote, self._peers.own) or flow.remote
            peer.seek(wanted.selectors[0], Sought(acquire, now.monotonic, where, begun))

    def found(self, peer: Peer, sa: IkeSA, now: Now) -> list[Acquire]:
        """A Child SA stands with it; those packets are returned for which none has been asked for yet.

        RFC 7296 s2.9: the peer may have narrowed away the very packet that one was asked for.  It is held still, and a
        plane tells of it at once: to ask again would bring one more of the same, and so on.
        """
        for wanted, sought in peer.sought.items():
            flow = replace(sought.acquire.flow, remote=peer.real(sought.acquire.flow.remote))
            carried = any(child.selector.matches(flow) for child in sa.children.values())
            if sought.where == sa.remote.address and sought.begun and not carried:
                peer.left_out[wanted] = now.monotonic + ACQUIRE_LIFE
        return peer.found(sa.remote.address)

    def wait(self, peer: Peer, acquire: Acquire) -> None:
        """A packet that came too early: a plane tells of a flow once, and then not for half a minute."""
        wanted = peer.wanted(replace(acquire.flow, remote=peer.real(acquire.flow.remote)))
        if wanted is not None and (wanted.selectors[0] in peer.waiting or len(peer.waiting) < MOST_WAITING):
            peer.waiting[wanted.selectors[0]] = acquire

    def protect(self, peer: Peer, flow: Flow, wanted: Wanted, now: Now) -> bool:
        """Have a Child SA made for a flow, unless it stands.  False: an IKE SA is being made for another."""
        if self._ike.stopping:
            return True
        own = self._peers.own
        remote = peer.end_for(flow.remote, own) or flow.remote
        # A tunnel ends where its policy says; what it carries may be of another address of ours.
        inner = wanted.mode is Mode.TUNNEL or flow.local not in own
        local = nearest(own, remote) if inner else flow.local
        entry = peer.entry(remote, own)
        if entry is None or local is None:
            peer.failed(f"nothing is known that would prove {peer.name} at {remote}", now.monotonic)
            return True
        for sa in self.sas_of(peer):
            if (sa.local.address, sa.remote.address) == (local, remote):
                if _is_attempt(sa):
                    return False
                if sa.state is State.ESTABLISHED and not sa.succession.retiring:
                    if not any(child.selector.covers(wanted.selectors[0]) for child in sa.children.values()):
                        self._ike.create_child(sa, wanted, now)
                    return True
        self._ike.initiate(entry, local, remote, wanted, now)
        return True

    def serves(self, peer: Peer) -> bool:
        """Whether something stands with it that carries packets."""
        return any(sa.children and not sa.deleting for sa in self.sas_of(peer))

    def tries(self, peer: Peer) -> bool:
        """Whether an attempt at it is under way."""
        return any(_is_attempt(sa) or sa.children.creating for sa in self.sas_of(peer))

    def wants_start(self, peer: Peer) -> bool:
        """Whether a peer is to be sought without a packet for it."""
        wants = (peer.starts_by_itself or peer.connects) and peer.known and peer.addresses
        return bool(wants and not self.serves(peer) and not self.tries(peer))

    def start(self, peer: Peer, now: Now) -> None:
        """Seek a peer by itself, at the first of its addresses that we have a source for."""
        for remote in peer.addresses:
            if self._begin(peer, remote, now):
                break
        if not self.serves(peer) and not self.tries(peer) and peer.not_before <= now.monotonic:
            # Nothing was begun, and so nothing will end: without this the deadline would stay in the past.
            own = ", ".join(map(str, self._peers.own)) or "no address"
            peer.failed(f"no way from {own} to {peer.name}", now.monotonic)

    def let_prove(self, peer: Peer, now: Now) -> None:
        """Have it prove its key at one address of each IP version: whichever answers will do for programs."""
        if peer.rule.start is Start.WAIT or peer.lacks_synthetic:
            return
        if not peer.addresses or peer.not_before > now.monotonic:
            return
        sought = {sa.remote.address for sa in self.sas_of(peer) if not sa.deleting}
        crowded = False
        for version in (6, 4):
            for remote in peer.addresses:
                if remote.version != version or nearest(self._peers.own, remote) is None:
                    continue
                if remote in sought or not peer.needs_proof or self._pace.admits(remote, now.monotonic):
                    self._begin(peer, remote, now)
                else:
                    crowded = True
                break
        if not self.sas_of(peer) and peer.not_before <= now.monotonic:
            if crowded:
                peer.failed("too many new peers are being sought", now.monotonic)
            else:
                self.start(peer, now)

    def proved(self, sa: IkeSA) -> None:
        """Somebody is there who holds a key of the name's: nobody was bothered in vain (ATTACKS row 41)."""
        if sa.initiator:
            self._pace.take_back(sa.remote.address)

    def _begin(self, peer: Peer, remote: IPAddress, now: Now) -> bool:
        local = nearest(self._peers.own, remote)
        if local is None:
            return False
        rule = peer.rule
        far = rule.remote_networks[0][0] if rule.remote_networks else remote
        near = rule.local_networks[0][0] if rule.local_networks else local
        flow = Flow(near, far, rule.protocol, rule.local_port, rule.remote_port)
        wanted = peer.wanted(flow)
        if wanted is not None:
            self.protect(peer, flow, wanted, now)
        return True


def _is_attempt(sa: IkeSA) -> bool:
    """Whether it is one of ours that has yet to stand, and not in the place of one that does."""
    return sa.state in (State.INITIAL, State.HALF_OPEN) and sa.initiator and not sa.succession.instead_of
