"""IKE_AUTH: who is let in, by what, and above all who is not (RFC 7296 s1.2, s2.15, s2.21.2; ATTACKS rows 15 to 27)."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto import auth as crypto_auth
from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.keys import KeyKind, PrivateKey, cert_from_public_key
from hushwire.crypto.secret import Secret
from hushwire.events import Signed
from hushwire.ike import auth, init, proof
from hushwire.ike.errors import Unauthorized
from hushwire.ike.init import Agreed
from hushwire.ike.negotiation import Wanted
from hushwire.ike.proof import MOST_KEYS, Authenticated
from hushwire.ike.report import AuthorizationWanted, ChildFailed, ChildUp, Closed, Established
from hushwire.ike.state import State
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.wire.address import Endpoint
from hushwire.wire.message import read_message, write_message
from hushwire.wire.payload import (
    Authentication,
    Certificate,
    IDi,
    IDr,
    Nonce,
    Notify,
    SecurityAssociation,
    TSi,
    TSr,
    Unknown,
)  # fmt: skip
from hushwire.wire.registry import AuthMethod, CertEncoding, ExchangeType, IDType, NotifyType, PayloadType, PrfID

IKE_AUTH, INFORMATIONAL = ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL
KEYS = {kind: PrivateKey.generate(kind) for kind in KeyKind}
MALLORY = PrivateKey.from_seed(Secret(b"m" * 32))


def errors(payloads: Any) -> list[Any]:
    return [payload.type for payload in payloads if isinstance(payload, Notify) and payload.type.is_error]


def rejected(pair: Any) -> bool:
    """Nobody is established, and nothing stands anywhere."""
    nobody = not pair.alice.told(Established) and not pair.bob.told(Established)
    return nobody and not pair.alice.plane and not pair.bob.plane and not pair.alice.sas and not pair.bob.sas


def half_open(pair: Any) -> tuple[Any, Any]:
    """Alice's IKE_AUTH request, under her keys, on its way; and her IKE SA."""
    sa = pair.initiate()
    (_, request), pair.wire = pair.wire[0], []
    (answer,) = pair.feed(pair.bob, request.data)
    (data,) = pair.feed(pair.alice, answer)
    return sa, pair.open(sa, data)


def tampered(pair: Any, change: Any) -> Any:
    """Bob's answer to Alice's IKE_AUTH request with payloads changed by a function."""
    sa, message = half_open(pair)
    return pair.open(sa, pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, change(message.payloads), message_id=1))[0])


def answered(pair: Any, change: Any) -> Any:
    """Alice, when Bob's IKE_AUTH answer, truly under his keys, is changed by a function."""
    sa, message = half_open(pair)
    (data,) = pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, message.payloads, message_id=1))
    payloads = change(pair.open(sa, data).payloads)
    sent = pair.feed(pair.alice, pair.seal(pair.bob.sa, IKE_AUTH, payloads, response=True, message_id=1))
    return sa, sent


def without(kind: type) -> Any:
    return lambda payloads: [payload for payload in payloads if not isinstance(payload, kind)]


def swap(kind: type, other: Any) -> Any:
    return lambda payloads: [other if isinstance(payload, kind) else payload for payload in payloads]


RSA_CERT = cert_from_public_key(KEYS[KeyKind.RSA].public, CertEncoding.RAW_RSA_KEY)

