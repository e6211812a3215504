"""Nodes back to back over a little zone: names, policies, packets and commands, stepped by hand."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hushwire.config import Config, PlaneChoice, Rule, Start
from hushwire.config import Host as HostConfig
from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Connect,
    Datagram,
    DeletePolicy,
    DeleteSA,
    Disconnect,
    Expire,
    Installed,
    InstallPolicy,
    InstallSA,
    Lookup,
    Mapping,
    Notice,
    Outcome,
    Refused,
    Rekey,
    Reply,
    Send,
    Sign,
    Signed,
    Status,
    Stop,
    Timeout,
)  # fmt: skip
from hushwire.names.binding import AAAA, A
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.node import Node, Secrets
from hushwire.peer import LAST_WAIT, Peer
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint
from hushwire.wire.registry import PrfID

PSK = Secret(b"sixteen octets and more")
ADDRESS = {
    name: ip_address(text) for name, text in [("alice", "192.0.2.1"), ("bob", "192.0.2.2"), ("eve", "192.0.2.66")]
}
MOVED = ip_address("192.0.2.200")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in (*ADDRESS, "other")}


@dataclass
class Host:
    """A Node, its plane as dictionaries, and all that it was told and said."""

    name: str
    node: Node
    key: PrivateKey
    addresses: tuple[Any, ...]
    sad: dict[SAName, Any] = field(default_factory=dict)
    spd: dict[Any, Any] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    replies: dict[int, Reply] = field(default_factory=dict)
    questions: int = 0
    refuse: Callable[[Any], bool] = lambda effect: False

    def kinds(self) -> list[str]:
        return [notice.kind for notice in self.notices]

    def about(self, kind: str) -> list[dict[str, Any]]:
        return [dict(notice.fields) for notice in self.notices if notice.kind == kind]

    def policies(self, remote: Any) -> list[Any]:
        return [policy for policy in self.spd.values() if remote in policy.selector.remote]


@dataclass
class Net:
    """Hosts, a zone, and the time."""

    hosts: dict[str, Host] = field(default_factory=dict)
    zone: dict[str, tuple[tuple[Any, ...], tuple[PublicKey, ...]]] = field(default_factory=dict)
    outcome: dict[str, Outcome] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Names that the resolver says nothing about."""
    ttl: int = 60
    now: Now = field(default_factory=lambda: Now(0.0, 1.8e9))
    late: list[tuple[Host, Lookup]] = field(default_factory=list)
    wire: list[tuple[Host, Send]] = field(default_factory=list)
    lost: Callable[[Host, Send], bool] = lambda host, send: False
    requests: int = 1_000_000

    def host(
        self, name: str, *rules: Rule, key: str = "", plane: PlaneChoice = PlaneChoice.KERNEL, pinned: Any = None,
        shared: Any = None, addresses: tuple[Any, ...] = (),
    ) -> Host:  # fmt: skip
        private = KEY[key or name]
        config = Config(HostConfig(f"{name}.example", addresses=addresses), rules=rules)
        secrets = Secrets(private.public, pinned or {}, shared or {})
        host = Host(name, Node(config, secrets, plane, SeededEntropy(name.encode())), private, (ADDRESS[name],))
        self.hosts[name] = host
        self.zone.setdefault(f"{name}.example", ((ADDRESS[name],), (private.public,)))
        return host

    def start(self) -> None:
        for host in self.hosts.values():
            self.step(host, AddressesChanged(host.addresses))
        self.run()

    def step(self, host: Host, event: Any) -> None:
        for effect in host.node.step(self.now, event):
            self._perform(host, effect)

    def ask(self, host: Host, command: Any, *rest: Any) -> Reply | None:
        self.requests += 1
        self.step(host, command(self.requests, *rest))
        self.run()
        return host.replies.get(self.requests)

    def _perform(self, host: Host, effect: Any) -> None:
        match effect:
            case Send():
                self.wire.append((host, effect))
            case Sign(request, _, scheme, octets):
                method, _, prf = scheme.partition("/")
                if method == "SHARED_KEY":
                    self.step(host, Signed(request, shared_key_auth(PrfID[prf], PSK, octets)))
                else:
                    self.step(host, Signed(request, sign(host.key, Scheme[scheme], octets)))
            case Lookup():
                host.questions += 1
                if effect.name in self.silent:
                    self.late.append((host, effect))
                else:
                    self.step(host, self.answer(effect))
            case InstallSA(request) | InstallPolicy(request) if host.refuse(effect):
                self.step(host, Refused(request, "by the test"))
            case InstallSA(request, sa):
                host.sad[SAName(sa.spi, sa.destination)] = sa
                self.step(host, Installed(request))
            case DeleteSA(sa):
                host.sad.pop(sa, None)
            case InstallPolicy(request, policy):
                host.spd[policy.selector, policy.direction] = policy
                self.step(host, Installed(request))
            case DeletePolicy(selector, direction):
                del host.spd[selector, direction]
            case Notice():
                host.notices.append(effect)
            case Reply(request):
                host.replies[request] = effect

    def answer(self, question: Lookup) -> Answered:
        request, name, rdtype = question.request, question.name, question.rdtype
        if name in self.outcome:
            return Answered(request, name, rdtype, self.outcome[name], ttl=self.ttl, reason="by the test")
        addresses, keys = self.zone.get(name, ((), ()))
        rdata = {
            A: tuple(a.packed for a in addresses if a.version == 4),
            AAAA: tuple(a.packed for a in addresses if a.version == 6),
            IPSECKEY: tuple(write_record(KeyRecord(10, None, key)) for key in keys),
        }[rdtype]
        return Answered(request, name, rdtype, Outcome.SECURE if rdata else Outcome.DENIED, rdata, self.ttl)

    def run(self) -> None:
        """Carry datagrams until there are no more."""
        for _ in range(2000):
            if not self.wire:
                return
            sender, send = self.wire.pop(0)
            for host in self.hosts.values():
                if send.remote.address in host.addresses and not self.lost(sender, send):
                    self.step(host, Datagram(send.remote, send.local, send.data))
        raise AssertionError("they never stop talking")

    def wait(self, seconds: float) -> None:
        end = self.now.monotonic + seconds
        for _ in range(20_000):
            soonest = min(host.node.deadline() for host in self.hosts.values())
            if soonest > end:
                break
            self.now = Now(max(soonest, self.now.monotonic), self.now.wall + max(0.0, soonest - self.now.monotonic))
            for host in self.hosts.values():
                if host.node.deadline() <= self.now.monotonic:
                    self.step(host, Timeout())
            self.run()
        else:
            raise AssertionError("time stands still")
        self.now = Now(end, self.now.wall)

    def packet(self, host: Host, remote: Any, protocol: int = 0, remote_port: int = 0, local: Any = None) -> Any:
        """A packet leaves: what the plane would do with it, raising Acquire as the kernel does."""
        local = local or host.addresses[0]
        flow = Flow(local, remote, protocol, 0, remote_port)
        found = [p for p in host.spd.values() if p.direction.value == "out" and p.selector.matches(flow)]
        if not found:
            return Action.CLEAR
        policy = min(found, key=lambda policy: policy.priority)
        fits = [sa for sa in host.sad.values() if sa.direction.value == "out" and sa.reqid == policy.reqid]
        if any(sa.selector.matches(flow) for sa in fits):
            return Action.PROTECT
        self.step(host, Acquire(flow, policy.reqid, 7))
        self.run()
        return Action.BLOCK


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


