"""The channel between two processes: typed values over a SOCK_SEQPACKET pair.

What comes out of a channel was made by a process with other privileges, so it is decoded by type, from a closed
vocabulary, and whatever does not fit raises.  msgspec does the decoding; pickle would run the sender's code.
"""

import os
import socket
from collections import deque
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, get_args

import msgspec

from hushwire import events
from hushwire.crypto.secret import Secret
from hushwire.wire.address import IPAddress, IPNetwork, address_from_octets

LARGEST = 1 << 17
"""Octets of one packet: an IKE message of 64 KiB and its envelope fit twice."""


class ChannelClosed(Exception):
    """The process at the other end is gone."""


class ChannelError(Exception):
    """The process at the other end sent what is no value of the vocabulary."""


def _encode_hook(value: object) -> object:
    if isinstance(value, Secret):
        return value.expose()
    if isinstance(value, IPv4Address | IPv6Address):
        return value.packed
    if isinstance(value, IPv4Network | IPv6Network):
        return (value.network_address.packed, value.prefixlen)
    raise TypeError(f"{type(value).__name__} does not cross a channel")


def _decode_hook(kind: Any, value: Any) -> object:
    if kind is Secret:
        return Secret(msgspec.convert(value, bytes))
    if kind is IPAddress:
        return address_from_octets(msgspec.convert(value, bytes))
    if kind is IPNetwork:
        octets, length = msgspec.convert(value, tuple[bytes, int])
        address = address_from_octets(octets)
        return IPv4Network((octets, length)) if address.version == 4 else IPv6Network((octets, length))
    raise ValueError(f"{kind.__name__} does not cross a channel")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_envelope = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]])

Vocabulary = dict[str, "msgspec.msgpack.Decoder[Any]"]


def vocabulary(kinds: Iterable[type]) -> Vocabulary:
    """The decoders of the dataclasses that may come in over a channel."""
    return {kind.__name__: msgspec.msgpack.Decoder(kind, dec_hook=_decode_hook) for kind in kinds}


EVENTS = vocabulary(get_args(events.Event))
EFFECTS = vocabulary(get_args(events.Effect))


def encode(values: Iterable[object]) -> bytes:
    """Values to one packet."""
    return _encoder.encode([(type(value).__name__, value) for value in values])


def decode(packet: bytes, accepts: Vocabulary) -> list[Any]:
    """One packet to values, each of a type in `accepts`.  Raises ChannelError."""
    try:
        return [accepts[name].decode(raw) for name, raw in _envelope.decode(packet)]
    except KeyError as error:
        raise ChannelError(f"{error} is not in this channel's vocabulary") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ChannelError(str(error)) from None


class Channel:
    """One end.  send() waits until there is room at the other end, post() never does.

    Ends that wait for each other's room wait for ever.  So in each circle of processes that tell each other things,
    one posts, and reads all the while; in the daemon that is the node, which is in all of them.
    """

    def __init__(
        self, sock: socket.socket, accepts: Vocabulary = EVENTS | EFFECTS, timeout: float | None = None
    ) -> None:
        """`timeout`: seconds that wait() waits before TimeoutError, and send() before ChannelClosed; None: for ever.
        An end that posts has none."""
        self._sock = sock
        self._accepts = accepts
        self._packets: deque[bytes] = deque()
        self.unsent = 0
        """Octets that were posted and wait for room."""
        sock.settimeout(timeout)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 8 * LARGEST)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, *values: object) -> None:
        """Send values in order, in one packet if it holds them.  Raises ChannelClosed."""
        self._put(values)
        self._push(0)

    def post(self, *values: object) -> None:
        """The same without waiting: what there is no room for goes with a later call, which may be for that alone.

        Poll for writing while there is `unsent`.
        """
        self._put(values)
        self._push(socket.MSG_DONTWAIT)

    def receive(self) -> list[Any]:
        """What has arrived in the next packet; an empty list if nothing has.  Raises ChannelClosed, ChannelError."""
        return self._receive(socket.MSG_DONTWAIT)

    def send_file(self, value: object, descriptor: int) -> None:
        """Send a value and a descriptor, which becomes the other process's as well.  Raises ChannelClosed."""
        try:
            socket.send_fds(self._sock, [encode([value])], [descriptor])
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            # Who takes nothing for so long is as good as gone.
            raise ChannelClosed from None

    def receive_files(self) -> tuple[list[Any], list[int]]:
        """The next packet's values and descriptors, which are the caller's to close.  Blocks until one is there."""
        packet, descriptors, _, _ = socket.recv_fds(self._sock, LARGEST, 1)
        if not packet:
            raise ChannelClosed
        try:
            return decode(packet, self._accepts), descriptors
        except ChannelError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

    def wait(self) -> list[Any]:
        """The same, blocking until a packet is there."""
        return self._receive(0)

    def close(self) -> None:
        self._sock.close()

    def _put(self, values: Sequence[object]) -> None:
        if not values:
            return
        packet = encode(values)
        if len(packet) > LARGEST and len(values) > 1:
            half = len(values) // 2
            self._put(values[:half])
            self._put(values[half:])
            return
        self._packets.append(packet)
        self.unsent += len(packet)

    def _push(self, flags: int) -> None:
        while self._packets:
            try:
                self._sock.send(self._packets[0], flags)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                # Who takes nothing for so long is as good as gone.
                raise ChannelClosed from None
            self.unsent -= len(self._packets.popleft())

    def _receive(self, flags: int) -> list[Any]:
        try:
            packet = self._sock.recv(LARGEST + 1, flags | socket.MSG_TRUNC)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            raise ChannelClosed from None
        if not packet:
            raise ChannelClosed
        return decode(packet, self._accepts)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two sockets of a channel; one is passed to the child."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