# --- by every key ---


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", KeyKind)
def test_every_kind_of_key(make_pair: Any, kind: KeyKind, old: bool, monkeypatch: Any) -> None:
    """RFC 7427; and without SIGNATURE_HASH_ALGORITHMS the methods of RFC 4754 and RFC 7296."""
    if old:
        monkeypatch.setattr(init, "_hashes", lambda message: None)
    pair = make_pair(alice_key=KEYS[kind])
    pair.initiate()
    pair.deliver()
    if old:
        # RFC 8420 has no other method for EdDSA, and Bob's key is of that kind.
        pair.wait(pair.bob.settings.half_open + 1)
        assert rejected(pair)
        return
    assert pair.bob.sa.authenticated.verified.public == KEYS[kind].public
    assert pair.alice.sa.state is State.ESTABLISHED
    pair.agree()


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        (KeyKind.ECDSA_P256, "ECDSA_256"), (KeyKind.ECDSA_P384, "ECDSA_384"), (KeyKind.ECDSA_P521, "ECDSA_521"),
        (KeyKind.RSA, "RSA_SIGNATURE"),
    ],
)  # fmt: skip
def test_peers_without_rfc_7427(make_pair: Any, kind: KeyKind, scheme: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(init, "_hashes", lambda message: None)
    pair = make_pair(alice_key=KEYS[kind], bob_key=KEYS[kind])
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.authenticated.verified.scheme == pair.bob.sa.authenticated.verified.scheme == scheme
    pair.agree()


def test_method_14_only_with_a_hash_the_peer_names(make_pair: Any, monkeypatch: Any) -> None:
    read = init._hashes
    monkeypatch.setattr(init, "_hashes", lambda message: frozenset(h for h in read(message) if h.name == "SHA2_512"))
    pair = make_pair(alice_key=KEYS[KeyKind.ECDSA_P256], bob_key=KEYS[KeyKind.RSA])
    pair.initiate()
    pair.deliver()
    assert pair.bob.sa.authenticated.verified.scheme == "ECDSA_SHA2_512"
    assert pair.alice.sa.authenticated.verified.scheme.endswith("SHA2_512")


def with_psk(make_pair: Any) -> Any:
    pair = make_pair()
    for me, you in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        me.knows(you, psk=b"tests", keys=(), assurance=Assurance.TRUSTED)
    return pair


def test_a_shared_key(make_pair: Any) -> None:
    pair = with_psk(make_pair)
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.authenticated.verified.public is None
    assert pair.alice.sa.authenticated.assurance is Assurance.TRUSTED
    assert not pair.open(pair.alice.sa, pair.seen[2][1].data).one(Certificate)
    pair.agree()


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("psk", [False, True])
def test_both_begin_at_once(make_pair: Any, psk: bool, seed: int, first: str) -> None:
    """One IKE SA stays, whatever the SPIs and whoever was first."""
    pair = with_psk(make_pair) if psk else make_pair()
    for me in (pair.alice, pair.bob):
        me.endpoint._host.entropy._seed += bytes([seed])
    pair.initiate(getattr(pair, first))
    pair.initiate(pair.bob if first == "alice" else pair.alice)
    pair.deliver()
    pair.wait(60)
    assert len(pair.alice.sas) == len(pair.bob.sas) == 1
    assert len(pair.alice.plane) == 2
    pair.agree()


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_another_shared_key(make_pair: Any, who: str, monkeypatch: Any) -> None:
    pair = with_psk(make_pair)
    perform = pair.perform

    def lie(me: Any, item: Any) -> None:
        if me.name == who and type(item).__name__ == "Sign":
            wrong = shared_key_auth(
                PrfID[item.scheme.partition("/")[2]], Secret(b"another key of 22 oct."), item.octets
            )
            me.endpoint.signed(Signed(item.request, wrong), pair.now)
        else:
            perform(me, item)

    pair.perform = lie
    pair.initiate()
    pair.deliver()
    assert rejected(pair)


# --- what does not let anybody in; each with the guard in, and with the guard out ---


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("liar", ["alice", "bob"])
def test_another_key(make_pair: Any, liar: str, guard: str, monkeypatch: Any) -> None:
    """P2: whoever does not hold the key is not let in; with verification out, he is."""
    pair = make_pair()
    getattr(pair, liar).key = MALLORY
    if guard == "out":

        def believe(public: Any, method: Any, data: Any, octets: Any, hashes: Any) -> Any:
            return crypto_auth.Verified(public, "ED25519", crypto_auth._SEAL)

        monkeypatch.setattr(proof, "verify", believe)
    pair.initiate()
    pair.deliver()
    if guard == "out":
        assert pair.alice.told(Established)
        assert pair.bob.told(Established)
        return
    assert not pair.alice.told(Established)
    # A responder that lies is found out by Alice alone, who tells him, as his fault is not his to see.
    assert not pair.alice.plane
    assert not pair.bob.plane
    assert not pair.alice.sas
    assert not pair.bob.sas


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_identity_of_somebody_else(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    """Mallory has a key that is known, for her own name: she says that she is Alice."""
    pair = make_pair(alice_key=MALLORY)
    alice = pair.alice.settings.identity
    real = PrivateKey.from_seed(Secret(b"a" * 32))
    mallory = replace(pair.bob.entries[alice], identity=Identity.fqdn("mallory.example"), name="mallory.example")
    pair.bob.entries = {mallory.identity: mallory, alice: replace(mallory, identity=alice, keys=(real.public,))}
    if guard == "out":
        pair.bob.entries[alice] = mallory
    pair.initiate()
    pair.deliver()
    assert bool(pair.bob.told(Established)) is (guard == "out")
    if guard == "in":
        assert rejected(pair)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_responder_with_another_identity(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    pair = make_pair(bob={})
    pair.alice.knows(pair.bob, identity=Identity.fqdn("carol.example"))
    entry = pair.alice.entries[pair.bob.settings.identity]
    if guard == "out":
        real = Identity.received
        monkeypatch.setattr(
            Identity, "received", lambda kind, data: entry.identity if b"bob" in data else real(kind, data)
        )
    pair.alice.endpoint.initiate(
        entry, pair.alice.address, pair.bob.address, Wanted(entry.selectors, entry.mode), pair.now
    )
    pair.deliver()
    assert bool(pair.alice.told(Established)) is (guard == "out")
    assert bool(pair.alice.plane) is (guard == "out")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_right_key_at_another_address(make_pair: Any, guard: str, monkeypatch: Any) -> None:
    """P2 and law 2: key, name and address belong together."""
    pair = make_pair()
    pair.bob.knows(pair.alice, addresses=(ip_address("192.0.2.77"),))
    if guard == "out":
        monkeypatch.setattr("hushwire.policy.pad.PadEntry.speaks_from", lambda *_: True)
    pair.initiate()
    pair.deliver()
    assert bool(pair.bob.told(Established)) is (guard == "out")
    if guard == "in":
        assert rejected(pair)


def test_a_name_that_nobody_knows(make_pair: Any) -> None:
    pair = make_pair()
    pair.bob.entries.clear()
    pair.initiate()
    pair.deliver()
    assert rejected(pair)
    assert "AUTHENTICATION_FAILED" in pair.alice.told(Closed)[0].reason


@pytest.mark.parametrize("kind", [kind for kind in KeyKind if kind is not KeyKind.ED25519])
def test_a_key_of_another_type(make_pair: Any, kind: KeyKind) -> None:
    """ATTACKS row 19: what cannot even be compared is a failure, not an error that lets in."""
    pair = make_pair()
    pair.bob.knows(pair.alice, keys=(KEYS[kind].public,))
    pair.initiate()
    pair.deliver()
    assert rejected(pair)


@pytest.mark.parametrize("sent", ["none", "another", "another kind", "garbage", "x.509"])
def test_the_key_in_cert_is_no_evidence(pair: Any, sent: str) -> None:
    certificates = {
        "none": (),
        "another": (Certificate(CertEncoding.RAW_PUBLIC_KEY, MALLORY.public.spki),),
        "another kind": (Certificate(CertEncoding.RAW_RSA_KEY, RSA_CERT),),
        "garbage": (Certificate(CertEncoding.RAW_PUBLIC_KEY, b"garbage"),),
        "x.509": (Certificate(CertEncoding(4), b"not looked at"),),
    }  # fmt: skip
    answer = tampered(pair, lambda payloads: [*without(Certificate)(payloads), *certificates[sent]])
    assert (errors(answer.payloads) == []) is (sent in ("none", "x.509"))
    assert bool(pair.bob.told(Established)) is (sent in ("none", "x.509"))


def test_signed_with_the_key_one_sends_and_not_the_one_known(pair: Any) -> None:
    """The classic: bring your own key, and a signature that fits it."""
    sa, message = half_open(pair)
    identity = message.one(IDi)
    octets = crypto_auth.signed_octets(
        pair.bob.sa.agreed.request, pair.bob.sa.agreed.nr, sa.suite.prf, sa.keys.pi, identity.write()
    )
    forged = Authentication(*crypto_auth.auth_payload(Scheme.ED25519, sign(MALLORY, Scheme.ED25519, octets)))
    payloads = swap(Authentication, forged)(message.payloads)
    payloads = swap(Certificate, Certificate(CertEncoding.RAW_PUBLIC_KEY, MALLORY.public.spki))(payloads)
    (data,) = pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, payloads, message_id=1))
    assert errors(pair.open(sa, data).payloads) == [NotifyType.AUTHENTICATION_FAILED]
    assert not pair.bob.told(Established)


BAD_AUTH = {
    "empty": Authentication(AuthMethod.DIGITAL_SIGNATURE, b""),
    "no identifier": Authentication(AuthMethod.DIGITAL_SIGNATURE, b"\0" + bytes(64)),
    "long identifier": Authentication(AuthMethod.DIGITAL_SIGNATURE, b"\xff" + bytes(64)),
    "null": Authentication(AuthMethod(13), bytes(32)),
    "null as psk": Authentication(AuthMethod.SHARED_KEY, bytes(32)),
    "psk empty": Authentication(AuthMethod.SHARED_KEY, b""),
    "dss": Authentication(AuthMethod(3), bytes(40)),
    "ecdsa": Authentication(AuthMethod.ECDSA_256, bytes(64)),
    "rsa": Authentication(AuthMethod.RSA_SIGNATURE, bytes(256)),
    "unknown": Authentication(AuthMethod(201), b"x"),
    "zero": Authentication(AuthMethod(0), b""),
}


@pytest.mark.parametrize("bad", BAD_AUTH.values(), ids=BAD_AUTH)
@pytest.mark.parametrize("side", ["initiator", "responder"])
@pytest.mark.parametrize("psk", [False, True])
def test_no_other_auth_will_do(make_pair: Any, bad: Authentication, side: str, psk: bool) -> None:
    pair = with_psk(make_pair) if psk else make_pair()
    if side == "initiator":
        answer = tampered(pair, swap(Authentication, bad))
        assert errors(answer.payloads) == [NotifyType.AUTHENTICATION_FAILED]
        assert not pair.bob.told(Established)
        assert not pair.bob.plane
        assert not pair.bob.sas
    else:
        _, sent = answered(pair, swap(Authentication, bad))
        (told,) = [pair.open(pair.alice.sa, data) for data in sent]
        assert errors(told.payloads) == [NotifyType.AUTHENTICATION_FAILED]
        assert not pair.alice.told(Established)
        assert not pair.alice.plane


@pytest.mark.parametrize("kind", [Authentication, IDi])
def test_a_request_without_auth_or_identity(pair: Any, kind: type) -> None:
    """No AUTH is how EAP begins: that way is not there."""
    assert errors(tampered(pair, without(kind)).payloads) == [NotifyType.AUTHENTICATION_FAILED]
    assert not pair.bob.sas


@pytest.mark.parametrize("kind", [Authentication, IDr])
def test_an_answer_without_auth_or_identity(pair: Any, kind: type) -> None:
    sa, sent = answered(pair, without(kind))
    assert errors(pair.open(sa, sent[0]).payloads) == [NotifyType.AUTHENTICATION_FAILED]
    assert not pair.alice.told(Established)


@pytest.mark.parametrize("kind", [Authentication, IDi, SecurityAssociation, TSi, TSr])
def test_a_payload_twice(pair: Any, kind: type) -> None:
    def twice(payloads: Any) -> Any:
        return [*payloads, *(payload for payload in payloads if isinstance(payload, kind))]

    answer = tampered(pair, twice)
    assert errors(answer.payloads) == [NotifyType.INVALID_SYNTAX]
    assert not pair.bob.sas
    assert not pair.bob.plane


def test_auth_of_the_other_direction_comes_back(pair: Any, make_pair: Any) -> None:
    """ATTACKS row 20: a responder with nothing of its own sends the initiator's AUTH back."""
    pair = make_pair(bob_key=PrivateKey.from_seed(Secret(b"a" * 32)))
    pair.alice.knows(pair.bob)
    sa, message = half_open(pair)
    (data,) = pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, message.payloads, message_id=1))
    payloads = swap(Authentication, message.one(Authentication))(pair.open(sa, data).payloads)
    pair.feed(pair.alice, pair.seal(pair.bob.sa, IKE_AUTH, payloads, response=True, message_id=1))
    assert not pair.alice.told(Established)


