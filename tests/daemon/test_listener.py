"""The resolver that programs ask, on real sockets: what passes unharmed, what is not answered, and every limit."""

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from hushwire.daemon import front, listener, unbound
from hushwire.daemon.unbound import Configuration
from hushwire.lab.dns import BOGUS, SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.lab.peer import eventually
from hushwire.lab.resolving import (
    TYPES,
    Node,
    Resolver,
    Upstream,
    complaint,
    passes,
    rdatas,
    resolving,
    trusting,
)
from hushwire.wire.address import Endpoint

V4, V6, OTHER = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.9")
RULED = "alice.example"

NAMES = {"alice.example", "alias.bob.example", "mail.bob.example", "mute.alice.example"}


@pytest.mark.parametrize("rdtype", TYPES)
@pytest.mark.parametrize("tcp", [False, True])
def test_every_type_passes_unharmed(shared: Resolver, signed: SignedWorld, rdtype: str, tcp: bool) -> None:
    """The same records, signatures and order of sections as from whom it was forwarded to."""
    ours = shared.ask("types.bob.example", rdtype, dnssec=True, tcp=tcp, payload=4096)
    query = dns.message.make_query("types.bob.example", rdtype, want_dnssec=True, payload=4096)
    theirs = dns.query.tcp(query, signed.address, port=signed.port, timeout=5)
    assert ours.rcode() == theirs.rcode() == dns.rcode.NOERROR
    assert {str(each) for each in canonical(ours.answer)} == {str(each) for each in canonical(theirs.answer)}
    assert rdatas(ours, rdtype)
    assert ours.flags & dns.flags.AD


def canonical(section: Iterable[dns.rrset.RRset]) -> Iterator[str]:
    for rrset in section:
        yield from (f"{rrset.name} {rrset.rdclass} {rrset.rdtype} {rdata}" for rdata in rrset)


def test_what_no_rule_speaks_of_never_waits_for_the_node(shared: Resolver) -> None:
    before = len(shared.node.asked)
    for rdtype in ("A", "AAAA"):
        assert shared.ask("plain.bob.example", rdtype).rcode() == dns.rcode.NOERROR
    assert rdatas(shared.ask("other-alias.bob.example")) == {"192.0.2.7", "192.0.2.8"}
    assert shared.ask("nowhere.bob.example").rcode() == dns.rcode.NXDOMAIN
    assert shared.ask(RULED, "TXT").rcode() == dns.rcode.NOERROR
    assert len(shared.node.asked) == before


def test_denials_come_with_their_proof_for_those_who_ask(shared: Resolver) -> None:
    plain = shared.ask("nowhere.bob.example")
    assert [rrset.rdtype for rrset in plain.authority] == [dns.rdatatype.SOA]
    signed = shared.ask("nowhere.bob.example", dnssec=True)
    assert {rrset.rdtype for rrset in signed.authority} >= {dns.rdatatype.NSEC, dns.rdatatype.RRSIG}


def test_ad_is_for_those_who_ask(shared: Resolver) -> None:
    assert not shared.ask("plain.bob.example").flags & dns.flags.AD
    assert shared.ask("plain.bob.example", flags=dns.flags.RD | dns.flags.AD).flags & dns.flags.AD
    assert shared.ask("plain.bob.example", dnssec=True).flags & dns.flags.AD
    assert not shared.ask("ruled.unsigned.example", dnssec=True).flags & dns.flags.AD


def test_the_questions_spelling_comes_back(shared: Resolver) -> None:
    octets = dns.message.make_query("pLaIn.BoB.eXaMpLe", "A").to_wire()
    answer = shared.datagram(octets)
    assert answer[12:31] == octets[12:31]
    assert answer[:2] == octets[:2]
    parsed = dns.message.from_wire(answer)
    assert str(parsed.answer[0].name) == "pLaIn.BoB.eXaMpLe."
    assert parsed.flags & dns.flags.RA
    assert parsed.flags & dns.flags.RD


def test_bogus_data_only_with_cd(shared: Resolver) -> None:
    answer = shared.ask(BOGUS, edns=0)
    assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
    code, text = complaint(answer)
    assert code == 6
    assert BOGUS in text
    checking_disabled = shared.ask(BOGUS, flags=dns.flags.RD | dns.flags.CD)
    assert rdatas(checking_disabled) == {"192.0.2.66"}
    assert checking_disabled.flags & dns.flags.CD
    assert not checking_disabled.flags & dns.flags.AD


