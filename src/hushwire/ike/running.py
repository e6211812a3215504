"""An exchange that has begun and not ended, and what it has in the plane (RFC 7296 s2.1)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hushwire.ike.host import Exchange
from hushwire.policy.sad import SA
from hushwire.timers import NEVER
from hushwire.wire.address import Endpoint
from hushwire.wire.message import Message

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA


@dataclass(slots=True, eq=False)
class Running:
    """Driven by the IKE SA it belongs to."""

    sa: "IkeSA"
    coroutine: Exchange
    request: Message | None = None
    """What it answers; None for an exchange of ours."""
    path: tuple[Endpoint, Endpoint] | None = None
    """Where the request came to and from: the response takes the same way back (RFC 7296 s2.11)."""
    responded: bool = False
    answer_by: float = NEVER
    """Monotonic time until which this host's own processes may take for what was last asked of them."""
    installing: dict[int, SA] = field(default_factory=dict)
    """Not yet confirmed by the plane, by number."""
    installed: list[SA] = field(default_factory=list)
    """Of the same Install, those that are: all of them stand in the end, or none."""
    unwanted: dict[int, SA] = field(default_factory=dict)
    """Given up before they were confirmed: when they are, they go."""

    def confirm(self, number: int, *, refused: bool) -> tuple[bool, list[SA]]:
        """The plane did or refused one installation: whether the exchange now has its answer, and what is to go."""
        late = self.unwanted.pop(number, None)
        if late is not None:
            return False, [] if refused else [late]
        sa = self.installing.pop(number, None)
        if refused:
            return True, self.give_up()
        if sa is not None:
            self.installed.append(sa)
            if self.installing:
                return False, []
            self.installed = []
        return True, []

    def give_up(self) -> list[SA]:
        """What is to go, so that no half-done Install stays; what is not confirmed yet goes later.

        What the plane refuses is left alone: it may be another's that stands there under the same name.
        """
        gone, self.installed = self.installed, []
        self.unwanted |= self.installing
        self.installing = {}
        return gone