def test_auth_of_another_run_is_worth_nothing(make_pair: Any) -> None:
    """ATTACKS row 23: AUTH is over this run's messages and nonces."""
    pair, other = make_pair(), make_pair()
    other.alice.endpoint._host.entropy._seed += b"another"
    _, earlier = half_open(other)
    answer = tampered(pair, swap(Authentication, earlier.one(Authentication)))
    assert errors(answer.payloads) == [NotifyType.AUTHENTICATION_FAILED]


@pytest.mark.parametrize("what", ["cookie", "algorithms", "nat", "group"])
def test_whoever_changes_ike_sa_init_is_found_out(make_pair: Any, what: str) -> None:
    """ATTACKS row 16, as far as each end's own message goes: the one signs what the other did not see."""
    pair = make_pair()

    def rewrite(sender: Any, send: Any) -> list[Any]:
        message = read_message(send.data)
        if sender is not pair.alice or message.header.exchange != ExchangeType.IKE_SA_INIT:
            return [send]
        payloads = list(message.payloads)
        if what == "cookie":
            payloads.insert(0, Notify(NotifyType.COOKIE, b"x"))
        elif what == "nat":
            payloads = [p for p in payloads if getattr(p, "type", 0) != NotifyType.NAT_DETECTION_SOURCE_IP]
        else:
            offer = message.one(SecurityAssociation)
            assert offer is not None
            kept = replace(offer.proposals[0], transforms=offer.proposals[0].transforms[1:])
            payloads[0] = SecurityAssociation((kept,) if what == "algorithms" else offer.proposals[:1])
        return [replace(send, data=write_message(message.header, payloads))]

    pair.filter = rewrite
    pair.initiate()
    pair.deliver()
    assert rejected(pair)


