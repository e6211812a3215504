"""The daemon's validator and bind(), as a test asks them about the evil world (lab.evil)."""

import time
from collections.abc import Collection
from dataclasses import replace
from select import select

from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import Configuration, Validator
from hushwire.events import Answered, Lookup, Outcome
from hushwire.lab.evil import EvilWorld
from hushwire.names.binding import Binding, Unbound, bind, questions
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
    """As somebody would take it who does not ask whether it is proven."""
    return replace(answer, outcome=Outcome.SECURE if answer.rdata else Outcome.DENIED)
