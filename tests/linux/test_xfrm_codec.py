"""XFRM's structures on octets: their sizes are the kernel's, values survive, and what is not ours is told so."""

import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.secret import Secret
from hushwire.events import Expire, Mapping
from hushwire.linux import xfrm_codec as codec
from hushwire.linux.netlink import Message
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint, host_network
from hushwire.wire.registry import EncrID, IntegID

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")

ports = st.integers(0, 65535)
networks4 = st.builds(
    lambda n, bits: ip_network((n, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
networks6 = st.builds(
    lambda n, bits: ip_network((n.to_bytes(16, "big"), bits), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)
selectors = st.one_of(
    st.builds(Selector, networks, networks, st.integers(0, 255), ports, ports) for networks in (networks4, networks6)
)


def sa(**changes: object) -> SA:
    values: dict[str, object] = {
        "spi": 0xC0FFEE01,
        "direction": Direction.OUT,
        "source": HERE,
        "destination": THERE,
        "mode": Mode.TRANSPORT,
        "suite": EspSuite(EncrID.AES_GCM_16, 256),
        "encr_key": Secret(bytes(range(36))),
        "integ_key": Secret(b""),
        "selector": Selector.between(HERE, THERE),
        "reqid": 9,
        "lifetime": Lifetime(1, 2, 3, 4, 5, 6),
    }
    return SA(**(values | changes))  # type: ignore[arg-type]


def test_structures_have_the_kernels_sizes() -> None:
    """sizeof, on every architecture with 64-bit alignment of u64."""
    sizes = {
        codec.SELECTOR: 56, codec.LIFETIME: 64, codec.USED: 32, codec.SA_INFO: 224, codec.SA_ID: 24,
        codec.POLICY_INFO: 168, codec.POLICY_ID: 64, codec.TEMPLATE: 64, codec.ACQUIRE: 280, codec.EXPIRE: 232,
        codec.MAPPING: 64, codec.ENCAP: 24, codec.ALGORITHM: 68, codec.ALGORITHM_TRUNCATED: 72, codec.REPLAY_ESN: 24,
    }  # fmt: skip
    assert {struct.format: struct.size for struct in sizes} == {struct.format: size for struct, size in sizes.items()}


@given(selectors, st.sampled_from(Direction))
def test_selectors_survive_and_turn_with_the_direction(selector: Selector, direction: Direction) -> None:
    octets = codec.write_selector(selector, direction, 7)
    assert codec.read_selector(octets, direction) == selector
    assert codec.read_ifindex(octets) == 7
    other = Direction.IN if direction is Direction.OUT else Direction.OUT
    turned = codec.read_selector(octets, other)
    assert (turned.local, turned.remote) == (selector.remote, selector.local)
    assert (turned.local_port, turned.remote_port) == (selector.remote_port, selector.local_port)


@given(selectors, st.sampled_from(Direction), st.sampled_from(Action), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_policies_survive(selector: Selector, direction: Direction, action: Action, priority: int, reqid: int) -> None:
    policy = Policy(selector, direction, action, priority, reqid if action is Action.PROTECT else 0)
    number = codec.POLICY_OUT if direction is Direction.OUT else codec.POLICY_IN
    assert codec.read_policy(codec.write_policy(policy, number, 3)) == (policy, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": Mode.TUNNEL, "selector": Selector(ip_network("10.0.0.0/8"), ip_network("10.9.0.0/16"))},
        {"suite": EspSuite(EncrID.CHACHA20_POLY1305, 256, esn=True), "replay_window": 33, "acquire": 5},
        {"suite": EspSuite(EncrID.AES_GCM_8, 128), "encr_key": Secret(bytes(20))},
        {"suite": EspSuite(EncrID.AES_CCM_16, 128), "encr_key": Secret(bytes(19)), "replay_window": 0},
        {
            "suite": EspSuite(EncrID.AES_CBC, 192, IntegID.HMAC_SHA2_384_192),
            "encr_key": Secret(bytes(24)),
            "integ_key": Secret(bytes(48)),
        },
        {"encapsulation": Encapsulation(4500, 61234), "lifetime": Lifetime()},
        {"direction": Direction.IN, "source": THERE, "destination": HERE},
    ],
)
def test_sas_survive(changes: dict[str, object]) -> None:
    wanted = sa(**changes)
    assert codec.read_sa(codec.write_sa(wanted), {HERE}) == wanted


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"suite": EspSuite(EncrID.TRIPLE_DES, 192)}, codec.Unspoken, "TRIPLE_DES"),
        ({"suite": EspSuite(EncrID.AES_CBC, 128)}, codec.Unspoken, "AES_CBC-128"),
        ({"suite": EspSuite(EncrID.AES_GCM_16, 256, IntegID.HMAC_SHA2_256_128)}, codec.Unspoken, "HMAC"),
        ({"spi": 255}, codec.Unspoken, "SPI 255 is reserved"),
        ({"encr_key": Secret(b"no" * 16)}, codec.Unspoken, "key of 32 octets, where 36 are wanted"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_and_no_key_is_shown(
    changes: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        codec.write_sa(sa(**changes))
    assert "nono" not in str(refused.value)


def test_other_peoples_entries_are_told_apart() -> None:
    body = codec.write_sa(sa())
    authentication_header = body[:76] + b"\x33" + body[77:]
    with pytest.raises(codec.Unspoken, match="protocol 51"):
        codec.read_sa(authentication_header, ())
    forwarding = codec.write_policy(
        Policy(Selector.between(HERE, THERE), Direction.IN, Action.BLOCK, 1), codec.POLICY_FWD
    )
    with pytest.raises(codec.Unspoken, match="direction 2"):
        codec.read_policy(forwarding)
    with pytest.raises(ValueError, match="tunnel mode with tunnel None"):
        codec.write_policy(
            Policy(Selector.between(HERE, THERE), Direction.OUT, Action.PROTECT, 1, 1, Mode.TUNNEL), codec.POLICY_OUT
        )


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"action": Action.CLEAR, "reqid": 0, "lifetime": 9}, {}),
        ({"action": Action.BLOCK, "reqid": 0, "lifetime": 9}, {}),
        # Only of what a soft trap lets in the kernel need know that it is soft: an SA is optional there.
        ({"soft": True, "lifetime": 120, "direction": Direction.IN}, {}),
        ({"soft": True, "lifetime": 120}, {"soft": False}),
        ({"soft": True, "selector": Selector.between(HERE, THERE), "direction": Direction.IN}, {"soft": False}),
    ],
)
def test_lifetimes_and_softness_of_policies(changes: dict[str, object], read: dict[str, object]) -> None:
    trap = Policy(Selector(host_network(HERE), ip_network("0.0.0.0/0")), Direction.OUT, Action.PROTECT, 968, 7)
    policy = replace(trap, **changes)
    number = codec.POLICY_OUT if policy.direction is Direction.OUT else codec.POLICY_IN
    assert codec.read_policy(codec.write_policy(policy, number)) == (replace(policy, **read), 0)


