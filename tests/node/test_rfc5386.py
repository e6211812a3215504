"""RFC 5386 (BTNS), sentence by sentence of its sections 2 and 3, between whole Nodes."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Rule, Start
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.events import AddressesChanged
from hushwire.node.base import base_policies
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import PUBLICKEY, Identity
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.wire.registry import IDType

from .conftest import ADDRESS, KEY

ALICE, BOB, CAROL, EVE = (ADDRESS[name] for name in ("alice", "bob", "carol", "eve"))
NETWORK = ip_network("192.0.2.0/24")
ANY = Rule(NETWORK, Assurance.ENCRYPTED)
"""PUBLICKEY:any, and an SPD entry with BTNS_OK."""


def introduced(address: Any, **more: Any) -> Rule:
    """A non-BTNS entry: a host whose key an administrator has pinned."""
    return Rule(ip_network(address), Assurance.TRUSTED, key="/pinned", **more)


def pinned(address: Any, key: str) -> dict[str, Any]:
    return {str(ip_network(address)): KEY[key].public}


def sharing(name: str) -> Rule:
    return Rule(ip_network(ADDRESS[name]), Assurance.TRUSTED, psk="/shared", identity=Identity.fqdn(f"{name}.example"))


def entry_of(host: Any) -> Any:
    """The PAD entry that the peer of a host's one IKE SA was found to match."""
    (sa,) = host.node.ike.sas
    return sa.authenticated.entry


# --- section 2: the processing model ---


def test_s2_the_type_publickey_is_not_used_on_the_wire(make_net: Any) -> None:
    net = make_net()
    alice, _ = net.host("alice", ANY), net.host("bob", ANY)
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    assert entry_of(alice).identity.type == PUBLICKEY
    # An ID payload has one octet for its type: whatever is received is of another.
    assert all(Identity.received(IDType(number), b"").type != PUBLICKEY for number in range(256))
    assert alice.node.ike.sas[0].known_as.type != PUBLICKEY


@pytest.mark.parametrize("key", ["bob", "other"])
def test_s2_btns_entries_follow_all_others(make_net: Any, key: str) -> None:
    """Whoever matches another entry is asked for what that one wants, however wide the wildcard is."""
    net = make_net()
    alice = net.host("alice", introduced(BOB), ANY, pinned=pinned(BOB, key))
    net.host("bob", ANY)
    net.start()
    assert net.fate(alice, BOB, patience=30) is (Action.PROTECT if key == "bob" else Action.BLOCK)
    if key == "bob":
        assert not entry_of(alice).btns
        assert alice.about("ike.established")[-1]["level"] == "trusted"


def test_s2_the_wildcard_is_the_last_entry(make_net: Any) -> None:
    """The rule is written first, and counts last."""
    net = make_net()
    alice = net.host("alice", ANY, introduced(BOB), pinned=pinned(BOB, "other"))
    net.host("bob", ANY)
    net.start()
    assert net.fate(alice, BOB, patience=30) is Action.BLOCK


KINDS = (KeyKind.ED25519, KeyKind.ED448, KeyKind.ECDSA_P256, KeyKind.ECDSA_P384, KeyKind.RSA)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_s2_any_digital_signature_may_match(make_net: Any, kind: KeyKind, monkeypatch: Any) -> None:
    """Of 2007's two methods one is RSA's; RFC 7427 and RFC 8420 brought the others."""
    monkeypatch.setitem(KEY, "bob", PrivateKey.generate(kind))
    net = make_net()
    alice, bob = net.host("alice", ANY), net.host("bob", ANY)
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    assert net.fate(bob, ALICE) is Action.PROTECT
    assert entry_of(alice).keys == (KEY["bob"].public,)


