"""Stories: hosts with hushwire and any rules, over a relay that listens, with the programs that people use.

Every program finds names by a resolv.conf of its own, and carries a canary there and another back.
"""

import itertools
import os
import shlex
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.lab.dns import SignedWorld
from hushwire.lab.evil import EvilProcess
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay
from hushwire.lab.stage import CURL, WITH_RESOLVER
from hushwire.names.ipseckey import KeyRecord, generic, write_record
from hushwire.names.reverse import reverse_name

LISTENER = "127.0.0.153"
"""Where a host's own hushwire answers its programs."""
REVERSE = ("2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa")
"""Signed zones of the lab's addresses."""
PLACES = """\
key = "{{folder}}/host.key"
control = "{{folder}}/control"
state = "{{folder}}"
trusted = "{{folder}}/trusted"
plane = "{plane}"
"""
PATIENCE = 120.0
"""Seconds until a server must answer: under an emulator Python is slow to start."""
World = TypeVar("World", SignedWorld, EvilProcess)


@dataclass(frozen=True, slots=True)
class Talk:
    """What became of the programs of talk()."""

    silent: tuple[str, ...]
    """Those that got no answer, with their IP versions."""
    canaries: tuple[str, ...]
    """That anybody could see were it not for IPsec."""


class Hosts(ABC, Generic[World]):
    """A context manager: the hosts, the DNS and the relay.  Daemons are started by hire()."""

    def __init__(self, *names: str, plane: str = "auto") -> None:
        self.plane = plane
        self._names = names or ("alice", "bob")
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self.daemons: dict[str, Hushwire] = {}

    @abstractmethod
    def _world(self, dns: Host) -> World:
        """Who is asked for names."""

    def __enter__(self) -> Self:
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hushwire-story-")))
            self.topology = self._stack.enter_context(Topology((*self._names, "dns")))
            self.relay = self._stack.enter_context(Relay(self.topology))
            self.world: World = self._stack.enter_context(self._world(self.topology["dns"]))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Host:
        return self.topology[name]

    # --- hosts ---

    def hire(
        self, name: str, rules: str, *, dns: str = "", start: bool = True, publish: bool = True,
        key: PrivateKey | None = None, without: str = "",
    ) -> Hushwire:  # fmt: skip
        """hushwire on a host, with these rules; `dns`: more of that table.  Its name is published with its key.

        `without`: statements that take a guard out before it starts, for the control of an attack.
        """
        daemon = self.employ(name, self.config(name, rules, dns), key, without=without)
        if publish:
            self.world.publish(f"{name}.example", [self[name].v4, self[name].v6], [daemon.key.public])
        if start:
            self.start(name)
        return daemon

    def employ(self, name: str, config: str, key: PrivateKey | None = None, *, without: str = "") -> Hushwire:
        """The same with a whole configuration, of settle(): nothing is published yet, and start() starts it."""
        self.daemons[name] = Hushwire(self[name], config, key, without=without)
        return self.daemons[name]

    def instruct(self, name: str, rules: str, dns: str = "") -> Hushwire:
        """Have a host's hushwire, which may run already, run by these rules; nothing is published."""
        if name not in self.daemons:
            return self.hire(name, rules, dns=dns, publish=False)
        self.daemons[name].restart(config=self.config(name, rules, dns))
        return self.daemons[name]

    def start(self, name: str) -> None:
        """Have a host's hushwire run from now on."""
        self._stack.enter_context(self.daemons[name])

    def publish_reverse(self, name: str, *keys: PublicKey) -> None:
        """Let a host's addresses have these keys in their reverse zones, and no others."""
        for address in (self[name].v4, self[name].v6):
            records = [generic(write_record(KeyRecord(10, None, key))) for key in keys]
            self.world.set(reverse_name(address), {"IPSECKEY": records})

    def config(self, name: str, rules: str, dns: str = "") -> str:
        """A host's whole configuration: its name, more of the table `dns`, and rules."""
        return self.settle(f'[host]\nname = "{name}.example"\n\n[dns]\n{dns}\n\n{rules}')

    def settle(self, config: str) -> str:
        """A configuration as people write it, which has a [host] and a [dns], with the lab's places and its DNS."""
        forward = "" if "\nroots = " in config else f'forward = ["{self.world.forward}"]\n'
        places = PLACES.format(plane=self.plane)
        trust = f'[dns]\ntrust-anchor = "{self.world.anchor_path}"\n{forward}'
        return config.replace("[host]\n", f"[host]\n{places}").replace("[dns]\n", trust)

    def log(self) -> str:
        """What every daemon said, for a test that fails."""
        return "".join(f"--- {name}\n{daemon.log.read_text()}" for name, daemon in self.daemons.items())

    def peer(self, at: str, name: str) -> dict[str, object]:
        """What a host's status says of a peer; empty: nothing."""
        return next((peer for peer in self.daemons[at].status()["peers"] if peer["peer"] == name), {})

    # --- programs ---

    def canary(self) -> str:
        """Sixteen hexadecimal digits that the relay looks for."""
        octets = os.urandom(8).hex().encode()
        return self.relay.watch(octets).decode()

    def program(
        self, host: Host, *command: str, server: str = LISTENER, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """A program that finds names by `server`."""
        return host.run(*self._resolving(server), *command, check=False, timeout=timeout)

    def start_program(self, host: Host, *command: str, server: str = LISTENER) -> "subprocess.Popen[str]":
        """The same, not waited for; what it prints can be read."""
        return host.start(*self._resolving(server), *command, stdout=subprocess.PIPE)

    def _resolving(self, server: str) -> tuple[str, ...]:
        file = self.folder / f"resolv.conf.{next(self._numbers)}"
        file.write_text(f"nameserver {server}\noptions timeout:5 attempts:1\n")
        return "sh", "-c", WITH_RESOLVER, str(file)

    def serve(self, host: Host) -> Path:
        """All servers that talk() asks; what is put into the folder can be had."""
        pages = self.serve_web(host)
        self.serve_ssh(host)
        texts = host.start(sys.executable, "-m", "hushwire.lab.texts", str(pages), stdout=subprocess.PIPE)
        assert texts.stdout is not None
        if not texts.stdout.readline():
            raise RuntimeError(f"the DNS server on {host.name} has ended")
        return pages

    def talk(
        self, host: Host, name: str, pages: Path, *, server: str = LISTENER, versions: Sequence[int] = (4, 6),
        limit: float = 15,
    ) -> Talk:  # fmt: skip
        """Have curl, ssh and kdig over TCP say something to the host called `name`, and hear something from it."""
        silent: list[str] = []
        canaries: list[str] = []
        for version in versions:
            for program in (self.curl, self.ssh, self.kdig):
                answered, carried = program(host, name, pages, version=version, server=server, limit=limit)
                canaries += carried
                if not answered:
                    silent.append(f"{program.__name__} -{version}")
        return Talk(tuple(silent), tuple(dict.fromkeys(canaries)))

    def serve_web(self, host: Host) -> Path:
        """A web server; what is put into the folder can be fetched."""
        folder = self.folder / f"pages-{host.name}"
        folder.mkdir()
        command = (sys.executable, "-m", "http.server", "--bind", "::", "--directory", str(folder), "80")
        host.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        page = (*CURL, "-o", "/dev/null", "http://127.0.0.1/")
        if not eventually(lambda: host.run(*page, check=False).returncode == 0, PATIENCE):
            raise RuntimeError(f"the web server on {host.name} does not answer")
        return folder

    def curl(
        self, host: Host, name: str, pages: Path, *, version: int = 4, server: str = LISTENER, limit: float = 15
    ) -> tuple[bool, list[str]]:
        """Whether curl got a fresh page by name, and the canaries that went there and back."""
        asked, told = self.canary(), self.canary()
        (pages / f"{asked}.html").write_text(told)
        url = f"http://{f'[{name}]' if ':' in name else name}/{asked}.html"
        done = self.program(
            host, *CURL, f"-{version}", "--max-time", str(limit), "-H", f"Cookie: {asked}", url,
            server=server, timeout=limit + 10,
        )  # fmt: skip
        return done.stdout == told, [asked, told]

    def kdig(
        self, host: Host, name: str, pages: Path, *, version: int = 4, server: str = LISTENER, limit: float = 15
    ) -> tuple[bool, list[str]]:
        """Whether kdig, over TCP, got a fresh text from the DNS server called `name`."""
        asked, told = self.canary(), self.canary()
        (pages / asked).write_text(told)
        done = self.program(
            host, "kdig", f"-{version}", "+tcp", "+short", "+retry=0", f"+timeout={limit:g}", f"@{name}", asked, "TXT",
            server=server, timeout=limit + 10,
        )  # fmt: skip
        return done.stdout == f'"{told}"\n', [asked, told]

    def serve_ssh(self, host: Host) -> None:
        """A secure shell, for a key that ssh() has.  ssh hides what is said, but not the server's first words."""
        folder = self.folder / "ssh"
        folder.mkdir()
        for name in ("host", "user"):
            host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        (folder / "known").write_text(f"* {(folder / 'host.pub').read_text()}")
        self._banner = self.canary()
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
            f"PermitRootLogin prohibit-password\nPidFile none\nUseDNS no\nVersionAddendum {self._banner}\n"
            # A shell that starts as nobody has configured it: what root's own does first may take seconds.
            f"SetEnv HOME={folder}\n"
        )
        start = f"mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec /usr/sbin/sshd -D -e -f {folder}/sshd_config"
        host.start("sh", "-c", start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not eventually(lambda: "SSH-2.0" in host.run("sh", "-c", "ssh-keyscan 127.0.0.1 2>&1", check=False).stdout):
            raise RuntimeError(f"sshd on {host.name} does not answer")

    def ssh(
        self, host: Host, name: str, pages: Path, *, version: int = 4, server: str = LISTENER, limit: float = 15
    ) -> tuple[bool, list[str]]:
        """Whether ssh read a fresh page of the host called `name`; the canary is in what sshd says first."""
        told = os.urandom(8).hex()
        page = pages / f"{told}.ssh"
        page.write_text(told)
        folder = self.folder / "ssh"
        options: Mapping[str, object] = {
            "UserKnownHostsFile": folder / "known", "IdentitiesOnly": "yes", "BatchMode": "yes",
            "ConnectTimeout": round(limit),
        }  # fmt: skip
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        done = self.program(
            host, "ssh", f"-{version}", "-F", "none", "-i", str(folder / "user"), *words, f"root@{name}",
            shlex.join(("cat", str(page))), server=server, timeout=limit + 10,
        )  # fmt: skip
        return done.stdout == told, [self._banner]

    def seen(self, canaries: Sequence[str]) -> int:
        """Frames in which the relay found any of these."""
        report = self.relay.report()
        return sum(report.seen(canary.encode()) for canary in canaries)


class Story(Hosts[SignedWorld]):
    """With an honest DNS."""

    def _world(self, dns: Host) -> SignedWorld:
        zones = ("example", "alice.example", "bob.example", *REVERSE)
        return SignedWorld(str(dns.v4), 53, zones, prefix=dns.prefix)


class EvilStory(Hosts[EvilProcess]):
    """With a DNS that lies when it is told to; nothing is between it and the hosts, so it is as well on their path."""

    def _world(self, dns: Host) -> EvilProcess:
        return EvilProcess(str(dns.v4), 53, prefix=dns.prefix)
