"""Nodes back to back over a little zone, stepped by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.config import Config, Dns, PlaneChoice, Rule
from hushwire.config import Host as HostConfig
from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Asked,
    CloseFlows,
    Count,
    Counted,
    CountFlows,
    Datagram,
    DeletePolicy,
    DeleteSA,
    FlowsFound,
    Installed,
    InstallPolicy,
    InstallSA,
    Lookup,
    Notice,
    Outcome,
    ReadTrusted,
    Refused,
    Release,
    Reply,
    Send,
    Sign,
    Signed,
    Timeout,
    TrustRead,
)  # fmt: skip
from hushwire.names.binding import AAAA, A
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.names.tlsa import TLSA, write_fingerprint
from hushwire.node import Node, Secrets
from hushwire.policy.sad import SAName
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.policy.trust import Trusted, TrustStore
from hushwire.timers import Now
from hushwire.wire.registry import PrfID

PSK = Secret(b"sixteen octets and more")
ADDRESS = {
    name: ip_address(text)
    for name, text in [("alice", "192.0.2.1"), ("bob", "192.0.2.2"), ("carol", "192.0.2.3"), ("eve", "192.0.2.66")]
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
    releases: dict[int, Release] = field(default_factory=dict)
    """What programs were told, by the number of their question."""
    said: list[Any] = field(default_factory=list)
    """Every effect, in order."""
    slow: bool = False
    """Its plane confirms no policy before confirm() is called."""
    unconfirmed: list[int] = field(default_factory=list)
    carried: int = 0
    """Packets of all its SAs together."""
    trusted: list[Trusted] = field(default_factory=list)
    """What its trust store says when it is read again."""
    flows: list[Flow] = field(default_factory=list)
    """Connections of its programs."""
    ends: dict[Any, float] = field(default_factory=dict)
    """When its plane lets go of a policy by itself."""

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
    vouched: dict[str, tuple[PublicKey, ...]] = field(default_factory=dict)
    """Keys whose fingerprints the zone has, by the host's name."""
    outcome: dict[str, Outcome] = field(default_factory=dict)
    """What else than the truth is said of a name.  INSECURE goes with the records, as a validator passes them on."""
    of_type: dict[tuple[str, int], Outcome] = field(default_factory=dict)
    """As `outcome`, of one type alone; of TLSA, too, by the host's name."""
    silent: set[str] = field(default_factory=set)
    """Names that the resolver says nothing about."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Where a CNAME leads."""
    taken: dict[Any, Host] = field(default_factory=dict)
    """Who gets what is sent to an address, in place of whose it is: he is on the path."""
    ttl: int = 60
    now: Now = field(default_factory=lambda: Now(0.0, 1.8e9))
    late: list[tuple[Host, Lookup]] = field(default_factory=list)
    wire: list[tuple[Host, Send]] = field(default_factory=list)
    lost: Callable[[Host, Send], bool] = lambda host, send: False
    requests: int = 1_000_000

    def host(
        self, name: str, *rules: Rule, key: str = "", plane: PlaneChoice = PlaneChoice.KERNEL, pinned: Any = None,
        shared: Any = None, addresses: tuple[Any, ...] = (), ask: tuple[str, ...] = (),
        trusted: TrustStore | None = None,
    ) -> Host:  # fmt: skip
        private = KEY[key or name]
        config = Config(HostConfig(f"{name}.example", addresses=addresses), Dns(ask=ask), rules=rules)
        secrets = Secrets(private.public, pinned or {}, shared or {}, trusted or TrustStore())
        host = Host(name, Node(config, secrets, plane, SeededEntropy(name.encode())), private, (ADDRESS[name],))
        self.hosts[name] = host
        self.zone.setdefault(f"{name}.example", ((ADDRESS[name],), (private.public,)))
        return host

    def start(self) -> None:
        for host in self.hosts.values():
            self.step(host, AddressesChanged(host.addresses))
        self.run()

    def step(self, host: Host, event: Any) -> None:
        effects = host.node.step(self.now, event)
        self._deadline_of(host)
        for effect in effects:
            self._perform(host, effect)

    def ask(self, host: Host, command: Any, *rest: Any) -> Reply | None:
        self.requests += 1
        self.step(host, command(self.requests, *rest))
        self.run()
        return host.replies.get(self.requests)

    def look_up(self, host: Host, name: str) -> int:
        """A program asks for a name's addresses; what it was told will be in host.releases by this number."""
        self.requests += 1
        self.step(host, Asked(self.requests, name))
        self.run()
        return self.requests

    def told(self, host: Host, name: str, patience: float = 15.0) -> Release:
        """What a program is told, however long that takes."""
        number = self.look_up(host, name)
        for _ in range(int(patience * 4)):
            if number in host.releases:
                break
            self.wait(0.25)
        return host.releases[number]

    def confirm(self, host: Host) -> None:
        """The plane has done what was asked of it so far."""
        waiting, host.unconfirmed = host.unconfirmed, []
        for request in waiting:
            self.step(host, Installed(request))
        self.run()

    def _perform(self, host: Host, effect: Any) -> None:
        host.said.append(effect)
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
                if _subject(effect) in self.silent:
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
                host.ends.pop((policy.selector, policy.direction), None)
                if policy.lifetime:
                    host.ends[policy.selector, policy.direction] = self.now.monotonic + policy.lifetime
                if host.slow:
                    host.unconfirmed.append(request)
                else:
                    self.step(host, Installed(request))
            case DeletePolicy(selector, direction):
                # What has ended by itself is gone already.
                host.spd.pop((selector, direction), None)
            case Count(request, sas):
                self.step(host, Counted(request, host.carried if set(sas) & set(host.sad) else 0))
            case ReadTrusted(request) if host.refuse(effect):
                self.step(host, Refused(request, "by the test"))
            case ReadTrusted(request):
                half = len(host.trusted) // 2
                self.step(host, TrustRead(request, tuple(host.trusted[:half]), False))
                self.step(host, TrustRead(request, tuple(host.trusted[half:]), True))
            case CloseFlows(request, remotes):
                closed = [flow for flow in host.flows if any(flow.remote in remote for remote in remotes)]
                host.flows = [flow for flow in host.flows if flow not in closed]
                self.step(host, FlowsFound(request, len(closed)))
            case CountFlows(request, remotes):
                self.step(host, FlowsFound(request, sum(
                    any(flow.remote in remote for remote in remotes) for flow in host.flows
                )))  # fmt: skip
            case Release(request):
                host.releases[request] = effect
            case Notice():
                host.notices.append(effect)
            case Reply(request):
                host.replies[request] = effect

    def answer(self, question: Lookup) -> Answered:
        request, name, rdtype = question.request, question.name, question.rdtype
        subject = _subject(question)
        bad = self.outcome.get(subject) or self.of_type.get((subject, rdtype))
        alias = self.aliases.get(name, "")
        addresses, keys = self.zone.get(alias or name, ((), ()))
        rdata = {
            A: tuple(a.packed for a in addresses if a.version == 4),
            AAAA: tuple(a.packed for a in addresses if a.version == 6),
            IPSECKEY: tuple(write_record(KeyRecord(10, None, key)) for key in keys),
            TLSA: tuple(write_fingerprint(key.fingerprint) for key in self.vouched.get(subject, ())),
        }[rdtype]
        if bad in (Outcome.DENIED, Outcome.ERROR):
            return Answered(request, name, rdtype, bad, ttl=self.ttl, reason="by the test")
        outcome = bad or (Outcome.SECURE if rdata else Outcome.DENIED)
        return Answered(request, name, rdtype, outcome, rdata, self.ttl, canonical=alias)

    def run(self) -> None:
        """Carry datagrams until there are no more."""
        for _ in range(2000):
            if not self.wire:
                return
            sender, send = self.wire.pop(0)
            for host in self.hosts.values():
                here = self.taken.get(send.remote.address, host) is host
                if here and send.remote.address in host.addresses and not self.lost(sender, send):
                    self.step(host, Datagram(send.remote, send.local, send.data))
        raise AssertionError("they never stop talking")

    def wait(self, seconds: float) -> None:
        end = self.now.monotonic + seconds
        for _ in range(20_000):
            soonest = min(self._deadline_of(host) for host in self.hosts.values())
            if soonest > end:
                break
            self.now = Now(max(soonest, self.now.monotonic), self.now.wall + max(0.0, soonest - self.now.monotonic))
            for host in self.hosts.values():
                if host.node.deadline() <= self.now.monotonic:
                    self.step(host, Timeout())
            self.run()
            self._let_lapse()
        else:
            raise AssertionError("time stands still")
        self.now = Now(end, self.now.wall + end - self.now.monotonic)
        self._let_lapse()

    def _deadline_of(self, host: Host) -> float:
        """What the Node says; of no peer may it have been missed that its time has changed."""
        told = host.node.deadline()
        peers = host.node.peers._by_reqid.values()
        assert told <= min(map(host.node._deadline_of, peers), default=told)
        return told

    def _let_lapse(self) -> None:
        for host in self.hosts.values():
            for key in [key for key, end in host.ends.items() if end <= self.now.monotonic]:
                del host.ends[key]
                host.spd.pop(key, None)

    def packet(self, host: Host, remote: Any, protocol: int = 0, remote_port: int = 0, local: Any = None) -> Any:
        """A packet leaves: what the plane would do with it, raising Acquire as the kernel does."""
        local = local or host.addresses[0]
        flow = Flow(local, remote, protocol, 0, remote_port)
        found = [p for p in host.spd.values() if p.direction.value == "out" and p.selector.matches(flow)]
        if not found:
            return Action.CLEAR
        policy = min(found, key=lambda policy: policy.priority)
        if policy.action is not Action.PROTECT:
            return policy.action
        fits = [sa for sa in host.sad.values() if sa.direction.value == "out" and sa.reqid == policy.reqid]
        if any(sa.selector.matches(flow) for sa in fits):
            return Action.PROTECT
        self.step(host, Acquire(flow, policy.reqid, 7))
        self.run()
        return Action.BLOCK

    def fate(self, host: Host, remote: Any, patience: float = 12.0) -> Action:
        """What becomes of packets to an address in the end: the first may have to be held for a while."""
        now = self.packet(host, remote)
        for _ in range(int(patience)):
            if now is not Action.BLOCK:
                break
            self.wait(1.0)
            now = self.packet(host, remote)
        return now


def _subject(question: Lookup) -> str:
    """The host that a question is about."""
    return question.name.removeprefix("_500._udp.")


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


@pytest.fixture
def make_net() -> type[Net]:
    return Net


@pytest.fixture
def two() -> Callable[..., Net]:
    """Alice and Bob with rules that say more."""

    def make(alice: dict[str, Any], bob: dict[str, Any] | None = None) -> Net:
        net = Net()
        net.host("alice", named("bob", **alice))
        net.host("bob", named("alice", **(alice if bob is None else bob)))
        net.start()
        return net

    return make
