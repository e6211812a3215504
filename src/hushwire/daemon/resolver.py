"""The resolver's process: Lookup in, Answered out; and what programs ask, if it listens.

Unprivileged, and the only one that holds libunbound.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.daemon.front import Front, Speaks
from hushwire.daemon.listener import Listener
from hushwire.daemon.unbound import Configuration, Validator
from hushwire.events import Answered, Asked, Lookup, Release


def main(
    channel: Channel,
    configuration: Configuration,
    confine: Callable[[], None] = lambda: None,
    listen: Sequence[socket.socket] = (),
    speaks: Speaks = lambda name: False,
) -> None:
    """Answer questions until the other end closes: those of the channel, and of programs at the sockets `listen`.

    `confine` drops privileges and enters the sandbox: after the library and the trust anchor are read, before the first
    question makes the library start its thread, which so inherits the sandbox.
    """
    validator = Validator(configuration)
    asked: list[Asked] = []
    try:
        confine()
        _serve(channel, validator, Listener(listen, Front(speaks, validator.fetch, asked.append)), asked)
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


def _serve(channel: Channel, validator: Validator, listener: Listener, asked: list[Asked]) -> None:
    """`asked`: where the front puts what the node is to hear."""
    poll = select.poll()
    for each in (channel, validator, listener):
        poll.register(each, select.POLLIN)
    while True:
        deadlines = [each for each in (validator.deadline(), listener.deadline()) if each is not None]
        wait = max(0.0, min(deadlines) - time.monotonic()) * 1000 if deadlines else None
        ready = {descriptor for descriptor, _ in poll.poll(wait)}
        now = time.monotonic()
        if channel.fileno() in ready:
            for said in channel.receive():
                if isinstance(said, Lookup):
                    validator.ask(said, now)
                elif isinstance(said, Release):
                    listener.front.release(said, now)
        # Before the upstreams' answers: the front judges by the time whether a Release still holds.
        listener.front.expire(now)
        answers = validator.answered(now)
        listener.serve(now)
        # In one packet, which is one step of the node's.  It may take a while to be taken: the node always reads.
        channel.send(*answers, *asked)
        asked.clear()
