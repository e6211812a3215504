"""The resolver's process and its libunbound, against a real knotd: the four outcomes, and what an attacker may try."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from select import select
from types import SimpleNamespace
from typing import cast

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hushwire.crypto.keys import PublicKey
from hushwire.daemon import resolver, unbound
from hushwire.daemon.channel import Channel, ChannelClosed, pair
from hushwire.daemon.front import Front
from hushwire.daemon.listener import Listener
from hushwire.daemon.unbound import Configuration, Fetched, UnboundError, Validator
from hushwire.events import Answered, Asked, Lookup, Outcome, Release, Verdict
from hushwire.lab.dns import BOGUS, BOGUS_KEY, EXPIRED, SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.lab.resolving import Upstream
from hushwire.names.binding import AAAA, A, Unbound, bind
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, read_records, write_record
from hushwire.names.message import Question
from hushwire.names.tlsa import TLSA, owner

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
KEYS = tuple(
    PublicKey.of(key)
    for key in (
        ed25519.Ed25519PrivateKey.generate().public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    )
)


@pytest.fixture(scope="module")
def world() -> Iterator[SignedWorld]:
    with SignedWorld() as world:
        world.publish("alice.example", [V4, V6], KEYS)
        world.publish("bob.example", [V4])
        world.publish("www.unsigned.example", [V4], KEYS[:1])
        world.set("alias.bob.example", {"CNAME": ["alice.example."]})
        world.set("stray.bob.example", {"CNAME": ["www.unsigned.example."]})
        yield world


@pytest.fixture
def validator(world: SignedWorld) -> Iterator[Validator]:
    with closing(Validator(trusting(world))) as validator:
        yield validator


def trusting(world: SignedWorld, timeout: float = 5.0) -> Configuration:
    return Configuration(anchor_file=str(world.anchor_path), forward=(world.forward,), timeout=timeout)


def ask(validator: Validator, *questions: Lookup) -> list[Answered]:
    """The answers, in the order of the questions; ten seconds at most."""
    end = time.monotonic() + 10
    for question in questions:
        validator.ask(question, time.monotonic())
    answers: dict[int, Answered] = {}
    while len(answers) < len(questions):
        deadline = validator.deadline()
        assert deadline is not None
        assert time.monotonic() < end
        select([validator], [], [], max(0, min(deadline, end) - time.monotonic()))
        answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
    return [answers[question.request] for question in questions]


def three(validator: Validator, name: str) -> tuple[Answered, Answered, Answered]:
    a, aaaa, keys = ask(validator, *(Lookup(rdtype, name, rdtype) for rdtype in (A, AAAA, IPSECKEY)))
    return a, aaaa, keys


def fingerprints(validator: Validator, name: str) -> Answered:
    (tlsa,) = ask(validator, Lookup(TLSA, owner(name), TLSA))
    return tlsa


def test_secure(validator: Validator) -> None:
    a, aaaa, keys = three(validator, "alice.example")
    assert (a.outcome, a.rdata, a.name, a.rdtype) == (Outcome.SECURE, (V4.packed,), "alice.example", A)
    assert (aaaa.outcome, aaaa.rdata) == (Outcome.SECURE, (V6.packed,))
    assert keys.outcome is Outcome.SECURE
    assert 0 < keys.ttl <= 5
    records, skipped = read_records(keys.rdata)
    assert {record.key for record in records} == set(KEYS)
    assert skipped == ()
    bound = bind("alice.example", a, aaaa, keys, fingerprints(validator, "alice.example"))
    assert bound.addresses == (V6, V4)


def test_denied(validator: Validator) -> None:
    a, aaaa, keys = three(validator, "bob.example")
    assert (a.outcome, aaaa.outcome, keys.outcome) == (Outcome.SECURE, Outcome.DENIED, Outcome.DENIED)
    assert (keys.rdata, keys.reason) == ((), "")
    assert 0 < keys.ttl <= 5
    nowhere = three(validator, "nowhere.bob.example")
    assert {answer.outcome for answer in nowhere} == {Outcome.DENIED}


def test_insecure(validator: Validator) -> None:
    a, aaaa, keys = three(validator, "www.unsigned.example")
    assert (a.outcome, aaaa.outcome, keys.outcome) == (Outcome.INSECURE,) * 3
    assert a.rdata == (V4.packed,)
    assert aaaa.rdata == ()
    with pytest.raises(Unbound) as caught:
        bind("www.unsigned.example", a, aaaa, keys, fingerprints(validator, "www.unsigned.example"))
    assert caught.value.outcome is Outcome.INSECURE


@pytest.mark.parametrize(("name", "why"), [(BOGUS, "verification failed"), (EXPIRED, "expired")])
def test_bogus(validator: Validator, name: str, why: str) -> None:
    """Row 30: the signature is wrong or too old; nothing of the answer comes through but why."""
    for answer in three(validator, name):
        assert (answer.outcome, answer.rdata) == (Outcome.ERROR, ())
        assert name in answer.reason
        assert why in answer.reason
        assert answer.reason.isprintable()


def test_control_without_an_anchor_for_it_the_forged_zone_is_believed(world: SignedWorld) -> None:
    """What stops bogus.example is validation: trust alice.example alone, and its keys come through, as insecure."""
    anchors = tuple(f"alice.example. DS {ds}" for ds in world.ds("alice.example"))
    configuration = Configuration(anchor_file="", anchors=anchors, forward=(world.forward,))
    with closing(Validator(configuration)) as validator:
        for name in (BOGUS, EXPIRED):
            *_, keys = three(validator, name)
            assert keys.outcome is Outcome.INSECURE
            assert keys.rdata[0].endswith(BOGUS_KEY)
        assert three(validator, "alice.example")[2].outcome is Outcome.SECURE


def test_aliases(validator: Validator) -> None:
    """An alias answers for the name as asked; one into an unsigned zone makes the whole answer insecure."""
    a, aaaa, keys = three(validator, "alias.bob.example")
    tlsa = fingerprints(validator, "alias.bob.example")
    bound = bind("alias.bob.example", a, aaaa, keys, tlsa)
    assert (bound.addresses, bound.canonical) == ((V6, V4), a.canonical)
    assert a.canonical
    for answer in three(validator, "stray.bob.example"):
        assert answer.outcome is Outcome.INSECURE


def test_a_fingerprint_below_the_name(world: SignedWorld, validator: Validator) -> None:
    """RFC 6698 s3: `_500._udp.NAME`, of a name that has addresses and no IPSECKEY; and of one that has neither."""
    name = "vouched.alice.example"
    world.publish(name, [V4])
    world.set(owner(name), {"TLSA": [f"3 1 1 {KEYS[0].fingerprint.hex()}"]})
    a, aaaa, keys = three(validator, name)
    assert keys.outcome is Outcome.DENIED
    assert bind(name, a, aaaa, keys, fingerprints(validator, name)).fingerprints == (KEYS[0].fingerprint,)
    assert fingerprints(validator, "bob.example").outcome is Outcome.DENIED
    assert fingerprints(validator, "www.unsigned.example").outcome is Outcome.INSECURE
    assert fingerprints(validator, BOGUS).outcome is Outcome.ERROR


def test_rollover_is_seen_after_the_ttl(world: SignedWorld, validator: Validator) -> None:
    world.publish("roll.alice.example", [V4], KEYS[:1])
    before = three(validator, "roll.alice.example")[2]
    world.publish("roll.alice.example", [V4], KEYS[1:2])
    time.sleep(before.ttl + 1)
    after = three(validator, "roll.alice.example")[2]
    assert before.rdata == (write_record(KeyRecord(10, None, KEYS[0])),)
    assert after.rdata == (write_record(KeyRecord(10, None, KEYS[1])),)


def test_two_hundred_records(world: SignedWorld, validator: Validator) -> None:
    """Row 42: more than a datagram holds, over TCP, and all of it handed on."""
    many = [KeyRecord(number, None, KEYS[0]) for number in range(200)]
    world.publish("many.alice.example", [V4], many)
    assert len(three(validator, "many.alice.example")[2].rdata) == 200


def test_silence_is_an_error(world: SignedWorld) -> None:
    """Row 31: the question is dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        forward = f"127.0.0.1@{mute.getsockname()[1]}"
        configuration = Configuration(str(world.anchor_path), forward=(forward,), timeout=0.5)
        with closing(Validator(configuration)) as validator:
            start = time.monotonic()
            answers = three(validator, "alice.example")
            assert 0.4 < time.monotonic() - start < 5
            assert [answer.outcome for answer in answers] == [Outcome.ERROR] * 3
            assert "no answer in 0.5 s" in answers[0].reason
            # An answer that the library gives after all belongs to nobody.
            time.sleep(0.1)
            assert validator.answered(time.monotonic()) == []
            assert validator.deadline() is None


