"""The kernel plane on a kernel that has ESP: what test_esp.py runs inside User-Mode Linux."""

import select
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest

from hushwire.crypto.secret import Secret
from hushwire.events import Acquire, Expire, Mapping
from hushwire.linux.kernel import has_esp
from hushwire.linux.netlink import NetlinkError
from hushwire.linux.sockets import UdpSocket
from hushwire.linux.xfrm import FoundPolicy, Usage, Xfrm, XfrmEvents
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint, IPAddress
from hushwire.wire.registry import EncrID, IntegID

SUITES = [
    EspSuite(EncrID.AES_GCM_16, 128, esn=True),
    EspSuite(EncrID.AES_GCM_16, 256),
    EspSuite(EncrID.CHACHA20_POLY1305, 256, esn=True),
    EspSuite(EncrID.AES_CBC, 256, IntegID.HMAC_SHA2_256_128),
    EspSuite(EncrID.AES_CBC, 128, IntegID.HMAC_SHA2_512_256, esn=True),
]
INTEG_KEYS = {IntegID.NONE: 0, IntegID.HMAC_SHA2_256_128: 32, IntegID.HMAC_SHA2_512_256: 64}
LIFETIME = Lifetime(3000, 3600, 10**9, 2 * 10**9, 10**6, 2 * 10**6)
LEFT, RIGHT = 0x1111_0001, 0x2222_0002


def sides(version: int, mode: Mode) -> tuple[list[IPAddress], list[Any]]:
    """Outer addresses and inner networks of left and right."""
    outer = [ip_address(f"10.9.0.{n}" if version == 4 else f"fd09::{n}") for n in (1, 2)]
    if mode is Mode.TRANSPORT:
        return outer, [ip_network(str(address)) for address in outer]
    return outer, [ip_network(f"10.9{n}.0.0/24" if version == 4 else f"fd9{n}::/64") for n in (1, 2)]