# --- identities (ATTACKS row 27) ---


@pytest.mark.parametrize(
    ("kind", "data", "good"),
    [
        (IDType.FQDN, b"alice.example", True),
        (IDType.FQDN, b"ALICE.Example", True),
        (IDType.FQDN, b"alice.example.", False),
        (IDType.FQDN, b"alice.example\0", False),
        (IDType.FQDN, b"alice.example\0.evil", False),
        (IDType.FQDN, b"alice.exampl", False),
        (IDType.FQDN, b" alice.example", False),
        (IDType.FQDN, "alice\uff0eexample".encode(), False),
        (IDType.FQDN, b"", False),
        (IDType.RFC822_ADDR, b"alice.example", False),
        (IDType.KEY_ID, b"alice.example", False),
        (IDType.IPV4_ADDR, b"alice.example", False),
        (IDType.IPV4_ADDR, b"\xc0\0\2\1", False),
        (IDType(13), b"", False),
        (IDType(99), b"alice.example", False),
        (IDType.FQDN, b"a" * 1024, False),
        (IDType.FQDN, b"\x1b[2J\n\xff", False),
    ],
)
def test_an_identity_is_the_octets(pair: Any, kind: IDType, data: bytes, good: bool) -> None:
    sa, message = half_open(pair)
    identity = IDi(kind, data)
    agreed = pair.bob.sa.agreed
    octets = crypto_auth.signed_octets(agreed.request, agreed.nr, sa.suite.prf, sa.keys.pi, identity.write())
    proved = Authentication(*crypto_auth.auth_payload(Scheme.ED25519, sign(pair.alice.key, Scheme.ED25519, octets)))
    payloads = swap(IDi, identity)(swap(Authentication, proved)(message.payloads))
    (sent,) = pair.feed(pair.bob, pair.seal(sa, IKE_AUTH, payloads, message_id=1))
    assert (errors(pair.open(sa, sent).payloads) == []) is good
    assert bool(pair.bob.told(Established)) is good
    for notice in pair.bob.notices:
        assert all(str(value).isprintable() and len(str(value)) < 1000 for _, value in notice.fields)


