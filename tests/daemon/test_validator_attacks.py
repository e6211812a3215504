"""The validator and bind() against a hostile authority: ATTACKS.md rows 29 to 34, 43, 45 and 48, and bad input.

Each attack has its control, in which the guard is out and the attack succeeds.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from select import select

import dns.dnssec
import dns.flags
import dns.message
import dns.query
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from hushwire.crypto.keys import PublicKey
from hushwire.daemon import unbound
from hushwire.daemon.unbound import Validator
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab import asking, defects, keytrap
from hushwire.lab.asking import answers, ask, believed, trusting
from hushwire.lab.defects import STRANGER, Defect
from hushwire.lab.evil import EvilWorld
from hushwire.names.binding import AAAA, A, Binding
from hushwire.names.ipseckey import IPSECKEY

ALICE, BOB, OWN, VOID, UNSIGNED = (
    "alice.example", "bob.example", "own.wild.alice.example", "void.wild.alice.example", "www.unsigned.example"
)  # fmt: skip
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
KEY, EVIL_KEY = (
    PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32).public_key()) for seed in (1, 2)
)


@pytest.fixture(scope="module")
def served() -> Iterator[EvilWorld]:
    with EvilWorld() as world:
        world.publish(ALICE, [V4, V6], [KEY])
        world.publish(BOB, [V4])
        world.publish(UNSIGNED, [V4], [KEY])
        world.publish("victim.example", [V4], [KEY])
        world.publish("below.evil.example", [V4], [EVIL_KEY])
        world.publish("*.wild.alice.example", [IPv4Address(STRANGER)], [EVIL_KEY])
        world.publish(OWN, [V4], [KEY])
        yield world


@pytest.fixture
def world(served: EvilWorld) -> Iterator[EvilWorld]:
    yield served
    served.behave()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the library with other options, of which a control takes out a guard."""

    def options(**others: str) -> None:
        changed = {name.replace("_", "-"): value for name, value in others.items()}
        monkeypatch.setattr(unbound, "OPTIONS", tuple((dict(unbound.OPTIONS) | changed).items()))

    return options


def found(name: str, *heard: Answered) -> Binding | Outcome:
    """The Binding, or the outcome of there being none."""
    result = asking.found(name, *heard)
    return result if isinstance(result, Binding) else result.outcome


def test_the_honest_world(world: EvilWorld) -> None:
    bound = found(ALICE, *answers(world, ALICE))
    assert isinstance(bound, Binding)
    assert (bound.addresses, bound.keys) == ((V6, V4), (KEY,))
    assert found(BOB, *answers(world, BOB)) is Outcome.DENIED
    stranger = found(VOID, *answers(world, VOID))
    assert isinstance(stranger, Binding)
    assert stranger.keys == (EVIL_KEY,)


def test_row_29_unsigned(world: EvilWorld) -> None:
    unsigned = answers(world, UNSIGNED)
    assert {answer.outcome for answer in unsigned} == {Outcome.INSECURE}
    assert found(UNSIGNED, *unsigned) is Outcome.INSECURE
    # Control: without asking for the outcome, the key is as good as any.
    assert isinstance(found(UNSIGNED, *map(believed, unsigned)), Binding)


@dataclass(frozen=True, slots=True)
class Attack:
    row: int
    defect: Defect
    name: str = ALICE
    types: tuple[str, ...] = ()
    """Of the answers that are spoilt; none: all but those of keys."""
    gain: type[Binding] | Outcome = Binding
    """What the attacker would have, if it were believed."""

    def __str__(self) -> str:
        return "-".join((str(self.row), self.defect.__name__, *self.types))


