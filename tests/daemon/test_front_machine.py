"""Whatever comes in whatever order: everybody is told something, once and in time, and no address but what may be."""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from struct import pack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hushwire.daemon import front
from hushwire.daemon.front import PATIENCE, REMEMBERED, REMEMBERED_LEAST, Front
from hushwire.daemon.unbound import Fetched
from hushwire.events import Asked, Release, Verdict
from hushwire.names import message
from hushwire.names.message import AAAA, ANY, CNAME, HTTPS, IN, A, Question, Record

QUESTIONS, KNOWN, OCTETS = 3, 4, 8192
"""Bounds so narrow that they are met."""
RULED = [b"\x02r%d\x00" % number for number in range(8)]
NAMES = [*RULED, *RULED[:1] * 8, b"\x05plain\x00", b"\x05quiet\x00", b"\x03a b\x02r0\x00"]
"""Rules speak of those with an r, one of which is asked for more often; the last is no host's."""
ADDRESSES = [IPv4Address(f"192.0.2.{number}") for number in range(3)]


KINDS = ("address", "address", "address", "alias", "alias", "none", "bogus", "nothing", "nonsense")
"""What the upstream says."""


class Conversation(RuleBasedStateMachine):
    """Programs, the upstream and the node, each in its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.told: list[Asked] = []
        self.fetches: list[tuple[Question, Callable[[Fetched], None]]] = []
        self.waiting: dict[int, float] = {}
        """Who asked and was not told, and when it asked."""
        self.number = 0
        self.word: dict[str, tuple[Release, float]] = {}
        """What the node said last of each name in time, and until when that may be used."""
        self.front = Front(lambda name: "r" in name, self.fetch, self.told.append)

    def fetch(self, question: Question, now: float, take: Callable[[Fetched], None]) -> None:
        self.fetches.append((question, take))

    @rule(
        name=st.sampled_from(NAMES),
        rdtype=st.sampled_from((A, A, A, AAAA, AAAA, AAAA, HTTPS, ANY)),
        flags=st.sampled_from((message.RD, message.RD | message.CD)),
        dnssec=st.booleans(),
        udp=st.booleans(),
    )
    def ask(self, name: bytes, rdtype: int, flags: int, dnssec: bool, udp: bool) -> None:
        self.number += 1
        self.waiting[self.number] = self.now
        opt = b"\0" + pack("!2HIH", message.OPT, 1232, 0x8000 * dnssec, 0)
        octets = pack("!6H", self.number, flags, 1, 0, 0, 1) + name + pack("!2H", rdtype, IN) + opt
        self.front.ask(octets, udp, partial(self.reply, self.number, Question(name, rdtype, IN)), self.now)

    @rule(octets=st.binary(max_size=40))
    def ask_nonsense(self, octets: bytes) -> None:
        self.front.ask(octets, True, lambda reply: None, self.now)

    @precondition(lambda self: self.told)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(Verdict),
        addresses=st.lists(st.sampled_from(ADDRESSES), max_size=2),
        ttl=st.sampled_from((0, 1, 2, 60)),
    )
    def release(self, data: st.DataObject, verdict: Verdict, addresses: list[IPv4Address], ttl: int) -> None:
        asked = data.draw(st.sampled_from(self.told[-8:]))
        said = Release(asked.request, verdict, tuple(addresses) if verdict is Verdict.ONLY else (), ttl, "so it says")
        if asked.request in self.front._asked:
            lasting = max(REMEMBERED_LEAST, min(REMEMBERED, ttl or REMEMBERED))
            self.word[asked.name] = (said, self.now + lasting)
        self.front.release(said, self.now)

    @precondition(lambda self: self.fetches)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def answer(self, data: st.DataObject, kind: str) -> None:
        question, take = self.fetches.pop(data.draw(st.integers(0, len(self.fetches) - 1)))
        address = data.draw(st.sampled_from(ADDRESSES)).packed
        ttl = data.draw(st.sampled_from((0, 1, 300)))
        records = [Record(question.name, A, IN, ttl, address)] * (kind in ("address", "bogus"))
        if kind == "alias":
            end = data.draw(st.sampled_from(NAMES))
            records = [Record(question.name, CNAME, IN, ttl, end), Record(end, A, IN, ttl, address)]
        packet = pack("!6H", 0, message.QR | 3 * (kind == "none"), 0, len(records), 0, 0)
        for each in records:
            packet += each.owner + pack("!2HIH", each.rdtype, IN, each.ttl, len(each.rdata)) + each.rdata
        if kind == "nothing":
            packet = b""
        elif kind == "nonsense":
            packet = data.draw(st.binary(max_size=40))
        take(Fetched(packet, secure=kind != "bogus", bogus=kind == "bogus", reason=kind))

    @rule(seconds=st.sampled_from((0.1, 0.9, 1.1, 3.0, 5.5, PATIENCE)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.front.expire(self.now)

    def reply(self, number: int, question: Question, octets: bytes) -> None:
        del self.waiting[number]
        answer = message.read_answer(octets, False)
        addresses = [record for record in answer.answer if record.rdtype in (A, AAAA)]
        if question.rdtype not in (A, AAAA):
            assert not any(b"r" in record.owner for record in addresses), "an address for which nobody waited"
            return
        aliases, _ = message.chain(question, answer)
        ruled = next((name for name in (question.name, *(alias.rdata for alias in aliases)) if b"r" in name), None)
        if addresses and ruled is not None:
            said, until = self.word[message.presentation(ruled).removesuffix(".")]
            assert until > self.now, "the node's word holds no more"
            told = {record.rdata for record in addresses}
            assert said.verdict is Verdict.PASS or told <= {address.packed for address in said.addresses}

    @invariant()
    def everybody_is_told_in_time(self) -> None:
        assert len(self.waiting) == self.front._waiting
        assert all(since + PATIENCE > self.now for since in self.waiting.values())
        end = self.front.deadline()
        assert (end is None) is not bool(self.waiting)
        assert end is None or end <= min(self.waiting.values()) + PATIENCE

    @invariant()
    def nothing_is_held_that_is_not_bounded(self) -> None:
        it = self.front
        assert max(len(self.waiting), len(it._pending), len(self.fetches)) <= QUESTIONS
        assert len(self.fetches) == it._fetching
        assert max(len(it._known), len(it._captures), len(it._asked)) <= KNOWN
        assert sum(known.octets for known in it._known.values()) == it._octets <= OCTETS

    @invariant()
    def who_waits_waits_for_somebody(self) -> None:
        it = self.front
        for name, capture in it._captures.items():
            assert name == capture.name
            assert not capture.asking or it._asked[capture.asking] is capture
            assert all(it._pending[pending.question] is pending for pending in capture.pending)
        assert {capture.name for capture in it._asked.values()} <= it._captures.keys()
        fetched = {question for question, _ in self.fetches}
        for question, pending in it._pending.items():
            assert pending.capture is None or it._captures[pending.capture.name] is pending.capture
            by_node = pending.capture is not None and pending.capture.asking
            assert by_node or (pending.known is None and question in fetched)


def test_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MAX_QUESTIONS", QUESTIONS)
    monkeypatch.setattr(front, "MAX_KNOWN", KNOWN)
    monkeypatch.setattr(front, "MAX_OCTETS", OCTETS)
    run_state_machine_as_test(Conversation, settings=settings(max_examples=300, stateful_step_count=40))
