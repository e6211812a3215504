"""The resolver's process: Lookup in, Answered out.  Unprivileged; the only one that holds libunbound."""

import select
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.daemon.unbound import Configuration, Validator
from hushwire.events import Answered, Lookup


def main(channel: Channel, configuration: Configuration, confine: Callable[[], None] = lambda: None) -> None:
    """Answer questions until the other end closes.

    `confine` drops privileges and enters the sandbox: after the library and the trust anchor are read, before the first
    question makes the library start its thread, which so inherits the sandbox.
    """
    validator = Validator(configuration)
    try:
        confine()
        _serve(channel, validator)
    except ChannelClosed:
        # The parent is gone or wants us gone, and nobody waits for an answer.
        return
    finally:
        validator.close()


def resolve(configuration: Configuration, questions: Sequence[Lookup]) -> list[Answered]:
    """Ask and wait, for the command line: the answers in the order of the questions.  The timeout bounds it."""
    answers: dict[int, Answered] = {}
    with closing(Validator(configuration)) as validator:
        for question in questions:
            validator.ask(question, time.monotonic())
        while (deadline := validator.deadline()) is not None:
            select.select([validator], [], [], max(0.0, deadline - time.monotonic()))
            answers |= {answer.request: answer for answer in validator.answered(time.monotonic())}
    return [answers[question.request] for question in questions]


def _serve(channel: Channel, validator: Validator) -> None:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(validator, select.POLLIN)
    while True:
        deadline = validator.deadline()
        poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        for question in channel.receive():
            if isinstance(question, Lookup):
                validator.ask(question, time.monotonic())
        for answer in validator.answered(time.monotonic()):
            channel.send(answer)