def sas(side: int, suite: EspSuite, version: int, mode: Mode, encapsulation: Encapsulation | None = None) -> list[SA]:
    """The two SAs, as side 0 (left) or 1 (right) installs them."""
    outer, inner = sides(version, mode)
    made = []
    for sender, spi in ((0, LEFT), (1, RIGHT)):
        salt = 0 if suite.integ else 4
        made.append(
            SA(
                spi=spi,
                direction=Direction.OUT if sender == side else Direction.IN,
                source=outer[sender],
                destination=outer[1 - sender],
                mode=mode,
                suite=suite,
                encr_key=Secret(bytes([spi & 255] * (suite.key_bits // 8 + salt))),
                integ_key=Secret(bytes([7] * INTEG_KEYS[suite.integ])),
                selector=Selector(inner[side], inner[1 - side]),
                reqid=77,
                lifetime=LIFETIME,
                encapsulation=encapsulation,
            )
        )
    return made


def policies(side: int, version: int, mode: Mode) -> list[Policy]:
    outer, inner = sides(version, mode)
    tunnel = (outer[side], outer[1 - side]) if mode is Mode.TUNNEL else None
    return [
        Policy(Selector(inner[side], inner[1 - side]), direction, Action.PROTECT, 100, 77, mode, tunnel)
        for direction in (Direction.OUT, Direction.IN)
    ]


def target(version: int, mode: Mode) -> str:
    return {4: ["10.9.0.2", "10.92.0.2"], 6: ["fd09::2", "fd92::2"]}[version][mode is Mode.TUNNEL]


@pytest.mark.parametrize(
    ("suite", "mode", "version"),
    list(product(SUITES, Mode, (4, 6))),
    ids=lambda value: str(getattr(value, "value", value)),
)
def test_two_hosts_ping_and_a_dump_is_what_was_installed(pair: Any, suite: EspSuite, mode: Mode, version: int) -> None:
    def check(side: int) -> None:
        with Xfrm() as xfrm:
            mine = sas(side, suite, version, mode)
            for policy in policies(side, version, mode):
                xfrm.install_policy(policy)
            for sa in mine:
                xfrm.install_sa(sa)
            own = sides(version, mode)[0][side : side + 1]
            assert sorted(xfrm.sas(own), key=lambda sa: sa.spi) == mine
            assert [xfrm.sa(SAName(sa.spi, sa.destination), own) for sa in mine] == mine
            assert {found.policy for found in xfrm.policies()} == set(policies(side, version, mode))

    for side, host in enumerate(pair):
        host(check, side)
    assert pair[0].reaches(target(version, mode))

    def used() -> list[Usage]:
        with Xfrm() as xfrm:
            return [xfrm.usage(SAName(sa.spi, sa.destination)) for sa in sas(0, suite, version, mode)]

    out, back = pair[0](used)
    for each in (out, back):
        assert each.packets > 0
        assert each.octets >= 64


def test_without_the_far_sides_sas_nothing_passes(pair: Any) -> None:
    """The control of the test above: the policies do require the SAs."""

    def install(side: int, with_sas: bool) -> None:
        with Xfrm() as xfrm:
            for policy in policies(side, 4, Mode.TRANSPORT):
                xfrm.install_policy(policy)
            for sa in sas(side, SUITES[0], 4, Mode.TRANSPORT) if with_sas else ():
                xfrm.install_sa(sa)

    pair[0](install, 0, True)
    pair[1](install, 1, False)
    assert not pair[0].pings("10.9.0.2")
    pair[1](install, 1, True)
    assert pair[0].reaches("10.9.0.2")


def test_a_tunnel_between_families(pair: Any) -> None:
    """IPv6 inside IPv4: the kernel cannot keep the selector in the SA, the policies carry it."""

    def install(side: int) -> None:
        outer, inner = sides(4, Mode.TRANSPORT)[0], sides(6, Mode.TUNNEL)[1]
        selector = Selector(inner[side], inner[1 - side])
        with Xfrm() as xfrm:
            for direction in Direction:
                tunnel = (outer[side], outer[1 - side])
                xfrm.install_policy(Policy(selector, direction, Action.PROTECT, 1, 77, Mode.TUNNEL, tunnel))
            for sa in sas(side, SUITES[0], 4, Mode.TUNNEL):
                xfrm.install_sa(replace(sa, selector=selector))

    for side, host in enumerate(pair):
        host(install, side)
    assert pair[0].reaches("fd92::2")


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("version", [4, 6])
def test_esp_in_udp_and_the_peer_moves(pair: Any, mode: Mode, version: int) -> None:
    def encapsulating(port: int) -> UdpSocket:
        made = UdpSocket(version, port)
        made.bypass_xfrm()
        made.take_esp()
        return made

    def install(side: int, port: int, again: bool = False) -> None:
        ports = (4500, port) if side else (port, 4500)
        both = {Direction.OUT: ports, Direction.IN: ports[::-1]}
        with Xfrm() as xfrm:
            for policy in policies(side, version, mode):
                xfrm.install_policy(policy)
            for sa in sas(side, SUITES[0], version, mode):
                made = replace(sa, encapsulation=Encapsulation(*both[sa.direction]))
                (xfrm.update_sa if again else xfrm.install_sa)(made)
                assert made in xfrm.sas(sides(version, mode)[0][side : side + 1])

    sockets = [pair[0](encapsulating, 4501), pair[1](encapsulating, 4500)]
    events = pair[1](XfrmEvents)
    try:
        pair[0](install, 0, 4501)
        pair[1](install, 1, 4501)
        assert pair[0].reaches(target(version, mode))
        # The left side's address translator gives it another port; the kernel tells the right side so.
        sockets.append(pair[0](encapsulating, 4777))
        pair[0](install, 0, 4777, True)
        pair[0].pings(target(version, mode))
        assert select.select([events], [], [], 2)[0]
        outer = sides(version, mode)[0]
        assert events.receive() == [Mapping(SAName(LEFT, outer[1]), Endpoint(outer[0], 4777))]
    finally:
        events.close()
        for each in sockets:
            each.close()


@pytest.mark.parametrize("drop", ["0", "1"])
def test_the_first_packet_waits_for_its_sa(pair: Any, drop: str) -> None:
    """With net.core.xfrm_larval_drop=0 the ping that raised the Acquire is answered; with 1 it is lost: the control."""
    left, right = pair
    left.run(f"sysctl -qw net.core.xfrm_larval_drop={drop}")

    def install(side: int, what: list[Any], acquire: int = 0) -> None:
        with Xfrm() as xfrm:
            for each in what:
                if isinstance(each, Policy):
                    xfrm.install_policy(each)
                else:
                    xfrm.install_sa(replace(each, acquire=acquire if each.direction is Direction.OUT else 0))

    right(install, 1, [*policies(1, 4, Mode.TRANSPORT), *sas(1, SUITES[0], 4, Mode.TRANSPORT)])
    left(install, 0, policies(0, 4, Mode.TRANSPORT))
    events = left(XfrmEvents)
    try:
        with left.spawn("ping", "-n", "-c1", "-W4", "10.9.0.2") as ping:
            assert select.select([events], [], [], 3)[0]
            (acquire,) = events.receive()
            # Before it sends, ping asks the kernel for a route by connecting a UDP socket to port 1025.
            probe = Flow(ip_address("10.9.0.1"), ip_address("10.9.0.2"), 17, acquire.flow.local_port, 1025)
            assert acquire == Acquire(probe, 77, acquire.sequence)
            assert acquire.sequence
            time.sleep(1)
            left(install, 0, sas(0, SUITES[0], 4, Mode.TRANSPORT), acquire.sequence)
            output, _ = ping.communicate(timeout=10)
        assert (ping.returncode == 0) == (drop == "0"), output
        assert left.reaches("10.9.0.2")
    finally:
        events.close()


def test_lifetimes_expire_softly_then_hard(pair: Any) -> None:
    left, _ = pair
    life = Lifetime(soft_seconds=1, hard_seconds=2)

    def install(side: int) -> None:
        with Xfrm() as xfrm:
            for sa in sas(side, SUITES[0], 4, Mode.TRANSPORT)[:1]:
                xfrm.install_sa(replace(sa, lifetime=life))

    events = left(XfrmEvents)
    try:
        left(install, 0)
        told: list[Any] = []
        end = time.monotonic() + 6
        while len(told) < 2 and select.select([events], [], [], max(0, end - time.monotonic()))[0]:
            told += events.receive()
    finally:
        events.close()
    name = SAName(LEFT, ip_address("10.9.0.2"))
    assert told == [Expire(name, hard=False), Expire(name, hard=True)]

    def rest() -> list[SA]:
        with Xfrm() as xfrm:
            return xfrm.sas([])

    assert left(rest) == []


def test_errors_name_what_and_where_and_deleting_twice_is_done(namespace: Callable[[], Any]) -> None:
    def check() -> None:
        (sa, _) = sas(0, SUITES[0], 4, Mode.TRANSPORT)
        with Xfrm() as xfrm:
            xfrm.install_sa(sa)
            with pytest.raises(NetlinkError, match=r"install SA 0x11110001: File exists"):
                xfrm.install_sa(sa)
            xfrm.update_sa(replace(sa, lifetime=Lifetime(hard_seconds=50)))
            assert xfrm.sa(SAName(sa.spi, sa.destination), []).lifetime == Lifetime(hard_seconds=50)
            xfrm.delete_sa(SAName(sa.spi, sa.destination))
            xfrm.delete_sa(SAName(sa.spi, sa.destination))
            with pytest.raises(NetlinkError, match="No such process"):
                xfrm.sa(SAName(sa.spi, sa.destination), [])

    namespace()(check)


def test_many_sas_come_whole_in_a_dump(namespace: Callable[[], Any]) -> None:
    def check() -> None:
        (sa, _) = sas(0, SUITES[1], 6, Mode.TRANSPORT)
        with Xfrm() as xfrm:
            wanted = [replace(sa, spi=0x1000 + n) for n in range(300)]
            for each in wanted:
                xfrm.install_sa(each)
            assert sorted(xfrm.sas([]), key=lambda sa: sa.spi) == wanted

    namespace()(check)


def test_this_kernel_has_esp_and_asking_leaves_nothing(namespace: Callable[[], Any]) -> None:
    def check() -> None:
        support = has_esp()
        assert support
        assert support.reason == ""
        with Xfrm() as xfrm:
            assert xfrm.sas([]) == []
            assert xfrm.policies() == []

    namespace()(check)


def test_a_policy_goes_from_block_to_protect_in_place(namespace: Callable[[], Any]) -> None:
    def check() -> None:
        block, *_ = policies(0, 4, Mode.TRANSPORT)
        with Xfrm() as xfrm:
            for policy in (replace(block, action=Action.BLOCK, reqid=0), block):
                xfrm.install_policy(policy)
                assert xfrm.policies() == [FoundPolicy(policy, 0)]

    namespace()(check)