def test_waiting_too_long_is_an_error(world: SignedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind a question that hangs are told in time, too."""
    monkeypatch.setattr(unbound, "MAX_IN_FLIGHT", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        forward = f"127.0.0.1@{mute.getsockname()[1]}"
        with closing(Validator(Configuration(str(world.anchor_path), forward=(forward,), timeout=0.3))) as validator:
            start = time.monotonic()
            answers = three(validator, "alice.example")
            assert time.monotonic() - start < 4
            assert [answer.outcome for answer in answers] == [Outcome.ERROR] * 3


def test_nobody_there_is_an_error(world: SignedWorld) -> None:
    configuration = Configuration(str(world.anchor_path), forward=(f"127.0.0.1@{free_port()}",), timeout=1)
    with closing(Validator(configuration)) as validator:
        assert three(validator, "alice.example")[2].outcome is Outcome.ERROR


def test_stripped_signatures_and_forged_ad_bit_are_an_error(world: SignedWorld) -> None:
    """Rows 31 and 32: somebody on the path takes RRSIGs away, says AD, and puts his own key."""
    with Upstream(lambda octets: stripped(octets, world.port)) as port:
        configuration = Configuration(str(world.anchor_path), forward=(f"127.0.0.1@{port}",), timeout=4)
        with closing(Validator(configuration)) as validator:
            assert [answer.outcome for answer in three(validator, "alice.example")] == [Outcome.ERROR] * 3
        # The control: to one who trusts no anchor above the name, the same relay's answers look like data.
        configuration = Configuration("", (FOREIGN_ANCHOR,), (f"127.0.0.1@{port}",), 4)
        with closing(Validator(configuration)) as validator:
            a = three(validator, "alice.example")[0]
            assert (a.outcome, a.rdata) == (Outcome.INSECURE, (V4.packed,))


FOREIGN_ANCHOR = "foreign.test. DS 6743 13 2 " + "4f" * 32


def test_servfail_and_refused_are_an_error(world: SignedWorld) -> None:
    """Row 31, the polite form."""
    for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):

        def answer(octets: bytes, rcode: dns.rcode.Rcode = rcode) -> bytes:
            reply = dns.message.make_response(dns.message.from_wire(octets))
            reply.set_rcode(rcode)
            return reply.to_wire()

        with Upstream(answer) as port:
            configuration = Configuration(str(world.anchor_path), forward=(f"127.0.0.1@{port}",), timeout=4)
            with closing(Validator(configuration)) as validator:
                answers = three(validator, "alice.example")
        assert [answer.outcome for answer in answers] == [Outcome.ERROR] * 3
        assert {answer.reason for answer in answers} == {"SERVFAIL"}


def stripped(octets: bytes, upstream: int) -> bytes:
    """The upstream's answer without a trace of DNSSEC, but for the AD bit, which says that all was checked."""
    dnssec = {dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.DNSKEY, dns.rdatatype.DS}
    answer = dns.query.tcp(dns.message.from_wire(octets), "127.0.0.1", port=upstream, timeout=2)
    for section in answer.sections[1:]:
        section[:] = [rrset for rrset in section if rrset.rdtype not in dnssec]
    answer.flags |= dns.flags.AD
    return answer.to_wire()


@pytest.mark.parametrize(
    "name", ["", "alice.example\0.evil", "a\\.b.example", "alice..example", "x" * 300, "b\xfccher.example"]
)
def test_what_is_no_name_is_not_asked(validator: Validator, name: str) -> None:
    (answer,) = ask(validator, Lookup(1, name, A))
    assert answer.outcome is Outcome.ERROR
    assert "no host name" in answer.reason


def test_many_questions_at_once(world: SignedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are taken: the rest are refused at once, and those that wait are answered."""
    monkeypatch.setattr(unbound, "MAX_IN_FLIGHT", 4)
    monkeypatch.setattr(unbound, "MAX_WAITING", 50)
    with closing(Validator(trusting(world))) as validator:
        answers = ask(validator, *(Lookup(number, f"n{number}.bob.example", A) for number in range(100)))
    outcomes = [answer.outcome for answer in answers]
    assert outcomes == [Outcome.DENIED] * 54 + [Outcome.ERROR] * 46


def test_closing_with_questions_open(world: SignedWorld) -> None:
    for _ in range(5):
        validator = Validator(trusting(world))
        for number in range(20):
            validator.ask(Lookup(number, f"n{number}.bob.example", A), time.monotonic())
        validator.close()
        validator.close()


@pytest.mark.parametrize(
    ("configuration", "reason"),
    [
        (Configuration(anchor_file=""), "no trust anchor"),
        (Configuration(anchor_file="/nonexistent/root.key"), "/nonexistent/root.key: No such file"),
        (Configuration(forward=("not an address",)), "forward not an address"),
    ],
)
def test_configurations_refused(configuration: Configuration, reason: str) -> None:
    with pytest.raises(UnboundError, match=reason):
        Validator(configuration)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("this is no anchor\n", "anchor: "),
        ("\xff", "anchor: "),
        (". DS 1 13 2 zz\n", "anchor: "),
        ("", "no trust anchor"),
        (". NS ns.example.\n", "no trust anchor"),
    ],
)
def test_an_anchor_file_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "anchor"
    path.write_text(text)
    with pytest.raises(UnboundError, match=reason):
        Validator(Configuration(str(path)))


def test_an_anchor_that_the_library_does_not_take_is_refused() -> None:
    with pytest.raises(UnboundError, match="trust anchor"):
        Validator(Configuration("", ("this is no anchor",)))


def test_the_distributions_anchor_is_read() -> None:
    Validator(Configuration()).close()


@pytest.mark.lab
def test_the_process(world: SignedWorld, tmp_path: Path) -> None:
    """main() in a process of its own: it needs no file and no privilege from the first question on, and ends when its
    channel is closed."""
    ours, theirs = pair()
    confined, confine = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            ours.close()

            def drop() -> None:
                os.chroot(tmp_path)
                os.setgid(65534)
                os.setuid(65534)
                os.write(confine, b"!")

            resolver.main(Channel(theirs), trusting(world), drop)
            os._exit(0)
        finally:
            os._exit(1)
    theirs.close()
    channel = Channel(ours)
    channel.send(Lookup(7, "alice.example", A), Lookup(8, "bogus.example", A))
    answers: dict[int, Answered] = {}
    while len(answers) < 2:
        assert select([channel], [], [], 10)[0]
        answers |= {answer.request: answer for answer in channel.receive()}
    assert os.read(confined, 1) == b"!"
    assert answers[7] == Answered(7, "alice.example", A, Outcome.SECURE, (V4.packed,), answers[7].ttl)
    assert answers[8].outcome is Outcome.ERROR
    ours.close()
    assert os.waitpid(pid, 0)[1] == 0
    os.close(confined)
    os.close(confine)


def test_main_ends_when_nobody_is_there(world: SignedWorld) -> None:
    ours, theirs = pair()
    ours.close()
    resolver.main(Channel(theirs), trusting(world))
    with pytest.raises(ChannelClosed):
        Channel(theirs).receive()
    theirs.close()


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_front_knows_the_time_when_an_answer_comes(monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """An upstream's answer that comes after a Release has ended is not told by it; the node was asked again.

    The control: nothing but that answer happened since, and the front takes it to be as early as it was then.
    """
    told: list[bytes] = []
    asked: list[Asked] = []
    fetches: list[tuple[Question, Callable[[Fetched], None]]] = []
    front = Front(lambda name: True, lambda question, now, take: fetches.append((question, take)), asked.append)
    name = dns.message.make_query("bob.example", "A")
    front.ask(dns.message.make_query("bob.example", "AAAA").to_wire(), True, told.append, 0.0)
    front.release(Release(asked[0].request, Verdict.ONLY, (V4,), 5), 0.0)
    front.ask(name.to_wire(), True, told.append, 4.9)
    assert len(asked) == 2
    if guard == "out":
        monkeypatch.setattr(front, "expire", lambda now: None)

    class Upstream:
        def fileno(self) -> int:
            return readable.fileno()

        def deadline(self) -> None:
            return None

        def answered(self, now: float) -> list[Answered]:
            answer = dns.message.make_response(name)
            answer.answer.append(dns.rrset.from_text("bob.example.", 300, "IN", "A", str(V4)))
            fetches[-1][1](Fetched(answer.to_wire()))
            return []

    class OneTurn:
        def __init__(self) -> None:
            self.front = front

        def fileno(self) -> int:
            return quiet.fileno()

        def deadline(self) -> None:
            return None

        def serve(self, now: float) -> None:
            raise ChannelClosed

    ours, theirs = pair()
    readable, other = socket.socketpair()
    quiet, silent = socket.socketpair()
    other.send(b"!")
    monkeypatch.setattr(resolver, "time", SimpleNamespace(monotonic=lambda: 7.5))
    with ours, theirs, readable, other, quiet, silent, pytest.raises(ChannelClosed):
        resolver._serve(Channel(theirs), cast(Validator, Upstream()), cast(Listener, OneTurn()), asked)
    assert (told == []) == (guard == "in")
