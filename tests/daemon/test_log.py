"""Log lines: one each, nothing unescaped, no flood."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.daemon.log import LONGEST, MOST_OF_A_KIND, Log
from hushwire.events import Notice


def lines(*notices: Notice, at: float = 0.0) -> list[str]:
    stream = io.StringIO()
    log = Log("node", stream)
    for notice in notices:
        log.notice(notice, at)
    return stream.getvalue().splitlines()


def test_a_line() -> None:
    notice = Notice("ike.established", (("peer", "bob.example"), ("children", 2), ("remote", ""), ("reason", "a b")))
    assert lines(notice) == ['hushwire[node] ike.established peer=bob.example children=2 reason="a b"']


def test_what_an_administrator_should_see_is_marked() -> None:
    assert lines(Notice("name.unbound", grave=True)) == ["hushwire[node] ! name.unbound "]


@given(st.text(max_size=500))
def test_whatever_a_peer_says_it_stays_in_its_place(said: str) -> None:
    """No line of its own, no control character, no other field, no end of its quotes."""
    stream = io.StringIO()
    Log("node", stream).notice(Notice("x", (("a", said), ("b", "end"))), 0.0)
    text = stream.getvalue()
    assert text.count("\n") == 1
    line = text.removesuffix("\n")
    assert line.isascii()
    assert line.isprintable()
    assert line.endswith(" b=end")
    value = line.removeprefix("hushwire[node] x ").removesuffix("b=end").strip()
    assert len(value) <= 12 * (LONGEST + 3) + 4
    if said:
        inner = value.removeprefix("a=")
        assert inner.count('"') in (0, 2)
        if '"' not in inner:
            assert not set(inner) & set(" =")
        else:
            assert inner[0] == inner[-1] == '"'


def test_a_flood_is_counted() -> None:
    stream = io.StringIO()
    log = Log("node", stream)
    for n in range(1000):
        log.notice(Notice("ike.malformed", (("n", n),)), 5.0 + n / 2000)
    log.notice(Notice("ike.closed"), 5.9)
    assert len(stream.getvalue().splitlines()) == MOST_OF_A_KIND + 1
    log.notice(Notice("ike.closed"), 6.0)
    assert (
        stream.getvalue().splitlines()[-2]
        == f"hushwire[node] ike.malformed: {1000 - MOST_OF_A_KIND} more in one second"
    )
    assert log.counts == {"ike.malformed": 1000, "ike.closed": 2}


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_time_that_goes_back_begins_no_second(guard: str) -> None:
    """Row 28.  The control: where it does, each of a stranger's datagrams is a line."""
    stream = io.StringIO()
    log = Log("node", stream)
    for n in range(500):
        for kind, now in (("ike.malformed", 7.5), ("udp.not-sent", 0.0)):
            if guard == "out" and int(now) < log._second:
                log._second = -1
            log.notice(Notice(kind, (("n", n),)), now)
    written = len(stream.getvalue().splitlines())
    assert written == 2 * MOST_OF_A_KIND if guard == "in" else written == 1000


def test_nobody_reads_the_log_any_more() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Log("node", Gone()).notice(Notice("ike.closed"), 0.0)
