"""What one peer may have of us, who may be anybody: IKE SAs, and how often what stands is replaced (RFC 8019 s5)."""

from typing import TYPE_CHECKING

from hushwire.ike.errors import Rejected
from hushwire.policy.pad import PadEntry
from hushwire.wire.registry import NotifyType

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

MOST_IKE_SAS = 8
"""With one peer at one address.  Those that were replaced, and that it has yet to delete, are among them."""
REKEYS = 256.0
"""That a peer may ask for at once: of as many Child SAs as an IKE SA may have."""
REKEYS_PER_SECOND = 4.0


class Pace:
    """How often a peer has things replaced: one for an IKE SA and all that its rekeys make of it."""

    def __init__(self, now: float) -> None:
        self._left = REKEYS
        self._filled = now

    def count(self, now: float) -> None:
        """One more, at monotonic time `now`.  Raises Rejected."""
        self._left = min(REKEYS, self._left + (now - self._filled) * REKEYS_PER_SECOND)
        self._filled = now
        if self._left < 1:
            raise Rejected(NotifyType.TEMPORARY_FAILURE, "rekeys come too fast")
        self._left -= 1


def make_room(sa: "IkeSA", entry: PadEntry, refusal: NotifyType) -> None:
    """One more IKE SA with a peer.  Raises Rejected.

    Those of a peer that has forgotten them die when they are asked whether they live; it has only to come again.
    """
    address = sa.remote.address
    there = [other for other in sa.host.by_reqid.get(entry.reqid, ()) if other.remote.address == address]
    if len(there) >= MOST_IKE_SAS:
        for other in there:
            other.doubt()
        raise Rejected(refusal, f"{MOST_IKE_SAS} IKE SAs with {entry.name} are enough")
