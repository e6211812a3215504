"""The lab's hosts: network namespaces, joined by veth pairs that all end in one namespace between them.

       alice                        middle                        bob
    +-----------+        +----------------------------+        +-----------+
    |      eth0 ----------- alice              bob ------------- eth0      |
    | 192.0.2.1 |        |            relay           |        | 192.0.2.2 |
    +-----------+        |          (or bridge)       |        +-----------+
     2001:db8::1         |             dns            |         2001:db8::2
                         +--------------|-------------+
                                        |
                               eth0  +-----+
                         192.0.2.53  | dns |  2001:db8::53
                                     +-----+

In middle each host has an interface of its name, and nothing forwards until a Relay or bridge() does.  Namespaces are
called hw<process id>.<serial>-<host>, and nothing is made outside of them.
"""

import itertools
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import IO

NUMBERS = {
    "alice": 1, "bob": 2, "carol": 3, "dns": 53, "mallory": 66,
    "sg-a": 11, "sg-b": 12, "q": 13, "r": 14, "btns-c": 15, "btns-d": 16,
}  # fmt: skip
"""The last part of each host's addresses (and of its MAC address).  Those of the second line are RFC 5386's, s3."""

_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace of ours, and how commands are run in it."""

    namespace: str
    """As `ip netns` calls it."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list, compare=False, repr=False)
    """What start() started."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command, runs it here.  Its process id stays, and what is in /etc/netns/<namespace> holds."""
        return ("ip", "netns", "exec", self.namespace)

    def run(self, *command: str, timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run(*self.prefix, *command, timeout=timeout, check=check)

    def start(
        self,
        *command: str,
        stdin: int | IO[str] = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process that ends with the topology, if not before.  `env` is added to our own environment."""
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(
            (*self.prefix, *command), stdin=stdin, stdout=stdout, stderr=stderr, env=environment, text=True
        )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End what was started."""
        for process in reversed(self.processes):
            end(process)
        self.processes.clear()


@dataclass(frozen=True, slots=True)
class Host(Namespace):
    """A namespace with one interface, eth0."""

    name: str = ""
    """Its own, and that of its interface in middle."""

    @property
    def mac(self) -> str:
        """Of eth0."""
        return f"02:00:00:00:00:{NUMBERS[self.name]:02x}"

    @property
    def v4(self) -> IPv4Address:
        """Its address, of TEST-NET-1 (RFC 5737)."""
        return IPv4Address(f"192.0.2.{NUMBERS[self.name]}")

    @property
    def v6(self) -> IPv6Address:
        """Its address, of the documentation prefix (RFC 3849).  The decimal digits are those of the IPv4 address."""
        return IPv6Address(f"2001:db8::{NUMBERS[self.name]}")

    def ping(self, other: "Host", *, version: int = 4, count: int = 1, pattern: bytes = b"", timeout: int = 10) -> bool:
        """Whether every one of `count` echoes comes back.  `pattern`, at most 16 octets, fills them.

        When one has come, ping waits for others no longer than two round trips or its interval.
        """
        filling = ("-p", pattern.hex()) if pattern else ()
        address = other.v4 if version == 4 else other.v6
        words = ("ping", "-n", "-i", "0.4", "-c", str(count), "-W", str(timeout), *filling, str(address))
        # Its exit status is good as soon as one came back.
        return " 0% packet loss" in self.run(*words, check=False, timeout=timeout + count + 10).stdout


class Topology:
    """A context manager: inside it the hosts are there.  A host is an item: `topology["alice"]`."""

    def __init__(
        self, hosts: Sequence[str] = ("alice", "bob", "dns"), *, offloads: bool = False, mtu: int = 1500
    ) -> None:
        """With `offloads` the hosts send segments of up to 64 KiB, and checksums to be filled, as to a real NIC."""
        self.id = f"hw{os.getpid()}.{next(_serial)}"
        self.middle = Namespace(f"{self.id}-middle")
        self.hosts = {name: Host(f"{self.id}-{name}", name=name) for name in hosts}
        self._offloads = offloads
        self._mtu = mtu
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> "Topology":
        with ExitStack() as stack:
            for namespace in (self.middle, *self.hosts.values()):
                run("ip", "netns", "add", namespace.namespace)
                stack.callback(run, "ip", "netns", "delete", namespace.namespace)
                stack.callback(namespace.end)
            # Middle has no voice of its own, and hosts speak at once and of nothing but what they are asked to.
            self.middle.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
            self._connect()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def bridge(self) -> None:
        """Let the kernel join the hosts, where nobody needs to look at what passes."""
        joined = [f"link set {name} master bridge up" for name in self.hosts]
        add = "link add bridge type bridge forward_delay 0 mcast_snooping 0"
        self._in_middle(add, *joined, "link set bridge up")

    def _connect(self) -> None:
        self._in_middle(
            *(
                f"link add {name} mtu {self._mtu} type veth "
                f"peer name eth0 address {host.mac} mtu {self._mtu} netns {host.namespace}"
                for name, host in self.hosts.items()
            )
        )
        for host in self.hosts.values():
            host.run("sh", "-ec", _NO_OFFLOADS * (not self._offloads) + _UP, str(host.v4), str(host.v6))
        self._in_middle(*(f"link set {name} up" for name in self.hosts))

    def _in_middle(self, *lines: str) -> None:
        """Have `ip` do this there.  One process does it all: in a User-Mode Linux kernel, to start one takes long."""
        run("ip", "-n", self.middle.namespace, "-batch", "-", stdin="\n".join(lines))


_NO_OFFLOADS = "ethtool -K eth0 tx off gso off tso off gro off"
_UP = """
for of in all default eth0; do
    cd /proc/sys/net/ipv6/conf/$of
    echo 0 >accept_dad; echo 0 >router_solicitations; echo 0 >accept_ra
done
ip -batch - <<END
address add $0/24 dev eth0
address add $1/64 dev eth0 nodad
link set lo up
link set eth0 up
END
"""


def run(*command: str, stdin: str = "", timeout: float = 30, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure is a RuntimeError that says what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done


def end(process: subprocess.Popen[str], patience: float = 5) -> None:
    """End one process of ours: politely, and after `patience` seconds not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def free_port() -> int:
    """A port of loopback, here, that nobody has for UDP or TCP."""
    for _ in range(100):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])
    raise RuntimeError("no port is free")


def unprivileged(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` as root of namespaces of its own: a Topology needs no more.

    Network, mounts, users and /run are private.  More than one user is there only where /etc/subuid grants us some.
    """
    script = 'mount -t tmpfs tmpfs /run && ip link set lo up && exec "$@"'
    users = ("--map-auto",) if _has_subordinate_users() else ()
    return ["unshare", "--user", "--map-root-user", *users, "--net", "--mount", "sh", "-c", script, "sh", *command]


def _has_subordinate_users() -> bool:
    granted = subprocess.run(("getsubids", str(os.getuid())), capture_output=True)
    return granted.returncode == 0
