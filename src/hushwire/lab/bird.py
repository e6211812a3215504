"""BIRD, a routing daemon, in a host of the lab: a BGP session (RFC 4271) with a neighbour over each IP version.

It keeps what it learns to itself: no route of it reaches the kernel.
"""

import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from hushwire.lab.namespaces import NUMBERS, Host, end, run
from hushwire.lab.peer import eventually


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


class Bird:
    """A context manager: inside it the router runs, and tries again each second where there is no session."""

    def __init__(self, host: Host, neighbour: Host, *prefixes: str, multihop: bool = False) -> None:
        """`prefixes`, of both IP versions, are announced.

        `multihop`: as to a neighbour that may be behind other routers.  To one that may not be, BIRD's sockets are
        bound to the interface (SO_BINDTODEVICE), and no route leads them through a TUN.
        """
        self.host = host
        self._reach = "multihop" if multihop else "direct"
        self.neighbour = neighbour
        self._prefixes: tuple[str, ...] = prefixes
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix=f"hushwire-bird-{self.host.name}-")
        self._conf, self._control = (str(Path(self._folder.name) / name) for name in ("bird.conf", "control"))
        self._write()
        command = ("bird", "-f", "-c", self._conf, "-s", self._control, "-P", f"{self._folder.name}/pid")
        with self.log.open("w") as log:
            self._process = self.host.start(*command, stdout=log, stderr=log)
        if not eventually(lambda: self._ask("show", "status", check=False).returncode == 0):
            self.__exit__()
            raise RuntimeError(f"bird on {self.host.name} does not answer")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            end(self._process)
        self._folder.cleanup()

    @property
    def log(self) -> Path:
        """What it says."""
        return Path(self._folder.name) / "log"

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

    def _write(self) -> None:
        here, there = self.host, self.neighbour
        protocols = "".join(
            PROTOCOLS.format(
                version=version, local=local, remote=remote, as_=AS(here), neighbour_as=AS(there), reach=self._reach,
                routes="".join(f"  route {prefix} blackhole;\n" for prefix in self._of(version)),
            )
            for version, local, remote in ((4, here.v4, there.v4), (6, here.v6, there.v6))
        )  # fmt: skip
        Path(self._conf).write_text(CONF.format(id=here.v4) + protocols)

    def _of(self, version: int) -> Iterable[str]:
        return (prefix for prefix in self._prefixes if (":" in prefix) is (version == 6))

    def _ask(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("birdcl", "-s", self._control, *words, check=check)


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
