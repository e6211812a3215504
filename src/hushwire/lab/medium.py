"""The wire between the lab's hosts, without I/O: what happens to each frame, and what was seen of it all."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from hushwire.lab.frame import PACKET_AT, Classifier, Frame, Kind

MAX_CANARIES = 256
MAX_NEIGHBOURS = 256
MAX_DELAYED = 20_000
"""Frames on their way at once; what comes then is lost, and counted."""
MAX_SAMPLES = 10
"""Clear packets and sightings that are told one by one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some frames.  The first rule that takes a frame decides it."""

    kind: Kind | None = None
    """Only these; None: all."""
    source: str | None = None
    """Only from this host."""
    exchange: int | None = None
    """Only IKE messages of this exchange type."""
    response: bool | None = None
    """Only IKE responses, or only requests."""
    skip: int = 0
    """So many are let pass first."""
    times: int | None = None
    """So many are taken, then no more."""
    chance: float = 1.0
    """The part that is taken of the others."""
    drop: bool = False
    delay: float = 0.0
    """Seconds."""
    jitter: float = 0.0
    """Up to so many seconds more: where it is longer than the gap between frames it reorders them."""
    copies: int = 1
    """That are delivered, each with its own jitter."""
    replace: tuple[bytes, bytes] | None = None
    """Octets behind the IP header, and what stands there afterwards (see Frame.replaced)."""


class Delivery(NamedTuple):
    """A frame that is to arrive."""

    octets: bytes
    delay: float = 0.0
    """Seconds from now."""
    to: str | None = None
    """A host; None: whom the destination's MAC address means."""


Script = Callable[[Frame, Random], Iterable[Delivery] | None]
"""Decides a frame before the rules do; None: leaves it to them."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A frame that should not have been there."""

    number: int
    """Of the frame in the capture, from 1, as tshark counts."""
    source: str
    kind: Kind
    start: str
    """Its packet's first octets, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Report:
    """What passed."""

    frames: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    """Kind -> frames."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """Host -> kind -> frames it sent."""
    canaries: dict[str, int] = field(default_factory=dict)
    """Canary in hexadecimal -> frames that held it."""
    sightings: tuple[Sighting, ...] = ()
    """The first that held a canary."""
    clear: tuple[Sighting, ...] = ()
    """The first clear packets."""
    dropped: int = 0
    """By rules and scripts."""
    changed: int = 0
    lost: int = 0
    """Because too much was on its way at once."""
    missed: int = 0
    """That the kernel could not hand to the relay in time: it knows nothing of them, and they did not arrive."""
    unrecorded: int = 0
    """That the capture had no room for."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        return f"{self.frames} frames ({kinds or 'none'}); {sum(self.canaries.values())} held a canary"

    def count(self, kind: Kind, source: str | None = None) -> int:
        """Frames of a kind, of one host or all."""
        kinds = self.kinds if source is None else self.sources.get(source, {})
        return kinds.get(kind.value, 0)

    def seen(self, canary: bytes) -> int:
        """Frames that held a canary."""
        return self.canaries[canary.hex()]


