"""Traffic selectors: what is asked, and how a responder narrows it (RFC 7296 s2.9, s2.23.1)."""

from collections.abc import Iterable, Sequence
from ipaddress import summarize_address_range

from hushwire.ike.errors import Rejected
from hushwire.policy.selector import Selector
from hushwire.wire.address import IPAddress, IPNetwork
from hushwire.wire.payload import TrafficSelector, UnknownSelector
from hushwire.wire.registry import NotifyType

LAST_PORT = 65535
MOST_SELECTORS = 16
"""Of each end, that are looked at.  A payload has room for 255, and each is tried with each of the other end's."""

AnySelector = TrafficSelector | UnknownSelector


def asked(selectors: Iterable[Selector]) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    """(local, remote) traffic selectors of what this host wants to cover."""
    local: dict[TrafficSelector, None] = {}
    remote: dict[TrafficSelector, None] = {}
    for selector in selectors:
        local[_from_network(selector.local, selector.protocol, selector.local_port)] = None
        remote[_from_network(selector.remote, selector.protocol, selector.remote_port)] = None
    return tuple(local), tuple(remote)


def _from_network(network: IPNetwork, protocol: int, port: int) -> TrafficSelector:
    first, last = (port, port) if port else (0, LAST_PORT)
    return TrafficSelector(protocol, first, last, network.network_address, network.broadcast_address)


def narrow(
    local: Sequence[AnySelector],
    remote: Sequence[AnySelector],
    allowed: Iterable[Selector],
    packet: Selector | None = None,
) -> Selector:
    """The most that one Child SA can carry of what was asked for: what is common to one of `allowed` and to it.

    It is of the one that has the packet, if we asked because of one; else of the one that has something of what the
    peer named first, which is to be its packet (RFC 7296 s2.9); else of the first that has anything.

    One Child SA of ours covers one selector, as one policy of the kernel does; a peer that asked for more asks again.
    Raises Rejected(TS_UNACCEPTABLE).
    """
    pairs = [
        (ours, theirs)
        for ours in local[:MOST_SELECTORS]
        for theirs in remote[:MOST_SELECTORS]
        if isinstance(ours, TrafficSelector) and isinstance(theirs, TrafficSelector)
    ]
    others: list[Selector] = []
    for selector in allowed:
        common = [found for pair in pairs if (found := _intersect(selector, *pair)) is not None]
        first = packet or (_intersect(selector, *pairs[0]) if common else None)
        if serving := [found for found in common if first is not None and found.covers(first)]:
            return max(serving, key=_breadth)
        others += common
    if not others:
        raise Rejected(NotifyType.TS_UNACCEPTABLE, "traffic selectors outside what the peer may speak for")
    return others[0]


def _breadth(selector: Selector) -> tuple[int, int]:
    limits = bool(selector.protocol) + bool(selector.local_port) + bool(selector.remote_port)
    return -selector.local.prefixlen - selector.remote.prefixlen, -limits


def _intersect(selector: Selector, ours: TrafficSelector, theirs: TrafficSelector) -> Selector | None:
    local = _common_network(selector.local, ours)
    remote = _common_network(selector.remote, theirs)
    if local is None or remote is None or local.version != remote.version:
        return None
    protocols = {selector.protocol, ours.protocol, theirs.protocol} - {0}
    if len(protocols) > 1:
        return None
    local_port = _common_port(selector.local_port, ours)
    remote_port = _common_port(selector.remote_port, theirs)
    if local_port is None or remote_port is None:
        return None
    return Selector(local, remote, protocols.pop() if protocols else 0, local_port, remote_port)


def _common_network(network: IPNetwork, asked_for: TrafficSelector) -> IPNetwork | None:
    """The largest prefix within both, the first if several."""
    if network.version != asked_for.first_address.version:
        return None
    # Of one family by now, so as integers.
    lowest, highest = int(network.network_address), int(network.broadcast_address)
    first = max(lowest, int(asked_for.first_address))
    last = min(highest, int(asked_for.last_address))
    if first > last:
        return None
    if (first, last) == (lowest, highest):
        return network
    family = type(network.network_address)
    prefixes: Iterable[IPNetwork] = summarize_address_range(family(first), family(last))
    return min(prefixes, key=lambda prefix: prefix.prefixlen)


def _common_port(port: int, asked_for: TrafficSelector) -> int | None:
    """A single port, 0 for all; None if they share none, or a range that no kernel policy can say."""
    if port:
        return port if asked_for.first_port <= port <= asked_for.last_port else None
    if (asked_for.first_port, asked_for.last_port) == (0, LAST_PORT):
        return 0
    return asked_for.first_port if asked_for.first_port == asked_for.last_port else None


def substitute(selectors: Sequence[AnySelector], address: IPAddress) -> tuple[AnySelector, ...]:
    """Transport mode through a NAT: the peer's selectors with the address that we see (RFC 7296 s2.23.1)."""
    return tuple(
        TrafficSelector(ts.protocol, ts.first_port, ts.last_port, address, address)
        if isinstance(ts, TrafficSelector) and ts.first_address == ts.last_address
        else ts
        for ts in selectors
    )
