"""Connections that are counted and ended for the node; and what it is told where the kernel does not."""

import errno
import os
import socket
from ipaddress import ip_network

import pytest

from hushwire.daemon import flows
from hushwire.events import CloseFlows, CountFlows, FlowsFound, Refused
from hushwire.linux.diag import Connection, SockDiag
from hushwire.linux.netlink import NetlinkError

HERE = (ip_network("127.99.0.1/32"),)
"""Of this test alone."""


def test_connections_are_counted() -> None:
    """Both ends of what stays on this host."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        for sock in (one, two):
            sock.bind(("127.99.0.1", 0))
        assert flows.answer(CountFlows(1, HERE)) == FlowsFound(1, 0)
        one.connect(two.getsockname())
        two.connect(one.getsockname())
        assert flows.answer(CountFlows(2, HERE)) == FlowsFound(2, 2)


@pytest.mark.parametrize("asked", [CloseFlows(7, HERE), CountFlows(7, HERE)])
def test_where_the_kernel_knows_of_no_connections(
    monkeypatch: pytest.MonkeyPatch, asked: CloseFlows | CountFlows
) -> None:
    def fail(self: SockDiag) -> None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr(SockDiag, "__init__", fail)
    assert not flows.can_close()
    answer = flows.answer(asked)
    assert isinstance(answer, Refused)
    assert (answer.request, "not supported" in answer.reason) == (7, True)


def test_where_the_kernel_ends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was built without (CONFIG_INET_DIAG_DESTROY): none is said to have been ended."""

    def fail(self: SockDiag, connection: Connection) -> bool:
        raise NetlinkError(errno.EOPNOTSUPP, "end a connection")

    monkeypatch.setattr(SockDiag, "end", fail)
    assert not flows.can_close()
    with (
        socket.create_server(("127.99.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), source_address=("127.99.0.1", 0)),
    ):
        assert isinstance(flows.answer(CloseFlows(8, HERE)), Refused)