@pytest.mark.parametrize("wildcard", [True, False])
def test_s2_a_shared_key_is_no_signature(make_net: Any, wildcard: bool) -> None:
    """The control: who was told of the key takes it."""
    net = make_net()
    alice = net.host("alice", ANY if wildcard else sharing("bob"), shared={str(ip_network(BOB)): b"psk"})
    bob = net.host("bob", sharing("alice"), shared={str(ip_network(ALICE)): b"psk"})
    net.start()
    assert net.fate(bob, ALICE, patience=20) is (Action.BLOCK if wildcard else Action.PROTECT)
    assert bool(alice.sad) is not wildcard


def test_s2_the_asserted_identity_is_coerced_to_the_key(make_net: Any) -> None:
    """What Eve says she is, nobody has a rule about; so it counts for nothing."""
    net = make_net()
    alice = net.host("alice", ANY)
    net.host("eve", replace(ANY, own_identity=Identity.fqdn("anybody.at.all")))
    net.start()
    assert net.fate(net.hosts["eve"], ALICE) is Action.PROTECT
    assert entry_of(alice).identity == Identity.public_key(KEY["eve"].public)


def test_s2_without_a_matching_entry_the_ike_sa_is_rejected(make_net: Any) -> None:
    net = make_net()
    alice, _ = net.host("alice", ANY), net.host("bob", introduced(EVE), pinned=pinned(EVE, "eve"))
    net.start()
    assert net.fate(alice, BOB, patience=20) is Action.BLOCK
    assert not alice.node.ike.sas or not alice.sad


@pytest.mark.parametrize("require", [Assurance.ENCRYPTED, Assurance.NAMED])
def test_s2_btns_peers_match_only_entries_with_btns_ok(make_net: Any, require: Assurance) -> None:
    net = make_net()
    alice, bob = net.host("alice", ANY), net.host("bob", Rule(NETWORK, require))
    net.start()
    assert net.fate(alice, BOB, patience=20) is (Action.PROTECT if require is Assurance.ENCRYPTED else Action.BLOCK)
    assert bool(bob.sad) is (require is Assurance.ENCRYPTED)


def test_s2_who_matches_another_entry_and_fails_is_rejected(make_net: Any) -> None:
    """A rogue who says that he is bob, from an address of his own."""
    net = make_net()
    alice = net.host("alice", Rule("bob.example", Assurance.NAMED), ANY)
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.host("eve", replace(ANY, own_identity=Identity.fqdn("bob.example")))
    net.start()
    assert net.fate(net.hosts["eve"], ALICE, patience=20) is Action.BLOCK
    assert not alice.sad
    # The control: under a name of her own she is welcome.
    net.hosts.pop("eve")
    eve = net.host("eve", ANY)
    net.step(eve, AddressesChanged(eve.addresses))
    assert net.fate(eve, ALICE) is Action.PROTECT


