"""sim: one host: a Node, a userspace plane, a keeper and an application, joined as the daemon joins its processes."""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from hushwire.config import Config, PlaneChoice
from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.crypto.prf import IkeKeys
from hushwire.crypto.secret import Secret
from hushwire.crypto.suite import IkeSuite
from hushwire.entropy import SeededEntropy
from hushwire.esp.plane import Bypass, Cause, Deliver, Output, Plane, Request, Transmit
from hushwire.events import (
    AddressesChanged,
    Asked,
    CloseFlows,
    Count,
    CountFlows,
    Datagram,
    DeletePolicy,
    DeleteSA,
    Effect,
    Event,
    Expire,
    FlowsFound,
    HostKey,
    InstallPolicy,
    InstallSA,
    Lookup,
    Notice,
    ReadKey,
    Refused,
    Release,
    Reply,
    Send,
    Sign,
    Signed,
    Timeout,
)  # fmt: skip
from hushwire.ike.state import State
from hushwire.node import Node, Secrets
from hushwire.policy.sad import SA, SAName
from hushwire.sim.world import Frame, Violation, World
from hushwire.timers import NEVER
from hushwire.wire import ip, udp
from hushwire.wire.address import Endpoint, IPAddress, address_from_octets
from hushwire.wire.registry import IPProtocol, PrfID

CANARY = b"canary-"
"""Begins every payload of an application: nobody may ever see it on the wire."""
PORT = 40_000
"""UDP port of the applications."""
SPINNING = 1000
"""Timeouts in one instant that are too many: a deadline that never goes away."""


@dataclass(frozen=True, slots=True)
class IkeView:
    """What it takes to read an IKE SA's messages."""

    spi_i: bytes
    spi_r: bytes
    suite: IkeSuite
    keys: IkeKeys


class Witness:
    """Sees everything that a host does."""

    def sent(self, host: "Host", frame: Frame) -> None:
        """A datagram went out."""

    def delivered(self, host: "Host", payload: bytes) -> None:
        """An application got a payload."""

    def stepped(self, host: "Host") -> None:
        """The Node took an event, and what it asked for is under way."""


