"""What strangers try (ATTACKS rows 49 to 57), each with its control.

The second contact is in test_strangers.py, whose connections are whose in test_latching.py, exhaustion in
test_exhaustion.py.
"""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from hushwire.config import Anonymous, Rule, Start
from hushwire.events import AddressesChanged
from hushwire.ike import auth
from hushwire.ike.endpoint import EXCHANGES
from hushwire.ike.errors import Unauthorized
from hushwire.node.claims import Claims
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.spd import Action
from hushwire.wire.registry import ExchangeType

from .conftest import ADDRESS, KEY

ALICE, BOB, EVE = (ADDRESS[name] for name in ("alice", "bob", "eve"))
ANYBODY = Rule(ip_network("192.0.2.0/24"), Assurance.ENCRYPTED)


def comes(net: Any, host: Any) -> None:
    net.step(host, AddressesChanged(host.addresses))
    net.run()


# --- row 49: an active attacker at first contact ---


@pytest.mark.parametrize("at_first", [True, False])
def test_row_49_an_attacker_between_two_strangers(make_net: Any, at_first: bool) -> None:
    """He is there from the start and answers in Bob's place: accepted, and nothing tells.  The control: he is not."""
    net = make_net()
    alice, _ = net.host("alice", ANYBODY), net.host("bob", ANYBODY)
    eve = net.host("eve", ANYBODY)
    eve.addresses = (BOB,) if at_first else (EVE,)
    if at_first:
        net.taken[BOB] = eve
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    (sa,) = alice.node.ike.sas
    assert sa.authenticated.entry.keys == (KEY["eve" if at_first else "bob"].public,)
    assert alice.about("ike.established")[-1]["level"] == "encrypted"


# --- row 51: a stranger and an address of somebody who was introduced ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_row_51_an_address_of_a_named_host(make_net: Any, guard: str, monkeypatch: Any) -> None:
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    if guard == "out":
        monkeypatch.setattr("hushwire.node.peers.Peers.introduced_at", lambda *_: None)
    alice = net.host("alice", ANYBODY, Rule("bob.example", Assurance.NAMED, start=Start.WAIT))
    eve = net.host("eve", ANYBODY)
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(eve, ALICE, patience=20) is (Action.BLOCK if guard == "in" else Action.PROTECT)
    assert bool(alice.sad) is (guard == "out")


# --- row 52: who fails hopes to be a stranger ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_row_52_no_fall_through(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Eve says that she is bob.example, and cannot prove it; she has a key of her own, and would take what she gets."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    if guard == "out":
        entry = Claims.entry

        def fall_through(claims: Claims, peer: Any, wanted: Any) -> Any:
            try:
                return entry(claims, peer, wanted)
            except Unauthorized:
                return entry(claims, claims._of_address(wanted.remote.address, 0.0), wanted)

        monkeypatch.setattr(Claims, "entry", fall_through)
        monkeypatch.setattr("hushwire.node.peer.Peer.may_be_anybody", property(lambda peer: peer.rule.btns))
    alice = net.host("alice", ANYBODY, Rule("bob.example", Assurance.NAMED, start=Start.WAIT))
    eve = net.host(
        "eve", Rule(ip_network("192.0.2.0/24"), Assurance.ENCRYPTED, own_identity=Identity.fqdn("bob.example"))
    )
    net.start()
    assert net.fate(eve, ALICE, patience=20) is (Action.BLOCK if guard == "in" else Action.PROTECT)
    assert bool(alice.sad) is (guard == "out")


# --- row 53: another stranger's address ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_row_53_the_address_of_a_stranger_who_lives(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """He answers when he is asked whether he is there still; so who else comes from there has to wait."""
    net = make_net()
    if guard == "out":
        monkeypatch.setattr("hushwire.ike.auth._keep_apart", lambda *_: None)
    alice, bob = net.host("alice", ANYBODY), net.host("bob", ANYBODY)
    net.start()
    assert net.fate(bob, ALICE) is Action.PROTECT
    eve = net.host("eve", ANYBODY)
    eve.addresses = (BOB,)
    comes(net, eve)
    assert net.fate(eve, ALICE, patience=60) is (Action.BLOCK if guard == "in" else Action.PROTECT)
    keys = {sa.authenticated.verified.public for sa in alice.node.ike.sas if sa.authenticated is not None}
    assert (KEY["eve"].public in keys) is (guard == "out")
    assert net.packet(bob, ALICE) is Action.PROTECT


# --- row 57: who we are, told to whoever is in the middle ---


def overheard(monkeypatch: Any) -> Any:
    """All that is said in IKE_AUTH to whoever is called Eve, for she has the keys: as octets."""
    read: list[Any] = []
    answer, prove = auth.respond, auth._prove_responder

    def respond(sa: Any, message: Any) -> Any:
        read.append((sa.host, message))
        return answer(sa, message)

    async def prove_responder(sa: Any, entry: Any, agreed: Any, response: Any) -> Any:
        read.append((sa.host, response))
        return await prove(sa, entry, agreed, response)

    monkeypatch.setitem(EXCHANGES.responders, ExchangeType.IKE_AUTH, respond)
    monkeypatch.setattr(auth, "_prove_responder", prove_responder)
    return lambda eve: b"".join(
        payload.write() for host, message in read if host is eve.node.ike._host for payload in message.payloads
    )


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("begins", ["alice", "eve"])
def test_row_57_our_identity_and_who_is_in_the_middle(make_net: Any, begins: str, guard: str, monkeypatch: Any) -> None:
    """Eve is in Bob's place, and anonymous.  So is Alice, and says nothing of herself; by another rule she does."""
    hears = overheard(monkeypatch)
    net = make_net()
    anonymous = replace(ANYBODY, anonymous=Anonymous.BOTH)
    alice = net.host("alice", anonymous if guard == "in" else replace(ANYBODY, anonymous=Anonymous.PEER))
    eve = net.host("eve", anonymous)
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(*((alice, BOB) if begins == "alice" else (eve, ALICE))) is Action.PROTECT
    assert (KEY["alice"].public.spki in hears(eve)) is (guard == "out")
    # To strangers nobody says his name.
    assert b"alice.example" not in hears(eve)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_row_57_our_identity_and_who_is_not_whom_we_seek(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """The initiator speaks first (RFC 7296 s2.15): Eve cannot prove that she is Bob, and has heard all the same.

    Whom Alice seeks she hears in either case.
    """
    hears = overheard(monkeypatch)
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    anonymous = Anonymous.US if guard == "in" else Anonymous.NO
    alice = net.host("alice", Rule("bob.example", Assurance.NAMED, start=Start.WAIT, anonymous=anonymous))
    eve = net.host("eve", replace(ANYBODY, anonymous=Anonymous.BOTH))
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(alice, BOB) is Action.BLOCK
    assert not alice.sad
    assert b"bob.example" in hears(eve)
    for known in (b"alice.example", KEY["alice"].public.spki):
        assert (known in hears(eve)) is (guard == "out")
