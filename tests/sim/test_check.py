"""Controls: with a guard out, or a bug in, the check says so.  Without, nothing is said in the same worlds."""

import pytest

from hushwire.crypto.cipher import _Aead
from hushwire.esp.plane import Bypass, Plane
from hushwire.esp.replay import ReplayWindow
from hushwire.esp.sad import Outbound
from hushwire.events import DeleteSA, Effect, Rekey
from hushwire.ike import create_child
from hushwire.ike.endpoint import Endpoint
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.sim.check import unsettled
from hushwire.sim.host import Host
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.world import Violation, Weather, World
from hushwire.sim.zone import Zone


def talk(weather: Weather | None = None) -> tuple[World, Host, Host]:
    """Both begin at once, talk, rekey at once, and talk on."""
    world = World(1, weather)
    alice, bob = pair(world)
    for host in (alice, bob):
        host.start()
    world.run(1)
    for host, peer in ((alice, BOB), (bob, ALICE)):
        host.talk(peer, 0.1, 8.0)
    world.run(3)
    for ike in (False, True):
        alice.tell(Rekey(1, BOB, ike))
        bob.tell(Rekey(1, ALICE, ike))
        world.run(3)
    return world, alice, bob


def test_without_a_fault_nothing_is_said() -> None:
    world, alice, bob = talk(Weather(duplication=0.5))
    assert unsettled(alice, bob) == ""
    assert len(world.wire) > 100
    # The first packet may overtake the response that makes its SA known (RFC 7296 s2.8 lets it go lost).
    assert bob.heard[-50:] == alice.said[-50:]
    assert alice.heard[-50:] == bob.said[-50:]


def test_a_packet_in_clear_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plane, "outbound", lambda self, packet, now: [Bypass(packet)])
    with pytest.raises(Violation, match="P1: alice"):
        talk()


def test_a_packet_sealed_by_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = Outbound.seal

    def seal(self: Outbound, frame: memoryview, payload: int, next_header: int) -> None:
        plain = bytes(frame[self.transform.header : self.transform.header + payload])
        sealed(self, frame, payload, next_header)
        frame[self.transform.header : self.transform.header + payload] = plain

    monkeypatch.setattr(Outbound, "seal", seal)
    with pytest.raises(Violation, match="P1"):
        talk()


def test_a_sequence_number_that_stands_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = Outbound.seal

    def seal(self: Outbound, frame: memoryview, payload: int, next_header: int) -> None:
        self.packets = 0
        sealed(self, frame, payload, next_header)

    monkeypatch.setattr(Outbound, "seal", seal)
    with pytest.raises(Violation, match="P3"):
        talk()


def test_an_ike_message_counter_that_stands_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = _Aead.seal

    def seal(self: _Aead, associated: bytes, padded: bytes) -> bytes:
        self._sealed = 0
        return sealed(self, associated, padded)

    monkeypatch.setattr(_Aead, "seal", seal)
    with pytest.raises(Violation, match="P3"):
        talk()


def test_a_window_that_lets_replays_in_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayWindow, "check", lambda self, sequence: None)
    with pytest.raises(Violation, match="P4"):
        talk(Weather(duplication=0.5))


def test_a_key_that_its_name_never_had_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver takes a forged record for a secure one."""
    world = World(1)
    alice, bob = pair(world)
    bob.new_key()
    forged = write_record(KeyRecord(10, None, bob.key.public))
    honest = Zone._rdata

    def rdata(self: Zone, name: str, rdtype: int) -> tuple[bytes, ...]:
        return (forged,) if (name, rdtype) == (BOB, IPSECKEY) else honest(self, name, rdtype)

    def say() -> None:
        alice.say(BOB)
        world.run(1)

    for host in (alice, bob):
        host.start()
    monkeypatch.setattr(Zone, "_rdata", rdata)
    world.run(1)
    with pytest.raises(Violation, match="P2: alice"):
        say()


def test_an_sa_left_in_the_plane_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    perform = Host._perform

    def forgetful(self: Host, effect: Effect) -> None:
        if not isinstance(effect, DeleteSA):
            perform(self, effect)

    monkeypatch.setattr(Host, "_perform", forgetful)
    with pytest.raises(Violation, match="P5"):
        talk()


def test_two_ike_sas_that_both_stay_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "_settle", lambda self: None)
    _, alice, bob = talk()
    assert "IKE SAs" in unsettled(alice, bob)


def test_two_child_sas_that_both_stay_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends rekey at once, and neither compares the nonces (RFC 7296 s2.8.1)."""
    monkeypatch.setattr(create_child, "min", lambda *values: 0, raising=False)
    _, alice, bob = talk()
    assert "2 Child SAs" in unsettled(alice, bob)


def test_a_host_that_is_down_is_seen() -> None:
    _, alice, bob = talk()
    bob.stop()
    assert unsettled(alice, bob) == "bob.example is down"
