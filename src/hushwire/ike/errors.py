"""What goes wrong, sorted by whose fault it is (RFC 7296 s2.21).

Octets that do not decode are wire.DecodeError: dropped and counted.  A bug of ours is no exception of this module.
"""

from hushwire.wire.registry import NotifyType


class Rejected(Exception):
    """The peer's request is refused with this Notify; also what our own request failed with, when the peer refused."""

    def __init__(self, notify: NotifyType, why: str = "", data: bytes = b"") -> None:
        super().__init__(f"{notify.name}: {why}" if why else notify.name)
        self.notify = notify
        self.why = why
        self.data = data


class PeerRefused(Rejected):
    """The peer answered our request with an error Notify, under the SA's protection."""


class PeerMisbehaved(Exception):
    """The peer's answer, integrity-checked, is not what RFC 7296 allows."""


class NoAnswer(Exception):
    """Every retransmission went unanswered (RFC 7296 s2.4)."""


class PlaneRefused(Exception):
    """The guard or the plane did not install what was asked."""


class Unauthorized(Exception):
    """No PAD entry lets this identity speak from this address."""