@pytest.fixture
def net() -> Net:
    """Alice and Bob, each with a rule for the other, looked up and idle."""
    net = Net()
    net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    return net


def two(alice: dict[str, Any], bob: dict[str, Any] | None = None) -> Net:
    net = Net()
    net.host("alice", named("bob", **alice))
    net.host("bob", named("alice", **(alice if bob is None else bob)))
    net.start()
    return net


# --- the way from a name to a protected packet ---


def test_a_name_becomes_policies_and_a_packet_an_sa(net: Net) -> None:
    alice = net.hosts["alice"]
    assert alice.about("name.bound")[0]["addresses"] == "192.0.2.2"
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}
    assert {policy.direction.value for policy in alice.policies(ADDRESS["bob"])} == {"in", "out"}
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert len(alice.sad) == len(net.hosts["bob"].sad) == 2
    assert {sa.acquire for sa in alice.sad.values()} == {7}
    assert {sa.reqid for sa in alice.sad.values()} == {policy.reqid for policy in alice.spd.values()}


def test_packets_in_a_burst_make_one_sa(net: Net) -> None:
    alice = net.hosts["alice"]
    policy = alice.policies(ADDRESS["bob"])[0]
    for sequence in range(10):
        net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 6, 0, 80), policy.reqid, sequence))
    net.run()
    assert len(alice.sad) == 2
    assert len(alice.node.ike.sas) == 1


