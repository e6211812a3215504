"""The plane worker between two network namespaces, with SAs made by hand.

alice --- hush0 (TUN) --- worker --- veth === veth --- worker --- hush0 --- bob
                                  ^ tcpdump
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from hushwire.crypto.secret import Secret
from hushwire.daemon.channel import Channel, pair
from hushwire.events import Acquire, DeletePolicy, Expire, Installed, InstallPolicy, InstallSA, Refused
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import EncrID

pytestmark = pytest.mark.lab
PROCESS = Path(__file__).with_name("plane_process.py")
CANARY = b"canary-in-a-coal-mine"
PAIRS = {4: ("192.0.2.1", "192.0.2.2", 1458), 6: ("2001:db8::1", "2001:db8::2", 1438)}

SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready", flush=True)
peer = listener.accept()[0]
total = 0
while octets := peer.recv(1 << 20):
    total += len(octets)
peer.sendall(str(total).encode())
"""
CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7), timeout=30)
peer.sendall(sys.argv[2].encode() * int(sys.argv[3]))
peer.shutdown(socket.SHUT_WR)
print(peer.recv(100).decode())
"""
THROW = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
for datagram in sys.argv[2:]:
    sock.sendto(bytes.fromhex(datagram), (sys.argv[1], 4500))
"""


@dataclass
class Host:
    """One namespace and its worker."""

    name: str
    address: IPAddress
    peer: IPAddress
    mtu: int
    channel: Channel | None = None
    worker: subprocess.Popen[bytes] | None = None

    def run(self, *command: str, check: bool = True) -> str:
        line = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(line, check=check, stdout=subprocess.PIPE, timeout=60, text=True).stdout

    def popen(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)

    def start(self, until: ExitStack) -> None:
        near, far = pair()
        with far:
            fd = far.fileno()
            arguments = (str(fd), str(self.mtu), str(self.address), str(self.peer))
            self.worker = self.popen(sys.executable, str(PROCESS), *arguments, pass_fds=[fd])
        until.callback(end, self.worker)
        self.channel = Channel(near)
        until.callback(near.close)

    def bypass(self) -> None:
        """Take the way to the TUN out."""
        ip("-n", self.name, "-6" if self.address.version == 6 else "-4", "rule", "del", "table", "4855")

    def tell(self, *requests: object) -> list[object]:
        """The answers, one for each request."""
        self.channel.send(*requests)
        answers: list[object] = []
        while len(answers) < len(requests):
            answers += self.channel.wait()
        return answers

    def protect(self, *sas: SA) -> None:
        for sa in sas:
            policy = Policy(sa.selector, sa.direction, Action.PROTECT, 1, sa.reqid, sa.mode)
            assert self.tell(InstallPolicy(1, policy), InstallSA(2, sa)) == [Installed(1), Installed(2)]


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(10)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    one, two, mtu = PAIRS[request.param]
    with ExitStack() as until:
        names = [f"hwplane{os.getpid()}{letter}" for letter in "ab"]
        for name in names:
            ip("netns", "add", name)
            until.callback(ip, "netns", "del", name)
        ip("-n", names[0], "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", names[1])
        alice = Host(names[0], ip_address(one), ip_address(two), mtu)
        bob = Host(names[1], ip_address(two), ip_address(one), mtu)
        for host in (alice, bob):
            ip("-n", host.name, "link", "set", "lo", "up")
            nodad = ["nodad"] if request.param == 6 else []
            ip(
                "-n",
                host.name,
                "address",
                "add",
                f"{host.address}/{24 if request.param == 4 else 64}",
                "dev",
                "veth0",
                *nodad,
            )
            ip("-n", host.name, "link", "set", "veth0", "up")
        with ExitStack() as workers:
            for host in (alice, bob):
                host.start(workers)
            yield alice, bob


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def sa_between(source: Host, destination: Host, spi: int, mode: Mode = Mode.TRANSPORT) -> SA:
    return SA(
        spi, Direction.OUT, source.address, destination.address, mode, EspSuite(EncrID.AES_GCM_16, 128),
        Secret(os.urandom(20)), Secret(b""), Selector.between(source.address, destination.address), 7, Lifetime(),
        Encapsulation(4500, 4500),
    )  # fmt: skip


