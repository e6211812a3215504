"""daemon.signatures: how long a name is good for, read from what a validator validated."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import dns.message
import dns.query
import dns.rdatatype
import pytest

from hushwire.daemon.signatures import read_signed
from hushwire.daemon.unbound import Configuration
from hushwire.events import Lookup, Outcome
from hushwire.lab.dns import SignedWorld

NAME = "alice.example"


@pytest.fixture(scope="module")
def world() -> Iterator[SignedWorld]:
    with SignedWorld() as world:
        world.publish(NAME, [IPv4Address("192.0.2.1")])
        yield world


def configuration(world: SignedWorld) -> Configuration:
    return Configuration(str(world.anchor_path), forward=(world.forward,), timeout=3)


def test_every_link_of_the_zone_is_looked_at(world: SignedWorld) -> None:
    """The records, what denies others, the zone's keys, and what its parent says of them."""
    reading = read_signed(configuration(world), [Lookup(7, NAME, 1), Lookup(7, NAME, 28)])
    assert [answer.outcome for answer in reading.answers] == [Outcome.SECURE, Outcome.DENIED]
    assert [answer.outcome for answer in reading.chain] == [Outcome.SECURE, Outcome.SECURE]
    found = {(signature.covered, signature.owner): signature for signature in reading.signatures}
    assert {("A", f"{NAME}."), ("NSEC", f"{NAME}."), ("DNSKEY", f"{NAME}."), ("DS", f"{NAME}.")} <= found.keys()
    assert found["DS", f"{NAME}."].signer == "example."
    assert list(reading.signatures) == sorted(reading.signatures, key=lambda signature: signature.expires)


@pytest.mark.parametrize("rdtype", ["A", "DNSKEY", "DS"])
def test_the_time_is_the_signatures_own(world: SignedWorld, rdtype: str) -> None:
    question = dns.message.make_query(NAME, rdtype, want_dnssec=True)
    answer = dns.query.udp(question, world.address, port=world.port, timeout=3)
    (rrsig,) = (rdata for rrset in answer.answer if rrset.rdtype == dns.rdatatype.RRSIG for rdata in rrset)
    reading = read_signed(configuration(world), [Lookup(1, NAME, 1)])
    (ours,) = (one for one in reading.signatures if (one.covered, one.owner) == (rdtype, f"{NAME}."))
    assert (ours.expires, ours.original_ttl) == (rrsig.expiration, rrsig.original_ttl)
    assert time.time() < ours.expires < time.time() + 30 * 86400


def test_what_is_not_validated_has_no_say(world: SignedWorld) -> None:
    for name, outcome in (("bogus.example", Outcome.ERROR), ("expired.example", Outcome.ERROR)):
        reading = read_signed(configuration(world), [Lookup(1, name, 1)])
        assert [answer.outcome for answer in reading.answers] == [outcome]
        assert (reading.chain, reading.signatures) == ([], ())


@pytest.mark.parametrize("anchored", [".", NAME])
def test_a_zone_that_is_trusted_by_itself_needs_no_ds(world: SignedWorld, anchored: str) -> None:
    """Control: below the root's anchor it is asked for."""
    if anchored == ".":
        trusting = configuration(world)
    else:
        question = dns.message.make_query(NAME, "DS", want_dnssec=True)
        answer = dns.query.udp(question, world.address, port=world.port, timeout=3)
        anchors = tuple(f"{NAME}. DS {rdata}" for rdata in answer.answer[0])
        trusting = Configuration("", anchors, forward=(world.forward,), timeout=3)
    reading = read_signed(trusting, [Lookup(1, NAME, 1)])
    assert [answer.outcome for answer in (*reading.answers, *reading.chain)][:2] == [Outcome.SECURE] * 2
    assert [answer.rdtype for answer in reading.chain] == ([48, 43] if anchored == "." else [48])