def test_an_acquire_of_somebody_elses_policy_is_nothing_to_us(net: Net) -> None:
    net.step(net.hosts["alice"], Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), 12345, 1))
    assert not net.wire


def test_both_modes(net: Net) -> None:
    net = two({"mode": Mode.TUNNEL})
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    assert {sa.mode for sa in alice.sad.values()} == {Mode.TUNNEL}
    assert {policy.tunnel for policy in alice.spd.values()} == {(ADDRESS["alice"], ADDRESS["bob"])}


def test_networks_behind_both() -> None:
    near, far = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
    net = two(
        {"mode": Mode.TUNNEL, "local_networks": (near,), "remote_networks": (far,)},
        {"mode": Mode.TUNNEL, "local_networks": (far,), "remote_networks": (near,)},
    )
    alice = net.hosts["alice"]
    net.packet(alice, ip_address("10.2.3.4"), local=ip_address("10.1.0.9"))
    assert net.packet(alice, ip_address("10.2.3.4"), local=ip_address("10.1.0.9")) is Action.PROTECT
    assert {sa.selector for sa in alice.sad.values()} == {Selector(near, far)}


def test_rules_with_ports() -> None:
    web = {"protocol": 6, "remote_port": 443}
    net = two(web, {"protocol": 6, "local_port": 443})
    alice = net.hosts["alice"]
    assert net.packet(alice, ADDRESS["bob"], 17, 53) is Action.CLEAR
    assert net.packet(alice, ADDRESS["bob"], 6, 443) is Action.BLOCK
    assert net.packet(alice, ADDRESS["bob"], 6, 443) is Action.PROTECT
    assert {(sa.selector.protocol, sa.selector.remote_port) for sa in alice.sad.values()} == {(6, 443)}


def test_narrow_rules_come_before_wide_ones() -> None:
    net = Net()
    alice = net.host("alice", named("bob"), named("bob", protocol=6, remote_port=443))
    net.host("bob", named("alice"))
    net.start()
    by_port = {policy.selector.remote_port: policy.priority for policy in alice.spd.values()}
    assert by_port[443] < by_port[0]
    assert len({policy.reqid for policy in alice.spd.values()}) == 1


def test_a_pinned_key_and_no_dns() -> None:
    net = Net()
    rules = {
        "alice": Rule("bob.example", Assurance.TRUSTED, key="bob.pem", address=ADDRESS["bob"]),
        "bob": Rule(ip_network("192.0.2.1"), Assurance.TRUSTED, key="alice.pem", identity=named("alice").expected),
    }
    net.host("alice", rules["alice"], pinned={"bob.example": KEY["bob"].public})
    net.host("bob", rules["bob"], pinned={"192.0.2.1/32": KEY["alice"].public})
    net.start()
    assert not net.hosts["alice"].questions
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


def test_a_shared_key() -> None:
    net = Net()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        rule = Rule(f"{other}.example", Assurance.TRUSTED, psk="psk", address=ADDRESS[other])
        net.host(one, rule, shared={f"{other}.example": b"psk"})
    net.start()
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


