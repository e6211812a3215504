"""Where the demo happens: alice, bob and a relay between them, a signed DNS, and a web server on bob."""

import itertools
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from hushwire.lab.dns import SignedWorld
from hushwire.lab.hushwire import Hushwire, named
from hushwire.lab.namespaces import Topology
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay

LOOKED_UP = 20.0
"""Seconds within which a signed name must have been found."""
FETCH = 20.0
"""Seconds within which a page must have come."""
NOWHERE = 2.0
"""Seconds after which one that is not expected is given up."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """A page that curl asked for by name, with a canary in the request and another in the page."""

    arrived: bool
    first_byte: float
    """Milliseconds from curl's start, the look-up of the name included."""
    server: str
    """The address that the name turned out to have; empty if nobody there answered."""


class Stage:
    """A context manager; what is on it is built step by step, so that each can be announced."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._pages = itertools.count(1)
        self.hidden: list[bytes] = []
        """Canaries that nobody but alice and bob may see."""
        self.shown: list[bytes] = []
        """Canaries of the control, which the relay must see if its eyes are good."""

    def __enter__(self) -> "Stage":
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hushwire-demo-")))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def daemons(self) -> tuple[Hushwire, Hushwire]:
        """Alice's and bob's."""
        return self.at_alice, self.at_bob

    def connect(self) -> None:
        """The hosts, and the relay between them."""
        self.topology = self._stack.enter_context(Topology())
        self.alice, self.bob, self.dns = (self.topology[name] for name in ("alice", "bob", "dns"))
        self.relay = self._stack.enter_context(Relay(self.topology, self.folder / "wire.pcap"))

    def publish(self, plane: str) -> None:
        """A key for each host, and the DNS with their addresses and public keys."""
        self.world = self._stack.enter_context(SignedWorld(str(self.dns.v4), 53, prefix=self.dns.prefix))
        self.at_alice, self.at_bob = (
            Hushwire(
                host, named(f"{host.name}.example", [peer], self.world.forward, self.world.anchor_path, plane=plane)
            )
            for host, peer in ((self.alice, "bob.example"), (self.bob, "alice.example"))
        )
        for daemon in self.daemons:
            self._stack.callback(shutil.rmtree, daemon.folder)
            host = daemon.host
            self.world.publish(f"{host.name}.example", [host.v4, host.v6], [daemon.key.public])

    def open_server(self) -> None:
        """The web server on bob, which answers from now on."""
        (self.folder / "pages").mkdir()
        with (self.folder / "web.log").open("w") as log:
            command = (sys.executable, "-m", "http.server", "--bind", "::", "--directory", str(self.folder / "pages"))
            self.bob.start(*command, "80", stdout=log, stderr=log)
        at_home = (*CURL, "-o", "/dev/null", "http://127.0.0.1/")
        if not eventually(lambda: self.bob.run(*at_home, check=False).returncode == 0, 20):
            raise RuntimeError(f"bob's web server does not answer: {(self.folder / 'web.log').read_text()}")

    def start(self, daemon: Hushwire) -> None:
        """Run hushwire on a host until the end, or until it is killed."""
        self._stack.enter_context(daemon)

    def await_names(self, daemon: Hushwire) -> None:
        """Wait until it has found its peer's address and key, and has set the policy."""
        if not eventually(lambda: daemon.peer()["addresses"], LOOKED_UP):
            raise RuntimeError(f"hushwire on {daemon.host.name} does not find its peer: {daemon.peer()['unbound']}")

    def kill(self, daemon: Hushwire) -> None:
        """As `kill -9` does; its children are given a moment to find out."""
        os.kill(daemon.pid, signal.SIGKILL)
        sleep(0.5)

    def fetch(self, version: int = 4, limit: float = FETCH, *, hidden: bool = True) -> Fetch:
        """Have curl on alice fetch a fresh page from bob.example."""
        asked, told = (self._canary(os.urandom(16).hex().encode(), hidden).decode() for _ in range(2))
        page = f"{next(self._pages)}.html"
        text = f"<p>Between alice and bob: {told}</p>\n"
        (self.folder / "pages" / page).write_text(text)
        (self.folder / "resolv.conf").write_text(f"nameserver {self.dns.v4}\n")
        done = self.alice.run(
            "sh", "-c", WITH_RESOLVER, str(self.folder / "resolv.conf"),
            *CURL, f"-{version}", "--max-time", str(limit), "-w", "%{stderr}%{time_starttransfer} %{remote_ip}",
            "-H", f"Cookie: {asked}", f"http://bob.example/{page}?{asked}",
            check=False,
        )  # fmt: skip
        first_byte, _, server = done.stderr.strip().partition(" ")
        return Fetch(done.stdout == text, float(first_byte) * 1000, server)

    def hang_up(self) -> None:
        """Wait until the last packets of every connection have passed, so that none is taken for a later one's."""
        still = ("ss", "-Htn", "exclude", "listening", "exclude", "time-wait")
        if not eventually(lambda: not any(host.run(*still).stdout for host in (self.alice, self.bob))):
            raise RuntimeError("a TCP connection does not end")

    def ping(self, version: int) -> bool:
        """Three pings from alice to bob, filled with a canary."""
        return self.alice.ping(self.bob, version=version, count=3, pattern=self._canary(os.urandom(16), True))

    def seen(self, canaries: list[bytes]) -> int:
        """Frames in which the relay found any of these."""
        report = self.relay.report()
        return sum(map(report.seen, canaries))

    def _canary(self, octets: bytes, hidden: bool) -> bytes:
        (self.hidden if hidden else self.shown).append(octets)
        return self.relay.watch(octets)


CURL = ("curl", "-q", "-s", "-f", "--noproxy", "*")
"""As it is, whatever its user has configured."""

WITH_RESOLVER = """
set -e
mount -t tmpfs tmpfs /run
file=$(readlink -m /etc/resolv.conf)
mkdir -p "${file%/*}"
[ -e "$file" ] || : >"$file"
mount --bind "$0" "$file"
exec "$@"
"""
"""Runs a program with a resolv.conf of its own, and away from this machine's name services.

A command in a namespace has its mounts to itself, so this is seen by nobody else.
"""

UDP_ECHO = """
import socket
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::", 7))
print("ready", flush=True)
while True:
    data, peer = sock.recvfrom(65536)
    print(peer[0].removeprefix("::ffff:"), flush=True)
    sock.sendto(data, peer)
"""
"""A program that sends every datagram to port 7 back, and says whom it is from."""