def test_a_policy_that_ended_is_no_news() -> None:
    policy = Policy(Selector.between(HERE, THERE), Direction.OUT, Action.CLEAR, 1, lifetime=2)
    body = codec.write_policy(policy, codec.POLICY_OUT) + b"\1" + bytes(7)
    assert codec.read_event(Message(0x1B, 0, 0, body)) is None


def test_events() -> None:
    info = codec.write_sa(sa())[: codec.SA_INFO.size]
    name = SAName(0xC0FFEE01, THERE)
    for hard in (False, True):
        told = codec.read_event(Message(codec.MSG_EXPIRE, 0, 0, codec.EXPIRE.pack(info, hard)))
        assert told == Expire(name, hard)
    larval = info[:72] + bytes(4) + info[76:]
    assert codec.read_event(Message(codec.MSG_EXPIRE, 0, 0, codec.EXPIRE.pack(larval, 1))) is None
    moved = codec.MAPPING.pack(
        codec.write_sa_id(name), 9, codec.write_address(HERE), codec.write_address(ip_address("203.0.113.9")),
        (4500).to_bytes(2, "big"), (1024).to_bytes(2, "big"),
    )  # fmt: skip
    told = codec.read_event(Message(codec.MSG_MAPPING, 0, 0, moved))
    assert told == Mapping(name, Endpoint(ip_address("203.0.113.9"), 1024))
    assert codec.read_event(Message(0x7F, 0, 0, b"")) is None


@pytest.mark.parametrize("mark", [0, 0x6877_0001])
def test_marks(mark: int) -> None:
    """A policy's is that of its packets; an SA's is what its packets bear afterwards, and 0 takes theirs away."""
    policy = Policy(Selector.between(HERE, THERE), Direction.OUT, Action.PROTECT, 11, 9)
    body = codec.write_policy(policy, codec.POLICY_OUT, 0, mark)
    assert codec.read_policy(body) == (policy, 0)
    assert codec.read_policy_mark(body) == mark
    found = codec.read_attributes(codec.write_sa(sa(), mark)[codec.SA_INFO.size :])
    assert found[29] == mark.to_bytes(4, sys.byteorder)
    assert found[30] == b"\xff" * 4
    assert not {29, 30} & codec.read_attributes(codec.write_sa(sa())[codec.SA_INFO.size :]).keys()


def test_an_sa_may_leave_selectors_to_the_policies() -> None:
    body = codec.write_sa(sa(), any_selector=True)
    assert codec.read_sa(body, (HERE,)).selector == Selector(ip_network("0.0.0.0/0"), ip_network("0.0.0.0/0"))
