"""NULL authentication (RFC 7619), rule by rule: with each guard in, and with the guard out."""

import hashlib
import hmac
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto import auth as crypto_auth
from hushwire.crypto.auth import signed_octets, verify_null
from hushwire.crypto.secret import Secret
from hushwire.ike import auth, proof
from hushwire.ike.proof import Authenticated
from hushwire.ike.report import Established
from hushwire.ike.state import State
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import ANONYMOUS, ANYBODY, NOBODY, Identity, PadEntry
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Selector
from hushwire.wire.message import read_message, write_message
from hushwire.wire.payload import Authentication, Certificate, IDi, IDr, Notify, TSi
from hushwire.wire.registry import AuthMethod, ExchangeType, IDType, NotifyType, PrfID

from .conftest import ALICE_KEY, BOB_KEY, Pair, Peer

IKE_AUTH, INFORMATIONAL = ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL
MIXES = {"both": (True, True), "initiator": (True, False), "responder": (False, True)}
"""Who stays anonymous."""
EITHER = pytest.mark.parametrize("guard", ["in", "out"])


def strangers(me: Peer, you: Peer, **changes: Any) -> None:
    """All that `me` knows is that somebody may be there."""
    entry = PadEntry(
        "anybody", ANYBODY, (), (), None, Assurance.ENCRYPTED, 1, Mode.TRANSPORT,
        (Selector.between(me.address, you.address),), introduced=False,
    )  # fmt: skip
    me.entries = {ANYBODY: replace(entry, **changes)}
    me.entries[you.settings.identity] = me.entries[ANYBODY]


def between(make_pair: Any, mix: str = "both", **keys: Any) -> Any:
    """Alice and Bob, of whom the one, the other or both stay anonymous; each lets the other."""
    pair = make_pair(**keys)
    alice, bob = MIXES[mix]
    strangers(pair.alice, pair.bob, null=True, own_null=alice)
    strangers(pair.bob, pair.alice, null=True, own_null=bob)
    return pair


def established(pair: Any) -> Any:
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.state is pair.bob.sa.state is State.ESTABLISHED
    return pair


def request(pair: Any) -> tuple[Any, Any]:
    """Alice's IKE_AUTH request, under her keys, on its way; and her IKE SA."""
    sa = pair.initiate(pair.alice)
    (_, init), pair.wire = pair.wire[0], []
    (answer,) = pair.feed(pair.bob, init.data)
    (data,) = pair.feed(pair.alice, answer)
    return sa, pair.open(sa, data)


def answer(pair: Any, sa: Any, payloads: Any) -> Any:
    """What Bob says to an IKE_AUTH request of such payloads."""
    sent = pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, payloads, message_id=1), sa.local, sa.remote)
    (ours,) = [data for data in sent if read_message(data).header.response]
    return pair.open(sa, ours)


def error(message: Any) -> Any:
    return next((p.type for p in message.payloads if isinstance(p, Notify) and p.type.is_error), None)


def signed_by(pair: Any, sa: Any, identity: Any, key: Any = None) -> Authentication:
    """An AUTH of method NULL as Alice would make it for an identity, with SK_pi or another key."""
    agreed, sk_pi = pair.bob.sa.agreed or pair.bob.sas[-1].agreed, key or sa.keys.pi
    octets = signed_octets(agreed.request, agreed.nr, sa.suite.prf, sa.keys.pi, identity.write())
    return Authentication(AuthMethod.NULL, crypto_auth.shared_key_auth(sa.suite.prf, sk_pi, octets))


def with_one(payloads: Any, *others: Any) -> Any:
    """Payloads, with these in place of those of their kinds."""
    kinds = tuple(type(other) for other in others)
    return [*others, *(payload for payload in payloads if not isinstance(payload, kinds))]


# --- s2: Using the NULL Authentication Method ---


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mix", MIXES)
def test_s2_each_side_chooses_for_itself(make_pair: Any, mix: str, family: int) -> None:
    pair = established(between(make_pair, mix, family=family))
    alice, bob = MIXES[mix]
    for me, anonymous, key in ((pair.bob, alice, ALICE_KEY), (pair.alice, bob, BOB_KEY)):
        proved = me.sa.authenticated
        assert proved.anonymous is anonymous
        assert proved.verified.public == (None if anonymous else key.public)
        assert proved.assurance is Assurance.ENCRYPTED
    pair.agree()


