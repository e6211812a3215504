"""What one peer may have of us, who may be anybody: IKE SAs, and how often what stands is replaced (RFC 8019 s5)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hushwire.ike.errors import Rejected
from hushwire.ike.state import State
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
    """How often a peer has things replaced: one for all IKE SAs with it that stand together, and their heirs."""

    def __init__(self, now: float) -> None:
        self._left = REKEYS
        self._filled = now

    def count(self, now: float) -> None:
        """One more, at monotonic time `now`.  Raises Rejected."""
        self._left = min(REKEYS, self._left + (now - self._filled) * REKEYS_PER_SECOND)
        self._filled = now
        if self._left < 1:
            raise Rejected(NotifyType.TEMPORARY_FAILURE, "all is replaced too fast")
        self._left -= 1


def make_room(sa: "IkeSA", entry: PadEntry, refusal: NotifyType) -> None:
    """One more IKE SA with a peer, in place of the one that he needs least if he has all he may.  Raises Rejected."""
    while len(there := _between(sa, entry)) >= MOST_IKE_SAS:
        if not _give_up(sa, entry, there):
            raise Rejected(refusal, f"{MOST_IKE_SAS} IKE SAs with {entry.name} are enough")


def make_room_for_child(sa: "IkeSA", entry: PadEntry) -> None:
    """One more Child SA under an IKE SA, in place of those of an older one, as for an IKE SA.  Raises Rejected."""
    # RFC 7296 s1.3: what a peer may have of us is bounded, proved or not (ATTACKS rows 24 and 55).
    most = MOST_CHILDREN if entry.introduced else PER_SELECTOR * len(entry.selectors)
    while len(there := _with_children(sa, entry)) >= most:
        if not _give_up(sa, entry, there):
            raise Rejected(NotifyType.NO_ADDITIONAL_SAS, f"{most} Child SAs with {entry.name} are enough")


def _with_children(sa: "IkeSA", entry: PadEntry) -> "list[IkeSA]":
    """The IKE SA of each Child SA that counts: with whom an administrator named, of this one alone."""
    return [each for each in ([sa] if entry.introduced else _between(sa, entry)) for _ in each.children]


def _between(sa: "IkeSA", entry: PadEntry) -> "list[IkeSA]":
    """All that stand with a peer between the same addresses."""
    ends = sa.local.address, sa.remote.address
    others = sa.host.by_reqid.get(entry.reqid, ())
    return [other for other in others if (other.local.address, other.remote.address) == ends]


def _give_up(sa: "IkeSA", entry: PadEntry, there: "Iterable[IkeSA]") -> bool:
    """Close the one that the peer needs least: one that was replaced, or the oldest.  Raises Rejected.

    He has just proved that he is who made it: he has forgotten it, or has more than he needs.  Those that somebody else
    made are asked whether they live, so that when they do not the peer has but to come again.
    """
    proved = {other: other.authenticated for other in there if other is not sa}
    own = [other for other, proof in proved.items() if proof is not None and proof.entry.identity == entry.identity]
    for other in proved if not own else ():
        other.doubt()
    if own:
        least = min(own, key=lambda other: (other.state is State.ESTABLISHED, other.established))
        # It is one more that is replaced.
        least.succession.pace.count(sa.host.now.monotonic)
        least.close("the peer began others since, and has all it may")
    return bool(own)
