"""NATs between two: port 4500, ports that change, and what may not be moved by them (RFC 7296 s2.23; law 6)."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.ike import sa as sa_module
from hushwire.ike.nat import Nat, detect, detection_hash
from hushwire.ike.report import Closed, Established
from hushwire.ike.state import State
from hushwire.policy.pad import PadEntry
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Selector
from hushwire.wire.address import Endpoint
from hushwire.wire.message import read_message, write_message
from hushwire.wire.payload import Delete, Notify
from hushwire.wire.registry import ExchangeType, NotifyType, ProtocolID

INFORMATIONAL = ExchangeType.INFORMATIONAL
INSIDE, OUTSIDE = ip_address("10.0.0.1"), ip_address("192.0.2.1")
BOB, ATTACKER = ip_address("192.0.2.2"), ip_address("198.51.100.66")


class Box:
    """A NAT before Alice: her port changes, and at will again."""

    def __init__(self) -> None:
        self.shift = 10_000

    def carry(self, pair: Any) -> None:
        pair.collect()
        for _ in range(200):
            if not pair.wire:
                return
            sender, send = pair.wire.pop(0)
            if sender is pair.alice:
                source, to = Endpoint(OUTSIDE, send.local.port + self.shift), send.remote
                pair.wire += [(pair.bob, kept) for kept in self._feed(pair, pair.bob, send.data, source, to)]
            elif send.remote.address == OUTSIDE and send.remote.port - self.shift in (500, 4500):
                to = Endpoint(INSIDE, send.remote.port - self.shift)
                pair.wire += [(pair.alice, kept) for kept in self._feed(pair, pair.alice, send.data, send.local, to)]

    @staticmethod
    def _feed(pair: Any, me: Any, data: bytes, source: Endpoint, to: Endpoint) -> list[Any]:
        before = len(pair.seen)
        pair.feed(me, data, source, to)
        return [send for name, send in pair.seen[before:] if name == me.name]


@pytest.fixture
def behind(make_pair: Any) -> Any:
    """Alice behind a NAT, with an IKE SA to Bob."""
    pair = make_pair()
    pair.alice.address = INSIDE
    pair.alice.knows(pair.bob)
    pair.bob.knows(pair.alice, addresses=(OUTSIDE,))
    for me, there in ((pair.bob, OUTSIDE), (pair.alice, BOB)):
        entry = next(iter(me.entries.values()))
        me.entries[entry.identity] = replace(entry, selectors=(Selector.between(me.address, there),))
    pair.box = Box()
    pair.initiate()
    pair.box.carry(pair)
    assert pair.bob.sa.state is State.ESTABLISHED
    return pair


def test_a_nat_is_seen_and_both_go_over_to_4500(behind: Any) -> None:
    assert behind.alice.sa.nat == Nat(local=True, remote=False)
    assert behind.bob.sa.nat == Nat(local=False, remote=True)
    assert (behind.alice.sa.local.port, behind.alice.sa.remote.port) == (4500, 4500)
    assert (behind.bob.sa.local.port, behind.bob.sa.remote.port) == (4500, 14_500)
    for me in (behind.alice, behind.bob):
        assert len(me.plane) == 2
        assert all(sa.encapsulation for sa in me.plane.values())
    out = next(sa for sa in behind.bob.plane.values() if sa.destination == OUTSIDE)
    assert (out.encapsulation.source_port, out.encapsulation.destination_port) == (4500, 14_500)


def test_each_end_takes_the_addresses_it_sees(behind: Any) -> None:
    """RFC 7296 s2.23.1: transport mode through a NAT."""
    assert str(behind.alice.child.selector) == "10.0.0.1 <-> 192.0.2.2"
    assert str(behind.bob.child.selector) == "192.0.2.2 <-> 192.0.2.1"


def test_without_a_nat_nothing_is_encapsulated(standing: Any) -> None:
    assert not standing.alice.sa.nat
    assert standing.alice.sa.remote.port == 500
    assert not any(sa.encapsulation for sa in standing.alice.plane.values())


@pytest.mark.parametrize("who", ["alice", "bob", "both"])
@pytest.mark.parametrize("mode", Mode)
def test_esp_in_udp_is_had_by_saying_so(make_pair: Any, who: str, mode: Mode) -> None:
    asks = {"encapsulate": True}
    pair = make_pair(alice=asks if who in ("alice", "both") else {}, bob=asks if who in ("bob", "both") else {})
    pair.alice.knows(pair.bob, mode=mode)
    pair.bob.knows(pair.alice, mode=mode)
    pair.initiate()
    pair.deliver()
    for me in (pair.alice, pair.bob):
        assert {(sa.encapsulation.source_port, sa.encapsulation.destination_port) for sa in me.plane.values()} == {
            (4500, 4500)
        }
    pair.agree()
    me = pair.bob
    me.endpoint.rekey(me.sa, pair.now, ike=False)
    pair.deliver()
    pair.agree()


def test_who_needs_esp_in_udp_does_not_do_without(make_pair: Any) -> None:
    pair = make_pair(alice={"encapsulate": True})

    def strip(sender: Any, send: Any) -> list[Any]:
        message = read_message(send.data)
        if sender is pair.bob and message.header.exchange == ExchangeType.IKE_SA_INIT:
            kinds = (NotifyType.NAT_DETECTION_SOURCE_IP, NotifyType.NAT_DETECTION_DESTINATION_IP)
            kept = [p for p in message.payloads if not isinstance(p, Notify) or p.type not in kinds]
            return [replace(send, data=write_message(message.header, kept))]
        return [send]

    pair.filter = strip
    pair.initiate()
    pair.deliver()
    pair.wait(60)
    assert not pair.alice.told(Established)
    assert "ESP in UDP" in pair.alice.told(Closed)[0].reason


# --- law 6 ---


def test_a_port_that_changes_is_followed_and_the_children_are_rekeyed(behind: Any) -> None:
    before = set(behind.bob.plane)
    behind.box.shift = 20_000
    behind.alice.endpoint.rekey(behind.alice.sa, behind.now, ike=False)
    behind.box.carry(behind)
    assert behind.bob.sa.remote == Endpoint(OUTSIDE, 24_500)
    assert "ike.moved" in [notice.kind for notice in behind.bob.notices]
    ports = {sa.encapsulation.destination_port for sa in behind.bob.plane.values() if sa.destination == OUTSIDE}
    assert ports == {24_500}
    assert not before & set(behind.bob.plane)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_nobody_without_the_keys_moves_a_peer(behind: Any, guard: str, monkeypatch: Any) -> None:
    """ATTACKS row 61: a bad ICV from another port."""
    pair, real = behind, sa_module.IkeSA._receive_request
    if guard == "out":

        def before_the_check(sa: Any, message: Any, datagram: bytes, local: Endpoint, remote: Endpoint) -> None:
            sa._integrity_checked(local, remote)
            real(sa, message, datagram, local, remote)

        monkeypatch.setattr(sa_module.IkeSA, "_receive_request", before_the_check)
    data = pair.seal(pair.alice.sa, INFORMATIONAL)
    forged = data[:-1] + bytes([data[-1] ^ 1])
    pair.feed(pair.bob, forged, Endpoint(OUTSIDE, 9), Endpoint(BOB, 4500))
    assert (pair.bob.sa.remote == Endpoint(OUTSIDE, 14_500)) is (guard == "in")


def test_a_replayed_packet_moves_nothing(behind: Any) -> None:
    """ATTACKS row 62: a good ICV, an old message ID."""
    pair = behind
    data = pair.seal(pair.alice.sa, INFORMATIONAL)
    pair.feed(pair.bob, data, Endpoint(OUTSIDE, 14_500), Endpoint(BOB, 4500))
    for number in (9, 10):
        pair.feed(pair.bob, data, Endpoint(OUTSIDE, number), Endpoint(BOB, 4500))
    old = pair.seal(pair.alice.sa, INFORMATIONAL, message_id=0)
    pair.feed(pair.bob, old, Endpoint(OUTSIDE, 11), Endpoint(BOB, 4500))
    assert pair.bob.sa.remote == Endpoint(OUTSIDE, 14_500)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_not_even_the_peer_moves_to_an_address_that_is_not_his(behind: Any, guard: str, monkeypatch: Any) -> None:
    """Law 2, and no traffic is thrown at third parties: a NAT changes ports, and the name says the address."""
    pair = behind
    if guard == "out":
        monkeypatch.setattr(PadEntry, "speaks_from", lambda *_: True)
    data = pair.seal(pair.alice.sa, INFORMATIONAL)
    pair.feed(pair.bob, data, Endpoint(ATTACKER, 4500), Endpoint(BOB, 4500))
    assert (pair.bob.sa.remote.address == OUTSIDE) is (guard == "in")
    # It is answered where it came from all the same (RFC 7296 s2.11).
    answers = [send for name, send in pair.seen if name == "bob" and send.remote.address == ATTACKER]
    assert len(answers) == 1 + (guard == "out")


def test_without_a_nat_a_peer_does_not_move(standing: Any) -> None:
    data = standing.seal(standing.alice.sa, INFORMATIONAL)
    standing.feed(standing.bob, data, Endpoint(standing.alice.address, 9))
    assert standing.bob.sa.remote == Endpoint(standing.alice.address, 500)


def test_who_is_behind_a_nat_does_not_follow(behind: Any) -> None:
    """RFC 7296 s2.23: a host behind a NAT SHOULD NOT do this."""
    pair = behind
    data = pair.seal(pair.bob.sa, INFORMATIONAL)
    pair.feed(pair.alice, data, Endpoint(BOB, 9), Endpoint(INSIDE, 4500))
    assert pair.alice.sa.remote == Endpoint(BOB, 4500)


def test_a_moved_peer_that_is_deleted_is_gone(behind: Any) -> None:
    behind.box.shift = 20_000
    behind.ask(behind.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)])
    assert not behind.bob.sas
    assert not behind.bob.plane


# --- detection by itself ---


def test_several_source_hashes_are_one_that_fits() -> None:
    """RFC 7296 s2.23: a peer with several addresses sends one for each."""
    here, there = Endpoint(BOB, 500), Endpoint(OUTSIDE, 500)
    spis = (b"12345678", bytes(8))
    source, destination = NotifyType.NAT_DETECTION_SOURCE_IP, NotifyType.NAT_DETECTION_DESTINATION_IP
    good = Notify(destination, detection_hash(*spis, here))
    fits, fits_not = Notify(source, detection_hash(*spis, there)), Notify(source, bytes(20))
    assert detect([fits_not, fits, good], *spis, here, there) == Nat()
    assert detect([fits_not, good], *spis, here, there) == Nat(remote=True)
    assert detect([fits, Notify(destination, bytes(20))], *spis, here, there) == Nat(local=True)
    assert detect([good], *spis, here, there) is None
    assert detect([fits], *spis, here, there) is None
    assert not Nat()


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_the_key_is_switched_at_either_side_of_a_nat(behind: Any, name: str, make_key: Any) -> None:
    """The new IKE SA begins on the path that the old one has found (RFC 7296 s2.23): there is no other to Alice."""
    pair = behind
    pair.deliver = lambda: pair.box.carry(pair)
    me, you = (pair.alice, pair.bob) if name == "alice" else (pair.bob, pair.alice)
    key = make_key(KeyKind.ED25519)
    me.kept[key.public.fingerprint] = key
    (entry,) = you.entries.values()
    you.entries[entry.identity] = replace(entry, keys=(*entry.keys, key.public))
    old = me.sa
    me.endpoint.switch_key(key.public, pair.now)
    pair.wait(4)
    assert old.state is State.CLOSED
    assert you.sa.authenticated.verified.public == key.public
    assert (pair.bob.sa.local.port, pair.bob.sa.remote.port) == (4500, 14_500)
    assert pair.alice.sa.nat == Nat(local=True, remote=False)
    assert pair.alice.child.spi_in == pair.bob.child.spi_out
    assert all(sa.encapsulation for sa in pair.bob.plane.values())