@pytest.mark.parametrize("whose", ["bob's", "nobody's"])
def test_s2_child_selectors_do_not_conflict_with_other_entries(make_net: Any, whose: str) -> None:
    """The second search: the address is of somebody who was introduced by his name."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    alice = net.host(
        "alice", ANY, *([Rule("bob.example", Assurance.NAMED, start=Start.WAIT)] if whose == "bob's" else [])
    )
    eve = net.host("eve", ANY)
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(eve, ALICE, patience=20) is (Action.BLOCK if whose == "bob's" else Action.PROTECT)
    assert bool(alice.sad) is (whose != "bob's")


def test_s2_the_wildcard_is_of_a_rule_and_not_of_the_host(make_net: Any) -> None:
    """Strangers are for one half of the network only."""
    net = make_net()
    alice = net.host("alice", Rule(ip_network("192.0.2.0/26"), Assurance.ENCRYPTED), Rule(NETWORK))
    bob, eve = net.host("bob", ANY), net.host("eve", ANY)
    net.start()
    assert (net.fate(bob, ALICE), net.fate(eve, ALICE, patience=20)) == (Action.PROTECT, Action.BLOCK)
    assert len(alice.node.ike.sas) == 1


@pytest.mark.parametrize("sends", [True, False])
def test_s2_who_wants_to_be_treated_as_a_btns_node_sends_its_bare_key(
    make_net: Any, sends: bool, monkeypatch: Any
) -> None:
    net = make_net()
    alice, _ = net.host("alice", ANY), net.host("bob", ANY)
    if not sends:
        monkeypatch.setattr("hushwire.ike.auth._certificates", lambda *_: [])
    net.start()
    assert net.fate(alice, BOB, patience=20) is (Action.PROTECT if sends else Action.BLOCK)


# --- section 3.1: a security gateway ---

B_NET, OF_B, R = ip_network("198.51.100.0/24"), ip_address("198.51.100.7"), ip_address("192.0.2.200")


@pytest.fixture
def gateway(make_net: Any) -> Any:
    """Figures 2 and 3: alice is [SG-A], bob [Q], carol [SG-B], eve [C]."""
    net = make_net()
    tunnel = {"mode": Mode.TUNNEL, "remote_networks": (B_NET,), "identity": Identity.fqdn("carol.example")}
    keys = pinned(BOB, "bob") | pinned(CAROL, "carol")
    known_q = introduced(BOB, identity=Identity.fqdn("bob.example"))
    bypassed = Rule(ip_network(R), Assurance.CLEAR)
    net.host("alice", introduced(CAROL, **tunnel), known_q, ANY, bypassed, pinned=keys)
    known_a = {"identity": Identity.fqdn("alice.example")}
    net.host("bob", introduced(ALICE, **known_a), pinned=pinned(ALICE, "alice"))
    behind = introduced(ALICE, mode=Mode.TUNNEL, local_networks=(B_NET,), **known_a)
    net.host("carol", behind, pinned=pinned(ALICE, "alice"))
    net.host("eve", ANY)
    net.start()
    return net


def test_s3_1_q_matches_its_own_entry(gateway: Any) -> None:
    alice, bob = gateway.hosts["alice"], gateway.hosts["bob"]
    assert gateway.fate(bob, ALICE) is Action.PROTECT
    assert entry_of(alice).identity == Identity.fqdn("bob.example")
    assert gateway.fate(alice, BOB) is Action.PROTECT


def test_s3_1_sg_b_may_have_b_net(gateway: Any) -> None:
    alice, carol = gateway.hosts["alice"], gateway.hosts["carol"]
    assert gateway.packet(carol, ALICE, local=OF_B) is Action.BLOCK
    assert gateway.packet(carol, ALICE, local=OF_B) is Action.PROTECT
    assert {child.selector.remote for child in alice.node.ike.sas[0].children.values()} == {B_NET}


def test_s3_1_r_is_bypassed(gateway: Any) -> None:
    """By a policy that the plane has from the start, before those of the Node."""
    alice = gateway.hosts["alice"]
    flow = Flow(ALICE, R, 0, 0, 0)
    laid = [policy for policy in base_policies(alice.node._config) if policy.direction is Direction.OUT]
    first = min((p for p in (*laid, *alice.spd.values()) if p.selector.matches(flow)), key=lambda p: p.priority)
    assert first.action is Action.CLEAR


def test_s3_1_c_matches_the_wildcard(gateway: Any) -> None:
    alice, eve = gateway.hosts["alice"], gateway.hosts["eve"]
    assert gateway.fate(eve, ALICE) is Action.PROTECT
    assert entry_of(alice).btns
    assert gateway.fate(alice, EVE) is Action.PROTECT


@pytest.mark.parametrize("whose", ["q", "b"])
def test_s3_1_a_rogue_does_not_get_q_s_or_b_s_addresses(gateway: Any, whose: str) -> None:
    """At Q's own address, or asking for the network behind B."""
    alice = gateway.hosts["alice"]
    if whose == "q":
        gateway.hosts["bob"].addresses = ()
        eve = gateway.host("eve", ANY)
        eve.addresses = (BOB,)
    else:
        rule = introduced(ALICE, mode=Mode.TUNNEL, local_networks=(B_NET,), identity=Identity.fqdn("alice.example"))
        eve = gateway.host("eve", rule, pinned=pinned(ALICE, "alice"))
    gateway.step(eve, AddressesChanged(eve.addresses))
    gateway.run()
    local = None if whose == "q" else OF_B
    assert {gateway.packet(eve, ALICE, local=local) for _ in range(3)} == {Action.BLOCK}
    assert not alice.sad
    assert gateway.packet(alice, OF_B) is Action.BLOCK


