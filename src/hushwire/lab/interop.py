"""hushwire on alice and another IKE daemon on bob: the story of their SAs, told by either side (RFC 7296 s1 to s2)."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from hushwire.lab.frame import Kind
from hushwire.lab.hushwire import Hushwire, pinned
from hushwire.lab.libreswan import Libreswan
from hushwire.lab.namespaces import Host, Topology, end
from hushwire.lab.peer import Connection, Peer, PeerChildSA, PeerIkeSA, eventually
from hushwire.lab.relay import Relay
from hushwire.lab.strongswan import StrongSwan

INTERVAL = 0.05
"""Seconds between the packets of a flow that must not be broken."""
SETTLE = 0.3
"""Seconds of such a flow before and after what might break it."""
PATIENCE = 20.0
"""Seconds until what was begun must be done: in a User-Mode Linux kernel everything is slow."""

SIDES = ("hushwire", "peer")

Start = Callable[[Host, Connection], Peer]
"""Makes the other daemon."""


@dataclass(slots=True)
class Stage:
    """A context manager: inside it both daemons run, and a relay between them sees what passes."""

    introduce: Callable[[Host, Host], tuple[Connection, Connection]]
    """What each is told of the other, as lab.peer.introduced gives it."""
    other: Start
    plane: str = "kernel"
    """hushwire's."""
    more: str = ""
    """Of hushwire's configuration."""
    version: int = 4
    loss: int = 0
    """Packets of a flow that a rekey may cost: some daemons send by the new SAs before we can have them."""
    ours: Callable[..., Hushwire] = pinned
    """Makes hushwire."""
    topology: Topology = field(init=False)
    relay: Relay = field(init=False)
    hushwire: Hushwire = field(init=False)
    peer: Peer = field(init=False)
    _stack: ExitStack = field(init=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.topology = stack.enter_context(Topology(("alice", "bob")))
            self.relay = stack.enter_context(Relay(self.topology))
            ours, theirs = self.introduce(self.alice, self.bob)
            self.hushwire = stack.enter_context(self.ours(self.alice, ours, plane=self.plane, more=self.more))
            self.peer = stack.enter_context(self.other(self.bob, theirs))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def alice(self) -> Host:
        return self.topology["alice"]

    @property
    def bob(self) -> Host:
        return self.topology["bob"]

    def side(self, name: str) -> Hushwire | Peer:
        """hushwire or the peer."""
        return self.hushwire if name == "hushwire" else self.peer

    def logs(self) -> str:
        """The last that both said."""
        return f"hushwire:\n{self.hushwire.log.read_text()[-4000:]}\npeer:\n{self.peer.log.read_text()[-8000:]}"

    # --- the story ---

    def tell(self, initiator: str) -> None:
        """All of it: SAs, traffic, both kinds of rekey by either side, and deletion by who did not begin."""
        self.set_up(initiator)
        self.encrypted()
        for ike in (False, True):
            for who in SIDES:
                self.replaced(partial(self.rekey, who, ike=ike), ike=ike)
        self.encrypted()
        self.side(SIDES[initiator == "hushwire"]).terminate()
        self.nothing_stands()

    def set_up(self, initiator: str) -> None:
        """Have one side begin."""
        try:
            self.side(initiator).initiate()
        except RuntimeError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        ours, _ = self.agreed()
        assert ours.initiator == (initiator == "hushwire")

    def replaced(self, replace: Callable[[], None], *, ike: bool) -> None:
        """Have the Child SA, or the IKE SA, replaced while packets flow."""
        before, _ = self.agreed()
        with self.unbroken():
            replace()
            if not eventually(lambda: _all_new(before, self.agreed()[0], ike=ike), PATIENCE, 0.2):
                raise AssertionError(f"not replaced\n{self.logs()}")

    def rekey(self, who: str, *, ike: bool) -> None:
        """Have one side replace the Child SA, or the IKE SA.  Not every daemon can be asked to."""
        match self.side(who):
            case Hushwire() as hushwire:
                hushwire.rekey(ike=ike)
            case (StrongSwan() | Libreswan()) as swan if ike:
                swan.rekey_ike()
            case (StrongSwan() | Libreswan()) as swan:
                swan.rekey_child()
            case other:
                raise TypeError(f"{other!r} rekeys when it likes")

    # --- what must hold ---

    def agreed(self) -> tuple[PeerIkeSA, PeerIkeSA]:
        """The one IKE SA with one Child SA that both must come to have, as hushwire and as the peer tell of it."""
        found: list[tuple[PeerIkeSA, PeerIkeSA]] = []

        def same() -> bool:
            ours, theirs = _standing(self.hushwire.sas()), _standing(self.peer.sas())
            found[:] = zip(ours, theirs, strict=False)
            return len(ours) == len(theirs) == 1 and _mirror(ours[0]) == _own(theirs[0])

        if not eventually(same, PATIENCE, 0.2):
            raise AssertionError(f"they do not agree: {self.hushwire.sas()}, {self.peer.sas()}\n{self.logs()}")
        return found[0]

    def nothing_stands(self) -> None:
        """Neither has an SA.

        OpenIKED 7.2 leaves a Delete of a rekeyed IKE SA of its own beginning unanswered, and keeps that, closing.
        """
        if not eventually(lambda: not self.hushwire.sas() and not _standing(self.peer.sas()), PATIENCE, 0.2):
            raise AssertionError(f"something stands: {self.hushwire.sas()}, {self.peer.sas()}\n{self.logs()}")

    def encrypted(self, count: int = 3) -> None:
        """Echoes come back both ways, in ESP, and no clear packet has ever passed."""
        before = self.relay.report()
        canary = self.relay.canary()
        for near, far in ((self.alice, self.bob), (self.bob, self.alice)):
            if not near.ping(far, version=self.version, count=count, pattern=canary):
                raise AssertionError(f"no echo for {near.name}\n{self.logs()}")
        report = self.relay.report()
        for host in ("alice", "bob"):
            assert report.count(Kind.ESP, host) - before.count(Kind.ESP, host) >= 2 * count, report
        self.nothing_clear()
        assert report.seen(canary) == 0, report.sightings

    def nothing_clear(self) -> None:
        """No clear packet has ever passed."""
        report = self.relay.report()
        assert report.count(Kind.CLEAR) == 0, report.clear

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """Around something that must not cost more packets of a flow, either way, than `loss`."""
        flows = [self._flow(near, far) for near, far in ((self.alice, self.bob), (self.bob, self.alice))]
        try:
            time.sleep(SETTLE)
            yield
            time.sleep(SETTLE)
            for flow in flows:
                flow.send_signal(signal.SIGINT)
                said, _ = flow.communicate(timeout=10)
                came = {int(number) for number in re.findall(r"icmp_seq=(\d+)", said)}
                # The last few may still have been on their way.
                lost = set(range(1, max(came, default=1))) - came
                if len(lost) > self.loss or not came:
                    raise AssertionError(f"lost: {sorted(lost)}\n{said[-300:]}\n{self.logs()}")
        finally:
            for flow in flows:
                end(flow)
        self.nothing_clear()

    def _flow(self, near: Host, far: Host) -> subprocess.Popen[str]:
        address = far.v4 if self.version == 4 else far.v6
        words = ("ping", "-n", "-i", str(INTERVAL), "-c", "3000", "-W", "5", str(address))
        return near.start(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _standing(sas: list[PeerIkeSA]) -> list[PeerIkeSA]:
    return [sa for sa in sas if sa.state == "ESTABLISHED"]


def _own(sa: PeerIkeSA) -> tuple[object, ...]:
    return sa.spi_i, sa.spi_r, sa.initiator, {(child.spi_in, child.spi_out) for child in _installed(sa)}


def _mirror(sa: PeerIkeSA) -> tuple[object, ...]:
    return sa.spi_i, sa.spi_r, not sa.initiator, {(child.spi_out, child.spi_in) for child in _installed(sa)}


def _installed(sa: PeerIkeSA) -> list[PeerChildSA]:
    """Not those that a daemon keeps for a moment after their rekeying."""
    return [child for child in sa.children if child.state in ("INSTALLED", "LOADED")]


def _all_new(before: PeerIkeSA, after: PeerIkeSA, *, ike: bool) -> bool:
    """Whether the IKE SA is another, with the same Child SAs; or the Child SAs are, in the same IKE SA."""
    old, new = ({child.spi_in for child in _installed(sa)} for sa in (before, after))
    if ike:
        return before.spi_i != after.spi_i and old == new
    return (before.spi_i, before.spi_r) == (after.spi_i, after.spi_r) and not old & new
