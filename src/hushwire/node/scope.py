"""Which packets a rule speaks of, and which policy comes before which (RFC 4301 s4.4.1)."""

from collections.abc import Iterable, Iterator, Sequence

from hushwire.config import Rule
from hushwire.policy.selector import Flow, Selector
from hushwire.wire.address import IPAddress, IPNetwork, host_network

REQID_BASE = 0x6877_0000
"""hushwire's reqids begin here, "hw" in ASCII: the guard lets no other be used (DESIGN.md section 3)."""
PROTECT_PRIORITY = 1 << 18
"""Of a peer's policies; narrower ones come before wider ones, as config.check promises."""


def nearest(own: Iterable[IPAddress], remote: IPAddress) -> IPAddress | None:
    """The address of ours that shares most leading bits with a peer's (RFC 6724 s5, rule 8), and its being private."""

    def nearness(address: IPAddress) -> tuple[bool, int]:
        return address.is_private == remote.is_private, -(int(address) ^ int(remote)).bit_length()

    return max((address for address in own if address.version == remote.version), key=nearness, default=None)


def selectors_of(rule: Rule, own: Sequence[IPAddress], remote: IPAddress) -> Iterator[Selector]:
    """What a rule says between this host's addresses and one address of the peer."""
    same_family: list[IPNetwork] = [host_network(address) for address in own if address.version == remote.version]
    locals_ = rule.local_networks or same_family
    remotes = rule.remote_networks or (host_network(remote),)
    for local in locals_:
        for far in remotes:
            if local.version == far.version:
                yield Selector(local, far, rule.protocol, rule.local_port, rule.remote_port)


def same_hosts(selector: Selector, flow: Flow) -> bool:
    """The kernel's Acquire names a flow by its addresses alone when its policy does."""
    return flow.protocol == 0 and flow.local in selector.local and flow.remote in selector.remote


def narrowness(selector: Selector) -> int:
    """The narrower a selector, the sooner it counts: by whom it is about first of all, as the configuration has it.

    A rule about one host is not to be got round by one about all hosts that names a port.
    """
    ports = bool(selector.local_port) + bool(selector.remote_port) + bool(selector.protocol)
    return (selector.remote.prefixlen * 129 + selector.local.prefixlen) * 8 + 2 * ports
