"""BIRD, a routing daemon, in a host of the lab: a BGP session (RFC 4271) with a neighbour over each IP version.

It keeps what it learns to itself: no route of it reaches the kernel.
"""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hushwire.lab.daemon import Daemon
from hushwire.lab.namespaces import NUMBERS, Host, run


@dataclass(frozen=True, slots=True)
class Session:
    """What BIRD says of a BGP session."""

    info: str
    """Its state, as in RFC 4271 s8.2.2, and what ended the last one."""
    since: float
    """When it came to be so, in seconds; BIRD works it out anew each time, so it is good to a millisecond or two."""

    @property
    def established(self) -> bool:
        return self.info == "Established"

    def goes_on(self, before: "Session") -> bool:
        """Whether it is the same one, never lost in between."""
        return self.established and abs(self.since - before.since) < 0.1


class Bird(Daemon):
    """Tries again each second where there is no session."""

    def __init__(self, host: Host, neighbour: Host, *prefixes: str, multihop: bool = False) -> None:
        """`prefixes`, of both IP versions, are announced.

        `multihop`: as to a neighbour that may be behind other routers.  To one that may not be, BIRD's sockets are
        bound to the interface (SO_BINDTODEVICE), and no route leads them through a TUN.
        """
        super().__init__(host)
        self._reach = "multihop" if multihop else "direct"
        self.neighbour = neighbour
        self._prefixes: tuple[str, ...] = prefixes

    def prepare(self) -> Sequence[str]:
        self._write()
        return "bird", "-f", "-c", str(self._conf), "-s", str(self._control), "-P", f"{self.folder / 'pid'}"

    def is_ready(self) -> bool:
        return self._ask("show", "status", check=False).returncode == 0

    def announce(self, *prefixes: str) -> None:
        """These from now on and no others.  The sessions stay."""
        self._prefixes = prefixes
        self._write()
        self._ask("configure")

    def session(self, version: int) -> Session:
        """The one over this IP version, about routes of this IP version."""
        line = self._ask("show", "protocols", f"v{version}").stdout.splitlines()[-1]
        _, _, _, _, day, second, *info = line.split()
        return Session(" ".join(info), datetime.fromisoformat(f"{day} {second}").timestamp())

    def routes(self, version: int) -> set[str]:
        """The prefixes that the neighbour has announced and not withdrawn."""
        said = self._ask("show", "route", "protocol", f"v{version}", check=False).stdout
        return {words[0] for line in said.splitlines() if (words := line.split()) and "/" in words[0]}

    @property
    def _conf(self) -> Path:
        return self.folder / "bird.conf"

    @property
    def _control(self) -> Path:
        return self.folder / "control"

    def _write(self) -> None:
        here, there = self.host, self.neighbour
        protocols = "".join(
            PROTOCOLS.format(
                version=version, local=local, remote=remote, as_=AS(here), neighbour_as=AS(there), reach=self._reach,
                routes="".join(f"  route {prefix} blackhole;\n" for prefix in self._of(version)),
            )
            for version, local, remote in ((4, here.v4, there.v4), (6, here.v6, there.v6))
        )  # fmt: skip
        self._conf.write_text(CONF.format(id=here.v4) + protocols)

    def _of(self, version: int) -> Iterable[str]:
        return (prefix for prefix in self._prefixes if (":" in prefix) is (version == 6))

    def _ask(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("birdcl", "-s", str(self._control), *words, check=check)


def AS(host: Host) -> int:  # noqa: N802 - RFC 4271 has no lower case for it.
    """A router's autonomous system, of the numbers for documentation (RFC 5398)."""
    return 64496 + NUMBERS[host.name] % 15


CONF = """
log stderr all;
router id {id};
timeformat protocol iso long us;
protocol device {{ }}
"""

PROTOCOLS = """
protocol static static{version} {{
  ipv{version};
{routes}}}
protocol bgp v{version} {{
  local {local} as {as_};
  neighbor {remote} as {neighbour_as};
  strict bind; {reach};
  connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv{version} {{ import all; export where source = RTS_STATIC; }};
}}
"""
