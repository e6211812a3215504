"""What all IKE SAs of a host share: settings, randomness, the step's time, and where effects and reports go."""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from hushwire.entropy import Entropy
from hushwire.events import Effect, Notice
from hushwire.ike.half_open import HalfOpen
from hushwire.ike.report import Report
from hushwire.ike.settings import Settings
from hushwire.ike.state import State
from hushwire.policy.pad import Identity, PadEntry
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress
from hushwire.wire.message import Message
from hushwire.wire.registry import ExchangeType

if TYPE_CHECKING:
    from hushwire.ike.child import ChildSA
    from hushwire.ike.running import Running
    from hushwire.ike.sa import IkeSA

STALE, LEAST = 8, 64
"""Alarms for each IKE SA, and in all, among which stale ones are not worth the trouble."""
Exchange = Coroutine[Any, Any, None]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Exchanges:
    """The coroutines that an IKE SA runs by itself: one to answer each kind of request, and one for each timer."""

    responders: dict[ExchangeType, Callable[["IkeSA", Message], Exchange]]
    liveness: Callable[["IkeSA"], Exchange]
    rekey_ike: Callable[["IkeSA"], Exchange]
    rekey_child: Callable[["IkeSA", "ChildSA"], Exchange]
    delete_ike: Callable[["IkeSA"], Exchange]
    activate: Callable[["IkeSA", "ChildSA"], Exchange]
    disown: Callable[["IkeSA", bytes], Exchange]
    reauthenticate: Callable[["IkeSA"], None]
    """Begins other exchanges, each in its own IKE SA."""


@dataclass(slots=True)
class Host:
    """Owned by the Endpoint, lent to every IkeSA."""

    settings: Settings
    entropy: Entropy
    numbers: Iterator[int]
    """Numbers of requests, the Node's."""
    exchanges: Exchanges
    now: Now = field(default_factory=lambda: Now(0.0, 0.0))
    outbox: list[Effect | Report] = field(default_factory=list)
    sas: dict[bytes, "IkeSA"] = field(default_factory=dict)
    """By our own SPI."""
    peers: dict[Identity, list["IkeSA"]] = field(default_factory=dict)
    """Authenticated ones, by who is there."""
    at: dict[IPAddress, list["IkeSA"]] = field(default_factory=dict)
    """The same, by where that is."""
    by_reqid: dict[int, list["IkeSA"]] = field(default_factory=dict)
    """By whose policies they serve, or are meant to: who is to be there may have proved nothing yet."""
    half_open: HalfOpen = field(default_factory=HalfOpen)
    alarms: list[tuple[float, int, "IkeSA"]] = field(default_factory=list)
    """A heap of when to look at which SA, in the order asked for at equal times; some are stale, none is late, and
    each that waits for time is there."""
    alarm_numbers: Iterator[int] = field(default_factory=count)
    waiting: dict[int, "Running"] = field(default_factory=dict)
    """Exchanges that wait for the answer to a numbered request."""

    def new_ike_spi(self) -> bytes:
        """8 random octets, not zero and not in use (RFC 7296 s2.6)."""
        while (spi := self.entropy.public(8)) in self.sas or spi == bytes(8):
            pass
        return spi

    def new_child_spi(self) -> bytes:
        """4 random octets above 255 (RFC 4303 s2.1)."""
        while (spi := self.entropy.public(4)) <= b"\0\0\0\xff":
            pass
        return spi

    def new_nonce(self) -> bytes:
        """At least half the PRF's key (RFC 7296 s2.10): 32 octets do for all of ours."""
        return self.entropy.public(32)

    def with_peer_of(self, sa: "IkeSA") -> list["IkeSA"]:
        """The other IKE SAs that stand with the same peer at the same place."""
        if sa.authenticated is None:
            return []
        others = self.peers.get(sa.authenticated.entry.identity, ())
        return [o for o in others if o is not sa and o.state is State.ESTABLISHED and o.remote == sa.remote]

    def beside(self, sa: "IkeSA", entry: PadEntry) -> list["IkeSA"]:
        """The other IKE SAs that stand between the same addresses, whoever is there, and serve the same policies."""
        others = [other for other in self.by_reqid.get(entry.reqid, ()) if other is not sa and not other.deleting]
        ends = sa.local.address, sa.remote.address
        between = [other for other in others if (other.local.address, other.remote.address) == ends]
        return [other for other in between if other.state is State.ESTABLISHED]

    def rivals(self, sa: "IkeSA") -> list["IkeSA"]:
        """The IKE SAs of which one is enough: with the same peer, or whoever is in the place of one without a name."""
        if sa.authenticated is None:
            return []
        entry = sa.authenticated.entry
        return self.beside(sa, entry) if entry.anonymous else list(self.peers.get(entry.identity, ()))

    def admit(self, sa: "IkeSA", entry: PadEntry) -> None:
        """An IKE SA is authenticated."""
        self.half_open.discard(sa)
        self.peers.setdefault(entry.identity, []).append(sa)
        self.at.setdefault(sa.remote.address, []).append(sa)

    def mean(self, sa: "IkeSA", entry: PadEntry | None) -> None:
        """An IKE SA is to be with the peer of an entry, and no more with the one before; None: with nobody."""
        before, after = (each.reqid if each is not None else None for each in (sa.peer, entry))
        if before is not None and before != after:
            _take_out(self.by_reqid, before, sa)
        if after is not None and before != after:
            self.by_reqid.setdefault(after, []).append(sa)

    def wake(self, sa: "IkeSA", when: float) -> None:
        """Look at an IKE SA's timers at monotonic time `when`."""
        heappush(self.alarms, (when, next(self.alarm_numbers), sa))
        if len(self.alarms) > STALE * len(self.sas) + LEAST:
            # Else who is closed would be kept until its lifetime had ended: hours, and any number (ATTACKS row 55).
            waiting = dict.fromkeys(other for _, _, other in sorted(self.alarms))
            alarms = [(other.deadline(), next(self.alarm_numbers), other) for other in waiting]
            self.alarms[:] = [alarm for alarm in alarms if alarm[0] != NEVER]
            heapify(self.alarms)

    def forget(self, sa: "IkeSA") -> None:
        """An IKE SA is closed."""
        if self.sas.get(sa.spi) is sa:
            del self.sas[sa.spi]
        self.half_open.discard(sa)
        self.dismiss(sa)
        self.mean(sa, None)

    def dismiss(self, sa: "IkeSA") -> None:
        """An IKE SA is not that of its entry any more, or not where it was."""
        if sa.authenticated is not None:
            _take_out(self.peers, sa.authenticated.entry.identity, sa)
            _take_out(self.at, sa.remote.address, sa)

    def jitter(self, seconds: float) -> float:
        """Between 80 and 100 per cent of `seconds`, so that hosts that started together do not rekey together."""
        return seconds * (0.8 + 0.2 * self.entropy.public(1)[0] / 255)

    def speaks_with(self, remote: IPAddress) -> bool:
        """Whether somebody has proved himself there, under whatever name: he would be told that we know nobody."""
        return remote in self.at

    def notice(self, kind: str, *fields: tuple[str, str | int | float], grave: bool = False) -> None:
        self.outbox.append(Notice(kind, fields, grave))


def _take_out(index: dict[Key, list["IkeSA"]], key: Key, sa: "IkeSA") -> None:
    others = [other for other in index.get(key, ()) if other is not sa]
    if others:
        index[key] = others
    else:
        index.pop(key, None)