# --- P2: who is not let in ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_right_name_with_the_wrong_key(guard: str, monkeypatch: Any) -> None:
    net = Net()
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["bob"].public,))
    net.host("alice", named("bob"))
    net.host("bob", named("alice"), key="other")
    net.start()
    if guard == "out":
        monkeypatch.setattr(Peer, "keys_at", lambda *_: (KEY["other"].public, KEY["alice"].public))
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    assert (net.packet(alice, ADDRESS["bob"]) is Action.PROTECT) is (guard == "out")
    assert ("peer.failed" in alice.kinds()) is (guard == "in")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_right_key_from_an_address_that_is_not_the_names(net: Net, guard: str, monkeypatch: Any) -> None:
    """Law 2, at the responder: Alice comes from where her name does not point."""
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged(alice.addresses))
    if guard == "out":
        monkeypatch.setattr(Peer, "keys_at", lambda *_: (KEY["alice"].public, KEY["bob"].public))
        monkeypatch.setattr(Peer, "addresses", property(lambda peer: (MOVED, ADDRESS["bob"])))
    net.packet(alice, ADDRESS["bob"])
    assert bool(bob.sad) is (guard == "out")
    assert ("ike.established" in bob.kinds()) is (guard == "out")


def test_a_stranger_is_told_nothing_and_no_question_is_asked_for_him(net: Net) -> None:
    bob = net.hosts["bob"]
    asked = bob.questions
    eve = net.host("eve", named("bob"))
    net.start()
    net.packet(eve, ADDRESS["bob"])
    assert not bob.sad
    assert not eve.sad
    assert bob.questions == asked


def test_whoever_speaks_for_a_name_that_has_moved_waits_until_it_was_looked_up(net: Net) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.wait(10)
    alice.addresses = (MOVED,)
    net.zone["alice.example"] = ((MOVED,), (KEY["alice"].public,))
    net.step(alice, AddressesChanged(alice.addresses))
    net.silent.add("alice.example")
    net.packet(alice, ADDRESS["bob"])
    assert not bob.sad
    net.wait(2)
    for host, question in net.late:
        net.step(host, net.answer(question))
    net.run()
    assert bob.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_parked_authorization_ends_when_the_resolver_does_not_answer(net: Net) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.wait(10)
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged(alice.addresses))
    net.silent.add("alice.example")
    net.packet(alice, ADDRESS["bob"])
    assert bob.node._parked
    net.wait(30)
    assert not bob.node._parked
    assert not bob.sad


# --- law 2: two names at one address ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_name_that_points_at_anothers_address_gets_no_policy_there(guard: str, monkeypatch: Any) -> None:
    """ATTACKS rows 36 and 37: eve.example, well signed, has Bob's address and Eve's key."""
    net = Net()
    alice = net.host("alice", named("bob"), named("eve"))
    net.host("bob", named("alice"))
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    if guard == "out":
        monkeypatch.setattr(Node, "_may_have", lambda *_: True)
    net.start()
    reqids = {policy.reqid for policy in alice.policies(ADDRESS["bob"])}
    bob = next(peer for peer in alice.node._peers if peer.name == "bob.example")
    assert (reqids == {bob.reqid}) is (guard == "in")
    assert ("name.contested" in alice.kinds()) is (guard == "in")
    if guard == "in":
        net.packet(alice, ADDRESS["bob"])
        assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_name_that_was_first_and_that_nobody_answers_for_gives_way() -> None:
    """ATTACKS row 37: the black hole lasts one attempt."""
    net = Net()
    alice = net.host("alice", named("eve"), named("bob"))
    net.host("bob", named("alice"))
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    net.start()
    for _ in range(4):
        if net.packet(alice, ADDRESS["bob"]) is Action.PROTECT:
            break
        net.wait(60)
    bob = next(peer for peer in alice.node._peers if peer.name == "bob.example")
    assert {policy.reqid for policy in alice.policies(ADDRESS["bob"])} == {bob.reqid}
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_name_that_answered_is_not_displaced() -> None:
    net = Net()
    alice = net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    net.packet(alice, ADDRESS["bob"])
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    reply = net.ask(alice, Connect, "eve.example")
    net.wait(120)
    assert reply is None or not reply.ok
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


