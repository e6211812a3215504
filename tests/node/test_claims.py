"""Strangers who say who they are: what is asked for them, and who is let in (law 7; ATTACKS rows 8, 27, 45)."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import PlaneChoice, Rule, Start, parse
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Datagram, Outcome, Send
from hushwire.ike import report
from hushwire.ike.errors import Unauthorized
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.ike.state import State
from hushwire.names.allow import BURST, PER_SOURCE, AllowList, Pace
from hushwire.node.claims import Claims
from hushwire.policy.pad import Identity
from hushwire.policy.spd import Action
from hushwire.wire.address import Endpoint
from hushwire.wire.registry import ExchangeType, IDType

ALICE, BOB, EVE, MOVED = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.66", "192.0.2.200"))
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "eve", "other")}
EVERY = Rule("*.example")


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


@pytest.fixture
def asked(make_net: Any) -> Any:
    """Bob, who has a rule about many; and Alice, who speaks to him."""

    def make(*rules: Rule, ask: tuple[str, ...] = ("*.example",), alice: dict[str, Any] | None = None) -> Any:
        net = make_net()
        net.host("bob", *(rules or (EVERY,)), ask=ask)
        net.host("alice", named("bob", start=Start.CONNECT), **(alice or {}))
        net.zone["alice.example"] = ((ALICE,), (KEY["alice"].public,))
        net.start()
        return net

    return make


def claim(net: Any, host: Any, identity: Identity, source: Any = EVE) -> None:
    """As IKE would tell of it: somebody at `source` has sent an IKE_AUTH that decrypts."""
    net.requests += 1
    host.node._authorization_wanted(report.AuthorizationWanted(net.requests, identity, Endpoint(source, 500)), net.now)
    effects, host.node._effects = host.node._effects, []
    for effect in effects:
        net._perform(host, effect)


# --- which names ---


def test_a_stranger_whose_name_may_be_asked_for(asked: Any) -> None:
    net = asked()
    bob = net.hosts["bob"]
    assert bob.questions == 4
    assert net.packet(net.hosts["alice"], BOB) is Action.PROTECT
    assert net.packet(bob, ALICE) is Action.PROTECT


@pytest.mark.parametrize("ask", [(), ("*.test",), ("example",), ("bob.example",), ("*.alice.example",)])
def test_a_stranger_whose_name_may_not(asked: Any, ask: tuple[str, ...]) -> None:
    net = asked(ask=ask)
    assert not net.hosts["bob"].questions
    assert not net.hosts["bob"].sad


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_thousand_claims_ask_nothing(asked: Any, guard: str, monkeypatch: Any) -> None:
    """Rows 8 and 45: the list of names that may be asked for is empty."""
    if guard == "out":
        monkeypatch.setattr(AllowList, "allows", lambda *_: True)
        monkeypatch.setattr(Pace, "admits", lambda *_: True)
    net = asked(ask=())
    bob = net.hosts["bob"]
    for number in range(1000):
        claim(net, bob, Identity.fqdn(f"n{number}.example"), EVE + number)
    assert (bob.questions == 0) is (guard == "in")
    assert (len(list(bob.node.peers)) == 0) is (guard == "in")


def test_nothing_is_asked_before_an_ike_auth_decrypts(make_net: Any) -> None:
    """Law 7, on the wire: that takes our IKE_SA_INIT response, which goes to where the request said it came from.

    The name may be asked for, and the control is its owner's own IKE_AUTH, after everything else.
    """
    net = make_net()
    bob = net.host("bob", EVERY, ask=("*.example",))
    alice = net.host("alice", named("bob", start=Start.CONNECT))
    held: list[Send] = []
    net.lost = lambda host, send: host is alice and send.data[18] == ExchangeType.IKE_AUTH and not held.append(send)
    net.start()
    init, auth = next(effect for effect in alice.said if isinstance(effect, Send)), held[0]
    for number in range(1, 1001):
        forged = number.to_bytes(8) + init.data[8:]
        net.step(bob, Datagram(init.remote, Endpoint(ip_address("198.18.0.0") + number, 500), forged))
    net.run()
    half_open = bob.node.ike.sas
    assert len(half_open) == Settings(Identity.fqdn("x.example"), None).cookie_threshold
    for sa in half_open:
        # More than its forger can know: our SPI.  With it, what decrypts for another.
        if sa.remote != auth.local:
            net.step(bob, Datagram(auth.remote, sa.remote, sa.spi_i + sa.spi_r + auth.data[16:]))
    for at in range(len(auth.data)):
        changed = bytes([*auth.data[:at], auth.data[at] ^ 1, *auth.data[at + 1 :]])
        net.step(bob, Datagram(auth.remote, auth.local, changed))
    assert not bob.questions
    assert {sa.state for sa in half_open} == {State.HALF_OPEN}
    net.step(bob, Datagram(auth.remote, auth.local, auth.data))
    assert bob.questions == 4
    assert bob.sad


@pytest.mark.parametrize("guard", ["in", "out"])
def test_strangers_are_asked_for_at_a_pace(asked: Any, guard: str, monkeypatch: Any) -> None:
    net = asked(ask=("*.test",))
    bob = net.hosts["bob"]
    bob.node._claims = Claims(("*",), bob.node.peers, bob.node._memory)
    if guard == "out":
        monkeypatch.setattr(Pace, "admits", lambda *_: True)
    for number in range(100):
        claim(net, bob, Identity.fqdn(f"n{number}.example"), EVE)
    assert bob.questions == 4 * (PER_SOURCE if guard == "in" else 100)
    for number in range(100, 300):
        claim(net, bob, Identity.fqdn(f"n{number}.example"), ip_address("198.18.0.1") + 256 * number)
    assert bob.questions <= 4 * (BURST + PER_SOURCE) or guard == "out"


# --- row 27: what is no name, or another's ---


@pytest.mark.parametrize(
    "identity",
    [
        Identity(IDType.FQDN, b"alice.example\0"),
        Identity(IDType.FQDN, b"alice.example\0.evil.test"),
        Identity(IDType.FQDN, b"alice.example."),
        Identity(IDType.FQDN, b"alice..example"),
        Identity(IDType.FQDN, b".alice.example"),
        Identity(IDType.FQDN, b" alice.example"),
        Identity(IDType.FQDN, b"alice.example\n"),
        Identity(IDType.FQDN, "alicé.example".encode()),
        Identity(IDType.FQDN, "аlice.example".encode()),
        Identity(IDType.FQDN, b"*.example"),
        Identity(IDType.FQDN, b"192.0.2.1"),
        Identity(IDType.FQDN, b""),
        Identity(IDType.FQDN, b"a" * 1024),
        Identity(IDType.FQDN, b".".join([b"a" * 63] * 4) + b".example"),
        Identity(IDType.RFC822_ADDR, b"alice.example"),
        Identity(IDType.RFC822_ADDR, b"root@alice.example"),
        Identity(IDType.KEY_ID, b"alice.example"),
        Identity(IDType.DER_ASN1_DN, b"alice.example"),
        Identity(IDType.IPV4_ADDR, b"alice.example"),
        Identity(IDType.IPV4_ADDR, ALICE.packed),
        Identity(IDType.IPV6_ADDR, b"\0" * 10 + b"\xff\xff" + EVE.packed),
        Identity(IDType(201), b"alice.example"),
    ],
    ids=lambda identity: repr(identity.data[:20]),
)
def test_what_is_no_name_asks_nothing(asked: Any, identity: Identity) -> None:
    net = asked(EVERY, Rule(ip_network("0.0.0.0/0")), ask=("*",), alice={"addresses": (ip_address("203.0.113.1"),)})
    bob = net.hosts["bob"]
    with pytest.raises(Unauthorized):
        bob.node._claims.admit(identity, EVE, net.now.monotonic)
    claim(net, bob, identity)
    assert not bob.questions
    # What is one, in the same place, does ask.
    claim(net, bob, Identity.fqdn("carol.example"))
    assert bob.questions


def test_case_is_folded_and_one_spelling_is_looked_up(asked: Any) -> None:
    net = asked(ask=("carol.example",))
    bob = net.hosts["bob"]
    for data in (b"CAROL.example", b"carol.EXAMPLE", b"carol.example"):
        claim(net, bob, Identity.received(IDType.FQDN, data))
    assert [peer.name for peer in bob.node.peers] == ["carol.example"]
    assert bob.questions == 4


def test_an_address_that_is_not_where_the_claim_comes_from(make_net: Any) -> None:
    net = make_net()
    bob = net.host("bob", Rule(ip_network("192.0.2.0/24")))
    net.start()
    claim(net, bob, Identity.address(ALICE), EVE)
    assert not bob.questions
    claim(net, bob, Identity.address(EVE), EVE)
    assert bob.questions == 1


# --- where, and with what ---


@pytest.mark.parametrize("roams", [False, True])
def test_a_name_is_where_its_owner_says_unless_it_roams(asked: Any, roams: bool) -> None:
    net = asked(Rule("*.example", roams=roams))
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    alice.addresses = (MOVED,)
    net.wait(40)
    bob.notices.clear()
    net.start()
    net.fate(alice, BOB, 5)
    assert bool([sa for sa in bob.node.ike.sas if sa.remote.address == MOVED]) is roams


def test_a_key_that_is_not_the_names(asked: Any) -> None:
    net = asked(alice={"key": "other"})
    assert not net.hosts["bob"].sad
    assert not net.hosts["bob"].spd


@pytest.mark.parametrize("guard", ["in", "out"])
def test_that_there_is_no_key_is_believed_for_its_ttl(asked: Any, guard: str, monkeypatch: Any) -> None:
    net = asked(ask=("*.example",))
    bob = net.hosts["bob"]
    net.ttl = 600
    net.wait(70)
    net.zone["carol.example"] = ((EVE,), ())
    begun = bob.questions
    for _ in range(40):
        claim(net, bob, Identity.fqdn("carol.example"), EVE)
        if guard == "out":
            bob.node.peers.by_name("carol.example").lookup.unbound = None
        net.wait(10)
    assert (bob.questions == begun + 4) is (guard == "in")
    net.wait(200)
    claim(net, bob, Identity.fqdn("carol.example"), EVE)
    assert bob.questions > begun + 4


def test_an_error_is_not_believed_for_long(asked: Any) -> None:
    net = asked()
    bob = net.hosts["bob"]
    net.outcome["carol.example"] = Outcome.ERROR
    begun = bob.questions
    for _ in range(4):
        claim(net, bob, Identity.fqdn("carol.example"), EVE)
        net.wait(10)
    assert bob.questions > begun + 4


def test_a_stranger_who_is_not_heard_of_again_is_forgotten(asked: Any) -> None:
    net = asked()
    bob = net.hosts["bob"]
    claim(net, bob, Identity.fqdn("carol.example"), EVE)
    assert bob.node.peers.by_name("carol.example")
    net.hosts["alice"].addresses = ()
    net.wait(1000)
    assert bob.node.peers.by_name("carol.example") is None


@pytest.mark.parametrize("group", ["clear", "block"])
def test_a_rule_that_wants_no_ipsec(make_net: Any, group: str) -> None:
    rules = parse(f'[host]\nname = "bob.example"\n[[rule]]\npeer = "*.example"\ngroup = "{group}"\n', "x").rules
    net = make_net()
    bob = net.host("bob", *rules, ask=("*",))
    net.start()
    claim(net, bob, Identity.fqdn("carol.example"))
    assert not bob.questions


@pytest.mark.parametrize("guard", ["in", "out"])
def test_nobody_claims_an_address_by_forging_it_in_ike_auth(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Eve, behind what she says is a NAT, answers our IKE_SA_INIT response from the address that her name has."""
    if guard == "out":
        monkeypatch.setattr(IkeSA, "_may_be_at", lambda *_: True)
    victim = ip_address("198.51.100.7")
    net = make_net()
    bob = net.host("bob", Rule("*.example"), ask=("*.example",))
    eve = net.host("eve", Rule("bob.example", start=Start.CONNECT), plane=PlaneChoice.USERSPACE)
    net.zone["eve.example"] = ((victim,), (eve.key.public,))
    held: list[Send] = []
    net.lost = lambda host, send: host is eve and send.data[18] == ExchangeType.IKE_AUTH and not held.append(send)
    net.start()
    net.step(bob, Datagram(held[0].remote, Endpoint(victim, 4500), held[0].data))
    assert (bool(bob.sad), bool(bob.policies(victim))) == ((False, False) if guard == "in" else (True, True))
