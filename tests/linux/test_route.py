"""Links, addresses, routes and rules, as iproute2 and the packets see them."""

import select
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.linux.netlink import NetlinkError
from hushwire.linux.route import AddressWatch, Link, Route, Routes, Rule

pytestmark = pytest.mark.lab


def do(host: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """One call of Routes in a namespace."""

    def call() -> Any:
        with Routes() as routes:
            return getattr(routes, name)(*arguments, **options)

    return host(call)


@pytest.fixture
def host(namespace: Any) -> Any:
    made = namespace()
    made.run("ip link add device type veth peer name other; ip link set other up")
    return made


def test_links(host: Any) -> None:
    link = do(host, "link", "device")
    assert link == Link(link.index, "device", False, 1500)
    do(host, "change_link", link.index, up=True, mtu=1300, gso_max_segments=16)
    assert do(host, "link", "device") == Link(link.index, "device", True, 1300)
    assert "gso_max_segs 16 " in host.run("ip -d link show device")
    do(host, "change_link", link.index, mtu=1400)
    assert do(host, "link", "device") == Link(link.index, "device", True, 1400)
    do(host, "change_link", link.index, up=False)
    assert not do(host, "link", "device").up


def test_addresses_and_news_of_them(host: Any) -> None:
    index = do(host, "link", "device").index
    do(host, "change_link", index, up=True)
    watch = host(AddressWatch)
    try:
        assert do(host, "addresses").addresses == ()
        for _ in range(2):
            do(host, "add_address", index, ip_address("192.0.2.7"), 24)
            do(host, "add_address", index, ip_address("fd00::7"), 64)
        assert select.select([watch], [], [], 1)[0]
        assert watch.receive()
        # Not the loopback's, nor the link-local one that the kernel made.
        assert do(host, "addresses").addresses == (ip_address("192.0.2.7"), ip_address("fd00::7"))
        for _ in range(2):
            do(host, "delete_address", index, ip_address("192.0.2.7"), 24)
        assert do(host, "addresses").addresses == (ip_address("fd00::7"),)
    finally:
        watch.close()


def test_routes_are_replaced_read_and_only_our_own(host: Any) -> None:
    index = do(host, "link", "device").index
    host.run(
        "ip link set device up; ip address add 192.0.2.1/24 dev device; ip address add fd00::1/64 dev device nodad"
    )
    ours = [
        Route(ip_network("198.51.100.0/24"), index, source=ip_address("192.0.2.1"), table=1000, metric=5, mtu=1280),
        Route(ip_network("198.51.100.0/24"), table=1000, metric=6, blackhole=True),
        Route(ip_network("198.51.100.0/25"), table=1000, metric=1, throw=True),
        Route(ip_network("203.0.113.5/32"), index, ip_address("192.0.2.9"), table=1000, metric=5),
        Route(ip_network("0.0.0.0/0"), index, ip_address("192.0.2.9"), table=1000, metric=5),
    ]
    ours6 = [
        Route(ip_network("2001:db8::/32"), index, source=ip_address("fd00::1"), table=1000, metric=5, mtu=1280),
        Route(ip_network("2001:db8::/32"), table=1000, metric=6, blackhole=True),
        Route(ip_network("2001:db8::/33"), table=1000, metric=1, throw=True),
    ]
    host.run("ip route add 198.18.0.0/15 dev device table 1000")
    for route in ours + ours6 + ours + ours6:
        do(host, "add_route", route)
    assert sorted(do(host, "routes", 4, 1000), key=ours.index) == ours
    assert sorted(do(host, "routes", 6, 1000), key=ours6.index) == ours6
    assert do(host, "routes", 4) == []
    assert "dev device proto 153 scope link src 192.0.2.1 metric 5 mtu 1280" in host.run("ip route show table 1000")
    for route in ours + ours6 + ours[:1]:
        do(host, "delete_route", route)
    assert do(host, "routes", 4, 1000) == do(host, "routes", 6, 1000) == []
    # Somebody else's stays, even when we name it.
    do(host, "delete_route", Route(ip_network("198.18.0.0/15"), index, table=1000))
    assert "198.18.0.0/15" in host.run("ip route show table 1000")


def test_rules(host: Any) -> None:
    rules = [Rule(4, 100, 1000, 0x10, 0xFF), Rule(6, 100, 1000, 0x10, 0xFF, inverted=True), Rule(4, 101, 7)]
    for rule in rules + rules:
        do(host, "add_rule", rule)
    assert "100:\tfrom all fwmark 0x10/0xff lookup 1000 proto 153" in host.run("ip rule").replace(" \n", "\n")
    assert "100:\tnot from all fwmark 0x10/0xff lookup 1000 proto 153" in host.run("ip -6 rule")
    assert host.run("ip rule").count("lookup 1000") == 1
    for rule in rules + rules:
        do(host, "delete_rule", rule)
    assert "1000" not in host.run("ip rule; ip -6 rule")


@pytest.mark.parametrize("version", [4, 6])
def test_a_route_is_replaced_by_one_that_throws_and_back(host: Any, version: int) -> None:
    """In place: there is only ever one of the two."""
    host.run("ip link set device up")
    index = do(host, "link", "device").index
    remote = ip_network("198.51.100.7/32" if version == 4 else "2001:db8::7/128")
    ways = Route(remote, index, table=1000, metric=1), Route(remote, table=1000, metric=1, throw=True)
    for way in ways * 2:
        do(host, "add_route", way)
        assert do(host, "routes", version, 1000) == [way]


@pytest.mark.parametrize("version", [4, 6])
def test_rules_of_ports_that_step_over_others(host: Any, version: int) -> None:
    far = ip_network("192.0.2.53/32" if version == 4 else "2001:db8::53/128")
    dns = Rule(version, 99, destination=far, protocol=17, destination_port=53, goto=101)
    dhcp = Rule(version, 99, protocol=17, source_port=68, destination_port=67, goto=101)
    for rule in (dns, dhcp, Rule(version, 100, 1000), Rule(version, 101), dns, dhcp):
        do(host, "add_rule", rule)
    host.run(
        f"ip -{version} rule add prio 99 to 198.51.100.1 table 7" if version == 4 else "ip -6 rule add prio 99 table 7"
    )
    shown = " ".join(host.run(f"ip -{version} rule").split())
    assert f"99: from all to {far.network_address} ipproto udp dport 53 goto 101 proto 153" in shown
    assert "99: from all ipproto udp sport 68 dport 67 goto 101 proto 153" in shown
    assert "101: from all nop proto 153" in shown
    for _ in range(2):
        do(host, "delete_rules", version, 99)
    # Somebody else's stays.
    shown = host.run(f"ip -{version} rule")
    assert "goto" not in shown
    assert "lookup 7" in shown


@pytest.mark.parametrize("guarded", [True, False], ids=["own table", "control"])
@pytest.mark.parametrize("version", [4, 6])
def test_an_own_table_asked_first_keeps_packets_from_a_route_that_an_attacker_added(
    pair: Any, version: int, guarded: bool
) -> None:
    """What DHCP or a router advertisement can add to the main table does not matter, up or down (TunnelVision)."""
    left, _ = pair
    far = ip_address("10.92.0.2" if version == 4 else "fd92::2")
    left.run("ip link add tunnel type veth peer name other; ip link set other up; ip link set tunnel up")
    index = do(left, "link", "tunnel").index
    if guarded:
        do(left, "add_route", Route(ip_network(far), index, table=1000, metric=5))
        do(left, "add_route", Route(ip_network(far), table=1000, metric=9, blackhole=True))
        do(left, "add_rule", Rule(version, 100, 1000, 0x1, 0x1, inverted=True))
    assert left.pings(str(far), tries=1 if guarded else 5) == (not guarded)
    left.run("ip link del tunnel")
    assert left.pings(str(far), tries=1 if guarded else 5) == (not guarded)
    # Our own sockets, which are marked, go past it.
    assert left.pings(str(far), "-m", "1", tries=5)


def test_refusals_say_what(host: Any) -> None:
    with pytest.raises(NetlinkError, match=r"add route 198\.51\.100\.0/24"):
        do(host, "add_route", Route(ip_network("198.51.100.0/24"), 99999))