@EITHER
@pytest.mark.parametrize("strict", ["alice", "bob"])
def test_s2_where_policy_wants_an_identity_it_is_authentication_failed(
    make_pair: Any, strict: str, guard: str, monkeypatch: Any
) -> None:
    pair = between(make_pair)
    me, you = (pair.alice, pair.bob) if strict == "alice" else (pair.bob, pair.alice)
    strangers(me, you, own_null=True)
    if guard == "out":
        monkeypatch.setattr(
            auth, "_taken", lambda sa, entry, _: entry.nobodys(sa.local.address, sa.remote.address, sa.spi_i)
        )
    pair.initiate()
    pair.deliver()
    assert bool(me.told(Established)) is (guard == "out")
    if guard == "in":
        assert any("AUTHENTICATION_FAILED" in report.reason for report in pair.alice.reports)
        assert not pair.alice.plane
        assert not pair.bob.plane
        assert not pair.alice.sas
        assert not pair.bob.sas


@pytest.mark.parametrize("strict", ["alice", "bob"])
def test_s2_who_is_known_by_name_may_not_leave_himself_unauthenticated(make_pair: Any, strict: str) -> None:
    pair = between(make_pair)
    me, you = (pair.alice, pair.bob) if strict == "alice" else (pair.bob, pair.alice)
    me.knows(you, own_null=True)
    me.entries[ANONYMOUS] = me.entries.pop(ANYBODY) if me is pair.alice else me.entries[you.settings.identity]
    pair.initiate()
    pair.deliver()
    assert not me.told(Established)
    assert not me.plane


# --- s2.1: Authentication Payload ---


def test_s2_1_auth_is_that_of_a_shared_key_with_sk_p(make_pair: Any) -> None:
    """Method 13; prf(prf(SK_p, "Key Pad for IKEv2"), signed octets), computed by other means."""
    pair = between(make_pair)
    sa, message = request(pair)
    response = answer(pair, sa, message.payloads)
    assert sa.suite.prf is PrfID.HMAC_SHA2_256
    agreed_i, agreed_r, ni = pair.seen[0][1].data, pair.seen[1][1].data, None
    nonces = [payload.data for data in (agreed_i, agreed_r) for payload in read_message(data).payloads
              if type(payload).__name__ == "Nonce"]  # fmt: skip
    ni, nr = nonces

    def prf(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, hashlib.sha256).digest()

    for payloads, kind, first, nonce, key in (
        (message, IDi, agreed_i, nr, sa.keys.pi.expose()),
        (response, IDr, agreed_r, ni, sa.keys.pr.expose()),
    ):
        identity, sent = payloads.one(kind), payloads.one(Authentication)
        assert identity.write() == bytes([13, 0, 0, 0])
        assert sent.method == 13
        assert sent.data == prf(prf(key, b"Key Pad for IKEv2"), first + nonce + prf(key, identity.write()))


@EITHER
@pytest.mark.parametrize("key", ["the other's", "another", "none"])
def test_s2_1_each_direction_has_its_own_key(make_pair: Any, key: str, guard: str, monkeypatch: Any) -> None:
    pair = between(make_pair)
    sa, message = request(pair)
    keys = {"the other's": sa.keys.pr, "another": sa.keys.d}
    forged = signed_by(pair, sa, message.one(IDi), keys.get(key)) if key in keys else Authentication(13, b"")
    if guard == "out":
        seal = crypto_auth._SEAL
        monkeypatch.setattr(proof, "verify_null", lambda *_: crypto_auth.Verified(None, "NULL", seal))
    response = answer(pair, sa, with_one(message.payloads, forged))
    assert error(response) is (NotifyType.AUTHENTICATION_FAILED if guard == "in" else None)
    assert bool(pair.bob.told(Established)) is (guard == "out")


