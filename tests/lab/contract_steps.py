"""The contract of the planes (DESIGN.md section 6): one script, run by test_contract.py against each of them.

The steps about traps are in contract_traps.py.

alice's plane === relay === bob's plane.  HUSHWIRE_PLANE says which; SAs are in UDP, which both planes can.
"""

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hushwire.crypto.secret import Secret
from hushwire.daemon.channel import Channel, pair
from hushwire.events import (
    Acquire,
    CloseFlows,
    Count,
    Counted,
    DeletePolicy,
    DeleteSA,
    Expire,
    Installed,
    InstallPolicy,
    InstallSA,
    Mapping,
    Refused,
)  # fmt: skip
from hushwire.lab.frame import Kind
from hushwire.lab.medium import Rule
from hushwire.lab.namespaces import Host, Topology, end
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay
from hushwire.node.scope import PROTECT_PRIORITY, narrowness
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint, IPAddress, host_network
from hushwire.wire.registry import EncrID

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
REQID, TRAP = 0x6877_0001, 0x6877_0002
LONG = Lifetime(3000, 3600)
AES = EspSuite(EncrID.AES_GCM_16, 256)
News = TypeVar("News")


@dataclass
class Side:
    """One host and its plane."""

    host: Host
    address: IPAddress
    server: IPAddress
    """The name server, as its traps know it."""
    news: list[Any] = field(default_factory=list)
    channel: Channel = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        near, far = pair()
        with far:
            script = str(Path(__file__).with_name("contract_host.py"))
            words = (*self.host.prefix, sys.executable, script, PLANE, str(far.fileno()), str(self.server))
            self.process = subprocess.Popen(words, pass_fds=[far.fileno()])
        self.channel = Channel(near)

    def stop(self) -> None:
        """As the daemon stops."""
        self.channel.close()
        assert self.process.wait(10) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.channel.close()

    def tell(self, *requests: Any) -> list[Any]:
        """The answers, Installed or Refused, to requests that have some."""
        answers: list[Any] = []
        for request in requests:
            self.channel.send(request)
            if isinstance(request, InstallSA | InstallPolicy):
                answers.append(self.expect(Installed | Refused))
        return answers

    def expect(self, kind: Any, seconds: float = 8) -> Any:
        """The next news of a kind."""
        found: list[Any] = []

        def look() -> list[Any]:
            self.news += self.channel.receive()
            found.extend([news for news in self.news if isinstance(news, kind)][:1])
            return found

        assert eventually(look, seconds, 0.01), f"no {kind}: {self.news}"
        self.news.remove(found[0])
        return found[0]

    def heard(self, seconds: float) -> list[Any]:
        """All news until so many seconds have passed; they are taken."""
        time.sleep(seconds)
        while arrived := self.channel.receive():
            self.news += arrived
        heard, self.news = self.news, []
        return heard


