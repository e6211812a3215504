"""What is remembered of a peer, and what follows: no level sinks silently, and a stranger is known again.

DESIGN.md section 4; the leap of faith is RFC 5387 s5.7.
"""

from hushwire.crypto.keys import PublicKey
from hushwire.events import Notice
from hushwire.ike.errors import Unauthorized
from hushwire.ike.proof import Authenticated
from hushwire.node import acquaintance
from hushwire.node.known import Changed, KnownPeers, NoRoom
from hushwire.node.peer import Peer
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.trust import TrustStore


class KeyChanged(Unauthorized):
    """The peer proves another key than the one that it is known by, or none, and its rule does not take that."""

    def __init__(self, before: Known, fingerprint: bytes | None) -> None:
        super().__init__(acquaintance.refusal(before, fingerprint))
        self.notice = acquaintance.changed(before, fingerprint)


class Memory:
    """Over the peers that are known, by name or address, and the keys that an administrator trusts."""

    def __init__(self, known: KnownPeers, trusted: TrustStore) -> None:
        self._known = known
        self.trusted = trusted
        """Whose keys an administrator trusts now."""
        self.lets_change = True
        """Whether a rule may let a stranger have another key: flows with the one before must not go on (RFC 5660)."""

    def has_reached(self, subject: str, require: Assurance, wall: float) -> bool:
        """Whether one has reached a level of late."""
        known = self._known.of(subject)
        return known is not None and known.level >= require and wall <= known.until

    def recall(self, peer: Peer, wall: float) -> None:
        """Have a peer that is here again be what it was."""
        peer.reached = peer.reached or (peer.born and self.has_reached(peer.name, peer.rule.require, wall))

    def expired(self, peer: Peer, wall: float) -> tuple[tuple[str, str], ...]:
        """What there is to say when a peer is met in clear that once was not: what it was, and until when that held."""
        known = self._known.of(peer.name)
        if known is None or known.level < peer.rule.require or wall <= known.until:
            return ()
        return ("was", str(known.level)), ("until", acquaintance.day(known.until))

    def worth(self, peer: Peer, key: PublicKey) -> Assurance:
        """What a stranger's key is worth at a peer.  Raises KeyChanged.

        RFC 5386 s2: entries for one key come before the wildcard.  At first contact nobody can be told from another.
        """
        trusted = Assurance.TRUSTED if self.trusted.get(key.fingerprint) is not None else Assurance.ENCRYPTED
        before = self._known.of(peer.name)
        if before is None:
            return max(trusted, min(peer.rule.require, Assurance.CONTINUOUS))
        if before.fingerprint == key.fingerprint:
            return max(trusted, Assurance.CONTINUOUS)
        firm = before.level >= Assurance.TRUSTED or peer.rule.require >= Assurance.CONTINUOUS or not self.lets_change
        if before.pinned or (firm and trusted is Assurance.ENCRYPTED):
            raise KeyChanged(before, key.fingerprint)
        return trusted

    def bear(self, peer: Peer) -> None:
        """Let a peer stay anonymous.  Raises KeyChanged.

        RFC 7619 s3: not where it is known firmly who is there.
        """
        before = self._known.of(peer.name)
        if before is not None and (before.pinned or before.level >= Assurance.TRUSTED):
            raise KeyChanged(before, None)

    def contradicts(self, peer: Peer, key: PublicKey | None) -> Notice | None:
        """What is to be said if an administrator has pinned another key for a peer, whatever the DNS says."""
        known, proved = self._known.of(peer.name), key.fingerprint if key is not None else None
        if known is None or not known.pinned or known.fingerprint == proved:
            return None
        return acquaintance.changed(known, proved)

    def met(self, peer: Peer, proof: Authenticated, wall: float) -> Notice | None:
        """A peer has proved a key, and its SAs stand; what there is to be said of that."""
        key, before = proof.verified.public, self._known.of(peer.name)
        if proof.anonymous and before is not None:
            return acquaintance.changed(before, None)
        if key is None or not (peer.born or proof.entry.btns):
            # Who is in the configuration is not forgotten with a restart.
            return None
        match self._known.meet(peer.name, key.fingerprint, proof.assurance, wall):
            case NoRoom():
                return Notice("known.full", (("subject", peer.name), ("do", "see hushwire known forget")), grave=True)
            case Changed(was) if proof.entry.btns:
                return acquaintance.changed(was, key.fingerprint)
        return None
