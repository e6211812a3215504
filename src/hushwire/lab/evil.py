"""A DNS authority that lies on request: a signed world of its own, any answer of which can be spoilt while it runs.

    .  example.  {alice,bob,evil,victim}.example.  2.0.192.in-addr.arpa.  8.b.d.0.1.0.0.2.ip6.arpa.    signed
    unsigned.example.                                                                                no DS

A validator forwards everything to it.  What an answer is to suffer is a defect (lab.defects), chosen for a name and
all names below it.  `EvilWorld` serves from a thread.  `python -m hushwire.lab.evil ADDRESS PORT FOLDER` serves from a
process of its own, in whatever namespace; `EvilProcess` starts and steers that.
"""

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.rdatatype
from dns.name import Name
from dns.rdatatype import RdataType

from hushwire.lab import authority
from hushwire.lab.authority import TTL, Authority, Zone, absolute
from hushwire.lab.defects import DEFECTS, Defect, Exchange
from hushwire.lab.dns import Publisher

SIGNED = (
    "example", "alice.example", "bob.example", "evil.example", "victim.example",
    "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa",
)  # fmt: skip
UNSIGNED = "unsigned.example"

ALL_BUT_KEYS = frozenset(RdataType) - {RdataType.DS, RdataType.DNSKEY}
"""A whole zone hangs on its keys; to spoil those, name them."""


