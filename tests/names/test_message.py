"""DNS messages: dnspython, which shares no line with ours, writes what we read and reads what we write."""

import contextlib
import struct

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.names import message
from hushwire.names.message import Answer, BadMessage, NoQuery, Question, Record

LABEL = st.binary(min_size=1, max_size=20)
NAME = st.lists(LABEL, max_size=6).map(lambda labels: dns.name.Name([*labels, b""]))


def made(*records: str, authority: tuple[str, ...] = (), question: str = "a.example A") -> dns.message.Message:
    name, rdtype = question.split()
    answer = dns.message.make_response(dns.message.make_query(name, rdtype, want_dnssec=True))
    for section, texts in ((answer.answer, records), (answer.authority, authority)):
        for text in texts:
            owner, kind, rdata = text.split(maxsplit=2)
            section.append(dns.rrset.from_text(f"{owner}.", 300, "IN", kind, rdata))
    return answer


MANY = (
    "a.example CNAME b.c.example.",
    "b.c.example CNAME c.example.",
    "c.example A 192.0.2.1",
    "c.example MX 10 a.example.",
    "c.example SOA ns.c.example. host.c.example. 1 2 3 4 5",
    "c.example SRV 1 2 3 a.example.",
    "c.example TXT text",
    "c.example NS ns.c.example.",
    "c.example TYPE65400 \\# 3 010203",
)


@given(NAME, st.integers(1, 65279).filter(lambda rdtype: rdtype != message.OPT), st.booleans(), st.integers(0, 65535))
def test_a_question_is_read_as_it_was_written(name: dns.name.Name, rdtype: int, dnssec: bool, number: int) -> None:
    rrset = dns.rrset.RRset(name, dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype))
    written = dns.message.QueryMessage(number)
    written.question.append(rrset)
    written.use_edns(0, dns.flags.DO if dnssec else 0, 1400)
    query = message.read_query(written.to_wire())
    assert (query.id, query.dnssec, query.udp_size) == (number, dnssec, 1400)
    assert query.question == Question(name.to_wire().lower(), rdtype, 1)
    assert dns.name.from_text(message.presentation(name.to_wire())) == name


@given(st.binary(max_size=600))
def test_any_octets_give_a_question_or_what_to_say(octets: bytes) -> None:
    for said in (octets, bytes(4) + struct.pack("!4H", 1, 0, 0, 1) + octets):
        told = b""
        try:
            message.read_query(said)
        except NoQuery as no:
            told = no.reply
        # What is told is an answer, so that nobody answers it.
        assert told == b"" or told[2] & 0x80


@given(st.binary(max_size=600), st.integers(0, 60), st.integers(0, 255))
def test_any_octets_give_an_answer_or_an_error(octets: bytes, position: int, octet: int) -> None:
    spoilt = bytearray(made(*MANY).to_wire())
    spoilt[12 + position] = octet
    for said in (octets, bytes(4) + struct.pack("!4H", 1, 3, 3, 3) + octets, bytes(spoilt)):
        with contextlib.suppress(BadMessage):
            answer = message.read_answer(said, secure=False)
            message.write_body(Question(b"\1a\7example\0", 1, 1), answer, dnssec=True)


def test_an_answer_goes_through_unharmed() -> None:
    theirs = made(*MANY, authority=("example SOA ns.example. host.example. 1 2 3 4 5",))
    octets = dns.message.make_query("A.eXample", "A", want_dnssec=True).to_wire()
    query = message.read_query(octets)
    answer = message.read_answer(theirs.to_wire(), secure=True)
    body = message.write_body(query.question, answer, dnssec=True)
    ours = dns.message.from_wire(message.write_reply(query, body, 4096))
    assert ours.answer == theirs.answer
    assert ours.authority == theirs.authority
    assert str(ours.question[0].name) == "A.eXample."
    assert ours.flags & dns.flags.AD
    # Compressed no worse than by others.
    assert len(message.write_reply(query, body, 4096)) <= len(theirs.to_wire())


def test_times_to_live_pass_and_are_capped() -> None:
    query = message.read_query(dns.message.make_query("a.example", "A").to_wire())
    body = message.write_body(query.question, message.read_answer(made(*MANY).to_wire(), False), dnssec=False)
    for age, cap, left in ((0, None, 300), (10, None, 290), (400, None, 0), (0, 60, 60), (290, 60, 10), (0, 0, 0)):
        reply = dns.message.from_wire(message.write_reply(query, body, 4096, age, cap))
        assert {rrset.ttl for rrset in reply.answer} == {left}


@pytest.mark.parametrize(
    "octets",
    [
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\1a\xc0\x0c\0\1\0\1",
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + b"\xc0\x20\0\1\0\1" + b"\0" * 30,
        struct.pack("!6H", 0, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
    ],
)
def test_pointers_that_loop_or_lead_forward(octets: bytes) -> None:
    with pytest.raises(BadMessage):
        message.read_answer(octets, secure=False)


def test_an_alias_that_leads_to_itself_ends() -> None:
    answer = message.read_answer(made("a.example CNAME b.example.", "b.example CNAME a.example.").to_wire(), False)
    aliases, end = message.chain(Question(b"\1a\7example\0", 1, 1), answer)
    assert (len(aliases), end) == (2, b"\1a\7example\0")


def test_a_reason_that_is_too_long_is_cut_between_characters() -> None:
    query = message.read_query(dns.message.make_query("a.example", "A", use_edns=0).to_wire())
    reply = dns.message.from_wire(message.write_error(query, message.SERVFAIL, message.BLOCKED, "ä" * 500))
    (option,) = reply.options
    assert option.text == "ä" * 100  # type: ignore[attr-defined]


@given(st.binary(max_size=60))
def test_any_octets_of_a_service_binding(rdata: bytes) -> None:
    with contextlib.suppress(BadMessage):
        message.without_hints(Record(b"\0", message.HTTPS, 1, 60, rdata))


def test_an_answer_without_records_holds_for_no_time() -> None:
    assert Answer(0).ttl == 0
