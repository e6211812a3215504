"""What a program waits for its first byte: a page by name with curl, plain and with hushwire, over a wire with delay.

Plain: curl asks a validating resolver on its own host (unbound).  With hushwire: the capturing resolver, and every name
private; the server knows the client's name by a rule.  Cold: nobody has asked for that name yet; the resolver knows the
keys of its zone.  Warm: it was fetched before.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hushwire.lab.medium import Rule
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.stage import CURL
from hushwire.lab.story import LISTENER, Story
from hushwire.lab.unbound import Unbound

PLAIN = "127.0.0.53"
"""Where unbound answers on the same host."""
DISTANCES = (0.0, 0.020, 0.100)
"""Round trips of the wire, in seconds."""
WARM = 20
"""Fetches after the first, in each round."""
Fetches = tuple[float, list[float]]
"""Milliseconds of the first, and of those after it."""
PRIVATE = '[[rule]]\npeer = "*"\ngroup = "private"\n'


@dataclass(frozen=True, slots=True)
class Wait:
    """Of one distance; times in milliseconds, medians of the rounds."""

    distance: float
    """Milliseconds of a round trip."""
    plain: tuple[float, float]
    """Cold, warm."""
    hushwire: tuple[float, float]
    spread: float
    """How far the middle eight tenths of plain's warm times are apart: what differs by less cannot be seen."""

    @property
    def added(self) -> tuple[float, float]:
        """What hushwire costs, cold and warm."""
        return self.hushwire[0] - self.plain[0], self.hushwire[1] - self.plain[1]

    @property
    def bound(self) -> float:
        """What hushwire may cost, cold: two round trips of IKE and one look-up, that of the key, as long as plain's."""
        cold, warm = self.plain
        return 2 * self.distance + cold - warm

    @property
    def verdicts(self) -> tuple[str, str]:
        """Whether what it costs is within bounds, cold and warm."""
        over = self.added[0] - self.bound
        # Without a distance there is nothing to wait for.
        exceeded = f"exceeded by {over:.1f}" if self.distance else f"{over:.1f} of computing"
        return "holds" if over <= 0 else exceeded, "none seen" if self.added[1] <= self.spread else "seen"

    def __str__(self) -> str:
        (cold, warm), (our_cold, our_warm), (more_cold, more_warm) = self.plain, self.hushwire, self.added
        cold_holds, warm_holds = self.verdicts
        return (
            f"{self.distance:3.0f} ms |{cold:6.1f} {our_cold:9.1f} {more_cold:6.1f} {self.bound:6.1f}  {cold_holds:18}|"
            f"{warm:6.1f} {our_warm:9.1f} {more_warm:6.1f} {self.spread:7.1f}  {warm_holds}"
        )


HEAD = """\
       |                  cold                           |              warm
RTT    | plain  hushwire  added  bound                   | plain  hushwire  added  spread"""
FOOT = """\
Milliseconds to the first byte.  Bound: two round trips of IKE and one look-up, plain's (its cold less its warm).
Spread: of the middle eight tenths of plain's own warm times; what is less than that cannot be seen."""


def measure(
    rounds: int, plane: str, tell: Callable[[object], None], distances: Sequence[float] = DISTANCES
) -> list[Wait]:
    """The table, told line by line."""
    waits = []
    tell(HEAD)
    for distance in distances:
        # In turn, so that both meet whatever else the machine does.
        in_turn = [(_plain(distance), _hushwire(distance, plane)) for _ in range(rounds)]
        plain, ours = map(list, zip(*in_turn, strict=True))
        tenths = statistics.quantiles([each for _, warm in plain for each in warm], n=10)
        waits.append(Wait(distance * 1000, _medians(plain), _medians(ours), tenths[-1] - tenths[0]))
        tell(waits[-1])
    tell(FOOT)
    return waits


def _medians(rounds: list[Fetches]) -> tuple[float, float]:
    warm = [each for _, several in rounds for each in several]
    return statistics.median(cold for cold, _ in rounds), statistics.median(warm)


@contextmanager
def _stage(distance: float, plane: str) -> Iterator[tuple[Story, Path]]:
    with Story("alice", "bob", plane=plane) as story:
        pages = story.serve_web(story["bob"])
        (pages / "page").write_text("a page")
        if distance:
            story.relay.add(Rule(delay=distance / 2))
        yield story, pages


def _plain(distance: float) -> Fetches:
    with _stage(distance, "auto") as (story, _):
        alice, bob = story["alice"], story["bob"]
        story.world.publish("bob.example", [bob.v4, bob.v6])
        with Unbound(story.world, PLAIN, 53, alice.prefix):
            return _fetch_twice(story, alice, PLAIN)


def _hushwire(distance: float, plane: str) -> Fetches:
    with _stage(distance, plane) as (story, _):
        story.hire("bob", PRIVATE.replace("*", "alice.example"))
        story.hire("alice", PRIVATE, dns=f'listen = ["{LISTENER}"]')
        if not eventually(lambda: story.peer("bob", "alice.example")["addresses"], 20):
            raise RuntimeError(f"bob does not find alice:\n{story.log()}")
        return _fetch_twice(story, story["alice"], LISTENER)


def _fetch_twice(story: Story, alice: Host, server: str) -> Fetches:
    """Milliseconds to the first byte, cold and warm."""
    # Another question makes the resolver fetch the zones' keys, which one does not do for each name.
    asked = eventually(lambda: "NOERROR" in story.program(alice, "kdig", f"@{server}", "bob.example", "TXT").stdout, 20)
    if not asked:
        raise RuntimeError(f"no resolver at {server}:\n{story.log()}")
    words = ("-4", "--max-time", "20", "-o", "/dev/null", "-w", "%{time_starttransfer}", "http://bob.example/page")
    cold, *warm = (story.program(alice, *CURL, *words, server=server).stdout for _ in range(1 + WARM))
    if not all(map(float, (cold, *warm))):
        raise RuntimeError(f"no page came:\n{story.log()}")
    return float(cold) * 1000, [float(each) * 1000 for each in warm]