def test_large_answers_are_truncated_and_whole_over_tcp(shared: Resolver) -> None:
    for payload, edns in ((1232, 0), (512, False)):
        short = shared.ask("big.bob.example", "TXT", payload=payload, edns=edns)
        assert short.flags & dns.flags.TC
        assert short.answer == []
    whole = shared.ask("big.bob.example", "TXT", tcp=True)
    assert len(rdatas(whole, "TXT")) == 100
    assert not whole.flags & dns.flags.TC


def test_localhost_is_answered_here(shared: Resolver) -> None:
    for name in ("localhost", "anything.localhost"):
        assert rdatas(shared.ask(name)) == {"127.0.0.1"}
        assert rdatas(shared.ask(name, "AAAA"), "AAAA") == {"::1"}


def test_names_that_no_host_has(shared: Resolver) -> None:
    name = dns.name.Name((b"my printer", b"_ipp", b"_tcp", b"bob", b"example", b""))
    query = dns.message.make_query(name, "TXT")
    assert rdatas(dns.query.udp(query, "127.0.0.1", port=shared.port, timeout=5), "TXT") == {'"a b"'}
    assert shared.ask(".", "SOA").rcode() == dns.rcode.NOERROR


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_dead_upstream_and_its_recovery(signed: SignedWorld) -> None:
    def forward(octets: bytes) -> bytes:
        return dns.query.tcp(dns.message.from_wire(octets), signed.address, port=signed.port, timeout=5).to_wire()

    port = free_port()
    configuration = Configuration(str(signed.anchor_path), forward=(f"127.0.0.1@{port}",), timeout=1.0)
    with resolving(configuration, Node({RULED: passes()}), NAMES.__contains__) as it:
        with Upstream(forward, port):
            assert rdatas(it.ask("plain.bob.example")) == {str(V4)}
        # The library counts whole seconds.
        time.sleep(3.5)
        for name in (RULED, "plain.bob.example"):
            answer = it.ask(name)
            assert (answer.rcode(), answer.answer) == (dns.rcode.SERVFAIL, [])
            assert complaint(answer)[0] in (6, 22)
        with Upstream(forward, port):
            assert eventually(lambda: rdatas(it.ask("plain.bob.example")) == {str(V4)}, 30)
            assert eventually(lambda: rdatas(it.ask(RULED)) == {str(V4)}, 30)


def test_an_answer_is_not_answered(shared: Resolver) -> None:
    """Two forwarders that answer each other would never end."""
    query = dns.message.make_query("plain.bob.example", "A")
    assert shared.datagram(query.to_wire())
    query.flags |= dns.flags.QR
    assert shared.datagram(query.to_wire(), 0.3) == b""
    assert shared.datagram(b"\0" * 11, 0.3) == b""


@pytest.mark.parametrize(
    ("spoil", "rcode"),
    [
        (lambda octets: octets[:4] + b"\0\2" + octets[6:] + octets[12:], 1),
        (lambda octets: octets[:4] + b"\0\0" + octets[6:12], 1),
        (lambda octets: octets[:2] + b"\x20\0" + octets[4:], 4),
        (lambda octets: octets[:-1], 1),
        (lambda octets: octets + b"\0", 1),
        (lambda octets: octets[:12] + b"\xc0\x0c" + octets[-4:], 1),
        (lambda octets: octets[:12] + b"\x3f" * 260 + b"\0" + octets[-4:], 1),
        (lambda octets: octets[:6] + b"\0\1" + octets[8:], 1),
    ],
)
def test_what_is_not_one_question(shared: Resolver, spoil: Callable[[bytes], bytes], rcode: int) -> None:
    octets = dns.message.make_query("plain.bob.example", "A").to_wire()
    answer = shared.datagram(spoil(octets))
    assert answer[:2] == octets[:2]
    assert answer[2] & 0x80
    assert answer[3] & 15 == rcode


def test_edns_of_another_version(shared: Resolver) -> None:
    query = dns.message.make_query("plain.bob.example", "A")
    query.use_edns(1)
    answer = dns.query.udp(query, "127.0.0.1", port=shared.port, timeout=5)
    assert answer.rcode() == dns.rcode.BADVERS
    assert answer.edns == 0


def test_unknown_edns_options_are_ignored(shared: Resolver) -> None:
    query = dns.message.make_query("plain.bob.example", "A")
    query.use_edns(0, options=[dns.edns.GenericOption(65001, b"x" * 100), dns.edns.GenericOption(10, b"12345678")])
    answer = dns.query.udp(query, "127.0.0.1", port=shared.port, timeout=5)
    assert rdatas(answer) == {str(V4)}
    assert answer.edns == 0
    assert shared.ask("plain.bob.example", edns=False).edns == -1


