"""What IKE tells the Node that composes it, beside the effects it asks for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hushwire.crypto.keys import PublicKey
from hushwire.policy.pad import Identity
from hushwire.wire.address import Endpoint

if TYPE_CHECKING:
    from hushwire.ike.child import ChildSA
    from hushwire.ike.sa import IkeSA


@dataclass(frozen=True, slots=True)
class AuthorizationWanted:
    """A peer claims an identity, or is about to: answer with Endpoint.authorized()."""

    request: int
    identity: Identity | None
    """None: it has yet to."""
    remote: Endpoint
    reqid: int = 0
    """Of the peer that it is known to be; 0: of whoever has the identity."""
    key: PublicKey | None = None
    """That it sent, and has yet to prove that it holds."""


@dataclass(frozen=True, slots=True)
class Proved:
    """The initiator has proved who it is, and has yet to hear that we know."""

    sa: "IkeSA"


@dataclass(frozen=True, slots=True)
class Established:
    """Both ends have proved who they are."""

    sa: "IkeSA"


@dataclass(frozen=True, slots=True)
class Replaced:
    """An IKE SA took over another's peer and children (RFC 7296 s2.18)."""

    old: "IkeSA"
    new: "IkeSA"


@dataclass(frozen=True, slots=True)
class ChildUp:
    """Both directions of a Child SA stand in the plane."""

    sa: "IkeSA"
    child: "ChildSA"


@dataclass(frozen=True, slots=True)
class ChildDown:
    """A Child SA is gone from the plane."""

    sa: "IkeSA"
    child: "ChildSA"


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A Child SA that was wanted did not come to be; the IKE SA stands."""

    sa: "IkeSA"
    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """An IKE SA, established or not, is gone, and with it every Child SA."""

    sa: "IkeSA"
    reason: str


Report = AuthorizationWanted | Proved | Established | Replaced | ChildUp | ChildDown | ChildFailed | Closed
