"""Synthetic addresses with the kernel plane: the packet filter exchanges addresses, marks tell names apart (law 2).

    out   A to S: policy that lets it on, a route into a TUN that nobody reads
          at the end of output: mark M, A to R, and routed anew: policy of mark M, SA of reqid M, ESP without a mark
    in    ESP: the SA gives its packets mark M
          at the beginning of prerouting: from R with mark M, to from S: policy of S, which asks for SAs of reqid M

A is this host, S synthetic, R real, and M the name's reqid.  No connection is tracked for it, so nothing is forgotten.
Whatever of it is taken away, what is left lets no packet for S out: the TUN swallows it, or the block of all of them.
"""

from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from hushwire.linux.nft import Nft, NftError
from hushwire.linux.route import Route, Routes
from hushwire.linux.tun import Tun
from hushwire.linux.xfrm import Xfrm
from hushwire.names.synthetic import POOLS, is_synthetic
from hushwire.node.scope import REQID_BASE
from hushwire.policy.sad import SA, Direction, Mode
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPAddress, host_network

DEVICE = "hushwire-names"
"""Persistent, so that the routes into it outlive us."""
NAME_PRIORITY = 11
"""Over whatever rules say of addresses, and over the block of the pools: its policies speak of names' packets only."""
TABLE = "inet hushwire_names"
_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
_ERRORS = {4: "icmp type { 3, 4, 5, 11, 12 }", 6: "icmpv6 type 1-127"}
_QUOTED = {4: "@th,192,32 & 0xfffe0000 == 0xc6120000", 6: "@th,256,64 == 0xfd68777368770001"}
"""ICMP errors about packets to a synthetic address, of which there are none on any wire."""


def why_not() -> str:
    """What keeps this system from it; empty: nothing does."""
    try:
        Nft().run(*_rules(trial := TABLE + "_trial"), f"delete table {trial}")
    except NftError as error:
        return str(error)
    return "" if Path("/dev/net/tun").exists() else "/dev/net/tun: there is none"


def take_away(xfrm: Xfrm) -> None:
    """What an earlier run with the kernel plane left would stand in the way of the userspace plane.

    The block of all synthetic addresses stands by now.
    """
    if Path(f"/proc/sys/net/ipv4/conf/{DEVICE}").exists():
        Nft().run(f"add table {TABLE}", f"delete table {TABLE}")
        _forget_policies(xfrm)
        with Tun(DEVICE) as sink:
            sink.remove()


class Names:
    """What stands in the kernel for policies whose remote address is synthetic.  Needs CAP_NET_ADMIN."""

    def __init__(self, mtu: int, real: Container[int]) -> None:
        """`real`: reqids of peers that have no synthetic addresses.  OSError, NetlinkError: this system cannot."""
        self._xfrm, self._routes, self._nft = Xfrm(), Routes(), Nft()
        self._real = real
        self._held: dict[tuple[Selector, Direction], Policy] = {}
        sink = Tun(DEVICE, mtu=mtu, persistent=True)
        self._sink = sink.index
        sink.close()
        self._routes.change_link(self._sink, up=True)
        self.forget()

    def forget(self) -> None:
        """Take all away: first the ways there, then what protected them.

        Whoever gave out the addresses and reqids is gone, and who comes next gives the same ones to others.
        """
        self._held.clear()
        self._nft.run(f"add table {TABLE}", f"delete table {TABLE}", *_rules(TABLE))
        _forget_policies(self._xfrm)

    def install(self, policy: Policy) -> None:
        """Install a policy for a synthetic address, or update it in place."""
        selector, made, real = policy.selector, policy.selector.remote.network_address, policy.real
        assert real is not None
        before = self._held.get((selector, policy.direction))
        if before is not None and (before.real, before.reqid) != (real, policy.reqid):
            self.delete(selector, policy.direction)
        if policy.direction is Direction.OUT:
            self._xfrm.install_policy(_on_the_wire(policy), mark=policy.reqid)
            self._xfrm.install_policy(Policy(selector, Direction.OUT, Action.CLEAR, NAME_PRIORITY))
            self._routes.add_route(Route(selector.remote, self._sink, source=selector.local.network_address))
        else:
            self._xfrm.install_policy(_over_all(policy))
        self._nft.run(*(f"add element {TABLE} {element}" for element in _elements(policy, real, made)))
        self._held[selector, policy.direction] = policy

    def delete(self, selector: Selector, direction: Direction) -> bool:
        """Whether there was one; the way there goes first."""
        policy = self._held.pop((selector, direction), None)
        if policy is None or policy.real is None:
            return False
        made = selector.remote.network_address
        if not any(other.remote == selector.remote and way is direction for other, way in self._held):
            self._nft.run(*(f"delete element {TABLE} {each}" for each in _elements(policy, policy.real, made)))
            if direction is Direction.OUT:
                self._routes.delete_route(Route(selector.remote, self._sink))
        self._xfrm.delete_policy(selector, direction)
        if direction is Direction.OUT:
            self._xfrm.delete_policy(_on_the_wire(policy).selector, direction, mark=policy.reqid)
        return True

    def install_sa(self, sa: SA) -> None:
        """Install an SA that may be a name's.

        It may come before its policy, which names the synthetic address.  So the SA lets in what comes, under its mark;
        and each synthetic address has a policy that asks for SAs of its own name.
        """
        out = sa.direction is Direction.OUT
        bound = sa.mode is Mode.TRANSPORT and sa.reqid not in self._real
        self._xfrm.install_sa(sa, (0 if out else sa.reqid) if bound else None, any_selector=bound and not out)


