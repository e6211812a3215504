"""names.lookup: asking, asking again, and what changes meanwhile; time is a number here."""

import itertools
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from hushwire.crypto.keys import PublicKey
from hushwire.entropy import SeededEntropy
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names import lookup
from hushwire.names.binding import AAAA, A, Binding, Unbound
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.names.lookup import GRACE, AddressLookup, Change, NameLookup, Watch
from hushwire.names.reverse import reverse_name
from hushwire.names.tlsa import TLSA, owner, write_fingerprint
from hushwire.timers import NEVER, Now

NAME = "alice.example"
V4, V4B, V6 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv6Address("2001:db8::1")
KEY, OTHER = (
    PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32).public_key()) for seed in (1, 2)
)


def at(seconds: float) -> Now:
    return Now(seconds, 1.7e9 + seconds)


class World:
    """A zone that answers at once, and the name or address looked up in it."""

    def __init__(self, kind: Callable[..., Watch] = NameLookup, subject: object = NAME, **more: bool) -> None:
        self.rdata: dict[int, tuple[bytes, ...]] = {A: (V4.packed,), AAAA: (), IPSECKEY: (record(KEY),), TLSA: ()}
        self.outcome: Outcome | None = None
        self.fault: dict[int, Outcome] = {}
        """Of one type alone."""
        self.canonical = ""
        self.ttl = 60
        self.asked = 0
        self.lookup = kind(subject, itertools.count(1).__next__, SeededEntropy(b"world"), **more)

    def start(self, seconds: float) -> Change | None:
        return self.answer(self.lookup.start(at(seconds)), seconds)

    def answer(self, questions: list[Lookup], seconds: float) -> Change | None:
        self.asked += len(questions)
        changes = [self.lookup.answered(self.answered(question), at(seconds)) for question in questions]
        assert changes[:-1] == [None] * (len(changes) - 1), "nothing is known before the last answer"
        return changes[-1]

    def answered(self, question: Lookup) -> Answered:
        rdata = self.rdata[question.rdtype]
        outcome = self.fault.get(question.rdtype) or self.outcome or (Outcome.SECURE if rdata else Outcome.DENIED)
        return Answered(
            question.request, question.name, question.rdtype, outcome,
            rdata if outcome in (Outcome.SECURE, Outcome.INSECURE) else (), self.ttl,
            canonical=self.canonical if rdata else "",
        )  # fmt: skip

    def run(self, until: float) -> list[tuple[float, Change]]:
        """Step at every deadline, answering at once; bounded by what the test expects."""
        changes = []
        for _ in range(10_000):
            when = self.lookup.deadline()
            if when > until:
                return changes
            questions, change = self.lookup.timeout(at(when))
            found = (change, self.answer(questions, when) if questions else None)
            changes += [(when, change) for change in found if change is not None]
        raise AssertionError("it asks without end")


def record(key: PublicKey, precedence: int = 10) -> bytes:
    return write_record(KeyRecord(precedence, None, key))


@pytest.fixture
def world() -> World:
    return World()


def test_first_answer(world: World) -> None:
    change = world.start(100)
    assert change is not None
    assert (change.before, change.removed) == (None, ())
    assert isinstance(change.after, Binding)
    assert change.after.addresses == (V4,)
    assert world.lookup.binding is change.after
    assert world.lookup.expires == 160 + GRACE
    assert 160 <= world.lookup.deadline() <= 161


def test_asks_again_at_ttl_and_is_silent_when_nothing_changed(world: World) -> None:
    world.start(0)
    assert world.run(until=3600) == []
    assert 4 * 58 <= world.asked <= 4 * 62


def test_short_ttl_does_not_make_us_flood(world: World) -> None:
    world.ttl = 0
    world.start(0)
    world.run(until=3600)
    assert world.asked <= 4 * 3600 / 5


