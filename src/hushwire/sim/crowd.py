"""sim: hosts that have never been introduced: each has a rule about many names, and its programs ask for each other."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hushwire.config import Config, Dns, Rule
from hushwire.config import Host as HostConfig
from hushwire.events import Outcome, Release, Verdict
from hushwire.names.ipseckey import IPSECKEY
from hushwire.names.tlsa import TLSA
from hushwire.node.rulebook import permits_clear
from hushwire.policy.spd import Action
from hushwire.sim import deeds
from hushwire.sim.check import Check
from hushwire.sim.host import CANARY, Host
from hushwire.sim.world import Violation, Weather, World
from hushwire.wire.address import IPAddress

ROUGH = Weather(loss=0.1, duplication=0.05, delay=(0.005, 0.1), inside=0.002)
NAMES = ("ann.example", "ben.example", "cat.example")
PLAIN = "plain.example"
"""Has an address, where nobody is, and no key."""


@dataclass(frozen=True, slots=True)
class CrowdPlan:
    """What the trials have in common; times are in virtual seconds."""

    weather: Weather = ROUGH
    storm: float = 90.0
    settle: float = 240.0
    visits: int = 20
    deeds: int = 6


class CrowdCheck(Check):
    """P1, by name: nothing in clear of what a program sends to a name whose rule says block, nor to one that has once
    been protected since the host came up."""

    def __init__(self) -> None:
        super().__init__()
        self._reached: set[tuple[str, int, str]] = set()

    def closed(self, host: Host, packet: bytes) -> bool:
        name = packet.partition(CANARY)[2].partition(b">")[2].rpartition(b"-")[0].decode()
        rules = host.node.peers.rulebook.for_name(name)
        return rules is None or not permits_clear(rules) or (host.name, host.lives, name) in self._reached

    def stepped(self, host: Host) -> None:
        super().stepped(host)
        for sa in host.node.ike.sas:
            if sa.authenticated is not None and sa.children:
                self._reached.add((host.name, host.lives, sa.authenticated.entry.name))


class Crowd:
    """One world.  `run` raises Violation, or whatever a bug raises."""

    def __init__(self, seed: int, plan: CrowdPlan | None = None) -> None:
        self.plan = plan or CrowdPlan()
        self.world = World(seed, self.plan.weather)
        self._chance = random.Random(f"crowd {seed}")
        self.world.zone.ttl = self._chance.randint(5, 40)
        self.told = dict.fromkeys(Verdict, 0)
        """How often programs were told what."""
        check = CrowdCheck()
        self.hosts = [
            Host(self.world, self._config(name), (f"192.0.{number}.1",), check) for number, name in enumerate(NAMES)
        ]
        for host in self.hosts:
            host.publish()
        self.world.zone.publish(PLAIN, (self.hosts[0].addresses[0] + 1024,))

    def run(self) -> None:
        """The whole story."""
        world, chance, plan = self.world, self._chance, self.plan
        for host in self.hosts:
            world.after(chance.uniform(0, 3), host.start)
        for _ in range(plan.visits):
            host, name = chance.choice(self.hosts), chance.choice((*NAMES, PLAIN))
            world.after(chance.uniform(3, plan.storm), lambda host=host, name=name: self._visit(host, name))  # type: ignore[misc]
        for _ in range(chance.randint(0, plan.deeds)):
            world.after(chance.uniform(3, plan.storm), self._deed())
        world.run(plan.storm)
        deeds.calm(world, self.hosts)
        self._judge()

    def _config(self, name: str) -> Config:
        chance = self._chance
        rules = [Rule("*.example", below=chance.choice((Action.BLOCK, Action.CLEAR)))]
        if chance.random() < 0.5:
            other = chance.choice([other for other in NAMES if other != name])
            rules.append(Rule(other, below=chance.choice((Action.BLOCK, Action.CLEAR))))
        return Config(HostConfig(name), Dns(ask=("*.example",)), rules=tuple(rules))

    # --- programs ---

    def _visit(self, host: Host, name: str, heard: Callable[[bytes], None] = lambda _: None) -> None:
        """A program asks for a name, and sends a packet to what it is told."""
        if not host.up or name == host.name:
            return

        def told(release: Release) -> None:
            self.told[release.verdict] += 1
            addresses: tuple[IPAddress, ...] = release.addresses
            if release.verdict is Verdict.PASS:
                addresses = self.world.zone.records[name].addresses
            for address in addresses:
                heard(host.speak(address, name))

        host.ask(name, told)

    # --- what is done ---

    def _deed(self) -> Callable[[], None]:
        chance = self._chance
        host, other = chance.sample(self.hosts, 2)
        deed = chance.choice((self._restart, self._new_key, self._move, self._swap, self._darken, self._withdraw))
        return deed(host, other)

    def _restart(self, host: Host, _: Host) -> Callable[[], None]:
        return partial(deeds.restart, host, self._chance.uniform(0, 30))

    def _new_key(self, host: Host, _: Host) -> Callable[[], None]:
        return partial(deeds.new_key, host)

    def _move(self, host: Host, _: Host) -> Callable[[], None]:
        far = self._chance.randint(1, 9)
        return lambda: deeds.move(host, str(host.addresses[0] + far))

    def _swap(self, host: Host, other: Host) -> Callable[[], None]:
        """Each has the other's address: a network that gives them out anew."""

        def act() -> None:
            self.world.remark(f"{host.name} and {other.name} exchange their addresses")
            ours, theirs = str(host.addresses[0]), str(other.addresses[0])
            host.move(theirs)
            other.move(ours)
            host.publish()
            other.publish()

        return act

    def _darken(self, host: Host, _: Host) -> Callable[[], None]:
        return self._fault(host.name, self._chance.choice((Outcome.ERROR, Outcome.INSECURE)))

    def _withdraw(self, host: Host, _: Host) -> Callable[[], None]:
        return self._fault(host.name, Outcome.DENIED)

    def _fault(self, name: str, outcome: Outcome) -> Callable[[], None]:
        """Its keys cannot be had for a while; its addresses can."""
        seconds = self._chance.uniform(2, 40)

        questions = (name, IPSECKEY), (name, TLSA)

        def lift() -> None:
            for question in questions:
                self.world.zone.faults.pop(question, None)

        def act() -> None:
            self.world.remark(f"the keys of {name}: {outcome.value} for {seconds:.1f} s")
            self.world.zone.faults |= dict.fromkeys(questions, outcome)
            self.world.after(seconds, lift)

        return act

    # --- the end ---

    def _judge(self) -> None:
        """P6: in calm weather every name can be reached from everywhere, and what is sent to it arrives."""
        open_ends = {(host.name, name) for host in self.hosts for name in NAMES if name != host.name}
        sent: dict[bytes, tuple[str, str]] = {}
        for _ in range(int(self.plan.settle / 5)):
            for host in self.hosts:
                for name in sorted(name for one, name in open_ends if one == host.name):
                    self._visit(host, name, lambda payload, ends=(host.name, name): sent.update({payload: ends}))  # type: ignore[misc]
            self.world.run(5)
            for host in self.hosts:
                open_ends -= {sent[payload] for payload in host.heard if sent.get(payload, ("", ""))[1] == host.name}
            if not open_ends:
                return
        pairs = ", ".join(f"{one} and {other}" for one, other in sorted(open_ends))
        raise Violation(f"P6: there is no way between {pairs}")
