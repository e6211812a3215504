"""What an IKE SA has reached, as a table (DESIGN.md section 2), and what it waits for time to do.

What is in flight is an exchange, not a state.
"""

from enum import Enum, auto

from hushwire.wire.registry import ExchangeType


class State(Enum):
    INITIAL = auto()
    """IKE_SA_INIT is under way."""
    HALF_OPEN = auto()
    """Keys are agreed; the peer has proved nothing."""
    ESTABLISHED = auto()
    REKEYED = auto()
    """Another IKE SA has taken over; only its deletion is to come (RFC 7296 s2.18)."""
    CLOSED = auto()


class Input(Enum):
    KEYED = auto()
    AUTHENTICATED = auto()
    REPLACED = auto()
    CLOSE = auto()


class Timer(Enum):
    RETRANSMIT = auto()
    HALF_OPEN = auto()
    LIVENESS = auto()
    REKEY = auto()
    EXPIRE = auto()
    CHILDREN = auto()
    KEEPALIVE = auto()
    PATIENCE = auto()
    REAUTHENTICATE = auto()


TRANSITIONS = {
    (State.INITIAL, Input.KEYED): State.HALF_OPEN,
    (State.HALF_OPEN, Input.AUTHENTICATED): State.ESTABLISHED,
    (State.ESTABLISHED, Input.REPLACED): State.REKEYED,
    (State.INITIAL, Input.CLOSE): State.CLOSED,
    (State.HALF_OPEN, Input.CLOSE): State.CLOSED,
    (State.ESTABLISHED, Input.CLOSE): State.CLOSED,
    (State.REKEYED, Input.CLOSE): State.CLOSED,
}
"""What is not here is a bug of ours and raises."""

ANSWERED = {
    State.INITIAL: frozenset({ExchangeType.IKE_SA_INIT}),
    State.HALF_OPEN: frozenset({ExchangeType.IKE_AUTH}),
    State.ESTABLISHED: frozenset({ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL}),
    State.REKEYED: frozenset({ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL}),
    State.CLOSED: frozenset[ExchangeType](),
}
"""Which requests are answered at all (ATTACKS row 5)."""
