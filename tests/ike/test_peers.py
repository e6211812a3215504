"""What other daemons were seen to want, in the lab's interop runs (RFC 7296 s3.6, s3.7)."""

from typing import Any

from hushwire.wire.message import read_message
from hushwire.wire.payload import Certificate, CertificateRequest
from hushwire.wire.registry import CertEncoding


def asked(payloads: Any) -> list[CertEncoding]:
    return [payload.encoding for payload in payloads if isinstance(payload, CertificateRequest)]


def test_openiked_sends_its_key_only_to_who_asks_for_one_of_its_own_forms(pair: Any) -> None:
    sa = pair.initiate()
    pair.deliver()
    _, response, request, _ = (send.data for _, send in pair.seen)
    wanted = [CertEncoding.RAW_PUBLIC_KEY, CertEncoding.OPENIKED_ECDSA]
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
