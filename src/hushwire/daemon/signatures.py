"""How long what is published will be believed: the RRSIGs that came with validated answers (RFC 4035 s5.3.3)."""

import select
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import dns.exception
import dns.message
import dns.rdatatype

from hushwire.daemon.unbound import Configuration, Validator, read_anchors
from hushwire.events import Answered, Lookup, Outcome

DS, DNSKEY = 43, 48


@dataclass(frozen=True, slots=True)
class Signature:
    """When a signed record set stops being believed, unless its zone is signed anew."""

    owner: str
    """As written in zone files."""
    covered: str
    """The type that is signed, by its mnemonic."""
    signer: str
    """The zone."""
    expires: float
    """Wall time."""
    original_ttl: int
    """Seconds: the TTL in the zone, whatever is left of it in a cache (RFC 4034 s3.1.4)."""

    def __str__(self) -> str:
        return f"{self.covered} of {self.owner}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a validator says of questions, and how long it will."""

    answers: list[Answered]
    """In the order of the questions."""
    chain: list[Answered]
    """About the DNSKEY and the DS of the zones that signed them."""
    signatures: tuple[Signature, ...]
    """Over any of it, what ends soonest first.  Anybody on the path may add one that is none, so each counts."""


def read_signed(configuration: Configuration, questions: Sequence[Lookup]) -> Reading:
    """Ask, and ask for the DNSKEY and the DS of the zones that signed.

    They are often signed elsewhere and at other times, and without them nothing below is believed.
    """
    answers, found = resolve_signed(configuration, questions)
    anchors = (*configuration.anchors, *(read_anchors(configuration.anchor_file) if configuration.anchor_file else ()))
    trusted = {anchor.split()[0].lower() for anchor in anchors}
    chain: list[Answered] = []
    if zones := sorted({signature.signer for signature in found if signature.signer != "."}):
        # What is trusted by itself need have nobody above it who vouches for it.
        links = [(zone, DNSKEY) for zone in zones] + [(zone, DS) for zone in zones if zone not in trusted]
        chain, more = resolve_signed(configuration, [Lookup(0, zone.removesuffix("."), link) for zone, link in links])
        found |= more
    return Reading(answers, chain, tuple(sorted(found, key=lambda signature: signature.expires)))


def resolve_signed(configuration: Configuration, questions: Sequence[Lookup]) -> tuple[list[Answered], set[Signature]]:
    """Ask and wait: the answers in the order of the questions, and the signatures that came with them."""
    answers: dict[int, Answered] = {}
    with closing(_Collector(configuration)) as validator:
        for number, question in enumerate(questions):
            validator.ask(Lookup(number, question.name, question.rdtype), time.monotonic())
        while (deadline := validator.deadline()) is not None:
            select.select([validator], [], [], max(0.0, deadline - time.monotonic()))
            answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
        return [answers[number] for number in range(len(questions))], validator.found


class _Collector(Validator):
    """Keeps the signatures of what it judged secure."""

    def __init__(self, configuration: Configuration) -> None:
        self.found: set[Signature] = set()
        super().__init__(configuration)

    def _judge(self, lookup: Lookup, result: Any) -> Answered:
        answer = super()._judge(lookup, result)
        if answer.outcome in (Outcome.SECURE, Outcome.DENIED):
            octets = bytes(self._ffi.buffer(result.answer_packet, result.answer_len))
            try:
                self.found |= set(_signatures(dns.message.from_wire(octets)))
            except (dns.exception.DNSException, ValueError):
                return replace(answer, outcome=Outcome.ERROR, rdata=(), ttl=0, reason="its signatures cannot be read")
        return answer


def _signatures(message: dns.message.Message) -> Iterable[Signature]:
    for rrset in (*message.answer, *message.authority):
        if rrset.rdtype == dns.rdatatype.RRSIG:
            for rrsig in rrset:
                covered = dns.rdatatype.to_text(rrsig.type_covered)
                yield Signature(
                    rrset.name.to_text(), covered, rrsig.signer.to_text(), float(rrsig.expiration), rrsig.original_ttl
                )
