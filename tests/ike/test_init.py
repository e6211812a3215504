"""IKE_SA_INIT: cookies, groups, what anybody can forge, and what a stranger costs (RFC 7296 s1.2, s2.5 to s2.7)."""

import struct
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.entropy import SeededEntropy
from hushwire.ike import endpoint, half_open
from hushwire.ike.half_open import SECRET_LIFE, Cookies
from hushwire.ike.proposals import ike_proposals
from hushwire.ike.report import Closed, Established
from hushwire.ike.settings import IKE_OFFERS
from hushwire.ike.state import State
from hushwire.timers import Now
from hushwire.wire.address import Endpoint
from hushwire.wire.message import Header, read_message, write_message
from hushwire.wire.payload import KeyExchange, Nonce, Notify, SecurityAssociation
from hushwire.wire.registry import ExchangeType, KeID, NotifyType

INIT = ExchangeType.IKE_SA_INIT
ATTACKER = Endpoint(ip_address("198.51.100.66"), 500)
GROUPS = tuple(dict.fromkeys(group for offer in IKE_OFFERS for group in offer.ke))


def offering(*groups: KeID) -> dict[str, Any]:
    return {"ike_offers": tuple(replace(offer, ke=groups) for offer in IKE_OFFERS)}


def hello(spi: bytes = b"stranger", nonce: bytes = bytes(32), *first: Any, group: KeID = KeID.CURVE25519) -> bytes:
    """An IKE_SA_INIT request of somebody who keeps nothing."""
    payloads = [
        *first, SecurityAssociation(ike_proposals(IKE_OFFERS)), KeyExchange(group, b"\x09" + bytes(31)), Nonce(nonce),
    ]  # fmt: skip
    return write_message(Header(spi, bytes(8), INIT, True, False, 0), payloads)


def answer(request: bytes, *payloads: Any, spi_r: bytes = bytes(8)) -> bytes:
    """What a forger who sees the request can say to its sender."""
    asked = read_message(request).header
    return write_message(Header(asked.spi_i, spi_r, INIT, False, True, 0), payloads)


def kinds(datagrams: list[bytes]) -> list[Any]:
    return [
        payload.type for data in datagrams for payload in read_message(data).payloads if isinstance(payload, Notify)
    ]


