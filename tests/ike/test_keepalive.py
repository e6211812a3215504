"""NAT keepalives (RFC 3948 s4)."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from hushwire.ike import nat
from hushwire.ike.nat import Nat
from hushwire.wire.address import Endpoint
from hushwire.wire.udp import KEEPALIVE

ALICE = Endpoint(IPv4Address("192.0.2.1"), 500)


def kept_alive(pair: Any, seconds: float) -> list[str]:
    pair.initiate()
    pair.deliver()
    pair.seen.clear()
    pair.filter = lambda sender, send: [] if send.data == KEEPALIVE else [send]
    pair.wait(seconds)
    return [name for name, send in pair.seen if send.data == KEEPALIVE]


def test_who_is_behind_a_nat_keeps_its_mapping(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Alice's view: the address that Bob says he sees is not hers.
    real = nat.detect
    monkeypatch.setattr(nat, "detect", lambda *each: Nat(local=True) if each[3] == ALICE else real(*each))
    names = kept_alive(pair, 100)
    assert names == ["alice"] * 5


def test_without_a_nat_there_is_nothing_to_keep(pair: Any) -> None:
    assert kept_alive(pair, 100) == []


def test_pretending_a_nat_keeps_nothing_either(make_pair: Any) -> None:
    assert kept_alive(make_pair({"encapsulate": True}, {"encapsulate": True}), 100) == []