class Host:
    """One host of a world.  It is down until start() and after stop(); nothing but its key and its zone survives."""

    def __init__(
        self, world: World, config: Config, addresses: tuple[str, ...], witness: Witness | None = None,
        shared: Mapping[str, Secret] | None = None, pinned: Mapping[str, PublicKey] | None = None,
    ) -> None:  # fmt: skip
        self.world = world
        self.config = config
        self.name = config.host.name
        self.addresses: tuple[IPAddress, ...] = tuple(ip_address(address) for address in addresses)
        self.witness = witness or Witness()
        self.shared = dict(shared or {})
        """Keys shared with peers, by the rule's peer."""
        self.up = False
        self.lives = 0
        self.node: Node
        self.plane: Plane
        self.sad: dict[SAName, SA] = {}
        """What the plane holds, by what it was asked and has reported."""
        self.under_way = 0
        """Messages between the Node and the plane that have not arrived."""
        self.views: dict[tuple[bytes, bytes], IkeView] = {}
        """Every IKE SA that this host ever had keys of."""
        self.installed: dict[tuple[int, IPAddress], list[SA]] = {}
        """Every SA that its plane ever held, by SPI and destination."""
        self.full: Callable[[SA], bool] | None = None
        """Decides which SAs the plane has no room for, in place of the weather."""
        self.notices: list[tuple[float, Notice]] = []
        self.replies: list[Reply] = []
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        self._pinned = dict(pinned or {})
        self._questions = itertools.count(1)
        self._askers: dict[int, Callable[[Release], None]] = {}
        """Programs that wait, by the number of their question."""
        self._channels = {"to": 0.0, "from": 0.0}
        self._wake_at = NEVER
        self._timeouts = (0.0, 0)
        self.new_key()
        world.stations.append(self)

    # --- its life ---

    def new_key(self) -> None:
        """Make another identity key; it counts from the next start(), or from when the keeper is asked to read it."""
        self.generation = getattr(self, "generation", 0) + 1
        seed = f"{self.world.seed}/{self.name}/{self.generation}".encode()
        self.key = PrivateKey.from_seed(Secret(hashlib.sha256(seed).digest()))

    def publish(self) -> None:
        """Put addresses and key into the zone."""
        self.world.zone.publish(self.name, self.addresses, self.key.public)

    def start(self) -> None:
        """Come up with nothing remembered."""
        self.lives += 1
        self.up = True
        seed = f"{self.world.seed}/{self.name}/life {self.lives}/"
        self.kept = {self.key.public.fingerprint: self.key}
        secrets = Secrets(self.key.public, self._pinned, {name: name.encode() for name in self.shared})
        node_entropy = SeededEntropy((seed + "node").encode())
        self.node = Node(self.config, secrets, PlaneChoice.USERSPACE, node_entropy)
        self.plane = Plane(SeededEntropy((seed + "plane").encode()))
        self.sad = {}
        self.under_way = 0
        self._askers.clear()
        self._channels = {"to": 0.0, "from": 0.0}
        self._wake_at = NEVER
        self.tell(AddressesChanged(self.addresses))

    def stop(self) -> None:
        """Go down as kill -9 or a power cut does."""
        self.up = False

    def move(self, *addresses: str) -> None:
        """Have other addresses, all at once."""
        self.addresses = tuple(ip_address(address) for address in addresses)
        if self.up:
            self.tell(AddressesChanged(self.addresses))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen in this life of the host, or not at all."""
        life = self.lives

        def act() -> None:
            if self.up and self.lives == life:
                action()

        self.world.after(seconds, act)

    # --- the Node ---

    def tell(self, event: Event) -> None:
        """Step the Node, and perform what it asks for."""
        effects = self.node.step(self.world.now, event)
        for sa in self.node.ike.sas:
            if sa.state is not State.INITIAL and (sa.spi_i, sa.spi_r) not in self.views:
                self.views[sa.spi_i, sa.spi_r] = IkeView(sa.spi_i, sa.spi_r, sa.suite, sa.keys)
        for effect in effects:
            self._perform(effect)
        self.witness.stepped(self)
        self._arm()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(local, remote, data):
                marker = udp.NON_ESP_MARKER if local.port == self.config.host.nat_port else b""
                self._emit(local, remote, marker + data)
            case Sign(request):
                self.later(self._inside(), lambda: self.tell(Signed(request, self._signature(effect))))
            case ReadKey(request):
                self.kept[self.key.public.fingerprint] = self.key
                self.later(self._inside(), lambda: self.tell(HostKey(request, self.key.public.spki)))
            case Lookup():
                self.later(0.01 + 10 * self._inside(), lambda: self.tell(self.world.zone.answer(effect)))
            case InstallSA() | DeleteSA() | InstallPolicy() | DeletePolicy() | Count():
                self._channel("to", lambda: self._request(effect))
            case CloseFlows(request) | CountFlows(request):
                # Nobody here is a program with a connection.
                self._channel("to", lambda: self._channel("from", lambda: self.tell(FlowsFound(request, 0))))
            case Release(request):
                self._askers.pop(request)(effect)
            case Notice():
                self.notices.append((self.world.time, effect))
            case Reply():
                self.replies.append(effect)

    def _signature(self, asked: Sign) -> bytes:
        """What the keeper answers."""
        kind, _, prf = asked.scheme.partition("/")
        if kind == "SHARED_KEY":
            return shared_key_auth(PrfID[prf], self.shared[asked.key.decode()], asked.octets)
        return sign(self.kept[asked.key], Scheme[asked.scheme], asked.octets)

    # --- the plane ---

    def _request(self, request: Request) -> None:
        match request:
            case InstallSA(number, sa) if self._refuses(sa):
                self._carry_out([Refused(number, "by the simulator's will")])
                return
            case InstallSA(_, sa):
                name = SAName(sa.spi, sa.destination)
                outputs = self.plane.install(request, self.world.now)
                if not any(isinstance(output, Refused) for output in outputs):
                    self.sad[name] = sa
                    self.installed.setdefault((sa.spi, sa.destination), []).append(sa)
            case DeleteSA(name):
                outputs = self.plane.install(request, self.world.now)
                self.sad.pop(name, None)
            case _:
                outputs = self.plane.install(request, self.world.now)
        self._carry_out(outputs)
        self._arm()

    def _refuses(self, sa: SA) -> bool:
        if self.full is not None:
            return self.full(sa)
        return self.world.weather.refusal > self._chance()

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit(local, remote, data):
                    self._emit(local, remote, data)
                case Deliver(packet):
                    self._deliver(packet)
                case Bypass(packet):
                    self._emit_clear(packet)
                case _:
                    if isinstance(output, Expire) and output.hard:
                        self.sad.pop(output.sa, None)
                    self._channel("from", lambda report=output: self.tell(report))  # type: ignore[misc]

    def _channel(self, way: str, action: Callable[[], None]) -> None:
        """A message between the Node and the plane: in order, and not at once."""
        arrival = max(self._channels[way], self.world.time + self._inside())
        self._channels[way] = arrival
        self.under_way += 1

        def act() -> None:
            self.under_way -= 1
            action()

        self.later(arrival - self.world.time, act)

    # --- the network ---

    def _emit(self, local: Endpoint, remote: Endpoint, data: bytes) -> None:
        # An address that the host has lost cannot be sent from.
        if local.address in self.addresses:
            self.witness.sent(self, self.world.transmit(self.name, local, remote, data))

    def _emit_clear(self, packet: bytes) -> None:
        flow = ip.read_flow(packet)
        source = Endpoint(address_from_octets(flow.source), flow.source_port)
        destination = Endpoint(address_from_octets(flow.destination), flow.destination_port)
        self.witness.sent(self, self.world.transmit(self.name, source, destination, packet, clear=True))

    def arrive(self, frame: Frame) -> None:
        """A datagram has come in."""
        if not self.up:
            return
        local, remote, data = frame.destination, frame.source, frame.data
        if frame.clear:
            self._carry_out(self.plane.inbound_clear(data))
        elif local.port == self.config.host.port:
            self.tell(Datagram(local, remote, data))
        elif udp.classify(data) is udp.Traffic.IKE:
            self.tell(Datagram(local, remote, data[4:]))
        else:
            self._carry_out(self.plane.inbound(data, local, remote, self.world.now))
            self._arm()

    # --- the application ---

    def ask(self, name: str, told: Callable[[Release], None]) -> None:
        """Ask for a name's addresses, as programs do by the listener."""
        number = next(self._questions)
        self._askers[number] = told
        self.tell(Asked(number, name))

    def say(self, peer: str) -> None:
        """Send a packet to a peer by its name, as the zone has it now."""
        records = self.world.zone.records.get(peer)
        pairs = ((s, d) for d in (records.addresses if records else ()) for s in self.addresses)
        source, destination = next(((s, d) for s, d in pairs if s.version == d.version), (None, None))
        if self.up and source is not None and destination is not None:
            self._speak(source, destination, self.name)

    def speak(self, destination: IPAddress, about: str) -> bytes:
        """Send a packet to an address that a program got; where no policy speaks of it, it leaves as it is."""
        source = next(address for address in self.addresses if address.version == destination.version)
        return self._speak(source, destination, f"{self.name}>{about}", bypass=True)

    def _speak(self, source: IPAddress, destination: IPAddress, about: str, *, bypass: bool = False) -> bytes:
        payload = CANARY + f"{about}-{len(self.said)}".encode()
        self.said.append(payload)
        segment = udp.write_datagram(source.packed, destination.packed, PORT, PORT, payload)
        packet = ip.write_header(source.packed, destination.packed, IPProtocol.UDP, len(segment)) + segment
        unruled = self.plane.counters[Cause.OUT_NO_POLICY]
        self._carry_out(self.plane.outbound(packet, self.world.now))
        if bypass and self.plane.counters[Cause.OUT_NO_POLICY] > unruled:
            self._emit_clear(packet)
        self._arm()
        return payload

    def talk(self, peer: str, every: float, until: float) -> None:
        """Say something again and again."""
        self.say(peer)
        if self.world.time + every <= until:
            self.world.after(every, lambda: self.talk(peer, every, until))

    def _deliver(self, packet: bytes) -> None:
        layout = ip.read_layout(packet)
        payload = packet[layout.upper_at + udp.HEADER_SIZE : layout.end_at]
        self.heard.append(payload)
        self.witness.delivered(self, payload)

    # --- time ---

    def _arm(self) -> None:
        when = min(self.node.deadline(), self.plane.deadline())
        if when < self._wake_at:
            self._wake_at = when
            self.later(max(0.0, when - self.world.time), lambda: self._wake(when))

    def _wake(self, when: float) -> None:
        if when == self._wake_at:
            self._wake_at = NEVER
        now = self.world.now
        if self.plane.deadline() <= now.monotonic:
            self._carry_out(self.plane.timeout(now))
        if self.node.deadline() <= now.monotonic:
            self._count_timeouts()
            self.tell(Timeout())
        self._arm()

    def _count_timeouts(self) -> None:
        then, count = self._timeouts
        self._timeouts = (self.world.time, count + 1 if then == self.world.time else 1)
        if count >= SPINNING:
            raise Violation(f"{self.name} wants a Timeout again and again at {self.world.time}")

    # --- chance ---

    def _inside(self) -> float:
        return self._chance() * self.world.weather.inside

    def _chance(self) -> float:
        return self.world.chance.random()
