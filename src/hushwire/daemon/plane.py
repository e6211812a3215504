"""The plane worker: userspace ESP between a TUN and UDP port 4500 (RFC 3948, RFC 4303).

No privileges: the TUN and the sockets are opened, marked and steered by the parent.  Nothing is known but what comes
over the channel, and the worker ends with it.
"""

import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from fcntl import ioctl
from functools import partial
from ipaddress import ip_address

from hushwire.daemon.channel import Channel
from hushwire.daemon.entropy import SystemEntropy
from hushwire.esp.batch import LARGEST, Buffer, Opener, Sealer
from hushwire.esp.packet import read_packet
from hushwire.esp.plane import Bypass, Output, Plane, Transmit
from hushwire.events import CloseFlows
from hushwire.linux.sockets import send_raw
from hushwire.policy.sad import Direction
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint

UDP_SEGMENT, UDP_GRO = 103, 104
IP_PKTINFO = 8
TUNSETOFFLOAD = 0x4004_54D0
RECEIVED = 8 * (LARGEST + 1)
"""Octets received before what was coalesced of them is written."""
RECEIVES = 256
"""Datagrams, or bursts of them, received before others have their turn."""
QUEUE = 4 << 20
"""Octets of a socket's queues; the kernel gives less if it must."""
REMOTES = 1 << 12
"""Remote ends a cache holds before it is emptied."""
SEGMENT_CONTROL = socket.CMSG_SPACE(4)
_INT = struct.Struct("=i")