# --- what changes in the DNS ---


def test_a_new_key_ends_the_old_sa_at_once(net: Net) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    old = set(alice.sad)
    bob.key = KEY["other"]
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["other"].public,))
    net.wait(net.ttl + 5)
    assert "name.changed" in alice.kinds()
    assert not old & set(alice.sad)
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}


def test_a_new_address_ends_the_old_sa_and_the_old_policies_stay(net: Net) -> None:
    """P1: what went to the old address goes nowhere, rather than in clear."""
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    bob.addresses = (MOVED,)
    net.step(bob, AddressesChanged(bob.addresses))
    net.zone["bob.example"] = ((MOVED,), (KEY["bob"].public,))
    net.wait(net.ttl + 40)
    assert not [sa for sa in alice.sad.values() if ADDRESS["bob"] in (sa.source, sa.destination)]
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
    net.packet(alice, MOVED)
    assert net.packet(alice, MOVED) is Action.PROTECT


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_only_a_signed_denial_leads_to_clear_and_only_where_the_rule_says_so(outcome: Outcome, below: Action) -> None:
    """Law 3."""
    net = two({"below": below})
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.wait(5)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    net.outcome["bob.example"] = outcome
    net.wait(net.ttl + 600)
    assert "name.unbound" in alice.kinds()
    assert not alice.sad
    expected = Action.CLEAR if (outcome, below) == (Outcome.DENIED, Action.CLEAR) else Action.BLOCK
    assert net.packet(alice, ADDRESS["bob"]) is expected
    # And what comes back is taken up again.
    del net.outcome["bob.example"]
    net.wait(600)
    net.packet(alice, ADDRESS["bob"])
    net.wait(70)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_an_error_changes_nothing_while_the_last_answer_is_good(net: Net) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.outcome["bob.example"] = Outcome.ERROR
    net.wait(net.ttl + 5)
    assert "name.unbound" not in alice.kinds()
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_key_taken_back_during_the_handshake(net: Net) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    policy = alice.policies(ADDRESS["bob"])[0]
    net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), policy.reqid, 1))
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["other"].public,))
    net.now = Now(net.now.monotonic + net.ttl + 2, net.now.wall)
    peer = alice.node._peers[0]
    for question in peer.lookup.start(net.now):
        net.step(alice, net.answer(question))
    net.run()
    net.wait(1)
    assert not alice.sad
    assert not bob.sad


# --- below = clear ---


def test_below_clear_nothing_is_trapped_and_protection_is_sought() -> None:
    net = Net()
    alice = net.host("alice", named("bob", below=Action.CLEAR))
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["bob"].public,))
    net.start()
    assert net.packet(alice, ADDRESS["bob"]) is Action.CLEAR
    assert alice.node.ike.sas
    net.host("bob", named("alice", below=Action.CLEAR))
    net.start()
    net.wait(120)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_what_was_once_reached_does_not_sink_silently() -> None:
    net = two({"below": Action.CLEAR})
    alice = net.hosts["alice"]
    net.wait(5)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    net.lost = lambda host, send: True
    net.wait(300)
    assert not alice.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK


# --- commands ---


def test_connect_disconnect_rekey_status(net: Net) -> None:
    alice = net.hosts["alice"]
    reply = net.ask(alice, Connect, "Bob.Example.")
    assert reply is not None
    assert reply.ok
    assert "named" in reply.text
    assert net.ask(alice, Connect, "bob.example").text.endswith("connected already")  # type: ignore[union-attr]
    before = set(alice.sad)
    assert net.ask(alice, Rekey, "bob.example", False).ok  # type: ignore[union-attr]
    assert not before & set(alice.sad)
    spi = alice.node.ike.sas[0].spi
    assert net.ask(alice, Rekey, "bob.example", True).ok  # type: ignore[union-attr]
    assert [sa.spi for sa in alice.node.ike.sas] != [spi]
    status = json.loads(net.ask(alice, Status).body)  # type: ignore[union-attr]
    (peer,) = status["peers"]
    assert (peer["peer"], peer["level"], len(peer["ike"])) == ("bob.example", "named", 1)
    assert peer["ike"][0]["children"][0]["selector"] == "192.0.2.1 <-> 192.0.2.2"
    assert net.ask(alice, Disconnect, "bob.example").ok  # type: ignore[union-attr]
    assert not alice.sad
    assert not net.hosts["bob"].sad
    assert alice.spd
    for command in ((Disconnect, "bob.example"), (Rekey, "bob.example", True), (Disconnect, "nobody.example")):
        assert not net.ask(alice, *command).ok  # type: ignore[union-attr]


