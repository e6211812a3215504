"""The guard against a node that an intruder owns: whatever is asked, nothing goes in clear that no rule lets go."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.config import Config, parse
from hushwire.crypto.secret import Secret
from hushwire.daemon import guard as guard_module
from hushwire.daemon.guard import BURST, RATE, Forbidden, Guard, Request
from hushwire.events import CloseFlows, Count, CountFlows, DeletePolicy, DeleteSA, InstallPolicy, InstallSA
from hushwire.linux import xfrm_codec
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import Now
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import EncrID, IntegID

OWN, OWN6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
BOB, BOB6, CAROL, DAVE, EVE = map(
    ip_address, ("192.0.2.2", "2001:db8::2", "192.0.2.3", "192.0.2.4", "203.0.113.66")
)  # fmt: skip
CONFIG = """
[host]
name = "alice.example"
[[rule]]
peer = "bob.example"
[[rule]]
peer = "carol.example"
below = "clear"
[[rule]]
peer = "192.0.2.4"
key = "/etc/hushwire/dave.pem"
[[rule]]
peer = "gate.example"
address = "198.51.100.1"
psk = "/etc/hushwire/gate.psk"
mode = "tunnel"
local-networks = ["10.1.0.0/16"]
remote-networks = ["10.2.0.0/16"]
[[rule]]
peer = "192.0.2.0/24"
require = "clear"
"""
BOB_NUMBER, CAROL_NUMBER, DAVE_NUMBER, GATE_NUMBER, _, LATER_NUMBER = range(1, 7)
GATE = ip_address("198.51.100.1")
GOOD_PRIORITY = PROTECT_PRIORITY - narrowness(Selector.between(OWN, BOB))
NETWORKS = Selector(ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"))
GCM = EspSuite(EncrID.AES_GCM_16, 256, esn=True)


def config() -> Config:
    return parse(CONFIG, "alice.toml")


def fresh() -> Guard:
    guard = Guard(config())
    guard.addresses((OWN, OWN6))
    return guard


def protect(
    remote: IPAddress, number: int, direction: Direction = Direction.OUT, local: IPAddress | None = None
) -> Policy:
    selector = Selector.between(local or (OWN if remote.version == 4 else OWN6), remote)
    priority, soft = PROTECT_PRIORITY - narrowness(selector), number == CAROL_NUMBER
    return Policy(selector, direction, Action.PROTECT, priority, REQID_BASE + number, soft=soft)


def tunnel(selector: Selector = NETWORKS, ends: tuple[IPAddress, IPAddress] | None = (OWN, GATE)) -> Policy:
    priority = PROTECT_PRIORITY - narrowness(selector)
    return Policy(selector, Direction.OUT, Action.PROTECT, priority, REQID_BASE + GATE_NUMBER, Mode.TUNNEL, ends)


def sa(direction: Direction = Direction.OUT, **changed: Any) -> SA:
    source, destination = (OWN, BOB) if direction is Direction.OUT else (BOB, OWN)
    good = SA(
        0x1000, direction, source, destination, Mode.TRANSPORT, GCM, Secret(bytes(36)), Secret(b""),
        Selector.between(OWN, BOB), REQID_BASE + BOB_NUMBER, Lifetime(3600, 3962, 0, 0, 1 << 31, (1 << 32) - 1),
        Encapsulation(4500, 4500), 1024,
    )  # fmt: skip
    return replace(good, **changed)


def ask(guard: Guard, *requests: Request) -> None:
    """As the parent does."""
    for request in requests:
        guard.judge(request)
        guard.done(request)


def install(policy: Policy) -> InstallPolicy:
    return InstallPolicy(1, policy)


def delete(policy: Policy) -> DeletePolicy:
    return DeletePolicy(policy.selector, policy.direction)


# --- What a node rightly asks -----------------------------------------------------------------------------------------


GOOD_POLICIES = [
    protect(BOB, BOB_NUMBER),
    protect(BOB6, BOB_NUMBER, Direction.IN),
    protect(CAROL, CAROL_NUMBER),
    protect(DAVE, DAVE_NUMBER),
    protect(EVE, LATER_NUMBER),
    tunnel(),
    replace(protect(BOB, BOB_NUMBER), action=Action.BLOCK, reqid=0),
]


@pytest.mark.parametrize("policy", GOOD_POLICIES)
def test_policies_of_peers_are_let_through(policy: Policy) -> None:
    ask(fresh(), install(policy), install(policy))


@pytest.mark.parametrize("direction", Direction)
def test_sas_of_peers_are_let_through(direction: Direction) -> None:
    guard = fresh()
    ask(guard, InstallSA(1, sa(direction)))
    assert len(guard.sas) == 1
    ask(guard, *(DeleteSA(name) for name in guard.sas))
    assert not guard.sas


# --- Clear ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", GOOD_POLICIES)
def test_clear_is_never_let_through(policy: Policy) -> None:
    """Without an end, never; with one, where a rule says that."""
    with pytest.raises(Forbidden, match=r"clear for|not ours"):
        ask(fresh(), install(replace(policy, action=Action.CLEAR)))
    for_a_while = install(replace(policy, action=Action.CLEAR, lifetime=60))
    if policy.reqid == REQID_BASE + CAROL_NUMBER:
        ask(fresh(), for_a_while)
    else:
        with pytest.raises(Forbidden, match=r"clear for|not ours"):
            ask(fresh(), for_a_while)


def test_what_must_not_be_clear_is_not_deleted_and_what_may_is() -> None:
    guard = fresh()
    ask(guard, *(install(policy) for policy in GOOD_POLICIES))
    for policy in GOOD_POLICIES:
        if policy.reqid == REQID_BASE + CAROL_NUMBER:
            ask(guard, delete(policy))
        else:
            with pytest.raises(Forbidden, match="no rule permits clear"):
                guard.judge(delete(policy))


def test_a_policy_does_not_become_deletable_in_the_name_of_a_peer_who_may_be_clear() -> None:
    bobs, as_carols = protect(BOB, BOB_NUMBER), protect(BOB, CAROL_NUMBER)
    guard = fresh()
    ask(guard, install(bobs))
    for loosening in (install(as_carols), delete(bobs)):
        with pytest.raises(Forbidden, match="no rule permits clear"):
            guard.judge(loosening)
    # Control: it is bob's rule that holds it.
    free = fresh()
    ask(free, install(as_carols), delete(bobs))


def test_nor_as_a_block_in_that_name() -> None:
    guard = fresh()
    block = replace(protect(BOB, BOB_NUMBER), action=Action.BLOCK, reqid=REQID_BASE + CAROL_NUMBER)
    ask(guard, install(block))
    with pytest.raises(Forbidden, match="no rule permits clear"):
        guard.judge(delete(block))


def test_a_policy_that_an_earlier_run_left_stays() -> None:
    left = protect(CAROL, CAROL_NUMBER)
    guard = fresh()
    guard.adopt(left)
    ask(guard, install(replace(left, soft=False)))
    for loosening in (install(left), delete(left)):
        with pytest.raises(Forbidden, match="no rule permits clear"):
            guard.judge(loosening)


@pytest.mark.parametrize("selector", [Selector.between(OWN, EVE), Selector(NETWORKS.remote, NETWORKS.local)])
def test_the_policies_of_others_are_not_deleted(selector: Selector) -> None:
    for direction in Direction:
        with pytest.raises(Forbidden, match="not ours to delete"):
            fresh().judge(DeletePolicy(selector, direction))


@pytest.mark.parametrize("priority", [0, 10, 99, GOOD_PRIORITY - 1, GOOD_PRIORITY + 1, PROTECT_PRIORITY, 1 << 32, -1])
def test_a_policy_stands_where_the_configuration_puts_it(priority: int) -> None:
    """Behind the prefix that may be clear it would count for nothing."""
    with pytest.raises(Forbidden, match="priority"):
        fresh().judge(install(replace(protect(BOB, BOB_NUMBER), priority=priority)))
    assert protect(BOB, BOB_NUMBER).priority == GOOD_PRIORITY


# --- Other traffic ----------------------------------------------------------------------------------------------------


def wide(local: str, remote: str) -> Selector:
    return Selector(ip_network(local), ip_network(remote))


@pytest.mark.parametrize(
    "selector",
    [
        wide("192.0.2.1/32", "0.0.0.0/0"),
        wide("192.0.2.1/32", "192.0.2.2/31"),
        wide("0.0.0.0/0", "192.0.2.2/32"),
        wide("::/0", "::/0"),
        Selector.between(EVE, BOB),
        Selector.between(OWN, OWN6),
        Selector.between(OWN, BOB6),
        Selector.between(OWN, OWN),
        Selector.between(OWN, ip_address("127.0.0.1")),
        Selector.between(OWN, ip_address("224.0.0.251")),
        Selector.between(OWN6, ip_address("fe80::1")),
        Selector.between(OWN6, ip_address("::ffff:192.0.2.2")),
        replace(Selector.between(OWN, BOB), protocol=6, remote_port=22),
        replace(Selector.between(OWN, BOB), protocol=300),
        replace(Selector.between(OWN, BOB), local_port=70000),
    ],
    ids=str,
)
def test_no_policy_beside_what_a_rule_says(selector: Selector) -> None:
    for number in (BOB_NUMBER, LATER_NUMBER):
        priority = PROTECT_PRIORITY - narrowness(selector)
        policy = Policy(selector, Direction.OUT, Action.PROTECT, priority, REQID_BASE + number)
        for asked in (policy, replace(policy, action=Action.BLOCK, reqid=0)):
            with pytest.raises(Forbidden):
                fresh().judge(install(asked))


@pytest.mark.parametrize(
    "selector",
    [
        wide("10.1.0.0/16", "0.0.0.0/0"),
        wide("0.0.0.0/0", "10.2.0.0/16"),
        wide("10.1.0.0/16", "10.2.0.0/15"),
        wide("10.1.0.0/16", "10.2.0.0/24"),
        wide("10.1.0.0/16", "192.0.2.0/24"),
        wide("10.2.0.0/16", "10.1.0.0/16"),
        wide("10.1.0.0/16", "2001:db8::/32"),
        wide("::/0", "::/0"),
    ],
    ids=str,
)
def test_a_tunnel_is_for_its_networks_on_both_sides(selector: Selector) -> None:
    fresh().judge(install(tunnel()))
    with pytest.raises(Forbidden, match="a policy for"):
        fresh().judge(install(tunnel(selector)))


@pytest.mark.parametrize("ends", [None, (OWN, EVE), (EVE, GATE), (OWN, OWN), (OWN6, GATE), (GATE, OWN)])
def test_a_tunnel_ends_at_us_and_at_its_peer(ends: tuple[IPAddress, IPAddress] | None) -> None:
    with pytest.raises(Forbidden):
        fresh().judge(install(tunnel(ends=ends)))


def test_the_mode_is_the_rules() -> None:
    policy = protect(BOB, BOB_NUMBER)
    with pytest.raises(Forbidden, match="tunnel mode"):
        fresh().judge(install(replace(policy, mode=Mode.TUNNEL, tunnel=(OWN, BOB))))
    with pytest.raises(Forbidden, match="transport mode"):
        fresh().judge(install(replace(tunnel(), mode=Mode.TRANSPORT, tunnel=None)))
    with pytest.raises(Forbidden, match="without"):
        fresh().judge(install(replace(policy, tunnel=(OWN, BOB))))


def test_a_pinned_peer_is_where_the_configuration_says() -> None:
    with pytest.raises(Forbidden, match=r"where 192.0.2.4/32 is not"):
        fresh().judge(install(protect(EVE, DAVE_NUMBER)))
    with pytest.raises(Forbidden, match=r"where 192.0.2.4/32 is not"):
        fresh().judge(
            InstallSA(1, sa(reqid=REQID_BASE + DAVE_NUMBER, destination=EVE, selector=Selector.between(OWN, EVE)))
        )


@pytest.mark.parametrize("reqid", [0, 1, REQID_BASE, REQID_BASE + (1 << 16) + 1, -1, 1 << 32])
def test_reqids_are_ours(reqid: int) -> None:
    for request in (install(replace(protect(BOB, BOB_NUMBER), reqid=reqid)), InstallSA(1, sa(reqid=reqid))):
        with pytest.raises(Forbidden, match="reqid"):
            fresh().judge(request)
    fresh().judge(install(protect(BOB, 1 << 16)))


# --- SAs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"source": EVE},
        {"destination": EVE},
        {"destination": OWN},
        {"destination": BOB6},
        {"destination": ip_address("127.0.0.1")},
        {"mode": Mode.TUNNEL},
        {"spi": 255},
        {"spi": 0},
        {"spi": 1 << 32},
        {"suite": EspSuite(EncrID.NULL, 0, IntegID.HMAC_SHA2_256_128)},
        {"suite": EspSuite(EncrID.AES_CBC, 256), "encr_key": Secret(bytes(32))},
        {"encr_key": Secret(bytes(32))},
        {"encr_key": Secret(b"")},
        {"integ_key": Secret(bytes(32))},
        {"lifetime": Lifetime(hard_seconds=0)},
        {"lifetime": Lifetime(hard_seconds=-1)},
        {"lifetime": Lifetime(hard_seconds=2 * 3600 + 1)},
        {"lifetime": Lifetime(soft_seconds=3601, hard_seconds=3600)},
        {"lifetime": Lifetime(hard_seconds=3600, hard_bytes=1 << 64)},
        {"lifetime": Lifetime(hard_seconds=3600), "suite": replace(GCM, esn=False)},
        {"lifetime": Lifetime(hard_seconds=3600, hard_packets=1 << 32), "suite": replace(GCM, esn=False)},
        {"replay_window": 0},
        {"replay_window": 1 << 20},
        {"acquire": 1 << 32},
        {"acquire": -1},
        {"encapsulation": Encapsulation(53, 4500)},
        {"encapsulation": Encapsulation(4500, 0)},
        {"encapsulation": Encapsulation(4500, 1 << 16)},
        {"selector": Selector(ip_network("0.0.0.0/0"), ip_network("0.0.0.0/0"))},
        {"selector": Selector.between(OWN, EVE)},
        {"selector": Selector.between(OWN, BOB6)},
        {"selector": Selector.between(OWN6, BOB)},
    ],
    ids=str,
)
def test_an_sa_that_is_no_such(changed: dict[str, Any]) -> None:
    with pytest.raises(Forbidden):
        fresh().judge(InstallSA(1, sa(**changed)))


def test_an_sa_of_a_tunnel_carries_its_networks_or_less() -> None:
    tunnelled = sa(
        mode=Mode.TUNNEL, reqid=REQID_BASE + GATE_NUMBER, destination=GATE, selector=NETWORKS, encapsulation=None
    )
    less = Selector(ip_network("10.1.2.0/24"), ip_network("10.2.0.1/32"), 6, 0, 80)
    for selector in (NETWORKS, less):
        fresh().judge(InstallSA(1, replace(tunnelled, selector=selector)))
    for selector in (wide("10.1.0.0/16", "0.0.0.0/0"), wide("0.0.0.0/0", "10.2.0.0/16"), Selector.between(OWN, GATE)):
        with pytest.raises(Forbidden, match="an SA for"):
            fresh().judge(InstallSA(1, replace(tunnelled, selector=selector)))


@pytest.mark.parametrize("direction", Direction)
def test_a_standing_sa_is_not_begun_anew(direction: Direction) -> None:
    guard = fresh()
    ask(guard, InstallSA(1, sa(direction)))
    with pytest.raises(Forbidden, match="stands already"):
        guard.judge(InstallSA(2, sa(direction)))


def test_the_sas_of_others_are_not_deleted() -> None:
    with pytest.raises(Forbidden, match="not ours to delete"):
        fresh().judge(DeleteSA(SAName(0x1000, BOB)))


# --- How many ---------------------------------------------------------------------------------------------------------


def test_policies_and_sas_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "MOST_POLICIES", 3)
    monkeypatch.setattr(guard_module, "MOST_SAS", 3)
    guard = fresh()
    numbers = count(256)
    hosts = (ip_address("203.0.113.0") + n for n in range(1, 100))
    ask(guard, *(install(protect(next(hosts), LATER_NUMBER)) for _ in range(3)))
    ask(guard, *(InstallSA(1, sa(spi=next(numbers))) for _ in range(3)))
    with pytest.raises(Forbidden, match="more than 3 policies"):
        guard.judge(install(protect(next(hosts), LATER_NUMBER)))
    with pytest.raises(Forbidden, match="more than 3 SAs"):
        guard.judge(InstallSA(1, sa(spi=next(numbers))))
    # One that stands may be asked for again, and what goes makes room.
    guard.judge(install(protect(ip_address("203.0.113.1"), LATER_NUMBER)))
    ask(guard, DeleteSA(SAName(256, BOB)), InstallSA(1, sa(spi=next(numbers))))


def test_the_plane_that_forgot_its_sas_takes_them_again() -> None:
    guard = fresh()
    ask(guard, InstallSA(1, sa()))
    guard.forget_sas()
    ask(guard, InstallSA(1, sa()))


def test_many_requests_wait_and_none_is_lost() -> None:
    guard = fresh()
    now = Now(1000.0, 0.0)
    assert {guard.pace(now) for _ in range(int(BURST))} == {0.0}
    assert guard.pace(now) == pytest.approx(1 / RATE)
    assert guard.pace(now) == pytest.approx(2 / RATE)
    later = Now(1000.0 + 4 / RATE, 0.0)
    assert [guard.pace(later), guard.pace(later)] == pytest.approx([0.0, 0.0], abs=1e-9)


# --- Whatever is asked ------------------------------------------------------------------------------------------------

addresses = st.sampled_from((OWN, OWN6, BOB, BOB6, CAROL, DAVE, GATE, EVE, ip_address("127.0.0.1"), ip_address("::")))
networks = st.one_of(
    addresses.map(lambda address: ip_network(address)),
    st.sampled_from([ip_network(text) for text in ("0.0.0.0/0", "::/0", "10.1.0.0/16", "10.2.0.0/16", "10.2.0.0/15")]),
)
selectors = st.one_of(
    st.builds(Selector.between, st.sampled_from((OWN, OWN6)), addresses),
    st.builds(Selector, networks, networks, st.sampled_from((0, 6, 17, 256)), st.sampled_from((0, 80)), st.just(0)),
    st.just(NETWORKS),
)
reqids = st.one_of(st.integers(0, 6).map(lambda n: REQID_BASE + n), st.sampled_from((0, 1, 1 << 40, -5)))
directions, modes = st.sampled_from(Direction), st.sampled_from(Mode)


@st.composite
def policies(draw: Callable[..., Any]) -> Policy:
    selector = draw(selectors)
    priority = draw(st.one_of(st.just(PROTECT_PRIORITY - narrowness(selector)), st.integers(-1, 1 << 33)))
    mode = draw(modes)
    ends = draw(st.none() if mode is Mode.TRANSPORT else st.tuples(addresses, addresses))
    return Policy(selector, draw(directions), draw(st.sampled_from(Action)), priority, draw(reqids), mode, ends)


sas = st.builds(
    SA, st.integers(0, 300), directions, addresses, addresses, modes,
    st.sampled_from((GCM, replace(GCM, esn=False), EspSuite(EncrID.AES_CBC, 128, IntegID.HMAC_SHA2_256_128))),
    st.sampled_from((36, 16, 0)).map(lambda n: Secret(bytes(n))),
    st.sampled_from((0, 32)).map(lambda n: Secret(bytes(n))), selectors, reqids,
    st.builds(Lifetime, *(st.integers(-1, 1 << 13) for _ in range(4)), *(st.integers(-1, 1 << 65) for _ in range(2))),
    st.none() | st.builds(Encapsulation, st.sampled_from((4500, 500, 70000)), st.integers(-1, 1 << 17)),
    st.integers(-1, 5000), st.integers(-1, 1 << 33),
)  # fmt: skip
names = st.builds(SAName, st.integers(256, 300), addresses)
good_sas = st.builds(lambda way, spi: sa(way, spi=spi), directions, st.integers(256, 260))
good_policies = st.builds(
    lambda policy, way, number: replace(policy, direction=way, reqid=REQID_BASE + number if number else policy.reqid),
    st.sampled_from(GOOD_POLICIES), directions, st.integers(0, 6),
)  # fmt: skip
requests = st.one_of(
    st.builds(InstallSA, st.integers(1, 9), good_sas | sas),
    st.builds(DeleteSA, names),
    st.builds(InstallPolicy, st.integers(1, 9), good_policies | policies()),
    st.builds(DeletePolicy, selectors, directions),
)


@given(st.lists(requests, max_size=40))
def test_whatever_the_node_asks(asked: list[Request]) -> None:
    """A plane that obeys the guard never holds a clear policy, and never loses one that must block."""
    guard = fresh()
    must_stand: set[tuple[Selector, Direction]] = set()
    held: dict[tuple[Selector, Direction], Policy] = {}
    for request in asked:
        try:
            ask(guard, request)
        except Forbidden:
            continue
        match request:
            case InstallPolicy(_, policy):
                assert policy.action is not Action.CLEAR
                held[policy.selector, policy.direction] = policy
                if policy.reqid != REQID_BASE + CAROL_NUMBER:
                    must_stand.add((policy.selector, policy.direction))
                # The kernel's codec can say all that is let through.
                xfrm_codec.write_policy(policy, 1)
            case DeletePolicy(selector, direction):
                del held[selector, direction]
            case InstallSA(_, installed):
                assert OWN in (installed.source, installed.destination) or OWN6 in (
                    installed.source,
                    installed.destination,
                )
                assert installed.lifetime.hard_seconds <= 2 * 3600
                xfrm_codec.write_sa(installed)
            case DeleteSA(name):
                assert name not in guard.sas
        assert must_stand <= held.keys()


def test_only_its_own_sas_are_counted() -> None:
    guard = fresh()
    ask(guard, InstallSA(1, sa(Direction.OUT)))
    ask(guard, Count(2, tuple(guard.sas)))
    with pytest.raises(Forbidden, match="not ours"):
        guard.judge(Count(3, (SAName(0x1234567, EVE),)))


@pytest.mark.parametrize("request_of", [CloseFlows, CountFlows])
def test_only_connections_with_its_own_peers_are_ended(request_of: Any) -> None:
    """A node that is somebody else's may do nothing to what has nothing to do with it."""
    guard = fresh()
    ask(guard, InstallPolicy(1, protect(BOB, BOB_NUMBER)))
    bob, eve = ip_network(f"{BOB}/32"), ip_network(f"{EVE}/32")
    ask(guard, request_of(2, (bob,)))
    for remotes in ((eve,), (bob, eve), (ip_network("0.0.0.0/0"),)):
        with pytest.raises(Forbidden, match="no policy of ours"):
            guard.judge(request_of(3, remotes))
    carol = protect(CAROL, CAROL_NUMBER)
    ask(guard, InstallPolicy(4, carol))
    ask(guard, InstallPolicy(5, carol))
    ask(guard, DeletePolicy(carol.selector, carol.direction))
    with pytest.raises(Forbidden, match="no policy of ours"):
        guard.judge(request_of(6, (carol.selector.remote,)))


