"""Which IKE SA takes another's place by reauthentication, and what is still sent by it (RFC 7296 s2.8)."""

from typing import TYPE_CHECKING

from hushwire.ike.allowance import Pace
from hushwire.ike.state import State
from hushwire.policy.pad import Identity
from hushwire.timers import NEVER

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA


class Succession:
    """Where one IKE SA stands in it.  Times are monotonic seconds."""

    def __init__(self, sa: "IkeSA") -> None:
        self._sa = sa
        self.instead_of = b""
        """The first of `origin` of the IKE SA that this one was made from scratch to replace; empty: of none."""
        self.proven_at = NEVER
        """When the peer knew that all Child SAs that it takes over stand here."""
        self.muted_at = NEVER
        """When we ceased to send through its children, since another serves all that they do."""
        self.attempts = 0
        """To have it replaced, or to complete it."""
        self.pace = Pace(sa.host.now.monotonic)
        """Of the rekeys that the peer asks for."""

    def inherit(self, old: "Succession") -> None:
        """The IKE SA is a rekey of that one's, and has its place."""
        self.instead_of, self.attempts, self.pace = old.instead_of, old.attempts, old.pace

    def keep_pace(self, identity: Identity) -> None:
        """The peer is known: another IKE SA gives it no other pace."""
        self.pace = next((other.succession.pace for other in self._sa.host.peers.get(identity, ())), self.pace)

    def is_over(self, other: "IkeSA") -> bool:
        """Whether it was made to replace another, or the same as that one and is the one of the two that stays."""
        if not self.instead_of:
            return False
        rival = self.instead_of == other.succession.instead_of and self._sa.origin < other.origin
        return rival or self.instead_of == other.origin[0]

    @property
    def replaced(self) -> "list[IkeSA]":
        """Those that stand and that it is to replace."""
        return [old for old in self._sa.host.with_peer_of(self._sa) if self.is_over(old) and not old.deleting]

    @property
    def retiring(self) -> bool:
        """Whether nothing is to be sent by it any more: it is being deleted, or another has taken its place."""
        if self._sa.deleting or self.muted_at == NEVER:
            return self._sa.deleting
        return any(sa.succession.is_over(self._sa) for sa in self._sa.host.with_peer_of(self._sa))

    def serves_all_of(self, old: "IkeSA") -> bool:
        """Whether nothing of ours would go unsent without another."""
        if self._sa.state is not State.ESTABLISHED:
            return False
        serving = [self._sa.children.covering(child) for child in old.children.values()]
        return all(child is not None and not child.outbound_waits for child in serving)

    def mute_replaced(self) -> None:
        """Send nothing any more by those that it replaces; what still comes is taken until they are deleted."""
        for old in self.replaced:
            if self.serves_all_of(old):
                old.succession.muted_at = min(old.succession.muted_at, self._sa.host.now.monotonic)
                old.children.mute()
