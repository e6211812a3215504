"""Names that a rule speaks of: what a program is told, when, and that nothing gets round it."""

import threading
import time
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from select import select

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from hushwire.daemon import front
from hushwire.daemon.unbound import Configuration, Fetched, Validator
from hushwire.lab.dns import SignedWorld
from hushwire.lab.resolving import (
    Node,
    Resolver,
    Upstream,
    complaint,
    only,
    passes,
    rdatas,
    refuses,
    resolving,
    trusting,
)
from hushwire.names.message import Question

V4, V6, OTHER = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.9")
RULED = "alice.example"

NAMES = {"alice.example", "alias.bob.example", "mail.bob.example", "mute.alice.example"}


def test_addresses_that_the_node_lets_through(shared: Resolver) -> None:
    answer = shared.ask(RULED, dnssec=True)
    assert rdatas(answer) == {str(V4)}
    assert rdatas(answer, "RRSIG")
    assert answer.flags & dns.flags.AD
    assert rdatas(shared.ask(RULED, "AAAA"), "AAAA") == {str(V6)}
    assert RULED in shared.node.asked


def test_both_families_share_one_asked(signed: SignedWorld) -> None:
    node = Node({RULED: only(V4, V6)}, {RULED: 0.3})
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        threads = [threading.Thread(target=it.ask, args=(RULED, rdtype)) for rdtype in ("A", "AAAA") * 20]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert node.asked == [RULED]


def test_addresses_that_no_dns_has(shared: Resolver) -> None:
    """A synthetic address: made here, so not signed; and nothing of the other family."""
    answer = shared.ask("made.alice.example", dnssec=True)
    assert rdatas(answer) == {str(OTHER)}
    assert not rdatas(answer, "RRSIG")
    assert not answer.flags & dns.flags.AD
    assert answer.answer[0].ttl <= 30
    denied = shared.ask("made.alice.example", "AAAA")
    assert (denied.rcode(), denied.answer) == (dns.rcode.NOERROR, [])
    assert rdatas(shared.ask("absent.alice.example")) == {str(OTHER)}


def test_aliases_stay_in_an_answer_that_is_made(signed: SignedWorld) -> None:
    node = Node({"alias.bob.example": only(OTHER)})
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        answer = it.ask("alias.bob.example", dnssec=True)
        assert rdatas(answer, "CNAME") == {"alias2.bob.example.", f"{RULED}."}
        assert rdatas(answer) == {str(OTHER)}
        assert [str(rrset.name) for rrset in answer.answer][-1] == f"{RULED}."
        assert not rdatas(answer, "RRSIG")


def test_aliases_pass(shared: Resolver) -> None:
    answer = shared.ask("alias.bob.example", "AAAA", dnssec=True)
    assert rdatas(answer, "AAAA") == {str(V6)}
    assert len(rdatas(answer, "CNAME")) == 2
    assert answer.flags & dns.flags.AD
    through = shared.ask("x.dname.bob.example", "TXT", dnssec=True)
    assert through.rcode() == dns.rcode.NXDOMAIN
    assert rdatas(through, "DNAME")


def test_refusal_says_why(shared: Resolver) -> None:
    answer = shared.ask("refused.alice.example")
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
    assert complaint(answer) == (15, "bob proved no key")
    assert shared.ask("refused.alice.example", edns=False).rcode() == dns.rcode.SERVFAIL
    assert shared.ask("refused.alice.example", flags=dns.flags.RD | dns.flags.CD).rcode() == dns.rcode.SERVFAIL


def test_time_to_live_is_never_longer_than_the_policy_stands(signed: SignedWorld) -> None:
    node = Node({RULED: only(V4, V6, ttl=1), "mail.bob.example": passes(1)})
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        for name in (RULED, "mail.bob.example"):
            assert {rrset.ttl for rrset in it.ask(name, dnssec=True).answer} <= {0, 1}
        assert it.ask("plain.bob.example").answer[0].ttl in (1, 2)


def test_a_release_is_remembered_and_the_node_hears_of_use(
    signed: SignedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "REASSERT", 2.5)
    node = Node({RULED: only(V4, V6)})
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        for _ in range(10):
            assert rdatas(it.ask(RULED)) == {str(V4)}
        assert node.asked == [RULED]
        time.sleep(2.6)
        node.delays[RULED] = 3.0
        start = time.monotonic()
        it.ask(RULED)
        # It did not wait for the node, who is being asked again.
        assert time.monotonic() - start < 2.5
        assert node.asked == [RULED] * 2
        # What the node now says is what counts, once it is said.
        time.sleep(3.2)
        node.says[RULED] = refuses("not any more")
        node.delays.clear()
        it.ask(RULED)
        time.sleep(0.5)
        assert it.ask(RULED).rcode() == dns.rcode.SERVFAIL