def test_who_may_have_flows_that_are_protected() -> None:
    """What the next node is told: of policies that stood before, too."""
    guard = fresh()
    guard.adopt(protect(BOB6, BOB_NUMBER))
    guard.adopt(replace(protect(DAVE, DAVE_NUMBER), action=Action.BLOCK))
    guard.adopt(Policy(NETWORKS, Direction.OUT, Action.PROTECT, GOOD_PRIORITY, REQID_BASE + GATE_NUMBER))
    ask(guard, InstallPolicy(1, protect(BOB, BOB_NUMBER)))
    ask(guard, InstallPolicy(2, protect(BOB, BOB_NUMBER, Direction.IN)))
    assert guard.sealed == (BOB6, BOB)


def test_what_may_be_clear_of_a_peer_is_what_that_rule_of_its_says() -> None:
    text = """
[host]
name = "alice.example"
[[rule]]
peer = "192.0.2.4"
psk = "/etc/hushwire/dave.psk"
[[rule]]
peer = "192.0.2.4"
psk = "/etc/hushwire/dave.psk"
below = "clear"
protocol = "tcp"
remote-port = 80
"""
    guard = Guard(parse(text, "alice.toml"))
    guard.addresses((OWN,))
    for port, allowed in ((80, True), (0, False)):
        selector = replace(Selector.between(OWN, DAVE), protocol=6 if port else 0, remote_port=port)
        priority = PROTECT_PRIORITY - narrowness(selector)
        soft = Policy(selector, Direction.OUT, Action.PROTECT, priority, REQID_BASE + 1, soft=True)
        if allowed:
            ask(guard, install(soft))
        else:
            with pytest.raises(Forbidden, match="where a rule permits none"):
                ask(guard, install(soft))
            ask(guard, install(replace(soft, soft=False)))