def _forget_policies(xfrm: Xfrm) -> None:
    """Those of names: what has another mark is somebody else's."""
    for found in xfrm.policies():
        remote = found.policy.selector.remote
        lets_on = found.policy.action is not Action.BLOCK and remote.num_addresses == 1
        if found.mark & ~0xFFFF == REQID_BASE or (lets_on and is_synthetic(remote.network_address)):
            xfrm.delete_policy(found.policy.selector, found.policy.direction, found.ifindex, found.mark)


def _rules(table: str) -> list[str]:
    commands = [f"add table {table}"]
    for version, (_, kind) in _FAMILIES.items():
        commands += [
            f"add map {table} mark{version} {{ type {kind} : mark; }}",
            f"add map {table} real{version} {{ type {kind} : {kind}; }}",
            f"add map {table} made{version} {{ type mark . {kind} : {kind}; }}",
        ]
    for chain, what in (
        ("prerouting", "type filter hook prerouting priority -350;"),
        ("output", "type route hook output priority 300;"),
        ("postrouting", "type filter hook postrouting priority 300;"),
    ):
        commands.append(f"add chain {table} {chain} {{ {what} }}")
    for version, (ip, _) in _FAMILIES.items():
        pool = POOLS[version]
        rules = (
            # From one nobody comes; and what an error quotes was sent to a real address.
            f"prerouting {ip} saddr {pool} drop",
            f"prerouting {_ERRORS[version]} {_QUOTED[version]} drop",
            f"prerouting {ip} saddr set meta mark . {ip} saddr map @made{version}",
            # The packet filter cannot translate what an error quotes, and as it is it would be about somebody else's.
            f"prerouting {ip} saddr {pool} {_ERRORS[version]} drop",
            f"output meta mark set {ip} daddr map @mark{version} {ip} daddr set {ip} daddr map @real{version}",
            f'postrouting {ip} daddr {pool} oifname != "{DEVICE}" drop',
        )
        commands += [f"add rule {table} {rule}" for rule in rules]
    # A name's packet without a policy of its own.  ESP bears no mark.
    commands.append(f"add rule {table} postrouting meta mark and 0xffff0000 == {REQID_BASE:#x} rt ipsec missing drop")
    return commands


def _elements(policy: Policy, real: IPAddress, made: IPAddress) -> list[str]:
    if policy.direction is Direction.IN:
        return [f"made{made.version} {{ {policy.reqid:#x} . {real} : {made} }}"]
    return [f"mark{made.version} {{ {made} : {policy.reqid:#x} }}", f"real{made.version} {{ {made} : {real} }}"]


def _on_the_wire(policy: Policy) -> Policy:
    """The policy that packets meet when they have their real address."""
    assert policy.real is not None
    return replace(_over_all(policy), selector=replace(policy.selector, remote=host_network(policy.real)))


def _over_all(policy: Policy) -> Policy:
    return replace(policy, priority=NAME_PRIORITY, real=None)
