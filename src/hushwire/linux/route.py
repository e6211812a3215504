"""Links, addresses, routes and rules: the part of rtnetlink that hushwire needs (rtnetlink(7))."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from struct import Struct

from hushwire.events import AddressesChanged
from hushwire.linux.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Client,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    read_attributes,
)
from hushwire.wire.address import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    name: str
    up: bool
    mtu: int
    """Octets."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of a routing table, as hushwire makes them: marked with PROTOCOL, by which it knows its own."""

    destination: IPNetwork
    device: int = 0
    """Index of the link; 0 with a blackhole."""
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    """Preferred source address of what leaves by it."""
    table: int = 254
    """254 is main."""
    metric: int = 0
    """Lower wins.  0 leaves it to the kernel, which for IPv6 takes 1024."""
    mtu: int = 0
    """Path MTU in octets that TCP and datagrams keep to; 0: the device's."""
    blackhole: bool = False
    """Drop silently what goes there, rather than route it."""
    throw: bool = False
    """Look on in the tables that the rules name next."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which packets look into which table."""

    version: int
    """4 or 6."""
    priority: int
    """Rules are read in rising order."""
    table: int = 0
    mark: int = 0
    """Packets whose mark, under the mask, is this (SO_MARK).  With mask 0: all."""
    mask: int = 0
    inverted: bool = False
    """Packets that do not match."""
    destination: IPNetwork | None = None
    """None: any."""
    protocol: int = 0
    """IANA number; 0: any."""
    source_port: int = 0
    """0: any."""
    destination_port: int = 0
    """0: any."""
    goto: int = 0
    """Rather than into a table, look on at the rule of this priority.  With neither, the rule does nothing."""