def source(number: int) -> Endpoint:
    return Endpoint(ip_address(f"203.0.113.{number % 250}"), 500 + number // 250)


# --- cookies ---


def test_under_load_a_cookie_is_asked_for_and_brought_back(make_pair: Any) -> None:
    pair = make_pair(bob={"cookie_threshold": 0})
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.state is State.ESTABLISHED
    first, asked, second = (read_message(send.data) for _, send in pair.seen[:3])
    cookie = asked.notify(NotifyType.COOKIE)
    assert cookie is not None
    assert len(cookie.data) <= 64
    # RFC 7296 s2.6: the cookie comes first, and all else is as it was, the message ID too.
    assert second.payloads == (cookie, *first.payloads)
    assert second.header == first.header


def test_nothing_is_kept_before_the_cookie_comes_back(make_pair: Any) -> None:
    pair = make_pair(bob={"cookie_threshold": 0})
    for number in range(100):
        (sent,) = pair.feed(pair.bob, hello((number + 1).to_bytes(8)), source(number))
        assert kinds([sent]) == [NotifyType.COOKIE]
        assert len(sent) <= len(hello())
    assert not pair.bob.sas
    assert not len(pair.bob.endpoint._host.half_open)


def cookie_for(pair: Any, where: Endpoint, spi: bytes = b"stranger", nonce: bytes = bytes(32)) -> Notify:
    (sent,) = pair.feed(pair.bob, hello(spi, nonce), where)
    found = read_message(sent).notify(NotifyType.COOKIE)
    assert found is not None
    return found


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize(
    ("spi", "nonce", "where", "later"),
    [
        (b"stranger", bytes(32), source(2), 0),
        (b"stranger", bytes(32), Endpoint(source(1).address, 501), 0),
        (b"another!", bytes(32), source(1), 0),
        (b"stranger", b"\1" * 32, source(1), 0),
        (b"stranger", bytes(32), source(1), 2 * SECRET_LIFE),
    ],
)
def test_a_cookie_is_good_for_one_request_from_one_place_for_a_while(
    make_pair: Any, spi: bytes, nonce: bytes, where: Endpoint, later: float, control: bool, monkeypatch: Any
) -> None:
    pair = make_pair(bob={"cookie_threshold": 0})
    cookie = cookie_for(pair, source(1))
    pair.now = Now(pair.now.monotonic + later, pair.now.wall)
    if control:
        monkeypatch.setattr(Cookies, "accepts", lambda *_: True)
    sent = pair.feed(pair.bob, hello(spi, nonce, cookie), where)
    assert len(pair.bob.sas) == control
    assert (kinds(sent) == [NotifyType.COOKIE]) is not control


@pytest.mark.parametrize("later", [0, SECRET_LIFE - 1, SECRET_LIFE + 1])
def test_a_cookie_outlives_one_change_of_the_secret(make_pair: Any, later: float) -> None:
    pair = make_pair(bob={"cookie_threshold": 0})
    cookie = cookie_for(pair, source(1))
    pair.now = Now(pair.now.monotonic + later, pair.now.wall)
    pair.feed(pair.bob, hello(b"stranger", bytes(32), cookie), source(1))
    assert len(pair.bob.sas) == 1


@pytest.mark.parametrize("octets", [b"", b"x", bytes(64), bytes(65), bytes(2000)])
def test_another_cookie_than_ours_is_answered_with_ours(make_pair: Any, octets: bytes) -> None:
    pair = make_pair(bob={"cookie_threshold": 0})
    request = hello(b"stranger", bytes(32), Notify(NotifyType.COOKIE, octets))
    assert kinds(pair.feed(pair.bob, request, ATTACKER)) == [NotifyType.COOKIE]
    assert not pair.bob.sas


def test_a_cookie_for_an_ipv4_address_is_none_for_an_ipv6_address_that_begins_alike() -> None:
    cookies, now = Cookies(SeededEntropy(b"")), Now(0.0, 0.0)
    four, nonce = Endpoint(ip_address("203.0.113.1"), 500), bytes(range(32))
    cookie = cookies.bake(b"stranger", nonce, four, now)
    six = Endpoint(ip_address(four.address.packed + nonce[:12]), 500)
    assert cookies.accepts(cookie, b"stranger", nonce, four, now)
    assert not cookies.accepts(cookie, b"stranger", nonce[12:], six, now)


def test_a_forger_cannot_have_cookies_fetched_for_ever(pair: Any) -> None:
    pair.initiate()
    for number in range(10):
        (_, request), pair.wire = pair.wire[-1], []
        pair.feed(pair.alice, answer(request.data, Notify(NotifyType.COOKIE, bytes([number]))))
        pair.wire = [(pair.alice, pair.seen[-1][1])]
    assert len(pair.seen) == 1 + 3


# --- groups ---


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_responder_names_the_group_it_takes(make_pair: Any, group: KeID) -> None:
    pair = make_pair(bob=offering(group))
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.suite.ke is pair.bob.sa.suite.ke is group
    retried = group is not GROUPS[0]
    refusals = [n for _, s in pair.seen[:3] for n in [read_message(s.data).notify(NotifyType.INVALID_KE_PAYLOAD)] if n]
    assert [refusal.data for refusal in refusals] == [group.to_bytes(2)] * retried
    pair.agree()


def test_cookie_and_group_in_one_attempt(make_pair: Any) -> None:
    pair = make_pair(bob={"cookie_threshold": 0, **offering(KeID.ECP_384)})
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.suite.ke is KeID.ECP_384
    assert pair.bob.sa.state is State.ESTABLISHED


def test_no_group_in_common_is_refused(make_pair: Any) -> None:
    pair = make_pair(alice=offering(KeID.CURVE25519), bob=offering(KeID.ECP_256))
    pair.initiate()
    pair.deliver()
    pair.wait(60)
    (closed,) = pair.alice.told(Closed)
    assert "NO_PROPOSAL_CHOSEN" in closed.reason
    assert not pair.bob.sas


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31), bytes(31), bytes(33), b""])
def test_a_public_value_that_gives_nothing_away_is_refused(pair: Any, public: bytes) -> None:
    payloads = [SecurityAssociation(ike_proposals(IKE_OFFERS)), KeyExchange(KeID.CURVE25519, public), Nonce(bytes(32))]
    sent = pair.feed(pair.bob, write_message(Header(b"stranger", bytes(8), INIT, True, False, 0), payloads), ATTACKER)
    assert kinds(sent) == [NotifyType.INVALID_SYNTAX]
    assert not pair.bob.sas


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_request_without_one_of_its_payloads_leaves_nothing(pair: Any, missing: int) -> None:
    payloads: list[Any] = [
        SecurityAssociation(ike_proposals(IKE_OFFERS)), KeyExchange(KeID.CURVE25519, b"\x09" + bytes(31)),
        Nonce(bytes(32)),
    ]  # fmt: skip
    del payloads[missing]
    pair.feed(pair.bob, write_message(Header(b"stranger", bytes(8), INIT, True, False, 0), payloads), ATTACKER)
    assert not pair.bob.sas


