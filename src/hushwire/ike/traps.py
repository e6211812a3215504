"""What an exchange waits for: to await one suspends the coroutine until the IKE SA that runs it answers.

There is no event loop: a trap is yielded to whoever drives the coroutine with send() and throw().
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hushwire.crypto.keys import PublicKey
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import SA
from hushwire.wire.address import Endpoint
from hushwire.wire.message import Message
from hushwire.wire.payload import Payload
from hushwire.wire.registry import ExchangeType

Answer = TypeVar("Answer")


class Trap(Generic[Answer]):
    """Something to be awaited whose answer is of one type."""

    __slots__ = ()

    def __await__(self) -> Generator["Trap[Answer]", Answer, Answer]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Request(Trap[Message]):
    """Send a request; the answer is the response.  Raises NoAnswer."""

    exchange: ExchangeType
    payloads: Sequence[Payload]


@dataclass(frozen=True, slots=True)
class InitRequest(Trap[tuple[Message, bytes]]):
    """Send an IKE_SA_INIT request; the answer is the response and its octets, which nothing protects."""

    payloads: Sequence[Payload]


@dataclass(frozen=True, slots=True)
class Listen(Trap[tuple[Message, bytes]]):
    """The IKE_SA_INIT response just seen is not believed: wait for another, while retransmission goes on."""


@dataclass(frozen=True, slots=True)
class Respond(Trap[None]):
    """Send the response to the request being processed.  The coroutine goes on at once."""

    payloads: Sequence[Payload]


@dataclass(frozen=True, slots=True)
class Sign(Trap[bytes]):
    """Have the keeper sign AUTH octets, or compute a shared key's AUTH (RFC 7296 s2.15)."""

    key: bytes
    """A public key's fingerprint, or a shared key's name."""
    scheme: str
    """A crypto.auth.Scheme's name, or SHARED_KEY/ and the PRF's name."""
    octets: bytes


@dataclass(frozen=True, slots=True)
class Authorize(Trap[PadEntry]):
    """Find the PAD entry of an identity that speaks from an address, in DNS if need be.  Raises Unauthorized."""

    identity: Identity | None
    """What it says it is; None: it has yet to say that, and the entry is one to begin with."""
    remote: Endpoint
    reqid: int = 0
    """Of whom it is meant to be; 0: of nobody in particular."""
    key: PublicKey | None = None
    """Sent by the peer, who has said that its signature is by this one (RFC 5386 s2)."""


@dataclass(frozen=True, slots=True)
class Install(Trap[None]):
    """Install SAs in the plane, all of them.  Raises PlaneRefused."""

    sas: tuple[SA, ...]