def test_zone_transfers_are_refused(shared: Resolver) -> None:
    query = dns.message.make_query("bob.example", "AXFR")
    answer = dns.message.from_wire(shared.datagram(query.to_wire()))
    assert answer.rcode() == dns.rcode.REFUSED


def test_only_loopback_is_answered() -> None:
    assert listener._is_local(("127.8.9.10", 1))
    assert listener._is_local(("::1", 1))
    for source in ("192.0.2.1", "10.0.0.1", "fe80::1%lo", "::ffff:192.0.2.1"):
        assert not listener._is_local((source, 53))


# --- TCP and limits ---------------------------------------------------------------------------------------------------


def framed(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in messages)


def read_framed(sock: socket.socket) -> bytes:
    stream = sock.makefile("rb")
    return stream.read(int.from_bytes(stream.read(2), "big"))


def test_many_questions_on_one_connection_each_as_soon_as_it_can(shared: Resolver) -> None:
    shared.node.delays["slow.alice.example"] = 1.0
    time.sleep(1)
    queries = [dns.message.make_query(name, "AAAA") for name in ("slow.alice.example", *["plain.bob.example"] * 200)]
    octets = framed(*(query.to_wire() for query in queries))
    with socket.create_connection(("127.0.0.1", shared.port), 5) as sock, sock.makefile("rb") as stream:
        # In pieces, of which none ends where a question does.
        for start in range(0, len(octets), 777):
            sock.sendall(octets[start : start + 777])
        sock.shutdown(socket.SHUT_WR)
        answers = [dns.message.from_wire(stream.read(int.from_bytes(stream.read(2), "big"))) for _ in queries]
        assert stream.read() == b""
    assert {answer.id for answer in answers} == {query.id for query in queries}
    assert answers[-1].id == queries[0].id


class Waiting(front.Front):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda name: False, lambda question, now, take: None, lambda asked: None)
        self.replies: list[partial[None]] = []

    def ask(self, octets: bytes, udp: bool, reply: front.Reply, now: float) -> None:
        self.replies.append(partial(reply, octets[:2] + b"\x80" + octets[3:]))

    def answer(self, count: int) -> None:
        due, self.replies = self.replies[:count], self.replies[count:]
        for reply in due:
            reply()


@contextmanager
def listening() -> Iterator[tuple[Waiting, listener.Listener, socket.socket]]:
    """A listener whose time and answers are ours, and a connection to it."""
    udp, server = listener.open_sockets([Endpoint(IPv4Address("127.0.0.1"), free_port())])
    udp.close()
    it = listener.Listener([server], waiting := Waiting())
    with closing(it), server, socket.create_connection(server.getsockname(), 5) as sock:
        yield waiting, it, sock