def test_addresses_and_keys_change(world: World) -> None:
    world.start(0)
    world.rdata[A] = (V4.packed, V4B.packed)
    ((when, change),) = world.run(until=70)
    assert 60 <= when <= 61
    assert isinstance(change.after, Binding)
    assert (set(change.after.addresses), change.removed) == ({V4, V4B}, ())
    world.rdata[A], world.rdata[AAAA], world.rdata[IPSECKEY] = (V4B.packed,), (V6.packed,), (record(OTHER),)
    ((_, change),) = world.run(until=130)
    assert isinstance(change.after, Binding)
    assert (set(change.after.addresses), change.removed) == ({V6, V4B}, (V4,))
    assert change.after.keys == (OTHER,)


def test_rollover(world: World) -> None:
    """Old and new side by side, then the new alone: each step is told."""
    world.start(0)
    world.rdata[IPSECKEY] = (record(KEY), record(OTHER, 20))
    ((_, change),) = world.run(until=70)
    assert isinstance(change.after, Binding)
    assert change.after.keys == (KEY, OTHER)
    world.rdata[IPSECKEY] = (record(OTHER, 20),)
    ((_, change),) = world.run(until=130)
    assert isinstance(change.after, Binding)
    assert change.after.keys == (OTHER,)


def test_an_error_keeps_the_binding_for_its_life(world: World) -> None:
    """Law 3: suppression (row 31) takes nothing away before its time, and never gives clear."""
    world.start(0)
    world.outcome = Outcome.ERROR
    ((when, change),) = world.run(until=3600)
    assert when == 60 + GRACE
    assert isinstance(change.after, Unbound)
    assert change.after.outcome is Outcome.ERROR
    assert change.removed == (V4,)
    assert world.lookup.binding is None
    world.outcome = None
    ((_, change),) = world.run(until=3600 + lookup.LAST_RETRY)
    assert isinstance(change.after, Binding)
    assert change.after.addresses == (V4,)


def test_retries_back_off(world: World) -> None:
    world.outcome = Outcome.ERROR
    change = world.start(0)
    assert change is not None
    waits, now = [], 0.0
    for _ in range(12):
        waits.append(world.lookup.deadline() - now)
        now = world.lookup.deadline()
        questions, _ = world.lookup.timeout(at(now))
        assert world.answer(questions, now) is None, "the same error is not told again"
    for attempt, wait in enumerate(waits):
        full = min(300, 5 * 2**attempt)
        assert full / 2 <= wait <= full
    assert len({wait / min(300, 5 * 2**attempt) for attempt, wait in enumerate(waits)}) > 3, "there is jitter"


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE])
def test_what_is_proven_takes_effect_at_once(world: World, outcome: Outcome) -> None:
    world.start(0)
    world.outcome = outcome
    ((when, change),) = world.run(until=65)
    assert 60 <= when <= 61
    assert isinstance(change.after, Unbound)
    assert change.after.outcome is outcome
    assert world.lookup.expires == NEVER


def test_a_resolver_that_says_nothing(world: World) -> None:
    world.lookup.start(at(0))
    assert world.lookup.deadline() == lookup.ANSWER_LIMIT
    questions, change = world.lookup.timeout(at(10))
    assert questions == []
    assert change is not None
    assert isinstance(change.after, Unbound)
    assert change.after.outcome is Outcome.ERROR
    assert 12.5 <= world.lookup.deadline() <= 15


def test_late_and_foreign_answers_are_nothing(world: World) -> None:
    old = world.lookup.start(at(0))
    new = world.lookup.start(at(1))
    for question in old:
        assert world.lookup.answered(world.answered(question), at(2)) is None
    assert world.lookup.binding is None
    assert world.answer(new, 2) is not None
    assert world.lookup.answered(world.answered(new[0]), at(3)) is None


def test_own_addresses_are_kept_current(world: World) -> None:
    world.start(0)
    world.lookup.own = {V4}
    ((_, change),) = world.run(until=65)
    assert isinstance(change.after, Unbound)
    assert "this host" in change.after.reason


# --- fingerprints, aliases, names that roam ---


def test_four_questions_at_once(world: World) -> None:
    asked = [(question.name, question.rdtype) for question in world.lookup.start(at(0))]
    assert asked == [(NAME, A), (NAME, AAAA), (NAME, IPSECKEY), (owner(NAME), TLSA)]


