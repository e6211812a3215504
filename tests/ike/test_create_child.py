"""CREATE_CHILD_SA: new Child SAs, replacements, narrowing, and what crosses (RFC 7296 s1.3, s2.8, s2.9, s2.25)."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.events import DeleteSA
from hushwire.ike import allowance, negotiation
from hushwire.ike.negotiation import Wanted
from hushwire.ike.proposals import EspOffer, esp_proposals
from hushwire.ike.report import ChildFailed, ChildUp
from hushwire.ike.settings import ESP_OFFERS
from hushwire.ike.state import State
from hushwire.policy.sad import Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.wire.message import read_message
from hushwire.wire.payload import Delete, KeyExchange, Nonce, Notify, SecurityAssociation, TrafficSelector, TSi, TSr
from hushwire.wire.registry import EncrID, EsnID, ExchangeType, KeID, NotifyType, ProtocolID

CREATE, INFORMATIONAL = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
A, B, V = (ip_address(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.99"))


def everything(first: Any, last: Any = None, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    return TrafficSelector(protocol, *ports, first, last or first)


def asking(
    tsi: Any = None, tsr: Any = None, *first: Any, spi: bytes = b"\1\2\3\4", transport: bool = True, ke: bool = False
) -> list[Any]:
    """A CREATE_CHILD_SA request for a Child SA, by hand."""
    payloads = [*first, SecurityAssociation(esp_proposals(ESP_OFFERS, spi, with_ke=ke)), Nonce(bytes(32))]
    if ke:
        payloads.append(KeyExchange(KeID.CURVE25519, b"\x09" + bytes(31)))
    payloads += [TSi((tsi or everything(A),)), TSr((tsr or everything(B),))]
    return payloads + [Notify(NotifyType.USE_TRANSPORT_MODE)] * transport


def errors(message: Any) -> list[Any]:
    return [payload.type for payload in message.payloads if isinstance(payload, Notify) and payload.type.is_error]


def rekeying(child: Any, **how: Any) -> list[Any]:
    return asking(None, None, Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, child.spi_in), **how)


# --- new ---


def test_one_more_child(standing: Any) -> None:
    before = set(standing.alice.plane)
    sa = standing.alice.sa
    standing.alice.endpoint.create_child(sa, Wanted(sa.peer.selectors, Mode.TRANSPORT, acquire=7), standing.now)
    standing.deliver()
    assert len(standing.alice.plane) == 4
    assert {installed.acquire for spi, installed in standing.alice.plane.items() if spi not in before} == {7}
    standing.agree()


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("ke", [True, False])
def test_keys_are_fresh_with_and_without_a_key_exchange(make_pair: Any, ke: bool, who: str) -> None:
    offers = ESP_OFFERS if ke else tuple(replace(offer, ke=()) for offer in ESP_OFFERS)
    pair = make_pair(alice={"esp_offers": offers}, bob={"esp_offers": offers})
    pair.initiate()
    pair.deliver()
    me = getattr(pair, who)
    me.endpoint.rekey(me.sa, pair.now, ike=False)
    pair.collect()
    request = pair.open(me.sa, pair.wire[0][1].data)
    assert (request.one(KeyExchange) is not None) is ke
    pair.deliver()
    keys = [sa.encr_key.expose() for sa in pair.alice.installations]
    assert len(keys) == len(set(keys)) == 4
    pair.agree()


def test_the_responder_names_the_group_it_takes(make_pair: Any) -> None:
    pair = make_pair(bob={"esp_offers": tuple(replace(offer, ke=(KeID.ECP_384,)) for offer in ESP_OFFERS)})
    pair.initiate()
    pair.deliver()
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.deliver()
    refusal = pair.open(pair.alice.sa, pair.seen[5][1].data).notify(NotifyType.INVALID_KE_PAYLOAD)
    assert refusal.data == KeID.ECP_384.to_bytes(2)
    assert len(pair.alice.plane) == 2
    pair.agree()


def test_a_group_is_tried_once_more_and_no_oftener(standing: Any) -> None:
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.collect()
    for group in (KeID.ECP_256, KeID.ECP_384):
        number = pair.alice.sa.window.outstanding.message_id
        pair.wire.clear()
        refusal = [Notify(NotifyType.INVALID_KE_PAYLOAD, group.to_bytes(2))]
        pair.feed(pair.alice, pair.seal(pair.bob.sa, CREATE, refusal, response=True, message_id=number))
    assert pair.alice.sa.window.outstanding is None
    assert pair.alice.child.rekeying is False
    assert "ike.rekey-failed" in [notice.kind for notice in pair.alice.notices]


@pytest.mark.parametrize("public", [bytes(32), bytes(31), b"", b"\1" + bytes(31)])
@pytest.mark.parametrize("asked", [True, False])
def test_a_bad_public_value(standing: Any, public: bytes, asked: bool) -> None:
    pair = standing
    if asked:
        request = asking(ke=True)
        request[2] = KeyExchange(KeID.CURVE25519, public)
        assert errors(pair.ask(pair.alice.sa, CREATE, request)) == [NotifyType.INVALID_SYNTAX]
        assert not pair.bob.plane
        return
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.collect()
    (_, request), pair.wire = pair.wire[0], []
    offer = pair.open(pair.alice.sa, request.data).one(SecurityAssociation).proposals[0]
    kinds = {transform.type: transform for transform in reversed(offer.transforms)}
    accepted = replace(offer, spi=b"\1\2\3\4", transforms=tuple(kinds.values()))
    answer = [SecurityAssociation((accepted,)), Nonce(bytes(32)), KeyExchange(KeID.CURVE25519, public),
              TSi((everything(A),)), TSr((everything(B),)), Notify(NotifyType.USE_TRANSPORT_MODE)]  # fmt: skip
    sent = pair.feed(pair.alice, pair.seal(pair.bob.sa, CREATE, answer, response=True, message_id=2))
    # Bob has that Child SA, as far as Alice knows: she has it deleted.
    (deletion,) = [pair.open(pair.alice.sa, data) for data in sent]
    assert deletion.one(Delete).protocol is ProtocolID.ESP
    assert len(pair.alice.plane) == 2


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_a_request_without_one_of_its_payloads(standing: Any, missing: int) -> None:
    request = asking()
    del request[missing]
    answer = standing.ask(standing.alice.sa, CREATE, request)
    assert errors(answer) == [NotifyType.INVALID_SYNTAX]
    assert not standing.bob.sas


@pytest.mark.parametrize("missing", [SecurityAssociation, Nonce, TSi, TSr])
def test_an_answer_without_one_of_its_payloads_ends_the_sa(standing: Any, missing: type) -> None:
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.collect()
    (_, request), pair.wire = pair.wire[0], []
    (data,) = pair.feed(pair.bob, request.data)
    answer = [p for p in pair.open(pair.bob.sa, data).payloads if not isinstance(p, missing)]
    pair.feed(pair.alice, pair.seal(pair.bob.sa, CREATE, answer, response=True, message_id=2))
    assert not pair.alice.sas
    assert not pair.alice.plane


def test_a_peer_cannot_have_children_without_end(standing: Any) -> None:
    """ATTACKS row 24."""
    refused = None
    for number in range(allowance.MOST_CHILDREN + 1):
        answer = standing.ask(standing.alice.sa, CREATE, asking(spi=(0x1000 + number).to_bytes(4)))
        refused = errors(answer)
        if refused:
            break
    assert refused == [NotifyType.NO_ADDITIONAL_SAS]
    assert len(standing.bob.sa.children) == allowance.MOST_CHILDREN
    assert standing.bob.sa.state is State.ESTABLISHED


# --- what the peer may speak for (ATTACKS row 21) ---


@pytest.mark.parametrize(
    ("tsi", "tsr"),
    [
        (everything(ip_address(0), ip_address("255.255.255.255")), everything(B)),
        (everything(A), everything(ip_address(0), ip_address("255.255.255.255"))),
        (everything(ip_address("192.0.2.0"), ip_address("192.0.2.255")), everything(ip_address("192.0.2.0"), V)),
    ],
)
def test_what_is_wider_is_narrowed(standing: Any, tsi: Any, tsr: Any) -> None:
    answer = standing.ask(standing.alice.sa, CREATE, asking(tsi, tsr))
    assert answer.one(TSi).selectors == (everything(A),)
    assert answer.one(TSr).selectors == (everything(B),)
    allowed = standing.bob.entries[standing.alice.settings.identity].selectors[0]
    assert all(allowed.covers(child.selector) for child in standing.bob.sa.children.values())


ELSEWHERE = [
    (everything(V), everything(B)),
    (everything(A), everything(V)),
    (everything(B), everything(A)),
    (everything(ip_address("2001:db8::1")), everything(ip_address("2001:db8::2"))),
    (everything(A), everything(B, protocol=6, ports=(80, 90))),
    (everything(A, protocol=6), everything(B, protocol=17)),
]


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(("tsi", "tsr"), ELSEWHERE)
def test_what_is_elsewhere_is_refused(standing: Any, tsi: Any, tsr: Any, control: bool, monkeypatch: Any) -> None:
    if control:

        def credulous(local: Any, remote: Any, *_: Any) -> Selector:
            return Selector(ip_network(local[0].first_address), ip_network(remote[0].first_address))

        monkeypatch.setattr(negotiation, "narrow", credulous)
    answer = standing.ask(standing.alice.sa, CREATE, asking(tsi, tsr))
    assert errors(answer) == ([] if control else [NotifyType.TS_UNACCEPTABLE])
    assert len(standing.bob.plane) == (4 if control else 2)
    assert standing.bob.sa.state is State.ESTABLISHED


@pytest.mark.parametrize("wider", [True, False])
def test_a_responder_that_answers_more_than_was_asked(standing: Any, wider: bool) -> None:
    """RFC 7296 s2.9: the answer is a subset, or what both said is what counts."""
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.collect()
    (_, request), pair.wire = pair.wire[0], []
    (data,) = pair.feed(pair.bob, request.data)
    everywhere = everything(ip_address(0), ip_address("255.255.255.255"))
    answer = [p for p in pair.open(pair.bob.sa, data).payloads if not isinstance(p, TSi | TSr)]
    answer += [TSi((everywhere,)), TSr((everywhere,))] if wider else [TSi((everything(A),)), TSr((everything(V),))]
    sent = pair.feed(pair.alice, pair.seal(pair.bob.sa, CREATE, answer, response=True, message_id=2))
    allowed = Selector.between(A, B)
    assert all(allowed.covers(sa.selector) for sa in pair.alice.installations)
    (deletion,) = [pair.open(pair.alice.sa, data) for data in sent]
    gone = deletion.one(Delete).spis
    assert gone == ((pair.bob.sa.children[next(iter(pair.bob.sa.children))].spi_out,) if wider else gone)
    assert len(pair.alice.installations) == (4 if wider else 2)


def test_port_and_protocol_are_kept(make_pair: Any) -> None:
    pair = make_pair()
    web = replace(Selector.between(A, B), protocol=6, remote_port=443)
    pair.alice.knows(pair.bob, selectors=(web,))
    pair.bob.knows(pair.alice, selectors=(replace(Selector.between(B, A), protocol=6, local_port=443),))
    pair.initiate()
    pair.deliver()
    assert pair.alice.child.selector == web
    assert (pair.bob.child.selector.protocol, pair.bob.child.selector.local_port) == (6, 443)


@pytest.mark.parametrize(("mine", "yours"), [(Mode.TRANSPORT, Mode.TUNNEL), (Mode.TUNNEL, Mode.TRANSPORT)])
def test_a_mode_that_is_not_the_rules_is_refused(make_pair: Any, mine: Mode, yours: Mode) -> None:
    pair = make_pair()
    pair.alice.knows(pair.bob, mode=mine)
    pair.bob.knows(pair.alice, mode=yours)
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.state is pair.bob.sa.state is State.ESTABLISHED
    assert "NO_PROPOSAL_CHOSEN" in pair.alice.told(ChildFailed)[0].reason
    assert not pair.alice.plane
    assert not pair.bob.plane


@pytest.mark.parametrize("exchange", ["IKE_AUTH", "CREATE_CHILD_SA"])
def test_a_responder_that_leaves_transport_mode_out_has_its_child_deleted(make_pair: Any, exchange: str) -> None:
    """RFC 7296 s1.3.1: if the mode is unacceptable to the initiator, it MUST delete the SA."""
    pair = make_pair()
    sa = pair.initiate()
    if exchange == "CREATE_CHILD_SA":
        pair.deliver()
        pair.alice.endpoint.create_child(sa, Wanted(sa.peer.selectors, Mode.TRANSPORT), pair.now)
        pair.collect()
    else:
        (_, request), pair.wire = pair.wire[0], []
        (data,) = pair.feed(pair.bob, request.data)
        pair.wire.append((pair.alice, replace(request, data=pair.feed(pair.alice, data)[0])))
    before = len(pair.alice.plane)
    (_, request), pair.wire = pair.wire[0], []
    (data,) = pair.feed(pair.bob, request.data)
    answer = [
        p for p in pair.open(pair.bob.sa, data).payloads if getattr(p, "type", 0) != NotifyType.USE_TRANSPORT_MODE
    ]
    header = read_message(data).header
    octets = pair.seal(pair.bob.sa, header.exchange, answer, response=True, message_id=header.message_id)
    assert len(pair.bob.plane) == before + 2
    (sent,) = pair.feed(pair.alice, octets)
    (done,) = pair.feed(pair.bob, sent)
    pair.feed(pair.alice, done)
    assert len(pair.alice.plane) == before
    assert len(pair.bob.plane) == before
    assert pair.alice.told(ChildFailed)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("family", [4, 6])
def test_both_modes_and_families(make_pair: Any, mode: Mode, family: int) -> None:
    pair = make_pair(family=family)
    pair.alice.knows(pair.bob, mode=mode)
    pair.bob.knows(pair.alice, mode=mode)
    pair.initiate()
    pair.deliver()
    assert {sa.mode for sa in pair.alice.plane.values()} == {mode}
    assert pair.alice.child.selector.local.version == family
    pair.agree()


def test_a_tunnel_between_networks(make_pair: Any) -> None:
    pair = make_pair()
    near, far = ip_network("10.1.0.0/16"), ip_network("2001:db8:2::/48")
    near6 = ip_network("2001:db8:1::/48")
    pair.alice.knows(pair.bob, mode=Mode.TUNNEL, selectors=(Selector(near6, far),))
    pair.bob.knows(pair.alice, mode=Mode.TUNNEL, selectors=(Selector(far, near), Selector(far, near6)))
    pair.initiate()
    pair.deliver()
    assert pair.alice.child.selector == Selector(near6, far)
    assert pair.bob.child.selector == Selector(far, near6)
    assert pair.alice.child.inbound.destination == A
    pair.agree()


# --- what the plane refuses ---


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("exchange", ["IKE_AUTH", "new", "rekey"])
def test_nothing_stays_of_what_the_plane_refused_in_part(make_pair: Any, who: str, exchange: str, which: int) -> None:
    pair = make_pair()
    me = getattr(pair, who)
    if exchange != "IKE_AUTH":
        pair.initiate()
        pair.deliver()
    before = set(pair.alice.plane)
    calls: list[Any] = []

    def refuse(sa: Any) -> bool:
        calls.append(sa)
        return len(calls) == which + 1

    me.refuse = refuse
    if exchange == "IKE_AUTH":
        pair.initiate()
    elif exchange == "new":
        pair.alice.endpoint.create_child(pair.alice.sa, Wanted((Selector.between(A, B),), Mode.TRANSPORT), pair.now)
    else:
        pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.deliver()
    assert len(pair.alice.sas) == len(pair.bob.sas) == 1
    held = {
        SAName(sa.spi, sa.destination) for child in me.sa.children.values() for sa in (child.inbound, child.outbound)
    }
    assert {SAName(sa.spi, sa.destination) for sa in me.plane.values()} <= held
    if which < 1 or (which < 2 and (exchange != "rekey" or who == "alice")):
        assert set(pair.alice.plane) == set(pair.bob.plane) == before
        assert pair.alice.sa.state is State.ESTABLISHED


def test_what_the_plane_does_for_an_sa_that_is_gone_is_undone(standing: Any) -> None:
    pair = standing
    pair.bob.held = []
    pair.alice.endpoint.create_child(pair.alice.sa, Wanted((Selector.between(A, B),), Mode.TRANSPORT), pair.now)
    pair.deliver()
    assert len(pair.bob.held) == 2
    pair.bob.sa.close("by the test")
    pair.release(pair.bob)
    assert not pair.bob.plane


# --- replacement ---


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_the_old_way_is_used_until_the_peer_closes_it(standing: Any, who: str) -> None:
    """RFC 7296 s2.8: who answers a rekey sends on the old SA until the other end has shown that it can open the new."""
    pair = standing
    me, you = (pair.alice, pair.bob) if who == "alice" else (pair.bob, pair.alice)
    me.endpoint.rekey(me.sa, pair.now, ike=False)
    pair.collect()
    (_, request), pair.wire = pair.wire[0], []
    (answer,) = you_answers = pair.feed(you, request.data)
    assert len(you_answers) == 1
    new = [child for child in you.sa.children.values() if child.outbound_waits]
    assert len(new) == 1
    assert len(you.plane) == 3
    pair.wire += [(you, pair.seen[-1][1])]
    pair.deliver()
    assert answer
    assert len(pair.alice.plane) == 2
    pair.agree()


def test_a_rekey_names_a_child_that_is_not_there(standing: Any) -> None:
    """RFC 7296 s2.25.1, s2.25: CHILD_SA_NOT_FOUND."""
    request = asking(None, None, Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, rb"\9\9\9\9"))
    assert errors(standing.ask(standing.alice.sa, CREATE, request)) == [NotifyType.CHILD_SA_NOT_FOUND]
    assert len(standing.bob.plane) == 2


@pytest.mark.parametrize("protocol", [ProtocolID.NONE, ProtocolID.IKE, ProtocolID.AH, ProtocolID(77)])
@pytest.mark.parametrize("spi", [b"", b"\1\2\3\4", b"12345678", None])
def test_a_rekey_of_what_is_no_esp_sa(standing: Any, protocol: ProtocolID, spi: bytes | None) -> None:
    """ATTACKS row 26: what the peer wrote is never echoed unchecked."""
    spi = standing.alice.child.spi_in if spi is None else spi
    request = asking(None, None, Notify(NotifyType.REKEY_SA, b"", protocol, spi))
    answer = standing.ask(standing.alice.sa, CREATE, request)
    assert errors(answer) in ([NotifyType.CHILD_SA_NOT_FOUND], [NotifyType.INVALID_SYNTAX])


def test_a_rekey_names_the_sa_by_the_spi_its_sender_receives_on(standing: Any) -> None:
    request = asking(None, None, Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, standing.alice.child.spi_out))
    assert errors(standing.ask(standing.alice.sa, CREATE, request)) == [NotifyType.CHILD_SA_NOT_FOUND]


def test_the_peer_does_not_have_what_we_rekey(standing: Any) -> None:
    pair = standing
    pair.bob.sa.children.remove(pair.bob.child)
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.deliver()
    assert not pair.alice.plane
    assert pair.alice.sa.state is State.ESTABLISHED


def test_a_peer_that_rekeys_and_never_deletes(standing: Any) -> None:
    """The old Child SA's time comes all the same, and time goes on."""
    pair = standing
    assert not errors(pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child)))
    old = next(child for child in pair.bob.sa.children.values() if child.successor)
    old.successor.rekey_at = 2 * old.rekey_at
    pair.filter = lambda sender, send: []
    for _ in range(50):
        when = pair.bob.endpoint.deadline()
        pair.now = replace(pair.now, monotonic=max(when, old.rekey_at))
        pair.bob.sa.heard = pair.now.monotonic
        pair.bob.endpoint.timeout(pair.now)
        pair.collect()
        assert pair.bob.endpoint.deadline() > pair.now.monotonic
        if not pair.bob.sas:
            break


