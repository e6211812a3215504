"""A keeper or a plane that does not answer holds up an IKE SA for a while and not for ever; timers in order."""

from typing import Any

import pytest

from hushwire.events import InstallSA, Sign
from hushwire.ike.report import Closed

SITUATIONS = {
    "initiator, keeper": ("alice", Sign, False),
    "initiator, plane": ("alice", InstallSA, False),
    "responder, keeper": ("bob", Sign, False),
    "responder, plane": ("bob", InstallSA, False),
    "rekey, initiator": ("alice", InstallSA, True),
    "rekey, responder": ("bob", InstallSA, True),
}


def hold(pair: Any, name: str, kind: type, rekey: bool) -> Any:
    """Come to where one of the two waits for an answer of its own keeper or plane."""
    me = {"alice": pair.alice, "bob": pair.bob}[name]
    pair.initiate()
    if rekey:
        pair.deliver()
        pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    me.held = []
    pair.deliver()
    while not isinstance(me.held[0], kind):
        pair.perform(me, me.held.pop(0))
        pair.deliver()
    return me


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_is_never_answered_is_given_up(pair: Any, situation: str) -> None:
    me = hold(pair, *SITUATIONS[situation])
    held, me.held = me.held, []
    pair.wait(me.settings.patience - 0.1)
    if "responder" not in situation:
        assert me.sas
        assert not me.told(Closed)
    pair.wait(0.2)
    assert not me.sas
    assert me.told(Closed)
    me.held = held
    pair.release(me)
    # What was installed after all is taken out again.
    assert not me.plane


@pytest.mark.parametrize("situation", [each for each in SITUATIONS if "responder" not in each])
def test_what_is_answered_late_is_not_too_late(pair: Any, situation: str) -> None:
    me = hold(pair, *SITUATIONS[situation])
    pair.wait(5)
    pair.release(me)
    pair.deliver()
    assert me.sa
    pair.wait(2 * me.settings.patience)
    assert me.sa.children


def test_what_is_due_at_the_same_time_is_done_in_the_order_it_was_asked_for(pair: Any) -> None:
    """Not by where it lies in memory: a run with the same seed is the same to the octet."""
    spis = [pair.initiate().spi_i for _ in range(50)]
    again: list[bytes] = []
    pair.filter = lambda sender, send: again.append(send.data[:8]) or []
    pair.wire.clear()
    pair.wait(0.6)
    assert again == spis