@pytest.mark.parametrize("twice", [0, 1, 2])
def test_a_request_with_a_payload_twice_leaves_nothing(pair: Any, twice: int) -> None:
    payloads: list[Any] = [
        SecurityAssociation(ike_proposals(IKE_OFFERS)), KeyExchange(KeID.CURVE25519, b"\x09" + bytes(31)),
        Nonce(bytes(32)),
    ]  # fmt: skip
    payloads.append(payloads[twice])
    pair.feed(pair.bob, write_message(Header(b"stranger", bytes(8), INIT, True, False, 0), payloads), ATTACKER)
    assert not pair.bob.sas


# --- what anybody on the path can say (ATTACKS row 13) ---

FORGED = {
    "NO_PROPOSAL_CHOSEN": [Notify(NotifyType.NO_PROPOSAL_CHOSEN)],
    "INVALID_MAJOR_VERSION": [Notify(NotifyType.INVALID_MAJOR_VERSION)],
    "INVALID_SYNTAX": [Notify(NotifyType.INVALID_SYNTAX)],
    "AUTHENTICATION_FAILED": [Notify(NotifyType.AUTHENTICATION_FAILED)],
    "group not offered": [Notify(NotifyType.INVALID_KE_PAYLOAD, (22).to_bytes(2))],
    "group malformed": [Notify(NotifyType.INVALID_KE_PAYLOAD, b"\0\0\x13")],
    "group already tried": [Notify(NotifyType.INVALID_KE_PAYLOAD, GROUPS[0].to_bytes(2))],
    "group": [Notify(NotifyType.INVALID_KE_PAYLOAD, KeID.ECP_256.to_bytes(2))],
    "cookie empty": [Notify(NotifyType.COOKIE, b"")],
    "cookie oversize": [Notify(NotifyType.COOKIE, bytes(65))],
    "nothing": [],
    "nonce twice": [Nonce(bytes(32)), Nonce(bytes(32))],
    "half": [KeyExchange(KeID.CURVE25519, b"\x09" + bytes(31)), Nonce(bytes(32))],
}


@pytest.mark.parametrize("times", [1, 20])
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_the_real_answer_wins_over_a_forged_one(pair: Any, forged: list[Any], times: int) -> None:
    pair.initiate()
    (_, request) = pair.wire[0]
    for _ in range(times):
        pair.feed(pair.alice, answer(request.data, *forged))
    pair.deliver()
    assert pair.alice.sa.state is State.ESTABLISHED
    assert pair.bob.sa.state is State.ESTABLISHED


def test_forged_cookies_delay_and_do_not_prevent(pair: Any) -> None:
    pair.initiate()
    (_, request) = pair.wire[0]
    pair.feed(pair.alice, answer(request.data, Notify(NotifyType.COOKIE, b"no cookie of Bob's")))
    pair.deliver()
    pair.wait(30)
    if not pair.alice.told(Established):
        pair.initiate()
        pair.deliver()
    assert any(sa.state is State.ESTABLISHED for sa in pair.alice.sas)


def test_forged_refusals_do_not_hasten_the_end(pair: Any) -> None:
    pair.filter = lambda sender, send: []
    pair.initiate()
    (_, request) = pair.seen[0]
    for _ in range(23):
        pair.feed(pair.alice, answer(request.data, Notify(NotifyType.NO_PROPOSAL_CHOSEN)))
        pair.wait(1)
        assert pair.alice.sas
    pair.wait(1)
    (closed,) = pair.alice.told(Closed)
    assert "NO_PROPOSAL_CHOSEN" in closed.reason


# --- other versions, and ourselves ---


@pytest.mark.parametrize(("version", "answered"), [(0x10, False), (0x30, True), (0x21, True), (0xF0, True)])
def test_only_a_higher_version_is_told_of_ours(pair: Any, version: int, answered: bool) -> None:
    octets = bytearray(hello())
    octets[17] = version
    sent = pair.feed(pair.bob, bytes(octets), ATTACKER)
    assert bool(sent) is answered
    if version >= 0x30:
        assert kinds(sent) == [NotifyType.INVALID_MAJOR_VERSION]
        assert not pair.bob.sas
        assert sent[0][17] == 0x20
        # And nobody answers to that.
        assert not pair.feed(pair.alice, sent[0])


def test_an_answer_of_another_version_is_not_answered(pair: Any) -> None:
    octets = bytearray(hello())
    octets[17], octets[19] = 0x30, octets[19] | 0x20
    assert not pair.feed(pair.bob, bytes(octets), ATTACKER)


