"""A Peer: what rules and the DNS come to, as PAD entry, policies and waits."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Group, Rule, Start
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import Acquire, Answered, Outcome
from hushwire.names.ipseckey import KeyRecord, write_record
from hushwire.names.lookup import AddressLookup
from hushwire.node.peer import ACQUIRE_LIFE, FIRST_WAIT, LAST_WAIT, Peer, Sought
from hushwire.node.rulebook import group_rules, permits_clear
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness, nearest
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action
from hushwire.timers import Now

OWN4, OWN6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
FAR = ip_address("192.0.2.2")
KEY = PrivateKey.from_seed(Secret(b"k" * 32)).public
OWN = (OWN4, OWN6)


def peer(*rules: dict[str, Any], key: Any = KEY, psk: bytes | None = None) -> Peer:
    basic: dict[str, Any] = {"peer": "bob.example", "require": Assurance.TRUSTED, "address": FAR}
    return Peer(3, tuple(Rule(**(basic | rule)) for rule in rules or ({},)), None, key, psk)


def test_a_pad_entry() -> None:
    entry = peer({"own_identity": Identity.fqdn("other.example")}).entry(FAR, OWN)
    assert entry is not None
    assert entry.identity == Identity.fqdn("bob.example")
    assert (entry.addresses, entry.keys, entry.psk) == ((FAR,), (KEY,), None)
    assert (entry.assurance, entry.mode, entry.reqid) == (Assurance.TRUSTED, Mode.TRANSPORT, REQID_BASE + 3)
    assert entry.selectors == (Selector.between(OWN4, FAR),)
    assert entry.own_identity == Identity.fqdn("other.example")
    assert entry.speaks_from(FAR)
    assert not entry.speaks_from(OWN4)


def test_no_entry_without_a_proof_or_elsewhere() -> None:
    assert peer(key=None).entry(FAR, OWN) is None
    assert peer(key=None, psk=b"name").entry(FAR, OWN) is not None
    assert peer().entry(OWN4, OWN) is None
    assert peer({"address": None}).entry(FAR, OWN) is None


def test_a_peer_called_by_its_address() -> None:
    by_address = peer({"peer": ip_network("192.0.2.9"), "address": None})
    assert by_address.addresses == (ip_address("192.0.2.9"),)
    assert by_address.name == "192.0.2.9"
    assert by_address.identity == Identity.address(ip_address("192.0.2.9"))


def test_policies_of_both_directions_for_each_of_our_addresses() -> None:
    second = ip_address("192.0.2.7")
    desired = peer().desired((OWN4, second, OWN6))
    assert {key[0] for key in desired} == {Selector.between(OWN4, FAR), Selector.between(second, FAR)}
    assert len(desired) == 4
    assert {policy.action for policy in desired.values()} == {Action.PROTECT}
    assert peer().desired(()) == {}
    assert peer().desired((OWN6,)) == {}


def test_below_clear_policies_come_when_it_was_reached() -> None:
    clear = peer({"below": Action.CLEAR})
    assert clear.desired(OWN) == {}
    assert clear.starts_by_itself
    clear.succeeded()
    assert len(clear.desired(OWN)) == 2
    assert clear.may_loosen
    assert not peer().may_loosen
    assert not peer().starts_by_itself
    assert peer({"start": Start.CONNECT}).starts_by_itself


def test_a_tunnel_names_its_ends() -> None:
    near, far = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
    tunnel = peer(
        {"mode": Mode.TUNNEL, "local_networks": (near,), "remote_networks": (far, ip_network("2001:db8::/32"))}
    )
    (out, into) = tunnel.desired(OWN).values()
    assert out.tunnel == into.tunnel == (OWN4, FAR)
    assert out.selector == Selector(near, far)
    wanted = tunnel.wanted(Flow(ip_address("10.1.2.3"), ip_address("10.2.3.4"), 6), 9)
    assert wanted is not None
    assert (wanted.selectors, wanted.mode, wanted.acquire) == ((Selector(near, far),), Mode.TUNNEL, 9)
    assert tunnel.wanted(Flow(ip_address("10.1.2.3"), ip_address("10.9.3.4"), 6)) is None


@pytest.mark.parametrize(
    ("flow", "found"),
    [
        (Flow(OWN4, FAR, 6, 1, 443), True), (Flow(OWN4, FAR, 6, 1, 80), False), (Flow(OWN4, FAR, 17, 1, 443), False),
        (Flow(OWN4, FAR, 0), True), (Flow(OWN4, OWN4, 0), False),
    ],
)  # fmt: skip
def test_what_a_packet_wants(flow: Flow, found: bool) -> None:
    assert (peer({"protocol": 6, "remote_port": 443}).wanted(flow) is not None) is found


def test_narrower_before_wider() -> None:
    wide, port = Selector.between(OWN4, FAR), Selector(ip_network(OWN4), ip_network(FAR), 6, 0, 443)
    net = Selector(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"))
    assert narrowness(net) < narrowness(wide) < narrowness(port)
    priorities = [policy.priority for policy in peer({}, {"protocol": 6, "remote_port": 443}).desired(OWN).values()]
    assert max(priorities) == PROTECT_PRIORITY - narrowness(wide)
    assert min(priorities) < max(priorities)


def test_waits_grow_and_end() -> None:
    one = peer()
    waits = []
    for _ in range(20):
        one.failed("no", 100.0)
        waits.append(one.not_before - 100.0)
    assert waits[0] == FIRST_WAIT
    assert waits == sorted(waits)
    assert waits[-1] == LAST_WAIT
    one.succeeded()
    assert (one.failures, one.not_before, one.last_failure) == (0, 0.0, "")


def test_who_yields_to_whom() -> None:
    first, second = peer(), peer()
    assert not first.yields_to(second)
    first.failed("nobody answers", 0.0)
    assert first.yields_to(second)
    first.succeeded()
    second.succeeded()
    assert not first.yields_to(second)


def test_rules_by_peer_in_their_order() -> None:
    rules = (
        Rule("b.example"), Rule("a.example"), Rule("b.example", protocol=6), Rule("c.example", Assurance.CLEAR),
    )  # fmt: skip
    assert [[str(rule.peer) for rule in group] for group in group_rules(rules)] == [
        ["b.example", "b.example"], ["a.example"], ["c.example"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("192.0.2.200", "192.0.2.1"),
        ("10.2.0.1", "10.1.0.1"),
        ("9.9.9.9", "8.8.8.8"),
        ("2001:db8::2", "2001:db8::1"),
        ("fd00::2", None),
    ],
)
def test_the_nearest_address_speaks_for_a_host_with_several(remote: str, expected: str | None) -> None:
    """A gateway's own addresses of its inner networks are no end of a tunnel."""
    own = [ip_address(text) for text in ("10.1.0.1", "8.8.8.8", "192.0.2.1", "2001:db8::1")]
    if expected is None:
        own.pop()
    found = nearest(own, ip_address(remote))
    assert (None if found is None else str(found)) == expected