def inward(sa: SA) -> SA:
    return replace(sa, direction=Direction.IN, selector=Selector(sa.selector.remote, sa.selector.local))


def protect(alice: Host, bob: Host, mode: Mode = Mode.TRANSPORT) -> None:
    there, back = sa_between(alice, bob, 0x1000, mode), sa_between(bob, alice, 0x2000, mode)
    alice.protect(inward(back), there)
    bob.protect(inward(there), back)


def transfer(alice: Host, bob: Host, times: int) -> int:
    """Send the canary over TCP; the octets that arrived."""
    server = bob.popen(sys.executable, "-c", SERVER, str(bob.address), stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        return int(alice.run(sys.executable, "-c", CLIENT, str(bob.address), CANARY.decode(), str(times)))
    finally:
        end(server)
        server.stdout.close()


class Capture:
    """What crosses the wire at a host, while this is open."""

    def __init__(self, host: Host, file: Path) -> None:
        self.file = file
        self._tcpdump = host.popen(
            "tcpdump",
            "--immediate-mode",
            "-B",
            "65536",
            "-i",
            "veth0",
            "-U",
            "-w",
            str(file),
            "-Z",
            "root",
            stderr=subprocess.PIPE,
        )
        assert any(b"listening" in line for line in self._tcpdump.stderr)

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        end(self._tcpdump)
        self._tcpdump.stderr.close()

    def octets(self) -> bytes:
        time.sleep(0.5)
        return self.file.read_bytes()


@pytest.mark.parametrize("mode", list(Mode))
def test_tcp_arrives_and_is_not_seen(hosts: tuple[Host, Host], mode: Mode, tmp_path: Path) -> None:
    alice, bob = hosts
    protect(alice, bob, mode)
    alice.run("ping", "-c", "2", "-i", "0.2", "-s", "1300", str(bob.address))
    times = 500_000
    with Capture(bob, tmp_path / "wire.pcap") as capture:
        assert transfer(alice, bob, times) == times * len(CANARY)
        wire = capture.octets()
    assert len(wire) > times * len(CANARY)
    assert CANARY not in wire
    # Longer than the TUN takes: cut before the plane, sealed whole, and cut again on the wire.
    assert "2 received" in alice.run("ping", "-c", "2", "-i", "0.2", "-s", "9000", str(bob.address))
    # Control: what passes the TUN by is seen.
    for host in hosts:
        host.bypass()
    with Capture(bob, tmp_path / "clear.pcap") as capture:
        assert transfer(alice, bob, 10) == 10 * len(CANARY)
        assert CANARY in capture.octets()


def test_the_first_packet_waits_for_its_sa(hosts: tuple[Host, Host]) -> None:
    alice, bob = hosts
    there, back = sa_between(alice, bob, 0x1000), sa_between(bob, alice, 0x2000)
    bob.protect(inward(there), back)
    alice.protect(inward(back))
    policy = Policy(there.selector, Direction.OUT, Action.PROTECT, 1, there.reqid)
    assert alice.tell(InstallPolicy(3, policy)) == [Installed(3)]
    ping = alice.popen("ping", "-c", "1", "-W", "5", str(bob.address), stdout=subprocess.DEVNULL)
    try:
        (acquire,) = alice.channel.wait()
        assert isinstance(acquire, Acquire)
        assert (acquire.flow.remote, acquire.reqid) == (bob.address, 7)
        time.sleep(0.2)
        assert alice.tell(InstallSA(4, replace(there, acquire=acquire.sequence))) == [Installed(4)]
        assert ping.wait(10) == 0
    finally:
        end(ping)


def test_lifetimes_and_refusals_are_told(hosts: tuple[Host, Host]) -> None:
    alice, bob = hosts
    there = replace(sa_between(alice, bob, 0x1000), lifetime=Lifetime(soft_seconds=1, hard_seconds=2))
    alice.protect(there)
    assert alice.tell(InstallSA(9, there)) == [Installed(9)]  # The same, still alive: nothing changes.
    assert alice.tell(InstallSA(9, replace(there, spi=0x1001))) == [Refused(9, "its key was used before")]
    name = SAName(0x1000, bob.address)
    assert alice.channel.wait() == [Expire(name, False)]
    assert alice.channel.wait() == [Expire(name, True)]
    assert alice.tell(InstallSA(9, there)) == [Refused(9, "its key was used before")]


def test_nothing_leaves_without_an_sa(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Blocked, clear by a policy that no route knows of, or with no policy at all."""
    alice, bob = hosts
    selector = Selector.between(alice.address, bob.address)
    ping = ("ping", "-c", "2", "-i", "0.2", "-W", "1", "-p", CANARY[:16].hex(), str(bob.address))
    with Capture(bob, tmp_path / "wire.pcap") as capture:
        for action in (Action.BLOCK, Action.CLEAR):
            assert alice.tell(InstallPolicy(1, Policy(selector, Direction.OUT, action, 1))) == [Installed(1)]
            assert "0 received" in alice.run(*ping, check=False)
        alice.channel.send(DeletePolicy(selector, Direction.OUT))
        assert "0 received" in alice.run(*ping, check=False)
        assert CANARY[:16] not in capture.octets()
    # Control: without the rules it leaves, and is seen.
    for host in hosts:
        host.bypass()
    with Capture(bob, tmp_path / "clear.pcap") as capture:
        assert "2 received" in alice.run(*ping)
        assert CANARY[:16] in capture.octets()


@pytest.mark.parametrize("blocked", [True, False], ids=["blocked by the kernel", "control"])
def test_what_was_held_leaves_in_clear_if_the_kernel_lets_it(
    hosts: tuple[Host, Host], blocked: bool, tmp_path: Path
) -> None:
    """The worker may be told, or believe, what it likes: the kernel's own policy comes after it."""
    alice, bob = hosts
    selector = Selector.between(alice.address, bob.address)
    assert bob.tell(InstallPolicy(1, Policy(selector, Direction.OUT, Action.BLOCK, 1))) == [Installed(1)]
    bob.bypass()
    assert alice.tell(InstallPolicy(1, Policy(selector, Direction.OUT, Action.PROTECT, 1, 7))) == [Installed(1)]
    words = ("ping", "-n", "-c", "1", "-W", "5", "-p", CANARY[:16].hex(), str(bob.address))
    with Capture(bob, tmp_path / "wire.pcap") as capture:
        ping = alice.popen(*words, stdout=subprocess.DEVNULL)
        try:
            assert isinstance(alice.channel.wait()[0], Acquire)
            alice.bypass()
            if blocked:
                between = ("src", str(alice.address), "dst", str(bob.address))
                ip("-n", alice.name, "xfrm", "policy", "add", *between, "dir", "out", "action", "block")
            assert alice.tell(InstallPolicy(2, Policy(selector, Direction.OUT, Action.CLEAR, 1))) == [Installed(2)]
            assert (ping.wait(10) == 0) is not blocked
        finally:
            end(ping)
        assert (CANARY[:16] in capture.octets()) is not blocked


def test_any_datagrams_leave_the_worker_standing(hosts: tuple[Host, Host]) -> None:
    """Empty, short, of equal and of other lengths, for an SPI that is known and for one that is not."""
    alice, bob = hosts
    protect(alice, bob)
    bob.bypass()
    spi = (0x2000).to_bytes(4, "big")
    datagrams = [
        b"",
        b"",
        b"",
        b"\xff",
        b"\xff",
        spi,
        spi + bytes(30),
        spi + bytes(60),
        bytes(60),
        spi * 15,
        b"",
        spi * 300,
    ]
    bob.run(sys.executable, "-c", THROW, str(alice.address), *(datagram.hex() for datagram in datagrams * 3))
    assert alice.tell(
        InstallPolicy(5, Policy(Selector.between(bob.address, bob.address), Direction.OUT, Action.BLOCK, 9))
    )
    assert alice.worker.poll() is None


def test_the_worker_ends_with_its_channel(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        host.channel.close()
        assert host.worker.wait(10) == 0