class Routes(Client):
    """rtnetlink of this network namespace.  Writing needs CAP_NET_ADMIN.  To add again is to replace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    # --- Links ---

    def link(self, name: str) -> Link:
        """A device by name; NetlinkError ENODEV if there is none."""
        body = LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
        (found,) = self._netlink.request(RTM_GETLINK, body, f"find device {name}")
        return _read_link(found)

    def change_link(
        self, index: int, *, up: bool | None = None, mtu: int = 0, gso_max_segments: int = 0, queue: int = 0
    ) -> None:
        """Change what is given.

        `gso_max_segments` bounds how many packets one super-packet stands for; `queue`, how many packets wait to leave.
        """
        body = LINK.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
        for kind, value in ((IFLA_MTU, mtu), (IFLA_TXQLEN, queue), (IFLA_GSO_MAX_SEGS, gso_max_segments)):
            if value:
                body += attribute(kind, U32.pack(value))
        self._netlink.request(RTM_NEWLINK, body, f"change device {index}")

    # --- Addresses ---

    def add_address(self, index: int, address: IPAddress, prefix: int) -> None:
        """Give a device an address; in IPv6 without duplicate address detection, for nobody else is on a TUN."""
        body = _write_address(index, address, prefix)
        self._netlink.request(RTM_NEWADDR, body, f"add address {address}/{prefix}", NLM_F_CREATE | NLM_F_REPLACE)

    def delete_address(self, index: int, address: IPAddress, prefix: int) -> None:
        """Take an address away; it may be gone already."""
        with _unless_gone(errno.EADDRNOTAVAIL, errno.ENODEV):
            self._netlink.request(RTM_DELADDR, _write_address(index, address, prefix), f"delete address {address}")

    def addresses(self) -> AddressesChanged:
        """The host's own unicast addresses: not loopback's, not link-local, not tentative ones."""
        found = []
        for message in self._netlink.dump(RTM_GETADDR, ADDRESS.pack(AF_UNSPEC, 0, 0, 0, 0), "read addresses"):
            address, flags = _read_address(message)
            if not (flags & IFA_F_UNUSABLE or address.is_loopback or address.is_link_local):
                found.append(address)
        return AddressesChanged(tuple(sorted(set(found), key=lambda address: (address.version, int(address)))))

    # --- Routes and rules ---

    def add_route(self, route: Route) -> None:
        self._netlink.request(
            RTM_NEWROUTE, _write_route(route), f"add route {route.destination}", NLM_F_CREATE | NLM_F_REPLACE
        )

    def delete_route(self, route: Route) -> None:
        """Delete a route that hushwire made; it may be gone already."""
        with _unless_gone(errno.ESRCH, errno.ENODEV):
            self._netlink.request(RTM_DELROUTE, _write_route(route), f"delete route {route.destination}")

    def routes(self, version: int, table: int = 254) -> list[Route]:
        """The routes of a table that hushwire made."""
        family = AF_INET if version == 4 else AF_INET6
        messages = self._netlink.dump(RTM_GETROUTE, ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "read routes")
        found = [route for message in messages if (route := _read_route(message))]
        return [route for route in found if route.table == table]

    def add_rule(self, rule: Rule) -> None:
        """Add a rule; the same one may be there already."""
        try:
            self._netlink.request(
                RTM_NEWRULE, _write_rule(rule), f"add rule {rule.priority}", NLM_F_CREATE | NLM_F_EXCL
            )
        except NetlinkError as refused:
            if refused.errno != errno.EEXIST:
                raise

    def delete_rules(self, version: int, priority: int) -> None:
        """Delete all rules of a priority that hushwire made."""
        # The kernel compares only what is given.
        family = AF_INET if version == 4 else AF_INET6
        body = RULE.pack(family, 0, 0, 0, 0, 0, 0)
        body += attribute(FRA_PRIORITY, U32.pack(priority)) + attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
        with _unless_gone(errno.ENOENT):
            for _ in range(MOST_RULES):
                self._netlink.request(RTM_DELRULE, body, f"delete rules {priority}")

    def delete_rule(self, rule: Rule) -> None:
        """Delete a rule that hushwire made; it may be gone already."""
        with _unless_gone(errno.ENOENT):
            self._netlink.request(RTM_DELRULE, _write_rule(rule), f"delete rule {rule.priority}")


class AddressWatch:
    """Tells when the host's addresses have changed: then read them all, with Routes.addresses."""

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_ROUTE, (RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        """To poll for reading."""
        return self._netlink.fileno()

    def close(self) -> None:
        self._netlink.close()

    def receive(self) -> bool:
        """Whether the next news is of addresses.  Lost news is news."""
        try:
            return any(message.type in (RTM_NEWADDR, RTM_DELADDR) for message in self._netlink.receive())
        except OSError as lost:
            if lost.errno != errno.ENOBUFS:
                raise
            return True


def _read_link(message: Message) -> Link:
    _, _, index, flags, _ = LINK.unpack_from(message.body)
    attributes = read_attributes(message.body[LINK.size :])
    (mtu,) = U32.unpack(attributes[IFLA_MTU])
    return Link(index, attributes[IFLA_IFNAME].rstrip(b"\0").decode(), bool(flags & IFF_UP), mtu)


def _write_address(index: int, address: IPAddress, prefix: int) -> bytes:
    body = ADDRESS.pack(_family(address), prefix, IFA_F_NODAD if address.version == 6 else 0, 0, index)
    return body + attribute(IFA_LOCAL, address.packed) + attribute(IFA_ADDRESS, address.packed)


def _read_address(message: Message) -> tuple[IPAddress, int]:
    _, _, flags, _, _ = ADDRESS.unpack_from(message.body)
    attributes = read_attributes(message.body[ADDRESS.size :])
    if IFA_FLAGS in attributes:
        (flags,) = U32.unpack(attributes[IFA_FLAGS])
    # On a point-to-point link IFA_ADDRESS is the other end.
    return _address(attributes.get(IFA_LOCAL, attributes[IFA_ADDRESS])), flags


def _write_route(route: Route) -> bytes:
    kind = RTN_BLACKHOLE if route.blackhole else RTN_THROW if route.throw else RTN_UNICAST
    body = ROUTE.pack(
        _family(route.destination.network_address), route.destination.prefixlen, 0, 0,
        route.table if route.table < 256 else 0, PROTOCOL,
        SCOPE_LINK if kind == RTN_UNICAST and not route.gateway and route.destination.version == 4 else SCOPE_UNIVERSE,
        kind, 0,
    )  # fmt: skip
    body += attribute(RTA_DST, route.destination.network_address.packed) + attribute(RTA_TABLE, U32.pack(route.table))
    if route.device:
        body += attribute(RTA_OIF, U32.pack(route.device))
    if route.gateway:
        body += attribute(RTA_GATEWAY, route.gateway.packed)
    if route.source:
        body += attribute(RTA_PREFSRC, route.source.packed)
    if route.metric:
        body += attribute(RTA_PRIORITY, U32.pack(route.metric))
    if route.mtu:
        body += attribute(RTA_METRICS, attribute(RTAX_MTU, U32.pack(route.mtu)))
    return body


def _read_route(message: Message) -> Route | None:
    """A route, when hushwire made it."""
    family, bits, _, _, table, protocol, _, kind, _ = ROUTE.unpack_from(message.body)
    if protocol != PROTOCOL or kind not in (RTN_UNICAST, RTN_BLACKHOLE, RTN_THROW):
        return None
    attributes = read_attributes(message.body[ROUTE.size :])

    def number(kind: int, values: dict[int, bytes], otherwise: int = 0) -> int:
        return int(U32.unpack(values[kind])[0]) if kind in values else otherwise

    def address(kind: int) -> IPAddress | None:
        return _address(attributes[kind]) if kind in attributes else None

    anywhere = bytes(4 if family == AF_INET else 16)
    return Route(
        destination=ip_network((attributes.get(RTA_DST, anywhere), bits)),
        # IPv6 hangs what leads nowhere on the loopback device.
        device=number(RTA_OIF, attributes) if kind == RTN_UNICAST else 0,
        gateway=address(RTA_GATEWAY),
        source=address(RTA_PREFSRC),
        table=number(RTA_TABLE, attributes, table),
        metric=number(RTA_PRIORITY, attributes),
        mtu=number(RTAX_MTU, read_attributes(attributes.get(RTA_METRICS, b""))),
        blackhole=kind == RTN_BLACKHOLE,
        throw=kind == RTN_THROW,
    )


def _write_rule(rule: Rule) -> bytes:
    family = AF_INET if rule.version == 4 else AF_INET6
    flags = FIB_RULE_INVERT if rule.inverted else 0
    bits = rule.destination.prefixlen if rule.destination is not None else 0
    action = FR_ACT_TO_TABLE if rule.table else FR_ACT_GOTO if rule.goto else FR_ACT_NOP
    body = RULE.pack(family, bits, 0, 0, rule.table if rule.table < 256 else 0, action, flags)
    body += attribute(FRA_PRIORITY, U32.pack(rule.priority)) + attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
    if rule.table:
        body += attribute(FRA_TABLE, U32.pack(rule.table))
    if rule.goto:
        body += attribute(FRA_GOTO, U32.pack(rule.goto))
    if rule.destination is not None and bits:
        body += attribute(FRA_DST, rule.destination.network_address.packed)
    if rule.protocol:
        body += attribute(FRA_IP_PROTO, bytes([rule.protocol]))
    for kind, port in ((FRA_SPORT_RANGE, rule.source_port), (FRA_DPORT_RANGE, rule.destination_port)):
        if port:
            body += attribute(kind, PORTS.pack(port, port))
    if rule.mask:
        body += attribute(FRA_FWMARK, U32.pack(rule.mark)) + attribute(FRA_FWMASK, U32.pack(rule.mask))
    return body


def _address(octets: bytes) -> IPAddress:
    return IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets)


