"""A process between the lab's hosts that carries, records, counts, searches and disturbs what they send each other.

    python -m hushwire.lab.relay --pcap FILE [--seed N] [--script FILE.py:FUNCTION] HOST...

It runs in a Topology's middle, over AF_PACKET sockets: nothing passes that it does not see, and when it ends nothing
passes.  Frames come with the kernel's notes on offloads (struct virtio_net_hdr), so unsegmented and unsummed ones pass
as they are.  Commands come as JSON lines on its standard input, and each is answered by a line.
"""

import argparse
import importlib.util
import inspect
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from hushwire.lab.capture import PcapWriter
from hushwire.lab.medium import Delivery, Medium, Report, Rule, Script
from hushwire.lab.namespaces import Topology, end


@dataclass(frozen=True, slots=True)
class Command:
    """One line to the relay: does what is given, in this order, and is answered with a Report or an error."""

    clear_rules: bool = False
    rules: tuple[Rule, ...] = ()
    watch: bytes | None = None
    inject: tuple[str, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the relay says to a command."""

    report: Report | None = None
    error: str | None = None


class Relay:
    """A context manager: inside it a topology's hosts reach each other, through a relay."""

    def __init__(
        self, topology: Topology, pcap: Path | None = None, *, seed: int = 0, script: Script | None = None
    ) -> None:
        """`pcap` is where everything is recorded (None: a file that goes with us); `script` a function of a module."""
        self._topology = topology
        self.pcap = pcap or Path()
        self._options = ["--seed", str(seed)]
        if script is not None:
            self._options += ["--script", f"{inspect.getfile(script)}:{script.__qualname__}"]
        self._process: subprocess.Popen[str] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Relay":
        with ExitStack() as stack:
            if self.pcap == Path():
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hushwire-relay-"))
                self.pcap = Path(folder) / "wire.pcap"
            command = (sys.executable, "-m", "hushwire.lab.relay", "--pcap", str(self.pcap), *self._options)
            self._process = self._topology.middle.start(
                *command, *self._topology.hosts, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(self._end)
            self._ask(Command())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, *rules: Rule) -> None:
        """Rules, after those that are there."""
        self._ask(Command(rules=rules))

    def clear_rules(self) -> None:
        """Let everything pass again."""
        self._ask(Command(clear_rules=True))

    def watch(self, canary: bytes) -> bytes:
        """Look for these octets in all that comes from now on."""
        self._ask(Command(watch=canary))
        return canary

    def canary(self) -> bytes:
        """Sixteen fresh random octets that are looked for from now on."""
        return self.watch(os.urandom(16))

    def inject(self, host: str, frame: bytes) -> None:
        """Let a frame that nobody sent arrive at a host."""
        self._ask(Command(inject=(host, frame)))

    def report(self) -> Report:
        """What passed until now.  The capture is complete up to here."""
        return self._ask(Command())

    def _ask(self, command: Command) -> Report:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(command).decode() + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay is gone, status {self._process.wait(5)}")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.report is None:
            raise ValueError(answer.error)
        return answer.report

    def _end(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # It ends with its input, and its capture is whole.
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        end(self._process)


class Sockets:
    """The relay's own side: a packet socket per host, the capture, and the commands."""

    def __init__(self, medium: Medium, hosts: list[str], pcap: PcapWriter) -> None:
        self._medium = medium
        self._pcap = pcap
        self._missed = 0
        self._ports = {host: _packet_socket(host) for host in hosts}
        self._selector = selectors.DefaultSelector()
        for host, port in self._ports.items():
            self._selector.register(port, selectors.EVENT_READ, host)
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ)
        self._input = b""

    def run(self) -> None:
        """Until the input ends."""
        while True:
            deadline = self._medium.deadline()
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            for key, _ in self._selector.select(wait):
                if key.data is not None:
                    self._receive(key.data)
                elif not self._obey():
                    return
            self._deliver()

    def _receive(self, host: str) -> None:
        port = self._ports[host]
        # No more at once than keeps the other ports and delayed frames waiting for a few milliseconds.
        for _ in range(64):
            try:
                data = port.recv(_LONGEST)
            except (BlockingIOError, InterruptedError):
                break
            octets = data[_OFFLOAD_SIZE:]
            number = self._pcap.write(octets)
            for changed in self._medium.enter(octets, host, time.monotonic(), number, data[:_OFFLOAD_SIZE]):
                self._pcap.write(changed)

    def _deliver(self) -> None:
        for host, octets, offload in self._medium.due(time.monotonic()):
            try:
                self._ports[host].send((offload or bytes(_OFFLOAD_SIZE)) + octets)
            except OSError:
                # The host's interface is down or full: a wire loses such frames as well.
                self._missed += 1

    def _obey(self) -> bool:
        try:
            octets = os.read(0, 65536)
        except BlockingIOError:
            return True
        *lines, self._input = (self._input + octets).split(b"\n")
        for line in lines:
            # Frames that came before the command are counted in its answer.
            for host in self._ports:
                self._receive(host)
            answer = self._answer(line)
            sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
            sys.stdout.buffer.flush()
        return bool(octets)

    def _answer(self, line: bytes) -> Answer:
        try:
            command = msgspec.json.decode(line, type=Command)
            if command.clear_rules:
                self._medium.clear_rules()
            for rule in command.rules:
                self._medium.add_rule(rule)
            if command.watch is not None:
                self._medium.watch(command.watch)
            if command.inject is not None:
                host, octets = command.inject
                self._pcap.write(octets)
                self._medium.inject(Delivery(octets, to=host), time.monotonic())
        except (ValueError, msgspec.MsgspecError) as error:
            return Answer(error=str(error))
        for port in self._ports.values():
            # struct tpacket_stats: packets, drops; reading it resets it.
            self._missed += int.from_bytes(port.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)[4:8], sys.byteorder)
        self._pcap.flush()
        return Answer(self._medium.report(self._missed, self._pcap.refused))


def _packet_socket(interface: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setblocking(False)
    for option in (_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING):
        port.setsockopt(_SOL_PACKET, option, 1)
    # Only the machine's own root may have more than net.core.rmem_max.
    port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    with suppress(PermissionError):
        port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    port.bind((interface, _ETH_P_ALL))
    return port


def _load(script: str) -> Script:
    """The function of `FILE.py:FUNCTION`."""
    path, _, name = script.rpartition(":")
    spec = importlib.util.spec_from_file_location("relay_script", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"no Python in {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Script = getattr(module, name)
    return function


_OFFLOAD_SIZE = 10
_LONGEST = _OFFLOAD_SIZE + 14 + 65_535 + 256
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
_SO_RCVBUFFORCE, _RECEIVE_BUFFER = 33, 16 << 20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hushwire.lab.relay")
    parser.add_argument("--pcap", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", type=_load)
    parser.add_argument("hosts", nargs="+")
    options = parser.parse_args()
    with PcapWriter(options.pcap) as pcap:
        Sockets(Medium(options.hosts, options.seed, options.script), options.hosts, pcap).run()


if __name__ == "__main__":
    main()
