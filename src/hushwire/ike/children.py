"""The Child SAs of one IKE SA, and what its peer is still to be told of them (RFC 7296 s1.3, s1.4.1, s2.8, s2.18)."""

from functools import partial
from typing import TYPE_CHECKING

from hushwire.ike import report
from hushwire.ike.child import ChildSA
from hushwire.ike.state import State
from hushwire.timers import NEVER

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA


LINGER = 5.0
"""Seconds for which packets are opened that were sealed before the peer knew of a replacement."""


class Children(dict[bytes, ChildSA]):
    """By our inbound SPI."""

    def __init__(self, sa: "IkeSA") -> None:
        super().__init__()
        self._sa = sa
        self.creating = False
        """An exchange of ours that makes or replaces one is under way."""
        self.disowned: set[bytes] = set()
        """Inbound SPIs whose Delete the peer has not answered yet, whether the Child SA is still here or not."""

    @property
    def busy(self) -> bool:
        """Whether an exchange of ours is making, replacing or deleting a Child SA (RFC 7296 s2.25.2)."""
        return self.creating or bool(self.disowned) or any(child.rekeying for child in self.values())

    @property
    def next_rekey(self) -> float:
        """When the first is to be replaced; NEVER if none is ours to replace."""
        return min((child.rekey_at for child in self.values() if self._due(child)), default=NEVER)

    def _due(self, child: ChildSA) -> bool:
        """Whether it is ours to replace in time: not what is being replaced or deleted already, by either end."""
        return not child.rekeying and child.successor is None and child.spi_in not in self.disowned

    def add(self, child: ChildSA) -> None:
        """Both directions stand, or the outbound one will when the old one goes."""
        self[child.spi_in] = child
        self._sa.arm_children()
        self._sa.host.outbox.append(report.ChildUp(self._sa, child))
        for sa in self._sa.host.with_peer_of(self._sa):
            if sa.succession.is_over(self._sa):
                sa.succession.mute_replaced()

    def remove(self, child: ChildSA) -> None:
        """Take both directions out of the plane; of one that was replaced the inbound one a little later.

        RFC 7296 s2.8: packets may be overtaken, by the Delete, too.
        """
        if self.pop(child.spi_in, None) is None:
            return
        replaced = (child.rekeying or child.successor is not None) and self._sa.state is State.ESTABLISHED
        self._sa.uninstall(child.inbound, linger=LINGER if replaced else 0.0)
        if not child.outbound_waits:
            self._sa.uninstall(child.outbound)
        for other in self.values():
            if other.successor is child:
                other.successor = None
        for sa in self._sa.host.with_peer_of(self._sa):
            sa.children.activate_orphans()
        self._sa.arm_children()
        self._sa.host.outbox.append(report.ChildDown(self._sa, child))

    def disown(self, spi_in: bytes) -> None:
        """Delete a Child SA at both ends; if this IKE SA is replaced before the peer has answered, its heir does."""
        if spi_in not in self.disowned:
            self.disowned.add(spi_in)
            self._sa.start(lambda: self._sa.host.exchanges.disown(self._sa, spi_in))

    def expired(self, child: ChildSA) -> None:
        """The plane has dropped it: what replaces it, if the peer has begun to, takes over at once."""
        self.remove(child)
        self.activate_orphans()
        # RFC 7296 s1.4.1: the peer may hold its half for ever, if nobody tells it.
        self.disown(child.spi_in)

    def activate_orphans(self) -> None:
        """Have those take over that wait for one to go that is gone."""
        for child in [child for child in self.waiting() if not self.must_wait(child)]:
            self._sa.start(partial(self._sa.host.exchanges.activate, self._sa, child))

    def waiting(self) -> list[ChildSA]:
        """Those whose outbound SA waits, but not for another child of this IKE SA."""
        awaited = [child.successor for child in self.values()]
        return [child for child in self.values() if child.outbound_waits and child not in awaited]

    def must_wait(self, child: ChildSA) -> bool:
        """Whether we go on to send as before: this IKE SA is a new one of the peer's, and the old one still stands.

        The peer cannot open what comes by the new one before it has our answer: its next request says so.
        """
        mine = self._sa
        if not mine.succession.instead_of or mine.origin[1]:
            return False
        for sa in mine.host.peers.get(mine.peer.identity, ()) if mine.peer else ():
            if sa is not mine and mine.succession.instead_of in (sa.origin[0], sa.succession.instead_of):
                serving = sa.children.covering(child)
                if serving is not None and not serving.outbound_waits:
                    return True
        return False

    def covering(self, child: ChildSA) -> ChildSA | None:
        """One that serves all that another's does."""
        serving = (mine for mine in self.values() if mine.mode is child.mode and mine.selector.covers(child.selector))
        return min(serving, key=lambda mine: mine.outbound_waits, default=None)

    def mute(self) -> None:
        """Take the outbound SAs out of the plane."""
        for child in self.values():
            if not child.outbound_waits:
                child.outbound_waits = True
                self._sa.uninstall(child.outbound)

    def adopt(self, others: "Children") -> None:
        """Take over another's (RFC 7296 s2.18); the plane sees nothing of it, and what was queued there is gone."""
        for child in others.values():
            child.rekeying = False
        self.update(others)
        for spi_in in sorted(others.disowned):
            self.disown(spi_in)
        others.clear()
        others.disowned.clear()
        self.activate_orphans()
        self._sa.arm_children()

    def rekey(self, child: ChildSA) -> None:
        """Replace a Child SA, unless that is already under way."""
        if self._due(child) and self._sa.state is State.ESTABLISHED:
            child.rekeying = True
            self._sa.start(lambda: self._sa.host.exchanges.rekey_child(self._sa, child))

    def rekey_all(self) -> None:
        for child in list(self.values()):
            self.rekey(child)

    def rekey_late(self, now: float) -> None:
        """Replace those whose time has come."""
        for child in [child for child in self.values() if child.rekey_at <= now]:
            self.rekey(child)
        self._sa.arm_children()
