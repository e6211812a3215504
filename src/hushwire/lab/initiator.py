"""An IKE initiator that does nothing but handshakes, one after the other, for benchmarks: IKE without a plane.

python -m hushwire.lab.initiator TASK     TASK is JSON, as Task has it; prints the seconds that it took.
"""

import itertools
import select
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic, time

import msgspec

from hushwire.crypto.auth import Scheme, sign
from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.daemon.entropy import SystemEntropy
from hushwire.events import Datagram, Installed, InstallSA, Send, Sign, Signed
from hushwire.ike import report
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.negotiation import Wanted
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.lab.peer import Connection, Mode
from hushwire.linux.sockets import UdpSocket
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import Mode as SadMode
from hushwire.policy.selector import Selector
from hushwire.timers import Now
from hushwire.wire.udp import NAT_PORT, NON_ESP_MARKER

PATIENCE = 5.0
"""Seconds that a step may take."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the initiator is told."""

    local: str
    remote: str
    local_id: str
    remote_id: str
    key: bytes
    """PEM of our private key, made for this run."""
    remote_key: bytes
    """SubjectPublicKeyInfo."""
    tunnel: bool
    handshakes: int

    @classmethod
    def of(cls, connection: Connection, handshakes: int) -> "Task":
        """The task of a lab's connection."""
        assert isinstance(connection.key, PrivateKey)
        assert connection.remote_key is not None
        return cls(
            str(connection.local), str(connection.remote), connection.local_id, connection.remote_id,
            connection.key.write_pem().expose(), connection.remote_key.spki,
            connection.mode is Mode.TUNNEL, handshakes,
        )  # fmt: skip

    def write(self) -> str:
        """For the command line."""
        return msgspec.json.encode(self).decode()


class Initiator:
    """One Endpoint and its sockets."""

    def __init__(self, task: Task) -> None:
        self._key = PrivateKey.read_pem(task.key)
        self._local, self._remote = ip_address(task.local), ip_address(task.remote)
        settings = Settings(Identity.fqdn(task.local_id), self._key.public, encapsulate=True)
        self._endpoint = Endpoint(settings, SystemEntropy(), itertools.count(1))
        mode = SadMode.TUNNEL if task.tunnel else SadMode.TRANSPORT
        selectors = (Selector.between(self._local, self._remote),)
        self._wanted = Wanted(selectors, mode)
        self._entry = PadEntry(
            task.remote_id, Identity.fqdn(task.remote_id), (self._remote,), (PublicKey.read(task.remote_key),), None,
            Assurance.TRUSTED, 1, mode, selectors,
        )  # fmt: skip
        self._sockets = {port: UdpSocket(self._remote.version, port) for port in (500, NAT_PORT)}
        self._poll = select.poll()
        for sock in self._sockets.values():
            self._poll.register(sock, select.POLLIN)
        self._up = False

    def handshake(self) -> None:
        """IKE_SA_INIT, and IKE_AUTH with a Child SA.

        Both are then forgotten without a word.  The next IKE_AUTH says INITIAL_CONTACT, by which the responder
        forgets them, too: so no deletion is counted, and nothing piles up.
        """
        self._up = False
        sa = self._endpoint.initiate(self._entry, self._local, self._remote, self._wanted, _now())
        self._until(lambda: self._up)
        sa.close("a benchmark has seen enough of it")
        self._perform()

    def _until(self, holds: "object") -> None:
        assert callable(holds)
        end = monotonic() + PATIENCE
        self._perform()
        while not holds():
            if monotonic() > end:
                raise TimeoutError("the responder does not answer")
            self._poll.poll(100)
            for port, sock in self._sockets.items():
                while (received := sock.receive()) is not None:
                    data = received.data[len(NON_ESP_MARKER) :] if port == NAT_PORT else received.data
                    self._endpoint.receive(Datagram(received.local, received.remote, data), _now())
                    self._perform()
            if self._endpoint.deadline() <= monotonic():
                self._endpoint.timeout(_now())
                self._perform()

    def _perform(self) -> None:
        while asked := self._endpoint.drain():
            for item in asked:
                match item:
                    case Send(local, remote, data):
                        parts = [NON_ESP_MARKER, data] if local.port == NAT_PORT else [data]
                        self._sockets[local.port].send(local.address, remote, parts)
                    case Sign(request, _, scheme, octets):
                        self._endpoint.signed(Signed(request, sign(self._key, Scheme[scheme], octets)), _now())
                    case InstallSA(request, _):
                        self._endpoint.installed(Installed(request), _now())
                    case report.ChildUp():
                        self._up = True
                    case report.ChildFailed(_, reason):
                        raise RuntimeError(reason)
                    case report.Closed(IkeSA(), reason):
                        if not self._up:
                            raise RuntimeError(reason)


def _now() -> Now:
    return Now(monotonic(), time())


def main() -> None:
    """The command line."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    initiator = Initiator(task)
    started = monotonic()
    for _ in range(task.handshakes):
        initiator.handshake()
    print(monotonic() - started)


if __name__ == "__main__":
    main()