def test_a_tunnel_ends_at_the_nearest_address() -> None:
    rule = {"mode": Mode.TUNNEL, "local_networks": (ip_network("10.1.0.0/24"),)}
    policies = peer(rule).desired((ip_address("10.1.0.1"), OWN4)).values()
    assert {policy.tunnel for policy in policies} == {(OWN4, FAR)}


def test_each_rule_about_a_peer_says_what_becomes_of_its_own_packets() -> None:
    """Mail is protected or does not leave; to one port nothing goes; the rest may be clear until it was reached."""
    mixed = peer(
        {"protocol": 6, "remote_port": 25},
        {"protocol": 6, "remote_port": 23, "group": Group.BLOCK},
        {"below": Action.CLEAR},
    )
    by_port = {selector.remote_port: policy for (selector, _), policy in mixed.desired((OWN4,)).items()}
    assert {port: policy.action for port, policy in by_port.items()} == {25: Action.PROTECT, 23: Action.BLOCK}
    assert not any(policy.soft for policy in by_port.values())
    mixed.succeeded()
    by_port = {selector.remote_port: policy for (selector, _), policy in mixed.desired((OWN4,)).items()}
    assert {port: policy.soft for port, policy in by_port.items()} == {25: False, 23: False, 0: True}
    # Who wants something protected cannot be told of the address before it is.
    assert not permits_clear(mixed.rules)
    assert mixed.wanted(Flow(OWN4, FAR, 6, 1, 23)) == mixed.wanted(Flow(OWN4, FAR, 6, 1, 24))
    entry = mixed.entry(FAR, OWN)
    assert entry is not None
    assert {selector.remote_port for selector in entry.selectors} == {25, 0}


