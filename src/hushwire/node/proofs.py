"""What was proved once, held against what is known now: it stands, is worth more, or has to be proved again."""

from collections.abc import Callable
from dataclasses import replace

from hushwire.events import Effect, Notice
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.sa import IkeSA
from hushwire.node import telling
from hushwire.node.latches import Latches
from hushwire.node.memory import Memory
from hushwire.node.peer import Peer
from hushwire.node.peers import Peers
from hushwire.node.policies import Policies
from hushwire.node.seeking import Seeking
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import PadEntry, fingerprint_text
from hushwire.policy.trust import TrustStore
from hushwire.timers import Now


class Proofs:
    """Of the IKE SAs that stand."""

    def __init__(
        self, ike: Endpoint, peers: Peers, policies: Policies, seeking: Seeking, memory: Memory, latches: Latches,
        emit: Callable[[Effect], None],
    ) -> None:  # fmt: skip
        self._ike, self._peers, self._policies, self._seeking = ike, peers, policies, seeking
        self._memory, self._latches = memory, latches
        self._emit = emit

    def check(self, peer: Peer, sa: IkeSA, now: Now) -> None:
        """An IKE SA stands as long as the DNS still says what it was authenticated by, or a little longer."""
        if peer.lookup is None or sa.authenticated is None or peer.asleep:
            return
        key = sa.authenticated.verified.public
        if not peer.still_proved(key, sa.remote.address, now.monotonic):
            self._emit(Notice("name.changed", (("name", peer.name), ("was", str(sa.remote.address)))))
            self._ike.delete(sa, now)
        elif (notice := self._memory.contradicts(peer, key)) is not None:
            self._emit(notice)
            self._ike.delete(sa, now)
        else:
            self._introduce(peer, sa, now)

    def trust(self, store: TrustStore, now: Now) -> None:
        """The administrator trusts others from now on: who is here already is raised, or has to prove himself again."""
        self._memory.trusted = store
        for sa in list(self._ike.sas):
            proof, peer = sa.authenticated, self._seeking.peer_of(sa)
            key = proof.verified.public if proof is not None else None
            if proof is None or peer is None or key is None or not proof.entry.btns:
                continue
            trusted = store.get(key.fingerprint) is not None
            if trusted and proof.assurance < Assurance.TRUSTED:
                self._reconsider(peer, sa, replace(proof.entry, assurance=Assurance.TRUSTED), now)
            elif not trusted and proof.assurance is Assurance.TRUSTED:
                self._tell("trust.withdrawn", sa, ("key", fingerprint_text(key.fingerprint)))
                self._ike.delete(sa, now)

    def latch(self, peer: Peer, sa: IkeSA, now: Now) -> None:
        """Flows with whoever was there before do not go on with this one."""
        if sa.authenticated is not None:
            where = sa.remote.address
            remotes = self._policies.remotes(peer, where)
            self._latches.proved(peer.name, remotes, where, sa.authenticated, now.wall)

    def _introduce(self, peer: Peer, sa: IkeSA, now: Now) -> None:
        """A stranger's key is by now known to be the one that is meant: it is none any more, and not a packet waits."""
        entry = peer.entry(sa.remote.address, self._peers.own)
        if sa.authenticated is not None and sa.authenticated.entry.btns and entry is not None and not entry.btns:
            self._reconsider(peer, sa, entry, now)

    def _reconsider(self, peer: Peer, sa: IkeSA, entry: PadEntry, now: Now) -> None:
        sa.reconsider(entry)
        assert sa.authenticated is not None
        self.latch(peer, sa, now)
        self._memory.met(peer, sa.authenticated, now.wall)
        self._tell("peer.raised", sa, ("level", str(telling.level(sa))))

    def _tell(self, kind: str, sa: IkeSA, *fields: tuple[str, str]) -> None:
        self._emit(Notice(kind, (("peer", sa.peer_name), ("remote", str(sa.remote)), *fields)))
