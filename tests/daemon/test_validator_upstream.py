"""The validator and an upstream that is silent, gone, talks nonsense, or asks too much: rows 45 and 48, and bad input.

Each guard has its control, in which it is out.
"""

import gc
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address

import dns.exception
import dns.message
import dns.name
import dns.query
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from dns.rdatatype import RdataType

from hushwire.crypto.keys import PublicKey
from hushwire.daemon import unbound
from hushwire.daemon.unbound import Validator
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab import authority, defects
from hushwire.lab.asking import ask, trusting
from hushwire.lab.defects import STRANGER, Defect
from hushwire.lab.evil import EvilWorld
from hushwire.names.binding import A
from hushwire.names.ipseckey import IPSECKEY

ALICE, BOB, VICTIM = "alice.example", "bob.example", "victim.example"
V4 = IPv4Address("192.0.2.1")
KEY = PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
ALL = ("A", "AAAA", "IPSECKEY", "TLSA", "DS", "DNSKEY", "NS", "SOA")


@pytest.fixture(scope="module")
def served() -> Iterator[EvilWorld]:
    with EvilWorld() as world:
        world.add_zone("honest.example")
        for name in (ALICE, VICTIM, "*.many.unsigned.example"):
            world.publish(name, [V4], [KEY])
        yield world


@pytest.fixture
def world(served: EvilWorld) -> Iterator[EvilWorld]:
    yield served
    served.behave()
    # What a flood left behind is served first.
    dns.query.udp(dns.message.make_query(".", "SOA"), served.address, port=served.port, timeout=10)


@pytest.fixture
def validator(world: EvilWorld) -> Iterator[Validator]:
    with closing(Validator(trusting(world, timeout=1))) as validator:
        yield validator


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the library with other options."""

    def options(**others: str) -> None:
        changed = {name.replace("_", "-"): value for name, value in others.items()}
        monkeypatch.setattr(unbound, "OPTIONS", tuple((dict(unbound.OPTIONS) | changed).items()))

    return options


@pytest.fixture
def gently(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few questions at once that the world's one thread answers each in time, whatever else the machine does."""
    monkeypatch.setattr(unbound, "MAX_IN_FLIGHT", 16)


def many(count: int, below: str) -> list[Lookup]:
    """Names that nobody has asked for."""
    salt = os.urandom(4).hex()
    return [Lookup(0, f"n{salt}-{number}.{below}", A) for number in range(count)]


def honest(world: EvilWorld, validator: Validator) -> bool:
    """Whether a question nobody has asked is answered as it should be, now."""
    (fresh,) = many(1, "honest.example")
    world.publish(fresh.name, [V4])
    (answer,) = ask(validator, fresh)
    world.withdraw(fresh.name)
    return (answer.outcome, answer.rdata) == (Outcome.SECURE, (V4.packed,))


# Row 45.


@pytest.mark.usefixtures("gently")
def test_row_45_random_names_by_the_thousand(world: EvilWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unbound, "MAX_WAITING", 256)
    with closing(Validator(trusting(world))) as validator:
        reasons = Counter(answer.reason for answer in ask(validator, *many(2000, "many.unsigned.example")))
        assert reasons == {"too many questions at once": 2000 - 16 - 256, "": 16 + 256}
        assert honest(world, validator)


def test_control_without_the_bound_all_are_taken(world: EvilWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.misbehave("silent.example", defects.drop)
    monkeypatch.setattr(unbound, "MAX_WAITING", 10**6)
    with closing(Validator(trusting(world, timeout=0.2))) as validator:
        reasons = Counter(answer.reason for answer in ask(validator, *many(4000, "silent.example")))
    assert reasons["too many questions at once"] == 0
    assert reasons["not asked within 0.2 s"] > 0


def test_row_45_nobody_answers_and_the_honest_are(world: EvilWorld) -> None:
    world.misbehave("silent.example", defects.drop)
    with closing(Validator(trusting(world, timeout=0.5))) as validator:
        assert honest(world, validator)
        assert {answer.outcome for answer in ask(validator, *many(500, "silent.example"))} == {Outcome.ERROR}
        assert wait_until(lambda: honest(world, validator), seconds=4)
    assert descriptors() <= before_anything(world)


def test_row_45_nobody_answers_and_nothing_grows(world: EvilWorld, options: Callable[..., None]) -> None:
    # Ten seconds and two attempts, in the time that a test has.
    options(infra_cache_max_rtt="500", outbound_msg_retry="1")
    assert growth(world) < 4 << 20


def test_control_with_the_librarys_patience_it_grows(world: EvilWorld, options: Callable[..., None]) -> None:
    options(infra_cache_max_rtt="120000", outbound_msg_retry="5")
    assert growth(world) > 4 << 20


def growth(world: EvilWorld) -> int:
    """Octets that a thousand questions more take, when as many have been asked before."""
    world.misbehave("", defects.drop, types=ALL)
    with closing(Validator(trusting(world, timeout=0.3))) as validator:
        for _ in range(4):
            ask(validator, *many(250, "silent.example"))
        gc.collect()
        before = resident()
        for _ in range(4):
            ask(validator, *many(250, "silent.example"))
        gc.collect()
        return resident() - before


def before_anything(world: EvilWorld) -> int:
    """Descriptors without any Validator.  Control: with one that is not closed there are more."""
    without = descriptors()
    validator = Validator(trusting(world))
    assert honest(world, validator)
    assert descriptors() > without
    validator.close()
    assert descriptors() == without
    return without


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Octets of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("steps", "outcome"), [(8, Outcome.SECURE), (40, Outcome.ERROR)])
def test_chains_of_aliases(world: EvilWorld, validator: Validator, steps: int, outcome: Outcome) -> None:
    for step in range(steps):
        world.set(f"s{step}.{steps}.bob.example", {"CNAME": [f"s{step + 1}.{steps}.bob.example."]})
    world.publish(f"s{steps}.{steps}.bob.example", [V4])
    world.asked.clear()
    (answer,) = ask(validator, Lookup(0, f"s0.{steps}.bob.example", A))
    assert answer.outcome is outcome
    assert sum(times for (asked, _), times in world.asked.items() if "bob" in asked) <= 40
    assert honest(world, validator)
    # Control: the chain is whole, and who sets no bound comes to its end.
    assert followed(world, f"s0.{steps}.bob.example", 100) == (steps, V4.packed)


