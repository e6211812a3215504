"""The daemon's validator and bind(), as a test asks them about the evil world (lab.evil)."""

import itertools
import time
from collections.abc import Collection
from dataclasses import replace
from select import select

from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import Configuration, Validator
from hushwire.entropy import SeededEntropy
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab.evil import EvilWorld
from hushwire.names.binding import AAAA, A, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY, read_records, write_record
from hushwire.names.lookup import NameLookup
from hushwire.names.tlsa import TLSA
from hushwire.timers import Now
from hushwire.wire.address import IPAddress


def trusting(world: EvilWorld, timeout: float = 5.0) -> Configuration:
    """What makes a Validator believe this world's root."""
    return Configuration("", (world.anchor,), (world.forward,), timeout=timeout)


def ask(validator: Validator, *lookups: Lookup) -> list[Answered]:
    """The answers, in the order of the questions; the validator's timeout bounds it."""
    answers: dict[int, Answered] = {}
    for number, lookup in enumerate(lookups):
        validator.ask(replace(lookup, request=number), time.monotonic())
    while (deadline := validator.deadline()) is not None:
        select([validator], [], [], max(0.0, deadline - time.monotonic()))
        answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
    return [answers[number] for number in range(len(lookups))]


def answers(world: EvilWorld, name: str, timeout: float = 5.0) -> list[Answered]:
    """What bind() wants to know of a name, from a validator without a past."""
    lookups = [Lookup(number, owner, rdtype) for number, (owner, rdtype) in enumerate(questions(name))]
    return resolve(trusting(world, timeout), lookups)


def found(
    name: str, a: Answered, aaaa: Answered, ipseckey: Answered, tlsa: Answered, own: Collection[IPAddress] = ()
) -> Binding | Unbound:
    """The Binding, or why there is none."""
    try:
        return bind(name, a, aaaa, ipseckey, tlsa, own)
    except Unbound as unbound:
        return unbound


def believed(answer: Answered) -> Answered:
    """As somebody would take it who does not ask whether it is proven.  An error is no answer, to nobody."""
    if answer.outcome is Outcome.ERROR:
        return answer
    return replace(answer, outcome=Outcome.SECURE if answer.rdata else Outcome.DENIED)


def watched(world: EvilWorld, name: str) -> NameLookup:
    """A name as a Node keeps it, after all that it asked at first and when its time was over."""
    watch, now = NameLookup(name, itertools.count().__next__, SeededEntropy(b"")), Now(0.0, time.time())
    lookups = watch.start(now)
    for _ in range(2):
        for answer in resolve(trusting(world), lookups):
            watch.answered(answer, now)
        now = Now(watch.deadline(), now.wall)
        lookups, _ = watch.timeout(now)
    return watch


def bind_by_gateway(watch: NameLookup, answers: dict[int, Answered]) -> Binding:
    """In the place of NameLookup's own, with the guard out: who the preferred record calls the gateway is the peer.

    A gateway that is a name is asked for in the next round (RFC 4025 s2.5).
    """
    records, _ = read_records(answers[IPSECKEY].rdata)
    gateway = records[0].gateway if records else None
    if isinstance(gateway, str) and answers[A].name != gateway:
        watch._questions = ((gateway, A), (gateway, AAAA), *watch._questions[2:])
        raise Unbound(watch.name, "its gateway is to be asked for", Outcome.ERROR)
    led = answers | {rdtype: replace(answers[rdtype], name=watch.name, canonical="") for rdtype in (A, AAAA)}
    if gateway is not None and not isinstance(gateway, str):
        rdtype = A if gateway.version == 4 else AAAA
        led[rdtype] = replace(led[rdtype], rdata=(gateway.packed,))
    keys = tuple(write_record(replace(record, gateway=None)) for record in records)
    ipseckey = replace(answers[IPSECKEY], rdata=keys)
    return bind(watch.name, led[A], led[AAAA], ipseckey, led.get(TLSA), watch.own)