def test_connect_a_name_that_no_rule_speaks_of(net: Net) -> None:
    alice, eve = net.hosts["alice"], net.host("eve", named("alice"))
    net.start()
    reply = net.ask(alice, Connect, "eve.example")
    assert reply is not None
    assert reply.ok
    assert eve.sad


@pytest.mark.parametrize("name", ["", "bad name", "x" * 300, "192.0.2.9", "b\u00fccher.example", "a..b"])
def test_connect_what_is_no_name(net: Net, name: str) -> None:
    reply = net.ask(net.hosts["alice"], Connect, name)
    assert reply is not None
    assert not reply.ok


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_connect_a_name_without_binding_is_answered_each_time(net: Net, outcome: Outcome) -> None:
    net.outcome["nobody.example"] = outcome
    for _ in range(3):
        reply = net.ask(net.hosts["alice"], Connect, "nobody.example")
        assert reply is not None
        assert not reply.ok
        net.wait(3)


def test_connect_is_answered_when_nobody_answers(net: Net) -> None:
    net.lost = lambda host, send: True
    alice = net.hosts["alice"]
    assert net.ask(alice, Connect, "bob.example") is None
    net.wait(40)
    (reply,) = alice.replies.values()
    assert not reply.ok
    assert "no answer" in reply.text


def test_connect_without_an_address_of_ours_is_answered() -> None:
    net = Net()
    alice = net.host("alice", named("bob"))
    net.zone["bob.example"] = ((ip_address("2001:db8::2"),), (KEY["bob"].public,))
    net.start()
    reply = net.ask(alice, Connect, "bob.example")
    assert reply is not None
    assert not reply.ok


def test_stop_tells_the_peers_and_leaves_the_policies(net: Net) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    net.step(alice, Stop())
    net.run()
    assert not bob.sad
    assert alice.spd


# --- failure, and time ---


def test_attempts_back_off(net: Net) -> None:
    alice = net.hosts["alice"]
    net.lost = lambda host, send: True
    begun = []
    for _ in range(600):
        net.packet(alice, ADDRESS["bob"])
        begun.append(len(alice.node.ike.sas))
        net.wait(1)
    attempts = sum(later > earlier for earlier, later in itertools.pairwise(begun))
    assert 4 < attempts < 12
    net.lost = lambda host, send: False
    net.wait(LAST_WAIT)
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert alice.node._peers[0].failures == 0


def test_our_own_address_changes(net: Net) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.zone["alice.example"] = ((MOVED,), (KEY["alice"].public,))
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged((MOVED,)))
    net.wait(net.ttl + 40)
    assert not [sa for sa in alice.sad.values() if ADDRESS["alice"] in (sa.source, sa.destination)]
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_only_the_addresses_of_the_configuration_are_used() -> None:
    net = Net()
    alice = net.host("alice", named("bob"), addresses=(ADDRESS["alice"],))
    alice.addresses = (MOVED, ADDRESS["alice"])
    net.host("bob", named("alice"))
    net.start()
    assert {policy.selector.local for policy in alice.spd.values()} == {ip_network("192.0.2.1")}


