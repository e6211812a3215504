"""What `hushwire status` says, as JSON values."""

from hushwire.config import PlaneChoice
from hushwire.ike.sa import IkeSA
from hushwire.ike.state import State
from hushwire.node.peer import Peer
from hushwire.node.peers import Peers
from hushwire.node.seeking import Seeking
from hushwire.policy.assurance import Assurance
from hushwire.timers import Now

Told = dict[str, object]


def level(sa: IkeSA) -> Assurance:
    """How sure we are who is there."""
    return sa.authenticated.assurance if sa.authenticated is not None else Assurance.CLEAR


def status(name: str, plane: PlaneChoice, peers: Peers, seeking: Seeking, now: Now) -> Told:
    """The whole host."""
    return {
        "name": name,
        "plane": plane.value,
        "addresses": [str(address) for address in peers.own],
        "peers": [peer_status(peer, seeking, now) for peer in peers if not peer.is_trap],
    }


def peer_status(peer: Peer, seeking: Seeking, now: Now) -> Told:
    """One peer of it."""
    sas = [sa for sa in seeking.standing(peer) if sa.state is State.ESTABLISHED]
    reached = max((level(sa) for sa in sas if sa.children), default=None)
    return {
        "peer": peer.name,
        "require": str(peer.rule.require),
        "below": peer.rule.below.value,
        "level": str(reached) if reached is not None else None,
        "addresses": [str(address) for address in peer.addresses],
        "unbound": str(peer.lookup.unbound) if peer.lookup is not None and peer.lookup.unbound else None,
        "last_failure": peer.last_failure or None,
        "ike": [_sa_status(sa, now) for sa in sas],
    }


def _sa_status(sa: IkeSA, now: Now) -> Told:
    key = sa.authenticated.verified.public if sa.authenticated is not None else None
    return {
        "spi_i": sa.spi_i.hex(),
        "spi_r": sa.spi_r.hex(),
        "initiator": sa.initiator,
        "local": str(sa.local),
        "remote": str(sa.remote),
        "level": str(level(sa)),
        "suite": str(sa.suite),
        "scheme": sa.authenticated.verified.scheme if sa.authenticated is not None else None,
        "key": key.fingerprint.hex() if key is not None else None,
        "age": round(now.monotonic - sa.established, 3),
        "children": [
            {
                "spi_in": child.spi_in.hex(),
                "spi_out": child.spi_out.hex(),
                "suite": str(child.inbound.suite),
                "mode": child.mode.value,
                "selector": str(child.selector),
                "udp": child.inbound.encapsulation is not None,
                "age": round(now.monotonic - child.created, 3),
            }
            for child in sa.children.values()
        ],
    }