@pytest.mark.parametrize("control", [False, True])
def test_our_own_request_comes_back_to_us(pair: Any, control: bool, monkeypatch: Any) -> None:
    """ATTACKS row 15: whoever sends us our own words would have us talk to ourselves."""
    if control:
        monkeypatch.setattr(endpoint, "_is_our_own", lambda *_: False)
    pair.initiate()
    (_, request), pair.wire = pair.wire[0], []
    sent = pair.feed(pair.alice, request.data)
    assert bool(sent) is control
    assert len(pair.alice.sas) == 1 + control


# --- what a stranger costs (ATTACKS rows 8 to 12) ---


def test_one_source_has_few_half_open_sas(pair: Any) -> None:
    for number in range(20):
        pair.feed(pair.bob, hello(b"guess" + number.to_bytes(3)), ATTACKER)
    assert len(pair.bob.sas) == 3
    # With cookies, as one who does receive there, a few more.
    for number in range(20):
        spi = b"again" + number.to_bytes(3)
        (sent,) = pair.feed(pair.bob, hello(spi), ATTACKER) or [b""]
        cookie = read_message(sent).notify(NotifyType.COOKIE) if sent else None
        if cookie:
            pair.feed(pair.bob, hello(spi, bytes(32), cookie), ATTACKER)
    assert len(pair.bob.sas) == pair.bob.settings.half_open_per_source == 5
    # Alice is another source, and is let in.
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.state is State.ESTABLISHED


@pytest.mark.parametrize("control", [False, True])
def test_an_ipv6_prefix_is_one_source(make_pair: Any, control: bool, monkeypatch: Any) -> None:
    if control:
        monkeypatch.setattr(half_open, "source_prefix", lambda address: address.packed)
    pair = make_pair(family=6)
    for number in range(20):
        pair.feed(
            pair.bob, hello((number + 1).to_bytes(8, "little")), Endpoint(ip_address(f"2001:db8:9::{number}"), 500)
        )
    assert len(pair.bob.sas) == (20 if control else 3)


def test_half_open_sas_are_bounded_in_total(make_pair: Any) -> None:
    pair = make_pair(bob={"cookie_threshold": 1000, "half_open_total": 10})
    for number in range(30):
        pair.feed(pair.bob, hello((number + 1).to_bytes(8)), source(number))
    assert len(pair.bob.sas) == 10
    assert "too many half-open IKE SAs" in pair.bob.reasons()


def test_half_open_sas_are_reaped(pair: Any) -> None:
    for number in range(10):
        pair.feed(pair.bob, hello((number + 1).to_bytes(8)), source(number))
    pair.wait(pair.bob.settings.half_open + 0.1)
    host = pair.bob.endpoint._host
    assert not pair.bob.sas
    assert not len(host.half_open)
    assert not host.half_open._per_source
    assert not host.waiting


def test_a_repeated_request_makes_one_sa_and_the_same_answer(pair: Any) -> None:
    one = pair.feed(pair.bob, hello(), ATTACKER)
    two = pair.feed(pair.bob, hello(), ATTACKER)
    assert one == two
    assert len(pair.bob.sas) == 1
    # Anything but the same octets is no repetition.
    assert pair.feed(pair.bob, hello(nonce=b"\1" * 32), ATTACKER) == []
    assert len(pair.bob.sas) == 1


def test_an_answer_is_not_much_longer_than_what_it_answers(make_pair: Any) -> None:
    """ATTACKS row 11: before its source is known to be real, no more than half as much again."""
    offers = ike_proposals(({**offering(KeID.CURVE25519)})["ike_offers"][:1])
    proposal = replace(offers[0], transforms=tuple(offers[0].transforms[i] for i in (0, 3, 6)))
    small = [
        SecurityAssociation((proposal,)), KeyExchange(KeID.CURVE25519, b"\x09" + bytes(31)), Nonce(bytes(16)),
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP), Notify(NotifyType.NAT_DETECTION_DESTINATION_IP),
        Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS),
    ]  # fmt: skip
    request = write_message(Header(b"stranger", bytes(8), INIT, True, False, 0), small)
    pair = make_pair()
    (sent,) = pair.feed(pair.bob, request, ATTACKER)
    assert len(sent) <= 1.5 * len(request)


def test_a_long_message_of_a_stranger_is_not_read(pair: Any) -> None:
    long = bytearray(hello() + bytes(5000))
    long[24:28] = struct.pack("!I", len(long))
    assert not pair.feed(pair.bob, bytes(long), ATTACKER)
    assert pair.bob.reasons() == ["too long for a stranger's"]