def test_a_name_without_room_for_the_fourth() -> None:
    long = World(subject=".".join(["a" * 60] * 4) + ".example")
    change = long.start(0)
    assert change is not None
    assert isinstance(change.after, Binding)
    assert long.asked == 3


def test_fingerprints_come_and_go(world: World) -> None:
    world.start(0)
    world.rdata[TLSA] = (write_fingerprint(OTHER.fingerprint),)
    ((_, change),) = world.run(until=70)
    assert isinstance(change.after, Binding)
    assert change.after.fingerprints == (OTHER.fingerprint,)
    # One question is lost, and with it what only that one told.
    world.fault[TLSA] = Outcome.ERROR
    ((_, change),) = world.run(until=130)
    assert isinstance(change.after, Binding)
    assert (change.after.keys, change.after.fingerprints) == ((KEY,), ())


def test_an_error_of_the_only_question_that_has_keys_keeps_the_binding_for_its_life(world: World) -> None:
    world.rdata[IPSECKEY], world.rdata[TLSA] = (), (write_fingerprint(KEY.fingerprint),)
    world.start(0)
    world.fault[TLSA] = Outcome.ERROR
    ((when, change),) = world.run(until=3600)
    assert when == 60 + GRACE
    assert isinstance(change.after, Unbound)
    assert change.after.outcome is Outcome.ERROR


def test_an_alias_that_leads_elsewhere_is_a_change(world: World) -> None:
    world.canonical = "one.example"
    world.start(0)
    assert world.run(until=130) == []
    world.canonical = "two.example"
    ((_, change),) = world.run(until=190)
    assert isinstance(change.after, Binding)
    assert change.after.canonical == "two.example"


def test_who_roams_is_bound_without_an_address() -> None:
    world = World(roams=True)
    world.fault = {A: Outcome.ERROR, AAAA: Outcome.INSECURE}
    change = world.start(0)
    assert change is not None
    assert isinstance(change.after, Binding)
    assert (change.after.roams, change.after.addresses) == (True, ())
    world.rdata[IPSECKEY] = (record(OTHER),)
    ((_, change),) = world.run(until=70)
    assert isinstance(change.after, Binding)
    assert change.after.keys == (OTHER,)


# --- addresses without a name ---


@pytest.fixture
def reverse() -> World:
    return World(AddressLookup, V4)


def test_one_question_about_an_address(reverse: World) -> None:
    assert isinstance(reverse.lookup, AddressLookup)
    assert (reverse.lookup.name, reverse.lookup.address) == (reverse_name(V4), V4)
    asked = [(question.name, question.rdtype) for question in reverse.lookup.start(at(0))]
    assert asked == [(reverse_name(V4), IPSECKEY)]


def test_an_address_is_kept_up_to_date(reverse: World) -> None:
    change = reverse.start(0)
    assert change is not None
    assert change.name == reverse_name(V4)
    assert reverse.lookup.binding is not None
    assert reverse.lookup.expires == 60 + GRACE
    assert reverse.run(until=3600) == []
    assert 58 <= reverse.asked <= 62


def test_another_gateway_is_a_change(reverse: World) -> None:
    reverse.start(0)
    reverse.rdata[IPSECKEY] = (write_record(KeyRecord(10, V4B, OTHER)),)
    ((_, change),) = reverse.run(until=70)
    assert isinstance(change.after, Binding)
    assert change.after.gateway == V4B
    assert change.removed == ()


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_an_address_of_which_nothing_good_is_said(reverse: World, outcome: Outcome) -> None:
    reverse.outcome = outcome
    change = reverse.start(0)
    assert change is not None
    assert isinstance(change.after, Unbound)
    assert change.after.outcome is outcome


def test_our_own_address_is_no_peers(reverse: World) -> None:
    reverse.lookup.own = {V4}
    change = reverse.start(0)
    assert change is not None
    assert isinstance(change.after, Unbound)
    assert "this host" in change.after.reason