class Worker:
    """One plane and its descriptors."""

    def __init__(
        self,
        tun: int,
        sockets: Sequence[socket.socket],
        channel: Channel,
        news: Channel,
        raw: Sequence[socket.socket],
    ) -> None:
        """`tun` is of a TUN with IFF_VNET_HDR.  Requests come over `channel`; what there is to tell goes out by `news`.

        What was held and may go in clear leaves by `raw`, which bear no mark: the kernel has its own say.
        """
        self.plane = Plane(SystemEntropy())
        self.lost: Counter[str] = Counter()
        """What the system would not take, by error."""
        self._sealer, self._opener = Sealer(), Opener()
        self._channel = channel
        self._news = news
        self._sockets = {sock.family: sock for sock in sockets}
        self._raw = {sock.family: sock for sock in raw}
        self._tun = tun
        os.set_blocking(tun, False)
        # The kernel cuts and sums what goes out: see esp.batch.
        ioctl(tun, TUNSETOFFLOAD, 0)
        for sock in sockets:
            sock.setblocking(True)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            # Of what is said about a burst, only the length of its datagrams is read.
            v4 = sock.family == socket.AF_INET
            packet_info = (socket.IPPROTO_IP, IP_PKTINFO) if v4 else (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
            sock.setsockopt(*packet_info, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE)
        self._buffer = memoryview(bytearray(RECEIVED))
        self._read = partial(os.readv, tun)
        self._remotes: dict[tuple[object, ...], Endpoint] = {}
        self._ends: tuple[Endpoint, Endpoint] | None = None

    def run(self) -> None:
        """Serve until the channel closes, which raises ChannelClosed."""
        ready: dict[int, Callable[[], None]] = {self._tun: self._from_tun, self._channel.fileno(): self._from_channel}
        for sock in self._sockets.values():
            ready[sock.fileno()] = partial(self._from_udp, sock)
        with select.epoll() as poll:
            for descriptor in ready:
                poll.register(descriptor, select.EPOLLIN)
            while True:
                deadline = self.plane.deadline()
                wait = None if deadline == NEVER else max(0.0, deadline - time.monotonic())
                for descriptor, _ in poll.poll(wait):
                    ready[descriptor]()
                now = _now()
                if deadline <= now.monotonic:
                    self._report(self.plane.timeout(now))

    def _from_channel(self) -> None:
        outputs: list[Output] = []
        for request in self._channel.receive():
            if isinstance(request, CloseFlows):
                # What they have said comes first: it may be on its way still.
                self._from_tun()
            outputs += self.plane.install(request, _now())
        self._report(outputs)

    def _from_tun(self) -> None:
        self._report(self._sealer.drain(self._read, self._send, self.plane, _now()))

    def _from_udp(self, sock: socket.socket) -> None:
        """Receive into one buffer; what comes from one end in pieces of one length is opened in one go."""
        buffer = self._buffer
        begin = at = stride = 0
        origin: tuple[object, ...] = ()
        for _ in range(RECEIVES):
            if at + LARGEST > RECEIVED:
                break
            try:
                size, control, _, address = sock.recvmsg_into([buffer[at:]], SEGMENT_CONTROL, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                break
            if not size:  # An empty datagram has no pieces to count.
                continue
            length = _INT.unpack_from(control[0][2])[0] if control else size
            if length != stride or address != origin or (at - begin) % stride:
                self._open(buffer[begin:at], stride, origin)
                begin, stride, origin = at, length, address
            at += size
        self._open(buffer[begin:at], stride, origin)
        self._opener.flush(self._write)

    def _open(self, octets: memoryview, stride: int, origin: tuple[object, ...]) -> None:
        if not octets:
            return
        remote = self._remotes.get(origin) or self._remember(origin)
        outputs = self._opener.open(octets, stride, remote, self.plane, _now(), self._write)
        if outputs:
            self._report(outputs)

    def _remember(self, address: tuple[object, ...]) -> Endpoint:
        if len(self._remotes) >= REMOTES:
            self._remotes.clear()
        host, port = address[:2]
        remote = self._remotes[address] = Endpoint(ip_address(str(host)), int(str(port)))
        return remote

    def _write(self, buffers: list[Buffer]) -> None:
        try:
            os.writev(self._tun, buffers)
        except OSError as error:
            self._lose(error)

    def _send(self, local: Endpoint, remote: Endpoint, octets: Buffer, stride: int) -> None:
        if self._ends is None or self._ends[0] is not local or self._ends[1] is not remote:
            self._aim(local, remote)
        if self._socket is None:
            self.lost["no socket of that family"] += 1
            return
        control = self._control
        if len(octets) > stride:
            control = [*control, (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", stride))]
        try:
            self._socket.sendmsg([octets], control, 0, self._address)
        except OSError as error:
            if len(octets) <= stride:
                self._lose(error)
                return
            # The kernel does not cut to datagrams that the path would fragment: they go one by one.
            for at in range(0, len(octets), stride):
                self._send(local, remote, octets[at : at + stride], stride)

    def _aim(self, local: Endpoint, remote: Endpoint) -> None:
        self._ends = (local, remote)
        self._address = (str(remote.address), remote.port)
        if remote.address.version == 4:
            self._socket = self._sockets.get(socket.AF_INET)
            packet_info = struct.pack("=I4s4s", 0, local.address.packed, bytes(4))
            self._control = [(socket.IPPROTO_IP, IP_PKTINFO, packet_info)]
        else:
            self._socket = self._sockets.get(socket.AF_INET6)
            self._control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local.address.packed + bytes(4))]

    def _report(self, outputs: list[Output]) -> None:
        reports = []
        for output in outputs:
            match output:
                case Transmit(local, remote, data):
                    self._send(local, remote, data, len(data))
                case Bypass(packet):
                    self._bypass(packet)
                case _:
                    reports.append(output)
        if reports:
            self._news.send(*reports)

    def _bypass(self, packet: bytes) -> None:
        flow = read_packet(packet).flow(Direction.OUT)
        sock = self._raw.get(socket.AF_INET if flow.remote.version == 4 else socket.AF_INET6)
        if sock is None:
            self.lost["clear by policy"] += 1
            return
        try:
            send_raw(sock, flow.local, flow.remote, packet)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost[error.strerror or str(error)] += 1


def _now() -> Now:
    return Now(time.monotonic(), time.time())