def test_s3_1_a_rogue_at_c_s_address_succeeds(gateway: Any) -> None:
    """As the RFC says: only continuity, latching or channel binding help (sections 4.1 and 4.2)."""
    eve = gateway.hosts["eve"]
    assert gateway.fate(eve, ALICE) is Action.PROTECT
    eve.addresses = ()
    rogue = gateway.host("bob", ANY, key="other")
    rogue.addresses = (EVE,)
    gateway.step(rogue, AddressesChanged(rogue.addresses))
    gateway.run()
    # As soon as [C] does not answer any more (ATTACKS row 53).
    assert gateway.fate(rogue, ALICE, patience=60) is Action.PROTECT


# --- sections 3.2 and 3.3: a mixed end-system, and a BTNS-only one ---

TCP, NFS = 6, 2049


@pytest.fixture
def server(make_net: Any) -> Any:
    """Figures 4 to 7: bob is [Q], an NFSv4 server that knows alice, [A]; eve is [C]."""
    net = make_net()
    known = introduced(ALICE, identity=Identity.fqdn("alice.example"))
    nfs = Rule(NETWORK, Assurance.ENCRYPTED, protocol=TCP, local_port=NFS)
    rest = Rule(NETWORK, Assurance.CLEAR)
    net.host("bob", known, nfs, rest, pinned=pinned(ALICE, "alice"))
    net.host("alice", introduced(BOB, identity=Identity.fqdn("bob.example")), pinned=pinned(BOB, "bob"))
    net.host("eve", Rule(NETWORK, Assurance.ENCRYPTED, protocol=TCP, remote_port=NFS), rest)
    net.start()
    return net


def test_s3_2_all_traffic_with_a_is_protected(server: Any) -> None:
    assert server.fate(server.hosts["bob"], ALICE) is Action.PROTECT
    assert not entry_of(server.hosts["bob"]).btns


def test_s3_2_and_s3_3_nfs_is_protected_with_anybody(server: Any) -> None:
    eve = server.hosts["eve"]
    assert server.packet(eve, BOB, TCP, NFS) is Action.BLOCK
    assert server.packet(eve, BOB, TCP, NFS) is Action.PROTECT
    assert entry_of(server.hosts["bob"]).btns
    assert entry_of(eve).btns


def test_s3_3_all_but_nfs_is_in_clear(server: Any) -> None:
    eve = server.hosts["eve"]
    server.packet(eve, BOB, TCP, NFS)
    assert {server.packet(eve, BOB, TCP, 80), server.packet(eve, ALICE)} == {Action.CLEAR}


def test_s3_3_a_rogue_can_assert_sas_for_nfs_only(server: Any) -> None:
    server.hosts["eve"].addresses = ()
    rogue = server.host("eve", ANY)
    server.step(rogue, AddressesChanged(rogue.addresses))
    server.run()
    server.packet(rogue, BOB)
    selectors = [child.selector for sa in server.hosts["bob"].node.ike.sas for child in sa.children.values()]
    assert all((selector.protocol, selector.local_port) == (TCP, NFS) for selector in selectors)


@pytest.mark.parametrize("capable", [True, False])
def test_s3_4_without_btns_c_is_rejected_as_usual(make_net: Any, capable: bool) -> None:
    net = make_net()
    rules = [introduced(BOB), *([ANY] if capable else [])]
    alice, eve = net.host("alice", *rules, pinned=pinned(BOB, "bob")), net.host("eve", ANY)
    net.start()
    assert net.fate(eve, ALICE, patience=20) is (Action.PROTECT if capable else Action.BLOCK)
    assert bool(alice.sad) is capable
