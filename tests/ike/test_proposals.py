"""Negotiation of transforms: what is chosen, what never, and what an answer may not say (RFC 7296 s2.7, s3.3)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.ike.errors import Rejected
from hushwire.ike.proposals import accepted_esp, accepted_ike, choose_esp, choose_ike, esp_proposals, ike_proposals
from hushwire.ike.settings import ESP_OFFERS, IKE_OFFERS
from hushwire.wire.payload import Proposal, Transform
from hushwire.wire.registry import EncrID, EsnID, IntegID, KeID, NotifyType, PrfID, ProtocolID, TransformType

ENCR, PRF, INTEG, KE, ESN = (TransformType[name] for name in ("ENCR", "PRF", "INTEG", "KE", "ESN"))
GCM, CBC = Transform(ENCR, EncrID.AES_GCM_16, 256), Transform(ENCR, EncrID.AES_CBC, 256)
SHA, HMAC = Transform(PRF, PrfID.HMAC_SHA2_256), Transform(INTEG, IntegID.HMAC_SHA2_256_128)
X25519, P256 = Transform(KE, KeID.CURVE25519), Transform(KE, KeID.ECP_256)
LONG, SHORT = Transform(ESN, EsnID.ESN), Transform(ESN, EsnID.NO_ESN)


def ike(*transforms: Transform, number: int = 1, protocol: ProtocolID = ProtocolID.IKE) -> Proposal:
    return Proposal(number, protocol, b"", transforms)


def esp(*transforms: Transform, spi: bytes = b"\1\2\3\4", protocol: ProtocolID = ProtocolID.ESP) -> Proposal:
    return Proposal(1, protocol, spi, transforms)


def refused(choose: Any, *how: Any) -> bool:
    with pytest.raises(Rejected) as caught:
        choose(*how)
    return bool(caught.value.notify == NotifyType.NO_PROPOSAL_CHOSEN)


def test_what_we_offer_we_take() -> None:
    choice = choose_ike(IKE_OFFERS, ike_proposals(IKE_OFFERS))
    assert (choice.suite.encr, choice.suite.key_bits, choice.suite.ke) == (EncrID.AES_GCM_16, 256, KeID.CURVE25519)
    assert accepted_ike(IKE_OFFERS, [choice.accepted]).suite == choice.suite
    child = choose_esp(ESP_OFFERS, esp_proposals(ESP_OFFERS, b"\1\2\3\4", True), True)
    assert accepted_esp(ESP_OFFERS, [child.accepted], True) == child


GOOD_IKE = {
    "aead": (ike(GCM, SHA, X25519), EncrID.AES_GCM_16),
    "aead, integ none": (ike(GCM, SHA, Transform(INTEG, IntegID.NONE), X25519), EncrID.AES_GCM_16),
    "cbc": (ike(CBC, SHA, HMAC, X25519), EncrID.AES_CBC),
    "chacha": (ike(Transform(ENCR, EncrID.CHACHA20_POLY1305), SHA, X25519), EncrID.CHACHA20_POLY1305),
    "strangers among them": (
        ike(Transform(ENCR, 999), GCM, Transform(PRF, 77), SHA, Transform(KE, 999), X25519),
        EncrID.AES_GCM_16,
    ),
}


@pytest.mark.parametrize(("proposal", "encr"), GOOD_IKE.values(), ids=GOOD_IKE)
def test_ike_taken(proposal: Proposal, encr: EncrID) -> None:
    assert choose_ike(IKE_OFFERS, [proposal]).suite.encr is encr


BAD_IKE = {
    "empty": ike(),
    "no ke": ike(GCM, SHA),
    "no prf": ike(GCM, X25519),
    "no encr": ike(SHA, X25519),
    "aead with integ": ike(GCM, SHA, HMAC, X25519),
    "cbc without integ": ike(CBC, SHA, X25519),
    "cbc with integ none": ike(CBC, SHA, Transform(INTEG, IntegID.NONE), X25519),
    "no key length": ike(replace(GCM, key_length=None), SHA, X25519),
    "odd key length": ike(replace(GCM, key_length=255), SHA, X25519),
    "chacha with key length": ike(Transform(ENCR, EncrID.CHACHA20_POLY1305, 256), SHA, X25519),
    "prf with key length": ike(GCM, replace(SHA, key_length=256), X25519),
    "weak group": ike(GCM, SHA, Transform(KE, 2)),
    "no group": ike(GCM, SHA, Transform(KE, KeID.NONE)),
    "md5": ike(GCM, Transform(PRF, 1), X25519),
    "sha1": ike(CBC, SHA, Transform(INTEG, 2), X25519),
    "null": ike(Transform(ENCR, 11), SHA, HMAC, X25519),
    "3des": ike(Transform(ENCR, 3), SHA, HMAC, X25519),
    "an unknown type": ike(GCM, SHA, X25519, Transform(TransformType(99), 1)),
    "esn": ike(GCM, SHA, X25519, LONG),
    "of esp": ike(GCM, SHA, X25519, protocol=ProtocolID.ESP),
}


@pytest.mark.parametrize("bad", BAD_IKE.values(), ids=BAD_IKE)
def test_ike_refused(bad: Proposal) -> None:
    assert refused(choose_ike, IKE_OFFERS, [bad])
    assert refused(choose_ike, IKE_OFFERS, [])
    # And a good one after it is still found.
    assert choose_ike(IKE_OFFERS, [bad, ike(GCM, SHA, X25519, number=2)]).accepted.number == 2


def test_the_key_exchange_that_came_is_taken_to_spare_a_round_trip() -> None:
    both = ike(GCM, SHA, X25519, P256)
    assert choose_ike(IKE_OFFERS, [both]).suite.ke is KeID.CURVE25519
    assert choose_ike(IKE_OFFERS, [both], KeID.ECP_256).suite.ke is KeID.ECP_256
    assert choose_ike(IKE_OFFERS, [both], KeID(2)).suite.ke is KeID.CURVE25519


def test_255_transforms() -> None:
    many = [Transform(ENCR, EncrID.AES_GCM_16, bits) for bits in range(1, 253)]
    chosen = choose_ike(IKE_OFFERS, [ike(*many, SHA, X25519)])
    assert chosen.suite.key_bits == 128
    assert len(chosen.accepted.transforms) == 3
    assert refused(choose_ike, IKE_OFFERS, [ike(*(Transform(ENCR, n, n) for n in range(255)))])


BAD_ANSWER = {
    "two proposals": [ike(GCM, SHA, X25519), ike(GCM, SHA, X25519)],
    "two ciphers": [ike(GCM, CBC, SHA, X25519)],
    "two groups": [ike(GCM, SHA, X25519, P256)],
    "the same twice": [ike(GCM, GCM, SHA, X25519)],
    "not offered": [ike(replace(GCM, key_length=192), SHA, X25519)],
    "none": [],
}


@pytest.mark.parametrize("answer", BAD_ANSWER.values(), ids=BAD_ANSWER)
def test_ike_answers_refused(answer: list[Proposal]) -> None:
    assert refused(accepted_ike, IKE_OFFERS, answer)


GOOD_ESP = {
    "with esn": (esp(GCM, LONG), False, True, KeID.NONE),
    "without": (esp(GCM, SHORT), False, False, KeID.NONE),
    "esn left out": (esp(GCM), False, False, KeID.NONE),
    "cbc": (esp(CBC, HMAC, LONG), False, True, KeID.NONE),
    "ke": (esp(GCM, LONG, X25519), True, True, KeID.CURVE25519),
    "ke none": (esp(GCM, LONG, Transform(KE, KeID.NONE)), True, True, KeID.NONE),
    "no ke though one came": (esp(GCM, LONG), True, True, KeID.NONE),
    "ke offered, none came": (esp(GCM, LONG, X25519), False, True, KeID.NONE),
}


@pytest.mark.parametrize(("proposal", "with_ke", "esn", "ke"), GOOD_ESP.values(), ids=GOOD_ESP)
def test_esp_taken(proposal: Proposal, with_ke: bool, esn: bool, ke: KeID) -> None:
    choice = choose_esp(ESP_OFFERS, [proposal], with_ke)
    assert (choice.suite.esn, choice.ke) == (esn, ke)


BAD_ESP = {
    "empty": esp(),
    "no spi": esp(GCM, LONG, spi=b""),
    "spi of ike": esp(GCM, LONG, spi=bytes(8)),
    "ah": esp(HMAC, LONG, protocol=ProtocolID.AH),
    "aead with integ": esp(GCM, HMAC, LONG),
    "cbc without integ": esp(CBC, LONG),
    "null": esp(Transform(ENCR, 11), HMAC, LONG),
    "unknown esn": esp(GCM, Transform(ESN, 7)),
    "prf": esp(GCM, LONG, SHA),
    "weak group": esp(GCM, LONG, Transform(KE, 2)),
}


@pytest.mark.parametrize("bad", BAD_ESP.values(), ids=BAD_ESP)
def test_esp_refused(bad: Proposal) -> None:
    assert refused(choose_esp, ESP_OFFERS, [bad], True)


@pytest.mark.parametrize("spi", [bytes(4), b"\0\0\0\x01", b"\0\0\0\xff"])
def test_an_spi_that_none_may_have_is_refused(spi: bytes) -> None:
    """RFC 4303 s2.1: 1 to 255 are reserved, and zero is never sent."""
    assert refused(choose_esp, ESP_OFFERS, [esp(GCM, LONG, spi=spi)], False)


transforms = st.builds(
    Transform, st.sampled_from([*TransformType, TransformType(99)]),
    st.integers(0, 50) | st.sampled_from([1033, 65535]),
    st.none() | st.sampled_from([0, 128, 192, 256, 65535]),
)  # fmt: skip
proposals = st.builds(
    Proposal, st.integers(0, 255), st.sampled_from(list(ProtocolID)), st.sampled_from([b"", b"\1\2\3\4", bytes(8)]),
    st.lists(transforms, max_size=12).map(tuple),
)  # fmt: skip


@given(st.lists(proposals, max_size=6), st.booleans(), st.none() | st.sampled_from(list(KeID)))
def test_whatever_is_proposed_what_is_chosen_was_offered_by_both(
    offered: list[Proposal], with_ke: bool, hint: KeID | None
) -> None:
    for choose in (
        lambda: choose_ike(IKE_OFFERS, offered, hint).accepted,
        lambda: choose_esp(ESP_OFFERS, offered, with_ke, hint).accepted,
    ):
        try:
            accepted = choose()
        except Rejected:
            continue
        assert any(set(accepted.transforms) <= set(p.transforms) for p in offered)
        kinds = [transform.type for transform in accepted.transforms]
        assert len(kinds) == len(set(kinds))