def test_at_most_a_few_keys_are_tried(make_pair: Any, monkeypatch: Any) -> None:
    pair = make_pair()
    others = tuple(PrivateKey.from_seed(Secret(bytes([n]) * 32)).public for n in range(1, 20))
    pair.bob.knows(pair.alice, keys=others)
    tried: list[Any] = []
    real = proof.verify
    monkeypatch.setattr(proof, "verify", lambda *how: (tried.append(how[0]), real(*how))[1])
    answer = tampered(pair, without(Certificate))
    assert errors(answer.payloads) == [NotifyType.AUTHENTICATION_FAILED]
    assert len(tried) == MOST_KEYS


def test_nothing_happens_before_auth_was_verified(pair: Any) -> None:
    """The responder installs and tells nothing for one that proves nothing."""
    tampered(pair, swap(Authentication, BAD_AUTH["empty"]))
    assert not pair.bob.installations
    assert [type(report) for report in pair.bob.reports] == [Closed]


def test_a_proof_is_of_crypto_auth_only() -> None:
    with pytest.raises(TypeError):
        crypto_auth.Verified(MALLORY.public, "ED25519", object())
    assert Authenticated.__dataclass_fields__.keys() == {"entry", "verified"}


# --- the Child SA that comes with it ---


def test_without_a_child_sa_the_ike_sa_stands(pair: Any) -> None:
    """RFC 6023: childless."""
    answer = tampered(
        pair, lambda payloads: [p for p in payloads if not isinstance(p, SecurityAssociation | TSi | TSr)]
    )
    assert answer.one(Authentication)
    assert pair.bob.sa.state is State.ESTABLISHED
    assert not pair.bob.plane
    assert not pair.bob.told(ChildFailed)