def test_no_word_from_the_node_is_a_refusal(signed: SignedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it says too late is for nobody."""
    monkeypatch.setattr(front, "PATIENCE", 0.5)
    node = Node({RULED: only(V4, V6)}, {RULED: 1.0})
    with resolving(trusting(signed), node, NAMES.__contains__) as it:
        start = time.monotonic()
        answer = it.ask(RULED)
        assert time.monotonic() - start > 0.4
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert complaint(answer)[0] == 0
        time.sleep(0.7)
        node.delays.clear()
        assert rdatas(it.ask(RULED)) == {str(V4)}
        assert node.asked == [RULED] * 2


def test_a_slow_name_delays_no_other(shared: Resolver) -> None:
    slow = threading.Thread(target=shared.ask, args=("slow.alice.example",))
    start = time.monotonic()
    slow.start()
    time.sleep(0.1)
    for _ in range(5):
        shared.ask(RULED)
        shared.ask("plain.bob.example")
    assert time.monotonic() - start < 3.5
    slow.join()
    assert time.monotonic() - start > 3.9


def test_hints_of_addresses_do_not_get_round_a_rule(shared: Resolver) -> None:
    for name in (RULED, "www.bob.example"):
        answer = shared.ask(name, "HTTPS", dnssec=True)
        (record,) = rdatas(answer, "HTTPS")
        assert 'alpn="h2"' in record
        assert "hint" not in record
        assert not rdatas(answer, "RRSIG")
        assert not answer.flags & dns.flags.AD
    # The control: where no rule speaks of the name, they are there.
    (record,) = rdatas(shared.ask("types.bob.example", "HTTPS"), "HTTPS")
    assert "ipv4hint" in record


def test_any_has_no_address_of_a_name_with_a_rule(shared: Resolver) -> None:
    # The library makes it of what it has.
    for rdtype in ("A", "AAAA", "MX"):
        shared.ask(RULED, rdtype)
        shared.ask("plain.bob.example", rdtype)
    answer = shared.ask(RULED, "ANY", tcp=True)
    assert rdatas(answer, "MX")
    assert not rdatas(answer) | rdatas(answer, "AAAA")
    assert rdatas(shared.ask("plain.bob.example", "ANY", tcp=True))


@pytest.mark.parametrize("rdclass", ["ANY", "CH", "NONE"])
def test_a_class_but_in_has_no_address_of_a_name_with_a_rule(shared: Resolver, rdclass: str) -> None:
    shared.ask("refused.alice.example")
    query = dns.message.make_query("refused.alice.example", "A", rdclass=rdclass)
    octets = shared.datagram(query.to_wire(), timeout=5)
    assert V4.packed not in octets
    assert octets[3] & 15 == dns.rcode.REFUSED


def test_control_the_upstream_tells_addresses_with_class_any(signed: SignedWorld) -> None:
    """So it is the front that does not."""
    name = dns.name.from_text("refused.alice.example").to_wire()
    fetched: list[Fetched] = []
    with closing(Validator(trusting(signed))) as validator:
        for rdclass in (dns.rdataclass.IN, dns.rdataclass.ANY):
            validator.fetch(Question(name, dns.rdatatype.A, rdclass), time.monotonic(), fetched.append)
            while (deadline := validator.deadline()) is not None:
                select([validator], [], [], max(0.0, deadline - time.monotonic()))
                validator.answered(time.monotonic())
    assert [V4.packed in each.packet for each in fetched] == [True, True]


def test_addresses_that_come_along_do_not_get_round_a_rule(signed: SignedWorld) -> None:
    """The upstream adds the addresses of mail servers; of one of them a rule speaks."""

    def answer(octets: bytes) -> bytes:
        query = dns.message.from_wire(octets)
        reply = dns.message.make_response(query)
        if query.question[0].rdtype == dns.rdatatype.MX:
            reply.answer.append(
                dns.rrset.from_text("x.test.example.", 60, "IN", "MX", "1 a.test.example.", "2 b.test.example.")
            )
            for name in ("a", "b"):
                reply.additional.append(dns.rrset.from_text(f"{name}.test.example.", 60, "IN", "A", "192.0.2.1"))
        return reply.to_wire()

    with Upstream(answer) as port:
        configuration = Configuration("", (FOREIGN_ANCHOR,), (f"127.0.0.1@{port}",), 4)
        with resolving(configuration, Node(), lambda name: name == "a.test.example") as it:
            got = it.ask("x.test.example", "MX")
            assert len(rdatas(got, "MX")) == 2
            assert [str(rrset.name) for rrset in got.additional] == ["b.test.example."]


FOREIGN_ANCHOR = "foreign.test. DS 6743 13 2 " + "4f" * 32


@pytest.mark.parametrize("labels", [(b"a b", b"alice", b"example", b""), (b"x.y", b"alice", b"example", b"")])
def test_what_no_host_is_called_gets_round_no_rule(signed: SignedWorld, labels: tuple[bytes, ...]) -> None:
    with resolving(trusting(signed), Node(), lambda name: name.endswith(".alice.example")) as it:
        query = dns.message.make_query(dns.name.Name(labels), "A")
        query.use_edns(0)
        answer = dns.query.udp(query, "127.0.0.1", port=it.port, timeout=5)
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert complaint(answer)[0] == 15
        assert it.node.asked == []
