"""The state of one SA (RFC 4301 s4.4.2.1): its cipher, its numbers, what it has carried against its lifetime."""

import math
from enum import Enum

from hushwire.entropy import Entropy
from hushwire.esp.packet import TransportHeader
from hushwire.esp.replay import SUBSPACE, ReplayWindow
from hushwire.esp.transform import transform
from hushwire.esp.translate import difference
from hushwire.policy.sad import SA, Mode, SAName
from hushwire.policy.selector import Flow
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint, IPAddress, IPNetwork


class Age(Enum):
    """Where an SA is in its lifetime."""

    YOUNG = 0
    SOFT = 1
    """To be replaced soon."""
    HARD = 2
    """To carry nothing more."""


class _State:
    """What both directions count.  `packets_mark` and `octets_mark` say when age() next has news."""

    __slots__ = (
        "_hard_at", "_soft_at", "age", "far", "name", "near", "octets", "octets_mark", "packets",
        "packets_mark", "sa", "transform", "tunnel",
    )  # fmt: skip

    def __init__(self, sa: SA, entropy: Entropy, now: Now) -> None:
        self.transform = transform(sa, entropy)
        self.age = Age.YOUNG
        self.packets = self.octets = 0
        life = sa.lifetime
        self._soft_at = now.monotonic + life.soft_seconds if life.soft_seconds else NEVER
        self._hard_at = now.monotonic + life.hard_seconds if life.hard_seconds else NEVER
        self.address(sa)

    def address(self, sa: SA) -> None:
        """Take the outer addresses, the lifetime's counts and the selector of `sa`; keep keys and numbers."""
        self.sa = sa
        self.name = SAName(sa.spi, sa.destination)
        self.tunnel = sa.mode is Mode.TUNNEL
        encapsulation = sa.encapsulation
        ports = (encapsulation.source_port, encapsulation.destination_port) if encapsulation else (0, 0)
        self.near, self.far = Endpoint(sa.source, ports[0]), Endpoint(sa.destination, ports[1])
        self._set_marks()

    def deadline(self) -> float:
        """When its age next changes by the clock."""
        return self._soft_at if self.age is Age.YOUNG and self._soft_at < self._hard_at else self._hard_at

    def grow(self, now: Now) -> Age | None:
        """The age it has newly come to, once per age; None if it is no older."""
        packets, octets = self._limits(Age.HARD)
        if self.packets >= packets or self.octets >= octets or now.monotonic >= self._hard_at:
            self.age = Age.HARD
            return Age.HARD
        packets, octets = self._limits(Age.SOFT)
        if self.age is Age.YOUNG and (
            self.packets >= packets or self.octets >= octets or now.monotonic >= self._soft_at
        ):
            self.age = Age.SOFT
            self._set_marks()
            return Age.SOFT
        return None

    def _limits(self, age: Age) -> tuple[float, float]:
        life = self.sa.lifetime
        if age is Age.SOFT:
            return life.soft_packets or math.inf, life.soft_bytes or math.inf
        return life.hard_packets or math.inf, life.hard_bytes or math.inf

    def _set_marks(self) -> None:
        limits = [self._limits(Age.HARD)] + ([self._limits(Age.SOFT)] if self.age is Age.YOUNG else [])
        self.packets_mark = min(packets for packets, _ in limits)
        self.octets_mark = min(octets for _, octets in limits)


class Outbound(_State):
    """An SA that seals.  `packets` is also the last sequence number sent."""

    __slots__ = ("delta", "made", "real")

    def address(self, sa: SA) -> None:
        super().address(sa)
        self.real = _only(sa.selector.remote, sa.destination)
        self.present(None)

    def present(self, made: IPAddress | None) -> None:
        """Programs know its peer by a synthetic address; None: by the real one."""
        self.made = made
        self.delta = difference(made.packed, self.real.packed) if made is not None else 0
        """What the sums of cached flows change by on their way."""

    def carries(self, flow: Flow) -> bool:
        """Whether it may carry a packet of `flow`."""
        return self.sa.selector.matches(flow) and (
            # A transport mode packet goes to the one host whose address the receiver will put back on it.
            self.tunnel or flow.remote == self.real
        )

    def seal(self, frame: memoryview, payload: int, next_header: int) -> None:
        """Seal a frame in place under the next sequence number.  The caller has looked at the marks."""
        self.packets = sequence = self.packets + 1
        self.octets += payload
        self.transform.seal(frame, payload, next_header, sequence)

    def exhausted(self) -> bool:
        """Whether the last sequence number has been sent."""
        return self.packets >= self._last()

    def _last(self) -> int:
        return SUBSPACE * (SUBSPACE if self.sa.suite.esn else 1) - 1

    def _limits(self, age: Age) -> tuple[float, float]:
        # RFC 4303 s3.3.3: the number never cycles; the SA ends first, and is replaced at seven eighths.
        last = self._last()
        packets, octets = super()._limits(age)
        return min(packets, last if age is Age.HARD else last // 8 * 7), octets


class Inbound(_State):
    """An SA that opens."""

    __slots__ = ("_esn", "_last_opened", "_local", "header", "made", "real", "reported", "sent_header", "window")

    def __init__(self, sa: SA, entropy: Entropy, now: Now) -> None:
        super().__init__(sa, entropy, now)
        self.window = ReplayWindow(sa.replay_window)
        self._esn = sa.suite.esn
        self._last_opened = 0

    def address(self, sa: SA) -> None:
        super().address(sa)
        selector = sa.selector
        self.real, self._local = _only(selector.remote, sa.source), _only(selector.local, sa.destination)
        self.sent_header = TransportHeader(self.real, self._local)
        """Of a packet as its sender made it."""
        self.present(None)
        self.reported = self.near
        """The remote end last told to the Node, so that each new one is told once."""

    def present(self, made: IPAddress | None) -> None:
        """Let programs see a synthetic address as the source of what comes in; None: the real one."""
        self.made = made
        self.header = self.sent_header if made is None else TransportHeader(made, self._local)
        """Of the packet as programs get it."""

    def fresh(self) -> bool:
        """Whether the packet last opened was newer than all before it."""
        return self._last_opened == self.window.top

    def open(self, frame: memoryview, low: int) -> tuple[int, memoryview]:
        """Next header and payload of one ESP packet, opened in place.  Raises Replayed, BadFrame.

        `low` is the sequence number in it.
        """
        window = self.window
        sequence = window.infer(low) if self._esn else low
        # RFC 4303 s3.4.3: the number is looked at before the ICV, and counted after it.
        window.check(sequence)
        opened = self.transform.open(frame, sequence)
        window.update(sequence)
        self._last_opened = sequence
        self.packets += 1
        self.octets += len(opened[1])
        return opened


def _only(network: IPNetwork, otherwise: IPAddress) -> IPAddress:
    if network.prefixlen != network.max_prefixlen:
        return otherwise
    address: IPAddress = network.network_address
    return address