def test_a_refused_policy_is_asked_for_again(net: Net) -> None:
    net = Net()
    alice = net.host("alice", named("bob", below=Action.CLEAR))
    net.host("bob", named("alice"))
    refusals = iter([True, True])
    alice.refuse = lambda effect: isinstance(effect, InstallPolicy) and next(refusals, False)
    net.start()
    net.wait(5)
    assert "refused" in alice.kinds()
    net.ask(alice, Rekey, "bob.example", False)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_refused_sa_is_told_and_tried_again(net: Net) -> None:
    alice = net.hosts["alice"]
    alice.refuse = lambda effect: isinstance(effect, InstallSA)
    net.packet(alice, ADDRESS["bob"])
    assert not alice.sad
    assert "peer.failed" in alice.kinds()
    alice.refuse = lambda effect: False
    net.wait(5)
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert len(net.hosts["bob"].sad) == 2


def test_the_plane_tells_of_ends_and_moves(net: Net) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    name = next(iter(alice.sad))
    net.step(alice, Mapping(name, Endpoint(MOVED, 9)))
    assert "esp.mapping" in alice.kinds()
    net.step(alice, Expire(name, False))
    net.run()
    assert name not in alice.sad
    assert len(alice.sad) == 2


def test_with_the_userspace_plane_esp_is_in_udp() -> None:
    net = Net()
    alice = net.host("alice", named("bob"), plane=PlaneChoice.USERSPACE)
    bob = net.host("bob", named("alice"))
    net.start()
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    for host in (alice, bob):
        assert {(sa.encapsulation.source_port, sa.encapsulation.destination_port) for sa in host.sad.values()} == {
            (4500, 4500)
        }


SITUATIONS = {
    "nobody answers": lambda net: setattr(net, "lost", lambda host, send: True),
    "no resolver": lambda net: net.silent.update({"bob.example", "alice.example"}),
    "errors": lambda net: net.outcome.update({"bob.example": Outcome.ERROR}),
    "no key": lambda net: net.zone.update({"bob.example": ((ADDRESS["bob"],), ())}),
    "no address of that family": lambda net: net.zone.update(
        {"bob.example": ((ip_address("2001:db8::2"),), (KEY["bob"].public,))}
    ),
    "wrong key": lambda net: setattr(net.hosts["bob"], "key", KEY["other"]),
    "no addresses": lambda net: setattr(net.hosts["alice"], "addresses", ()),
    "plane refuses": lambda net: setattr(net.hosts["alice"], "refuse", lambda effect: True),
}


@pytest.mark.parametrize(
    "rule", [{}, {"below": Action.CLEAR}, {"start": Start.CONNECT}], ids=["trap", "clear", "connect"]
)
@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_time_never_stands_still(situation: Callable[[Net], None], rule: dict[str, Any]) -> None:
    """A deadline in the past moves on within a few steps: no busy loop, whatever fails."""
    net = Net()
    alice = net.host("alice", named("bob", **rule))
    net.host("bob", named("alice"))
    situation(net)
    net.start()
    net.ask(alice, Connect, "bob.example")
    steps = 0
    while net.now.monotonic < 600 and steps < 2000:
        steps += 1
        when = alice.node.deadline()
        if when == NEVER:
            break
        net.now = replace(net.now, monotonic=max(when, net.now.monotonic))
        for again in range(5):
            if alice.node.deadline() > net.now.monotonic:
                break
            assert again < 4
            net.step(alice, Timeout())
        net.run()
    assert steps < 1500


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob"]), st.binary(max_size=200)), max_size=20))
@settings(max_examples=30)
def test_any_octets_are_survived(messages: list[tuple[str, bytes]]) -> None:
    net = Net()
    net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    for name, data in messages:
        net.step(net.hosts[name], Datagram(Endpoint(ADDRESS[name], 500), Endpoint(ADDRESS["eve"], 500), data))
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


@pytest.mark.parametrize("event", [
    Installed(999), Refused(999, "?"), Signed(999, b""), Expire(SAName(1, ADDRESS["bob"]), True),
    Answered(999, "bob.example", 1, Outcome.SECURE, (b"",)), Acquire(Flow(MOVED, MOVED, 0), 0, 0), Timeout(),
])  # fmt: skip
def test_answers_to_nothing_change_nothing(net: Net, event: Any) -> None:
    alice = net.hosts["alice"]
    before = dict(alice.spd)
    net.step(alice, event)
    assert alice.spd == before
    assert not alice.sad