def test_an_address_behind_a_gateway() -> None:
    """RFC 4025 s2.5: what is for it goes to whom its reverse zone names; and nowhere, if we cannot go there."""
    address, gateway = ip_address("192.0.2.9"), ip_address("2001:db8::9")
    lookup = AddressLookup(address, iter(range(1, 9)).__next__, SeededEntropy(b"gateway"))
    now = Now(0.0, 0.0)
    (question,) = lookup.start(now)
    rdata = (write_record(KeyRecord(10, gateway, KEY)),)
    lookup.answered(Answered(question.request, question.name, question.rdtype, Outcome.SECURE, rdata, 60), now)
    behind = Peer(3, (Rule(ip_network("192.0.2.9")),), lookup)
    assert (behind.gateway, behind.ends, behind.identity) == (gateway, (gateway,), Identity.address(gateway))
    assert {policy.action for policy in behind.desired((OWN4,)).values()} == {Action.BLOCK}
    policies = behind.desired(OWN).values()
    assert {(policy.action, policy.mode, policy.tunnel) for policy in policies} == {
        (Action.PROTECT, Mode.TUNNEL, (OWN6, gateway))
    }
    assert {policy.selector for policy in policies} == {Selector.between(OWN4, address)}
    assert behind.entry(address, OWN) is None
    entry = behind.entry(gateway, OWN)
    assert entry is not None
    assert (entry.keys, entry.mode, entry.selectors) == ((KEY,), Mode.TUNNEL, (Selector.between(OWN4, address),))


def test_a_packet_is_sought_for_as_long_as_it_may_wait_and_a_later_one_anew() -> None:
    one, wanted, first = peer(), Selector.between(OWN4, FAR), Acquire(Flow(OWN4, FAR, 6), REQID_BASE + 3, 1)
    one.seek(wanted, Sought(first, 0.0, FAR, begun=True))
    one.seek_again(FAR, 10.0)
    assert one.waiting == {wanted: first}
    # Made again for the same packet: its time goes on.
    one.waiting.clear()
    one.seek(wanted, Sought(first, 11.0, FAR, begun=True))
    one.seek_again(FAR, ACQUIRE_LIFE + 5)
    assert not one.waiting
    later = replace(first, sequence=2)
    one.seek(wanted, Sought(later, ACQUIRE_LIFE + 6, FAR, begun=True))
    one.seek_again(FAR, ACQUIRE_LIFE + 10)
    assert one.waiting == {wanted: later}
    assert one.found(FAR) == []
    assert not one.sought


def test_what_waits_for_another_packets_sa_is_told_when_that_stands() -> None:
    one, both = peer(), Selector.between(OWN4, FAR)
    first, second = (replace(both, protocol=6, remote_port=port) for port in (80, 443))
    for wanted, begun in ((first, True), (second, False)):
        flow = Flow(OWN4, FAR, 6, 1000, wanted.remote_port)
        one.seek(wanted, Sought(Acquire(flow, REQID_BASE + 3, wanted.remote_port), 0.0, FAR, begun))
    assert one.found(OWN4) == []
    assert [acquire.sequence for acquire in one.found(FAR)] == [443]
    assert not one.sought