@EITHER
def test_s2_1_auth_binds_ike_sa_init(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    """Who changes IKE_SA_INIT on the way, and nothing that the keys are of, is found out in IKE_AUTH."""
    pair = between(make_pair)
    if guard == "out":
        seal = crypto_auth._SEAL
        monkeypatch.setattr(proof, "verify_null", lambda *_: crypto_auth.Verified(None, "NULL", seal))

    def meddle(sender: Any, send: Any) -> Any:
        message = read_message(send.data)
        if message.header.exchange != ExchangeType.IKE_SA_INIT or message.header.response:
            return [send]
        payloads = [*message.payloads, Notify(NotifyType(40_000), b"put in on the way")]
        return [replace(send, data=write_message(message.header, payloads))]

    pair.filter = meddle
    pair.initiate()
    pair.deliver()
    assert bool(pair.bob.told(Established)) is (guard == "out")


# --- s2.2: Identification Payload ---


@pytest.mark.parametrize("mix", MIXES)
def test_s2_2_who_is_anonymous_says_id_null_and_nothing_of_himself(make_pair: Any, mix: str) -> None:
    pair = between(make_pair, mix)
    sa, message = request(pair)
    response = answer(pair, sa, message.payloads)
    for anonymous, said, kind, peer in zip(
        MIXES[mix], (message, response), (IDi, IDr), (pair.alice, pair.bob), strict=True
    ):
        identity = said.one(kind)
        assert (identity.type is IDType.NULL) is anonymous
        assert (identity.data == b"") is anonymous
        assert (said.one(Certificate) is None) is anonymous
        plain = b"".join(payload.write() for payload in said.payloads if isinstance(payload, IDi | IDr | Certificate))
        assert (peer.key.public.spki in plain or b"example" in plain) is not anonymous


@EITHER
def test_s2_2_id_null_is_empty(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    pair = between(make_pair)
    sa, message = request(pair)
    identity = IDi(IDType.NULL, b"not empty")
    if guard == "out":
        monkeypatch.setattr(auth, "_claimed", lambda *_: ANONYMOUS)
    response = answer(pair, sa, with_one(message.payloads, identity, signed_by(pair, sa, identity)))
    assert error(response) is (NotifyType.INVALID_SYNTAX if guard == "in" else None)
    assert bool(pair.bob.told(Established)) is (guard == "out")


@EITHER
def test_s2_2_what_is_said_with_null_is_no_matter_of_policy(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    """Alice says that she is Carol, of whom Bob knows more: she is nobody all the same."""
    pair = between(make_pair)
    carol = Identity.fqdn("carol.example")
    pair.bob.entries[carol] = replace(pair.bob.entries[ANYBODY], reqid=7, identity=carol)
    if guard == "out":
        monkeypatch.setattr(auth, "_claimed", lambda payload, _: Identity.received(payload.type, payload.data))
    sa, message = request(pair)
    identity = IDi(carol.type, carol.data)
    response = answer(pair, sa, with_one(message.payloads, identity, signed_by(pair, sa, identity)))
    assert error(response) is None
    assert pair.bob.sa.peer.reqid == (1 if guard == "in" else 7)
    assert pair.bob.sa.peer.identity.type == NOBODY
    assert str(pair.bob.sa.peer.identity) == "anonymous"


# --- s2.3: INITIAL_CONTACT Notification ---


def beside(pair: Any, name: str, address: str, **changes: Any) -> Any:
    """Somebody else, and the same Bob."""
    other = Pair(Peer(name, address, ALICE_KEY), pair.bob, pair.now)
    strangers(other.alice, pair.bob, null=True, **{"own_null": True, **changes})
    return other


@EITHER
def test_s2_3_initial_contact_deletes_nothing(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    if guard == "out":
        monkeypatch.setattr(Identity, "nobody", lambda mark: Identity(NOBODY, b""))
    pair = established(between(make_pair))
    first = pair.bob.sa
    pair.now = replace(pair.now, monotonic=60.0)
    eve = beside(pair, "eve", "192.0.2.66")
    sa, message = request(eve)
    response = answer(eve, sa, [*message.payloads, Notify(NotifyType.INITIAL_CONTACT)])
    assert response.one(Authentication) is not None
    assert (first.state is State.ESTABLISHED) is (guard == "in")


def test_s2_3_nor_do_we_say_it(make_pair: Any) -> None:
    """Not even to who is known by name; who signs does."""
    for own_null in (False, True):
        pair = make_pair()
        pair.alice.knows(pair.bob, own_null=own_null)
        _, message = request(pair)
        assert (message.notify(NotifyType.INITIAL_CONTACT) is None) is own_null


def test_s2_3_a_new_one_has_the_old_one_asked_whether_it_lives(make_pair: Any) -> None:
    pair = established(between(make_pair))
    first = pair.bob.sa
    pair.now = replace(pair.now, monotonic=10.0)
    forgetful = beside(pair, "alice2", str(pair.alice.address))
    sa, message = request(forgetful)
    sent = forgetful.feed(pair.bob, forgetful.seal(sa, IKE_AUTH, message.payloads, message_id=1))
    kinds = {(read_message(data).header.exchange, read_message(data).header.response) for data in sent}
    assert kinds == {(INFORMATIONAL, False), (IKE_AUTH, True)}
    # Nobody answers for the first any more: it goes, and the next attempt is welcome.
    forgetful.alice.endpoint._host.sas.clear()
    forgetful.wait(25)
    assert first.state is State.CLOSED
    established(forgetful)


def test_s2_3_nobody_has_us_ask_more_than_once_a_second(make_pair: Any) -> None:
    pair = established(between(make_pair))
    pair.now = replace(pair.now, monotonic=10.0)
    asked = 0
    for number in range(4):
        eve = beside(pair, f"eve{number}", str(pair.alice.address))
        sa, message = request(eve)
        sent = eve.feed(pair.bob, eve.seal(sa, IKE_AUTH, message.payloads, message_id=1))
        asked += sum(read_message(data).header.exchange == INFORMATIONAL for data in sent)
    assert asked == 1


# --- s2.5: Traffic Selectors ---


@EITHER
def test_s2_5_nobody_speaks_for_an_address_but_his_own(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    """The RFC's example: the traffic with a DNS server, of which the rule speaks as well."""
    pair = between(make_pair)
    server = ip_address("192.0.2.53")
    entry = pair.bob.entries[ANYBODY]
    wide = (*entry.selectors, Selector.between(pair.bob.address, server))
    strangers(pair.bob, pair.alice, null=True, own_null=True, selectors=wide)
    if guard == "out":
        monkeypatch.setattr(
            PadEntry, "nobodys", lambda self, here, where, mark: replace(self, identity=Identity.nobody(mark))
        )
    sa, message = request(pair)
    theirs = TSi((replace(message.one(TSi).selectors[0], first_address=server, last_address=server),))
    response = answer(pair, sa, with_one(message.payloads, theirs))
    assert error(response) is (NotifyType.TS_UNACCEPTABLE if guard == "in" else None)
    assert any(server in sa.selector.remote for sa in pair.bob.plane.values()) is (guard == "out")


@pytest.mark.parametrize("first", ["anonymous", "signed"])
@EITHER
def test_s2_5_s3_3_the_second_at_an_address_takes_nothing_over(
    make_pair: Any, first: str, guard: str, monkeypatch: Any
) -> None:
    pair = established(between(make_pair, "both" if first == "anonymous" else "responder"))
    if guard == "out":
        monkeypatch.setattr(auth, "_keep_apart", lambda *_: None)
    pair.now = replace(pair.now, monotonic=10.0)
    before = dict(pair.bob.plane)
    eve = beside(pair, "eve", str(pair.alice.address))
    eve.initiate()
    eve.deliver()
    assert (pair.bob.plane == before) is (guard == "in")
    assert bool(eve.alice.told(Established)) is (guard == "out")
    # The first is where he was.
    assert pair.bob.endpoint._host.sas[pair.bob.told(Established)[0].sa.spi].state is State.ESTABLISHED


def test_s2_5_two_at_two_addresses_are_two(make_pair: Any) -> None:
    pair = established(between(make_pair))
    eve = beside(pair, "eve", "192.0.2.66")
    strangers(pair.bob, eve.alice, null=True, own_null=True)
    eve.initiate()
    eve.deliver()
    one, two = pair.bob.sas
    assert one.peer.identity != two.peer.identity
    assert str(one.peer.identity) == str(two.peer.identity) == "anonymous"
    assert len(pair.bob.plane) == 4


def test_s2_5_he_speaks_to_the_address_of_ours_that_he_speaks_to(make_pair: Any) -> None:
    """Else the second, at another address of ours, could ask for the first's traffic with this one."""
    pair = between(make_pair)
    second = ip_address("192.0.2.22")
    entry = pair.bob.entries[ANYBODY]
    both = (*entry.selectors, Selector.between(second, pair.alice.address))
    taken = replace(entry, selectors=both).nobodys(second, pair.alice.address, b"mark")
    assert taken.selectors == both[1:]


# --- s3: Security Considerations ---


@pytest.mark.parametrize("level", Assurance)
def test_s3_it_is_never_worth_more_than_encryption(make_pair: Any, level: Assurance) -> None:
    """Whatever the entry says, and by whichever way it came to be authenticated."""
    pair = between(make_pair)
    entry = replace(pair.bob.entries[ANYBODY], assurance=level)
    key = Secret(b"SK_pi of nobody in particular...")
    data = crypto_auth.shared_key_auth(PrfID.HMAC_SHA2_256, key, b"octets")
    verified = verify_null(PrfID.HMAC_SHA2_256, key, data, b"octets")
    assert Authenticated(entry, verified).assurance <= Assurance.ENCRYPTED
    taken = entry.nobodys(pair.bob.address, pair.alice.address, b"mark")
    assert taken.assurance <= Assurance.ENCRYPTED
    assert (taken.keys, taken.fingerprints, taken.psk, taken.mode) == ((), (), None, Mode.TRANSPORT)


# --- and all that IKE SAs do otherwise ---


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_rekeying(make_pair: Any, mix: str, who: str) -> None:
    """The heir is with the same nobody, who counts once."""
    pair = established(between(make_pair, mix))
    before = pair.alice.sa.authenticated, pair.bob.sa.authenticated
    for ike in (False, True):
        getattr(pair, who).endpoint.rekey(getattr(pair, who).sa, pair.now, ike=ike)
        pair.deliver()
        pair.wait(2)
    assert (pair.alice.sa.authenticated, pair.bob.sa.authenticated) == before
    assert [len(index) for index in (pair.bob.endpoint._host.peers, pair.bob.endpoint._host.by_reqid)] == [1, 1]
    pair.agree()
    pair.alice.endpoint.delete(pair.alice.sa, pair.now)
    pair.deliver()
    assert not pair.bob.endpoint._host.peers
    assert not pair.bob.endpoint._host.by_reqid


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mix", MIXES)
def test_both_begin_at_once(make_pair: Any, mix: str, seed: int, first: str) -> None:
    """One IKE SA stays, whatever the SPIs and whoever was first."""
    pair = between(make_pair, mix)
    for me in (pair.alice, pair.bob):
        me.endpoint._host.entropy._seed += bytes([seed])
    pair.initiate(getattr(pair, first))
    pair.initiate(pair.bob if first == "alice" else pair.alice)
    pair.deliver()
    pair.wait(60)
    assert len(pair.alice.sas) == len(pair.bob.sas) == 1
    assert len(pair.alice.plane) == 2
    pair.agree()


def test_a_new_key_of_ours_ends_it_where_nobody_can_be_the_same(make_pair: Any) -> None:
    """Alice signs and Bob does not: no new IKE SA could be shown to be in the place of the old one."""
    pair = established(between(make_pair, "responder"))
    pair.alice.key = BOB_KEY
    pair.alice.endpoint.switch_key(BOB_KEY.public, pair.now)
    pair.wait(2)
    assert not pair.alice.sas
    assert not pair.bob.sas
    established(pair)
    assert pair.bob.sa.authenticated.verified.public == BOB_KEY.public