@pytest.mark.parametrize("kind", [TSi, TSr])
def test_half_a_child_sa_makes_none(pair: Any, kind: type) -> None:
    answer = tampered(pair, without(kind))
    assert answer.one(Authentication)
    assert errors(answer.payloads) == [NotifyType.INVALID_SYNTAX]
    assert not pair.bob.plane


def test_no_child_sa_in_common_leaves_the_ike_sa(make_pair: Any) -> None:
    pair = make_pair()
    pair.bob.knows(pair.alice, selectors=())
    pair.initiate()
    pair.deliver()
    assert pair.alice.sa.state is pair.bob.sa.state is State.ESTABLISHED
    assert "TS_UNACCEPTABLE" in pair.alice.told(ChildFailed)[0].reason
    assert pair.bob.told(ChildFailed)
    assert not pair.alice.plane
    assert not pair.bob.plane


@pytest.mark.parametrize("critical", [False, True])
def test_an_unknown_payload_beside_auth(pair: Any, critical: bool) -> None:
    answer = tampered(pair, lambda payloads: [*payloads, Unknown(PayloadType(200), critical, b"")])
    assert errors(answer.payloads) == [NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD] * critical
    assert bool(pair.bob.sas) is not critical


# --- a keeper or a Node that is slow ---


def test_authorization_may_take_its_time_but_not_for_ever(pair: Any) -> None:
    pair.bob.held = []
    pair.initiate()
    pair.deliver()
    (wanted,) = pair.bob.held
    assert isinstance(wanted, AuthorizationWanted)
    assert wanted.identity == pair.alice.settings.identity
    pair.wait(3)
    pair.release(pair.bob)
    pair.deliver()
    assert pair.alice.sa.state is State.ESTABLISHED
    pair.agree()