class EvilWorld(Publisher):
    """A context manager: inside it the zones are served on one address and port, UDP and TCP, from a thread."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0: a free one."""
        self.address = address
        self.port = port
        self.asked: Counter[tuple[str, str]] = Counter()
        """How often each name and type was asked for."""
        self.seconds = 0.0
        """CPU time that serving has taken."""
        self._authority = Authority()
        self._misdeeds: dict[Name, list[tuple[frozenset[RdataType], float, tuple[Defect, ...]]]] = {}
        self._faults: list[BaseException] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        for origin in (*SIGNED, UNSIGNED):
            self.add_zone(origin, signed=origin != UNSIGNED)

    @property
    def forward(self) -> str:
        """Where a validator sends its questions, as libunbound writes it."""
        return f"{self.address}@{self.port}"

    @property
    def anchor(self) -> str:
        """The root's DS record: what a validator trusts."""
        return self._authority.anchor

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self._faults:
            raise self._faults[0]

    def add_zone(self, origin: str, signed: bool = True, iterations: int | None = None) -> Zone:
        """A new zone, delegated from the closest one above; `iterations`: it has NSEC3 with so many."""
        with self._lock:
            return self._authority.add_zone(origin, signed, iterations)

    def set(self, name: str, by_type: Mapping[str, Sequence[str]], ttl: int = TTL) -> None:
        with self._lock:
            self._authority.set(name, by_type, ttl)

    def misbehave(self, name: str, *defects: Defect, types: Collection[str] = (), delay: float = 0.0) -> None:
        """Spoil answers for `name` and all below it, from now on, in the order of the defects; `delay` in seconds.

        Types: none means all but DS and DNSKEY.  What was said of `name` before stays for other types.
        """
        of = frozenset(map(dns.rdatatype.from_text, types)) or ALL_BUT_KEYS
        with self._lock:
            self._misdeeds.setdefault(absolute(name), []).insert(0, (of, delay, defects))

    def behave(self, name: str = "") -> None:
        """Be honest again about `name` and all below it."""
        with self._lock:
            for spoilt in [spoilt for spoilt in self._misdeeds if spoilt.is_subdomain(absolute(name))]:
                del self._misdeeds[spoilt]

    def start(self) -> None:
        """Serve."""
        datagrams, connections = _sockets(self.address, self.port)
        self.port = datagrams.getsockname()[1]
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(datagrams, connections))
        self._thread.start()

    def stop(self) -> None:
        """Nobody is there any more, until start()."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def _exchange(self, octets: bytes, tcp: bool) -> Exchange | None:
        """What becomes of one question; None: it is none."""
        begun = time.thread_time()
        try:
            query = dns.message.from_wire(octets)
            question = query.question[0]
            with self._lock:
                self.asked[question.name.to_text(omit_final_dot=True).lower(), question.rdtype.name] += 1
                exchange = Exchange(self._authority, query, tcp)
                exchange.delay, defects = self._misdeed(question.name, question.rdtype)
                for defect in defects:
                    defect(exchange)
                if exchange.octets is None:
                    exchange.octets = [exchange.wire()]
        except dns.exception.DNSException:
            return None
        except BaseException as fault:
            # It is the test's, and is raised where the test ends: here it would look like one more lost answer.
            self._faults.append(fault)
            return None
        finally:
            self.seconds += time.thread_time() - begun
        return exchange

    def _misdeed(self, name: Name, rdtype: RdataType) -> tuple[float, tuple[Defect, ...]]:
        """The closest that was said of the name."""
        for labels in range(len(name), 0, -1):
            for types, delay, defects in self._misdeeds.get(name.split(labels)[1], ()):
                if rdtype in types:
                    return delay, defects
        return 0.0, ()

    def _run(self, datagrams: socket.socket, connections: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(datagrams, connections))

    async def _serve(self, datagrams: socket.socket, connections: socket.socket) -> None:
        self._loop.add_reader(datagrams, self._datagram, datagrams)
        server = await asyncio.start_server(self._connection, sock=connections)
        await self._stopping.wait()
        server.close()
        self._loop.remove_reader(datagrams)
        datagrams.close()

    def _datagram(self, sock: socket.socket) -> None:
        octets, asker = sock.recvfrom(65535)
        exchange = self._exchange(octets, tcp=False)
        if exchange is None:
            return
        for forged in exchange.forged:
            with socket.socket(sock.family, socket.SOCK_DGRAM) as elsewhere:
                elsewhere.sendto(forged, asker)
        for answer in exchange.octets or ():
            self._loop.call_later(exchange.delay, _send, sock, answer, asker)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who hangs up in the middle of a message is nobody to answer.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for _ in range(MAX_ON_CONNECTION):
                length = int.from_bytes(await reader.readexactly(2), "big")
                exchange = self._exchange(await reader.readexactly(length), tcp=True)
                if exchange is None:
                    break
                await asyncio.sleep(exchange.delay)
                for answer in exchange.octets or ():
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        writer.close()


class EvilProcess(Publisher):
    """The same world in a process of its own; a context manager."""

    def __init__(self, address: str, port: int = 53, prefix: Sequence[str] = ()) -> None:
        """`prefix` is put before the command, such as `ip netns exec NAME`."""
        self.address = address
        self.port = port
        self._prefix = tuple(prefix)

    @property
    def forward(self) -> str:
        return f"{self.address}@{self.port}"

    @property
    def anchor_path(self) -> Path:
        return Path(self._folder.name) / ANCHOR

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="hushwire-evil-")
        command = (sys.executable, "-m", "hushwire.lab.evil", self.address, str(self.port), self._folder.name)
        self._process = subprocess.Popen(
            (*self._prefix, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            # The port is told, for it may have been 0.
            self.port = int(self._line())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its input is its end.
        self._process.communicate(timeout=10)
        self._folder.cleanup()

    def set(self, name: str, by_type: Mapping[str, Sequence[str]], ttl: int = TTL) -> None:
        self._do("set", name, {rdtype: list(records) for rdtype, records in by_type.items()}, ttl)

    def add_zone(self, origin: str, signed: bool = True, iterations: int | None = None) -> None:
        """As EvilWorld's."""
        self._do("add_zone", origin, signed, iterations)

    def misbehave(self, name: str, *defects: str, types: Collection[str] = (), delay: float = 0.0) -> None:
        """As EvilWorld's, with the defects by their names in lab.defects.DEFECTS."""
        self._do("misbehave", name, list(defects), list(types), delay)

    def behave(self, name: str = "") -> None:
        """As EvilWorld's."""
        self._do("behave", name)

    def start(self) -> None:
        """As EvilWorld's; it has been done once."""
        self._do("start")

    def stop(self) -> None:
        """As EvilWorld's."""
        self._do("stop")

    def shift_clock(self, seconds: float) -> None:
        """Sign at a time that is so far from ours: as if it were us whose clock is wrong by that, the other way."""
        self._do("shift_clock", seconds)

    def _do(self, *command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the evil world has ended")
        return line


def main(address: str, port: int, folder: Path) -> None:
    """Serve, and obey lines on standard input until it ends: a JSON array each, a method's name and its arguments."""
    with EvilWorld(address, port) as world:
        (folder / ANCHOR).write_text(f"{world.anchor}\n")
        print(world.port, flush=True)
        for line in sys.stdin:
            match json.loads(line):
                case ["misbehave", name, defects, types, delay]:
                    world.misbehave(name, *(DEFECTS[defect] for defect in defects), types=types, delay=delay)
                case ["shift_clock", seconds]:
                    authority.clock = partial(_shifted, seconds)
                case [("set" | "add_zone" | "behave" | "start" | "stop") as verb, *arguments]:
                    getattr(world, verb)(*arguments)
                case other:
                    raise ValueError(f"no command: {other}")
            print("done", flush=True)


def _sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """One UDP socket and one that listens for TCP, on the same port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(100):
        datagrams, connections = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
        connections.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        datagrams.setblocking(False)
        try:
            datagrams.bind((address, port))
            connections.bind(datagrams.getsockname())
        except OSError:
            datagrams.close()
            connections.close()
            if port:
                raise
        else:
            return datagrams, connections
    raise OSError("no port is free for both UDP and TCP")


def _shifted(seconds: float) -> float:
    return time.time() + seconds


def _send(sock: socket.socket, answer: bytes, asker: object) -> None:
    # The world may have stopped while the answer was held back.
    with suppress(OSError):
        sock.sendto(answer, asker)  # type: ignore[call-overload]


MAX_ON_CONNECTION = 1000
ANCHOR = "root.ds"

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