def test_what_replaces_a_dropped_child_takes_over(standing: Any) -> None:
    pair = standing
    pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child))
    old = next(child for child in pair.bob.sa.children.values() if child.successor)
    assert len(pair.bob.plane) == 3
    pair.bob.endpoint.expire(old.names[0], pair.now, hard=True)
    pair.collect()
    assert pair.bob.child.outbound.spi in pair.bob.plane
    assert len(pair.bob.plane) == 2


def test_a_replacement_that_goes_leaves_the_old_one_to_be_rekeyed(standing: Any) -> None:
    pair = standing
    pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child))
    pair.ask(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (b"\1\2\3\4",))])
    assert pair.bob.child.successor is None
    assert not errors(pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child)))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("way", [0, 1])
def test_the_plane_says_that_a_life_is_over(standing: Any, way: int, hard: bool) -> None:
    pair = standing
    name = pair.alice.child.names[way]
    pair.alice.endpoint.expire(name, pair.now, hard=hard)
    pair.deliver()
    assert name.spi not in pair.alice.plane
    assert len(pair.alice.plane) == (0 if hard else 2)


def test_an_spi_of_the_peers_choosing_expires_nobody_elses(standing: Any) -> None:
    """ATTACKS row 22: an SPI alone names no SA."""
    pair = standing
    pair.alice.endpoint.expire(SAName(pair.alice.child.inbound.spi, V), pair.now, hard=True)
    pair.deliver()
    assert len(pair.alice.plane) == 2


def test_an_offer_without_groups_takes_a_peer_that_sends_one(make_pair: Any) -> None:
    plain = (EspOffer(((EncrID.AES_GCM_16, 256),), (), (EsnID.NO_ESN,)),)
    pair = make_pair(bob={"esp_offers": plain})
    pair.initiate()
    pair.deliver()
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.deliver()
    assert pair.alice.told(ChildUp)
    assert pair.alice.sa.state is State.ESTABLISHED
    pair.agree()


def test_delete_effects_name_what_was_installed(standing: Any) -> None:
    standing.alice.sa.close("by the test")
    gone = [item.sa for item in standing.alice.endpoint.drain() if isinstance(item, DeleteSA)]
    assert sorted(name.spi for name in gone) == sorted(standing.alice.plane)
