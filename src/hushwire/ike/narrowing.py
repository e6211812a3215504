"""Traffic selectors: what is asked, and how a responder narrows it (RFC 7296 s2.9, s2.23.1)."""

from collections.abc import Iterable, Sequence
from ipaddress import summarize_address_range

from hushwire.ike.errors import Rejected
from hushwire.policy.selector import Selector
from hushwire.wire.address import IPAddress, IPNetwork
from hushwire.wire.payload import TrafficSelector, UnknownSelector
from hushwire.wire.registry import NotifyType

LAST_PORT = 65535

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


def narrow(local: Sequence[AnySelector], remote: Sequence[AnySelector], allowed: Iterable[Selector]) -> Selector:
    """The first of `allowed` that, cut down to what the peer asked for, still covers something.

    One Child SA of ours covers one selector, as one policy of the kernel does; a peer that asked for more asks again
    (RFC 7296 s2.9).  Raises Rejected(TS_UNACCEPTABLE).
    """
    for selector in allowed:
        for ours in local:
            for theirs in remote:
                if isinstance(ours, TrafficSelector) and isinstance(theirs, TrafficSelector):
                    found = _intersect(selector, ours, theirs)
                    if found is not None:
                        return found
    raise Rejected(NotifyType.TS_UNACCEPTABLE, "traffic selectors outside what the peer may speak for")


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