def followed(world: EvilWorld, name: str, bound: int) -> tuple[int, bytes | None]:
    """How many aliases somebody follows who sets this bound, and the address that he comes to."""
    for steps in range(bound):
        question = dns.message.make_query(name, A)
        for rrset in dns.query.tcp(question, world.address, port=world.port, timeout=5).answer:
            if rrset.name.to_text(omit_final_dot=True) == name:
                if rrset.rdtype == A:
                    return steps, IPv4Address(rrset[0].to_text()).packed
                alias = rrset[0].to_text().removesuffix(".")
        name = alias
    return bound, None


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("self.bob.example", {"self": "CNAME self"}),
        ("two.bob.example", {"two": "CNAME to", "to": "CNAME two"}),
        ("below.down.bob.example", {"down": "DNAME deeper.down"}),
    ],
)
def test_aliases_that_lead_nowhere(world: EvilWorld, validator: Validator, name: str, records: dict[str, str]) -> None:
    for owner, record in records.items():
        rdtype, target = record.split()
        world.set(f"{owner}.bob.example", {rdtype: [f"{target}.bob.example."]})
    world.asked.clear()
    (answer,) = ask(validator, Lookup(0, name, A))
    assert answer.outcome is Outcome.ERROR
    assert sum(times for (asked, _), times in world.asked.items() if "bob" in asked) <= 40
    assert honest(world, validator)
    # Control: who sets no bound is led on.
    assert followed(world, name, 15) == (15, None)


# A dead upstream.


@pytest.mark.parametrize("dead", ["stopped", "silent"])
def test_a_dead_upstream_comes_back(world: EvilWorld, options: Callable[..., None], dead: str) -> None:
    # The library doubles its patience up to here, which by default takes a minute, and then gives a server up.
    options(infra_cache_max_rtt="500", infra_host_ttl="1")
    with closing(Validator(trusting(world, timeout=1))) as validator:
        die(world, validator, dead)
        assert wait_until(lambda: honest(world, validator), seconds=4)


def test_control_given_up_for_a_quarter_of_an_hour(world: EvilWorld, options: Callable[..., None]) -> None:
    options(infra_cache_max_rtt="500", infra_host_ttl="900")
    with closing(Validator(trusting(world, timeout=1))) as validator:
        die(world, validator, "silent")
        assert not wait_until(lambda: honest(world, validator), seconds=2)


def die(world: EvilWorld, validator: Validator, how: str) -> None:
    """Be dead until the library has given the server up, and then alive again."""
    assert honest(world, validator)
    if how == "stopped":
        world.stop()
    else:
        world.misbehave("", defects.drop, types=ALL)
    try:
        for _ in range(40):
            begun = time.monotonic()
            (answer,) = ask(validator, *many(1, "honest.example"))
            assert answer.outcome is Outcome.ERROR
            if answer.reason == "SERVFAIL" and time.monotonic() - begun < 0.1:
                break
            time.sleep(0.05)
        assert answer.reason == "SERVFAIL"
    finally:
        if how == "stopped":
            world.start()
        world.behave()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


# Row 48.


