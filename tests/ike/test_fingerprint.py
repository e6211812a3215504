"""IKE_AUTH with a key that is known by its fingerprint, and by a peer with more than one name (RFC 7670, RFC 7671)."""

from typing import Any

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.ike import auth, proof
from hushwire.ike.report import Closed, Established
from hushwire.policy.pad import Identity

MALLORY = PrivateKey.from_seed(Secret(b"m" * 32))
BIG = PrivateKey.generate(KeyKind.ECDSA_P521)
"""A key that IPSECKEY has no form for."""


def by_fingerprint(pair: Any) -> Any:
    """Each knows of the other what TLSA says, and no key."""
    for me, you in ((pair.alice, pair.bob), (pair.bob, pair.alice)):
        me.knows(you, keys=(), fingerprints=(bytes(32), you.key.public.fingerprint))
    return pair


def meet(pair: Any) -> bool:
    """Whether both know each other in the end."""
    pair.initiate()
    pair.deliver()
    pair.wait(pair.bob.settings.half_open + 1)
    return bool(pair.alice.told(Established) and pair.bob.told(Established))


@pytest.mark.parametrize("key", [None, BIG])
def test_a_key_that_is_sent_and_vouched_for(make_pair: Any, key: PrivateKey | None) -> None:
    pair = by_fingerprint(make_pair(bob_key=key) if key is not None else make_pair())
    assert meet(pair)
    assert pair.alice.sa.authenticated.verified.public == pair.bob.key.public
    assert pair.bob.sa.authenticated.verified.public == pair.alice.key.public
    pair.agree()


def test_either_kind_of_record_will_do(pair: Any) -> None:
    """The key in IPSECKEY is another one, as in a rollover."""
    pair.alice.knows(pair.bob, keys=(MALLORY.public,), fingerprints=(pair.bob.key.public.fingerprint,))
    assert meet(pair)


def test_a_key_that_is_not_sent(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    by_fingerprint(pair)
    monkeypatch.setattr(auth, "_certificates", lambda *_: [])
    assert not meet(pair)
    assert "no key is known for the peer" in " ".join(closed.reason for closed in pair.bob.told(Closed))


def strangers(pair: Any) -> Any:
    """Bob has another key than the records say, and shows it."""
    by_fingerprint(pair)
    pair.alice.knows(pair.bob, keys=(BIG.public,), fingerprints=(BIG.public.fingerprint,))
    return pair


def test_a_key_that_no_record_vouches_for(pair: Any) -> None:
    """Row 15: it is sent and it signs, and it is nobody's."""
    assert not meet(strangers(pair))
    assert "none of those known" in " ".join(closed.reason for closed in pair.alice.told(Closed))


def test_control_if_what_is_sent_were_believed_anybody_would_get_in(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_candidates", lambda entry, sent: [sent])
    assert meet(strangers(pair))
    assert pair.alice.sa.authenticated.verified.public == pair.bob.key.public


def test_a_key_that_is_vouched_for_and_not_held(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shows Bob's key has to sign with it."""
    by_fingerprint(pair)
    pair.bob.key = MALLORY
    assert not meet(pair)
    assert "the signature is wrong" in " ".join(closed.reason for closed in pair.alice.told(Closed))


# --- names ---


def as_bob_says(pair: Any, says: str, **known: Any) -> bool:
    """Whether Alice, who asks for bob.example, takes Bob when he says that he is `says`."""
    pair.alice.knows(pair.bob, **known)
    pair.bob.knows(pair.alice, own_identity=Identity.fqdn(says))
    return meet(pair)


def test_a_peer_may_say_the_name_that_it_is_an_alias_of(pair: Any) -> None:
    also = (Identity.fqdn("host.example"),)
    assert as_bob_says(pair, "host.example", also=also)
    assert pair.alice.sa.authenticated.entry.identity == Identity.fqdn("bob.example")


def test_and_still_its_own(pair: Any) -> None:
    assert as_bob_says(pair, "bob.example", also=(Identity.fqdn("host.example"),))


@pytest.mark.parametrize("also", [(), (Identity.fqdn("other.example"),)])
def test_but_no_other(pair: Any, also: tuple[Identity, ...]) -> None:
    """With the right key: who has several names is each of them to those who ask for it only."""
    assert not as_bob_says(pair, "host.example", also=also)
    assert "the peer is host.example, not bob.example" in " ".join(c.reason for c in pair.alice.told(Closed))
