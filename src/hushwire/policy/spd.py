"""The security policy database's entries (RFC 4301 s4.4.1), as both planes install them."""

from dataclasses import dataclass
from enum import Enum

from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Selector
from hushwire.wire.address import IPAddress


class Action(Enum):
    BLOCK = "block"
    CLEAR = "clear"
    """RFC 4301's BYPASS."""
    PROTECT = "protect"
    """Only through an SA with the policy's reqid.  Outbound without one: hold the packet and raise Acquire."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One entry of one direction.  (selector, direction) is its key: to install it again is to update it in place."""

    selector: Selector
    direction: Direction
    action: Action
    priority: int
    """Lower wins, as in the kernel."""
    reqid: int = 0
    """Of the SAs that may carry it; 0 unless PROTECT."""
    mode: Mode = Mode.TRANSPORT
    tunnel: tuple[IPAddress, IPAddress] | None = None
    """Outer (local, remote) addresses in tunnel mode."""
    soft: bool = False
    """Its rule permits clear.  Where hushwire has ended, its packets go as they would without it."""
    lifetime: int = 0
    """Seconds after which the plane takes it away by itself; 0: never.  So that what lets packets go in clear does not
    outlive who decided it."""
    real: IPAddress | None = None
    """PROTECT only: the selector's remote address is a synthetic one, made up for a name; on the wire, and in the SA's
    selector, it is this (DESIGN.md law 2)."""

    @property
    def admits_clear(self) -> bool:
        """Inbound, that clear packets pass as well as its SAs': of a soft trap for many, who have yet to prove
        themselves.  A host that did has a narrower policy."""
        many = self.selector.remote.num_addresses > 1 and self.mode is Mode.TRANSPORT
        return self.soft and many and self.action is Action.PROTECT and self.direction is Direction.IN