def test_an_authorization_that_comes_too_late_is_for_nobody(pair: Any) -> None:
    pair.bob.held = []
    pair.initiate()
    pair.deliver()
    pair.wait(pair.bob.settings.half_open + 0.1)
    assert not pair.bob.sas
    pair.release(pair.bob)
    assert not pair.bob.told(Established)
    assert not pair.bob.endpoint._host.waiting
    pair.bob.endpoint.authorized(999, Unauthorized("of nothing"), pair.now)


def test_junk_under_no_keys_leaves_a_half_open_sa_as_it_is(pair: Any) -> None:
    """ATTACKS row 10: what fails its integrity check costs a count."""
    sa, message = half_open(pair)
    good = pair.seal(sa, IKE_AUTH, message.payloads, message_id=1)
    for position in range(28, len(good), 37):
        junk = good[:position] + bytes([good[position] ^ 0x80]) + good[position + 1 :]
        assert pair.feed(pair.bob, junk, Endpoint(ip_address("192.0.2.1"), 500)) == []
    assert pair.bob.sa.state is State.HALF_OPEN
    assert len(pair.feed(pair.bob, good)) == 1
    assert pair.bob.told(ChildUp)


def test_ours_has_no_key_to_show(make_pair: Any) -> None:
    pair = make_pair(alice={"key": None} if False else None)
    pair.alice.endpoint._host.settings = replace(pair.alice.settings, key=None)
    pair.initiate()
    pair.deliver()
    pair.wait(30)
    assert rejected(pair)
    assert "no key: we have none" in pair.alice.told(Closed)[0].reason


def test_the_form_of_a_key_that_the_peer_asks_for(make_pair: Any) -> None:
    pair = make_pair(alice_key=KEYS[KeyKind.RSA])
    entry, key = pair.alice.entries[pair.bob.settings.identity], KEYS[KeyKind.RSA].public
    for encodings, expected in [
        ({CertEncoding.RAW_RSA_KEY}, CertEncoding.RAW_RSA_KEY),
        ({CertEncoding.RAW_RSA_KEY, CertEncoding.RAW_PUBLIC_KEY}, CertEncoding.RAW_PUBLIC_KEY),
        (set(), CertEncoding.RAW_PUBLIC_KEY),
    ]:
        agreed = Agreed(b"", b"", b"", b"", None, frozenset(encodings))
        assert [certificate.encoding for certificate in auth._certificates(entry, key, agreed)] == [expected]
    nothing = Agreed(b"", b"", b"", b"", None, frozenset({CertEncoding(4)}))
    assert auth._certificates(entry, key, nothing) == []
    only_rsa = Agreed(b"", b"", b"", b"", None, frozenset({CertEncoding.RAW_RSA_KEY}))
    assert auth._certificates(entry, MALLORY.public, only_rsa) == []
    assert Nonce(bytes(16))