@pytest.mark.parametrize(("require", "allowed"), [("named", True), ("trusted", False)])
def test_an_address_that_is_looked_up_may_be_behind_a_gateway(require: str, allowed: bool) -> None:
    """Its reverse zone says so (RFC 4025 s2.5), which is not known here; where no DNS is asked there is none."""
    psk = 'psk = "/etc/hushwire/network.psk"' if require == "trusted" else ""
    text = f'[host]\nname = "alice.example"\n[[rule]]\npeer = "198.51.100.0/24"\nrequire = "{require}"\n{psk}\n'
    guard = Guard(parse(text, "alice.toml"))
    guard.addresses((OWN,))
    selector = Selector.between(OWN, ip_address("198.51.100.7"))
    priority, reqid = PROTECT_PRIORITY - narrowness(selector), REQID_BASE + 7
    tunnel = Policy(selector, Direction.OUT, Action.PROTECT, priority, reqid, Mode.TUNNEL, (OWN, EVE))
    carried = replace(sa(Direction.OUT), reqid=reqid, destination=EVE, mode=Mode.TUNNEL, selector=selector)
    for request in (install(tunnel), InstallSA(1, carried)):
        if allowed:
            ask(guard, request)
        else:
            with pytest.raises(Forbidden):
                ask(guard, request)
    # A whole network never goes to whom the DNS names.
    wide = replace(selector, remote=ip_network("198.51.100.0/24"))
    with pytest.raises(Forbidden):
        ask(guard, install(replace(tunnel, selector=wide, priority=PROTECT_PRIORITY - narrowness(wide))))
