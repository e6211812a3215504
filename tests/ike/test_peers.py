"""What other daemons were seen to want, in the lab's interop runs (RFC 7296 s3.6, s3.7)."""

from dataclasses import replace
from typing import Any

from hushwire.ike.proposals import EspOffer
from hushwire.wire.message import read_message, write_message
from hushwire.wire.payload import Certificate, CertificateRequest, KeyExchange
from hushwire.wire.registry import CertEncoding, EncrID, EsnID, IntegID, KeID, NotifyType


def asked(payloads: Any) -> list[CertEncoding]:
    return [payload.encoding for payload in payloads if isinstance(payload, CertificateRequest)]


def test_openiked_sends_its_key_only_to_who_asks_for_a_form_that_it_knows(pair: Any) -> None:
    """And libreswan reads no message that asks for one that it does not know, such as OpenIKED's own."""
    sa = pair.initiate()
    pair.deliver()
    _, response, request, _ = (send.data for _, send in pair.seen)
    wanted = [CertEncoding.RAW_PUBLIC_KEY, CertEncoding.RAW_RSA_KEY]
    assert asked(read_message(response).payloads) == wanted
    assert asked(pair.open(sa, request).payloads) == wanted


def test_who_shares_a_key_asks_for_none(pair: Any) -> None:
    for me, you in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        me.knows(you, psk=b"tests", keys=())
    sa = pair.initiate()
    pair.deliver()
    message = pair.open(sa, pair.seen[2][1].data)
    assert not asked(message.payloads)
    assert not message.one(Certificate)


def test_strongswan_as_it_comes_rekeys_a_child_sa_without_key_exchange(make_pair: Any) -> None:
    bare = EspOffer(((EncrID.AES_CBC, 128),), (IntegID.HMAC_SHA2_256_128,), (EsnID.NO_ESN,))
    pair = make_pair(bob={"esp_offers": (bare,)})
    pair.initiate()
    pair.deliver()
    for me in (pair.alice, pair.bob):
        before = pair.alice.child.spi_in
        me.endpoint.rekey(me.sa, pair.now, ike=False)
        pair.deliver()
        assert pair.alice.child.spi_in != before
        pair.agree()
    # Where it has a group of ours, a fresh exchange it is.
    with_group = replace(bare, ke=(KeID.CURVE25519,))
    pair = make_pair(bob={"esp_offers": (with_group,)})
    pair.initiate()
    pair.deliver()
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    pair.collect()
    (_, request), *_ = pair.wire
    pair.deliver()
    assert pair.open(pair.alice.sa, request.data).one(KeyExchange)
    answers = [pair.open(pair.alice.sa, send.data) for name, send in pair.seen[-3:] if name == "bob"]
    assert any(answer.one(KeyExchange) for answer in answers)


def test_libreswan_signs_with_sha1_where_nobody_says_that_more_can_be_verified(pair: Any) -> None:
    """It does not say so itself when it lets us be anonymous, and has no signature of ours to verify (RFC 7427 s4)."""
    pair.initiate()
    (_, request) = pair.wire.pop(0)
    message = read_message(request.data)
    silent = [p for p in message.payloads if getattr(p, "type", None) != NotifyType.SIGNATURE_HASH_ALGORITHMS]
    assert len(silent) == len(message.payloads) - 1
    (answer,) = pair.feed(pair.bob, write_message(message.header, silent))
    assert read_message(answer).notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