@pytest.mark.parametrize("years", [-5, 5])
def test_row_48_a_wrong_clock_is_an_error(world: EvilWorld, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    with monkeypatch.context() as wrong:
        set_clock(wrong, years)
        for name in (ALICE, BOB):
            with closing(Validator(trusting(world))) as validator:
                assert ask(validator, Lookup(0, name, IPSECKEY))[0].outcome is Outcome.ERROR
    # Control: with the right one they are a key, and the proof that there is none.
    with closing(Validator(trusting(world))) as validator:
        outcomes = [answer.outcome for answer in ask(validator, Lookup(0, ALICE, IPSECKEY), Lookup(0, BOB, IPSECKEY))]
    assert outcomes == [Outcome.SECURE, Outcome.DENIED]


def test_row_48_a_clock_that_jumps_and_is_set_right(
    world: EvilWorld, validator: Validator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are forgiven after five seconds, keys after a minute: that is the library's, and cannot be changed."""
    assert honest(world, validator)
    with monkeypatch.context() as wrong:
        set_clock(wrong, 5)
        assert not honest(world, validator)
    assert honest(world, validator)


def set_clock(patch: pytest.MonkeyPatch, years: int) -> None:
    """That the world's is wrong, and ours right, is to a validator the same."""
    patch.setattr(authority, "clock", lambda: time.time() + years * 365 * 86400)


def test_control_by_another_date_the_signatures_are_good(world: EvilWorld, options: Callable[..., None]) -> None:
    for date, outcome in (("20300101000000", Outcome.ERROR), ("-1", Outcome.DENIED)):
        options(val_override_date=date)
        with closing(Validator(trusting(world))) as validator:
            assert ask(validator, Lookup(0, BOB, IPSECKEY))[0].outcome is outcome


# Octets.


@pytest.mark.parametrize(
    "defect",
    [defects.cut, defects.loop, defects.wrong_id, defects.wrong_question, defects.empty_message, defects.drop],
)
def test_what_is_no_answer_is_an_error(world: EvilWorld, validator: Validator, defect: Defect) -> None:
    world.misbehave(ALICE, defect, types=["A"])
    (answer,) = ask(validator, Lookup(0, ALICE, A))
    assert answer.outcome is Outcome.ERROR
    assert honest(world, validator)


@pytest.mark.parametrize("defect", [defects.pad, defects.from_elsewhere, defects.out_of_bailiwick])
def test_what_comes_besides_the_answer_is_ignored(world: EvilWorld, validator: Validator, defect: Defect) -> None:
    world.misbehave(ALICE, defect, types=["A"])
    world.asked.clear()
    answer, victim = ask(validator, Lookup(0, ALICE, A), Lookup(0, VICTIM, A))
    assert [(each.outcome, each.rdata) for each in (answer, victim)] == [(Outcome.SECURE, (V4.packed,))] * 2
    assert world.asked[VICTIM, "A"] == 1


def test_control_the_lies_are_there(world: EvilWorld) -> None:
    """Who takes all that comes is lied to."""
    question = dns.message.make_query(ALICE, "A")
    world.misbehave(ALICE, defects.out_of_bailiwick)
    besides = dns.query.udp(question, world.address, port=world.port, timeout=5).get_rrset(
        "ANSWER", dns.name.from_text(VICTIM), question.question[0].rdclass, RdataType.A
    )
    assert besides is not None
    assert besides[0].to_text() == STRANGER
    world.misbehave(ALICE, defects.from_elsewhere)
    with pytest.raises(dns.query.UnexpectedSource):
        dns.query.udp(question, world.address, port=world.port, timeout=5)


@pytest.mark.parametrize(
    ("defect", "name"), [(defects.redirect, ALICE), (defects.redirect_above, f"www.{ALICE}")], ids=["alias", "dname"]
)
def test_a_redirection_that_nobody_signed(
    world: EvilWorld, options: Callable[..., None], defect: Defect, name: str
) -> None:
    for target in ("evil.example", "www.evil.example"):
        world.publish(target, [IPv4Address(STRANGER)])
    world.publish(f"www.{ALICE}", [V4])
    world.misbehave(name, defect)
    for modules, outcome in (("validator iterator", Outcome.ERROR), ("iterator", Outcome.INSECURE)):
        options(module_config=modules)
        with closing(Validator(trusting(world))) as validator:
            (answer,) = ask(validator, Lookup(0, name, A))
        # Control: without validation it leads to the attacker.
        assert (answer.outcome, answer.rdata) == (
            outcome, () if outcome is Outcome.ERROR else (IPv4Address(STRANGER).packed,)
        )  # fmt: skip


def fuzzed(world: EvilWorld, validator: Validator) -> list[Answered]:
    """The answers to 300 questions, each of whose answers was mutated."""
    lookups = many(300, "fuzzed.example")
    for lookup in lookups:
        world.publish(lookup.name, [V4])
    for seed, lookup in enumerate(lookups):
        world.misbehave(lookup.name, defects.mutate(seed))
    return ask(validator, *lookups)


@pytest.mark.usefixtures("gently")
def test_mutations_of_a_good_answer(world: EvilWorld) -> None:
    with closing(Validator(trusting(world))) as validator:
        answers = fuzzed(world, validator)
        for answer in answers:
            assert answer.outcome is Outcome.ERROR or (answer.outcome, answer.rdata) == (Outcome.SECURE, (V4.packed,))
        assert Counter(answer.outcome for answer in answers)[Outcome.ERROR] > 100
        assert wait_until(lambda: honest(world, validator), seconds=3)


@pytest.mark.usefixtures("gently")
def test_control_some_mutations_are_answers(world: EvilWorld, options: Callable[..., None]) -> None:
    options(module_config="iterator")
    with closing(Validator(trusting(world))) as validator:
        answers = fuzzed(world, validator)
    assert [answer for answer in answers if answer.outcome is not Outcome.ERROR and answer.rdata != (V4.packed,)]
