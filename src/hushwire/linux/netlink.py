"""Netlink: messages and attributes, requests and their answers, dumps, multicast (RFC 3549 s2; linux/netlink.h)."""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import Self

NETLINK_ROUTE, NETLINK_XFRM = 0, 6

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800


class NetlinkError(Exception):
    """The kernel refused a request."""

    def __init__(self, number: int, what: str, extack: str = "") -> None:
        super().__init__(f"{what}: {os.strerror(number)}{f' ({extack})' if extack else ''}")
        self.errno = number
        """As in errno.h, positive."""
        self.what = what
        """What was asked."""
        self.extack = extack
        """The kernel's own words (NLMSGERR_ATTR_MSG); empty when it gave none."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message."""

    type: int
    flags: int
    sequence: int
    body: bytes
    """What follows the header: a fixed structure, then attributes."""


class Netlink:
    """A netlink socket.  Use one for requests and another for multicast, so that events never mix with answers."""

    def __init__(self, protocol: int, groups: Iterable[int] = ()) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        # The kernel answers within the send; the limit is for a kernel that does not.
        self.socket.settimeout(5)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self.socket.setsockopt(SOL_NETLINK, option, 1)
        self.socket.bind((0, 0))
        for group in groups:
            self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._sequence = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, type: int, body: bytes, what: str, flags: int = 0) -> list[Message]:
        """Ask one thing and wait for the acknowledgement: what was answered before it.  `what` is for the error."""
        return list(self._exchange(type, body, what, flags | NLM_F_ACK))

    def dump(self, type: int, body: bytes, what: str) -> list[Message]:
        """Everything of a kind, as of one moment: a table that changed under the dump is read again."""
        for _ in range(DUMP_ATTEMPTS):
            messages = list(self._exchange(type, body, what, NLM_F_DUMP))
            if not any(message.flags & NLM_F_DUMP_INTR for message in messages):
                return messages
        raise NetlinkError(errno.EAGAIN, what, f"changed {DUMP_ATTEMPTS} times while it was read")

    def receive(self) -> list[Message]:
        """The messages of the next multicast datagram.  OSError ENOBUFS: some were lost, read the tables again."""
        data, (port, _) = self.socket.recvfrom(RECEIVE_BUFFER)
        # Any process may send to any netlink port; the kernel is port 0.
        return list(read_messages(data)) if port == 0 else []

    def _exchange(self, type: int, body: bytes, what: str, flags: int) -> Iterator[Message]:
        self._sequence += 1
        self.socket.sendto(write_message(type, flags | NLM_F_REQUEST, self._sequence, body), (0, 0))
        while True:
            for message in self.receive():
                if message.sequence != self._sequence:
                    continue
                if message.type in (NLMSG_ERROR, NLMSG_DONE):
                    number, extack = _read_error(message)
                    if number:
                        raise NetlinkError(number, what, extack)
                    return
                yield message


class Client:
    """What asks one family of netlink for things, over a socket of its own."""

    def __init__(self, protocol: int) -> None:
        self._netlink = Netlink(protocol)

    def close(self) -> None:
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_message(type: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A message with its header, from a sender without a port."""
    return HEADER.pack(HEADER.size + len(body), type, flags, sequence, 0) + body


def read_messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, type, flags, sequence, _port = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            raise ValueError(f"netlink message of {length} octets where {len(data) - offset} are left")
        yield Message(type, flags, sequence, data[offset + HEADER.size : offset + length])
        offset += _aligned(length)


def attribute(type: int, *values: bytes) -> bytes:
    """One attribute; of several values, their concatenation (which is how attributes nest)."""
    value = b"".join(values)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), type) + value + bytes(-len(value) % 4)


def read_attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type; of several with one type, the last."""
    found = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, type = ATTRIBUTE.unpack_from(data, offset)
        if not ATTRIBUTE.size <= length <= len(data) - offset:
            raise ValueError(f"netlink attribute {type} of {length} octets where {len(data) - offset} are left")
        found[type & NLA_TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def _read_error(message: Message) -> tuple[int, str]:
    """The errno of an acknowledgement or of a dump's end, and the kernel's words."""
    try:
        (number,) = ERROR.unpack_from(message.body)
        attributes = ERROR.size
        if message.type == NLMSG_ERROR:
            # The request's header comes back, and its body too unless the kernel says that it capped it.
            length = HEADER.size if message.flags & NLM_F_CAPPED else HEADER.unpack_from(message.body, ERROR.size)[0]
            attributes += _aligned(length)
        extack = b""
        if message.flags & NLM_F_ACK_TLVS:
            extack = read_attributes(message.body[attributes:]).get(NLMSGERR_ATTR_MSG, b"")
    except error as short:
        raise ValueError(f"netlink acknowledgement of {len(message.body)} octets") from short
    return -number, extack.rstrip(b"\0").decode(errors="replace")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


HEADER = Struct("=I H H I I")
"""struct nlmsghdr: length with the header, type, flags, sequence, port."""
ATTRIBUTE = Struct("=H H")
"""struct nlattr: length with the header, type."""
ERROR = Struct("=i")
"""struct nlmsgerr, up to the request's header: minus errno."""

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
NLA_TYPE_MASK = 0x3FFF
"""Without the bits that say nested and network byte order."""

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 1, 10, 11

RECEIVE_BUFFER = 1 << 18
"""Octets; the kernel writes dumps in pieces of at most 32 KiB."""
DUMP_ATTEMPTS = 5