def _family(address: IPAddress) -> int:
    return AF_INET if address.version == 4 else AF_INET6


@contextmanager
def _unless_gone(*numbers: int) -> Iterator[None]:
    """To delete what is not there is done already."""
    try:
        yield
    except NetlinkError as refused:
        if refused.errno not in numbers:
            raise


PROTOCOL = 153
"""Who made a route or a rule (rtm_protocol); a number that no entry of /etc/iproute2/rt_protos has."""

LINK = Struct("=B x H i I I")
"""struct ifinfomsg: family, type, index, flags, flags to change."""
ADDRESS = Struct("=B B B B I")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = Struct("=B B B B B B B B I")
"""struct rtmsg: family, destination and source prefix lengths, TOS, table, protocol, scope, type, flags."""
RULE = Struct("=B B B B B 2x B I")
"""struct fib_rule_hdr: family, destination and source prefix lengths, TOS, table, action, flags."""
U32 = Struct("=I")
PORTS = Struct("=H H")
"""struct fib_rule_port_range: first, last."""

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 16, 18, 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWRULE, RTM_DELRULE = 24, 25, 26, 32, 33
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR = 5, 9
IFF_UP = 1
IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, IFLA_GSO_MAX_SEGS = 3, 4, 13, 40
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
IFA_F_UNUSABLE = 0x08 | 0x40
"""Duplicate address detection failed, or is under way."""
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU = 2
RTN_UNICAST, RTN_BLACKHOLE, RTN_THROW = 1, 6, 9
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
FRA_DST, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 1, 4, 6, 10, 15, 16, 21
FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 22, 23, 24
FR_ACT_TO_TABLE, FR_ACT_GOTO, FR_ACT_NOP = 1, 2, 3
MOST_RULES = 1 << 12
"""Deleted in one go."""
FIB_RULE_INVERT = 2