class Medium:
    """Takes frames in and says which are due where.  It knows hosts by their MAC addresses, as a switch does."""

    def __init__(self, hosts: Iterable[str], seed: int = 0, script: Script | None = None) -> None:
        self._hosts = tuple(hosts)
        self._dice = Random(seed)
        self._script = script
        self._classifier = Classifier()
        self._at: dict[bytes, str] = {}
        self._rules: list[Rule] = []
        self._seen: list[int] = []
        self._canaries: dict[bytes, int] = {}
        self._sources = {host: Counter[Kind]() for host in self._hosts}
        self._sightings: list[Sighting] = []
        self._clear: list[Sighting] = []
        self._queue: list[tuple[float, int, str, bytes, bytes]] = []
        self._order = itertools.count()
        self._dropped = self._changed = self._lost = 0

    def add_rule(self, rule: Rule) -> None:
        """After those that are there."""
        self._rules.append(rule)
        self._seen.append(0)

    def clear_rules(self) -> None:
        """Everything passes, but for what the script says."""
        self._rules.clear()
        self._seen.clear()

    def watch(self, canary: bytes) -> None:
        """From now on look for these octets in every frame."""
        if not canary:
            raise ValueError("an empty canary is everywhere")
        if len(self._canaries) >= MAX_CANARIES:
            raise ValueError(f"more than {MAX_CANARIES} canaries")
        self._canaries.setdefault(canary, 0)

    def enter(self, octets: bytes, source: str, now: float, number: int, offload: bytes = b"") -> list[bytes]:
        """Take a frame from a host; returns what it was changed to.  `offload` goes with it unless it is changed."""
        frame = self._classifier.frame(octets, source)
        self._sources[source][frame.kind] += 1
        if frame.kind == Kind.CLEAR and len(self._clear) < MAX_SAMPLES:
            self._clear.append(_sighting(frame, number))
        for canary in self._canaries:
            if canary in octets:
                self._canaries[canary] += 1
                if len(self._sightings) < MAX_SAMPLES:
                    self._sightings.append(_sighting(frame, number))
        if octets[6:12] not in self._at and len(self._at) < MAX_NEIGHBOURS:
            self._at[octets[6:12]] = source
        changed = []
        for delivery in self._decide(frame):
            if delivery.octets != octets:
                self._changed += 1
                changed.append(delivery.octets)
            self._send(delivery, source, now, offload if delivery.octets == octets else b"")
        return changed

    def inject(self, delivery: Delivery, now: float) -> None:
        """A frame that no host sent."""
        self._send(delivery, None, now, b"")

    def due(self, now: float) -> Iterable[tuple[str, bytes, bytes]]:
        """Frames to deliver by now, each with its host and its offload."""
        while self._queue and self._queue[0][0] <= now:
            _, _, host, octets, offload = heapq.heappop(self._queue)
            yield host, octets, offload

    def deadline(self) -> float | None:
        """When the next frame is due."""
        return self._queue[0][0] if self._queue else None

    def report(self, missed: int = 0, unrecorded: int = 0) -> Report:
        """What passed until now."""
        total = sum(self._sources.values(), Counter[Kind]())
        return Report(
            frames=total.total(),
            kinds={kind.value: count for kind, count in total.items()},
            sources={host: {kind.value: n for kind, n in kinds.items()} for host, kinds in self._sources.items()},
            canaries={canary.hex(): count for canary, count in self._canaries.items()},
            sightings=tuple(self._sightings),
            clear=tuple(self._clear),
            dropped=self._dropped,
            changed=self._changed,
            lost=self._lost,
            missed=missed,
            unrecorded=unrecorded,
        )

    def _decide(self, frame: Frame) -> list[Delivery]:
        decided = None if self._script is None else self._script(frame, self._dice)
        deliveries = list(self._by_rules(frame) if decided is None else decided)
        self._dropped += not deliveries
        return deliveries

    def _by_rules(self, frame: Frame) -> list[Delivery]:
        for index, rule in enumerate(self._rules):
            if not _matches(rule, frame):
                continue
            self._seen[index] += 1
            turn = self._seen[index] - rule.skip
            if turn < 1 or (rule.times is not None and turn > rule.times):
                continue
            if rule.chance < 1.0 and self._dice.random() >= rule.chance:
                continue
            if rule.drop:
                return []
            octets = frame.octets if rule.replace is None else frame.replaced(*rule.replace)
            return [Delivery(octets, rule.delay + self._dice.uniform(0, rule.jitter)) for _ in range(rule.copies)]
        return [Delivery(frame.octets)]

    def _send(self, delivery: Delivery, source: str | None, now: float, offload: bytes) -> None:
        to = delivery.to or self._at.get(delivery.octets[:6])
        hosts = [to] if to else self._hosts
        for host in hosts:
            if host == source and delivery.to is None:
                continue
            if len(self._queue) >= MAX_DELAYED:
                self._lost += 1
            else:
                order = next(self._order)
                heapq.heappush(self._queue, (now + delivery.delay, order, host, delivery.octets, offload))


def _matches(rule: Rule, frame: Frame) -> bool:
    return (
        rule.kind in (None, frame.kind)
        and rule.source in (None, frame.source)
        and (rule.exchange is None or rule.exchange == frame.exchange)
        and (rule.response is None or (frame.kind == Kind.IKE and rule.response == frame.is_response))
    )


def _sighting(frame: Frame, number: int) -> Sighting:
    return Sighting(number, frame.source, frame.kind, frame.octets[PACKET_AT : PACKET_AT + 64].hex())
