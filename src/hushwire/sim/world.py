"""sim: virtual time, and a network that loses, doubles, delays and reorders what it carries, all from one seed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from hushwire.sim.zone import Zone
from hushwire.timers import Now
from hushwire.wire.address import Endpoint, IPAddress

EPOCH = 1_800_000_000.0
"""Wall time at which every world begins, in seconds since 1970."""

MOST_EVENTS = 1_000_000
"""In one world: a storm of messages that feeds itself is not waited for."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to a datagram on its way."""

    loss: float = 0.0
    """Part of the datagrams that never arrive."""
    duplication: float = 0.0
    """Part of them that arrive twice."""
    delay: tuple[float, float] = (0.01, 0.01)
    """Seconds under way, least and most: where they differ, datagrams overtake each other."""
    inside: float = 0.0
    """Seconds, at most, that a message takes between the processes of one host."""
    refusal: float = 0.0
    """Part of the SAs that a plane refuses to install."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What an eavesdropper beside its sender sees."""

    time: float
    sender: str
    source: Endpoint
    destination: Endpoint
    data: bytes
    """The UDP payload; of a clear packet all of it, IP header and all."""
    clear: bool
    copies: int
    """Of them that arrive: 0, lost."""


class Station(Protocol):
    """What is attached to the network."""

    @property
    def addresses(self) -> tuple[IPAddress, ...]: ...

    def arrive(self, frame: Frame) -> None: ...


class Violation(AssertionError):
    """What must never happen has happened."""


class World:
    """Stations, names, weather, and the order in which things happen."""

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.seed = seed
        self.weather = weather or Weather()
        self.chance = random.Random(seed)
        self.zone = Zone()
        self.time = 0.0
        self.events = 0
        """Things that have happened."""
        self.stations: list[Station] = []
        self.wire: list[Frame] = []
        """Everything ever sent, in order."""
        self.remarks: list[tuple[float, str]] = []
        """What was done to the world from outside, and when."""
        self.fate: Callable[[Frame], int] | None = None
        """Decides how many copies of a frame arrive, in place of the weather."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    @property
    def now(self) -> Now:
        return Now(self.time, EPOCH + self.time)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen in `seconds`; what is due at the same time happens in the order it was asked for."""
        self._scheduled += 1
        heappush(self._heap, (self.time + seconds, self._scheduled, action))

    def remark(self, text: str) -> None:
        """Say what is being done from outside."""
        self.remarks.append((self.time, text))

    def run(self, seconds: float) -> None:
        """Let time pass; it jumps from event to event."""
        end = self.time + seconds
        while self._heap and self._heap[0][0] <= end:
            self.time, _, action = heappop(self._heap)
            self.events += 1
            if self.events > MOST_EVENTS:
                raise Violation(f"no end of events at {self.time:.3f}")
            action()
        self.time = end

    def transmit(self, sender: str, source: Endpoint, destination: Endpoint, data: bytes, clear: bool = False) -> Frame:
        """Put a datagram on the wire."""
        frame = Frame(self.time, sender, source, destination, data, clear, 1)
        copies = self.fate(frame) if self.fate is not None else self._copies()
        if copies != 1:
            frame = Frame(self.time, sender, source, destination, data, clear, copies)
        self.wire.append(frame)
        for _ in range(copies):
            self.after(self.chance.uniform(*self.weather.delay), lambda: self._arrive(frame))
        return frame

    def _copies(self) -> int:
        weather, chance = self.weather, self.chance
        if weather.loss and chance.random() < weather.loss:
            return 0
        return 2 if weather.duplication and chance.random() < weather.duplication else 1

    def _arrive(self, frame: Frame) -> None:
        for station in self.stations:
            if frame.destination.address in station.addresses:
                station.arrive(frame)
