"""Packets that wait for an SA, and the one Acquire each pair of hosts gets meanwhile (RFC 4301 s4.4.1, RFC 2367)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hushwire.events import Acquire
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Policy
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress

SECONDS = 30.0
"""How long packets wait, as long as a larval SA in the kernel (net.core.xfrm_acq_expires)."""
PAIRS = 4096
"""Pairs of hosts that may wait at once."""
PER_SECOND = 256
"""New Acquires in one second: a scan of addresses from within must not drown the Node."""
PACKETS = 16
"""Packets held for one pair."""
OCTETS = 4 << 20
"""Octets held in all."""


class Full(Exception):
    """No more pairs are waited for now."""


@dataclass(slots=True)
class Held:
    """The packets of one pair of hosts under one policy."""

    acquire: Acquire
    policy: Policy
    until: float
    packets: list[bytes] = field(default_factory=list)


class Hold:
    """All that waits, oldest first."""

    __slots__ = ("_held", "_octets", "_second", "_sequence")

    def __init__(self) -> None:
        self._held: dict[tuple[Selector, IPAddress, IPAddress], Held] = {}
        self._octets = 0
        self._sequence = 0
        self._second = (0, 0)

    def wait(self, policy: Policy, flow: Flow, packet: bytes, now: Now) -> tuple[Acquire | None, bool]:
        """The Acquire to raise if this pair is new, and whether the packet is held.  Raises Full."""
        key = (policy.selector, flow.local, flow.remote)
        held, acquire = self._held.get(key), None
        if held is None:
            self._count(now)
            self._sequence = self._sequence % 0xFFFF_FFFF + 1
            acquire = Acquire(flow, policy.reqid, self._sequence)
            held = self._held[key] = Held(acquire, policy, now.monotonic + SECONDS)
        room = len(held.packets) < PACKETS and self._octets + len(packet) <= OCTETS
        if room:
            held.packets.append(packet)
            self._octets += len(packet)
        return acquire, room

    def release(self, which: Callable[[Held], bool]) -> list[bytes]:
        """Take out the packets that `which` picks, in the order they came."""
        packets: list[bytes] = []
        for key in [key for key, held in self._held.items() if which(held)]:
            packets += self._held.pop(key).packets
        self._octets -= sum(map(len, packets))
        return packets

    def deadline(self) -> float:
        """When the oldest has waited long enough."""
        for held in self._held.values():
            return held.until
        return NEVER

    def _count(self, now: Now) -> None:
        second, raised = self._second
        if int(now.monotonic) != second:
            second, raised = int(now.monotonic), 0
        if raised >= PER_SECOND or len(self._held) >= PAIRS:
            raise Full
        self._second = second, raised + 1