ATTACKS = (
    Attack(30, defects.spoil),
    Attack(30, defects.spoil, types=("IPSECKEY",)),
    Attack(30, defects.spoil, types=("A",)),
    Attack(30, defects.spoil, types=("DNSKEY",)),
    Attack(30, defects.spoil, types=("DS",)),
    Attack(30, defects.expire),
    Attack(30, defects.expire, types=("DNSKEY",)),
    Attack(30, defects.postdate),
    Attack(30, defects.sign_by_sibling),
    Attack(30, defects.sign_by_impostor),
    Attack(30, defects.other_keys, types=("DNSKEY",)),
    Attack(30, defects.fewer_labels),
    Attack(30, defects.replay_wildcard, OWN, ("A", "IPSECKEY")),
    Attack(30, defects.bare_wildcard, VOID, ("A", "IPSECKEY")),
    Attack(31, defects.strip_signatures),
    Attack(31, defects.strip_signatures, types=("IPSECKEY",)),
    Attack(31, defects.strip_signatures, types=("DNSKEY",)),
    Attack(31, defects.strip_signatures, BOB, gain=Outcome.DENIED),
    Attack(31, defects.ignore_do),
    Attack(31, defects.ignore_do, BOB, gain=Outcome.DENIED),
    Attack(31, defects.deny, types=("IPSECKEY",), gain=Outcome.DENIED),
    Attack(31, defects.deny_name, gain=Outcome.DENIED),
    Attack(31, defects.deny_by_another, types=("IPSECKEY",), gain=Outcome.DENIED),
    Attack(31, defects.deny, types=("DS",)),
    Attack(31, defects.deny_by_another, types=("DS",)),
    Attack(32, defects.forge, gain=Outcome.DENIED),
    Attack(32, defects.spoil_and_set_ad),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_not_believed(world: EvilWorld, attack: Attack) -> None:
    world.misbehave(attack.name, attack.defect, types=attack.types)
    heard = answers(world, attack.name)
    assert found(attack.name, *heard) is Outcome.ERROR
    assert Outcome.INSECURE not in {answer.outcome for answer in heard}
    for answer in heard:
        assert answer.outcome is not Outcome.ERROR or (answer.rdata, bool(answer.reason)) == ((), True)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_control_believed_without_validation(world: EvilWorld, options: Callable[..., None], attack: Attack) -> None:
    options(module_config="iterator")
    world.misbehave(attack.name, attack.defect, types=attack.types)
    gain = found(attack.name, *map(believed, answers(world, attack.name)))
    assert gain is attack.gain or type(gain) is attack.gain


def test_control_believed_without_a_clock(
    world: EvilWorld, options: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options(val_override_date="-1")
    world.misbehave(ALICE, defects.postdate)
    assert isinstance(found(ALICE, *answers(world, ALICE)), Binding)
    world.behave()
    world.misbehave(ALICE, defects.expire)
    # What the library lets through is still held to its signatures' end by ourselves.
    assert found(ALICE, *answers(world, ALICE)) is Outcome.ERROR
    monkeypatch.setattr(unbound, "signed_until", lambda packet: 2**32)
    assert isinstance(found(ALICE, *answers(world, ALICE)), Binding)


def test_row_30_the_zone_above_may_sign(world: EvilWorld) -> None:
    """Accepted: whoever holds its key could as well sign another DS."""
    world.misbehave(ALICE, defects.sign_by_parent)
    assert isinstance(found(ALICE, *answers(world, ALICE)), Binding)
    # Control: the zone beside it may not.
    world.behave()
    world.misbehave(ALICE, defects.sign_by_sibling)
    assert found(ALICE, *answers(world, ALICE)) is Outcome.ERROR


def test_row_30_a_wildcard_of_another_zone_gets_nowhere(world: EvilWorld) -> None:
    world.misbehave("below.evil.example", defects.claim_wildcard_above)
    with closing(Validator(trusting(world))) as validator:
        (below,) = ask(validator, Lookup(1, "below.evil.example", A))
        assert below.outcome is Outcome.ERROR
        nowhere, victim = ask(validator, Lookup(1, "nowhere.example", A), Lookup(2, "victim.example", A))
    assert (nowhere.outcome, victim.outcome, victim.rdata) == (Outcome.DENIED, Outcome.SECURE, (V4.packed,))


def test_control_the_wildcard_is_well_signed(world: EvilWorld) -> None:
    """Its signature is good for *.example, by a key whose own chain is good: only the signer is out of place."""
    world.misbehave("below.evil.example", defects.claim_wildcard_above)
    records, signatures = query(world, "below.evil.example", "A").answer
    keys, _ = query(world, "evil.example", "DNSKEY").answer
    dns.dnssec.validate(records, signatures, {keys.name: keys})


def take_errors_for_denials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 3 is out."""
    error = unbound._error
    monkeypatch.setattr(unbound, "_error", lambda *why: replace(error(*why), outcome=Outcome.DENIED))


@pytest.mark.parametrize(("rdtype", "gain"), [("IPSECKEY", Outcome.DENIED), ("A", Binding), ("DNSKEY", Outcome.DENIED)])
def test_row_31_dropped(
    world: EvilWorld, monkeypatch: pytest.MonkeyPatch, rdtype: str, gain: type[Binding] | Outcome
) -> None:
    world.misbehave(ALICE, defects.drop, types=[rdtype])
    begun = time.monotonic()
    heard = answers(world, ALICE, timeout=0.5)
    assert time.monotonic() - begun < 5
    assert Outcome.DENIED not in {answer.outcome for answer in heard if answer.rdtype in (A, AAAA, IPSECKEY)}
    assert found(ALICE, *heard) is Outcome.ERROR
    # Control: if silence were taken for a denial, there would be no key, or one address less.
    take_errors_for_denials(monkeypatch)
    had = found(ALICE, *answers(world, ALICE, timeout=0.5))
    assert had is gain or (type(had) is gain and had.addresses == (V6,))


def test_control_the_library_would_wait_on(world: EvilWorld) -> None:
    world.misbehave(ALICE, defects.drop, types=["IPSECKEY"])
    with closing(Validator(trusting(world, timeout=60))) as validator:
        validator.ask(Lookup(1, ALICE, IPSECKEY), time.monotonic())
        assert select([validator], [], [], 1.5)[0] == []
        assert validator.answered(time.monotonic()) == []


@pytest.mark.parametrize("defect", [defects.servfail, defects.refused, defects.cut, defects.loop])
def test_row_31_failed(world: EvilWorld, monkeypatch: pytest.MonkeyPatch, defect: Defect) -> None:
    world.misbehave(ALICE, defect, types=["IPSECKEY"])
    assert found(ALICE, *answers(world, ALICE)) is Outcome.ERROR
    # Control: if a failure were taken for a denial, there would be no key.
    take_errors_for_denials(monkeypatch)
    assert found(ALICE, *answers(world, ALICE)) is Outcome.DENIED


def test_row_32_ad_is_not_looked_at(world: EvilWorld) -> None:
    for name in (ALICE, UNSIGNED):
        world.misbehave(name, defects.set_ad)
        # Control: who goes by the bit is told that both are validated.
        assert query(world, name, "A").flags & dns.flags.AD
    assert found(UNSIGNED, *answers(world, UNSIGNED)) is Outcome.INSECURE
    assert isinstance(found(ALICE, *answers(world, ALICE)), Binding)


def query(world: EvilWorld, name: str, rdtype: str) -> dns.message.Message:
    """What the authority says, from dnspython, who believes it."""
    question = dns.message.make_query(name, rdtype, want_dnssec=True)
    return dns.query.udp_with_fallback(question, world.address, port=world.port, timeout=5)[0]


def cost(world: EvilWorld, validator: Validator, *lookups: Lookup) -> tuple[float, list[Answered]]:
    """The answers, and the CPU seconds that they cost besides serving them."""
    served, begun = world.seconds, time.process_time()
    heard = ask(validator, *lookups)
    return time.process_time() - begun - (world.seconds - served), heard


def test_row_33_key_trap(world: EvilWorld) -> None:
    zone = world.add_zone("trap.example")
    world.publish("trap.example", [V4], [KEY])
    world.misbehave("trap.example", keytrap.lay(zone), types=["A"])
    with closing(Validator(trusting(world))) as validator:
        begun = time.monotonic()
        seconds, (trapped, honest) = cost(world, validator, Lookup(1, "trap.example", A), Lookup(2, ALICE, A))
        assert time.monotonic() - begun < 8
    assert (trapped.outcome, honest.outcome) == (Outcome.ERROR, Outcome.SECURE)
    assert seconds < naive_seconds(world) / 10


def naive_seconds(world: EvilWorld) -> float:
    """Control: what RFC 4035 s5.3.1 lets a validator spend, over all keys and signatures; a hundredth is measured."""
    keys = [key for key in query(world, "trap.example", "DNSKEY").answer[0] if key.flags == 256]
    signatures = query(world, "trap.example", "A").answer[1]
    assert (len(keys), len(signatures)) == (keytrap.KEYS, keytrap.SIGNATURES)
    assert {dns.dnssec.key_id(key) for key in keys} == {signature.key_tag for signature in signatures}
    begun = time.thread_time()
    for key, signature in zip(keys, signatures, strict=True):
        exponent, modulus = key.key[3 : 3 + keytrap.OCTETS], key.key[3 + keytrap.OCTETS :]
        public = rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
        with pytest.raises(InvalidSignature):
            public.verify(signature.signature, b"", padding.PKCS1v15(), SHA256())
    return (time.thread_time() - begun) * len(signatures)


DEEP = ".".join("abcdefghijklmnopqrstuvwxyz" * 2)


@pytest.mark.parametrize("name", ["nowhere", DEEP], ids=["shallow", "deep"])
@pytest.mark.parametrize(
    ("iterations", "outcome"), [(50, Outcome.DENIED), (151, Outcome.INSECURE), (2500, Outcome.INSECURE)]
)
def test_row_34_nsec3(world: EvilWorld, name: str, iterations: int, outcome: Outcome) -> None:
    world.add_zone("hashed.example", iterations=iterations)
    world.publish("hashed.example", [V4])
    with closing(Validator(trusting(world))) as validator:
        ask(validator, Lookup(0, "hashed.example", A))
        begun = time.monotonic()
        seconds, (answer,) = cost(world, validator, Lookup(1, f"{name}.hashed.example", A))
        assert time.monotonic() - begun < 8
    assert answer.outcome is outcome
    assert seconds < 0.2


def test_control_nsec3_without_the_limit_is_hashed_and_believed(world: EvilWorld, options: Callable[..., None]) -> None:
    options(val_nsec3_keysize_iterations="1024 2500 2048 2500 4096 2500")
    world.add_zone("hashed.example", iterations=2500)
    with closing(Validator(trusting(world))) as validator:
        (answer,) = ask(validator, Lookup(1, "nowhere.hashed.example", A))
    assert answer.outcome is Outcome.DENIED


def test_row_43_no_longer_than_the_signature(world: EvilWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish("old.alice.example", [V4], [KEY], ttl=86400)
    world.misbehave("old.alice.example", defects.expire_soon)
    bound = found("old.alice.example", *answers(world, "old.alice.example"))
    assert isinstance(bound, Binding)
    assert bound.ttl <= 30
    # Control: the library goes by the TTL, and a TTL is anybody's to write.
    monkeypatch.setattr(unbound, "signed_until", lambda packet: 2**32)
    assert answers(world, "old.alice.example")[0].ttl == unbound.MAX_TTL


def test_row_43_nothing_from_the_cache_after_the_signature(world: EvilWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.publish("old.alice.example", [V4], [KEY], ttl=86400)
    world.misbehave("old.alice.example", defects.expire_soon)
    with closing(Validator(trusting(world))) as validator:
        assert ask(validator, Lookup(1, "old.alice.example", A))[0].outcome is Outcome.SECURE
        with monkeypatch.context() as later:
            later.setattr(unbound, "time", Later(31))
            (late,) = ask(validator, Lookup(1, "old.alice.example", A))
            assert (late.outcome, late.reason) == (Outcome.ERROR, "its signatures have ended, or cannot be read")
            # Control: the library has it in its cache still.
            later.setattr(unbound, "signed_until", lambda packet: 2**32)
            assert ask(validator, Lookup(1, "old.alice.example", A))[0].outcome is Outcome.SECURE
    assert unbound.signed_until(b"") == unbound.signed_until(bytes(12)) == 0


class Later:
    """The time module, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.time = lambda: time.time() + seconds