@dataclass
class World:
    """Both, and what is between them."""

    relay: Relay
    alice: Side
    bob: Side
    version: int
    installed: set[tuple[str, SAName]] = field(default_factory=set)
    spis: int = 0x1000
    plane: str = PLANE
    reqid: int = REQID
    trap_reqid: int = TRAP
    more: dict[tuple[str, Selector, Direction], Policy] = field(default_factory=dict)
    """Policies other than those between the two hosts."""

    def ping(self, count: int = 1, pattern: bytes = b"", timeout: int = 5, interval: float = 0.3, to: str = "") -> int:
        """How many echoes come back to alice.  When one has, ping waits for others no longer than its interval."""
        with self.pinging(count, pattern, timeout, interval, to) as ping:
            return sum("bytes from" in line for line in ping.communicate(timeout=60)[0].splitlines())

    @contextmanager
    def pinging(
        self, count: int = 1, pattern: bytes = b"", timeout: int = 10, interval: float = 0.05, to: str = ""
    ) -> Iterator[subprocess.Popen[str]]:
        """The same, under way."""
        filling = ("-p", pattern.hex()) if pattern else ()
        words = ("ping", "-n", "-i", str(interval), "-c", str(count), "-W", str(timeout), *filling)
        ping = self.alice.host.start(
            *words, to or str(self.bob.address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            yield ping
        finally:
            end(ping)

    def policies(self, action: Action, *sides: Side) -> None:
        """Have both directions at both ends, or at one, say this."""
        for side in sides or (self.alice, self.bob):
            far = self.bob if side is self.alice else self.alice
            reqid = REQID if action is Action.PROTECT else 0
            for direction in Direction:
                policy = Policy(Selector.between(side.address, far.address), direction, action, 900, reqid)
                assert side.tell(InstallPolicy(1, policy)) == [Installed(1)]

    def trap(self, *, soft: bool = False) -> None:
        """alice has but a trap for everybody, and bob nothing."""
        self.between_hosts_nothing()
        if PLANE == "kernel":
            # Until it has forgotten that it asked for an SA already (xfrm_acq_expires).
            time.sleep(2.5)
        self.narrow(Action.PROTECT, "0.0.0.0/0" if self.version == 4 else "::/0", reqid=TRAP, soft=soft)

    def narrow(self, action: Action, remote: str = "", side: Side | None = None, **more: Any) -> None:
        """A policy of alice's for bob, or for others; where it is PROTECT, both ways at once."""
        side = side or self.alice
        network = ip_network(remote or str(self.bob.address if side is self.alice else self.alice.address))
        selector = Selector(host_network(side.address), network)
        for direction in Direction:
            policy = Policy(selector, direction, action, PROTECT_PRIORITY - narrowness(selector), **more)
            assert side.tell(InstallPolicy(1, policy)) == [Installed(1)]
            self.more[side.host.name, selector, direction] = policy

    def between_hosts_nothing(self) -> None:
        for side, far in ((self.alice, self.bob), (self.bob, self.alice)):
            for direction in Direction:
                side.tell(DeletePolicy(Selector.between(side.address, far.address), direction))

    def sas(self, suite: EspSuite = AES) -> tuple[SA, SA]:
        """Fresh SAs, from alice to bob and back, as their senders have them."""
        made = []
        for near, far in ((self.alice, self.bob), (self.bob, self.alice)):
            self.spis += 1
            made.append(
                SA(
                    self.spis, Direction.OUT, near.address, far.address, Mode.TRANSPORT, suite,
                    Secret(os.urandom(suite.key_bits // 8 + 4)), Secret(b""),
                    Selector.between(near.address, far.address), REQID, LONG, Encapsulation(4500, 4500),
                )
            )  # fmt: skip
        return made[0], made[1]

    def install(self, side: Side, sa: SA) -> Any:
        (answer,) = side.tell(InstallSA(2, sa))
        if isinstance(answer, Installed):
            self.installed.add((side.host.name, SAName(sa.spi, sa.destination)))
        return answer

    def delete(self, side: Side, sa: SA) -> None:
        side.tell(DeleteSA(SAName(sa.spi, sa.destination)))
        self.installed.discard((side.host.name, SAName(sa.spi, sa.destination)))

    def connect(self, there: SA, back: SA, acquire: int = 0) -> None:
        """Install a pair at both ends, what receives first."""
        for side, sa in (
            (self.bob, inward(there)),
            (self.alice, inward(back)),
            (self.bob, back),
            (self.alice, replace(there, acquire=acquire)),
        ):
            assert self.install(side, sa) == Installed(2)

    def clean(self) -> None:
        """No SA stands, and everything is to be protected."""
        for name, sa in list(self.installed):
            (self.alice if name == "alice" else self.bob).tell(DeleteSA(sa))
        self.installed.clear()
        self.relay.clear_rules()
        for name, selector, direction in self.more:
            (self.alice if name == "alice" else self.bob).tell(DeletePolicy(selector, direction))
        self.more.clear()
        self.policies(Action.PROTECT)
        for side in (self.alice, self.bob):
            side.heard(0)

    def esp(self, host: str) -> int:
        return self.relay.report().count(Kind.ESP, host)

    def last_frame(self, host: str) -> bytes:
        """The last ESP frame that a host sent."""
        assert self.esp(host)
        octets, frames, at = self.relay.pcap.read_bytes(), [], 24
        while at < len(octets):
            length = int.from_bytes(octets[at + 8 : at + 12], sys.byteorder)
            frames.append(octets[at + 16 : at + 16 + length])
            at += 16 + length
        mac = bytes.fromhex(self.alice.host.mac.replace(":", "")) if host == "alice" else b""
        header = 34 if self.version == 4 else 54
        return next(f for f in reversed(frames) if f[6:12] == mac and f[header + 2 : header + 4] == b"\x11\x94")


def inward(sa: SA) -> SA:
    """The same SA at the other end."""
    return replace(sa, direction=Direction.IN, selector=Selector(sa.selector.remote, sa.selector.local))


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    version = request.param
    with ExitStack() as stack:
        topology = stack.enter_context(Topology(("alice", "bob")))
        relay = stack.enter_context(Relay(topology))
        sides = []
        for host in topology.hosts.values():
            address = host.v4 if version == 4 else host.v6
            server = topology["bob"].v4 if version == 4 else topology["bob"].v6
            side = Side(host, address, server)
            side.start()
            stack.callback(lambda side=side: (side.channel.close(), end(side.process)))
            sides.append(side)
        yield World(relay, *sides, version)


def step_without_policies_the_relay_sees_everything(world: World) -> None:
    """The control of all that follows."""
    canary = world.relay.canary()
    assert world.ping(2, canary) == 2
    assert world.relay.report().seen(canary) == 4


def step_block_blocks(world: World) -> None:
    world.policies(Action.BLOCK)
    canary = world.relay.canary()
    assert world.ping(2, canary, timeout=1) == 0
    assert world.relay.report().seen(canary) == 0
    assert not [news for news in world.alice.heard(0) if isinstance(news, Acquire)]


def step_blocked_at_one_end_nothing_enters_in_clear(world: World) -> None:
    world.policies(Action.BLOCK)
    for direction in (Direction.OUT, Direction.IN):
        world.alice.tell(DeletePolicy(Selector.between(world.alice.address, world.bob.address), direction))
    assert eventually(lambda: world.ping(timeout=1) == 0 and world.relay.report().count(Kind.CLEAR, "alice") > 4)
    before = world.relay.report().count(Kind.CLEAR, "bob")
    assert world.ping(2, timeout=1) == 0
    assert world.relay.report().count(Kind.CLEAR, "bob") == before


def step_the_first_packet_raises_an_acquire_and_waits(world: World) -> None:
    with world.pinging() as ping:
        acquire = world.alice.expect(Acquire)
        assert (acquire.flow.local, acquire.flow.remote) == (world.alice.address, world.bob.address)
        assert acquire.reqid == REQID
        world.connect(*world.sas(), acquire=acquire.sequence)
        assert ping.wait(15) == 0


def step_traffic_flows_in_esp(world: World) -> None:
    for suite in (
        EspSuite(EncrID.AES_GCM_16, 128, esn=True),
        EspSuite(EncrID.AES_GCM_16, 256),
        EspSuite(EncrID.CHACHA20_POLY1305, 256),
    ):
        there, back = world.sas(suite)
        world.connect(there, back)
        canary, before = world.relay.canary(), world.esp("bob")
        assert world.ping(3, canary) == 3
        assert world.relay.report().seen(canary) == 0
        assert world.esp("bob") - before == 3
        for side, sa in ((world.alice, there), (world.bob, back), (world.alice, back), (world.bob, there)):
            world.delete(side, sa)


def step_deleted_sas_hold_traffic_until_new_ones_come(world: World) -> None:
    first = world.sas()
    world.connect(*first)
    assert world.ping() == 1
    for sa in first:
        world.delete(world.alice, sa)
        world.delete(world.bob, sa)
    before = world.esp("alice")
    with world.pinging(3) as ping:
        acquires = [news for news in world.alice.heard(1) if isinstance(news, Acquire)]
        assert len(acquires) == 1, "one flow asks once"
        assert world.esp("alice") == before
        world.connect(*world.sas(), acquire=acquires[0].sequence)
        assert ping.wait(20) == 0


def step_what_was_held_of_closed_flows_is_for_nobody(world: World) -> None:
    """RFC 5660 s2: the SA that comes is with somebody else."""
    with world.pinging(1, timeout=4) as ping:
        acquire = world.alice.expect(Acquire)
        world.alice.tell(CloseFlows(3, (host_network(world.bob.address),)))
        world.connect(*world.sas(), acquire=acquire.sequence)
        assert ping.wait(15) != 0
    # What begins after that is not held up.
    assert world.ping() == 1


def step_policies_change_in_place_without_a_clear_packet(world: World) -> None:
    world.connect(*world.sas())
    canary = world.relay.canary()
    clear, esp = world.relay.report().count(Kind.CLEAR), world.esp("alice")
    with world.pinging(10_000, canary, interval=0.005) as ping:
        # What is to be seen is a packet that meets a policy as it changes: so they flow before, between and after.
        for _ in range(20):
            assert eventually(lambda before=esp: world.esp("alice") > before)
            for action in (Action.BLOCK, Action.PROTECT):
                world.policies(action, world.alice)
            esp = world.esp("alice")
        ping.terminate()
        ping.wait(10)
    report = world.relay.report()
    assert (report.seen(canary), report.count(Kind.CLEAR)) == (0, clear)
    assert world.ping(3) == 3


def step_packets_end_a_lifetime(world: World) -> None:
    there, back = world.sas()
    there = replace(there, lifetime=Lifetime(soft_packets=4, hard_packets=8))
    world.connect(there, back)
    name, before = SAName(there.spi, there.destination), world.esp("alice")
    assert world.ping(3) == 3
    assert not world.alice.heard(0.2)
    assert world.ping(3) == 3
    assert world.alice.expect(Expire) == Expire(name, False)
    world.ping(5)
    assert world.alice.expect(Expire) == Expire(name, True)
    assert world.esp("alice") - before == 8
    answer_acquire(world)


def step_time_ends_a_lifetime(world: World) -> None:
    there, back = world.sas()
    world.connect(replace(there, lifetime=Lifetime(1, 5)), back)
    name = SAName(there.spi, there.destination)
    assert world.ping() == 1
    assert world.alice.expect(Expire) == Expire(name, False)
    assert world.alice.expect(Expire) == Expire(name, True)
    answer_acquire(world)


def answer_acquire(world: World) -> None:
    """After the end of an SA a packet asks for another, and gets it."""
    with world.pinging() as ping:
        acquire = world.alice.expect(Acquire)
        world.connect(*world.sas(), acquire=acquire.sequence)
        assert ping.wait(20) == 0


def step_a_replayed_packet_is_dropped(world: World) -> None:
    world.connect(*world.sas())
    assert world.ping() == 1
    # The control: what did not arrive the first time does the second.
    world.relay.add(Rule(kind=Kind.ESP, source="alice", drop=True, times=1))
    assert world.ping(timeout=1) == 0
    frame, before = world.last_frame("alice"), world.esp("bob")
    world.relay.inject("bob", frame)
    assert eventually(lambda: world.esp("bob") == before + 1)
    for _ in range(3):
        world.relay.inject("bob", frame)
    time.sleep(0.3)
    assert world.esp("bob") == before + 1


def step_a_wrong_key_delivers_nothing(world: World) -> None:
    there, back = world.sas()
    wrong = replace(there, encr_key=Secret(os.urandom(36)))
    for side, sa in ((world.bob, inward(wrong)), (world.alice, inward(back)), (world.bob, back), (world.alice, there)):
        assert world.install(side, sa) == Installed(2)
    before = world.esp("alice"), world.esp("bob")
    assert world.ping(2, timeout=1) == 0
    assert (world.esp("alice"), world.esp("bob")) == (before[0] + 2, before[1])


def step_an_unknown_spi_delivers_nothing(world: World) -> None:
    there, back = world.sas()
    world.connect(there, back)
    world.delete(world.bob, inward(there))
    before = world.esp("alice"), world.esp("bob")
    assert world.ping(2, timeout=1) == 0
    assert (world.esp("alice"), world.esp("bob")) == (before[0] + 2, before[1])
    assert not [news for news in world.bob.heard(0.2) if isinstance(news, Acquire | Expire | Mapping)]


def step_a_new_source_port_is_told(world: World) -> None:
    there, back = world.sas()
    world.connect(there, back)
    assert world.ping() == 1
    world.relay.add(Rule(kind=Kind.ESP, source="alice", drop=True, times=1))
    assert world.ping(timeout=1) == 0
    frame = world.last_frame("alice")
    port = 34 if world.version == 4 else 54
    moved = frame[:port] + (4711).to_bytes(2, "big") + frame[port + 2 :]
    if world.version == 4:
        moved = moved[: port + 6] + bytes(2) + moved[port + 8 :]
    else:
        checksum = int.from_bytes(frame[port + 6 : port + 8], "big")
        if checksum:
            total = 0xFFFF - checksum + 4711 + (0xFFFF - 4500)
            total = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
            moved = moved[: port + 6] + total.to_bytes(2, "big") + moved[port + 8 :]
    world.relay.inject("bob", moved)
    said = world.bob.expect(Mapping)
    assert said == Mapping(SAName(there.spi, there.destination), Endpoint(world.alice.address, 4711))


def step_what_cannot_be_is_refused_with_a_reason(world: World) -> None:
    there, _ = world.sas()
    for bad in (
        replace(there, encr_key=Secret(b"abc")),
        replace(there, suite=EspSuite(EncrID.TRIPLE_DES, 192)),
        replace(there, spi=7),
    ):
        (answer,) = world.alice.tell(InstallSA(5, bad))
        assert isinstance(answer, Refused), bad.suite
        assert answer.request == 5
        assert answer.reason.isprintable()
    assert world.install(world.bob, inward(there)) == Installed(2)
    other = replace(inward(there), encr_key=Secret(os.urandom(36)))
    assert isinstance(world.install(world.bob, other), Refused), "an SPI in use is nobody else's"
    # Nothing of it stands in the way of what is right.
    world.delete(world.bob, inward(there))
    world.connect(*world.sas())
    assert world.ping() == 1


def step_to_delete_what_is_not_there_is_done_already(world: World) -> None:
    world.alice.tell(DeleteSA(SAName(0xDEAD_BEEF, world.bob.address)))
    nowhere = Selector.between(world.alice.address, world.alice.address + 77)
    for direction in Direction:
        world.alice.tell(DeletePolicy(nowhere, direction))
    world.connect(*world.sas())
    assert world.ping() == 1
    assert not [news for news in world.alice.heard(0.1) if isinstance(news, Refused)]


def step_packets_are_counted(world: World) -> None:
    there, back = world.sas()
    world.connect(there, back)
    assert world.ping(3) == 3
    names = [SAName(sa.spi, sa.destination) for sa in (there, back)]
    for asked, packets in ((names, 6), (names[:1], 3), ([], 0), ([SAName(0xDEAD_BEEF, world.bob.address)], 0)):
        world.alice.channel.send(Count(7, tuple(asked)))
        assert world.alice.expect(Counted) == Counted(7, packets)


STEPS: list[Callable[[World], None]] = [
    step
    for steps in (globals(), runpy.run_path(str(Path(__file__).with_name("contract_traps.py"))))
    for name, step in list(steps.items())
    if name.startswith("step_")
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__.removeprefix("step_"))
def test_contract(world: World, step: Callable[[World], None]) -> None:
    if step is not STEPS[0]:
        world.clean()
    step(world)
