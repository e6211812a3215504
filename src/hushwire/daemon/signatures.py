"""How long what is published will be believed: the RRSIGs that came with validated answers (RFC 4035 s5.3.3)."""

import select
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.message
import dns.rdatatype

from hushwire.daemon.unbound import Configuration, Validator
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

    def __str__(self) -> str:
        return f"{self.covered} of {self.owner}"


def resolve_signed(
    configuration: Configuration, questions: Sequence[Lookup]
) -> tuple[list[Answered], tuple[Signature, ...]]:
    """Answers in the order of the questions, and what expires first in each chain's last link, soonest first.

    Also asked for are the DNSKEY and the DS of the zones that signed: they are often signed elsewhere and at other
    times, and without them nothing below is believed.
    """
    answers, found = _resolve(configuration, questions)
    zones = sorted({signature.signer for signature in found if signature.signer != "."})
    chain = [Lookup(0, zone.removesuffix("."), rdtype) for zone in zones for rdtype in (DNSKEY, DS)]
    if chain:
        found |= _resolve(configuration, chain)[1]
    # Of several signatures over one set the latest counts: one good one is enough (RFC 4035 s5.3.3).
    latest: dict[tuple[str, str], Signature] = {}
    for signature in found:
        key = (signature.owner, signature.covered)
        if key not in latest or latest[key].expires < signature.expires:
            latest[key] = signature
    return answers, tuple(sorted(latest.values(), key=lambda signature: signature.expires))


class _Collector(Validator):
    """Keeps the signatures of what it judged secure."""

    def __init__(self, configuration: Configuration) -> None:
        self.found: set[Signature] = set()
        super().__init__(configuration)

    def _judge(self, lookup: Lookup, result: Any) -> Answered:
        answer = super()._judge(lookup, result)
        if answer.outcome in (Outcome.SECURE, Outcome.DENIED):
            octets = bytes(self._ffi.buffer(result.answer_packet, result.answer_len))
            # The library made this message of what it validated; should we not read it, we know of no signature.
            with suppress(dns.exception.DNSException, ValueError):
                self.found |= set(_signatures(dns.message.from_wire(octets)))
        return answer


def _signatures(message: dns.message.Message) -> Iterable[Signature]:
    for rrset in (*message.answer, *message.authority):
        if rrset.rdtype == dns.rdatatype.RRSIG:
            for rrsig in rrset:
                covered = dns.rdatatype.to_text(rrsig.type_covered)
                yield Signature(rrset.name.to_text(), covered, rrsig.signer.to_text(), float(rrsig.expiration))


def _resolve(configuration: Configuration, questions: Sequence[Lookup]) -> tuple[list[Answered], set[Signature]]:
    answers: dict[int, Answered] = {}
    with closing(_Collector(configuration)) as validator:
        for number, question in enumerate(questions):
            validator.ask(Lookup(number, question.name, question.rdtype), time.monotonic())
        while (deadline := validator.deadline()) is not None:
            select.select([validator], [], [], max(0.0, deadline - time.monotonic()))
            answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
        return [answers[number] for number in range(len(questions))], validator.found
