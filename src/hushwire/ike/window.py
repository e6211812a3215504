"""Message IDs, retransmission and the answer kept for a repeated request (RFC 7296 s2.1 to s2.3).  The window is 1."""

import hashlib
from dataclasses import dataclass

from hushwire.wire.registry import ExchangeType

LAST_MESSAGE_ID = 0xFFFF_FFFF


@dataclass(slots=True)
class Outstanding:
    """Our request that waits for its response."""

    message_id: int
    exchange: ExchangeType
    datagram: bytes
    sent: int = 1
    """Times it went out."""


class Window:
    """Both directions' message IDs of one IKE SA."""

    __slots__ = ("_answered", "_response", "expected", "next_id", "outstanding")

    def __init__(self, next_id: int = 0, expected: int = 0) -> None:
        self.next_id = next_id
        """Of our next request."""
        self.expected = expected
        """Of the peer's next request."""
        self.outstanding: Outstanding | None = None
        self._answered = b""
        self._response: bytes | None = None

    def sent(self, exchange: ExchangeType, datagram: bytes) -> None:
        """Our next request went out."""
        self.outstanding = Outstanding(self.next_id, exchange, datagram)
        self.next_id += 1

    def restart(self) -> None:
        """IKE_SA_INIT is tried again with another cookie or group: the message ID stays 0 (RFC 7296 s2.6)."""
        self.outstanding = None
        self.next_id = 0

    def acknowledged(self) -> None:
        """The response to our outstanding request came."""
        self.outstanding = None

    def accept(self, datagram: bytes) -> None:
        """The peer's request with the expected ID is being answered: remember its octets, not its answer yet."""
        self._answered = _digest(datagram)
        self._response = None
        self.expected += 1

    def respond(self, response: bytes) -> None:
        """The answer to the request just accepted."""
        self._response = response

    @property
    def response(self) -> bytes:
        """The last response, to the octet."""
        return self._response or b""

    def repeated(self, message_id: int, datagram: bytes) -> bytes | None:
        """The kept response, if this is to the octet the request last answered.

        Only equal octets get it, so that a forger learns and provokes nothing before an integrity check.
        """
        if message_id == self.expected - 1 and _digest(datagram) == self._answered:
            return self._response
        return None


def _digest(datagram: bytes) -> bytes:
    return hashlib.blake2b(datagram, digest_size=16).digest()
