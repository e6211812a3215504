"""What one peer may have of us, who may be anybody: IKE SAs, and how often what stands is replaced (RFC 8019 s5)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hushwire.ike.errors import Rejected
from hushwire.policy.pad import PadEntry
from hushwire.wire.registry import NotifyType

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

MOST_IKE_SAS = 8
"""Between two addresses, with one peer.  Those that were replaced, and that it has yet to delete, are among them."""
MOST_CHILDREN = 256
"""Child SAs under one IKE SA with whom an administrator named, those being replaced counted twice."""
PER_SELECTOR = 4
"""Child SAs between two addresses with anybody else, for each selector that he may have: one, the one that replaces
it, and for both what the other end made at the same time.  As many strangers as there may be leave most of the SAs
that a host can have to others."""
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
    """One more IKE SA with a peer.  Raises Rejected."""
    if len(there := _between(sa, entry)) >= MOST_IKE_SAS:
        _doubt(there)
        raise Rejected(refusal, f"{MOST_IKE_SAS} IKE SAs with {entry.name} are enough")


def make_room_for_child(sa: "IkeSA", entry: PadEntry) -> None:
    """One more Child SA under an IKE SA.  Raises Rejected."""
    # RFC 7296 s1.3: what a peer may have of us is bounded, proved or not (ATTACKS rows 24 and 55).
    there = [sa] if entry.introduced else _between(sa, entry)
    most = MOST_CHILDREN if entry.introduced else PER_SELECTOR * len(entry.selectors)
    if sum(len(other.children) for other in there) >= most:
        _doubt(other for other in there if other is not sa)
        raise Rejected(NotifyType.NO_ADDITIONAL_SAS, f"{most} Child SAs with {entry.name} are enough")


def _between(sa: "IkeSA", entry: PadEntry) -> "list[IkeSA]":
    """All that stand with a peer between the same addresses."""
    ends = sa.local.address, sa.remote.address
    others = sa.host.by_reqid.get(entry.reqid, ())
    return [other for other in others if (other.local.address, other.remote.address) == ends]


def _doubt(others: "Iterable[IkeSA]") -> None:
    """Those that the peer has forgotten die when they are asked whether they live; it has only to come again."""
    for other in others:
        other.doubt()
