"""Channel bindings: the same at both ends, another with anybody between."""

import hashlib

from hushwire.crypto.channel_binding import channel_binding
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret

ALICE, BOB, MALLORY = (PrivateKey.from_seed(Secret(bytes([n]) * 32)).public for n in range(1, 4))


def test_both_ends_have_the_same() -> None:
    assert channel_binding(ALICE, BOB) == channel_binding(BOB, ALICE)
    assert len(channel_binding(ALICE, BOB)) == 32


def test_who_stands_between_has_another_towards_each() -> None:
    """RFC 5056 s2: that is all that an application above has to compare."""
    assert channel_binding(ALICE, MALLORY) != channel_binding(MALLORY, BOB)
    assert len({channel_binding(*pair) for pair in ((ALICE, BOB), (ALICE, MALLORY), (MALLORY, BOB))}) == 3


def test_it_is_what_other_implementations_would_compute() -> None:
    low, high = sorted((hashlib.sha256(ALICE.spki).digest(), hashlib.sha256(BOB.spki).digest()))
    assert channel_binding(ALICE, BOB) == hashlib.sha256(b"hushwire-end-point:" + low + high).digest()