def turns(it: listener.Listener, now: float, until: Callable[[], bool] = lambda: False) -> None:
    """Until then, or until nothing has happened for a moment."""
    for _ in range(200):
        if until() or not (it.deadline() == 0.0 or select.select([it], [], [], 0.1)[0]):
            return
        it.serve(now)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_who_asks_no_more_has_all_answers(monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """The control forgets what it has read and not asked: more than may be under way, when all are answered at once."""
    if guard == "out":
        over = property(lambda connection: connection.ended and not connection.asking and not connection.unsent)
        monkeypatch.setattr(listener._Connection, "over", over)
    count = listener.MAX_PIPELINED + 6
    with listening() as (waiting, it, sock):
        sock.sendall(framed(*(dns.message.make_query("plain.bob.example", "A", id=n).to_wire() for n in range(count))))
        sock.shutdown(socket.SHUT_WR)
        turns(it, 0.0, lambda: len(waiting.replies) == listener.MAX_PIPELINED)
        waiting.answer(1)
        turns(it, 0.0)
        assert len(waiting.replies) == listener.MAX_PIPELINED
        while waiting.replies:
            waiting.answer(listener.MAX_PIPELINED)
            turns(it, 0.0)
        sock.settimeout(0.5)
        with sock.makefile("rb") as stream:
            lengths = iter(lambda: int.from_bytes(stream.read(2), "big"), 0)
            answers = [stream.read(length)[:2] for length in lengths]
    assert len(answers) == (count if guard == "in" else listener.MAX_PIPELINED + 1)


@pytest.mark.parametrize(("answered", "lives"), [(True, True), (False, False)])
def test_an_answer_is_a_sign_of_life(answered: bool, lives: bool) -> None:
    """Control: without one the connection is closed after its time."""
    with listening() as (waiting, it, sock):
        sock.sendall(framed(dns.message.make_query("plain.bob.example", "A").to_wire()))
        turns(it, 0.0, lambda: bool(waiting.replies))
        if answered:
            waiting.answer(1)
            it.serve(listener.IDLE - 1)
            assert read_framed(sock)
        it.serve(listener.IDLE + 1)
        sock.settimeout(0.2)
        if lives:
            with pytest.raises(TimeoutError):
                sock.recv(1)
            it.serve(2 * listener.IDLE)
        assert sock.recv(1) == b""


@pytest.mark.parametrize("guard", ["in", "out"])
def test_no_more_connections_than_are_allowed(signed: SignedWorld, monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """ATTACKS row 45.  With another bound the control has an answer on one more."""
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 3 if guard == "in" else 4)
    monkeypatch.setattr(listener, "IDLE", 0.5)
    query = framed(dns.message.make_query("plain.bob.example", "A").to_wire())
    with resolving(trusting(signed), Node(), NAMES.__contains__) as it:
        held = [socket.create_connection(("127.0.0.1", it.port), 5) for _ in range(4)]
        for sock in held[:3]:
            sock.sendall(query)
            assert read_framed(sock)
        if guard == "out":
            held[3].sendall(query)
            assert read_framed(held[3])
        else:
            assert held[3].recv(1) == b""
        # Idle, they are closed, and there is room again.
        start = time.monotonic()
        assert held[0].recv(1) == b""
        assert 0.3 < time.monotonic() - start < 5
        assert it.ask("plain.bob.example", tcp=True).answer
        for sock in held:
            sock.close()


@pytest.mark.parametrize("octets", [b"\xff\xff" + b"x" * 70000, framed(b"x"), framed(b"\0\0\x80\0" + bytes(8))])
def test_a_connection_that_says_nonsense_is_closed(shared: Resolver, octets: bytes) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), 5) as sock:
        try:
            sock.sendall(octets)
            assert sock.recv(100) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert shared.ask("plain.bob.example").answer


@pytest.mark.parametrize("guard", ["in", "out"])
def test_no_more_questions_under_way_than_are_allowed(
    signed: SignedWorld, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """ATTACKS row 45.  Without the bound, the control, all of them wait."""
    monkeypatch.setattr(front, "MAX_QUESTIONS", 10 if guard == "in" else 1000)
    with (
        resolving(trusting(signed), Node(), NAMES.__contains__) as it,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock,
    ):
        sock.settimeout(2 if guard == "in" else 0.5)
        for _ in range(30):
            sock.sendto(dns.message.make_query("mute.alice.example", "A").to_wire(), ("127.0.0.1", it.port))
        if guard == "out":
            with pytest.raises(TimeoutError):
                sock.recv(4096)
            return
        refused = [dns.message.from_wire(sock.recv(4096)) for _ in range(20)]
        assert {answer.rcode() for answer in refused} == {dns.rcode.SERVFAIL}
        assert eventually(lambda: it.node.asked, 5)
        assert len(it.node.asked) == 1


@pytest.mark.parametrize(("sockets", "prompt"), [("512", True), ("16", False)])
def test_names_that_the_upstream_never_answers_delay_no_other(
    signed: SignedWorld, monkeypatch: pytest.MonkeyPatch, sockets: str, prompt: bool
) -> None:
    """Two hundred at once, and again; the control: with the library's own 16 sockets, others wait or are given up."""
    monkeypatch.setattr(unbound, "OPTIONS", tuple({**dict(unbound.OPTIONS), "outgoing-range": sockets}.items()))

    def answer(octets: bytes) -> bytes:
        if b"\4mute" in octets:
            return b""
        return dns.query.tcp(dns.message.from_wire(octets), signed.address, port=signed.port, timeout=5).to_wire()

    with Upstream(answer) as port, closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        configuration = Configuration(str(signed.anchor_path), forward=(f"127.0.0.1@{port}",), timeout=3.0)
        with resolving(configuration, Node(), NAMES.__contains__) as it:
            assert it.ask("plain.bob.example").answer
            found = []
            types = iter(TYPES)
            for turn in range(3):
                for number in range(200):
                    query = dns.message.make_query(f"n{turn}-{number}.mute.bob.example", "A")
                    sock.sendto(query.to_wire(), ("127.0.0.1", it.port))
                for wait in (0.1, 1.0):
                    time.sleep(wait)
                    start = time.monotonic()
                    # Something that nobody has asked for yet.
                    answered = bool(it.ask("types.bob.example", next(types), payload=4096).answer)
                    found.append(answered and time.monotonic() - start < 1.0)
            assert all(found) is prompt
