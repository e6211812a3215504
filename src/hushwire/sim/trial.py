"""sim: one seed's story: two hosts, bad weather, and everything that administrators and owners of names do to them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from hushwire.config import Config, Esp, Ike, Rule, Start
from hushwire.config import Host as HostConfig
from hushwire.config.proposal import esp_offer, ike_offer
from hushwire.events import Connect, Disconnect, Outcome, Rekey, Status
from hushwire.policy.sad import Mode
from hushwire.sim import deeds
from hushwire.sim.check import unsettled
from hushwire.sim.host import Host
from hushwire.sim.pair import ALICE, BOB, IPV4, IPV6, pair
from hushwire.sim.world import Violation, Weather, World

STORM = Weather(loss=0.2, duplication=0.1, delay=(0.005, 0.2), inside=0.003, refusal=0.01)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the trials of a campaign have in common; times are in virtual seconds."""

    weather: Weather = STORM
    storm: float = 120.0
    """How long the weather is bad and things are done to the hosts."""
    settle: float = 240.0
    """How long the two have, in calm weather, to come to terms."""
    grace: float = 10.0
    """How long a rekey may be under way when the two are looked at."""
    deeds: int = 8
    """The most that is done to them."""


class Trial:
    """One world.  `run` raises Violation, or whatever a bug raises."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.world = World(seed, self.plan.weather)
        # The story has its own stream, so that it stays the same while the code under test changes.
        self._chance = random.Random(f"story {seed}")
        self.world.zone.ttl = self._chance.randint(5, 60)
        mode = self._chance.choice((Mode.TRANSPORT, Mode.TRANSPORT, Mode.TUNNEL))
        configs = self._config(ALICE, BOB, mode), self._config(BOB, ALICE, mode)
        addresses = self._chance.choice((IPV4, IPV6))
        self.hosts = self.alice, self.bob = pair(self.world, *configs, addresses)

    def run(self) -> None:
        """The whole story."""
        world, chance, plan = self.world, self._chance, self.plan
        for host, peer in ((self.alice, BOB), (self.bob, ALICE)):
            world.after(chance.choice((0.0, 0.0, chance.uniform(0, 5))), host.start)
            world.after(5.0, lambda host=host, peer=peer: host.talk(peer, chance.uniform(0.5, 3), plan.storm + 1e9))  # type: ignore[misc]
        for _ in range(chance.randint(0, plan.deeds)):
            world.after(chance.uniform(3, plan.storm), self._deed())
        world.run(plan.storm)
        deeds.calm(world, self.hosts)
        world.run(plan.settle)
        self._judge()

    def _config(self, name: str, peer: str, mode: Mode) -> Config:
        chance = self._chance
        ike = Ike(
            (ike_offer(chance.choice(IKE_OFFERS)), ike_offer(IKE_OFFERS[0])),
            lifetime=chance.choice((20, 50, 100, 14400)),
            liveness=chance.choice((5, 30)),
        )
        esp = Esp(
            (esp_offer(chance.choice(ESP_OFFERS)), esp_offer(ESP_OFFERS[0])),
            lifetime=chance.choice((15, 40, 100, 3600)),
            packets=chance.choice((60, 1 << 31)),
            replay_window=chance.choice((32, 1024)),
        )
        rule = Rule(peer, mode=mode, start=chance.choice(list(Start)))
        return Config(HostConfig(name), ike=ike, esp=esp, rules=(rule,))

    # --- what is done ---

    def _deed(self) -> Callable[[], None]:
        chance = self._chance
        deed = chance.choice(
            (self._rekey, self._rekey, self._rekey, self._disconnect, self._connect, self._restart, self._new_key,
             self._move, self._darken)
        )  # fmt: skip
        return deed(chance.choice(((self.alice,), (self.bob,), self.hosts)))

    def _tell(self, hosts: tuple[Host, ...], event: Callable[[str], object], what: str) -> Callable[[], None]:
        def act() -> None:
            self.world.remark(f"{_names(hosts)}: {what}")
            for host in hosts:
                if host.up:
                    host.tell(event(self._peer(host).name))  # type: ignore[arg-type]

        return act

    def _rekey(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        ike = self._chance.random() < 0.5
        return self._tell(hosts, lambda peer: Rekey(1, peer, ike), f"rekey {'the IKE SA' if ike else 'the Child SA'}")

    def _disconnect(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        return self._tell(hosts, lambda peer: Disconnect(1, peer), "disconnect")

    def _connect(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        return self._tell(hosts, lambda peer: Connect(1, peer), "connect")

    def _restart(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        """The power fails at one of them."""
        return partial(deeds.restart, hosts[0], self._chance.choice((0.0, self._chance.uniform(0, 40))))

    def _new_key(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        return partial(deeds.new_key, hosts[0])

    def _move(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        host = hosts[0]
        return partial(deeds.move, host, str(host.addresses[0] + self._chance.randint(1, 9)))

    def _darken(self, hosts: tuple[Host, ...]) -> Callable[[], None]:
        name, seconds = hosts[0].name, self._chance.uniform(2, 40)
        outcome = self._chance.choice((Outcome.ERROR, Outcome.ERROR, Outcome.INSECURE))

        def act() -> None:
            self.world.remark(f"{name} cannot be looked up for {seconds:.1f} s: {outcome.value}")
            self.world.zone.faults[name] = outcome
            self.world.after(seconds, lambda: self.world.zone.faults.pop(name, None) and None)

        return act

    def _peer(self, host: Host) -> Host:
        return self.bob if host is self.alice else self.alice

    # --- the end ---

    def _judge(self) -> None:
        """P6.  A rekey may be under way at any moment: they are looked at for a while."""
        why = "looked at for no time"
        for _ in range(int(4 * self.plan.grace)):
            why = unsettled(*self.hosts)
            if not why:
                break
            self.world.run(0.25)
        if why:
            raise Violation(f"P6: {why}")
        for host in self.hosts:
            host.tell(Status(1))
            peer, before = self._peer(host), len(self._peer(host).heard)
            host.say(peer.name)
            self.world.run(1)
            if len(peer.heard) == before:
                raise Violation(f"P6: {peer.name} hears nothing of {host.name}")


def _names(hosts: tuple[Host, ...]) -> str:
    return " and ".join(host.name for host in hosts)


IKE_OFFERS = (
    "aes256gcm16-prfsha256-x25519",
    "aes128gcm16-prfsha256-ecp256-x25519",
    "chacha20poly1305-prfsha512-x25519-ecp256",
    "aes256-sha256-prfsha256-ecp384-x25519",
)
ESP_OFFERS = ("aes256gcm16-x25519", "aes128gcm16", "chacha20poly1305-ecp256-noesn", "aes256-sha256-x25519")
"""What hosts like best; all of them take the first as well."""
