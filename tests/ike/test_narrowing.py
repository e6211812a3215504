"""Traffic selectors: what one Child SA is to carry of what was asked for (RFC 7296 s2.9)."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.ike.errors import Rejected
from hushwire.ike.narrowing import MOST_SELECTORS, _common_network, _common_port, asked, narrow
from hushwire.policy.selector import Flow, Selector
from hushwire.wire.payload import TrafficSelector, UnknownSelector
from hushwire.wire.registry import TSType

A, B, C = (ip_address(f"192.0.2.{last}") for last in (1, 2, 3))
HOSTS = Selector.between(A, B)
ECHO, DISCARD = (replace(HOSTS, protocol=6, local_port=port) for port in (7, 9))
PACKET = Flow(A, B, 6, 9, 40000)


def traffic(first: Any, last: Any = None, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    return TrafficSelector(protocol, *ports, first, last or first)


def test_s2_9_what_comes_first_is_not_narrowed_away() -> None:
    """A responder with two rules; without the packet it is the first of them."""
    local, remote = asked([PACKET.selector, HOSTS])
    assert narrow(local, remote, [ECHO, DISCARD]) == DISCARD
    assert narrow(local[1:], remote[1:], [ECHO, DISCARD]) == ECHO


def test_s2_9_all_around_the_packet_is_taken() -> None:
    """Not the packet alone, of which there will be others."""
    local, remote = asked([PACKET.selector, HOSTS])
    assert narrow(local, remote, [HOSTS]) == HOSTS
    wide = Selector(ip_network("192.0.2.0/24"), ip_network("192.0.2.0/24"))
    net = asked([PACKET.selector, Selector(ip_network("192.0.2.0/30"), ip_network("192.0.2.2/31"))])
    assert narrow(*net, [wide]) == Selector(ip_network("192.0.2.0/30"), ip_network("192.0.2.2/31"))
    (first, *_), (theirs, *_) = local, remote
    assert narrow([first], [theirs], [HOSTS]) == PACKET.selector


def test_s2_9_an_answer_is_of_use_for_the_packet_or_else_for_another() -> None:
    """An initiator, who does not care for the order of an answer."""
    answer = asked([ECHO, DISCARD])
    assert narrow(*answer, [HOSTS], DISCARD) == DISCARD
    assert narrow(*answer, [HOSTS], ECHO) == ECHO
    assert narrow(*asked([ECHO]), [HOSTS], DISCARD) == ECHO


def test_what_is_of_no_kind_we_know_is_left_out() -> None:
    unknown = UnknownSelector(TSType(200), 0, b"")
    local, remote = asked([HOSTS])
    assert narrow((unknown, *local), (unknown, *remote), [HOSTS]) == HOSTS
    with pytest.raises(Rejected):
        narrow((unknown,), remote, [HOSTS])


def test_selectors_without_end_are_not_all_tried() -> None:
    """255 of each end would be 65,025 pairs, for each rule."""
    others = [traffic(C)] * MOST_SELECTORS
    assert narrow([*others[1:], traffic(A)], [traffic(B)], [HOSTS]) == HOSTS
    with pytest.raises(Rejected):
        narrow([*others, traffic(A)], [traffic(B)], [HOSTS])


@pytest.mark.parametrize(
    ("allowed", "first", "last", "expected"),
    [
        ("10.0.0.0/8", "10.1.0.0", "10.1.255.255", "10.1.0.0/16"),
        ("10.0.0.0/8", "9.0.0.0", "10.255.255.255", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.0.0.1", "10.0.0.6", "10.0.0.2/31"),
        ("10.0.0.0/8", "11.0.0.0", "12.0.0.0", None),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
        ("::/0", "0.0.0.0", "255.255.255.255", None),
        ("2001:db8::/32", "2001:db8::", "2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8::/48"),
    ],
)
def test_networks_in_common(allowed: str, first: str, last: str, expected: str | None) -> None:
    found = _common_network(ip_network(allowed), traffic(ip_address(first), ip_address(last)))
    assert found == (ip_network(expected) if expected else None)


@pytest.mark.parametrize(
    ("port", "asked", "expected"),
    [
        (0, (0, 65535), 0), (80, (0, 65535), 80), (0, (80, 80), 80), (80, (80, 80), 80), (80, (81, 90), None),
        (0, (80, 90), None), (80, (70, 90), 80), (0, (65535, 0), None), (80, (65535, 0), None),
    ],
)  # fmt: skip
def test_ports_in_common(port: int, asked: tuple[int, int], expected: int | None) -> None:
    assert _common_port(port, traffic(A, ports=asked)) == expected
